//! How fast bytes come: the mean over a sliding window.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// The window over which rates are shown, as the contract says.
pub const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Bytes are summed up in buckets of this length: at most 21 of them.
const BUCKET: Duration = Duration::from_millis(250);

/// What counts as the latest rate.
const LATELY: Duration = Duration::from_secs(1);

/// The rate of one source or job over the last [`RATE_WINDOW`].
#[derive(Debug, Clone, Default)]
pub struct Rate {
    started: Option<Time>,
    buckets: VecDeque<(Time, u64)>,
    sum: u64,
}

impl Rate {
    /// Counts `bytes` that came at `now`.
    pub fn add(&mut self, now: Time, bytes: u64) {
        self.started.get_or_insert(now);
        self.expire(now);
        self.sum = self.sum.saturating_add(bytes);
        match self.buckets.back_mut().filter(|(start, _)| now.since(*start) < BUCKET) {
            Some((_, sum)) => *sum = sum.saturating_add(bytes),
            None => self.buckets.push_back((now, bytes)),
        }
    }

    /// Bits per second: over the window, or since the first byte if that is later.
    pub fn bits_per_second(&mut self, now: Time) -> u64 {
        self.expire(now);
        let Some(started) = self.started else { return 0 };
        let span = now.since(started).clamp(BUCKET, RATE_WINDOW);
        let bits = u128::from(self.sum) * 8_000_000 / span.as_micros().max(1);
        u64::try_from(bits).unwrap_or(u64::MAX)
    }

    /// Bits per second over the last second, or the whole window if that is more: what a sender
    /// that is speeding up has come to.
    pub fn latest(&mut self, now: Time) -> u64 {
        let mean = self.bits_per_second(now);
        let lately = self.buckets.iter().rev().take_while(|(start, _)| now.since(*start) <= LATELY);
        let (oldest, bytes) = lately
            .fold((now, 0u64), |(_, sum), (start, bytes)| (*start, sum.saturating_add(*bytes)));
        let span = now.since(oldest).max(BUCKET);
        let bits = u128::from(bytes) * 8_000_000 / span.as_micros().max(1);
        mean.max(u64::try_from(bits).unwrap_or(u64::MAX))
    }

    fn expire(&mut self, now: Time) {
        while let Some(&(start, bytes)) = self.buckets.front() {
            if now.since(start) <= RATE_WINDOW {
                break;
            }
            self.sum = self.sum.saturating_sub(bytes);
            self.buckets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_five_seconds() {
        let at = |ms: u64| Time::from_micros(ms * 1_000);
        let mut rate = Rate::default();
        assert_eq!(rate.bits_per_second(at(0)), 0);
        for ms in (0..10_000).step_by(100) {
            rate.add(at(ms), if ms < 5_000 { 1_000 } else { 10_000 });
        }
        let measured = rate.bits_per_second(at(9_999));
        assert!((780_000..=850_000).contains(&measured), "{measured}");
        assert_eq!(rate.bits_per_second(at(20_000)), 0);
        assert_eq!(rate.latest(at(20_000)), 0);
    }

    #[test]
    fn the_latest_rate_follows_within_a_second() {
        let at = |ms: u64| Time::from_micros(ms * 1_000);
        let mut rate = Rate::default();
        for ms in (0..6_000).step_by(10) {
            rate.add(at(ms), if ms < 5_000 { 1_000 } else { 10_000 });
        }
        let latest = rate.latest(at(5_999));
        assert!((7_900_000..=8_100_000).contains(&latest), "{latest}");
        for ms in (6_000..8_000).step_by(10) {
            rate.add(at(ms), 1_000);
        }
        assert_eq!(rate.latest(at(7_999)), rate.bits_per_second(at(7_999)), "the mean is more");
    }
}
