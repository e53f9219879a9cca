//! What a peer has of a job: the engine, what waits for its page, and what waits for the disk.

use std::collections::{BTreeMap, BTreeSet};

use shared::chunk_set::ChunkSet;
use shared::id::PeerId;
use shared::manifest::{Cuts, PageSummary};
use shared::relay::{Effect, Landing, Relay};
use shared::time::Time;

use super::plan::JobPlan;

/// What of a job is on disk for good.
#[derive(Debug, Clone, Default)]
pub(super) struct DiskJob {
    pub(super) pages: u32,
    pub(super) chunks: ChunkSet,
    pub(super) complete: bool,
}

impl DiskJob {
    /// Whether every byte is there.
    pub(super) fn is_whole(&self, plan: &JobPlan) -> bool {
        let pages = u64::from(self.pages) == plan.pages.len() as u64;
        pages && self.chunks.len() == plan.chunks()
    }
}

/// What was written and not synced yet: a crash loses it.
#[derive(Debug)]
struct Batch {
    pages: u32,
    chunks: Vec<u64>,
    finishes: bool,
}

/// A fault of the source: it is cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bad {
    /// The bytes are not those that were signed.
    Damaged,
    /// The source's engine broke a rule.
    Rule(String),
}

/// A job at a peer.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) relay: Relay,
    /// Pages that came before the one before them.
    pages: BTreeSet<u32>,
    /// Chunks that came before their page.
    parked: BTreeMap<u64, bool>,
    dirty: Vec<u64>,
    synced_pages: u32,
    batch: Option<Batch>,
    /// Whether this peer ends by putting everything in place (a node), or passes on only what
    /// is durable (the base).
    finishes: bool,
}

impl Holding {
    /// A job as the disk has it.
    pub(super) fn new(plan: &JobPlan, disk: &DiskJob, finishes: bool) -> Self {
        let mut holding = Self {
            relay: Relay::new(plan.stripes, plan.window),
            pages: BTreeSet::new(),
            parked: BTreeMap::new(),
            dirty: Vec::new(),
            synced_pages: disk.pages,
            batch: None,
            finishes,
        };
        let mut fx = Vec::new();
        for _ in 0..disk.pages {
            holding.next_page(plan, &mut fx);
        }
        holding.relay.restore(&disk.chunks, Cuts::default(), disk.complete);
        holding.publish(plan, disk, &mut fx);
        holding
    }

    /// A record has arrived from `peer`.
    pub(super) fn record(
        &mut self,
        now: Time,
        plan: &JobPlan,
        peer: &PeerId,
        (is_page, number, damaged): (bool, u64, bool),
        fx: &mut Vec<Effect>,
    ) -> Result<(), Bad> {
        if is_page {
            if damaged {
                return Err(Bad::Damaged);
            }
            self.pages.insert(u32::try_from(number).unwrap_or(u32::MAX));
            while self.pages.remove(&self.relay.pages()) {
                self.next_page(plan, fx);
                if self.finishes {
                    self.relay.publish(self.relay.pages(), fx);
                }
            }
            while let Some((&chunk, &damaged)) = self.parked.first_key_value() {
                if chunk >= self.relay.chunks() {
                    break;
                }
                self.parked.remove(&chunk);
                self.chunk(now, peer, (chunk, damaged), fx)?;
            }
            return Ok(());
        }
        if self.relay.landing(peer, number) == Landing::BeyondCredit {
            return Err(Bad::Rule(format!("{peer} sent chunk {number} beyond its credit")));
        }
        if number < self.relay.chunks() {
            return self.chunk(now, peer, (number, damaged), fx);
        }
        self.parked.insert(number, damaged);
        if self.parked.len() as u64 > plan.window + u64::from(plan.stripes) {
            return Err(Bad::Rule(format!("{} chunks wait for their page", self.parked.len())));
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        now: Time,
        peer: &PeerId,
        (chunk, damaged): (u64, bool),
        fx: &mut Vec<Effect>,
    ) -> Result<(), Bad> {
        if damaged {
            return Err(Bad::Damaged);
        }
        if self.relay.landing(peer, chunk) == Landing::Wanted {
            let len = self.relay.chunk_len(chunk);
            self.relay.fed_by(peer, len, fx);
            self.relay.hold(now, chunk, len, fx);
            self.dirty.push(chunk);
        }
        Ok(())
    }

    fn next_page(&mut self, plan: &JobPlan, fx: &mut Vec<Effect>) {
        let index = usize::try_from(self.relay.pages()).unwrap_or(usize::MAX);
        if let Some(lens) = plan.pages.get(index) {
            let summary = PageSummary::plain(self.relay.pages(), self.relay.chunks());
            self.relay.page(&summary, lens, index + 1 == plan.pages.len(), fx);
        }
    }

    /// Whether something is written and not synced.
    pub(super) const fn is_writing(&self) -> bool {
        self.batch.is_some()
    }

    /// Whether chunks wait for their page.
    pub(super) fn is_parking(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Begins to write what is new, unless a write is under way. Whether it did.
    pub(super) fn begin_flush(&mut self, plan: &JobPlan) -> bool {
        let pages = self.relay.pages();
        let all_pages = u64::from(self.synced_pages) == plan.pages.len() as u64;
        let all = all_pages && self.relay.durable().len() == plan.chunks();
        let finishes = self.finishes && all && !self.relay.is_complete();
        let news = !self.dirty.is_empty() || pages > self.synced_pages || finishes;
        if self.batch.is_some() || !news {
            return false;
        }
        self.batch = Some(Batch { pages, chunks: std::mem::take(&mut self.dirty), finishes });
        true
    }

    /// The write is durable.
    pub(super) fn flushed(&mut self, plan: &JobPlan, disk: &mut DiskJob, fx: &mut Vec<Effect>) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        disk.pages = batch.pages;
        self.synced_pages = batch.pages;
        for chunk in &batch.chunks {
            disk.chunks.insert(*chunk);
        }
        let runs: Vec<(u64, u64)> = batch.chunks.iter().map(|chunk| (*chunk, 1)).collect();
        self.relay.flushed(&runs, fx);
        self.publish(plan, disk, fx);
        if batch.finishes {
            disk.complete = true;
            self.relay.completed(fx);
        }
    }

    /// The base passes a page on when it and its chunks are durable; a node, once verified.
    fn publish(&mut self, plan: &JobPlan, disk: &DiskJob, fx: &mut Vec<Effect>) {
        if self.finishes {
            return self.relay.publish(self.relay.pages(), fx);
        }
        let mut ready = 0;
        let mut end = 0;
        for page in plan.pages.iter().take(usize::try_from(disk.pages).unwrap_or(0)) {
            end += page.len() as u64;
            if disk.chunks.head() < end {
                break;
            }
            ready += 1;
        }
        self.relay.publish(ready, fx);
    }

    /// Broken on purpose: says that all is durable as soon as all has arrived.
    pub(super) fn claim_too_early(&mut self, fx: &mut Vec<Effect>) {
        if self.relay.is_whole() && !self.relay.is_complete() {
            let held: Vec<(u64, u64)> = self.relay.held().runs(0).collect();
            self.relay.flushed(&held, fx);
            self.relay.completed(fx);
        }
    }
}
