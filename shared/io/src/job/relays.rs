//! The jobs of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::id::{JobId, PeerId};
use shared::limit;
use shared::wire::message::{Offer, Want};

use super::Job;
use crate::link::Link;

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
