//! Where the content of a job is kept: on disk, or in a publisher's window.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use shared::manifest::{Page, PageBytes};

use crate::store::{JobStore, PageView, StoreError};

/// The content of one job. Every method may block on a disk.
pub trait Content: std::fmt::Debug + Send + Sync + 'static {
    /// Keeps the next page.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    fn append_page(&self, bytes: &PageBytes, page: &Arc<Page>) -> Result<(), StoreError>;
    /// The page with an index.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn read_page(&self, index: u32) -> Result<PageBytes, StoreError>;
    /// The page that describes `chunk`, decoded; `None` while it has not been appended.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn page_with(&self, chunk: u64) -> Result<Option<Arc<PageView>>, StoreError>;
    /// Keeps a chunk that was verified.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    fn write_chunk(&self, chunk: u64, payload: &Bytes) -> Result<(), StoreError>;
    /// The payload of a chunk that was kept.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn read_chunk(&self, chunk: u64) -> Result<Bytes, StoreError>;
}

impl Content for JobStore {
    fn append_page(&self, bytes: &PageBytes, page: &Arc<Page>) -> Result<(), StoreError> {
        Self::append_page(self, bytes, page)
    }

    fn read_page(&self, index: u32) -> Result<PageBytes, StoreError> {
        Self::read_page(self, index)
    }

    fn page_with(&self, chunk: u64) -> Result<Option<Arc<PageView>>, StoreError> {
        self.page_of(chunk).map(|index| self.decoded(index)).transpose()
    }

    fn write_chunk(&self, chunk: u64, payload: &Bytes) -> Result<(), StoreError> {
        Self::write_chunk(self, chunk, payload).map(drop)
    }

    fn read_chunk(&self, chunk: u64) -> Result<Bytes, StoreError> {
        Self::read_chunk(self, chunk)
    }
}

/// The window of a publisher: pages and chunks stay until they are durable at the base.
#[derive(Debug, Default)]
pub struct Window {
    inner: Mutex<WindowInner>,
}

#[derive(Debug, Default)]
struct WindowInner {
    pages: BTreeMap<u32, (PageBytes, Arc<PageView>)>,
    chunks: BTreeMap<u64, Bytes>,
    bytes: u64,
    /// Chunks below are gone.
    floor: u64,
}

impl Window {
    /// An empty window.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of payload and pages in the window.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Chunks below are gone: they were durable at the base.
    pub fn floor(&self) -> u64 {
        self.lock().floor
    }

    /// Drops the chunks below `chunk`, and the pages that describe no later one.
    pub fn forget_below(&self, chunk: u64) {
        let mut inner = self.lock();
        let kept = inner.chunks.split_off(&chunk);
        let gone: u64 = inner.chunks.values().map(|payload| payload.len() as u64).sum();
        inner.chunks = kept;
        inner.floor = inner.floor.max(chunk);
        inner.bytes = inner.bytes.saturating_sub(gone);
        // A page is durable when a chunk of it or of a later page is.
        let durable = |page: &Page| page.first_chunk < chunk && page.chunk_count() > 0;
        let last = inner.pages.iter().rev().find(|(_, (_, view))| durable(view.page()));
        if let Some(last) = last.map(|(index, _)| *index) {
            let kept = inner.pages.split_off(&last);
            let gone: u64 = inner.pages.values().map(|(page, _)| page_cost(page)).sum();
            inner.pages = kept;
            inner.bytes = inner.bytes.saturating_sub(gone);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, WindowInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a page takes, encoded and decoded.
fn page_cost(page: &PageBytes) -> u64 {
    2 * page.len() as u64
}

impl Content for Window {
    fn append_page(&self, bytes: &PageBytes, page: &Arc<Page>) -> Result<(), StoreError> {
        let entry = (bytes.clone(), Arc::new(PageView::new(Arc::clone(page))));
        let mut inner = self.lock();
        inner.bytes += page_cost(bytes);
        if let Some((before, _)) = inner.pages.insert(page.index, entry) {
            inner.bytes -= page_cost(&before);
        }
        Ok(())
    }

    fn read_page(&self, index: u32) -> Result<PageBytes, StoreError> {
        let inner = self.lock();
        let found = inner.pages.get(&index).map(|(bytes, _)| bytes.clone());
        found.ok_or(StoreError::NoPage(index))
    }

    fn page_with(&self, chunk: u64) -> Result<Option<Arc<PageView>>, StoreError> {
        let inner = self.lock();
        let found = inner.pages.values().find(|(_, page)| page.chunk(chunk).is_some());
        Ok(found.map(|(_, page)| Arc::clone(page)))
    }

    fn write_chunk(&self, chunk: u64, payload: &Bytes) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.bytes += payload.len() as u64;
        inner.chunks.insert(chunk, payload.clone());
        Ok(())
    }

    fn read_chunk(&self, chunk: u64) -> Result<Bytes, StoreError> {
        let found = self.lock().chunks.get(&chunk).cloned();
        found.ok_or(StoreError::NoChunk(chunk))
    }
}
