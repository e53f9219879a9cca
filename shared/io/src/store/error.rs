//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use shared::id::JobId;
use shared::manifest::ChainError;
use shared::wire::codec::DecodeError;

/// Why a store cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; check the disk of the data folder", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The job has a folder already.
    #[error("job {0} has a folder already")]
    Exists(JobId),
    /// A page that is not the next one.
    #[error(
        "page {found} from chunk {found_chunk} was given to store, due was {expected} from {expected_chunk}"
    )]
    PageOrder {
        /// The index that was due.
        expected: u32,
        /// The first chunk that was due.
        expected_chunk: u64,
        /// The index of the page.
        found: u32,
        /// Its first chunk.
        found_chunk: u64,
    },
    /// A page that is not stored.
    #[error("page {0} is not stored")]
    NoPage(u32),
    /// A chunk that no stored page describes.
    #[error("no stored page describes chunk {0}")]
    NoChunk(u64),
    /// An object that no stored page opens.
    #[error("no stored page opens object {0}")]
    NoObject(u32),
    /// A chunk that is not there.
    #[error("chunk {0} is not held")]
    NotHeld(u64),
    /// Bytes that cannot be the chunk.
    #[error("chunk {chunk} has {expected} bytes, {found} were given")]
    ChunkLength {
        /// The chunk.
        chunk: u64,
        /// Its length.
        expected: u32,
        /// Bytes given.
        found: usize,
    },
    /// A stored page that no longer decodes.
    #[error("stored page {index} is damaged; restart to fetch it again")]
    PageDamaged {
        /// The page.
        index: u32,
        /// How.
        source: DecodeError,
    },
    /// A stored page that the manifest does not accept.
    #[error("stored page {index} is not part of a valid manifest")]
    PageRefused {
        /// The page.
        index: u32,
        /// Why.
        source: ChainError,
    },
    /// A record that no longer has its checksum.
    #[error("the record at {offset} of {} is damaged; restart to fetch it again", path.display())]
    RecordDamaged {
        /// The log.
        path: PathBuf,
        /// Position of the record.
        offset: u64,
    },
    /// A part that is missing or too short.
    #[error("the bytes of {name:?} are gone from {}; restart to fetch them again", path.display())]
    Lost {
        /// The object's name.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// Something stands in `files` where an object must go.
    #[error("{} is in the way of {name:?}; move it away and restart", path.display())]
    InTheWay {
        /// The object's name.
        name: String,
        /// What is in the way.
        path: PathBuf,
    },
    /// An earlier error: nothing that was written since the last flush can be trusted.
    #[error("the store of job {job} has failed: {reason}; restart to go on from what is durable")]
    Failed {
        /// The job.
        job: JobId,
        /// The first error.
        reason: String,
    },
    /// The job was removed.
    #[error("job {0} was removed")]
    Removed(JobId),
    /// The flusher's thread has ended.
    #[error("the flusher has ended")]
    FlusherEnded,
    /// The flusher's thread has panicked: nothing becomes durable any more.
    #[error(
        "the thread that flushes content has panicked; start again to go on from what is durable, and report what the log says"
    )]
    FlusherPanicked,
}

impl StoreError {
    /// The error as one after which nothing is tried again.
    pub(super) fn into_final(self, job: JobId) -> Self {
        match self.is_full() {
            true => Self::Failed { job, reason: self.to_string() },
            false => self,
        }
    }

    /// Whether there is no room on the disk: what failed can be tried again once there is.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// The conversion of an error while doing `action` on `path`.
    pub(super) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: source.into() }
    }
}
