//! The network: one link from the base to each node and to the client.
//!
//! Datagrams are lost, doubled, delayed and overtake each other. What goes on streams arrives
//! for sure while its connection lasts: control in order, records in any order. A connection
//! ends with either process, by a break, or by 8 s without a packet, and each end notices in
//! its own time.

use std::time::Duration;

use shared::control::{Channel, Outgoing, Path};
use shared::id::JobId;
use shared::limit;
use shared::relay::Next;
use shared::time::Time;
use shared::wire::frame::datagram_frames;
use shared::wire::message::{self, Ack, Acks, Envelope, FrameType, StateKind};

use super::Variant;
use super::coverage::Scene;
use super::plan::{CLIENT, FAULTS_END};
use super::queue::Event;
use super::world::World;

/// After so long without a packet a connection ends.
const IDLE: Duration = Duration::from_secs(8);

/// What is on its way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Packet {
    /// Frames in a datagram.
    Datagram(Vec<u8>),
    /// Frames on the control stream.
    Control(Vec<u8>),
    /// A page (`is_page`) or chunk on a job's stream.
    Record { job: JobId, is_page: bool, number: u64, damaged: bool },
    /// A request of the client, and its answer: the job of this plan.
    Request { plan: usize, what: Request },
    /// The job's id, and that it is closed.
    Reply { plan: usize, what: Request, job: JobId },
    /// The client is told that a job is closed.
    Closed { job: JobId },
}

/// What the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Request {
    /// Create it, under the plan's key.
    Create,
    /// Cancel it.
    Cancel,
    /// Remove it.
    Remove,
    /// The publisher of it leaves.
    Leave,
}

impl Packet {
    pub(super) fn tag(&self) -> u64 {
        let bytes = |bytes: &[u8]| {
            let fold = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
            bytes.iter().fold(bytes.len() as u64, fold)
        };
        match self {
            Self::Datagram(frames) => bytes(frames) << 3,
            Self::Control(frames) => bytes(frames) << 3 | 1,
            Self::Record { number, is_page, damaged, .. } => {
                number << 5 | u64::from(*is_page) << 4 | u64::from(*damaged) << 3 | 2
            }
            Self::Request { plan, .. } => (*plan as u64) << 3 | 3,
            Self::Reply { plan, .. } => (*plan as u64) << 3 | 4,
            Self::Closed { .. } => 5,
        }
    }
}

/// A link and the connection on it.
#[derive(Debug)]
pub(super) struct Link {
    /// Counts the connections.
    pub(super) generation: u64,
    /// Whether the newest connection still carries anything.
    pub(super) alive: bool,
    dialing: bool,
    partition_until: Time,
    /// When the last control bytes to the far end and to the base arrive.
    ordered: [Time; 2],
}

/// One end of a link: the process's side of the control protocol.
#[derive(Debug)]
pub(super) struct End {
    pub(super) channel: Channel,
    /// The connection that this end believes in.
    pub(super) generation: Option<u64>,
    wake: Option<Time>,
    /// Jobs of which the next record may be sent.
    ready: Vec<JobId>,
    pumping: bool,
}

impl End {
    pub(super) fn new(term: u64) -> Self {
        Self {
            channel: Channel::new(term),
            generation: None,
            wake: None,
            ready: Vec::new(),
            pumping: false,
        }
    }

    /// An end that has never had another connection.
    pub(super) fn connected(term: u64, generation: Option<u64>) -> Self {
        Self { generation, ..Self::new(term) }
    }

    /// What was agreed on the connection is gone with it.
    pub(super) fn lose(&mut self) {
        self.generation = None;
        self.channel.disconnected();
        self.ready.clear();
        self.pumping = false;
    }
}

impl Link {
    pub(super) const fn new() -> Self {
        Self {
            generation: 0,
            alive: false,
            dialing: false,
            partition_until: Time::ZERO,
            ordered: [Time::ZERO; 2],
        }
    }
}

impl World {
    fn is_quiet(&self) -> bool {
        self.now >= FAULTS_END
    }

    fn loss(&self) -> u64 {
        if self.is_quiet() { self.plan.loss.min(20) } else { self.plan.loss }
    }

    fn delay(&mut self) -> Duration {
        let (least, most) = self.plan.delay;
        let most = if self.is_quiet() { most.min(40) } else { most };
        self.chance.millis(least..=most)
    }

    /// The delay of what is repeated by the transport until it arrives.
    fn delay_with_repeats(&mut self) -> Duration {
        let mut delay = self.delay();
        while self.chance.happens(self.loss()) {
            delay += self.delay() * 2;
        }
        delay
    }

    pub(super) fn path(&self) -> Path {
        let (least, most) = self.plan.delay;
        Path { rtt: Duration::from_millis(least + most), datagram_max: self.plan.datagram_max }
    }

    /// Sends a packet on the connection that the sending end believes in.
    pub(super) fn send(&mut self, link: usize, from_base: bool, packet: Packet) {
        let generation = self.end(link, from_base).and_then(|end| end.generation);
        let (Some(generation), Some(state)) = (generation, self.links.get(link)) else {
            return;
        };
        if !state.alive || state.generation != generation {
            return;
        }
        let to_base = !from_base;
        let cut_off = state.partition_until > self.now;
        let start = self.now.max(state.partition_until);
        let event = |packet| Event::Deliver { link, to_base, generation, packet };
        match packet {
            Packet::Datagram(_) => {
                if cut_off || self.chance.happens(self.loss()) {
                    return self.coverage.reach(Scene::DatagramLost);
                }
                if self.chance.happens(self.plan.doubled) {
                    self.coverage.reach(Scene::DatagramDoubled);
                    let late = self.now + self.delay() * 3;
                    self.queue.push(late, event(packet.clone()));
                }
                let at = self.now + self.delay();
                self.queue.push(at, event(packet));
            }
            Packet::Record { .. } => {
                let at = start + self.delay_with_repeats();
                self.queue.push(at, event(packet));
            }
            _ => {
                let at = start + self.delay_with_repeats();
                let Some(state) = self.links.get_mut(link) else {
                    return;
                };
                let [to_far, to_near] = &mut state.ordered;
                let last = if to_base { to_near } else { to_far };
                *last = at.max(*last);
                let at = *last;
                self.queue.push(at, event(packet));
            }
        }
    }

    /// Sends what the channels that were touched have to say.
    pub(super) fn service(&mut self) {
        while let Some((link, at_base)) = self.touched.pop() {
            let (now, path) = (self.now, self.path());
            let mut out = std::mem::take(&mut self.out);
            let Some(end) = self.end_mut(link, at_base) else {
                continue;
            };
            while end.channel.next_wake().is_some_and(|wake| wake <= now) {
                end.channel.poll(now, path, &mut out);
            }
            for outgoing in out.drain(..) {
                self.transmit(link, at_base, outgoing);
            }
            self.out = out;
            let Some(end) = self.end_mut(link, at_base) else {
                continue;
            };
            let wake = end.channel.next_wake();
            if let Some(at) = wake.filter(|_| wake != end.wake) {
                end.wake = wake;
                self.queue.push(at, Event::Wake { link, at_base });
            }
        }
    }

    /// A wake-up counts only if it is the last that was asked for.
    pub(super) fn wake(&mut self, link: usize, at_base: bool) {
        let now = self.now;
        let Some(end) = self.end_mut(link, at_base) else {
            return;
        };
        if end.wake == Some(now) {
            end.wake = None;
            self.touched.push((link, at_base));
        }
    }

    fn transmit(&mut self, link: usize, at_base: bool, outgoing: Outgoing) {
        let packet = match outgoing {
            Outgoing::Datagram(bytes) => Packet::Datagram(bytes),
            Outgoing::Stream(bytes) => {
                self.coverage.reach(Scene::StateByStream);
                Packet::Control(bytes)
            }
        };
        if self.variant != Variant::FireAndForget {
            return self.send(link, at_base, packet);
        }
        // Broken on purpose: one datagram, and it counts as taken up.
        let (Packet::Datagram(bytes) | Packet::Control(bytes)) = packet else {
            return;
        };
        let acks = Acks(states(&bytes).map(|(kind, state)| ack(kind, &state)).collect());
        let now = self.now;
        if let Some(end) = self.end_mut(link, at_base) {
            end.channel.acked(now, &acks);
        }
        self.send(link, at_base, Packet::Datagram(bytes));
    }

    /// A job has something for the peer at the other end.
    pub(super) fn ready(&mut self, link: usize, from_base: bool, job: JobId) {
        let now = self.now;
        let Some(end) = self.end_mut(link, from_base) else {
            return;
        };
        let Some(generation) = end.generation else {
            return;
        };
        if !end.ready.contains(&job) {
            end.ready.push(job);
        }
        if !std::mem::replace(&mut end.pumping, true) {
            self.queue.push(now, Event::Pump { link, from_base, generation });
        }
    }

    /// Sends the next record, of one job after the other.
    pub(super) fn pump(&mut self, link: usize, from_base: bool, generation: u64) {
        loop {
            let Some(end) = self.end_mut(link, from_base) else {
                return;
            };
            if end.generation != Some(generation) {
                return;
            }
            if end.ready.is_empty() {
                end.pumping = false;
                return;
            }
            let job = end.ready.remove(0);
            let Some(next) = self.next_record(link, from_base, job) else {
                continue;
            };
            if let Some(end) = self.end_mut(link, from_base) {
                end.ready.push(job);
            }
            let (is_page, number) = match next {
                Next::Page(page) | Next::PageInPlace(page) => (true, u64::from(page)),
                Next::Chunk(chunk) => (false, chunk),
            };
            let damaged = !self.is_quiet() && self.chance.next() % 1_000_000 < self.plan.damaged;
            self.send(link, from_base, Packet::Record { job, is_page, number, damaged });
            let (least, most) = self.plan.busy;
            let most = if self.is_quiet() { most.min(100) } else { most };
            let free = self.now + self.chance.millis(least..=most);
            self.queue.push(free, Event::Pump { link, from_base, generation });
            return;
        }
    }

    /// The far end of a link wants a connection, soon.
    pub(super) fn dial(&mut self, link: usize) {
        let wait = self.chance.millis(50..=1_500);
        let Some(state) = self.links.get_mut(link) else {
            return;
        };
        if !std::mem::replace(&mut state.dialing, true) {
            self.queue.push(self.now + wait, Event::Dial { link });
        }
    }

    /// The far end tries to connect.
    pub(super) fn dialed(&mut self, link: usize) {
        let handshake = self.delay_with_repeats() * 2;
        let Some(state) = self.links.get_mut(link) else {
            return;
        };
        if state.partition_until > self.now {
            state.dialing = false;
            return self.dial(link);
        }
        self.queue.push(self.now + handshake, Event::Linked { link });
    }

    /// The attempt to connect has come to its end.
    pub(super) fn linked(&mut self, link: usize) {
        let Some(state) = self.links.get_mut(link) else {
            return;
        };
        state.dialing = false;
        let cut_off = state.partition_until > self.now;
        if self.end(link, false).is_none_or(|end| end.generation.is_some()) {
            // The far end is down (it dials when it starts), or connected already.
            return;
        }
        if cut_off || self.end(link, true).is_none() {
            return self.dial(link);
        }
        let Some(state) = self.links.get_mut(link) else {
            return;
        };
        state.generation += 1;
        state.alive = true;
        state.ordered = [self.now; 2];
        let generation = state.generation;
        // The base may not have noticed yet that the connection before is gone.
        self.lose(link, true);
        for at_base in [true, false] {
            if let Some(end) = self.end_mut(link, at_base) {
                end.generation = Some(generation);
            }
        }
        match link {
            CLIENT => self.client_connected(),
            node => self.node_connected(node),
        }
    }

    /// The connection carries nothing any more; its ends notice within the idle time.
    pub(super) fn break_link(&mut self, link: usize) {
        let Some(state) = self.links.get_mut(link) else {
            return;
        };
        if !std::mem::replace(&mut state.alive, false) {
            return;
        }
        self.coverage.reach(Scene::ConnectionBroken);
        let generation = state.generation;
        for at_base in [true, false] {
            let notice = match self.chance.pick(0..=2) {
                0 => Duration::ZERO,
                _ => self.chance.millis(0..=8_000),
            };
            self.queue.push(self.now + notice, Event::Lost { link, at_base, generation });
        }
    }

    /// Nothing gets through for so long.
    pub(super) fn partition(&mut self, link: usize, lasts: Duration) {
        let Some(state) = self.links.get_mut(link) else {
            return;
        };
        state.partition_until = state.partition_until.max(self.now + lasts);
        if lasts >= IDLE && state.alive {
            state.alive = false;
            let generation = state.generation;
            self.coverage.reach(Scene::CutOffTooLong);
            for at_base in [true, false] {
                let notice = IDLE + self.chance.millis(0..=1_000);
                self.queue.push(self.now + notice, Event::Lost { link, at_base, generation });
            }
        }
    }

    /// One end notices that its connection is gone.
    pub(super) fn lost(&mut self, link: usize, at_base: bool, generation: u64) {
        if self.end(link, at_base).is_some_and(|end| end.generation == Some(generation)) {
            self.lose(link, at_base);
            if !at_base {
                self.dial(link);
            }
        }
    }

    fn lose(&mut self, link: usize, at_base: bool) {
        let Some(end) = self.end_mut(link, at_base) else {
            return;
        };
        if end.generation.is_none() {
            return;
        }
        end.lose();
        match (at_base, link) {
            (true, _) => self.base_lost(link),
            (false, CLIENT) => self.client_lost(),
            (false, node) => self.node_lost(node),
        }
    }

    /// Every queue of a channel stays within what the jobs of the run can need.
    pub(super) fn check_bounds(&mut self) {
        let most = StateKind::Report as usize + 1;
        let jobs = self.ids.len();
        for link in 0..self.links.len() {
            for at_base in [true, false] {
                let Some(end) = self.end(link, at_base) else {
                    continue;
                };
                let (outbox, inbox) = (end.channel.outbox_len(), end.channel.inbox_len());
                if outbox > most * jobs || inbox > most * jobs || inbox > limit::INBOX_SLOTS_MAX {
                    self.fail("I7", format!("link {link}: {outbox} out, {inbox} in, {jobs} jobs"));
                }
            }
        }
    }
}

/// The states among some frames.
pub(super) fn states(bytes: &[u8]) -> impl Iterator<Item = (StateKind, Envelope)> {
    let frames = datagram_frames(bytes).unwrap_or_default().into_iter();
    frames.filter_map(|frame| {
        let kind = FrameType::from_byte(frame.kind)?.state()?;
        Some((kind, message::decode(&frame.body).ok()?))
    })
}

fn ack(kind: StateKind, state: &Envelope) -> Ack {
    Ack { kind, job: state.job, stamp: state.stamp }
}
