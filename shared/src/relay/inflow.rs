//! How much each source has brought, and how fast: what is told of who feeds this peer.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::id::PeerId;
use crate::limit;
use crate::rate::Rate;
use crate::time::Time;
use crate::wire::message::{Flow, Source};

use super::Relay;
use super::upstream::source;

/// What one peer has brought since the start.
#[derive(Debug, Clone, Default)]
pub(super) struct Inflow {
    bytes: u64,
    rate: Rate,
}

impl Relay {
    /// Counts a chunk of `len` bytes that `peer` has brought. Beyond
    /// [`limit::INFLOWS_MAX`] peers the one that brought least is forgotten.
    pub(super) fn count_inflow(&mut self, peer: &PeerId, len: u32) {
        if !self.inflows.contains_key(peer) {
            if self.inflows.len() >= limit::INFLOWS_MAX {
                let least = self.inflows.iter().min_by_key(|(_, inflow)| inflow.bytes);
                let least = least.map(|(peer, _)| peer.clone());
                least.and_then(|peer| self.inflows.remove(&peer));
            }
            self.inflows.insert(peer.clone(), Inflow::default());
        }
        if let Some(inflow) = self.inflows.get_mut(peer) {
            inflow.bytes = inflow.bytes.saturating_add(u64::from(len));
            inflow.rate.add(self.now, u64::from(len));
        }
    }

    /// Who brings most now, or brought most, with how much: at most [`limit::FLOWS_MAX`].
    pub(super) fn flows(&mut self, now: Time) -> Vec<Flow> {
        let flow = |(peer, inflow): (&PeerId, &mut Inflow)| {
            let (bytes, rate_bps) = (inflow.bytes, inflow.rate.bits_per_second(now));
            source(peer).map(|source| Flow { source, bytes, rate_bps })
        };
        let mut flows: Vec<Flow> = self.inflows.iter_mut().filter_map(flow).collect();
        flows.sort_by_key(|flow| Reverse((flow.rate_bps, flow.bytes)));
        flows.truncate(limit::FLOWS_MAX);
        flows
    }

    /// Who has brought most since the start, by name: at most [`limit::UPSTREAMS_MAX`].
    pub(super) fn fed_from(&self) -> Vec<Source> {
        let mut fed: Vec<(&PeerId, u64)> =
            self.inflows.iter().map(|(peer, inflow)| (peer, inflow.bytes)).collect();
        fed.sort_by_key(|(_, bytes)| Reverse(*bytes));
        let fed = fed.into_iter().filter_map(|(peer, _)| source(peer));
        let fed: BTreeSet<Source> = fed.take(limit::UPSTREAMS_MAX).collect();
        fed.into_iter().collect()
    }
}
