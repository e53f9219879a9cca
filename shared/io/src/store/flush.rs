//! Group commit: the news of many jobs made durable together.
//!
//! Four steps, and a crash may come between any two: (1) data and pages are flushed, (2) the
//! journal takes up what they contain and is flushed, (3) objects that are whole get their
//! names, (4) once a job has all of them, the names are flushed and it is complete.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use shared::chunk_set::ChunkSet;
use shared::id::JobId;

use super::job_store::{Ended, Place, Unsynced};
use super::root::Handle;
use super::{JobStore, SYNC_EACH_MAX, StoreError, StoreRoot, record};

/// Runs in one record of `have.log`.
const RECORD_RUNS: usize = 2_048;
/// Largest payload of a record of `have.log`, in bytes.
pub(super) const HAVE_LEN_MAX: usize = RECORD_RUNS * 16;
/// The tag of a record of runs in `have.log`.
pub(super) const TAG_RUNS: u8 = 1;

/// What one flush did for one job.
#[derive(Debug)]
pub struct Flushed {
    /// The job.
    pub job: JobId,
    /// Runs `(first, len)` of chunks that are durable now and were not before.
    pub durable: Vec<(u64, u64)>,
    /// Pages that are durable together with all their chunks, counted from the first
    /// without a gap.
    pub pages: u32,
    /// Whether the log is durable to its end and every object has its name, durably. Said
    /// once.
    pub complete: bool,
    /// Why the flush has failed, if it has. Without room ([`StoreError::is_full`]) it is to be
    /// made again; for any other reason the store has failed, and nothing more comes of it.
    pub error: Option<StoreError>,
}

/// Flushes the news of `stores`, all of `root`, and reports what came of it: at most twice for
/// each store, durable chunks first and completion last. Returns those that found no room, whose
/// flush is to be made again.
pub fn flush_group(
    root: &StoreRoot,
    stores: &[Arc<JobStore>],
    report: &dyn Fn(Flushed),
) -> Vec<Arc<JobStore>> {
    let mut batches: Vec<Batch<'_>> = stores.iter().filter_map(Batch::begin).collect();
    sync_data(root, &mut batches);
    sync_journals(root, &mut batches);
    for batch in &mut batches {
        batch.advance(report);
    }
    sync_names(root, &mut batches);
    let mut again = Vec::new();
    for batch in &mut batches {
        if batch.finish(report) {
            again.push(Arc::clone(batch.store));
        }
    }
    again
}

/// The news of one store.
#[derive(Debug)]
pub(super) struct Batch<'s> {
    store: &'s Arc<JobStore>,
    runs: Vec<(u64, u64)>,
    pages: u32,
    unsynced: Unsynced,
    error: Option<StoreError>,
    /// Whether the step that has failed can be made again. A flush cannot: what it did not
    /// flush may be gone.
    again: bool,
    /// Whether every object has its name, and that must be flushed.
    placed: bool,
}

impl<'s> Batch<'s> {
    /// What there is to flush, if anything. Only what is complete by now is part of it.
    pub(super) fn begin(store: &'s Arc<JobStore>) -> Option<Self> {
        let mut state = store.open_state().ok()?;
        let runs = without(fresh_runs(&state.written, &state.durable), &state.not_to_flush());
        let pages = state.index.pages();
        if runs.is_empty() && pages == state.pages_durable && !state.unnamed {
            return None;
        }
        let unsynced = std::mem::take(&mut state.unsynced);
        drop(state);
        Some(Self { store, runs, pages, unsynced, error: None, again: false, placed: false })
    }

    fn sync_each(&self) -> Result<(), StoreError> {
        let store = self.store;
        match &store.place {
            Place::Spool(content) if self.unsynced.content => {
                let path = store.folder.join("content");
                content.sync_data().map_err(StoreError::io("flush", &path))?;
            }
            Place::Files(files) => {
                for object in &self.unsynced.parts {
                    if store.sync_live(files, *object)? {
                        continue;
                    }
                    let cached = store.root.cached_handle((store.serial, *object, Handle::Write));
                    let part = match cached {
                        Some(part) => part,
                        None => Arc::new(files.make_part(*object)?),
                    };
                    let path = files.part_path(*object);
                    part.sync_data().map_err(StoreError::io("flush", &path))?;
                }
                if self.unsynced.names {
                    files.sync_parts()?;
                }
                if !self.unsynced.shown.names.is_empty() {
                    files.sync_names(&self.unsynced.shown.names)?;
                }
            }
            Place::Spool(_) => {}
        }
        if self.unsynced.pages {
            let path = store.folder.join("pages.log");
            store.pages_log.sync_data().map_err(StoreError::io("flush", &path))?;
        }
        Ok(())
    }

    /// Appends the runs to the journal; does not flush it.
    fn journal(&self) -> Result<(), StoreError> {
        let records = have_records(&self.runs);
        let path = self.store.folder.join("have.log");
        let mut journal = self.store.journal();
        let written = journal.log.write_all_at(&records, journal.len);
        written.map_err(StoreError::io("append to", &path))?;
        journal.len += records.len() as u64;
        Ok(())
    }

    fn sync_journal(&self) -> Result<(), StoreError> {
        let path = self.store.folder.join("have.log");
        self.store.journal().log.sync_data().map_err(StoreError::io("flush", &path))
    }

    /// Takes up what is durable now, reports it, and gives names.
    fn advance(&mut self, report: &dyn Fn(Flushed)) {
        if self.error.is_none() {
            let (pages, complete) = self.settle();
            let durable = std::mem::take(&mut self.runs);
            report(Flushed { job: self.store.job, durable, pages, complete, error: None });
            match self.store.place {
                Place::Spool(_) => {}
                Place::Files(_) => match self.store.place() {
                    Ok(ended) => {
                        let mut state = self.store.state();
                        state.unnamed = false;
                        self.placed = ended && !state.complete;
                    }
                    Err(error) => {
                        self.store.state().unnamed = true;
                        (self.error, self.again) = (Some(error), true);
                    }
                },
            }
        }
    }

    /// Moves what was flushed to what is durable: pages that are whole, and whether the job is
    /// complete, which a job with names is not yet.
    fn settle(&self) -> (u32, bool) {
        let mut state = self.store.state();
        for (first, len) in &self.runs {
            for chunk in *first..first.saturating_add(*len) {
                state.durable.insert(chunk);
            }
        }
        state.pages_durable = self.pages;
        let pages = state.count_whole();
        let complete =
            matches!(self.store.place, Place::Spool(_)) && state.is_durable() && !state.complete;
        state.complete |= complete;
        (pages, complete)
    }

    /// Reports completion, or the error; says whether the flush is to be made again.
    fn finish(&mut self, report: &dyn Fn(Flushed)) -> bool {
        let job = self.store.job;
        if let Some(error) = self.error.take() {
            let error = match self.again {
                true => self.store.fail_to_write(error),
                false => self.store.fail(error.into_final(self.store.job)),
            };
            let again = error.is_full();
            let state = self.store.state();
            let pages = state.pages_whole;
            // The errors of a job that is being removed are of no interest.
            let removed = matches!(state.ended, Some(Ended::Removed));
            drop(state);
            if !removed {
                let error = Some(error);
                report(Flushed { job, durable: vec![], pages, complete: false, error });
            }
            return again && !removed;
        }
        if self.placed {
            let mut state = self.store.state();
            state.complete = true;
            let pages = state.pages_whole;
            drop(state);
            report(Flushed { job, durable: vec![], pages, complete: true, error: None });
        }
        false
    }

    /// Takes note of an error that all jobs of the group share.
    fn fail_with(&mut self, error: &StoreError) {
        let (job, reason) = (self.store.job, error.to_string());
        self.run(|_| Err(StoreError::Failed { job, reason }));
    }

    fn run(&mut self, step: impl FnOnce(&Self) -> Result<(), StoreError>) {
        if self.error.is_none() {
            self.error = step(self).err();
        }
    }
}

/// Step 1.
pub(super) fn sync_data(root: &StoreRoot, batches: &mut [Batch<'_>]) {
    let flushes: usize = batches.iter().map(|batch| batch.unsynced.flushes()).sum();
    if flushes > SYNC_EACH_MAX {
        sync_all(root, batches);
    } else {
        batches.iter_mut().for_each(|batch| batch.run(Batch::sync_each));
    }
}

/// Step 2.
pub(super) fn sync_journals(root: &StoreRoot, batches: &mut [Batch<'_>]) {
    let mut with_runs: Vec<&mut Batch<'_>> =
        batches.iter_mut().filter(|b| b.error.is_none() && !b.runs.is_empty()).collect();
    for batch in &mut with_runs {
        batch.run(Batch::journal);
        batch.again = batch.error.is_some();
    }
    if with_runs.len() <= SYNC_EACH_MAX {
        with_runs.iter_mut().for_each(|batch| batch.run(Batch::sync_journal));
        return;
    }
    if let Err(error) = root.sync_all() {
        with_runs.into_iter().for_each(|batch| batch.fail_with(&error));
    }
}

/// Step 4.
fn sync_names(root: &StoreRoot, batches: &mut [Batch<'_>]) {
    let placed = || batches.iter().filter(|batch| batch.placed);
    let flushes: usize = placed().map(|batch| batch.store.state().placed.flushes()).sum();
    if flushes > SYNC_EACH_MAX {
        sync_all(root, batches);
        return;
    }
    for batch in batches.iter_mut().filter(|batch| batch.placed) {
        batch.run(|batch| {
            let placed = std::mem::take(&mut batch.store.state().placed);
            match &batch.store.place {
                Place::Files(files) => files.sync_names(&placed.names),
                Place::Spool(_) => Ok(()),
            }
        });
    }
}

fn sync_all(root: &StoreRoot, batches: &mut [Batch<'_>]) {
    for batch in batches.iter() {
        // What gets a name from here on is not part of this flush.
        batch.store.state().placed = super::job_store::Placed::default();
    }
    if let Err(error) = root.sync_all() {
        batches.iter_mut().for_each(|batch| batch.fail_with(&error));
    }
}

/// The records that say `runs`.
pub(super) fn have_records(runs: &[(u64, u64)]) -> Vec<u8> {
    let mut records = Vec::with_capacity(runs.len() * 16 + record::HEADER_LEN);
    for runs in runs.chunks(RECORD_RUNS) {
        let mut payload = Vec::with_capacity(runs.len() * 16);
        for (first, len) in runs {
            payload.extend_from_slice(&first.to_le_bytes());
            payload.extend_from_slice(&len.to_le_bytes());
        }
        records.extend_from_slice(&record::encode(TAG_RUNS, &payload));
    }
    records
}

/// `runs` without the chunks of `left_out`.
fn without(runs: Vec<(u64, u64)>, left_out: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    if left_out.is_empty() {
        return runs;
    }
    let mut kept = Vec::new();
    for (first, len) in runs {
        let (mut from, end) = (first, first + len);
        for &chunk in left_out.range(first..end) {
            if chunk > from {
                kept.push((from, chunk - from));
            }
            from = chunk + 1;
        }
        if from < end {
            kept.push((from, end - from));
        }
    }
    kept
}

/// The runs of `written` that are not `durable`.
fn fresh_runs(written: &ChunkSet, durable: &ChunkSet) -> Vec<(u64, u64)> {
    let mut fresh = Vec::new();
    for (first, len) in written.runs(durable.head()) {
        let (mut at, end) = (first, first + len);
        loop {
            let from = durable.next_absent(at);
            if from >= end {
                break;
            }
            at = durable.next_present(from).unwrap_or(end).min(end);
            fresh.push((from, at - from));
        }
    }
    fresh
}
