//! When bytes may go so that a rate is kept: what every cap is made of.

use std::time::Duration;

use crate::time::Time;

/// What was not used may be made up for so long: timers of a runtime are exact to a millisecond
/// or two, and a rate that is short by that at every turn is not kept.
pub const SLACK: Duration = Duration::from_millis(5);

/// Turns of bytes at a rate, in the order in which they are asked for.
///
/// Over any time `t` turns for at most `rate · (t + SLACK)` are given, and one more.
#[derive(Debug, Clone)]
pub struct Pacer {
    rate_bps: u64,
    /// When the next turn begins.
    free: Time,
    /// What the turns so far take beyond `free`: bits times microseconds, below the rate.
    rest: u64,
}

impl Pacer {
    /// Turns at `rate_bps` bits per second, at least 1.
    pub fn new(rate_bps: u64) -> Self {
        Self { rate_bps: rate_bps.max(1), free: Time::ZERO, rest: 0 }
    }

    /// Gives turns at another rate from the next one on, which begins when it would have.
    pub fn set_rate(&mut self, rate_bps: u64) {
        (self.rate_bps, self.rest) = (rate_bps.max(1), 0);
    }

    /// Takes the next turn, for `bytes`: when it begins. It may have begun.
    pub fn take(&mut self, now: Time, bytes: u64) -> Time {
        let behind = now - SLACK;
        if self.free < behind {
            (self.free, self.rest) = (behind, 0);
        }
        let at = self.free;
        self.charge(bytes);
        at
    }

    /// A turn that was taken for `taken` bytes was used for `used`: later ones begin sooner or
    /// later by the difference.
    pub fn settle(&mut self, taken: u64, used: u64) {
        if used >= taken {
            self.charge(used - taken);
        } else {
            let (micros, _) = self.time_of(taken - used);
            self.free = self.free - Duration::from_micros(micros);
        }
    }

    fn charge(&mut self, bytes: u64) {
        let (micros, rest) = self.time_of(bytes);
        let rest = self.rest + rest;
        let carried = u64::from(rest >= self.rate_bps);
        self.rest = rest - carried * self.rate_bps;
        self.free = self.free + Duration::from_micros(micros.saturating_add(carried));
    }

    /// How long `bytes` take: whole microseconds, and what is left of the bits.
    fn time_of(&self, bytes: u64) -> (u64, u64) {
        let bits = u128::from(bytes) * 8_000_000;
        let rate = u128::from(self.rate_bps);
        let micros = u64::try_from(bits / rate).unwrap_or(u64::MAX);
        (micros, u64::try_from(bits % rate).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    /// Sends packets as soon as their turn has come, with timers that are late by up to `late`
    /// microseconds; how many bytes went within `time`.
    fn sent(rate: u64, bytes: u64, late: u64, time: u64) -> u64 {
        let mut pacer = Pacer::new(rate);
        let (mut now, mut sent) = (at(1_000_000), 0);
        let end = now + Duration::from_micros(time);
        while now < end {
            let turn = pacer.take(now, bytes);
            if turn > now {
                now = turn + Duration::from_micros((sent / bytes) % (late + 1));
            }
            sent += bytes;
        }
        sent
    }

    #[test]
    fn a_rate_is_kept_with_late_timers_and_odd_lengths() {
        for rate in [1_000_000u64, 7_777_777, 100_000_000, 10_000_000_000] {
            for (bytes, late) in [(50, 0), (1_480, 0), (1_480, 2_000), (14_800, 2_000)] {
                let expected = rate * 10 / 8;
                let sent = sent(rate, bytes, late, 10_000_000);
                let off = sent.abs_diff(expected);
                assert!(off <= expected / 1_000 + 2 * bytes, "{rate} {bytes} {late}: {sent}");
            }
        }
    }

    #[test]
    fn what_was_idle_is_made_up_for_a_moment_only() {
        let mut pacer = Pacer::new(8_000_000);
        let now = at(60_000_000);
        let early = (0..100).filter(|_| pacer.take(now, 1_000) <= now).count();
        assert_eq!(early, 6, "5 ms, and the one that begins now");
    }

    #[test]
    fn turns_are_settled() {
        let mut pacer = Pacer::new(8_000_000);
        let now = at(60_000_000);
        let first = pacer.take(now, 1_000);
        pacer.settle(1_000, 3_000);
        assert_eq!(pacer.take(now, 1_000).since(first), Duration::from_millis(3));
        pacer.settle(1_000, 0);
        assert_eq!(pacer.take(now, 1_000).since(first), Duration::from_millis(3));
    }
}
