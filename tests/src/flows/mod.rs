//! Bulk transfers of real quinn connections over one bottleneck, in exact virtual time.
//!
//! It drives quinn's protocol state machine directly: no runtime and no clock, so packets and
//! timers keep their nanoseconds, which a congestion controller that listens to delay needs
//! ([`crate::wan`] moves in steps of a millisecond). Same scenario, same result.
//!
//! All flows send through one bottleneck, then each over its own path; acknowledgements come back
//! over a path of each flow's own. If the way back has a bottleneck too, they pass it first, and
//! flows may go that way: their acknowledgements then come through the first one.

mod bench;
pub mod cell;
mod peer;

use std::time::Duration;

use shared_io::transport::Congestion;

pub use bench::run;
use cell::{Cell, Sender};

use crate::{
    link::{LinkCounters, LinkSpec},
    wan::IdentityError,
};

/// One connection that sends as much as it may.
#[derive(Clone, Debug)]
pub struct Flow {
    /// When it starts.
    pub start: Duration,
    /// Its congestion controller.
    pub congestion: Congestion,
    /// From the bottleneck to the receiver.
    pub path: LinkSpec,
    /// From the receiver back.
    pub back: LinkSpec,
    /// Whether it sends through the bottleneck of the way back.
    pub returns: bool,
}

/// A change while flows run.
#[derive(Clone, Debug)]
pub enum Change {
    /// The bottleneck is like this from now on.
    Bottleneck(LinkSpec),
    /// The path of all flows, forth and back, is like this from now on.
    Paths(LinkSpec),
}

/// Flows over one bottleneck.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Randomness of links and connections.
    pub seed: u64,
    /// How long it runs.
    pub length: Duration,
    /// What all flows share.
    pub bottleneck: LinkSpec,
    /// What all share the other way; no limit if absent.
    pub return_bottleneck: Option<LinkSpec>,
    /// Who sends.
    pub flows: Vec<Flow>,
    /// What happens when, in order of time.
    pub changes: Vec<(Duration, Change)>,
}

impl Scenario {
    /// A cell of the table in virtual time.
    #[must_use]
    pub fn of(cell: &Cell, seed: u64) -> Self {
        let flows = cell.flows.iter().map(|flow| Flow {
            start: flow.start,
            congestion: match flow.sender {
                Sender::Shallow => Congestion::Shallow,
                Sender::Cubic | Sender::TcpCubic => Congestion::Cubic,
                Sender::Bbr | Sender::Paced | Sender::TcpBbr => Congestion::Bbr,
            },
            path: flow.path.clone(),
            back: flow.back.clone(),
            returns: false,
        });
        Self {
            seed,
            length: cell.length,
            bottleneck: cell.bottleneck.clone(),
            return_bottleneck: None,
            flows: flows.collect(),
            changes: cell.changes.clone(),
        }
    }
}

/// How often a flow is looked at.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// One look at a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Bytes of the stream that the receiver has read so far.
    pub bytes: u64,
    /// Smoothed round-trip time at the sender.
    pub rtt: Duration,
    /// Congestion window, bytes.
    pub window: u64,
}

/// What a flow did.
#[derive(Clone, Debug, Default)]
pub struct FlowReport {
    /// A look every [`SAMPLE_EVERY`] since the start of the run.
    pub samples: Vec<Sample>,
    /// Packets that the sender took for lost.
    pub lost_packets: u64,
    /// Why the connection ended, if it did.
    pub died: Option<String>,
}

impl FlowReport {
    /// Mean goodput between two times of the run, Mbit/s.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "bytes of a run are far below 2^52")]
    pub fn goodput(&self, from: Duration, to: Duration) -> f64 {
        let bytes = self.at(to).bytes.saturating_sub(self.at(from).bytes);
        bytes as f64 * 8.0 / 1e6 / to.saturating_sub(from).as_secs_f64()
    }

    /// Mean of the smoothed round-trip times seen between two times of the run.
    #[must_use]
    pub fn rtt(&self, from: Duration, to: Duration) -> Duration {
        let first = index(from);
        let count = index(to).saturating_sub(first);
        let looked = self.samples.iter().skip(first).take(count);
        let sum: Duration = looked.map(|sample| sample.rtt).sum();
        sum / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
    }

    fn at(&self, time: Duration) -> Sample {
        let at = index(time).min(self.samples.len().saturating_sub(1));
        self.samples.get(at).copied().unwrap_or_default()
    }
}

fn index(time: Duration) -> usize {
    usize::try_from(time.as_millis() / SAMPLE_EVERY.as_millis()).unwrap_or(usize::MAX)
}

/// What a scenario did.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of the scenario's flows.
    pub flows: Vec<FlowReport>,
    /// Of the bottleneck.
    pub bottleneck: LinkCounters,
}

impl Report {
    /// Share of the packets offered to the bottleneck that its queue dropped, in percent.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "packets of a run are far below 2^52")]
    pub fn dropped_percent(&self) -> f64 {
        let counters = self.bottleneck;
        counters.queue_dropped as f64 * 100.0 / (counters.offered.max(1)) as f64
    }
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// quinn refuses to dial.
    #[error("flow {flow} cannot dial: {source}")]
    Dial {
        /// Which.
        flow: usize,
        /// What quinn says.
        source: quinn::ConnectError,
    },
}
