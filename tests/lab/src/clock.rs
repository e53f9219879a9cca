//! The one place of the lab that reads a clock.

use std::time::{Duration, Instant};

/// Time since it was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    #[expect(clippy::disallowed_methods, reason = "the lab runs in real time; this is its clock")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since then.
    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }
}

/// Waits; the lab has nothing else to do on the thread that calls it.
#[expect(clippy::disallowed_methods, reason = "the lab's own thread, not a runtime's")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
