//! The same where nodes feed each other: who disturbs is the home of a stripe and a source of
//! others.
//!
//! With `FULL` in the environment the fleet is as large as in docs/OVERLAY.md.

use std::time::Duration;

use distributary_tests::fleet::{Event, Mesh, Plan, Push};

use super::cases::{CLIENT, Case, MB};

const PATH: &str = "20ms";
const BEGIN: Duration = Duration::from_secs(1);
/// When a node disturbs: all are fed by each other.
const AT: Duration = Duration::from_secs(4);
/// Who does.
const BAD: usize = 3;

struct World {
    nodes: usize,
    link: &'static str,
    bytes: u64,
}

/// Two copies take ten seconds over a link of either.
const SMALL: World = World { nodes: 4, link: "4Mbit 40000B-queue", bytes: 5 * MB / 2 };
const FULL: World = World { nodes: 8, link: "20Mbit 200000B-queue", bytes: 25 * MB / 2 };

fn world() -> World {
    if std::env::var_os("FULL").is_some() { FULL } else { SMALL }
}

/// Two jobs to all nodes.
fn two_jobs(world: &World) -> Plan {
    let &World { nodes, link, bytes } = world;
    let push =
        |number| Push { number, to: (0..nodes).collect(), bytes, at: BEGIN, ..Push::default() };
    Plan {
        clients: vec![CLIENT],
        nodes: vec![PATH; nodes],
        jobs: vec![push(1), push(2)],
        base_up: link,
        node_access: vec![(link, link); nodes],
        mesh: Some(Mesh { stripes: nodes as u8, path: PATH, ..Mesh::default() }),
        ..Plan::default()
    }
}

/// What jobs and nodes lose by what happens, without those that it happens to.
fn case(name: &'static str, event: Event, is_hit: impl Fn(u8, usize) -> bool) -> Case {
    let world = world();
    let calm = two_jobs(&world);
    let disturbed = Plan { events: vec![(AT, event)], ..calm.clone() };
    let all = [1, 2].into_iter().flat_map(|job| (0..world.nodes).map(move |node| (job, node)));
    let others = all.filter(|(job, node)| !is_hit(*job, *node)).collect();
    Case { name, calm, disturbed, others }
}

#[test]
fn a_node_that_stands_still_in_a_mesh_costs_the_others_together_nothing() {
    case("mesh, still", Event::Freeze(BAD), |_, node| node == BAD).assert_isolated_together();
}

#[test]
fn a_node_that_takes_no_more_of_a_job_in_a_mesh_costs_the_others_together_nothing() {
    let is_hit = |job, node| (job, node) == (1, BAD);
    case("mesh, no room", Event::Fill(1, BAD), is_hit).assert_isolated_together();
}

#[test]
fn a_node_that_drops_a_job_in_a_mesh_costs_the_others_together_nothing() {
    let is_hit = |job, node| (job, node) == (1, BAD);
    case("mesh, dropped", Event::Drop(1, BAD), is_hit).assert_isolated_together();
}
