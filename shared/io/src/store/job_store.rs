//! The store of one job: pages and chunks in and out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shared::chunk_set::ChunkSet;
use shared::id::JobId;
use shared::manifest::{Cuts, Entry, Page, PageBytes, Slice};
use tokio::sync::watch;

use super::folder::Files;
use super::index::PageIndex;
use super::live::{LiveObject, Shown};
use super::place::Cursor;
use super::root::Handle;
use super::{PageView, SYNC_EACH_MAX, StoreError, StoreRoot, record};

/// Tags of records in `pages.log`.
pub(super) const TAG_DRAFT: u8 = 1;
pub(super) const TAG_SIGNED: u8 = 2;

/// The store of one job. All methods block on the disk.
#[derive(Debug)]
pub struct JobStore {
    pub(super) job: JobId,
    pub(super) serial: u64,
    pub(super) root: Arc<StoreRoot>,
    pub(super) folder: PathBuf,
    pub(super) pages_log: File,
    pub(super) place: Place,
    pub(super) state: Mutex<State>,
    /// Held while it is written.
    pub(super) journal: Mutex<Journal>,
    /// How far files have their names. Held while they get them; never with `state` wanted
    /// first.
    pub(super) cursor: Mutex<Cursor>,
    /// Live objects by number. Held while their bytes are written; `state` is not wanted under it.
    pub(super) live: Mutex<BTreeMap<u32, LiveObject>>,
    /// Where `cursor` stood when it was left: the place in the log below which objects that are
    /// closed have their names.
    pub(super) named: AtomicU64,
    /// Counts what becomes visible.
    changes: watch::Sender<u64>,
}

/// `have.log` and its length in bytes.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) log: File,
    pub(super) len: u64,
}

/// Where the content is.
#[derive(Debug)]
pub(super) enum Place {
    Spool(File),
    Files(Files),
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) index: PageIndex,
    /// Chunks that are being written now: one for each thread that writes.
    pub(super) busy: BTreeSet<u64>,
    pub(super) written: ChunkSet,
    /// Written chunks with bytes ahead of the prefix of a live object, and in how many slices:
    /// they are not flushed, and so not durable.
    pub(super) ahead: BTreeMap<u64, u32>,
    /// Void short chunks with bytes ahead, and the long chunk that is held because of them.
    pub(super) ahead_of_long: BTreeMap<u64, u64>,
    pub(super) durable: ChunkSet,
    /// Pages that are durable.
    pub(super) pages_durable: u32,
    /// Pages that are durable with all their chunks.
    pub(super) pages_whole: u32,
    pub(super) unsynced: Unsynced,
    pub(super) placed: Placed,
    /// Whether a start has found the job: its files may be there without their pages.
    pub(super) restarted: bool,
    /// Whether names that are due could not be given for want of room.
    pub(super) unnamed: bool,
    /// Whether completion was told.
    pub(super) complete: bool,
    pub(super) ended: Option<Ended>,
}

/// Why nothing more can be done.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    Removed,
    Failed(String),
}

/// What was written and not flushed.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Parts; `many` stands for more than the limit.
    pub(super) parts: BTreeSet<u32>,
    pub(super) many: bool,
    /// Whether a part was made.
    pub(super) names: bool,
    /// Names of live objects that were made.
    pub(super) shown: Placed,
    pub(super) content: bool,
    pub(super) pages: bool,
}

impl Unsynced {
    fn part(&mut self, object: u32) {
        if !self.many {
            self.parts.insert(object);
            if self.parts.len() > SYNC_EACH_MAX {
                self.many = true;
                self.parts.clear();
            }
        }
    }

    /// A live object was made.
    pub(super) fn shown(&mut self, name: &str) {
        self.shown.add(name);
    }

    /// Flushes that this takes one by one.
    pub(super) fn flushes(&self) -> usize {
        let parts = if self.many { SYNC_EACH_MAX } else { self.parts.len() };
        let others = usize::from(parts > 0) + usize::from(self.content) + usize::from(self.pages);
        parts + others + self.shown.flushes()
    }
}

/// Names that were given and not flushed; `many` stands for more than the limit.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) names: Vec<String>,
    pub(super) many: bool,
}

impl Placed {
    pub(super) fn add(&mut self, name: &str) {
        if self.names.len() >= SYNC_EACH_MAX {
            self.many = true;
            self.names.clear();
        }
        if !self.many {
            self.names.push(name.to_owned());
        }
    }

    /// Flushes that this takes one by one, at least.
    pub(super) fn flushes(&self) -> usize {
        if self.many { SYNC_EACH_MAX + 1 } else { self.names.len() }
    }
}

impl JobStore {
    /// The job.
    pub const fn job(&self) -> JobId {
        self.job
    }

    /// The job's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Appends the next page; `page` is `bytes` decoded, and accepted by the manifest.
    ///
    /// # Errors
    /// [`StoreError::PageOrder`] if it is not the next one; without room it can be tried again;
    /// otherwise the store fails.
    pub fn append_page(&self, bytes: &PageBytes, page: &Arc<Page>) -> Result<(), StoreError> {
        let tag = if bytes.is_signed() { TAG_SIGNED } else { TAG_DRAFT };
        let record = record::encode(tag, &bytes.to_record());
        let view = Arc::new(PageView::new(Arc::clone(page)));
        let mut state = self.open_state()?;
        if !state.index.admits(page) {
            let (expected, expected_chunk) = (state.index.pages(), state.index.chunks());
            let (found, found_chunk) = (page.index, page.first_chunk);
            return Err(StoreError::PageOrder { expected, expected_chunk, found, found_chunk });
        }
        if let Err(error) = self.pages_log.write_all_at(&record, state.index.log_len()) {
            drop(state);
            let error = StoreError::io("append to", &self.folder.join("pages.log"))(error);
            return Err(self.fail_to_write(error));
        }
        let before = page.recut().map(|_| state.index.cuts().clone()).unwrap_or_default();
        state.carry_ahead(&before);
        let void = state.index.push(&view, u32::try_from(record.len()).unwrap_or(u32::MAX));
        state.void(&void);
        state.unsynced.pages = true;
        drop(state);
        self.root.cache_page((self.serial, page.index), &view);
        self.follow_live(page).map_err(|error| self.fail(error))?;
        self.note_change();
        Ok(())
    }

    /// The stored page `index`, as it was appended.
    ///
    /// # Errors
    /// [`StoreError::NoPage`] if it is not stored, [`StoreError::RecordDamaged`] if it is no
    /// longer what was appended.
    pub fn read_page(&self, index: u32) -> Result<PageBytes, StoreError> {
        let meta = self.state().index.meta(index).ok_or(StoreError::NoPage(index))?;
        let path = || self.folder.join("pages.log");
        let mut buffer = vec![0; meta.record_len as usize];
        self.pages_log
            .read_exact_at(&mut buffer, meta.record)
            .map_err(|error| StoreError::io("read", &path())(error))?;
        let damaged = || StoreError::RecordDamaged { path: path(), offset: meta.record };
        let (tag, payload) = record::decode(buffer.into()).ok_or_else(damaged)?;
        PageBytes::from_record(payload, tag == TAG_SIGNED)
            .map_err(|source| StoreError::PageDamaged { index, source })
    }

    /// The stored page `index`, decoded; recent ones are kept in memory.
    ///
    /// # Errors
    /// As [`Self::read_page`].
    pub fn decoded(&self, index: u32) -> Result<Arc<PageView>, StoreError> {
        if let Some(view) = self.root.cached_page((self.serial, index)) {
            return Ok(view);
        }
        let page = self
            .read_page(index)?
            .decode()
            .map_err(|source| StoreError::PageDamaged { index, source })?;
        let view = Arc::new(PageView::new(Arc::new(page)));
        self.root.cache_page((self.serial, index), &view);
        Ok(view)
    }

    /// The first page from `from` on that is kept: those whose chunks are void are not.
    pub fn next_page(&self, from: u32) -> Option<u32> {
        self.state().index.next_page(from)
    }

    /// The long chunks of the last page that cut anew, while the short ones are not void.
    pub fn cuts(&self) -> Cuts {
        self.state().index.cuts().clone()
    }

    /// Pages that are stored.
    pub fn pages(&self) -> u32 {
        self.state().index.pages()
    }

    /// Chunks that stored pages describe.
    pub fn chunks(&self) -> u64 {
        self.state().index.chunks()
    }

    /// The page that describes `chunk`.
    pub fn page_of(&self, chunk: u64) -> Option<u32> {
        self.state().index.page_of(chunk)
    }

    /// Whether a stored page describes `chunk`, and it is not void.
    #[cfg(test)]
    pub(super) fn is_described(&self, chunk: u64) -> bool {
        self.view_of(chunk).is_ok_and(|view| view.chunk(chunk).is_some())
    }

    /// Whether `chunk` is written, durable or not.
    pub fn holds(&self, chunk: u64) -> bool {
        self.state().written.contains(chunk)
    }

    /// Whether the log's end is stored and every chunk before it written.
    pub fn is_written(&self) -> bool {
        let state = self.state();
        state.index.ended() && state.written.head() >= state.index.chunks()
    }

    /// Length of `chunk` in bytes.
    ///
    /// # Errors
    /// [`StoreError::NoChunk`] if no stored page describes it, or as [`Self::read_page`].
    pub fn chunk_len(&self, chunk: u64) -> Result<u32, StoreError> {
        let view = self.view_of(chunk)?;
        view.chunk(chunk).map(|(len, ..)| len).ok_or(StoreError::NoChunk(chunk))
    }

    /// Writes `chunk`, whose length and hash the caller has checked; says whether it was new.
    /// A chunk that is written, or is being written by another thread, is left alone.
    ///
    /// # Errors
    /// [`StoreError::NoChunk`] if no stored page describes it, [`StoreError::ChunkLength`] if
    /// it cannot be it; without room it can be tried again, if it cannot be written for another
    /// reason, the store fails.
    pub fn write_chunk(&self, chunk: u64, bytes: &[u8]) -> Result<bool, StoreError> {
        let view = self.view_of(chunk)?;
        let (len, _, slices) = view.chunk(chunk).ok_or(StoreError::NoChunk(chunk))?;
        if len as usize != bytes.len() {
            return Err(StoreError::ChunkLength { chunk, expected: len, found: bytes.len() });
        }
        let mut state = self.open_state()?;
        if state.written.contains(chunk) || !state.busy.insert(chunk) {
            return Ok(false);
        }
        let content = state.index.meta(view.page().index).map_or(0, |meta| meta.content);
        drop(state);
        let offset = content + view.content_offset(chunk).unwrap_or_default();
        let put = self.put(chunk, bytes, slices, offset);
        let mut state = self.state();
        state.busy.remove(&chunk);
        let shown = match put {
            Ok(shown) => shown,
            Err(error) => {
                drop(state);
                return Err(self.fail_to_write(error));
            }
        };
        state.written.insert(chunk);
        if let Some(long) = state.index.cuts().completed(chunk, &state.written) {
            state.written.insert(long);
        }
        let grown = shown.iter().any(|slice| !slice.ahead);
        state.note_shown(chunk, shown);
        match &self.place {
            Place::Spool(_) => state.unsynced.content = true,
            Place::Files(_) => slices.iter().for_each(|slice| state.unsynced.part(slice.object)),
        }
        drop(state);
        if grown {
            self.note_change();
        }
        Ok(true)
    }

    /// Reads `chunk`, from wherever its bytes are by now. They are not verified again.
    ///
    /// # Errors
    /// [`StoreError::NotHeld`] if it is not written, [`StoreError::Lost`] or
    /// [`StoreError::Io`] if its bytes are gone.
    pub fn read_chunk(&self, chunk: u64) -> Result<Bytes, StoreError> {
        let state = self.open_state()?;
        if !state.written.contains(chunk) {
            return Err(StoreError::NotHeld(chunk));
        }
        let page = state.index.page_of(chunk).ok_or(StoreError::NoChunk(chunk))?;
        let content = state.index.meta(page).map_or(0, |meta| meta.content);
        drop(state);
        let view = self.decoded(page)?;
        let (len, _, slices) = view.chunk(chunk).ok_or(StoreError::NoChunk(chunk))?;
        match &self.place {
            Place::Spool(file) => {
                let offset = content + view.content_offset(chunk).unwrap_or_default();
                read_one(file, offset, len)
                    .map_err(|error| StoreError::io("read", &self.folder.join("content"))(error))
            }
            Place::Files(files) => self.gather(files, len, slices),
        }
    }

    /// A count that rises whenever something can be seen that could not be seen before: a name, a
    /// whole file, more of a live object, the end of the log, or that the store has ended.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Removes the job's folder; it is gone for good when this returns.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be removed; what is left is removed at the next start.
    pub fn remove(&self) -> Result<(), StoreError> {
        self.state().ended = Some(Ended::Removed);
        self.note_change();
        self.root.forget_job(self.serial);
        self.root.remove(self.job)
    }

    /// Opens the logs in `folder` and makes what is absent; reads nothing.
    pub(super) fn open(
        root: &Arc<StoreRoot>,
        job: JobId,
        folder: &Path,
    ) -> Result<Arc<Self>, StoreError> {
        let open = |name: &str| {
            let path = folder.join(name);
            let options =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            options.map_err(StoreError::io("open", &path))
        };
        let place = match root.layout() {
            super::Layout::Spool => Place::Spool(open("content")?),
            super::Layout::Files => Place::Files(Files::open(folder)?),
        };
        Ok(Arc::new(Self {
            job,
            serial: root.next_serial(),
            root: Arc::clone(root),
            folder: folder.to_owned(),
            pages_log: open("pages.log")?,
            place,
            state: Mutex::default(),
            journal: Mutex::new(Journal { log: open("have.log")?, len: 0 }),
            cursor: Mutex::default(),
            live: Mutex::default(),
            named: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }))
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a store that has neither failed nor been removed.
    pub(super) fn open_state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        match &state.ended {
            None => Ok(state),
            Some(Ended::Removed) => Err(StoreError::Removed(self.job)),
            Some(Ended::Failed(reason)) => {
                Err(StoreError::Failed { job: self.job, reason: reason.clone() })
            }
        }
    }

    /// Takes note that a write has failed with `error`, which it returns. Without room the
    /// store goes on: a write has its place, where it can be made again.
    pub(super) fn fail_to_write(&self, error: StoreError) -> StoreError {
        match error.is_full() {
            true => error,
            false => self.fail(error.into_final(self.job)),
        }
    }

    /// Takes note that the store has failed with `error`, which it returns.
    pub(super) fn fail(&self, error: StoreError) -> StoreError {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = Some(Ended::Failed(error.to_string()));
        }
        drop(state);
        self.note_change();
        error
    }

    pub(super) fn note_change(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Name and attributes of `object`.
    pub(super) fn object_name(&self, object: u32) -> Result<String, StoreError> {
        let page = self.state().index.page_of_object(object);
        let view = self.decoded(page.ok_or(StoreError::NoObject(object))?)?;
        let named = view.page().entries.iter().find_map(|entry| match entry {
            Entry::Open { object: number, name, .. } if *number == object => Some(name.clone()),
            _ => None,
        });
        named.ok_or(StoreError::NoObject(object))
    }

    fn view_of(&self, chunk: u64) -> Result<Arc<PageView>, StoreError> {
        self.decoded(self.page_of(chunk).ok_or(StoreError::NoChunk(chunk))?)
    }

    /// Writes a chunk; says what that means for each of its slices that belong to a live object.
    fn put(
        &self,
        chunk: u64,
        bytes: &[u8],
        slices: &[Slice],
        offset: u64,
    ) -> Result<Vec<Shown>, StoreError> {
        let files = match &self.place {
            Place::Spool(file) => {
                return file
                    .write_all_at(bytes, offset)
                    .map(|()| Vec::new())
                    .map_err(|error| StoreError::io("write", &self.folder.join("content"))(error));
            }
            Place::Files(files) => files,
        };
        let mut shown = Vec::new();
        let mut rest = bytes;
        for slice in slices {
            // The manifest and the caller have seen to it that the slices make up the chunk.
            let (piece, behind) = rest.split_at(rest.len().min(slice.len as usize));
            rest = behind;
            if let Some(live) = self.put_live(files, chunk, slice, piece)? {
                shown.push(live);
                continue;
            }
            let part = self.part_to_write(files, slice.object)?;
            part.write_all_at(piece, slice.offset)
                .map_err(|error| StoreError::io("write", &files.part_path(slice.object))(error))?;
        }
        Ok(shown)
    }

    pub(super) fn part_to_write(
        &self,
        files: &Files,
        object: u32,
    ) -> Result<Arc<File>, StoreError> {
        let key = (self.serial, object, Handle::Write);
        if let Some(file) = self.root.cached_handle(key) {
            return Ok(file);
        }
        let file = Arc::new(files.make_part(object)?);
        // Before the chunk counts as written, so that it is flushed with it.
        self.state().unsynced.names = true;
        self.root.cache_handle(key, &file);
        Ok(file)
    }

    /// Opens the bytes of `slice`: its object's part, or its file if it has its name already.
    fn bytes_of(&self, files: &Files, slice: &Slice) -> Result<Arc<File>, StoreError> {
        if let Some(file) = self.live_bytes(files, slice)? {
            return Ok(file);
        }
        let object = slice.object;
        let key = (self.serial, object, Handle::Read);
        if let Some(file) = self.root.cached_handle(key) {
            return Ok(file);
        }
        let file = match files.part(object)? {
            Some(part) => part,
            // It never goes from its name back to its number while the store is open, so
            // this order finds it also in the moment of renaming.
            None => {
                let name = self.object_name(object)?;
                let lost = || StoreError::Lost { name: name.clone(), path: self.folder.clone() };
                files.file(&name)?.ok_or_else(lost)?
            }
        };
        let file = Arc::new(file);
        self.root.cache_handle(key, &file);
        Ok(file)
    }

    fn gather(&self, files: &Files, len: u32, slices: &[Slice]) -> Result<Bytes, StoreError> {
        let fail = |object: u32| {
            move |error: io::Error| StoreError::io("read", &files.part_path(object))(error)
        };
        if let [slice] = slices {
            let file = self.bytes_of(files, slice)?;
            return read_one(&file, slice.offset, len).map_err(fail(slice.object));
        }
        let mut buffer = vec![0; len as usize];
        let mut rest = buffer.as_mut_slice();
        for slice in slices {
            let at = rest.len().min(slice.len as usize);
            let (piece, behind) = rest.split_at_mut(at);
            let file = self.bytes_of(files, slice)?;
            file.read_exact_at(piece, slice.offset).map_err(fail(slice.object))?;
            rest = behind;
        }
        Ok(buffer.into())
    }
}

impl State {
    /// These chunks are void: nobody needs them. Who has all short chunks has the long one.
    pub(super) fn void(&mut self, runs: &[(u64, u64)]) {
        for (first, end) in runs {
            for chunk in *first..*end {
                self.written.insert(chunk);
                self.durable.insert(chunk);
                self.ahead.remove(&chunk);
            }
        }
        let Self { index, written, .. } = self;
        for cut in index.cuts().iter() {
            if cut.is_in(written) {
                written.insert(cut.chunk);
            }
        }
    }

    /// The short chunks of `cuts` become void: what of them lies ahead does so for the long ones.
    fn carry_ahead(&mut self, cuts: &Cuts) {
        for cut in cuts.iter().filter(|cut| cut.is_in(&self.written)) {
            let short: Vec<(u64, u32)> = self
                .ahead
                .range(cut.first..cut.end)
                .map(|(chunk, count)| (*chunk, *count))
                .collect();
            for (chunk, count) in short {
                *self.ahead.entry(cut.chunk).or_default() += count;
                self.ahead_of_long.insert(chunk, cut.chunk);
            }
        }
    }

    fn release(&mut self, chunk: u64) {
        if let Some(slices) = self.ahead.get_mut(&chunk) {
            *slices -= 1;
            if *slices == 0 {
                self.ahead.remove(&chunk);
                self.ahead_of_long.retain(|_, long| *long != chunk);
            }
        }
    }

    /// Written chunks whose bytes lie ahead of the prefix of a live object.
    pub(super) fn not_to_flush(&self) -> BTreeSet<u64> {
        let mut ahead: BTreeSet<u64> = self.ahead.keys().copied().collect();
        if !ahead.is_empty() {
            let long = self.index.cuts().iter();
            let long = long.filter(|cut| ahead.range(cut.first..cut.end).next().is_some());
            let long: Vec<u64> = long.map(|cut| cut.chunk).collect();
            ahead.extend(long);
        }
        ahead
    }

    /// Takes note of which chunks have bytes ahead of the prefix of a live object.
    fn note_shown(&mut self, chunk: u64, shown: Vec<Shown>) {
        for slice in shown {
            if slice.ahead {
                *self.ahead.entry(chunk).or_default() += 1;
            }
            for released in slice.released {
                match self.ahead_of_long.get(&released).copied() {
                    Some(long) => self.release(long),
                    None => self.release(released),
                }
            }
        }
    }
}

/// Reads `len` bytes into a buffer that is not filled with zeros first.
pub(super) fn read_one(file: &File, offset: u64, len: u32) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(len as usize);
    while buffer.len() < len as usize {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    buffer.truncate(len as usize);
    Ok(buffer.into())
}
