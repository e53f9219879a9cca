//! The scenario table in the virtual WAN: what the product's links and engines make of each.
//!
//! `cargo test -p distributary-tests --release --test scenarios -- --nocapture` prints the figures;
//! `lab run` has them beside those of real processes.

use distributary_tests::fleet;
use distributary_tests::scenario::scenarios;

/// What the base's queue may drop of all packets.
const DROPPED_MAX: f64 = 0.01;
/// The same for a queue of 17 packets, into which three connections of one process send at the
/// same ticks of its clock: more than a queue should (docs/BENCHMARKS.md), and 14 % before flows
/// asked whether less is lost when less is sent.
const DROPPED_MAX_SHALLOW: f64 = 0.08;
/// Bytes of IP packets over what content alone would take, where nothing is lost on the way.
const WIRE_MAX: f64 = 1.15;

#[test]
fn every_site_of_every_scenario_gets_everything() {
    for scenario in scenarios() {
        let outcome = fleet::run_scenario(1, &scenario);
        let up = outcome.base_up.unwrap();
        let dropped = up.queue_dropped as f64 / up.offered as f64;
        let content = scenario.bytes * scenario.nodes.len() as u64;
        let wire = up.delivered_bytes as f64 / content as f64;
        let took = outcome.took.values().map(|took| format!("{:.2}", took.as_secs_f64()));
        let took = took.collect::<Vec<_>>().join(" ");
        let name = scenario.name;
        println!("{name:16} {took:40} s, wire {wire:.3}, dropped {:.2} %", dropped * 100.0);
        let most = if name == "shallow" { DROPPED_MAX_SHALLOW } else { DROPPED_MAX };
        assert!(dropped <= most, "{name}: {dropped}");
        assert!(wire <= WIRE_MAX, "{name}: {wire}");
    }
}
