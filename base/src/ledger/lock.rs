//! One base per data folder, held by a lock that ends with the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file in the data folder that is locked.
pub const LOCK_FILE: &str = "lock";

/// The right to use a data folder, until it is dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process uses it.
    #[error("data folder {} is in use by another base; stop that one or choose another --data",
        .0.display())]
    InUse(PathBuf),
    /// The lock file cannot be made or locked.
    #[error("data folder {} cannot be used; check that it may be written", .dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl DataLock {
    /// Makes the folder (0700) if it is absent, and locks it.
    ///
    /// # Errors
    /// [`LockError::InUse`] if another process holds it, [`LockError::Io`].
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |source: io::Error| LockError::Io { dir: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(dir.join(LOCK_FILE)).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(LockError::InUse(dir.to_owned())),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}
