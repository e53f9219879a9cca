//! Which nodes of a job are told of each other, so that they can feed each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shared::control::Pace;
use shared::id::{JobId, Name, PeerId};
use shared::neighbourhood;
use shared::time::Time;
use shared::wire::codec;
use shared::wire::message::{Neighbour, StateKind, View};
use shared_io::job::Job;
use shared_io::link::Conduct;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;

/// How often it is looked what uplinks carry.
const UPLINKS_EVERY: Duration = Duration::from_secs(1);
/// How often all nodes of a job are told a new rate at the most, and by which part it must differ.
const TARGET_EVERY: Duration = Duration::from_secs(5);
const TARGET_PART: u64 = 8;
/// When so many views were told in one look, the others are at the next.
const VIEWS_MAX: usize = 1_024;

/// At which rate jobs can reach all, and when that was told.
#[derive(Debug, Default)]
struct Targets(BTreeMap<JobId, (Time, u64)>);

impl Targets {
    /// Whether all are to be told that `bps` is the rate of a job. If so, it counts as told.
    fn is_news(&mut self, now: Time, job: JobId, bps: u64) -> bool {
        let told = self.0.get(&job).copied();
        let (at, was) = told.unwrap_or((now, 0));
        let is_due = told.is_none() || now.since(at) >= TARGET_EVERY;
        let is_news = is_due && bps.abs_diff(was) > was / TARGET_PART;
        if is_news {
            self.0.insert(job, (now, bps));
        }
        is_news
    }
}

impl Hub {
    /// The nodes of the job's list that are connected.
    pub(crate) fn present_nodes(&self, id: JobId) -> Vec<PeerId> {
        let head = self.jobs().and_then(|jobs| jobs.head(id));
        let names = head.iter().flat_map(|head| head.servers.names());
        let peers = names.map(|node| PeerId::Node(node.clone()));
        peers.filter(|peer| self.links().get(peer).is_some()).collect()
    }

    /// These peers with what their uplinks carry, bits per second, as they say; 0 if unknown.
    pub(crate) fn with_uplinks(&self, peers: Vec<PeerId>) -> Vec<(PeerId, u64)> {
        let stores = self.stores();
        let uplink = |peer: &PeerId| match peer {
            PeerId::Node(name) => stores.get(name).map_or(0, |visit| visit.uplink_bps),
            PeerId::Base | PeerId::Client(..) => 0,
        };
        let uplinks: Vec<u64> = peers.iter().map(uplink).collect();
        peers.into_iter().zip(uplinks).collect()
    }

    /// Looks every second what uplinks carry, until `stop`: homes of stripes are chosen by it, and
    /// nodes are told at which rate a job can reach all.
    pub(crate) async fn watch_uplinks(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(UPLINKS_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut targets = Targets::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            self.look_at_uplinks(&mut targets).await;
        }
    }

    async fn look_at_uplinks(&self, targets: &mut Targets) {
        let jobs = self.relays().all();
        targets.0.retain(|id, _| jobs.iter().any(|job| job.id() == *id));
        let mut views = 0;
        let is_restless = |job: &&Arc<Job>| job.with_relay(|relay| relay.is_restless());
        for job in jobs.iter().filter(is_restless) {
            let Some(head) = self.jobs().and_then(|jobs| jobs.head(job.id())) else { continue };
            let names = head.servers.names();
            let nodes = names.iter().cloned().map(PeerId::Node).collect();
            let nodes = self.with_uplinks(nodes);
            job.step(|relay, _| nodes.iter().for_each(|(node, bps)| relay.set_uplink(node, *bps)));
            let target_bps = self.target_bps(names);
            if views < VIEWS_MAX && targets.is_news(self.clock().now(), job.id(), target_bps) {
                views += names.len();
                self.tell_views_at(job, names, 0..names.len());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells all nodes of a job of each other.
    pub(crate) fn tell_all_views(&self, job: &Job) {
        if let Some(head) = self.jobs().and_then(|jobs| jobs.head(job.id())) {
            let names = head.servers.names();
            self.tell_views_at(job, names, 0..names.len());
        }
    }

    /// Tells `node`, and those that know it, who else has the jobs that it is to have and that
    /// are under way.
    pub(crate) fn tell_views(&self, node: &Name) {
        for job in self.relays().all() {
            let Some(head) = self.jobs().and_then(|jobs| jobs.head(job.id())) else { continue };
            let names = head.servers.names();
            let Ok(place) = names.binary_search(node) else { continue };
            let known = neighbourhood::neighbours(job.id(), job.object().size, place, names.len());
            self.tell_views_at(&job, names, known.into_iter().chain([place]));
        }
    }

    fn tell_views_at(&self, job: &Job, names: &[Name], places: impl IntoIterator<Item = usize>) {
        let target_bps = self.target_bps(names);
        places.into_iter().for_each(|place| self.tell_view(job, (names, place), target_bps));
    }

    /// Tells the node at `place` of the server list who else has the job.
    fn tell_view(&self, job: &Job, (names, place): (&[Name], usize), target_bps: u64) {
        let node = names.get(place).map(|name| PeerId::Node(name.clone()));
        let Some(link) = node.and_then(|node| self.links().get(&node)) else { return };
        let known = neighbourhood::neighbours(job.id(), job.object().size, place, names.len());
        let known = known.into_iter().filter_map(|other| names.get(other));
        let peers = known.filter_map(|name| self.neighbour(name)).collect();
        let view = View { target_bps, peers };
        link.set_state(StateKind::View, job.id(), codec::encode(&view), Pace::Relaxed);
    }

    /// The rate at which a job can reach these nodes and the base's uplink carries it, with a
    /// tenth to spare; 0 while too little is known. Uplinks that are not known count as the mean
    /// of those that are.
    fn target_bps(&self, names: &[Name]) -> u64 {
        let Some(own) = self.links().access().carries_bps() else { return 0 };
        let stores = self.stores();
        let known = names.iter().filter_map(|name| stores.get(name)).map(|visit| visit.uplink_bps);
        let known: Vec<u64> = known.filter(|bps| *bps > 0).collect();
        let (sum, count) = (known.iter().map(|bps| u128::from(*bps)).sum::<u128>(), known.len());
        let nodes = names.len().max(1) as u128;
        let mean = sum.checked_div(count as u128).unwrap_or(0);
        let all = u128::from(own) + mean * nodes;
        let target = (all / nodes).min(u128::from(own)) * 9 / 10;
        if count == 0 { 0 } else { u64::try_from(target).unwrap_or(u64::MAX) }
    }

    /// A node as others reach it, if it is connected.
    fn neighbour(&self, name: &Name) -> Option<Neighbour> {
        self.links().get(&PeerId::Node(name.clone()))?;
        let address = self.stores().get(name)?.address.clone();
        Some(Neighbour { name: name.clone(), address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_again_when_it_differs_by_an_eighth_and_not_too_often() {
        let mut targets = Targets::default();
        let job = JobId([1; 16]);
        let mut is_news =
            |second, bps| targets.is_news(Time::ZERO + Duration::from_secs(second), job, bps);
        assert!(!is_news(0, 0), "nothing is known");
        assert!(is_news(1, 800));
        assert!(!is_news(5, 8_000), "too often");
        assert!(!is_news(6, 900), "an eighth is not more");
        assert!(is_news(6, 901));
        assert!(is_news(11, 0), "it is not known any more");
        assert!(!is_news(12, 900));
        assert!(is_news(16, 900));
    }
}
