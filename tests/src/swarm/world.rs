//! The course of a run: words and chunks on their way are events, bytes flow in steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::id::{JobId, PeerId};
use shared::neighbourhood;
use shared::relay::{Effect, Next, Relay};
use shared::time::Time;
use shared::uplink::LOOK_EVERY;
use shared::wire::message::{Offer, Want};

use super::fluid::{Demand, Room, share};
use super::host::{Content, Host};
use super::topology::{WIRE_PER_THOUSAND, normal};
use super::{ACCESS_QUEUE, Job, Outcome, PATH_QUEUE, Rule, Sender, Topology};
use crate::sim::chance::Chance;

/// A step of the fluid.
const STEP_US: u64 = 5_000;
/// How often engines look who feeds and who is fed, and nodes flush.
const TICK: Duration = Duration::from_millis(100);
const FLUSH: Duration = Duration::from_millis(200);
/// How often a page of the publisher becomes durable at the base, which flushes as often.
const PUSH: Duration = Duration::from_millis(20);
/// A run ends after so many times the bound, and this.
const PATIENCE: u32 = 200;
const PATIENCE_MIN: Duration = Duration::from_secs(60);
/// A connection on which nothing comes for so long is lost: the product's.
const LOST_AFTER: Duration = Duration::from_secs(8);
/// What a connection may send in its first round trip, bytes.
const FIRST_WINDOW: f64 = 12_000.0;
/// What waits in a connection at least, and a batch of records at least and at the most.
const WAITING_MIN: f64 = 65_536.0;
const BATCH_MIN: f64 = 65_536.0;
const BATCH_MAX: f64 = 262_144.0;
/// Acknowledgements of data, as a part of its bytes: one packet of 66 bytes for two of data.
const ACKS: f64 = 0.023;
/// A link is full if less than this part of it is left, and its queue comes and goes in this time.
const FULL: f64 = 0.03;
const QUEUE_TIME: f64 = 0.3;
const NEARLY: f64 = 0.8;
/// What a page says of a chunk, bytes.
const PAGE_BYTES: u32 = 64;

#[derive(Debug)]
enum Word {
    Offer(Offer),
    Want(Want),
    Record(Next),
}

#[derive(Debug)]
enum Event {
    /// Something has come over a connection.
    Come(usize, Word),
    Tick(usize),
    Look(usize),
    Flush(usize),
    /// The publisher has pushed a page.
    Push,
    /// A host falls silent, and its peers learn of it.
    Die(usize),
    Lost(usize),
}

/// A connection, one way.
#[derive(Debug)]
struct Line {
    from: usize,
    to: usize,
    delay: f64,
    cap: f64,
    /// Records that were chosen, with their bytes that are not sent yet.
    chosen: std::collections::VecDeque<(Next, f64)>,
    waiting: f64,
    window: f64,
    /// How it fares beside others in the same link.
    weight: f64,
    rate: f64,
    /// Seconds that bytes wait in the queue of the path.
    queue: f64,
    /// When the last word and record arrive: they keep their order.
    last: (u64, u64),
    is_active: bool,
    counted: u64,
}

pub(super) struct World {
    now: u64,
    chance: Chance,
    content: Content,
    job: Job,
    hosts: Vec<Host>,
    dead: BTreeSet<usize>,
    lines: Vec<Line>,
    /// Connections by their ends.
    by_ends: Vec<BTreeMap<usize, usize>>,
    events: BTreeMap<(u64, u64), Event>,
    number: u64,
    /// Lines that may have something to send.
    active: Vec<usize>,
    /// Bytes of content per second that links carry.
    capacity: Room,
    /// Seconds that bytes wait in the queues of hosts' links, up and down.
    queues: (Vec<f64>, Vec<f64>),
    /// What each host received per second in the last step.
    received: Vec<f64>,
    looks: u64,
    words: u64,
    missing: usize,
    patience: u64,
    /// When the content is there.
    begin: Time,
    /// What the base knows from the start that the uplinks of nodes carry.
    known_uplinks: Vec<u64>,
}

fn peer(index: usize) -> PeerId {
    match index {
        0 => PeerId::Base,
        _ => format!("node{:05}", index - 1).parse().map_or(PeerId::Base, PeerId::Node),
    }
}

fn index(peer: &PeerId) -> usize {
    match peer {
        PeerId::Node(name) => name.as_str()[4..].parse().map_or(0, |at: usize| at + 1),
        PeerId::Base | PeerId::Client(..) => 0,
    }
}

impl Sender {
    /// The part of a full link's queue that is filled.
    const fn queue(self) -> f64 {
        match self {
            Self::Cubic => 0.7,
            Self::Shallow => 0.2,
        }
    }

    /// The deviation of the logarithm of what flows in one link get, drawn twice a second.
    const fn spread(self) -> f64 {
        match self {
            Self::Cubic => 0.4,
            Self::Shallow => 0.8,
        }
    }
}

impl World {
    pub(super) fn new(topology: &Topology, job: &Job, seed: u64) -> Self {
        let stripes = match job.rule {
            Rule::Star => 1,
            Rule::Stripes(stripes) => stripes,
        };
        let content = Content::new(job.bytes, job.chunk);
        let count = topology.sites.len();
        let hosts = (0..count).map(|at| Host::new(peer(at), stripes, job.chunk)).collect();
        let bytes = |bps: f64| bps / 8.0 * 1_000.0 / WIRE_PER_THOUSAND as f64;
        let up = topology.sites.iter().map(|site| bytes(site.up_bps)).collect();
        let down = topology.sites.iter().enumerate();
        // Nothing limits what the base receives: only acknowledgements.
        let down = down.map(|(at, site)| if at == 0 { 1e12 } else { bytes(site.down_bps) });
        let capacity = Room { up, down: down.collect() };
        let patience = (topology.bound(content.bytes()) * PATIENCE).max(PATIENCE_MIN);
        let mut world = Self {
            now: 0,
            chance: Chance::new(seed),
            content,
            job: *job,
            hosts,
            dead: BTreeSet::new(),
            lines: Vec::new(),
            by_ends: vec![BTreeMap::new(); count],
            events: BTreeMap::new(),
            number: 0,
            active: Vec::new(),
            capacity,
            queues: (vec![0.0; count], vec![0.0; count]),
            received: vec![0.0; count],
            looks: 1,
            words: 0,
            missing: count - 1,
            patience: u64::try_from(patience.as_micros()).unwrap_or(u64::MAX),
            begin: Time::ZERO + job.idle,
            known_uplinks: if job.knows_uplinks { topology.uplinks() } else { Vec::new() },
        };
        world.connect(topology);
        world.start();
        world
    }

    fn connect(&mut self, topology: &Topology) {
        let nodes = topology.nodes();
        let mut pairs: BTreeSet<(usize, usize)> = (1..=nodes).map(|node| (0, node)).collect();
        if self.job.rule != Rule::Star {
            for place in 0..nodes {
                let size = Some(self.job.bytes);
                let known = neighbourhood::neighbours(JobId([1; 16]), size, place, nodes);
                pairs.extend(known.iter().map(|o| (1 + place.min(*o), 1 + place.max(*o))));
            }
        }
        for (one, other) in pairs {
            let path = topology.path(one, other);
            for (from, to) in [(one, other), (other, one)] {
                self.by_ends[from].insert(to, self.lines.len());
                let cap = path.cap_bps.unwrap_or(1e13) / 8.0 * 1_000.0 / WIRE_PER_THOUSAND as f64;
                self.lines.push(Line {
                    from,
                    to,
                    delay: path.delay.as_secs_f64(),
                    cap,
                    chosen: std::collections::VecDeque::new(),
                    waiting: 0.0,
                    window: FIRST_WINDOW,
                    weight: 1.0,
                    rate: 0.0,
                    queue: 0.0,
                    last: (0, 0),
                    is_active: false,
                    counted: 0,
                });
            }
        }
    }

    /// What roles do when a job begins and connections come up.
    fn start(&mut self) {
        let uplinks = self.known_uplinks.iter().copied().chain(std::iter::repeat(0));
        let nodes: Vec<_> = (1..self.hosts.len()).map(peer).zip(uplinks).collect();
        let (rule, target_bps) = (self.job.rule, self.job.target_bps);
        if rule != Rule::Star {
            self.act(0, |relay, fx| relay.spread(&nodes, fx));
        }
        for at in 0..self.hosts.len() {
            if at > 0 && rule != Rule::Star {
                self.hosts[at].relay.share();
                self.hosts[at].relay.set_target(target_bps);
            }
            let others: Vec<usize> = self.by_ends[at].keys().copied().collect();
            for other in others.into_iter().filter(|other| *other > 0) {
                self.act(at, |relay, fx| relay.invite(&peer(other), fx));
            }
            // Processes do not start together.
            let mut phase = |every: Duration| self.chance.pick(0..=every.as_micros() as u64);
            let (tick, look, flush) = (phase(TICK), phase(LOOK_EVERY), phase(FLUSH));
            self.at(tick, Event::Tick(at));
            self.at(look, Event::Look(at));
            if at > 0 {
                self.at(flush, Event::Flush(at));
            }
        }
    }

    /// Has nodes, counted without the base, die so long after the content is there.
    pub(super) fn with_deaths(mut self, deaths: &[(Duration, usize)]) -> Self {
        for (at, node) in deaths {
            self.at((self.begin + *at).as_micros(), Event::Die(1 + node));
        }
        self
    }

    pub(super) fn run(mut self) -> Outcome {
        self.at(self.begin.as_micros(), Event::Push);
        while self.missing > 0 && self.now < self.begin.as_micros() + self.patience {
            let end = self.now + STEP_US;
            while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 < end) {
                let ((at, _), event) = entry.remove_entry();
                self.now = at.max(self.now);
                self.happen(event);
            }
            self.now = end;
            self.flow();
        }
        let counts = self.hosts.iter().map(|host| host.counts);
        let sum = |of: fn(&super::host::Counts) -> u64| counts.clone().map(|c| of(&c)).sum();
        let nodes = self.hosts.get(1..).unwrap_or_default().iter();
        Outcome {
            took: nodes.map(|host| Some(host.complete?.since(self.begin))).collect(),
            base_sent: self.hosts[0].relay.bytes_sent(),
            received: sum(|counts| counts.received),
            doubled: sum(|counts| counts.doubled),
            uncalled: sum(|counts| counts.uncalled),
            words: self.words,
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.at(self.now + after.as_micros() as u64, event);
    }

    fn time(&self) -> Time {
        Time::from_micros(self.now)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(at) | Event::Look(at) | Event::Flush(at) if self.dead.contains(&at) => {}
            Event::Come(line, _) if self.is_cut(line) => {}
            Event::Die(at) => self.die(at),
            Event::Lost(at) => self.lose(at),
            Event::Come(line, word) => self.come(line, word),
            Event::Tick(at) => {
                let (now, spare) = (self.time(), self.hosts[at].spare());
                if self.hosts[at].relay.is_restless() {
                    self.act(at, |relay, fx| relay.tick(now, spare, fx));
                }
                self.later(TICK, Event::Tick(at));
            }
            Event::Look(at) => {
                self.looks += 1;
                self.hosts[at].look();
                let learnt = self.hosts[at].spare().map_or(0, |spare| spare.carries_bps);
                let known = at.checked_sub(1).map(|node| self.known_uplinks.get(node));
                let known = known.map(|known| known.copied().unwrap_or(0).max(learnt));
                known.into_iter().for_each(|bps| self.hosts[0].relay.set_uplink(&peer(at), bps));
                for line in self.by_ends[at].values() {
                    let weight = (self.job.sender.spread() * normal(&mut self.chance)).exp();
                    self.lines[*line].counted = 0;
                    self.lines[*line].weight = weight;
                }
                self.later(LOOK_EVERY, Event::Look(at));
            }
            Event::Push => {
                let mut is_last = false;
                self.act_host(0, |host, now, content, fx| is_last = host.pushed(now, content, fx));
                if !is_last {
                    self.later(PUSH, Event::Push);
                }
            }
            Event::Flush(at) => {
                let was = self.hosts[at].complete.is_some();
                self.act_host(at, |host, now, _, fx| host.flush(now, fx));
                let is_new = !was && self.hosts[at].complete.is_some();
                self.missing -= usize::from(is_new);
                if self.hosts[at].complete.is_none() {
                    self.later(FLUSH, Event::Flush(at));
                }
            }
        }
    }

    fn is_cut(&self, line: usize) -> bool {
        let Line { from, to, .. } = self.lines[line];
        self.dead.contains(&from) || self.dead.contains(&to)
    }

    fn die(&mut self, at: usize) {
        self.missing -= usize::from(self.hosts[at].complete.is_none());
        self.dead.insert(at);
        for line in 0..self.lines.len() {
            if self.is_cut(line) {
                self.lines[line].chosen.clear();
                self.lines[line].waiting = 0.0;
            }
        }
        self.later(LOST_AFTER, Event::Lost(at));
    }

    fn lose(&mut self, at: usize) {
        let (gone, peers) = (self.hosts[at].id.clone(), self.by_ends[at].clone());
        for peer in peers.into_keys().filter(|peer| !self.dead.contains(peer)).collect::<Vec<_>>() {
            self.act(peer, |relay, fx| relay.peer_lost(&gone, fx));
        }
    }

    fn come(&mut self, line: usize, word: Word) {
        let Line { from, to, .. } = self.lines[line];
        let sender = self.hosts[from].id.clone();
        match word {
            Word::Offer(offer) => self.act(to, |relay, fx| relay.offered(&sender, offer, fx)),
            Word::Want(want) => self.act(to, |relay, fx| relay.wanted(&sender, want, fx)),
            Word::Record(next) => {
                let there = self.passage(line);
                let back = self.by_ends[to].get(&from).map_or(there, |back| self.passage(*back));
                let round_trip = Duration::from_secs_f64(there + back);
                self.act_host(to, |host, now, content, fx| {
                    host.land((now, round_trip), (&sender, next), content, fx);
                });
            }
        }
    }

    /// Seconds that a byte takes that is sent now.
    fn passage(&self, line: usize) -> f64 {
        let Line { from, to, delay, queue, .. } = &self.lines[line];
        delay + queue + self.queues.0[*from] + self.queues.1[*to]
    }

    fn act(&mut self, at: usize, act: impl FnOnce(&mut Relay, &mut Vec<Effect>)) {
        self.act_host(at, |host, _, _, fx| act(&mut host.relay, fx));
    }

    fn act_host(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Host, Time, &Content, &mut Vec<Effect>),
    ) {
        let mut fx = Vec::new();
        let now = self.time();
        self.hosts[at].relay.at(now);
        act(&mut self.hosts[at], now, &self.content, &mut fx);
        for effect in fx {
            match effect {
                Effect::Want { peer, want } => self.say(at, &peer, Word::Want(want)),
                Effect::Offer { peer, offer } => self.say(at, &peer, Word::Offer(offer)),
                Effect::Ready { peer } => self.wake(at, &peer),
                Effect::Report { .. } | Effect::Count(_) => {}
            }
        }
    }

    fn say(&mut self, from: usize, to: &PeerId, word: Word) {
        let Some(&line) = self.by_ends[from].get(&index(to)) else { return };
        self.words += 1;
        let due = self.now + (self.passage(line) * 1e6) as u64;
        let last = &mut self.lines[line].last.0;
        *last = due.max(*last);
        let due = *last;
        self.at(due, Event::Come(line, word));
    }

    fn wake(&mut self, from: usize, to: &PeerId) {
        let Some(&line) = self.by_ends[from].get(&index(to)) else { return };
        if !std::mem::replace(&mut self.lines[line].is_active, true) {
            self.active.push(line);
        }
    }

    /// Lets bytes flow for the step that has just passed.
    fn flow(&mut self) {
        let seconds = STEP_US as f64 / 1e6;
        self.choose();
        let demands: Vec<Demand> = self.active.iter().map(|at| self.demand(*at, seconds)).collect();
        let mut room = self.capacity.clone();
        for (up, received) in room.up.iter_mut().zip(&self.received) {
            *up = (*up - received * ACKS).max(*up / 10.0);
        }
        let full = room.clone();
        let mut rates = Vec::new();
        share(&mut room, &demands, &mut rates);
        self.fill_queues(&full, &room, seconds);
        self.received.fill(0.0);
        for (at, rate) in self.active.clone().into_iter().zip(rates) {
            self.received[self.lines[at].to] += rate;
            self.advance(at, rate, seconds);
        }
    }

    /// Connections that have room choose what they send next.
    fn choose(&mut self) {
        let mut active = std::mem::take(&mut self.active);
        active.retain(|&at| {
            if self.is_cut(at) {
                self.lines[at].is_active = false;
                return false;
            }
            let ahead = self.rounds(at) * self.lines[at].rate;
            let in_flight = ahead;
            let ahead = ahead.max(WAITING_MIN - in_flight);
            let batch = self.lines[at].window.clamp(BATCH_MIN, BATCH_MAX);
            let Line { from, to, .. } = self.lines[at];
            let (sender, receiver) = (from, self.hosts[to].id.clone());
            let line = &mut self.lines[at];
            let relay = &mut self.hosts[sender].relay;
            if line.waiting < ahead.max(1.0) {
                let mut bytes = 0.0;
                while bytes < batch {
                    let Some(next) = relay.next_send(&receiver) else { break };
                    let len = match next {
                        Next::Page(page) | Next::PageInPlace(page) => {
                            relay.page_chunks(page).max(64) * PAGE_BYTES
                        }
                        Next::Chunk(chunk) => relay.chunk_len(chunk),
                    };
                    bytes += f64::from(len);
                    line.chosen.push_back((next, f64::from(len)));
                }
                line.waiting += bytes;
            }
            line.is_active = !line.chosen.is_empty();
            if !line.is_active {
                line.rate = 0.0;
            }
            line.is_active
        });
        self.active = active;
    }

    /// Seconds of a round trip.
    fn rounds(&self, at: usize) -> f64 {
        let Line { from, to, .. } = self.lines[at];
        let back = self.by_ends[to].get(&from).map_or(0.0, |back| self.passage(*back));
        self.passage(at) + back
    }

    fn demand(&self, at: usize, seconds: f64) -> Demand {
        let line = &self.lines[at];
        let window = line.window / self.rounds(at).max(1e-3);
        let most = line.cap.min(window).min(line.waiting / seconds);
        Demand { from: line.from, to: line.to, weight: line.weight, most }
    }

    /// Queues of full links fill up, and run empty when they are not full any more.
    fn fill_queues(&mut self, full: &Room, left: &Room, seconds: f64) {
        let most = ACCESS_QUEUE.as_secs_f64() * self.job.sender.queue();
        let gain = seconds / QUEUE_TIME;
        let follow = |queues: &mut [f64], full: &[f64], left: &[f64]| {
            for (queue, (full, left)) in queues.iter_mut().zip(full.iter().zip(left)) {
                let aim = if *left <= *full * FULL { most } else { 0.0 };
                *queue += (aim - *queue) * gain;
            }
        };
        follow(&mut self.queues.0, &full.up, &left.up);
        follow(&mut self.queues.1, &full.down, &left.down);
    }

    /// Whether a queue on the way is as full as the sender lets it become.
    fn is_congested(&self, at: usize) -> bool {
        let line = &self.lines[at];
        let most = self.job.sender.queue() * NEARLY;
        let access = self.queues.0[line.from].max(self.queues.1[line.to]);
        access > ACCESS_QUEUE.as_secs_f64() * most || line.queue > PATH_QUEUE.as_secs_f64() * most
    }

    /// A connection sends at `rate` for a step.
    fn advance(&mut self, at: usize, rate: f64, seconds: f64) {
        let rounds = self.rounds(at);
        let passage = self.passage(at);
        let looks = self.looks;
        let path_queue = PATH_QUEUE.as_secs_f64() * self.job.sender.queue();
        let is_congested = self.is_congested(at);
        let line = &mut self.lines[at];
        let mut budget = rate * seconds;
        let sent = budget.min(line.waiting);
        let has_more = line.waiting > budget * 1.5;
        // What fits into the window waits in the links, where its sender does not see it.
        let is_held_up = line.waiting - budget > (line.window - rate * rounds).max(0.0);
        let mut arrivals = Vec::new();
        let mut spent = 0.0;
        while let Some((next, left)) = line.chosen.front_mut() {
            // Half a byte is what sums of parts may be wrong by.
            if *left > budget + 0.5 {
                *left -= budget;
                break;
            }
            budget = (budget - *left).max(0.0);
            spent += *left;
            arrivals.push((*next, spent));
            line.chosen.pop_front();
        }
        line.waiting = line.chosen.iter().map(|(_, left)| left).sum();
        line.rate += (rate - line.rate) * 0.2;
        let is_full = rate >= line.cap * (1.0 - FULL);
        line.queue += (if is_full { path_queue } else { 0.0 } - line.queue) * seconds / QUEUE_TIME;
        // Slow start doubles the window in a round trip while it is what holds up.
        let by_window = rate * rounds >= line.window * (1.0 - FULL);
        if by_window && has_more {
            line.window *= 2f64.powf(seconds / rounds.max(1e-3));
        } else if is_congested {
            line.window = line.window.min((rate * rounds * 2.0).max(FIRST_WINDOW));
        }
        let from = line.from;
        let wire = (sent * WIRE_PER_THOUSAND as f64 / 1_000.0) as u64;
        let mut counted = line.counted;
        self.hosts[from].sent(wire, is_held_up, &mut counted, looks);
        self.lines[at].counted = counted;
        let start = self.now - STEP_US;
        for (next, spent) in arrivals {
            let left = start as f64 + spent / rate.max(1.0) * 1e6;
            let due = (left + passage * 1e6) as u64;
            let last = &mut self.lines[at].last.1;
            *last = due.max(*last).max(self.now);
            let due = *last;
            self.at(due, Event::Come(at, Word::Record(next)));
        }
    }
}
