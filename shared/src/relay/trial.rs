//! Whether another source would feed a stripe faster: a trial on chunks ahead of those that the
//! present source was asked for, so that nothing comes twice whichever wins.
//!
//! A stripe has one source. While it lags behind what others have, one of them is asked for the
//! chunks behind the last one that the present source may send; the present one goes on with its
//! own. What each brings is counted per look (a tenth of a second). The contender's ramp is left
//! out, and the test is sequential: it ends as soon as the ratio of the rates is further from a
//! gain of [`GAIN`] than chance explains (Wald, "Sequential Tests of Statistical Hypotheses",
//! Ann. Math. Stat. 16, 1945, in the form of a confidence bound).

use std::collections::VecDeque;
use std::time::Duration;

use crate::chunk_set::ChunkSet;
use crate::id::PeerId;
use crate::limit;
use crate::time::Time;
use crate::wire::message::Offer;

use super::upstream::{Feed, Upstream};
use super::{Counted, Effect, Relay, SwitchReason};

/// What a contender must bring more: less is not worth a change.
const GAIN: f64 = 1.15;
/// Standard errors that a ratio must be away from [`GAIN`]: one in twenty is wrong.
pub(super) const SURE: f64 = 1.64;
/// Looks that a verdict needs, and the most that are kept: 3 s.
const LOOKS_MIN: usize = 3;
const LOOKS_MAX: usize = 30;
/// A look that took longer says nothing: nobody looked meanwhile, be it that nothing was awaited.
const LOOK_LONGEST: Duration = Duration::from_secs(1);
/// Looks of the present source before the trial that count.
const LOOKS_BEFORE: usize = 10;
/// A contender that grows by so much from one half of its looks to the other is not there yet.
const GROWS: f64 = 1.1;
/// The longest trial.
const TRIAL_MAX: Duration = Duration::from_secs(3);
/// How long a contender may bring nothing.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// How long a source feeds before it is compared with another.
pub(super) const SETTLED: Duration = Duration::from_secs(1);
/// What the present source is granted when a trial begins, so that it does not run dry.
const LEAD: Duration = Duration::from_secs(2);
/// Between the ends and beginnings of two trials of a job.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a contender that has lost is not tried again: doubled each time, up to the most.
pub(super) const REST: Duration = Duration::from_secs(10);
pub(super) const REST_MAX: Duration = Duration::from_secs(60);
/// A source that brings this share of what it brought at the last verdict is looked at anew.
const FALLEN: f64 = 0.7;
/// Share of the needed rate at which nobody looks for more, and above which the root is not asked
/// for more.
const MET_PERCENT: u64 = 90;
const FAR_BEHIND_PERCENT: u64 = 50;
/// What the source that was left would take longer for, the new one brings as well.
const REST_OF_OLD_MAX: Duration = Duration::from_secs(1);
/// But not what the one that was left has chosen already, which comes anyhow: bytes of a batch
/// and of the send window of a slow connection.
const PIPE: u64 = 80 * 1024;

/// Chunk numbers that the present source, and the contender, have before them at the most: of what
/// the one is left with the other one is told.
pub(super) const TRIAL_CHUNKS_MAX: u64 = limit::SKIP_CHUNKS_MAX / 2;

/// What a source has brought of a stripe, look by look.
#[derive(Debug, Clone, Default)]
pub(super) struct Brought {
    bytes: u64,
    chunks: u32,
    looks: VecDeque<Look>,
    any: bool,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    bytes: u64,
    chunks: u32,
    took: Duration,
}

/// A rate, and how wrong it may be.
#[derive(Debug, Clone, Copy, Default)]
struct Estimate {
    /// Bytes per second.
    rate: f64,
    /// The standard error as a share of the rate.
    error: f64,
}

/// Another source of a stripe beside the one that feeds it, with chunks of its own.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) by: PeerId,
    /// The first chunk that it sends.
    pub(super) from: u64,
    /// Behind the last one; none while it is on trial.
    pub(super) to: Option<u64>,
    since: Time,
    pub(super) lively: Time,
    brought: Brought,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Faster,
    Slower,
}

impl Beside {
    /// A source that was left and has chunks before `to` to send.
    const fn leaving(by: PeerId, to: u64, now: Time, brought: Brought) -> Self {
        Self { by, from: 0, to: Some(to), since: now, lively: now, brought }
    }
}

impl Brought {
    pub(super) const fn add(&mut self, len: u32) {
        self.bytes = self.bytes.saturating_add(len as u64);
        self.chunks = self.chunks.saturating_add(1);
        self.any = true;
    }

    /// Whether anything has come.
    pub(super) const fn is_any(&self) -> bool {
        self.any
    }

    fn look(&mut self, took: Duration) {
        // Time before the first chunk is its way here.
        if self.any && took <= LOOK_LONGEST {
            if self.looks.len() == LOOKS_MAX {
                self.looks.pop_front();
            }
            self.looks.push_back(Look { bytes: self.bytes, chunks: self.chunks, took });
        }
        (self.bytes, self.chunks) = (0, 0);
    }

    /// Of the newest looks, at most `count`.
    fn estimate(&self, count: usize) -> Estimate {
        estimate(self.looks.iter().rev().take(count))
    }

    /// Of all looks, or of their second half if that is much better; and whether it is.
    fn settled(&self) -> (Estimate, bool) {
        let half = self.looks.len() / 2;
        let (older, newer) = (estimate(self.looks.iter().take(half)), self.estimate(half));
        let grows = half == 0 || newer.rate > GROWS * older.rate;
        (if grows && half > 0 { newer } else { self.estimate(LOOKS_MAX) }, grows)
    }

    /// Bits per second over the last looks before a trial would begin.
    pub(super) fn bps(&self) -> u64 {
        // Rates of a stripe are far below 2^53.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let bps = (self.estimate(LOOKS_BEFORE).rate * 8.0) as u64;
        bps
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of three seconds")]
fn estimate<'a>(looks: impl Iterator<Item = &'a Look> + Clone) -> Estimate {
    let count = looks.clone().count() as f64;
    let seconds: f64 = looks.clone().map(|look| look.took.as_secs_f64()).sum();
    let bytes: u64 = looks.clone().map(|look| look.bytes).sum();
    let chunks: u32 = looks.clone().map(|look| look.chunks).sum();
    if bytes == 0 || seconds <= 0.0 {
        return Estimate::default();
    }
    let rate = bytes as f64 / seconds;
    let off = |look: &Look| look.bytes as f64 / look.took.as_secs_f64().max(1e-9) / rate - 1.0;
    let variance = looks.map(|look| off(look).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    // Chunks come whole: one more or less may have been meant.
    let grain = 1.0 / f64::from(chunks);
    Estimate { rate, error: (variance / count + grain * grain).sqrt() }
}

/// What the looks say of a contender; nothing, as long as that may be chance.
fn judge(present: &Brought, contender: &Brought) -> Option<Verdict> {
    let (new, grows) = contender.settled();
    let old = present.estimate(2 * LOOKS_BEFORE);
    if contender.looks.len() < LOOKS_MIN || new.rate <= 0.0 {
        return None;
    }
    if old.rate <= 0.0 {
        return Some(Verdict::Faster);
    }
    let over = (new.rate / old.rate / GAIN).ln();
    let error = new.error.hypot(old.error);
    match over {
        over if over > SURE * error => Some(Verdict::Faster),
        over if over < -SURE * error && !grows => Some(Verdict::Slower),
        _ => None,
    }
}

/// The verdict when there is no more time.
fn judge_at_last(present: &Brought, contender: &Brought) -> Verdict {
    let (new, old) = (contender.settled().0.rate, present.estimate(2 * LOOKS_BEFORE).rate);
    if new > old * GAIN { Verdict::Faster } else { Verdict::Slower }
}

impl Feed {
    /// Whose a chunk is: that of the source beside the one that feeds, or of this one.
    pub(super) fn take(&mut self, chunk: u64, len: u32, now: Time) {
        let beside = self
            .beside
            .as_mut()
            .filter(|beside| chunk >= beside.from && beside.to.is_none_or(|to| chunk < to));
        match beside {
            Some(beside) => {
                beside.lively = now;
                beside.brought.add(len);
            }
            None => {
                self.revive(now);
                self.brought.add(len);
            }
        }
    }

    /// Whether the source before still sends what comes before its first chunk.
    pub(super) fn is_followed(&self) -> bool {
        let leaves = |beside: &Beside| beside.from == 0 && beside.to.is_some();
        !self.brought.is_any() && self.beside.as_ref().is_some_and(leaves)
    }

    /// It is not silent.
    pub(super) const fn revive(&mut self, now: Time) {
        self.lively = now;
        (self.wants_other, self.is_silent, self.lacks) = (false, false, None);
    }

    fn is_on_trial(&self) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.to.is_none())
    }

    /// The first chunk that a contender would send, while one is on trial.
    pub(super) fn trial_from(&self) -> Option<u64> {
        self.beside.as_ref().filter(|beside| beside.to.is_none()).map(|beside| beside.from)
    }

    /// The source beside the one that feeds takes its place, if it is on trial.
    pub(super) fn promote(&mut self, now: Time) -> Option<PeerId> {
        let beside = self.beside.take_if(|beside| beside.to.is_none())?;
        self.by = Some(beside.by);
        self.brought = beside.brought;
        (self.since, self.lively, self.wants_other) = (now, now, false);
        (self.is_silent, self.lacks) = (false, None);
        self.by.clone()
    }
}

impl Relay {
    /// Goes on with the trial that is under way, or begins one where a stripe lags behind. Says
    /// whether anything is wanted that was not before.
    pub(super) fn look_for_faster(&mut self, took: Duration, fx: &mut Vec<Effect>) -> bool {
        for feed in &mut self.feeds {
            feed.brought.look(took);
            if let Some(beside) = &mut feed.beside {
                beside.brought.look(took);
            }
        }
        let mut changed = self.end_trial(fx) | self.end_rests();
        let idle = self.feeds.iter().all(|feed| !feed.is_on_trial());
        if idle && self.failed.is_none() && self.stripes > 1 {
            changed |= self.shop();
        }
        changed
    }

    fn end_trial(&mut self, fx: &mut Vec<Effect>) -> bool {
        let Some(at) = self.feeds.iter().position(Feed::is_on_trial) else { return false };
        let Some(verdict) = self.verdict(at) else { return false };
        self.no_trial_before = self.now + PAUSE;
        let stripe = at as u64;
        fx.push(Effect::Count(Counted::Tried { stripe, is_faster: verdict == Verdict::Faster }));
        match verdict {
            Verdict::Faster => self.change_to_faster(at, fx),
            Verdict::Slower => self.keep_present(at, stripe),
        }
        true
    }

    fn verdict(&self, at: usize) -> Option<Verdict> {
        let feed = self.feeds.get(at)?;
        let beside = feed.beside.as_ref()?;
        let missing = self.missing.get(at).copied().unwrap_or(0);
        let silent = !beside.brought.any && self.now.since(beside.since) >= SILENT_MAX;
        let is_over = self.now.since(beside.since) >= TRIAL_MAX || missing >= beside.from;
        match judge(&feed.brought, &beside.brought) {
            Some(verdict) => Some(verdict),
            None if silent => Some(Verdict::Slower),
            None => is_over.then(|| judge_at_last(&feed.brought, &beside.brought)),
        }
    }

    /// The contender feeds from now on. The one before sends what is on its way, and of the rest
    /// what it has soon.
    fn change_to_faster(&mut self, at: usize, fx: &mut Vec<Effect>) {
        let (now, missing) = (self.now, self.missing.get(at).copied().unwrap_or(0));
        let Some(feed) = self.feeds.get(at) else { return };
        let soon = feed.by.as_ref().map_or(0, |old| self.soon(old, feed.brought.bps()));
        let Some(feed) = self.feeds.get_mut(at) else { return };
        let (old, from) = (feed.by.clone(), feed.trial_from());
        let brought = feed.brought.clone();
        let new = feed.promote(now);
        fx.extend(new.clone().map(|to| {
            let (stripe, reason) = (at as u64, SwitchReason::Faster);
            Effect::Count(Counted::Switched { stripe, to, reason })
        }));
        feed.judged_bps = feed.brought.bps();
        if let Some((old, from)) = old.zip(from).filter(|(_, from)| *from > missing) {
            let to = missing.saturating_add(soon).min(from);
            feed.beside = Some(Beside::leaving(old, to, now, brought));
        }
        // It was told what is here when the trial began.
        new.iter().for_each(|new| self.note_held(new));
    }

    /// By how much the number of a chunk of a stripe rises while `peer`, which brings it at `bps`,
    /// sends what it has soon, or has chosen: at most [`TRIAL_CHUNKS_MAX`].
    fn soon(&self, peer: &PeerId, bps: u64) -> u64 {
        let millis = u64::try_from(REST_OF_OLD_MAX.as_millis()).unwrap_or(0);
        let longest = u64::from(self.longest.max(1));
        let chunks = (bps.saturating_mul(millis) / 8_000 / longest).max(self.piped(peer)) + 1;
        chunks.saturating_mul(self.stripes).min(TRIAL_CHUNKS_MAX)
    }

    /// Chunks of one stripe that `peer` has chosen and that are not here yet, if its connection
    /// is slow.
    fn piped(&self, peer: &PeerId) -> u64 {
        let shared = self.feeds.iter().filter(|feed| feed.sources().any(|by| by == peer)).count();
        PIPE / u64::from(self.longest.max(1)) / (shared as u64).max(1)
    }

    /// The source before, which still serves the stripe, sends what is on its way; the present
    /// one what is behind that.
    pub(super) fn let_finish(&mut self, at: usize, old: PeerId, brought: Brought) {
        let (now, missing) = (self.now, self.missing.get(at).copied().unwrap_or(0));
        let granted = self.upstreams.get(&old).map_or(0, |old| old.credit(at as u64));
        let soon = match self.stripes {
            1 => self.soon_of_one(),
            _ => self.soon(&old, brought.bps()),
        };
        let to = missing.saturating_add(soon.min(TRIAL_CHUNKS_MAX)).min(granted);
        let feed = self.feeds.get_mut(at).filter(|_| to > missing);
        if let Some(feed) = feed {
            feed.beside = Some(Beside::leaving(old, to, now, brought));
        }
    }

    /// The contender sends what it was asked for and nothing more, and rests.
    fn keep_present(&mut self, at: usize, stripe: u64) {
        let now = self.now;
        let Some(feed) = self.feeds.get_mut(at) else { return };
        feed.judged_bps = feed.brought.bps();
        let Some(beside) = &mut feed.beside else { return };
        let Some(upstream) = self.upstreams.get_mut(&beside.by) else { return };
        upstream.rest(now);
        let to = upstream.credit(stripe);
        match beside.brought.any && to > beside.from {
            true => beside.to = Some(to),
            false => feed.beside = None,
        }
    }

    /// Sources that have sent what they still had to, or do not.
    fn end_rests(&mut self) -> bool {
        let patience: Vec<Duration> = self.feeds.iter().map(|f| self.idle_patience(f)).collect();
        let (now, stripes, held) = (self.now, self.stripes, &self.held);
        let (mut changed, mut fill) = (false, Vec::new());
        let of_stripes = self.feeds.iter_mut().zip(&self.missing).zip(&patience).zip(0u64..);
        for (((feed, &missing), &patience), stripe) in of_stripes {
            let Some(Beside { from, to: Some(to), lively, .. }) = &feed.beside else { continue };
            let first = first_missing((*from).max(missing), stripe, stripes, held);
            // What a contender has sent is left out until the other source is behind it.
            let is_done = if *from == 0 { first >= *to } else { missing >= *to };
            let is_given_up = !is_done && first < *to && now.since(*lively) >= patience;
            if is_done || is_given_up {
                feed.beside = None;
                changed = true;
            }
            if let Some(by) = feed.by.clone().filter(|_| is_given_up) {
                fill.push(by);
            }
        }
        // They send what is missing of that, and not what came of it.
        fill.iter().for_each(|by| self.note_held(by));
        changed
    }

    /// Begins a trial where a stripe lags most, if there is a source that has more; and notes
    /// which stripes are to be asked for.
    fn shop(&mut self) -> bool {
        let mut changed = false;
        let mut lagging: Option<(u64, usize)> = None;
        for at in 0..self.feeds.len() {
            let shops = self.lags(at);
            let missing = self.missing.get(at).copied().unwrap_or(0);
            let Some(feed) = self.feeds.get_mut(at) else { continue };
            changed |= std::mem::replace(&mut feed.shops, shops) != shops;
            let bps = feed.brought.bps();
            if shops && to_f64(bps) < FALLEN * to_f64(feed.judged_bps) {
                feed.judged_bps = bps;
                self.upstreams.values_mut().for_each(|upstream| upstream.rests_until = Time::ZERO);
            }
            if shops
                && lagging.is_none_or(|(least, _)| missing < least)
                && self.contender(at).is_some()
            {
                lagging = Some((missing, at));
            }
        }
        let begins = self.now >= self.no_trial_before;
        match lagging.filter(|_| begins) {
            Some((_, at)) => self.begin_trial(at),
            None => changed,
        }
    }

    /// Whether a stripe comes slower than is needed while there is more of it elsewhere.
    fn lags(&self, at: usize) -> bool {
        let stripe = at as u64;
        let Some(feed) = self.feeds.get(at) else { return false };
        let Some(by) = feed.by.as_ref().and_then(|by| self.upstreams.get(by)) else { return false };
        let missing = self.missing.get(at).copied().unwrap_or(0);
        !by.gives_back
            && !self.comes_at(feed, MET_PERCENT)
            && feed.beside.is_none()
            && self.now.since(feed.since) >= SETTLED
            && self.chunks > self.behind_granted(at, stripe)
            && self.behind_granted(at, stripe).saturating_sub(missing) <= TRIAL_CHUNKS_MAX
    }

    /// Whether a stripe comes at less than half of what is needed, or it is not known what that is.
    pub(super) fn is_far_behind(&self, feed: &Feed) -> bool {
        !self.comes_at(feed, FAR_BEHIND_PERCENT)
    }

    /// Whether a stripe comes at so many hundredths of the rate that is needed.
    fn comes_at(&self, feed: &Feed, percent: u64) -> bool {
        let needed = self.target_bps / self.stripes;
        needed > 0 && feed.brought.bps() >= needed.saturating_mul(percent) / 100
    }

    /// Behind the chunks that the present source may send, or can be granted for a trial.
    fn behind_granted(&self, at: usize, stripe: u64) -> u64 {
        let Some(feed) = self.feeds.get(at) else { return limit::CHUNKS_MAX };
        let by = feed.by.as_ref().and_then(|by| self.upstreams.get(by));
        let granted = by.map_or(0, |by| by.credit(stripe));
        let missing = self.missing.get(at).copied().unwrap_or(0);
        let bytes = feed.brought.bps() / 8 * LEAD.as_secs();
        let lead = (bytes / u64::from(self.longest.max(1))).saturating_mul(self.stripes);
        granted.max(missing.saturating_add(lead))
    }

    /// The source that a stripe is tried with next.
    fn contender(&self, at: usize) -> Option<PeerId> {
        let stripe = at as u64;
        let feed = self.feeds.get(at)?;
        let (from, ahead) = (self.behind_granted(at, stripe), self.ahead(stripe));
        let others = self.upstreams.iter().filter(|(peer, upstream)| {
            feed.by.as_ref() != Some(*peer)
                && !upstream.gives_back
                && self.now >= upstream.rests_until
                && has_room(&upstream.offer, feed.brought.bps())
                && upstream.credit(stripe) <= from
                && self.can_feed(upstream, (stripe, ahead), from.saturating_add(self.stripes))
        });
        // The base may have opened before a node did.
        let best = others.max_by_key(|(peer, upstream)| {
            (!upstream.offer.is_root(), self.merit(peer, upstream, stripe))
        });
        best.map(|(peer, _)| peer.clone())
    }

    /// Whether a node other than the present source has more of a stripe than that is granted.
    pub(super) fn has_other_node(&self, stripe: u64) -> bool {
        let Ok(at) = usize::try_from(stripe) else { return false };
        let Some(feed) = self.feeds.get(at) else { return false };
        let from = self.behind_granted(at, stripe);
        self.upstreams.iter().any(|(peer, Upstream { offer, .. })| {
            feed.by.as_ref() != Some(peer) && !offer.is_root() && offer.ahead_in(stripe) > from
        })
    }

    fn begin_trial(&mut self, at: usize) -> bool {
        let from = self.behind_granted(at, at as u64);
        let Some(by) = self.contender(at) else { return false };
        self.note_held(&by);
        let (since, brought) = (self.now, Brought::default());
        let Some(feed) = self.feeds.get_mut(at) else { return false };
        feed.beside = Some(Beside { by, from, to: None, since, lively: since, brought });
        true
    }

    /// What `peer` has to send of a stripe; nothing, if it is no source of it.
    pub(super) fn part_of(&self, peer: &PeerId, at: usize) -> Option<Part> {
        let (feed, missing) = (self.feeds.get(at)?, self.missing.get(at).copied()?);
        let stripe = at as u64;
        let first = |from: u64| first_missing(from.max(missing), stripe, self.stripes, &self.held);
        if feed.by.as_ref() == Some(peer) {
            return Some(match &feed.beside {
                None => Part { next: missing, to: None, skip: None },
                // It ends where the contender begins.
                Some(Beside { from, to: None, .. }) => {
                    Part { next: missing, to: Some(*from), skip: None }
                }
                // What the other one has to send may come back to this one.
                Some(Beside { from, to: Some(to), .. }) => {
                    let skip = Some((missing.max(*from), *to)).filter(|(first, end)| first < end);
                    Part { next: missing, to: None, skip }
                }
            });
        }
        let beside = feed.beside.as_ref().filter(|beside| beside.by == *peer)?;
        Some(Part { next: first(beside.from), to: beside.to, skip: None })
    }
}

/// What one source has to send of a stripe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// The first missing chunk of it.
    pub(super) next: u64,
    /// Behind the last one, if it ends.
    pub(super) to: Option<u64>,
    /// What of it another source sends.
    pub(super) skip: Option<(u64, u64)>,
}

/// Whether a source may have uplink for more than comes now, as far as it says.
fn has_room(offer: &Offer, comes_bps: u64) -> bool {
    offer.spare_bps == 0 || offer.spare_bps / 6 >= comes_bps / 5
}

/// The first chunk of a stripe at or behind `from` that is not held.
fn first_missing(from: u64, stripe: u64, stripes: u64, held: &ChunkSet) -> u64 {
    let mut at = super::downstream::first_in(stripe, from, stripes);
    while held.contains(at) {
        let absent = held.next_absent(at);
        at += (absent - at).div_ceil(stripes).max(1) * stripes;
    }
    at
}

#[expect(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
const fn to_f64(bps: u64) -> f64 {
    bps as f64
}
