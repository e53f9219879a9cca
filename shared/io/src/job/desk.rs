//! What has arrived of a job: verified, stored and taken up by one worker at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use shared::manifest::{Manifest, Page, PageBytes, PageSummary};
use shared::seal::Hash;
use shared::wire::code::Code;

use super::{Job, Keeping, Origin, clip, set_window, window_bytes};
use crate::link::{Link, chain};
use crate::store::StoreError;
use crate::telemetry;

/// Chunks after which the window is measured anew.
const MEASURE_EVERY: u64 = 32;
/// First and longest pause before a job that found no room on its disk tries again.
const ROOM_LOOK_MIN: Duration = Duration::from_millis(250);
const ROOM_LOOK_MAX: Duration = Duration::from_secs(5);
/// Bytes of pages that wait for the pages before them.
const PARKED_PAGES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What has arrived and waits to be verified and stored, and the manifest it is judged by.
#[derive(Debug)]
pub(super) struct Inbound {
    queue: Vec<Arrival>,
    queued_bytes: usize,
    pub(super) working: bool,
    /// Taken out by the one worker while it works.
    pub(super) desk: Option<Box<Desk>>,
}

impl Inbound {
    pub(super) fn new(manifest: Manifest) -> Self {
        let desk = Some(Box::new(Desk::new(manifest)));
        Self { queue: Vec::new(), queued_bytes: 0, working: false, desk }
    }
}

/// What only the job's worker touches.
#[derive(Debug)]
pub(super) struct Desk {
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
    pub(super) cuts: VecDeque<u64>,
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
    fn new(manifest: Manifest) -> Self {
        Self {
            manifest,
            parked_pages: BTreeMap::new(),
            parked_bytes: 0,
            parked_chunks: BTreeMap::new(),
            unkept: None,
            full: false,
            pause: ROOM_LOOK_MIN,
            cuts: VecDeque::new(),
        }
    }

    /// Keeps a page for later. If it comes from several sources, some of which send it in place of
    /// others, it may be taken so: the others may be gone before they have sent what lies between.
    fn park(&mut self, index: u32, mut page: Parked) {
        if let Some(before) = self.parked_pages.remove(&index) {
            self.parked_bytes -= before.bytes.len();
            page.in_place |= before.in_place;
        }
        self.parked_bytes += page.bytes.len();
        self.parked_pages.insert(index, page);
    }

    /// Pages that another one was taken in place of are not waited for.
    fn forget_pages_before(&mut self, next: u32) {
        while let Some(entry) = self.parked_pages.first_entry() {
            if *entry.key() >= next {
                return;
            }
            self.parked_bytes -= entry.remove().bytes.len();
        }
    }

    /// Takes out the page that waits and is the next one, or the first that comes in place of it:
    /// of those before that, which another source has sent, some are missing.
    fn next_parked(&mut self) -> Option<Parked> {
        let next = self.manifest.pages();
        self.forget_pages_before(next);
        let mut parked = self.parked_pages.iter();
        let fits = |(index, page): &(&u32, &Parked)| **index == next || page.in_place;
        let index = parked.find(fits).map(|(index, _)| *index)?;
        let parked = self.parked_pages.remove(&index)?;
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

impl Job {
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
    pub(super) fn stall(self: &Arc<Self>, error: &StoreError) {
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
                desk.park(page.index, Parked { bytes, in_place, from });
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
        let same = match self.keeping.content().read_page(index) {
            Ok(page) => page.hash() == bytes.hash(),
            // It has become void since: a source that does not know yet may send it.
            Err(StoreError::NoPage(_)) => true,
            Err(_) => false,
        };
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
            link.content().received(u64::from(len));
        }
        let now = self.surroundings.clock.now();
        self.step(|relay, fx| {
            relay.hold(now, chunk, len, fx);
            if let Some(link) = &from {
                relay.fed_by(link.peer(), len, fx);
                if chunk.is_multiple_of(MEASURE_EVERY) {
                    let bytes = window_bytes(relay.latest_rate_bps(now), link.connection().rtt());
                    let bytes = bytes.min(self.surroundings.inbound_share());
                    set_window(relay, &self.object, bytes);
                }
            }
        });
        self.mark_dirty(len as usize);
    }
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
