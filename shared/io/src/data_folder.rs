//! A role's data folder: one process at a time, a few small secrets, and `ready.json`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::FlockOperation;

const LOCK: &str = "process.lock";
const RESET_KEY: &str = "reset.key";
const READY: &str = "ready.json";

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another process uses it.
    #[error("{path} is in use by another process; stop it or choose another --data folder")]
    InUse {
        /// The folder.
        path: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}; check that it exists and may be written")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The system gives no randomness.
    #[error("the system gives no random numbers")]
    Random,
}

/// A data folder that this process alone uses, for as long as this value lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Opens `path`, made (0700) if absent, and locks it.
    ///
    /// # Errors
    /// [`DataFolderError::InUse`] if another process has it, [`DataFolderError::Io`] if it
    /// cannot be made.
    pub fn open(path: &Path) -> Result<Self, DataFolderError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(io("make", path))?;
        let file = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&file).map_err(io("open", &file))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataFolderError::InUse { path: path.display().to_string() });
            }
            Err(error) => return Err(io("lock", &file)(error.into())),
        }
        // What an earlier process said about itself is not true any more.
        let ready = path.join(READY);
        match std::fs::remove_file(&ready) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", &ready)(error)),
            _ => Ok(Self { path: path.to_owned(), _lock: lock }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key of stateless resets, made at first: a restarted role ends its old connections
    /// with it at once.
    ///
    /// # Errors
    /// [`DataFolderError`] if it can be neither read nor made.
    pub fn reset_key(&self) -> Result<[u8; 32], DataFolderError> {
        let path = self.path.join(RESET_KEY);
        let mut key = [0; 32];
        match File::open(&path).and_then(|mut file| file.read_exact(&mut key)) {
            Ok(()) => Ok(key),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) =>
            {
                let key = random()?;
                self.write(RESET_KEY, &key)?;
                Ok(key)
            }
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// Replaces a small file: it is the old or the new one, also after a crash.
    ///
    /// # Errors
    /// [`DataFolderError::Io`] if it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataFolderError> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}.new"));
        let written = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(&self.path)?.sync_all()
        };
        written().map_err(io("write", &path))
    }

    /// Reads a small file; `None` if it is not there.
    ///
    /// # Errors
    /// [`DataFolderError::Io`] if it is there and cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DataFolderError> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// Says in `ready.json` where this role serves.
    ///
    /// # Errors
    /// [`DataFolderError::Io`] if it cannot be written.
    pub fn ready(&self, listen: SocketAddr, http: SocketAddr) -> Result<(), DataFolderError> {
        let ready = serde_json::json!({
            "v": 1,
            "pid": std::process::id(),
            "listen": listen.to_string(),
            "http": http.to_string(),
        });
        self.write(READY, ready.to_string().as_bytes())
    }
}

/// Random bytes from the operating system.
///
/// # Errors
/// [`DataFolderError::Random`] if it gives none.
pub fn random<const N: usize>() -> Result<[u8; N], DataFolderError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| DataFolderError::Random)?;
    Ok(bytes)
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DataFolderError {
    let path = path.display().to_string();
    move |source| DataFolderError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataFolder::open(&path).unwrap();
        assert!(matches!(DataFolder::open(&path), Err(DataFolderError::InUse { .. })));
        let key = first.reset_key().unwrap();
        drop(first);
        assert_eq!(DataFolder::open(&path).unwrap().reset_key().unwrap(), key);
    }

    #[test]
    fn ready_says_where_and_is_gone_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let addr = "127.0.0.1:7400".parse().unwrap();
        data.ready(addr, addr).unwrap();
        let text = String::from_utf8(data.read(READY).unwrap().unwrap()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (json["v"].as_u64(), json["listen"].as_str()),
            (Some(1), Some("127.0.0.1:7400"))
        );
        drop(data);
        assert_eq!(DataFolder::open(folder.path()).unwrap().read(READY).unwrap(), None);
    }
}
