//! Pages that cut the end of a live log anew: many short chunks become few long ones, so that
//! a log that goes on for weeks keeps a short index.
//!
//! Such a page comes into force with the next one of its kind. Until then both cuts can be had:
//! who has all chunks of a run has the long chunk too, and who is behind goes on with the short
//! ones. From then on the short ones are void, and their pages need not be kept.

use crate::chunk_set::ChunkSet;

/// Which pages and chunks a page cuts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recut {
    /// The first page.
    pub first_page: u32,
    /// The page that cuts anew: it stands for those from `first_page` up to itself.
    pub page: u32,
    /// The first chunk that is cut anew.
    pub first_chunk: u64,
    /// The number behind the last one.
    pub end_chunk: u64,
}

/// A long chunk, and the run of short ones that has its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The long chunk.
    pub chunk: u64,
    /// Its length in bytes.
    pub len: u32,
    /// The first short one.
    pub first: u64,
    /// The number behind the last short one; `first` if no run has just these bytes.
    pub end: u64,
}

impl Cut {
    /// Whether `set` has all of the run.
    pub fn is_in(&self, set: &ChunkSet) -> bool {
        self.end > self.first && set.next_absent(self.first) >= self.end
    }
}

/// The long chunks of one page that cuts anew, in order.
#[derive(Debug, Clone, Default)]
pub struct Cuts(Vec<Cut>);

impl Cuts {
    /// Matches long chunks of lengths `long`, numbered from `recut.end_chunk`, with the short
    /// ones of lengths `short`, numbered from `recut.first_chunk`.
    pub fn new(recut: &Recut, short: &[u32], long: &[u32]) -> Self {
        let mut next = recut.first_chunk;
        let mut short = short.iter();
        let cut = |(chunk, len): (u64, u32)| {
            let (first, mut bytes) = (next, 0u64);
            while bytes < u64::from(len) {
                let Some(piece) = short.next() else { break };
                bytes += u64::from(*piece);
                next += 1;
            }
            let end = if bytes == u64::from(len) { next } else { first };
            Cut { chunk, len, first, end }
        };
        Self((recut.end_chunk..).zip(long.iter().copied()).map(cut).collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Cut> {
        self.0.iter()
    }

    /// Whether `chunk` is one of the long ones.
    pub fn has_long(&self, chunk: u64) -> bool {
        self.0.binary_search_by_key(&chunk, |cut| cut.chunk).is_ok()
    }

    /// The long chunk whose run has just become whole in `set` by `chunk`.
    pub fn completed(&self, chunk: u64, set: &ChunkSet) -> Option<u64> {
        let at = self.0.partition_point(|cut| cut.first <= chunk).checked_sub(1)?;
        let cut = self.0.get(at).filter(|cut| chunk < cut.end && cut.is_in(set))?;
        Some(cut.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECUT: Recut = Recut { first_page: 1, page: 9, first_chunk: 10, end_chunk: 15 };

    #[test]
    fn long_chunks_have_the_bytes_of_runs() {
        let cuts = Cuts::new(&RECUT, &[4, 4, 2, 3, 1], &[8, 6]);
        let found: Vec<_> = cuts.iter().map(|cut| (cut.chunk, cut.first, cut.end)).collect();
        assert_eq!(found, [(15, 10, 12), (16, 12, 15)]);
        let mut set = ChunkSet::new();
        for chunk in 0..12 {
            set.insert(chunk);
        }
        assert_eq!((cuts.completed(11, &set), cuts.completed(12, &set)), (Some(15), None));
        assert_eq!((cuts.has_long(16), cuts.has_long(14)), (true, false));
        for chunk in 12..15 {
            set.insert(chunk);
        }
        assert_eq!(cuts.completed(13, &set), Some(16));
    }

    #[test]
    fn what_does_not_fall_on_an_edge_has_no_run() {
        let cuts = Cuts::new(&RECUT, &[4, 4, 2, 3, 1], &[5, 9]);
        assert!(cuts.iter().all(|cut| cut.first == cut.end));
        let full: ChunkSet = ChunkSet::new();
        assert!(cuts.iter().all(|cut| !cut.is_in(&full)));
    }
}
