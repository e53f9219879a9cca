//! Whether the queue ran over, or the path loses packets whatever its queue.
//!
//! Packets are counted in two classes: those that met a long queue, and those that met a short
//! one. Random loss hits both alike; a queue that runs over hits the first. Which queue a lost
//! packet met is told by the round trip of the one sent just before it.

use crate::time::Time;

/// A queue is long above this part of the longest one seen, and short below that one.
const LONG: f64 = 0.7;
const SHORT: f64 = 0.4;
/// What the counters keep from one round to the next: they remember some 30 rounds.
const KEEP: f64 = 0.97;
/// Packets of the long class that a verdict needs, and losses among them.
const VERDICT_PACKETS: f64 = 50.0;
const VERDICT_LOSSES: f64 = 2.0;
/// The long class must lose this much more than the short one, beside twice the deviation that
/// chance gives.
const MARGIN: f64 = 0.01;
const MARGIN_DEVIATIONS: f64 = 2.0;
/// Least loss rate for that deviation: no loss seen is not no loss.
const RANDOM_MIN: f64 = 0.001;

#[derive(Debug, Clone, Copy, Default)]
struct Class {
    acked: f64,
    lost: f64,
}

impl Class {
    fn total(self) -> f64 {
        self.acked + self.lost
    }

    fn loss(self) -> f64 {
        super::part(self.lost, self.acked)
    }

    fn fade(&mut self) {
        self.acked *= KEEP;
        self.lost *= KEEP;
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Losses {
    long: Class,
    short: Class,
    /// Longest queue seen lately, seconds.
    longest: f64,
    judged: Option<Time>,
    overflow: Option<Time>,
}

impl Losses {
    /// `bytes` that met a queue of `queue` seconds came through.
    pub(super) fn acked(&mut self, queue: f64, bytes: f64) {
        if let Some(class) = self.class(queue) {
            class.acked += bytes;
        }
    }

    /// `bytes` are lost; what was sent just before met a queue of `queue` seconds.
    pub(super) fn lost(&mut self, now: Time, queue: Option<f64>, bytes: f64) {
        if queue.is_some_and(|queue| queue > LONG * self.longest) {
            self.overflow = Some(now);
        }
        if let Some(class) = queue.and_then(|queue| self.class(queue)) {
            class.lost += bytes;
        }
    }

    /// Whether packets that met a long queue were lost in the last so many seconds.
    pub(super) fn overflowed(&self, now: Time, seconds: f64) -> bool {
        self.overflow.is_some_and(|at| now.since(at).as_secs_f64() < seconds)
    }

    /// A round has ended; `longest` is the longest queue seen lately, seconds.
    pub(super) fn end_round(&mut self, longest: f64) {
        self.longest = longest;
        self.long.fade();
        self.short.fade();
    }

    /// Part of the packets that the path loses by itself, 0 to 1.
    pub(super) fn random(&self) -> f64 {
        self.short.loss()
    }

    /// Whether the queue ran over; in a flood no proof is asked for. Two verdicts are at least two
    /// round trips of `base` seconds apart.
    pub(super) fn run_over(&self, now: Time, flood: bool, base: f64, mtu: f64) -> bool {
        if self.judged.is_some_and(|at| now.since(at).as_secs_f64() < 2.0 * base) {
            return false;
        }
        let packets = self.long.total() / mtu;
        if flood {
            return true;
        }
        if packets < VERDICT_PACKETS || self.long.lost < VERDICT_LOSSES * mtu {
            return false;
        }
        let random = self.random();
        let deviation = (random.max(RANDOM_MIN) / packets).sqrt();
        self.long.loss() > random + MARGIN + MARGIN_DEVIATIONS * deviation
    }

    /// The window has followed a verdict: the next one needs evidence of its own.
    pub(super) fn judged(&mut self, now: Time) {
        self.judged = Some(now);
        self.long = Class::default();
    }

    fn class(&mut self, queue: f64) -> Option<&mut Class> {
        if queue > LONG * self.longest {
            Some(&mut self.long)
        } else if queue < SHORT * self.longest {
            Some(&mut self.short)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: f64 = 1_000.0;
    const NOW: Time = Time::ZERO;

    fn losses(long: (u32, u32), short: (u32, u32)) -> Losses {
        let mut losses = Losses::default();
        losses.end_round(0.01);
        for (queue, (acked, lost)) in [(0.009, long), (0.001, short)] {
            losses.acked(queue, f64::from(acked) * MTU);
            losses.lost(NOW, Some(queue), f64::from(lost) * MTU);
        }
        losses
    }

    #[test]
    fn loss_beside_a_long_queue_only_is_a_queue_that_ran_over() {
        assert!(losses((960, 40), (1_000, 0)).run_over(NOW, false, 0.02, MTU));
        assert!(!losses((960, 40), (960, 40)).run_over(NOW, false, 0.02, MTU));
        assert!(!losses((1_000, 0), (960, 40)).run_over(NOW, false, 0.02, MTU));
    }

    #[test]
    fn few_packets_prove_nothing() {
        assert!(!losses((40, 5), (1_000, 0)).run_over(NOW, false, 0.02, MTU));
        assert!(!losses((100, 1), (1_000, 0)).run_over(NOW, false, 0.02, MTU));
    }

    #[test]
    fn a_flood_needs_no_proof_and_a_verdict_has_its_time() {
        let mut losses = losses((0, 0), (0, 0));
        assert!(losses.run_over(NOW, true, 0.02, MTU));
        losses.judged(NOW);
        assert!(!losses.run_over(Time::from_micros(30_000), true, 0.02, MTU));
        assert!(losses.run_over(Time::from_micros(50_000), true, 0.02, MTU));
    }
}
