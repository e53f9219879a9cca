//! The controller of [`shared::congestion`] behind quinn's trait.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use shared::congestion::Controller as Core;
use shared::time::Time;

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
