//! Nodes that feed each other, on a network that delays, loses, and cuts off: nobody waits in a
//! circle, everybody gets everything. Of a set of files, which the base has from the beginning;
//! and of a live log, which grows and is cut anew meanwhile.

use std::collections::VecDeque;

use super::recut::{Log, Peer};
use super::*;
use crate::wire::message::Offer;

const PAGES: u32 = 12;
const PER_PAGE: usize = 10;
const LEN: u32 = 10;
const WINDOW: u64 = 24;
const TICK_MS: u64 = 100;
/// What is between two flushes of a node.
const FLUSH_MS: u64 = 200;
/// A live log grows by a chunk in so many milliseconds, and is cut anew after so many chunks.
const CHUNK_EVERY_MS: u64 = 15;
const RECUT_EVERY: usize = 40;
/// Virtual time for faults, and for everything to come to its end after them.
const FAULTS_MS: u64 = 8_000;
const END_MS: u64 = 40_000;
/// How long it takes after the faults until everybody has all of a live log, at most.
const LEVEL_MS: u64 = 5_000;

/// What a run does on purpose that the product does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Sound,
    /// Every node says to be one chunk further than it is.
    Boasts,
    /// A node says how far it is itself, and nothing of those who feed it; and takes a source
    /// that is as far as itself.
    TakesEquals,
}

#[derive(Debug, Clone)]
enum Word {
    Offer(Offer),
    Want(Want),
    Record(Next),
}

#[derive(Debug)]
struct Flying {
    at: u64,
    from: usize,
    to: usize,
    /// The connection that it is on, and how new it is among the words of its kind there.
    link: u64,
    revision: u64,
    word: Word,
}

struct Mesh {
    variant: Variant,
    stripes: u8,
    now: u64,
    seed: u64,
    log: Log,
    is_live: bool,
    /// Whether the log is yet to end.
    grows: bool,
    peers: Vec<Peer>,
    /// The present connection of two peers.
    links: BTreeMap<(usize, usize), u64>,
    next_link: u64,
    revisions: BTreeMap<(usize, usize, bool), u64>,
    seen: BTreeMap<(usize, usize, bool), u64>,
    flying: VecDeque<Flying>,
    received: u64,
    doubled: u64,
    /// Looks at which a node had two sources of a stripe.
    besides: u64,
}

fn peer(index: usize) -> PeerId {
    match index {
        0 => PeerId::Base,
        _ => PeerId::Node(format!("n{index:02}").parse().unwrap()),
    }
}

fn index(peer: &PeerId) -> usize {
    match peer {
        PeerId::Node(name) => name.as_str()[1..].parse().unwrap(),
        PeerId::Base | PeerId::Client(..) => 0,
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Mesh {
    /// A set of files that the base has.
    fn of_files(variant: Variant, nodes: usize, stripes: u8, seed: u64) -> Self {
        let mut log = Log::new();
        (0..PAGES).for_each(|_| log.chunks(PER_PAGE, LEN));
        log.end();
        let mut mesh = Self::new(variant, nodes, stripes, seed, log);
        mesh.follow(0);
        mesh
    }

    /// A log that grows.
    fn of_live(nodes: usize, seed: u64) -> Self {
        let mesh = Self::new(Variant::Sound, nodes, 1, seed, Log::new());
        let mut mesh = Self { is_live: true, grows: true, ..mesh };
        mesh.follow(0);
        mesh
    }

    fn new(variant: Variant, nodes: usize, stripes: u8, seed: u64, log: Log) -> Self {
        let mut base = Peer::new(stripes, WINDOW);
        base.relay.spread(&[], &mut Vec::new());
        let node = || {
            let mut peer = Peer::new(stripes, WINDOW);
            peer.relay.share();
            peer
        };
        Self {
            variant,
            stripes,
            now: 0,
            seed,
            log,
            is_live: false,
            grows: false,
            peers: [base].into_iter().chain((0..nodes).map(|_| node())).collect(),
            links: BTreeMap::new(),
            next_link: 0,
            revisions: BTreeMap::new(),
            seen: BTreeMap::new(),
            flying: VecDeque::new(),
            received: 0,
            doubled: 0,
            besides: 0,
        }
    }

    fn chance(&mut self, of: u64) -> u64 {
        chance(&mut self.seed, of)
    }

    /// The base takes up the pages of the log from `from` on, with their short chunks.
    fn follow(&mut self, from: usize) {
        let mut fx = Vec::new();
        let (base, log) = (&mut self.peers[0], &self.log);
        base.now = Time::from_micros(self.now * 1_000);
        for page in &log.pages[from..] {
            base.page(page, false, &mut fx);
            for (chunk, ..) in page.chunks().filter(|_| page.recut().is_none()) {
                base.chunk(log, chunk, &mut fx);
            }
            base.flush(log, &mut fx);
        }
        self.carry_out(0, fx);
    }

    fn act(&mut self, at: usize, act: impl FnOnce(&mut Relay, &mut Vec<Effect>)) {
        let mut fx = Vec::new();
        self.peers[at].relay.at(Time::from_micros(self.now * 1_000));
        act(&mut self.peers[at].relay, &mut fx);
        self.carry_out(at, fx);
    }

    fn carry_out(&mut self, at: usize, fx: Vec<Effect>) {
        for effect in fx {
            match effect {
                Effect::Want { peer, want } => self.say(at, index(&peer), Word::Want(want)),
                Effect::Offer { peer, offer } => {
                    let offer = self.bend(at, offer);
                    self.say(at, index(&peer), Word::Offer(offer));
                }
                Effect::Ready { .. } | Effect::Report { .. } | Effect::Count(_) => {}
            }
        }
    }

    fn bend(&self, at: usize, offer: Offer) -> Offer {
        let further = match self.variant {
            Variant::Sound => return offer,
            Variant::Boasts => u64::from(self.stripes),
            Variant::TakesEquals => 1,
        };
        let missing = self.peers[at].relay.missing.clone();
        let ahead = match self.variant {
            Variant::TakesEquals => missing,
            Variant::Sound | Variant::Boasts => offer.ahead.clone(),
        };
        let is_root = offer.is_root();
        let ahead = ahead.into_iter().map(|ahead| ahead + further).collect();
        if is_root { offer } else { Offer { ahead, ..offer } }
    }

    fn say(&mut self, from: usize, to: usize, word: Word) {
        let Some(&link) = self.links.get(&pair(from, to)) else { return };
        let is_offer = matches!(word, Word::Offer(_));
        let revision = self.revisions.entry((from, to, is_offer)).or_default();
        *revision += 1;
        let revision = *revision;
        // States are repeated until they are taken up: a lost one comes later.
        let delay = 1 + self.chance(60) + if self.chance(10) == 0 { self.chance(900) } else { 0 };
        let at = self.now + delay;
        self.flying.push_back(Flying { at, from, to, link, revision, word });
    }

    fn connect(&mut self, a: usize, b: usize) {
        if a == b || self.links.contains_key(&pair(a, b)) {
            return;
        }
        self.next_link += 1;
        self.links.insert(pair(a, b), self.next_link);
        for (at, other) in [(a, b), (b, a)] {
            // A node waits for the base to offer.
            if other != 0 {
                self.act(at, |relay, fx| relay.invite(&peer(other), fx));
            }
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        if self.links.remove(&pair(a, b)).is_none() {
            return;
        }
        for (at, other) in [(a, b), (b, a)] {
            self.act(at, |relay, fx| relay.peer_lost(&peer(other), fx));
            for is_offer in [true, false] {
                self.revisions.remove(&(at, other, is_offer));
                self.seen.remove(&(at, other, is_offer));
            }
        }
    }

    /// A node comes back with less than it had: three fourths of its chunks.
    fn restart(&mut self, at: usize) {
        for other in 0..self.peers.len() {
            self.cut(at, other);
        }
        let seed = &mut self.seed;
        let mut peer = self.peers[at].restart(&self.log, WINDOW, || chance(seed, 4) > 0);
        peer.relay.share();
        self.peers[at] = peer;
    }

    /// The log grows, and is cut anew from time to time.
    fn grow(&mut self) {
        let from = self.log.pages.len();
        if self.log.tail.len() >= RECUT_EVERY {
            self.log.cut_anew();
        } else {
            let len = 1 + self.chance(9) as u32;
            self.log.chunk(len);
        }
        self.follow(from);
    }

    fn end(&mut self) {
        let from = self.log.pages.len();
        self.log.end();
        self.grows = false;
        self.follow(from);
    }

    fn step(&mut self) {
        self.now += 1;
        let due: VecDeque<Flying> = {
            let (due, rest) = self.flying.drain(..).partition(|flying| flying.at <= self.now);
            self.flying = rest;
            due
        };
        due.into_iter().for_each(|flying| self.arrive(flying));
        if self.now.is_multiple_of(TICK_MS) {
            for at in 0..self.peers.len() {
                let now = Time::from_micros(self.now * 1_000);
                self.act(at, |relay, fx| relay.tick(now, None, fx));
                let feeds = &self.peers[at].relay.feeds;
                let besides = feeds.iter().filter(|feed| feed.beside.is_some());
                self.besides += besides.count() as u64;
            }
        }
        if self.now.is_multiple_of(FLUSH_MS) {
            for at in 1..self.peers.len() {
                let mut fx = Vec::new();
                self.peers[at].flush(&self.log, &mut fx);
                self.carry_out(at, fx);
            }
        }
        let turns = if self.is_live { self.links.len() } else { 2 };
        for _ in 0..turns {
            let links: Vec<(usize, usize)> = self.links.keys().copied().collect();
            if links.is_empty() {
                continue;
            }
            let (a, b) = links[self.chance(links.len() as u64) as usize];
            let (from, to) = if self.chance(2) == 0 { (a, b) } else { (b, a) };
            if let Some(next) = self.peers[from].relay.next_send(&peer(to)) {
                let link = self.links[&(a, b)];
                let at = self.now + 5 + self.chance(50);
                self.flying.push_back(Flying {
                    at,
                    from,
                    to,
                    link,
                    revision: 0,
                    word: Word::Record(next),
                });
            }
        }
        self.assert_acyclic();
    }

    fn arrive(&mut self, flying: Flying) {
        let Flying { from, to, link, revision, word, .. } = flying;
        if self.links.get(&pair(from, to)) != Some(&link) {
            return;
        }
        let is_offer = matches!(word, Word::Offer(_));
        if !matches!(word, Word::Record(_)) {
            let seen = self.seen.entry((from, to, is_offer)).or_default();
            if revision <= *seen {
                return;
            }
            *seen = revision;
        }
        match word {
            Word::Offer(offer) => self.act(to, |relay, fx| relay.offered(&peer(from), offer, fx)),
            Word::Want(want) => self.act(to, |relay, fx| relay.wanted(&peer(from), want, fx)),
            Word::Record(next) => self.land(from, to, next),
        }
    }

    fn land(&mut self, from: usize, to: usize, next: Next) {
        let (receiver, log, mut fx) = (&mut self.peers[to], &self.log, Vec::new());
        receiver.now = Time::from_micros(self.now * 1_000);
        receiver.relay.at(receiver.now);
        match next {
            Next::Page(page) | Next::PageInPlace(page) => {
                let in_place = matches!(next, Next::PageInPlace(_));
                receiver.page(&log.pages[page as usize], in_place, &mut fx);
                receiver.early(log, &mut fx);
            }
            Next::Chunk(chunk) => {
                self.received += 1;
                match receiver.relay.landing(&peer(from), chunk) {
                    Landing::Wanted => receiver.chunk(log, chunk, &mut fx),
                    Landing::Duplicate => self.doubled += 1,
                    Landing::BeyondCredit => panic!("{from} sends {to} chunk {chunk} uncalled"),
                }
            }
        }
        self.carry_out(to, fx);
    }

    /// Follows every stripe, and the pages, from each node to all who send it any of them.
    fn assert_acyclic(&self) {
        for stripe in 0..=usize::from(self.stripes) {
            for start in 1..self.peers.len() {
                let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
                while let Some(at) = next.pop() {
                    let relay = &self.peers[at].relay;
                    let feed = relay.feeds.get(stripe).unwrap_or(&relay.pages_feed);
                    let nodes = feed.sources().map(index).filter(|source| *source != 0);
                    for source in nodes {
                        assert!(
                            source != start,
                            "{start} waits for itself in stripe {stripe} at {} ms",
                            self.now
                        );
                        if seen.insert(source) {
                            next.push(source);
                        }
                    }
                }
            }
        }
    }

    /// Whether everybody has all that there is.
    fn is_level(&self) -> bool {
        let chunks = self.peers[0].relay.chunks();
        self.peers.iter().all(|peer| peer.relay.held().head() == chunks)
    }

    fn is_done(&self) -> bool {
        self.peers.iter().all(|peer| peer.relay.is_whole())
    }

    fn heads(&self) -> Vec<u64> {
        self.peers.iter().map(|peer| peer.relay.held().head()).collect()
    }

    /// Connections come and go and nodes start again; then all that is to be connected is. A live
    /// log grows that long, and ends when everybody has all of it.
    fn run(&mut self) {
        let nodes = self.peers.len() as u64;
        for at in 1..self.peers.len() {
            self.connect(0, at);
        }
        while self.now < END_MS && !(self.now > FAULTS_MS && self.is_done()) {
            if self.grows && self.now < FAULTS_MS && self.now.is_multiple_of(CHUNK_EVERY_MS) {
                self.grow();
            }
            if self.grows && self.now > FAULTS_MS && self.is_level() {
                self.end();
            }
            if self.now < FAULTS_MS {
                let (a, b) = (self.chance(nodes) as usize, self.chance(nodes) as usize);
                match self.chance(600) {
                    0 => self.restart(1 + (a % (nodes as usize - 1))),
                    1..4 => self.cut(a, b),
                    4..30 => self.connect(a, b),
                    // What is known of an uplink: stripes move to other homes.
                    30..33 => {
                        let (node, bps) = (peer(1 + a % (nodes as usize - 1)), 1 << (4 * b));
                        self.peers[0].relay.set_uplink(&node, bps);
                    }
                    _ => {}
                }
            } else if self.now == FAULTS_MS {
                for (a, b) in (0..nodes).flat_map(|a| (0..a).map(move |b| (a, b))) {
                    self.connect(a as usize, b as usize);
                }
            }
            self.step();
        }
    }
}

fn run(variant: Variant, seed: u64) -> Mesh {
    let nodes = 3 + (seed % 7) as usize;
    let mut mesh = Mesh::of_files(variant, nodes, 1 << (seed % 4), seed);
    mesh.run();
    mesh
}

#[test]
fn nobody_waits_in_a_circle_and_everybody_gets_everything() {
    let (mut received, mut doubled, mut besides) = (0, 0, 0);
    for seed in 0..200 {
        let mesh = run(Variant::Sound, seed);
        assert!(mesh.is_done(), "seed {seed}: {:?}", mesh.heads());
        received += mesh.received;
        doubled += mesh.doubled;
        besides += mesh.besides;
    }
    assert!(besides > 0, "no contender was ever tried");
    println!("{besides} looks with two sources, {doubled} of {received} chunks came twice");
    // What is on its way when its receiver changes the source; measured: 3 in 100,000.
    assert!(doubled * 1_000 < received, "{doubled} of {received} chunks came twice");
}

#[test]
fn a_live_log_that_is_cut_anew_reaches_everybody() {
    let (mut received, mut doubled) = (0, 0);
    // Those that found what was wrong, each alone, are among them.
    for seed in (0..60).chain([80, 83, 120, 164, 230, 511]) {
        let mut mesh = Mesh::of_live(3 + (seed % 7) as usize, seed);
        mesh.run();
        assert!(mesh.is_done(), "seed {seed}: {:?}", mesh.heads());
        // Nobody waits until its source counts as idle, 10 s at these rates; measured: 2.9 s.
        assert!(mesh.now < FAULTS_MS + LEVEL_MS, "seed {seed}: {} ms", mesh.now);
        for peer in &mesh.peers {
            assert_eq!(peer.has.len() as u64, mesh.log.len, "seed {seed}: bytes are missing");
        }
        received += mesh.received;
        doubled += mesh.doubled;
    }
    // Measured: 4 in 1,000.
    assert!(doubled * 100 < received, "{doubled} of {received} chunks came twice");
}

#[test]
fn nodes_that_say_too_much_wait_in_circles() {
    for variant in [Variant::Boasts, Variant::TakesEquals] {
        let waits = |seed| {
            let panic = std::panic::catch_unwind(|| drop(run(variant, seed))).err()?;
            panic.downcast_ref::<String>().map(|text| text.contains("waits for itself"))
        };
        assert!((0..40).any(|seed| waits(seed) == Some(true)), "{variant:?} is not found");
    }
}
