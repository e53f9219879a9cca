//! What all tests of the store need: jobs made by hand, and a look at the disk from outside.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use shared::id::{JobId, Name};
use shared::job::{JobObject, JobObjectError, Keep, Kind, SignedJob};
use shared::manifest::{Attributes, Entry, Manifest, ObjectKind, Page, PageBytes, Slice};
use shared::seal::Hash;
use shared::wire::codec;

use super::flush::{Batch, sync_data, sync_journals};
use super::{Flushed, JobStore, Layout, Recovered, Recovery, StoreError, StoreRoot, flush_group};

mod crash;
mod flusher;
mod full;
mod live;
mod object;
mod recut;
mod round_trip;

pub(super) const FILE: Attributes =
    Attributes { kind: ObjectKind::File, modified: Some((1_000_000_000, 5)), executable: false };
pub(super) const PROGRAM: Attributes = Attributes { executable: true, ..FILE };
pub(super) const LIVE: Attributes = Attributes { kind: ObjectKind::Live, ..FILE };
pub(super) const DIRECTORY: Attributes = Attributes { kind: ObjectKind::Directory, ..FILE };

/// Numbers that look like chance and are the same every time.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

pub(super) type Pages = Vec<(PageBytes, Arc<Page>)>;

/// A job with all its content.
pub(super) struct Job {
    pub(super) object: JobObject,
    pub(super) signed: SignedJob,
    pub(super) pages: Pages,
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) objects: Vec<(String, Attributes, Vec<u8>)>,
}

impl Job {
    /// Packs `objects` into chunks of at most `chunk_max` bytes and pages of two chunks.
    pub(super) fn new(
        number: u8,
        chunk_max: u32,
        objects: Vec<(&str, Attributes, Vec<u8>)>,
    ) -> Self {
        let objects: Vec<_> = objects
            .into_iter()
            .map(|(name, attributes, bytes)| (name.to_owned(), attributes, bytes))
            .collect();
        let object = job_object(number, chunk_max);
        let mut packer = Packer::new(object.id, chunk_max);
        for (number, (name, attributes, bytes)) in (0..).zip(&objects) {
            packer.object(number, name, *attributes, bytes);
        }
        let (pages, chunks) = packer.finish();
        Self { signed: unsigned(&object), object, pages, chunks, objects }
    }

    /// Files, directories, an empty one of each, a program, a file of many chunks, and live
    /// objects.
    pub(super) fn mixed(number: u8) -> Self {
        let mut chance = Chance(7);
        let objects = vec![
            ("empty first", FILE, vec![]),
            ("d", DIRECTORY, vec![]),
            ("d/one", FILE, chance.bytes(10)),
            ("d/two", PROGRAM, chance.bytes(20)),
            ("d/none", FILE, vec![]),
            ("d/e/deep/ü file", FILE, chance.bytes(333)),
            ("big", FILE, chance.bytes(1_000)),
            ("bare", DIRECTORY, vec![]),
            ("on/air", LIVE, chance.bytes(700)),
            ("on/silence", LIVE, vec![]),
            ("three", Attributes { modified: None, ..FILE }, chance.bytes(64)),
            ("four", FILE, chance.bytes(1)),
            ("last", FILE, vec![]),
        ];
        Self::new(number, 64, objects)
    }

    pub(super) fn append_pages(&self, store: &JobStore) {
        for (bytes, page) in self.pages.iter().skip(store.pages() as usize) {
            store.append_page(bytes, page).unwrap();
        }
    }

    pub(super) fn write(&self, store: &JobStore, chunk: u64) {
        store.write_chunk(chunk, &self.chunks[chunk as usize]).unwrap();
    }

    pub(super) fn write_all(&self, store: &JobStore) {
        self.append_pages(store);
        (0..self.chunks.len() as u64).for_each(|chunk| self.write(store, chunk));
    }

    /// Everything under `files` is an object of the job, whole, with its attributes.
    pub(super) fn assert_shown(&self, store: &JobStore) -> usize {
        let files = store.folder().join("files");
        let found = tree(&files);
        for path in &found {
            let name = path.strip_prefix(&files).unwrap().to_str().unwrap();
            let object = self.objects.iter().find(|(known, ..)| known == name);
            let Some((_, attributes, bytes)) = object else {
                let above = format!("{name}/");
                assert!(
                    path.is_dir() && self.objects.iter().any(|(n, ..)| n.starts_with(&above)),
                    "{name:?} does not belong into files"
                );
                continue;
            };
            if attributes.kind == ObjectKind::Live {
                let shown = std::fs::read(path).unwrap();
                assert!(bytes.starts_with(&shown), "{name:?} shows what was not pushed");
            }
            if attributes.kind == ObjectKind::File {
                assert_eq!(&std::fs::read(path).unwrap(), bytes, "{name:?}");
                assert_times(path, attributes);
                let executable = path.metadata().unwrap().permissions().mode() & 0o100 != 0;
                assert_eq!(executable, attributes.executable, "{name:?}");
            }
        }
        found.len()
    }

    /// All objects are shown, and no part is left.
    pub(super) fn assert_complete(&self, store: &JobStore) {
        self.assert_shown(store);
        let files = store.folder().join("files");
        for (name, attributes, _) in &self.objects {
            let path = files.join(name);
            assert_eq!(path.is_dir(), attributes.kind == ObjectKind::Directory, "{name:?}");
            assert_times(&path, attributes);
        }
        for (name, _, bytes) in self.objects.iter().filter(|o| o.1.kind == ObjectKind::Live) {
            assert_eq!(&std::fs::read(files.join(name)).unwrap(), bytes, "{name:?}");
        }
        assert_eq!(tree(&store.folder().join("parts")), Vec::<PathBuf>::new());
    }

    pub(super) fn assert_readable(&self, store: &JobStore) {
        for (number, chunk) in (0..).zip(&self.chunks) {
            assert_eq!(store.read_chunk(number).unwrap(), chunk, "chunk {number}");
        }
    }
}

fn assert_times(path: &Path, attributes: &Attributes) {
    let metadata = path.metadata().unwrap();
    if let Some(modified) = attributes.modified {
        assert_eq!((metadata.mtime(), metadata.mtime_nsec() as u32), modified, "{path:?}");
    }
}

/// All paths below `path`, sorted.
pub(super) fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

pub(super) struct Packer {
    manifest: Manifest,
    chunk_max: u32,
    entries: Vec<Entry>,
    pages: Pages,
    chunks: Vec<Vec<u8>>,
    open_chunk: Vec<u8>,
    slices: Vec<Slice>,
    closing: Vec<Entry>,
}

impl Packer {
    pub(super) fn new(job: JobId, chunk_max: u32) -> Self {
        Self {
            manifest: Manifest::new(job, chunk_max),
            chunk_max,
            entries: Vec::new(),
            pages: Vec::new(),
            chunks: Vec::new(),
            open_chunk: Vec::new(),
            slices: Vec::new(),
            closing: Vec::new(),
        }
    }

    pub(super) fn object(&mut self, object: u32, name: &str, attributes: Attributes, bytes: &[u8]) {
        self.entries.push(Entry::Open { object, name: name.to_owned(), attributes });
        let mut offset = 0;
        while offset < bytes.len() {
            let room = self.chunk_max as usize - self.open_chunk.len();
            let piece = &bytes[offset..bytes.len().min(offset + room)];
            let slice = Slice { object, offset: offset as u64, len: piece.len() as u32 };
            self.slices.push(slice);
            self.open_chunk.extend_from_slice(piece);
            offset += piece.len();
            if self.open_chunk.len() == self.chunk_max as usize {
                self.flush_chunk();
            }
        }
        let close = Entry::Close { object, len: bytes.len() as u64, digest: Hash::of(bytes) };
        if self.open_chunk.is_empty() {
            self.entries.push(close);
        } else {
            self.closing.push(close);
        }
    }

    fn flush_chunk(&mut self) {
        if self.open_chunk.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.open_chunk);
        self.entries.push(Entry::Chunk {
            len: bytes.len() as u32,
            hash: Hash::of(&bytes),
            slices: std::mem::take(&mut self.slices),
        });
        self.chunks.push(bytes);
        self.entries.append(&mut self.closing);
        if self.chunks.len().is_multiple_of(2) {
            self.flush_page();
        }
    }

    fn flush_page(&mut self) {
        let page = self.manifest.next_page(std::mem::take(&mut self.entries));
        // No store looks at signatures, but they must come back as they were.
        let draft = page.draft();
        let record = [&[9; 64][..], &draft.to_record()].concat();
        let bytes = match page.index % 2 {
            0 => draft,
            _ => PageBytes::from_record(Bytes::from(record), true).unwrap(),
        };
        self.manifest.accept(&page, &bytes).unwrap();
        self.pages.push((bytes, Arc::new(page)));
    }

    pub(super) fn finish(mut self) -> (Pages, Vec<Vec<u8>>) {
        self.flush_chunk();
        let content_len = self.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.entries.push(Entry::End { content_len, digest: Hash::ZERO });
        self.flush_page();
        (self.pages, self.chunks)
    }
}

pub(super) fn job_object(number: u8, chunk_max: u32) -> JobObject {
    JobObject {
        id: JobId([number; 16]),
        name: Name::new("job").unwrap(),
        tenant: Name::new("tenant").unwrap(),
        kind: Kind::Files,
        size: None,
        created_at_ms: 0,
        deadline_s: None,
        stripes: 1,
        chunk_max,
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        page_key: [0; 32],
        servers: 1,
        servers_hash: Hash::ZERO,
    }
}

type SignedParts = (Vec<u8>, ([u8; 32], [u8; 32]));

/// A signed job whose signature is nothing.
pub(super) fn unsigned(object: &JobObject) -> SignedJob {
    let parts: SignedParts = (codec::encode(object), ([0; 32], [0; 32]));
    codec::decode::<_, 8192>(&codec::encode(&parts)).unwrap()
}

pub(super) fn open_unsigned(job: &SignedJob) -> Result<JobObject, JobObjectError> {
    let (body, _): SignedParts = codec::decode::<_, 8192>(&codec::encode(job)).unwrap();
    codec::decode::<_, 4096>(&body).map_err(JobObjectError::Decode)
}

/// A data folder of one role that can be started again and again.
pub(super) struct Disk {
    folder: tempfile::TempDir,
    layout: Layout,
}

impl Disk {
    pub(super) fn new(layout: Layout) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), layout }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("jobs")
    }

    pub(super) fn root(&self) -> Arc<StoreRoot> {
        StoreRoot::open(&self.path(), self.layout).unwrap()
    }

    pub(super) fn create(&self, job: &Job) -> (Arc<StoreRoot>, Arc<JobStore>) {
        let root = self.root();
        let store = root.create(&job.signed, &job.object).unwrap();
        (root, store)
    }

    pub(super) fn recover(&self) -> Recovery {
        self.root().recover(&open_unsigned).unwrap()
    }

    /// Starts again, with one job on the disk.
    pub(super) fn recover_one(&self) -> Recovered {
        let mut recovery = self.recover();
        assert_eq!(recovery.refused.len(), 0, "{:?}", recovery.refused);
        assert_eq!(recovery.jobs.len(), 1);
        recovery.jobs.remove(0)
    }
}

pub(super) fn flush(root: &StoreRoot, stores: &[Arc<JobStore>]) -> Vec<Flushed> {
    let reports = RefCell::new(Vec::new());
    flush_group(root, stores, &|flushed| reports.borrow_mut().push(flushed));
    reports.into_inner()
}

/// The first steps of a flush, after which the process ends.
pub(super) fn flush_until(root: &StoreRoot, store: &Arc<JobStore>, steps: u64) {
    let mut batches: Vec<Batch<'_>> = Batch::begin(store).into_iter().collect();
    if steps > 0 {
        sync_data(root, &mut batches);
    }
    if steps > 1 {
        sync_journals(root, &mut batches);
    }
}

pub(super) fn by_job(reports: Vec<Flushed>) -> BTreeMap<JobId, Vec<Flushed>> {
    let mut by_job: BTreeMap<JobId, Vec<Flushed>> = BTreeMap::new();
    for report in reports {
        by_job.entry(report.job).or_default().push(report);
    }
    by_job
}

pub(super) fn is_failed(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed { .. })
}
