//! The chunk that is being filled.

use bytes::Bytes;
use shared::manifest::{Entry, Slice};
use shared::seal::Hash;

use super::page::{CLOSE_LEN, SLICE_LEN};
use super::source::Source;

/// Bytes, slices, and the objects that end in this chunk.
#[derive(Debug, Default)]
pub(super) struct ChunkDraft {
    bytes: Vec<u8>,
    slices: Vec<Slice>,
    closes: Vec<PendingClose>,
}

/// An object that has ended and is closed behind the chunk.
#[derive(Debug)]
struct PendingClose {
    object: u32,
    index: Option<usize>,
    len: u64,
    digest: PendingDigest,
}

/// The digest of an object that has ended.
#[derive(Debug)]
pub(super) enum PendingDigest {
    /// It is known.
    Known(Hash),
    /// All its bytes lie in the chunk from here on: the flush finds it.
    InChunk(usize),
}

/// An object that is closed.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) object: u32,
    /// Its place in the plan, if it is a file.
    pub(super) index: Option<usize>,
    pub(super) len: u64,
    pub(super) digest: Hash,
}

/// What a flush gives: the chunk, unless it is empty, and what is closed behind it.
pub(super) struct Flushed {
    pub(super) chunk: Option<(Entry, Bytes)>,
    pub(super) closed: Vec<Closed>,
}

impl ChunkDraft {
    /// Bytes so far.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Encoded bytes that the flush will make, at most.
    pub(super) const fn encoded_len(&self) -> usize {
        CLOSE_LEN * (self.closes.len() + 1) + SLICE_LEN * (self.slices.len() + 1)
    }

    /// The bytes, with room for `chunk_max` in all.
    pub(super) fn buffer(&mut self, chunk_max: usize) -> &mut Vec<u8> {
        self.bytes.reserve_exact(chunk_max.saturating_sub(self.bytes.len()));
        &mut self.bytes
    }

    /// Says that the bytes behind `from` belong to `object` at `offset`.
    pub(super) fn add_slice(&mut self, object: u32, offset: u64, from: usize) {
        let len = u32::try_from(self.bytes.len().saturating_sub(from)).unwrap_or(u32::MAX);
        if len > 0 {
            self.slices.push(Slice { object, offset, len });
        }
    }

    /// Closes a directory behind the objects before it.
    pub(super) fn close_directory(&mut self, object: u32) {
        let digest = PendingDigest::Known(Hash::of(b""));
        self.closes.push(PendingClose { object, index: None, len: 0, digest });
    }

    /// Closes a file that was read to its end.
    pub(super) fn close_file(&mut self, source: Source) {
        let (object, index, len) = (source.object(), Some(source.index()), source.len());
        let digest = source.finish(&self.bytes);
        self.closes.push(PendingClose { object, index, len, digest });
    }

    /// Ends the chunk. `reading` is the source whose bytes go on behind it.
    pub(super) fn flush(&mut self, reading: Option<&mut Source>) -> Flushed {
        if let Some(source) = reading
            && !self.bytes.is_empty()
            && source.len() > 0
        {
            source.absorb(&self.bytes);
        }
        let hash = Hash::of(&self.bytes);
        let closed = self.closes.drain(..).map(|close| close.finish(&self.bytes, hash)).collect();
        let slices = std::mem::take(&mut self.slices);
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            self.bytes = bytes;
            return Flushed { chunk: None, closed };
        }
        // A chunk that is cut early would otherwise hold the memory of a full one.
        if bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
        }
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Flushed { chunk: Some((Entry::Chunk { len, hash, slices }, bytes.into())), closed }
    }
}

impl PendingClose {
    fn finish(self, chunk: &[u8], chunk_hash: Hash) -> Closed {
        let Self { object, index, len, digest } = self;
        let digest = match digest {
            PendingDigest::Known(digest) => digest,
            PendingDigest::InChunk(0) if len == chunk.len() as u64 => chunk_hash,
            PendingDigest::InChunk(from) => {
                let bytes = chunk.get(from..).unwrap_or_default();
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                Hash::of(bytes.get(..len).unwrap_or(bytes))
            }
        };
        Closed { object, index, len, digest }
    }
}
