//! The memory of one process, shared out: every bound on content that waits is a part of it.
//!
//! The shares add up to less than half; the rest is for what grows with the number of jobs,
//! nodes and objects, and for the allocator. Each share is divided among those that use it at
//! the time, so that many jobs and connections stay within it as one does.

use std::collections::BTreeMap;

use crate::limit;

/// Memory of a process that is told nothing else.
pub const MEMORY_DEFAULT: u64 = 256 * 1024 * 1024;
/// Least memory that a process can be told to do with: below, a share holds less than a few of
/// the largest chunks.
pub const MEMORY_MIN: u64 = 64 * 1024 * 1024;

/// A budget below [`MEMORY_MIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes of memory are too few, at least {MEMORY_MIN} (64MiB) are needed")]
pub struct TooSmall(u64);

/// The memory of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: MEMORY_DEFAULT }
    }
}

impl Budget {
    /// A budget of so many bytes.
    ///
    /// # Errors
    /// [`TooSmall`] below [`MEMORY_MIN`].
    pub const fn new(bytes: u64) -> Result<Self, TooSmall> {
        if bytes < MEMORY_MIN { Err(TooSmall(bytes)) } else { Ok(Self { bytes }) }
    }

    /// Bytes of content that may be on their way to all jobs: an eighth.
    pub const fn inbound(&self) -> u64 {
        self.bytes / 8
    }

    /// Bytes that may be on their way to one of `jobs` that receive: an equal share. Where it is
    /// less than a chunk, a job has one chunk of each stripe on its way all the same, since
    /// nothing smaller moves.
    pub const fn inbound_of(&self, jobs: usize) -> u64 {
        share(self.inbound(), jobs)
    }

    /// Bytes of the newest chunks of one of `jobs` in memory, for its receivers: a share of a
    /// sixty-fourth.
    pub fn recent_of(&self, jobs: usize) -> u64 {
        share(self.bytes / 64, jobs)
    }

    /// Bytes that wait inside QUIC to be sent, on all connections together that have something
    /// to send: a sixteenth.
    pub const fn sending(&self) -> u64 {
        self.bytes / 16
    }

    /// Bytes that a peer may have on their way on one connection: a sixteenth. They wait in QUIC
    /// for their gaps only, since they are always read.
    pub const fn receiving(&self) -> u64 {
        self.bytes / 16
    }

    /// Bytes that one of `pushes` keeps until they are durable at the base: a share of three
    /// thirty-seconds, and the content of two pages at least.
    pub fn publishing_of(&self, pushes: usize) -> u64 {
        share(self.bytes / 32 * 3, pushes).max(2 * limit::PAGE_CONTENT_AIM)
    }
}

/// An amount shared by users that need different parts of it: who needs less than an equal part
/// leaves the rest to the others (max-min fairness).
#[derive(Debug, Clone, Default)]
pub struct Shares {
    needs: BTreeMap<u64, u64>,
}

impl Shares {
    /// What user `id` needs from now on; nothing if `None`.
    pub fn set(&mut self, id: u64, need: Option<u64>) {
        match need {
            Some(need) => drop(self.needs.insert(id, need)),
            None => drop(self.needs.remove(&id)),
        }
    }

    /// What nobody gets more of, so that together they get `total` at the most. Takes the time
    /// of a sort.
    pub fn most_of(&self, total: u64) -> u64 {
        let mut needs: Vec<u64> = self.needs.values().copied().collect();
        needs.sort_unstable();
        let (mut left, mut users) = (total, needs.len() as u64);
        for need in needs {
            let equal = left / users;
            if need > equal {
                return equal;
            }
            (left, users) = (left - need, users - 1);
        }
        total
    }
}

const fn share(bytes: u64, users: usize) -> u64 {
    let users = if users == 0 { 1 } else { users as u64 };
    bytes / users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_less_than_half_however_many_use_them() {
        for bytes in [MEMORY_MIN, MEMORY_DEFAULT, 1 << 34] {
            let budget = Budget::new(bytes).unwrap();
            for users in [1usize, 2, 7, 32, 129, limit::JOBS_OPEN_MAX] {
                let all = users as u64;
                let inbound = budget.inbound_of(users) * all;
                let recent = budget.recent_of(users) * all;
                let sum = inbound + recent + budget.sending() + budget.receiving();
                assert!(sum <= bytes / 2, "{users} users of {bytes}: {sum}");
            }
        }
    }

    #[test]
    fn who_needs_little_leaves_the_rest_to_the_others() {
        let mut shares = Shares::default();
        assert_eq!(shares.most_of(100), 100);
        for (id, need) in [(1, 10), (2, 1_000), (3, 25), (4, 1_000)] {
            shares.set(id, Some(need));
        }
        assert_eq!(shares.most_of(100), 32, "10 + 25 + 2 * 32");
        shares.set(4, None);
        assert_eq!(shares.most_of(100), 65);
        shares.set(2, Some(65));
        assert_eq!(shares.most_of(100), 100, "all have what they need");
    }

    #[test]
    fn a_publisher_always_has_room_for_two_pages() {
        let budget = Budget::new(MEMORY_MIN).unwrap();
        assert!(budget.publishing_of(1_000) >= 2 * limit::PAGE_CONTENT_AIM);
        assert_eq!(Budget::new(MEMORY_MIN - 1), Err(TooSmall(MEMORY_MIN - 1)));
    }
}
