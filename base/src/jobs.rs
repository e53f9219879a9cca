//! The jobs of a base: the job table and the ledger under one handle.
//!
//! Every change is one turn: the table is stepped under a lock, and what comes out goes as one
//! batch into a queue that one task serves in order. It first makes the transitions durable, of
//! all batches that wait together, and then lets the rest happen: orders to nodes, events to
//! watchers, the answer to who asked. So nobody is told of a state that a killed base could
//! forget, reading requests included, since they are turns too.
//!
//! If the ledger cannot be written, nothing more is told: [`Jobs::failed`] returns, every turn
//! ends with [`Stopped`], and the base has to start anew.

mod nodes;
mod request;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::Ed25519KeyPair;
use shared::id::{JobId, Name};
use shared::table::{Effect, Head, Input, JobTable, Row};
use shared::time::Time;
use shared::view::{EventBody, JobState, JobView, NodeState};
use shared::wire::message::Assign;
use tokio::sync::{mpsc, oneshot, watch as signal};
use tokio::task::JoinSet;

use crate::ledger::{Ledger, LedgerError, Opened, Write};
use nodes::Nodes;
use watch::{Queue, Watchers};

pub use nodes::{Admission, Applicant, OPERATOR_LABELS_MAX, TooManyNodes};
pub use request::{Answer, Asker, DISK_RESERVE};
pub use watch::{WATCHERS_MAX, Watcher};

/// Turns whose effects wait. Beyond, who wants a turn waits.
const TURNS_MAX: usize = 1_024;
/// How often time is told to the table and progress to watchers: often enough for once a
/// second with a turn's delay on top.
const TICK_EVERY: Duration = Duration::from_millis(500);

/// The process's clocks: monotonic, and wall clock in milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> (Time, u64) + Send + Sync>;

/// What the jobs need of the connections to nodes, and of the store. Calls must not block.
pub trait Session: Send + Sync {
    /// Tells a node what to do about a job; replaces what it was told before. A node that is
    /// not connected is told when it is ([`Input::NodeUp`]), so it may be left out.
    fn assign(&self, node: &Name, job: JobId, order: Assign);
    /// Asks a node for its report, which comes back as [`Input::Answer`].
    fn query(&self, node: &Name, job: JobId);
    /// Drops the base's copy of a job's content; when that is done, [`Input::ContentDropped`].
    fn drop_content(&self, job: JobId);
    /// The job is closed: nothing more is taken from its publisher.
    fn closed(&self, job: JobId, state: JobState);
    /// Bytes that can still be written to the base's disk.
    fn free_space(&self) -> u64;
    /// Why the base takes no content of a job now, if it takes none.
    fn waits_for(&self, job: JobId) -> Option<String>;
    /// What is known of the connection to a node.
    fn link(&self, node: &Name) -> Link;
}

/// The connection to a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Where it was last heard from; empty if never since the start.
    pub address: String,
    /// Whether it is there.
    pub state: NodeState,
    /// Smoothed round-trip time in milliseconds, while connected.
    pub rtt_ms: Option<f64>,
}

/// The base stops, or cannot write its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the base is stopping")]
pub struct Stopped;

/// The jobs of a base. Dropping it ends its tasks; what was told is durable.
pub struct Jobs {
    inner: Arc<Inner>,
    tasks: Mutex<JoinSet<()>>,
}

struct Inner {
    state: Mutex<State>,
    watchers: Mutex<Watchers>,
    turns: mpsc::Sender<Batch>,
    ledger: Ledger,
    key: Arc<Ed25519KeyPair>,
    clock: Clock,
    session: Arc<dyn Session>,
    failed: signal::Sender<Option<LedgerError>>,
}

struct State {
    table: JobTable,
    nodes: Nodes,
}

/// What came out of one turn.
struct Batch {
    writes: Vec<Write>,
    effects: Vec<Effect>,
    watcher: Option<(JobId, Arc<Queue>)>,
    done: Option<oneshot::Sender<()>>,
}

/// One turn at the table, under the lock.
struct Turn<'a> {
    state: &'a mut State,
    now: Time,
    wall_ms: u64,
    effects: Vec<Effect>,
    writes: Vec<Write>,
    watcher: Option<(JobId, Arc<Queue>)>,
}

impl Turn<'_> {
    const fn table(&self) -> &JobTable {
        &self.state.table
    }

    const fn nodes(&self) -> &Nodes {
        &self.state.nodes
    }

    const fn nodes_mut(&mut self) -> &mut Nodes {
        &mut self.state.nodes
    }

    const fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    fn register(&mut self, job: JobId, queue: Arc<Queue>) {
        self.watcher = Some((job, queue));
    }

    fn readmit(&mut self, row: Row) {
        self.state.table.readmit(self.now, row);
    }

    fn input(&mut self, input: Input) {
        self.act(|table, now, wall_ms, fx| table.step(now, wall_ms, input, fx));
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut JobTable, Time, u64, &mut Vec<Effect>) -> R) -> R {
        act(&mut self.state.table, self.now, self.wall_ms, &mut self.effects)
    }

    /// Separates what is to be made durable from what waits for that.
    fn into_batch(self, done: Option<oneshot::Sender<()>>) -> Batch {
        let mut writes = self.writes;
        let mut effects = Vec::new();
        for effect in self.effects {
            match effect {
                Effect::Persist(transition) => writes.push(Write::Transition(transition)),
                other => effects.push(other),
            }
        }
        Batch { writes, effects, watcher: self.watcher, done }
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("ledger", &self.inner.ledger).finish_non_exhaustive()
    }
}

impl Jobs {
    /// Takes up the jobs of an opened ledger. Damage is logged as warnings.
    ///
    /// `key` signs job objects, `clock` is read at every turn, `session` is told what to do.
    /// Must be called within a tokio runtime.
    pub fn start(
        opened: Opened,
        key: Arc<Ed25519KeyPair>,
        clock: Clock,
        session: Arc<dyn Session>,
    ) -> Self {
        let Opened { ledger, restored, nodes, damage } = opened;
        for what in damage {
            tracing::warn!(what, "the ledger is damaged; what is whole is used");
        }
        let (now, wall_ms) = clock();
        let table = JobTable::new(now, wall_ms, restored);
        let (turns, queue) = mpsc::channel(TURNS_MAX);
        let (failed, _) = signal::channel(None);
        let inner = Arc::new(Inner {
            state: Mutex::new(State { table, nodes: Nodes::new(nodes) }),
            watchers: Mutex::default(),
            turns,
            ledger,
            key,
            clock,
            session,
            failed,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(Arc::clone(&inner), queue));
        tasks.spawn(tick(Arc::clone(&inner)));
        Self { inner, tasks: Mutex::new(tasks) }
    }

    /// The epoch of this start.
    pub fn epoch(&self) -> u64 {
        self.inner.ledger.epoch()
    }

    /// Tells the table what happened. Returns when that is queued, before it is durable.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn input(&self, input: Input) -> Result<(), Stopped> {
        self.inner.enqueue(None, |turn| turn.input(input)).await
    }

    /// Admits a node that said hello; durable when this returns. Say [`Input::NodeUp`] next.
    ///
    /// # Errors
    /// [`Stopped`]; inside, [`TooManyNodes`].
    pub async fn admit(
        &self,
        applicant: Applicant,
    ) -> Result<Result<Admission, TooManyNodes>, Stopped> {
        self.run(|turn| {
            let (admission, row) = turn.nodes_mut().admit(applicant)?;
            if let Some(row) = row {
                turn.write(Write::Node(row));
            }
            Ok(admission)
        })
        .await
    }

    /// What was fixed when a job was created.
    pub fn head(&self, job: JobId) -> Option<Head> {
        self.inner.state().table.head(job).cloned()
    }

    /// A job as it stands; it may be ahead of what is durable. To tell it to somebody, use
    /// [`Jobs::handle`].
    pub fn view(&self, job: JobId) -> Option<JobView> {
        self.inner.state().table.view(job)
    }

    /// Open jobs, by id.
    pub fn open_jobs(&self) -> Vec<JobId> {
        self.inner.state().table.open_jobs().collect()
    }

    /// Jobs whose content the base holds; a folder of any other job is a remainder.
    pub fn jobs_with_content(&self) -> Vec<JobId> {
        self.inner.state().table.jobs_with_content().collect()
    }

    /// How many jobs there are of each state.
    pub fn counts(&self) -> [(JobState, usize); 6] {
        self.inner.state().table.counts()
    }

    /// Returns when the ledger cannot be written any more: the base has to end.
    pub async fn failed(&self) -> LedgerError {
        let mut failed = self.inner.failed.subscribe();
        let error = failed.wait_for(Option::is_some).await;
        error.ok().and_then(|error| error.clone()).unwrap_or(LedgerError::Closed)
    }

    /// Makes durable what waits, ends all watches and closes the ledger.
    pub async fn close(&self) {
        let marked = self.run(|turn| {
            let mark = turn.act(|table, now, _, _| table.mark(now));
            turn.effects.push(mark);
        });
        // A stop after a failed write has nothing left to make durable.
        let _ = marked.await;
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.inner.watchers().end();
        self.inner.ledger.close().await;
    }

    /// Takes a turn and waits until what came out of it, and before it, is durable and told.
    async fn run<R>(&self, act: impl FnOnce(&mut Turn<'_>) -> R) -> Result<R, Stopped> {
        let (done, told) = oneshot::channel();
        let result = self.inner.enqueue(Some(done), act).await?;
        told.await.map_err(|_gone| Stopped)?;
        Ok(result)
    }

    fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    fn key(&self) -> &Ed25519KeyPair {
        &self.inner.key
    }

    fn session(&self) -> &dyn Session {
        self.inner.session.as_ref()
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.inner.watchers()
    }

    /// The random part of an id.
    fn chance(&self) -> Result<[u8; 10], Stopped> {
        let mut bytes = [0; 10];
        SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| Stopped)?;
        Ok(bytes)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn. The place in the queue is taken before the lock, and filled under it, so
    /// that batches stand in the order of turns.
    async fn enqueue<R>(
        &self,
        done: Option<oneshot::Sender<()>>,
        act: impl FnOnce(&mut Turn<'_>) -> R,
    ) -> Result<R, Stopped> {
        let place = self.turns.reserve().await.map_err(|_closed| Stopped)?;
        let mut state = self.state();
        let (now, wall_ms) = (self.clock)();
        let mut turn = Turn {
            state: &mut state,
            now,
            wall_ms,
            effects: Vec::new(),
            writes: Vec::new(),
            watcher: None,
        };
        let result = act(&mut turn);
        place.send(turn.into_batch(done));
        Ok(result)
    }

    /// Lets happen what came out of a turn.
    fn carry_out(&self, batch: Batch) {
        if let Some((job, queue)) = batch.watcher {
            self.watchers().add(job, &queue);
        }
        for effect in batch.effects {
            self.carry_out_one(effect);
        }
        if let Some(done) = batch.done {
            // Who asked may have gone.
            let _ = done.send(());
        }
    }

    fn carry_out_one(&self, effect: Effect) {
        if let Some((job, event)) = request::event_of(&effect) {
            if let EventBody::Closed(view) = &event.body {
                let reason = view.reason.as_deref().unwrap_or_default();
                tracing::info!(%job, state = view.state.as_str(), reason, "job closed");
                self.session.closed(job, view.state);
            }
            self.watchers().tell(job, &Arc::new(event));
            return;
        }
        match effect {
            Effect::Assign { node, job, order } => self.session.assign(&node, job, order),
            Effect::Query { node, job } => self.session.query(&node, job),
            Effect::DropContent { job } => self.session.drop_content(job),
            Effect::Forgotten { job } => tracing::info!(%job, "job removed everywhere"),
            Effect::Event { .. } | Effect::Persist(_) => {}
        }
    }
}

/// Serves the queue of turns: first durable, then told.
async fn serve(inner: Arc<Inner>, mut queue: mpsc::Receiver<Batch>) {
    let mut batches = Vec::with_capacity(TURNS_MAX);
    while queue.recv_many(&mut batches, TURNS_MAX).await > 0 {
        let writes: Vec<Write> =
            batches.iter_mut().flat_map(|batch| std::mem::take(&mut batch.writes)).collect();
        if !writes.is_empty()
            && let Err(error) = inner.ledger.commit(writes).await
        {
            tracing::error!(%error, "the ledger cannot be written");
            inner.failed.send_replace(Some(error));
            break;
        }
        batches.drain(..).for_each(|batch| inner.carry_out(batch));
    }
    inner.watchers().end();
}

/// Tells the table the time, and watchers how far their jobs are.
async fn tick(inner: Arc<Inner>) {
    let mut interval = tokio::time::interval(TICK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let watched = {
            let mut watchers = inner.watchers();
            watchers.count();
            watchers.jobs()
        };
        let turned = inner.enqueue(None, |turn| {
            turn.input(Input::Tick);
            for job in watched {
                let at_ms = turn.wall_ms;
                let body = turn.table().progress(job);
                turn.effects.extend(body.map(|body| Effect::Event { job, at_ms, body }));
            }
        });
        if turned.await.is_err() {
            return;
        }
    }
}
