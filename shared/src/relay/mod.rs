//! The relay engine: what one peer does about one job, as a receiver and as a source.
//!
//! Base, node and publisher run the same engine. It decides which peer feeds which stripe,
//! how much credit that peer has, and which record goes next to each peer that this one
//! feeds. It never sees payload: chunks are numbers here, bytes are moved by the shell.
//!
//! The shell calls a method for every event and carries out the [`Effect`]s in order;
//! [`Relay::next_send`] is pulled by whoever writes to a downstream peer.

mod downstream;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use crate::chunk_set::ChunkSet;
use crate::id::PeerId;
use crate::limit;
use crate::rate::Rate;
use crate::time::Time;
use crate::wire::message::{Offer, Phase, Report, Source, Want};

use downstream::Downstream;
use upstream::Upstream;

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
}

/// The record to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The page with this index.
    Page(u32),
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

/// The engine of one job at one peer.
#[derive(Debug, Clone)]
pub struct Relay {
    stripes: u64,
    /// Chunks that may be on their way, counted from the first missing one.
    window: u64,
    /// For every page, the number of the first chunk behind it.
    page_ends: Vec<u64>,
    /// Pages that may be passed on.
    published: u32,
    ended: bool,
    complete: bool,
    failed: Option<String>,
    stalled: Option<String>,
    lens: Vec<u32>,
    held: ChunkSet,
    durable: ChunkSet,
    durable_bytes: u64,
    rate: Rate,
    upstreams: BTreeMap<PeerId, Upstream>,
    /// Who feeds each stripe.
    feeders: Vec<Option<PeerId>>,
    /// The first missing chunk of each stripe.
    missing: Vec<u64>,
    downstreams: BTreeMap<PeerId, Downstream>,
    /// Whom the job was offered to on the present connection.
    invited: BTreeSet<PeerId>,
}

impl Relay {
    /// The engine of a job with `stripes` stripes of which nothing is held yet. `window` is
    /// how many chunks may be on their way to it, at least one per stripe.
    pub fn new(stripes: u8, window: u64) -> Self {
        let stripes = u64::from(stripes.clamp(1, limit::STRIPES_MAX));
        Self {
            stripes,
            window: window.max(stripes),
            page_ends: Vec::new(),
            published: 0,
            ended: false,
            complete: false,
            failed: None,
            stalled: None,
            lens: Vec::new(),
            held: ChunkSet::new(),
            durable: ChunkSet::new(),
            durable_bytes: 0,
            rate: Rate::default(),
            upstreams: BTreeMap::new(),
            feeders: (0..stripes).map(|_| None).collect(),
            missing: (0..stripes).collect(),
            downstreams: BTreeMap::new(),
            invited: BTreeSet::new(),
        }
    }

    /// Sets how many chunks may be on their way. What was granted stays granted.
    pub fn set_window(&mut self, window: u64) {
        self.window = window.max(self.stripes);
    }

    /// Bits per second of content over the last seconds.
    pub fn rate_bps(&mut self, now: Time) -> u64 {
        self.rate.bits_per_second(now)
    }

    /// Whether anybody was offered the job or wants it from here.
    pub fn has_receivers(&self) -> bool {
        !self.downstreams.is_empty() || !self.invited.is_empty()
    }

    /// Takes up what a restart has found: pages by [`Self::page`], then the chunks that are
    /// held and durable.
    pub fn restore(&mut self, held: &ChunkSet, complete: bool) {
        for (first, len) in held.runs(0) {
            for chunk in first..first + len {
                self.held.insert(chunk);
                self.mark_durable(chunk);
            }
        }
        self.complete = complete;
        self.advance_missing();
    }

    /// Pages known, counted from the first.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.page_ends.len()).unwrap_or(u32::MAX)
    }

    /// Chunks described by the pages known.
    pub fn chunks(&self) -> u64 {
        self.page_ends.last().copied().unwrap_or(0)
    }

    /// Length of a chunk in bytes; 0 while no page describes it.
    pub fn chunk_len(&self, chunk: u64) -> u32 {
        let index = usize::try_from(chunk).unwrap_or(usize::MAX);
        self.lens.get(index).copied().unwrap_or(0)
    }

    /// Chunks held, verified.
    pub const fn held(&self) -> &ChunkSet {
        &self.held
    }

    /// Chunks that are durable.
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
        self.ended && self.held.head() >= self.chunks()
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
        }
    }

    /// The next page of the manifest is known: it describes chunks of these lengths; `last`
    /// says that the log ends with it.
    pub fn page(&mut self, chunk_lens: &[u32], last: bool, fx: &mut Vec<Effect>) {
        self.lens.extend_from_slice(chunk_lens);
        self.page_ends.push(self.lens.len() as u64);
        self.ended |= last;
        self.tell_wants(false, fx);
    }

    /// The first `pages` pages, and every held chunk that they describe, may be passed on.
    ///
    /// At the base that is when they are durable; at a node, as soon as they are verified.
    pub fn publish(&mut self, pages: u32, fx: &mut Vec<Effect>) {
        let pages = pages.min(self.pages());
        if pages > self.published {
            self.published = pages;
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
        self.advance_missing();
        for (peer, downstream) in &mut self.downstreams {
            if downstream.chunk_held(chunk, self.stripes) {
                fx.push(Effect::Ready { peer: peer.clone() });
            }
        }
        self.tell_wants(false, fx);
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
            self.feeders.fill(None);
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

    /// Chunks below `chunk` cannot be read here any more (a publisher's window moved on).
    pub fn forget_below(&mut self, chunk: u64) {
        for downstream in self.downstreams.values_mut() {
            downstream.skip_below(chunk);
        }
    }

    /// The connection to `peer` is gone, and with it all that was agreed on it.
    pub fn peer_lost(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        self.downstreams.remove(peer);
        self.invited.remove(peer);
        if self.upstreams.remove(peer).is_some() {
            for feeder in &mut self.feeders {
                if feeder.as_ref() == Some(peer) {
                    *feeder = None;
                }
            }
            self.choose_feeders(fx);
        }
    }

    fn mark_durable(&mut self, chunk: u64) {
        if self.durable.insert(chunk) {
            self.durable_bytes += u64::from(self.chunk_len(chunk));
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

    fn sources(&self) -> Vec<Source> {
        let feeding = self.upstreams.iter().filter(|(_, upstream)| upstream.has_fed);
        let named = feeding.filter_map(|(peer, _)| match peer {
            PeerId::Base => Some(Source::Base),
            PeerId::Node(name) => Some(Source::Node(name.clone())),
            PeerId::Client(..) => None,
        });
        named.take(limit::UPSTREAMS_MAX).collect()
    }
}

#[cfg(test)]
mod tests;
