//! Several jobs on the same uplinks, in the virtual WAN: live streams are in time beside file
//! jobs, file jobs go by priority, and none starves.
//!
//! `cargo test -p distributary-tests --release --test jobs -- --nocapture` prints the figures.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what is wrong ends the test")]

use std::time::Duration;

use distributary_tests::figures::{by_hand, median};
use distributary_tests::fleet::{self, CHUNK, Event, Mesh, Outcome, Plan, Push};
use shared::job::Kind;

const CLIENT: &str = "1ms";
const LINK: &str = "20Mbit 200000B-queue";
const PATH: &str = "20ms";
const MB: u64 = 1_000_000;

/// Jobs over nodes with an access link each, at the same distance from each other.
fn plan(nodes: usize, clients: usize, stripes: u8, jobs: Vec<Push>) -> Plan {
    Plan {
        clients: vec![CLIENT; clients],
        nodes: vec![PATH; nodes],
        jobs,
        base_up: LINK,
        node_access: vec![(LINK, LINK); nodes],
        mesh: Some(Mesh { stripes, path: PATH, ..Mesh::default() }),
        ..Plan::default()
    }
}

fn push(number: u8, nodes: usize, bytes: u64) -> Push {
    let at = Duration::from_secs(1);
    Push { number, to: (0..nodes).collect(), bytes, at, ..Push::default() }
}

fn run(plan: &Plan) -> Outcome {
    run_with(1, plan)
}

fn run_with(seed: u64, plan: &Plan) -> Outcome {
    let to = plan.jobs.iter().flat_map(|push| push.to.iter().map(|node| (push.number, *node)));
    fleet::run(seed, plan, &to.collect())
}

/// One seed says little of who is late. More with `SEEDS`.
fn seeds() -> std::ops::RangeInclusive<u64> {
    1..=by_hand("SEEDS", 8)
}

/// When the last node had each job, from its beginning, seconds.
fn last(outcome: &Outcome, job: u8) -> f64 {
    let took = outcome.took.iter().filter(|((number, _), _)| *number == job);
    took.map(|(_, took)| took.as_secs_f64()).fold(0.0, f64::max)
}

/// How long chunks of the first job, which is a live one, took from its source to each node:
/// median and p99, milliseconds.
fn delays(outcome: &Outcome, push: &Push) -> (f64, f64) {
    let chunk = Duration::from_secs(8) * CHUNK / u32::try_from(push.source_bps.unwrap()).unwrap();
    let due = |number: usize| push.at + chunk * u32::try_from(number).unwrap();
    let mut delays: Vec<f64> = (1..=push.to.len())
        .flat_map(|place| outcome.arrivals(place).into_iter().enumerate())
        .map(|(number, at)| at.saturating_sub(due(number)).as_secs_f64() * 1e3)
        .collect();
    delays.sort_by(f64::total_cmp);
    let at = |percent: usize| delays[(delays.len() * percent / 100).min(delays.len() - 1)];
    (at(50), at(99))
}

#[test]
fn a_live_stream_is_in_time_beside_file_jobs() {
    let (nodes, clients) = (4, 4);
    let source_bps = Some(2_000_000);
    let live = Push { kind: Kind::Live, source_bps, ..push(1, nodes, 5 * MB) };
    let alone = run(&plan(nodes, clients, 4, vec![live.clone()]));
    let (p50, p99) = delays(&alone, &live);
    println!("alone: live p50 {p50:.0} p99 {p99:.0} ms");
    let at = Duration::from_secs(4);
    let files = (2..5).map(|number| Push {
        client: usize::from(number) - 1,
        at,
        ..push(number, nodes, 12 * MB)
    });
    let jobs: Vec<Push> = [live.clone()].into_iter().chain(files).collect();
    let beside = plan(nodes, clients, 4, jobs);
    let (mut medians, mut worst, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for seed in seeds() {
        let beside = run_with(seed, &beside);
        let (p50, p99) = delays(&beside, &live);
        let files: Vec<f64> = (2..5).map(|number| last(&beside, number)).collect();
        println!("beside three file jobs: live p50 {p50:.0} p99 {p99:.0} ms, files {files:.1?} s");
        if p50 > 150.0 || p99 > 700.0 || files.iter().any(|took| *took > 24.0) {
            failed.push((seed, p50, p99, files));
        }
        medians.push(p50);
        worst.push(p99);
    }
    let (p50, p99) = (median(medians), median(worst));
    println!("median of all: p50 {p50:.0} p99 {p99:.0} ms");
    assert!(failed.is_empty(), "seed, ms, ms, s: {failed:.1?}");
    assert!(p50 <= 130.0 && p99 <= 500.0, "late by {p50:.0}, {p99:.0} ms");
}

#[test]
fn the_job_of_higher_priority_is_first() {
    let nodes = 4;
    let alone = run(&plan(nodes, 1, 4, vec![push(1, nodes, 12 * MB)]));
    let two = |number, priority| Push {
        client: usize::from(number) - 1,
        priority,
        ..push(number, nodes, 12 * MB)
    };
    let alone = last(&alone, 1);
    let both = plan(nodes, 2, 4, vec![two(1, 8), two(2, 2)]);
    let (mut of_first, mut of_second) = (0.0, 0.0);
    for seed in seeds() {
        let both = run_with(seed, &both);
        let (first, second) = (last(&both, 1), last(&both, 2));
        println!("alone {alone:.2} s; priority 8 {first:.2} s, priority 2 {second:.2} s");
        assert!(second <= 2.2 * alone, "{second} s");
        of_first += first;
        of_second += second;
    }
    let ratio = of_first / of_second;
    println!("priority 8 takes {ratio:.2} of what priority 2 takes");
    assert!(ratio <= 0.87, "{ratio}");
}

#[test]
fn the_job_of_higher_priority_is_first_on_a_connection_whatever_is_known_of_the_uplink() {
    let of = |number: u8, priority| Push { priority, ..push(number, 1, 2 * MB) };
    let both = run(&plan(1, 1, 1, vec![of(1, 8), of(2, 2)]));
    let (first, second) = (last(&both, 1), last(&both, 2));
    println!("one connection: priority 8 {first:.2} s, priority 2 {second:.2} s");
    assert!(first <= 0.8 * second, "{first} s and {second} s");
}

#[test]
fn eight_clients_with_eight_jobs_each_are_served_by_eight_nodes() {
    let nodes = 8;
    let jobs = (0..64)
        .map(|number| Push { client: usize::from(number / 8), ..push(number + 1, nodes, MB / 8) });
    let outcome = run(&plan(nodes, 8, 8, jobs.collect()));
    let mut ends: Vec<f64> = (1..=64).map(|number| last(&outcome, number)).collect();
    ends.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "bytes of a test")]
    let copies = outcome.base_sent as f64 / (8 * MB) as f64;
    let (median, last) = (ends[32], ends[63]);
    println!("64 jobs: median {median:.1} last {last:.1} s, {copies:.2} copies");
    assert!(last <= 2.0 * median, "{ends:?}");
}

/// A peer may have 32 job streams open at first. The source of a job that its receiver has
/// dropped has nothing to send, and is not over.
#[test]
fn jobs_that_a_node_has_dropped_keep_no_room_from_others() {
    let at = |number: u8| Duration::from_secs(1) + Duration::from_millis(400) * u32::from(number);
    let last = 40;
    let jobs = (1..=last).map(|number| Push { at: at(number), ..push(number, 1, MB / 20) });
    let dropped = |number| (at(number) + Duration::from_millis(300), Event::Drop(number, 0));
    let events = (1..last).map(dropped).collect();
    let plan = Plan { events, ..plan(1, 1, 1, jobs.collect()) };
    let outcome = fleet::run(1, &plan, &[(last, 0)].into());
    assert!(self::last(&outcome, last) < 1.0, "{:?}", outcome.took);
}
