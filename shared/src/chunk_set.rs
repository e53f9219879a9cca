//! A set of chunk numbers: what is held, durable or sent.

/// Bits of one word of the map.
const WORD: u64 = 64;

/// A set of chunk numbers as a bit map, with its contiguous head kept at hand.
///
/// A job has at most [`crate::limit::CHUNKS_MAX`] chunks, so a set takes at most 16 MiB, and
/// 8 KiB for a job that is cut as aimed. Numbers beyond that limit are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkSet {
    words: Vec<u64>,
    /// The smallest number that is not in the set.
    head: u64,
    len: u64,
}

impl ChunkSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The smallest number that is not in the set: all below it are.
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// How many numbers are in the set.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `chunk` is in the set.
    pub fn contains(&self, chunk: u64) -> bool {
        chunk < self.head || self.word(chunk / WORD) & bit(chunk) != 0
    }

    /// Adds `chunk`; says whether it was new.
    pub fn insert(&mut self, chunk: u64) -> bool {
        if chunk >= crate::limit::CHUNKS_MAX || self.contains(chunk) {
            return false;
        }
        let Ok(index) = usize::try_from(chunk / WORD) else { return false };
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        if let Some(word) = self.words.get_mut(index) {
            *word |= bit(chunk);
        }
        self.len += 1;
        if chunk == self.head {
            self.head = self.next_absent(chunk);
        }
        true
    }

    /// Removes `chunk`; says whether it was there.
    pub fn remove(&mut self, chunk: u64) -> bool {
        if !self.contains(chunk) {
            return false;
        }
        let index = usize::try_from(chunk / WORD).unwrap_or(usize::MAX);
        if let Some(word) = self.words.get_mut(index) {
            *word &= !bit(chunk);
        }
        self.len -= 1;
        self.head = self.head.min(chunk);
        true
    }

    /// The smallest number of the set that is at least `from`.
    pub fn next_present(&self, from: u64) -> Option<u64> {
        self.scan(from, |word| word)
    }

    /// The smallest number that is at least `from` and not in the set.
    pub fn next_absent(&self, from: u64) -> u64 {
        let end = (self.words.len() as u64).saturating_mul(WORD);
        self.scan(from, |word| !word).unwrap_or(end.max(from))
    }

    /// The runs `(first, len)` of the set that lie at or above `from`, in order.
    pub fn runs(&self, from: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = from;
        std::iter::from_fn(move || {
            let first = self.next_present(at)?;
            at = self.next_absent(first);
            Some((first, at - first))
        })
    }

    fn word(&self, index: u64) -> u64 {
        usize::try_from(index).ok().and_then(|index| self.words.get(index)).copied().unwrap_or(0)
    }

    fn scan(&self, from: u64, view: impl Fn(u64) -> u64) -> Option<u64> {
        let first = from / WORD;
        let start = usize::try_from(first).ok()?;
        let mut below = u64::MAX << (from % WORD);
        for (index, word) in (first..).zip(self.words.get(start..)?) {
            let found = view(*word) & below;
            if found != 0 {
                return Some(index * WORD + u64::from(found.trailing_zeros()));
            }
            below = u64::MAX;
        }
        None
    }
}

const fn bit(chunk: u64) -> u64 {
    1 << (chunk % WORD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agrees_with_a_plain_set() {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed >> 33
        };
        let (mut set, mut plain) = (ChunkSet::new(), BTreeSet::new());
        for _ in 0..4_000 {
            let chunk = next() % 300;
            if next() % 4 == 0 {
                assert_eq!(set.remove(chunk), plain.remove(&chunk));
            } else {
                assert_eq!(set.insert(chunk), plain.insert(chunk));
            }
            let from = next() % 310;
            assert_eq!(set.next_present(from), plain.range(from..).next().copied());
            assert_eq!(set.next_absent(from), (from..).find(|c| !plain.contains(c)).unwrap());
            assert_eq!(set.head(), (0..).find(|c| !plain.contains(c)).unwrap());
            assert_eq!(set.len(), plain.len() as u64);
            let from_runs: Vec<u64> =
                set.runs(0).flat_map(|(first, len)| first..first + len).collect();
            assert!(from_runs.iter().eq(plain.iter()));
        }
    }

    #[test]
    fn numbers_beyond_the_limit_are_ignored() {
        let mut set = ChunkSet::new();
        assert!(!set.insert(crate::limit::CHUNKS_MAX));
        assert_eq!(set.len(), 0);
    }
}
