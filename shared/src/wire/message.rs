//! Messages between peers: states, acknowledgements, greetings.
//!
//! A state is the newest word of its sender about one job: it replaces the one before it
//! under the same key. Frame types and enum variants are only ever appended.

use serde::{Deserialize, Serialize};

use crate::id::{JobId, Name};
use crate::job::SignedJob;
use crate::limit;
use crate::seal::Hash;
use crate::stripe_set::StripeSet;

use super::codec::{self, DecodeError};

/// The type byte of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrameType {
    /// [`Hello`], the first frame of a node's control stream.
    Hello = 1,
    /// [`Welcome`], the base's answer.
    Welcome = 2,
    /// [`Beat`].
    Beat = 3,
    /// [`Acks`].
    Acks = 4,
    /// [`Reconcile`], once after each side's greeting.
    Reconcile = 5,
    /// The sender has nothing more to say; an empty body.
    Goodbye = 6,
    /// The answer to [`FrameType::Goodbye`], after which the connection may be closed.
    GoodbyeAck = 7,
    /// [`Query`].
    Query = 8,
    /// [`Answer`].
    Answer = 9,
    /// An [`Envelope`] with an [`Assign`].
    Assign = 16,
    /// An [`Envelope`] with an [`Offer`].
    Offer = 17,
    /// An [`Envelope`] with a [`Want`].
    Want = 18,
    /// An [`Envelope`] with a [`Report`].
    Report = 19,
    /// An [`Envelope`] with a [`View`].
    View = 20,
    /// A [`super::request::Request`], the first frame of a request's stream.
    Request = 32,
    /// A [`super::request::Reply`].
    Reply = 33,
}

impl FrameType {
    /// Every type, for tables and tests.
    pub const ALL: [Self; 16] = [
        Self::Hello,
        Self::Welcome,
        Self::Beat,
        Self::Acks,
        Self::Reconcile,
        Self::Goodbye,
        Self::GoodbyeAck,
        Self::Query,
        Self::Answer,
        Self::Assign,
        Self::Offer,
        Self::Want,
        Self::Report,
        Self::View,
        Self::Request,
        Self::Reply,
    ];

    /// The type of a frame, if this version knows it.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The kind of state that frames of this type carry.
    pub const fn state(self) -> Option<StateKind> {
        match self {
            Self::Assign => Some(StateKind::Assign),
            Self::Offer => Some(StateKind::Offer),
            Self::Want => Some(StateKind::Want),
            Self::Report => Some(StateKind::Report),
            Self::View => Some(StateKind::View),
            Self::Hello
            | Self::Welcome
            | Self::Beat
            | Self::Acks
            | Self::Reconcile
            | Self::Goodbye
            | Self::GoodbyeAck
            | Self::Query
            | Self::Answer
            | Self::Request
            | Self::Reply => None,
        }
    }
}

/// The kinds of state: with the job, the key under which the newest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StateKind {
    /// Base to node: what the node shall do about a job.
    Assign,
    /// Source to receiver: what the source has of a job.
    Offer,
    /// Receiver to source: what the receiver wants of a job.
    Want,
    /// Node to base: how far the node is with a job.
    Report,
    /// Base to node: who else has the job.
    View,
}

impl StateKind {
    /// The frame type that carries this kind.
    pub const fn frame_type(self) -> FrameType {
        match self {
            Self::Assign => FrameType::Assign,
            Self::Offer => FrameType::Offer,
            Self::Want => FrameType::Want,
            Self::Report => FrameType::Report,
            Self::View => FrameType::View,
        }
    }
}

/// Where a state stands among those of its key: the higher one is newer.
///
/// `term` is the base's epoch in what the base says, the incarnation in what a node says, and
/// 0 for a client, whose states live as long as its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Epoch or incarnation of the sender.
    pub term: u64,
    /// Counts the sender's states within the term.
    pub revision: u64,
}

/// A state on its way: the key, the stamp, the encoded body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The job.
    pub job: JobId,
    /// How new it is.
    pub stamp: Stamp,
    /// The encoded [`Assign`], [`Offer`], [`Want`], [`Report`] or [`View`].
    pub body: Vec<u8>,
}

/// One acknowledgement: the application has taken up the state with this stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The kind of state.
    pub kind: StateKind,
    /// The job.
    pub job: JobId,
    /// The newest stamp that was taken up.
    pub stamp: Stamp,
}

/// Acknowledgements, at most [`limit::ACKS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acks(pub Vec<Ack>);

/// A node's first word on a connection to the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's build, for logs.
    pub version: String,
    /// A random number that the node's store was given when it was made.
    pub store: [u8; 16],
    /// Counts the starts of the node on this store, durably.
    pub boot: u64,
    /// The incarnation that the base assigned to this store and boot before; 0 if none.
    pub incarnation: u64,
    /// Where other nodes may reach this one, if told.
    pub advertise: Option<String>,
}

/// The base's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The base's build, for logs.
    pub version: String,
    /// Counts the starts of the base, durably.
    pub epoch: u64,
    /// The incarnation under which the node reports from now on.
    pub incarnation: u64,
}

/// The jobs that the sender knows beyond those whose states it sends right behind this.
///
/// A node names every job it has anything of; the base assigns each of those anew, so that
/// what one side has forgotten or missed is put right by every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconcile {
    /// The jobs, at most [`limit::JOBS_OPEN_MAX`] a frame; several frames add up.
    pub jobs: Vec<JobId>,
    /// Whether more such frames follow.
    pub more: bool,
}

/// The sender is there. Not acknowledged; the newest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Counts the beats of this connection.
    pub number: u64,
    /// Bytes free where the sender stores content.
    pub disk_free: u64,
    /// Bits per second that the sender's uplink carries; 0 if unknown.
    pub uplink_bps: u64,
}

/// Asks a node that is behind for its report, at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The job.
    pub job: JobId,
    /// Told back by the answer.
    pub nonce: u64,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The job.
    pub job: JobId,
    /// The query's nonce.
    pub nonce: u64,
    /// The node's newest report, if it knows the job.
    pub report: Option<Report>,
}

/// What a node shall do about a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Assign {
    /// Receive it and be a source of it.
    Open(Box<SignedJob>),
    /// The base has closed it; what is complete is kept, what is not may still be finished.
    Closed(Box<SignedJob>),
    /// It was cancelled, failed or removed, or was never meant for this node: drop it.
    Drop,
}

/// What a source has of a job, and what of it the receiver may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Pages it can send, counted from the first without a gap.
    pub pages: u32,
    /// Chunks it holds, counted from the first without a gap.
    pub head: u64,
    /// Bits per second of uplink that it can spare; 0 if unknown.
    pub spare_bps: u64,
    /// The stripes that the receiver may subscribe to.
    pub open: StripeSet,
    /// Per stripe the number below which the source, and whoever feeds it, has every chunk.
    /// Without numbers it is the root of the job, which waits for no other receiver.
    pub ahead: Vec<u64>,
}

impl Offer {
    /// The offer of the job's root, open to the receiver in all stripes.
    pub const fn of_root(pages: u32, head: u64) -> Self {
        Self { pages, head, spare_bps: 0, open: StripeSet::ALL, ahead: Vec::new() }
    }

    /// Below which number the source has every chunk of a stripe, as far as it says.
    pub fn ahead_in(&self, stripe: u64) -> u64 {
        let ahead = usize::try_from(stripe).ok().and_then(|stripe| self.ahead.get(stripe));
        ahead.copied().unwrap_or(if self.is_root() { limit::CHUNKS_MAX } else { 0 })
    }

    /// Whether the source waits for no other receiver.
    pub const fn is_root(&self) -> bool {
        self.ahead.is_empty()
    }
}

/// Who else has a job, for one of its nodes: whom it may be fed by, and whom it feeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Bits per second at which the job can reach all its nodes; 0 if unknown.
    pub target_bps: u64,
    /// Some of the other nodes, at most [`limit::VIEW_MAX`].
    pub peers: Vec<Neighbour>,
}

/// A node as others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its name, which its certificate has to show.
    pub name: Name,
    /// Host and port.
    pub address: String,
}

/// What a receiver wants of one stripe: chunks from `from` up to, not including, `credit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeWant {
    /// The stripe.
    pub stripe: u8,
    /// The first chunk that is missing.
    pub from: u64,
    /// The source may send chunks below this one and no others. If it is not above `from`, the
    /// receiver asks for the stripe, which is not open to it.
    pub credit: u64,
    /// Chunks from the first number up to, not including, the second that another source sends:
    /// they are left out as long as this says so, at most [`limit::SKIP_CHUNKS_MAX`].
    pub skip: Option<(u64, u64)>,
    /// Bits per second of it that come from another source, which is too slow, roughly; 0 if there
    /// is no other.
    pub comes_bps: u64,
}

impl StripeWant {
    /// All chunks from `from` up to, not including, `credit`.
    pub const fn new(stripe: u8, from: u64, credit: u64) -> Self {
        Self { stripe, from, credit, skip: None, comes_bps: 0 }
    }

    /// Whether `chunk` is left out.
    pub fn skips(&self, chunk: u64) -> bool {
        self.skip.is_some_and(|(first, end)| (first..end).contains(&chunk))
    }

    /// Whether this asks for a stripe instead of subscribing to it.
    pub const fn is_ask(&self) -> bool {
        self.credit <= self.from
    }
}

/// What a receiver wants of a job. Without stripes the source shall stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Want {
    /// Pages that the receiver has, counted from the first without a gap.
    pub pages: u32,
    /// The source shall send pages: those below this number, and those that describe chunks for
    /// which it has credit. 0: it shall send none, since another source does.
    pub pages_to: u32,
    /// Chunks that are durable at the receiver, counted from the first without a gap.
    pub durable: u64,
    /// Whether the receiver has everything, durable and in place.
    pub complete: bool,
    /// The stripes that it wants from this source.
    pub stripes: Vec<StripeWant>,
    /// Runs `(first, len)` of chunks above that the receiver has already, ascending.
    pub held: Vec<(u64, u64)>,
}

/// How far a node is with a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Where it stands.
    pub phase: Phase,
    /// Content bytes that are verified and durable.
    pub bytes: u64,
    /// Bits per second over the last five seconds.
    pub rate_bps: u64,
    /// Who feeds it now.
    pub upstreams: Vec<Source>,
    /// Who brings how much: those that bring most first, at most [`limit::FLOWS_MAX`].
    pub flows: Vec<Flow>,
}

impl Report {
    /// The report of a node that has nothing of a job.
    pub const fn of_nothing(phase: Phase) -> Self {
        Self { phase, bytes: 0, rate_bps: 0, upstreams: Vec::new(), flows: Vec::new() }
    }
}

/// Where a node stands with a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted; not complete.
    Receiving,
    /// Every chunk from start to end is verified, durable and in place.
    Complete,
    /// It cannot go on; the reason is for people.
    Failed(String),
    /// The order to drop it has been carried out.
    Dropped,
    /// Accepted; what arrives cannot be stored now, which is tried again; the reason is for
    /// people.
    Stalled(String),
}

/// A source as reports name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// The base.
    Base,
    /// A node.
    Node(Name),
}

/// What a source brings of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The source.
    pub source: Source,
    /// Content bytes that it has brought since the node has started.
    pub bytes: u64,
    /// Bits per second over the last five seconds.
    pub rate_bps: u64,
}

/// A message whose content can be checked beyond its form.
pub trait Checked: Serialize + serde::de::DeserializeOwned {
    /// Largest encoded form, in bytes.
    const LEN_MAX: usize;

    /// Checks counts and ranges.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] says what is out of range.
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// Decodes and checks a message.
///
/// # Errors
/// [`DecodeError`] if it is too long, malformed, not used up or out of range.
pub fn decode<T: Checked>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > T::LEN_MAX {
        return Err(DecodeError::TooLong { len: bytes.len(), limit: T::LEN_MAX });
    }
    // In memory, elements take up to 16 times their bytes; see `codec::decode`. What the
    // codec may allocate follows the length of the message in three steps.
    let value: T = if bytes.len() <= 4_096 {
        codec::decode::<_, { 16 * 4_096 }>(bytes)?
    } else if bytes.len() <= limit::FRAME_LEN_MAX {
        codec::decode::<_, { 16 * limit::FRAME_LEN_MAX }>(bytes)?
    } else {
        codec::decode::<_, { 16 * limit::LIST_FRAME_LEN_MAX }>(bytes)?
    };
    value.check()?;
    Ok(value)
}

fn count(what: &str, len: usize, limit: usize) -> Result<(), DecodeError> {
    if len > limit {
        return Err(DecodeError::Invalid(format!("{len} {what}, allowed are {limit}")));
    }
    Ok(())
}

macro_rules! plain {
    ($($name:ty: $max:expr),* $(,)?) => {
        $(impl Checked for $name { const LEN_MAX: usize = $max; })*
    };
}

plain! {
    Envelope: limit::FRAME_LEN_MAX,
    Welcome: 256,
    Beat: 32,
    Query: 64,
    Hash: 32,
}

impl Checked for View {
    const LEN_MAX: usize = 16 * 1_024;
    fn check(&self) -> Result<(), DecodeError> {
        count("neighbours", self.peers.len(), limit::VIEW_MAX)?;
        self.peers.iter().try_for_each(|peer| {
            count("bytes of address", peer.address.len(), limit::ADDRESS_LEN_MAX)
        })
    }
}

impl Checked for Offer {
    const LEN_MAX: usize = 256;
    fn check(&self) -> Result<(), DecodeError> {
        count("stripes", self.ahead.len(), usize::from(limit::STRIPES_MAX))?;
        let ahead = self.ahead.iter().copied().max().unwrap_or(0);
        if ahead > limit::CHUNKS_MAX {
            return Err(DecodeError::Invalid(format!("chunk {ahead} is beyond every job")));
        }
        if self.head > limit::CHUNKS_MAX || self.pages > limit::PAGES_MAX {
            let (head, pages) = (self.head, self.pages);
            let text = format!("{head} chunks and {pages} pages are beyond every job");
            return Err(DecodeError::Invalid(text));
        }
        Ok(())
    }
}

impl Checked for Hello {
    const LEN_MAX: usize = 1_024;
    fn check(&self) -> Result<(), DecodeError> {
        count("bytes of version", self.version.len(), 64)?;
        let advertised = self.advertise.as_ref().map_or(0, String::len);
        count("bytes of address", advertised, limit::ADDRESS_LEN_MAX)
    }
}

impl Checked for Acks {
    const LEN_MAX: usize = limit::DATAGRAM_LEN_MAX * 2;
    fn check(&self) -> Result<(), DecodeError> {
        count("acknowledgements", self.0.len(), limit::ACKS_MAX)
    }
}

impl Checked for Reconcile {
    const LEN_MAX: usize = limit::FRAME_LEN_MAX;
    fn check(&self) -> Result<(), DecodeError> {
        count("jobs", self.jobs.len(), limit::JOBS_OPEN_MAX)
    }
}

impl Checked for Assign {
    const LEN_MAX: usize = limit::JOB_OBJECT_LEN_MAX + 8;
}

impl Checked for Answer {
    const LEN_MAX: usize = 4_096;
    fn check(&self) -> Result<(), DecodeError> {
        self.report.as_ref().map_or(Ok(()), Checked::check)
    }
}

impl Checked for Want {
    const LEN_MAX: usize = limit::FRAME_LEN_MAX - 64;
    fn check(&self) -> Result<(), DecodeError> {
        count("stripes", self.stripes.len(), usize::from(limit::STRIPES_MAX))?;
        count("runs", self.held.len(), limit::WANT_RUNS_MAX)?;
        if self.pages.max(self.pages_to) > limit::PAGES_MAX {
            let pages = self.pages.max(self.pages_to);
            return Err(DecodeError::Invalid(format!("page {pages} is beyond every job")));
        }
        let ascending =
            self.held.is_sorted_by(|(first, len), (next, _)| first.saturating_add(*len) <= *next);
        if !ascending {
            return Err(DecodeError::Invalid("runs of held chunks are not in order".to_owned()));
        }
        if !self.stripes.is_sorted_by(|one, next| one.stripe < next.stripe) {
            return Err(DecodeError::Invalid("stripes are not in order".to_owned()));
        }
        for (first, end) in self.stripes.iter().filter_map(|want| want.skip) {
            let chunks = end.checked_sub(first).unwrap_or(u64::MAX);
            if chunks > limit::SKIP_CHUNKS_MAX {
                let what = format!("{first} to {end} are no chunks that can be left out");
                return Err(DecodeError::Invalid(what));
            }
        }
        let of_stripe = |want: &StripeWant| {
            let end = want.skip.map_or(0, |(_, end)| end);
            [want.from, want.credit, end]
        };
        let numbers = self.stripes.iter().flat_map(of_stripe);
        let ends = self.held.iter().map(|(first, len)| first.saturating_add(*len));
        let largest = numbers.chain(ends).max().unwrap_or(0);
        if largest > limit::CHUNKS_MAX {
            return Err(DecodeError::Invalid(format!("chunk {largest} is beyond every job")));
        }
        Ok(())
    }
}

impl Checked for Report {
    const LEN_MAX: usize = 4_096;
    fn check(&self) -> Result<(), DecodeError> {
        count("upstreams", self.upstreams.len(), limit::UPSTREAMS_MAX)?;
        count("flows", self.flows.len(), limit::FLOWS_MAX)?;
        match &self.phase {
            Phase::Failed(reason) | Phase::Stalled(reason) => {
                count("bytes of reason", reason.len(), limit::REASON_LEN_MAX)
            }
            Phase::Receiving | Phase::Complete | Phase::Dropped => Ok(()),
        }
    }
}
