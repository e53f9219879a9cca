//! What must hold: the invariants, asserted as the run goes on and when it is over.

use shared::id::JobId;
use shared::limit;
use shared::time::Time;
use shared::view::{EventBody, JobState, JobView, NodeJobState};
use shared::wire::message::{Envelope, Phase, Report, StateKind};

use super::Violation;
use super::coverage::Scene;
use super::plan::{CLIENT, Ending, NODES, node_name, plan_of};
use super::world::World;

impl World {
    /// Notes the first thing that is not as it must be, which ends the run.
    pub(super) fn fail(&mut self, invariant: &'static str, text: String) {
        let at = self.now;
        self.violation.get_or_insert(Violation { invariant, at, text });
    }

    pub(super) fn is_listed(&self, node: usize, job: JobId) -> bool {
        self.plan.jobs.get(plan_of(job)).is_some_and(|plan| plan.servers.contains(&node))
    }

    /// I1: what a node reports as complete is on its disk.
    pub(super) fn check_claim(&mut self, node: usize, job: JobId) {
        let disk = self.nodes.get(node).and_then(|state| state.disk.jobs.get(&job));
        let plan = self.plan.jobs.get(plan_of(job));
        let holds = disk.zip(plan).is_some_and(|(disk, plan)| disk.complete && disk.is_whole(plan));
        if !holds {
            self.fail("I1", format!("n{node} reports {job} as complete, which is not on disk"));
        }
    }

    /// I3: what a node reports never goes back while it has its disk.
    pub(super) fn check_progress(&mut self, node: usize, job: JobId, report: &Report) {
        let Some(store) = self.nodes.get(node).map(|state| state.disk.store) else {
            return;
        };
        if report.phase == Phase::Dropped {
            self.reported.remove(&(node, store, job));
            return;
        }
        let before = self.reported.insert((node, store, job), report.bytes);
        let had = |of: &(usize, u64, JobId)| of.0 == node && of.1 != store && of.2 == job;
        if before.is_none() && self.completed.iter().any(had) {
            self.coverage.reach(Scene::CompletionLost);
        }
        let before = before.unwrap_or(0);
        if report.bytes < before {
            let text = format!("n{node} reports {} bytes of {job} after {before}", report.bytes);
            self.fail("I3", text);
        }
    }

    /// I9: what is taken up of a key is newer than what was before.
    pub(super) fn check_newer(
        &mut self,
        link: usize,
        at_base: bool,
        kind: StateKind,
        state: &Envelope,
    ) {
        let life = match (at_base, self.nodes.get(link)) {
            (true, _) => self.base.life,
            (false, Some(node)) => node.life,
            (false, None) => 0,
        };
        let key = (link, at_base, life, kind, state.job);
        let before = self.taken_up.insert(key, state.stamp);
        if let Some(before) = before.filter(|before| *before >= state.stamp) {
            let (new, job) = (state.stamp, state.job);
            self.fail(
                "I9",
                format!("link {link} takes up {kind:?} {new:?} of {job} after {before:?}"),
            );
        }
    }

    /// A client's states live as long as its connection.
    pub(super) fn forget_stamps(&mut self, link: usize) {
        self.taken_up.retain(|(of, ..), _| *of != link);
    }

    /// I6: an order to open a job never follows the deletion of it.
    pub(super) fn check_not_dropped(&mut self, node: usize, job: JobId) {
        let store = self.nodes.get(node).map_or(0, |state| state.disk.store);
        if self.dropped.contains(&(node, store, job)) {
            self.fail("I6", format!("n{node} opens {job} again, which it had dropped"));
        }
    }

    /// I5: a job is told as complete only if the nodes that count have it for good; I6: once.
    pub(super) fn check_closed(&mut self, job: JobId, view: &JobView) {
        if let Some(before) = self.closed.insert(job, view.state) {
            self.fail("I6", format!("{job} closes as {:?} after {before:?}", view.state));
        }
        self.coverage.reach(match view.state {
            JobState::Complete => Scene::ClosedComplete,
            JobState::Partial => Scene::ClosedPartial,
            JobState::Cancelled => Scene::ClosedCancelled,
            JobState::Failed | JobState::Receiving | JobState::Distributing => Scene::ClosedFailed,
        });
        let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
            return;
        };
        let has = |node: &usize| {
            let mut of = self.completed.iter();
            of.any(|(done, _, what)| done == node && *what == job)
        };
        let having = plan.servers.iter().filter(|node| has(node)).count();
        let listed = plan.servers.len();
        if view.state == JobState::Complete && having < listed {
            let text = format!("{job} is complete, {having} of {listed} nodes have it");
            return self.fail("I5", text);
        }
        for (node, line) in (0..NODES).flat_map(|node| {
            let name = node_name(node);
            let lines = view.nodes.iter().filter(move |line| line.name == name.as_str());
            lines.map(move |line| (node, line))
        }) {
            if line.state == NodeJobState::Complete && !has(&node) {
                return self.fail("I5", format!("{job}: n{node} counts as complete"));
            }
        }
    }

    pub(super) fn was_closed(&self, job: JobId) -> bool {
        self.closed.contains_key(&job)
    }

    /// I6: what was told as closed stays as it is.
    pub(super) fn check_states(&mut self) {
        let Some(run) = &self.base.running else {
            return;
        };
        let changed = self.closed.iter().find_map(|(job, told)| {
            let state = run.table.status(*job)?.state;
            (state != *told).then(|| format!("{job} is {state:?} after it closed as {told:?}"))
        });
        if let Some(text) = changed {
            self.fail("I6", text);
        }
    }

    /// I3 as the client sees it, and I7.
    pub(super) fn look(&mut self) {
        self.check_states();
        self.check_bounds();
        let Some(run) = &self.base.running else {
            return;
        };
        let mut seen = Vec::new();
        for job in run.table.open_jobs() {
            let Some(EventBody::Progress { nodes, .. }) = run.table.progress(job) else {
                continue;
            };
            for line in nodes {
                let node = line.name.get(1..).and_then(|node| node.parse::<usize>().ok());
                let Some(node) = node else { continue };
                seen.push(((run.epoch, node, job), line.bytes, line.state));
            }
        }
        for (key, bytes, state) in seen {
            let store = self.nodes.get(key.1).map_or(0, |node| node.disk.store);
            let before = self.seen.insert(key, (store, bytes));
            let back = before.filter(|(of, before)| *of == store && *before > bytes);
            if let Some((_, before)) = back.filter(|_| state != NodeJobState::Lost) {
                // The first word of a new disk may come after it was seen as the new one.
                if self.reported.get(&(key.1, store, key.2)).is_some_and(|now| *now >= before) {
                    let text =
                        format!("n{} shows {bytes} bytes of {} after {before}", key.1, key.2);
                    self.fail("I3", text);
                }
            }
        }
    }

    /// I4, I5, I6 when all is over: every job has ended as it had to, every node has what it
    /// must have and nothing else, the base says so, and nobody has anything left to say.
    pub(super) fn check_end(&mut self) {
        if let Some(text) = self.find_unfinished() {
            self.fail("I4", text);
        }
        self.look();
    }

    fn find_unfinished(&self) -> Option<String> {
        if !self.client.is_answered() {
            return Some("a request of the client has no answer".to_owned());
        }
        let run = self.base.running.as_ref()?;
        for (plan, wish) in self.plan.jobs.iter().enumerate() {
            let id = self.client.jobs.get(plan)?.id?;
            let status = run.table.status(id);
            let state = status.map(|status| status.state);
            let removed = status.is_none_or(|status| status.removed);
            let ended = match (wish.ending, state) {
                (Ending::Removed(_), _) => removed,
                (_, None | Some(JobState::Receiving | JobState::Distributing)) => false,
                (Ending::Cancelled(_), Some(state)) => {
                    state != JobState::Failed
                        && (state != JobState::Partial || !wish.is_unhurried())
                }
                (Ending::Abandoned(_), Some(state)) => {
                    state == JobState::Failed
                        || (state == JobState::Partial && !wish.is_unhurried())
                }
                (Ending::Pushed, Some(JobState::Partial)) => !wish.is_unhurried(),
                (Ending::Pushed, Some(state)) => state == JobState::Complete,
            };
            if !ended {
                return Some(format!("{id} ({:?}) is {state:?}", wish.ending));
            }
            let told = self.closed.get(&id).copied();
            if state.is_some() && told != state {
                return Some(format!("{id} is {state:?}, the client was told {told:?}"));
            }
            let kept = !removed && matches!(state, Some(JobState::Complete | JobState::Partial));
            // A job that closed before its publisher had finished is complete nowhere, or at
            // some nodes, if the last bytes came just then; the account does not tell.
            let unfinished = kept && status.is_none_or(|status| status.ended_us.is_none());
            if !unfinished && let Some(text) = self.find_wrong_copy(id, plan, kept) {
                return Some(text);
            }
        }
        (0..=CLIENT).find_map(|link| {
            let mut ends = [true, false].into_iter().map(|at_base| self.end(link, at_base));
            let settled = ends.all(|end| end.is_some_and(|end| end.channel.settled()));
            (!settled).then(|| format!("link {link} has something left to say"))
        })
    }

    fn find_wrong_copy(&self, id: JobId, plan: usize, kept: bool) -> Option<String> {
        let wish = self.plan.jobs.get(plan)?;
        let view = self.base.running.as_ref()?.table.view(id);
        for (node, state) in self.nodes.iter().enumerate() {
            let disk = state.disk.jobs.get(&id);
            let listed = wish.servers.contains(&node);
            let right = match disk {
                Some(disk) => listed && kept && disk.complete && disk.is_whole(wish),
                None => !listed || !kept,
            };
            if !right {
                return Some(format!("n{node} should {}have {id}", if kept { "" } else { "not " }));
            }
            let name = node_name(node);
            let line = view.iter().flat_map(|view| &view.nodes);
            let line = line.filter(|line| line.name == name.as_str()).map(|line| line.state).next();
            if kept && listed && line != Some(NodeJobState::Complete) {
                return Some(format!("n{node} has {id}, the base says {line:?}"));
            }
        }
        None
    }

    /// I4: a job with a deadline closes when that is due, if the base was there.
    pub(super) fn check_deadlines(&mut self) {
        let Some(run) = &self.base.running else {
            return;
        };
        let late = run.table.open_jobs().find_map(|job| {
            let created = Time::from_micros(run.table.head(job)?.created_us);
            let wish = self.plan.jobs.get(plan_of(job))?;
            let due =
                created + std::time::Duration::from_secs(wish.deadline_s) + limit::CLOSING_MAX;
            (run.base_time(self.now) > due).then(|| format!("{job} is open after its deadline"))
        });
        if let Some(text) = late {
            self.fail("I4", text);
        }
    }
}
