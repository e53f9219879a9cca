//! What the logs of a data folder say is durable: `docs/WIRE.md`, section 9.

use std::fs;
use std::path::Path;

use shared::limit;
use shared::manifest::PageBytes;

/// Length, tag, checksum.
const HEADER_LEN: usize = 4 + 1 + 8;
const TAG_SIGNED: u8 = 2;

/// Content bytes that are durable in a folder of jobs, of which the process has ended.
pub(crate) fn durable_bytes(jobs: &Path) -> u64 {
    let Ok(folders) = fs::read_dir(jobs) else { return 0 };
    folders.map(|folder| durable_of(&folder.unwrap().path())).sum()
}

/// Pages in the log of a job.
pub(crate) fn pages(job: &Path) -> usize {
    records(&job.join("pages.log")).len()
}

fn durable_of(job: &Path) -> u64 {
    let mut lens = Vec::new();
    for (tag, payload) in records(&job.join("pages.log")) {
        let page = PageBytes::from_record(payload.into(), tag == TAG_SIGNED).unwrap();
        let page = page.decode().unwrap();
        lens.extend(page.chunks().map(|(_, len, ..)| u64::from(len)));
    }
    let mut held = vec![false; lens.len()];
    for (_, payload) in records(&job.join("have.log")) {
        for run in payload.chunks_exact(16) {
            let number = |at: usize| u64::from_le_bytes(run[at..at + 8].try_into().unwrap());
            for chunk in number(0)..number(0) + number(8) {
                if let Some(held) = held.get_mut(usize::try_from(chunk).unwrap()) {
                    *held = true;
                }
            }
        }
    }
    lens.into_iter().zip(held).filter(|(_, held)| *held).map(|(len, _)| len).sum()
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
