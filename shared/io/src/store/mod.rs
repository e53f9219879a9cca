//! The disk: a job's log of chunks, its pages, and the files that become of them.
//!
//! A [`StoreRoot`] is a role's folder `DATA/jobs`; each job has a folder of its own there:
//!
//! * `job`: the signed job object;
//! * `pages.log`: the manifest's pages, append only, each record with a checksum;
//! * `have.log`: which chunks are durable, append only, written after they are;
//! * [`Layout::Spool`]: `content`, every chunk at its place in the log;
//! * [`Layout::Files`]: `parts/<object number>` while an object is incomplete, and
//!   `files/<object name>` once it is whole, verified and durable; a live object from its first
//!   byte on, as far as it is verified without a gap. Nothing else is in `files`.
//!
//! Chunks and pages are written as they come; a [`Flusher`] makes all jobs' news durable
//! together: data and pages first, then the journal of what is held, then the report, then
//! the final names. A process or a machine may stop between any two of these steps:
//! [`StoreRoot::recover`] takes up what the journal vouches for, and nothing else.

use std::time::Duration;

mod audit;
mod compact;
mod error;
mod flush;
mod flusher;
mod folder;
mod index;
mod job_store;
mod live;
mod lru;
mod name_index;
mod object;
mod place;
mod record;
mod recover;
#[cfg(test)]
pub(crate) mod room;
mod root;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use flush::{Flushed, flush_group};
pub use flusher::{Flusher, FlusherPanicked};
pub use index::PageView;
pub use job_store::JobStore;
pub use object::{ObjectFile, ObjectView, Standing};
pub use recover::{Recovered, Recovery, Refused};
pub use root::{Layout, StoreRoot};

/// Files that all jobs of a process keep open at a time, beside four for each job.
pub const HANDLES_MAX: usize = 64;
/// Decoded pages that all jobs of a process keep at a time: at most about 240 KiB each.
pub const PAGES_CACHED_MAX: usize = 128;
/// Names that are looked up without reading pages, of one job: about 12 bytes each. Those beyond
/// are found by reading the pages that have them.
pub const NAMES_INDEXED_MAX: usize = 1 << 20;
/// Jobs of a process whose names are indexed at a time: those that were asked for last.
pub const NAME_INDEXES_MAX: usize = 4;
/// Flushes of one group that are made one by one; if there are more, one `syncfs` flushes all of
/// the file system. On ext4 over a virtual disk both took 0.3 to 0.7 ms for two files, and
/// `syncfs` won from four files on (8 files: 20 ms against 0.8 ms); one by one is kept for few,
/// since it does not wait for what other processes have written.
pub const SYNC_EACH_MAX: usize = 4;
/// Bytes that wait for a flush at most before one is made at once.
pub const FLUSH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Pause between the flushes of a base.
pub const BASE_FLUSH_EVERY: Duration = Duration::from_millis(20);
/// Pause between the flushes of a node.
pub const NODE_FLUSH_EVERY: Duration = Duration::from_millis(200);
