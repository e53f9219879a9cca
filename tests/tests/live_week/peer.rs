//! A peer of the log: the product's manifest and engine, and who feeds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::id::{JobId, PeerId};
use shared::limit;
use shared::manifest::{Manifest, Page, PageBytes, Recut};
use shared::relay::{Effect, Landing, Next, Relay};
use shared::time::Time;

use crate::memory::Kept;

pub(crate) const JOB: JobId = JobId([7; 16]);
/// Chunks that may be on their way.
const WINDOW: u64 = 256;

/// What the disks hold of the log: pages, until nobody may send them any more.
#[derive(Default)]
pub(crate) struct Content {
    pages: BTreeMap<u32, (Arc<Page>, PageBytes)>,
}

impl Content {
    pub(crate) fn add(&mut self, page: Page, bytes: PageBytes) {
        self.pages.insert(page.index, (Arc::new(page), bytes));
    }

    /// The pages that were cut anew are dropped.
    pub(crate) fn void(&mut self, recut: &Recut) {
        let mut behind = self.pages.split_off(&recut.first_page);
        self.pages.append(&mut behind.split_off(&recut.page));
    }
}

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) manifest: Manifest,
    pub(crate) relay: Relay,
    /// What is held and not flushed.
    unflushed: Vec<(u64, u64)>,
    /// Pages that have become void since this was looked at.
    pub(crate) void: Option<Recut>,
    /// Content bytes that have arrived.
    pub(crate) received: u64,
}

impl Kept for Peer {
    type Copy = (Manifest, Relay);

    fn kept(&self) -> Self::Copy {
        (self.manifest.clone(), self.relay.clone())
    }
}

impl Peer {
    pub(crate) fn new(id: PeerId) -> Self {
        let manifest = Manifest::new(JOB, limit::CHUNK_LEN_MAX);
        let relay = Relay::new(1, WINDOW);
        Self { id, manifest, relay, unflushed: Vec::new(), void: None, received: 0 }
    }

    /// Offered the job by `source`, which it wants it of.
    pub(crate) fn connect(&mut self, source: &mut Self) {
        let mut fx = Vec::new();
        source.relay.invite(&self.id, &mut fx);
        for effect in fx {
            if let Effect::Offer { offer, .. } = effect {
                let mut fx = Vec::new();
                self.relay.offered(&source.id, offer, &mut fx);
                carry(&self.id, fx, source);
            }
        }
    }

    pub(crate) fn disconnect(&mut self, source: &mut Self) {
        source.relay.peer_lost(&self.id, &mut Vec::new());
        self.relay.peer_lost(&source.id, &mut Vec::new());
    }

    /// Takes the next record that `source` sends; false if there is none.
    pub(crate) fn take_from(&mut self, now: Time, source: &mut Self, content: &Content) -> bool {
        let Some(next) = source.relay.next_send(&self.id) else { return false };
        let mut fx = Vec::new();
        match next {
            Next::Page(index) | Next::PageInPlace(index) => {
                let (page, bytes) = &content.pages[&index];
                self.page(page, bytes, &mut fx);
            }
            Next::Chunk(chunk) => {
                assert_eq!(self.relay.landing(&source.id, chunk), Landing::Wanted, "{chunk}");
                let len = self.relay.chunk_len(chunk);
                self.received += u64::from(len);
                self.hold(now, chunk, len, &mut fx);
            }
        }
        carry(&self.id, fx, source);
        true
    }

    pub(crate) fn page(&mut self, page: &Page, bytes: &PageBytes, fx: &mut Vec<Effect>) {
        let summary = self.manifest.accept(page, bytes).unwrap();
        self.void = summary.in_force.or(self.void);
        let lens: Vec<u32> = page.chunks().map(|(_, len, ..)| len).collect();
        self.relay.page(&summary, &lens, self.manifest.end().is_some(), fx);
    }

    pub(crate) fn hold(&mut self, now: Time, chunk: u64, len: u32, fx: &mut Vec<Effect>) {
        self.relay.hold(now, chunk, len, fx);
        self.unflushed.push((chunk, 1));
    }

    /// What is held becomes durable and can be passed on.
    pub(crate) fn flush(&mut self, source: Option<&mut Self>) {
        let mut fx = Vec::new();
        self.relay.flushed(&std::mem::take(&mut self.unflushed), &mut fx);
        self.relay.publish(self.relay.pages(), &mut fx);
        if let Some(source) = source {
            carry(&self.id, fx, source);
        }
    }
}

/// Tells `source` what the peer `from` wants.
fn carry(from: &PeerId, fx: Vec<Effect>, source: &mut Peer) {
    for effect in fx {
        if let Effect::Want { peer, want } = effect
            && peer == source.id
        {
            source.relay.wanted(from, want, &mut Vec::new());
        }
    }
}
