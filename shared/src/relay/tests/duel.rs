//! Two sources of one receiver, at rates that change: it is on the faster one soon, does not go to
//! and fro between equal ones, and gets every chunk, once.

use std::collections::VecDeque;

use super::*;

const STRIPES: u8 = 2;
const LEN: u32 = 64_000;
const PER_PAGE: usize = 100;
/// Chunks that may be on their way: 4 MB.
const WINDOW: u64 = 64;
const STEP_US: u64 = 5_000;
const DELAY_US: u64 = 20_000;
const TICK_US: u64 = 100_000;

/// Bits per second at a time in seconds; a source that is `None` by then is gone.
type RateAt = fn(f64) -> Option<f64>;

struct Source {
    relay: Relay,
    rate: RateAt,
    /// Bytes that it may send now.
    budget: f64,
    wants: VecDeque<(u64, Want)>,
    /// Bytes of chunks that came from it, by tenths of a second.
    brought: Vec<u64>,
    gone: bool,
}

struct Duel {
    now: u64,
    seed: u64,
    noise: f64,
    pages: u32,
    receiver: Relay,
    sources: Vec<Source>,
    flying: VecDeque<(u64, usize, Next)>,
    doubled: u64,
    changes: u32,
    by: Vec<Option<PeerId>>,
}

fn name(source: usize) -> PeerId {
    node(["s0", "s1"][source])
}

fn me() -> PeerId {
    node("me")
}

fn full(pages: u32) -> Relay {
    let mut relay = Relay::new(STRIPES, WINDOW);
    for page in 0..pages {
        let place = (page, u64::from(page) * PER_PAGE as u64);
        relay.restore_page(place, &[LEN; PER_PAGE], None, page + 1 == pages);
    }
    let mut held = ChunkSet::new();
    (0..u64::from(pages) * PER_PAGE as u64).for_each(|chunk| assert!(held.insert(chunk)));
    relay.restore(&held, Cuts::default(), true);
    relay.publish(pages, &mut Vec::new());
    relay.share();
    relay
}

impl Duel {
    fn new(seed: u64, noise: f64, pages: u32, rates: [RateAt; 2]) -> Self {
        let mut receiver = Relay::new(STRIPES, WINDOW);
        receiver.set_window(WINDOW, LEN);
        receiver.share();
        let source = |rate| Source {
            relay: full(pages),
            rate,
            budget: 0.0,
            wants: VecDeque::new(),
            brought: Vec::new(),
            gone: false,
        };
        Self {
            now: 0,
            seed,
            noise,
            pages,
            receiver,
            sources: rates.into_iter().map(source).collect(),
            flying: VecDeque::new(),
            doubled: 0,
            changes: 0,
            by: vec![None; usize::from(STRIPES)],
        }
    }

    fn time(&self) -> Time {
        Time::from_micros(self.now)
    }

    fn seconds(&self) -> f64 {
        self.now as f64 / 1e6
    }

    fn receive(&mut self, act: impl FnOnce(&mut Relay, &mut Vec<Effect>)) {
        let mut fx = Vec::new();
        self.receiver.at(Time::from_micros(self.now));
        act(&mut self.receiver, &mut fx);
        for effect in fx {
            if let Effect::Want { peer, want } = effect {
                let at = usize::from(peer == name(1));
                self.sources[at].wants.push_back((self.now + DELAY_US, want));
            }
        }
        for (was, feed) in self.by.iter_mut().zip(&self.receiver.feeds) {
            let is_change = was.is_some() && feed.by.is_some() && *was != feed.by;
            self.changes += u32::from(is_change);
            if feed.by.is_some() {
                was.clone_from(&feed.by);
            }
        }
    }

    /// Lets a source say what it has, from its first word on.
    fn offer(&mut self, at: usize) {
        let mut fx = Vec::new();
        self.sources[at].relay.invite(&me(), &mut fx);
        self.tell(at, fx);
    }

    fn tell(&mut self, at: usize, fx: Vec<Effect>) {
        for effect in fx {
            if let Effect::Offer { offer, .. } = effect {
                self.receive(|relay, fx| relay.offered(&name(at), offer, fx));
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP_US;
        for at in 0..self.sources.len() {
            self.send(at);
        }
        while let Some((_, at, next)) = self.flying.pop_front_if(|(due, ..)| *due <= self.now) {
            self.land(at, next);
        }
        if self.now.is_multiple_of(TICK_US) {
            let now = self.time();
            self.receive(|relay, fx| relay.tick(now, None, fx));
            for at in 0..self.sources.len() {
                let mut fx = Vec::new();
                self.sources[at].relay.tick(now, None, &mut fx);
                self.tell(at, fx);
                self.sources[at].brought.push(0);
            }
        }
    }

    fn send(&mut self, at: usize) {
        let (now, seconds) = (self.now, self.seconds());
        let noise = 1.0 + self.noise * (chance(&mut self.seed, 2_001) as f64 / 1_000.0 - 1.0);
        let source = &mut self.sources[at];
        if source.gone {
            return;
        }
        let Some(rate) = (source.rate)(seconds) else {
            source.gone = true;
            self.flying.retain(|(_, from, _)| *from != at);
            return self.receive(|relay, fx| relay.peer_lost(&name(at), fx));
        };
        let mut fx = Vec::new();
        while let Some((_, want)) = source.wants.pop_front_if(|(due, _)| *due <= now) {
            source.relay.at(Time::from_micros(now));
            source.relay.wanted(&me(), want, &mut fx);
        }
        // What is not used in a step is gone.
        source.budget += noise * rate / 8.0 * STEP_US as f64 / 1e6;
        while source.budget > 0.0 {
            let Some(next) = source.relay.next_send(&me()) else {
                source.budget = 0.0;
                break;
            };
            if matches!(next, Next::Chunk(_)) {
                source.budget -= f64::from(LEN);
            }
            self.flying.push_back((now + DELAY_US, at, next));
        }
        self.tell(at, fx);
    }

    fn land(&mut self, at: usize, next: Next) {
        let now = self.time();
        match next {
            Next::Page(page) if page == self.receiver.pages() => {
                let last = page + 1 == self.pages;
                self.receive(|relay, fx| {
                    next_page(relay, &[LEN; PER_PAGE], last, fx);
                    relay.publish(relay.pages(), fx);
                });
            }
            Next::Page(_) | Next::PageInPlace(_) => {}
            Next::Chunk(chunk) => match self.receiver.landing(&name(at), chunk) {
                Landing::Wanted if chunk < self.receiver.chunks() => {
                    if let Some(tenth) = self.sources[at].brought.last_mut() {
                        *tenth += u64::from(LEN);
                    }
                    self.receive(|relay, fx| relay.hold(now, chunk, LEN, fx));
                }
                // Its page is on the way from the other one.
                Landing::Wanted => self.flying.push_back((self.now + STEP_US, at, next)),
                Landing::Duplicate => self.doubled += 1,
                Landing::BeyondCredit => panic!("chunk {chunk} was not called"),
            },
        }
    }

    fn run_until(&mut self, seconds: f64) {
        while self.seconds() < seconds && !self.receiver.is_whole() {
            self.step();
        }
    }

    /// Whether all stripes come from one source.
    fn is_on(&self, source: usize) -> bool {
        self.receiver.feeds.iter().all(|feed| feed.by.as_ref() == Some(&name(source)))
    }

    /// When all stripes came from `source`, if that was before `end`.
    fn is_on_after(&mut self, source: usize, end: f64) -> Option<f64> {
        while self.seconds() < end && !self.is_on(source) {
            self.step();
        }
        self.is_on(source).then(|| self.seconds())
    }

    /// Everything is here, and came once but for some chunks.
    fn finish(&mut self, doubled: u64) {
        self.run_until(2_000.0);
        assert!(
            self.receiver.is_whole(),
            "{:?} of {}",
            self.receiver.missing,
            self.receiver.chunks()
        );
        assert!(self.doubled <= doubled, "{} chunks came twice", self.doubled);
    }
}

const MBIT: f64 = 1e6;

#[test]
fn a_node_is_on_the_faster_source_within_three_seconds_of_its_offer() {
    for seed in 0..20 {
        let mut duel = Duel::new(seed, 0.1, 40, [|_| Some(20.0 * MBIT), |_| Some(80.0 * MBIT)]);
        duel.offer(0);
        duel.run_until(3.0);
        assert!(duel.is_on(0));
        duel.offer(1);
        let at = duel.is_on_after(1, 20.0).map(|at| at - 3.0);
        assert!(at.is_some_and(|at| at <= 3.0), "seed {seed}: {at:?}");
        duel.finish(1 + u64::from(duel.changes));
    }
}

#[test]
fn it_changes_back_when_the_rates_are_exchanged() {
    let slow_later = |at| Some(if at < 12.0 { 80.0 } else { 20.0 } * MBIT);
    let fast_later = |at| Some(if at < 12.0 { 20.0 } else { 80.0 } * MBIT);
    for seed in 0..20 {
        let mut duel = Duel::new(seed, 0.1, 80, [slow_later, fast_later]);
        duel.offer(0);
        duel.offer(1);
        assert!(duel.is_on_after(0, 12.0).is_some(), "seed {seed}");
        duel.run_until(12.0);
        let at = duel.is_on_after(1, 30.0).map(|at| at - 12.0);
        assert!(at.is_some_and(|at| at <= 3.0), "seed {seed}: {at:?}");
        duel.finish(1 + u64::from(duel.changes));
    }
}

#[test]
fn between_equal_sources_it_changes_at_most_once_a_minute() {
    let equal: RateAt = |_| Some(40.0 * MBIT);
    for seed in 0..5 {
        let mut duel = Duel::new(seed, 0.1, 500, [equal, equal]);
        duel.offer(0);
        duel.offer(1);
        duel.finish(1 + u64::from(duel.changes));
        let minutes = duel.seconds() / 60.0;
        let stripes = u32::from(STRIPES);
        let (changes, most) = (f64::from(duel.changes), minutes.ceil());
        assert!(changes <= most, "seed {seed}: {changes} in {minutes:.1} min, {stripes} stripes");
    }
}

#[test]
fn a_source_that_brings_little_is_left_within_three_seconds() {
    for seed in 0..20 {
        let mut duel = Duel::new(seed, 0.1, 10, [|_| Some(5.0 * MBIT), |_| Some(20.0 * MBIT)]);
        duel.offer(0);
        duel.offer(1);
        let at = duel.is_on_after(1, 20.0);
        assert!(at.is_some_and(|at| at <= 3.0), "seed {seed}: {at:?}");
        duel.finish(1 + u64::from(duel.changes));
    }
}

#[test]
fn what_a_contender_was_asked_for_and_does_not_send_comes_from_the_other() {
    // It goes in the midst of a trial, or brings nothing any more and stays.
    let goes: RateAt = |at| (at < 4.2).then_some(30.0 * MBIT);
    let stops: RateAt = |at| Some(if at < 4.2 { 30.0 * MBIT } else { 0.0 });
    let steady: RateAt = |_| Some(30.0 * MBIT);
    for seed in 0..20 {
        for (faulty, doubled) in [(goes, 0), (stops, 2)] {
            let mut duel = Duel::new(seed, 0.1, 10, [steady, faulty]);
            duel.offer(0);
            duel.run_until(3.0);
            duel.offer(1);
            duel.finish(doubled);
        }
    }
}
