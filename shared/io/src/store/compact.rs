//! At a start, logs that say much that is void are written anew: a live job that goes on for weeks
//! keeps short ones.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use shared::chunk_set::ChunkSet;

use super::flush::have_records;
use super::index::PageIndex;
use super::root::{abandoned, sync_directory, write_durably};
use super::{JobStore, StoreError};

/// A log is written anew when it is longer than this many times what is in force.
const TIMES_MAX: u64 = 2;
/// Bytes of `have.log` that are not worth it.
const HAVE_LEN_MIN: u64 = 4 * 1024;

impl JobStore {
    /// Writes the logs anew if that makes them much shorter; they say the same then. First
    /// `have.log`, of which `held` is all there is to say: the pages that go may be what long
    /// chunks are held by. Without room on the disk they stay as they are.
    pub(super) fn compact(
        self: &mut Arc<Self>,
        index: &mut PageIndex,
        held: &ChunkSet,
    ) -> Result<(), StoreError> {
        let pages = index.log_len() > TIMES_MAX * index.kept_len();
        let runs: Vec<(u64, u64)> = held.runs(0).collect();
        let have = have_records(&runs);
        let long = self.journal().len > HAVE_LEN_MIN.max(TIMES_MAX * have.len() as u64);
        let done = match pages || long {
            true => self.rewrite_journal(&have),
            false => return Ok(()),
        };
        let done = done.and_then(|()| if pages { self.rewrite_pages(index) } else { Ok(()) });
        match done {
            Err(error) if error.is_full() => {
                tracing::warn!(job = %self.job, %error, "the logs stay as long as they are");
                Ok(())
            }
            done => done,
        }
    }

    /// Replaces `have.log` by `records`, durably.
    pub(super) fn rewrite_journal(&self, records: &[u8]) -> Result<(), StoreError> {
        let path = self.folder.join("have.log");
        let mut journal = self.journal();
        write_durably(&self.folder, "have.log", records)?;
        let log = OpenOptions::new().read(true).write(true).open(&path);
        journal.log = log.map_err(StoreError::io("open", &path))?;
        journal.len = records.len() as u64;
        Ok(())
    }

    /// Replaces `pages.log` by the records of the pages that are kept, durably.
    fn rewrite_pages(self: &mut Arc<Self>, index: &mut PageIndex) -> Result<(), StoreError> {
        let Some(store) = Arc::get_mut(self) else { return Ok(()) };
        let (path, new) = (store.folder.join("pages.log"), store.folder.join("pages.log.tmp"));
        let copied = copy_kept(&store.pages_log, index, &new)
            .and_then(|log| std::fs::rename(&new, &path).map(|()| log));
        store.pages_log = copied.map_err(|error| abandoned(&new, &path, error))?;
        sync_directory(&store.folder)?;
        index.moved_together();
        Ok(())
    }
}

fn copy_kept(from: &File, index: &PageIndex, to: &Path) -> io::Result<File> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(to)?;
    let mut out = BufWriter::new(options);
    let mut record = Vec::new();
    for meta in index.metas() {
        record.resize(meta.record_len as usize, 0);
        from.read_exact_at(&mut record, meta.record)?;
        out.write_all(&record)?;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file)
}
