//! To whom a job is sent: a cursor per stripe over what is held.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::id::PeerId;
use crate::wire::message::{Offer, StripeWant, Want};

use super::{Effect, Next, Relay, Span, TellsVoid};

/// A peer that wants the job.
#[derive(Debug, Clone, Default)]
pub(super) struct Downstream {
    want: Want,
    /// The stripes it wants, with the first chunk that was not looked at yet.
    cursors: Vec<Cursor>,
    /// Chunks that a cursor passed before they were held.
    late: BTreeSet<u64>,
    /// Pages it has or was sent.
    pages: u32,
    /// Below which number the pages that it was sent tell it all void chunks.
    void_told: u64,
    /// Long chunks whose bytes it was sent in short ones, unless it says that it lacks them.
    spared: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Cursor {
    stripe: StripeWant,
    next: u64,
}

impl Downstream {
    /// A chunk has come to be held. Whether there is something to send now.
    pub(super) fn chunk_held(&mut self, chunk: u64, stripes: u64) -> bool {
        let stripe = chunk % stripes;
        let cursor = self.cursors.iter().find(|c| u64::from(c.stripe.stripe) == stripe);
        let Some(cursor) = cursor else { return false };
        if chunk < cursor.next && chunk >= cursor.stripe.from && !self.has(chunk) {
            self.late.insert(chunk);
        }
        chunk < cursor.stripe.credit
    }

    /// The chunks of `run` are void, `long` has their bytes: whoever was sent all of `run` needs
    /// none of `long`.
    pub(super) fn void(&mut self, run: &Range<u64>, long: &[u64]) {
        let is_sent = self.cursors.iter().all(|cursor| cursor.next >= run.end)
            && self.late.range(run.clone()).next().is_none();
        self.late.retain(|chunk| !run.contains(chunk));
        let first = self.cursors.iter().map(|cursor| cursor.next).min().unwrap_or(0);
        self.spared = self.spared.split_off(&first);
        if is_sent {
            self.spared.extend(long);
        }
    }

    fn has(&self, chunk: u64) -> bool {
        if self.spared.contains(&chunk) {
            return true;
        }
        let at = self.want.held.partition_point(|(first, _)| *first <= chunk);
        let run = at.checked_sub(1).and_then(|at| self.want.held.get(at));
        run.is_some_and(|(first, len)| chunk - first < *len)
    }

    fn take_up(&mut self, want: Want, stripes: u64) {
        let first = |stripe: &StripeWant| {
            let next = stripe.from;
            let off = (u64::from(stripe.stripe) + stripes - next % stripes) % stripes;
            next + off
        };
        let cursors = want.stripes.iter().filter(|s| u64::from(s.stripe) < stripes).map(|stripe| {
            let old = self.cursors.iter().find(|c| c.stripe.stripe == stripe.stripe);
            let next = old.map_or(0, |cursor| cursor.next).max(first(stripe));
            Cursor { stripe: *stripe, next }
        });
        self.cursors = cursors.collect();
        self.pages = self.pages.max(want.pages);
        for stripe in &want.stripes {
            // What it lacks first was not in what it was sent.
            if self.spared.remove(&stripe.from) {
                self.late.insert(stripe.from);
            }
        }
        let wanted = |chunk: &u64| {
            let cursor =
                self.cursors.iter().find(|c| u64::from(c.stripe.stripe) == chunk % stripes);
            cursor.is_some_and(|c| *chunk >= c.stripe.from)
        };
        self.late.retain(wanted);
        self.want = want;
    }
}

impl Relay {
    /// `peer` may have the job: it is told what can be had, once per connection.
    pub fn invite(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        if !self.invited.insert(peer.clone()) {
            return;
        }
        let offer = Offer { pages: self.published, head: self.held.head(), spare_bps: 0 };
        fx.push(Effect::Offer { peer: peer.clone(), offer });
    }

    /// `peer` has told what it wants.
    pub fn wanted(&mut self, peer: &PeerId, want: Want, fx: &mut Vec<Effect>) {
        let stripes = self.stripes;
        let downstream = self.downstreams.entry(peer.clone()).or_default();
        if want.durable != downstream.want.durable || want.complete {
            fx.push(Effect::Report { urgent: false });
        }
        downstream.take_up(want, stripes);
        fx.push(Effect::Ready { peer: peer.clone() });
    }

    /// Chunks that are durable at `peer`, counted from the first without a gap; `None` while it
    /// has told nothing on the present connection.
    pub fn durable_at(&self, peer: &PeerId) -> Option<u64> {
        self.downstreams.get(peer).map(|downstream| downstream.want.durable)
    }

    /// Whether `peer` says that it has everything, durable.
    pub fn is_complete_at(&self, peer: &PeerId) -> bool {
        self.downstreams.get(peer).is_some_and(|downstream| downstream.want.complete)
    }

    /// Whether `peer` lacks a chunk that is void, and was sent no page yet that tells it so.
    fn waits_for_void(&self, peer: &PeerId) -> bool {
        self.downstreams.get(peer).is_some_and(|downstream| {
            let lacked = downstream.cursors.iter().map(|cursor| cursor.stripe.from);
            lacked.filter(|chunk| self.is_void(*chunk)).any(|chunk| chunk >= downstream.void_told)
        })
    }

    /// The next record for `peer`, which counts as sent from now on: a page before the first
    /// chunk that it describes, chunks with credit in the order of their numbers.
    pub fn next_send(&mut self, peer: &PeerId) -> Option<Next> {
        let waits_for_void = self.waits_for_void(peer);
        let downstream = self.downstreams.get_mut(peer)?;
        let credit = downstream.cursors.iter().map(|cursor| cursor.stripe.credit).max()?;
        let at = self.spans.partition_point(|span| span.index < downstream.pages);
        let described = at.checked_sub(1).and_then(|at| self.spans.get(at)).map(Span::end);
        let described = described.unwrap_or(0);
        if let Some(span) = self.spans.get(at).filter(|span| span.index < self.published) {
            // Pages run ahead of the chunks as far as there is credit, and no further; but up to
            // the one that tells the peer that what it lacks is void.
            if described < credit || waits_for_void {
                let due = std::mem::replace(&mut downstream.pages, span.index.saturating_add(1));
                let in_place = span.index > due;
                let TellsVoid { as_next, in_place: instead } = span.tells_void;
                let told = if in_place { instead } else { as_next };
                downstream.void_told = downstream.void_told.max(told);
                let next = if in_place { Next::PageInPlace } else { Next::Page };
                return Some(next(span.index));
            }
        }
        let limit = described;
        if let Some(chunk) = downstream.late.first().copied().filter(|chunk| *chunk < limit) {
            downstream.late.remove(&chunk);
            return Some(Next::Chunk(chunk));
        }
        let mut best: Option<(usize, u64)> = None;
        for index in 0..downstream.cursors.len() {
            let Some(&cursor) = downstream.cursors.get(index) else { break };
            let end = cursor.stripe.credit.min(limit);
            let found = next_in_stripe(cursor.next, end, self.stripes, |from| {
                let mut chunk = self.stock.next_present(from)?;
                while downstream.has(chunk) {
                    chunk = self.stock.next_present(chunk + 1)?;
                }
                Some(chunk)
            });
            // What lies before the found chunk is not held: it comes late, if it comes.
            let reached = found.unwrap_or(cursor.next);
            if let Some(cursor) = downstream.cursors.get_mut(index) {
                cursor.next = reached;
            }
            if let Some(chunk) = found.filter(|c| best.is_none_or(|(_, b)| *c < b)) {
                best = Some((index, chunk));
            }
        }
        let (index, chunk) = best?;
        if let Some(cursor) = downstream.cursors.get_mut(index) {
            cursor.next = chunk + self.stripes;
        }
        Some(Next::Chunk(chunk))
    }
}

/// The first chunk of the stripe of `next`, at or behind it and before `end`, that
/// `next_present` finds.
fn next_in_stripe(
    next: u64,
    end: u64,
    stripes: u64,
    next_present: impl Fn(u64) -> Option<u64>,
) -> Option<u64> {
    let mut at = next;
    while at < end {
        let present = next_present(at)?;
        if present == at {
            return Some(at);
        }
        at += (present - at).div_ceil(stripes) * stripes;
    }
    None
}
