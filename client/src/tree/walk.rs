//! Walks one PATH and adds what lies there to a plan.

use std::ffi::OsStr;
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use shared::limit;
use shared::manifest::check_object_name;

use super::{Plan, Root, Slot, TreeError};

const OWNER_EXECUTES: u32 = 0o100;

/// A directory whose content is still to be looked at.
struct Pending {
    path: PathBuf,
    /// The object's name; empty at the top of a PATH that stands for its content.
    name: String,
}

/// Adds what `given` stands for.
pub(super) fn add(plan: &mut Plan, given: &Path) -> Result<(), TreeError> {
    let (path, contents_only) = split_given(given)?;
    let metadata = fs::symlink_metadata(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            TreeError::Missing { path: given.to_owned() }
        }
        _ => TreeError::Unreadable { path: given.to_owned(), reason: error },
    })?;
    let is_directory = is_directory(&path, metadata.file_type())?;
    let name = if contents_only {
        if !is_directory {
            return Err(TreeError::NotADirectory { path });
        }
        String::new()
    } else {
        // `split_given` leaves a last component that is a name.
        object_name("", path.file_name().unwrap_or_default(), &path)?
    };
    let strip = if name.is_empty() { 0 } else { name.len() + 1 };
    let Ok(root) = u32::try_from(plan.roots.len()) else {
        return Err(TreeError::TooMany);
    };
    plan.roots.push(Root { path: path.clone(), strip });
    if !name.is_empty() {
        push(plan, root, &path, &name, &metadata)?;
    }
    if is_directory {
        walk(plan, root, Pending { path, name })?;
    }
    Ok(())
}

/// What a PATH points at, and whether it stands for the content alone.
///
/// Works on the bytes, because `Path` forgets trailing slashes and dots. A link behind which
/// a slash stands is looked at as a link.
fn split_given(given: &Path) -> Result<(PathBuf, bool), TreeError> {
    let bytes = given.as_os_str().as_bytes();
    let mut rest = bytes;
    loop {
        rest = match rest {
            [.., _, b'/'] | [.., b'/', b'.'] => rest.get(..rest.len() - 1).unwrap_or_default(),
            _ => break,
        };
    }
    let contents_only = rest.len() != bytes.len() || matches!(rest, b"." | b"/");
    let path = PathBuf::from(OsStr::from_bytes(rest));
    let nameless = rest == b".." || rest.ends_with(b"/..");
    if nameless && !contents_only {
        return Err(TreeError::Parent { path: given.to_owned() });
    }
    Ok((path, contents_only))
}

fn walk(plan: &mut Plan, root: u32, top: Pending) -> Result<(), TreeError> {
    let mut pending = vec![top];
    while let Some(directory) = pending.pop() {
        let failed = |error| vanished_or_unreadable(&directory.path, error);
        for item in fs::read_dir(&directory.path).map_err(failed)? {
            let item = item.map_err(failed)?;
            let path = item.path();
            let name = object_name(&directory.name, &item.file_name(), &path)?;
            let metadata = item.metadata().map_err(|error| vanished_or_unreadable(&path, error))?;
            let is_directory = is_directory(&path, metadata.file_type())?;
            push(plan, root, &path, &name, &metadata)?;
            if is_directory {
                pending.push(Pending { path, name });
            }
        }
    }
    Ok(())
}

fn push(
    plan: &mut Plan,
    root: u32,
    path: &Path,
    name: &str,
    metadata: &Metadata,
) -> Result<(), TreeError> {
    if plan.slots.len() >= usize::try_from(limit::OBJECTS_MAX).unwrap_or(usize::MAX) {
        return Err(TreeError::TooMany);
    }
    let directory = metadata.is_dir();
    let size = if directory { 0 } else { metadata.len() };
    if !directory {
        refuse_unreadable(path)?;
        plan.files = plan.files.saturating_add(1);
        plan.size = plan.size.saturating_add(size);
    }
    let name_at = plan.names.len();
    plan.names.push_str(name);
    plan.slots.push(Slot {
        name_at,
        // `check_object_name` holds names to 4,096 bytes.
        name_len: u16::try_from(name.len()).unwrap_or(u16::MAX),
        size,
        modified_s: metadata.mtime(),
        modified_ns: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
        root,
        directory,
        executable: !directory && metadata.mode() & OWNER_EXECUTES != 0,
    });
    Ok(())
}

/// The name of `last` below the object `parent`, checked.
fn object_name(parent: &str, last: &OsStr, path: &Path) -> Result<String, TreeError> {
    let last = last.to_str().ok_or_else(|| TreeError::NotUtf8 { path: path.to_owned() })?;
    let name = if parent.is_empty() { last.to_owned() } else { format!("{parent}/{last}") };
    match check_object_name(&name) {
        Ok(()) => Ok(name),
        Err(reason) => Err(TreeError::Name { path: path.to_owned(), reason }),
    }
}

/// Whether it is a directory or a file; anything else is refused.
fn is_directory(path: &Path, kind: FileType) -> Result<bool, TreeError> {
    let path = || path.to_owned();
    if kind.is_file() || kind.is_dir() {
        return Ok(kind.is_dir());
    }
    if kind.is_symlink() {
        return Err(TreeError::Symlink { path: path() });
    }
    let what = if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    };
    Err(TreeError::Special { path: path(), what })
}

/// Refuses a file that this process may not read, without opening it.
fn refuse_unreadable(path: &Path) -> Result<(), TreeError> {
    match rustix::fs::accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS) {
        // A kernel that cannot tell leaves it to the reading.
        Ok(()) | Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(vanished_or_unreadable(path, error.into())),
    }
}

fn vanished_or_unreadable(path: &Path, error: io::Error) -> TreeError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => TreeError::Vanished { path },
        _ => TreeError::Unreadable { path, reason: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_or_a_dot_at_the_end_stands_for_the_content() {
        let split = |text: &str| {
            split_given(Path::new(text)).map(|(path, only)| (path.display().to_string(), only)).ok()
        };
        let right = |path: &str, only| Some((path.to_owned(), only));
        assert_eq!(split("a/b"), right("a/b", false));
        assert_eq!(split("a/b/"), right("a/b", true));
        assert_eq!(split("a//"), right("a", true));
        assert_eq!(split("a/."), right("a", true));
        assert_eq!(split("a/./"), right("a", true));
        assert_eq!(split("."), right(".", true));
        assert_eq!(split("./"), right(".", true));
        assert_eq!(split("/"), right("/", true));
        assert_eq!(split("//"), right("/", true));
        assert_eq!(split("/."), right("/", true));
        assert_eq!(split("../"), right("..", true));
        assert_eq!(split("a/../"), right("a/..", true));
        assert_eq!(split("a."), right("a.", false));
        assert_eq!(split("a/.b"), right("a/.b", false));
        assert_eq!(split(""), right("", false));
        assert_eq!(split(".."), None);
        assert_eq!(split("a/.."), None);
    }
}
