//! One source file while it is read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use blake3::Hasher;
use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::Errno;
use shared::seal::Hash;

use crate::tree::Entry;

use super::CutError;
use super::chunk::{ChunkDraft, PendingDigest};

/// An open source: how far it is read, and the digest of what is in chunks already.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    object: u32,
    index: usize,
    read: u64,
    /// Where its bytes begin in the chunk that is being filled.
    chunk_from: usize,
    /// Present once its bytes span chunks.
    hasher: Option<Box<Hasher>>,
}

impl Source {
    /// Opens what `entry` names, if it is still the same.
    pub(super) fn open(entry: &Entry<'_>, object: u32, index: usize) -> Result<Self, CutError> {
        let path = entry.path();
        // The path may have become a link or a FIFO: neither is followed or waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(|error| named(path, error))?;
        let source = Self { file, object, index, read: 0, chunk_from: 0, hasher: None };
        source.check(entry)?;
        Ok(source)
    }

    /// The place of its entry in the plan.
    pub(super) const fn index(&self) -> usize {
        self.index
    }

    /// Its object's number.
    pub(super) const fn object(&self) -> u32 {
        self.object
    }

    /// Bytes read.
    pub(super) const fn len(&self) -> u64 {
        self.read
    }

    /// Reads into `chunk`, to the end of the source (`true`) or of the chunk (`false`).
    pub(super) fn read(
        &mut self,
        entry: &Entry<'_>,
        chunk: &mut ChunkDraft,
        chunk_max: usize,
    ) -> Result<bool, CutError> {
        let buffer = chunk.buffer(chunk_max);
        let (from, offset) = (buffer.len(), self.read);
        if offset == 0 {
            self.chunk_from = from;
        }
        // The buffer may take more than what is left: a source that has grown shows here.
        while self.read < entry.size && buffer.len() < buffer.capacity() {
            match rustix::io::read(&self.file, spare_capacity(buffer)) {
                Ok(0) => return Err(changed(entry)),
                Ok(_) => self.read = offset.saturating_add((buffer.len() - from) as u64),
                Err(Errno::INTR) => {}
                Err(error) => return Err(named(entry.path(), error.into())),
            }
        }
        if self.read > entry.size {
            return Err(changed(entry));
        }
        chunk.add_slice(self.object, offset, from);
        if self.read < entry.size {
            return Ok(false);
        }
        self.check(entry)?;
        Ok(true)
    }

    /// Takes the bytes of a chunk that is flushed while the source goes on.
    pub(super) fn absorb(&mut self, chunk: &[u8]) {
        let bytes = chunk.get(self.chunk_from..).unwrap_or_default();
        self.hasher.get_or_insert_default().update(bytes);
        self.chunk_from = 0;
    }

    /// The digest at the end of the source, the rest of which lies in `chunk`.
    pub(super) fn finish(mut self, chunk: &[u8]) -> PendingDigest {
        if self.hasher.is_none() {
            return PendingDigest::InChunk(self.chunk_from);
        }
        self.absorb(chunk);
        let hasher = self.hasher.unwrap_or_default();
        PendingDigest::Known(Hash(*hasher.finalize().as_bytes()))
    }

    /// Says whether the source is still what `entry` says.
    pub(super) fn check(&self, entry: &Entry<'_>) -> Result<(), CutError> {
        let metadata = self.file.metadata().map_err(|error| named(entry.path(), error))?;
        let modified = (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or_default());
        let same = metadata.is_file()
            && metadata.len() == entry.size
            && Some(modified) == entry.attributes.modified;
        if same { Ok(()) } else { Err(changed(entry)) }
    }
}

fn changed(entry: &Entry<'_>) -> CutError {
    CutError::Changed { path: entry.path() }
}

fn named(path: PathBuf, error: io::Error) -> CutError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => CutError::Vanished { path },
        io::ErrorKind::IsADirectory => CutError::Changed { path },
        _ if Errno::from_io_error(&error) == Some(Errno::LOOP) => CutError::Changed { path },
        _ => CutError::Unreadable { path, reason: error },
    }
}
