//! Records of an append-only log: length, tag, checksum, payload.

use std::fs::File;
use std::io::{self, BufReader, Read};

use bytes::Bytes;

/// Bytes of a record's header.
pub(super) const HEADER_LEN: usize = 4 + 1 + 8;

/// A record of `payload`, as appended.
pub(super) fn encode(tag: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = checksum(len, tag, payload);
    [&len, &[tag][..], &sum, payload].concat()
}

/// Splits a whole record into its tag and payload, if its checksum holds.
pub(super) fn decode(mut record: Bytes) -> Option<(u8, Bytes)> {
    let header = *record.first_chunk::<HEADER_LEN>()?;
    let payload = record.split_off(HEADER_LEN);
    let header = Header::read(header);
    (header.len as usize == payload.len() && header.holds(&payload))
        .then_some((header.tag, payload))
}

/// What comes next in a log.
#[derive(Debug)]
pub(super) enum Next {
    /// A record: its position, its tag, its payload.
    Record(u64, u8, Vec<u8>),
    /// Nothing more.
    End,
    /// The log was cut off while this was appended.
    Torn,
    /// Something that was once whole no longer is.
    Damaged,
}

/// Reads a log from its beginning.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    reader: BufReader<&'a File>,
    at: u64,
    end: u64,
    limit: usize,
}

impl<'a> Scanner<'a> {
    /// Reads `file` from its current position, which must be its beginning; no payload is
    /// longer than `limit`.
    pub(super) fn new(file: &'a File, limit: usize) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Self { reader: BufReader::with_capacity(256 * 1024, file), at: 0, end, limit })
    }

    /// Position behind the last record that was returned.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn next(&mut self) -> io::Result<Next> {
        let left = self.end - self.at;
        if left == 0 {
            return Ok(Next::End);
        }
        if left < HEADER_LEN as u64 {
            return Ok(Next::Torn);
        }
        let mut bytes = [0; HEADER_LEN];
        self.reader.read_exact(&mut bytes)?;
        let header = Header::read(bytes);
        let whole = HEADER_LEN as u64 + u64::from(header.len);
        if header.len as usize > self.limit || whole > left {
            return self.judge_tail(&bytes);
        }
        let mut payload = vec![0; header.len as usize];
        self.reader.read_exact(&mut payload)?;
        if header.holds(&payload) {
            let offset = self.at;
            self.at += whole;
            return Ok(Next::Record(offset, header.tag, payload));
        }
        if whole == left || (bytes == [0; HEADER_LEN] && self.rest_is_zero()?) {
            return Ok(Next::Torn);
        }
        Ok(Next::Damaged)
    }

    /// What a record is whose length, `header` says, reaches over the end: torn, unless there
    /// is more behind it than one record or even a whole one.
    fn judge_tail(&mut self, header: &[u8; HEADER_LEN]) -> io::Result<Next> {
        if self.end - self.at > (HEADER_LEN + self.limit) as u64 {
            return Ok(Next::Damaged);
        }
        let mut tail = header.to_vec();
        self.reader.read_to_end(&mut tail)?;
        let tail = Bytes::from(tail);
        let whole = |at: usize| {
            let len = tail.get(at..)?.first_chunk::<4>().map(|len| u32::from_le_bytes(*len))?;
            let end = at.checked_add(HEADER_LEN)?.checked_add(len as usize)?;
            (end <= tail.len()).then(|| tail.slice(at..end)).and_then(decode)
        };
        let later = (1..tail.len()).find_map(whole);
        Ok(if later.is_some() { Next::Damaged } else { Next::Torn })
    }

    /// Whether the log ends in zeros: a file system may grow a file before it has the bytes.
    fn rest_is_zero(&mut self) -> io::Result<bool> {
        let mut block = [0; 4096];
        loop {
            match self.reader.read(&mut block)? {
                0 => return Ok(true),
                n if block.iter().take(n).any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}

struct Header {
    len: u32,
    tag: u8,
    sum: [u8; 8],
}

impl Header {
    const fn read(bytes: [u8; HEADER_LEN]) -> Self {
        let [l0, l1, l2, l3, tag, sum @ ..] = bytes;
        Self { len: u32::from_le_bytes([l0, l1, l2, l3]), tag, sum }
    }

    fn holds(&self, payload: &[u8]) -> bool {
        checksum(self.len.to_le_bytes(), self.tag, payload) == self.sum
    }
}

fn checksum(len: [u8; 4], tag: u8, payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&len).update(&[tag]).update(payload);
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}
