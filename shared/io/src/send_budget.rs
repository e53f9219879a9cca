//! How much may wait inside quinn on each connection: what those that send need, within what they
//! may hold together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quinn::ConnectionStats;
use shared::budget::Shares;
use shared::time::Time;

use crate::transport::{SEND_WINDOW_MIN, send_window};

/// How often a connection's window follows what it needs.
pub(crate) const TUNE_EVERY: Duration = Duration::from_millis(100);
/// A connection that sends less from one time to the next has little to send.
const BUSY_BYTES: u64 = 8 * 1024;

/// What the connections of a process need, and what nobody gets more of.
#[derive(Debug, Default)]
pub(crate) struct SendBudget(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shares: Shares,
    most: Option<(Time, u64)>,
}

impl SendBudget {
    /// The window of connection `id`, which needs so much and shares `total` with the others.
    /// What the others need is looked at once every [`TUNE_EVERY`].
    pub(crate) fn window(&self, now: Time, id: u64, need: Option<u64>, total: u64) -> u64 {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.shares.set(id, need);
        let fresh = inner.most.filter(|(at, _)| now.since(*at) < TUNE_EVERY);
        let (at, most) = fresh.unwrap_or_else(|| (now, inner.shares.most_of(total)));
        inner.most = Some((at, most));
        need.unwrap_or(0).min(most).max(SEND_WINDOW_MIN)
    }

    /// Connection `id` is gone.
    pub(crate) fn forget(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).shares.set(id, None);
    }
}

/// What one connection needs, told by what it did since it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Need {
    sent: u64,
    acks: u64,
    need: Option<u64>,
}

impl Need {
    /// Bytes that should wait on the connection; `None` if the least is enough. A connection
    /// whose peer acknowledges nothing keeps what it has: its bytes still wait.
    pub(crate) fn look(&mut self, stats: &ConnectionStats) -> Option<u64> {
        let sent = stats.udp_tx.bytes - std::mem::replace(&mut self.sent, stats.udp_tx.bytes);
        let acks = stats.frame_rx.acks - std::mem::replace(&mut self.acks, stats.frame_rx.acks);
        if sent >= BUSY_BYTES {
            self.need = Some(send_window(stats.path.cwnd));
        } else if acks > 0 {
            self.need = None;
        }
        self.need
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 16 << 20;

    #[test]
    fn idle_connections_take_nothing_from_a_busy_one() {
        let budget = SendBudget::default();
        for id in 0..10_000 {
            assert_eq!(budget.window(Time::ZERO, id, None, TOTAL), SEND_WINDOW_MIN);
        }
        let now = Time::ZERO + TUNE_EVERY;
        assert_eq!(budget.window(now, 5, Some(10 << 20), TOTAL), 10 << 20);
        let now = now + TUNE_EVERY;
        assert_eq!(budget.window(now, 6, Some(10 << 20), TOTAL), TOTAL / 2);
        assert_eq!(budget.window(now, 5, Some(10 << 20), TOTAL), TOTAL / 2);
        budget.forget(6);
        assert_eq!(budget.window(now + TUNE_EVERY, 5, Some(10 << 20), TOTAL), 10 << 20);
    }

    #[test]
    fn a_connection_needs_more_while_it_sends_and_while_nothing_is_acknowledged() {
        let (mut need, mut stats) = (Need::default(), ConnectionStats::default());
        stats.path.cwnd = 1_000_000;
        assert_eq!(need.look(&stats), None);
        stats.udp_tx.bytes += 1_000_000;
        assert_eq!(need.look(&stats), Some(2_000_000));
        assert_eq!(need.look(&stats), Some(2_000_000), "nothing was acknowledged");
        stats.udp_tx.bytes += 100;
        stats.frame_rx.acks += 1;
        assert_eq!(need.look(&stats), None);
    }
}
