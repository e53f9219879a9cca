//! What happened in a run, so that a simulator that stops reaching a scenario is noticed.

/// A scenario that runs have to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    BaseKilled,
    BaseKilledInCommit,
    NodeKilled,
    NodeKilledBeforeSync,
    DiskWiped,
    ConnectionBroken,
    CutOffTooLong,
    DatagramLost,
    DatagramDoubled,
    StateByStream,
    OldState,
    RecordDamaged,
    RecordParked,
    CreatedTwice,
    NodeQueried,
    CompletionLost,
    CompletedAfterClosing,
    ClosedComplete,
    ClosedPartial,
    ClosedFailed,
    ClosedCancelled,
    Dropped,
    Beat,
}

const NAMES: [&str; 23] = [
    "kills of the base",
    "kills of the base with a commit under way",
    "kills of a node",
    "kills of a node between write and sync",
    "disks wiped",
    "connections broken",
    "partitions longer than the idle time",
    "datagrams lost",
    "datagrams doubled",
    "states sent by stream",
    "states that arrived again or late",
    "records damaged",
    "chunks that came before their page",
    "creations repeated under one key",
    "queries at a deadline",
    "completions lost with a disk",
    "completions after closing",
    "jobs closed as complete",
    "jobs closed as partial",
    "jobs closed as failed",
    "jobs closed as cancelled",
    "copies dropped on order",
    "beats",
];

/// How often each scenario was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage([u64; NAMES.len()]);

impl Coverage {
    pub(super) fn reach(&mut self, scene: Scene) {
        if let Some(count) = self.0.get_mut(scene as usize) {
            *count += 1;
        }
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Every scenario and how often it was reached.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.into_iter().zip(self.0)
    }
}
