//! A process's access link: what its uplink carries, and the caps that it was told to keep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::pacer::Pacer;
use shared::relay::Spare;
use shared::time::Time;
use shared::turns::Claim;
use shared::uplink::{LOOK_EVERY, Look, Uplink};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::telemetry;
use crate::turns::UplinkTurns;

/// Of a stream's bytes, how many thousandths go over the wire: a packet of 1,480 bytes with
/// everything that is around it carries about 1,415 of them.
const WIRE_PER_THOUSAND: u64 = 1_046;

/// The access link of this process, shared by all its connections.
#[derive(Debug)]
pub struct Access {
    clock: Clock,
    pub(crate) meter: Arc<Meter>,
    uplink: Mutex<Uplink>,
    uplink_bps: Option<u64>,
    downlink: Option<Mutex<Pacer>>,
    turns: UplinkTurns,
}

/// What all connections together have got acknowledged; their controllers count here.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    acked: AtomicU64,
    held_up: AtomicU64,
    connections: AtomicU64,
    /// The number of the present look.
    look: AtomicU64,
}

/// What one acknowledgement told a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Acked {
    /// Bytes of IP packets.
    pub(crate) bytes: u64,
    /// Those of them that were sent while the window was full.
    pub(crate) held_up: u64,
    /// How long the window was full for them.
    pub(crate) full: Duration,
}

/// For how long the window of a connection was full in a look.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fullness {
    look: u64,
    full: Duration,
}

impl Access {
    /// An access link that may send `uplink_bps` and receive `downlink_bps` bits per second, or
    /// as much as it carries.
    pub fn new(clock: Clock, uplink_bps: Option<u64>, downlink_bps: Option<u64>) -> Self {
        Self {
            clock,
            meter: Arc::default(),
            uplink: Mutex::new(Uplink::new(uplink_bps)),
            uplink_bps,
            downlink: downlink_bps.map(|bps| Mutex::new(Pacer::new(bps))),
            turns: UplinkTurns::new(clock),
        }
    }

    /// The cap of what is sent, bits per second of IP packets.
    pub(crate) const fn uplink_cap(&self) -> Option<u64> {
        self.uplink_bps
    }

    /// The clock of its turns.
    pub(crate) const fn clock(&self) -> Clock {
        self.clock
    }

    /// Bits per second that the uplink carries as it was set or measured, if it is known.
    pub fn carries_bps(&self) -> Option<u64> {
        self.uplink().carries_bps()
    }

    /// What the uplink has left, if it is known what it carries.
    pub(crate) fn spare(&self) -> Option<Spare> {
        let uplink = self.uplink();
        let (carries_bps, left_bps) = uplink.carries_bps().zip(uplink.spare_bps())?;
        Some(Spare { carries_bps, left_bps, was_full: uplink.was_full() })
    }

    /// `bytes` of a stream have been read; when the next ones may be, if not at once.
    pub(crate) fn received(&self, bytes: u64) -> Option<Instant> {
        let mut pacer = self.downlink.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        pacer.take(now, bytes.saturating_mul(WIRE_PER_THOUSAND) / 1_000);
        let at = pacer.take(now, 0);
        (at > now).then(|| self.clock.instant(at))
    }

    /// Waits for the turn of a job to send a piece.
    pub(crate) async fn turn(&self, claim: Claim) {
        self.turns.turn(claim).await;
    }

    /// Learns what the uplink carries, and gives the turns on it, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = self.clock.now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
                () = self.turns.give() => {}
            }
            let now = self.clock.now();
            self.look(before, now);
            before = now;
        }
    }

    fn look(&self, before: Time, now: Time) {
        let look = Look { in_turns: self.turns.were_waited_for(), ..self.meter.take() };
        let mut uplink = self.uplink();
        uplink.look(now.since(before), look);
        telemetry::uplink(uplink.carries_bps(), uplink.used_bps());
        let turns_bps = uplink.turns_bps();
        let turns_bps = turns_bps.map(|bps| bps.saturating_mul(1_000) / WIRE_PER_THOUSAND);
        drop(uplink);
        self.turns.set_rate(turns_bps);
    }

    fn uplink(&self) -> MutexGuard<'_, Uplink> {
        self.uplink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Access {
    /// Without caps.
    fn default() -> Self {
        Self::new(Clock::start(), None, None)
    }
}

impl Meter {
    /// Counts what one acknowledgement told. A connection whose window is full for half of a look
    /// is held up by the network; one that sends a piece now and then, which is more than a
    /// window, is not.
    pub(crate) fn add(&self, acked: Acked, fullness: &mut Fullness) {
        self.acked.fetch_add(acked.bytes, Ordering::Relaxed);
        if acked.held_up == 0 {
            return;
        }
        self.held_up.fetch_add(acked.held_up, Ordering::Relaxed);
        let look = self.look.load(Ordering::Relaxed);
        if fullness.look != look {
            *fullness = Fullness { look, full: Duration::ZERO };
        }
        let was_half = fullness.full >= LOOK_EVERY / 2;
        fullness.full = fullness.full.saturating_add(acked.full);
        if !was_half && fullness.full >= LOOK_EVERY / 2 {
            self.connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self) -> Look {
        self.look.fetch_add(1, Ordering::Relaxed);
        Look {
            acked: self.acked.swap(0, Ordering::Relaxed),
            held_up: self.held_up.swap(0, Ordering::Relaxed),
            connections: self.connections.swap(0, Ordering::Relaxed),
            in_turns: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_whose_window_is_full_for_half_of_a_look_counts_once_in_it() {
        let meter = Meter::default();
        meter.take();
        let mut fullness = [Fullness::default(); 3];
        let acked =
            |held_up, full_ms| Acked { bytes: 100, held_up, full: Duration::from_millis(full_ms) };
        for _ in 0..4 {
            meter.add(acked(100, 100), &mut fullness[0]);
            meter.add(acked(0, 0), &mut fullness[1]);
            meter.add(acked(10, 60), &mut fullness[2]);
        }
        let look = Look { acked: 1_200, held_up: 440, connections: 1, in_turns: false };
        assert_eq!(meter.take(), look);
        for of in &mut fullness {
            meter.add(acked(100, 250), of);
        }
        let look = Look { acked: 300, held_up: 300, connections: 3, in_turns: false };
        assert_eq!(meter.take(), look);
    }
}
