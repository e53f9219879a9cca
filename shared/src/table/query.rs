//! What the table is asked. Nothing here changes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{JobId, Name};
use crate::job::{Dimensions, ServerList, SignedJob};
use crate::view::{EventBody, JobState, JobView};
use crate::wire::request::JobRef;

use super::entry::Job;
use super::{Head, JobTable, Status, TableError};

impl JobTable {
    /// The job that `wanted` means to `asker`; `None` is an operator, who sees all jobs. A
    /// name means the open job of that name, or else the newest closed one.
    ///
    /// # Errors
    /// [`TableError::UnknownJob`], also if the job is another client's.
    pub fn resolve(&self, wanted: &JobRef, asker: Option<&Name>) -> Result<JobId, TableError> {
        let visible = |job: &&Job| is_visible(job, asker);
        let found = match wanted {
            JobRef::Id(id) => self.jobs.get(id).filter(visible),
            JobRef::Name(name) => {
                let open = self.open_names.get(name).and_then(|id| self.jobs.get(id));
                let closed = self.closed.iter().rev().filter_map(|(_, id)| self.jobs.get(id));
                let mut named = open.into_iter().chain(closed.filter(|job| job.head.name == *name));
                named.find(visible)
            }
        };
        found.map(Job::id).ok_or_else(|| TableError::UnknownJob(wanted.clone()))
    }

    /// The open job of `client` that a push with `dimensions` goes on with, if there is one of
    /// that name.
    ///
    /// # Errors
    /// [`TableError::Begun`] if it was begun with other options.
    pub fn begun(
        &self,
        client: &Name,
        dimensions: &Dimensions,
    ) -> Result<Option<JobId>, TableError> {
        let open = dimensions.name.as_ref().and_then(|name| self.open_names.get(name));
        let own = open.and_then(|id| self.jobs.get(id)).filter(|job| job.head.client == *client);
        let Some(job) = own else { return Ok(None) };
        match job.head.dimensions.difference(dimensions) {
            None => Ok(Some(job.id())),
            Some(option) => {
                let (name, id) = (job.head.name.clone(), job.id());
                Err(TableError::Begun { name, id, option })
            }
        }
    }

    /// A job with its nodes.
    pub fn view(&self, id: JobId) -> Option<JobView> {
        self.jobs.get(&id).map(|job| job.view(&self.presence, &self.clock))
    }

    /// The jobs that `asker` may see, without their nodes, the newest last.
    pub fn views(&self, asker: Option<&Name>) -> Vec<JobView> {
        let visible = self.jobs.values().filter(|job| is_visible(job, asker));
        visible.map(|job| job.summary(&self.clock)).collect()
    }

    /// How far a job is: the body of a progress event.
    pub fn progress(&self, id: JobId) -> Option<EventBody> {
        self.jobs.get(&id).map(|job| job.progress(&self.presence))
    }

    /// What was fixed at a job's creation: client, name, dimensions, server list.
    pub fn head(&self, id: JobId) -> Option<&Head> {
        self.jobs.get(&id).map(|job| &job.head)
    }

    /// Where a job stands, as far as it is kept.
    pub fn status(&self, id: JobId) -> Option<&Status> {
        self.jobs.get(&id).map(|job| &job.status)
    }

    /// A job's signed object.
    pub fn object(&self, id: JobId) -> Option<&SignedJob> {
        self.head(id).map(|head| &head.object)
    }

    /// A job's server list, if `node` is on it and may still have the content.
    pub fn servers(&self, id: JobId, node: &Name) -> Option<&Arc<ServerList>> {
        let job = self.jobs.get(&id).filter(|job| !job.status.is_dropping())?;
        job.index(node).map(|_| &job.head.servers)
    }

    /// Open jobs, by id.
    pub fn open_jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.open.iter().copied()
    }

    /// Jobs whose content the base holds: open ones and closed ones not yet dropped.
    pub fn jobs_with_content(&self) -> impl Iterator<Item = JobId> + '_ {
        let held = self.jobs.values().filter(|job| !job.is_content_gone());
        held.map(Job::id)
    }

    /// How many open jobs a node has.
    pub fn open_jobs_of(&self, node: &Name) -> usize {
        let jobs = self.open.iter().filter_map(|id| self.jobs.get(id));
        jobs.filter(|job| job.index(node).is_some()).count()
    }

    /// How many open jobs each node has; nodes without are absent.
    pub fn open_jobs_by_node(&self) -> BTreeMap<&Name, u32> {
        let mut counts = BTreeMap::new();
        for job in self.open.iter().filter_map(|id| self.jobs.get(id)) {
            for node in job.head.servers.names() {
                *counts.entry(node).or_insert(0) += 1;
            }
        }
        counts
    }

    /// How many jobs there are of each state, in the order of [`JobState::ALL`].
    pub fn counts(&self) -> [(JobState, usize); 6] {
        let known = self.jobs.values().filter(|job| !job.status.removed);
        let mut counts = JobState::ALL.map(|state| (state, 0));
        for job in known {
            let mut slots = counts.iter_mut();
            if let Some((_, count)) = slots.find(|(state, _)| *state == job.status.state) {
                *count += 1;
            }
        }
        counts
    }
}

fn is_visible(job: &Job, asker: Option<&Name>) -> bool {
    !job.status.removed && asker.is_none_or(|name| job.head.client == *name)
}
