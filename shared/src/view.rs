//! What people and scripts see of jobs and nodes: the JSON of the contract, field by field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version that every JSON object carries as `v`.
pub const VERSION: u32 = 1;

/// A job, as `job show --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// [`VERSION`].
    pub v: u32,
    /// The job's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `files` or `live`.
    pub kind: KindView,
    /// Where it stands.
    pub state: JobState,
    /// Why it failed, was cancelled or is partial; while it is open, what the base waits for.
    pub reason: Option<String>,
    /// Content bytes, once known.
    pub size: Option<u64>,
    /// Content bytes that are durable at the base.
    pub bytes: u64,
    /// BLAKE3 of the one object, or of the sorted `b3sum` lines of all; once known.
    pub digest: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC; for display, since deadlines count on monotonic clocks.
    pub deadline: Option<String>,
    /// RFC 3339, UTC.
    pub closed_at: Option<String>,
    /// Its nodes, by name.
    pub nodes: Vec<JobNodeView>,
}

/// The kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KindView {
    /// A file set.
    Files,
    /// A live stream.
    Live,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// The publisher is still sending.
    Receiving,
    /// The base has everything; nodes are not done.
    Distributing,
    /// Closed: the quorum has it.
    Complete,
    /// Closed: the quorum was not reached by the deadline.
    Partial,
    /// It cannot be completed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl JobState {
    /// Every state, for metrics and tests.
    pub const ALL: [Self; 6] = [
        Self::Receiving,
        Self::Distributing,
        Self::Complete,
        Self::Partial,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether the job is closed: its state will not change any more.
    pub const fn is_closed(self) -> bool {
        match self {
            Self::Receiving | Self::Distributing => false,
            Self::Complete | Self::Partial | Self::Failed | Self::Cancelled => true,
        }
    }

    /// The state as JSON and metrics write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Distributing => "distributing",
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A node of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNodeView {
    /// Its name.
    pub name: String,
    /// Where it stands with the job.
    pub state: NodeJobState,
    /// Content bytes that are verified and durable there.
    pub bytes: u64,
    /// Bits per second over the last five seconds.
    pub rate_bps: u64,
    /// Who feeds it, or fed it last: `base` or names of nodes.
    pub upstreams: Vec<String>,
    /// Who brings how much, those that bring most first; of many the first ones.
    pub sources: Vec<SourceView>,
    /// RFC 3339, UTC.
    pub completed_at: Option<String>,
    /// Why it failed, is lost or unreachable.
    pub reason: Option<String>,
}

/// What a source brings a node of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// `base`, or the name of a node.
    pub name: String,
    /// Content bytes that it has brought since the node has started.
    pub bytes: u64,
    /// Bits per second over the last five seconds.
    pub rate_bps: u64,
}

/// Where a node stands with a job, as the base sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeJobState {
    /// It has not accepted the job, or has no source.
    Waiting,
    /// It is receiving.
    Receiving,
    /// It has everything, verified and durable.
    Complete,
    /// An earlier completion was revoked.
    Lost,
    /// No answer for 8 s; not final.
    Unreachable,
    /// It refused, or cannot store.
    Failed,
}

impl NodeJobState {
    /// The state as JSON writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Receiving => "receiving",
            Self::Complete => "complete",
            Self::Lost => "lost",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }
}

/// A node, as `nodes --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Where it was last heard from; empty if never since the base started.
    pub address: String,
    /// From its certificate and from operators.
    pub labels: BTreeMap<String, String>,
    /// Whether it is there.
    pub state: NodeState,
    /// Its open jobs.
    pub jobs: u32,
    /// Smoothed round-trip time in milliseconds; absent while not connected.
    pub rtt_ms: Option<f64>,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Heard within 3 s.
    Up,
    /// Not heard for 3 s.
    Silent,
    /// Not heard for 8 s, or its connection is closed.
    Down,
    /// Left out because it failed too often.
    Quarantined,
}

/// An event of a job with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The job's id.
    pub job: String,
    /// RFC 3339, UTC.
    pub at: String,
    /// What happened.
    pub body: EventBody,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventBody {
    /// It was made. The first event.
    Created,
    /// How far it is; at least once a second.
    Progress {
        /// Content bytes, once known.
        size: Option<u64>,
        /// Content bytes durable at the base.
        bytes: u64,
        /// The nodes.
        nodes: Vec<NodeProgress>,
    },
    /// A node's state changed.
    Node {
        /// The node.
        node: String,
        /// Its new state.
        state: NodeJobState,
        /// Why.
        reason: Option<String>,
    },
    /// The quorum has it.
    Quorum,
    /// It is closed. The last event.
    Closed(Box<JobView>),
}

/// A node's part of a progress event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProgress {
    /// The node.
    pub name: String,
    /// Where it stands.
    pub state: NodeJobState,
    /// Content bytes verified and durable there.
    pub bytes: u64,
    /// Bits per second over the last five seconds.
    pub rate_bps: u64,
}

/// A wall clock reading in milliseconds since the Unix epoch as RFC 3339 in UTC, such as
/// `2026-01-02T03:04:05.678Z`. Times beyond the year 9999 show as its end.
pub fn rfc3339(unix_ms: u64) -> String {
    let millis = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}

/// A time in seconds since the Unix epoch as HTTP writes it, such as
/// `Fri, 02 Jan 2026 03:04:05 GMT`. Times beyond the years 0 to 9999 show as their ends.
pub fn http_date(unix_s: i64) -> String {
    let ends = (jiff::Timestamp::constant(-62_167_219_200, 0), jiff::Timestamp::MAX);
    let nearest = if unix_s < 0 { ends.0 } else { ends.1 };
    let time = jiff::Timestamp::from_second(unix_s).unwrap_or(nearest).max(ends.0);
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_767_323_045_678), "2026-01-02T03:04:05.678Z");
        assert!(rfc3339(u64::MAX).starts_with("9999-12-"));
    }

    #[test]
    fn times_are_shown_as_http_writes_them() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
        assert!(http_date(i64::MIN).ends_with("Jan 0000 00:00:00 GMT"));
        assert!(http_date(i64::MAX).contains("Dec 9999"));
    }
}
