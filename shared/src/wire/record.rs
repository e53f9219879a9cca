//! Records of a job stream that can be placed wherever in the stream they are found.
//!
//! A job stream is read unordered, so that a lost packet holds up nothing but its own bytes.
//! It is divided into blocks of [`BLOCK_LEN`] bytes by stream offset. A block is a row of
//! fragments, each with a header that says which record it is a part of and where its bytes
//! belong, so a block can be read whatever became of the blocks before it. A fragment never
//! crosses the end of a block; a header of kind 0, or fewer bytes than a header, fills it up.
//!
//! Header, 14 bytes, little-endian: `kind: u8`, `len: u16` bytes of this fragment,
//! `total: u24` bytes of the record, `offset: u24` of the fragment within the record,
//! `number: u40` of the record. 14 of 8,192 bytes are 0.2 %.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};

use crate::limit;

/// Bytes of a block.
pub const BLOCK_LEN: u64 = 8 * 1024;
/// Bytes of a fragment's header.
pub const HEADER_LEN: usize = 14;
/// Blocks of one stream that may be incomplete at a time: 64 MiB of run-ahead, which credit
/// keeps a source far below.
pub const BLOCKS_OPEN_MAX: usize = 8 * 1024;

const NUMBER_MAX: u64 = (1 << 40) - 1;
/// What an incomplete block and a piece that waits in it take beside their bytes, about.
const BLOCK_COST: usize = 256;
const PIECE_COST: usize = 128;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKind {
    /// The job that the stream carries: its id. The first record of every stream.
    Job = 1,
    /// A chunk's payload; the number is the chunk's.
    Chunk = 2,
    /// A signed page; the number is its index.
    Page = 3,
    /// A page as the publisher drafted it, unsigned; the number is its index.
    Draft = 4,
    /// A signed page that cuts anew, in place of all pages that it stands for and that were not
    /// sent; the number is its index.
    PageInPlace = 5,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Job, Self::Chunk, Self::Page, Self::Draft, Self::PageInPlace]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// Largest record of this kind, in bytes.
    pub const fn len_max(self) -> usize {
        match self {
            Self::Job => 16,
            Self::Chunk => limit::CHUNK_LEN_MAX as usize,
            Self::Page | Self::Draft | Self::PageInPlace => limit::PAGE_LEN_MAX,
        }
    }
}

/// Which record, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordId {
    /// What it is.
    pub kind: RecordKind,
    /// Its number among its kind.
    pub number: u64,
    /// Bytes of the whole record.
    pub total: u32,
}

/// Why the bytes of a job stream are not records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A kind that this version does not know.
    #[error("record of unknown kind {0}")]
    Kind(u8),
    /// A fragment that is empty, or reaches over the end of its block or record.
    #[error("fragment of {len} bytes at {offset} of a record of {total} bytes")]
    Bounds {
        /// Bytes of the fragment.
        len: usize,
        /// Its place in the record.
        offset: u32,
        /// Bytes of the record.
        total: u32,
    },
    /// A record longer than its kind may be, or empty.
    #[error("record of {total} bytes, its kind may have {limit}")]
    Length {
        /// Bytes of the record.
        total: u32,
        /// Bytes allowed.
        limit: usize,
    },
    /// More incomplete blocks than [`BLOCKS_OPEN_MAX`].
    #[error("more than {BLOCKS_OPEN_MAX} incomplete blocks")]
    Blocks,
}

/// Lays records out in blocks.
#[derive(Debug, Default)]
pub struct RecordWriter {
    offset: u64,
}

impl RecordWriter {
    /// A writer at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stream offset of the next byte.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends a record to `out`, which continues the stream.
    pub fn put(&mut self, kind: RecordKind, number: u64, payload: &[u8], out: &mut Vec<u8>) {
        debug_assert!(!payload.is_empty() && payload.len() <= kind.len_max());
        let fragments = payload.len() / (BLOCK_LEN as usize - HEADER_LEN) + 2;
        out.reserve(payload.len() + fragments * 2 * HEADER_LEN);
        let mut done = 0usize;
        while let Some(rest) = payload.get(done..).filter(|rest| !rest.is_empty()) {
            let room = self.room();
            if room <= HEADER_LEN {
                out.resize(out.len() + room, 0);
                self.offset += room as u64;
                continue;
            }
            let len = rest.len().min(room - HEADER_LEN);
            out.extend_from_slice(&header(kind, len, payload.len(), done, number));
            out.extend_from_slice(rest.get(..len).unwrap_or(rest));
            self.offset += (HEADER_LEN + len) as u64;
            done += len;
        }
    }

    fn room(&self) -> usize {
        (BLOCK_LEN - self.offset % BLOCK_LEN) as usize
    }
}

fn header(
    kind: RecordKind,
    len: usize,
    total: usize,
    offset: usize,
    number: u64,
) -> [u8; HEADER_LEN] {
    let [len0, len1, ..] = (len as u32).to_le_bytes();
    let [total0, total1, total2, _] = (total as u32).to_le_bytes();
    let [at0, at1, at2, _] = (offset as u32).to_le_bytes();
    let [n0, n1, n2, n3, n4, ..] = number.min(NUMBER_MAX).to_le_bytes();
    [kind as u8, len0, len1, total0, total1, total2, at0, at1, at2, n0, n1, n2, n3, n4]
}

/// A piece of a record: `bytes` belong at `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The record.
    pub record: RecordId,
    /// Place in the record, in bytes.
    pub offset: u32,
    /// The bytes.
    pub bytes: Bytes,
}

/// Finds the pieces of records in a stream whose bytes arrive in any order, each once.
#[derive(Debug, Default)]
pub struct RecordReader {
    blocks: BTreeMap<u64, Block>,
    /// Every block below this one is complete.
    complete_below: u64,
    /// Memory of the pieces that wait.
    early: usize,
}

impl RecordReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory that what waits for bytes before it takes, in bytes, about.
    pub fn waiting(&self) -> usize {
        self.early + self.blocks.len() * BLOCK_COST
    }

    /// Takes the bytes at stream offset `offset` and hands every piece that can be placed
    /// now to `place`.
    ///
    /// # Errors
    /// [`RecordError`] if the bytes are not records; the stream is of no use from then on.
    pub fn push(
        &mut self,
        offset: u64,
        mut bytes: Bytes,
        mut place: impl FnMut(Piece),
    ) -> Result<(), RecordError> {
        let mut at = offset;
        while !bytes.is_empty() {
            let index = at / BLOCK_LEN;
            let within = at % BLOCK_LEN;
            let len = bytes.len().min((BLOCK_LEN - within) as usize);
            self.push_in_block(index, within as usize, bytes.split_to(len), &mut place)?;
            at = at.saturating_add(len as u64);
        }
        Ok(())
    }

    fn push_in_block(
        &mut self,
        index: u64,
        within: usize,
        bytes: Bytes,
        place: &mut impl FnMut(Piece),
    ) -> Result<(), RecordError> {
        if index < self.complete_below {
            return Ok(());
        }
        if !self.blocks.contains_key(&index) && self.blocks.len() >= BLOCKS_OPEN_MAX {
            return Err(RecordError::Blocks);
        }
        let block = self.blocks.entry(index).or_default();
        let before = block.early_cost;
        block.push(within, bytes, place)?;
        self.early = self.early + block.early_cost - before;
        // A complete block stays as a mark until all before it are complete too, so that
        // bytes that come twice are never placed twice.
        while self.blocks.get(&self.complete_below).is_some_and(Block::is_complete) {
            self.blocks.remove(&self.complete_below);
            self.complete_below += 1;
        }
        Ok(())
    }
}

/// One block: bytes below `parsed` have been placed, later ones wait for those between.
#[derive(Debug, Default)]
struct Block {
    parsed: usize,
    early: BTreeMap<usize, Bytes>,
    early_cost: usize,
    state: Parse,
}

#[derive(Debug, Clone, Copy)]
enum Parse {
    /// Inside a header of which so many bytes are known.
    Header { known: usize, bytes: [u8; HEADER_LEN] },
    /// Inside a fragment: so many bytes are still to come, the next belongs at `offset`.
    Body { record: RecordId, offset: u32, left: usize },
    /// Nothing but padding up to the end of the block.
    Padding,
}

impl Default for Parse {
    fn default() -> Self {
        Self::Header { known: 0, bytes: [0; HEADER_LEN] }
    }
}

impl Block {
    fn is_complete(&self) -> bool {
        self.parsed == BLOCK_LEN as usize
    }

    fn push(
        &mut self,
        within: usize,
        bytes: Bytes,
        place: &mut impl FnMut(Piece),
    ) -> Result<(), RecordError> {
        if within > self.parsed {
            // A copy: what arrived is a slice of a buffer of up to 64 KiB.
            self.early_cost += bytes.len() + PIECE_COST;
            if let Some(old) = self.early.insert(within, Bytes::copy_from_slice(&bytes)) {
                self.early_cost -= old.len() + PIECE_COST;
            }
            return Ok(());
        }
        self.parse(within, bytes, place)?;
        while let Some(entry) = self.early.first_entry().filter(|e| *e.key() <= self.parsed) {
            let (within, bytes) = entry.remove_entry();
            self.early_cost -= bytes.len() + PIECE_COST;
            self.parse(within, bytes, place)?;
        }
        Ok(())
    }

    fn parse(
        &mut self,
        within: usize,
        mut bytes: Bytes,
        place: &mut impl FnMut(Piece),
    ) -> Result<(), RecordError> {
        // What was parsed before is dropped: a stream gives each byte once.
        bytes.advance(bytes.len().min(self.parsed - within));
        while !bytes.is_empty() {
            let before = bytes.len();
            match &mut self.state {
                Parse::Padding => bytes.clear(),
                Parse::Header { known, bytes: header } => {
                    if let Some(slot) = header.get_mut(*known) {
                        *slot = bytes.get_u8();
                        *known += 1;
                    }
                    let (known, header) = (*known, *header);
                    self.parsed += before - bytes.len();
                    self.read_header(known, header)?;
                    continue;
                }
                Parse::Body { record, offset, left } => {
                    let part = bytes.split_to(bytes.len().min(*left));
                    let (piece_offset, len) = (*offset, part.len());
                    place(Piece { record: *record, offset: piece_offset, bytes: part });
                    *offset += len as u32;
                    *left -= len;
                    if *left == 0 {
                        self.state = Parse::default();
                    }
                }
            }
            self.parsed += before - bytes.len();
        }
        Ok(())
    }

    fn read_header(&mut self, known: usize, header: [u8; HEADER_LEN]) -> Result<(), RecordError> {
        let [kind, len0, len1, t0, t1, t2, a0, a1, a2, n0, n1, n2, n3, n4] = header;
        let room = BLOCK_LEN as usize - self.parsed;
        if known > 0 && kind == 0 {
            self.state = Parse::Padding;
            return Ok(());
        }
        if known < HEADER_LEN {
            return Ok(());
        }
        let kind = RecordKind::from_byte(kind).ok_or(RecordError::Kind(kind))?;
        let len = usize::from(u16::from_le_bytes([len0, len1]));
        let total = u32::from_le_bytes([t0, t1, t2, 0]);
        let offset = u32::from_le_bytes([a0, a1, a2, 0]);
        let number = u64::from_le_bytes([n0, n1, n2, n3, n4, 0, 0, 0]);
        if total == 0 || total as usize > kind.len_max() {
            return Err(RecordError::Length { total, limit: kind.len_max() });
        }
        if len == 0 || len > room || offset as usize + len > total as usize {
            return Err(RecordError::Bounds { len, offset, total });
        }
        self.state = Parse::Body { record: RecordId { kind, number, total }, offset, left: len };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = BTreeMap<(u8, u64), Vec<u8>>;

    fn collect(found: &mut Found, piece: Piece) {
        let record = found
            .entry((piece.record.kind as u8, piece.record.number))
            .or_insert_with(|| vec![0; piece.record.total as usize]);
        let at = piece.offset as usize;
        record[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
    }

    fn sample() -> (Found, Vec<u8>) {
        let mut writer = RecordWriter::new();
        let (mut want, mut stream) = (Found::new(), Vec::new());
        let sizes = [16usize, 1, 8_178, 8_163, 3, 20_000, 5, 65_536, 8_150, 13, 14, 15, 1];
        for (i, size) in sizes.into_iter().enumerate() {
            let kind = if i == 0 { RecordKind::Job } else { RecordKind::Chunk };
            let payload: Vec<u8> = (0..size).map(|j| (i * 31 + j) as u8).collect();
            writer.put(kind, i as u64, &payload, &mut stream);
            want.insert((kind as u8, i as u64), payload);
        }
        assert_eq!(writer.offset(), stream.len() as u64);
        (want, stream)
    }

    fn shuffle<T>(items: &mut [T], mut seed: u64) {
        for i in (1..items.len()).rev() {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            items.swap(i, (seed >> 33) as usize % (i + 1));
        }
    }

    #[test]
    fn records_are_found_in_any_order_of_arrival() {
        let (want, stream) = sample();
        for (seed, cut) in
            [(0u64, 1_400usize), (1, 1), (2, 7), (3, 8_192), (4, 100_000), (5, 1_337)]
        {
            let mut pieces: Vec<(u64, Bytes)> = stream
                .chunks(cut)
                .enumerate()
                .map(|(i, piece)| ((i * cut) as u64, Bytes::copy_from_slice(piece)))
                .collect();
            shuffle(&mut pieces, seed);
            let (mut reader, mut found) = (RecordReader::new(), Found::new());
            for (offset, bytes) in pieces {
                reader.push(offset, bytes, |piece| collect(&mut found, piece)).unwrap();
            }
            assert_eq!(found, want, "cut {cut}");
        }
    }

    #[test]
    fn a_later_block_is_read_while_an_earlier_one_is_missing() {
        let mut writer = RecordWriter::new();
        let mut stream = Vec::new();
        for number in 0..4 {
            writer.put(RecordKind::Chunk, number, &[number as u8; 8_000], &mut stream);
        }
        let mut found = Found::new();
        let late = Bytes::copy_from_slice(&stream[2 * 8_192..3 * 8_192]);
        RecordReader::new().push(2 * 8_192, late, |piece| collect(&mut found, piece)).unwrap();
        assert!(found.contains_key(&(RecordKind::Chunk as u8, 2)));
    }

    #[test]
    fn what_waits_is_counted_and_copied_out_of_its_buffer() {
        let mut writer = RecordWriter::new();
        let mut stream = Vec::new();
        writer.put(RecordKind::Chunk, 1, &[7; 8_178], &mut stream);
        let buffer = Bytes::from(vec![7u8; 60_000]);
        let mut reader = RecordReader::new();
        for at in (1..8_000).step_by(2) {
            reader.push(at, buffer.slice(..1), |_| {}).unwrap();
        }
        assert!(buffer.is_unique(), "nothing holds on to the buffer");
        assert!(reader.waiting() >= 4_000 * PIECE_COST, "{}", reader.waiting());
        reader.push(0, Bytes::from(stream), |_| {}).unwrap();
        assert_eq!(reader.waiting(), 0);
    }

    #[test]
    fn overhead_stays_under_three_percent_for_files() {
        let mut writer = RecordWriter::new();
        let mut stream = Vec::new();
        for number in 0..64 {
            writer.put(RecordKind::Chunk, number, &[1; 16 * 1024], &mut stream);
        }
        assert!(stream.len() < 64 * 16 * 1024 * 103 / 100);
    }

    #[test]
    fn bytes_that_are_no_records_are_refused() {
        let refuse = |bytes: &[u8]| {
            RecordReader::new().push(0, Bytes::copy_from_slice(bytes), |_| {}).unwrap_err()
        };
        let good = header(RecordKind::Chunk, 10, 10, 0, 0);
        let with = |at: usize, byte: u8| {
            let mut header = good;
            header[at] = byte;
            header
        };
        assert_eq!(refuse(&with(0, 99)), RecordError::Kind(99));
        assert!(matches!(refuse(&with(1, 0)), RecordError::Bounds { .. }));
        assert!(matches!(refuse(&with(1, 11)), RecordError::Bounds { .. }));
        assert!(matches!(refuse(&with(5, 0xff)), RecordError::Length { .. }));
        assert!(matches!(refuse(&with(6, 1)), RecordError::Bounds { .. }));
        let mut reader = RecordReader::new();
        let mut far =
            |block: u64| reader.push(block * BLOCK_LEN + 1, Bytes::from_static(b"x"), |_| {});
        (0..BLOCKS_OPEN_MAX as u64).for_each(|block| far(block).unwrap());
        assert_eq!(far(BLOCKS_OPEN_MAX as u64), Err(RecordError::Blocks));
    }
}
