//! What is known of the path: its round trip without a queue, the queue seen, its jitter.

use crate::time::Time;

/// A sample no further above the base than this counts as a look at the empty path: a hundredth
/// of the base within these bounds, seconds, or this part of the queue that the flow keeps. Flows
/// that share a queue must agree on when it is empty, or they dip at different times.
const TOUCH_QUEUE: f64 = 0.3;
const TOUCH_PART: f64 = 0.01;
const TOUCH: (f64, f64) = (0.0002, 0.001);
/// Acknowledgements in a row that must show a queue, and how long it must be: a part of the base
/// within these bounds, seconds.
const RECENT: usize = 8;
const SHOWS_PART: f64 = 1.0 / 32.0;
const SHOWS: (f64, f64) = (0.001, 0.004);
/// An acknowledgement of fewer packets, and so long after the one before, seconds, may have been
/// delayed by the receiver: its round trip says nothing about the queue.
const PROMPT_PACKETS: u32 = 2;
const PROMPT_AFTER: f64 = 0.005;
/// What the longest queue keeps from round to round, and how many times as long it may become in
/// one, beside an alarm: a process that was held up for once has seen no queue.
const LONGEST_KEEP: f64 = 0.995;
const LONGEST_GROWTH: f64 = 2.0;
/// Samples in a round, and rounds, from which jitter is told.
const SPREAD_SAMPLES: u32 = 4;
const SPREAD_ROUNDS: usize = 4;
/// How fast the spread follows, and how much of it our own bursts make: seconds, or this part of
/// the base if that is more.
const SPREAD_GAIN: f64 = 0.25;
const SPREAD_OWN: f64 = 0.001;
const SPREAD_OWN_PART: f64 = 1.0 / 50.0;
/// Delay that is allowed for a second of spread. The spread is that of a round's mean above its
/// least, and the least of a round is itself uncertain by several times as much when packets keep
/// their order.
const NOISE_PER_SPREAD: f64 = 5.0;
/// A standing queue above this, seconds, beside a part of the floor and twice the noise, is more
/// than flows of this kind keep together, if it is also longer than what this flow keeps: with `n`
/// flows that have one rate and keep one queue each, all of it waits `n · queue / (n · rate)`, as
/// long as the own one would with the own rate alone. Eight flows that share 20 Mbit/s keep 9 ms.
const ALARM: f64 = 0.004;
const ALARM_PART: f64 = 1.0 / 8.0;
/// A round is restless if its longest queue stands above its least by this part of an alarm. So
/// many restless rounds in so many seconds are the probing of somebody else's controller.
const RESTLESS_PART: f64 = 0.5;
const RESTLESS_ROUNDS: usize = 3;
const RESTLESS_WITHIN: f64 = 6.0;
/// The floor is the least round trip of the last one to two of these times, seconds.
const FLOOR_EVERY: f64 = 30.0;

/// The least round trip of a round is that of one in so many acknowledgements, the last of those that
/// are kept where there are more, not the very least: a receiver's or sender's process that was held
/// up stamps some packets with an earlier time than they had, and a single one would be taken for a
/// shorter path.
const LEAST_ONE_IN: usize = 8;
const LEAST_KEPT: usize = 16;

/// The least round trips of a round, in order.
#[derive(Debug, Clone, Copy)]
struct Least {
    kept: [f64; LEAST_KEPT],
    count: usize,
}

impl Default for Least {
    fn default() -> Self {
        Self { kept: [f64::INFINITY; LEAST_KEPT], count: 0 }
    }
}

impl Least {
    fn add(&mut self, rtt: f64) {
        self.count += 1;
        let at = self.kept.partition_point(|kept| *kept <= rtt);
        if let Some(rest) = self.kept.get_mut(at..).filter(|rest| !rest.is_empty()) {
            rest.rotate_right(1);
            if let Some(place) = rest.first_mut() {
                *place = rtt;
            }
        }
    }

    fn get(&self) -> Option<f64> {
        let at = (self.count / LEAST_ONE_IN).min(LEAST_KEPT - 1);
        self.kept.get(at).copied().filter(|rtt| rtt.is_finite())
    }
}

/// Round trips of the acknowledgements of one round that were not delayed by the receiver.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    sum: f64,
    count: u32,
    most: f64,
}

impl Times {
    fn add(&mut self, rtt: f64) {
        self.sum += rtt;
        self.count += 1;
        self.most = self.most.max(rtt);
    }
}

/// All times in seconds.
#[derive(Debug, Clone)]
pub(super) struct Path {
    base: f64,
    /// When a packet last met an empty path.
    base_at: Time,
    /// Least round trips of the two times between looks before this one, and of this one.
    lows: [f64; 2],
    low: f64,
    floors: [f64; 2],
    floor_since: Time,
    recent: [f64; RECENT],
    samples: usize,
    /// Packets of the acknowledgement that is being told; the newest of them and its round trip.
    told: u32,
    newest: (Time, f64),
    told_at: Time,
    least: Least,
    prompt: Times,
    longest_queue: f64,
    own_queue: f64,
    spreads: [f64; SPREAD_ROUNDS],
    spread: f64,
    /// The last restless rounds.
    restless: [Option<Time>; RESTLESS_ROUNDS],
}

impl Default for Path {
    fn default() -> Self {
        Self {
            base: f64::INFINITY,
            base_at: Time::ZERO,
            lows: [f64::INFINITY; 2],
            low: f64::INFINITY,
            floors: [f64::INFINITY; 2],
            floor_since: Time::ZERO,
            recent: [f64::INFINITY; RECENT],
            samples: 0,
            told: 0,
            newest: (Time::ZERO, 0.0),
            told_at: Time::ZERO,
            least: Least::default(),
            prompt: Times::default(),
            longest_queue: 0.0,
            own_queue: 0.0,
            spreads: [0.0; SPREAD_ROUNDS],
            spread: 0.0,
            restless: [None; RESTLESS_ROUNDS],
        }
    }
}

impl Path {
    /// Whether a round trip was seen.
    pub(super) fn is_known(&self) -> bool {
        self.base.is_finite()
    }

    /// Round trip without a queue, as far as is known.
    pub(super) fn base(&self) -> f64 {
        self.base
    }

    /// Least round trip of the last half minute or more.
    pub(super) fn floor(&self) -> f64 {
        self.floors.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Round trip of the newest packet that was acknowledged.
    pub(super) fn newest(&self) -> f64 {
        self.newest.1
    }

    /// Longest queue seen lately.
    pub(super) fn longest_queue(&self) -> f64 {
        self.longest_queue
    }

    /// Delay that jitter may add to the least round trip of a round.
    pub(super) fn noise(&self) -> f64 {
        let own = SPREAD_OWN.max(SPREAD_OWN_PART * self.base);
        NOISE_PER_SPREAD * (self.spread - own).max(0.0)
    }

    /// A standing queue that flows of this kind would not keep.
    pub(super) fn alarm(&self) -> f64 {
        ALARM + ALARM_PART * self.floor() + 2.0 * self.noise() + self.own_queue
    }

    /// Whether no packet has met an empty path for `seconds`.
    pub(super) fn is_stale(&self, now: Time, seconds: f64) -> bool {
        now.since(self.base_at).as_secs_f64() > seconds
    }

    /// The bytes that this flow keeps in the queue take `own_queue` at its own rate.
    pub(super) fn keeps(&mut self, own_queue: f64) {
        self.own_queue = own_queue;
    }

    /// A packet sent at `sent` came through in `rtt`.
    pub(super) fn seen(&mut self, now: Time, sent: Time, rtt: f64) {
        let own = TOUCH_QUEUE * self.own_queue;
        let touch = (TOUCH_PART * self.base).clamp(TOUCH.0, TOUCH.1).max(own);
        if !self.is_known() {
            self.base = rtt;
        }
        if rtt <= self.base + touch {
            self.base_at = now;
        }
        self.told += 1;
        if sent >= self.newest.0 {
            self.newest = (sent, rtt);
        }
    }

    /// All packets of one acknowledgement were told.
    pub(super) fn acks_end(&mut self, now: Time) {
        let told = std::mem::take(&mut self.told);
        if told == 0 {
            return;
        }
        self.least.add(self.newest.1);
        let after = now.since(std::mem::replace(&mut self.told_at, now));
        if told < PROMPT_PACKETS && after.as_secs_f64() > PROMPT_AFTER {
            return;
        }
        let rtt = self.newest.1;
        self.prompt.add(rtt);
        if let Some(place) = self.recent.get_mut(self.samples % RECENT) {
            *place = rtt;
        }
        self.samples = self.samples.wrapping_add(1);
    }

    /// A round has ended; its least round trip, if anything was acknowledged in it.
    pub(super) fn end_round(&mut self, now: Time) -> Option<f64> {
        let round = std::mem::take(&mut self.least);
        let standing = round.get()?;
        let [least, ..] = round.kept;
        let [_, floor] = &mut self.floors;
        *floor = floor.min(standing);
        self.low = self.low.min(standing);
        self.base = self.base.min(standing);
        let Times { sum, count, most } = std::mem::take(&mut self.prompt);
        let longest = (most - self.base).min(LONGEST_GROWTH * self.longest_queue + self.alarm());
        self.longest_queue = (LONGEST_KEEP * self.longest_queue).max(longest);
        if most - standing > RESTLESS_PART * self.alarm() {
            self.restless.rotate_left(1);
            if let Some(last) = self.restless.last_mut() {
                *last = Some(now);
            }
        }
        if count >= SPREAD_SAMPLES {
            let [_, rest @ ..] = self.spreads;
            let [a, b, c] = rest;
            self.spreads = [a, b, c, sum / f64::from(count) - least];
            let mut sorted = self.spreads;
            sorted.sort_by(f64::total_cmp);
            // The second least: what a single burst, ours or another's, does is not jitter.
            let [_, usual, ..] = sorted;
            self.spread += SPREAD_GAIN * (usual - self.spread);
        }
        if now.since(self.floor_since).as_secs_f64() > FLOOR_EVERY {
            let [_, last] = self.floors;
            self.floors = [last, standing];
            self.floor_since = now;
        }
        Some(standing)
    }

    /// Whether the queue comes and goes as flows of this kind would not make it.
    pub(super) fn is_restless(&self, now: Time) -> bool {
        let [first, ..] = self.restless;
        first.is_some_and(|at| now.since(at).as_secs_f64() < RESTLESS_WITHIN)
    }

    /// Whether the packets acknowledged last met a queue.
    pub(super) fn queue_shows(&self) -> bool {
        let least = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        let shows = (SHOWS_PART * self.base).clamp(SHOWS.0, SHOWS.1);
        self.samples >= RECENT && least - self.base > shows
    }

    /// The window dipped, and the least round trip then was `least`. The base is the least of
    /// this look and of what was seen since the one before the last: what other flows kept in the
    /// queue once is not taken for the path.
    pub(super) fn looked(&mut self, now: Time, least: f64) {
        let [_, before] = self.lows;
        self.lows = [before, self.low.min(least)];
        self.low = least;
        self.base = self.lows.iter().copied().fold(least, f64::min);
        self.base_at = now;
    }

    /// The path is another one: its base is `base`, whatever was seen before.
    pub(super) fn rebase(&mut self, now: Time, base: f64) {
        self.base = base;
        self.base_at = now;
        self.lows = [f64::INFINITY; 2];
        self.low = base;
    }
}
