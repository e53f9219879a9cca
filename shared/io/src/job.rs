//! A job at this process: its engine, its content, and the effects of the one on the other.
//!
//! The engine stands behind a mutex and every effect is carried out while it is held: none
//! of them waits, and so the newest state is also the last one told. Work that blocks — the
//! disk, hashing — is done at the job's desk, one at a time per job, on the blocking pool.

mod desk;
mod relays;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ring::signature::Ed25519KeyPair;
use shared::chunk_set::ChunkSet;
use shared::control::Pace;
use shared::id::{JobId, Name, PeerId};
use shared::job::{JobObject, Kind};
use shared::limit;
use shared::manifest::{Entry, Manifest, Page, PageBytes, PageSummary};
use shared::pacer::Pacer;
use shared::relay::{Counted, Effect, Landing, Next, Relay};
use shared::seal::Hash;
use shared::turns::Claim;
use shared::wire::codec;
use shared::wire::message::{Report, StateKind};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::clock::Clock;
use crate::content::Content;
use crate::link::{Link, Links, chain};
use crate::outlet;
use crate::recent::Recent;
use crate::store::{Flushed, Flusher, JobStore, StoreError};
use crate::telemetry;

pub use desk::Arrival;
pub use relays::Relays;

use desk::Inbound;

/// Bytes of content that may be on their way to a job here at first. Then it is twice what the
/// measured rate puts on the path in one round trip, from this up to the job's share of the
/// budget ([`shared::budget::Budget::inbound_of`]; alone with the usual budget 32 MiB: 1 Gbit/s
/// over 130 ms).
pub const WINDOW_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// Where a job's pages come from, and so how they are judged.
pub enum Origin {
    /// From sources; every page is signed with the key in the job object.
    Signed,
    /// From the publisher, unsigned: this is the base, which signs them with this key.
    Drafts {
        /// The client that owns the job; drafts of others are refused.
        publisher: Name,
        /// The base's key.
        key: Arc<Ed25519KeyPair>,
    },
    /// From this process itself, unsigned: this is the publisher.
    Own,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed => f.write_str("Signed"),
            Self::Drafts { publisher, .. } => write!(f, "Drafts({publisher})"),
            Self::Own => f.write_str("Own"),
        }
    }
}

/// What a role wants to know of its jobs. Called without any lock held; must not block.
pub trait Watcher: fmt::Debug + Send + Sync + 'static {
    /// The job's account has changed; `urgent` if by more than a number.
    fn changed(&self, job: &Arc<Job>, urgent: bool);
    /// The end of the log is known: content bytes and digest.
    fn ended(&self, job: &Arc<Job>, size: u64, digest: Hash);
}

/// What every job of a process shares.
#[derive(Debug)]
pub struct Surroundings {
    /// The process's clock.
    pub clock: Clock,
    /// Its links.
    pub links: Arc<Links>,
    /// The owner of its blocking work.
    pub tasks: TaskTracker,
    /// What groups its writes to disk; absent for a publisher.
    pub flusher: Option<Arc<Flusher>>,
    /// Who is told of changes.
    pub watcher: Arc<dyn Watcher>,
    /// Jobs that receive: they share the budget.
    pub receiving: AtomicUsize,
}

impl Surroundings {
    fn inbound_share(&self) -> u64 {
        self.links.budget().inbound_of(self.receiving.load(Ordering::Relaxed))
    }

    /// Ends when the flusher has panicked: nothing becomes durable any more.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn flusher_panicked(&self) -> StoreError {
        match &self.flusher {
            Some(flusher) => flusher.panicked().await,
            None => std::future::pending().await,
        }
        StoreError::FlusherPanicked
    }

    /// Makes durable what waits for it; nothing becomes durable afterwards.
    ///
    /// # Errors
    /// [`StoreError::FlusherPanicked`] if it did, now or before: what waited is not durable.
    pub async fn stop_flusher(&self) -> Result<(), StoreError> {
        let Some(flusher) = self.flusher.clone() else { return Ok(()) };
        match tokio::task::spawn_blocking(move || flusher.stop()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(StoreError::FlusherPanicked),
        }
    }
}

/// Where a job's content is kept.
#[derive(Debug, Clone)]
pub enum Keeping {
    /// On disk.
    Disk(Arc<JobStore>),
    /// In memory, as in a publisher's window: nothing that is done with it blocks.
    Memory(Arc<dyn Content>),
}

impl Keeping {
    fn content(&self) -> &dyn Content {
        match self {
            Self::Disk(store) => store.as_ref(),
            Self::Memory(content) => content.as_ref(),
        }
    }
}

/// A job at this process.
#[derive(Debug)]
pub struct Job {
    object: JobObject,
    origin: Origin,
    keeping: Keeping,
    surroundings: Arc<Surroundings>,
    relay: Mutex<Relay>,
    inbound: Mutex<Inbound>,
    recent: Mutex<Recent>,
    outlets: Mutex<BTreeMap<PeerId, Arc<Notify>>>,
    /// Keeps the cap of what is sent of it.
    pacer: Option<Mutex<Pacer>>,
    /// Whether the last flush found no room.
    unflushed: AtomicBool,
    over: CancellationToken,
    /// Whether it counts as one that shares the budget.
    is_receiving: AtomicBool,
}

/// What a restart found of a job.
#[derive(Debug)]
pub struct Restored {
    /// The pages found, taken up.
    pub manifest: Manifest,
    /// The chunks that are durable.
    pub held: ChunkSet,
    /// Pages that are durable with all their chunks.
    pub pages_durable: u32,
    /// Whether everything is in place.
    pub complete: bool,
}

impl Job {
    /// A job of which nothing is here yet.
    pub fn new(
        object: JobObject,
        origin: Origin,
        keeping: Keeping,
        surroundings: Arc<Surroundings>,
    ) -> Arc<Self> {
        let manifest = Manifest::new(object.id, object.chunk_max);
        let first = WINDOW_BYTES_MIN.min(surroundings.inbound_share());
        let mut relay = Relay::new(object.stripes, 0);
        set_window(&mut relay, &object, first);
        set_conduct(&mut relay, &origin);
        Arc::new(Self::build(object, origin, keeping, surroundings, (manifest, relay)))
    }

    /// A job that a restart has found.
    ///
    /// # Errors
    /// The store's error if its pages cannot be read back.
    pub fn restore(
        object: JobObject,
        origin: Origin,
        store: Arc<JobStore>,
        surroundings: Arc<Surroundings>,
        restored: Restored,
    ) -> Result<Arc<Self>, StoreError> {
        let first = WINDOW_BYTES_MIN.min(surroundings.inbound_share());
        let mut relay = Relay::new(object.stripes, 0);
        set_window(&mut relay, &object, first);
        let mut fx = Vec::new();
        let pages = restored.manifest.pages();
        let mut next = 0;
        while let Some(index) = store.next_page(next) {
            next = index + 1;
            let page = store.decoded(index)?;
            let lens: Vec<u32> = page.page().chunks().map(|(_, len, ..)| len).collect();
            let last = next == pages && restored.manifest.end().is_some();
            let page = page.page();
            relay.restore_page((index, page.first_chunk), &lens, page.recut(), last);
        }
        relay.restore(&restored.held, store.cuts(), restored.complete);
        set_conduct(&mut relay, &origin);
        let published = match origin {
            Origin::Drafts { .. } => restored.pages_durable,
            Origin::Signed | Origin::Own => pages,
        };
        relay.publish(published, &mut fx);
        let cuts = store.cuts().iter().map(|cut| cut.chunk).collect();
        let parts = (restored.manifest, relay);
        let job = Self::build(object, origin, Keeping::Disk(store), surroundings, parts);
        if let Some(desk) = &mut job.inbound().desk {
            desk.cuts = cuts;
        }
        Ok(Arc::new(job))
    }

    fn build(
        object: JobObject,
        origin: Origin,
        keeping: Keeping,
        surroundings: Arc<Surroundings>,
        (manifest, relay): (Manifest, Relay),
    ) -> Self {
        let inbound = Inbound::new(manifest);
        let is_receiving = !relay.is_complete() && !matches!(origin, Origin::Own);
        if is_receiving {
            surroundings.receiving.fetch_add(1, Ordering::Relaxed);
        }
        let users = surroundings.receiving.load(Ordering::Relaxed);
        let recent = surroundings.links.budget().recent_of(users);
        let recent = usize::try_from(recent).unwrap_or(usize::MAX);
        let pacer = object.rate_bps.map(|rate| Mutex::new(Pacer::new(rate)));
        Self {
            is_receiving: AtomicBool::new(is_receiving),
            object,
            origin,
            keeping,
            surroundings,
            relay: Mutex::new(relay),
            inbound: Mutex::new(inbound),
            recent: Mutex::new(Recent::new(recent)),
            outlets: Mutex::new(BTreeMap::new()),
            pacer,
            unflushed: AtomicBool::new(false),
            over: CancellationToken::new(),
        }
    }

    /// The job object.
    pub const fn object(&self) -> &JobObject {
        &self.object
    }

    /// The job's id.
    pub const fn id(&self) -> JobId {
        self.object.id
    }

    /// Where its content is kept.
    pub const fn keeping(&self) -> &Keeping {
        &self.keeping
    }

    /// Whether its pages travel unsigned from here.
    pub(crate) const fn sends_drafts(&self) -> bool {
        matches!(self.origin, Origin::Own)
    }

    /// Whether pages come in as drafts, and if so whether `link` may send them.
    pub(crate) fn takes_drafts_of(&self, link: &Link) -> bool {
        match &self.origin {
            Origin::Drafts { publisher, .. } => *publisher == link.identity().name,
            Origin::Signed | Origin::Own => false,
        }
    }

    /// Whether something that has arrived is yet to be verified and stored.
    pub fn is_working(&self) -> bool {
        self.inbound().working
    }

    /// Cancelled when the job is dropped here.
    pub const fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Stops everything that this process does about the job.
    pub fn stop(&self) {
        self.over.cancel();
        self.received();
    }

    /// The job's report.
    pub fn report(&self) -> Report {
        self.relay().report(self.surroundings.clock.now())
    }

    /// Reads the engine's state.
    pub fn with_relay<T>(&self, read: impl FnOnce(&Relay) -> T) -> T {
        read(&self.relay())
    }

    /// Runs the engine and carries out its effects.
    pub fn step<T>(self: &Arc<Self>, run: impl FnOnce(&mut Relay, &mut Vec<Effect>) -> T) -> T {
        let mut fx = Vec::new();
        let mut report = None;
        let result = {
            let mut relay = self.relay();
            relay.at(self.surroundings.clock.now());
            let result = run(&mut relay, &mut fx);
            for effect in fx {
                self.carry_out(effect, &mut report);
            }
            result
        };
        if let Some(urgent) = report {
            self.surroundings.watcher.changed(self, urgent);
        }
        result
    }

    /// Time has passed: looks who feeds and who is fed, while anything is to come or to go.
    pub(crate) fn tick(self: &Arc<Self>) {
        if self.with_relay(Relay::is_restless) {
            let now = self.surroundings.clock.now();
            let spare = self.surroundings.links.access().spare();
            self.step(|relay, fx| relay.tick(now, spare, fx));
        }
    }

    fn carry_out(self: &Arc<Self>, effect: Effect, report: &mut Option<bool>) {
        match effect {
            Effect::Want { peer, want } => self.tell(&peer, StateKind::Want, codec::encode(&want)),
            Effect::Offer { peer, offer } => {
                telemetry::offer_sent(peer.role());
                self.tell(&peer, StateKind::Offer, codec::encode(&offer));
            }
            Effect::Ready { peer } => self.wake_outlet(&peer),
            Effect::Report { urgent } => *report = Some(urgent || *report == Some(true)),
            Effect::Count(counted) => self.count(&counted),
        }
    }

    fn count(&self, counted: &Counted) {
        tracing::debug!(job = %self.id(), ?counted, "who feeds whom");
        match counted {
            Counted::Switched { reason, .. } => telemetry::switched(*reason),
            Counted::Tried { is_faster, .. } => telemetry::tried(*is_faster),
            Counted::Given { peer, .. } => telemetry::stripe_given(peer.role()),
            Counted::Closed { peer, .. } => telemetry::stripe_closed(peer.role()),
        }
    }

    fn tell(&self, peer: &PeerId, kind: StateKind, body: Vec<u8>) {
        if let Some(link) = self.surroundings.links.get(peer) {
            link.set_state(kind, self.id(), body, Pace::Now);
        }
    }

    fn wake_outlet(self: &Arc<Self>, peer: &PeerId) {
        let mut outlets = self.outlets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wake) = outlets.get(peer) {
            wake.notify_one();
            return;
        }
        let Some(link) = self.surroundings.links.get(peer) else { return };
        let wake = Arc::new(Notify::new());
        outlets.insert(peer.clone(), Arc::clone(&wake));
        wake.notify_one();
        link.spawn(outlet::run(Arc::clone(self), Arc::clone(&link), wake));
    }

    /// An outlet has ended; the next record for its peer opens another one.
    pub(crate) fn outlet_ended(&self, peer: &PeerId, wake: &Arc<Notify>) {
        let mut outlets = self.outlets.lock().unwrap_or_else(PoisonError::into_inner);
        if outlets.get(peer).is_some_and(|present| Arc::ptr_eq(present, wake)) {
            outlets.remove(peer);
        }
    }

    /// `peer` has stopped its stream.
    pub(crate) fn stopped_by(&self, peer: &PeerId) {
        self.relay().stopped_by(peer);
    }

    pub(crate) fn peer_lost(self: &Arc<Self>, peer: &PeerId) {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
        self.step(|relay, fx| relay.peer_lost(peer, fx));
    }

    /// The records to send to `peer` next: at least one if there is any, up to `bytes_max`.
    pub(crate) fn next_batch(&self, peer: &PeerId, bytes_max: u64) -> Vec<(Next, u32)> {
        let mut relay = self.relay();
        let mut batch = Vec::new();
        let mut bytes = 0u64;
        while bytes < bytes_max {
            let Some(next) = relay.next_send(peer) else { break };
            let len = match next {
                // Two chunks in about 120 bytes, or names.
                Next::Page(index) | Next::PageInPlace(index) => {
                    relay.page_chunks(index).max(64) * 64
                }
                Next::Chunk(chunk) => relay.chunk_len(chunk),
            };
            bytes += u64::from(len);
            batch.push((next, len));
        }
        batch
    }

    /// A chunk's payload, if it is in memory.
    pub(crate) fn in_memory(&self, chunk: u64) -> Option<Bytes> {
        match &self.keeping {
            Keeping::Memory(content) => content.read_chunk(chunk).ok(),
            Keeping::Disk(_) => {
                self.recent.lock().unwrap_or_else(PoisonError::into_inner).get(chunk)
            }
        }
    }

    /// When the next `bytes` may go out under the job's rate cap, if not at once.
    pub(crate) fn pace(&self, bytes: u64) -> Option<Instant> {
        let mut pacer = self.pacer.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = self.surroundings.clock;
        let now = clock.now();
        let at = pacer.take(now, bytes);
        (at > now).then(|| clock.instant(at))
    }

    /// The claim of a turn to send a piece.
    pub(crate) fn claim(&self, bytes: u64) -> Claim {
        let JobObject { id, kind, priority, .. } = self.object;
        let due_ms = self.object.due_ms();
        Claim { job: id, kind, priority, due_ms, bytes }
    }

    /// The access link of the process.
    pub(crate) fn access(&self) -> &Access {
        self.surroundings.links.access()
    }

    /// Bytes that go out within `time` under the job's rate cap, at least one.
    pub(crate) fn capped(&self, time: Duration) -> u64 {
        let rate = self.object.rate_bps.unwrap_or(u64::MAX);
        let bytes = u128::from(rate) * time.as_micros() / 8_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }

    /// Whether a chunk that `link` has begun to send is welcome.
    pub(crate) fn landing(&self, link: &Link, chunk: u64) -> Landing {
        self.relay().landing(link.peer(), chunk)
    }

    fn mark_dirty(&self, bytes: usize) {
        if let (Keeping::Disk(store), Some(flusher)) = (&self.keeping, &self.surroundings.flusher)
            && let Err(error) = flusher.dirty(store, bytes as u64)
        {
            tracing::error!(job = %self.id(), %error, "content cannot become durable");
        }
    }

    /// The publisher adds the next page, of which its manifest says `summary`, with its chunks,
    /// which it has hashed itself.
    ///
    /// # Errors
    /// The store's error if they cannot be kept.
    pub fn publish(
        self: &Arc<Self>,
        (bytes, page): (&PageBytes, &Arc<Page>),
        summary: &PageSummary,
        chunks: Vec<Bytes>,
    ) -> Result<(), StoreError> {
        let content = self.keeping.content();
        content.append_page(bytes, page)?;
        for (number, payload) in (page.first_chunk..).zip(&chunks) {
            content.write_chunk(number, payload)?;
        }
        let lens: Vec<u32> = page.chunks().map(|(_, len, ..)| len).collect();
        let last = page.entries.iter().any(|entry| matches!(entry, Entry::End { .. }));
        let now = self.surroundings.clock.now();
        self.step(|relay, fx| {
            relay.page(summary, &lens, last, fx);
            // Chunks that are cut anew come without payload: what they hold is here in short ones.
            let fresh = lens.iter().copied().take(chunks.len());
            for (chunk, len) in (page.first_chunk..).zip(fresh) {
                relay.hold(now, chunk, len, fx);
            }
            let pages = relay.pages();
            relay.publish(pages, fx);
        });
        Ok(())
    }

    /// The flusher has made something of this job durable.
    pub fn flushed(self: &Arc<Self>, flushed: &Flushed) {
        match &flushed.error {
            Some(error) if error.is_full() => {
                self.unflushed.store(true, Ordering::Relaxed);
                return self.stall(error);
            }
            Some(error) => return self.fail(chain(error)),
            None => {}
        }
        if self.unflushed.swap(false, Ordering::Relaxed) {
            self.step(|relay, fx| relay.stall(None, fx));
        }
        self.step(|relay, fx| {
            relay.flushed(&flushed.durable, fx);
            relay.publish(flushed.pages, fx);
            if flushed.complete {
                relay.completed(fx);
            }
        });
        if flushed.complete {
            self.received();
        }
    }

    /// The job needs no share of the budget any more.
    fn received(&self) {
        if self.is_receiving.swap(false, Ordering::Relaxed) {
            self.surroundings.receiving.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// This process cannot go on with the job.
    pub fn fail(self: &Arc<Self>, reason: String) {
        tracing::error!(job = %self.id(), %reason, "the job cannot go on here");
        let reason = clip(reason);
        self.step(|relay, fx| relay.fail(reason, fx));
    }

    pub(crate) fn read_page(&self, index: u32) -> Result<PageBytes, StoreError> {
        self.keeping.content().read_page(index)
    }

    pub(crate) fn read_chunk(&self, chunk: u64) -> Result<Bytes, StoreError> {
        match self.in_memory(chunk) {
            Some(payload) => Ok(payload),
            None => self.keeping.content().read_chunk(chunk),
        }
    }

    fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a source of this kind does beyond what all do.
fn set_conduct(relay: &mut Relay, origin: &Origin) {
    match origin {
        Origin::Own => relay.sends_no_long_chunks(),
        Origin::Signed => relay.share(),
        Origin::Drafts { .. } => {}
    }
}

/// Twice the bytes that are on a path at `rate_bps` in `rtt`, and what is given at first.
fn window_bytes(rate_bps: u64, rtt: Duration) -> u64 {
    let on_path = u128::from(rate_bps) / 8 * rtt.as_micros() / 1_000_000;
    let twice = u64::try_from(2 * on_path).unwrap_or(u64::MAX);
    twice.max(WINDOW_BYTES_MIN)
}

/// Lets `bytes` of a job be on their way, in chunks of the length that they usually have.
fn set_window(relay: &mut Relay, object: &JobObject, bytes: u64) {
    let longest = match object.kind {
        Kind::Files => object.chunk_max,
        Kind::Live => object.chunk_max.min(limit::LIVE_CHUNK_LEN_MAX),
    };
    relay.set_window(bytes / u64::from(longest.max(1)), longest);
}

/// At most as many bytes of a reason as are passed on.
fn clip(mut reason: String) -> String {
    while reason.len() > limit::REASON_LEN_MAX {
        reason.pop();
    }
    reason
}
