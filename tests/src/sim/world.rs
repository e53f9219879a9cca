//! A run: everything that takes part in it, and the loop that makes things happen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::control::Outgoing;
use shared::id::JobId;
use shared::relay::Next;
use shared::time::Time;
use shared::view::JobState;
use shared::wire::message::{Stamp, StateKind};

use super::base::Base;
use super::chance::Chance;
use super::client::Client;
use super::coverage::Coverage;
use super::net::{End, Link, Packet};
use super::node::Node;
use super::plan::{CLIENT, Ending, FAULTS_END, Fault, NODES, Plan, RUN_END};
use super::queue::{ClientStep, Event, Queue};
use super::{Outcome, Variant, Violation};

/// How often what the client sees is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Time,
    pub(super) queue: Queue,
    pub(super) chance: Chance,
    pub(super) plan: Plan,
    pub(super) variant: Variant,
    pub(super) links: Vec<Link>,
    pub(super) base: Base,
    pub(super) nodes: Vec<Node>,
    pub(super) client: Client,
    /// Stores that nodes were given so far.
    pub(super) stores: u64,
    /// Every job id that was minted.
    pub(super) ids: BTreeSet<JobId>,
    /// Ends (link, at the base) whose channel may have something to send.
    pub(super) touched: Vec<(usize, bool)>,
    pub(super) out: Vec<Outgoing>,
    pub(super) violation: Option<Violation>,
    pub(super) coverage: Coverage,
    /// What a node (with a store) has completed, and dropped, for good.
    pub(super) completed: BTreeSet<(usize, u64, JobId)>,
    pub(super) dropped: BTreeSet<(usize, u64, JobId)>,
    /// The last bytes that a node with a store reported.
    pub(super) reported: BTreeMap<(usize, u64, JobId), u64>,
    /// What was told as closed, and how.
    pub(super) closed: BTreeMap<JobId, JobState>,
    /// The newest stamp that one end, in one life of its process, took up.
    pub(super) taken_up: BTreeMap<(usize, bool, u64, StateKind, JobId), Stamp>,
    /// The store and the bytes that the client saw last, in an epoch.
    pub(super) seen: BTreeMap<(u64, usize, JobId), (u64, u64)>,
}

impl World {
    pub(super) fn new(seed: u64, variant: Variant) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::new(&mut chance);
        let stores = NODES as u64;
        Self {
            now: Time::ZERO,
            queue: Queue::default(),
            chance,
            variant,
            links: (0..=CLIENT).map(|_| Link::new()).collect(),
            base: Base::default(),
            nodes: (0..stores).map(|store| Node::new(store + 1)).collect(),
            client: Client::new(plan.jobs.len()),
            plan,
            stores,
            ids: BTreeSet::new(),
            touched: Vec::new(),
            out: Vec::new(),
            violation: None,
            coverage: Coverage::default(),
            completed: BTreeSet::new(),
            dropped: BTreeSet::new(),
            reported: BTreeMap::new(),
            closed: BTreeMap::new(),
            taken_up: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Runs to the end, or to the first violation.
    pub(super) fn run(mut self, mut log: Option<&mut Vec<String>>) -> Outcome {
        self.set_out();
        while let Some((at, event)) = self.queue.pop(RUN_END) {
            self.now = at;
            if let Some(log) = &mut log {
                log.push(format!("{:>11} {event:?}", at.as_micros()));
            }
            self.happen(event);
            self.service();
            if self.violation.is_some() {
                break;
            }
        }
        if self.violation.is_none() {
            self.now = RUN_END;
            self.check_end();
        }
        Outcome {
            violation: self.violation,
            events: self.queue.count(),
            simulated: self.now.since(Time::ZERO),
            trace: self.queue.hash(),
            coverage: self.coverage,
        }
    }

    fn set_out(&mut self) {
        for (plan, wish) in self.plan.jobs.iter().enumerate() {
            let step = ClientStep::Create;
            self.queue.push(wish.created, Event::Client { plan, step });
            if let Ending::Cancelled(at) | Ending::Removed(at) = wish.ending {
                self.queue.push(at, Event::Client { plan, step: ClientStep::End });
            }
        }
        for (at, fault) in &self.plan.faults {
            self.queue.push(*at, Event::Fault(*fault));
        }
        self.queue.push(Time::ZERO + LOOK_EVERY, Event::Look);
        self.start_base();
        for node in 0..NODES {
            self.start_node(node);
        }
        self.dial(CLIENT);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { link, to_base, generation, packet } => {
                self.arrive(link, to_base, generation, packet);
            }
            Event::Dial { link } => self.dialed(link),
            Event::Linked { link } => self.linked(link),
            Event::Lost { link, at_base, generation } => self.lost(link, at_base, generation),
            Event::Wake { link, at_base } => self.wake(link, at_base),
            Event::Pump { link, from_base, generation } => self.pump(link, from_base, generation),
            Event::Flushed { node: None, life, job } => self.base_flushed(life, job),
            Event::Flushed { node: Some(node), life, job } => self.node_flushed(node, life, job),
            Event::Deleted { node, life, job, stamp } => self.deleted(node, life, job, stamp),
            Event::Committed { life } => self.committed(life),
            Event::TableWake { life } => self.table_wake(life),
            Event::Fault(fault) => self.strike(fault),
            Event::Start { node: None } => self.start_base(),
            Event::Start { node: Some(node) } => self.start_node(node),
            Event::Client { plan, step } => self.client_step(plan, step),
            Event::Look => {
                self.look();
                self.check_deadlines();
                self.queue.push(self.now + LOOK_EVERY, Event::Look);
            }
        }
    }

    fn strike(&mut self, fault: Fault) {
        let latest = FAULTS_END;
        match fault {
            Fault::NodeCrash { node, down, wiped } => {
                if self.end(node, false).is_some() {
                    self.crash_node(node, wiped);
                    let at = (self.now + down).min(latest);
                    self.queue.push(at, Event::Start { node: Some(node) });
                }
            }
            Fault::BaseCrash { down } => {
                if self.base.running.is_some() {
                    self.crash_base();
                    self.queue.push((self.now + down).min(latest), Event::Start { node: None });
                }
            }
            Fault::Break { link } => self.break_link(link),
            Fault::Partition { link, lasts } => self.partition(link, lasts),
        }
    }

    /// Now and then, kills the base or a node before `end`: between a write and its sync.
    pub(super) fn strike_within(&mut self, end: Time, node: Option<usize>) {
        if self.now + Duration::from_secs(30) > FAULTS_END || !self.chance.happens(5) {
            return;
        }
        let window = u64::try_from(end.since(self.now).as_micros()).unwrap_or(0);
        let at = self.now + Duration::from_micros(self.chance.pick(0..=window));
        let down = self.chance.millis(50..=5_000);
        let fault = match node {
            Some(node) => Fault::NodeCrash { node, down, wiped: false },
            None => Fault::BaseCrash { down },
        };
        self.queue.push(at, Event::Fault(fault));
    }

    fn arrive(&mut self, link: usize, to_base: bool, generation: u64, packet: Packet) {
        let alive =
            self.links.get(link).is_some_and(|state| state.alive && state.generation == generation);
        let there = self.end(link, to_base).is_some_and(|end| end.generation == Some(generation));
        if !alive || !there {
            return;
        }
        match (to_base, link) {
            (true, _) => self.at_base(link, generation, packet),
            (false, CLIENT) => self.at_client(packet),
            (false, node) => self.at_node(node, packet),
        }
    }

    /// One end of a link, if its process runs.
    pub(super) fn end(&self, link: usize, at_base: bool) -> Option<&End> {
        match (at_base, link) {
            (true, _) => self.base.running.as_ref()?.ends.get(link),
            (false, CLIENT) => Some(&self.client.end),
            (false, node) => Some(&self.nodes.get(node)?.running.as_ref()?.end),
        }
    }

    /// One end of a link, if its process runs.
    pub(super) fn end_mut(&mut self, link: usize, at_base: bool) -> Option<&mut End> {
        match (at_base, link) {
            (true, _) => self.base.running.as_mut()?.ends.get_mut(link),
            (false, CLIENT) => Some(&mut self.client.end),
            (false, node) => Some(&mut self.nodes.get_mut(node)?.running.as_mut()?.end),
        }
    }

    /// The next record of a job that goes down a link.
    pub(super) fn next_record(&mut self, link: usize, from_base: bool, job: JobId) -> Option<Next> {
        match (from_base, link) {
            (false, CLIENT) => self.next_of_client(job),
            (true, node) if node != CLIENT => self.next_of_base(node, job),
            _ => None,
        }
    }
}
