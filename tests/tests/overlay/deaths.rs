//! Nodes that die during a file job: what that costs the others.
//!
//! `NODES=16 BYTES=25000000 SEEDS=10` in the environment for the row of docs/OVERLAY.md.

use std::time::Duration;

use distributary_tests::fleet::{Event, Plan};

use super::{LINK_BPS, by_hand, copies, last, plan, run_seed};

/// When the push begins.
const BEGIN: Duration = Duration::from_secs(1);
/// Of the time that one copy takes over an access link.
const TOOK_MAX: f64 = 1.6;

/// A job to some nodes of which one in eight dies.
struct Job {
    nodes: usize,
    bytes: u64,
}

impl Job {
    fn bound(&self) -> Duration {
        Duration::from_secs_f64(self.bytes as f64 * 8.0 / LINK_BPS)
    }

    /// Each node is the home of a stripe, as there are as many stripes.
    fn plan(&self) -> Plan {
        plan(self.nodes, self.bytes, self.nodes as u8)
    }

    fn dead(&self) -> Vec<usize> {
        (0..self.nodes / 8).map(|number| 3 + 7 * number).collect()
    }

    /// Who dies is cut off without a word: at different moments of the job, which move on with the
    /// seed.
    fn deaths(&self, seed: u64) -> Plan {
        let at = |number: usize| {
            let tenths = (1 + 4 * number as u32 + 3 * seed as u32) % 10;
            BEGIN + self.bound() * tenths / 10 + Duration::from_millis(37 * seed % 500)
        };
        let dead = self.dead().into_iter().enumerate();
        let mut events: Vec<_> =
            dead.map(|(number, node)| (at(number), Event::Cut(node))).collect();
        events.sort_by_key(|(at, _)| *at);
        Plan { events, ..self.plan() }
    }
}

#[test]
fn the_others_complete_a_job_during_which_one_node_in_eight_dies() {
    let (nodes, bytes) = (by_hand("NODES", 8) as usize, by_hand("BYTES", 12_500_000));
    let job = Job { nodes, bytes };
    let bound = job.bound().as_secs_f64();
    let mut longest = 0.0_f64;
    for seed in 1..=by_hand("SEEDS", 2) {
        let plan = job.deaths(seed);
        let outcome = run_seed(seed, &plan, &job.dead());
        let at = plan.events.iter().map(|(at, _)| (*at - BEGIN).as_secs_f64() / bound);
        let at: Vec<f64> = at.collect();
        let (took, copies) = (last(&outcome) / bound, copies(&outcome, bytes));
        println!("dead at {at:.2?}, seed {seed}: {took:.2} of the bound, {copies:.2} copies");
        longest = longest.max(took);
    }
    assert!(longest <= TOOK_MAX, "{longest} of the bound");
}
