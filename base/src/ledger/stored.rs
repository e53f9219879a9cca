//! The rows as they are stored: bodies, checksums, and what is wrong with a row.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::id::{JobId, Name};
use shared::job::{Dimensions, ServerList, SignedJob};
use shared::limit;
use shared::seal::Hash;
use shared::table::{Head, NodeRecord, Status};
use shared::wire::codec;

/// Bytes of a checksum.
const SUM_LEN: usize = 16;
/// Largest body that is read, in bytes: a status that names every missing node.
const BODY_LEN_MAX: usize = limit::LIST_FRAME_LEN_MAX;

/// A node that was admitted once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: Name,
    /// The labels of its certificate when it was last admitted.
    pub cert_labels: BTreeMap<String, String>,
    /// The labels that operators gave it; they win over the certificate's.
    pub operator_labels: BTreeMap<String, String>,
    /// Its store when it was last admitted.
    pub store: [u8; 16],
    /// Its boot count when it was last admitted.
    pub boot: u64,
    /// The incarnation that this store and boot were given.
    pub incarnation: u64,
    /// Whether an operator forgot it.
    pub forgotten: bool,
}

impl NodeRow {
    /// All its labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.cert_labels.clone();
        labels.extend(self.operator_labels.clone());
        labels
    }
}

/// A body with its checksum.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) body: Vec<u8>,
    pub(super) sum: Vec<u8>,
}

/// What is checked together with a body, so that a row cannot stand for another.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Key<'a> {
    /// A number, by its name.
    Meta(&'a str),
    /// A node, by its name.
    Node(&'a str),
    /// What is fixed of a job, by its id.
    Head(&'a [u8]),
    /// Where a job stands, by its id.
    Status(&'a [u8]),
    /// A node's line of a job.
    Line(&'a [u8], &'a str),
    /// A server list; its key is its hash, which is its checksum too.
    List,
}

/// The checksum of a row.
pub fn sum(key: Key<'_>, body: &[u8]) -> Vec<u8> {
    if matches!(key, Key::List) {
        return Hash::of(body).0.to_vec();
    }
    let mut sum = Hash::of(&codec::encode(&(key, body))).0.to_vec();
    sum.truncate(SUM_LEN);
    sum
}

pub(super) fn seal<T: Serialize>(key: Key<'_>, value: &T) -> Sealed {
    let body = codec::encode(value);
    let sum = sum(key, &body);
    Sealed { body, sum }
}

/// Whether a body is the one that was sealed under this key.
pub(super) fn is_whole(key: Key<'_>, body: &[u8], claimed: &[u8]) -> bool {
    sum(key, body) == claimed
}

/// Reads the body of a row and writes it again.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_back(key: Key<'_>, body: &[u8], claimed: &[u8]) -> Result<Vec<u8>, String> {
    match key {
        Key::Meta(_) => unseal::<i64>(key, body, claimed).map(|value| codec::encode(&value)),
        Key::Node(name) => unseal_node(name, body, claimed).map(|row| seal_node(&row).body),
        Key::Head(_) => unseal::<StoredHead>(key, body, claimed).map(|head| codec::encode(&head)),
        Key::Status(_) => unseal::<Status>(key, body, claimed).map(|status| codec::encode(&status)),
        Key::Line(..) => unseal::<NodeRecord>(key, body, claimed).map(|line| codec::encode(&line)),
        Key::List => read_list(claimed, body).map(|list| codec::encode(&list)),
    }
}

/// The value of a sealed body; what is wrong with it otherwise.
pub(super) fn unseal<T: DeserializeOwned>(
    key: Key<'_>,
    body: &[u8],
    claimed: &[u8],
) -> Result<T, String> {
    if !is_whole(key, body, claimed) {
        return Err("it does not match its checksum".to_owned());
    }
    codec::decode::<T, BODY_LEN_MAX>(body).map_err(|error| error.to_string())
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredNode {
    cert_labels: Vec<(String, String)>,
    operator_labels: Vec<(String, String)>,
    store: [u8; 16],
    boot: u64,
    incarnation: u64,
    forgotten: bool,
}

pub(super) fn seal_node(row: &NodeRow) -> Sealed {
    let pairs = |labels: &BTreeMap<String, String>| {
        labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let stored = StoredNode {
        cert_labels: pairs(&row.cert_labels),
        operator_labels: pairs(&row.operator_labels),
        store: row.store,
        boot: row.boot,
        incarnation: row.incarnation,
        forgotten: row.forgotten,
    };
    seal(Key::Node(row.name.as_str()), &stored)
}

pub(super) fn unseal_node(name: &str, body: &[u8], sum: &[u8]) -> Result<NodeRow, String> {
    let stored: StoredNode = unseal(Key::Node(name), body, sum)?;
    Ok(NodeRow {
        name: Name::new(name).map_err(|error| error.to_string())?,
        cert_labels: stored.cert_labels.into_iter().collect(),
        operator_labels: stored.operator_labels.into_iter().collect(),
        store: stored.store,
        boot: stored.boot,
        incarnation: stored.incarnation,
        forgotten: stored.forgotten,
    })
}

/// A job's head with the hash of its server list in place of the list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredHead {
    client: Name,
    key: [u8; 16],
    name: Name,
    dimensions: Dimensions,
    object: SignedJob,
    pub(super) servers: Hash,
    created_ms: u64,
    created_us: u64,
}

pub(super) fn seal_head(head: &Head, servers: Hash) -> Sealed {
    let stored = StoredHead {
        client: head.client.clone(),
        key: head.key,
        name: head.name.clone(),
        dimensions: head.dimensions.clone(),
        object: head.object.clone(),
        servers,
        created_ms: head.created_ms,
        created_us: head.created_us,
    };
    seal(Key::Head(&head.id.0), &stored)
}

impl StoredHead {
    /// The head with its server list.
    pub(super) fn with_servers(self, id: JobId, servers: Arc<ServerList>) -> Head {
        Head {
            id,
            client: self.client,
            key: self.key,
            name: self.name,
            dimensions: self.dimensions,
            object: self.object,
            servers,
            created_ms: self.created_ms,
            created_us: self.created_us,
        }
    }
}

pub(super) fn seal_status(id: JobId, status: &Status) -> Sealed {
    seal(Key::Status(&id.0), status)
}

pub(super) fn seal_line(job: JobId, node: &Name, record: &NodeRecord) -> Sealed {
    seal(Key::Line(&job.0, node.as_str()), record)
}

/// A server list, if the bytes are what the hash stands for.
pub(super) fn read_list(hash: &[u8], names: &[u8]) -> Result<ServerList, String> {
    if Hash::of(names).0.as_slice() != hash {
        return Err("it does not match its checksum".to_owned());
    }
    codec::decode::<ServerList, BODY_LEN_MAX>(names).map_err(|error| error.to_string())
}
