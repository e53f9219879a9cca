//! A job at this process: its engine, its content, and the effects of the one on the other.
//!
//! The engine stands behind a mutex and every effect is carried out while it is held: none
//! of them waits, and so the newest state is also the last one told. Work that blocks — the
//! disk, hashing — is done by [`Job::work`], one at a time per job, on the blocking pool.

use std::collections::{BTreeMap, VecDeque};
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
use shared::relay::{Effect, Landing, Next, Relay};
use shared::seal::Hash;
use shared::wire::code::Code;
use shared::wire::codec;
use shared::wire::message::{Offer, Report, StateKind, Want};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::content::Content;
use crate::link::{Link, Links, chain};
use crate::outlet;
use crate::recent::Recent;
use crate::store::{Flushed, Flusher, JobStore, StoreError};
use crate::telemetry;

/// Bytes of content that may be on their way to a job here at first. Then it is twice what the
/// measured rate puts on the path in one round trip, from this up to the job's share of the
/// budget ([`shared::budget::Budget::inbound_of`]; alone with the usual budget 32 MiB: 1 Gbit/s
/// over 130 ms).
pub const WINDOW_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Chunks after which the window is measured anew.
const MEASURE_EVERY: u64 = 32;
/// First and longest pause before a job that found no room on its disk tries again.
const ROOM_LOOK_MIN: Duration = Duration::from_millis(250);
const ROOM_LOOK_MAX: Duration = Duration::from_secs(5);
/// Bytes of pages that wait for the pages before them.
const PARKED_PAGES_BYTES_MAX: usize = 4 * 1024 * 1024;

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

    /// Makes durable what waits for it; nothing becomes durable afterwards.
    pub async fn stop_flusher(&self) {
        let Some(flusher) = self.flusher.clone() else { return };
        let stopped = tokio::task::spawn_blocking(move || flusher.stop()).await;
        if !matches!(stopped, Ok(Ok(()))) {
            tracing::error!("the flusher has panicked");
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
    pace: Mutex<Option<Instant>>,
    /// Whether the last flush found no room.
    unflushed: AtomicBool,
    over: CancellationToken,
    /// Whether it counts as one that shares the budget.
    is_receiving: AtomicBool,
}

/// What has arrived and waits to be verified and stored, and the manifest it is judged by.
#[derive(Debug)]
struct Inbound {
    queue: Vec<Arrival>,
    queued_bytes: usize,
    working: bool,
    /// Taken out by the one worker while it works.
    desk: Option<Box<Desk>>,
}

/// What only the job's worker touches.
#[derive(Debug)]
struct Desk {
    manifest: Manifest,
    parked_pages: BTreeMap<u32, Parked>,
    parked_bytes: usize,
    parked_chunks: BTreeMap<u64, (Bytes, Option<Arc<Link>>)>,
    /// A page that the manifest has accepted and the store had no room for.
    unkept: Option<Accepted>,
    /// Whether something found no room on the disk: nothing is taken until it has.
    full: bool,
    /// The pause before the next try.
    pause: Duration,
    /// At the base: chunks that were cut anew and not compared with their bytes yet.
    cuts: VecDeque<u64>,
}

/// A page that the manifest has accepted.
#[derive(Debug)]
struct Accepted {
    page: Arc<Page>,
    bytes: PageBytes,
    summary: PageSummary,
}

/// A page that waits for the one before it.
#[derive(Debug)]
struct Parked {
    bytes: PageBytes,
    in_place: bool,
    from: Option<Arc<Link>>,
}

impl Desk {
    /// Pages that another one was taken in place of are not waited for.
    fn forget_pages_before(&mut self, next: u32) {
        while let Some(entry) = self.parked_pages.first_entry() {
            if *entry.key() >= next {
                return;
            }
            self.parked_bytes -= entry.remove().bytes.len();
        }
    }

    /// Takes out the first page that waits, if it is the next one or comes in place of it.
    fn next_parked(&mut self) -> Option<Parked> {
        self.forget_pages_before(self.manifest.pages());
        let entry = self.parked_pages.first_entry()?;
        if *entry.key() != self.manifest.pages() && !entry.get().in_place {
            return None;
        }
        let parked = entry.remove();
        self.parked_bytes -= parked.bytes.len();
        Some(parked)
    }
}

/// A whole record that has arrived.
#[derive(Debug)]
pub enum Arrival {
    /// A page.
    Page {
        /// The page.
        bytes: PageBytes,
        /// Whether it comes in place of those that it stands for.
        in_place: bool,
        /// Who sent it.
        from: Option<Arc<Link>>,
    },
    /// A chunk's payload.
    Chunk(u64, Bytes, Option<Arc<Link>>),
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
        if matches!(origin, Origin::Own) {
            relay.sends_no_long_chunks();
        }
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
        let desk = Desk {
            manifest,
            parked_pages: BTreeMap::new(),
            parked_bytes: 0,
            parked_chunks: BTreeMap::new(),
            unkept: None,
            full: false,
            pause: ROOM_LOOK_MIN,
            cuts: VecDeque::new(),
        };
        let inbound = Inbound {
            queue: Vec::new(),
            queued_bytes: 0,
            working: false,
            desk: Some(Box::new(desk)),
        };
        let is_receiving = !relay.is_complete() && !matches!(origin, Origin::Own);
        if is_receiving {
            surroundings.receiving.fetch_add(1, Ordering::Relaxed);
        }
        let users = surroundings.receiving.load(Ordering::Relaxed);
        let recent = surroundings.links.budget().recent_of(users);
        let recent = usize::try_from(recent).unwrap_or(usize::MAX);
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
            pace: Mutex::new(None),
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

    fn carry_out(self: &Arc<Self>, effect: Effect, report: &mut Option<bool>) {
        match effect {
            Effect::Want { peer, want } => self.tell(&peer, StateKind::Want, codec::encode(&want)),
            Effect::Offer { peer, offer } => {
                self.tell(&peer, StateKind::Offer, codec::encode(&offer));
            }
            Effect::Ready { peer } => self.wake_outlet(&peer),
            Effect::Report { urgent } => *report = Some(urgent || *report == Some(true)),
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

    /// When `bytes` may go out under the job's rate cap.
    pub(crate) fn pace(&self, bytes: u64) -> Option<Instant> {
        let rate = self.object.rate_bps.filter(|rate| *rate > 0)?;
        let cost = u128::from(bytes) * 8_000_000 / u128::from(rate);
        let cost = Duration::from_micros(u64::try_from(cost).unwrap_or(u64::MAX));
        let mut next = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = self.surroundings.clock;
        let now = clock.instant(clock.now());
        let at = next.map_or(now, |at| at.max(now));
        *next = Some(at + cost);
        Some(at)
    }

    /// Whether a chunk that `link` has begun to send is welcome.
    pub(crate) fn landing(&self, link: &Link, chunk: u64) -> Landing {
        self.relay().landing(link.peer(), chunk)
    }

    /// A whole record has arrived. Says whether there was room for it: credit makes sure
    /// that there is, unless the peer sends what it sent before.
    pub fn arrived(self: &Arc<Self>, arrival: Arrival) -> bool {
        let len = match &arrival {
            Arrival::Page { bytes, .. } => bytes.len(),
            Arrival::Chunk(_, payload, _) => payload.len(),
        };
        let mut inbound = self.inbound();
        let most = 2 * self.surroundings.links.budget().inbound() + PARKED_PAGES_BYTES_MAX as u64;
        if (inbound.queued_bytes + len) as u64 > most {
            return false;
        }
        inbound.queue.push(arrival);
        inbound.queued_bytes += len;
        if !std::mem::replace(&mut inbound.working, true) {
            self.start_work();
        }
        true
    }

    fn start_work(self: &Arc<Self>) {
        let (job, tasks) = (Arc::clone(self), &self.surroundings.tasks);
        match &self.keeping {
            Keeping::Disk(_) => drop(tasks.spawn_blocking(move || job.work())),
            Keeping::Memory(_) => drop(tasks.spawn(async move { job.work() })),
        }
    }

    /// Verifies and stores what has arrived until nothing is left.
    fn work(self: &Arc<Self>) {
        let guard = WorkGuard(self);
        let Some(mut desk) = self.inbound().desk.take() else { return };
        if desk.full {
            self.try_again(&mut desk);
        }
        while !desk.full || self.over.is_cancelled() {
            let arrivals = {
                let mut inbound = self.inbound();
                if inbound.queue.is_empty() || self.over.is_cancelled() {
                    inbound.queue.clear();
                    inbound.queued_bytes = 0;
                    inbound.working = false;
                    inbound.desk = Some(desk);
                    return drop(guard);
                }
                std::mem::take(&mut inbound.queue)
            };
            let mut arrivals = arrivals.into_iter();
            while !desk.full
                && let Some(arrival) = arrivals.next()
            {
                let len = match &arrival {
                    Arrival::Page { bytes, .. } => bytes.len(),
                    Arrival::Chunk(_, payload, _) => payload.len(),
                };
                self.take(&mut desk, arrival);
                self.inbound().queued_bytes -= len;
            }
            self.inbound().queue.splice(0..0, arrivals);
        }
        let pause = desk.pause;
        self.inbound().desk = Some(desk);
        self.work_after(pause);
        drop(guard);
    }

    /// Works on after a pause, as the same one worker.
    fn work_after(self: &Arc<Self>, pause: Duration) {
        let job = Arc::clone(self);
        self.surroundings.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = job.over.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            job.start_work();
        });
    }

    /// Stores what found no room before.
    fn try_again(self: &Arc<Self>, desk: &mut Desk) {
        desk.full = false;
        if let Some(accepted) = desk.unkept.take()
            && self.keep_page(desk, accepted).is_some()
            && let Some(Parked { bytes, in_place, from }) = desk.next_parked()
        {
            self.take_page(desk, bytes, in_place, from);
        }
        let ready: Vec<u64> =
            desk.parked_chunks.range(..desk.manifest.chunks()).map(|(c, _)| *c).collect();
        for chunk in ready {
            if desk.full {
                break;
            }
            if let Some((payload, from)) = desk.parked_chunks.remove(&chunk) {
                self.take_chunk(desk, chunk, payload, from);
            }
        }
        if desk.full {
            desk.pause = (desk.pause * 2).min(ROOM_LOOK_MAX);
        } else {
            desk.pause = ROOM_LOOK_MIN;
            tracing::info!(job = %self.id(), "there is room again");
            self.step(|relay, fx| relay.stall(None, fx));
        }
    }

    /// Something found no room: it is tried again, and who asks is told why nothing moves.
    fn stall(self: &Arc<Self>, error: &StoreError) {
        let reason = format!("disk full, it goes on when there is room: {error}");
        let reason = clip(reason);
        if self.step(|relay, fx| relay.stall(Some(reason.clone()), fx)) {
            tracing::warn!(job = %self.id(), %reason, "the job waits for room");
        }
    }

    fn take(self: &Arc<Self>, desk: &mut Desk, arrival: Arrival) {
        match arrival {
            Arrival::Page { bytes, in_place, from } => {
                self.take_page(desk, bytes, in_place, from);
            }
            Arrival::Chunk(chunk, payload, from) => self.take_chunk(desk, chunk, payload, from),
        }
    }

    /// Takes a page, and those that waited for it.
    fn take_page(
        self: &Arc<Self>,
        desk: &mut Desk,
        bytes: PageBytes,
        in_place: bool,
        from: Option<Arc<Link>>,
    ) {
        let mut next = Some(Parked { bytes, in_place, from });
        while let Some(page) = next {
            if self.take_one_page(desk, page).is_none() {
                return;
            }
            next = desk.next_parked();
        }
    }

    /// Takes a page; `None` unless it is stored now.
    fn take_one_page(self: &Arc<Self>, desk: &mut Desk, page: Parked) -> Option<()> {
        let Parked { bytes, in_place, from } = page;
        if bytes.is_signed() && !bytes.verify(&self.object.page_key) {
            telemetry::hash_failure();
            blame(from.as_ref(), "a page whose signature does not verify");
            return None;
        }
        let page = match bytes.decode() {
            Ok(page) => Arc::new(page),
            Err(error) => {
                blame(from.as_ref(), &format!("a page: {error}"));
                return None;
            }
        };
        let next = in_place && desk.manifest.may_skip_to(&page);
        if page.index > desk.manifest.pages() && !next {
            if desk.parked_bytes + bytes.len() > PARKED_PAGES_BYTES_MAX {
                blame(from.as_ref(), "too many pages ahead of a missing one");
            } else {
                desk.parked_bytes += bytes.len();
                let parked = Parked { bytes, in_place, from };
                if let Some(before) = desk.parked_pages.insert(page.index, parked) {
                    desk.parked_bytes -= before.bytes.len();
                }
            }
            return None;
        }
        if page.index < desk.manifest.pages() {
            self.compare_page(page.index, &bytes, from.as_ref());
            return None;
        }
        self.accept_page(desk, &page, bytes, from.as_ref())
    }

    /// A page that is here already: another one under its index is an alarm.
    fn compare_page(self: &Arc<Self>, index: u32, bytes: &PageBytes, from: Option<&Arc<Link>>) {
        let same = self.keeping.content().read_page(index).is_ok_and(|p| p.hash() == bytes.hash());
        if !same {
            let text = format!("two different pages {index} of job {}", self.id());
            tracing::error!(job = %self.id(), index, "two different pages under one index");
            match self.origin {
                Origin::Signed => self.fail(text),
                // Unsigned: the publisher contradicts itself, what is here stands.
                Origin::Drafts { .. } | Origin::Own => blame(from, &text),
            }
        }
    }

    fn accept_page(
        self: &Arc<Self>,
        desk: &mut Desk,
        page: &Arc<Page>,
        bytes: PageBytes,
        from: Option<&Arc<Link>>,
    ) -> Option<()> {
        let summary = match desk.manifest.accept(page, &bytes) {
            Ok(summary) => summary,
            Err(error) => {
                self.fail(format!("page {} cannot be: {error}", page.index));
                blame(from, &format!("page {}: {error}", page.index));
                return None;
            }
        };
        if matches!(self.origin, Origin::Drafts { .. })
            && !bytes.is_signed()
            && let Err(reason) = self.check_cuts(desk, &summary)
        {
            self.fail(reason.clone());
            blame(from, &reason);
            return None;
        }
        let bytes = match &self.origin {
            Origin::Drafts { key, .. } => bytes.sign(key),
            Origin::Signed | Origin::Own => bytes,
        };
        self.keep_page(desk, Accepted { page: Arc::clone(page), bytes, summary })
    }

    /// Stores a page that the manifest has accepted.
    fn keep_page(self: &Arc<Self>, desk: &mut Desk, accepted: Accepted) -> Option<()> {
        match self.keeping.content().append_page(&accepted.bytes, &accepted.page) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                self.stall(&error);
                desk.full = true;
                desk.unkept = Some(accepted);
                return None;
            }
            Err(error) => {
                self.fail(chain(&error));
                return None;
            }
        }
        let Accepted { page, bytes, summary } = accepted;
        let lens: Vec<u32> = page.chunks().map(|(_, len, ..)| len).collect();
        let publish = !matches!(self.origin, Origin::Drafts { .. });
        self.step(|relay, fx| {
            relay.page(&summary, &lens, desk.manifest.end().is_some(), fx);
            if publish {
                let pages = relay.pages();
                relay.publish(pages, fx);
            }
        });
        if let Some((size, digest)) = desk.manifest.end() {
            self.surroundings.watcher.ended(self, size, digest);
        }
        self.mark_dirty(bytes.len());
        if summary.skipped {
            desk.parked_chunks = desk.parked_chunks.split_off(&page.first_chunk);
        }
        let described = page.first_chunk..page.first_chunk + page.chunk_count();
        let ready: Vec<u64> = desk.parked_chunks.range(described).map(|(c, _)| *c).collect();
        for chunk in ready {
            if desk.full {
                break;
            }
            if let Some((payload, from)) = desk.parked_chunks.remove(&chunk) {
                self.take_chunk(desk, chunk, payload, from);
            }
        }
        Some(())
    }

    /// The base signs what it has verified: chunks that the publisher has cut anew are compared
    /// with the bytes that are here, one with each page and the rest before they replace the
    /// short ones.
    fn check_cuts(&self, desk: &mut Desk, summary: &PageSummary) -> Result<(), String> {
        let due = if summary.in_force.is_some() { desk.cuts.len() } else { 1 };
        let content = self.keeping.content();
        for _ in 0..due.min(desk.cuts.len()) {
            let Some(chunk) = desk.cuts.pop_front() else { break };
            let page = content.page_with(chunk).map_err(|error| chain(&error))?;
            let view = page.ok_or_else(|| format!("chunk {chunk} has no page"))?;
            let Some((_, hash, _)) = view.chunk(chunk) else { continue };
            let payload = match content.read_chunk(chunk) {
                Ok(payload) => payload,
                // A short chunk is still on its way: it is here before its time is over, since
                // the publisher waits for it to be durable.
                Err(StoreError::NotHeld(_)) if summary.in_force.is_none() => {
                    desk.cuts.push_front(chunk);
                    break;
                }
                Err(error) => return Err(chain(&error)),
            };
            if Hash::of(&payload) != *hash {
                return Err(format!("chunk {chunk} was cut anew out of other bytes"));
            }
        }
        if summary.recut.is_some() {
            desk.cuts.extend(summary.first_chunk..summary.first_chunk + summary.chunks);
        }
        Ok(())
    }

    fn take_chunk(
        self: &Arc<Self>,
        desk: &mut Desk,
        chunk: u64,
        payload: Bytes,
        from: Option<Arc<Link>>,
    ) {
        let page = match self.keeping.content().page_with(chunk) {
            Ok(Some(page)) => page,
            Ok(None) => {
                desk.parked_chunks.insert(chunk, (payload, from));
                return;
            }
            Err(error) => return self.fail(chain(&error)),
        };
        let Some((len, hash, _)) = page.chunk(chunk) else { return };
        if payload.len() != len as usize || Hash::of(&payload) != *hash {
            telemetry::hash_failure();
            return blame(from.as_ref(), &format!("chunk {chunk} does not verify"));
        }
        if self.relay().held().contains(chunk) {
            return telemetry::duplicate(u64::from(len));
        }
        match self.keeping.content().write_chunk(chunk, &payload) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                self.stall(&error);
                desk.full = true;
                desk.parked_chunks.insert(chunk, (payload, from));
                return;
            }
            Err(error) => return self.fail(chain(&error)),
        }
        if matches!(self.keeping, Keeping::Disk(_)) && self.relay().has_receivers() {
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).insert(chunk, payload);
        }
        if let Some(link) = &from {
            telemetry::content_received(link.identity().role, u64::from(len));
        }
        let now = self.surroundings.clock.now();
        self.step(|relay, fx| {
            relay.hold(now, chunk, len, fx);
            if let Some(link) = &from {
                relay.fed_by(link.peer(), fx);
                if chunk.is_multiple_of(MEASURE_EVERY) {
                    let bytes = window_bytes(relay.rate_bps(now), link.connection().rtt());
                    let bytes = bytes.min(self.surroundings.inbound_share());
                    set_window(relay, &self.object, bytes);
                }
            }
        });
        self.mark_dirty(len as usize);
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

fn blame(from: Option<&Arc<Link>>, what: &str) {
    if let Some(link) = from {
        link.fault(Code::Fault, what);
    }
}

/// Fails the job when its worker panics: what it was at is in an unknown state.
struct WorkGuard<'a>(&'a Arc<Job>);

impl Drop for WorkGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its worker has panicked; see the log".to_owned());
        }
    }
}

#[cfg(test)]
mod tests;

/// The jobs of a process that are not dropped.
#[derive(Debug, Default)]
pub struct Relays(Mutex<RelaysInner>);

#[derive(Debug, Default)]
struct RelaysInner {
    jobs: BTreeMap<JobId, Arc<Job>>,
    /// Offers of jobs that are not here yet: an offer may overtake the job object.
    early: BTreeMap<(JobId, PeerId), Offer>,
}

impl Relays {
    /// Adds a job; offers that came before it are taken up.
    pub fn insert(&self, job: Arc<Job>) {
        let mut inner = self.lock();
        inner.jobs.insert(job.id(), Arc::clone(&job));
        let early = std::mem::take(&mut inner.early);
        let (mine, others) = early.into_iter().partition(|((id, _), _)| *id == job.id());
        inner.early = others;
        drop(inner);
        let mine: BTreeMap<(JobId, PeerId), Offer> = mine;
        for ((_, peer), offer) in mine {
            job.step(|relay, fx| relay.offered(&peer, offer, fx));
        }
    }

    /// Takes a job out and stops it.
    pub fn remove(&self, id: JobId) -> Option<Arc<Job>> {
        let job = self.lock().jobs.remove(&id)?;
        job.stop();
        Some(job)
    }

    /// A job.
    pub fn get(&self, id: JobId) -> Option<Arc<Job>> {
        self.lock().jobs.get(&id).cloned()
    }

    /// All jobs.
    pub fn all(&self) -> Vec<Arc<Job>> {
        self.lock().jobs.values().cloned().collect()
    }

    /// `link`'s peer offers the job.
    pub fn offered(&self, link: &Arc<Link>, id: JobId, offer: Offer) {
        let mut inner = self.lock();
        if let Some(job) = inner.jobs.get(&id).cloned() {
            drop(inner);
            job.step(|relay, fx| relay.offered(link.peer(), offer, fx));
        } else if inner.early.len() < limit::JOBS_OPEN_MAX {
            inner.early.insert((id, link.peer().clone()), offer);
        }
    }

    /// `link`'s peer wants the job.
    pub fn wanted(&self, link: &Arc<Link>, id: JobId, want: Want) {
        if let Some(job) = self.get(id) {
            job.step(|relay, fx| relay.wanted(link.peer(), want, fx));
        }
    }

    /// The connection to `peer` is gone.
    pub(crate) fn peer_lost(&self, peer: &PeerId) {
        self.lock().early.retain(|(_, from), _| from != peer);
        for job in self.all() {
            job.peer_lost(peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, RelaysInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
