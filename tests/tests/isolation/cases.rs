//! Pairs of runs: the same fleet and seed, without and with somebody who disturbs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use distributary_tests::figures::{by_hand, median};
use distributary_tests::fleet::{self, Event, Place, Plan, Push};

/// Pairs of runs; another number with `SEEDS`.
const PAIRS: u64 = 5;
/// The same where nodes feed each other: two runs differ by a tenth with nobody who disturbs, and
/// the median of five pairs by as much as may be lost.
const PAIRS_IN_MESH: u64 = 25;
/// What the others may lose of their goodput, as a share.
const LOSS_MAX: f64 = 0.05;
/// What one of several nodes that feed each other may lose: two runs of the same differ by a fifth.
const CHANCE_MAX: f64 = 0.2;
pub(crate) const MB: u64 = 1_000_000;

/// A fleet that works, and who disturbs it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) calm: Plan,
    pub(crate) disturbed: Plan,
    /// Whose loss is looked at: jobs and nodes of both runs.
    pub(crate) others: BTreeSet<(u8, usize)>,
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A push of as many bytes as fast as it goes, from the beginning.
fn push(number: u8, client: usize, to: &[usize], bytes: u64) -> Push {
    let to = to.to_vec();
    Push { number, client, to, bytes, at: secs(0), ..Push::default() }
}

impl Case {
    /// The loss of goodput of each of the others, as a share: the median of all seeds.
    fn losses(&self) -> BTreeMap<(u8, usize), f64> {
        let mut all: BTreeMap<(u8, usize), Vec<f64>> = BTreeMap::new();
        for (key, loss) in (1..=by_hand("SEEDS", PAIRS)).flat_map(|seed| self.losses_of(seed)) {
            all.entry(key).or_default().push(loss);
        }
        all.into_iter().map(|(key, losses)| (key, median(losses))).collect()
    }

    /// The same of one pair of runs.
    fn losses_of(&self, seed: u64) -> BTreeMap<(u8, usize), f64> {
        let calm = fleet::run(seed, &self.calm, &self.others).took;
        let disturbed = fleet::run(seed, &self.disturbed, &self.others).took;
        let loss = |(key, before): ((u8, usize), Duration)| {
            let after = disturbed[&key];
            let (loss, (job, node)) = (1.0 - before.as_secs_f64() / after.as_secs_f64(), key);
            println!(
                "{}: seed {seed}, job {job} at node {node}: {before:.2?}, disturbed {after:.2?}: \
                 {:.1} % lost",
                self.name,
                loss * 100.0
            );
            (key, loss)
        };
        calm.into_iter().map(loss).collect()
    }

    /// Where nodes feed each other, who of them is how early is chance: what the others lose
    /// together, the median of all seeds, and that none of them loses much more.
    pub(crate) fn assert_isolated_together(&self) {
        let runs: Vec<_> =
            (1..=by_hand("SEEDS", PAIRS_IN_MESH)).map(|seed| self.losses_of(seed)).collect();
        let means = runs.iter().map(|run| run.values().sum::<f64>() / run.len() as f64);
        let of_one = |key| median(runs.iter().map(|run| run[key]).collect());
        let (loss, most) =
            (median(means.collect()), runs[0].keys().map(of_one).fold(0.0, f64::max));
        println!("{}: the others lose {:.1} %, one {:.1} %", self.name, loss * 100.0, most * 100.0);
        assert!(loss <= LOSS_MAX, "{}: the others lose {loss:.3}", self.name);
        assert!(most <= CHANCE_MAX, "{}: one of the others loses {most:.3}", self.name);
    }

    fn assert_isolated(&self) {
        for ((job, node), loss) in self.losses() {
            println!("{}: job {job} at node {node} loses {:.1} %", self.name, loss * 100.0);
            assert!(loss <= LOSS_MAX, "{}: job {job} at node {node} loses {loss:.3}", self.name);
        }
    }
}

/// The usual link of a client, and of a node.
pub(crate) const CLIENT: &str = "10ms 100Mbit 256KiB-queue";
const NODE: &str = "20ms 20Mbit 128KiB-queue";
const DOWN: &str = "20ms down";

/// Two jobs, at nodes that have one or both of them; node 0 disturbs.
fn two_jobs(link: &'static str, bytes: u64) -> Plan {
    let jobs = vec![push(1, 0, &[0, 1, 2], bytes), push(2, 0, &[0, 1], bytes)];
    Plan { clients: vec![CLIENT], nodes: vec![link; 3], jobs, ..Plan::default() }
}

fn pause(name: &'static str, calm: Plan, from: u64, to: u64, events: [Event; 2]) -> Case {
    let [begin, end] = events;
    let events = vec![(secs(from), begin), (secs(to), end)];
    let disturbed = Plan { events, ..calm.clone() };
    Case { name, calm, disturbed, others: [(1, 1), (1, 2), (2, 1)].into() }
}

#[test]
fn a_node_that_stands_still_costs_the_others_nothing() {
    let freeze = [Event::Freeze(0), Event::Thaw(0)];
    pause("still for 3 s", two_jobs(NODE, 6 * MB), 1, 4, freeze).assert_isolated();
    let slow = "20ms 4Mbit 64KiB-queue";
    pause("still for 30 s", two_jobs(slow, 8 * MB), 1, 31, freeze).assert_isolated();
}

#[test]
fn a_node_that_is_cut_off_costs_the_others_nothing() {
    let cut = |link| [Event::Link(0, DOWN), Event::Link(0, link)];
    pause("cut for 3 s", two_jobs(NODE, 6 * MB), 1, 4, cut(NODE)).assert_isolated();
    let slow = "20ms 4Mbit 64KiB-queue";
    pause("cut for 30 s", two_jobs(slow, 8 * MB), 1, 31, cut(slow)).assert_isolated();
}

/// The stalled job has used up its credit when the other one begins.
fn stalled(name: &'static str, place: Place) -> Case {
    // Long enough that one flush of a node, 200 ms, is less than the loss that is looked for.
    let other = Push { at: secs(5), ..push(2, 0, &[0, 1], 20 * MB) };
    let stalled = Push { stalled: Some(place), ..push(1, 0, &[0], 12 * MB) };
    let (clients, nodes) = (vec![CLIENT], vec![NODE; 2]);
    let calm = Plan { clients, nodes, jobs: vec![other.clone()], ..Plan::default() };
    let disturbed = Plan { jobs: vec![stalled, other], ..calm.clone() };
    Case { name, calm, disturbed, others: [(2, 0), (2, 1)].into() }
}

#[test]
fn a_job_without_room_costs_others_on_its_connections_nothing() {
    stalled("no room at a node", Place::Nodes).assert_isolated();
    stalled("no room at the base", Place::Base).assert_isolated();
}

/// A modest client, whose job needs less than its share of the way to its node, and three
/// pushes of another that take what they get.
fn greedy(name: &'static str, to: &[usize]) -> Case {
    let modest = Push { source_bps: Some(4_000_000), ..push(1, 0, &[0], 4 * MB) };
    let greedy = (2..5).map(|number| push(number, 1, to, 7 * MB));
    let (clients, nodes) = (vec![CLIENT; 2], vec![NODE; 2]);
    let calm = Plan { clients, nodes, jobs: vec![modest.clone()], ..Plan::default() };
    let disturbed = Plan { jobs: greedy.chain([modest]).collect(), ..calm.clone() };
    Case { name, calm, disturbed, others: [(1, 0)].into() }
}

#[test]
fn a_client_that_pushes_as_fast_as_it_can_costs_a_modest_one_nothing() {
    greedy("greedy, another node", &[1]).assert_isolated();
    greedy("greedy, the same node", &[0]).assert_isolated();
}

/// What one job loses to another on a link that both fill is what these cases must not lose.
#[test]
fn two_jobs_that_fill_one_link_are_seen_to_share_it() {
    let one = push(1, 0, &[0], 6 * MB);
    let calm = Plan {
        clients: vec![CLIENT],
        nodes: vec![NODE],
        jobs: vec![one.clone()],
        ..Plan::default()
    };
    let disturbed = Plan { jobs: vec![one, push(2, 0, &[0], 6 * MB)], ..calm.clone() };
    let case = Case { name: "a full link", calm, disturbed, others: [(1, 0)].into() };
    let losses = case.losses();
    assert!((0.4..0.6).contains(&losses[&(1, 0)]), "{losses:?}");
}

#[test]
fn a_slow_node_costs_the_others_nothing() {
    let jobs = vec![push(1, 0, &[0, 1, 2, 3], 8 * MB)];
    let calm = Plan { clients: vec![CLIENT], nodes: vec![NODE; 4], jobs, ..Plan::default() };
    let mut disturbed = calm.clone();
    disturbed.nodes[3] = "20ms 200Kbit 128KiB-queue";
    let others = [(1, 0), (1, 1), (1, 2)].into();
    Case { name: "one slow node", calm, disturbed, others }.assert_isolated();
}

#[test]
fn idle_nodes_cost_a_busy_one_nothing() {
    let fast = "50ms 100Mbit 1MiB-queue";
    let jobs = vec![push(1, 0, &[0], 30 * MB)];
    let calm = Plan {
        clients: vec!["10ms 200Mbit 1MiB-queue"],
        nodes: vec![fast],
        jobs,
        ..Plan::default()
    };
    let mut disturbed = calm.clone();
    disturbed.nodes.resize(40, fast);
    Case { name: "39 idle nodes", calm, disturbed, others: [(1, 0)].into() }.assert_isolated();
}

/// Under loss a job arrives whole and verified, and a seed gives the same packets again.
#[test]
fn a_job_crosses_a_bad_link_whole_and_the_same_way_each_time() {
    let bad = "40ms 3ms-jitter 1%-loss 0.1%-dup 50Mbit 256KiB-queue";
    let jobs = vec![push(1, 0, &[0, 1], 3 * MB)];
    let plan = Plan { clients: vec![CLIENT], nodes: vec![bad; 2], jobs, ..Plan::default() };
    let all = [(1, 0), (1, 1)].into();
    let first = fleet::run(1, &plan, &all);
    println!("{first:?}");
    assert_eq!(fleet::run(1, &plan, &all), first);
    assert_ne!(fleet::run(2, &plan, &all).trace.hash, first.trace.hash);
}
