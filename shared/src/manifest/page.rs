//! One page of the manifest: its entries, its bytes, its signature.

use bytes::Bytes;
use ring::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};

use super::recut::Recut;
use crate::id::JobId;
use crate::limit::PAGE_LEN_MAX;
use crate::seal::{self, Hash, PublicKey, Purpose, SIGNATURE_LEN, Signature};
use crate::wire::codec::{self, DecodeError};

/// A page: what happens in the log from `first_chunk` on, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The job that the page belongs to.
    pub job: JobId,
    /// Its place in the manifest, from 0.
    pub index: u32,
    /// The number of the first chunk that it describes, or of the next one if it has none.
    pub first_chunk: u64,
    /// The hash of the page before it; [`Hash::ZERO`] for the first.
    pub previous: Hash,
    /// What it says, in the order of the log.
    pub entries: Vec<Entry>,
}

/// One event of the log. Variants are only ever appended: their position is their tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The next chunk. Its payload is its slices, one behind the other.
    Chunk {
        /// Bytes.
        len: u32,
        /// BLAKE3 of the payload.
        hash: Hash,
        /// Where the payload goes; the lengths add up to `len`.
        slices: Vec<Slice>,
    },
    /// An object begins; it is empty.
    Open {
        /// Its number in the job, counted from 0 in the order of opening.
        object: u32,
        /// Its name, checked by [`super::check_object_name`].
        name: String,
        /// What is kept beside its bytes.
        attributes: Attributes,
    },
    /// An object has ended.
    Close {
        /// The object.
        object: u32,
        /// Its length in bytes.
        len: u64,
        /// BLAKE3 of its bytes.
        digest: Hash,
    },
    /// The log has ended; nothing follows.
    End {
        /// Content bytes of the whole job.
        content_len: u64,
        /// The job's digest as `job show` gives it.
        digest: Hash,
    },
    /// A reader may start here, such as at a key frame.
    Sync {
        /// The object; it is open.
        object: u32,
        /// Where, in bytes; not beyond its length so far.
        offset: u64,
    },
    /// Always the first entry of its page, which cuts the end of the log anew, into larger
    /// chunks: those of this page have the bytes of the chunks from `first_chunk` up to
    /// `Page::first_chunk`, in their order. Only chunks and sync points follow.
    ///
    /// The chunks that are cut anew are void as soon as the next such page is there. Whoever
    /// lacks pages from `first_page` on may take this page in place of all of them.
    Recut {
        /// The first page whose chunks are cut anew.
        first_page: u32,
        /// The first chunk that is cut anew.
        first_chunk: u64,
        /// The hash of the page before `first_page`.
        previous: Hash,
    },
}

/// A part of a chunk: the next `len` bytes belong into `object` at `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The object.
    pub object: u32,
    /// Position in the object, in bytes; objects only grow at their end.
    pub offset: u64,
    /// Bytes; never 0.
    pub len: u32,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObjectKind {
    /// A file, visible when it is whole.
    File,
    /// A directory; it has no bytes.
    Directory,
    /// A live stream, visible from its first byte.
    Live,
}

/// What is kept of an object beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// What it is.
    pub kind: ObjectKind,
    /// Modification time: seconds since the epoch and nanoseconds; absent if unknown.
    pub modified: Option<(i64, u32)>,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// A page as it is hashed, signed, stored and sent: its encoded body and its signature.
///
/// The publisher's drafts have no signature: the base accepts them from the connection of
/// the job's owner only, and signs the same body once it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageBytes {
    body: Bytes,
    signature: Option<Signature>,
}

impl Page {
    /// The page's bytes, unsigned.
    pub fn draft(&self) -> PageBytes {
        PageBytes { body: codec::encode(self).into(), signature: None }
    }

    /// The number of chunks that the page describes.
    pub fn chunk_count(&self) -> u64 {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Chunk { .. })).count() as u64
    }

    /// The chunks of the page in order: number, length, hash and slices.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, u32, &Hash, &[Slice])> + '_ {
        let chunks = self.entries.iter().filter_map(|entry| match entry {
            Entry::Chunk { len, hash, slices } => Some((*len, hash, slices.as_slice())),
            _ => None,
        });
        (self.first_chunk..)
            .zip(chunks)
            .map(|(number, (len, hash, slices))| (number, len, hash, slices))
    }

    /// What the page cuts anew, if it does.
    pub fn recut(&self) -> Option<Recut> {
        match self.entries.first()? {
            Entry::Recut { first_page, first_chunk, .. } => Some(Recut {
                first_page: *first_page,
                page: self.index,
                first_chunk: *first_chunk,
                end_chunk: self.first_chunk,
            }),
            _ => None,
        }
    }

    /// Length, hash and slices of chunk `number`, if this page describes it.
    pub fn chunk(&self, number: u64) -> Option<(u32, &Hash, &[Slice])> {
        self.chunks().find(|(n, ..)| *n == number).map(|(_, len, hash, slices)| (len, hash, slices))
    }
}

impl PageBytes {
    /// Splits a record into signature and body; a draft's record is its body alone.
    ///
    /// # Errors
    /// [`DecodeError`] if it is too long, or too short to be signed.
    pub fn from_record(record: Bytes, signed: bool) -> Result<Self, DecodeError> {
        if record.len() > PAGE_LEN_MAX {
            return Err(DecodeError::TooLong { len: record.len(), limit: PAGE_LEN_MAX });
        }
        if !signed {
            return Ok(Self { body: record, signature: None });
        }
        let short =
            || DecodeError::Invalid(format!("a page of {} bytes is unsigned", record.len()));
        let signature = record.get(..SIGNATURE_LEN).ok_or_else(short)?;
        let signature = Signature::from_slice(signature).ok_or_else(short)?;
        Ok(Self { body: record.slice(SIGNATURE_LEN..), signature: Some(signature) })
    }

    /// The record that [`Self::from_record`] reads.
    pub fn to_record(&self) -> Bytes {
        match &self.signature {
            None => self.body.clone(),
            Some(signature) => [signature.to_bytes().as_slice(), &self.body].concat().into(),
        }
    }

    /// Bytes of the record.
    pub fn len(&self) -> usize {
        self.body.len() + self.signature.map_or(0, |_| SIGNATURE_LEN)
    }

    /// Whether the record is empty, which no page is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the page carries a signature.
    pub const fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// The hash of the body, which the next page names.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.body)
    }

    /// The same page, signed.
    #[must_use]
    pub fn sign(&self, key: &Ed25519KeyPair) -> Self {
        let signature = seal::sign(key, Purpose::Page, &self.body);
        Self { body: self.body.clone(), signature: Some(signature) }
    }

    /// Whether the page carries a signature of `key` over its body.
    pub fn verify(&self, key: &PublicKey) -> bool {
        self.signature.is_some_and(|sig| seal::verify(key, Purpose::Page, &self.body, &sig))
    }

    /// Decodes the body. Whether it fits the manifest is for [`super::Manifest`] to say.
    ///
    /// # Errors
    /// [`DecodeError`] if the body is not a page.
    pub fn decode(&self) -> Result<Page, DecodeError> {
        // Decoded entries are at most about four times as large as their bytes; the limit
        // of the codec counts both, the length of the body is checked here.
        if self.body.len() > PAGE_LEN_MAX {
            return Err(DecodeError::TooLong { len: self.body.len(), limit: PAGE_LEN_MAX });
        }
        codec::decode::<Page, { 32 * PAGE_LEN_MAX }>(&self.body)
    }
}
