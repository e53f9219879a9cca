//! A job that spreads over up to thousands of nodes, simulated at the level of chunks.
//!
//! Who feeds whom is decided by the product's own code: [`shared::relay`] at the base and at every
//! node, [`shared::neighbourhood`] for who knows whom, [`shared::uplink`] for what is believed of
//! an uplink. What is modelled is below it: instead of packets, bytes flow, and links are shared
//! max-min fair ([`fluid`]); a connection ramps up as slow start does, keeps as much ahead as the
//! product's does, and finds a standing queue where a link is full, as its sender leaves one
//! ([`Sender`]). Words between peers take the way of the packets, and none is lost.
//!
//! Nodes may die without a word ([`run_with_deaths`]).
//!
//! What is not there: loss and what it makes a sender repeat, flows of one bottleneck that come
//! to unequal rates, a path that changes, the CPU, the disk, nodes that come late. How far that
//! carries is tested against the virtual WAN (`tests/swarm.rs`).
//!
//! One seed is one run.

#![expect(
    clippy::indexing_slicing,
    reason = "a simulator: hosts and connections are numbered by itself"
)]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes and microseconds of a fluid, far below 2^52"
)]

mod fluid;
mod host;
mod topology;
mod wan;
mod world;

use std::time::Duration;

pub use topology::{ACCESS_QUEUE, Family, PATH_QUEUE, Path, Site, Topology};
pub use wan::{Measured, plan, run_in_wan};

/// How the job gets to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The base alone feeds all.
    Star,
    /// Nodes feed each other in so many stripes.
    Stripes(u8),
}

/// Whose congestion control fills the links: what differs is the queue that it leaves in a full
/// one, as a part of the queue's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Fills queues until they drop.
    Cubic,
    /// Keeps queues short.
    Shallow,
}

/// A job and the rule by which it spreads.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Content.
    pub bytes: u64,
    /// Bytes of a chunk.
    pub chunk: u32,
    /// How it gets to the nodes.
    pub rule: Rule,
    /// What the base tells of the rate at which it can reach all, bits per second; 0 if it does
    /// not know.
    pub target_bps: u64,
    /// Whether the base knows from the start what the uplinks of nodes carry.
    pub knows_uplinks: bool,
    /// How long peers are connected before the content is there.
    pub idle: Duration,
    /// Whose congestion control it is.
    pub sender: Sender,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How long each node took until everything was durable there, if it ever was.
    pub took: Vec<Option<Duration>>,
    /// Content bytes that the base has sent.
    pub base_sent: u64,
    /// Content bytes that came to nodes, and those of them that they had already.
    pub received: u64,
    /// See `received`.
    pub doubled: u64,
    /// Chunks that came without credit, which ends a connection in the product.
    pub uncalled: u64,
    /// Words that all said.
    pub words: u64,
}

impl Outcome {
    /// The time of the last node, if all have everything.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        let took: Option<Vec<Duration>> = self.took.iter().copied().collect();
        took?.into_iter().max()
    }

    /// Copies of the content that the base has sent.
    #[must_use]
    pub fn copies(&self, bytes: u64) -> f64 {
        self.base_sent as f64 / bytes as f64
    }

    /// What came twice, of all that came.
    #[must_use]
    pub fn twice(&self) -> f64 {
        self.doubled as f64 / self.received.max(1) as f64
    }
}

/// Spreads a job over a topology until every node has it, or for two hundred times as long as the
/// fluid bound.
#[must_use]
pub fn run(topology: &Topology, job: &Job, seed: u64) -> Outcome {
    world::World::new(topology, job, seed).run()
}

/// The same while nodes die, each so long after the push began: nothing comes from them or to them
/// any more, and their peers learn of it when the connection has been idle for too long. Nobody
/// waits for them.
#[must_use]
pub fn run_with_deaths(
    topology: &Topology,
    job: &Job,
    seed: u64,
    deaths: &[(Duration, usize)],
) -> Outcome {
    world::World::new(topology, job, seed).with_deaths(deaths).run()
}
