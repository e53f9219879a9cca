//! Content of jobs: made up from numbers, kept in memory.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use shared::id::JobId;
use shared::job::{JobObject, Keep, Kind, ServerList};
use shared::manifest::{
    Attributes, Entry, Manifest, ObjectKind, Page, PageBytes, PageSummary, Slice,
};
use shared::seal::Hash;
use shared_io::content::Content;
use shared_io::store::{PageView, StoreError};

use super::identities;

/// Bytes of a chunk.
pub const CHUNK: u32 = 16 * 1024;
const FIRST_PAGE_CHUNKS: u64 = 4;

/// The job of a number: one file, pushed by a client.
pub(crate) fn object(number: u8, client: usize) -> JobObject {
    JobObject {
        id: JobId([number; 16]),
        name: format!("job{number}").parse().unwrap(),
        tenant: identities::client(client).name().clone(),
        kind: Kind::Files,
        size: None,
        created_at_ms: 0,
        deadline_s: None,
        stripes: 1,
        chunk_max: CHUNK,
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        page_key: identities::base().public_key(),
        servers: 0,
        servers_hash: ServerList::new(Vec::new()).hash(),
    }
}

/// The payload of a chunk.
pub(crate) fn payload(job: JobId, chunk: u64) -> Bytes {
    let mut bytes = vec![job.0[0]; CHUNK as usize];
    bytes[..8].copy_from_slice(&chunk.to_be_bytes());
    bytes.into()
}

/// A page with what it describes.
pub(crate) struct Cut {
    pub(crate) bytes: PageBytes,
    pub(crate) page: Arc<Page>,
    pub(crate) summary: PageSummary,
    pub(crate) chunks: Vec<Bytes>,
}

/// Cuts the content of a job: `chunks` chunks, some to a page.
#[derive(Debug)]
pub(crate) struct Cutter {
    job: JobId,
    manifest: Manifest,
    chunks: u64,
    page_chunks: u64,
}

impl Cutter {
    pub(crate) fn new(object: &JobObject, chunks: u64, page_chunks: u64) -> Self {
        let manifest = Manifest::new(object.id, object.chunk_max);
        Self { job: object.id, manifest, chunks, page_chunks }
    }
}

impl Iterator for Cutter {
    type Item = Cut;

    fn next(&mut self) -> Option<Cut> {
        let first = self.manifest.chunks();
        if first == self.chunks {
            return None;
        }
        // As the product's, the first pages are short.
        let most = FIRST_PAGE_CHUNKS.checked_shl(self.manifest.pages()).unwrap_or(u64::MAX);
        let end = self.chunks.min(first + self.page_chunks.min(most));
        let chunks: Vec<Bytes> = (first..end).map(|chunk| payload(self.job, chunk)).collect();
        let attributes = Attributes { kind: ObjectKind::File, modified: None, executable: false };
        let mut entries = Vec::new();
        if first == 0 {
            entries.push(Entry::Open { object: 0, name: "file".to_owned(), attributes });
        }
        entries.extend((first..).zip(&chunks).map(|(number, payload)| {
            let offset = number * u64::from(CHUNK);
            let slices = vec![Slice { object: 0, offset, len: CHUNK }];
            Entry::Chunk { len: CHUNK, hash: Hash::of(payload), slices }
        }));
        if end == self.chunks {
            let len = end * u64::from(CHUNK);
            // Nobody here looks at the digest of the whole.
            entries.push(Entry::Close { object: 0, len, digest: Hash::ZERO });
            entries.push(Entry::End { content_len: len, digest: Hash::ZERO });
        }
        let page = self.manifest.next_page(entries);
        let bytes = page.draft();
        let summary = self.manifest.accept(&page, &bytes).unwrap();
        Some(Cut { bytes, page: Arc::new(page), summary, chunks })
    }
}

/// Chunks that are on any shelf of a fleet: those that are equal are kept once.
#[derive(Debug, Default)]
pub(crate) struct Copies(Mutex<BTreeMap<Hash, Bytes>>);

impl Copies {
    fn of(&self, payload: &Bytes) -> Bytes {
        let mut copies = self.0.lock().unwrap();
        copies.entry(Hash::of(payload)).or_insert_with(|| Bytes::copy_from_slice(payload)).clone()
    }
}

/// The content of a job at a base or node, in memory; its room can be taken away.
#[derive(Debug)]
pub(crate) struct Shelf {
    copies: Arc<Copies>,
    full: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pages: Vec<(PageBytes, Arc<PageView>)>,
    chunks: BTreeMap<u64, Bytes>,
}

impl Shelf {
    /// An empty shelf; nothing finds room on one that is `full`.
    pub(crate) fn new(copies: &Arc<Copies>, full: bool) -> Self {
        let copies = Arc::clone(copies);
        Self { copies, full: AtomicBool::new(full), inner: Mutex::default() }
    }

    /// Nothing finds room here any more.
    pub(crate) fn fill(&self) {
        self.full.store(true, Ordering::Relaxed);
    }

    /// Pages whose chunks are all before `chunk`.
    pub(crate) fn pages_before(&self, chunk: u64) -> u32 {
        let inner = self.inner();
        let end = |view: &PageView| view.page().first_chunk + view.page().chunk_count();
        inner.pages.partition_point(|(_, view)| end(view) <= chunk) as u32
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Content for Shelf {
    fn append_page(&self, bytes: &PageBytes, page: &Arc<Page>) -> Result<(), StoreError> {
        let view = Arc::new(PageView::new(Arc::clone(page)));
        self.inner().pages.push((bytes.clone(), view));
        Ok(())
    }

    fn read_page(&self, index: u32) -> Result<PageBytes, StoreError> {
        let inner = self.inner();
        let page = inner.pages.get(index as usize);
        page.map(|(bytes, _)| bytes.clone()).ok_or(StoreError::NoPage(index))
    }

    fn page_with(&self, chunk: u64) -> Result<Option<Arc<PageView>>, StoreError> {
        let index = self.pages_before(chunk) as usize;
        let inner = self.inner();
        Ok(inner.pages.get(index).map(|(_, view)| Arc::clone(view)))
    }

    fn write_chunk(&self, chunk: u64, payload: &Bytes) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) {
            let (path, source) = ("shelf".into(), ErrorKind::StorageFull.into());
            return Err(StoreError::Io { action: "write", path, source });
        }
        self.inner().chunks.insert(chunk, self.copies.of(payload));
        Ok(())
    }

    fn read_chunk(&self, chunk: u64) -> Result<Bytes, StoreError> {
        self.inner().chunks.get(&chunk).cloned().ok_or(StoreError::NotHeld(chunk))
    }
}
