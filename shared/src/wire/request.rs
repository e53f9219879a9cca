//! Requests of clients and operators to the base, and what it answers.
//!
//! A request is one bidirectional stream: one `Request` frame, then `Reply` frames until the
//! base finishes the stream. Nodes use the same form to fetch a server list.

use serde::{Deserialize, Serialize};

use crate::id::{JobId, Name};
use crate::job::{Dimensions, ServerList, SignedJob};
use crate::label;
use crate::limit;
use crate::seal::Hash;
use crate::view::{Event, JobView, NodeInfo};

use super::codec::DecodeError;
use super::message::Checked;

/// How a request names a job: by id or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobRef {
    /// By id.
    Id(JobId),
    /// By name: the open job of that name, or else the newest closed one.
    Name(Name),
}

impl std::str::FromStr for JobRef {
    type Err = crate::id::NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(crate::id::JobIdError(_)) => Name::new(text).map(Self::Name),
        }
    }
}

impl std::fmt::Display for JobRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// What a client, an operator or a node asks of the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Make a job. Repeated under the same key by the same client: the same job.
    Create {
        /// Chosen by the client at random, once per job.
        key: [u8; 16],
        /// What is asked for.
        dimensions: Box<Dimensions>,
    },
    /// All jobs that the asker may see.
    Jobs,
    /// One job.
    Job(JobRef),
    /// One job's events until it is closed.
    Watch(JobRef),
    /// Cancel a job.
    Cancel(JobRef),
    /// Remove a job everywhere.
    Remove(JobRef),
    /// The publisher cannot go on: the job has failed.
    Fail {
        /// The job.
        job: JobId,
        /// Why, for people.
        reason: String,
    },
    /// All nodes.
    Nodes,
    /// Forget a node.
    ForgetNode(Name),
    /// Label a node beyond its certificate.
    LabelNode {
        /// The node.
        node: Name,
        /// The labels to set.
        labels: Vec<(String, String)>,
    },
    /// The server list with this hash, of this job.
    Servers {
        /// The job.
        job: JobId,
        /// The hash that its object carries.
        hash: Hash,
    },
    /// Go on with the asker's own open job of this name, whose publisher is gone: its object,
    /// then the pages that the base has of it.
    Resume {
        /// What was asked for when the job was made; the name is given, the size not compared.
        dimensions: Box<Dimensions>,
        /// The first page that is wanted.
        pages: u32,
    },
}

/// What the base answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The job was made, or was there already.
    Created(Box<SignedJob>),
    /// The jobs.
    Jobs(Vec<JobView>),
    /// The job.
    Job(Box<JobView>),
    /// Something happened; the last one is `Closed`.
    Event(Box<Event>),
    /// The nodes.
    Nodes(Vec<NodeInfo>),
    /// It is done.
    Done,
    /// The server list.
    Servers(ServerList),
    /// It cannot or may not be done.
    Refused(Refusal),
    /// The next page of a job, as its record on a job stream: signature and encoded page.
    Page(Vec<u8>),
}

/// A refusal: its kind decides the exit code, its text is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its kind.
    pub kind: RefusalKind,
    /// What is wrong and what to do.
    pub text: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// It cannot be done: an unknown job or node, nothing selected, a taken name (exit 1).
    Cannot,
    /// The asker's role or identity does not allow it, or a quota is used up (exit 5).
    Rights,
    /// There is no open job of that name to go on with (exit 1).
    NotOpen,
}

impl Checked for Request {
    const LEN_MAX: usize = limit::FRAME_LEN_MAX;
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Resume { dimensions, .. } if dimensions.name.is_none() => {
                Err(DecodeError::Invalid("a job without a name to go on with".to_owned()))
            }
            Self::Create { dimensions, .. } | Self::Resume { dimensions, .. } => {
                dimensions.check().map_err(DecodeError::Invalid)
            }
            Self::Fail { reason, .. } if reason.len() > limit::REASON_LEN_MAX => {
                let len = reason.len();
                Err(DecodeError::TooLong { len, limit: limit::REASON_LEN_MAX })
            }
            Self::LabelNode { labels, .. } if labels.len() > limit::SELECTORS_MAX => {
                Err(DecodeError::Invalid(format!("{} labels at once", labels.len())))
            }
            Self::LabelNode { labels, .. } => labels.iter().try_for_each(|(key, value)| {
                label::check(key, value).map_err(|error| DecodeError::Invalid(error.to_string()))
            }),
            Self::Jobs
            | Self::Job(_)
            | Self::Watch(_)
            | Self::Cancel(_)
            | Self::Remove(_)
            | Self::Fail { .. }
            | Self::Nodes
            | Self::ForgetNode(_)
            | Self::Servers { .. } => Ok(()),
        }
    }
}

impl Checked for Reply {
    const LEN_MAX: usize = limit::LIST_FRAME_LEN_MAX;
}
