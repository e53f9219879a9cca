//! Which nodes of a job are told of each other, so that they can feed each other.

use shared::control::Pace;
use shared::id::{JobId, Name, PeerId};
use shared::neighbourhood;
use shared::wire::codec;
use shared::wire::message::{Neighbour, StateKind, View};
use shared_io::job::Job;
use shared_io::link::Conduct;

use crate::hub::Hub;

impl Hub {
    /// The nodes of the job's list that are connected.
    pub(crate) fn present_nodes(&self, id: JobId) -> Vec<PeerId> {
        let head = self.jobs().and_then(|jobs| jobs.head(id));
        let names = head.iter().flat_map(|head| head.servers.names());
        let peers = names.map(|node| PeerId::Node(node.clone()));
        peers.filter(|peer| self.links().get(peer).is_some()).collect()
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
            let known = neighbourhood::neighbours(job.id(), place, names.len());
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
        let known = neighbourhood::neighbours(job.id(), place, names.len());
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
