//! The manifest as it grows: which page may come next, and what the log holds so far.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::JobId;
use crate::limit;
use crate::seal::Hash;

use super::name::{ObjectNameError, check_object_name};
use super::page::{Attributes, Entry, ObjectKind, Page, PageBytes, Slice};
use super::recut::Recut;

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
    /// Something follows the end, be it an empty page.
    #[error("page {0} goes on behind the end of the log")]
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
    /// A page that cuts anew stands for other pages than it may.
    #[error("page {index} cuts pages from {found} on anew, due was {expected}")]
    Recut {
        /// The page.
        index: u32,
        /// The page from which on it may.
        expected: u32,
        /// The page that it names.
        found: u32,
    },
    /// A page cuts anew where no object grows live.
    #[error("page {0} cuts a log anew in which no live object is open")]
    NothingLive(u32),
    /// A page that cuts anew has an entry that is neither a chunk nor a sync point, or does not
    /// have all the bytes.
    #[error("page {0} does not cut anew what it stands for")]
    RecutContent(u32),
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
    /// Bytes where the tail of the log begins.
    tail_len: u64,
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
    /// Content bytes that it added to the job's; chunks that are cut anew add none.
    pub content: u64,
    /// What the page cuts anew.
    pub recut: Option<Recut>,
    /// Whether it was taken in place of the pages that it stands for: the chunks that it cuts
    /// anew are void at once.
    pub skipped: bool,
    /// An earlier page that cut anew: the chunks that it replaced are void from now on.
    pub in_force: Option<Recut>,
}

impl PageSummary {
    /// Of a page that cuts nothing anew, follows the one before it, and describes chunks from
    /// `first_chunk` on.
    pub const fn plain(index: u32, first_chunk: u64) -> Self {
        Self {
            index,
            first_chunk,
            chunks: 0,
            content: 0,
            recut: None,
            skipped: false,
            in_force: None,
        }
    }
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
    tail: Tail,
    /// The last page that cut anew, while the chunks that it replaces are not void.
    recut: Option<Recut>,
}

/// The end of the log that the next page may cut anew: pages of chunks and sync points alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tail {
    page: u32,
    chunk: u64,
    previous: Hash,
    content: u64,
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
            tail: Tail { page: 0, chunk: 0, previous: Hash::ZERO, content: 0 },
            recut: None,
        }
    }

    /// The job.
    pub const fn job(&self) -> JobId {
        self.job
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
        if let Some(Entry::Recut { first_page, first_chunk, previous }) = page.entries.first() {
            let (page_from, chunk, previous) = (*first_page, *first_chunk, *previous);
            let claimed = Tail { page: page_from, chunk, previous, content: self.tail.content };
            return self.accept_recut(page, bytes, claimed);
        }
        self.check_place(page)?;
        if self.end.is_some() {
            return Err(ChainError::BehindEnd(page.index));
        }
        let (chunks, content) = (self.chunks, self.content);
        for entry in &page.entries {
            if self.end.is_some() {
                return Err(ChainError::BehindEnd(page.index));
            }
            self.apply(page.index, entry)?;
        }
        self.pages += 1;
        self.last = bytes.hash();
        if !page.entries.iter().all(may_be_cut_anew) {
            self.begin_tail();
        }
        Ok(PageSummary {
            index: page.index,
            first_chunk: page.first_chunk,
            chunks: self.chunks - chunks,
            content: self.content - content,
            recut: None,
            skipped: false,
            in_force: None,
        })
    }

    /// Whether `page`, which is not the next one, may be taken in place of the next ones.
    pub fn may_skip_to(&self, page: &Page) -> bool {
        page.recut().is_some_and(|recut| recut.first_page == self.tail.page)
    }

    /// Where the next page that cuts anew has to begin: the first page and the first chunk.
    pub const fn tail(&self) -> (u32, u64) {
        (self.tail.page, self.tail.chunk)
    }

    /// The last page that cut anew, while the chunks that it replaces are not void yet.
    pub const fn recut(&self) -> Option<Recut> {
        self.recut
    }

    /// The first entry of a page that cuts the tail of this log anew.
    pub const fn recut_entry(&self) -> Entry {
        let Tail { page, chunk, previous, .. } = self.tail;
        Entry::Recut { first_page: page, first_chunk: chunk, previous }
    }

    fn begin_tail(&mut self) {
        let (page, chunk, previous) = (self.pages, self.chunks, self.last);
        self.tail = Tail { page, chunk, previous, content: self.content };
        self.open.values_mut().for_each(|object| object.tail_len = object.len);
    }

    /// Accepts a page that cuts the tail anew, be it as the next page or in place of those that
    /// it stands for. It has the bytes of the tail if each object goes on where the tail began,
    /// and ends where it ends.
    fn accept_recut(
        &mut self,
        page: &Page,
        bytes: &PageBytes,
        claimed: Tail,
    ) -> Result<PageSummary, ChainError> {
        let index = page.index;
        if self.end.is_some() {
            return Err(ChainError::BehindEnd(index));
        }
        if !self.open.values().any(|object| object.attributes.kind == ObjectKind::Live) {
            return Err(ChainError::NothingLive(index));
        }
        if claimed != self.tail || index <= self.tail.page {
            let (expected, found) = (self.tail.page, claimed.page);
            return Err(ChainError::Recut { index, expected, found });
        }
        let skipped = index > self.pages;
        let (len_before, content_before) = (self.open_bytes(), self.content);
        if skipped {
            self.skip_to(page)?;
        } else {
            self.check_place(page)?;
        }
        let chunks = self.chunks;
        self.content = self.tail.content;
        self.open.values_mut().for_each(|object| object.len = object.tail_len);
        for entry in page.entries.iter().skip(1) {
            if !may_be_cut_anew(entry) {
                return Err(ChainError::RecutContent(index));
            }
            self.apply(index, entry)?;
        }
        let lens = self.open_bytes();
        let same = (&lens, self.content) == (&len_before, content_before);
        // It stands for all that is here and more, so no object gets shorter by it.
        let shorter = lens.iter().zip(&len_before).any(|(now, before)| now < before);
        if shorter || (!skipped && !same) {
            return Err(ChainError::RecutContent(index));
        }
        self.pages = index + 1;
        self.last = bytes.hash();
        self.begin_tail();
        let recut = page.recut();
        let in_force = self.recut.take();
        self.recut = recut.filter(|_| !skipped);
        Ok(PageSummary {
            index,
            first_chunk: page.first_chunk,
            chunks: self.chunks - chunks,
            content: self.content.saturating_sub(content_before),
            recut,
            skipped,
            in_force,
        })
    }

    /// Forgets the tail, in place of which `page` is taken.
    fn skip_to(&mut self, page: &Page) -> Result<(), ChainError> {
        let index = page.index;
        if page.job != self.job {
            return Err(ChainError::Job { index, job: page.job });
        }
        if page.first_chunk < self.chunks {
            let (expected, found) = (self.chunks, page.first_chunk);
            return Err(ChainError::FirstChunk { index, expected, found });
        }
        within(index, "pages", u64::from(index), u64::from(limit::PAGES_MAX))?;
        within(index, "chunks", page.first_chunk, limit::CHUNKS_MAX)?;
        within(index, "entries", page.entries.len() as u64, limit::PAGE_ENTRIES_MAX as u64)?;
        self.chunks = page.first_chunk;
        Ok(())
    }

    /// The lengths of all open objects, in order.
    fn open_bytes(&self) -> Vec<u64> {
        self.open.values().map(|object| object.len).collect()
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
            Entry::Recut { first_page, .. } => {
                let (expected, found) = (self.tail.page, *first_page);
                Err(ChainError::Recut { index, expected, found })
            }
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
        let name = name.to_owned();
        self.open.insert(object, ObjectState { name, attributes, len: 0, tail_len: 0 });
        Ok(())
    }

    fn mark_sync(&self, object: u32, claimed: u64) -> Result<(), ChainError> {
        let state = self.open.get(&object).ok_or(ChainError::NotOpen(object))?;
        if claimed > state.len {
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

/// Whether a page of such entries can be cut anew, and whether a page that cuts anew may have it.
const fn may_be_cut_anew(entry: &Entry) -> bool {
    matches!(entry, Entry::Chunk { .. } | Entry::Sync { .. })
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
        assert_eq!(accept(&mut manifest, vec![]), Err(ChainError::BehindEnd(2)));
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

    const LIVE: Attributes = Attributes { kind: ObjectKind::Live, ..FILE };

    /// A live log: its page 0 opens an object, the next four have a chunk of 10 bytes each.
    fn live() -> Manifest {
        let mut manifest = Manifest::new(JOB, 100);
        accept(&mut manifest, vec![open(0, "a", LIVE)]).unwrap();
        (0..4).for_each(|at| {
            accept(&mut manifest, vec![chunk(&[(0, at * 10, 10)])]).unwrap();
        });
        manifest
    }

    fn anew(manifest: &Manifest, chunks: &[(u64, u32)]) -> Page {
        let chunks = chunks.iter().map(|(offset, len)| chunk(&[(0, *offset, *len)]));
        manifest.next_page(std::iter::once(manifest.recut_entry()).chain(chunks).collect())
    }

    #[test]
    fn the_tail_of_a_log_is_cut_anew_and_the_log_goes_on() {
        let mut manifest = live();
        let page = anew(&manifest, &[(0, 30), (30, 10)]);
        let summary = manifest.accept(&page, &page.draft()).unwrap();
        let recut = Recut { first_page: 1, page: 5, first_chunk: 0, end_chunk: 4 };
        assert_eq!((summary.recut, summary.skipped, summary.in_force), (Some(recut), false, None));
        assert_eq!((manifest.content(), manifest.chunks(), manifest.pages()), (40, 6, 6));
        // The next one makes the first one's chunks void.
        accept(&mut manifest, vec![chunk(&[(0, 40, 5)])]).unwrap();
        let page = anew(&manifest, &[(40, 5)]);
        let summary = manifest.accept(&page, &page.draft()).unwrap();
        assert_eq!(summary.in_force, Some(recut));
        let end = vec![close(0, 45), Entry::End { content_len: 45, digest: Hash::ZERO }];
        accept(&mut manifest, end).unwrap();
    }

    #[test]
    fn who_lacks_the_tail_takes_the_page_in_its_place() {
        let mut whole = live();
        let page = anew(&whole, &[(0, 40)]);
        whole.accept(&page, &page.draft()).unwrap();
        let next = whole.next_page(vec![chunk(&[(0, 40, 5)])]);
        // One that has just the opening page, and one that has a part of the tail.
        for pages in [1, 3] {
            let mut other = Manifest::new(JOB, 100);
            accept(&mut other, vec![open(0, "a", LIVE)]).unwrap();
            (1..pages).for_each(|at| {
                accept(&mut other, vec![chunk(&[(0, (at - 1) * 10, 10)])]).unwrap();
            });
            let summary = other.accept(&page, &page.draft()).unwrap();
            assert!(summary.skipped);
            assert_eq!((other.content(), other.chunks(), other.pages()), (40, 5, 6));
            other.accept(&next, &next.draft()).unwrap();
            assert_eq!(other.last_hash(), next.draft().hash());
        }
    }

    #[test]
    fn a_page_in_place_of_others_has_at_least_what_is_there() {
        let whole = live();
        let mut ahead = whole.clone();
        accept(&mut ahead, vec![chunk(&[(0, 40, 5)])]).unwrap();
        let page = Page { index: ahead.pages(), ..anew(&whole, &[(0, 30)]) };
        assert_eq!(whole.clone().accept(&page, &page.draft()), Err(ChainError::RecutContent(6)));
    }

    #[test]
    fn what_is_cut_anew_must_be_what_is_there() {
        let wrong: [(&str, &[(u64, u32)]); 4] = [
            ("too little", &[(0, 30)]),
            ("too much", &[(0, 30), (30, 11)]),
            ("a hole", &[(0, 10), (20, 20)]),
            ("from behind the beginning", &[(10, 30)]),
        ];
        for (what, chunks) in wrong {
            let mut manifest = live();
            let page = anew(&manifest, chunks);
            assert!(manifest.accept(&page, &page.draft()).is_err(), "{what}");
        }
        let mut manifest = live();
        let mut page = anew(&manifest, &[(0, 40)]);
        page.entries.push(close(0, 40));
        assert_eq!(
            manifest.accept(&page, &page.draft()),
            Err(ChainError::RecutContent(5)),
            "nothing but chunks"
        );
        let mut manifest = live();
        let page = manifest.next_page(vec![chunk(&[(0, 40, 5)]), manifest.recut_entry()]);
        assert!(manifest.accept(&page, &page.draft()).is_err(), "it comes first");
        let mut manifest = live();
        let Entry::Recut { first_chunk, previous, .. } = manifest.recut_entry() else { panic!() };
        let from = Entry::Recut { first_page: 2, first_chunk, previous };
        let page = manifest.next_page(vec![from, chunk(&[(0, 10, 30)])]);
        assert!(manifest.accept(&page, &page.draft()).is_err(), "the whole tail");
    }

    #[test]
    fn only_a_live_log_is_cut_anew() {
        let mut manifest = Manifest::new(JOB, 100);
        accept(&mut manifest, vec![open(0, "a", FILE)]).unwrap();
        accept(&mut manifest, vec![chunk(&[(0, 0, 40)])]).unwrap();
        let page = anew(&manifest, &[(0, 40)]);
        assert_eq!(manifest.accept(&page, &page.draft()), Err(ChainError::NothingLive(2)));
    }

    #[test]
    fn a_directory_may_be_named_after_its_content() {
        let entries = vec![open(0, "a/b", FILE), open(1, "a", DIRECTORY)];
        assert!(accept(&mut Manifest::new(JOB, 100), entries).is_ok());
    }
}
