//! The simulator over many seeds: the product's core holds, and what is broken on purpose is
//! found.
//!
//! `SIM_SEED=17 cargo test -p distributary-tests --release --test core_sim -- replay --nocapture`
//! runs one seed and prints what happened; `SIM_SEEDS=100000` runs more than usual, and
//! `SIM_FIRST=6000` others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use distributary_tests::sim::{self, Coverage, Outcome, Variant};

/// Ten virtual minutes each: 1,000 hours.
const SEEDS: u64 = 6_000;
/// Seeds that each broken variant is given.
const BROKEN_SEEDS: u64 = 100;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs seeds on all cores. The outcomes come in the order of the seeds.
fn run_all(first: u64, count: u64, variant: Variant) -> Vec<(u64, Outcome)> {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return done;
            }
            done.push((seed, sim::run(seed, variant)));
        }
    };
    let mut outcomes: Vec<(u64, Outcome)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let joined = handles.into_iter().map(|handle| handle.join());
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    outcomes.sort_by_key(|(seed, _)| *seed);
    outcomes
}

fn how_to_replay(seed: u64) -> String {
    format!(
        "replay it with: SIM_SEED={seed} cargo test -p distributary-tests --release \
         --test core_sim -- replay --nocapture"
    )
}

#[test]
fn a_thousand_hours_without_a_violation() {
    let first = number("SIM_FIRST").unwrap_or(0);
    let outcomes = run_all(first, number("SIM_SEEDS").unwrap_or(SEEDS), Variant::Sound);
    let mut simulated = Duration::ZERO;
    let (mut events, mut trace, mut coverage) = (0, 0u64, Coverage::default());
    for (seed, outcome) in &outcomes {
        if let Some(violation) = &outcome.violation {
            panic!("seed {seed}: {violation}\n{}", how_to_replay(*seed));
        }
        simulated += outcome.simulated;
        events += outcome.events;
        trace = trace.rotate_left(1) ^ outcome.trace;
        coverage.add(&outcome.coverage);
    }
    println!(
        "{} seeds from {first}, {} simulated hours, {events} events, trace {trace:016x}",
        outcomes.len(),
        simulated.as_secs() / 3_600,
    );
    for (what, count) in coverage.rows() {
        println!("{count:>9} {what}");
        assert!(count > 0, "never happened: {what}");
    }
}

#[test]
fn every_broken_variant_is_found() {
    for variant in Variant::BROKEN {
        let outcomes = run_all(0, BROKEN_SEEDS, variant);
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        for violation in outcomes.iter().filter_map(|(_, outcome)| outcome.violation.as_ref()) {
            *found.entry(violation.invariant).or_default() += 1;
        }
        let total: u64 = found.values().sum();
        println!("{variant:?}: {total} of {BROKEN_SEEDS} seeds fail, by invariant {found:?}");
        assert!(total > 0, "{variant:?} passes for sound");
        // One seed that finds it, found again: the finding can be looked at.
        let (seed, outcome) = outcomes.iter().find(|(_, o)| o.violation.is_some()).unwrap();
        assert_eq!(sim::run(*seed, variant), *outcome);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut traces = Vec::new();
    for seed in 0..20 {
        let mut log = Vec::new();
        let one = sim::run_logged(seed, Variant::Sound, &mut log);
        assert_eq!(one, sim::run(seed, Variant::Sound), "seed {seed}");
        assert_eq!(one.events, log.len() as u64);
        traces.push(one.trace);
    }
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 20, "different seeds are different runs");
}

#[test]
fn replay() {
    let Some(seed) = number("SIM_SEED") else {
        return;
    };
    let mut log = Vec::new();
    let outcome = sim::run_logged(seed, Variant::Sound, &mut log);
    for line in log {
        println!("{line}");
    }
    println!("{outcome:#?}");
}
