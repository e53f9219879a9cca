//! The congestion controller with real quinn in exact virtual time, at cells of the table that
//! its benchmark runs whole (`cargo bench -p distributary-tests --bench congestion`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use distributary_tests::flows::{
    Report, Scenario,
    cell::{Cell, Sender, cells, judge},
    run,
};

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
    assert_holds("jitter 5 ms both ways, in order, 40 ms");
    assert_holds("jitter 5 ms, reordering, 40 ms");
}

#[test]
fn a_path_that_changes_is_followed() {
    assert_holds("the rate halves");
    assert_holds("from 20 to 80 ms");
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
