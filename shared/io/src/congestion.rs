//! The controller of [`shared::congestion`] behind quinn's trait, and what any controller tells
//! the process of its uplink.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use shared::congestion::Controller as Core;
use shared::time::Time;

use crate::access::{Acked, Fullness, Meter};

/// Headers of IP and UDP around what a controller counts.
const HEADERS: u64 = 28;

/// Makes a controller for each path of each connection.
#[derive(Debug, Default)]
pub struct ShallowConfig {
    seed: AtomicU64,
}

impl ShallowConfig {
    /// Controllers whose random choices follow from `seed`.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self { seed: AtomicU64::new(seed) }
    }
}

impl ControllerFactory for ShallowConfig {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let seed = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Box::new(Shallow { origin: now, core: Core::new(mtu, seed) })
    }
}

#[derive(Debug, Clone)]
struct Shallow {
    origin: Instant,
    core: Core,
}

impl Shallow {
    fn time(&self, at: Instant) -> Time {
        Time::ZERO + at.saturating_duration_since(self.origin)
    }
}

impl Controller for Shallow {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.core.sent(self.time(now), bytes);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _: &RttEstimator,
    ) {
        self.core.acked(self.time(now), self.time(sent), bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        self.core.acks_end(self.time(now), in_flight);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        let (now, sent) = (self.time(now), self.time(sent));
        if lost == 0 {
            self.core.marked(now, sent);
        } else {
            self.core.lost(now, sent, lost);
        }
        if persistent {
            self.core.blacked_out(now);
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.core.mtu_changed(mtu);
    }

    fn window(&self) -> u64 {
        self.core.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.core.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes controllers that also count, for the whole process, what is acknowledged.
pub(crate) struct Metered {
    inner: Arc<dyn ControllerFactory + Send + Sync>,
    meter: Arc<Meter>,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn ControllerFactory + Send + Sync>, meter: &Arc<Meter>) -> Self {
        Self { inner, meter: Arc::clone(meter) }
    }
}

impl ControllerFactory for Metered {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.inner).build(now, mtu);
        let meter = Arc::clone(&self.meter);
        let (acked, fullness) = (Acked::default(), Fullness::default());
        Box::new(MeteredController { inner, meter, acked, fullness })
    }
}

struct MeteredController {
    inner: Box<dyn Controller>,
    meter: Arc<Meter>,
    /// What the present acknowledgement has told so far.
    acked: Acked,
    fullness: Fullness,
}

impl Controller for MeteredController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        let bytes_sent = bytes + HEADERS;
        self.acked.bytes += bytes_sent;
        if !app_limited {
            self.acked.held_up += bytes_sent;
            // A full window takes a round trip.
            self.acked.full += rtt.get().mul_f64(part(bytes, self.inner.window()));
        }
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest: Option<u64>,
    ) {
        self.meter.add(std::mem::take(&mut self.acked), &mut self.fullness);
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.inner.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (inner, meter) = (self.inner.clone_box(), Arc::clone(&self.meter));
        Box::new(Self { inner, meter, acked: Acked::default(), fullness: self.fullness })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

/// Which part of `window` some bytes are, at most all of it.
fn part(bytes: u64, window: u64) -> f64 {
    let exact = |bytes: u64| f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    (exact(bytes) / exact(window.max(1))).min(1.0)
}
