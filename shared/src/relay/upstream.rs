//! From whom a job is received: who feeds which stripe, and with how much credit.

use crate::id::PeerId;
use crate::limit;
use crate::time::Time;
use crate::wire::message::{Offer, StripeWant, Want};

use super::{Effect, Relay};

/// A peer that offers the job.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    /// What it said it has.
    pub(super) offer: Offer,
    /// The highest credit that it was ever given on this connection, per stripe.
    credits: Vec<u64>,
    /// What was held when it was first subscribed to: it need not be sent.
    held: Vec<(u64, u64)>,
    /// Whether it has sent a chunk that was taken.
    pub(super) has_fed: bool,
    /// The last `Want` that it was told.
    told: Option<Want>,
    /// Whether it is a receiver of this peer: it feeds only what was here and was lost.
    gives_back: bool,
    /// Whether nothing came back from it for too long: nothing is expected of it any more.
    kept_nothing: bool,
}

/// What had come back when it was looked at, and since when nothing more has.
#[derive(Debug, Clone, Copy)]
pub(super) struct ComingBack {
    since: Time,
    pages: u32,
    chunks: u64,
}

impl Upstream {
    pub(super) fn credit(&self, stripe: u64) -> u64 {
        usize::try_from(stripe).ok().and_then(|s| self.credits.get(s)).copied().unwrap_or(0)
    }
}

impl Relay {
    /// `peer` has told what it has of the job. A source that has less than is here has lost it:
    /// it is offered what is here.
    pub fn offered(&mut self, peer: &PeerId, offer: Offer, fx: &mut Vec<Effect>) {
        self.take_offer(peer, offer, false);
        self.choose_feeders(fx);
        if offer.pages < self.published || offer.head < self.held.head() {
            self.invite(peer, fx);
        }
    }

    /// `peer`, a receiver, has told that it has more than is here: it was lost here, so the peer
    /// feeds all stripes before anybody else does, until what it has told of is here.
    pub fn offered_back(&mut self, peer: &PeerId, offer: Offer, fx: &mut Vec<Effect>) {
        if !self.is_ahead(&offer) {
            return;
        }
        self.take_offer(peer, offer, true);
        if !self.is_fed_back() {
            self.feeders.fill(None);
            self.choose_feeders(fx);
        }
    }

    /// Looks, from time to time, whether what was offered back comes: a receiver that brings
    /// nothing of it for [`limit::GIVE_BACK_PATIENCE`] has promised what it does not have, and
    /// the others feed. While there is no room here nothing can come.
    pub fn look_at_givers(&mut self, now: Time, fx: &mut Vec<Effect>) {
        if !self.is_fed_back() {
            self.coming_back = None;
            return;
        }
        let (pages, chunks) = (self.pages, self.held.len());
        let stands_still =
            |was: &ComingBack| self.stalled.is_none() && (was.pages, was.chunks) == (pages, chunks);
        let Some(was) = self.coming_back.filter(stands_still) else {
            self.coming_back = Some(ComingBack { since: now, pages, chunks });
            return;
        };
        if now.since(was.since) >= limit::GIVE_BACK_PATIENCE {
            for peer in self.feeders.iter_mut().filter_map(Option::take) {
                if let Some(upstream) = self.upstreams.get_mut(&peer) {
                    upstream.kept_nothing |= upstream.gives_back;
                }
            }
            self.coming_back = None;
            self.choose_feeders(fx);
            self.tell_wants(true, fx);
        }
    }

    fn is_fed_back(&self) -> bool {
        let mut feeders = self.feeders.iter().flatten();
        feeders.any(|peer| self.upstreams.get(peer).is_some_and(|upstream| upstream.gives_back))
    }

    /// Whether all that was offered back is here again: then the others feed.
    pub(super) fn look_at_what_came_back(&mut self, fx: &mut Vec<Effect>) {
        let feeds_back = |peer: &PeerId| self.upstreams.get(peer).filter(|up| up.gives_back);
        let mut feeders = self.feeders.iter().flatten();
        if feeders.any(|peer| feeds_back(peer).is_some_and(|up| !self.is_ahead(&up.offer))) {
            self.feeders.fill(None);
            self.choose_feeders(fx);
            self.tell_wants(true, fx);
        }
    }

    fn is_ahead(&self, offer: &Offer) -> bool {
        offer.pages > self.pages || offer.head > self.held.head()
    }

    fn take_offer(&mut self, peer: &PeerId, offer: Offer, gives_back: bool) {
        match self.upstreams.get_mut(peer) {
            Some(upstream) => upstream.offer = offer,
            None => {
                let upstream = Upstream {
                    offer,
                    credits: self.missing.iter().map(|_| 0).collect(),
                    held: Vec::new(),
                    has_fed: false,
                    told: None,
                    gives_back,
                    kept_nothing: false,
                };
                self.upstreams.insert(peer.clone(), upstream);
            }
        }
    }

    /// `peer` has sent a chunk that was taken: it counts as a source from now on.
    pub fn fed_by(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        if let Some(upstream) = self.upstreams.get_mut(peer).filter(|up| !up.has_fed) {
            upstream.has_fed = true;
            fx.push(Effect::Report { urgent: true });
        }
    }

    /// Gives every stripe that has no feeder the one that offers most; those that give back come
    /// first, as long as they have more than is here.
    pub(super) fn choose_feeders(&mut self, fx: &mut Vec<Effect>) {
        if self.failed.is_some() {
            return;
        }
        let can_feed = self.upstreams.iter().filter(|(_, up)| match up.gives_back {
            true => !up.kept_nothing && self.is_ahead(&up.offer),
            false => true,
        });
        let best = can_feed.max_by_key(|(_, up)| (up.gives_back, up.offer.head));
        let best = best.map(|(peer, _)| peer);
        let Some(best) = best.cloned() else { return };
        let mut chosen = false;
        for feeder in self.feeders.iter_mut().filter(|feeder| feeder.is_none()) {
            *feeder = Some(best.clone());
            chosen = true;
        }
        if chosen {
            let held = self.held.runs(self.missing.iter().copied().min().unwrap_or(0));
            let held = held.take(limit::WANT_RUNS_MAX).collect();
            if let Some(upstream) = self.upstreams.get_mut(&best) {
                upstream.held = held;
            }
            self.tell_wants(true, fx);
        }
    }

    /// Tells every upstream what is wanted of it, if that is news: at once if `now`,
    /// otherwise when the credit has moved by a quarter of the window.
    pub(super) fn tell_wants(&mut self, now: bool, fx: &mut Vec<Effect>) {
        let peers: Vec<PeerId> = self.upstreams.keys().cloned().collect();
        for peer in peers {
            let want = self.want_of(&peer);
            let quarter = self.window / 4;
            let Some(upstream) = self.upstreams.get_mut(&peer) else { continue };
            let due = match &upstream.told {
                None => true,
                Some(told) => (now && *told != want) || credit_gain(told, &want) >= quarter.max(1),
            };
            if !due {
                continue;
            }
            for stripe in &want.stripes {
                if let Some(credit) = upstream.credits.get_mut(usize::from(stripe.stripe)) {
                    *credit = stripe.credit.max(*credit);
                }
            }
            upstream.told = Some(want.clone());
            fx.push(Effect::Want { peer, want });
        }
    }

    /// Chunks that may be on their way from `missing` on: fewer if they are long ones, which live
    /// logs have among short ones.
    pub(super) fn window_at(&self, missing: u64) -> u64 {
        let (len, longest) = (u64::from(self.chunk_len(missing)), u64::from(self.longest));
        match len > longest {
            true => (self.window.saturating_mul(longest) / len).max(self.stripes),
            false => self.window,
        }
    }

    fn want_of(&self, peer: &PeerId) -> Want {
        let (pages, durable, complete) = (self.pages(), self.durable.head(), self.complete);
        let mut want = Want { pages, durable, complete, ..Want::default() };
        let fed = self.feeders.iter().zip(&self.missing).zip(0u8..);
        for ((feeder, &missing), stripe) in fed {
            if feeder.as_ref() == Some(peer) && !(self.ended && missing >= self.chunks()) {
                let granted = self.upstreams.get(peer).map_or(0, |up| up.credit(u64::from(stripe)));
                let credit = missing.saturating_add(self.window_at(missing)).max(granted);
                let credit = credit.min(limit::CHUNKS_MAX);
                want.stripes.push(StripeWant { stripe, from: missing.min(credit), credit });
            }
        }
        let lowest = want.stripes.iter().map(|stripe| stripe.from).min();
        if let (Some(upstream), Some(lowest)) = (self.upstreams.get(peer), lowest) {
            let above = upstream.held.iter().filter(|(first, len)| first + len > lowest);
            want.held = above.copied().collect();
        }
        want
    }
}

/// By how many chunks the credit of a stripe has grown, at most; a stripe that comes or goes
/// counts as much as can be.
fn credit_gain(told: &Want, want: &Want) -> u64 {
    if told.stripes.len() != want.stripes.len() {
        return u64::MAX;
    }
    let pairs = told.stripes.iter().zip(&want.stripes);
    let gains = pairs.map(|(old, new)| match old.stripe == new.stripe {
        true => new.credit.saturating_sub(old.credit),
        false => u64::MAX,
    });
    gains.max().unwrap_or(0)
}
