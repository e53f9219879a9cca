//! After a start: what the journals vouch for, and what the disk still has of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use shared::chunk_set::ChunkSet;
use shared::id::JobId;
use shared::job::{JobObject, JobObjectError, SignedJob};
use shared::limit;
use shared::manifest::{Entry, Manifest, ObjectKind};
use shared::wire::codec;

use super::audit::{Audit, LiveExtent};
use super::flush::{HAVE_LEN_MAX, TAG_RUNS, have_records};
use super::folder::{Files, is_file};
use super::index::PageIndex;
use super::job_store::{Journal, Place, State};
use super::live::Marks;
use super::record::{Next, Scanner};
use super::root::remove_tree;
use super::{JobStore, StoreError, StoreRoot};

/// Largest `job` file, in bytes: the object, its length and its signature.
const JOB_FILE_MAX: usize = limit::JOB_OBJECT_LEN_MAX + 128;

/// A job that was found.
#[derive(Debug)]
pub struct Recovered {
    /// Its store, ready to go on.
    pub store: Arc<JobStore>,
    /// The signed job object.
    pub job: SignedJob,
    /// The job object.
    pub object: JobObject,
    /// The manifest after all stored pages.
    pub manifest: Manifest,
    /// Chunks that are durable.
    pub held: ChunkSet,
    /// Pages that are durable together with all their chunks, counted from the first without
    /// a gap; the manifest may have more.
    pub pages_durable: u32,
    /// Whether everything to the log's end is durable and has its name.
    pub complete: bool,
    /// What was damaged and left out.
    pub notes: Vec<String>,
}

/// A folder that was left as it is: no job could be made of it.
#[derive(Debug)]
pub struct Refused {
    /// The folder.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What a start found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Jobs, in the order of their ids.
    pub jobs: Vec<Recovered>,
    /// Folders that are no jobs.
    pub refused: Vec<Refused>,
}

impl StoreRoot {
    /// Finds all jobs. `open` checks a job object's signature.
    ///
    /// Everything that is returned as held is durable. Bytes of content are not verified
    /// again, only that they are there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk cannot be read or written; what is damaged is no error
    /// but a note, or a folder refused.
    pub fn recover(
        self: &Arc<Self>,
        open: &dyn Fn(&SignedJob) -> Result<JobObject, JobObjectError>,
    ) -> Result<Recovery, StoreError> {
        let mut recovery = Recovery::default();
        for path in self.folders()? {
            match read_job(&path, open)? {
                Found::Nothing => remove_tree(&path)?,
                Found::Refused(reason) => recovery.refused.push(Refused { path, reason }),
                Found::Job(job, object) => match recover_job(self, &path, job, *object) {
                    Ok(job) => recovery.jobs.push(job),
                    Err(StoreError::PageRefused { index, source }) => {
                        let reason = format!("page {index}: {source}");
                        recovery.refused.push(Refused { path, reason });
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        // What the process before this one wrote last may not be flushed.
        self.sync_all()?;
        Ok(recovery)
    }
}

enum Found {
    Job(SignedJob, Box<JobObject>),
    /// A job whose making was cut off.
    Nothing,
    Refused(String),
}

fn read_job(
    folder: &Path,
    open: &dyn Fn(&SignedJob) -> Result<JobObject, JobObjectError>,
) -> Result<Found, StoreError> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Ok(id) = name.parse::<JobId>() else {
        return Ok(Found::Refused(format!("{name:?} is not a job id")));
    };
    let path = folder.join("job");
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        read => read.map_err(StoreError::io("read", &path))?,
    };
    let decoded = codec::decode::<SignedJob, JOB_FILE_MAX>(&bytes);
    let opened = decoded.map_err(JobObjectError::from).and_then(|job| Ok((open(&job)?, job)));
    Ok(match opened {
        Ok((object, job)) if object.id == id => Found::Job(job, Box::new(object)),
        Ok((object, _)) => Found::Refused(format!("it holds the job object of {}", object.id)),
        Err(error) => Found::Refused(error.to_string()),
    })
}

fn recover_job(
    root: &Arc<StoreRoot>,
    folder: &Path,
    job: SignedJob,
    object: JobObject,
) -> Result<Recovered, StoreError> {
    let mut store = JobStore::open(root, object.id, folder)?;
    let mut notes = Vec::new();
    let journalled = read_journal(&store, &mut notes)?;
    let Audit { mut index, manifest, held, live, .. } =
        Audit::run(&store, &object, journalled, &mut notes)?;
    let damaged = !notes.is_empty();
    if !damaged {
        store.compact(&mut index, &held)?;
    }
    store.restore(index, held.clone());
    for (object, live) in live {
        store.restore_live(object, live)?;
    }
    if damaged {
        // Before the journal forgets the damage, so that a crash in between repeats this.
        store.withdraw_incomplete(&held)?;
    }
    store.resume_journal(&held, damaged)?;
    let mut ended = match store.place() {
        Ok(ended) => ended,
        Err(error) => {
            notes.push(store.fail(error).to_string());
            false
        }
    };
    store.remove_strays()?;
    let mut state = store.state();
    ended &= state.is_durable();
    state.complete = ended;
    let pages_durable = state.count_whole();
    drop(state);
    Ok(Recovered { store, job, object, manifest, held, pages_durable, complete: ended, notes })
}

/// Reads `have.log` as far as it is whole.
fn read_journal(store: &JobStore, notes: &mut Vec<String>) -> Result<ChunkSet, StoreError> {
    let path = store.folder.join("have.log");
    let fail = |error: io::Error| StoreError::io("read", &path)(error);
    let mut journal = store.journal();
    let Journal { log, len } = &mut *journal;
    let mut scanner = Scanner::new(log, HAVE_LEN_MAX).map_err(fail)?;
    let mut held = ChunkSet::new();
    loop {
        *len = scanner.at();
        match scanner.next().map_err(fail)? {
            Next::Record(_, TAG_RUNS, payload) => {
                for (first, len) in runs(&payload) {
                    let end = first.saturating_add(len).min(limit::CHUNKS_MAX);
                    (first..end).for_each(|chunk| {
                        held.insert(chunk);
                    });
                }
            }
            Next::Record(offset, tag, _) => {
                notes.push(format!(
                    "have.log: record at {offset} of unknown kind {tag}, not used from there on"
                ));
                return Ok(held);
            }
            Next::Damaged => {
                let at = scanner.at();
                notes.push(format!("have.log: damaged at {at}, not used from there on"));
                return Ok(held);
            }
            Next::End | Next::Torn => return Ok(held),
        }
    }
}

fn runs(payload: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let pairs = payload.chunks_exact(16);
    pairs.map(move |pair| (number(pair.first_chunk()), number(pair.last_chunk())))
}

impl State {
    /// Counts the pages that are durable with all their chunks.
    pub(super) fn count_whole(&mut self) -> u32 {
        while let Some(page) = self.index.next_page(self.pages_whole)
            && page < self.pages_durable
            && self.index.page_end(page) <= self.durable.head()
        {
            self.pages_whole = page + 1;
        }
        self.pages_whole
    }

    /// Whether everything to the log's end is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.index.ended()
            && self.pages_durable == self.index.pages()
            && self.durable.head() >= self.index.chunks()
    }
}

impl JobStore {
    fn restore(&self, index: PageIndex, held: ChunkSet) {
        let mut state = self.state();
        state.restarted = true;
        state.pages_durable = index.pages();
        state.index = index;
        state.written = held.clone();
        state.durable = held;
    }

    /// Goes on behind the last whole record; writes the journal anew if it says more than is so.
    fn resume_journal(&self, held: &ChunkSet, damaged: bool) -> Result<(), StoreError> {
        let path = self.folder.join("have.log");
        let journal = self.journal();
        if !damaged {
            return journal.log.set_len(journal.len).map_err(StoreError::io("cut", &path));
        }
        drop(journal);
        let runs: Vec<(u64, u64)> = held.runs(0).collect();
        self.rewrite_journal(&have_records(&runs))
    }

    /// Takes back files some of whose chunks are not held (any more). Live objects stay: one
    /// that is whole is taken up again, since such a chunk will be written anew.
    fn withdraw_incomplete(&self, held: &ChunkSet) -> Result<(), StoreError> {
        let Place::Files(files) = &self.place else {
            return Ok(());
        };
        let mut open: BTreeMap<u32, (String, ObjectKind, bool)> = BTreeMap::new();
        let mut next = 0;
        while let Some(index) = self.next_page(next) {
            next = index + 1;
            let view = self.decoded(index)?;
            let page = view.page();
            let mut chunk = page.first_chunk;
            for entry in &page.entries {
                match entry {
                    Entry::Chunk { slices, .. } => {
                        if !held.contains(chunk) {
                            for slice in slices {
                                if let Some((.., whole)) = open.get_mut(&slice.object) {
                                    *whole = false;
                                }
                            }
                        }
                        chunk += 1;
                    }
                    Entry::Open { object, name, attributes } => {
                        if attributes.kind != ObjectKind::Directory {
                            open.insert(*object, (name.clone(), attributes.kind, true));
                        }
                    }
                    Entry::Close { object, len, .. } => match open.remove(object) {
                        Some((name, ObjectKind::Live, false)) => {
                            if self.live_shown(*object).is_none() {
                                let (durable, closed) = (*len, Some(*len));
                                let marks = Marks::default();
                                let found = LiveExtent { name, durable, closed, marks };
                                self.restore_live(*object, found)?;
                            }
                        }
                        Some((name, _, false)) => withdraw(files, *object, &name)?,
                        Some(_) | None => {}
                    },
                    Entry::End { .. } | Entry::Sync { .. } | Entry::Recut { .. } => {}
                }
            }
        }
        // What is still open cannot have a name, unless its closing page was lost.
        open.iter()
            .filter(|(_, (_, kind, _))| *kind == ObjectKind::File)
            .try_for_each(|(object, (name, ..))| withdraw(files, *object, name))
    }

    /// Removes parts of objects that have their names, or that no page opens.
    fn remove_strays(&self) -> Result<(), StoreError> {
        let Place::Files(files) = &self.place else {
            return Ok(());
        };
        let objects = self.state().index.objects();
        let cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        for object in files.parts()? {
            let named = object < cursor.opened && !cursor.open.contains_key(&object);
            if named || object >= objects {
                files.remove_part(object)?;
            }
        }
        Ok(())
    }
}

fn withdraw(files: &Files, object: u32, name: &str) -> Result<(), StoreError> {
    if files.part_stat(object)?.is_some() {
        return Ok(());
    }
    match files.file_stat(name) {
        Ok(Some(file)) if is_file(&file) => files.withdraw(object, name),
        // Whatever else is there is in the way, which is said when the object is whole.
        Ok(_) | Err(StoreError::InTheWay { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
