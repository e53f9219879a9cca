//! Whom the base feeds beside the home of a stripe: who has asked for it in vain.
//!
//! Who has just lost its source of a live stream is not left to wait: what it lacks tells the base,
//! which knows since when that chunk has been here, whether its source should have brought it. So
//! an ask that comes while nothing new is there costs nothing, and is kept until there is.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::PeerId;
use crate::limit;

use super::Relay;
use super::downstream::{Downstream, first_in, next_in_stripe};
use super::opening::{Ask, Given, Opening, Receiver, Spare};
use super::patience::Patience;

/// Who has asked for so long goes before others, whatever their uplinks carry.
const LONG: Duration = Duration::from_secs(3);
/// A chunk that a node lacks is new for so long: who lacks it and nothing before it has just lost
/// its source, and is not one that comes late.
const NEW: Duration = Duration::from_secs(2);

impl Relay {
    /// The base gives a stripe to one that has asked for it for long, of which it has more: to
    /// one that has no source of it before one whose source is slow, and to that one only what
    /// its uplink has left; of several, to the one that can pass most of it on. Who asks while
    /// there is nothing to be had does not ask in vain.
    pub(super) fn adopt(&mut self, spare: Option<Spare>) {
        let has_room = spare.is_none_or(|Spare { carries_bps, left_bps, .. }| {
            let part = self.need().max(carries_bps / self.stripes);
            left_bps >= part.saturating_mul(self.young().saturating_add(1))
        });
        let now = self.now;
        let lacks = |(peer, receiver): (&PeerId, &Receiver)| {
            let asks = receiver.asks.iter();
            let lacks = asks.filter(|(stripe, ask)| self.has_more(peer, **stripe, ask.from));
            lacks.map(|(stripe, _)| (peer.clone(), *stripe)).collect::<Vec<_>>()
        };
        let lacking: BTreeSet<(PeerId, u64)> = self.receivers.iter().flat_map(lacks).collect();
        for (peer, receiver) in &mut self.receivers {
            for (stripe, ask) in &mut receiver.asks {
                if !lacking.contains(&(peer.clone(), *stripe)) {
                    ask.since = now;
                }
            }
        }
        for stripe in 0..self.stripes {
            if !self.may_adopt(stripe) {
                continue;
            }
            let asking = self.receivers.iter().filter_map(|(peer, receiver)| {
                let ask = receiver.asks.get(&stripe)?;
                let is_fed = ask.comes_bps > 0;
                let is_due = self.asks_in_vain(ask) && (!is_fed || has_room);
                let is_patient = now.since(ask.since) < LONG;
                let order = || (is_fed, is_patient, Reverse(self.uplink_of(peer)), ask.since);
                is_due.then(|| (order(), peer))
            });
            let first = asking.min_by_key(|(order, _)| *order).map(|(_, peer)| peer.clone());
            first.into_iter().for_each(|peer| self.feed_at_last(&peer, stripe));
        }
    }

    /// The base gives at once what `peer` asks for if its source should have brought it by now.
    pub(super) fn adopt_orphan(&mut self, peer: &PeerId) {
        let receiver = self.receivers.get(peer).filter(|_| self.spreads());
        let Some(receiver) = receiver else { return };
        let is_due = |(stripe, ask): (&u64, &Ask)| {
            let is_due = self.is_overdue(ask) && self.may_adopt(*stripe);
            is_due.then_some(*stripe)
        };
        let due = receiver.asks.iter().find_map(is_due);
        due.into_iter().for_each(|stripe| self.feed_at_last(peer, stripe));
    }

    /// What the uplink of a node carries, as far as it is known, as a power of two: equal uplinks
    /// are measured to be a little different. Of the only stripe who asks first goes first.
    fn uplink_of(&self, peer: &PeerId) -> u32 {
        match &self.opening {
            Opening::Homes(homes) if self.stripes > 1 => homes.uplink(peer).max(1).ilog2(),
            Opening::All | Opening::Homes(_) | Opening::Spare(_) => 0,
        }
    }

    fn feed_at_last(&mut self, peer: &PeerId, stripe: u64) {
        let now = self.now;
        let Opening::Homes(homes) = &mut self.opening else { return };
        let Some(receiver) = self.receivers.get_mut(peer) else { return };
        receiver.given.insert(stripe, Given::adopted(now));
        receiver.asks.remove(&stripe);
        let adopted = usize::try_from(stripe).ok().and_then(|s| homes.adopted.get_mut(s));
        adopted.into_iter().for_each(|adopted| *adopted = Some(now));
    }

    /// Whether the base may feed one more node of a stripe: the one before did not take it, or had
    /// time to pass it on.
    fn may_adopt(&self, stripe: u64) -> bool {
        let Opening::Homes(homes) = &self.opening else { return false };
        let adopted = usize::try_from(stripe).ok().and_then(|s| homes.adopted.get(s)).copied();
        let Some(at) = adopted.flatten() else { return true };
        let Patience { adopt, passes_on, .. } = self.patience();
        let is_taken = |receiver: &Receiver| {
            let given = receiver.given.get(&stripe);
            given.is_some_and(|given| given.is_taken && given.since >= at)
        };
        let took = self.now.since(at);
        took >= passes_on || (took >= adopt && !self.receivers.values().any(is_taken))
    }

    /// Whether there is something of a stripe from `from` on, or a page, that `peer` lacks.
    fn has_more(&self, peer: &PeerId, stripe: u64, from: u64) -> bool {
        let pages = self.downstreams.get(peer).map_or(0, Downstream::pages_there);
        let lacks_pages = pages < self.published && (self.stripes > 1 || self.ended);
        lacks_pages || self.lacked(stripe, from).is_some_and(|c| self.durable.contains(c))
    }

    /// The first chunk of a stripe from `from` on that can be sent.
    fn lacked(&self, stripe: u64, from: u64) -> Option<u64> {
        let first = first_in(stripe, from, self.stripes);
        let next = |from| self.stock.next_present(from);
        next_in_stripe(first, limit::CHUNKS_MAX, self.stripes, next)
    }

    fn asks_in_vain(&self, ask: &Ask) -> bool {
        self.now.since(ask.since) >= self.patience().adopt || self.is_overdue(ask)
    }

    /// Whether who asks has no source and lacks what it would have if it had one: a new chunk
    /// that has been here for longer than it takes to come over other nodes.
    fn is_overdue(&self, ask: &Ask) -> bool {
        let Some(overdue) = self.patience().overdue else { return false };
        let has_lost_source = ask.comes_bps == 0 && ask.from > 0;
        let lacked = self.lacked(0, ask.from).filter(|_| has_lost_source);
        let here = lacked.and_then(|chunk| self.reached.at(chunk));
        here.is_some_and(|at| (overdue..NEW).contains(&self.now.since(at)))
    }

    /// What a receiver lacks first that should have come to it by now.
    pub(super) fn overdue_at(&self, peer: &PeerId) -> Option<u64> {
        let receiver = self.receivers.get(peer).filter(|_| self.spreads())?;
        receiver.asks.values().find(|ask| self.is_overdue(ask)).map(|ask| ask.from)
    }

    pub(super) const fn spreads(&self) -> bool {
        matches!(self.opening, Opening::Homes(_))
    }
}
