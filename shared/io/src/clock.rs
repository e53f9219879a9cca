//! The one place that reads clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shared::time::Time;
use tokio::time::Instant;

/// A process's clock: monotonic time for decisions, wall time for people.
///
/// Monotonic time is tokio's, so it stands still when a test has paused it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Time since the origin.
    pub fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// The runtime's form of `time`, for its timers.
    pub fn instant(&self, time: Time) -> Instant {
        self.origin + time.since(Time::ZERO)
    }

    /// Milliseconds since the Unix epoch by the wall clock: for display, never for decisions.
    pub fn wall_ms() -> u64 {
        let since = Self::wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The wall clock, which certificates are judged by.
    #[expect(clippy::disallowed_methods, reason = "clocks are read here")]
    pub fn wall() -> SystemTime {
        SystemTime::now()
    }
}
