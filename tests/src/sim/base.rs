//! The base of a run: the job table and the engines with a ledger, and nothing else durable.
//!
//! What the table wants done waits, in order, for the ledger: an order, an answer or an
//! acknowledgement leaves only when the transitions before it are durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use shared::control::Pace;
use shared::id::{JobId, PeerId};
use shared::relay::{self, Next};
use shared::seal::Hash;
use shared::table::{Effect, Input, JobTable};
use shared::time::Time;
use shared::view::EventBody;
use shared::wire::codec;
use shared::wire::frame::put_frame;
use shared::wire::message::{Assign, FrameType, Query, Stamp, StateKind, Welcome};

use super::Variant;
use super::coverage::Scene;
use super::holding::Holding;
use super::ledger::{Ledger, Registered};
use super::net::{End, Packet, Request};
use super::plan::{CLIENT, NODES, client_name, node_name, plan_of};
use super::queue::Event;
use super::world::World;

/// The wall clock when the run begins, in milliseconds since the Unix epoch.
const WALL_MS: u64 = 1_700_000_000_000;

/// The base.
#[derive(Debug, Default)]
pub(super) struct Base {
    pub(super) life: u64,
    pub(super) ledger: Ledger,
    pub(super) running: Option<Running>,
    pub(super) minted: u64,
}

/// The process.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) epoch: u64,
    pub(super) table: JobTable,
    /// When this start was, and what base time it was then.
    pub(super) clock: (Time, Time),
    pub(super) ends: Vec<End>,
    /// The incarnation of each node that is connected and greeted.
    pub(super) greeted: Vec<Option<u64>>,
    /// Nodes that were greeted since this start.
    pub(super) met: BTreeSet<usize>,
    /// Jobs that each node was offered on its connection.
    pub(super) invited: Vec<BTreeSet<JobId>>,
    pub(super) holdings: BTreeMap<JobId, Holding>,
    pub(super) pending: VecDeque<Item>,
    /// How many items at the front are being made durable.
    pub(super) committing: usize,
    pub(super) nodes: BTreeMap<usize, Registered>,
    pub(super) table_wake: Option<Time>,
    /// Jobs that the client offers on its connection.
    pub(super) published: BTreeSet<JobId>,
    /// Jobs that the client has left on its connection: a late offer does not undo that.
    pub(super) left: BTreeSet<JobId>,
}

/// What waits for its turn.
#[derive(Debug)]
pub(super) enum Item {
    Effect(Box<Effect>),
    Register(usize, Registered),
    Welcome { node: usize, generation: u64, incarnation: u64, new_store: bool },
    Accept { link: usize, kind: StateKind, job: JobId, stamp: Stamp },
    Reply { generation: u64, plan: usize, what: Request, job: JobId },
}

impl Running {
    /// The time that the base has been running, over all its starts.
    pub(super) fn base_time(&self, now: Time) -> Time {
        let (started, then) = self.clock;
        then + now.since(started)
    }
}

impl Item {
    fn is_written(&self) -> bool {
        match self {
            Self::Effect(effect) => matches!(**effect, Effect::Persist(_)),
            Self::Register(..) => true,
            Self::Welcome { .. } | Self::Accept { .. } | Self::Reply { .. } => false,
        }
    }
}

/// The client's connection, as the base's engines name it.
pub(super) fn client_peer(generation: u64) -> PeerId {
    PeerId::Client(client_name(), generation)
}

pub(super) fn peer_of(link: usize, generation: u64) -> PeerId {
    if link == CLIENT { client_peer(generation) } else { PeerId::Node(node_name(link)) }
}

fn link_of(peer: &PeerId) -> usize {
    match peer {
        PeerId::Node(name) => name.as_str().get(1..).and_then(|n| n.parse().ok()).unwrap_or(CLIENT),
        PeerId::Base | PeerId::Client(..) => CLIENT,
    }
}

impl World {
    pub(super) fn wall_ms(&self) -> u64 {
        WALL_MS + self.now.as_micros() / 1_000
    }

    /// The base starts, with what its ledger has.
    pub(super) fn start_base(&mut self) {
        let (epoch, restored) = self.base.ledger.start();
        let nodes = self.base.ledger.nodes.clone();
        let clock = (self.now, Time::from_micros(restored.clock_us));
        let wall_ms = self.wall_ms();
        let table = JobTable::new(self.now, wall_ms, restored);
        let held: Vec<JobId> = table.jobs_with_content().collect();
        let mut holdings = BTreeMap::new();
        let mut contents = Vec::new();
        for job in held {
            let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
                continue;
            };
            let disk = self.base.ledger.content.entry(job).or_default();
            let holding = Holding::new(plan, disk, false);
            contents.push((job, holding.relay.durable_bytes(), disk.is_whole(plan)));
            holdings.insert(job, holding);
        }
        self.base.running = Some(Running {
            epoch,
            table,
            clock,
            ends: (0..=NODES).map(|_| End::new(epoch)).collect(),
            greeted: vec![None; NODES],
            met: BTreeSet::new(),
            invited: vec![BTreeSet::new(); NODES],
            holdings,
            pending: VecDeque::new(),
            committing: 0,
            nodes,
            table_wake: None,
            published: BTreeSet::new(),
            left: BTreeSet::new(),
        });
        for (job, bytes, whole) in contents {
            self.tell_content(job, bytes, whole);
        }
        self.step(Input::Tick);
        self.check_states();
    }

    /// The base is killed.
    pub(super) fn crash_base(&mut self) {
        if let Some(run) = self.base.running.take() {
            self.base.life += 1;
            self.coverage.reach(Scene::BaseKilled);
            if run.committing > 0 {
                self.coverage.reach(Scene::BaseKilledInCommit);
            }
            for link in 0..self.links.len() {
                self.break_link(link);
            }
        }
    }

    /// Tells the table, whose effects wait for their turn.
    pub(super) fn step(&mut self, input: Input) {
        let wall_ms = self.wall_ms();
        let is_catching_up = matches!(input, Input::NodeUp { .. } | Input::Known { .. });
        let mut fx = Vec::new();
        let Some(run) = &mut self.base.running else {
            return;
        };
        run.table.step(self.now, wall_ms, input, &mut fx);
        if is_catching_up && self.variant == Variant::NoReconcile {
            fx.retain(|effect| !matches!(effect, Effect::Assign { .. }));
        }
        self.file(fx);
    }

    pub(super) fn file(&mut self, fx: Vec<Effect>) {
        let Some(run) = &mut self.base.running else {
            return;
        };
        run.pending.extend(fx.into_iter().map(|effect| Item::Effect(Box::new(effect))));
        self.drain();
        let Some(run) = &mut self.base.running else {
            return;
        };
        let wake = run.table.next_wake();
        if let Some(at) = wake.filter(|at| run.table_wake.is_none_or(|set| *at < set)) {
            run.table_wake = Some(at.max(self.now));
            self.queue.push(at.max(self.now), Event::TableWake { life: self.base.life });
        }
    }

    pub(super) fn push(&mut self, item: Item) {
        if let Some(run) = &mut self.base.running {
            run.pending.push_back(item);
        }
        self.drain();
    }

    pub(super) fn table_wake(&mut self, life: u64) {
        let Some(run) = self.base.running.as_mut().filter(|_| self.base.life == life) else {
            return;
        };
        if run.table_wake == Some(self.now) {
            run.table_wake = None;
            self.step(Input::Tick);
        }
    }

    /// Carries out what waits, up to what has to be durable first.
    fn drain(&mut self) {
        loop {
            let Some(run) = &mut self.base.running else {
                return;
            };
            if run.committing > 0 || run.pending.is_empty() {
                return;
            }
            let batch = run.pending.iter().take_while(|item| item.is_written()).count();
            if batch > 0 {
                run.committing = batch;
                let (least, most) = self.plan.commit;
                let at = self.now + self.chance.millis(least..=most);
                self.strike_within(at, None);
                return self.queue.push(at, Event::Committed { life: self.base.life });
            }
            let Some(item) = run.pending.pop_front() else {
                return;
            };
            self.carry_out(item);
        }
    }

    pub(super) fn committed(&mut self, life: u64) {
        let base = &mut self.base;
        let Some(run) = base.running.as_mut().filter(|_| base.life == life) else {
            return;
        };
        for _ in 0..std::mem::take(&mut run.committing) {
            match run.pending.pop_front() {
                Some(Item::Register(node, registered)) => {
                    base.ledger.nodes.insert(node, registered);
                }
                Some(Item::Effect(effect)) => {
                    if let Effect::Persist(transition) = *effect {
                        base.ledger.apply(transition);
                    }
                }
                _ => {}
            }
        }
        self.drain();
    }

    fn carry_out(&mut self, item: Item) {
        match item {
            Item::Register(..) => {}
            Item::Effect(effect) => self.table_effect(*effect),
            Item::Welcome { node, generation, incarnation, new_store } => {
                self.welcome(node, generation, incarnation, new_store);
            }
            Item::Accept { link, kind, job, stamp } => {
                let now = self.now;
                if let Some(end) = self.end_mut(link, true) {
                    end.channel.accept(now, kind, job, stamp);
                    self.touched.push((link, true));
                }
            }
            Item::Reply { generation, plan, what, job } => {
                if self.end(CLIENT, true).is_some_and(|end| end.generation == Some(generation)) {
                    self.send(CLIENT, true, Packet::Reply { plan, what, job });
                }
            }
        }
    }

    fn table_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(_) | Effect::Forgotten { .. } => {}
            Effect::Assign { node, job, order } => {
                let link = link_of(&PeerId::Node(node));
                if order != Assign::Drop && !self.is_listed(link, job) {
                    self.fail("I15", format!("n{link} is told of {job} without being on its list"));
                }
                self.say((link, true), StateKind::Assign, job, codec::encode(&order), Pace::Now);
            }
            Effect::Query { node, job } => {
                self.coverage.reach(Scene::NodeQueried);
                let link = link_of(&PeerId::Node(node));
                let query = Query { job, nonce: self.now.as_micros() };
                self.send_frame(link, true, FrameType::Query, &codec::encode(&query));
            }
            Effect::Event { job, body, .. } => {
                if let EventBody::Closed(view) = body {
                    self.check_closed(job, &view);
                    self.send(CLIENT, true, Packet::Closed { job });
                }
            }
            Effect::DropContent { job } => {
                if let Some(run) = &mut self.base.running {
                    run.holdings.remove(&job);
                    for end in &mut run.ends {
                        end.channel.forget(StateKind::Offer, job);
                        end.channel.forget(StateKind::Want, job);
                    }
                }
                self.base.ledger.content.remove(&job);
                self.step(Input::ContentDropped { job });
            }
        }
    }

    /// Sets a state of one end.
    pub(super) fn say(
        &mut self,
        (link, at_base): (usize, bool),
        kind: StateKind,
        job: JobId,
        body: Vec<u8>,
        pace: Pace,
    ) {
        let now = self.now;
        let Some(end) = self.end_mut(link, at_base) else {
            return;
        };
        let set = end.channel.set(now, kind, job, body, pace);
        self.touched.push((link, at_base));
        if let Err(error) = set {
            self.fail("I7", error.to_string());
        }
    }

    pub(super) fn send_frame(
        &mut self,
        link: usize,
        from_base: bool,
        kind: FrameType,
        body: &[u8],
    ) {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, kind as u8, body);
        let reliable = self.variant != Variant::FireAndForget
            || matches!(kind, FrameType::Hello | FrameType::Welcome);
        let packet = if reliable { Packet::Control(bytes) } else { Packet::Datagram(bytes) };
        self.send(link, from_base, packet);
    }

    fn welcome(&mut self, node: usize, generation: u64, incarnation: u64, new_store: bool) {
        let (now, variant) = (self.now, self.variant);
        let ids: Vec<JobId> = self.ids.iter().copied().collect();
        let Some(run) = &mut self.base.running else {
            return;
        };
        let Some(end) = run.ends.get_mut(node).filter(|end| end.generation == Some(generation))
        else {
            return;
        };
        if variant == Variant::NoReconcile {
            forget_acked(end, &ids);
        }
        end.channel.set_beat(self.plan.beats.then_some(0));
        end.channel.connected(now);
        if let Some(greeted) = run.greeted.get_mut(node) {
            *greeted = Some(incarnation);
        }
        let welcome = Welcome { version: String::new(), epoch: run.epoch, incarnation };
        self.send_frame(node, true, FrameType::Welcome, &codec::encode(&welcome));
        let name = node_name(node);
        self.step(Input::NodeUp { node: name, incarnation, new_store });
        self.touched.push((node, true));
    }

    /// A connection of the base is gone.
    pub(super) fn base_lost(&mut self, link: usize) {
        let Some(run) = &mut self.base.running else {
            return;
        };
        let jobs: Vec<JobId> = run.holdings.keys().copied().collect();
        let generation = self.links.get(link).map_or(0, |state| state.generation);
        if let Some(invited) = run.invited.get_mut(link) {
            invited.clear();
        }
        let was_greeted = run.greeted.get_mut(link).and_then(Option::take).is_some();
        for job in jobs {
            for peer in [peer_of(link, generation), peer_of(link, generation.saturating_sub(1))] {
                self.at_holding(job, |holding, _, fx| holding.relay.peer_lost(&peer, fx));
            }
            if let Some(end) = self.end_mut(link, true) {
                end.channel.forget(StateKind::Offer, job);
                end.channel.forget(StateKind::Want, job);
            }
        }
        if link == CLIENT {
            let Some(run) = &mut self.base.running else {
                return;
            };
            run.left.clear();
            run.published.clear();
            for job in run.table.open_jobs().collect::<Vec<_>>() {
                self.step(Input::PublisherGone { job });
            }
        } else if was_greeted {
            self.step(Input::NodeDown { node: node_name(link) });
        }
    }

    /// Runs `act` on the engine of a job and carries out its effects.
    pub(super) fn at_holding<T>(
        &mut self,
        job: JobId,
        act: impl FnOnce(&mut Holding, Time, &mut Vec<relay::Effect>) -> T,
    ) -> Option<T> {
        let mut fx = Vec::new();
        let holding = self.base.running.as_mut()?.holdings.get_mut(&job)?;
        let result = act(holding, self.now, &mut fx);
        for effect in fx {
            match effect {
                relay::Effect::Want { peer, want } => {
                    let body = codec::encode(&want);
                    self.say((link_of(&peer), true), StateKind::Want, job, body, Pace::Now);
                }
                relay::Effect::Offer { peer, offer } => {
                    let body = codec::encode(&offer);
                    self.say((link_of(&peer), true), StateKind::Offer, job, body, Pace::Now);
                }
                relay::Effect::Ready { peer } => self.ready(link_of(&peer), true, job),
                relay::Effect::Report { .. } | relay::Effect::Count(_) => {}
            }
        }
        Some(result)
    }

    /// The next record that the base sends to a node.
    pub(super) fn next_of_base(&mut self, link: usize, job: JobId) -> Option<Next> {
        let peer = PeerId::Node(node_name(link));
        let next = self.at_holding(job, |holding, _, _| holding.relay.next_send(&peer))??;
        let plan = self.plan.jobs.get(plan_of(job))?;
        let disk = self.base.ledger.content.get(&job);
        let is_durable = disk.is_some_and(|disk| match next {
            Next::Page(page) | Next::PageInPlace(page) => {
                let page = usize::try_from(page).unwrap_or(usize::MAX);
                let pages = plan.pages.iter().take(page.saturating_add(1));
                let end = pages.map(|page| page.len() as u64).sum::<u64>();
                (page as u64) < u64::from(disk.pages) && disk.chunks.head() >= end
            }
            Next::Chunk(chunk) => disk.chunks.contains(chunk),
        });
        if !is_durable {
            self.fail("I10", format!("the base sends {next:?} of {job}, which is not durable"));
        }
        if !self.is_listed(link, job) {
            self.fail("I15", format!("n{link} gets {next:?} of {job}"));
        }
        Some(next)
    }

    pub(super) fn flush_base(&mut self, job: JobId) {
        let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
            return;
        };
        let plan = Arc::clone(plan);
        if self.at_holding(job, |holding, _, _| holding.begin_flush(&plan)) == Some(true) {
            let at = self.now + self.chance.millis(1..=40);
            let life = self.base.life;
            self.queue.push(at, Event::Flushed { node: None, life, job });
        }
    }

    pub(super) fn base_flushed(&mut self, life: u64, job: JobId) {
        let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
            return;
        };
        let plan = Arc::clone(plan);
        let holds = |run: &Running| run.holdings.contains_key(&job);
        if self.base.life != life || !self.base.running.as_ref().is_some_and(holds) {
            return;
        }
        let mut disk = self.base.ledger.content.remove(&job).unwrap_or_default();
        self.at_holding(job, |holding, _, fx| holding.flushed(&plan, &mut disk, fx));
        let whole = disk.is_whole(&plan);
        self.base.ledger.content.insert(job, disk);
        let bytes = self.at_holding(job, |holding, _, _| holding.relay.durable_bytes());
        self.tell_content(job, bytes.unwrap_or(0), whole);
        self.flush_base(job);
    }

    fn tell_content(&mut self, job: JobId, bytes: u64, whole: bool) {
        let end = whole.then_some((bytes, Hash::ZERO));
        self.step(Input::Content { job, bytes, end });
        // Content counts as a word of the publisher, but a write may end when it is gone.
        if !whole && self.base.running.as_ref().is_some_and(|run| !run.published.contains(&job)) {
            self.step(Input::PublisherGone { job });
        }
    }
}

/// Broken on purpose: what was acknowledged once is not said on a new connection.
pub(super) fn forget_acked(end: &mut End, ids: &[JobId]) {
    for kind in [StateKind::Assign, StateKind::Report] {
        for job in ids {
            if end.channel.is_acked(kind, *job) {
                end.channel.forget(kind, *job);
            }
        }
    }
}
