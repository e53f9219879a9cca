//! A role's folder of jobs, and what all jobs of a process share.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::IFlags;
use shared::id::JobId;
use shared::job::{JobObject, SignedJob};
use shared::wire::codec;

use super::folder::open_directory;
use super::lru::Lru;
use super::name_index::NameIndex;
use super::{HANDLES_MAX, JobStore, NAME_INDEXES_MAX, PAGES_CACHED_MAX, PageView, StoreError};

/// Where content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One file with the job's content as the log has it.
    Spool,
    /// The job's files under their names.
    Files,
}

/// The number of an open job, and of a page of it.
pub(super) type PageKey = (u64, u32);
/// The number of an open job, of an object of it, and what the handle is of.
pub(super) type HandleKey = (u64, u32, Handle);

/// What an open handle is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handle {
    /// The part, to write.
    Write,
    /// The part or the file, to read.
    Read,
    /// The file of a live object, to write.
    Shown,
}

/// A role's folder of jobs.
#[derive(Debug)]
pub struct StoreRoot {
    path: PathBuf,
    directory: OwnedFd,
    layout: Layout,
    serial: AtomicU64,
    handles: Mutex<Lru<HandleKey, Arc<File>>>,
    pages: Mutex<Lru<PageKey, Arc<PageView>>>,
    names: Mutex<Lru<u64, Arc<Mutex<NameIndex>>>>,
}

/// Ending of the name of a job's folder that is being removed.
const REMOVED: &str = ".removed";

impl StoreRoot {
    /// Opens the folder `path` (`DATA/jobs`); makes it if it is absent. One process at a time
    /// may use it, which is for the caller to see to.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be made or opened.
    pub fn open(path: &Path, layout: Layout) -> Result<Arc<Self>, StoreError> {
        std::fs::create_dir_all(path).map_err(StoreError::io("make", path))?;
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            sync_directory(above)?;
        }
        let directory = open_directory(path)?;
        spread_jobs(&directory);
        Ok(Arc::new(Self {
            path: path.to_owned(),
            directory,
            layout,
            serial: AtomicU64::new(0),
            handles: Mutex::new(Lru::new(HANDLES_MAX)),
            pages: Mutex::new(Lru::new(PAGES_CACHED_MAX)),
            names: Mutex::new(Lru::new(NAME_INDEXES_MAX)),
        }))
    }

    /// Makes the store of a new job; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the job has a folder, [`StoreError::Io`] if it cannot be made.
    pub fn create(
        self: &Arc<Self>,
        job: &SignedJob,
        object: &JobObject,
    ) -> Result<Arc<JobStore>, StoreError> {
        let folder = self.folder(object.id);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Exists(object.id));
            }
            made => made.map_err(StoreError::io("make", &folder))?,
        }
        let made = JobStore::open(self, object.id, &folder).and_then(|store| {
            write_durably(&folder, "job", &codec::encode(job))?;
            self.sync()?;
            Ok(store)
        });
        if made.is_err() {
            // What is left is without its `job` file, which recovery removes.
            let _left = std::fs::remove_dir_all(&folder);
        }
        made
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where content goes.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes that can still be written to the file system.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system does not say.
    pub fn free_space(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::fstatvfs(&self.directory)
            .map_err(StoreError::io("ask for the space of", &self.path))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) fn folder(&self, job: JobId) -> PathBuf {
        self.path.join(job.to_string())
    }

    pub(super) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Flushes the names of the jobs' folders.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::fsync(&self.directory).map_err(StoreError::io("flush", &self.path))
    }

    /// Flushes everything of the file system.
    pub(super) fn sync_all(&self) -> Result<(), StoreError> {
        rustix::fs::syncfs(&self.directory)
            .map_err(StoreError::io("flush the file system of", &self.path))
    }

    /// Removes the folder of `job`: first by name, which is durable at once, then in fact.
    pub(super) fn remove(&self, job: JobId) -> Result<(), StoreError> {
        let (folder, removed) = (self.folder(job), self.path.join(format!("{job}{REMOVED}")));
        remove_tree(&removed)?;
        match std::fs::rename(&folder, &removed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(StoreError::io("remove", &folder))?,
        }
        self.sync()?;
        // A write that was under way may have left something behind; the next start
        // removes it.
        remove_tree(&removed)
    }

    /// The jobs' folders; what is left of removed ones is removed.
    pub(super) fn folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let fail = |error: io::Error| StoreError::io("list", &self.path)(error);
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().ends_with(REMOVED) {
                remove_tree(&path)?;
            } else if entry.file_type().map_err(fail)?.is_dir() {
                folders.push(path);
            }
        }
        folders.sort();
        Ok(folders)
    }

    pub(super) fn cached_handle(&self, key: HandleKey) -> Option<Arc<File>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
    }

    pub(super) fn cache_handle(&self, key: HandleKey, file: &Arc<File>) {
        let gone = self
            .handles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Arc::clone(file));
        drop(gone);
    }

    pub(super) fn forget_handle(&self, key: HandleKey) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).retain(|k| *k != key);
    }

    pub(super) fn cached_page(&self, key: PageKey) -> Option<Arc<PageView>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
    }

    pub(super) fn cache_page(&self, key: PageKey, page: &Arc<PageView>) {
        let gone =
            self.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(page));
        drop(gone);
    }

    /// The names of the open job `serial`, as far as they were indexed.
    pub(super) fn names(&self, serial: u64) -> Arc<Mutex<NameIndex>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = names.get(&serial) {
            return index;
        }
        let index = Arc::default();
        let gone = names.insert(serial, Arc::clone(&index));
        drop(names);
        drop(gone);
        index
    }

    /// Forgets all that is cached of the open job `serial`.
    pub(super) fn forget_job(&self, serial: u64) {
        let handles = &mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.retain(|(job, ..)| *job != serial);
        let pages = &mut *self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|(job, _)| *job != serial);
        self.names.lock().unwrap_or_else(PoisonError::into_inner).retain(|job| *job != serial);
    }
}

/// Asks the file system to put each job into a region of its own.
///
/// ext4 looks for a free inode in the region of the directory and skips those that were freed
/// within the last minutes one by one: 5,000 files right after 5,000 others were removed take
/// 4 s in the same region and 0.2 s in another. A file system that does not know the flag
/// loses nothing but this.
fn spread_jobs(directory: &OwnedFd) {
    let spread = rustix::fs::ioctl_getflags(directory)
        .and_then(|flags| rustix::fs::ioctl_setflags(directory, flags | IFlags::TOPDIR));
    if let Err(error) = spread {
        tracing::debug!(%error, "the file system does not spread jobs");
    }
}

/// Writes the file `name` in `folder` so that it is there whole or not at all.
pub(super) fn write_durably(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let (path, new) = (folder.join(name), folder.join(format!("{name}.tmp")));
    let write = || -> io::Result<()> {
        std::fs::write(&new, bytes)?;
        File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &path)
    };
    write().map_err(|error| abandoned(&new, &path, error))?;
    sync_directory(folder)
}

/// That `path` could not be replaced; the draft `new` takes no room any more.
pub(super) fn abandoned(new: &Path, path: &Path, error: io::Error) -> StoreError {
    // What cannot be removed is written over by the next draft.
    let _left = std::fs::remove_file(new);
    StoreError::io("write", path)(error)
}

/// Removes `path` with all that is in it, if it is there.
pub(super) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(StoreError::io("remove", path)),
    }
}

pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(StoreError::io("flush", path))
}
