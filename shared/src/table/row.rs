//! What of the job table is kept across starts: rows, and the transitions that change them.
//!
//! Every transition replaces a whole part of a row, so that one applied twice is as if applied
//! once. Progress is never among them: nodes tell it anew.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{JobId, Name};
use crate::job::{Dimensions, ServerList, SignedJob};
use crate::seal::Hash;
use crate::view::JobState;
use crate::wire::message::Source;

/// What is fixed when a job is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The job.
    pub id: JobId,
    /// The client that owns it.
    pub client: Name,
    /// The client's idempotency key.
    pub key: [u8; 16],
    /// Its name, made up by the base if the client gave none.
    pub name: Name,
    /// What was asked for.
    pub dimensions: Dimensions,
    /// What the nodes obey.
    pub object: SignedJob,
    /// The nodes that it must reach.
    pub servers: Arc<ServerList>,
    /// When it was created, in milliseconds since the Unix epoch; for display.
    pub created_ms: u64,
    /// When it was created, in microseconds of base time.
    pub created_us: u64,
}

/// Where a job stands, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its state.
    pub state: JobState,
    /// Why it is partial, failed or cancelled.
    pub reason: Option<String>,
    /// Content bytes, once known.
    pub size: Option<u64>,
    /// Its digest, once known.
    pub digest: Option<Hash>,
    /// Content bytes durable at the base when it closed; 0 while it is open.
    pub bytes: u64,
    /// Whether the quorum is reached.
    pub quorum: bool,
    /// When the publisher ended it, in microseconds of base time.
    pub ended_us: Option<u64>,
    /// When it closed, in microseconds of base time.
    pub closed_us: Option<u64>,
    /// When it closed, in milliseconds since the Unix epoch; for display.
    pub closed_ms: Option<u64>,
    /// Whether the base's copy of the content is gone.
    pub content_dropped: bool,
    /// Whether it was removed; what is left is a tombstone.
    pub removed: bool,
}

impl Status {
    /// The status of a job that has just been created.
    pub const fn new(size: Option<u64>) -> Self {
        Self {
            state: JobState::Receiving,
            reason: None,
            size,
            digest: None,
            bytes: 0,
            quorum: false,
            ended_us: None,
            closed_us: None,
            closed_ms: None,
            content_dropped: false,
            removed: false,
        }
    }

    /// Whether nodes shall drop what they have of the job.
    pub const fn is_dropping(&self) -> bool {
        self.removed || matches!(self.state, JobState::Failed | JobState::Cancelled)
    }
}

/// What of a node's line is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing final.
    Open,
    /// It has everything.
    Complete,
    /// An earlier completion was revoked.
    Lost,
    /// It refused, or cannot store.
    Failed,
}

/// A node's line of a job, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its verdict.
    pub verdict: Verdict,
    /// Content bytes verified and durable there when this was written.
    pub bytes: u64,
    /// The incarnation that reported it.
    pub incarnation: u64,
    /// When it completed, in milliseconds since the Unix epoch; for display.
    pub completed_ms: Option<u64>,
    /// Why it failed, is lost or was missing.
    pub reason: Option<String>,
    /// Who fed it last.
    pub upstreams: Vec<Source>,
    /// Whether it has confirmed that it dropped the job.
    pub dropped: bool,
}

/// A job as the ledger gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What was fixed at creation.
    pub head: Head,
    /// Where it stands.
    pub status: Status,
    /// The lines of nodes of which something is kept.
    pub nodes: Vec<(Name, NodeRecord)>,
}

/// A change to what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// A job was created.
    Created(Box<Head>, Box<Status>),
    /// A job's status is now this.
    Status(JobId, Box<Status>),
    /// A node's line of a job is now this.
    Node(JobId, Name, Box<NodeRecord>),
    /// A removed job is dropped everywhere: nothing of it need be kept.
    Forgotten(JobId),
    /// Base time, in microseconds.
    Clock(u64),
}

/// What a start begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Jobs, in any order.
    pub rows: Vec<Row>,
    /// Jobs that stay in the ledger only, and whether nodes shall drop them.
    pub archived: Vec<(JobId, bool)>,
    /// Base time, in microseconds.
    pub clock_us: u64,
    /// Whether jobs may be missing because the ledger was damaged. Then a job that a node
    /// knows and the table does not is left alone: it may be one of those.
    pub lossy: bool,
}
