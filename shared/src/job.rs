//! The job object: what every node obeys, and the dimensions that a client asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ring::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};

use crate::id::{JobId, Name};
use crate::label;
use crate::limit;
use crate::seal::{self, Hash, PublicKey, Purpose, Signature};
use crate::wire::codec::{self, DecodeError};

/// What kind of content a job carries: a policy, never a code path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A file set, visible file by file as they become whole.
    Files,
    /// A live stream, visible from its first byte.
    Live,
}

/// How many nodes must have a job for it to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quorum {
    /// Every node of the server list.
    All,
    /// So many nodes. A job that selects fewer is refused.
    Count(u32),
    /// So many of a hundred, rounded up.
    Percent(u8),
}

impl Quorum {
    /// The number of nodes that this means of `nodes`; at least 1 and at most `nodes`.
    pub fn of(self, nodes: usize) -> usize {
        let wanted = match self {
            Self::All => nodes,
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => nodes.saturating_mul(usize::from(percent)).div_ceil(100),
        };
        wanted.clamp(1, nodes.max(1))
    }
}

impl FromStr for Quorum {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a quorum (all, a number, or a percentage as 80%)");
        match text.strip_suffix('%') {
            _ if text == "all" => Ok(Self::All),
            Some(percent) => match percent.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None => match text.parse() {
                Ok(count) if count > 0 => Ok(Self::Count(count)),
                _ => Err(wrong()),
            },
        }
    }
}

/// One `--to` option: which nodes a job goes to. Several options add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector {
    /// Every node ever admitted and not forgotten.
    All,
    /// Each of these nodes.
    Names(Vec<Name>),
    /// The nodes that carry all of these labels.
    Labels(Vec<(String, String)>),
}

impl FromStr for Selector {
    type Err = String;

    /// Reads `all`, `name,name` or `KEY=VALUE,KEY=VALUE`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let parts: Vec<&str> = text.split(',').collect();
        if parts.iter().all(|part| part.contains('=')) {
            let labels = parts.iter().map(|part| label::parse(part).map_err(|e| e.to_string()));
            return Ok(Self::Labels(labels.collect::<Result<_, _>>()?));
        }
        if parts.iter().any(|part| part.contains('=')) {
            return Err(format!("{text:?} mixes names and labels; use one --to for each"));
        }
        let names = parts.iter().map(|part| Name::new(*part).map_err(|error| error.to_string()));
        Ok(Self::Names(names.collect::<Result<_, _>>()?))
    }
}

impl Selector {
    /// Names and labels in it.
    const fn parts(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Names(names) => names.len(),
            Self::Labels(labels) => labels.len(),
        }
    }

    /// The nodes of `known` (name to labels) that this selects.
    ///
    /// # Errors
    /// The first name that is unknown.
    pub fn select(
        &self,
        known: &BTreeMap<Name, BTreeMap<String, String>>,
    ) -> Result<Vec<Name>, Name> {
        match self {
            Self::All => Ok(known.keys().cloned().collect()),
            Self::Names(names) => match names.iter().find(|name| !known.contains_key(*name)) {
                Some(unknown) => Err(unknown.clone()),
                None => Ok(names.clone()),
            },
            Self::Labels(wanted) => {
                let has_all = |labels: &BTreeMap<String, String>| {
                    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
                };
                let nodes = known.iter().filter(|(_, labels)| has_all(labels));
                Ok(nodes.map(|(name, _)| name.clone()).collect())
            }
        }
    }
}

/// How long nodes keep a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Until it is removed.
    Forever,
    /// So many seconds after it closed.
    Seconds(u64),
}

/// What a client asks for when it creates a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimensions {
    /// File set or live stream.
    pub kind: Kind,
    /// The job's name; the base makes one up if absent.
    pub name: Option<Name>,
    /// Which nodes; never empty.
    pub to: Vec<Selector>,
    /// Content bytes, if known beforehand.
    pub size: Option<u64>,
    /// Seconds from creation (from the publisher's end for live jobs) to the deadline.
    pub deadline_s: Option<u64>,
    /// How many nodes must have it.
    pub quorum: Quorum,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// Bits per second that the job may use on each uplink.
    pub rate_bps: Option<u64>,
    /// How long nodes keep it.
    pub keep: Keep,
    /// Seconds for which the publisher may be gone before the job fails.
    pub grace_s: u64,
}

impl Default for Dimensions {
    /// Files to all nodes, all of which must get them, kept until they are removed; the base
    /// chooses name and deadline. A publisher may be gone for five minutes.
    fn default() -> Self {
        Self {
            kind: Kind::Files,
            name: None,
            to: vec![Selector::All],
            size: None,
            deadline_s: None,
            quorum: Quorum::All,
            priority: 5,
            rate_bps: None,
            keep: Keep::Forever,
            grace_s: 300,
        }
    }
}

impl Dimensions {
    /// Checks ranges and counts, as the base does for what a client sends.
    ///
    /// # Errors
    /// A text that names what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.to.is_empty() || self.to.len() > limit::SELECTORS_MAX {
            return Err(format!("a job needs 1 to {} selectors", limit::SELECTORS_MAX));
        }
        let parts: usize = self.to.iter().map(Selector::parts).sum();
        if parts > limit::SERVERS_MAX {
            return Err(format!("{parts} names and labels, allowed are {}", limit::SERVERS_MAX));
        }
        if matches!(self.quorum, Quorum::Count(0) | Quorum::Percent(0 | 101..)) {
            return Err("a quorum is at least one node and at most 100 %".to_owned());
        }
        if self.priority > 9 {
            return Err(format!("priority {} is not within 0 to 9", self.priority));
        }
        match &self.name {
            Some(name) if name.is_reserved() => Err(format!("the job name {name} is taken")),
            _ => Ok(()),
        }
    }

    /// The first option of `push` in which a job that was begun with `self` differs from one
    /// with `other`. The name is how the two were found, and the size is the content's affair.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let differs = [
            (self.kind != other.kind, "--live"),
            (self.to != other.to, "--to"),
            (self.deadline_s != other.deadline_s, "--deadline"),
            (self.quorum != other.quorum, "--quorum"),
            (self.priority != other.priority, "--priority"),
            (self.rate_bps != other.rate_bps, "--rate"),
            (self.keep != other.keep, "--keep"),
            (self.grace_s != other.grace_s, "--grace"),
        ];
        differs.into_iter().find_map(|(differs, option)| differs.then_some(option))
    }
}

/// The job object: small, immutable, signed by the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobObject {
    /// The job.
    pub id: JobId,
    /// Its name.
    pub name: Name,
    /// The client that owns it.
    pub tenant: Name,
    /// File set or live stream.
    pub kind: Kind,
    /// Content bytes, if known beforehand.
    pub size: Option<u64>,
    /// When it was created: milliseconds since the Unix epoch, by the base's clock.
    pub created_at_ms: u64,
    /// Seconds from then to the deadline, if one was asked for.
    pub deadline_s: Option<u64>,
    /// How many stripes the log has: chunk *i* belongs to stripe *i mod stripes*.
    pub stripes: u8,
    /// Largest chunk in bytes.
    pub chunk_max: u32,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// Bits per second that the job may use on each uplink.
    pub rate_bps: Option<u64>,
    /// How long nodes keep it.
    pub keep: Keep,
    /// The key that its pages are signed with.
    pub page_key: PublicKey,
    /// Nodes of the server list.
    pub servers: u32,
    /// Hash of the server list: [`ServerList::hash`].
    pub servers_hash: Hash,
}

/// A job object with the base's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedJob {
    body: Vec<u8>,
    signature: Signature,
}

/// Why a job object is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobObjectError {
    /// It does not decode, or a value is out of range.
    #[error("the job object does not decode")]
    Decode(#[from] DecodeError),
    /// The signature is not the base's.
    #[error("the job object is not signed by the base")]
    Signature,
}

impl JobObject {
    /// The deadline that was asked for, milliseconds since the Unix epoch: jobs that share an
    /// uplink are compared by it.
    pub fn due_ms(&self) -> Option<u64> {
        let millis = self.deadline_s?.saturating_mul(1_000);
        Some(self.created_at_ms.saturating_add(millis))
    }

    /// Signs the object.
    pub fn sign(&self, key: &Ed25519KeyPair) -> SignedJob {
        let body = codec::encode(self);
        let signature = seal::sign(key, Purpose::Job, &body);
        SignedJob { body, signature }
    }

    fn check(&self) -> Result<(), DecodeError> {
        let chunk_right = (1..=limit::CHUNK_LEN_MAX).contains(&self.chunk_max);
        let stripes_right = (1..=limit::STRIPES_MAX).contains(&self.stripes);
        if chunk_right && stripes_right && self.priority <= 9 {
            return Ok(());
        }
        let (stripes, chunk, priority) = (self.stripes, self.chunk_max, self.priority);
        let text = format!("{stripes} stripes, chunks of {chunk} bytes, priority {priority}");
        Err(DecodeError::Invalid(text))
    }
}

impl SignedJob {
    /// Verifies the signature with the base's `key` and decodes the object.
    ///
    /// # Errors
    /// [`JobObjectError`] if the signature is not of `key` or the object is not well-formed.
    pub fn open(&self, key: &PublicKey) -> Result<JobObject, JobObjectError> {
        if !seal::verify(key, Purpose::Job, &self.body, &self.signature) {
            return Err(JobObjectError::Signature);
        }
        let object: JobObject = codec::decode::<_, { limit::JOB_OBJECT_LEN_MAX }>(&self.body)?;
        object.check()?;
        Ok(object)
    }
}

/// The nodes that a job's content must reach, sorted by name, fixed at creation.
///
/// Decoding checks the order and the number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Name>")]
pub struct ServerList(Vec<Name>);

/// Why names are not a [`ServerList`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerListError {
    /// More than [`limit::SERVERS_MAX`].
    #[error("a server list of {0} names, allowed are {max}", max = limit::SERVERS_MAX)]
    Length(usize),
    /// Not in order, or one twice.
    #[error("the server list is not in order at {0}")]
    Order(Name),
}

impl TryFrom<Vec<Name>> for ServerList {
    type Error = ServerListError;
    fn try_from(names: Vec<Name>) -> Result<Self, ServerListError> {
        if names.len() > limit::SERVERS_MAX {
            return Err(ServerListError::Length(names.len()));
        }
        let wrong = names.iter().zip(names.iter().skip(1)).find(|(name, next)| name >= next);
        match wrong {
            Some((_, next)) => Err(ServerListError::Order(next.clone())),
            None => Ok(Self(names)),
        }
    }
}

impl ServerList {
    /// The list of `names`, sorted and without doubles.
    pub fn new(mut names: Vec<Name>) -> Self {
        names.sort();
        names.dedup();
        Self(names)
    }

    /// The names in order.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Whether `node` is on it.
    pub fn contains(&self, node: &Name) -> bool {
        self.0.binary_search(node).is_ok()
    }

    /// The hash that the job object carries.
    pub fn hash(&self) -> Hash {
        Hash::of(&codec::encode(self))
    }
}

/// The largest chunk of a job of `size` content bytes (DESIGN section 3).
///
/// A live stream and a file set of unknown size get the largest one: their cutter flushes by
/// time and by 64 KiB.
pub fn chunk_len(kind: Kind, size: Option<u64>) -> u32 {
    match (kind, size) {
        (Kind::Files, Some(size)) => {
            let aim = size.div_ceil(limit::CHUNKS_AIMED);
            let aim = u32::try_from(aim).unwrap_or(u32::MAX);
            // A power of two keeps slices aligned with pages of the disk.
            aim.clamp(limit::CHUNK_LEN_MIN, limit::CHUNK_LEN_MAX).next_power_of_two()
        }
        (Kind::Files, None) | (Kind::Live, _) => limit::CHUNK_LEN_MAX,
    }
}

/// How many stripes a job for `nodes` nodes has: a power of two, at most [`limit::STRIPES_MAX`]
/// and never more than nodes, which each can be the home of one; 1 for a live stream, whose chunks
/// would have to come by several ways in time (notes: overlay, sections 3.2 and 7.1).
pub fn stripe_count(kind: Kind, nodes: usize) -> u8 {
    if kind == Kind::Live {
        return 1;
    }
    let most = u8::try_from(nodes).unwrap_or(u8::MAX).clamp(1, limit::STRIPES_MAX);
    1 << most.ilog2()
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Names(names) => {
                let names: Vec<&str> = names.iter().map(Name::as_str).collect();
                f.write_str(&names.join(","))
            }
            Self::Labels(labels) => {
                let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                f.write_str(&labels.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn selectors_read_names_or_labels() {
        assert_eq!("all".parse(), Ok(Selector::All));
        assert_eq!("a,b".parse(), Ok(Selector::Names(vec![name("a"), name("b")])));
        let labels = vec![("k".to_owned(), "v".to_owned()), ("x".to_owned(), "Y-z".to_owned())];
        assert_eq!("k=v,x=Y-z".parse(), Ok(Selector::Labels(labels)));
        for wrong in ["", "a,", "a,k=v", "k=", "=v", "A"] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn labels_select_by_and_names_by_or() {
        let label = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let known = BTreeMap::from([
            (name("a"), BTreeMap::from([label("r", "eu"), label("t", "1")])),
            (name("b"), BTreeMap::from([label("r", "eu")])),
        ]);
        let select = |text: &str| text.parse::<Selector>().unwrap().select(&known);
        assert_eq!(select("r=eu"), Ok(vec![name("a"), name("b")]));
        assert_eq!(select("r=eu,t=1"), Ok(vec![name("a")]));
        assert_eq!(select("r=us"), Ok(vec![]));
        assert_eq!(select("b,a"), Ok(vec![name("b"), name("a")]));
        assert_eq!(select("b,c"), Err(name("c")));
    }

    #[test]
    fn a_percentage_rounds_up() {
        let of = |text: &str, nodes| text.parse::<Quorum>().unwrap().of(nodes);
        assert_eq!((of("50%", 5), of("1%", 5), of("100%", 5)), (3, 1, 5));
        assert_eq!((of("all", 5), of("2", 5), of("9", 5)), (5, 2, 5));
        for wrong in ["0", "0%", "101%", "x", ""] {
            assert!(wrong.parse::<Quorum>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn chunks_grow_with_the_job_within_bounds() {
        assert_eq!(chunk_len(Kind::Files, Some(0)), 16 * 1024);
        assert_eq!(chunk_len(Kind::Files, Some(4 << 30)), 64 * 1024);
        assert_eq!(chunk_len(Kind::Files, Some(1 << 40)), 256 * 1024);
        assert_eq!([1, 2, 5, 8, 100].map(|n| stripe_count(Kind::Files, n)), [1, 2, 4, 8, 16]);
        assert_eq!([1, 2, 100].map(|n| stripe_count(Kind::Live, n)), [1, 1, 1]);
    }

    #[test]
    fn a_job_object_opens_with_the_key_it_was_signed_with() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        let public: PublicKey =
            ring::signature::KeyPair::public_key(&key).as_ref().try_into().unwrap();
        let servers = ServerList::new(vec![name("b"), name("a"), name("b")]);
        let object = JobObject {
            id: JobId([1; 16]),
            name: name("j"),
            tenant: name("t"),
            kind: Kind::Files,
            size: None,
            created_at_ms: 0,
            deadline_s: None,
            stripes: 2,
            chunk_max: 16384,
            priority: 5,
            rate_bps: None,
            keep: Keep::Forever,
            page_key: public,
            servers: 2,
            servers_hash: servers.hash(),
        };
        assert_eq!(object.sign(&key).open(&public), Ok(object.clone()));
        assert_eq!(object.sign(&key).open(&[0; 32]), Err(JobObjectError::Signature));
        let wide = JobObject { stripes: 17, ..object };
        assert!(matches!(wide.sign(&key).open(&public), Err(JobObjectError::Decode(_))));
        assert_eq!(servers.names().len(), 2);
    }
}
