//! Reading the ledger back: what is whole is used, what is not is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shared::id::{JobId, Name};
use shared::job::ServerList;
use shared::limit;
use shared::seal::Hash;
use shared::table::{Restored, Row, Status};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::stored::{self, Key, NodeRow, StoredHead};
use super::write::Meta;

/// Damages that are told one by one; more are only counted.
const DAMAGES_TOLD_MAX: usize = 1_000;
/// Rows read at a time.
const PAGE_ROWS: i64 = 256;

/// What is not whole, in words.
#[derive(Debug, Default)]
pub(super) struct Damage {
    told: Vec<String>,
    more: usize,
    /// Whether jobs may be missing.
    pub(super) lossy: bool,
}

impl Damage {
    pub(super) fn add(&mut self, text: String) {
        match self.told.len() < DAMAGES_TOLD_MAX {
            true => self.told.push(text),
            false => self.more += 1,
        }
    }

    /// Damage by which a job may be missing.
    pub(super) fn add_lossy(&mut self, text: String) {
        self.lossy = true;
        self.add(text);
    }

    pub(super) fn into_texts(mut self) -> Vec<String> {
        if self.more > 0 {
            self.told.push(format!("and {} more", self.more));
        }
        self.told
    }
}

/// How a table is read in both directions: a bad page in the middle costs only what is on it.
pub(super) struct Scan {
    pub(super) table: &'static str,
    pub(super) forward: &'static str,
    pub(super) backward: &'static str,
}

macro_rules! scan {
    ($name:ident, $table:literal, $columns:literal) => {
        pub(super) const $name: Scan = Scan {
            table: $table,
            forward: concat!(
                "SELECT seq, ",
                $columns,
                " FROM ",
                $table,
                " WHERE seq > $1 ORDER BY seq LIMIT $2"
            ),
            backward: concat!(
                "SELECT seq, ",
                $columns,
                " FROM ",
                $table,
                " WHERE seq < $1 ORDER BY seq DESC LIMIT $2"
            ),
        };
    };
}

scan!(META, "meta", "key, value, sum");
scan!(NODES, "nodes", "name, body, sum");
scan!(LISTS, "lists", "hash, names");
scan!(
    JOBS,
    "jobs",
    "id, client, name, servers, head, head_sum, state, closed_us, status, status_sum"
);
scan!(LINES, "lines", "job, node, body, sum");

/// A table as it is read: from its start, and from its end if something in between cannot be
/// read. A row may come twice then.
pub(super) struct Pages<'a> {
    scan: &'a Scan,
    from: i64,
    rows: i64,
    backward: bool,
    broken: Option<sqlx::Error>,
}

impl<'a> Pages<'a> {
    pub(super) const fn of(scan: &'a Scan) -> Self {
        Self { scan, from: i64::MIN, rows: PAGE_ROWS, backward: false, broken: None }
    }

    /// The next rows; none at the end.
    pub(super) async fn next(
        &mut self,
        conn: &mut SqliteConnection,
        damage: &mut Damage,
    ) -> Vec<SqliteRow> {
        loop {
            let sql = if self.backward { self.scan.backward } else { self.scan.forward };
            let query = sqlx::query(sql).bind(self.from).bind(self.rows);
            match query.fetch_all(&mut *conn).await {
                Ok(rows) => {
                    if let Some(last) = rows.last() {
                        self.from = last.try_get(0).unwrap_or(i64::MAX);
                        return rows;
                    }
                    self.tell_broken(damage);
                    return Vec::new();
                }
                // The rows before the bad place one by one.
                Err(_) if self.rows > 1 => self.rows = 1,
                Err(error) if !self.backward => {
                    self.broken = Some(error);
                    (self.backward, self.from) = (true, i64::MAX);
                }
                Err(_) => {
                    self.tell_broken(damage);
                    return Vec::new();
                }
            }
        }
    }

    fn tell_broken(&mut self, damage: &mut Damage) {
        if let Some(error) = self.broken.take() {
            let table = self.scan.table;
            damage.add_lossy(format!("table {table}: {error}; rows in between are lost"));
        }
    }
}

/// A ledger as it was read.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) epoch: Option<u64>,
    pub(super) restored: Restored,
    pub(super) nodes: BTreeMap<Name, NodeRow>,
}

/// Reads everything that the base keeps in memory.
pub(super) async fn load(conn: &mut SqliteConnection, damage: &mut Damage) -> Loaded {
    let mut loaded = Loaded::default();
    load_meta(conn, damage, &mut loaded).await;
    load_nodes(conn, damage, &mut loaded).await;
    let mut jobs = load_jobs(conn, damage, &mut loaded).await;
    let lists = load_lists(conn, damage, &jobs).await;
    let mut rows = BTreeMap::new();
    while let Some((_, job)) = jobs.pop_first() {
        match lists.get(&job.head.servers) {
            Some(list) => {
                let head = job.head.with_servers(job.id, Arc::clone(list));
                rows.insert(job.id, Row { head, status: job.status, nodes: Vec::new() });
            }
            None => damage.add_lossy(format!("job {}: its server list is lost", job.id)),
        }
    }
    load_lines(conn, damage, &mut rows).await;
    loaded.restored.rows = rows.into_values().collect();
    loaded.restored.lossy |= damage.lossy;
    loaded
}

async fn load_meta(conn: &mut SqliteConnection, damage: &mut Damage, loaded: &mut Loaded) {
    let mut pages = Pages::of(&META);
    loop {
        let rows = pages.next(conn, damage).await;
        if rows.is_empty() {
            return;
        }
        for row in &rows {
            match read_meta(row) {
                Ok((key, value)) if key == Meta::Epoch.key() => loaded.epoch = Some(value),
                Ok((key, value)) if key == Meta::Clock.key() => loaded.restored.clock_us = value,
                Ok((key, value)) if key == Meta::Lossy.key() => {
                    loaded.restored.lossy |= value != 0;
                }
                Ok((key, _)) => {
                    damage.add(format!("number {key:?}: this version does not know it"));
                }
                // The lost number may be the one that says so.
                Err(text) => damage.add_lossy(text),
            }
        }
    }
}

pub(super) fn read_meta(row: &SqliteRow) -> Result<(String, u64), String> {
    let key: String = text(row, "key")?;
    let value: i64 = row.try_get("value").map_err(|error| format!("number {key:?}: {error}"))?;
    let sum = blob(row, "sum")?;
    let body = shared::wire::codec::encode(&value);
    if !stored::is_whole(Key::Meta(&key), &body, &sum) {
        return Err(format!("number {key:?}: it does not match its checksum"));
    }
    Ok((key, u64::try_from(value).unwrap_or(0)))
}

async fn load_nodes(conn: &mut SqliteConnection, damage: &mut Damage, loaded: &mut Loaded) {
    let mut pages = Pages::of(&NODES);
    loop {
        let rows = pages.next(conn, damage).await;
        if rows.is_empty() {
            return;
        }
        for row in &rows {
            match read_node(row) {
                Ok(node) => drop(loaded.nodes.insert(node.name.clone(), node)),
                Err(text) => damage.add(text),
            }
        }
    }
}

pub(super) fn read_node(row: &SqliteRow) -> Result<NodeRow, String> {
    let name = text(row, "name")?;
    stored::unseal_node(&name, &blob(row, "body")?, &blob(row, "sum")?)
        .map_err(|error| format!("node {name:?}: {error}"))
}

/// A job without its server list and lines.
#[derive(Debug)]
pub(super) struct JobRow {
    pub(super) id: JobId,
    pub(super) head: StoredHead,
    pub(super) status: Status,
}

/// The open jobs and the newest closed ones, in order of closing; the others are archived.
async fn load_jobs(
    conn: &mut SqliteConnection,
    damage: &mut Damage,
    loaded: &mut Loaded,
) -> BTreeMap<(u64, JobId), JobRow> {
    let mut jobs = BTreeMap::new();
    let archived = &mut loaded.restored.archived;
    let mut pages = Pages::of(&JOBS);
    loop {
        let rows = pages.next(conn, damage).await;
        if rows.is_empty() {
            return jobs;
        }
        for row in &rows {
            match read_job(row) {
                Ok(job) => {
                    jobs.insert((job.status.closed_us.unwrap_or(u64::MAX), job.id), job);
                }
                Err(text) => damage.add_lossy(text),
            }
        }
        while jobs.len() > limit::JOBS_CLOSED_MAX + limit::JOBS_OPEN_MAX {
            let oldest = jobs.pop_first();
            archived.extend(oldest.map(|(_, job)| (job.id, job.status.is_dropping())));
        }
    }
}

pub(super) fn read_job(row: &SqliteRow) -> Result<JobRow, String> {
    let id = job_id(&blob(row, "id")?)?;
    let of_job = |error: String| format!("job {id}: {error}");
    let read = |column: &str| blob(row, column).map_err(of_job);
    let head = stored::unseal(Key::Head(&id.0), &read("head")?, &read("head_sum")?);
    let status = stored::unseal(Key::Status(&id.0), &read("status")?, &read("status_sum")?);
    let head: StoredHead = head.map_err(|error| of_job(format!("its head: {error}")))?;
    let status: Status = status.map_err(|error| of_job(format!("its status: {error}")))?;
    Ok(JobRow { id, head, status })
}

async fn load_lists(
    conn: &mut SqliteConnection,
    damage: &mut Damage,
    jobs: &BTreeMap<(u64, JobId), JobRow>,
) -> BTreeMap<Hash, Arc<ServerList>> {
    let wanted: BTreeSet<Hash> = jobs.values().map(|job| job.head.servers).collect();
    let mut lists = BTreeMap::new();
    let mut pages = Pages::of(&LISTS);
    loop {
        let rows = pages.next(conn, damage).await;
        if rows.is_empty() {
            return lists;
        }
        for row in &rows {
            match read_list(row) {
                Ok(list) if wanted.contains(&list.hash()) => {
                    lists.insert(list.hash(), Arc::new(list));
                }
                Ok(_) => {}
                Err(text) => damage.add(text),
            }
        }
    }
}

pub(super) fn read_list(row: &SqliteRow) -> Result<ServerList, String> {
    let hash = blob(row, "hash")?;
    stored::read_list(&hash, &blob(row, "names")?).map_err(|error| format!("server list: {error}"))
}

async fn load_lines(
    conn: &mut SqliteConnection,
    damage: &mut Damage,
    jobs: &mut BTreeMap<JobId, Row>,
) {
    let mut pages = Pages::of(&LINES);
    loop {
        let rows = pages.next(conn, damage).await;
        if rows.is_empty() {
            return;
        }
        for row in &rows {
            let Ok(id) = blob(row, "job").and_then(|id| job_id(&id)) else {
                damage.add("line of a node: its job cannot be read".to_owned());
                continue;
            };
            let Some(job) = jobs.get_mut(&id) else {
                continue;
            };
            match read_line(row) {
                Ok(line) => job.nodes.push(line),
                Err(text) => damage.add(text),
            }
        }
    }
}

pub(super) fn read_line(row: &SqliteRow) -> Result<(Name, shared::table::NodeRecord), String> {
    let id = job_id(&blob(row, "job")?)?;
    let node = text(row, "node")?;
    let of_line = |error: String| format!("job {id}, node {node:?}: {error}");
    let name = Name::new(node.clone()).map_err(|error| of_line(error.to_string()))?;
    let record = stored::unseal(Key::Line(&id.0, &node), &blob(row, "body")?, &blob(row, "sum")?);
    record.map(|record| (name, record)).map_err(of_line)
}

fn job_id(bytes: &[u8]) -> Result<JobId, String> {
    bytes.try_into().map(JobId).map_err(|_length| format!("{bytes:02x?} is no job id"))
}

fn text(row: &SqliteRow, column: &str) -> Result<String, String> {
    row.try_get(column).map_err(|error| error.to_string())
}

fn blob(row: &SqliteRow, column: &str) -> Result<Vec<u8>, String> {
    row.try_get(column).map_err(|error| error.to_string())
}
