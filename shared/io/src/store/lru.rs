//! A small map that forgets what was used longest ago.

/// At most `limit` entries. Looking up is linear: made for some hundred entries at most.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: Vec<(K, V, u64)>,
    limit: usize,
    tick: u64,
}

impl<K: PartialEq, V: Clone> Lru<K, V> {
    pub(super) const fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), limit, tick: 0 }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        self.tick += 1;
        let (_, value, used) = self.entries.iter_mut().find(|(k, ..)| k == key)?;
        *used = self.tick;
        Some(value.clone())
    }

    /// Adds an entry and returns what had to go for it, to be dropped outside of any lock.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, (.., used))| *used);
        let gone = match (self.entries.iter().position(|(k, ..)| *k == key), oldest) {
            (Some(same), _) => Some(same),
            (None, Some((oldest, _))) if self.entries.len() >= self.limit => Some(oldest),
            _ => None,
        };
        let gone = gone.map(|at| self.entries.swap_remove(at).1);
        self.tick += 1;
        self.entries.push((key, value, self.tick));
        gone
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.entries.retain(|(key, ..)| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut lru = Lru::new(2);
        assert_eq!(lru.insert(1, 'a'), None);
        assert_eq!(lru.insert(2, 'b'), None);
        assert_eq!(lru.get(&1), Some('a'));
        assert_eq!(lru.insert(3, 'c'), Some('b'));
        assert_eq!(lru.insert(3, 'd'), Some('c'));
        assert_eq!([1, 2, 3].map(|key| lru.get(&key)), [Some('a'), None, Some('d')]);
        lru.retain(|key| *key != 1);
        assert_eq!(lru.get(&1), None);
    }
}
