//! The base's job table: which jobs there are, how far each node is, and when a job closes.
//!
//! A pure state machine. Time comes in twice: `now` of a monotonic clock, on which deadlines
//! count (see [`clock`] for how they survive a restart), and `wall_ms`, which is for display
//! only. What must survive a restart comes out as [`Effect::Persist`], and all that stands
//! behind it in the list of effects waits until it is durable: nobody is told of an end that
//! a killed base could forget.
//!
//! The rules, each with a test of its name:
//! * a job is created once per client and key; its name is unique among the open jobs;
//! * a node's completion counts when the end of the job is durable at the base;
//! * progress of one incarnation never goes back; a newer one that has less, or any that
//!   revokes, makes a completion `lost`;
//! * a job closes when all its nodes are complete; or else at its deadline each missing node
//!   is queried once, has [`crate::limit::QUERY_PATIENCE`] to answer, and the job closes as
//!   complete if the quorum is reached and as partial, naming each missing node, if not;
//! * closing is final: later words of nodes change only their own lines;
//! * a job whose publisher is gone for longer than its grace fails;
//! * failed, cancelled and removed jobs are dropped everywhere; who is away is told on return.

pub mod clock;
mod effect;
mod entry;
mod line;
mod presence;
mod query;
mod row;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::id::{JobId, Name};
use crate::job::ServerList;
use crate::limit;
use crate::time::Time;
use crate::view::{EventBody, JobState};
use crate::wire::message::{Assign, Phase, Report};
use crate::wire::request::JobRef;

pub use effect::{Created, Effect, Input, NewJob, TableError};
pub use row::{Head, NodeRecord, Restored, Row, Status, Transition, Verdict};

use clock::{BaseClock, CHECKPOINT_EVERY};
use entry::{Job, Turn};
use presence::Presence;

/// How long the base keeps the content of a job that closed as complete or partial.
pub const CONTENT_KEPT: Duration = Duration::from_secs(3_600);
/// Lines (jobs times their nodes) of open jobs: about 120 MiB. A job beyond is refused.
pub const LINES_OPEN_MAX: usize = 1_000_000;
/// Lines of closed jobs in memory; the oldest jobs beyond stay in the ledger only.
pub const LINES_CLOSED_MAX: usize = 200_000;
/// Ids of jobs that are in the ledger only, 17 bytes each. With more of them, a job that a
/// node knows and the table does not is left alone.
pub const ARCHIVED_MAX: usize = 1_000_000;
/// Closed jobs that a node with a new store is asked about.
const RECHECK_MAX: usize = limit::JOBS_OPEN_MAX;

/// The job table.
#[derive(Debug)]
pub struct JobTable {
    clock: BaseClock,
    marked: Time,
    jobs: BTreeMap<JobId, Job>,
    open: BTreeSet<JobId>,
    open_names: BTreeMap<Name, JobId>,
    /// Closed jobs by the time they closed.
    closed: BTreeSet<(u64, JobId)>,
    /// Closed jobs that some node has yet to complete or to drop.
    unsettled: BTreeSet<JobId>,
    keys: BTreeMap<(Name, [u8; 16]), JobId>,
    archived: BTreeMap<JobId, bool>,
    lines_open: usize,
    lines_closed: usize,
    presence: Presence,
    lossy: bool,
}

impl JobTable {
    /// The table of a base that starts when its clocks show `now` and `wall_ms`.
    pub fn new(now: Time, wall_ms: u64, restored: Restored) -> Self {
        let start = Time::from_micros(restored.clock_us);
        let mut table = Self {
            clock: BaseClock::new(now, wall_ms, start),
            marked: start,
            jobs: BTreeMap::new(),
            open: BTreeSet::new(),
            open_names: BTreeMap::new(),
            closed: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            keys: BTreeMap::new(),
            archived: restored.archived.into_iter().collect(),
            lines_open: 0,
            lines_closed: 0,
            presence: Presence::default(),
            lossy: restored.lossy,
        };
        for row in restored.rows {
            table.readmit(now, row);
        }
        table.evict(&mut Vec::new(), now, wall_ms);
        table
    }

    /// Takes back a job of the ledger, such as one that was asked for by name.
    pub fn readmit(&mut self, now: Time, row: Row) {
        let id = row.head.id;
        if !self.jobs.contains_key(&id) {
            self.archived.remove(&id);
            self.insert(Job::restore(row, self.clock.at(now)));
        }
    }

    /// The job that `client` created under `key`, if any is in memory.
    pub fn by_key(&self, client: &Name, key: &[u8; 16]) -> Option<JobId> {
        self.keys.get(&(client.clone(), *key)).copied()
    }

    /// Creates a job, or finds the one that the client created under the same key.
    ///
    /// # Errors
    /// [`TableError`] if the name is taken, nothing is selected, or a limit is reached.
    pub fn create(
        &mut self,
        now: Time,
        wall_ms: u64,
        new: NewJob,
        fx: &mut Vec<Effect>,
    ) -> Result<Created, TableError> {
        if let Some(id) = self.by_key(&new.client, &new.key) {
            return Ok(Created { id, fresh: false });
        }
        self.admissible(&new)?;
        let at = self.clock.at(now);
        let id = new.id;
        let status = Status::new(new.dimensions.size);
        let head = Head {
            id,
            servers: self.shared_list(new.servers),
            client: new.client,
            key: new.key,
            name: new.name,
            dimensions: new.dimensions,
            object: new.object,
            created_ms: wall_ms,
            created_us: at.as_micros(),
        };
        let transition = Transition::Created(Box::new(head.clone()), Box::new(status.clone()));
        fx.push(Effect::Persist(transition));
        fx.push(Effect::Event { job: id, at_ms: wall_ms, body: EventBody::Created });
        self.insert(Job::new(head, status, at));
        self.with(now, wall_ms, id, fx, |job, turn| {
            job.assign_all(turn);
            (0..job.lines.len()).for_each(|index| job.tell(index, turn));
        });
        Ok(Created { id, fresh: true })
    }

    fn admissible(&self, new: &NewJob) -> Result<(), TableError> {
        let nodes = new.servers.names().len();
        if let Some(id) = self.open_names.get(&new.name) {
            let own = self.jobs.get(id).filter(|job| job.head.client == new.client);
            let own = own.map(Job::id);
            return Err(TableError::NameTaken { name: new.name.clone(), own });
        }
        if nodes == 0 {
            return Err(TableError::NoServers);
        }
        if nodes > limit::SERVERS_MAX {
            return Err(TableError::TooManyServers(nodes));
        }
        if self.open.len() >= limit::JOBS_OPEN_MAX {
            return Err(TableError::TooManyJobs);
        }
        if self.lines_open + nodes > LINES_OPEN_MAX {
            return Err(TableError::TooManyLines);
        }
        Ok(())
    }

    /// One copy of equal lists: many jobs go to all nodes.
    fn shared_list(&self, list: Arc<ServerList>) -> Arc<ServerList> {
        let mut known = self.jobs.values().map(|job| &job.head.servers);
        known.find(|other| **other == list).cloned().unwrap_or(list)
    }

    /// Takes up what happened. Effects are appended in the order in which they hold.
    pub fn step(&mut self, now: Time, wall_ms: u64, input: Input, fx: &mut Vec<Effect>) {
        match input {
            Input::NodeUp { node, incarnation: _, new_store } => {
                self.presence.set(&node, true);
                self.node_up(now, wall_ms, &node, new_store, fx);
            }
            Input::NodeSilent { node: _ } => {}
            Input::NodeDown { node } => {
                self.presence.set(&node, false);
                let jobs = self.open.iter().copied().collect();
                self.at_node(now, wall_ms, (&node, jobs), fx, Job::node_down);
            }
            Input::NodeForgotten { node } => {
                self.presence.forget(&node);
                let jobs = self.unsettled.iter().copied().collect();
                self.at_node(now, wall_ms, (&node, jobs), fx, Job::excuse);
            }
            Input::Known { node, job } => {
                self.named(now, wall_ms, (&node, job), fx, |job, index, turn| {
                    job.assign(index, turn);
                });
            }
            Input::Report { node, incarnation, job, report } => {
                let listed = self.jobs.get(&job).is_some_and(|job| job.index(&node).is_some());
                if report.phase == Phase::Dropped && !listed {
                    return;
                }
                self.named(now, wall_ms, (&node, job), fx, |job, index, turn| {
                    job.hear(index, (incarnation, &report), false, turn);
                });
            }
            Input::Answer { node, incarnation, job, report } => {
                self.answer(now, wall_ms, (node, incarnation, job), report, fx);
            }
            Input::Content { job, bytes, end } => {
                self.with(now, wall_ms, job, fx, |job, turn| {
                    job.content(bytes, end, turn);
                });
            }
            Input::ContentDropped { job } => {
                self.with(now, wall_ms, job, fx, |job, turn| job.content_dropped(turn));
            }
            Input::PublisherBack { job } => {
                self.with(now, wall_ms, job, fx, |job, turn| {
                    job.publisher(true, turn.now);
                });
            }
            Input::PublisherGone { job } => {
                self.with(now, wall_ms, job, fx, |job, turn| {
                    job.publisher(false, turn.now);
                });
            }
            Input::Tick => self.tick(now, wall_ms, fx),
        }
    }

    fn answer(
        &mut self,
        now: Time,
        wall_ms: u64,
        (node, incarnation, job): (Name, u64, JobId),
        report: Option<Report>,
        fx: &mut Vec<Effect>,
    ) {
        if self.jobs.contains_key(&job) {
            self.named(now, wall_ms, (&node, job), fx, |job, index, turn| {
                job.answered(index, (incarnation, report.as_ref()), turn);
            });
        }
    }

    fn node_up(
        &mut self,
        now: Time,
        wall_ms: u64,
        node: &Name,
        new_store: bool,
        fx: &mut Vec<Effect>,
    ) {
        let mut jobs: BTreeSet<JobId> = self.open.union(&self.unsettled).copied().collect();
        if new_store {
            let closed = self.closed.iter().rev().map(|(_, id)| *id);
            jobs.extend(closed.take(RECHECK_MAX));
        }
        let jobs = jobs.into_iter().collect();
        self.at_node(now, wall_ms, (node, jobs), fx, |job, index, turn| {
            job.node_up(index, new_store, turn);
        });
    }

    fn tick(&mut self, now: Time, wall_ms: u64, fx: &mut Vec<Effect>) {
        let at = self.clock.at(now);
        let coming_back = at.since(self.clock.start()) < limit::DOWN_AFTER;
        if !coming_back && !self.presence.is_settled() {
            self.presence.settle();
            for id in self.open.clone() {
                self.with(now, wall_ms, id, fx, |job, turn| {
                    (0..job.lines.len()).for_each(|index| job.tell(index, turn));
                });
            }
        }
        let due = |job: &&Job| job.wake().is_some_and(|wake| wake <= at);
        let due: Vec<JobId> = self.jobs.values().filter(due).map(Job::id).collect();
        for id in due {
            self.with(now, wall_ms, id, fx, |job, turn| job.on_time(turn));
        }
        if self.is_timing() && at.since(self.marked) >= CHECKPOINT_EVERY {
            fx.push(self.mark(now));
        }
    }

    /// The effect that writes base time down: for a clean stop.
    pub fn mark(&mut self, now: Time) -> Effect {
        self.marked = self.clock.at(now);
        Effect::Persist(Transition::Clock(self.marked.as_micros()))
    }

    fn is_timing(&self) -> bool {
        !self.open.is_empty() || self.jobs.values().any(|job| job.wake().is_some())
    }

    /// When [`Input::Tick`] is due next, on the clock that `now` is of.
    pub fn next_wake(&self) -> Option<Time> {
        let jobs = self.jobs.values().filter_map(Job::wake).min();
        let mark = self.is_timing().then(|| self.marked + CHECKPOINT_EVERY);
        let settle = !self.presence.is_settled() && !self.open.is_empty();
        let settle = settle.then(|| self.clock.start() + limit::DOWN_AFTER);
        let first = [jobs, mark, settle].into_iter().flatten().min();
        first.map(|at| self.clock.process_time(at))
    }

    /// Cancels an open job; one that is cancelled already stays so.
    ///
    /// # Errors
    /// [`TableError::Closed`] if it closed otherwise, [`TableError::UnknownJob`].
    pub fn cancel(
        &mut self,
        now: Time,
        wall_ms: u64,
        (id, reason): (JobId, &str),
        fx: &mut Vec<Effect>,
    ) -> Result<(), TableError> {
        self.end(now, wall_ms, (id, reason, JobState::Cancelled), fx)
    }

    /// Lets an open job fail; one that has failed already stays so.
    ///
    /// # Errors
    /// [`TableError::Closed`] if it closed otherwise, [`TableError::UnknownJob`].
    pub fn fail(
        &mut self,
        now: Time,
        wall_ms: u64,
        (id, reason): (JobId, &str),
        fx: &mut Vec<Effect>,
    ) -> Result<(), TableError> {
        self.end(now, wall_ms, (id, reason, JobState::Failed), fx)
    }

    fn end(
        &mut self,
        now: Time,
        wall_ms: u64,
        (id, reason, state): (JobId, &str, JobState),
        fx: &mut Vec<Effect>,
    ) -> Result<(), TableError> {
        let job = self.jobs.get(&id).ok_or(TableError::UnknownJob(JobRef::Id(id)))?;
        match job.status.state {
            closed if closed == state => return Ok(()),
            closed if closed.is_closed() => {
                return Err(TableError::Closed { job: id, state: closed });
            }
            _ => {}
        }
        let reason = line::clip(reason).to_owned();
        self.with(now, wall_ms, id, fx, |job, turn| {
            job.close(state, Some(reason), turn);
        });
        Ok(())
    }

    /// Removes a job everywhere, cancelling it for `reason` if it is open. It is unknown from
    /// now on; a tombstone stays until every node has confirmed.
    ///
    /// # Errors
    /// [`TableError::UnknownJob`].
    pub fn remove(
        &mut self,
        now: Time,
        wall_ms: u64,
        (id, reason): (JobId, &str),
        fx: &mut Vec<Effect>,
    ) -> Result<(), TableError> {
        if !self.jobs.contains_key(&id) {
            return Err(TableError::UnknownJob(JobRef::Id(id)));
        }
        self.with(now, wall_ms, id, fx, |job, turn| job.remove(reason, turn));
        Ok(())
    }

    /// Runs `act` on a job, then files it anew. Unknown jobs are left alone.
    fn with(
        &mut self,
        now: Time,
        wall_ms: u64,
        id: JobId,
        fx: &mut Vec<Effect>,
        act: impl FnOnce(&mut Job, &mut Turn<'_>),
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let now_at = self.clock.at(now);
        let (presence, clock) = (&self.presence, &self.clock);
        act(job, &mut Turn { now: now_at, wall_ms, presence, clock, fx });
        self.refile(id, fx);
        self.evict(fx, now, wall_ms);
    }

    /// Runs `act` on a node's line of those of `jobs` that it is on the list of.
    fn at_node(
        &mut self,
        now: Time,
        wall_ms: u64,
        (node, jobs): (&Name, Vec<JobId>),
        fx: &mut Vec<Effect>,
        act: impl Fn(&mut Job, usize, &mut Turn<'_>),
    ) {
        for id in jobs {
            if let Some(index) = self.jobs.get(&id).and_then(|job| job.index(node)) {
                self.with(now, wall_ms, id, fx, |job, turn| act(job, index, turn));
            }
        }
    }

    /// Runs `act` on a node's line of a job that the node named. A job that is unknown, or not
    /// meant for the node, is to be dropped there.
    fn named(
        &mut self,
        now: Time,
        wall_ms: u64,
        (node, id): (&Name, JobId),
        fx: &mut Vec<Effect>,
        act: impl FnOnce(&mut Job, usize, &mut Turn<'_>),
    ) {
        let index = self.jobs.get(&id).map(|job| job.index(node));
        let drop = match (index, self.archived.get(&id)) {
            (Some(Some(index)), _) => {
                self.with(now, wall_ms, id, fx, |job, turn| act(job, index, turn));
                false
            }
            (Some(None), _) => true,
            (None, Some(drop)) => *drop,
            (None, None) => !self.lossy,
        };
        if drop {
            fx.push(Effect::Assign { node: node.clone(), job: id, order: Assign::Drop });
        }
    }

    fn insert(&mut self, job: Job) {
        let (id, head) = (job.id(), &job.head);
        self.keys.insert((head.client.clone(), head.key), id);
        if job.is_closed() {
            self.lines_closed += job.lines.len();
            self.closed.insert((job.status.closed_us.unwrap_or(0), id));
            if job.is_unsettled() {
                self.unsettled.insert(id);
            }
        } else {
            self.lines_open += job.lines.len();
            self.open.insert(id);
            self.open_names.insert(head.name.clone(), id);
        }
        self.jobs.insert(id, job);
    }

    /// Moves a job that has just closed, and forgets one of which nothing is left.
    fn refile(&mut self, id: JobId, fx: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.is_closed()) else {
            return;
        };
        match job.is_unsettled() {
            true => self.unsettled.insert(id),
            false => self.unsettled.remove(&id),
        };
        if self.open.remove(&id) {
            self.open_names.remove(&job.head.name);
            self.lines_open = self.lines_open.saturating_sub(job.lines.len());
            self.lines_closed += job.lines.len();
            self.closed.insert((job.status.closed_us.unwrap_or(0), id));
        }
        if job.is_forgettable() {
            self.take_out(id);
            fx.push(Effect::Persist(Transition::Forgotten(id)));
            fx.push(Effect::Forgotten { job: id });
        }
    }

    fn take_out(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        self.keys.remove(&(job.head.client.clone(), job.head.key));
        self.closed.remove(&(job.status.closed_us.unwrap_or(0), id));
        self.unsettled.remove(&id);
        self.lines_closed = self.lines_closed.saturating_sub(job.lines.len());
        Some(job)
    }

    /// Keeps closed jobs within their limits: the oldest stay in the ledger only.
    fn evict(&mut self, fx: &mut Vec<Effect>, now: Time, wall_ms: u64) {
        while self.closed.len() > limit::JOBS_CLOSED_MAX || self.lines_closed > LINES_CLOSED_MAX {
            let Some((_, id)) = self.closed.first().copied() else {
                return;
            };
            let at = self.clock.at(now);
            if let Some(job) = self.jobs.get_mut(&id) {
                let (presence, clock) = (&self.presence, &self.clock);
                job.drop_content(&mut Turn { now: at, wall_ms, presence, clock, fx });
            }
            let dropping = self.take_out(id).is_some_and(|job| job.status.is_dropping());
            self.archived.insert(id, dropping);
            if self.archived.len() > ARCHIVED_MAX {
                self.archived.pop_first();
                self.lossy = true;
            }
        }
    }
}
