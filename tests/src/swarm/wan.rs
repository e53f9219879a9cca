//! The same job over the same topology in the virtual WAN.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::id::JobId;
use shared::neighbourhood;
use shared_io::transport::Congestion;

use super::{ACCESS_QUEUE, Job, PATH_QUEUE, Path, Rule, Sender, Topology};
use crate::fleet::{self, Mesh, Plan, Push};

/// The path between the base and the client, which holds nobody up.
const CLIENT: &str = "1ms";
/// How long peers take to connect.
const CONNECTED: Duration = Duration::from_millis(500);

/// What a run in the virtual WAN did.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The time of the last node.
    pub last: Duration,
    /// Content bytes that the base has sent.
    pub base_sent: u64,
    /// Content bytes that base and nodes have sent.
    pub sent: u64,
}

/// Spreads the job in the virtual WAN. Its chunks have 16 KiB there, whatever `job` says.
#[must_use]
pub fn run_in_wan(topology: &Topology, job: &Job, seed: u64) -> Measured {
    let awaited: BTreeSet<(u8, usize)> = (0..topology.nodes()).map(|node| (1, node)).collect();
    let outcome = fleet::run(seed, &plan(topology, job), &awaited);
    let last = outcome.took.values().max().copied().unwrap_or_default();
    Measured { last, base_sent: outcome.base_sent, sent: outcome.sent }
}

/// The plan of a fleet with the topology's links.
#[must_use]
pub fn plan(topology: &Topology, job: &Job) -> Plan {
    let nodes = topology.nodes();
    let push = Push {
        number: 1,
        client: 0,
        to: (0..nodes).collect(),
        bytes: job.bytes,
        at: CONNECTED + job.idle,
        source_bps: None,
        ..Push::default()
    };
    let access = |bps: f64| {
        let queue = bps * ACCESS_QUEUE.as_secs_f64() / 8.0;
        kept(format!("{bps:.0}bit {queue:.0}B-queue"))
    };
    let sites = topology.sites.get(1..).unwrap_or_default();
    let mesh = match job.rule {
        Rule::Star => None,
        Rule::Stripes(stripes) => Some(Mesh {
            stripes,
            path: kept(words(topology.path(1, 2))),
            paths: paths(topology, job.bytes),
            target_bps: job.target_bps,
            uplinks: if job.knows_uplinks { topology.uplinks() } else { Vec::new() },
        }),
    };
    Plan {
        clients: vec![CLIENT],
        nodes: (1..=nodes).map(|node| kept(words(topology.path(0, node)))).collect(),
        jobs: vec![push],
        base_up: topology.sites.first().map_or("", |base| access(base.up_bps)),
        node_access: sites.iter().map(|s| (access(s.up_bps), access(s.down_bps))).collect(),
        mesh,
        congestion: match job.sender {
            Sender::Cubic => Congestion::Cubic,
            Sender::Shallow => Congestion::Shallow,
        },
        ..Plan::default()
    }
}

/// The paths between nodes that know each other, where they differ.
fn paths(topology: &Topology, bytes: u64) -> Vec<(usize, usize, &'static str)> {
    if topology.path(1, 2).cap_bps.is_none() {
        return Vec::new();
    }
    let nodes = topology.nodes();
    let known = |place| neighbourhood::neighbours(JobId([1; 16]), Some(bytes), place, nodes);
    let pairs = (0..nodes).flat_map(|one| known(one).into_iter().map(move |other| (one, other)));
    let pairs = pairs.filter(|(one, other)| one < other);
    pairs.map(|(a, b)| (a, b, kept(words(topology.path(a + 1, b + 1))))).collect()
}

fn words(path: Path) -> String {
    let delay = path.delay.as_micros();
    let queue = PATH_QUEUE.as_millis();
    match path.cap_bps {
        Some(bps) => format!("{delay}us {bps:.0}bit {queue}ms-queue"),
        None => format!("{delay}us"),
    }
}

/// Plans name links by words that live as long as the program: a table has some thousand.
fn kept(words: String) -> &'static str {
    words.leak()
}
