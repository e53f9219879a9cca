//! Model of one directed network link: rate and queue, delay, jitter, loss, reordering,
//! duplication, corruption.
//!
//! A [`Link`] is offered packets by length and says what becomes of each. It has no clock, no
//! sockets and no payload: time is a [`Duration`] since the start of the run, given by the caller,
//! so the same model drives quinn in virtual time ([`crate::wan`]) and an emulator under real
//! processes. Links are described in words, see [`LinkSpec`].
//!
//! What the words mean:
//! * The delay is one way. Jitter spreads it evenly over ± the given time and keeps packets in
//!   order, because reordering by jitter is a condition of its own (it defeats packet-threshold
//!   loss detection); `jitter-reorders` asks for that.
//! * A clump holds packets back until the next multiple of its time, counted from the start of
//!   the run, so that they arrive together.
//! * Loss is drawn before the queue: a lost packet takes no capacity of the link.
//! * The rate counts bytes of IP packets. The queue is drop-tail and counts bytes that have not
//!   left yet, those of the packet on the wire included; a packet that finds the link idle is
//!   always taken.
//! * A copy made by `dup` arrives together with its original and takes no capacity. A packet held
//!   back by `reorder` does not hold back those behind it.
//! * `down` drops what is offered from then on; what is already under way still arrives.

mod spec;
#[cfg(test)]
mod tests;
pub mod topology;

use std::time::Duration;

pub use spec::{Chance, LinkSpec, LinkSpecError, Loss, Queue, Reorder};

/// A small seeded generator (SplitMix64) for links and seeds of tests.
///
/// Its whole state is one number, so a run is repeated from its seed alone. Not for secrets.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// A generator whose numbers depend on all `parts` and on their order.
    #[must_use]
    pub fn from_parts(parts: &[u64]) -> Self {
        let mut state = 0;
        for part in parts {
            state = Self(state ^ part).next_u64();
        }
        Self(state)
    }

    /// The next number, any of 2^64 with the same chance.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// When a packet arrives, and in what state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Time of arrival since the start of the run; never before the time of the offer.
    pub at: Duration,
    /// Whether a second copy arrives at the same time.
    pub twice: bool,
    /// Index of a flipped bit, less than eight times the packet's length.
    pub flipped_bit: Option<u64>,
}

/// What a link does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrives.
    Deliver(Arrival),
    /// Random loss.
    Lost,
    /// The queue has no room.
    QueueFull,
    /// The link is down.
    Down,
}

/// What a link has done since it was made. Packets, except where bytes are named.
///
/// `offered = delivered + lost + queue_dropped + down_dropped` at all times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets offered.
    pub offered: u64,
    /// Bytes of the packets offered.
    pub offered_bytes: u64,
    /// Packets delivered, second copies not counted.
    pub delivered: u64,
    /// Bytes of the packets delivered, second copies not counted.
    pub delivered_bytes: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Packets that found no room in the queue.
    pub queue_dropped: u64,
    /// Packets offered while the link was down.
    pub down_dropped: u64,
    /// Packets delivered twice.
    pub duplicated: u64,
    /// Packets held back by `reorder`.
    pub held_back: u64,
    /// Packets delivered with a flipped bit.
    pub corrupted: u64,
}

/// One directed link.
#[derive(Clone, Debug)]
pub struct Link {
    spec: LinkSpec,
    rng: SplitMix,
    counters: LinkCounters,
    /// The bad state of a Gilbert-Elliott link.
    bad: bool,
    /// When the last byte accepted so far has left the queue.
    idle_at: Duration,
    /// Latest arrival that later packets must not overtake.
    last_arrival: Duration,
}

/// The random numbers of one packet. All are drawn for every packet, so that a word added to a
/// spec leaves the fate that the other words decide as it was.
struct Draws {
    state: u64,
    loss: u64,
    jitter: u64,
    dup: u64,
    reorder: u64,
    corrupt: u64,
}

impl Draws {
    fn next(rng: &mut SplitMix) -> Self {
        Self {
            state: rng.next_u64(),
            loss: rng.next_u64(),
            jitter: rng.next_u64(),
            dup: rng.next_u64(),
            reorder: rng.next_u64(),
            corrupt: rng.next_u64(),
        }
    }
}

impl Link {
    /// A link from `src` to `dst`. Its randomness depends on the three numbers only, so a link
    /// added to a network leaves the others as they were.
    #[must_use]
    pub fn new(spec: LinkSpec, seed: u64, src: u64, dst: u64) -> Self {
        Self {
            spec,
            rng: SplitMix::from_parts(&[seed, src, dst]),
            counters: LinkCounters::default(),
            bad: false,
            idle_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
        }
    }

    /// Offers a packet of `bytes` (IP header included) at `now`, the time since the start of the
    /// run. Offers come in the order of their times.
    pub fn offer(&mut self, now: Duration, bytes: usize) -> Verdict {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let draws = Draws::next(&mut self.rng);
        let verdict = self.judge(now, bytes, &draws);
        self.count(bytes, &verdict);
        verdict
    }

    /// What the link has done so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// The link's description.
    #[must_use]
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// Changes the link from now on. Randomness, counters and what is under way stay; bytes in
    /// the queue leave at the times given to them when they were accepted.
    pub fn set_spec(&mut self, spec: LinkSpec) {
        self.spec = spec;
    }

    fn judge(&mut self, now: Duration, bytes: u64, draws: &Draws) -> Verdict {
        if self.spec.down {
            return Verdict::Down;
        }
        if self.is_lost(draws) {
            return Verdict::Lost;
        }
        let Some(left) = self.enqueue(now, bytes) else {
            return Verdict::QueueFull;
        };
        Verdict::Deliver(Arrival {
            at: self.arrival(left, draws),
            twice: self.spec.dup.hits(draws.dup),
            flipped_bit: self.flipped_bit(bytes, draws.corrupt),
        })
    }

    fn is_lost(&mut self, draws: &Draws) -> bool {
        match self.spec.loss {
            Loss::Random(chance) => chance.hits(draws.loss),
            Loss::GilbertElliott { to_bad, to_good, in_bad, in_good } => {
                let change = if self.bad { to_good } else { to_bad };
                self.bad ^= change.hits(draws.state);
                let chance = if self.bad { in_bad } else { in_good };
                chance.hits(draws.loss)
            }
        }
    }

    /// When the packet has left the queue, or `None` if it finds no room.
    fn enqueue(&mut self, now: Duration, bytes: u64) -> Option<Duration> {
        let Some(rate) = self.spec.rate_bps else {
            return Some(now);
        };
        let wait = self.idle_at.saturating_sub(now);
        let backlog = bytes_in(wait, rate);
        if !wait.is_zero() && backlog.saturating_add(bytes) > self.spec.queue_bytes() {
            return None;
        }
        self.idle_at = now.saturating_add(wait).saturating_add(time_of(bytes, rate));
        Some(self.idle_at)
    }

    /// When a packet that left at `left` arrives.
    fn arrival(&mut self, left: Duration, draws: &Draws) -> Duration {
        let early = self.spec.delay.saturating_sub(self.spec.jitter);
        let spread = nanos(self.spec.jitter).saturating_mul(2);
        let at = left.saturating_add(early).saturating_add(share_of(spread, draws.jitter));
        let at = next_multiple(at, self.spec.clump);
        if let Some(Reorder { chance, late }) = self.spec.reorder
            && chance.hits(draws.reorder)
        {
            self.counters.held_back += 1;
            return at.max(self.last_arrival).saturating_add(late);
        }
        if self.spec.jitter_reorders {
            return at;
        }
        self.last_arrival = at.max(self.last_arrival);
        self.last_arrival
    }

    fn flipped_bit(&self, bytes: u64, draw: u64) -> Option<u64> {
        // One draw decides both: the remainder of a hit is spread evenly enough to choose a bit.
        let hit = self.spec.corrupt.hits(draw) && bytes > 0;
        hit.then(|| draw % bytes.saturating_mul(8))
    }

    fn count(&mut self, bytes: u64, verdict: &Verdict) {
        let counters = &mut self.counters;
        counters.offered += 1;
        counters.offered_bytes += bytes;
        match verdict {
            Verdict::Deliver(arrival) => {
                counters.delivered += 1;
                counters.delivered_bytes += bytes;
                counters.duplicated += u64::from(arrival.twice);
                counters.corrupted += u64::from(arrival.flipped_bit.is_some());
            }
            Verdict::Lost => counters.lost += 1,
            Verdict::QueueFull => counters.queue_dropped += 1,
            Verdict::Down => counters.down_dropped += 1,
        }
    }
}

const NANOS_PER_SEC: u128 = 1_000_000_000;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The first multiple of `step` that is not before `time`; `time` itself without a step.
fn next_multiple(time: Duration, step: Duration) -> Duration {
    match nanos(step) {
        0 => time,
        step => Duration::from_nanos(nanos(time).div_ceil(step).saturating_mul(step)),
    }
}

/// Bytes that leave in `time`, rounded up: a byte half sent still takes its room.
fn bytes_in(time: Duration, rate_bps: u64) -> u64 {
    let bits = time.as_nanos().saturating_mul(u128::from(rate_bps));
    u64::try_from(bits.div_ceil(8 * NANOS_PER_SEC)).unwrap_or(u64::MAX)
}

/// Time that `bytes` take on the wire, rounded up.
fn time_of(bytes: u64, rate_bps: u64) -> Duration {
    let bits = u128::from(bytes) * 8 * NANOS_PER_SEC;
    let nanos = bits.div_ceil(u128::from(rate_bps).max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A time from nothing to `nanos`, both included, chosen by `draw`.
fn share_of(nanos: u64, draw: u64) -> Duration {
    let scaled = (u128::from(draw) * (u128::from(nanos) + 1)) >> 64;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}
