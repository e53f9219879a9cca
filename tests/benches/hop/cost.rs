//! CPU time of processes, and of what every receiver must do: hash, read, write, flush.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use shared_io::store::{FLUSH_BYTES_MAX, NODE_FLUSH_EVERY};
use tokio::time::Instant;

/// Ticks a second in `/proc`: the kernel's interface fixes it.
const TICKS: f64 = 100.0;
const MIB: usize = 1024 * 1024;

/// User and system time that a process has used; `self` is this one.
pub(crate) fn cpu(pid: &str) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain spaces. After it, utime and stime are fields 12
    // and 13.
    let (_, fields) = stat.rsplit_once(')').context("the stat of a process has a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS))
}

/// A file of bytes that do not repeat within a chunk.
pub(crate) fn make_source(path: &Path, size: u64) -> Result<()> {
    let mut content = blake3::Hasher::new().finalize_xof();
    let mut file = File::create(path)?;
    let mut block = vec![0; MIB];
    let mut left = size;
    while left > 0 {
        content.fill(&mut block);
        let len = block.len().min(usize::try_from(left)?);
        file.write_all(block.get(..len).unwrap_or_default())?;
        left -= len as u64;
    }
    file.sync_all()?;
    Ok(())
}

/// BLAKE3 of each chunk, once.
pub(crate) fn hash(source: &Path, chunk: usize) -> Result<Duration> {
    let file = File::open(source)?;
    let mut block = vec![0; 16 * MIB];
    let mut spent = Duration::ZERO;
    let mut at = 0;
    loop {
        let len = file.read_at(&mut block, at)?;
        if len == 0 {
            return Ok(spent);
        }
        at += len as u64;
        let before = cpu("self")?;
        for piece in block.get(..len).unwrap_or_default().chunks(chunk) {
            std::hint::black_box(blake3::hash(piece));
        }
        spent += cpu("self")?.saturating_sub(before);
    }
}

/// CPU time of reading and of writing.
pub(crate) struct Disk {
    pub(crate) read: Duration,
    pub(crate) write: Duration,
}

impl Disk {
    pub(crate) fn cpu(&self) -> Duration {
        self.read + self.write
    }
}

/// Reads the source chunk by chunk as a base does, and writes it to `target` chunk by chunk,
/// flushed as often as a node does.
pub(crate) fn disk(source: &Path, target: &Path, chunk: usize) -> Result<Disk> {
    let from = File::open(source)?;
    let size = from.metadata()?.len();
    let chunk_len = |at: u64| usize::try_from(size - at).map_or(chunk, |left| left.min(chunk));
    let mut block = vec![0; chunk];
    let before = cpu("self")?;
    let mut at = 0;
    while at < size {
        let piece = block.get_mut(..chunk_len(at)).context("a chunk is no longer than that")?;
        from.read_exact_at(std::hint::black_box(piece), at)?;
        at += piece.len() as u64;
    }
    let read = cpu("self")?.saturating_sub(before);

    let to = File::create(target)?;
    let before = cpu("self")?;
    let (mut at, mut flushed, mut flushed_at) = (0, 0, Instant::now());
    while at < size {
        let piece = block.get(..chunk_len(at)).context("a chunk is no longer than that")?;
        to.write_all_at(piece, at)?;
        at += piece.len() as u64;
        if at - flushed >= FLUSH_BYTES_MAX || flushed_at.elapsed() >= NODE_FLUSH_EVERY {
            to.sync_data()?;
            (flushed, flushed_at) = (at, Instant::now());
        }
    }
    to.sync_data()?;
    let write = cpu("self")?.saturating_sub(before);
    std::fs::remove_file(target)?;
    Ok(Disk { read, write })
}
