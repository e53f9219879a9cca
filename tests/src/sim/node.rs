//! A node of a run: engines on a disk that keeps what was synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::control::{Pace, Receipt, Via};
use shared::id::{JobId, PeerId, Role};
use shared::relay::Effect;
use shared::time::Time;
use shared::wire::codec;
use shared::wire::frame::datagram_frames;
use shared::wire::message::{
    self, Acks, Answer, Assign, Envelope, FrameType, Hello, Offer, Phase, Query, Reconcile, Report,
    Stamp, StateKind, Welcome,
};
use shared::wire::rights;

use super::Variant;
use super::base::forget_acked;
use super::coverage::Scene;
use super::holding::{DiskJob, Holding};
use super::net::{End, Packet};
use super::plan::plan_of;
use super::queue::Event;
use super::world::World;

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) life: u64,
    pub(super) disk: Disk,
    pub(super) running: Option<Running>,
}

/// What survives a crash of the node.
#[derive(Debug)]
pub(super) struct Disk {
    /// Told apart by whoever looks; a wiped disk has another one.
    pub(super) store: u64,
    boot: u64,
    pub(super) jobs: BTreeMap<JobId, DiskJob>,
}

/// The process.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) end: End,
    incarnation: u64,
    /// The highest epoch that was obeyed.
    epoch: u64,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs that are being deleted, with the newest order to do so.
    deleting: BTreeMap<JobId, Stamp>,
}

#[derive(Debug)]
struct Job {
    holding: Holding,
    /// That the job was accepted is on disk.
    accepted: bool,
    /// The order that will be acknowledged then.
    order: Stamp,
    closed: bool,
}

impl Node {
    pub(super) const fn new(store: u64) -> Self {
        Self { life: 0, disk: Disk { store, boot: 0, jobs: BTreeMap::new() }, running: None }
    }
}

impl World {
    /// A node starts, with what its disk has.
    pub(super) fn start_node(&mut self, node: usize) {
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        state.disk.boot += 1;
        let jobs = state.disk.jobs.iter().filter_map(|(id, disk)| {
            let plan = self.plan.jobs.get(plan_of(*id))?;
            let holding = Holding::new(plan, disk, true);
            let order = Stamp::default();
            Some((*id, Job { holding, accepted: true, order, closed: false }))
        });
        let jobs: BTreeMap<JobId, Job> = jobs.collect();
        let ids: Vec<JobId> = jobs.keys().copied().collect();
        let deleting = BTreeMap::new();
        let end = End::new(0);
        state.running = Some(Running { end, incarnation: 0, epoch: 0, jobs, deleting });
        for job in ids {
            self.tell(node, job, Pace::Now);
            self.flush_node(node, job);
        }
        self.dial(node);
    }

    /// A node is killed, and its disk is lost if `wiped`.
    pub(super) fn crash_node(&mut self, node: usize, wiped: bool) {
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        let Some(run) = state.running.take() else {
            return;
        };
        state.life += 1;
        self.coverage.reach(Scene::NodeKilled);
        if run.jobs.values().any(|job| job.holding.is_writing()) {
            self.coverage.reach(Scene::NodeKilledBeforeSync);
        }
        if wiped {
            self.coverage.reach(Scene::DiskWiped);
            self.stores += 1;
            state.disk = Disk { store: self.stores, boot: 0, jobs: BTreeMap::new() };
        }
        self.break_link(node);
    }

    /// The node has a connection: it says who it is.
    pub(super) fn node_connected(&mut self, node: usize) {
        let Some(state) = self.nodes.get(node) else {
            return;
        };
        let mut store = [0; 16];
        for (to, from) in store.iter_mut().zip(state.disk.store.to_be_bytes()) {
            *to = from;
        }
        let incarnation = state.running.as_ref().map_or(0, |run| run.incarnation);
        let boot = state.disk.boot;
        let hello = Hello { version: String::new(), store, boot, incarnation, advertise: None };
        self.send_frame(node, false, FrameType::Hello, &codec::encode(&hello));
    }

    fn welcomed(&mut self, node: usize, welcome: &Welcome) {
        let (now, variant, beats) = (self.now, self.variant, self.plan.beats);
        let ids: Vec<JobId> = self.ids.iter().copied().collect();
        let Some(run) = self.node_run(node) else {
            return;
        };
        run.incarnation = welcome.incarnation;
        if variant == Variant::NoReconcile {
            forget_acked(&mut run.end, &ids);
        }
        run.end.channel.set_term(now, welcome.incarnation);
        run.end.channel.set_beat(beats.then_some(1 << 40));
        run.end.channel.connected(now);
        let deleting = run.deleting.keys();
        let jobs: Vec<JobId> = run.jobs.keys().chain(deleting).copied().collect();
        if variant != Variant::NoReconcile {
            let known = Reconcile { jobs, more: false };
            self.send_frame(node, false, FrameType::Reconcile, &codec::encode(&known));
        }
        self.touched.push((node, false));
    }

    /// The connection of the node is gone.
    pub(super) fn node_lost(&mut self, node: usize) {
        let Some(run) = self.node_run(node) else {
            return;
        };
        for job in run.jobs.keys().copied().collect::<Vec<_>>() {
            self.at_job(node, job, |job, _, fx| {
                job.holding.relay.peer_lost(&PeerId::Base, fx);
            });
            if let Some(run) = self.node_run(node) {
                run.end.channel.forget(StateKind::Want, job);
            }
        }
    }

    fn node_run(&mut self, node: usize) -> Option<&mut Running> {
        self.nodes.get_mut(node)?.running.as_mut()
    }

    /// Runs `act` on a job of a node and carries out the engine's effects.
    fn at_job<T>(
        &mut self,
        node: usize,
        job: JobId,
        act: impl FnOnce(&mut Job, Time, &mut Vec<Effect>) -> T,
    ) -> Option<T> {
        let mut fx = Vec::new();
        let now = self.now;
        let result = act(self.node_run(node)?.jobs.get_mut(&job)?, now, &mut fx);
        for effect in fx {
            match effect {
                Effect::Want { want, .. } => {
                    let body = codec::encode(&want);
                    self.say((node, false), StateKind::Want, job, body, Pace::Now);
                }
                Effect::Report { urgent } => {
                    self.tell(node, job, if urgent { Pace::Now } else { Pace::Relaxed });
                }
                // Nodes do not feed each other in this run.
                Effect::Offer { .. } | Effect::Ready { .. } | Effect::Count(_) => {}
            }
        }
        Some(result)
    }

    /// Reports on a job that is accepted.
    fn tell(&mut self, node: usize, job: JobId, pace: Pace) {
        let now = self.now;
        let Some(known) = self.node_run(node).and_then(|run| run.jobs.get_mut(&job)) else {
            return;
        };
        if known.accepted {
            let report = known.holding.relay.report(now);
            self.report(node, job, &report, pace);
        }
    }

    fn report(&mut self, node: usize, job: JobId, report: &Report, pace: Pace) {
        if report.phase == Phase::Complete {
            self.check_claim(node, job);
        }
        self.say((node, false), StateKind::Report, job, codec::encode(report), pace);
    }

    /// A packet has come to a node.
    pub(super) fn at_node(&mut self, node: usize, packet: Packet) {
        match packet {
            Packet::Datagram(bytes) => self.node_frames(node, Via::Datagram, &bytes),
            Packet::Control(bytes) => self.node_frames(node, Via::Stream, &bytes),
            Packet::Record { job, is_page, number, damaged } => {
                let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
                    return;
                };
                let plan = Arc::clone(plan);
                let record = (is_page, number, damaged);
                let early = self.variant == Variant::DoneBeforeDurable;
                let result = self.at_job(node, job, |job, now, fx| {
                    let result = job.holding.record(now, &plan, &PeerId::Base, record, fx);
                    if early {
                        job.holding.claim_too_early(fx);
                    }
                    result
                });
                self.record_taken(node, false, result);
                self.flush_node(node, job);
            }
            Packet::Request { .. } | Packet::Reply { .. } | Packet::Closed { .. } => {}
        }
    }

    fn flush_node(&mut self, node: usize, job: JobId) {
        let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
            return;
        };
        let plan = Arc::clone(plan);
        let begun = self.at_job(node, job, |job, _, _| job.holding.begin_flush(&plan));
        if begun == Some(true) {
            self.sync(node, job);
        }
    }

    fn sync(&mut self, node: usize, job: JobId) {
        let (least, most) = self.plan.sync;
        let at = self.now + self.chance.millis(least..=most);
        self.strike_within(at, Some(node));
        let life = self.nodes.get(node).map_or(0, |state| state.life);
        self.queue.push(at, Event::Flushed { node: Some(node), life, job });
    }

    pub(super) fn node_flushed(&mut self, node: usize, life: u64, job: JobId) {
        let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
            return;
        };
        let plan = Arc::clone(plan);
        let Some(state) = self.nodes.get_mut(node).filter(|state| state.life == life) else {
            return;
        };
        let holds = |run: &Running| run.jobs.contains_key(&job);
        if !state.running.as_ref().is_some_and(holds) {
            return;
        }
        // The record is on disk before the engine learns of it.
        let mut disk = state.disk.jobs.get(&job).cloned().unwrap_or_default();
        let mut fx = Vec::new();
        let Some(known) = state.running.as_mut().and_then(|run| run.jobs.get_mut(&job)) else {
            return;
        };
        known.holding.flushed(&plan, &mut disk, &mut fx);
        let fresh = !std::mem::replace(&mut known.accepted, true);
        let order = known.order;
        if disk.complete && !state.disk.jobs.get(&job).is_some_and(|before| before.complete) {
            self.completed.insert((node, state.disk.store, job));
            if self.closed.contains_key(&job) {
                self.coverage.reach(Scene::CompletedAfterClosing);
            }
        }
        state.disk.jobs.insert(job, disk);
        self.at_job(node, job, |_, _, out| out.append(&mut fx));
        if fresh {
            self.tell(node, job, Pace::Now);
            self.take_up(node, job, order);
        }
        self.flush_node(node, job);
    }

    fn take_up(&mut self, node: usize, job: JobId, order: Stamp) {
        let now = self.now;
        if let Some(run) = self.node_run(node) {
            run.end.channel.accept(now, StateKind::Assign, job, order);
            self.touched.push((node, false));
        }
    }

    fn node_frames(&mut self, node: usize, via: Via, bytes: &[u8]) {
        for frame in datagram_frames(bytes).unwrap_or_default() {
            let Some(kind) = FrameType::from_byte(frame.kind) else {
                continue;
            };
            if !rights::may_send(Role::Base, kind, Role::Node) {
                self.fail("I12", format!("the base sends {kind:?} to a node"));
                return;
            }
            self.node_frame(node, via, kind, &frame.body);
        }
    }

    fn node_frame(&mut self, node: usize, via: Via, kind: FrameType, body: &[u8]) {
        let now = self.now;
        match kind {
            FrameType::Welcome => {
                if let Ok(welcome) = message::decode::<Welcome>(body) {
                    self.welcomed(node, &welcome);
                }
            }
            FrameType::Acks => {
                if let Ok(acks) = message::decode::<Acks>(body) {
                    self.node_acked(node, &acks);
                }
            }
            FrameType::Query => {
                let Ok(Query { job, nonce }) = message::decode(body) else {
                    return;
                };
                let report = self.at_job(node, job, |job, now, _| {
                    job.accepted.then(|| job.holding.relay.report(now))
                });
                let answer = Answer { job, nonce, report: report.flatten() };
                self.send_frame(node, false, FrameType::Answer, &codec::encode(&answer));
            }
            _ => {
                let (Some(kind), Ok(state)) = (kind.state(), message::decode::<Envelope>(body))
                else {
                    return;
                };
                let Some(run) = self.node_run(node) else {
                    return;
                };
                if run.end.channel.receive(now, via, kind, &state) == Receipt::New {
                    self.check_newer(node, false, kind, &state);
                    self.node_state(node, kind, &state);
                } else {
                    self.coverage.reach(Scene::OldState);
                }
                self.touched.push((node, false));
            }
        }
    }

    /// Nothing need be kept about a job that is gone here once the base knows.
    fn node_acked(&mut self, node: usize, acks: &Acks) {
        let now = self.now;
        let Some(run) = self.node_run(node) else {
            return;
        };
        run.end.channel.acked(now, acks);
        for ack in acks.0.iter().filter(|ack| ack.kind == StateKind::Report) {
            let gone = !run.jobs.contains_key(&ack.job) && !run.deleting.contains_key(&ack.job);
            if gone && run.end.channel.is_acked(StateKind::Report, ack.job) {
                run.end.channel.forget(StateKind::Report, ack.job);
                for kind in [StateKind::Assign, StateKind::Offer] {
                    run.end.channel.release(now, kind, ack.job);
                }
            }
        }
        self.touched.push((node, false));
    }

    fn node_state(&mut self, node: usize, kind: StateKind, state: &Envelope) {
        let (now, job, stamp) = (self.now, state.job, state.stamp);
        match kind {
            StateKind::Assign => {
                let Ok(order) = message::decode::<Assign>(&state.body) else {
                    return;
                };
                self.obey(node, job, stamp, &order);
            }
            StateKind::Offer => {
                let Ok(offer) = message::decode::<Offer>(&state.body) else {
                    return;
                };
                self.at_job(node, job, |job, _, fx| {
                    job.holding.relay.offered(&PeerId::Base, offer, fx);
                });
                if let Some(run) = self.node_run(node) {
                    run.end.channel.accept(now, kind, job, stamp);
                }
            }
            StateKind::Want | StateKind::Report | StateKind::View => {}
        }
    }

    fn obey(&mut self, node: usize, job: JobId, stamp: Stamp, order: &Assign) {
        let Some(run) = self.node_run(node) else {
            return;
        };
        if stamp.term < run.epoch {
            let text = format!("n{node} obeys epoch {} after {}", stamp.term, run.epoch);
            return self.fail("I14", text);
        }
        run.epoch = stamp.term;
        if *order == Assign::Drop {
            run.jobs.remove(&job);
            run.end.channel.forget(StateKind::Want, job);
            run.deleting.insert(job, stamp);
            let (least, most) = self.plan.sync;
            let at = self.now + self.chance.millis(least..=most);
            let life = self.nodes.get(node).map_or(0, |state| state.life);
            return self.queue.push(at, Event::Deleted { node, life, job, stamp });
        }
        let closed = matches!(order, Assign::Closed(_));
        if let Some(known) = run.jobs.get_mut(&job) {
            known.closed |= closed;
            known.order = stamp;
            if known.accepted {
                self.tell(node, job, Pace::Now);
                self.take_up(node, job, stamp);
            }
            return;
        }
        self.check_not_dropped(node, job);
        let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
            return;
        };
        let holding = Holding::new(plan, &DiskJob::default(), true);
        if let Some(run) = self.node_run(node) {
            run.jobs.insert(job, Job { holding, accepted: false, order: stamp, closed });
            self.sync(node, job);
        }
    }

    /// A job is deleted for good.
    pub(super) fn deleted(&mut self, node: usize, life: u64, job: JobId, stamp: Stamp) {
        let Some(state) = self.nodes.get_mut(node).filter(|state| state.life == life) else {
            return;
        };
        let Some(run) = &mut state.running else {
            return;
        };
        if run.deleting.get(&job) != Some(&stamp) {
            // A newer order has its own event.
            return;
        }
        run.deleting.remove(&job);
        state.disk.jobs.remove(&job);
        self.dropped.insert((node, state.disk.store, job));
        self.coverage.reach(Scene::Dropped);
        let report = Report::of_nothing(Phase::Dropped);
        self.report(node, job, &report, Pace::Now);
        self.take_up(node, job, stamp);
    }
}
