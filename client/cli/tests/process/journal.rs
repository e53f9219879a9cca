//! What the logs of a data folder say is durable: `docs/WIRE.md`, section 9.

use std::fs;
use std::path::Path;

use shared::limit;
use shared::manifest::{Entry, PageBytes};

/// Length, tag, checksum.
const HEADER_LEN: usize = 4 + 1 + 8;
const TAG_SIGNED: u8 = 2;

/// What of a job is durable.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    /// The length of each chunk that the pages describe, and whether it is there.
    pub(crate) chunks: Vec<(u64, bool)>,
    /// Whether the pages say how many chunks there are.
    pub(crate) has_end: bool,
}

impl Durable {
    /// Of the job in a folder: the process may be writing.
    pub(crate) fn of(job: &Path) -> Self {
        // What is durable is looked at first: chunks are so with the pages that describe them.
        let have = records(&job.join("have.log"));
        let mut durable = Self::default();
        for (tag, payload) in records(&job.join("pages.log")) {
            let page = PageBytes::from_record(payload.into(), tag == TAG_SIGNED).unwrap();
            let page = page.decode().unwrap();
            durable.chunks.extend(page.chunks().map(|(_, len, ..)| (u64::from(len), false)));
            durable.has_end |= page.entries.iter().any(|e| matches!(e, Entry::End { .. }));
        }
        for (_, payload) in have {
            payload.chunks_exact(16).for_each(|run| durable.mark(run));
        }
        durable
    }

    fn mark(&mut self, run: &[u8]) {
        let number = |at: usize| u64::from_le_bytes(run[at..at + 8].try_into().unwrap());
        for chunk in number(0)..number(0) + number(8) {
            if let Some((_, is_there)) = self.chunks.get_mut(usize::try_from(chunk).unwrap()) {
                *is_there = true;
            }
        }
    }

    /// Whether chunk after chunk is there, up to the end.
    pub(crate) fn is_whole(&self) -> bool {
        self.has_end && self.chunks.iter().all(|(_, is_there)| *is_there)
    }

    /// What is there at either.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        let more = other.chunks.iter().skip(self.chunks.len());
        for ((_, is_there), (_, too)) in self.chunks.iter_mut().zip(&other.chunks) {
            *is_there |= too;
        }
        self.chunks.extend(more);
        self.has_end |= other.has_end;
        self
    }

    fn bytes(&self) -> u64 {
        self.chunks.iter().filter(|(_, is_there)| *is_there).map(|(len, _)| len).sum()
    }
}

/// Content bytes that are durable in a folder of jobs, of which the process has ended.
pub(crate) fn durable_bytes(jobs: &Path) -> u64 {
    let Ok(folders) = fs::read_dir(jobs) else { return 0 };
    folders.map(|folder| Durable::of(&folder.unwrap().path()).bytes()).sum()
}

/// Pages in the log of a job.
pub(crate) fn pages(job: &Path) -> usize {
    records(&job.join("pages.log")).len()
}

/// The records of a log, as far as they are whole.
fn records(log: &Path) -> Vec<(u8, Vec<u8>)> {
    let bytes = fs::read(log).unwrap_or_default();
    let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
    while let Some(header) = rest.get(..HEADER_LEN) {
        let len = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        assert!(len <= limit::PAGE_LEN_MAX, "a record of {len} bytes");
        let Some(payload) = rest.get(HEADER_LEN..HEADER_LEN + len) else { break };
        records.push((header[4], payload.to_vec()));
        rest = &rest[HEADER_LEN + len..];
    }
    records
}
