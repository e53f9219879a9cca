//! Where pages, chunks and objects are: some bytes for each page, nothing for each chunk.

use std::sync::Arc;

use shared::chunk_set::ChunkSet;
use shared::manifest::{Entry, ObjectKind, Page, Slice};
use shared::seal::Hash;

/// A decoded page in which a chunk is found at once.
#[derive(Debug)]
pub struct PageView {
    page: Arc<Page>,
    /// Of each chunk: the position of its entry, and of its content in that of the page.
    chunks: Vec<(u32, u64)>,
    content: u64,
}

impl PageView {
    /// Looks through `page` once.
    pub fn new(page: Arc<Page>) -> Self {
        let (mut chunks, mut content) = (Vec::new(), 0u64);
        for (position, entry) in (0..).zip(&page.entries) {
            if let Entry::Chunk { len, .. } = entry {
                chunks.push((position, content));
                content += u64::from(*len);
            }
        }
        Self { page, chunks, content }
    }

    /// The page.
    pub const fn page(&self) -> &Arc<Page> {
        &self.page
    }

    /// Length, hash and slices of chunk `number`, if the page describes it.
    pub fn chunk(&self, number: u64) -> Option<(u32, &Hash, &[Slice])> {
        match self.page.entries.get(self.place(number)?.0 as usize)? {
            Entry::Chunk { len, hash, slices } => Some((*len, hash, slices)),
            _ => None,
        }
    }

    /// Where the chunk's content begins in the content of the page.
    pub(super) fn content_offset(&self, number: u64) -> Option<u64> {
        self.place(number).map(|(_, offset)| offset)
    }

    fn place(&self, number: u64) -> Option<(u32, u64)> {
        let at = usize::try_from(number.checked_sub(self.page.first_chunk)?).ok()?;
        self.chunks.get(at).copied()
    }
}

/// What is kept of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageMeta {
    /// Position of its record in `pages.log`.
    pub(super) record: u64,
    /// Bytes of the record.
    pub(super) record_len: u32,
    /// Objects opened before it.
    pub(super) first_object: u32,
    /// Its first chunk.
    pub(super) first_chunk: u64,
    /// Content bytes before it.
    pub(super) content: u64,
}

/// All pages that are stored, in order.
#[derive(Debug, Default)]
pub(super) struct PageIndex {
    metas: Vec<PageMeta>,
    chunks: u64,
    content: u64,
    objects: u32,
    log_len: u64,
    ended: bool,
    directory_pages: ChunkSet,
}

impl PageIndex {
    pub(super) fn pages(&self) -> u32 {
        u32::try_from(self.metas.len()).unwrap_or(u32::MAX)
    }

    /// Chunks described.
    pub(super) const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Content bytes described.
    pub(super) const fn content(&self) -> u64 {
        self.content
    }

    /// Objects opened.
    pub(super) const fn objects(&self) -> u32 {
        self.objects
    }

    /// Bytes of `pages.log`.
    pub(super) const fn log_len(&self) -> u64 {
        self.log_len
    }

    /// Whether the log's end is among the pages.
    pub(super) const fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn meta(&self, index: u32) -> Option<PageMeta> {
        self.metas.get(index as usize).copied()
    }

    /// Adds the next page, whose record has `record_len` bytes.
    pub(super) fn push(&mut self, view: &PageView, record_len: u32) {
        let index = self.metas.len() as u64;
        self.metas.push(PageMeta {
            record: self.log_len,
            record_len,
            first_object: self.objects,
            first_chunk: self.chunks,
            content: self.content,
        });
        self.log_len += u64::from(record_len);
        self.chunks += view.chunks.len() as u64;
        self.content += view.content;
        for entry in &view.page.entries {
            match entry {
                Entry::Open { attributes, .. } => {
                    self.objects += 1;
                    if attributes.kind == ObjectKind::Directory {
                        self.directory_pages.insert(index);
                    }
                }
                Entry::End { .. } => self.ended = true,
                Entry::Chunk { .. } | Entry::Close { .. } | Entry::Sync { .. } => {}
            }
        }
    }

    /// The page that describes `chunk`.
    pub(super) fn page_of(&self, chunk: u64) -> Option<u32> {
        if chunk >= self.chunks {
            return None;
        }
        self.last(|meta| meta.first_chunk <= chunk)
    }

    /// The page that opens `object`.
    pub(super) fn page_of_object(&self, object: u32) -> Option<u32> {
        if object >= self.objects {
            return None;
        }
        self.last(|meta| meta.first_object <= object)
    }

    /// The number behind the last chunk of page `index`.
    pub(super) fn page_end(&self, index: u32) -> u64 {
        self.meta(index.saturating_add(1)).map_or(self.chunks, |next| next.first_chunk)
    }

    /// The first page from `from` on that opens a directory.
    pub(super) fn next_directory_page(&self, from: u32) -> Option<u32> {
        self.directory_pages.next_present(u64::from(from)).and_then(|page| page.try_into().ok())
    }

    fn last(&self, belongs: impl Fn(&PageMeta) -> bool) -> Option<u32> {
        u32::try_from(self.metas.partition_point(belongs).checked_sub(1)?).ok()
    }
}
