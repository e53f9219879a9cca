//! Which nodes are heard, as far as jobs care.

use std::collections::BTreeMap;

use crate::id::Name;

/// The nodes that were heard, or missed, since the start.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Whether a node is up. At most one entry a node of the ledger.
    seen: BTreeMap<Name, bool>,
    /// Whether nodes not heard since the start have had their time to come back.
    settled: bool,
}

impl Presence {
    pub(super) fn set(&mut self, node: &Name, up: bool) {
        self.seen.insert(node.clone(), up);
    }

    pub(super) fn forget(&mut self, node: &Name) {
        self.seen.remove(node);
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.settled
    }

    pub(super) const fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether a node counts as unreachable.
    pub(super) fn is_down(&self, node: &Name) -> bool {
        self.seen.get(node).map_or(self.settled, |up| !up)
    }
}
