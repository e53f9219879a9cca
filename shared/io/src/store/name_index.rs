//! Which page opens the object of a name: some bytes for each name, built when it is asked for.

use std::collections::BTreeSet;

use shared::limit::PAGES_MAX;
use shared::seal::Hash;

use super::NAMES_INDEXED_MAX;

/// Bits of an entry that hold the number of a page; those above hold a part of the name's hash.
const PAGE_BITS: u32 = PAGES_MAX.trailing_zeros();

/// The names of the first objects of a job.
#[derive(Debug, Default)]
pub(super) struct NameIndex {
    /// A part of the hash of a name and the page, in one number. Names whose parts are equal
    /// cost a page read in vain, and nothing else.
    entries: BTreeSet<u64>,
    objects: u32,
}

impl NameIndex {
    /// Objects whose names are indexed: those with a smaller number than this.
    pub(super) const fn objects(&self) -> u32 {
        self.objects
    }

    /// Whether no further names are taken up.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= NAMES_INDEXED_MAX
    }

    /// Takes up the objects that `page` opens, which are the next ones.
    pub(super) fn add<'n>(&mut self, page: u32, names: impl Iterator<Item = &'n str>) {
        for name in names {
            self.entries.insert(key(name) | u64::from(page));
            self.objects += 1;
        }
    }

    /// Pages that may open an object called `name`.
    pub(super) fn pages(&self, name: &str) -> Vec<u32> {
        let key = key(name);
        let last = key | u64::from(PAGES_MAX - 1);
        let pages = self.entries.range(key..=last).map(|entry| entry & u64::from(PAGES_MAX - 1));
        pages.filter_map(|page| u32::try_from(page).ok()).collect()
    }
}

/// The part of the hash of `name` that an entry has, with room for the page.
fn key(name: &str) -> u64 {
    let Hash(hash) = Hash::of(name.as_bytes());
    let part = hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    part >> PAGE_BITS << PAGE_BITS
}

#[cfg(test)]
impl NameIndex {
    /// Has it take up no names.
    pub(super) fn fill(&mut self) {
        *self = Self { entries: (0..NAMES_INDEXED_MAX as u64).collect(), objects: 0 };
    }
}
