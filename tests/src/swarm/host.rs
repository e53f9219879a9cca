//! A host: the product's engine of one job, what has come before its page, and what is known of
//! the uplink. What `shared/io` does around the engine is done here, without bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::id::PeerId;
use shared::manifest::PageSummary;
use shared::relay::{Effect, Landing, Next, Relay, Spare};
use shared::time::Time;
use shared::uplink::{LOOK_EVERY, Look, Uplink};

/// Bytes on the way to a job at first, and the most: the product's with the usual budget.
const WINDOW_BYTES_MIN: u64 = 2 << 20;
const WINDOW_BYTES_MAX: u64 = 32 << 20;
/// Chunks after which the window is measured anew.
const MEASURE_EVERY: u64 = 32;
/// As the product's, the first pages are short.
const FIRST_PAGE_CHUNKS: u64 = 4;
const PAGE_CHUNKS: u64 = 128;

/// The content of the job: what its pages describe.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) chunk: u32,
    pub(crate) chunks: u64,
    /// The first chunk of each page, and the end.
    pages: Vec<u64>,
}

impl Content {
    pub(crate) fn new(bytes: u64, chunk: u32) -> Self {
        let chunks = bytes.div_ceil(u64::from(chunk)).max(1);
        let mut pages = vec![0];
        let mut most = FIRST_PAGE_CHUNKS;
        while let Some(first) = pages.last().copied().filter(|first| *first < chunks) {
            pages.push(chunks.min(first + most.min(PAGE_CHUNKS)));
            most *= 2;
        }
        Self { chunk, chunks, pages }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.chunks * u64::from(self.chunk)
    }

    fn page(&self, index: u32) -> Option<(u64, u64)> {
        let at = index as usize;
        self.pages.get(at).copied().zip(self.pages.get(at + 1).copied())
    }

    fn is_last(&self, page: u32) -> bool {
        page as usize + 2 == self.pages.len()
    }
}

/// What a host has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Content bytes that came, and those of them that were here already.
    pub(crate) received: u64,
    pub(crate) doubled: u64,
    /// Chunks that came without credit: never, or the engine is wrong.
    pub(crate) uncalled: u64,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: PeerId,
    pub(crate) relay: Relay,
    pub(crate) counts: Counts,
    /// When everything was durable.
    pub(crate) complete: Option<Time>,
    pages: BTreeSet<u32>,
    chunks: BTreeSet<u64>,
    uplink: Uplink,
    look: Look,
}

impl Host {
    pub(crate) fn new(id: PeerId, stripes: u8, chunk: u32) -> Self {
        let mut relay = Relay::new(stripes, 0);
        relay.set_window(WINDOW_BYTES_MIN / u64::from(chunk), chunk);
        Self {
            id,
            relay,
            counts: Counts::default(),
            complete: None,
            pages: BTreeSet::new(),
            chunks: BTreeSet::new(),
            uplink: Uplink::default(),
            look: Look::default(),
        }
    }

    /// The next page has come from the publisher, is durable with its chunks and published: this
    /// is the base. Whether it was the last one.
    pub(crate) fn pushed(&mut self, now: Time, content: &Content, fx: &mut Vec<Effect>) -> bool {
        let Some((first, end)) = content.page(self.relay.pages()) else { return true };
        self.add_page((first, end), content, fx);
        for chunk in first..end {
            self.relay.hold(now, chunk, content.chunk, fx);
        }
        self.relay.flushed(&[(first, end - first)], fx);
        self.relay.publish(self.relay.pages(), fx);
        let is_last = end == content.chunks;
        if is_last {
            self.relay.completed(fx);
        }
        is_last
    }

    fn add_page(&mut self, (first, end): (u64, u64), content: &Content, fx: &mut Vec<Effect>) {
        let index = self.relay.pages();
        let lens = vec![content.chunk; usize::try_from(end - first).unwrap_or(0)];
        self.relay.page(&PageSummary::plain(index, first), &lens, content.is_last(index), fx);
    }

    /// A record has come over a path with this round trip.
    pub(crate) fn land(
        &mut self,
        (now, round_trip): (Time, Duration),
        (from, next): (&PeerId, Next),
        content: &Content,
        fx: &mut Vec<Effect>,
    ) {
        match next {
            Next::Page(page) | Next::PageInPlace(page) => drop(self.pages.insert(page)),
            Next::Chunk(chunk) => {
                self.counts.received += u64::from(content.chunk);
                match self.relay.landing(from, chunk) {
                    Landing::Wanted if self.chunks.insert(chunk) => {}
                    Landing::Wanted | Landing::Duplicate => {
                        self.counts.doubled += u64::from(content.chunk);
                    }
                    Landing::BeyondCredit => self.counts.uncalled += 1,
                }
            }
        }
        self.take_up_pages(content, fx);
        let ready: Vec<u64> = self.chunks.range(..self.relay.chunks()).copied().collect();
        for chunk in ready {
            self.chunks.remove(&chunk);
            self.relay.hold(now, chunk, content.chunk, fx);
            self.relay.fed_by(from, content.chunk, fx);
            if chunk.is_multiple_of(MEASURE_EVERY) {
                let bytes = window_bytes(self.relay.latest_rate_bps(now), round_trip);
                self.relay.set_window(bytes / u64::from(content.chunk), content.chunk);
            }
        }
    }

    fn take_up_pages(&mut self, content: &Content, fx: &mut Vec<Effect>) {
        while self.pages.remove(&self.relay.pages()) {
            let Some(run) = content.page(self.relay.pages()) else { return };
            self.add_page(run, content, fx);
            self.relay.publish(self.relay.pages(), fx);
        }
    }

    /// Makes durable what is held.
    pub(crate) fn flush(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let (held, durable) = (self.relay.held(), self.relay.durable());
        let is_whole = self.relay.is_whole();
        if held.len() == durable.len() && !(is_whole && self.complete.is_none()) {
            return;
        }
        let runs: Vec<(u64, u64)> = held.runs(durable.head()).collect();
        self.relay.flushed(&runs, fx);
        if is_whole {
            self.relay.completed(fx);
            self.complete.get_or_insert(now);
        }
    }

    /// A connection has sent so many bytes of IP packets; `is_held_up` if it would have sent more.
    pub(crate) fn sent(&mut self, bytes: u64, is_held_up: bool, counted: &mut u64, look: u64) {
        self.look.acked += bytes;
        if is_held_up {
            self.look.held_up += bytes;
            self.look.connections += u64::from(std::mem::replace(counted, look) != look);
        }
    }

    pub(crate) fn look(&mut self) {
        self.uplink.look(LOOK_EVERY, std::mem::take(&mut self.look));
    }

    pub(crate) fn spare(&self) -> Option<Spare> {
        let (carries_bps, left_bps) = self.uplink.carries_bps().zip(self.uplink.spare_bps())?;
        Some(Spare { carries_bps, left_bps, was_full: self.uplink.was_full() })
    }
}

/// Twice the bytes that are on the path, within bounds.
fn window_bytes(rate_bps: u64, round_trip: Duration) -> u64 {
    let on_path = u128::from(rate_bps) / 8 * round_trip.as_micros() / 1_000_000;
    let twice = u64::try_from(2 * on_path).unwrap_or(u64::MAX);
    twice.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pages_are_short_and_all_chunks_are_described() {
        let content = Content::new(300 * 16_384 - 5, 16_384);
        assert_eq!(content.chunks, 300);
        assert_eq!(content.pages, [0, 4, 12, 28, 60, 124, 252, 300]);
        assert_eq!(content.page(6), Some((252, 300)));
        assert!(content.is_last(6) && !content.is_last(5));
        assert_eq!(content.page(7), None);
    }
}
