//! To whom which stripes are open, and what receivers are told of that.
//!
//! A receiver may subscribe to a stripe that is open to it; it asks for one that is not. A
//! publisher opens everything. The base opens each stripe to one node, its home, so that about
//! one copy leaves it, and gives a further one only to a node that has asked in vain for some
//! time. A node opens the stripes that it gets from the root to everybody and others to those
//! that ask, as far as its uplink carries them. Closing a stripe does not cut its receiver off:
//! it is served until it has found another source.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::PeerId;
use crate::stripe_set::StripeSet;
use crate::time::Time;
use crate::wire::message::{Offer, StripeWant, Want};

use super::homes::Homes;
use super::patience::RESUMED;
use super::{Counted, Effect, Relay};

/// How long a new receiver counts with what it needs: then what it takes has been measured.
const YOUNG: Duration = Duration::from_millis(1_500);
/// How long an uplink must be full, and no more known of it, before receivers are sent away.
const FULL: Duration = Duration::from_secs(3);
/// Homes are shared out anew among nodes that come while so few chunks have left.
const SETTLED_AFTER: u64 = 64;

/// The rule by which a source opens stripes.
#[derive(Debug, Clone, Default)]
pub(super) enum Opening {
    /// Everything to everybody.
    #[default]
    All,
    /// Each stripe to its home: the root of a job that spreads over nodes.
    Homes(Homes),
    /// What the uplink can spare: a node.
    Spare(Option<Spare>),
}

/// What a process's uplink carries and has left, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spare {
    /// What it carries, with all that is sent.
    pub carries_bps: u64,
    /// What of that is not used.
    pub left_bps: u64,
    /// Whether it was seen to be full: else it may carry more.
    pub was_full: bool,
}

/// A peer that may have the job.
#[derive(Debug, Clone, Default)]
pub(super) struct Receiver {
    /// The stripes that it was given, as long as it subscribes to them.
    pub(super) given: BTreeMap<u64, Given>,
    /// The stripes that it asks for.
    pub(super) asks: BTreeMap<u64, Ask>,
    told: Option<(Time, Offer)>,
    /// The last that it has said.
    want: Option<Want>,
}

/// A stripe that a receiver asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) since: Time,
    /// The first chunk that it lacks.
    pub(super) from: u64,
    /// Bits per second of it that come to it from elsewhere; 0 if none do.
    pub(super) comes_bps: u64,
}

/// A stripe that a receiver was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub(super) since: Time,
    /// Whether it has subscribed to it.
    pub(super) is_taken: bool,
    /// Whether the uplink does not carry it: the receiver shall find another source.
    is_surplus: bool,
    /// Whether it has asked in vain: its home does not feed it.
    is_adopted: bool,
}

impl Given {
    const fn taken(since: Time) -> Self {
        Self { since, is_taken: true, is_surplus: false, is_adopted: false }
    }

    pub(super) const fn adopted(since: Time) -> Self {
        Self { since, is_taken: false, is_surplus: false, is_adopted: true }
    }

    fn is_young(&self, now: Time) -> bool {
        now.since(self.since) < YOUNG
    }
}

impl Receiver {
    fn is_told(&self, offer: &Offer) -> bool {
        self.told.as_ref().is_some_and(|(_, told)| told == offer)
    }
}

impl Relay {
    /// This peer is the root of the job for `nodes`, which shall feed each other: each stripe is
    /// open to one of them, by the bits per second that their uplinks carry, 0 if that is unknown.
    /// Nodes that are invited later join them.
    pub fn spread(&mut self, nodes: &[(PeerId, u64)], fx: &mut Vec<Effect>) {
        if !matches!(self.opening, Opening::Homes(_)) {
            self.opening = Opening::Homes(Homes::new(self.stripes));
        }
        let (may_move, now) = (self.is_unsettled(), self.now);
        if let Opening::Homes(homes) = &mut self.opening {
            nodes.iter().for_each(|(node, bps)| homes.set_uplink(node, *bps, now));
            nodes.iter().for_each(|(node, _)| homes.add(node, may_move));
        }
        self.tell_offers(fx);
    }

    /// Whether so little has left that homes may be shared out anew; of the only stripe, nothing.
    const fn is_unsettled(&self) -> bool {
        match self.stripes {
            1 => self.chunks_sent == 0,
            _ => self.chunks_sent < SETTLED_AFTER,
        }
    }

    /// The uplink of `node`, a server of the job, carries `bps` bits per second, 0 if that is
    /// unknown: the root of a job looks by it, at the next [`Self::tick`], whether a stripe shall
    /// move to another home.
    pub fn set_uplink(&mut self, node: &PeerId, bps: u64) {
        let now = self.now;
        if let Opening::Homes(homes) = &mut self.opening {
            homes.set_uplink(node, bps, now);
        }
    }

    /// This peer is a node: it feeds others with what its uplink can spare.
    pub fn share(&mut self) {
        self.opening = Opening::Spare(None);
    }

    /// `peer` may have the job: it is told what can be had.
    pub fn invite(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        if self.receivers.contains_key(peer) {
            return;
        }
        self.receivers.insert(peer.clone(), Receiver::default());
        let may_move = self.is_unsettled();
        if let Opening::Homes(homes) = &mut self.opening
            && matches!(peer, PeerId::Node(_))
            && !homes.nodes.contains(peer)
        {
            homes.add(peer, may_move);
            return self.tell_offers(fx);
        }
        self.tell_offer(peer, fx);
    }

    /// Looks who may have what, with what is known of the uplink now.
    pub(super) fn look_at_openings(&mut self, spare: Option<Spare>, fx: &mut Vec<Effect>) {
        if let Opening::Spare(known) = &mut self.opening {
            *known = spare;
        }
        if let Opening::Homes(homes) = &mut self.opening {
            let receives = |node: &PeerId| {
                let want = self.receivers.get(node).and_then(|receiver| receiver.want.as_ref());
                want.is_some_and(|want| !want.complete && !want.stripes.is_empty())
            };
            homes.look(self.now, receives);
        }
        self.shed(spare);
        self.adopt(spare);
        self.readmit(fx);
        self.tell_offers(fx);
    }

    /// Takes up again what receivers want and could not have when they said so: they may have
    /// been told meanwhile that it is open, and say it once.
    fn readmit(&mut self, fx: &mut Vec<Effect>) {
        let may_have = |(peer, receiver): (&PeerId, &Receiver)| {
            let want = receiver.want.as_ref()?;
            let mut wanted = want.stripes.iter().filter(|stripe| !stripe.is_ask());
            let open = self.open_to(peer);
            let is_new = wanted.any(|stripe| {
                let stripe = u64::from(stripe.stripe);
                open.contains(stripe) && !receiver.given.get(&stripe).is_some_and(|g| g.is_taken)
            });
            is_new.then(|| (peer.clone(), want.clone()))
        };
        let again: Vec<(PeerId, Want)> = self.receivers.iter().filter_map(may_have).collect();
        again.into_iter().for_each(|(peer, want)| self.wanted(&peer, want, fx));
    }

    /// The receiver is gone.
    pub(super) fn receiver_lost(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        self.receivers.remove(peer);
        let now = self.now;
        if let Opening::Homes(homes) = &mut self.opening
            && homes.nodes.contains(peer)
        {
            homes.remove(peer, now);
            self.tell_offers(fx);
        }
    }

    /// Takes up what `peer` wants, as far as it may have it, and notes what it asks for.
    pub(super) fn admit(&mut self, peer: &PeerId, mut want: Want, fx: &mut Vec<Effect>) -> Want {
        let open = self.open_to(peer);
        let now = self.now;
        let receiver = self.receivers.entry(peer.clone()).or_default();
        receiver.want = Some(want.clone());
        // Who subscribes to what was closed meanwhile asks for it.
        let is_given = |stripe: &StripeWant| {
            let number = u64::from(stripe.stripe);
            open.contains(number) || receiver.given.contains_key(&number)
        };
        let asks = want.stripes.iter().filter(|stripe| stripe.is_ask() || !is_given(stripe));
        let asks = asks.map(|&StripeWant { stripe, from, comes_bps, .. }| {
            let stripe = u64::from(stripe);
            let before = receiver.asks.get(&stripe);
            // Who has lost its source asks anew.
            let before = before.filter(|ask| (ask.comes_bps > 0) == (comes_bps > 0));
            (stripe, Ask { since: before.map_or(now, |ask| ask.since), from, comes_bps })
        });
        let asks = asks.collect();
        want.stripes.retain(|stripe| !stripe.is_ask() && is_given(stripe));
        receiver.asks = asks;
        let wanted: Vec<u64> = want.stripes.iter().map(|s| u64::from(s.stripe)).collect();
        receiver.given.retain(|stripe, given| {
            wanted.contains(stripe) || (!given.is_taken && given.is_young(now))
        });
        self.adopt_orphan(peer);
        let Some(receiver) = self.receivers.get_mut(peer) else { return want };
        for stripe in wanted {
            let is_new = !receiver.given.get(&stripe).is_some_and(|given| given.is_taken);
            let given = receiver.given.entry(stripe).or_insert(Given::taken(now));
            given.is_taken = true;
            if is_new {
                fx.push(Effect::Count(Counted::Given { peer: peer.clone(), stripe }));
            }
        }
        want
    }

    /// Whether `chunk` is the first of its stripe: whoever is fed from here waits for it.
    pub(super) const fn begins(&self, chunk: u64) -> bool {
        chunk < self.stripes
    }

    /// Whether receivers are told of a chunk when it comes, not at the next look: it may be what
    /// they wait for, and how late they get it is judged by when it was told of.
    pub(super) const fn tells_progress(&self) -> bool {
        self.stripes == 1 && matches!(self.opening, Opening::Spare(_))
    }

    /// How often receivers are told how far this source is.
    fn progress_every(&self) -> Duration {
        let is_resumed = self.now.since(self.resumed_at) < RESUMED;
        let patience = self.patience();
        if is_resumed { patience.resumed } else { patience.progress }
    }

    /// Tells every receiver what can be had, if that is news.
    pub(super) fn tell_offers(&mut self, fx: &mut Vec<Effect>) {
        let peers: Vec<PeerId> = self.receivers.keys().cloned().collect();
        let ahead = self.announced();
        peers.iter().for_each(|peer| self.tell_offer_of(&ahead, peer, fx));
    }

    /// Tells `peer` at once what it may have and has not been told, and from time to time how far
    /// this source is.
    pub(super) fn tell_offer(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        self.tell_offer_of(&self.announced(), peer, fx);
    }

    fn tell_offer_of(&mut self, ahead: &[u64], peer: &PeerId, fx: &mut Vec<Effect>) {
        let offer = self.offer_to(peer, ahead);
        let (now, every) = (self.now, self.progress_every());
        let lacks = self.overdue_at(peer);
        let Some(receiver) = self.receivers.get_mut(peer) else { return };
        let due = match &receiver.told {
            None => true,
            Some((at, told)) => {
                let begins = begins_in(told, &offer);
                told.open != offer.open
                    || begins
                    || lacks.is_some_and(|from| told.head <= from)
                    || (!offer.is_root() && now.since(*at) >= every && !receiver.is_told(&offer))
            }
        };
        if due {
            let told = receiver.told.as_ref().map_or(StripeSet::NONE, |(_, told)| told.open);
            let taken = receiver.given.iter().filter(|(_, given)| given.is_taken);
            let closed = taken.map(|(stripe, _)| *stripe);
            let closed = closed.filter(|s| told.contains(*s) && !offer.open.contains(*s));
            let closed = closed.map(|stripe| Counted::Closed { peer: peer.clone(), stripe });
            fx.extend(closed.map(Effect::Count));
            receiver.told = Some((now, offer.clone()));
            fx.push(Effect::Offer { peer: peer.clone(), offer });
        }
    }

    /// What a node announces of each stripe; the root of a job announces nothing.
    fn announced(&self) -> Vec<u64> {
        match self.opening {
            Opening::All | Opening::Homes(_) => Vec::new(),
            Opening::Spare(_) => (0..self.stripes).map(|stripe| self.ahead(stripe)).collect(),
        }
    }

    fn offer_to(&self, peer: &PeerId, ahead: &[u64]) -> Offer {
        let root =
            Offer { open: self.open_to(peer), ..Offer::of_root(self.published, self.held.head()) };
        match self.opening {
            Opening::All | Opening::Homes(_) => root,
            Opening::Spare(spare) => {
                let pages = match peer {
                    // What is given back to the base is all that is here.
                    PeerId::Base => root.pages,
                    PeerId::Node(_) | PeerId::Client(..) => self.pages_ahead(),
                };
                let spare_bps = spare.map_or(0, |spare| spare.left_bps);
                Offer { pages, spare_bps, ahead: ahead.to_vec(), ..root }
            }
        }
    }

    /// The stripes that `peer` may subscribe to.
    pub(super) fn open_to(&self, peer: &PeerId) -> StripeSet {
        let receiver = self.receivers.get(peer);
        let given = receiver.into_iter().flat_map(|receiver| &receiver.given);
        let given = given.filter(|(_, given)| !given.is_surplus);
        match &self.opening {
            Opening::All => StripeSet::ALL,
            Opening::Homes(homes) => {
                let at_home = (0..).zip(homes.of()).filter(|(_, home)| *home == Some(peer));
                // What has another home by now is not given on: its receiver shall change.
                let given = given.filter(|(stripe, given)| {
                    given.is_adopted || !self.has_other_home(homes, **stripe, peer)
                });
                let given = given.map(|(stripe, _)| *stripe);
                at_home.map(|(stripe, _)| stripe).chain(given).collect()
            }
            // A base that has lost what was here shall have it back whatever the uplink carries.
            Opening::Spare(_) if *peer == PeerId::Base => StripeSet::ALL,
            Opening::Spare(spare) => {
                let left = spare.map_or(u64::MAX, |spare| spare.left_bps);
                let reserved = self.reserved_bps();
                let has_room = left >= reserved.saturating_add(self.need());
                // Who looks for more speed is let in where there is room for more.
                let asked = |stripe: u64| {
                    let ask = receiver.and_then(|receiver| receiver.asks.get(&stripe));
                    ask.is_some_and(|ask| left / 2 >= ask.comes_bps.saturating_add(reserved / 2))
                };
                let is_new = |stripe: &u64| {
                    receiver.is_none_or(|receiver| !receiver.given.contains_key(stripe))
                };
                let new = (0..self.stripes).filter(|stripe| {
                    has_room && is_new(stripe) && (self.is_from_root(*stripe) || asked(*stripe))
                });
                new.chain(given.map(|(stripe, _)| *stripe)).collect()
            }
        }
    }

    /// Whether `stripe` was given to `peer` while it had no other home, and has one now that
    /// takes it.
    fn has_other_home(&self, homes: &Homes, stripe: u64, peer: &PeerId) -> bool {
        let home = usize::try_from(stripe).ok().and_then(|s| homes.of().nth(s)).flatten();
        let Some(home) = home.filter(|home| *home != peer) else { return false };
        self.receivers.get(home).is_some_and(|receiver| receiver.given.contains_key(&stripe))
    }

    /// What receivers that are too young to show in what the uplink has left will take.
    fn reserved_bps(&self) -> u64 {
        self.need().saturating_mul(self.young())
    }

    pub(super) fn young(&self) -> u64 {
        let given = self.receivers.values().flat_map(|receiver| receiver.given.values());
        given.filter(|given| given.is_young(self.now)).count() as u64
    }

    /// Bits per second that one stripe needs: of the rate at which the job can reach all, or of
    /// that at which it comes.
    pub(super) const fn need(&self) -> u64 {
        let rate = if self.target_bps > 0 { self.target_bps } else { self.latest_bps };
        rate / self.stripes
    }

    /// An uplink that carries fewer receivers than were let in, before it was known, sends the
    /// youngest ones away, one at a time, and takes them back when it carries more.
    fn shed(&mut self, spare: Option<Spare>) {
        let Some(Spare { carries_bps, left_bps, was_full }) = spare else { return };
        let Opening::Spare(_) = self.opening else { return };
        // What is known of an uplink grows while it is being filled.
        let is_full = was_full && left_bps <= carries_bps / 10;
        let was = self.full.filter(|(_, bps)| is_full && carries_bps <= bps + bps / 20);
        let (since, bps) = was.unwrap_or((self.now, carries_bps));
        self.full = Some((since, bps));
        let most = carries_bps.checked_div(self.need()).unwrap_or(u64::MAX).max(1);
        let now = self.now;
        let given = self.receivers.iter_mut().filter(|(peer, _)| **peer != PeerId::Base);
        let given = given.flat_map(|(_, receiver)| receiver.given.values_mut());
        let (surplus, kept): (Vec<_>, Vec<_>) = given.partition(|given| given.is_surplus);
        if !is_full && (kept.len() as u64) < most {
            let oldest = surplus.into_iter().min_by_key(|given| given.since);
            oldest.into_iter().for_each(|given| given.is_surplus = false);
        } else if now.since(since) >= FULL && kept.len() as u64 > most {
            let youngest = kept.into_iter().max_by_key(|given| given.since);
            for given in youngest.into_iter().filter(|given| !given.is_young(now)) {
                given.is_surplus = true;
                // The next one when this one has found another source.
                self.full = Some((now - (FULL - YOUNG), bps));
            }
        }
    }
}

/// Whether a stripe that is open begins to be there: the receiver waits for nothing else.
fn begins_in(told: &Offer, offer: &Offer) -> bool {
    let pairs = (0u64..).zip(told.ahead.iter().zip(&offer.ahead));
    pairs.into_iter().any(|(stripe, (was, is))| was == &stripe && is > was)
}
