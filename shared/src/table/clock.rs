//! The base's own clock, and the deadlines that are counted on it.
//!
//! Deadlines must survive a restart of the base, and neither the wall clock (it jumps) nor the
//! monotonic clock (it starts anew) can carry them. So the table counts *base time*: the time
//! that the base has been running, over all its starts. It is written to the ledger every
//! [`CHECKPOINT_EVERY`] while there is a job to time, and a start goes on from the last mark.
//! Time while the base is down does not count; a kill gives back at most one interval.

use std::time::Duration;

use crate::job::Dimensions;
use crate::time::Time;

/// How often base time is written down while there is a job to time.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// The shortest deadline that the base sets by itself.
pub const DEADLINE_DEFAULT_MIN: Duration = Duration::from_secs(600);
/// What the default deadline is, in times of the expected time.
pub const DEADLINE_DEFAULT_FACTOR: u32 = 4;
/// The rate at which a job is expected to arrive if nothing is known of its paths, in bit/s.
/// With the factor above, the slowest node may be as slow as 2.5 Mbit/s. A job's own rate cap
/// counts if it is lower.
pub const ASSUMED_RATE_BPS: u64 = 10_000_000;

/// Turns the process's monotonic clock into base time and back.
#[derive(Debug, Clone, Copy)]
pub(super) struct BaseClock {
    started: Time,
    at_start: Time,
    wall_ms_at_start: u64,
}

impl BaseClock {
    /// A clock that stands at `at_start` when the process's clocks show `now` and `wall_ms`.
    pub(super) const fn new(now: Time, wall_ms: u64, at_start: Time) -> Self {
        Self { started: now, at_start, wall_ms_at_start: wall_ms }
    }

    /// Base time when the process's clock shows `now`.
    pub(super) fn at(&self, now: Time) -> Time {
        self.at_start + now.since(self.started)
    }

    /// What the process's clock shows at a base time.
    pub(super) fn process_time(&self, at: Time) -> Time {
        self.started + at.since(self.at_start)
    }

    /// Base time of this start.
    pub(super) const fn start(&self) -> Time {
        self.at_start
    }

    /// The wall clock at a base time, in milliseconds since the Unix epoch, for display: it is
    /// right if the wall clock has not been set since the start.
    pub(super) fn wall_ms(&self, at: Time) -> u64 {
        let ahead = at.since(self.at_start).as_millis();
        let behind = self.at_start.since(at).as_millis();
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
        let behind = u64::try_from(behind).unwrap_or(u64::MAX);
        self.wall_ms_at_start.saturating_add(ahead).saturating_sub(behind)
    }
}

/// The time from creation (for live jobs: from the publisher's end) to the deadline, for a job
/// of `size` content bytes as far as is known.
pub fn deadline_budget(dimensions: &Dimensions, size: u64) -> Duration {
    if let Some(seconds) = dimensions.deadline_s {
        return Duration::from_secs(seconds);
    }
    let rate = dimensions.rate_bps.unwrap_or(u64::MAX).clamp(1, ASSUMED_RATE_BPS);
    let expected_ms = u128::from(size) * 8 * 1_000 / u128::from(rate);
    let expected = Duration::from_millis(u64::try_from(expected_ms).unwrap_or(u64::MAX));
    expected.saturating_mul(DEADLINE_DEFAULT_FACTOR).max(DEADLINE_DEFAULT_MIN)
}
