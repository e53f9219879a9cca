//! Two sources of a live stream, one later than the other: the receiver is on the earlier one soon,
//! does not go to and fro between equal ones, and gets every chunk, once.

use std::collections::VecDeque;

use super::*;
use crate::wire::message::Offer;

const LEN: u32 = 16_000;
const CHUNK_MS: u64 = 33;
/// One way, of words and of records.
const WAY_MS: u64 = 20;
const STEP_MS: u64 = 1;
const TICK_MS: u64 = 100;

/// How long after its publication a source has a chunk, in milliseconds, by the time in seconds; a
/// source that is `None` by then says and sends nothing any more.
type LateAt = fn(f64) -> Option<u64>;

struct Source {
    relay: Relay,
    late: LateAt,
    /// Milliseconds from one record to the next, at least; none that sends nothing.
    pace_ms: Option<u64>,
    sent_at: u64,
    is_offered: bool,
    wants: VecDeque<(u64, Want)>,
    offers: VecDeque<(u64, Offer)>,
    records: VecDeque<(u64, Next)>,
}

struct Race {
    now: u64,
    seed: u64,
    receiver: Relay,
    sources: [Source; 2],
    /// Chunks whose page is on the way from the other source.
    early: Vec<(usize, u64)>,
    /// When each chunk was the next one that was missing no longer.
    came: Vec<u64>,
    doubled: u64,
    by: Option<PeerId>,
    changes: u32,
    /// From one chunk to the next.
    chunk_ms: u64,
    /// When a source was silent at last.
    silent_at: u64,
}

fn name(source: usize) -> PeerId {
    node(["s0", "s1"][source])
}

fn me() -> PeerId {
    node("me")
}

fn add(relay: &mut Relay, now: Time, chunk: u64, fx: &mut Vec<Effect>) {
    if relay.pages() == u32::try_from(chunk).unwrap() {
        next_page(relay, &[LEN], false, fx);
        relay.publish(relay.pages(), fx);
    }
    relay.hold(now, chunk, LEN, fx);
}

impl Race {
    fn new(seed: u64, late: [LateAt; 2]) -> Self {
        let sharing = || {
            let mut relay = Relay::new(1, 128);
            relay.set_window(128, LEN);
            relay.share();
            relay
        };
        let source = |late| Source {
            relay: sharing(),
            late,
            pace_ms: Some(0),
            sent_at: 0,
            is_offered: false,
            wants: VecDeque::new(),
            offers: VecDeque::new(),
            records: VecDeque::new(),
        };
        Self {
            now: 0,
            seed,
            receiver: sharing(),
            sources: late.map(source),
            early: Vec::new(),
            came: Vec::new(),
            doubled: 0,
            by: None,
            changes: 0,
            chunk_ms: CHUNK_MS,
            silent_at: 0,
        }
    }

    fn time(&self) -> Time {
        Time::from_micros(self.now * 1_000)
    }

    fn seconds(&self) -> f64 {
        self.now as f64 / 1e3
    }

    fn receive(&mut self, act: impl FnOnce(&mut Relay, &mut Vec<Effect>)) {
        let mut fx = Vec::new();
        self.receiver.at(Time::from_micros(self.now * 1_000));
        act(&mut self.receiver, &mut fx);
        for effect in fx {
            if let Effect::Want { peer, want } = effect {
                let at = usize::from(peer == name(1));
                self.sources[at].wants.push_back((self.now + WAY_MS, want));
            }
        }
        let by = self.receiver.feeds[0].by.clone();
        self.changes += u32::from(self.by.is_some() && by.is_some() && self.by != by);
        self.by = by.or(self.by.take());
        let missing = self.receiver.missing[0] as usize;
        self.came.resize(missing.max(self.came.len()), self.now);
    }

    fn offer(&mut self, at: usize) {
        let mut fx = Vec::new();
        self.sources[at].is_offered = true;
        self.sources[at].relay.invite(&me(), &mut fx);
        self.say(at, fx);
    }

    fn say(&mut self, at: usize, fx: Vec<Effect>) {
        for effect in fx {
            if let Effect::Offer { offer, .. } = effect {
                self.sources[at].offers.push_back((self.now + WAY_MS, offer));
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        for at in 0..2 {
            if (self.sources[at].late)(self.seconds()).is_some() {
                self.act(at);
            }
            let now = self.now;
            while let Some((_, offer)) = self.sources[at].offers.pop_front_if(|o| o.0 <= now) {
                self.receive(|relay, fx| relay.offered(&name(at), offer, fx));
            }
            while let Some((_, next)) = self.sources[at].records.pop_front_if(|r| r.0 <= now) {
                self.land(at, next);
            }
        }
        if self.now.is_multiple_of(TICK_MS) {
            let now = self.time();
            self.receive(|relay, fx| relay.tick(now, None, fx));
            if self.receiver.feeds[0].is_silent {
                self.silent_at = self.now;
            }
        }
    }

    /// A source gets what is due, hears, looks and sends.
    fn act(&mut self, at: usize) {
        let (now, time) = (self.now, self.time());
        let late = (self.sources[at].late)(self.seconds()).unwrap();
        // Up to a tenth of its whole way earlier or later.
        let most = (late + WAY_MS) / 5 + 1;
        let noise = chance(&mut self.seed, most);
        let (source, mut fx) = (&mut self.sources[at], Vec::new());
        source.relay.at(time);
        let next = source.relay.held().head();
        if next * self.chunk_ms + late + noise <= now + most / 2 {
            add(&mut source.relay, time, next, &mut fx);
        }
        while let Some((_, want)) = source.wants.pop_front_if(|want| want.0 <= now) {
            source.relay.wanted(&me(), want, &mut fx);
        }
        if source.is_offered && now.is_multiple_of(TICK_MS) {
            source.relay.tick(time, None, &mut fx);
        }
        let may_send = |source: &Source| source.pace_ms.is_some_and(|p| now >= source.sent_at + p);
        while may_send(source) {
            let Some(next) = source.relay.next_send(&me()) else { break };
            // Pages are short.
            source.sent_at = if matches!(next, Next::Chunk(_)) { now } else { source.sent_at };
            source.records.push_back((now + WAY_MS, next));
        }
        self.say(at, fx);
    }

    fn land(&mut self, at: usize, next: Next) {
        match next {
            Next::Page(page) if page == self.receiver.pages() => {
                self.receive(|relay, fx| {
                    next_page(relay, &[LEN], false, fx);
                    relay.publish(relay.pages(), fx);
                });
                let early = std::mem::take(&mut self.early);
                early.into_iter().for_each(|(at, chunk)| self.land_chunk(at, chunk));
            }
            Next::Page(_) | Next::PageInPlace(_) => {}
            Next::Chunk(chunk) => self.land_chunk(at, chunk),
        }
    }

    fn land_chunk(&mut self, at: usize, chunk: u64) {
        let now = self.time();
        match self.receiver.landing(&name(at), chunk) {
            Landing::Wanted if chunk < self.receiver.chunks() => {
                self.receive(|relay, fx| relay.hold(now, chunk, LEN, fx));
            }
            Landing::Wanted => self.early.push((at, chunk)),
            Landing::Duplicate => self.doubled += 1,
            Landing::BeyondCredit => panic!("chunk {chunk} was not called"),
        }
    }

    fn run_until(&mut self, seconds: f64) {
        while self.seconds() < seconds {
            self.step();
        }
    }

    fn is_on_after(&mut self, source: usize, end: f64) -> Option<f64> {
        let is_on = |race: &Self| race.receiver.feeds[0].by.as_ref() == Some(&name(source));
        while self.seconds() < end && !is_on(self) {
            self.step();
        }
        is_on(self).then(|| self.seconds())
    }

    /// The longest time without anything new, from `since` on.
    fn longest_gap(&self, since: f64) -> u64 {
        let since = (since * 1e3) as u64;
        let pairs = self.came.windows(2).filter(|pair| pair[1] >= since);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    fn assert_once(&self, seed: u64) {
        let most = u64::from(self.changes);
        assert!(self.doubled <= most, "seed {seed}: {} of {} changes", self.doubled, self.changes);
    }
}

const LATE: LateAt = |_| Some(150);
const EARLY: LateAt = |_| Some(0);

#[test]
fn a_node_is_on_the_earlier_source_within_three_seconds_of_its_offer() {
    for seed in 0..20 {
        let mut race = Race::new(seed, [LATE, EARLY]);
        race.offer(0);
        race.run_until(3.0);
        race.offer(1);
        let at = race.is_on_after(1, 20.0).map(|at| at - 3.0);
        assert!(at.is_some_and(|at| at <= 3.0), "seed {seed}: {at:?}");
        race.run_until(20.0);
        assert_eq!(race.changes, 1, "seed {seed}");
        assert!(race.longest_gap(3.0) <= 3 * CHUNK_MS, "seed {seed}: {}", race.longest_gap(3.0));
        race.assert_once(seed);
    }
}

#[test]
fn it_changes_back_when_the_other_one_becomes_earlier() {
    let late_later: LateAt = |at| Some(if at < 20.0 { 0 } else { 150 });
    let early_later: LateAt = |at| Some(if at < 20.0 { 150 } else { 0 });
    for seed in 0..20 {
        let mut race = Race::new(seed, [early_later, late_later]);
        race.offer(0);
        race.offer(1);
        assert!(race.is_on_after(1, 5.0).is_some(), "seed {seed}");
        race.run_until(20.0);
        let at = race.is_on_after(0, 40.0).map(|at| at - 20.0);
        assert!(at.is_some_and(|at| at <= 8.0), "seed {seed}: {at:?}");
        race.assert_once(seed);
    }
}

#[test]
fn between_equal_sources_it_changes_at_most_once_a_minute() {
    for seed in 0..4 {
        let mut race = Race::new(seed, [LATE, LATE]);
        race.offer(0);
        race.offer(1);
        race.run_until(180.0);
        assert!(race.changes <= 3, "seed {seed}: {}", race.changes);
        race.assert_once(seed);
    }
}

#[test]
fn a_little_earlier_is_no_reason() {
    let little: LateAt = |_| Some(40);
    for seed in 0..4 {
        let mut race = Race::new(seed, [little, EARLY]);
        race.offer(0);
        race.run_until(1.0);
        race.offer(1);
        race.run_until(60.0);
        assert_eq!(race.changes, 0, "seed {seed}");
    }
}

#[test]
fn who_catches_up_takes_none_of_equal_sources_for_earlier() {
    // Three times as fast as they come, and a tenth faster.
    for (seed, chunk_ms, pace_ms) in [(0, 33, 10), (1, 33, 10), (0, 33, 30), (0, 100, 90)] {
        let mut race = Race::new(seed, [EARLY, EARLY]);
        race.chunk_ms = chunk_ms;
        race.sources.iter_mut().for_each(|source| source.pace_ms = Some(pace_ms));
        race.run_until(60.0);
        (0..2).for_each(|source| race.offer(source));
        race.run_until(70.0);
        assert!(race.came.len() < 1_600, "{chunk_ms} ms: it has caught up already");
        race.run_until(110.0);
        assert_eq!(race.changes, 0, "a chunk in {chunk_ms} ms, sent in {pace_ms}");
        let least = 40_000 / pace_ms.max(chunk_ms);
        assert!(race.came.len() as u64 > least, "{} chunks", race.came.len());
    }
}

#[test]
fn a_source_that_does_not_keep_up_is_left_though_the_end_was_never_reached() {
    for seed in 0..4 {
        let mut race = Race::new(seed, [EARLY, EARLY]);
        race.sources[0].pace_ms = Some(40);
        race.run_until(3.0);
        race.offer(0);
        race.run_until(6.0);
        race.offer(1);
        let at = race.is_on_after(1, 13.0).map(|at| at - 6.0);
        assert!(at.is_some_and(|at| at <= 4.0), "seed {seed}: {at:?}");
    }
}

#[test]
fn of_a_stream_in_bursts_the_earlier_source_is_found() {
    // Every second what has come to be meanwhile, for half a second.
    let early: LateAt = |at| Some(if at % 1.0 < 0.59 { 0 } else { 10_000 });
    let late: LateAt = |at| Some(if (at + 0.91) % 1.0 < 0.55 { 90 } else { 10_000 });
    for seed in 0..4 {
        let mut race = Race::new(seed, [late, early]);
        race.chunk_ms = 15;
        race.offer(0);
        race.run_until(3.0);
        race.offer(1);
        let at = race.is_on_after(1, 20.0).map(|at| at - 3.0);
        assert!(at.is_some_and(|at| at <= 6.0), "seed {seed}: {at:?}");
        race.run_until(60.0);
        assert_eq!(race.changes, 1, "seed {seed}");
    }
}

#[test]
fn a_source_that_announces_early_and_sends_nothing_rests_longer_and_longer() {
    for seed in 0..4 {
        let mut race = Race::new(seed, [LATE, EARLY]);
        race.sources[1].pace_ms = None;
        race.offer(0);
        race.offer(1);
        race.run_until(60.0);
        // Tried after some seconds, 10 s, 20 s and 40 s later.
        assert!((2..=6).contains(&race.changes), "seed {seed}: {}", race.changes);
        assert!(race.came.len() > 1_750, "seed {seed}: {} chunks", race.came.len());
    }
}

#[test]
fn an_earlier_source_is_not_silent_while_the_one_before_sends_the_rest() {
    for (seed, chunk_ms) in (0..4).flat_map(|seed| [170, 250].map(|ms| (seed, ms))) {
        let mut race = Race::new(seed, [LATE, EARLY]);
        race.chunk_ms = chunk_ms;
        race.offer(0);
        race.run_until(3.0);
        race.offer(1);
        let on = race.is_on_after(1, 30.0);
        let on = on.unwrap_or_else(|| panic!("{chunk_ms} ms, seed {seed}: not found"));
        race.run_until(on + 5.0);
        let silent = race.silent_at as f64 / 1e3 - on;
        assert!(silent < 0.0, "{chunk_ms} ms, seed {seed}: silent after {silent} s");
        assert_eq!(race.changes, 1, "{chunk_ms} ms, seed {seed}");
    }
}

#[test]
fn when_either_dies_the_other_one_feeds() {
    let dies: LateAt = |at| (at < 3.8).then_some(150);
    let dies_early: LateAt = |at| (at < 3.8).then_some(0);
    for seed in 0..20 {
        // Before it is left, while it sends what it still has to, and after that.
        for offered in [0.0, 1.3, 1.7, 2.3, 3.0] {
            for late in [[dies, EARLY], [LATE, dies_early]] {
                let mut race = Race::new(seed, late);
                race.offer(0);
                race.run_until(offered);
                race.offer(1);
                race.run_until(8.0);
                let gap = race.longest_gap(3.0);
                // Half a second and a round trip; 0.1 s more if it dies before it brings anything.
                assert!(gap <= 600 + 2 * WAY_MS, "seed {seed}, offered at {offered}: {gap} ms");
                assert!(race.came.len() > 220, "seed {seed}: {}", race.came.len());
                assert!(race.doubled <= 2 + u64::from(race.changes), "{}", race.doubled);
            }
        }
    }
}
