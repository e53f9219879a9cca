//! The ledger: what the base must not forget, in SQLite in the data folder.
//!
//! It holds transitions and never progress: jobs as they were created, their states, the
//! verdicts of nodes, and the nodes that were ever admitted. One task writes; what waits while
//! a commit is under way goes into the next one together, so that a commit costs one flush
//! however many wait. [`Ledger::commit`] returns when the writes are on the disk. A write that
//! fails ends the ledger: what is on the disk is not known then, so nothing more may be
//! promised, and a new start reads what is there.
//!
//! Damage: every row has a checksum. Rows that do not match are named and not used. If the
//! file itself is broken, its whole rows move to a new one and the old one is kept beside it.
//! A file that is no ledger at all is refused: an empty one would tell nodes to drop their jobs.

mod load;
mod salvage;
pub mod stored;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use shared::id::Name;
use shared::table::{Restored, Row};
use shared::wire::request::JobRef;
use shared_io::data_folder::DataFolder;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use load::{Damage, Loaded};
use write::{Meta, put_meta};

pub use stored::NodeRow;
pub use write::Write;

/// The ledger's file in the data folder.
pub const LEDGER_FILE: &str = "ledger.sqlite";
/// Commands that wait for the writer. Beyond, callers wait.
const QUEUE_MAX: usize = 256;
/// Writes after which a commit takes up no further command.
const GROUP_WRITES_MAX: usize = 10_000;

/// A handle to the ledger.
#[derive(Debug)]
pub struct Ledger {
    epoch: u64,
    commands: mpsc::Sender<Command>,
    writer: Mutex<JoinSet<()>>,
}

/// A ledger that was opened, and what was in it.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// The jobs, for [`shared::table::JobTable::new`].
    pub restored: Restored,
    /// The nodes ever admitted, forgotten ones too.
    pub nodes: BTreeMap<Name, NodeRow>,
    /// What was not whole, in words: to be logged, one by one.
    pub damage: Vec<String>,
}

/// Why the ledger cannot be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The file is not a ledger, or damaged beyond reading.
    #[error("{} cannot be read as a ledger; restore it from a copy, or move it away to start \
        without its jobs (nodes then drop theirs)", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: Arc<sqlx::Error>,
    },
    /// The tables cannot be made or brought up to date.
    #[error("the tables of {} cannot be brought up to date", .path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<sqlx::migrate::MigrateError>,
    },
    /// A broken file cannot be moved aside.
    #[error("{} is damaged and cannot be moved aside", .path.display())]
    MoveAside {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Reading failed.
    #[error("the ledger cannot be read")]
    Read(#[source] Arc<sqlx::Error>),
    /// Writing failed: the base must start anew to know what is on the disk.
    #[error(
        "the ledger cannot be written; free space on its disk or repair it, then restart \
        the base"
    )]
    Write(#[source] Arc<sqlx::Error>),
    /// The ledger is closed, or a write has failed before.
    #[error("the ledger is closed")]
    Closed,
}

#[derive(Debug)]
enum Command {
    Commit {
        writes: Vec<Write>,
        done: oneshot::Sender<Result<(), LedgerError>>,
    },
    Find {
        job: JobRef,
        client: Option<Name>,
        found: oneshot::Sender<Result<Option<Row>, LedgerError>>,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

impl Ledger {
    /// Opens the ledger of a data folder, which this process alone uses, and reads it.
    ///
    /// The epoch rises above every earlier one of this ledger, and is at least the wall
    /// clock's seconds, so that it also rises if the data folder was lost.
    ///
    /// # Errors
    /// [`LedgerError`] if the file is no ledger, or cannot be written.
    pub async fn open(data: &DataFolder, wall_ms: u64) -> Result<Opened, LedgerError> {
        let path = data.path().join(LEDGER_FILE);
        let mut damage = Damage::default();
        let mut conn = open_whole(&path, wall_ms, &mut damage).await?;
        let loaded = load::load(&mut conn, &mut damage).await;
        let epoch = loaded.epoch.unwrap_or(0).saturating_add(1).max(wall_ms / 1_000);
        start(&mut conn, epoch, &loaded).await.map_err(|error| LedgerError::Write(error.into()))?;
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let mut writer = JoinSet::new();
        writer.spawn(serve(conn, queue));
        let ledger = Self { epoch, commands, writer: Mutex::new(writer) };
        let Loaded { restored, nodes, epoch: _ } = loaded;
        Ok(Opened { ledger, restored, nodes, damage: damage.into_texts() })
    }

    /// Counts the starts of the base: greater than at every earlier start.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Makes `writes` durable, all or none, in order.
    ///
    /// # Errors
    /// [`LedgerError::Write`], after which every further call fails with
    /// [`LedgerError::Closed`].
    ///
    /// # Cancellation
    /// If the future is dropped the writes may or may not be made.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), LedgerError> {
        let (done, result) = oneshot::channel();
        let command = Command::Commit { writes, done };
        self.commands.send(command).await.map_err(|_gone| LedgerError::Closed)?;
        result.await.unwrap_or(Err(LedgerError::Closed))
    }

    /// A job that is not in memory any more: by id, or the newest of a name, of `client` if
    /// one is given.
    ///
    /// # Errors
    /// [`LedgerError::Read`], also if what is found is damaged.
    pub async fn find(
        &self,
        job: JobRef,
        client: Option<Name>,
    ) -> Result<Option<Row>, LedgerError> {
        let (found, result) = oneshot::channel();
        let command = Command::Find { job, client, found };
        self.commands.send(command).await.map_err(|_gone| LedgerError::Closed)?;
        result.await.unwrap_or(Err(LedgerError::Closed))
    }

    /// Writes what waits and closes the file. Later calls fail.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { done }).await.is_ok() {
            let _ = closed.await;
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.abort_all();
    }
}

async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cell_size_check", "ON")
        .disable_statement_logging()
        .connect()
        .await
}

/// Opens the file; if it is broken, a new one with all of its rows that are whole.
async fn open_whole(
    path: &Path,
    wall_ms: u64,
    damage: &mut Damage,
) -> Result<SqliteConnection, LedgerError> {
    let unreadable = |error: sqlx::Error| LedgerError::Unreadable {
        path: path.to_owned(),
        source: Arc::new(error),
    };
    let mut conn = connect(path).await.map_err(unreadable)?;
    if check(&mut conn, damage).await {
        migrate(path, &mut conn).await?;
        return Ok(conn);
    }
    damage.lossy = true;
    let fresh = path.with_extension(format!("sqlite.new-{wall_ms}"));
    let mut new = connect(&fresh).await.map_err(unreadable)?;
    migrate(&fresh, &mut new).await?;
    let failed = |error: sqlx::Error| LedgerError::Write(Arc::new(error));
    let mut all = new.begin().await.map_err(failed)?;
    salvage::copy(&mut conn, &mut all, damage).await.map_err(failed)?;
    all.commit().await.map_err(failed)?;
    // Closing writes the log back into the file, so that moving the file moves everything.
    new.close().await.map_err(failed)?;
    drop(conn.close().await);
    let aside = path.with_extension(format!("sqlite.damaged-{wall_ms}"));
    move_aside(path, &aside, &fresh).map_err(|source| LedgerError::MoveAside {
        path: path.to_owned(),
        source: source.into(),
    })?;
    damage.add(format!("the damaged file is kept as {}", aside.display()));
    connect(path).await.map_err(unreadable)
}

fn move_aside(path: &Path, aside: &Path, fresh: &Path) -> io::Result<()> {
    for suffix in ["-wal", "-shm"] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match std::fs::rename(with(path), with(aside)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, aside)?;
    std::fs::rename(fresh, path)?;
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}

/// Whether the file's structure is whole; what is not is named.
async fn check(conn: &mut SqliteConnection, damage: &mut Damage) -> bool {
    let rows = sqlx::query("PRAGMA integrity_check(10)").fetch_all(conn).await;
    let texts: Vec<String> = match rows {
        Ok(rows) => rows.iter().filter_map(|row| row.try_get(0).ok()).collect(),
        Err(error) => vec![error.to_string()],
    };
    let whole = texts.iter().all(|text| text == "ok");
    if !whole {
        texts.into_iter().for_each(|text| damage.add(format!("file structure: {text}")));
    }
    whole
}

async fn migrate(path: &Path, conn: &mut SqliteConnection) -> Result<(), LedgerError> {
    let result = sqlx::migrate!("src/ledger/migrations").run_direct(None, conn, false).await;
    result.map_err(|source| LedgerError::Migrate { path: path.to_owned(), source: source.into() })
}

/// Notes the start, and drops lists that no job refers to.
async fn start(
    conn: &mut SqliteConnection,
    epoch: u64,
    loaded: &Loaded,
) -> Result<(), sqlx::Error> {
    let mut all = conn.begin().await?;
    put_meta(&mut all, Meta::Epoch, epoch).await?;
    put_meta(&mut all, Meta::Clock, loaded.restored.clock_us).await?;
    put_meta(&mut all, Meta::Lossy, u64::from(loaded.restored.lossy)).await?;
    let unused = "DELETE FROM lists WHERE NOT EXISTS \
         (SELECT 1 FROM jobs WHERE jobs.servers = lists.hash)";
    sqlx::query(unused).execute(&mut *all).await?;
    all.commit().await
}

/// The writer: takes up commands until one fails or says to close.
async fn serve(mut conn: SqliteConnection, mut queue: mpsc::Receiver<Command>) {
    while let Some(command) = queue.recv().await {
        let mut waiting = Vec::new();
        let mut writes = Vec::new();
        let mut next = Some(command);
        let mut then = None;
        while let Some(command) = next.take() {
            match command {
                Command::Commit { writes: more, done } => {
                    writes.extend(more);
                    waiting.push(done);
                }
                other => {
                    then = Some(other);
                    break;
                }
            }
            if writes.len() < GROUP_WRITES_MAX {
                next = queue.try_recv().ok();
            }
        }
        let result = if waiting.is_empty() { Ok(()) } else { commit(&mut conn, &writes).await };
        let result = result.map_err(|error| LedgerError::Write(Arc::new(error)));
        for done in waiting {
            drop(done.send(result.clone()));
        }
        if result.is_err() {
            return;
        }
        match then {
            Some(Command::Find { job, client, found }) => {
                let row = find(&mut conn, &job, client.as_ref()).await;
                drop(found.send(row.map_err(|error| LedgerError::Read(Arc::new(error)))));
            }
            Some(Command::Close { done }) => {
                drop(conn.close().await);
                let _ = done.send(());
                return;
            }
            Some(Command::Commit { .. }) | None => {}
        }
    }
}

async fn commit(conn: &mut SqliteConnection, writes: &[Write]) -> Result<(), sqlx::Error> {
    let mut all = conn.begin().await?;
    for write in writes {
        write::apply(&mut all, write).await?;
    }
    all.commit().await
}

async fn find(
    conn: &mut SqliteConnection,
    job: &JobRef,
    client: Option<&Name>,
) -> Result<Option<Row>, sqlx::Error> {
    const BY_ID: &str = "SELECT * FROM jobs WHERE id = $1 AND ($2 = '' OR client = $2)";
    const BY_NAME: &str = "SELECT * FROM jobs WHERE name = $1 AND ($2 = '' OR client = $2) \
         ORDER BY closed_us DESC LIMIT 1";
    let client = client.map_or("", Name::as_str);
    let query = match job {
        JobRef::Id(id) => sqlx::query(BY_ID).bind(id.0.to_vec()),
        JobRef::Name(name) => sqlx::query(BY_NAME).bind(name.as_str()),
    };
    let Some(row) = query.bind(client).fetch_optional(&mut *conn).await? else {
        return Ok(None);
    };
    let damaged = |text: String| sqlx::Error::Protocol(text);
    let job = load::read_job(&row).map_err(damaged)?;
    let list = sqlx::query("SELECT hash, names FROM lists WHERE hash = $1");
    let list = list.bind(job.head.servers.0.to_vec()).fetch_one(&mut *conn).await?;
    let servers = Arc::new(load::read_list(&list).map_err(damaged)?);
    let lines = sqlx::query("SELECT job, node, body, sum FROM lines WHERE job = $1");
    let lines = lines.bind(job.id.0.to_vec()).fetch_all(&mut *conn).await?;
    let nodes = lines.iter().map(load::read_line).collect::<Result<_, _>>().map_err(damaged)?;
    let head = job.head.with_servers(job.id, servers);
    Ok(Some(Row { head, status: job.status, nodes }))
}
