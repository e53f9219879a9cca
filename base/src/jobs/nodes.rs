//! The nodes that the base knows: admission, labels, and who is selected by what.

use std::collections::BTreeMap;

use shared::id::Name;
use shared::job::{Selector, ServerList};
use shared::limit;

use crate::ledger::NodeRow;

/// Labels that operators may give one node.
pub const OPERATOR_LABELS_MAX: usize = 64;

/// A node that asks to be admitted: what its certificate says and its hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    /// Its name, from its certificate.
    pub name: Name,
    /// Its labels, from its certificate.
    pub labels: BTreeMap<String, String>,
    /// Its store.
    pub store: [u8; 16],
    /// Its boot count.
    pub boot: u64,
}

/// A node was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Its incarnation: greater than any before, unless store and boot are those of the last.
    pub incarnation: u64,
    /// Whether its store is another one than when it was admitted last.
    pub new_store: bool,
}

/// The base knows as many nodes as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the base knows {max} nodes, which is its limit; forget some with `distributary nodes \
    forget`", max = limit::SERVERS_MAX)]
pub struct TooManyNodes;

/// The nodes ever admitted.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    rows: BTreeMap<Name, NodeRow>,
    incarnation_max: u64,
}

impl Nodes {
    pub(super) fn new(rows: BTreeMap<Name, NodeRow>) -> Self {
        let incarnation_max = rows.values().map(|row| row.incarnation).max().unwrap_or(0);
        Self { rows, incarnation_max }
    }

    /// Nodes that are not forgotten.
    pub(super) fn known(&self) -> impl Iterator<Item = &NodeRow> {
        self.rows.values().filter(|row| !row.forgotten)
    }

    fn known_mut(&mut self, name: &Name) -> Option<&mut NodeRow> {
        self.rows.get_mut(name).filter(|row| !row.forgotten)
    }

    /// Admits a node; the row is to be made durable if there is one.
    pub(super) fn admit(
        &mut self,
        applicant: Applicant,
    ) -> Result<(Admission, Option<NodeRow>), TooManyNodes> {
        let Applicant { name, labels, store, boot } = applicant;
        let before = self.rows.get(&name);
        let known = before.filter(|row| !row.forgotten);
        if known.is_none() && self.known().count() >= limit::SERVERS_MAX {
            return Err(TooManyNodes);
        }
        let new_store = before.is_some_and(|row| row.store != store);
        let same = known.filter(|row| row.store == store && row.boot == boot);
        let incarnation = match same {
            Some(row) => row.incarnation,
            None => self.incarnation_max.saturating_add(1),
        };
        let row = NodeRow {
            name: name.clone(),
            cert_labels: labels,
            operator_labels: known.map(|row| row.operator_labels.clone()).unwrap_or_default(),
            store,
            boot,
            incarnation,
            forgotten: false,
        };
        let changed = before != Some(&row);
        self.incarnation_max = self.incarnation_max.max(incarnation);
        self.rows.insert(name, row.clone());
        Ok((Admission { incarnation, new_store }, changed.then_some(row)))
    }

    /// Forgets a node: it is selected no more, and its operators' labels are gone.
    pub(super) fn forget(&mut self, name: &Name) -> Option<NodeRow> {
        let row = self.known_mut(name)?;
        row.forgotten = true;
        row.operator_labels.clear();
        Some(row.clone())
    }

    /// Gives a node labels.
    pub(super) fn label(
        &mut self,
        name: &Name,
        labels: Vec<(String, String)>,
    ) -> Result<NodeRow, String> {
        let row = self.known_mut(name).ok_or_else(|| unknown(name))?;
        let mut all = row.operator_labels.clone();
        all.extend(labels);
        if all.len() > OPERATOR_LABELS_MAX {
            return Err(format!(
                "{} labels on node {name}, allowed are {OPERATOR_LABELS_MAX}",
                all.len()
            ));
        }
        row.operator_labels = all;
        Ok(row.clone())
    }

    /// The nodes that some of `selectors` select.
    pub(super) fn select(&self, selectors: &[Selector]) -> Result<ServerList, String> {
        let known = self.known().map(|row| (row.name.clone(), row.labels())).collect();
        let mut names = Vec::new();
        for selector in selectors {
            names.extend(selector.select(&known).map_err(|name| unknown(&name))?);
        }
        if names.is_empty() {
            let all: Vec<String> = selectors.iter().map(Selector::to_string).collect();
            let all = all.join(" ");
            return Err(match known.is_empty() {
                true => "no node was ever admitted; start one with `distributary node`".to_owned(),
                false => format!("no node matches --to {all}; see `distributary nodes`"),
            });
        }
        Ok(ServerList::new(names))
    }
}

pub(super) fn unknown(name: &Name) -> String {
    format!("unknown node {name}; see `distributary nodes`")
}
