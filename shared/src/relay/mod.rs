//! The relay engine: what one peer does about one job, as a receiver and as a source.
//!
//! Base, node and publisher run the same engine. It decides which peer feeds which stripe,
//! how much credit that peer has, and which record goes next to each peer that this one
//! feeds. It never sees payload: chunks are numbers here, bytes are moved by the shell.
//!
//! The shell calls a method for every event and carries out the [`Effect`]s in order;
//! [`Relay::next_send`] is pulled by whoever writes to a downstream peer.

mod adoption;
mod counted;
mod delay;
mod downstream;
mod homes;
mod inflow;
mod opening;
mod patience;
mod silence;
mod trial;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use crate::chunk_set::ChunkSet;
use crate::id::PeerId;
use crate::limit;
use crate::manifest::{Cuts, PageSummary, Recut};
use crate::rate::Rate;
use crate::time::Time;
use crate::wire::message::{Offer, Phase, Report, Source, Want};

use downstream::Downstream;
use inflow::Inflow;
use opening::{Opening, Receiver};
use patience::{Cadence, Reached};
use upstream::{ComingBack, Feed, Upstream};

pub use counted::{Counted, SwitchReason};
pub use opening::Spare;

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell `peer` what is wanted of it: a state, the newest replaces the one before.
    Want {
        /// The source.
        peer: PeerId,
        /// What is wanted.
        want: Want,
    },
    /// Tell `peer` what can be had here: a state.
    Offer {
        /// The receiver.
        peer: PeerId,
        /// What is offered.
        offer: Offer,
    },
    /// [`Relay::next_send`] may have something for `peer` now.
    Ready {
        /// The receiver.
        peer: PeerId,
    },
    /// The account of this job has changed: [`Relay::report`].
    Report {
        /// Whether it says more than a number: it is to be told at once.
        urgent: bool,
    },
    /// Something to be counted.
    Count(Counted),
}

/// The record to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The page with this index.
    Page(u32),
    /// The page with this index, in place of those that it stands for: their chunks are void.
    PageInPlace(u32),
    /// The chunk with this number.
    Chunk(u64),
}

/// Whether a chunk that a peer has begun to send is welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// It is missing: take it.
    Wanted,
    /// It is held already: drop it and count it as received twice.
    Duplicate,
    /// The peer had no credit for it: its fault.
    BeyondCredit,
}

/// What one page describes.
#[derive(Debug, Clone)]
struct Span {
    index: u32,
    first: u64,
    lens: Box<[u32]>,
    tells_void: TellsVoid,
}

/// Below which number a peer knows all void chunks when it has a page: more if the page cuts
/// anew and comes in place of those that it stands for.
#[derive(Debug, Clone, Copy, Default)]
struct TellsVoid {
    as_next: u64,
    in_place: u64,
}

impl Span {
    fn end(&self) -> u64 {
        self.first.saturating_add(self.lens.len() as u64)
    }
}

/// The engine of one job at one peer.
#[derive(Debug, Clone)]
pub struct Relay {
    stripes: u64,
    /// Chunks that may be on their way, counted from the first missing one.
    window: u64,
    /// The length of the chunks that the window is for; of longer ones there may be fewer.
    longest: u32,
    /// Behind the last chunk that a page has cut anew.
    cut_anew_end: u64,
    /// What the pages describe, in order. Pages whose chunks were cut anew are left out.
    spans: Vec<Span>,
    /// Pages known: the index of the next one.
    pages: u32,
    /// Chunks described: the number of the next one.
    chunks: u64,
    /// Pages that may be passed on.
    published: u32,
    ended: bool,
    complete: bool,
    failed: Option<String>,
    stalled: Option<String>,
    /// Chunks that are held or void.
    held: ChunkSet,
    /// Chunks that can be sent: held and not void, nor cut anew out of others that still can.
    stock: ChunkSet,
    /// Chunks that are durable or void.
    durable: ChunkSet,
    durable_now: u64,
    /// The most durable bytes that there were: what was said is not taken back when chunks that
    /// are there in part are cut anew.
    durable_bytes: u64,
    short_only: bool,
    /// Long chunks of the last page that cut anew, while the short ones are not void.
    cuts: Cuts,
    /// What the last page of that kind cuts anew, while the short ones are not void.
    recut: Option<Recut>,
    rate: Rate,
    upstreams: BTreeMap<PeerId, Upstream>,
    coming_back: Option<ComingBack>,
    /// Who feeds each stripe.
    feeds: Vec<Feed>,
    /// Who sends pages.
    pages_feed: Feed,
    /// Who has brought how much since the start.
    inflows: BTreeMap<PeerId, Inflow>,
    /// The first missing chunk of each stripe.
    missing: Vec<u64>,
    downstreams: BTreeMap<PeerId, Downstream>,
    /// To whom the job is offered on the present connection.
    receivers: BTreeMap<PeerId, Receiver>,
    opening: Opening,
    /// Since when the uplink is full, with the bits per second that it was known to carry then.
    full: Option<(Time, u64)>,
    /// Chunks that were sent to anybody, and their bytes.
    chunks_sent: u64,
    bytes_sent: u64,
    /// The rate at which the job can reach all, bits per second, as the base says; else 0.
    target_bps: u64,
    /// The rate at which it comes here, bits per second, when that was looked at last.
    latest_bps: u64,
    /// How long it takes from one chunk to the next, and when the newest chunks came.
    cadence: Cadence,
    reached: Reached,
    /// When chunks came again after a pause, or came from another source.
    resumed_at: Time,
    /// When sources were looked at last, and no trial of one begins before.
    looked_at: Time,
    no_trial_before: Time,
    /// The time of what is called, as [`Relay::at`] and others have told it.
    now: Time,
}

impl Relay {
    /// The engine of a job with `stripes` stripes of which nothing is held yet. `window` is
    /// how many chunks may be on their way to it, at least one per stripe.
    pub fn new(stripes: u8, window: u64) -> Self {
        let stripes = u64::from(stripes.clamp(1, limit::STRIPES_MAX));
        Self {
            stripes,
            window: window.max(stripes),
            longest: u32::MAX,
            cut_anew_end: 0,
            spans: Vec::new(),
            pages: 0,
            chunks: 0,
            published: 0,
            ended: false,
            complete: false,
            failed: None,
            stalled: None,
            held: ChunkSet::new(),
            stock: ChunkSet::new(),
            durable: ChunkSet::new(),
            durable_now: 0,
            durable_bytes: 0,
            short_only: false,
            cuts: Cuts::default(),
            recut: None,
            rate: Rate::default(),
            upstreams: BTreeMap::new(),
            coming_back: None,
            feeds: (0..stripes).map(|_| Feed::default()).collect(),
            pages_feed: Feed::default(),
            inflows: BTreeMap::new(),
            missing: (0..stripes).collect(),
            downstreams: BTreeMap::new(),
            receivers: BTreeMap::new(),
            opening: Opening::default(),
            full: None,
            chunks_sent: 0,
            bytes_sent: 0,
            target_bps: 0,
            latest_bps: 0,
            cadence: Cadence::default(),
            reached: Reached::default(),
            resumed_at: Time::ZERO,
            looked_at: Time::ZERO,
            no_trial_before: Time::ZERO,
            now: Time::ZERO,
        }
    }

    /// Sets how many chunks of `longest` bytes at the most may be on their way; of longer ones
    /// fewer. What was granted stays granted.
    pub fn set_window(&mut self, window: u64, longest: u32) {
        self.window = window.max(self.stripes);
        self.longest = longest.max(1);
    }

    /// Bits per second of content that came over the last second, or seconds if that is more.
    pub fn latest_rate_bps(&mut self, now: Time) -> u64 {
        self.rate.latest(now)
    }

    /// Bits per second of content over the last seconds.
    pub fn rate_bps(&mut self, now: Time) -> u64 {
        self.rate.bits_per_second(now)
    }

    /// This peer cannot read chunks that were cut anew: it has their bytes in short ones only.
    pub const fn sends_no_long_chunks(&mut self) {
        self.short_only = true;
    }

    /// Whether a page can be sent, if it is known: its chunks are not void.
    #[cfg(test)]
    pub(crate) fn has_page(&self, index: u32) -> bool {
        self.spans.binary_search_by_key(&index, |span| span.index).is_ok()
    }

    /// Chunks that a page describes, if it can be sent.
    pub fn page_chunks(&self, index: u32) -> u32 {
        let at = self.spans.binary_search_by_key(&index, |span| span.index).ok();
        let span = at.and_then(|at| self.spans.get(at));
        span.map_or(0, |span| u32::try_from(span.lens.len()).unwrap_or(u32::MAX))
    }

    /// Whether a chunk is void: nobody needs it.
    pub fn is_void(&self, chunk: u64) -> bool {
        self.chunk_len(chunk) == 0 && self.durable.contains(chunk)
    }

    /// Whether anybody was offered the job or wants it from here.
    pub fn has_receivers(&self) -> bool {
        !self.downstreams.is_empty() || !self.receivers.is_empty()
    }

    /// Takes up what a restart has found: pages by [`Self::restore_page`], without those whose
    /// chunks are void; then the chunks that are durable or void, and the long chunks of the last page that
    /// cut anew, while the short ones are not void.
    pub fn restore(&mut self, held: &ChunkSet, cuts: Cuts, complete: bool) {
        self.cuts = cuts;
        for (first, len) in held.runs(0) {
            for chunk in first..first + len {
                self.held.insert(chunk);
                if self.chunk_len(chunk) > 0 && !self.cuts.has_long(chunk) {
                    self.stock.insert(chunk);
                }
                self.mark_durable(chunk);
            }
        }
        self.complete = complete;
        self.advance_missing();
    }

    /// Pages known, counted from the first.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Chunks described by the pages known.
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Length of a chunk in bytes; 0 while no page describes it, and when it is void.
    pub fn chunk_len(&self, chunk: u64) -> u32 {
        let at = self.spans.partition_point(|span| span.first <= chunk);
        let span = at.checked_sub(1).and_then(|at| self.spans.get(at));
        let place = span.and_then(|span| usize::try_from(chunk - span.first).ok());
        span.zip(place).and_then(|(span, place)| span.lens.get(place)).copied().unwrap_or(0)
    }

    /// Chunks that are held, verified, or void.
    pub const fn held(&self) -> &ChunkSet {
        &self.held
    }

    /// Chunks that are durable or void.
    pub const fn durable(&self) -> &ChunkSet {
        &self.durable
    }

    /// Content bytes that are verified and durable.
    pub const fn durable_bytes(&self) -> u64 {
        self.durable_bytes
    }

    /// Whether everything is verified, durable and in place.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the end of the log is known and every chunk is held.
    pub fn is_whole(&self) -> bool {
        self.ended && self.held.head() >= self.chunks
    }

    /// The report of this peer on the job.
    pub fn report(&mut self, now: Time) -> Report {
        let phase = match (&self.failed, self.complete, &self.stalled) {
            (Some(reason), ..) => Phase::Failed(reason.clone()),
            (None, true, _) => Phase::Complete,
            (None, false, Some(reason)) => Phase::Stalled(reason.clone()),
            (None, false, None) => Phase::Receiving,
        };
        Report {
            phase,
            bytes: self.durable_bytes,
            rate_bps: self.rate.bits_per_second(now),
            upstreams: self.sources(),
            flows: self.flows(now),
        }
    }

    /// A page of the manifest is known, of which that says `summary`: it describes chunks of
    /// these lengths; `last` says that the log ends with it.
    pub fn page(
        &mut self,
        summary: &PageSummary,
        chunk_lens: &[u32],
        last: bool,
        fx: &mut Vec<Effect>,
    ) {
        let PageSummary { index, first_chunk: first, recut, skipped, in_force, .. } = *summary;
        if let Some(earlier) = in_force {
            self.void(&earlier, fx);
        }
        if let Some(recut) = recut {
            // Whoever takes the page in place of others fetches its chunks, also those whose
            // bytes it happens to have: its store does not know of them as chunks.
            let short = if skipped { Vec::new() } else { self.lens_of(&recut) };
            self.cuts = Cuts::new(&recut, &short, chunk_lens);
            self.take_up_cuts();
        }
        self.add_page((index, first), chunk_lens, recut, last);
        if let Some(recut) = recut.filter(|_| skipped) {
            self.void(&recut, fx);
        }
        self.page_came();
        self.look_at_what_came_back(fx);
        self.tell_wants(in_force.is_some() || skipped, fx);
    }

    /// Takes up a page that a restart has found, in the order of their indices; then
    /// [`Self::restore`].
    pub fn restore_page(
        &mut self,
        place: (u32, u64),
        chunk_lens: &[u32],
        recut: Option<Recut>,
        last: bool,
    ) {
        self.add_page(place, chunk_lens, recut, last);
    }

    fn add_page(
        &mut self,
        (index, first): (u32, u64),
        chunk_lens: &[u32],
        recut: Option<Recut>,
        last: bool,
    ) {
        self.recut = recut.or(self.recut);
        let tells_void = recut.map_or_else(TellsVoid::default, |recut| {
            let as_next = std::mem::replace(&mut self.cut_anew_end, recut.end_chunk);
            TellsVoid { as_next, in_place: recut.end_chunk }
        });
        self.spans.push(Span { index, first, lens: chunk_lens.into(), tells_void });
        self.pages = index.saturating_add(1);
        self.chunks = first.saturating_add(chunk_lens.len() as u64);
        self.ended |= last;
    }

    /// The lengths of the chunks that a page cuts anew.
    fn lens_of(&self, recut: &Recut) -> Vec<u32> {
        let within = self.spans.iter().filter(|span| span.index >= recut.first_page);
        within.flat_map(|span| span.lens.iter().copied()).collect()
    }

    /// Who has all short chunks has the long one.
    fn take_up_cuts(&mut self) {
        for cut in self.cuts.iter() {
            if cut.is_in(&self.held) {
                self.held.insert(cut.chunk);
            }
            if cut.is_in(&self.durable) {
                self.durable.insert(cut.chunk);
            }
        }
        self.advance_missing();
    }

    /// The short chunks that a page has cut anew are void from now on: the long ones take their
    /// place.
    fn void(&mut self, recut: &Recut, fx: &mut Vec<Effect>) {
        let run = recut.first_chunk..recut.end_chunk;
        let cuts = std::mem::take(&mut self.cuts);
        self.recut = None;
        let short = run.clone().filter(|chunk| self.durable.contains(*chunk));
        let short: u64 = short.map(|chunk| u64::from(self.chunk_len(chunk))).sum();
        let long = cuts.iter().filter(|cut| self.durable.contains(cut.chunk));
        let long: u64 = long.map(|cut| u64::from(cut.len)).sum();
        self.durable_now = self.durable_now.saturating_sub(short).saturating_add(long);
        self.durable_bytes = self.durable_bytes.max(self.durable_now);
        self.spans.retain(|span| span.index < recut.first_page || span.index >= recut.page);
        for chunk in run.clone() {
            self.held.insert(chunk);
            self.durable.insert(chunk);
            self.stock.remove(chunk);
        }
        let long: Vec<u64> = cuts.iter().map(|cut| cut.chunk).collect();
        for downstream in self.downstreams.values_mut() {
            downstream.void(recut, &long);
        }
        for chunk in long {
            if !self.short_only && self.held.contains(chunk) && self.stock.insert(chunk) {
                self.offer_chunk(chunk, fx);
            }
        }
        self.advance_missing();
    }

    fn offer_chunk(&mut self, chunk: u64, fx: &mut Vec<Effect>) {
        for (peer, downstream) in &mut self.downstreams {
            if downstream.chunk_held(chunk, self.stripes) {
                fx.push(Effect::Ready { peer: peer.clone() });
            }
        }
    }

    /// Gives a long chunk to those for which the short ones are void.
    fn offer_long(&mut self, chunk: u64, fx: &mut Vec<Effect>) {
        let Some(recut) = self.recut.filter(|_| !self.short_only) else { return };
        for (peer, downstream) in &mut self.downstreams {
            if downstream.give_long(&recut, chunk, self.stripes) {
                fx.push(Effect::Ready { peer: peer.clone() });
            }
        }
    }

    /// The first `pages` pages, and every held chunk that they describe, may be passed on.
    ///
    /// At the base that is when they are durable; at a node, as soon as they are verified.
    pub fn publish(&mut self, pages: u32, fx: &mut Vec<Effect>) {
        let pages = pages.min(self.pages);
        if pages > self.published {
            self.published = pages;
            self.note_reached();
            self.wake_downstreams(fx);
        }
    }

    /// Whether `chunk`, which `peer` has begun to send, is welcome.
    pub fn landing(&self, peer: &PeerId, chunk: u64) -> Landing {
        let credit = self.upstreams.get(peer).map_or(0, |up| up.credit(chunk % self.stripes));
        if chunk >= credit {
            Landing::BeyondCredit
        } else if self.held.contains(chunk) {
            Landing::Duplicate
        } else {
            Landing::Wanted
        }
    }

    /// `chunk` has arrived, is verified and stored; it can be read from now on.
    pub fn hold(&mut self, now: Time, chunk: u64, len: u32, fx: &mut Vec<Effect>) {
        if !self.held.insert(chunk) {
            return;
        }
        self.rate.add(now, u64::from(len));
        self.at(now);
        self.fed(chunk, len, now);
        if let Some(long) = self.cuts.completed(chunk, &self.held) {
            self.held.insert(long);
            self.offer_long(long, fx);
        }
        self.advance_missing();
        self.note_reached();
        // A chunk that was cut anew goes to nobody while the short ones can be had.
        if !self.cuts.has_long(chunk) {
            self.stock.insert(chunk);
            self.offer_chunk(chunk, fx);
        }
        self.look_at_what_came_back(fx);
        self.tell_wants(false, fx);
        if self.begins(chunk) || self.tells_progress() {
            self.tell_offers(fx);
        }
    }

    /// These runs `(first, len)` of chunks are durable.
    pub fn flushed(&mut self, runs: &[(u64, u64)], fx: &mut Vec<Effect>) {
        let head = self.durable.head();
        for &(first, len) in runs {
            for chunk in first..first.saturating_add(len) {
                self.mark_durable(chunk);
            }
        }
        fx.push(Effect::Report { urgent: false });
        if self.durable.head() > head {
            self.note_reached();
            self.tell_wants(true, fx);
        }
    }

    /// Everything is durable and in place.
    pub fn completed(&mut self, fx: &mut Vec<Effect>) {
        if !self.complete {
            self.complete = true;
            fx.push(Effect::Report { urgent: true });
            self.tell_wants(true, fx);
        }
    }

    /// This peer cannot go on with the job: it stops receiving and says why.
    pub fn fail(&mut self, reason: String, fx: &mut Vec<Effect>) {
        if self.failed.is_none() {
            self.failed = Some(reason);
            fx.push(Effect::Report { urgent: true });
            self.feed_by_nobody(SwitchReason::default());
            self.tell_wants(true, fx);
        }
    }

    /// What arrives cannot be stored now, for this reason, or can be again. Credit stands still
    /// meanwhile, since nothing comes to be held. Says whether that is news.
    pub fn stall(&mut self, reason: Option<String>, fx: &mut Vec<Effect>) -> bool {
        let news = self.stalled != reason;
        if news {
            self.stalled = reason;
            fx.push(Effect::Report { urgent: true });
        }
        news
    }

    /// The connection to `peer` is gone, and with it all that was agreed on it.
    pub fn peer_lost(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        self.downstreams.remove(peer);
        self.receiver_lost(peer, fx);
        self.upstream_lost(peer, fx);
    }

    /// It is `now` in what is called next.
    pub fn at(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Tells the rate at which the job can reach all its nodes, bits per second; 0 if unknown.
    pub const fn set_target(&mut self, bps: u64) {
        self.target_bps = bps;
    }

    /// Time has passed: who feeds and who is fed is looked at, with what is known of the uplink.
    /// To be called about every tenth of a second while [`Self::is_restless`].
    pub fn tick(&mut self, now: Time, spare: Option<Spare>, fx: &mut Vec<Effect>) {
        self.at(now);
        let took = now.since(std::mem::replace(&mut self.looked_at, now));
        self.latest_bps = self.rate.latest(now);
        self.look_at_givers(now, fx);
        self.look_at_feeds(fx);
        if self.look_for_faster(took, fx) | self.look_for_earlier(fx) {
            self.tell_wants(true, fx);
        }
        self.look_at_openings(spare, fx);
    }

    /// Content bytes that were sent to anybody.
    pub const fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Whether `peer` is fed from here, and not complete.
    pub fn is_feeding(&self, peer: &PeerId) -> bool {
        self.downstreams.get(peer).is_some_and(|downstream| !downstream.is_complete())
    }

    /// Whether something is still to come to this peer or, as far as it knows, to one of its
    /// receivers.
    pub fn is_restless(&self) -> bool {
        let is_done = self.complete && self.downstreams.values().all(Downstream::is_complete);
        self.failed.is_none() && !is_done
    }

    fn mark_durable(&mut self, chunk: u64) {
        if !self.durable.insert(chunk) {
            return;
        }
        if let Some(long) = self.cuts.completed(chunk, &self.durable) {
            self.durable.insert(long);
        }
        // The bytes of a long chunk count when the short ones do not any more.
        if !self.cuts.has_long(chunk) {
            self.durable_now += u64::from(self.chunk_len(chunk));
            self.durable_bytes = self.durable_bytes.max(self.durable_now);
        }
    }

    fn advance_missing(&mut self) {
        for missing in &mut self.missing {
            while self.held.contains(*missing) {
                let absent = self.held.next_absent(*missing);
                // The next chunk of the same stripe that is not before the next absent one.
                let steps = (absent - *missing).div_ceil(self.stripes).max(1);
                *missing += steps * self.stripes;
            }
        }
    }

    fn wake_downstreams(&self, fx: &mut Vec<Effect>) {
        fx.extend(self.downstreams.keys().map(|peer| Effect::Ready { peer: peer.clone() }));
    }

    /// Who feeds this peer, and who has fed it when it is complete.
    fn sources(&self) -> Vec<Source> {
        if self.complete {
            return self.fed_from();
        }
        let has_fed = |peer: &PeerId| self.upstreams.get(peer).is_some_and(|up| up.has_fed);
        let feeding = self.feeds.iter().flat_map(Feed::sources);
        let feeding: BTreeSet<Source> =
            feeding.filter(|peer| has_fed(peer)).filter_map(upstream::source).collect();
        feeding.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
