//! From whom a job is received: who feeds which stripe, and with how much credit.
//!
//! A stripe is fed by one source, beside which another one may be tried. A node takes only a source
//! that says to be strictly further ahead than it says itself, and says itself at most what its
//! present source has said: so whoever feeds is further ahead than whoever it feeds, however old
//! the words are that were believed, and no circle of nodes waits for each other (docs/OVERLAY.md
//! has the proof).

use std::cmp::Reverse;
use std::time::Duration;

use crate::id::PeerId;
use crate::limit;
use crate::time::Time;
use crate::wire::message::{Offer, Source, StripeWant, Want};

use super::delay::Gains;
use super::opening::Opening;
use super::trial::{self, Beside, Brought, Part};
use super::{Counted, Effect, Relay, SwitchReason};

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
    pub(super) gives_back: bool,
    /// How long it is not tried again, and until when: it was slower than the present source.
    pub(super) rest: Duration,
    pub(super) rests_until: Time,
    /// What it would gain of a live stream.
    pub(super) gains: Gains,
    /// Whether nothing came back from it for too long: nothing is expected of it any more.
    kept_nothing: bool,
}

/// Who feeds a stripe, and how that goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Feed {
    pub(super) by: Option<PeerId>,
    /// When it was chosen, or its last chunk came.
    pub(super) lively: Time,
    /// Whether another source is looked for: it brings nothing, or does not want to go on.
    pub(super) wants_other: bool,
    /// Whether it has brought nothing for longer than it may, and nothing since; and since when
    /// another one is known to have more meanwhile. Of the only stripe.
    pub(super) is_silent: bool,
    pub(super) lacks: Option<Time>,
    /// Whether the end of the stream was here since it was chosen. Of the only stripe.
    pub(super) was_at_end: bool,
    /// Why it has no feeder, while it has none, and since when that was seen.
    without: SwitchReason,
    alone: Option<Time>,
    /// When it was chosen.
    pub(super) since: Time,
    /// What it has brought lately.
    pub(super) brought: Brought,
    /// What it brought, bits per second, when it was compared with another.
    pub(super) judged_bps: u64,
    /// Whether a faster one is looked for.
    pub(super) shops: bool,
    /// Another one, on trial or with something left to send.
    pub(super) beside: Option<Beside>,
}

/// How far a stripe that is looked for is, and who is to be asked if they have more.
#[derive(Debug, Clone, Copy)]
struct Search {
    ahead: u64,
    of_root: bool,
    of_nodes: bool,
}

/// What had come back when it was looked at, and since when nothing more has.
#[derive(Debug, Clone, Copy)]
pub(super) struct ComingBack {
    since: Time,
    pages: u32,
    chunks: u64,
}

impl Feed {
    fn new(by: PeerId, now: Time) -> Self {
        Self { by: Some(by), lively: now, since: now, ..Self::default() }
    }

    /// Nobody feeds it any more. Whoever has.
    fn leave(&mut self, reason: SwitchReason) -> Option<PeerId> {
        self.beside = None;
        let by = self.by.take();
        if by.is_some() {
            self.without = reason;
        }
        by
    }

    /// Whether it has had no source for long.
    fn is_alone(&self, now: Time, most: Duration) -> bool {
        self.alone.is_some_and(|since| now.since(since) >= most)
    }

    /// Whether its source brings something, and too little.
    fn is_slow(&self) -> bool {
        self.by.is_some() && !self.wants_other
    }

    /// What others are told of how fast it comes: only what changes much is news. 0: not at all.
    /// The root of many stripes `is_told` what still comes from a source that does not want to go
    /// on: only who gets nothing is to be fed before others.
    fn comes_bps(&self, is_told: bool) -> u64 {
        let bps = match self.by {
            Some(_) if !self.wants_other => self.brought.bps().max(1),
            Some(_) if is_told => self.brought.bps(),
            Some(_) | None => 0,
        };
        bps.checked_ilog2().map_or(0, |power| 1 << power)
    }

    /// Who sends any of it.
    pub(super) fn sources(&self) -> impl Iterator<Item = &PeerId> {
        self.by.iter().chain(self.beside.iter().map(|beside| &beside.by))
    }
}

impl Upstream {
    /// It is not tried for some time, twice as long as before.
    pub(super) fn rest(&mut self, now: Time) {
        self.rest = (self.rest * 2).clamp(trial::REST, trial::REST_MAX);
        self.rests_until = now + self.rest;
    }

    pub(super) fn credit(&self, stripe: u64) -> u64 {
        usize::try_from(stripe).ok().and_then(|s| self.credits.get(s)).copied().unwrap_or(0)
    }
}

impl Relay {
    /// `peer` has told what it has of the job. A source that has less than is here has lost it:
    /// it is offered what is here.
    pub fn offered(&mut self, peer: &PeerId, offer: Offer, fx: &mut Vec<Effect>) {
        let (pages, head) = (offer.pages, offer.head);
        self.take_offer(peer, offer, false);
        self.look_at_feeds(fx);
        if pages < self.published || head < self.held.head() {
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
            self.feed_by_nobody(SwitchReason::GivenBack);
            self.choose_feeders(fx);
        }
    }

    /// Looks, from time to time, whether what was offered back comes: a receiver that brings
    /// nothing of it for [`limit::GIVE_BACK_PATIENCE`] has promised what it does not have, and
    /// the others feed. While there is no room here nothing can come.
    pub(super) fn look_at_givers(&mut self, now: Time, fx: &mut Vec<Effect>) {
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
            let feeds = self.feeds.iter_mut().chain([&mut self.pages_feed]);
            for peer in feeds.filter_map(|feed| feed.leave(SwitchReason::Idle)) {
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
        let mut feeders = self.feeds.iter().filter_map(|feed| feed.by.as_ref());
        feeders.any(|peer| self.upstreams.get(peer).is_some_and(|upstream| upstream.gives_back))
    }

    /// Whether all that was offered back is here again: then the others feed.
    pub(super) fn look_at_what_came_back(&mut self, fx: &mut Vec<Effect>) {
        let feeds_back = |peer: &PeerId| self.upstreams.get(peer).filter(|up| up.gives_back);
        let mut feeders = self.feeds.iter().filter_map(|feed| feed.by.as_ref());
        if feeders.any(|peer| feeds_back(peer).is_some_and(|up| !self.is_ahead(&up.offer))) {
            self.feed_by_nobody(SwitchReason::GivenBack);
            self.choose_feeders(fx);
            self.tell_wants(true, fx);
        }
    }

    fn is_ahead(&self, offer: &Offer) -> bool {
        offer.pages > self.pages || offer.head > self.held.head()
    }

    fn take_offer(&mut self, peer: &PeerId, mut offer: Offer, gives_back: bool) {
        // No node is the root of a job, whatever it says.
        if matches!(peer, PeerId::Node(_)) {
            offer.ahead.resize(self.missing.len(), 0);
        }
        if matches!(peer, PeerId::Node(_))
            && let Some(before) = self.upstreams.get(peer).map(|up| up.offer.ahead_in(0))
            && before < offer.ahead_in(0)
        {
            self.note_word(peer, offer.ahead_in(0));
        }
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
                    rest: Duration::ZERO,
                    rests_until: Time::ZERO,
                    gains: Gains::default(),
                    kept_nothing: false,
                };
                self.upstreams.insert(peer.clone(), upstream);
            }
        }
    }

    /// `peer` has sent a chunk of `len` bytes that was taken: it counts as a source from now on.
    pub fn fed_by(&mut self, peer: &PeerId, len: u32, fx: &mut Vec<Effect>) {
        self.count_inflow(peer, len);
        if let Some(upstream) = self.upstreams.get_mut(peer).filter(|up| !up.has_fed) {
            upstream.has_fed = true;
            fx.push(Effect::Report { urgent: true });
        }
    }

    /// Below which number this peer, and whoever feeds it, has every chunk of a stripe.
    pub(super) fn ahead(&self, stripe: u64) -> u64 {
        let own = usize::try_from(stripe).ok().and_then(|stripe| self.missing.get(stripe));
        let own = own.copied().unwrap_or(0);
        let feed = usize::try_from(stripe).ok().and_then(|stripe| self.feeds.get(stripe));
        let sources = feed.into_iter().flat_map(Feed::sources);
        let sources = sources.filter_map(|peer| self.upstreams.get(peer));
        sources.map(|source| source.offer.ahead_in(stripe)).fold(own, u64::min)
    }

    /// Whether a stripe comes here from the root of the job.
    pub(super) fn is_from_root(&self, stripe: u64) -> bool {
        let source = self.feeder(stripe).and_then(|peer| self.upstreams.get(peer));
        source.is_some_and(|source| source.offer.is_root())
    }

    fn feeder(&self, stripe: u64) -> Option<&PeerId> {
        let feed = usize::try_from(stripe).ok().and_then(|stripe| self.feeds.get(stripe));
        feed.and_then(|feed| feed.by.as_ref())
    }

    pub(super) fn feed_by_nobody(&mut self, reason: SwitchReason) {
        for feed in self.feeds.iter_mut().chain([&mut self.pages_feed]) {
            feed.leave(reason);
        }
    }

    /// A chunk has come.
    pub(super) fn fed(&mut self, chunk: u64, len: u32, now: Time) {
        let pause = self.cadence.chunk(now);
        if pause >= self.patience().idle || self.feeds.iter().any(|feed| !feed.brought.is_any()) {
            self.resumed_at = now;
        }
        let comes_slowly = self.cadence.mean() >= self.patience().idle;
        let stripe = usize::try_from(chunk % self.stripes).ok();
        if let Some(feed) = stripe.and_then(|stripe| self.feeds.get_mut(stripe)) {
            feed.take(chunk, len, now);
            if comes_slowly && feed.is_followed() {
                feed.revive(now);
            }
        }
    }

    pub(super) fn upstream_lost(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        if self.upstreams.remove(peer).is_some() {
            let now = self.now;
            let feeds = self.feeds.iter_mut().chain([&mut self.pages_feed]);
            for (feed, stripe) in feeds.zip(0u64..) {
                feed.beside.take_if(|beside| beside.by == *peer);
                if feed.by.as_ref() != Some(peer) {
                    continue;
                }
                match feed.promote(now) {
                    Some(to) => fx.push(Effect::Count(Counted::Switched {
                        stripe,
                        to,
                        reason: SwitchReason::Lost,
                    })),
                    None => drop(feed.leave(SwitchReason::Lost)),
                }
            }
            self.choose_feeders(fx);
            self.tell_wants(true, fx);
        }
    }

    /// Gives every stripe that has no feeder, and the pages, the best one that may feed it.
    pub(super) fn choose_feeders(&mut self, fx: &mut Vec<Effect>) {
        let mut chosen = self.pages_feed.by.is_none() && self.change_feeder_of_pages(0);
        for stripe in 0..self.stripes {
            if self.feeder(stripe).is_none() && !self.has_whole(stripe) {
                let reason = self.feed_at(stripe).map(|(feed, _)| feed.without).unwrap_or_default();
                chosen |= self.change_feeder((stripe, 0), reason, fx);
            }
        }
        if chosen {
            self.tell_wants(true, fx);
        }
    }

    /// Looks whether every stripe is fed as it should: one whose source brings nothing, or wants
    /// to be rid of it, gets another one that has what comes next, if there is any. How long is
    /// waited for what was lost and is given back, [`Self::look_at_givers`] decides.
    pub(super) fn look_at_feeds(&mut self, fx: &mut Vec<Effect>) {
        self.choose_feeders(fx);
        let now = self.now;
        for feed in &mut self.feeds {
            let is_fed = feed.by.is_some() && !feed.wants_other;
            feed.alone = if is_fed { None } else { feed.alone.or(Some(now)) };
        }
        self.look_for_silence();
        let mut changed = false;
        for (at, stripe) in (0..self.stripes).enumerate() {
            let Some((feed, missing)) = self.feed_at(stripe) else { continue };
            let Some(peer) = feed.by.as_ref().filter(|_| !self.has_whole(stripe)) else { continue };
            let Some(upstream) = self.upstreams.get(peer).filter(|up| !up.gives_back) else {
                continue;
            };
            let is_unwelcome = !upstream.offer.open.contains(stripe);
            if feed.is_silent && !is_unwelcome && !self.lacks(feed) {
                changed |= self.keep_and_ask(at);
                continue;
            }
            let is_idle = feed.is_silent || self.now.since(feed.lively) >= self.idle_patience(feed);
            if is_unwelcome || is_idle {
                let was = feed.wants_other;
                let reason = if is_unwelcome { SwitchReason::Closed } else { SwitchReason::Idle };
                let next = (stripe, missing.saturating_add(1));
                let before = Some((peer.clone(), feed.brought.clone())).filter(|_| !is_idle);
                let (old, has_brought) = (peer.clone(), feed.brought.is_any());
                let is_changed =
                    self.promote(stripe, reason, fx) || self.change_feeder(next, reason, fx);
                match before {
                    Some((old, brought)) if is_changed => self.let_finish(at, old, brought),
                    // Whatever it says of how early it is.
                    None if is_changed && self.stripes == 1 && !has_brought => self.rest(&old),
                    Some(_) | None => {}
                }
                let wants_other = !is_changed;
                let is_given_up = wants_other && is_unwelcome && is_idle;
                let feed = usize::try_from(stripe).ok().and_then(|s| self.feeds.get_mut(s));
                if let Some(feed) = feed {
                    feed.wants_other = wants_other;
                    if is_given_up {
                        // It may be asked again, as all others.
                        feed.leave(reason);
                    }
                }
                changed |= !wants_other || was != wants_other || is_given_up;
            }
        }
        let is_idle =
            self.now.since(self.pages_feed.lively) >= self.idle_patience(&self.pages_feed);
        let of_pages = self.pages_feed.by.as_ref().and_then(|peer| self.upstreams.get(peer));
        if is_idle && !self.ended && of_pages.is_some_and(|source| !source.gives_back) {
            changed |= self.change_feeder_of_pages(self.pages.saturating_add(1));
        }
        let is_unfed = |stripe| {
            let feed = self.feed_at(stripe).map(|(feed, _)| feed);
            feed.is_none_or(|feed| feed.by.is_none() || feed.wants_other) && !self.has_whole(stripe)
        };
        // Who looks for a source tells those that have come since.
        if changed || (!self.upstreams.is_empty() && (0..self.stripes).any(is_unfed)) {
            self.tell_wants(true, fx);
        }
    }

    /// The contender of a stripe, if one is on trial, takes the place of its source.
    fn promote(&mut self, stripe: u64, reason: SwitchReason, fx: &mut Vec<Effect>) -> bool {
        let now = self.now;
        let feed = usize::try_from(stripe).ok().and_then(|stripe| self.feeds.get_mut(stripe));
        let to = feed.and_then(|feed| feed.promote(now));
        fx.extend(to.clone().map(|to| Effect::Count(Counted::Switched { stripe, to, reason })));
        // It was told what is here when the trial began.
        to.iter().for_each(|to| self.note_held(to));
        to.is_some()
    }

    /// How many pages this peer, and whoever sends it pages, has.
    pub(super) fn pages_ahead(&self) -> u32 {
        let source = self.pages_feed.by.as_ref().and_then(|peer| self.upstreams.get(peer));
        let source = source.filter(|source| !source.offer.is_root());
        source.map_or(self.published, |source| self.published.min(source.offer.pages))
    }

    /// A page has come.
    pub(super) fn page_came(&mut self) {
        self.pages_feed.lively = self.now;
    }

    /// Lets the best other source that has `has` pages send them. Whether there is one.
    fn change_feeder_of_pages(&mut self, has: u32) -> bool {
        if self.failed.is_some() || self.stripes == 1 {
            return false;
        }
        let present = self.pages_feed.by.as_ref();
        let others = self.upstreams.iter().filter(|(peer, _)| Some(*peer) != present);
        let pages = self.pages_ahead();
        let can_feed = others.filter(|(_, Upstream { offer, gives_back, kept_nothing, .. })| {
            if *gives_back {
                return !kept_nothing && self.is_ahead(offer);
            }
            let is_open = !offer.is_root() || !offer.open.is_empty();
            is_open && (offer.is_root() || (offer.pages > pages && offer.pages >= has))
        });
        let merit = |Upstream { offer, gives_back, .. }: &Upstream| {
            (*gives_back, offer.is_root().then_some(offer.head), offer.pages)
        };
        let best = can_feed.max_by_key(|(_, upstream)| merit(upstream));
        let Some(best) = best.map(|(peer, _)| peer.clone()) else { return false };
        self.pages_feed = Feed::new(best, self.now);
        true
    }

    fn feed_at(&self, stripe: u64) -> Option<(&Feed, u64)> {
        let at = usize::try_from(stripe).ok()?;
        self.feeds.get(at).zip(self.missing.get(at).copied())
    }

    /// Whether all of a stripe is here, and its end known.
    pub(super) fn has_whole(&self, stripe: u64) -> bool {
        self.ended && self.feed_at(stripe).is_some_and(|(_, missing)| missing >= self.chunks())
    }

    /// Lets the best other source that has the stripe up to `has` feed it. Whether there is one.
    fn change_feeder(
        &mut self,
        (stripe, has): (u64, u64),
        reason: SwitchReason,
        fx: &mut Vec<Effect>,
    ) -> bool {
        if self.failed.is_some() {
            return false;
        }
        let (present, ahead) = (self.feeder(stripe), self.ahead(stripe));
        let others = self.upstreams.iter().filter(|(peer, _)| Some(*peer) != present);
        let can_feed = others.filter(|(_, upstream)| self.can_feed(upstream, (stripe, ahead), has));
        let best = can_feed.max_by_key(|(peer, upstream)| self.merit(peer, upstream, stripe));
        let Some(best) = best.map(|(peer, _)| peer.clone()) else { return false };
        self.feed_from((best, stripe), reason, fx);
        true
    }

    /// `by` feeds a stripe from now on.
    pub(super) fn feed_from(
        &mut self,
        (by, stripe): (PeerId, u64),
        reason: SwitchReason,
        fx: &mut Vec<Effect>,
    ) {
        self.note_held(&by);
        self.forget_gains();
        let now = self.now;
        let feed = usize::try_from(stripe).ok().and_then(|stripe| self.feeds.get_mut(stripe));
        if let Some(feed) = feed {
            *feed = Feed::new(by.clone(), now);
            fx.push(Effect::Count(Counted::Switched { stripe, to: by, reason }));
        }
    }

    /// What `peer` need not send, since it is here.
    pub(super) fn note_held(&mut self, peer: &PeerId) {
        let held = self.held.runs(self.missing.iter().copied().min().unwrap_or(0));
        let held = held.take(limit::WANT_RUNS_MAX).collect();
        if let Some(upstream) = self.upstreams.get_mut(peer) {
            upstream.held = held;
        }
    }

    /// Whether a source may feed a stripe, of which this peer announces `own`, and has it up to
    /// `has`.
    pub(super) fn can_feed(
        &self,
        upstream: &Upstream,
        (stripe, own): (u64, u64),
        has: u64,
    ) -> bool {
        let Upstream { offer, gives_back, kept_nothing, .. } = upstream;
        if *gives_back {
            return !kept_nothing && self.is_ahead(offer);
        }
        let ahead = offer.ahead_in(stripe);
        offer.open.contains(stripe) && ahead >= has && (offer.is_root() || ahead > own)
    }

    /// What is better comes last: those that give back what was lost; the root, which opens a
    /// stripe to the one that shall have it from there; who feeds fewest stripes; who is furthest.
    pub(super) fn merit(
        &self,
        peer: &PeerId,
        upstream: &Upstream,
        stripe: u64,
    ) -> impl Ord + use<> {
        let Upstream { offer, gives_back, .. } = upstream;
        let root = offer.is_root().then_some(offer.head);
        let fed = self.feeds.iter().filter(|feed| feed.by.as_ref() == Some(peer)).count();
        let fed = if offer.is_root() { 0 } else { fed };
        (*gives_back, root, Reverse(fed), offer.spare_bps, offer.ahead_in(stripe))
    }

    /// Whether a node other than the present source has more of a stripe.
    pub(super) fn has_node(&self, stripe: u64) -> bool {
        let (ahead, by) = (self.ahead(stripe), self.feeder(stripe));
        self.upstreams.iter().any(|(peer, Upstream { offer, .. })| {
            by != Some(peer) && !offer.is_root() && offer.ahead_in(stripe) > ahead
        })
    }

    /// What is asked of all peers alike; nothing, of a stripe that nobody is asked for.
    fn search(&self, stripe: u64) -> Option<Search> {
        let (feed, _) = self.feed_at(stripe)?;
        let is_settled = self.stripes > 1 && feed.by.is_some() && !feed.wants_other && !feed.shops;
        if is_settled || !matches!(self.opening, Opening::Spare(_)) {
            return None;
        }
        // The root is asked for more speed by who is far behind if nobody else has more, and to
        // be the source if those who have more do not open the stripe.
        let of_root = match feed.is_slow() {
            true => self.is_far_behind(feed) && !self.has_other_node(stripe),
            false => !self.has_node(stripe) || feed.is_alone(self.now, self.patience().alone),
        };
        let of_nodes = !feed.is_silent || self.lacks(feed);
        Some(Search { ahead: self.ahead(stripe), of_root, of_nodes })
    }

    /// Whether a stripe is asked for that `upstream` has and has not opened.
    fn asks(&self, peer: &PeerId, upstream: &Upstream, stripe: u64, search: Search) -> bool {
        let Some((feed, _)) = self.feed_at(stripe) else { return false };
        let offer = &upstream.offer;
        let is_looking = match &feed.by {
            None => true,
            Some(by) => (feed.wants_other || feed.shops || self.is_earlier(peer)) && by != peer,
        };
        let has_more = match offer.is_root() {
            true => search.of_root,
            false => offer.ahead_in(stripe) > search.ahead && search.of_nodes,
        };
        // What is open to who asks for more speed is so as long as it asks.
        let is_to_be_asked = feed.is_slow() || !offer.open.contains(stripe);
        is_looking && has_more && is_to_be_asked
    }

    /// The one stripe of a live log and its pages come from one source: which pages it has to send
    /// in place of void ones hangs on which chunks are lacked.
    fn join_pages(&mut self) {
        if let [feed] = self.feeds.as_slice()
            && feed.by != self.pages_feed.by
        {
            self.pages_feed = Feed { beside: None, ..feed.clone() };
        }
    }

    /// Tells every upstream what is wanted of it, if that is news: at once if `now`,
    /// otherwise when the credit has moved by a quarter of the window.
    pub(super) fn tell_wants(&mut self, now: bool, fx: &mut Vec<Effect>) {
        self.join_pages();
        let peers: Vec<PeerId> = self.upstreams.keys().cloned().collect();
        let searches: Vec<_> = (0..self.stripes).map(|stripe| self.search(stripe)).collect();
        for peer in peers {
            let want = self.want_of(&peer, &searches);
            let quarter = self.window / 4;
            let Some(upstream) = self.upstreams.get_mut(&peer) else { continue };
            let due = match &upstream.told {
                None => true,
                Some(told) => {
                    (now && *told != want)
                        || credit_gain(told, &want) >= quarter.max(1)
                        || pages_gain(told, &want) >= limit::PAGES_AHEAD / 2
                }
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

    fn want_of(&self, peer: &PeerId, searches: &[Option<Search>]) -> Want {
        let (pages, durable, complete) = (self.pages(), self.durable.head(), self.complete);
        let mut want = Want { pages, durable, complete, ..Want::default() };
        let Some(upstream) = self.upstreams.get(peer) else { return want };
        if self.pages_feed.by.as_ref() == Some(peer) && self.failed.is_none() && !self.ended {
            want.pages_to = pages.saturating_add(limit::PAGES_AHEAD).min(limit::PAGES_MAX);
        }
        let of_stripes = self.feeds.iter().zip(&self.missing).enumerate().zip(0u8..);
        for ((at, (feed, &missing)), stripe) in of_stripes {
            let number = u64::from(stripe);
            if self.failed.is_some() || self.has_whole(number) {
                continue;
            }
            if let Some(part) = self.part_of(peer, at) {
                let Part { next, to, skip } = part;
                let is_other = feed.by.as_ref() != Some(peer);
                let tried = feed.trial_from().filter(|_| is_other);
                let most = tried.map(|from| from.saturating_add(trial::TRIAL_CHUNKS_MAX));
                let skipped = skip.map_or(0, |(first, end)| end.saturating_sub(first));
                let window = self.window_at(next).saturating_add(skipped);
                let granted = upstream.credit(number);
                let credit = to.unwrap_or_else(|| next.saturating_add(window).max(granted));
                let most = most.unwrap_or(limit::CHUNKS_MAX);
                let credit = credit.min(most).min(limit::CHUNKS_MAX);
                let from = next.min(credit);
                let comes_bps = if is_other { feed.comes_bps(false) } else { 0 };
                let part = StripeWant::new(stripe, from, credit);
                want.stripes.push(StripeWant { skip, comes_bps, ..part });
            } else if let Some(search) = searches.get(at).copied().flatten()
                && self.asks(peer, upstream, number, search)
            {
                let comes_bps = feed.comes_bps(self.stripes > 1 && upstream.offer.is_root());
                want.stripes.push(StripeWant { comes_bps, ..StripeWant::new(stripe, missing, 0) });
            }
        }
        let fed = want.stripes.iter().filter(|stripe| !stripe.is_ask());
        if let Some(lowest) = fed.map(|stripe| stripe.from).min() {
            let above = upstream.held.iter().filter(|(first, len)| first + len > lowest);
            want.held = above.copied().collect();
        }
        want
    }
}

/// A source as reports name it.
pub(super) fn source(peer: &PeerId) -> Option<Source> {
    match peer {
        PeerId::Base => Some(Source::Base),
        PeerId::Node(name) => Some(Source::Node(name.clone())),
        PeerId::Client(..) => None,
    }
}

/// By how many pages more than was told may be sent; one that is to send pages, or none any more,
/// counts as much as can be.
const fn pages_gain(told: &Want, want: &Want) -> u32 {
    if (told.pages_to == 0) != (want.pages_to == 0) {
        return u32::MAX;
    }
    want.pages_to.saturating_sub(told.pages_to)
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
