//! To whom a job is sent: a cursor per stripe over what is held.

use std::collections::BTreeSet;

use crate::chunk_set::ChunkSet;
use crate::id::PeerId;
use crate::manifest::Recut;
use crate::wire::message::{StripeWant, Want};

use super::{Effect, Next, Relay, Span, TellsVoid};

/// A peer that wants the job.
#[derive(Debug, Clone, Default)]
pub(super) struct Downstream {
    want: Want,
    /// The stripes it wants, with the first chunk that was not looked at yet.
    cursors: Vec<Cursor>,
    /// Chunks that a cursor passed before they were held.
    late: BTreeSet<u64>,
    /// Chunks that were chosen for its stream, if the job has several stripes: a stream loses
    /// nothing while it lasts, so who comes back to this source is sent none of them again.
    sent: ChunkSet,
    /// Pages it has or was sent.
    pages: u32,
    /// Below which number the pages that it was sent tell it all void chunks, and the last of
    /// these pages.
    void_told: (u64, u32),
    /// Long chunks whose bytes it was sent in short ones, unless it says that it lacks them.
    spared: BTreeSet<u64>,
    /// Long chunks that it was given, or is to be given, while the short ones are not void here.
    long: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Cursor {
    stripe: StripeWant,
    /// The first chunk that it ever was to send.
    begin: u64,
    next: u64,
    /// Chunks that it was to send and had not sent when more was said to be there.
    gap: (u64, u64),
}

impl Cursor {
    /// Whether the receiver expects a chunk of the stripe from here.
    fn may_send(&self, chunk: u64) -> bool {
        chunk >= self.stripe.from && !self.stripe.skips(chunk)
    }

    /// Runs of chunks that were not sent because another source was to send them: those before
    /// the first that was wanted, those that were said to be there, and those that were left out.
    fn passed_over(&self) -> [(u64, u64); 3] {
        [(0, self.begin), self.gap, self.stripe.skip.unwrap_or_default()]
    }
}

impl Downstream {
    /// Pages that it says it has.
    pub(super) const fn pages_there(&self) -> u32 {
        self.want.pages
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.want.complete
    }

    /// A chunk has come to be held. Whether there is something to send now.
    pub(super) fn chunk_held(&mut self, chunk: u64, stripes: u64) -> bool {
        let stripe = chunk % stripes;
        let cursor = self.cursors.iter().find(|c| u64::from(c.stripe.stripe) == stripe);
        let Some(cursor) = cursor else { return false };
        if chunk < cursor.next && cursor.may_send(chunk) && !self.has(chunk) {
            self.late.insert(chunk);
        }
        chunk < cursor.stripe.credit
    }

    /// Whether it took the page of `recut` in place of those that this stands for, as far as it
    /// says: it lacks none of the short chunks and may lack long ones.
    fn has_void(&self, recut: &Recut) -> bool {
        let lacks_short = self.cursors.iter().any(|cursor| cursor.stripe.from < recut.end_chunk);
        !self.cursors.is_empty() && self.want.pages > recut.page && !lacks_short
    }

    /// It lacks a long chunk that is here while the short ones are, which are void for it.
    pub(super) fn give_long(&mut self, recut: &Recut, chunk: u64, stripes: u64) -> bool {
        let stripe = chunk % stripes;
        let cursor = self.cursors.iter().find(|c| u64::from(c.stripe.stripe) == stripe);
        let lacks = cursor.is_some_and(|cursor| chunk >= cursor.stripe.from);
        let is_new = lacks && self.has_void(recut) && !self.has(chunk);
        if is_new {
            self.long.insert(chunk);
            self.late.insert(chunk);
        }
        is_new
    }

    /// The chunks of `run` are void, `long` has their bytes: whoever was sent all of `run` needs
    /// none of `long`, unless they were void for it before.
    pub(super) fn void(&mut self, recut: &Recut, long: &[u64]) {
        let run = recut.first_chunk..recut.end_chunk;
        let is_sent = !self.cursors.is_empty()
            && !self.has_void(recut)
            && self.cursors.iter().all(|cursor| cursor.next >= run.end)
            && self.cursors.iter().all(|cursor| cursor.stripe.skip.is_none())
            && self.late.range(run.clone()).next().is_none();
        self.late.retain(|chunk| !run.contains(chunk));
        let first = self.cursors.iter().map(|cursor| cursor.stripe.from).min().unwrap_or(0);
        self.spared = self.spared.split_off(&first);
        if is_sent {
            self.spared.extend(long);
        }
    }

    /// The first late chunk below `limit`, if there is credit for it.
    fn first_late(&self, limit: u64, stripes: u64) -> Option<u64> {
        let has_credit = |chunk: &u64| {
            let of = |c: &&Cursor| u64::from(c.stripe.stripe) == chunk % stripes;
            self.cursors.iter().find(of).is_some_and(|cursor| *chunk < cursor.stripe.credit)
        };
        self.late.range(..limit).copied().find(has_credit)
    }

    fn has(&self, chunk: u64) -> bool {
        if self.spared.contains(&chunk) || self.long.contains(&chunk) || self.sent.contains(chunk) {
            return true;
        }
        let at = self.want.held.partition_point(|(first, _)| *first <= chunk);
        let run = at.checked_sub(1).and_then(|at| self.want.held.get(at));
        run.is_some_and(|(first, len)| chunk - first < *len)
    }

    /// Takes up what it wants; `page_of` finds the page that describes a chunk. What was left out
    /// before and is not any more comes late, as far as it is among what can be sent, `stock`.
    fn take_up(
        &mut self,
        want: Want,
        stripes: u64,
        stock: &ChunkSet,
        page_of: impl Fn(u64) -> Option<u32>,
    ) {
        if self.cursors.is_empty() {
            self.long.clear();
        }
        let first = |want: &StripeWant| first_in(u64::from(want.stripe), want.from, stripes);
        let cursors = want.stripes.iter().filter(|s| u64::from(s.stripe) < stripes).map(|stripe| {
            let old = self.cursors.iter().find(|c| c.stripe.stripe == stripe.stripe);
            let next = old.map_or(0, |cursor| cursor.next).max(first(stripe));
            let begin = old.map_or(stripe.from, |cursor| cursor.begin.min(stripe.from));
            let gap = old.map_or((0, 0), |cursor| {
                let of_stripe = |chunk: &&u64| **chunk % stripes == u64::from(stripe.stripe);
                let late = self.late.range(..stripe.from).find(of_stripe).copied();
                let unsent = late.unwrap_or(cursor.next).min(cursor.next);
                let (first, end) = cursor.gap;
                match (unsent < stripe.from, first < end) {
                    (true, true) => (first.min(unsent), end.max(stripe.from)),
                    (true, false) => (unsent, stripe.from),
                    (false, _) => cursor.gap,
                }
            });
            Cursor { stripe: *stripe, begin, next, gap }
        });
        let cursors: Vec<Cursor> = cursors.collect();
        let mut again = Vec::new();
        for cursor in &cursors {
            let old = self.cursors.iter().find(|c| c.stripe.stripe == cursor.stripe.stripe);
            let is_news = |old: &&Cursor| {
                old.stripe.from > cursor.stripe.from || old.stripe.skip != cursor.stripe.skip
            };
            let old = old.filter(is_news);
            for (first, end) in old.map(|old| old.passed_over()).into_iter().flatten() {
                let stripe = u64::from(cursor.stripe.stripe);
                let mut at = first_in(stripe, first.max(cursor.stripe.from), stripes);
                let next = |from| stock.next_present(from);
                while let Some(chunk) = next_in_stripe(at, end.min(cursor.next), stripes, next) {
                    if cursor.may_send(chunk) {
                        again.push(chunk);
                    }
                    at = chunk + stripes;
                }
            }
        }
        self.cursors = cursors;
        // Pages that it had of another source meanwhile are not told one by one.
        self.pages = match self.want.pages_to {
            0 => want.pages,
            _ => self.pages.max(want.pages),
        };
        let knows = |chunk: u64| page_of(chunk).is_some_and(|page| page < want.pages);
        for stripe in &want.stripes {
            // What it lacks first, though it knows of it, was not in what it was sent; nor was what
            // comes behind.
            if self.spared.contains(&stripe.from) && knows(stripe.from) {
                let of_stripe = |chunk: &u64| chunk % stripes == u64::from(stripe.stripe);
                let lacked = self.spared.split_off(&stripe.from);
                let (lacked, others): (BTreeSet<u64>, _) = lacked.into_iter().partition(of_stripe);
                self.spared.extend(others);
                let passed = |chunk: &u64| {
                    self.cursors.iter().any(|c| c.stripe.stripe == stripe.stripe && *chunk < c.next)
                };
                self.late.extend(lacked.into_iter().filter(passed));
            }
        }
        // It took what told it as the next page, not in place of others, if it lacks more.
        if want.pages > self.void_told.1 {
            self.void_told = (0, 0);
        }
        let wanted = |chunk: &u64| {
            let cursor =
                self.cursors.iter().find(|c| u64::from(c.stripe.stripe) == chunk % stripes);
            cursor.is_some_and(|cursor| cursor.may_send(*chunk))
        };
        self.late.retain(wanted);
        self.long.retain(wanted);
        if want.complete {
            self.sent = ChunkSet::new();
        }
        self.want = want;
        again.retain(|chunk| !self.has(*chunk));
        self.late.extend(again);
    }
}

impl Relay {
    /// `peer` has told what it wants.
    pub fn wanted(&mut self, peer: &PeerId, want: Want, fx: &mut Vec<Effect>) {
        let stripes = self.stripes;
        let want = self.admit(peer, want, fx);
        let spans = &self.spans;
        let page_of = |chunk: u64| {
            let at = spans.partition_point(|span| span.first <= chunk).checked_sub(1)?;
            spans.get(at).map(|span| span.index)
        };
        let downstream = self.downstreams.entry(peer.clone()).or_default();
        if want.durable != downstream.want.durable || want.complete {
            fx.push(Effect::Report { urgent: false });
        }
        downstream.take_up(want, stripes, &self.stock, page_of);
        if let Some(recut) = self.recut.filter(|_| !self.short_only) {
            for cut in self.cuts.iter().filter(|cut| self.held.contains(cut.chunk)) {
                downstream.give_long(&recut, cut.chunk, stripes);
            }
        }
        fx.push(Effect::Ready { peer: peer.clone() });
        self.tell_offer(peer, fx);
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
            lacked.filter(|chunk| self.is_void(*chunk)).any(|chunk| chunk >= downstream.void_told.0)
        })
    }

    /// `peer` has stopped its stream: it has no such job. What it wanted, and was sent, counts no
    /// more; it may want the job anew.
    pub fn stopped_by(&mut self, peer: &PeerId) {
        self.downstreams.remove(peer);
    }

    fn note_sent(&mut self, peer: &PeerId, chunk: u64) {
        self.chunks_sent += 1;
        self.bytes_sent += u64::from(self.chunk_len(chunk));
        if self.stripes > 1
            && let Some(downstream) = self.downstreams.get_mut(peer)
        {
            downstream.sent.insert(chunk);
        }
    }

    /// The next page for `peer`, if it has its pages from here. They run ahead of the chunks as
    /// far as there is credit, and little further; but up to the one that tells the peer that
    /// what it lacks is void.
    fn next_page(&mut self, peer: &PeerId) -> Option<Next> {
        let waits_for_void = self.waits_for_void(peer);
        let downstream = self.downstreams.get_mut(peer)?;
        let pages_to = downstream.want.pages_to;
        let credit = downstream.cursors.iter().map(|cursor| cursor.stripe.credit).max();
        let at = self.spans.partition_point(|span| span.index < downstream.pages);
        let described = at.checked_sub(1).and_then(|at| self.spans.get(at)).map_or(0, Span::end);
        let span = self.spans.get(at).filter(|span| span.index < self.published)?;
        let is_due = described < credit.unwrap_or(0) || span.index < pages_to || waits_for_void;
        if pages_to == 0 || !is_due {
            return None;
        }
        let due = std::mem::replace(&mut downstream.pages, span.index.saturating_add(1));
        let in_place = span.index > due;
        let TellsVoid { as_next, in_place: instead } = span.tells_void;
        let told = if in_place { instead } else { as_next };
        if told > downstream.void_told.0 {
            downstream.void_told = (told, span.index);
        }
        let next = if in_place { Next::PageInPlace } else { Next::Page };
        Some(next(span.index))
    }

    /// The next record for `peer`, which counts as sent from now on: a page before the first
    /// chunk that it describes, chunks with credit in the order of their numbers.
    pub fn next_send(&mut self, peer: &PeerId) -> Option<Next> {
        if let Some(page) = self.next_page(peer) {
            return Some(page);
        }
        let downstream = self.downstreams.get_mut(peer)?;
        // A page comes before the chunks that it describes, if both come from here.
        let pages = match downstream.want.pages_to {
            0 => self.published,
            _ => downstream.pages,
        };
        let at = self.spans.partition_point(|span| span.index < pages);
        let described = at.checked_sub(1).and_then(|at| self.spans.get(at)).map(Span::end);
        let limit = described.unwrap_or(0);
        if let Some(chunk) = downstream.first_late(limit, self.stripes) {
            downstream.late.remove(&chunk);
            self.note_sent(peer, chunk);
            return Some(Next::Chunk(chunk));
        }
        let mut best: Option<(usize, u64)> = None;
        for index in 0..downstream.cursors.len() {
            let Some(&cursor) = downstream.cursors.get(index) else { break };
            let end = cursor.stripe.credit.min(limit);
            let found = next_in_stripe(cursor.next, end, self.stripes, |from| {
                let mut chunk = self.stock.next_present(from)?;
                while downstream.has(chunk) || cursor.stripe.skips(chunk) {
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
        self.note_sent(peer, chunk);
        Some(Next::Chunk(chunk))
    }
}

/// The first chunk of a stripe at or behind `from`.
pub(super) const fn first_in(stripe: u64, from: u64, stripes: u64) -> u64 {
    from + (stripe + stripes - from % stripes) % stripes
}

/// The first chunk of the stripe of `next`, at or behind it and before `end`, that
/// `next_present` finds.
pub(super) fn next_in_stripe(
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
