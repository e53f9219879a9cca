//! What is written, statement by statement. Each is as if applied once when applied twice.

use shared::id::JobId;
use shared::table::{Head, Status, Transition};
use shared::wire::codec;
use sqlx::SqliteConnection;

use super::stored::{Key, NodeRow, Sealed, seal, seal_head, seal_line, seal_node, seal_status};

/// Something to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A transition of the job table.
    Transition(Transition),
    /// A node was admitted, labelled or forgotten.
    Node(NodeRow),
}

/// A number that the ledger keeps by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meta {
    /// Counts the starts of the base.
    Epoch,
    /// Base time in microseconds.
    Clock,
    /// 1 if jobs were lost to damage.
    Lossy,
}

impl Meta {
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Clock => "clock_us",
            Self::Lossy => "lossy",
        }
    }
}

pub(super) const PUT_META: &str = "INSERT INTO meta (key, value, sum) VALUES ($1, $2, $3) \
     ON CONFLICT (key) DO UPDATE SET value = excluded.value, sum = excluded.sum";
pub(super) const PUT_NODE: &str = "INSERT INTO nodes (name, body, sum) VALUES ($1, $2, $3) \
     ON CONFLICT (name) DO UPDATE SET body = excluded.body, sum = excluded.sum";
pub(super) const PUT_LIST: &str = "INSERT INTO lists (hash, names) VALUES ($1, $2) \
     ON CONFLICT (hash) DO UPDATE SET names = excluded.names";
pub(super) const PUT_JOB: &str = "INSERT INTO jobs (id, client, name, servers, head, head_sum, \
     state, closed_us, status, status_sum) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
     ON CONFLICT (id) DO NOTHING";
const PUT_STATUS: &str = "UPDATE jobs SET state = $2, closed_us = $3, status = $4, \
     status_sum = $5 WHERE id = $1";
pub(super) const PUT_LINE: &str = "INSERT INTO lines (job, node, body, sum) \
     VALUES ($1, $2, $3, $4) ON CONFLICT (job, node) \
     DO UPDATE SET body = excluded.body, sum = excluded.sum";

pub(super) async fn apply(conn: &mut SqliteConnection, write: &Write) -> Result<(), sqlx::Error> {
    match write {
        Write::Node(row) => {
            let Sealed { body, sum } = seal_node(row);
            let query = sqlx::query(PUT_NODE).bind(row.name.as_str()).bind(body).bind(sum);
            query.execute(conn).await.map(drop)
        }
        Write::Transition(Transition::Created(head, status)) => create(conn, head, status).await,
        Write::Transition(Transition::Status(id, status)) => {
            let Sealed { body, sum } = seal_status(*id, status);
            let query = sqlx::query(PUT_STATUS).bind(id.0.as_slice());
            let query = query.bind(status.state.as_str()).bind(closed_us(status));
            query.bind(body).bind(sum).execute(conn).await.map(drop)
        }
        Write::Transition(Transition::Node(id, node, record)) => {
            let Sealed { body, sum } = seal_line(*id, node, record);
            let query = sqlx::query(PUT_LINE).bind(id.0.as_slice()).bind(node.as_str());
            query.bind(body).bind(sum).execute(conn).await.map(drop)
        }
        Write::Transition(Transition::Forgotten(id)) => forget(conn, *id).await,
        Write::Transition(Transition::Clock(micros)) => put_meta(conn, Meta::Clock, *micros).await,
    }
}

async fn create(
    conn: &mut SqliteConnection,
    head: &Head,
    status: &Status,
) -> Result<(), sqlx::Error> {
    let names = codec::encode(&*head.servers);
    let hash = head.servers.hash();
    let query = sqlx::query(PUT_LIST).bind(hash.0.to_vec()).bind(names);
    query.execute(&mut *conn).await?;
    let sealed = seal_head(head, hash);
    let sealed_status = seal_status(head.id, status);
    let query = sqlx::query(PUT_JOB).bind(head.id.0.to_vec());
    let query = query.bind(head.client.as_str()).bind(head.name.as_str()).bind(hash.0.to_vec());
    let query = query.bind(sealed.body).bind(sealed.sum).bind(status.state.as_str());
    let query = query.bind(closed_us(status)).bind(sealed_status.body).bind(sealed_status.sum);
    query.execute(conn).await.map(drop)
}

async fn forget(conn: &mut SqliteConnection, id: JobId) -> Result<(), sqlx::Error> {
    let query = sqlx::query("DELETE FROM lines WHERE job = $1").bind(id.0.to_vec());
    query.execute(&mut *conn).await?;
    let query = sqlx::query("DELETE FROM jobs WHERE id = $1").bind(id.0.to_vec());
    query.execute(conn).await.map(drop)
}

pub(super) async fn put_meta(
    conn: &mut SqliteConnection,
    meta: Meta,
    value: u64,
) -> Result<(), sqlx::Error> {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    let sum = seal(Key::Meta(meta.key()), &value).sum;
    let query = sqlx::query(PUT_META).bind(meta.key()).bind(value).bind(sum);
    query.execute(conn).await.map(drop)
}

/// When a job closed, in base time; the largest number while it is open, so that the newest
/// is the last in order.
fn closed_us(status: &Status) -> i64 {
    status.closed_us.map_or(i64::MAX, |us| i64::try_from(us).unwrap_or(i64::MAX))
}
