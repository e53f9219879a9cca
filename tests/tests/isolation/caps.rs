//! Caps that roles and jobs are told to keep, and what a base learns of its uplink.

use std::time::Duration;

use distributary_tests::fleet::{self, Caps, Outcome, Plan, Push};

const MBIT: u64 = 1_000_000;
/// How far a rate may be from its cap, as a share.
const OFF_MAX: f64 = 0.05;
/// Bytes of IP packets for each byte of content.
const WIRE: f64 = 1.046;
const FAST: &str = "20ms 100Mbit 512KiB-queue";

/// Jobs of so many bytes to `nodes` nodes each, at once.
fn plan(link: &'static str, nodes: usize, jobs: u8, bytes: u64, caps: Caps) -> Plan {
    let push = |number| Push {
        number,
        client: 0,
        to: (0..nodes).collect(),
        bytes,
        at: Duration::ZERO,
        source_bps: None,
        ..Push::default()
    };
    let jobs = (1..=jobs).map(push).collect();
    Plan { clients: vec![FAST], nodes: vec![link; nodes], jobs, caps, ..Plan::default() }
}

fn run(plan: &Plan) -> Outcome {
    let awaited = plan.jobs.iter().flat_map(|push| push.to.iter().map(|node| (push.number, *node)));
    fleet::run(1, plan, &awaited.collect())
}

/// The rate of `bytes` that all were there when the last job was complete.
fn rate(outcome: &Outcome, bytes: u64) -> f64 {
    let took = outcome.took.values().max().unwrap().as_secs_f64();
    bytes as f64 * 8.0 / took
}

fn assert_kept(what: &str, rate: f64, cap: u64) {
    let off = rate / cap as f64 - 1.0;
    println!("{what}: {:.3} of {} Mbit/s", rate / 1e6, cap / MBIT);
    assert!(off.abs() <= OFF_MAX, "{what}: {rate:.0} bit/s where {cap} is the cap");
}

#[test]
fn a_job_keeps_its_rate_on_each_uplink() {
    for cap in [2 * MBIT, 20 * MBIT, 60 * MBIT] {
        let bytes = cap / 8 * 20;
        let caps = Caps { job: Some(cap), ..Caps::default() };
        assert_kept("one receiver", rate(&run(&plan(FAST, 1, 1, bytes, caps)), bytes), cap);
        let bytes = bytes / 4;
        let four = run(&plan(FAST, 4, 1, bytes, caps));
        assert_kept("four receivers", rate(&four, 4 * bytes), cap);
    }
}

#[test]
fn a_base_keeps_its_uplink_whatever_it_sends_to_whom() {
    for cap in [3 * MBIT, 30 * MBIT] {
        let caps = Caps { base_uplink: Some(cap), ..Caps::default() };
        for (nodes, jobs) in [(1, 1), (4, 1), (3, 2)] {
            let bytes = cap / 8 * 20 / (nodes as u64 * u64::from(jobs));
            let outcome = run(&plan(FAST, nodes, jobs, bytes, caps));
            let all = bytes * nodes as u64 * u64::from(jobs);
            let what = format!("{nodes} nodes, {jobs} jobs");
            assert_kept(&what, WIRE * rate(&outcome, all), cap);
            assert_eq!(outcome.uplink, Some(cap));
            let first = outcome.took.values().min().unwrap().as_secs_f64();
            let last = outcome.took.values().max().unwrap().as_secs_f64();
            assert!(first > 0.7 * last, "{what}: one after {first:.1} s, one after {last:.1} s");
        }
    }
}

#[test]
fn a_node_keeps_its_downlink() {
    for cap in [3 * MBIT, 30 * MBIT] {
        let caps = Caps { node_downlink: Some(cap), ..Caps::default() };
        let bytes = cap / 8 * 10;
        let outcome = run(&plan(FAST, 1, 2, bytes, caps));
        assert_kept("two jobs", WIRE * rate(&outcome, 2 * bytes), cap);
    }
}

#[test]
fn a_base_learns_what_its_uplink_carries() {
    let outcome = run(&plan("20ms 20Mbit 128KiB-queue", 3, 1, 25_000_000, Caps::default()));
    let learnt = outcome.uplink.unwrap() as f64 / MBIT as f64;
    println!("learnt {learnt:.1} Mbit/s of 60");
    assert!((57.0..=63.0).contains(&learnt), "{learnt} Mbit/s");
}
