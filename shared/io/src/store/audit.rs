//! The audit of a start: which pages are whole and fit together, and whether the bytes of the
//! chunks that the journal vouches for are still there.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use shared::chunk_set::ChunkSet;
use shared::job::JobObject;
use shared::limit;
use shared::manifest::{Entry, Manifest, ObjectKind, Page, PageBytes, Slice};

use super::folder::{Files, is_file, size};
use super::index::PageIndex;
use super::job_store::{Place, TAG_SIGNED};
use super::live::Marks;
use super::record::{Next, Scanner};
use super::{JobStore, PageView, StoreError};

/// What comes of reading all pages.
#[derive(Debug)]
pub(super) struct Audit<'a> {
    store: &'a JobStore,
    notes: &'a mut Vec<String>,
    /// Where the pages are.
    pub(super) index: PageIndex,
    /// What they say.
    pub(super) manifest: Manifest,
    /// Chunks that are there, once the audit is over.
    pub(super) held: ChunkSet,
    /// Runs of chunks whose bytes are gone.
    lost: Vec<(u64, u64)>,
    /// Runs `(first, end)` of chunks that nobody needs any more.
    void: Vec<(u64, u64)>,
    /// Objects that are open at this point of the log.
    open: BTreeMap<u32, Extent>,
    /// Live objects that are to go on: some of their bytes are not durable, or they are open.
    pub(super) live: BTreeMap<u32, LiveExtent>,
    /// Bytes of the spool.
    spool: u64,
}

/// What must be there of an object.
#[derive(Debug, Default)]
struct Extent {
    name: String,
    is_live: bool,
    bytes: u64,
    /// Of a live object: what a gap separates from the bytes before, by offset, with its end and
    /// its chunk. A chunk that was cut anew may close the gap further on in the log.
    ahead: BTreeMap<u64, (u64, u64)>,
    runs: Vec<(u64, u64)>,
    marks: Marks,
}

impl Extent {
    fn close_gaps(&mut self) {
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() <= self.bytes
        {
            let (end, _) = entry.remove();
            self.bytes = self.bytes.max(end);
        }
    }
}

/// A live object that is to go on.
#[derive(Debug)]
pub(super) struct LiveExtent {
    pub(super) name: String,
    /// Bytes that are durable.
    pub(super) durable: u64,
    /// Its length, if the log has closed it.
    pub(super) closed: Option<u64>,
    /// Where readers may start.
    pub(super) marks: Marks,
}

impl<'a> Audit<'a> {
    /// Reads `pages.log` as far as it is whole and fits together, cuts off the rest, and sees
    /// what of `journalled` is there. What is damaged is named in `notes`.
    pub(super) fn run(
        store: &'a JobStore,
        object: &JobObject,
        journalled: ChunkSet,
        notes: &'a mut Vec<String>,
    ) -> Result<Self, StoreError> {
        let spool = match &store.place {
            Place::Files(_) => 0,
            Place::Spool(content) => {
                let path = store.folder.join("content");
                content.metadata().map_err(StoreError::io("look at", &path))?.len()
            }
        };
        let mut audit = Self {
            store,
            notes,
            index: PageIndex::default(),
            manifest: Manifest::new(object.id, object.chunk_max),
            held: journalled,
            lost: Vec::new(),
            void: Vec::new(),
            open: BTreeMap::new(),
            live: BTreeMap::new(),
            spool,
        };
        audit.read_pages()?;
        for (object, extent) in std::mem::take(&mut audit.open) {
            audit.check(object, extent, None)?;
        }
        audit.cut()?;
        Ok(audit)
    }

    fn read_pages(&mut self) -> Result<(), StoreError> {
        let store = self.store;
        let path = store.folder.join("pages.log");
        let fail = |error: io::Error| StoreError::io("read", &path)(error);
        let mut scanner = Scanner::new(&store.pages_log, limit::PAGE_LEN_MAX).map_err(fail)?;
        loop {
            let at = scanner.at();
            let why = match scanner.next().map_err(fail)? {
                Next::End | Next::Torn => return Ok(()),
                Next::Damaged => "its checksum does not hold".to_owned(),
                Next::Record(_, tag, payload) => match self.decode(tag, payload) {
                    Ok((bytes, page)) => {
                        self.accept(&bytes, &page)?;
                        let len = u32::try_from(scanner.at() - at).unwrap_or(u32::MAX);
                        self.take(page, len)?;
                        continue;
                    }
                    Err(why) => why,
                },
            };
            let page = self.index.pages();
            self.notes.push(format!(
                "pages.log: page {page} at byte {at} is not used, nor what follows: {why}"
            ));
            return Ok(());
        }
    }

    /// Decodes a page and sees whether it is the next one.
    fn decode(&self, tag: u8, payload: Vec<u8>) -> Result<(PageBytes, Page), String> {
        let bytes = PageBytes::from_record(Bytes::from(payload), tag == TAG_SIGNED)
            .map_err(|error| error.to_string())?;
        let page = bytes.decode().map_err(|error| error.to_string())?;
        let due = (self.manifest.pages(), self.manifest.chunks(), self.manifest.last_hash());
        // A page that cuts anew may stand in place of the last ones; the manifest sees to it.
        let stands_in = page.recut().is_some() && page.index > self.manifest.pages();
        if stands_in || due == (page.index, page.first_chunk, page.previous) {
            Ok((bytes, page))
        } else {
            Err("it does not follow the page before it".to_owned())
        }
    }

    /// Only pages that the manifest accepted are ever stored, so one that it does not accept
    /// now tells of an error beyond this log, which is left as it is.
    fn accept(&mut self, bytes: &PageBytes, page: &Page) -> Result<(), StoreError> {
        let accepted = self.manifest.accept(page, bytes);
        let refused = |source| StoreError::PageRefused { index: page.index, source };
        accepted.map(drop).map_err(refused)
    }

    fn take(&mut self, page: Page, record_len: u32) -> Result<(), StoreError> {
        let view = PageView::new(Arc::new(page));
        let mut content = self.index.content_before(view.page());
        let mut chunk = view.page().first_chunk;
        self.void.extend(self.index.push(&view, record_len));
        for cut in self.index.cuts().iter() {
            if cut.is_in(&self.held) {
                self.held.insert(cut.chunk);
            }
        }
        for entry in &view.page().entries {
            match entry {
                Entry::Chunk { len, slices, .. } => {
                    content += u64::from(*len);
                    if self.held.contains(chunk) {
                        self.take_chunk(chunk, content, slices);
                    }
                    chunk += 1;
                }
                Entry::Open { object, name, attributes } => {
                    if attributes.kind != ObjectKind::Directory {
                        let is_live = attributes.kind == ObjectKind::Live;
                        let name = name.clone();
                        let extent = Extent { name, is_live, ..Extent::default() };
                        self.open.insert(*object, extent);
                    }
                }
                Entry::Close { object, len, .. } => {
                    if let Some(extent) = self.open.remove(object) {
                        self.check(*object, extent, Some(*len))?;
                    }
                }
                Entry::Sync { object, offset } => {
                    if let Some(extent) = self.open.get_mut(object) {
                        extent.marks.add(*offset, extent.bytes);
                    }
                }
                Entry::End { .. } | Entry::Recut { .. } => {}
            }
        }
        Ok(())
    }

    /// Takes note of what a chunk of the journal, which ends at `content`, needs to be there.
    fn take_chunk(&mut self, chunk: u64, content: u64, slices: &[Slice]) {
        match &self.store.place {
            Place::Spool(_) if content > self.spool => add(&mut self.lost, chunk),
            Place::Spool(_) => {}
            Place::Files(_) => {
                for slice in slices {
                    if let Some(extent) = self.open.get_mut(&slice.object) {
                        let end = slice.offset.saturating_add(u64::from(slice.len));
                        add(&mut extent.runs, chunk);
                        if extent.is_live && slice.offset > extent.bytes {
                            extent.ahead.insert(slice.offset, (end, chunk));
                        } else {
                            extent.bytes = extent.bytes.max(end);
                            extent.close_gaps();
                        }
                    }
                }
            }
        }
    }

    /// Sees whether the bytes of an object are there: in its part, or, if it was closed with
    /// the length `whole`, under its name.
    fn check(&mut self, object: u32, extent: Extent, whole: Option<u64>) -> Result<(), StoreError> {
        let Place::Files(files) = &self.store.place else {
            return Ok(());
        };
        if extent.is_live {
            return self.check_live(files, object, extent, whole);
        }
        if extent.bytes == 0 {
            return Ok(());
        }
        let there = match files.part_stat(object)? {
            Some(part) => is_file(&part) && size(&part) >= extent.bytes,
            None => match files.file_stat(&extent.name) {
                Ok(file) => file.is_some_and(|file| is_file(&file) && Some(size(&file)) == whole),
                Err(StoreError::InTheWay { .. }) => false,
                Err(error) => return Err(error),
            },
        };
        if !there {
            self.notes.push(format!("{:?}: bytes are missing, to be fetched again", extent.name));
            self.lost.extend_from_slice(&extent.runs);
        }
        Ok(())
    }

    /// Sees whether the bytes of a live object are there: in its file, whether it was closed or
    /// not. One that goes on is noted.
    fn check_live(
        &mut self,
        files: &Files,
        object: u32,
        extent: Extent,
        closed: Option<u64>,
    ) -> Result<(), StoreError> {
        let there = match files.file_stat(&extent.name) {
            Ok(file) => file.filter(is_file).map_or(0, |file| size(&file)),
            Err(StoreError::InTheWay { .. }) => 0,
            Err(error) => return Err(error),
        };
        let mut durable = extent.bytes;
        self.lost.extend(extent.ahead.values().map(|(_, chunk)| (*chunk, 1)));
        if there < durable {
            self.notes.push(format!("{:?}: bytes are missing, to be fetched again", extent.name));
            self.lost.extend_from_slice(&extent.runs);
            durable = 0;
        }
        if closed != Some(durable) {
            let Extent { name, marks, .. } = extent;
            self.live.insert(object, LiveExtent { name, durable, closed, marks });
        }
        Ok(())
    }

    /// Cuts off what lies behind the last whole page, and leaves out the chunks that no page
    /// describes or whose bytes are gone.
    fn cut(&mut self) -> Result<(), StoreError> {
        let path = self.store.folder.join("pages.log");
        let cut = self.store.pages_log.set_len(self.index.log_len());
        cut.map_err(StoreError::io("cut", &path))?;
        if matches!(self.store.place, Place::Spool(_)) && !self.lost.is_empty() {
            let (chunks, bytes) = (count(&self.lost), self.spool);
            self.notes.push(format!(
                "content: {chunks} chunks beyond its end at byte {bytes} are missing"
            ));
        }
        let undescribed: Vec<_> = self.held.runs(self.index.chunks()).collect();
        if !undescribed.is_empty() {
            let chunks = count(&undescribed);
            self.notes.push(format!(
                "pages.log: it ends before {chunks} chunks that have.log vouches for"
            ));
            self.lost.extend(undescribed);
        }
        for (first, len) in std::mem::take(&mut self.lost) {
            for chunk in first..first + len {
                self.held.remove(chunk);
            }
        }
        for (first, end) in std::mem::take(&mut self.void) {
            for chunk in first..end {
                self.held.insert(chunk);
            }
        }
        Ok(())
    }
}

/// Adds `chunk` to runs that have none above it.
fn add(runs: &mut Vec<(u64, u64)>, chunk: u64) {
    match runs.last_mut() {
        Some((first, len)) if chunk < *first + *len => {}
        Some((first, len)) if chunk == *first + *len => *len += 1,
        _ => runs.push((chunk, 1)),
    }
}

fn count(runs: &[(u64, u64)]) -> u64 {
    runs.iter().map(|(_, len)| len).sum()
}
