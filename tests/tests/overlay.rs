//! Nodes that feed each other, in the virtual WAN.
//!
//! `cargo test -p distributary-tests --release --test overlay -- --nocapture` prints the figures.

#![expect(clippy::unwrap_used, reason = "what is wrong ends the test")]

#[cfg(test)]
#[path = "overlay/deaths.rs"]
mod deaths;
#[cfg(test)]
#[path = "overlay/live.rs"]
mod live;

use std::time::Duration;

use distributary_tests::figures::by_hand;
use distributary_tests::fleet::{self, Event, Mesh, Outcome, Plan, Push};

const CLIENT: &str = "1ms";
const LINK: &str = "20Mbit 200000B-queue";
const LINK_BPS: f64 = 20e6;
const PATH: &str = "20ms";
const CUT: &str = "20ms 100%-loss";
const BYTES: u64 = 25_000_000;

/// One job to nodes with an access link each, at the same distance from each other.
fn plan(nodes: usize, bytes: u64, stripes: u8) -> Plan {
    let push = Push {
        number: 1,
        client: 0,
        to: (0..nodes).collect(),
        bytes,
        at: Duration::from_secs(1),
        source_bps: None,
        ..Push::default()
    };
    Plan {
        clients: vec![CLIENT],
        nodes: vec![PATH; nodes],
        jobs: vec![push],
        base_up: LINK,
        node_access: vec![(LINK, LINK); nodes],
        mesh: Some(Mesh { stripes, path: PATH, ..Mesh::default() }),
        ..Plan::default()
    }
}

/// Runs `plan` until all nodes but `but` have everything.
fn run(plan: &Plan, but: &[usize]) -> Outcome {
    run_seed(1, plan, but)
}

fn run_seed(seed: u64, plan: &Plan, but: &[usize]) -> Outcome {
    let to = plan.jobs.iter().flat_map(|push| push.to.iter().map(|node| (push.number, *node)));
    fleet::run(seed, plan, &to.filter(|(_, node)| !but.contains(node)).collect())
}

fn last(outcome: &Outcome) -> f64 {
    outcome.took.values().max().unwrap().as_secs_f64()
}

fn copies(outcome: &Outcome, bytes: u64) -> f64 {
    outcome.base_sent as f64 / bytes as f64
}

/// Seeds of each row.
fn seeds(usual: u64) -> u64 {
    by_hand("SEEDS", usual)
}

#[test]
fn about_one_copy_leaves_the_base_and_eight_nodes_do_the_rest() {
    // The base's uplink and each downlink carry one copy in this time, all uplinks together eight.
    let bound = BYTES as f64 * 8.0 / LINK_BPS;
    let mut longest = 0.0_f64;
    for seed in 1..=3 {
        let outcome = run_seed(seed, &plan(8, BYTES, 8), &[]);
        let (took, copies) = (last(&outcome) / bound, copies(&outcome, BYTES));
        println!("8 nodes, 8 stripes: {took:.2} of the bound, {copies:.3} copies");
        assert!(copies <= 1.15, "{copies} copies left the base");
        assert!(took <= 1.4, "{took} of the bound");
        longest = longest.max(last(&outcome));
    }
    // A fourth of it takes a star longer.
    let star = run(&Plan { mesh: None, ..plan(8, BYTES / 4, 1) }, &[]);
    println!("a star: {:.2} of the bound", 4.0 * last(&star) / bound);
    assert!(last(&star) > longest, "{} beside {longest}", last(&star));
}

#[test]
fn nodes_that_a_node_stops_feeding_go_on_with_others() {
    let plain = last(&run(&plan(8, BYTES, 8), &[]));
    let frozen = vec![(Duration::from_secs(5), Event::Freeze(3))];
    let outcome = run(&Plan { events: frozen, ..plan(8, BYTES, 8) }, &[3]);
    println!("one of 8 stops: {:.2} s, {plain:.2} s if none does", last(&outcome));
    assert!(last(&outcome) <= 1.6 * plain, "{} s, {plain} s without", last(&outcome));
}

#[test]
fn nodes_finish_among_themselves_when_the_base_is_away() {
    // The base sends faster than nodes can: all has left it early, a part to each.
    let plan = Plan { base_up: "80Mbit 800000B-queue", ..plan(4, BYTES / 2, 4) };
    let whole = run(&plan, &[]);
    let gone = |(at, _): &(Duration, Vec<u64>)| at.as_secs_f64() >= 1.0 + 0.7 * last(&whole);
    let (at, there) = whole.progress.iter().find(|look| gone(look)).unwrap();
    assert!(there.iter().all(|bytes| *bytes < BYTES / 2), "{there:?} at {at:?}");
    let cut = (0..4).map(|node| (*at, Event::Link(node, CUT))).collect();
    let outcome = run(&Plan { events: cut, ..plan }, &[]);
    println!("{there:?} at {at:?}; all in {:.2} s", last(&outcome));
}

#[test]
fn a_hundred_nodes_complete_a_small_job() {
    let (nodes, bytes) = (by_hand("NODES", 100) as usize, by_hand("BYTES", 1_000_000));
    let link = "100Mbit 1MiB-queue";
    let plan =
        Plan { base_up: link, node_access: vec![(link, link); nodes], ..plan(nodes, bytes, 16) };
    let outcome = run(&plan, &[]);
    println!("{nodes} nodes: {:.2} s, {:.3} copies", last(&outcome), copies(&outcome, bytes));
    assert!(copies(&outcome, bytes) <= 1.3, "{} copies left the base", copies(&outcome, bytes));
}
