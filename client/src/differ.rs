//! What differs between a source and the job that was begun with it before.

use shared::manifest::{Attributes, Entry, Page, Slice};
use shared::seal::Hash;

use crate::tree::Plan;

/// The first object that is not what it was, and in what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}", .object.as_ref().map(|name| format!("{name:?} ")).unwrap_or_default())]
pub struct Difference {
    /// The object, if it is known.
    pub object: Option<String>,
    /// What of it.
    pub what: &'static str,
}

impl Difference {
    pub(crate) fn of(object: Option<&str>, what: &'static str) -> Self {
        Self { object: object.map(str::to_owned), what }
    }
}

pub(crate) const BYTES: &str = "has other bytes";
pub(crate) const SIZE: &str = "has another size";

/// The first difference between `ours`, cut from `plan`, and the page `theirs` under the same
/// index. The pages before are equal.
pub(crate) fn first(plan: &Plan, ours: &Page, theirs: &Page) -> Difference {
    let unknown = Difference::of(None, "the source is another one");
    let both = ours.entries.iter().zip(&theirs.entries).enumerate();
    let found = both.filter(|(_, (ours, theirs))| ours != theirs).map(|(at, (our, their))| {
        let behind = theirs.entries.get(at..).unwrap_or_default();
        let ours_behind = ours.entries.get(at..).unwrap_or_default();
        of_entries(plan, (our, ours_behind), (their, behind))
    });
    let mut found = found;
    found.next().unwrap_or(unknown)
}

/// What it means that `our` entry is not `their` entry; each comes with itself and what follows.
fn of_entries(
    plan: &Plan,
    (our, ours): (&Entry, &[Entry]),
    (their, theirs): (&Entry, &[Entry]),
) -> Difference {
    match (our, their) {
        (Entry::Open { name, attributes, .. }, Entry::Open { name: n, attributes: a, .. }) => {
            of_open(plan, (name, attributes), (n, a))
        }
        (Entry::Open { name, .. }, _) => Difference::of(Some(name), "was not there"),
        (_, Entry::Open { name, .. }) => Difference::of(Some(name), "is missing"),
        (Entry::Chunk { slices, .. }, Entry::Chunk { slices: s, .. }) => {
            of_chunk(plan, (slices, ours), (s, theirs))
        }
        (Entry::Chunk { slices, .. }, _) | (_, Entry::Chunk { slices, .. }) => {
            Difference::of(slices.first().and_then(|slice| name(plan, slice.object)), SIZE)
        }
        (Entry::Close { object, len, .. }, Entry::Close { len: l, .. }) => {
            Difference::of(name(plan, *object), if len == l { BYTES } else { SIZE })
        }
        _ => Difference::of(None, "the source has another end"),
    }
}

fn of_open(plan: &Plan, ours: (&str, &Attributes), theirs: (&str, &Attributes)) -> Difference {
    if ours.0 != theirs.0 {
        let kept = plan.entries().any(|entry| entry.name == theirs.0);
        return match kept {
            true => Difference::of(Some(ours.0), "was not there"),
            false => Difference::of(Some(theirs.0), "is missing"),
        };
    }
    let what = if ours.1.kind != theirs.1.kind {
        "is of another kind"
    } else if ours.1.modified != theirs.1.modified {
        "has another modification time"
    } else {
        "has another executable bit"
    };
    Difference::of(Some(ours.0), what)
}

/// The objects of two chunks that differ: by their slices, or else by the digests behind them.
fn of_chunk(
    plan: &Plan,
    (ours, our_entries): (&[Slice], &[Entry]),
    (theirs, their_entries): (&[Slice], &[Entry]),
) -> Difference {
    let slices = ours.iter().zip(theirs).find(|(our, their)| our != their);
    if let Some((our, their)) = slices {
        let object = our.object.min(their.object);
        return Difference::of(name(plan, object), SIZE);
    }
    if let Some(one) = ours.get(theirs.len()).or_else(|| theirs.get(ours.len())) {
        return Difference::of(name(plan, one.object), SIZE);
    }
    let closed = |entries: &[Entry], wanted: u32| {
        entries.iter().find_map(|entry| match entry {
            Entry::Close { object, digest, .. } if *object == wanted => Some(*digest),
            _ => None,
        })
    };
    let differs = |slice: &&Slice| {
        let digests: (Option<Hash>, Option<Hash>) =
            (closed(our_entries, slice.object), closed(their_entries, slice.object));
        digests.0 != digests.1
    };
    let object = ours.iter().find(differs).or_else(|| ours.last()).map(|slice| slice.object);
    Difference::of(object.and_then(|object| name(plan, object)), BYTES)
}

/// The plan's objects are numbered in its order.
fn name(plan: &Plan, object: u32) -> Option<&str> {
    plan.entry(usize::try_from(object).ok()?).map(|entry| entry.name)
}
