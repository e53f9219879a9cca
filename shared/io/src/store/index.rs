//! Where pages, chunks and objects are: some bytes for each page, nothing for each chunk.

use std::sync::Arc;

use shared::chunk_set::ChunkSet;
use shared::manifest::{Cuts, Entry, ObjectKind, Page, Recut, Slice};
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
    /// Its place in the manifest.
    pub(super) index: u32,
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

/// All pages that are stored, in order, but for those whose chunks are void because a later page
/// has cut them anew.
#[derive(Debug, Default)]
pub(super) struct PageIndex {
    metas: Vec<PageMeta>,
    pages: u32,
    chunks: u64,
    content: u64,
    objects: u32,
    log_len: u64,
    ended: bool,
    directory_pages: ChunkSet,
    closing_pages: ChunkSet,
    /// Whether an object was opened that grows live: only such a log is cut anew.
    live: bool,
    /// Lengths of the chunks from `tail_chunk` on: what the next page may cut anew.
    tail: Vec<u32>,
    tail_chunk: u64,
    /// What the last page has cut anew, while the short chunks are not void.
    recut: Option<Recut>,
    cuts: Cuts,
}

impl PageIndex {
    pub(super) const fn pages(&self) -> u32 {
        self.pages
    }

    /// Chunks described.
    pub(super) const fn chunks(&self) -> u64 {
        self.chunks
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

    /// Bytes of `pages.log` that are records of pages that are kept.
    pub(super) fn kept_len(&self) -> u64 {
        self.metas.iter().map(|meta| u64::from(meta.record_len)).sum()
    }

    /// The pages that are kept, in order.
    pub(super) fn metas(&self) -> &[PageMeta] {
        &self.metas
    }

    /// The records of the pages that are kept now stand one behind the other.
    pub(super) fn moved_together(&mut self) {
        self.log_len = 0;
        for meta in &mut self.metas {
            meta.record = self.log_len;
            self.log_len += u64::from(meta.record_len);
        }
    }

    pub(super) fn meta(&self, index: u32) -> Option<PageMeta> {
        let at = self.metas.binary_search_by_key(&index, |meta| meta.index).ok()?;
        self.metas.get(at).copied()
    }

    /// The first page from `from` on that is kept.
    pub(super) fn next_page(&self, from: u32) -> Option<u32> {
        let at = self.metas.partition_point(|meta| meta.index < from);
        self.metas.get(at).map(|meta| meta.index)
    }

    /// The long chunks of the last page that cut anew, while the short ones are not void.
    pub(super) const fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Whether a page can come next: in its place, or in place of the last ones.
    pub(super) fn admits(&self, page: &Page) -> bool {
        match page.recut() {
            None => (page.index, page.first_chunk) == (self.pages, self.chunks),
            Some(recut) => {
                page.index >= self.pages
                    && page.first_chunk >= self.chunks
                    && recut.first_chunk == self.tail_chunk
            }
        }
    }

    /// Content bytes before `page`, which comes next.
    pub(super) fn content_before(&self, page: &Page) -> u64 {
        let tail: u64 = match page.recut() {
            None => 0,
            Some(_) => self.tail.iter().map(|len| u64::from(*len)).sum(),
        };
        self.content.saturating_sub(tail)
    }

    /// Adds the next page, whose record has `record_len` bytes; gives the runs `(first, end)` of
    /// chunks that are void from now on.
    pub(super) fn push(&mut self, view: &PageView, record_len: u32) -> Vec<(u64, u64)> {
        let page = view.page();
        let content = self.content_before(page);
        let void = page.recut().map(|recut| self.cut_anew(view, recut)).unwrap_or_default();
        self.metas.push(PageMeta {
            index: page.index,
            record: self.log_len,
            record_len,
            first_object: self.objects,
            first_chunk: page.first_chunk,
            content,
        });
        self.log_len += u64::from(record_len);
        self.pages = page.index.saturating_add(1);
        self.chunks = page.first_chunk.saturating_add(view.chunks.len() as u64);
        self.content = content + view.content;
        self.follow(page);
        void
    }

    fn cut_anew(&mut self, view: &PageView, recut: Recut) -> Vec<(u64, u64)> {
        let earlier = self.recut.take();
        let mut void: Vec<_> = earlier.map(|earlier| self.void(&earlier)).into_iter().collect();
        self.cuts = Cuts::default();
        if view.page().index > self.pages {
            void.push(self.void(&recut));
        } else {
            let long: Vec<u32> = view.page().chunks().map(|(_, len, ..)| len).collect();
            self.cuts = Cuts::new(&recut, &self.tail, &long);
            self.recut = Some(recut);
        }
        void
    }

    /// Takes note of what a page says beside its chunks, and of what may be cut anew.
    fn follow(&mut self, page: &Page) {
        let mut may_be_cut_anew = true;
        for entry in &page.entries {
            match entry {
                Entry::Open { attributes, .. } => {
                    self.objects += 1;
                    self.live |= attributes.kind == ObjectKind::Live;
                    if attributes.kind == ObjectKind::Directory {
                        self.directory_pages.insert(u64::from(page.index));
                    }
                }
                Entry::Close { .. } => {
                    self.closing_pages.insert(u64::from(page.index));
                }
                Entry::End { .. } => self.ended = true,
                Entry::Recut { .. } => {}
                Entry::Chunk { .. } | Entry::Sync { .. } => continue,
            }
            may_be_cut_anew = false;
        }
        if may_be_cut_anew && self.live {
            self.tail.extend(page.chunks().map(|(_, len, ..)| len));
        } else {
            self.tail.clear();
            self.tail_chunk = self.chunks;
        }
    }

    /// Forgets the pages of the chunks that are void now.
    fn void(&mut self, recut: &Recut) -> (u64, u64) {
        let from = self.metas.partition_point(|meta| meta.index < recut.first_page);
        let to = self.metas.partition_point(|meta| meta.index < recut.page);
        self.metas.drain(from..to);
        (recut.first_chunk, recut.end_chunk)
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

    /// The number behind the last chunk of page `index`, and of what lies void behind it.
    pub(super) fn page_end(&self, index: u32) -> u64 {
        let next = self.metas.partition_point(|meta| meta.index <= index);
        self.metas.get(next).map_or(self.chunks, |next| next.first_chunk)
    }

    /// The first page from `from` on that opens a directory.
    pub(super) fn next_directory_page(&self, from: u32) -> Option<u32> {
        self.directory_pages.next_present(u64::from(from)).and_then(|page| page.try_into().ok())
    }

    /// The first page from `from` on that closes an object.
    pub(super) fn next_closing_page(&self, from: u32) -> Option<u32> {
        self.closing_pages.next_present(u64::from(from)).and_then(|page| page.try_into().ok())
    }

    fn last(&self, belongs: impl Fn(&PageMeta) -> bool) -> Option<u32> {
        let at = self.metas.partition_point(belongs).checked_sub(1)?;
        self.metas.get(at).map(|meta| meta.index)
    }
}
