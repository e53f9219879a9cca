//! Live streams: what a viewer at a node sees of a node that goes, and of paths that differ.

use std::time::Duration;

use distributary_tests::fleet::{Event, Outcome, Plan};

use super::{copies, plan, run_seed, seeds};

const NODES: usize = 4;
/// There and back between any two peers.
const ROUND_TRIP: Duration = Duration::from_millis(40);
/// How long a node may stand still when another one goes, beside a round trip.
const GAP: Duration = Duration::from_millis(500);
/// When a node goes: all have been fed for some seconds.
const AT: Duration = Duration::from_secs(4);
/// When a node has found the earlier of two sources, at the latest.
const LATER: Duration = Duration::from_secs(8);
/// The chunk of the fleet, in bits.
const CHUNK_BITS: u64 = 16 * 1024 * 8;

/// A stream of `per_second` chunks a second, for so many seconds.
fn stream(per_second: u64, seconds: u64) -> Plan {
    let mut plan = plan(NODES, per_second * seconds * CHUNK_BITS / 8, 1);
    plan.jobs[0].source_bps = Some(per_second * CHUNK_BITS);
    plan
}

/// How much later than at the base chunks came to a node.
fn delays(outcome: &Outcome, node: usize) -> Vec<Duration> {
    let (base, node) = (outcome.arrivals(0), outcome.arrivals(1 + node));
    base.iter().zip(&node).map(|(base, node)| node.saturating_sub(*base)).collect()
}

fn longest_delay(outcome: &Outcome, node: usize, since: Duration) -> Duration {
    let at_base = outcome.arrivals(0);
    let delays = at_base.into_iter().zip(delays(outcome, node));
    delays.filter(|(at, _)| *at >= since).map(|(_, delay)| delay).max().unwrap()
}

/// What came to nodes twice, as a share of all that is at them.
fn twice(outcome: &Outcome, bytes: u64) -> f64 {
    outcome.sent as f64 / (NODES as u64 * bytes) as f64 - 1.0
}

/// A node goes in each of these ways.
const WAYS: [fn(usize) -> Event; 3] = [Event::Freeze, Event::Cut, Event::Close];

/// How late a stream comes to the others when a node goes in some way at some time.
fn without((per_second, seconds): (u64, u64), gone: usize, seed: u64) {
    let mut plan = stream(per_second, seconds);
    let way = WAYS[seed as usize % WAYS.len()](gone);
    // At different moments between two chunks, and between two looks.
    plan.events = vec![(AT + Duration::from_millis(97 * seed % 1_000), way)];
    let outcome = run_seed(seed, &plan, &[gone]);
    let others = (0..NODES).filter(|node| *node != gone);
    let late = others.map(|node| longest_delay(&outcome, node, AT - GAP)).max().unwrap();
    let copies = copies(&outcome, plan.jobs[0].bytes);
    println!("{per_second} a second, {way:?}, seed {seed}: {late:?} late, {copies:.2} copies");
    assert!(late <= GAP + ROUND_TRIP, "{late:?} with {way:?}");
}

const RATES: [(u64, u64); 3] = [(30, 7), (10, 7), (1, 9)];

#[test]
fn a_live_stream_goes_on_when_the_node_that_feeds_the_others_goes() {
    for (rate, seed) in RATES.into_iter().flat_map(|rate| (1..=seeds(6)).map(move |s| (rate, s))) {
        without(rate, 0, seed);
    }
}

#[test]
fn a_live_stream_goes_on_when_another_node_goes() {
    for (rate, gone) in RATES.into_iter().flat_map(|rate| (1..NODES).map(move |n| (rate, n))) {
        without(rate, gone, gone as u64);
    }
}

#[test]
fn loss_gives_a_live_stream_no_other_source() {
    const LOSSY: &str = "20ms 1%-loss";
    for seed in 1..=seeds(3) {
        let mut plan = stream(30, 15);
        plan.nodes = vec![LOSSY; NODES];
        plan.mesh.iter_mut().for_each(|mesh| mesh.path = LOSSY);
        let (outcome, bytes) = (run_seed(seed, &plan, &[]), plan.jobs[0].bytes);
        let late = (0..NODES).map(|node| longest_delay(&outcome, node, AT)).max().unwrap();
        let (copies, twice) = (copies(&outcome, bytes), 100.0 * twice(&outcome, bytes));
        println!("1 % loss, seed {seed}: {late:?} late, {copies:.2} copies, {twice:.2} % twice");
        assert!(copies <= 1.3, "{copies} copies left the base");
        assert!(twice <= 0.5, "{twice} % came twice");
    }
}

#[test]
fn a_publisher_that_pauses_gives_nobody_another_source() {
    for (seed, pause) in (1..=seeds(2)).flat_map(|s| [200, 400, 3_000].map(|pause| (s, pause))) {
        let mut plan = stream(30, 8);
        plan.jobs[0].pauses =
            Some((Duration::from_secs(1), Duration::from_millis(pause + 33 * seed)));
        let (outcome, bytes) = (run_seed(seed, &plan, &[]), plan.jobs[0].bytes);
        let (copies, twice) = (copies(&outcome, bytes), 100.0 * twice(&outcome, bytes));
        println!("pauses of {pause} ms, seed {seed}: {copies:.2} copies, {twice:.2} % twice");
        assert!(copies <= 1.02, "{copies} copies left the base");
        assert!(twice <= 0.1, "{twice} % came twice");
    }
}

#[test]
fn a_node_whose_source_is_later_than_another_one_changes_to_that() {
    // The way from the home to the third node becomes long; the second one is near to both.
    for seed in 1..=seeds(3) {
        let mut plan = stream(30, 12);
        plan.nodes.truncate(3);
        plan.node_access.truncate(3);
        plan.jobs[0].to = vec![0, 1, 2];
        plan.events = vec![(AT, Event::Path(0, 2, "120ms"))];
        let (outcome, bytes) = (run_seed(seed, &plan, &[]), plan.jobs[0].bytes);
        let (longest, last) = (longest_delay(&outcome, 2, AT), longest_delay(&outcome, 2, LATER));
        let twice = (outcome.sent as f64 - 3.0 * bytes as f64) * 8.0 / CHUNK_BITS as f64;
        println!("seed {seed}: {longest:?} late, then {last:?}; {twice} chunks twice");
        assert!(longest >= Duration::from_millis(120), "it was not fed by the home");
        assert!(last <= Duration::from_millis(110), "{last:?}");
        // What was on the long way when its sender learnt where to stop.
        assert!(twice <= 4.0, "{twice} chunks came twice");
        assert!(copies(&outcome, bytes) <= 1.05);
    }
}
