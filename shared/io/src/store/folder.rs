//! `parts` and `files` of one job, reached through directory handles and never through a link.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;
use shared::manifest::Attributes;

use super::StoreError;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const ALL: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);
const PLAIN: Mode = Mode::from_raw_mode(0o666);

/// Opens a directory that the caller made.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, StoreError> {
    rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(StoreError::io("open", path))
}

/// The two folders of a job in the files layout.
#[derive(Debug)]
pub(super) struct Files {
    parts: OwnedFd,
    parts_path: PathBuf,
    files: Arc<OwnedFd>,
    files_path: PathBuf,
    /// The directory of the last file that was published: the next one is often there too.
    recent: Mutex<Option<(String, Arc<OwnedFd>)>>,
}

/// A directory and the name of something in it.
struct Place<'n> {
    directory: Arc<OwnedFd>,
    leaf: &'n str,
}

impl Files {
    /// Opens `parts` and `files` in `folder`; makes them if they are absent.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let (parts_path, files_path) = (folder.join("parts"), folder.join("files"));
        for path in [&parts_path, &files_path] {
            match rustix::fs::mkdir(path, ALL) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(StoreError::io("make", path)(error)),
            }
        }
        Ok(Self {
            parts: open_directory(&parts_path)?,
            files: Arc::new(open_directory(&files_path)?),
            parts_path,
            files_path,
            recent: Mutex::new(None),
        })
    }

    /// Where the part of `object` is.
    pub(super) fn part_path(&self, object: u32) -> PathBuf {
        self.parts_path.join(object.to_string())
    }

    /// Opens the part of `object` to write and read; makes it if it is absent.
    pub(super) fn make_part(&self, object: u32) -> Result<File, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.parts, object.to_string(), flags, PLAIN)
            .map(File::from)
            .map_err(|error| StoreError::io("make", &self.part_path(object))(error))
    }

    /// Opens the part of `object` to read, if there is one. Such a handle outlives the
    /// renaming and never keeps a program from being run.
    pub(super) fn part(&self, object: u32) -> Result<Option<File>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let part = rustix::fs::openat(&self.parts, object.to_string(), flags, Mode::empty());
        present(part)
            .map(|part| part.map(File::from))
            .map_err(|error| StoreError::io("open", &self.part_path(object))(error))
    }

    /// Length of the part of `object`, if there is one.
    pub(super) fn part_stat(&self, object: u32) -> Result<Option<Stat>, StoreError> {
        let stat = rustix::fs::statat(&self.parts, object.to_string(), AtFlags::SYMLINK_NOFOLLOW);
        present(stat).map_err(|error| StoreError::io("look at", &self.part_path(object))(error))
    }

    /// Cuts the part of `object` to `len` bytes.
    pub(super) fn cut_part(&self, object: u32, len: u64) -> Result<(), StoreError> {
        let part = self.make_part(object)?;
        part.set_len(len).map_err(|error| StoreError::io("cut", &self.part_path(object))(error))
    }

    /// Sets the attributes of a part whose mode is `mode`.
    pub(super) fn dress_part(
        &self,
        object: u32,
        mode: u32,
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        let name = object.to_string();
        let dressed = set_modified(&self.parts, &name, attributes.modified).and_then(|()| {
            if !attributes.executable {
                return Ok(());
            }
            // Whoever may read may execute, so the process' umask holds for both.
            let mode = Mode::from_raw_mode(mode | ((mode & 0o444) >> 2));
            rustix::fs::chmodat(&self.parts, &name, mode, AtFlags::empty())
        });
        dressed.map_err(|error| StoreError::io("set attributes of", &self.part_path(object))(error))
    }

    /// Gives the part of `object` its final name.
    pub(super) fn publish(&self, object: u32, name: &str) -> Result<(), StoreError> {
        let place = self.recent_place(name)?;
        let part = object.to_string();
        match rename_new(&self.parts, &part, &place.directory, place.leaf) {
            Err(Errno::EXIST) => self.publish_over(object, name),
            renamed => renamed.map_err(StoreError::io("name", &self.files_path.join(name))),
        }
    }

    /// After pages were lost and fetched again, a file of an earlier start may have the name
    /// already. It stays if it has the very bytes of the verified part.
    fn publish_over(&self, object: u32, name: &str) -> Result<(), StoreError> {
        let path = self.files_path.join(name);
        let in_the_way = || StoreError::InTheWay { name: name.to_owned(), path: path.clone() };
        let stat = self.file_stat(name)?.filter(is_file).ok_or_else(in_the_way)?;
        let (Some(there), Some(part)) = (self.file(name)?, self.part(object)?) else {
            return Err(in_the_way());
        };
        if !same_bytes(&there, &part, size(&stat)).map_err(StoreError::io("read", &path))? {
            return Err(in_the_way());
        }
        self.remove_part(object)
    }

    /// Takes a file back under the number of its object: some of its chunks are lost.
    pub(super) fn withdraw(&self, object: u32, name: &str) -> Result<(), StoreError> {
        let Some(place) = self.find(name)? else {
            return Ok(());
        };
        let part = object.to_string();
        rename_new(&place.directory, place.leaf, &self.parts, &part)
            .map_err(StoreError::io("take back", &self.files_path.join(name)))
    }

    /// Removes the part of `object`, if there is one.
    pub(super) fn remove_part(&self, object: u32) -> Result<(), StoreError> {
        let removed = rustix::fs::unlinkat(&self.parts, object.to_string(), AtFlags::empty());
        present(removed)
            .map(drop)
            .map_err(|error| StoreError::io("remove", &self.part_path(object))(error))
    }

    /// The objects that have a part.
    pub(super) fn parts(&self) -> Result<Vec<u32>, StoreError> {
        let fail = |error: io::Error| StoreError::io("list", &self.parts_path)(error);
        let mut objects = Vec::new();
        for entry in std::fs::read_dir(&self.parts_path).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            objects.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(objects)
    }

    /// Opens the file `name`, if there is one.
    pub(super) fn file(&self, name: &str) -> Result<Option<File>, StoreError> {
        let Some(place) = self.find(name)? else {
            return Ok(None);
        };
        // Whatever stands there, opening it must not block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        present(rustix::fs::openat(&place.directory, place.leaf, flags, Mode::empty()))
            .map(|file| file.map(File::from))
            .map_err(StoreError::io("open", &self.files_path.join(name)))
    }

    /// What stands under `name`, if anything.
    pub(super) fn file_stat(&self, name: &str) -> Result<Option<Stat>, StoreError> {
        let Some(place) = self.find(name)? else {
            return Ok(None);
        };
        present(rustix::fs::statat(&place.directory, place.leaf, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(StoreError::io("look at", &self.files_path.join(name)))
    }

    /// Makes the directory `name` and those above it, as far as they are absent.
    pub(super) fn make_directory(&self, name: &str) -> Result<(), StoreError> {
        self.walk(name, name, true).map(drop)
    }

    /// Sets the modification time of what stands under `name`.
    pub(super) fn set_modified(
        &self,
        name: &str,
        modified: Option<(i64, u32)>,
    ) -> Result<(), StoreError> {
        let Some(place) = self.find(name)? else {
            return Ok(());
        };
        set_modified(&place.directory, place.leaf, modified)
            .map_err(StoreError::io("set the time of", &self.files_path.join(name)))
    }

    /// Where the file `name` is.
    pub(super) fn shown_path(&self, name: &str) -> PathBuf {
        self.files_path.join(name)
    }

    /// Makes the file `name`, empty, and the directories above it as far as they are absent.
    /// With `take_over` a file that is there is emptied: an earlier start has made it, and its
    /// page was lost.
    pub(super) fn make_shown(&self, name: &str, take_over: bool) -> Result<File, StoreError> {
        let place = self.recent_place(name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&place.directory, place.leaf, flags, PLAIN) {
            Err(Errno::EXIST)
                if take_over && self.file_stat(name)?.is_some_and(|s| is_file(&s)) =>
            {
                let file = self.shown(name)?;
                file.set_len(0)
                    .map_err(|error| StoreError::io("cut", &self.shown_path(name))(error))?;
                Ok(file)
            }
            Err(Errno::EXIST) => Err(self.in_the_way(name, name)),
            made => made
                .map(File::from)
                .map_err(|error| StoreError::io("make", &self.shown_path(name))(error)),
        }
    }

    /// Opens the file `name`, which [`Self::make_shown`] has made, to write and read.
    pub(super) fn shown(&self, name: &str) -> Result<File, StoreError> {
        let lost = || StoreError::Lost { name: name.to_owned(), path: self.shown_path(name) };
        let place = self.find(name)?.ok_or_else(lost)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(&place.directory, place.leaf, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| StoreError::io("open", &self.shown_path(name))(error))
    }

    /// Flushes what stands under `names`, and every directory on the way there.
    pub(super) fn sync_names(&self, names: &[String]) -> Result<(), StoreError> {
        let mut above = BTreeSet::new();
        for name in names {
            if let Some(file) = self.file(name)? {
                file.sync_all().map_err(StoreError::io("flush", &self.files_path.join(name)))?;
            }
            above.extend(name.match_indices('/').filter_map(|(at, _)| name.get(..at)));
        }
        for directory in above.into_iter().rev() {
            if let Some(fd) = self.walk(directory, directory, false)? {
                let path = self.files_path.join(directory);
                rustix::fs::fsync(&*fd).map_err(StoreError::io("flush", &path))?;
            }
        }
        let files = StoreError::io("flush", &self.files_path);
        rustix::fs::fsync(&*self.files).map_err(files)?;
        self.sync_parts()
    }

    /// Flushes the names of the parts.
    pub(super) fn sync_parts(&self) -> Result<(), StoreError> {
        rustix::fs::fsync(&self.parts).map_err(StoreError::io("flush", &self.parts_path))
    }

    fn find<'n>(&self, name: &'n str) -> Result<Option<Place<'n>>, StoreError> {
        let (above, leaf) = split(name);
        let directory = self.walk(above, name, false)?;
        Ok(directory.map(|directory| Place { directory, leaf }))
    }

    fn recent_place<'n>(&self, name: &'n str) -> Result<Place<'n>, StoreError> {
        let (above, leaf) = split(name);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, directory)) = recent.as_ref().filter(|(path, _)| path == above) {
            return Ok(Place { directory: Arc::clone(directory), leaf });
        }
        let made = self.walk(above, name, true)?;
        let directory = made.ok_or_else(|| self.in_the_way(name, above))?;
        *recent = Some((above.to_owned(), Arc::clone(&directory)));
        Ok(Place { directory, leaf })
    }

    /// Goes down `path` below `files`, for the sake of `name`; links are not followed.
    fn walk(&self, path: &str, name: &str, make: bool) -> Result<Option<Arc<OwnedFd>>, StoreError> {
        let mut here = Arc::clone(&self.files);
        for component in path.split('/').filter(|component| !component.is_empty()) {
            let open = || rustix::fs::openat(&*here, component, DIRECTORY, Mode::empty());
            let next = match open() {
                Err(Errno::NOENT) if make => match rustix::fs::mkdirat(&*here, component, ALL) {
                    Ok(()) | Err(Errno::EXIST) => open(),
                    Err(error) => Err(error),
                },
                Err(Errno::NOENT) => return Ok(None),
                next => next,
            };
            here = match next {
                Ok(next) => Arc::new(next),
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(self.in_the_way(name, path)),
                Err(error) => {
                    return Err(StoreError::io("open", &self.files_path.join(path))(error));
                }
            };
        }
        Ok(Some(here))
    }

    fn in_the_way(&self, name: &str, path: &str) -> StoreError {
        StoreError::InTheWay { name: name.to_owned(), path: self.files_path.join(path) }
    }
}

/// Whether `stat` is of an ordinary file.
pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Length in bytes.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

fn present<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Err(Errno::NOENT) => Ok(None),
        result => result.map(Some),
    }
}

fn set_modified(
    directory: impl AsFd,
    leaf: &str,
    modified: Option<(i64, u32)>,
) -> Result<(), Errno> {
    let Some((seconds, nanos)) = modified else {
        return Ok(());
    };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.min(999_999_999).into() },
    };
    rustix::fs::utimensat(directory, leaf, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Renames and never replaces.
fn rename_new(from: impl AsFd, old: &str, to: impl AsFd, new: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(&from, old, &to, new, RenameFlags::NOREPLACE) {
        // A file system that cannot refuse to replace: this process is the only one to write
        // here, so looking first is as good.
        Err(Errno::INVAL | Errno::NOSYS) => {
            match rustix::fs::statat(&to, new, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => rustix::fs::renameat(&from, old, &to, new),
                Err(error) => Err(error),
            }
        }
        renamed => renamed,
    }
}

fn same_bytes(one: &File, other: &File, len: u64) -> io::Result<bool> {
    if other.metadata()?.len() != len {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut at = 0;
    while at < len {
        let step = usize::try_from(len - at).unwrap_or(usize::MAX).min(a.len());
        let (a, b) = (a.get_mut(..step).unwrap_or_default(), b.get_mut(..step).unwrap_or_default());
        one.read_exact_at(a, at)?;
        other.read_exact_at(b, at)?;
        if a != b {
            return Ok(false);
        }
        at += step as u64;
    }
    Ok(true)
}
