//! The simulator of the core: a base, eight nodes and a client, on a network and on disks that
//! fail, in virtual time.
//!
//! Everything that decides is the product's own code: [`shared::control`], [`shared::table`],
//! [`shared::relay`] and the wire format. What is written here is the shell around it: a
//! network that loses, doubles, delays and cuts off; disks of which a crash keeps only what
//! was synced; processes that are killed at any moment, also between a write and its sync.
//! A run takes ten virtual minutes: eight with faults, two nearly quiet, in which everything
//! has to come to its end. One seed is one run, to the last event.
//!
//! | invariant | how it is asserted |
//! |---|---|
//! | I1 | when a node sets a report of completion, its disk has every chunk and page, synced |
//! | I3 | bytes reported from one disk never go back; nor do those that the client sees in one epoch, unless the node is `lost` |
//! | I4 | a job is never open later than 30 s after its deadline in base time; at the end every job has ended as its plan demands, every node has exactly what it must have, the base's account says so, every request is answered, and nothing is left to say on any channel |
//! | I5 | when the client is told `complete`, every node that counts has completed on a disk of its own |
//! | I6 | what was told as closed keeps its state, across restarts; it closes once; a node never opens what it dropped |
//! | I7 | outboxes and inboxes hold no more than jobs times kinds; chunks that wait for a page no more than the credit; no state is refused |
//! | I9 | per key and life of a process, stamps taken up only rise, however datagrams come |
//! | I10 | the base sends a page or chunk only when it is durable (and a damaged record ends the connection: that is the shell's part) |
//! | I12 | every frame passes the table of rights |
//! | I14 | a node never obeys an epoch after a higher one |
//! | I15 | no order and no record goes to a node that is not on the list |
//!
//! I2, I8, I13, I16 and I17 need bytes, memory, tenants or bandwidth and are tested elsewhere;
//! I11 is empty while only the base feeds nodes.

mod base;
pub(crate) mod chance;
mod check;
mod client;
mod coverage;
mod holding;
mod ledger;
mod net;
mod node;
mod plan;
mod queue;
mod reception;
mod world;

use std::fmt;
use std::time::Duration;

use shared::time::Time;

pub use coverage::Coverage;

use world::World;

/// Which protocol a run uses: the product's, or one that is broken on purpose in the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// As the product does it.
    Sound,
    /// Every state is sent once, by datagram, and counts as taken up.
    FireAndForget,
    /// States are repeated until acknowledged, but a new connection exchanges nothing.
    NoReconcile,
    /// A node reports completion when everything has arrived, before it is synced.
    DoneBeforeDurable,
    /// Every life of a node has the same incarnation.
    NoIncarnation,
}

impl Variant {
    /// The variants that a run must find wrong.
    pub const BROKEN: [Self; 4] =
        [Self::FireAndForget, Self::NoReconcile, Self::DoneBeforeDurable, Self::NoIncarnation];
}

/// What was not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant of DESIGN section 9.
    pub invariant: &'static str,
    /// When in the run.
    pub at: Time,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at.as_micros() / 1_000_000, self.at.as_micros() % 1_000_000);
        write!(f, "{} at {seconds}.{micros:06} s: {}", self.invariant, self.text)
    }
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first violation; the run ended with it.
    pub violation: Option<Violation>,
    /// Events that happened.
    pub events: u64,
    /// How long the run was, in virtual time.
    pub simulated: Duration,
    /// A hash over all events: equal for equal runs.
    pub trace: u64,
    /// What happened.
    pub coverage: Coverage,
}

/// Runs a seed.
pub fn run(seed: u64, variant: Variant) -> Outcome {
    World::new(seed, variant).run(None)
}

/// Runs a seed and writes every event down, for a look at what led to a violation.
pub fn run_logged(seed: u64, variant: Variant, log: &mut Vec<String>) -> Outcome {
    World::new(seed, variant).run(Some(log))
}
