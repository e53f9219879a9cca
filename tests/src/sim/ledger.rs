//! What survives a crash of the base: the table's rows, the nodes, and the content.

use std::collections::BTreeMap;

use shared::id::JobId;
use shared::table::{Restored, Row, Transition};

use super::holding::DiskJob;

/// What survives a crash of the base.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    epoch: u64,
    rows: BTreeMap<JobId, Row>,
    clock_us: u64,
    pub(super) nodes: BTreeMap<usize, Registered>,
    pub(super) content: BTreeMap<JobId, DiskJob>,
}

/// A node as the base knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registered {
    pub(super) store: [u8; 16],
    pub(super) boot: u64,
    pub(super) incarnation: u64,
    /// The first incarnation of this store.
    pub(super) since: u64,
}

impl Ledger {
    /// The base starts: its epoch, and what the table begins with.
    pub(super) fn start(&mut self) -> (u64, Restored) {
        self.epoch += 1;
        let restored = Restored {
            rows: self.rows.values().cloned().collect(),
            archived: Vec::new(),
            clock_us: self.clock_us,
            lossy: false,
        };
        (self.epoch, restored)
    }

    /// A transition is durable.
    pub(super) fn apply(&mut self, transition: Transition) {
        match transition {
            Transition::Created(head, status) => {
                let row = Row { head: *head, status: *status, nodes: Vec::new() };
                self.rows.insert(row.head.id, row);
            }
            Transition::Status(job, status) => {
                if let Some(row) = self.rows.get_mut(&job) {
                    row.status = *status;
                }
            }
            Transition::Node(job, node, record) => {
                if let Some(row) = self.rows.get_mut(&job) {
                    row.nodes.retain(|(name, _)| *name != node);
                    row.nodes.push((node, *record));
                }
            }
            Transition::Forgotten(job) => {
                self.rows.remove(&job);
            }
            Transition::Clock(at) => self.clock_us = at,
        }
    }
}
