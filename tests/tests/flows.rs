//! The congestion controller with real quinn in exact virtual time, at cells of the table that
//! its benchmark runs whole (`cargo bench -p distributary-tests --bench congestion`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use distributary_tests::flows::{
    Flow, Report, Scenario,
    cell::{Cell, GOODPUT_PART, Sender, cells, judge},
    run,
};
use shared_io::transport::Congestion;

fn cell(name: &str) -> Cell {
    cells(Sender::Shallow).unwrap().into_iter().find(|cell| cell.name == name).unwrap()
}

fn report(cell: &Cell, seed: u64) -> Report {
    run(&Scenario::of(cell, seed)).unwrap()
}

fn assert_holds(name: &str) {
    let cell = cell(name);
    let failed = judge(&cell, &report(&cell, 1));
    assert!(failed.is_empty(), "{name}: {failed:?}");
}

#[test]
fn one_flow_fills_a_clean_link_and_drops_nothing() {
    assert_holds("100 ms, 0 % loss, queue 1 BDP");
}

#[test]
fn one_flow_fills_a_link_that_loses_packets_and_has_a_shallow_queue() {
    assert_holds("20 ms, 5 % loss, queue 0.1 BDP");
    assert_holds("200 ms, 1 % loss, queue 0.1 BDP");
}

#[test]
fn eight_flows_share_a_queue_of_seventeen_packets() {
    assert_holds("8 flows, 20 ms, queue 0.1 BDP");
}

#[test]
fn who_comes_late_gets_its_share() {
    assert_holds("the second 5 s later, 50 ms");
}

#[test]
fn who_is_far_away_gets_its_share() {
    assert_holds("20 and 100 ms");
}

#[test]
fn beside_cubic_nobody_starves() {
    assert_holds("beside tcp cubic, 50 ms, queue 1 BDP");
    assert_holds("beside tcp cubic, 50 ms, queue 4 BDP");
}

#[test]
fn jitter_is_not_taken_for_a_queue() {
    assert_holds("jitter 5 ms, in order, 40 ms");
    assert_holds("jitter 5 ms both ways, in order, 40 ms");
    assert_holds("jitter 5 ms, reordering, 40 ms");
}

#[test]
fn a_path_that_changes_is_followed() {
    assert_holds("the rate halves");
    assert_holds("from 20 to 80 ms");
    assert_holds("from 20 to 24 ms");
    assert_holds("from 100 to 112 ms");
}

/// Flows over access links of 20 Mbit/s with queues of 80 ms, 40 ms of round trip. Those that
/// return send through the other one of the two links.
fn over_access_links(forth: usize, returning: usize, congestion: Congestion) -> Scenario {
    let link = "20Mbit 200000B-queue";
    let path = "20ms";
    let flows = (0..forth + returning).map(|at| Flow {
        start: Duration::from_millis(7 * at as u64),
        congestion,
        path: path.parse().unwrap(),
        back: path.parse().unwrap(),
        returns: at >= forth,
    });
    Scenario {
        seed: 1,
        length: Duration::from_secs(24),
        bottleneck: link.parse().unwrap(),
        return_bottleneck: Some(link.parse().unwrap()),
        flows: flows.collect(),
        changes: Vec::new(),
    }
}

/// Mbit/s of each flow in the second half.
fn goodputs(scenario: &Scenario, report: &Report) -> Vec<f64> {
    let (from, to) = (scenario.length / 2, scenario.length);
    report.flows.iter().map(|flow| flow.goodput(from, to)).collect()
}

/// What a link of 20 Mbit/s carries beside the acknowledgements of as much the other way: one of
/// 70 bytes for two packets.
const BESIDE_ACKS: f64 = 20.0 * GOODPUT_PART * (1.0 - 70.0 / 2960.0);

#[test]
fn eight_slow_flows_share_a_queue_and_do_not_take_each_other_for_rivals() {
    let scenario = over_access_links(8, 0, Congestion::Shallow);
    for seed in 1..=3 {
        let scenario = Scenario { seed, ..scenario.clone() };
        let report = run(&scenario).unwrap();
        let each = goodputs(&scenario, &report);
        println!("8 flows, 20 Mbit/s: {each:.2?}, {:.2} % dropped", report.dropped_percent());
        assert!(each.iter().sum::<f64>() > 0.95 * 20.0 * GOODPUT_PART, "{each:?}");
        assert!(each.iter().all(|flow| (1.6..3.6).contains(flow)), "{each:?}");
        assert!(report.dropped_percent() < 2.0, "{} %", report.dropped_percent());
    }
}

/// The bar is 0.9, which quinn's Cubic and BBR keep (`docs/OVERLAY.md`, not there yet); this keeps
/// what there is.
#[test]
fn two_hosts_that_send_to_each_other_both_get_on() {
    for (flows, least) in [(1, 0.75), (4, 0.5)] {
        let scenario = over_access_links(flows, flows, Congestion::Shallow);
        for seed in 1..=3 {
            let scenario = Scenario { seed, ..scenario.clone() };
            let each = goodputs(&scenario, &run(&scenario).unwrap());
            let (forth, back) = each.split_at(flows);
            let parts = [forth, back].map(|way| way.iter().sum::<f64>() / BESIDE_ACKS);
            println!("{flows} each way, 20 Mbit/s: {parts:.3?} of the limit, {each:.2?}");
            assert!(parts.iter().all(|part| *part > least), "{parts:?} of the limit");
        }
    }
}

/// The table can fail: it holds against what it is there to tell apart.
#[test]
fn quinns_controllers_do_not_hold() {
    let lossy = "50 ms, 1 % loss, queue 1 BDP";
    for (sender, word) in [(Sender::Cubic, "goodput"), (Sender::Bbr, "round trip")] {
        let all = cells(sender).unwrap();
        let cell = all.iter().find(|cell| cell.name == lossy).unwrap();
        let failed = judge(cell, &report(cell, 1));
        assert!(failed.iter().any(|what| what.starts_with(word)), "{sender:?}: {failed:?}");
    }
}

#[test]
fn a_run_repeats_itself() {
    let cell = cell("beside tcp cubic, 50 ms, queue 1 BDP");
    let [first, second] = [1, 1].map(|seed| format!("{:?}", report(&cell, seed)));
    assert_eq!(first, second);
    assert_ne!(first, format!("{:?}", report(&cell, 2)));
}
