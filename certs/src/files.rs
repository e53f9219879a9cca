//! Reading and writing the files of an authority or an identity.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest file that is read, in bytes: a few certificates in PEM are a few KiB.
pub const FILE_LEN_MAX: u64 = 64 * 1024;

const DIR_MODE: u32 = 0o700;
const OTHERS_MASK: u32 = 0o077;

/// Whether others than the owner may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Public,
    Secret,
}

/// Why a file of an authority or an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not there.
    #[error("{} does not exist; {hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        hint: &'static str,
    },
    /// The system refuses to read it.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A key that others than its owner can open.
    #[error(
        "{path} has mode {mode:04o}, which opens the key to others; run `chmod 600 {path}`",
        path = path.display()
    )]
    Loose {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than [`FILE_LEN_MAX`].
    #[error("{} is longer than {FILE_LEN_MAX} bytes, so it is not a certificate or key of ours", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not the PEM that the file's name promises.
    #[error("{} holds no usable {what} ({reason}); issue it again", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected, such as `certificate`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It would be overwritten.
    #[error("{} already exists and is not overwritten; choose another folder", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses to write it.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
}

/// Reads a file whole. A secret one is refused if others than its owner can open it.
/// `hint` says what to do if the file is missing.
pub(crate) fn read(
    path: &Path,
    secrecy: Secrecy,
    hint: &'static str,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => FileError::Missing { path: path.to_owned(), hint },
        _ => FileError::Read { path: path.to_owned(), reason: error },
    };
    // Looked at before opening, because opening a FIFO would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not an ordinary file")));
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if secrecy == Secrecy::Secret && mode & OTHERS_MASK != 0 {
        return Err(FileError::Loose { path: path.to_owned(), mode });
    }
    let mut content = Zeroizing::new(Vec::new());
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    if u64::try_from(content.len()).is_ok_and(|len| len <= FILE_LEN_MAX) {
        return Ok(content);
    }
    Err(FileError::TooLong { path: path.to_owned() })
}

/// Writes files that belong together into `dir`, which is made (0700) if absent, and makes
/// them durable. None may exist yet; after an error none of them is left.
pub(crate) fn write_set(dir: &Path, files: &[(&str, &[u8], Secrecy)]) -> Result<(), FileError> {
    let failed = |reason| FileError::Write { path: dir.to_owned(), reason };
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(failed)?;
    for (name, ..) in files {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path });
        }
    }
    let mut written = Vec::with_capacity(files.len());
    for (name, content, secrecy) in files {
        let path = dir.join(name);
        if let Err(error) = write_new(&path, content, *secrecy, &mut written) {
            // The error that stopped the writing is the one to report.
            written.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(error);
        }
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Writes one file and notes it in `written` as soon as it exists.
fn write_new(
    path: &Path,
    content: &[u8],
    secrecy: Secrecy,
    written: &mut Vec<PathBuf>,
) -> Result<(), FileError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_owned() },
        _ => FileError::Write { path: path.to_owned(), reason: error },
    };
    let mode = match secrecy {
        Secrecy::Public => 0o644,
        Secrecy::Secret => 0o600,
    };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    written.push(path.to_owned());
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_and_a_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let limit = usize::try_from(FILE_LEN_MAX).unwrap();
        fs::write(&path, vec![b'x'; limit]).unwrap();
        assert_eq!(read(&path, Secrecy::Public, "").unwrap().len(), limit);
        fs::write(&path, vec![b'x'; limit + 1]).unwrap();
        let long = read(&path, Secrecy::Public, "").unwrap_err();
        assert!(matches!(long, FileError::TooLong { .. }), "{long}");
        let folder = read(dir.path(), Secrecy::Secret, "").unwrap_err();
        assert!(matches!(folder, FileError::Read { .. }), "{folder}");
    }

    #[test]
    fn nothing_is_left_of_a_set_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let set: [(&str, &[u8], Secrecy); 2] =
            [("a", b"1", Secrecy::Public), ("no/such", b"2", Secrecy::Secret)];
        assert!(matches!(write_set(dir.path(), &set), Err(FileError::Write { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn existing_files_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b"), "old").unwrap();
        let set: [(&str, &[u8], Secrecy); 2] =
            [("a", b"1", Secrecy::Public), ("b", b"2", Secrecy::Secret)];
        assert!(matches!(write_set(dir.path(), &set), Err(FileError::Exists { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("b")).unwrap(), "old");
        assert!(!dir.path().join("a").exists());
    }
}
