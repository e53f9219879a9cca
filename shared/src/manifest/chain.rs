//! The manifest as it grows: which page may come next, and what the log holds so far.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::JobId;
use crate::limit;
use crate::seal::Hash;

use super::name::{ObjectNameError, check_object_name};
use super::page::{Attributes, Entry, ObjectKind, Page, PageBytes, Slice};

/// Why a page cannot be the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Another job's page.
    #[error("page {index} belongs to job {job}")]
    Job {
        /// The page.
        index: u32,
        /// The job that it names.
        job: JobId,
    },
    /// Not the next index.
    #[error("page {found} came where page {expected} was due")]
    Index {
        /// The index that was due.
        expected: u32,
        /// The index of the page.
        found: u32,
    },
    /// It does not name the page before it.
    #[error("page {0} does not follow the page before it")]
    Previous(u32),
    /// It starts at another chunk.
    #[error("page {index} starts at chunk {found}, due was {expected}")]
    FirstChunk {
        /// The page.
        index: u32,
        /// The chunk that was due.
        expected: u64,
        /// The chunk that it names.
        found: u64,
    },
    /// Something follows the end.
    #[error("page {0} has entries behind the end of the log")]
    BehindEnd(u32),
    /// A named limit is exceeded.
    #[error("page {index} exceeds the limit of {limit} {what}")]
    Limit {
        /// The page.
        index: u32,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The lengths of a chunk's slices do not add up, or it is empty.
    #[error("chunk {0} does not match its slices")]
    Slices(u64),
    /// A slice does not continue its object.
    #[error("chunk {chunk} does not continue object {object}")]
    Gap {
        /// The chunk.
        chunk: u64,
        /// The object.
        object: u32,
    },
    /// An object that is not open.
    #[error("object {0} is not open")]
    NotOpen(u32),
    /// An object number that is not the next one.
    #[error("object {found} was opened, due was {expected}")]
    Object {
        /// The number that was due.
        expected: u32,
        /// The number that it has.
        found: u32,
    },
    /// A name that an object may not have.
    #[error(transparent)]
    Name(#[from] ObjectNameError),
    /// A name that is taken, or a file where a directory is needed.
    #[error("the name {0:?} is taken")]
    Taken(String),
    /// A length that is not the sum of what was written.
    #[error("object {object} is said to have {claimed} bytes, written were {written}")]
    Length {
        /// The object.
        object: u32,
        /// Bytes claimed.
        claimed: u64,
        /// Bytes written.
        written: u64,
    },
    /// The log ends with open objects, or with another content length.
    #[error("the log ends with {open} open objects and {claimed} of {written} content bytes")]
    End {
        /// Objects that are open.
        open: usize,
        /// Bytes claimed.
        claimed: u64,
        /// Bytes written.
        written: u64,
    },
}

/// An object that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectState {
    /// Its name.
    pub name: String,
    /// What is kept beside its bytes.
    pub attributes: Attributes,
    /// Bytes so far.
    pub len: u64,
}

/// What a page added to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSummary {
    /// The page.
    pub index: u32,
    /// Its first chunk.
    pub first_chunk: u64,
    /// Its chunks.
    pub chunks: u64,
    /// Content bytes of its chunks.
    pub content: u64,
}

/// The manifest so far: accepts pages in order and refuses those that do not fit.
///
/// Its memory grows with the number of objects (16 bytes each, to keep names unique) and of
/// open objects, not with the content.
#[derive(Debug, Clone)]
pub struct Manifest {
    job: JobId,
    chunk_max: u32,
    pages: u32,
    chunks: u64,
    last: Hash,
    content: u64,
    objects: u32,
    open: BTreeMap<u32, ObjectState>,
    names: Names,
    end: Option<(u64, Hash)>,
}

impl Manifest {
    /// The empty manifest of `job`, whose chunks have at most `chunk_max` bytes.
    pub fn new(job: JobId, chunk_max: u32) -> Self {
        Self {
            job,
            chunk_max,
            pages: 0,
            chunks: 0,
            last: Hash::ZERO,
            content: 0,
            objects: 0,
            open: BTreeMap::new(),
            names: Names::default(),
            end: None,
        }
    }

    /// Pages accepted: the index of the next one.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Chunks described: the number of the next one.
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Content bytes described.
    pub const fn content(&self) -> u64 {
        self.content
    }

    /// Objects opened: the number of the next one.
    pub const fn objects(&self) -> u32 {
        self.objects
    }

    /// Hash of the last page.
    pub const fn last_hash(&self) -> Hash {
        self.last
    }

    /// Content length and digest of the job, once the log has ended.
    pub const fn end(&self) -> Option<(u64, Hash)> {
        self.end
    }

    /// The object `number`, if it is open.
    pub fn object(&self, number: u32) -> Option<&ObjectState> {
        self.open.get(&number)
    }

    /// The page that continues this manifest with `entries`.
    pub fn next_page(&self, entries: Vec<Entry>) -> Page {
        Page {
            job: self.job,
            index: self.pages,
            first_chunk: self.chunks,
            previous: self.last,
            entries,
        }
    }

    /// Accepts `page`, whose encoded form is `bytes`, as the next one.
    ///
    /// # Errors
    /// [`ChainError`] if the page does not fit. The manifest may then have taken up a part of
    /// its entries: whoever feeds it must drop it, since the job cannot go on.
    pub fn accept(&mut self, page: &Page, bytes: &PageBytes) -> Result<PageSummary, ChainError> {
        self.check_place(page)?;
        let (chunks, content) = (self.chunks, self.content);
        for entry in &page.entries {
            if self.end.is_some() {
                return Err(ChainError::BehindEnd(page.index));
            }
            self.apply(page.index, entry)?;
        }
        self.pages += 1;
        self.last = bytes.hash();
        Ok(PageSummary {
            index: page.index,
            first_chunk: page.first_chunk,
            chunks: self.chunks - chunks,
            content: self.content - content,
        })
    }

    fn check_place(&self, page: &Page) -> Result<(), ChainError> {
        let index = page.index;
        if page.job != self.job {
            return Err(ChainError::Job { index, job: page.job });
        }
        if index != self.pages {
            return Err(ChainError::Index { expected: self.pages, found: index });
        }
        if page.previous != self.last {
            return Err(ChainError::Previous(index));
        }
        if page.first_chunk != self.chunks {
            let (expected, found) = (self.chunks, page.first_chunk);
            return Err(ChainError::FirstChunk { index, expected, found });
        }
        within(index, "pages", u64::from(index), u64::from(limit::PAGES_MAX))?;
        within(index, "entries", page.entries.len() as u64, limit::PAGE_ENTRIES_MAX as u64)
    }

    fn apply(&mut self, index: u32, entry: &Entry) -> Result<(), ChainError> {
        match entry {
            Entry::Chunk { len, slices, .. } => self.add_chunk(index, *len, slices),
            Entry::Open { object, name, attributes } => {
                self.open_object(index, *object, name, *attributes)
            }
            Entry::Close { object, len, .. } => self.close_object(*object, *len),
            Entry::End { content_len, digest } => {
                if !self.open.is_empty() || *content_len != self.content {
                    let (open, written) = (self.open.len(), self.content);
                    return Err(ChainError::End { open, claimed: *content_len, written });
                }
                self.end = Some((*content_len, *digest));
                Ok(())
            }
            Entry::Sync { object, offset } => self.mark_sync(*object, *offset),
        }
    }

    fn add_chunk(&mut self, index: u32, len: u32, slices: &[Slice]) -> Result<(), ChainError> {
        let chunk = self.chunks;
        within(index, "chunks", chunk + 1, limit::CHUNKS_MAX)?;
        within(index, "bytes in a chunk", u64::from(len), u64::from(self.chunk_max))?;
        within(index, "slices", slices.len() as u64, limit::SLICES_MAX as u64)?;
        let sum: u64 = slices.iter().map(|slice| u64::from(slice.len)).sum();
        if len == 0 || sum != u64::from(len) || slices.iter().any(|slice| slice.len == 0) {
            return Err(ChainError::Slices(chunk));
        }
        for slice in slices {
            let object = slice.object;
            let state = self.open.get_mut(&object).ok_or(ChainError::NotOpen(object))?;
            if state.attributes.kind == ObjectKind::Directory || slice.offset != state.len {
                return Err(ChainError::Gap { chunk, object });
            }
            state.len = state.len.saturating_add(u64::from(slice.len));
        }
        self.chunks += 1;
        self.content = self.content.saturating_add(u64::from(len));
        Ok(())
    }

    fn open_object(
        &mut self,
        index: u32,
        object: u32,
        name: &str,
        attributes: Attributes,
    ) -> Result<(), ChainError> {
        if object != self.objects {
            return Err(ChainError::Object { expected: self.objects, found: object });
        }
        within(index, "objects", u64::from(object) + 1, u64::from(limit::OBJECTS_MAX))?;
        let open_max = limit::OBJECTS_OPEN_MAX as u64;
        within(index, "open objects", self.open.len() as u64 + 1, open_max)?;
        check_object_name(name)?;
        if !self.names.take(name, attributes.kind) {
            return Err(ChainError::Taken(name.to_owned()));
        }
        self.objects += 1;
        self.open.insert(object, ObjectState { name: name.to_owned(), attributes, len: 0 });
        Ok(())
    }

    fn mark_sync(&self, object: u32, claimed: u64) -> Result<(), ChainError> {
        let state = self.open.get(&object).ok_or(ChainError::NotOpen(object))?;
        if state.len != claimed {
            return Err(ChainError::Length { object, claimed, written: state.len });
        }
        Ok(())
    }

    fn close_object(&mut self, object: u32, claimed: u64) -> Result<(), ChainError> {
        let state = self.open.remove(&object).ok_or(ChainError::NotOpen(object))?;
        if state.len != claimed {
            return Err(ChainError::Length { object, claimed, written: state.len });
        }
        Ok(())
    }
}

fn within(index: u32, what: &'static str, value: u64, limit: u64) -> Result<(), ChainError> {
    if value > limit { Err(ChainError::Limit { index, what, limit }) } else { Ok(()) }
}

/// The names that are taken, as 16 bytes of their hash: 10 million of them in 160 MB, and a
/// false hit is less likely than 2^-80.
#[derive(Debug, Clone, Default)]
struct Names {
    files: BTreeSet<[u8; 16]>,
    directories: BTreeSet<[u8; 16]>,
}

impl Names {
    /// Takes `name` unless it is taken, or a file stands where one of its directories must.
    fn take(&mut self, name: &str, kind: ObjectKind) -> bool {
        let key = name_key(name);
        let parents = || name.match_indices('/').filter_map(|(at, _)| name.get(..at));
        if self.files.contains(&key) || parents().any(|p| self.files.contains(&name_key(p))) {
            return false;
        }
        let fresh = match kind {
            ObjectKind::Directory => {
                self.directories.insert(key);
                true
            }
            ObjectKind::File | ObjectKind::Live => {
                !self.directories.contains(&key) && self.files.insert(key)
            }
        };
        self.directories.extend(parents().map(name_key));
        fresh
    }
}

fn name_key(name: &str) -> [u8; 16] {
    let Hash(hash) = Hash::of(name.as_bytes());
    hash.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId([1; 16]);
    const FILE: Attributes =
        Attributes { kind: ObjectKind::File, modified: None, executable: false };
    const DIRECTORY: Attributes = Attributes { kind: ObjectKind::Directory, ..FILE };

    fn open(object: u32, name: &str, attributes: Attributes) -> Entry {
        Entry::Open { object, name: name.to_owned(), attributes }
    }

    fn chunk(slices: &[(u32, u64, u32)]) -> Entry {
        let slices: Vec<Slice> =
            slices.iter().map(|&(object, offset, len)| Slice { object, offset, len }).collect();
        Entry::Chunk { len: slices.iter().map(|s| s.len).sum(), hash: Hash::ZERO, slices }
    }

    fn close(object: u32, len: u64) -> Entry {
        Entry::Close { object, len, digest: Hash::ZERO }
    }

    fn accept(manifest: &mut Manifest, entries: Vec<Entry>) -> Result<PageSummary, ChainError> {
        let page = manifest.next_page(entries);
        manifest.accept(&page, &page.draft())
    }

    #[test]
    fn a_log_of_small_and_large_files_is_accepted() {
        let mut manifest = Manifest::new(JOB, 100);
        let first = vec![
            open(0, "d", DIRECTORY),
            close(0, 0),
            open(1, "d/a", FILE),
            open(2, "d/b", FILE),
            chunk(&[(1, 0, 10), (2, 0, 90)]),
            close(1, 10),
        ];
        let summary = accept(&mut manifest, first).unwrap();
        assert_eq!((summary.index, summary.chunks, summary.content), (0, 1, 100));
        let end = Entry::End { content_len: 150, digest: Hash::ZERO };
        accept(&mut manifest, vec![chunk(&[(2, 90, 50)]), close(2, 140), end.clone()]).unwrap();
        assert_eq!(manifest.end(), Some((150, Hash::ZERO)));
        assert_eq!(accept(&mut manifest, vec![end]), Err(ChainError::BehindEnd(2)));
    }

    #[test]
    fn pages_that_do_not_follow_are_refused() {
        let mut manifest = Manifest::new(JOB, 100);
        accept(&mut manifest, vec![open(0, "a", FILE)]).unwrap();
        let good = manifest.next_page(vec![close(0, 0)]);
        let wrong = [
            Page { job: JobId([2; 16]), ..good.clone() },
            Page { index: 2, ..good.clone() },
            Page { previous: Hash::ZERO, ..good.clone() },
            Page { first_chunk: 1, ..good.clone() },
        ];
        for page in wrong {
            assert!(manifest.clone().accept(&page, &page.draft()).is_err(), "{page:?}");
        }
        assert!(manifest.accept(&good, &good.draft()).is_ok());
    }

    #[test]
    fn entries_that_cannot_be_are_refused() {
        let wrong: [(&str, Vec<Entry>); 13] = [
            ("gap", vec![open(0, "a", FILE), chunk(&[(0, 1, 5)])]),
            ("not open", vec![chunk(&[(0, 0, 5)])]),
            ("directory bytes", vec![open(0, "a", DIRECTORY), chunk(&[(0, 0, 5)])]),
            ("empty slice", vec![open(0, "a", FILE), chunk(&[(0, 0, 0)])]),
            ("chunk too long", vec![open(0, "a", FILE), chunk(&[(0, 0, 101)])]),
            ("object number", vec![open(1, "a", FILE)]),
            ("taken", vec![open(0, "a", FILE), open(1, "a", FILE)]),
            ("file as directory", vec![open(0, "a", FILE), open(1, "a/b", FILE)]),
            ("directory as file", vec![open(0, "a/b", FILE), open(1, "a", FILE)]),
            ("name", vec![open(0, "../a", FILE)]),
            ("length", vec![open(0, "a", FILE), close(0, 1)]),
            (
                "open at end",
                vec![open(0, "a", FILE), Entry::End { content_len: 0, digest: Hash::ZERO }],
            ),
            ("content", vec![Entry::End { content_len: 1, digest: Hash::ZERO }]),
        ];
        for (what, entries) in wrong {
            assert!(accept(&mut Manifest::new(JOB, 100), entries).is_err(), "{what}");
        }
    }

    #[test]
    fn a_directory_may_be_named_after_its_content() {
        let entries = vec![open(0, "a/b", FILE), open(1, "a", DIRECTORY)];
        assert!(accept(&mut Manifest::new(JOB, 100), entries).is_ok());
    }
}
