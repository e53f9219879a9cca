//! Topologies as data: what the base and its nodes carry, and what lies between them.
//!
//! Three families, each drawn by a seed:
//!
//! | | base | nodes, up | nodes, down | paths |
//! |---|---|---|---|---|
//! | `homog` | 100 Mbit/s | 100 Mbit/s | 100 Mbit/s | 50 ms round trip |
//! | `upl` | 100 Mbit/s | 20, 50, 100, 200 Mbit/s (30, 40, 20, 10 %) | 250 Mbit/s | 50 ms round trip |
//! | `wan` | 200 Mbit/s | 50, 100, 250, 500, 1,000 Mbit/s (15, 30, 30, 15, 10 %) | 250 Mbit/s, or as up if that is more | five continents; 1 ms in a site, 20 to 50 ms in a continent, 90 to 300 ms between two; each pair carries a lognormal rate with the median 2,000, 400 or 80 Mbit/s |

use std::time::Duration;

use crate::sim::chance::Chance;

/// Of 1,000 bytes of content, how many go over the wire as IP packets: 1,452 bytes of UDP payload
/// carry about 1,415 of a stream.
pub(crate) const WIRE_PER_THOUSAND: u64 = 1_046;
/// Queue of an access link, at its rate.
pub const ACCESS_QUEUE: Duration = Duration::from_millis(80);
/// Queue of a path that has a rate, at its rate: a link's without a word for it.
pub const PATH_QUEUE: Duration = Duration::from_millis(100);

const CONTINENTS: u64 = 5;
const MBIT: f64 = 1e6;

/// A family of topologies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Everybody has the same link.
    Homog,
    /// Uplinks are what is scarce.
    Upl,
    /// Sites on five continents.
    Wan,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Homog, Self::Upl, Self::Wan];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Homog => "homog",
            Self::Upl => "upl",
            Self::Wan => "wan",
        }
    }
}

/// A host: the base is the one with number 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Site {
    /// What it can send, bits per second of IP packets.
    pub up_bps: f64,
    /// What it can receive.
    pub down_bps: f64,
    continent: u64,
    site: u64,
}

/// What lies between two hosts, besides their access links.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// One way.
    pub delay: Duration,
    /// What it carries, if that is limited.
    pub cap_bps: Option<f64>,
}

/// A base, its nodes and the paths between them.
#[derive(Clone, Debug)]
pub struct Topology {
    /// What it was drawn from.
    pub family: Family,
    /// What it was drawn with.
    pub seed: u64,
    /// The base, then the nodes.
    pub sites: Vec<Site>,
    /// By what all rates were divided.
    divided_by: f64,
}

impl Topology {
    /// A topology of `nodes` nodes whose rates are a `divided_by`th of the family's.
    #[must_use]
    pub fn draw(family: Family, nodes: usize, seed: u64, divided_by: u32) -> Self {
        let mut chance = Chance::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(family as u64));
        let divided_by = f64::from(divided_by.max(1));
        let places = 5.max(nodes as u64 / 8);
        let mut site = |place: usize| {
            let (up, down) = match (family, place) {
                (Family::Homog, _) => (100.0, 100.0),
                (Family::Upl, 0) => (100.0, 250.0),
                (Family::Upl, _) => (drawn(&mut chance, &UPL), 250.0),
                (Family::Wan, 0) => (200.0, 250.0),
                (Family::Wan, _) => {
                    let up = drawn(&mut chance, &WAN);
                    (up, up.max(250.0))
                }
            };
            let site = chance.next() % places;
            Site {
                up_bps: up * MBIT / divided_by,
                down_bps: down * MBIT / divided_by,
                continent: site % CONTINENTS,
                site,
            }
        };
        let sites = (0..=nodes).map(&mut site).collect();
        Self { family, seed, sites, divided_by }
    }

    /// Nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.sites.len().saturating_sub(1)
    }

    /// What the nodes can send, whole bits per second.
    #[must_use]
    pub fn uplinks(&self) -> Vec<u64> {
        self.sites.iter().skip(1).map(|site| site.up_bps as u64).collect()
    }

    /// What lies between two hosts; the same both ways.
    #[must_use]
    pub fn path(&self, one: usize, other: usize) -> Path {
        let ends = self.sites.get(one).zip(self.sites.get(other));
        let Some((a, b)) = ends.filter(|_| self.family == Family::Wan) else {
            return Path { delay: Duration::from_millis(25), cap_bps: None };
        };
        let mut of_pair = self.chance_of(one.min(other) as u64, one.max(other) as u64, 1);
        let (round_trip, median) = if a.site == b.site {
            (1.0, 2_000.0)
        } else if a.continent == b.continent {
            (20.0 + 30.0 * unit(&mut of_pair), 400.0)
        } else {
            let ends = (a.continent.min(b.continent), a.continent.max(b.continent));
            let mut of_continents = self.chance_of(ends.0, ends.1, 2);
            let between = 90.0 + 210.0 * unit(&mut of_continents);
            (between * (0.6 + 0.8 * unit(&mut of_pair)), 80.0)
        };
        let cap = median * (0.8 * normal(&mut of_pair)).exp() * MBIT / self.divided_by;
        Path { delay: Duration::from_secs_f64(round_trip / 2_000.0), cap_bps: Some(cap) }
    }

    fn chance_of(&self, one: u64, other: u64, what: u64) -> Chance {
        let mut chance = Chance::new(self.seed.wrapping_mul(1_000_003).wrapping_add(what));
        let mixed = chance.next() ^ (one << 32 | other);
        let mut chance = Chance::new(mixed);
        chance.next();
        chance
    }

    /// The shortest time in which every node can have `bytes`, as the fluid bound says: one copy
    /// through the base's uplink and through each downlink, all copies through all uplinks (Kumar
    /// and Ross, "Peer-assisted file distribution: the minimum distribution time", 2006). Of the
    /// paths between hosts it knows nothing.
    #[must_use]
    pub fn bound(&self, bytes: u64) -> Duration {
        let bits = bytes as f64 * 8.0;
        let base = self.sites.first().map_or(1.0, |base| base.up_bps);
        let nodes = self.sites.get(1..).unwrap_or_default();
        let slowest = nodes.iter().map(|node| node.down_bps).fold(f64::MAX, f64::min);
        let all: f64 = self.sites.iter().map(|site| site.up_bps).sum();
        let bound = (bits / base).max(bits / slowest).max(nodes.len() as f64 * bits / all);
        Duration::from_secs_f64(bound)
    }

    /// The rate at which a job can reach all nodes, as the base tells it when it knows all
    /// uplinks, bits per second.
    #[must_use]
    pub fn target_bps(&self) -> u64 {
        let base = self.sites.first().map_or(0.0, |base| base.up_bps);
        let all: f64 = self.sites.iter().map(|site| site.up_bps).sum();
        let target = (all / self.nodes().max(1) as f64).min(base) * 0.9;
        target as u64
    }
}

const UPL: [(u64, f64); 4] = [(30, 20.0), (40, 50.0), (20, 100.0), (10, 200.0)];
const WAN: [(u64, f64); 5] = [(15, 50.0), (30, 100.0), (30, 250.0), (15, 500.0), (10, 1_000.0)];

/// One of some values, each with its chance in percent.
fn drawn(chance: &mut Chance, values: &[(u64, f64)]) -> f64 {
    let mut at = chance.next() % 100;
    for (percent, value) in values {
        if at < *percent {
            return *value;
        }
        at -= percent;
    }
    values.last().map_or(1.0, |(_, value)| *value)
}

/// Evenly from 0 to 1.
fn unit(chance: &mut Chance) -> f64 {
    (chance.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// Normal with mean 0 and deviation 1 (Box and Muller).
pub(crate) fn normal(chance: &mut Chance) -> f64 {
    let radius = (-2.0 * (1.0 - unit(chance)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(chance)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_greatest_of_its_three_terms() {
        let even = Topology::draw(Family::Homog, 8, 1, 1);
        assert_eq!(even.bound(100_000_000), Duration::from_secs(8));
        let scarce = Topology::draw(Family::Upl, 32, 1, 1);
        let all: f64 = scarce.sites.iter().map(|site| site.up_bps).sum();
        let bound = scarce.bound(100_000_000).as_secs_f64();
        assert!((bound - 32.0 * 8e8 / all).abs() < 1e-6, "{bound}");
        assert!(bound > 8.0, "uplinks are what is scarce");
        let eighth = Topology::draw(Family::Upl, 32, 1, 8);
        assert!((eighth.bound(12_500_000).as_secs_f64() - bound).abs() < 1e-6);
    }

    #[test]
    fn paths_are_drawn_by_the_seed_and_the_same_both_ways() {
        let draw = |seed| Topology::draw(Family::Wan, 32, seed, 1);
        let (one, again, other) = (draw(1), draw(1), draw(2));
        assert_eq!(one.sites, again.sites);
        assert_ne!(one.sites, other.sites);
        let pairs = (0..33).flat_map(|a| (0..a).map(move |b| (a, b)));
        let mut caps: Vec<f64> = Vec::new();
        for (a, b) in pairs {
            assert_eq!(one.path(a, b), again.path(b, a));
            assert!(one.path(a, b).delay <= Duration::from_millis(210));
            caps.extend(one.path(a, b).cap_bps);
        }
        caps.sort_by(f64::total_cmp);
        let median = caps[caps.len() / 2] / 1e6;
        assert!((60.0..160.0).contains(&median), "{median} Mbit/s: most are between continents");
    }
}
