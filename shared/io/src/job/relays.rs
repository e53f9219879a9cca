//! The jobs of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::id::{JobId, PeerId};
use shared::limit;
use shared::wire::message::{Offer, Want};

use tokio_util::sync::CancellationToken;

use super::Job;
use crate::link::Link;

/// How often jobs look who feeds and who is fed.
const TICK_EVERY: Duration = Duration::from_millis(100);
/// Offers that are kept until their job comes.
const EARLY_MAX: usize = 16 * limit::JOBS_OPEN_MAX;

/// The jobs of a process that are not dropped.
#[derive(Debug, Default)]
pub struct Relays(Mutex<RelaysInner>);

#[derive(Debug, Default)]
struct RelaysInner {
    jobs: BTreeMap<JobId, Arc<Job>>,
    /// Offers of jobs that are not here yet, or of which it is not known yet who has them: an
    /// offer may overtake the job object.
    early: BTreeMap<(JobId, PeerId), Offer>,
}

impl RelaysInner {
    fn defer(&mut self, id: JobId, peer: &PeerId, offer: Offer) {
        self.early.insert((id, peer.clone()), offer);
        if self.early.len() > EARLY_MAX {
            // Of the oldest job, but not what the base says, which says it once.
            let mut of_nodes = self.early.keys().filter(|(_, peer)| *peer != PeerId::Base);
            let oldest = of_nodes.next().or(self.early.keys().next()).cloned();
            oldest.into_iter().for_each(|oldest| drop(self.early.remove(&oldest)));
        }
    }
}

impl Relays {
    /// Adds a job.
    pub fn insert(&self, job: Arc<Job>) {
        self.lock().jobs.insert(job.id(), job);
    }

    /// Takes up the offers that came before the job, of peers that `admits` lets in.
    pub fn take_up_early(&self, job: &Arc<Job>, admits: impl Fn(&PeerId) -> bool) {
        let mut inner = self.lock();
        let early = std::mem::take(&mut inner.early);
        let (mine, others) = early.into_iter().partition(|((id, _), _)| *id == job.id());
        inner.early = others;
        drop(inner);
        let mine: BTreeMap<(JobId, PeerId), Offer> = mine;
        for ((_, peer), offer) in mine.into_iter().filter(|((_, peer), _)| admits(peer)) {
            job.step(|relay, fx| relay.offered(&peer, offer, fx));
        }
    }

    /// Takes a job out and stops it.
    pub fn remove(&self, id: JobId) -> Option<Arc<Job>> {
        let mut inner = self.lock();
        inner.early.retain(|(job, _), _| *job != id);
        let job = inner.jobs.remove(&id)?;
        drop(inner);
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
        } else {
            inner.defer(id, link.peer(), offer);
        }
    }

    /// Keeps an offer for [`Self::take_up_early`].
    pub fn defer(&self, link: &Link, id: JobId, offer: Offer) {
        self.lock().defer(id, link.peer(), offer);
    }

    /// `link`'s peer wants the job.
    pub fn wanted(&self, link: &Arc<Link>, id: JobId, want: Want) {
        if let Some(job) = self.get(id) {
            job.step(|relay, fx| relay.wanted(link.peer(), want, fx));
        }
    }

    /// Lets all jobs look, ten times a second, who feeds and who is fed, until `stop`.
    pub async fn tick(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(TICK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = interval.tick() => self.all().iter().for_each(Job::tick),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_base_has_offered_is_kept_however_much_nodes_offer() {
        let mut inner = RelaysInner::default();
        let id = |number: usize| JobId(u128::try_from(number).unwrap().to_be_bytes());
        let node = PeerId::Node("n".parse().unwrap());
        let offer = || Offer::of_root(1, 1);
        inner.defer(id(0), &PeerId::Base, offer());
        for number in 0..=EARLY_MAX {
            inner.defer(id(number), &node, offer());
        }
        assert_eq!(inner.early.len(), EARLY_MAX);
        assert!(inner.early.contains_key(&(id(0), PeerId::Base)));
        assert!(inner.early.contains_key(&(id(EARLY_MAX), node.clone())), "the newest");
        assert!(!inner.early.contains_key(&(id(0), node)), "the oldest");
        inner.defer(id(EARLY_MAX + 1), &PeerId::Base, offer());
        assert!(inner.early.contains_key(&(id(EARLY_MAX + 1), PeerId::Base)));
    }
}
