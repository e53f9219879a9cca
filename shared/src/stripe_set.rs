//! A set of stripes of a job.

use serde::{Deserialize, Serialize};

use crate::limit;

/// Stripes of a job, by number; at most [`limit::STRIPES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StripeSet(u16);

const _: () = assert!(limit::STRIPES_MAX as u32 <= u16::BITS);

impl StripeSet {
    /// None.
    pub const NONE: Self = Self(0);
    /// Every stripe that a job may have.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether `stripe` is among them.
    pub fn contains(self, stripe: u64) -> bool {
        bit(stripe).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Adds a stripe; numbers beyond every job are left out.
    pub fn insert(&mut self, stripe: u64) {
        self.0 |= bit(stripe).unwrap_or(0);
    }

    /// Takes a stripe out.
    pub fn remove(&mut self, stripe: u64) {
        self.0 &= !bit(stripe).unwrap_or(0);
    }

    /// How many there are.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<u64> for StripeSet {
    fn from_iter<T: IntoIterator<Item = u64>>(stripes: T) -> Self {
        let mut set = Self::NONE;
        stripes.into_iter().for_each(|stripe| set.insert(stripe));
        set
    }
}

fn bit(stripe: u64) -> Option<u16> {
    u32::try_from(stripe).ok().and_then(|stripe| 1u16.checked_shl(stripe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_beyond_a_job() {
        let mut set: StripeSet = [0, 3, 15, 16, u64::MAX].into_iter().collect();
        assert_eq!(
            [0, 1, 3, 15, 16, u64::MAX].map(|s| set.contains(s)),
            [true, false, true, true, false, false]
        );
        set.remove(3);
        set.remove(99);
        assert_eq!((set.len(), set.contains(3), set.is_empty()), (2, false, false));
        assert_eq!(StripeSet::ALL.len(), 16);
    }
}
