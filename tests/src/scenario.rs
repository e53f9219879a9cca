//! The scenario table: what a fleet meets on a WAN, as data. The lab runs it with real processes,
//! the virtual WAN with the product's engines in virtual time.
//!
//! A base, one client beside it, and some nodes. All that the base sends shares its uplink; each
//! node is joined to it by a path of its own and may have an access link ([`crate::link::topology`]).
//! The base stands in the middle: the way from one node to another is the path of the one and then
//! that of the other.

use std::time::Duration;

use crate::link::LinkSpec;

/// The path between the client and the base.
pub const CLIENT: &str = "2ms 100Mbit 256KiB-queue";

/// One fleet, what it is given, and what happens to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// A word or some, unique.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// The base's uplink.
    pub base_up: &'static str,
    /// The nodes.
    pub nodes: Vec<Site>,
    /// Bytes of the file that each node is to get.
    pub bytes: u64,
    /// What changes, and when, counted from the push.
    pub events: Vec<(Duration, Event)>,
}

/// Where a node is.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The path to the base, each way.
    pub path: &'static str,
    /// All that it sends.
    pub up: &'static str,
    /// All that it receives.
    pub down: &'static str,
}

/// Something that changes.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The path between the base and a node, each way, and with it those to the other nodes.
    Path(usize, &'static str),
}

/// A link that has no limit.
pub const FREE: &str = "0ms";

const fn site(path: &'static str, down: &'static str) -> Site {
    Site { path, up: FREE, down }
}

/// `words` of this table as a link.
///
/// # Panics
/// If they are none; a test reads them all.
#[must_use]
#[expect(clippy::panic, reason = "the words are part of this file")]
pub fn link(words: &str) -> LinkSpec {
    words.parse().unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

const MB: u64 = 1_000_000;

/// All scenarios.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    [alike(), uneven(), changing()].concat()
}

fn steady(
    name: &'static str,
    about: &'static str,
    base_up: &'static str,
    nodes: Vec<Site>,
    megabytes: u64,
) -> Scenario {
    Scenario { name, about, base_up, nodes, bytes: megabytes * MB, events: Vec::new() }
}

/// Those of which all sites are alike.
fn alike() -> Vec<Scenario> {
    vec![
        steady(
            "clean",
            "three near sites, nothing is lost",
            "100Mbit 250000B-queue",
            vec![site("10ms", FREE); 3],
            25,
        ),
        steady(
            "good WAN",
            "sites at 20 to 80 ms, one packet of 10,000 is lost",
            "100Mbit 500000B-queue",
            vec![
                site("10ms 0.01%-loss", "50Mbit 256KiB-queue"),
                site("20ms 1ms-jitter 0.01%-loss", "50Mbit 256KiB-queue"),
                site("40ms 2ms-jitter 0.01%-loss", "50Mbit 256KiB-queue"),
            ],
            25,
        ),
        steady(
            "lossy",
            "2 % of the packets are lost at random",
            "100Mbit 500000B-queue",
            vec![site("25ms 2%-loss", FREE); 2],
            30,
        ),
        steady(
            "bursty",
            "loss in bursts of five packets",
            "100Mbit 500000B-queue",
            vec![site("25ms ge(0.1%,20%)-loss", FREE); 2],
            30,
        ),
        steady(
            "bloated",
            "an uplink whose queue holds two seconds",
            "20Mbit 2s-queue",
            vec![site("20ms", FREE); 2],
            12,
        ),
        steady(
            "shallow",
            "an uplink whose queue holds 17 packets",
            "100Mbit 25000B-queue",
            vec![site("10ms", FREE); 3],
            25,
        ),
        steady(
            "long and fat",
            "100 Mbit/s over 300 ms",
            "100Mbit 1MiB-queue",
            vec![site("150ms", FREE)],
            60,
        ),
        steady(
            "reordering",
            "jitter of 5 ms that changes the order",
            "50Mbit 500000B-queue",
            vec![site("20ms 5ms-jitter jitter-reorders", FREE); 2],
            20,
        ),
    ]
}

/// Those whose sites differ, or whose ways there and back do.
fn uneven() -> Vec<Scenario> {
    vec![
        steady(
            "asymmetric",
            "sites that send 50 times slower than they receive",
            "100Mbit 500000B-queue",
            vec![Site { path: "20ms", up: "1Mbit 50ms-queue", down: "50Mbit 256KiB-queue" }; 2],
            25,
        ),
        steady(
            "one slow node",
            "three sites with 30 Mbit/s and one with 2",
            "100Mbit 500000B-queue",
            vec![
                site("15ms", "30Mbit 256KiB-queue"),
                site("15ms", "30Mbit 256KiB-queue"),
                site("15ms", "30Mbit 256KiB-queue"),
                site("15ms", "2Mbit 64KiB-queue"),
            ],
            10,
        ),
        steady(
            "heterogeneous",
            "sites from 5 to 50 Mbit/s, 10 to 240 ms, 0 to 1 % loss",
            "100Mbit 1MiB-queue",
            vec![
                site("5ms", "50Mbit 256KiB-queue"),
                site("20ms 0.1%-loss", "20Mbit 256KiB-queue"),
                site("60ms 1ms-jitter 0.5%-loss", "20Mbit 256KiB-queue"),
                site("120ms 5ms-jitter 1%-loss", "10Mbit 128KiB-queue"),
                site("40ms 3ms-jitter", "5Mbit 64KiB-queue"),
            ],
            10,
        ),
    ]
}

/// Those that change while they run.
fn changing() -> Vec<Scenario> {
    const PATH: &str = "20ms";
    const CUT: &str = "20ms down";
    let after = Duration::from_millis;
    let flaps = (0..4).flat_map(|turn| {
        let at = 1_000 + 3_000 * turn;
        [(after(at), Event::Path(0, CUT)), (after(at + 1_000), Event::Path(0, PATH))]
    });
    let at_both = |at, path| [0, 1].map(|node| (after(at), Event::Path(node, path)));
    vec![
        Scenario {
            name: "flapping",
            about: "one of two sites is cut off for a second, four times",
            base_up: "20Mbit 250000B-queue",
            nodes: vec![site(PATH, FREE); 2],
            bytes: 15 * MB,
            events: flaps.collect(),
        },
        Scenario {
            name: "split",
            about: "two of three sites are cut off for 14 seconds",
            base_up: "20Mbit 250000B-queue",
            nodes: vec![site(PATH, FREE); 3],
            bytes: 15 * MB,
            events: [at_both(2_000, CUT), at_both(16_000, PATH)].concat(),
        },
        Scenario {
            name: "growing delay",
            about: "a path of 20 ms becomes one of 80, then 20 again",
            base_up: "50Mbit 500000B-queue",
            nodes: vec![site("10ms", FREE)],
            bytes: 40 * MB,
            events: vec![
                (after(2_000), Event::Path(0, "40ms")),
                (after(5_000), Event::Path(0, "10ms")),
            ],
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_can_be_read() {
        let all = scenarios();
        for scenario in &all {
            let _ = link(scenario.base_up);
            for site in &scenario.nodes {
                let _ = [site.path, site.up, site.down].map(link);
            }
            for (_, Event::Path(node, words)) in &scenario.events {
                assert!(*node < scenario.nodes.len(), "{}", scenario.name);
                let _ = link(words);
            }
            assert!(scenario.events.is_sorted_by_key(|(at, _)| *at), "{}", scenario.name);
        }
        let names: BTreeSet<_> = all.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all.len());
    }
}
