//! The page that is being filled.

use bytes::Bytes;
use shared::limit;
use shared::manifest::Entry;
use shared::seal::SIGNATURE_LEN;

use super::chunk::ChunkDraft;

/// Longest encoded `Close`: tag, object, length, digest.
pub(super) const CLOSE_LEN: usize = 1 + 5 + 9 + 32;
/// Longest encoded `Slice`: object, offset, length.
pub(super) const SLICE_LEN: usize = 5 + 9 + 5;
/// Longest encoded `Chunk` without its slices: tag, length, hash, number of slices.
const CHUNK_LEN: usize = 1 + 5 + 32 + 3;
/// Longest encoded `Open` without its name: tag, object, length of the name, kind,
/// modification time, executable bit.
const OPEN_LEN: usize = 1 + 5 + 3 + 1 + (1 + 9 + 5) + 1;
/// Longest encoded page without its entries: job, index, first chunk, hash of the page
/// before, number of entries.
const HEAD_LEN: usize = 16 + 5 + 9 + 32 + 5;
/// Longest encoded `Sync`: tag, object, offset.
const SYNC_LEN: usize = 1 + 5 + 9;
/// Longest encoded `Recut`: tag, page, chunk, hash.
const RECUT_LEN: usize = 1 + 5 + 9 + 32;
/// Longest encoded `End`: tag, length, digest.
const END_LEN: usize = 1 + 9 + 32;

// The length of a page alone keeps its entries, and the objects that wait for their chunk to
// be closed, within their limits: each is reckoned at no less than an Open or a Close.
const _: () = assert!(limit::PAGE_LEN_AIM / OPEN_LEN + 4 < limit::PAGE_ENTRIES_MAX);
const _: () = assert!(limit::PAGE_LEN_AIM / CLOSE_LEN + 2 < limit::OBJECTS_OPEN_MAX);
// The last object before a page is full may have the longest name.
const _: () = assert!(
    limit::PAGE_LEN_AIM
        + OPEN_LEN
        + limit::OBJECT_NAME_LEN_MAX
        + CLOSE_LEN
        + SLICE_LEN
        + END_LEN
        + HEAD_LEN
        + SIGNATURE_LEN
        < limit::PAGE_LEN_MAX
);

/// Entries and chunks so far, with the most that they can take when encoded.
#[derive(Debug, Default)]
pub(super) struct PageDraft {
    entries: Vec<Entry>,
    chunks: Vec<Bytes>,
    encoded: usize,
    content: u64,
}

impl PageDraft {
    /// Whether the page, with the chunk that is being filled, takes no further object: it has
    /// `content_aim` bytes of content, or its length.
    pub(super) fn is_full(&self, chunk: &ChunkDraft, content_aim: u64) -> bool {
        self.content >= content_aim
            || self.encoded + CHUNK_LEN + chunk.encoded_len() >= limit::PAGE_LEN_AIM
    }

    /// Content bytes of the chunks.
    pub(super) const fn content(&self) -> u64 {
        self.content
    }

    /// Adds an entry that is no chunk.
    pub(super) fn push(&mut self, entry: Entry) {
        self.encoded += encoded_max(&entry);
        self.entries.push(entry);
    }

    /// Adds a chunk with its payload.
    pub(super) fn push_chunk(&mut self, entry: Entry, bytes: Bytes) {
        self.content = self.content.saturating_add(bytes.len() as u64);
        self.chunks.push(bytes);
        self.push(entry);
    }

    /// The entries and the payloads of the chunks.
    pub(super) fn into_parts(self) -> (Vec<Entry>, Vec<Bytes>) {
        (self.entries, self.chunks)
    }
}

fn encoded_max(entry: &Entry) -> usize {
    match entry {
        Entry::Chunk { slices, .. } => CHUNK_LEN + SLICE_LEN * slices.len(),
        Entry::Open { name, .. } => OPEN_LEN + name.len(),
        Entry::Close { .. } => CLOSE_LEN,
        Entry::End { .. } => END_LEN,
        Entry::Sync { .. } => SYNC_LEN,
        Entry::Recut { .. } => RECUT_LEN,
    }
}

#[cfg(test)]
mod tests {
    use shared::manifest::{Attributes, ObjectKind, Slice};
    use shared::seal::Hash;
    use shared::wire::codec::encode;

    use super::*;

    #[test]
    fn no_entry_is_longer_than_reckoned() {
        let attributes = Attributes {
            kind: ObjectKind::File,
            modified: Some((i64::MIN, u32::MAX)),
            executable: true,
        };
        let slice = Slice { object: u32::MAX, offset: u64::MAX, len: u32::MAX };
        let hash = Hash([255; 32]);
        let entries = [
            Entry::Chunk { len: u32::MAX, hash, slices: vec![slice; 4096] },
            Entry::Open { object: u32::MAX, name: "x".repeat(4096), attributes },
            Entry::Close { object: u32::MAX, len: u64::MAX, digest: hash },
            Entry::End { content_len: u64::MAX, digest: hash },
            Entry::Sync { object: u32::MAX, offset: u64::MAX },
            Entry::Recut { first_page: u32::MAX, first_chunk: u64::MAX, previous: hash },
        ];
        for entry in entries {
            assert_eq!(
                encode(&entry).len(),
                encoded_max(&entry),
                "{:?}",
                std::mem::discriminant(&entry)
            );
        }
    }
}
