//! The folder that the demo works in, and whether its disk is large enough.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::exit::Failure;

/// Bytes for certificates, ledgers and journals, beside the content.
const OVERHEAD: u64 = 64 * 1024 * 1024;

/// A temporary folder that goes with this value, or a folder that stays.
pub(super) enum WorkFolder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl WorkFolder {
    /// Makes the folder. One that is to be kept must be empty or absent.
    pub(super) fn make(keep: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = keep else {
            let made = tempfile::Builder::new().prefix("distributary-demo-").tempdir();
            let failed =
                |error| Failure::failed(format!("cannot make a temporary folder: {error}"));
            return made.map(Self::Temporary).map_err(failed);
        };
        let failed =
            |error| Failure::failed(format!("cannot use {} with --keep: {error}", path.display()));
        std::fs::create_dir_all(path).map_err(failed)?;
        if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
            let text = format!("{} is not empty; give --keep a new folder", path.display());
            return Err(Failure::failed(text));
        }
        Ok(Self::Kept(std::path::absolute(path).map_err(failed)?))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }

    /// Refuses if the disk has no room for `copies` copies of `size` bytes in `files` files.
    pub(super) fn check_room(&self, size: u64, files: u64, copies: u64) -> Result<(), Failure> {
        let path = self.path();
        let stat = rustix::fs::statvfs(path).map_err(|error| {
            Failure::failed(format!("cannot ask for the space of {}: {error}", path.display()))
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let copy = size.saturating_add(files.saturating_mul(stat.f_frsize));
        let needed = copy.saturating_mul(copies).saturating_add(OVERHEAD);
        if free < needed {
            return Err(Failure::failed(format!(
                "the disk of {} is too small: {copies} copies need {needed} bytes, {free} are free; \
                 use less content or nodes, or --keep DIR on a larger disk",
                path.display()
            )));
        }
        Ok(())
    }
}
