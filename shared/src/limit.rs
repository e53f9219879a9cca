//! Every bound of the system as a named constant, with its unit and its reason.

use std::time::Duration;

/// Smallest chunk of a file set except the last one, in bytes (DESIGN section 3).
pub const CHUNK_LEN_MIN: u32 = 16 * 1024;
/// Largest chunk, in bytes. A chunk is passed on whole, so it bounds the delay of one hop.
pub const CHUNK_LEN_MAX: u32 = 256 * 1024;
/// Largest chunk of a live object, in bytes: it is cut when so much has been written, or earlier.
pub const LIVE_CHUNK_LEN_MAX: u32 = 64 * 1024;
/// Content bytes after which the end of a live log is cut anew, into chunks of up to
/// [`CHUNK_LEN_MAX`]: 256 entries of a page.
pub const RECUT_BYTES: u64 = 64 * 1024 * 1024;
/// Pages after which the end of a live log is cut anew: under three minutes of chunks of 20 ms.
pub const RECUT_PAGES: u32 = 8_192;
/// Sync points that a page that cuts anew names: the newest ones.
pub const RECUT_SYNCS: usize = 16;
/// Chunks that a file set is aimed to be cut into: the size of a have-map of 8 KiB.
pub const CHUNKS_AIMED: u64 = 65_536;

/// Largest manifest page with its signature, in bytes.
pub const PAGE_LEN_MAX: usize = 64 * 1024;
/// Content bytes after which a page is cut, so that a page can be signed and passed on soon.
pub const PAGE_CONTENT_AIM: u64 = 2 * 1024 * 1024;
/// Encoded bytes after which a page is cut: room for one more entry with the longest name.
pub const PAGE_LEN_AIM: usize = 48 * 1024;
/// Entries of one page. The smallest entry takes two bytes, so the length alone allows more.
pub const PAGE_ENTRIES_MAX: usize = 16 * 1024;
/// Pages of one job: as many as chunks, since a live stream has a page for each.
pub const PAGES_MAX: u32 = 1 << 27;
/// Chunks of one job: a have-map of 16 MiB; a month of a live stream that is cut every 20 ms.
pub const CHUNKS_MAX: u64 = 1 << 27;
/// Objects of one job (DESIGN section 5).
pub const OBJECTS_MAX: u32 = 10_000_000;
/// Objects of one job that are open at a time; each costs a table entry at every node.
pub const OBJECTS_OPEN_MAX: usize = 4_096;
/// Slices of one chunk: 256 KiB of files of 16 bytes.
pub const SLICES_MAX: usize = 16 * 1024;

/// Longest component of an object's name, in bytes: the limit of common file systems.
pub const COMPONENT_LEN_MAX: usize = 255;
/// Longest name of an object, in bytes: `PATH_MAX`.
pub const OBJECT_NAME_LEN_MAX: usize = 4_096;

/// Largest job object with its signature, in bytes.
pub const JOB_OBJECT_LEN_MAX: usize = 4 * 1024;
/// Names of a server list (DESIGN section 5).
pub const SERVERS_MAX: usize = 10_000;
/// Open jobs of a base (DESIGN section 5).
pub const JOBS_OPEN_MAX: usize = 1_000;
/// Closed jobs that a base remembers in memory; older ones stay in the ledger.
pub const JOBS_CLOSED_MAX: usize = 10_000;
/// Stripes of a job.
pub const STRIPES_MAX: u8 = 16;
/// `--to` options of one job.
pub const SELECTORS_MAX: usize = 1_024;
/// Longest label key or value, in bytes.
pub const LABEL_LEN_MAX: usize = 64;
/// Longest reason or refusal that is passed on, in bytes.
pub const REASON_LEN_MAX: usize = 512;

/// Largest control datagram, in bytes: fits the smallest QUIC path (1,162 bytes) with room.
pub const DATAGRAM_LEN_MAX: usize = 1_000;
/// Largest frame of a control stream, in bytes.
pub const FRAME_LEN_MAX: usize = 64 * 1024;
/// Largest frame that answers a request with a list, in bytes.
pub const LIST_FRAME_LEN_MAX: usize = 8 * 1024 * 1024;
/// Acknowledgements in one frame.
pub const ACKS_MAX: usize = 32;
/// Runs of held chunks that a `Want` names; what lies between further runs is sent again.
pub const WANT_RUNS_MAX: usize = 1_024;
/// Chunks that a receiver leaves out at one source because another one sends them: 16 GiB of the
/// longest.
pub const SKIP_CHUNKS_MAX: u64 = 65_536;
/// Upstream names in a report.
pub const UPSTREAMS_MAX: usize = 16;
/// Sources in a report of which it says how much they bring: the ones that bring most. A job view
/// of all [`SERVERS_MAX`] nodes fits [`LIST_FRAME_LEN_MAX`] with names of usual length.
pub const FLOWS_MAX: usize = 8;
/// Sources of which a job remembers how much they brought: about 500 bytes each.
pub const INFLOWS_MAX: usize = 256;
/// Pages that may be on their way to a receiver beyond what its credit for chunks calls for.
pub const PAGES_AHEAD: u32 = 16;
/// Other nodes of a job that a node is told of.
pub const VIEW_MAX: usize = 16;
/// Other nodes that a node is connected to, for all its jobs.
pub const NEIGHBOURS_MAX: usize = 64;
/// A host and a port, in bytes.
pub const ADDRESS_LEN_MAX: usize = 300;

/// States that one peer's outbox holds: one per kind and open job.
pub const OUTBOX_SLOTS_MAX: usize = 4 * JOBS_OPEN_MAX;
/// States that one peer's inbox remembers.
pub const INBOX_SLOTS_MAX: usize = 4 * JOBS_OPEN_MAX;

/// Connections that a process keeps (DESIGN section 6: 64 for a node; a base has all nodes).
pub const BASE_PEERS_MAX: usize = 10_000 + 1_000;

/// A node is `silent` when nothing was heard of it for so long.
pub const SILENT_AFTER: Duration = Duration::from_secs(3);
/// A node is `down`, its jobs `unreachable`, when nothing was heard of it for so long.
pub const DOWN_AFTER: Duration = Duration::from_secs(8);
/// How often each side says that it is there.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A job closes at most so long after its deadline.
pub const CLOSING_MAX: Duration = Duration::from_secs(30);
/// How long the nodes that are behind have to answer the query at the deadline.
pub const QUERY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a node that offers the base what the base has lost may bring nothing of it.
pub const GIVE_BACK_PATIENCE: Duration = Duration::from_secs(30);
