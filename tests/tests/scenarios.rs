//! The scenario table in the virtual WAN: what the product's links and engines make of each.
//!
//! `cargo test -p distributary-tests --release --test scenarios -- --nocapture` prints the figures;
//! `lab run` has them beside those of real processes.

#![expect(clippy::unwrap_used, reason = "what is wrong ends the test")]

use std::thread;

use distributary_tests::figures::median;
use distributary_tests::fleet;
use distributary_tests::scenario::{Scenario, scenarios};

/// What the base's queue may drop of all packets.
const DROPPED_MAX: f64 = 0.01;
/// The same for a queue of 17 packets, into which three connections of one process send at the
/// same ticks of its clock: more than a queue should (docs/BENCHMARKS.md), and 14 % before flows
/// asked whether less is lost when less is sent.
const DROPPED_MAX_SHALLOW: f64 = 0.08;
/// Bytes of IP packets over what content alone would take, where nothing is lost on the way.
const WIRE_MAX: f64 = 1.15;

/// What one run lost at the base's queue, what it sent over what content alone would take, and how
/// long each node took.
fn measure(seed: u64, scenario: &Scenario) -> (f64, f64, String) {
    let outcome = fleet::run_scenario(seed, scenario);
    let up = outcome.base_up.unwrap();
    let dropped = up.queue_dropped as f64 / up.offered as f64;
    let content = scenario.bytes * scenario.nodes.len() as u64;
    let wire = up.delivered_bytes as f64 / content as f64;
    let took = outcome.took.values().map(|took| format!("{:.2}", took.as_secs_f64()));
    (dropped, wire, took.collect::<Vec<_>>().join(" "))
}

/// Runs of three seeds at once.
fn runs(scenario: &Scenario) -> [(f64, f64, String); 3] {
    thread::scope(|scope| {
        let runs = [1, 2, 3].map(|seed| scope.spawn(move || measure(seed, scenario)));
        runs.map(|run| run.join().unwrap())
    })
}

#[test]
fn every_site_of_every_scenario_gets_everything() {
    for scenario in scenarios() {
        let (runs, name) = (runs(&scenario), scenario.name);
        for (dropped, wire, took) in &runs {
            println!("{name:16} {took:40} s, wire {wire:.3}, dropped {:.2} %", dropped * 100.0);
        }
        let dropped = median(runs.iter().map(|run| run.0).collect());
        let wire = median(runs.iter().map(|run| run.1).collect());
        let most = if name == "shallow" { DROPPED_MAX_SHALLOW } else { DROPPED_MAX };
        assert!(dropped <= most, "{name}: {dropped}");
        assert!(wire <= WIRE_MAX, "{name}: {wire}");
    }
}
