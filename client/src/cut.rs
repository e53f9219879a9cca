//! Cutting a plan into pages and chunks, reading every source once.
//!
//! Small files share chunks; a file of at least a chunk starts one of its own, so that its
//! chunks lie at multiples of the chunk length. A page is full at 2 MiB of content or at
//! the length that a page may have. It leaves the base only as a whole, so the first ones are
//! shorter, and those of a job with a rate cap have what goes within a quarter of a second.

mod chunk;
mod digest;
mod live;
mod page;
mod source;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use shared::id::JobId;
use shared::limit;
use shared::manifest::{ChainError, Entry, Manifest, ObjectKind, Page, PageBytes, PageSummary};

use crate::tree::Plan;

pub use live::LiveCutter;

use chunk::ChunkDraft;
use digest::JobDigest;
use page::PageDraft;
use source::Source;

/// Content of the first page, bytes; each page behind it has twice as much until they are full.
const FIRST_CONTENT: u64 = 64 * 1024;
const DOUBLINGS: u32 = (limit::PAGE_CONTENT_AIM / FIRST_CONTENT).ilog2();
/// Pages of a job with a rate cap: what they wait for to be whole is on the way no longer.
const PAGES_PER_SECOND: u64 = 4;

/// Why cutting cannot go on. The job has failed.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Size, modification time or kind of a source changed after the plan was made.
    #[error("{path:?} changed while it was pushed; push again when nothing changes it")]
    Changed {
        /// The source.
        path: PathBuf,
    },
    /// A source is gone.
    #[error("{path:?} vanished while it was pushed; push again when nothing changes it")]
    Vanished {
        /// The source.
        path: PathBuf,
    },
    /// A source cannot be read.
    #[error("cannot read {path:?}: {reason}")]
    Unreadable {
        /// The source.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// The content exceeds what a job may have.
    #[error("the content does not fit into one job: {0}")]
    Manifest(#[from] ChainError),
}

/// A page with the chunks that it describes, in order.
#[derive(Debug, Clone)]
pub struct CutPage {
    /// The page as it is sent: a draft, which the base signs.
    pub page: PageBytes,
    /// The same page, decoded.
    pub page_decoded: Page,
    /// What the manifest says of it.
    pub summary: PageSummary,
    /// The payload of each of its chunks; at most 2 MiB and one chunk together.
    pub chunks: Vec<Bytes>,
}

/// Cuts a plan. Reads files and so blocks: drive it from a thread that may.
#[derive(Debug)]
pub struct Cutter {
    plan: Plan,
    next_entry: usize,
    next_object: u32,
    chunk_max: usize,
    manifest: Manifest,
    content_aim: u64,
    page: PageDraft,
    chunk: ChunkDraft,
    source: Option<Source>,
    digest: JobDigest,
    ended: bool,
}

impl Cutter {
    /// Cuts `plan` for `job`, whose chunks have at most `chunk_max` bytes, and which may use
    /// `rate_bps` bits per second, if that is capped.
    pub fn new(plan: Plan, job: JobId, chunk_max: u32, rate_bps: Option<u64>) -> Self {
        let at_rate = rate_bps.map_or(u64::MAX, |rate| rate / 8 / PAGES_PER_SECOND);
        Self {
            plan,
            next_entry: 0,
            next_object: 0,
            chunk_max: usize::try_from(chunk_max).unwrap_or(usize::MAX).max(1),
            manifest: Manifest::new(job, chunk_max),
            content_aim: at_rate.clamp(FIRST_CONTENT, limit::PAGE_CONTENT_AIM),
            page: PageDraft::default(),
            chunk: ChunkDraft::default(),
            source: None,
            digest: JobDigest::default(),
            ended: false,
        }
    }

    /// What is cut.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Cuts the same plan for the same job from its beginning.
    pub fn begin_again(self) -> Self {
        let chunk_max = u32::try_from(self.chunk_max).unwrap_or(u32::MAX);
        let content_aim = self.content_aim;
        Self { content_aim, ..Self::new(self.plan, self.manifest.job(), chunk_max, None) }
    }

    /// Content bytes of the pages that were handed out.
    pub const fn content(&self) -> u64 {
        self.manifest.content()
    }

    /// The next page with its chunks; `None` behind the last one, which ends the log.
    ///
    /// # Errors
    /// [`CutError`] if a source is not what it was when the plan was made, or the content
    /// exceeds a limit. Nothing more comes after an error.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results reads worse")]
    pub fn next(&mut self) -> Result<Option<CutPage>, CutError> {
        if self.ended {
            return Ok(None);
        }
        let page = self.cut_page();
        self.ended |= page.is_err();
        page.map(Some)
    }

    fn cut_page(&mut self) -> Result<CutPage, CutError> {
        let content_aim = self.next_content_aim();
        while !self.page.is_full(&self.chunk, content_aim) {
            if self.source.is_some() {
                self.read_on()?;
            } else if !self.open_next()? {
                self.flush_chunk();
                let content_len = self.manifest.content().saturating_add(self.page.content());
                self.page.push(Entry::End { content_len, digest: self.digest.finish() });
                self.ended = true;
                break;
            }
        }
        self.flush_chunk();
        self.check_source()?;
        let (entries, chunks) = std::mem::take(&mut self.page).into_parts();
        let page_decoded = self.manifest.next_page(entries);
        let page = page_decoded.draft();
        let summary = self.manifest.accept(&page_decoded, &page)?;
        Ok(CutPage { page, page_decoded, summary, chunks })
    }

    /// Twice the content of the page before, up to what a page is to have.
    fn next_content_aim(&self) -> u64 {
        let doublings = self.manifest.pages().min(DOUBLINGS);
        (FIRST_CONTENT << doublings).min(self.content_aim)
    }

    /// Looks at a source that goes on beyond the page: one that changes at its beginning
    /// should not be sent to its end first.
    fn check_source(&self) -> Result<(), CutError> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        self.plan.entry(source.index()).map_or(Ok(()), |entry| source.check(&entry))
    }

    /// Opens the next entry of the plan; `false` if there is none.
    fn open_next(&mut self) -> Result<bool, CutError> {
        let Some(entry) = self.plan.entry(self.next_entry) else {
            return Ok(false);
        };
        let object = self.next_object;
        let is_file = entry.attributes.kind == ObjectKind::File;
        let large = entry.size >= u64::try_from(self.chunk_max).unwrap_or(u64::MAX);
        let opened =
            Entry::Open { object, name: entry.name.to_owned(), attributes: entry.attributes };
        if is_file {
            let index = self.next_entry;
            self.source = Some(Source::open(&entry, object, index)?);
        }
        if is_file && large {
            self.flush_chunk();
        }
        self.page.push(opened);
        if !is_file {
            self.chunk.close_directory(object);
            self.flush_empty_chunk();
        }
        self.next_entry += 1;
        self.next_object += 1;
        Ok(true)
    }

    /// Reads on in the open source: to its end or until the chunk is full.
    fn read_on(&mut self) -> Result<(), CutError> {
        let Some(source) = &mut self.source else {
            return Ok(());
        };
        let Some(entry) = self.plan.entry(source.index()) else {
            return Ok(());
        };
        let ended = source.read(&entry, &mut self.chunk, self.chunk_max)?;
        if ended && let Some(source) = self.source.take() {
            self.chunk.close_file(source);
        }
        if self.chunk.len() >= self.chunk_max {
            self.flush_chunk();
        }
        self.flush_empty_chunk();
        Ok(())
    }

    /// Objects that wait for no chunk are closed at once.
    fn flush_empty_chunk(&mut self) {
        if self.chunk.len() == 0 {
            self.flush_chunk();
        }
    }

    fn flush_chunk(&mut self) {
        let flushed = self.chunk.flush(self.source.as_mut());
        if let Some((entry, bytes)) = flushed.chunk {
            self.page.push_chunk(entry, bytes);
        }
        for closed in flushed.closed {
            if let Some(index) = closed.index
                && let Some(entry) = self.plan.entry(index)
            {
                self.digest.add(entry.name, &closed.digest);
            }
            self.page.push(Entry::Close {
                object: closed.object,
                len: closed.len,
                digest: closed.digest,
            });
        }
    }
}

#[cfg(test)]
mod tests;
