//! What goes into the job table and what comes out.

use std::sync::Arc;

use crate::id::{JobId, Name};
use crate::job::{Dimensions, ServerList, SignedJob};
use crate::limit;
use crate::seal::Hash;
use crate::view::{EventBody, JobState};
use crate::wire::message::{Assign, Report};
use crate::wire::request::JobRef;

use super::row::Transition;

/// A job to be created: minted, named and signed by the caller.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// A fresh id.
    pub id: JobId,
    /// The client that owns it.
    pub client: Name,
    /// The client's idempotency key.
    pub key: [u8; 16],
    /// Its name, as in the object.
    pub name: Name,
    /// What was asked for.
    pub dimensions: Dimensions,
    /// The signed object.
    pub object: SignedJob,
    /// The nodes that it must reach; at least one.
    pub servers: Arc<ServerList>,
}

/// The outcome of a creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// The job.
    pub id: JobId,
    /// Whether it is new; otherwise the client had created it under this key before.
    pub fresh: bool,
}

/// Why the table does not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The name belongs to another open job.
    #[error("the job name {name} is taken by an open job{}; choose another --name", whose(.own))]
    NameTaken {
        /// The name.
        name: Name,
        /// The job, if it is the asker's own: nobody learns of others' jobs.
        own: Option<JobId>,
    },
    /// The job that is to be gone on with was begun with another option.
    #[error(
        "job {name} ({id}) is open and was begun with another {option}; to go on with it, \
        push with the options that it was begun with; for another job, choose another --name"
    )]
    Begun {
        /// Its name.
        name: Name,
        /// The job.
        id: JobId,
        /// The first option that differs.
        option: &'static str,
    },
    /// No node to reach.
    #[error("the job has no node to reach; see `distributary nodes`")]
    NoServers,
    /// More nodes than a server list may have.
    #[error("{0} nodes are selected, a job may have {max}", max = limit::SERVERS_MAX)]
    TooManyServers(usize),
    /// The base has all the open jobs that it can account for.
    #[error("the base has {max} open jobs, which is its limit; try again when one has closed",
        max = limit::JOBS_OPEN_MAX)]
    TooManyJobs,
    /// Open jobs times their nodes are more than the base can account for.
    #[error("the base accounts for {max} nodes of open jobs, which is its limit; try again \
        when one has closed", max = super::LINES_OPEN_MAX)]
    TooManyLines,
    /// No such job, or none that the asker may know of.
    #[error("unknown job {0}; see `distributary job ls`")]
    UnknownJob(JobRef),
    /// It is closed, so that it cannot be cancelled or fail any more.
    #[error("job {job} is closed as {}; `distributary job rm` removes it", .state.as_str())]
    Closed {
        /// The job.
        job: JobId,
        /// How it closed.
        state: JobState,
    },
}

fn whose(own: &Option<JobId>) -> String {
    own.map_or_else(String::new, |id| format!(" of yours, {id}"))
}

/// What the table is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A node is connected and was given an incarnation.
    NodeUp {
        /// The node.
        node: Name,
        /// Its incarnation.
        incarnation: u64,
        /// Whether its store is another one than before.
        new_store: bool,
    },
    /// Nothing was heard of a node for [`limit::SILENT_AFTER`]. Changes nothing about jobs.
    NodeSilent {
        /// The node.
        node: Name,
    },
    /// Nothing was heard of a node for [`limit::DOWN_AFTER`], or its connection is closed.
    NodeDown {
        /// The node.
        node: Name,
    },
    /// An operator forgot a node: nobody waits for it to drop anything.
    NodeForgotten {
        /// The node.
        node: Name,
    },
    /// A node named a job that it has something of, on connecting.
    Known {
        /// The node.
        node: Name,
        /// The job.
        job: JobId,
    },
    /// A node reported.
    Report {
        /// The node.
        node: Name,
        /// Its incarnation.
        incarnation: u64,
        /// The job.
        job: JobId,
        /// Its word.
        report: Report,
    },
    /// A node answered a query. It may be older than its last report.
    Answer {
        /// The node.
        node: Name,
        /// Its incarnation.
        incarnation: u64,
        /// The job.
        job: JobId,
        /// Its word, if it knows the job.
        report: Option<Report>,
    },
    /// So much of a job is durable at the base.
    Content {
        /// The job.
        job: JobId,
        /// Content bytes.
        bytes: u64,
        /// Size and digest, when the end is durable too.
        end: Option<(u64, Hash)>,
    },
    /// The base's copy of a job's content is gone.
    ContentDropped {
        /// The job.
        job: JobId,
    },
    /// The publisher of a job is there. A new job, and every job after a start of the base,
    /// counts as without one until this.
    PublisherBack {
        /// The job.
        job: JobId,
    },
    /// The publisher of a job is gone.
    PublisherGone {
        /// The job.
        job: JobId,
    },
    /// Nothing happened but time; due at [`super::JobTable::next_wake`].
    Tick,
}

/// What the table wants done. In order; all else waits until what stands before it to
/// [`Effect::Persist`] is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable.
    Persist(Transition),
    /// Tell a node what to do about a job. It replaces what it was told before.
    Assign {
        /// The node, connected or not; one that is not will be told when it is.
        node: Name,
        /// The job.
        job: JobId,
        /// The order.
        order: Assign,
    },
    /// Ask a node for its report.
    Query {
        /// The node.
        node: Name,
        /// The job.
        job: JobId,
    },
    /// Tell those who watch.
    Event {
        /// The job.
        job: JobId,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
        /// What happened.
        body: EventBody,
    },
    /// Drop the base's copy of the content, then say [`Input::ContentDropped`]. Repeated after
    /// a start until said.
    DropContent {
        /// The job.
        job: JobId,
    },
    /// Nothing is left of a removed job.
    Forgotten {
        /// The job.
        job: JobId,
    },
}
