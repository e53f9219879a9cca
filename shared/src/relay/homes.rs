//! Which node is the home of which stripe: the one that the root of a job opens it to.
//!
//! A home passes its stripes on to all others, so who can send more is home of more of them: by
//! d'Hondt's method over uplinks, with at most half of the stripes for one of several nodes. One
//! whose uplink is not known counts as the mean of those that are. What is known of uplinks
//! changes while a job is under way: a stripe moves when its home is far behind another node.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::PeerId;
use crate::time::Time;

/// How often a stripe may move, and how many hundredths of what each of its stripes had at the
/// old home it must have at the new one. A move costs what the base sends to both meanwhile.
const MOVE_EVERY: Duration = Duration::from_secs(1);
const MOVE_GAIN_PERCENT: u64 = 150;
/// A home loses stripes when no more has become known of its uplink for so long: what is known of
/// one grows while it is filled.
const STANDS: Duration = Duration::from_secs(2);
/// What an uplink carries while nothing is known of any.
const SOME: u64 = 1 << 20;

/// The homes of the stripes of one job.
#[derive(Debug, Clone, Default)]
pub(super) struct Homes {
    pub(super) nodes: Vec<PeerId>,
    of: Vec<Option<PeerId>>,
    /// When the last node that asked was given each stripe, or it got another home.
    pub(super) adopted: Vec<Option<Time>>,
    /// What uplinks of nodes carry, where that is known, and its mean.
    uplinks: BTreeMap<PeerId, Known>,
    mean: Option<u64>,
    looked: Time,
}

/// Bits per second that an uplink carries, and since when it is not known to carry more.
#[derive(Debug, Clone, Copy)]
struct Known {
    bps: u64,
    since: Time,
}

impl Homes {
    /// The homes of `stripes` stripes, of which none has one yet.
    pub(super) fn new(stripes: u64) -> Self {
        let none = || (0..stripes).map(|_| None);
        Self {
            of: none().collect(),
            adopted: (0..stripes).map(|_| None).collect(),
            ..Self::default()
        }
    }

    /// The home of each stripe.
    pub(super) fn of(&self) -> impl Iterator<Item = Option<&PeerId>> {
        self.of.iter().map(Option::as_ref)
    }

    /// `node` may be a home. While little was sent, stripes move to it at once.
    pub(super) fn add(&mut self, node: &PeerId, may_move: bool) {
        if !self.nodes.contains(node) {
            self.nodes.push(node.clone());
        }
        self.fill();
        for _ in 0..if may_move { self.of.len() } else { 0 } {
            let best = self.best_move(100, |_| true, |_| true).filter(|(_, to)| to == node);
            let Some((at, to)) = best else { return };
            self.set(at, to);
        }
    }

    /// `node` is none any more.
    pub(super) fn remove(&mut self, node: &PeerId, now: Time) {
        self.nodes.retain(|other| other != node);
        for (home, adopted) in self.of.iter_mut().zip(&mut self.adopted) {
            if home.as_ref() == Some(node) {
                *home = None;
                *adopted = Some(now);
            }
        }
        self.fill();
    }

    /// The uplink of `node` carries `bps` bits per second; 0 if that is unknown.
    pub(super) fn set_uplink(&mut self, node: &PeerId, bps: u64, now: Time) {
        let before = self.uplinks.remove(node);
        if bps > 0 {
            let stands = before.filter(|known| bps <= known.bps + known.bps / 20);
            let since = stands.map_or(now, |known| known.since);
            self.uplinks.insert(node.clone(), Known { bps, since });
        }
        let sum: u128 = self.uplinks.values().map(|known| u128::from(known.bps)).sum();
        let mean = sum.checked_div(self.uplinks.len() as u128);
        self.mean = mean.map(|mean| u64::try_from(mean).unwrap_or(u64::MAX));
    }

    /// Moves one of several stripes if its home is far behind another node that `receives` the
    /// job, of both of which it is known what they carry.
    pub(super) fn look(&mut self, now: Time, receives: impl Fn(&PeerId) -> bool) {
        if self.of.len() < 2 || now.since(self.looked) < MOVE_EVERY {
            return;
        }
        self.looked = now;
        let stands = |node: &PeerId| {
            let known = self.uplinks.get(node);
            known.is_some_and(|known| now.since(known.since) >= STANDS)
        };
        let may_have = |node: &PeerId| self.uplinks.contains_key(node) && receives(node);
        if let Some((at, to)) = self.best_move(MOVE_GAIN_PERCENT, stands, may_have) {
            self.set(at, to);
        }
    }

    fn set(&mut self, at: usize, to: PeerId) {
        if let Some(home) = self.of.get_mut(at) {
            *home = Some(to);
        }
    }

    /// Gives stripes without a home to the nodes that have most left for one more.
    fn fill(&mut self) {
        for at in 0..self.of.len() {
            if self.of.get(at).is_some_and(Option::is_none) {
                let home = self.with_most_left(|_| true).map(|(home, _)| home);
                home.into_iter().for_each(|home| self.set(at, home));
            }
        }
    }

    /// The last stripe of the home that has least for each of its own, or too many, and the node
    /// that would have most, if that is more than so many hundredths of it.
    fn best_move(
        &self,
        percent: u64,
        may_lose: impl Fn(&PeerId) -> bool,
        may_have: impl Fn(&PeerId) -> bool,
    ) -> Option<(usize, PeerId)> {
        let (to, most) = self.with_most_left(may_have)?;
        let homes = self.nodes.iter().filter(|node| may_lose(node));
        let each = homes.filter_map(|node| {
            let count = self.count(node);
            let each = self.uplink(node).checked_div(count)?;
            Some((if count > self.most() { 0 } else { each }, node))
        });
        let (least, from) = each.min_by_key(|(each, _)| *each)?;
        let gains = u128::from(most) * 100 > u128::from(least) * u128::from(percent);
        let at = self.of.iter().rposition(|home| home.as_ref() == Some(from))?;
        (gains && *from != to).then_some((at, to))
    }

    /// The node that would have most for each of its stripes with one more, and how much.
    fn with_most_left(&self, may: impl Fn(&PeerId) -> bool) -> Option<(PeerId, u64)> {
        let nodes = self.nodes.iter().filter(|node| may(node));
        let may_have = nodes.filter(|node| self.count(node) < self.most());
        let left = may_have.map(|node| (node, self.uplink(node) / (self.count(node) + 1)));
        // The first of those with as much.
        let best = left.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(node, left)| (node.clone(), left))
    }

    /// Stripes that one node may be home of.
    fn most(&self) -> u64 {
        let (stripes, nodes) = (self.of.len() as u64, self.nodes.len() as u64);
        (stripes / 2).max(stripes.div_ceil(nodes.max(1)))
    }

    fn count(&self, node: &PeerId) -> u64 {
        self.of.iter().filter(|home| home.as_ref() == Some(node)).count() as u64
    }

    /// Bits per second that the node's uplink carries, or the mean of those that are known.
    pub(super) fn uplink(&self, node: &PeerId) -> u64 {
        self.uplinks.get(node).map(|known| known.bps).or(self.mean).unwrap_or(SOME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 1_000_000;

    fn node(number: usize) -> PeerId {
        PeerId::Node(format!("node{number}").parse().unwrap())
    }

    /// Homes of `stripes` stripes among nodes whose uplinks carry so many Mbit/s.
    fn homes(stripes: u64, uplinks: &[u64]) -> Homes {
        let mut homes = Homes::new(stripes);
        for (number, mbit) in uplinks.iter().enumerate() {
            homes.set_uplink(&node(number), mbit * MBIT, Time::ZERO);
        }
        (0..uplinks.len()).for_each(|number| homes.add(&node(number), true));
        homes
    }

    fn counts(homes: &Homes, nodes: usize) -> Vec<u64> {
        (0..nodes).map(|number| homes.count(&node(number))).collect()
    }

    #[test]
    fn stripes_are_shared_out_by_uplinks() {
        assert_eq!(counts(&homes(8, &[20; 8]), 8), [1; 8]);
        assert_eq!(counts(&homes(8, &[0; 3]), 3), [3, 3, 2]);
        assert_eq!(
            counts(&homes(8, &[200, 100, 50, 50, 20, 20, 20, 20]), 8),
            [4, 2, 1, 1, 0, 0, 0, 0]
        );
        assert_eq!(counts(&homes(16, &[0, 100, 0, 50]), 4), [4, 6, 4, 2], "unknown: the mean");
        assert_eq!(counts(&homes(8, &[10_000, 1, 1]), 3), [4, 2, 2], "half at the most");
        assert_eq!(counts(&homes(1, &[10, 20]), 2), [0, 1]);
        assert_eq!(counts(&homes(8, &[u64::MAX / MBIT; 2]), 2), [4, 4]);
    }

    #[test]
    fn a_node_that_comes_when_much_was_sent_is_home_of_nothing_until_another_goes() {
        let mut homes = homes(4, &[20, 20]);
        homes.set_uplink(&node(2), 1_000 * MBIT, Time::ZERO);
        homes.add(&node(2), false);
        assert_eq!(counts(&homes, 3), [2, 2, 0]);
        homes.remove(&node(0), Time::ZERO);
        assert_eq!(counts(&homes, 3), [0, 2, 2]);
    }

    #[test]
    fn stripes_move_one_by_one_from_homes_that_are_far_behind() {
        let mut homes = homes(4, &[10, 10, 0, 0]);
        let mut look = |second: u64, uplinks: [u64; 4]| {
            let now = Time::ZERO + Duration::from_secs(second);
            for (number, mbit) in uplinks.iter().enumerate() {
                homes.set_uplink(&node(number), mbit * MBIT, now);
            }
            homes.look(now, |_| true);
            counts(&homes, 4)
        };
        assert_eq!(look(2, [10, 10, 10, 29]), [1, 1, 1, 1], "29 / 2 is less than 15");
        assert_eq!(look(3, [10, 10, 0, 40]), [0, 1, 1, 2]);
        assert_eq!(look(3, [10, 10, 0, 80]), [0, 1, 1, 2], "one a second");
        assert_eq!(look(4, [0, 0, 0, 80]), [0, 1, 1, 2], "of the others nothing is known");
        assert_eq!(look(5, [0, 10, 0, 80]), [0, 1, 1, 2], "it may carry more");
        assert_eq!(look(7, [0, 10, 0, 80]), [0, 1, 1, 2], "half at the most");
        assert_eq!(look(8, [80, 10, 0, 80]), [1, 0, 1, 2]);
    }

    #[test]
    fn nothing_moves_to_a_node_that_takes_nothing_nor_the_only_stripe() {
        let after = Time::ZERO + Duration::from_secs(10);
        for (stripes, receives) in [(1, true), (2, false)] {
            let mut homes = homes(stripes, &[10, 10]);
            let before = counts(&homes, 2);
            homes.set_uplink(&node(1), 100 * MBIT, Time::ZERO);
            homes.look(after, |_| receives);
            assert_eq!(counts(&homes, 2), before, "{stripes}");
        }
    }
}
