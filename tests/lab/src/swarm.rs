//! A swarm: a base and some nodes with equal access links, and equal paths between any two. How
//! long the last node needs, over the time in which one copy passes an access link, and how many
//! copies the base sent; for `distributary`, and for a BitTorrent client on the same links.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::Context as _;
use clap::ValueEnum;
use distributary_tests::link::{LinkCounters, LinkSpec, topology::Place};
use serde::Serialize;

use crate::{
    back_end::BackEnd,
    fleet::{self, BASE, CLIENT, Content, FIRST_NODE, Ran, node_name},
    lab::{Lab, LabReport, Plan},
    rival::{self, Manner},
};

/// A client with a host of its own has so many times the rate of an access link, and is this far
/// from the base. What the base answers passes the base's access link.
const CLIENT_RATE: u64 = 4;
const CLIENT_PATH: &str = "2ms";
/// Between two looks at the links.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Links and content.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) nodes: usize,
    /// What the base sends passes one, and what each node sends or receives.
    pub(crate) access: LinkSpec,
    /// Rate of an access link.
    pub(crate) rate_bps: u64,
    /// Between any two of base and nodes, each way.
    pub(crate) path: LinkSpec,
    pub(crate) bytes: u64,
    /// Whether the client has a host of its own; else it is on the base's.
    pub(crate) far_client: bool,
}

/// Who spreads the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Who {
    /// This project.
    Distributary,
    /// libtorrent as it comes, with uTP and TCP.
    Libtorrent,
    /// libtorrent without uTP.
    LibtorrentTcp,
    /// libtorrent without uTP, with the kernel's BBR.
    LibtorrentBbr,
    /// libtorrent without uTP, its seeder in super-seeding mode.
    LibtorrentSuper,
}

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    who: String,
    seed: u64,
    /// Seconds until each node had everything; none if it never had.
    took_s: Vec<Option<f64>>,
    /// The last and the mean node, over the bound.
    pub(crate) last: Option<f64>,
    pub(crate) mean: Option<f64>,
    /// Content bytes that the base says it sent to nodes, over the content.
    pub(crate) copies: Option<f64>,
    /// Bytes of all packets that left the base, over the content.
    pub(crate) base_up: f64,
    /// Why it does not hold, if it does not.
    pub(crate) faults: Vec<String>,
    pub(crate) lab: LabReport,
    /// Bytes at each node from time to time, seconds.
    progress: Vec<(f64, Vec<u64>)>,
    /// What has passed the access links, from time to time.
    access: Vec<Sample>,
    metrics: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Bytes that have passed the access links.
#[derive(Debug, Serialize)]
struct Sample {
    s: f64,
    /// From the client to the base.
    client: u64,
    base_up: u64,
    up: Vec<u64>,
    down: Vec<u64>,
}

impl Swarm {
    /// The time in which one copy passes an access link.
    pub(crate) fn bound(&self) -> Duration {
        Duration::from_secs_f64(whole(self.bytes) * 8.0 / whole(self.rate_bps))
    }

    fn plan(&self, seed: u64) -> anyhow::Result<Plan> {
        let mut hosts = vec!["base".to_owned(), "client".to_owned()];
        hosts.extend((0..self.nodes).map(node_name));
        let mut links = vec![(Place::Up(BASE), self.access.clone())];
        let near: LinkSpec = CLIENT_PATH.parse()?;
        let near = LinkSpec { rate_bps: Some(CLIENT_RATE * self.rate_bps), ..near };
        links.push((Place::Path(BASE, CLIENT), near.clone()));
        links.push((Place::Path(CLIENT, BASE), near));
        let nodes = FIRST_NODE..FIRST_NODE + self.nodes;
        for node in nodes.clone() {
            links.push((Place::Up(node), self.access.clone()));
            links.push((Place::Down(node), self.access.clone()));
            links.push((Place::Path(BASE, node), self.path.clone()));
            links.push((Place::Path(node, BASE), self.path.clone()));
            let others = nodes.clone().filter(|other| *other != node);
            links.extend(others.map(|other| (Place::Path(node, other), self.path.clone())));
        }
        Ok(Plan { hosts, links, seed })
    }
}

impl Who {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How libtorrent is to do it, if it is libtorrent.
    fn rival(self) -> Option<Manner> {
        match self {
            Self::Distributary => None,
            Self::Libtorrent => Some(Manner::AsItComes),
            Self::LibtorrentTcp => Some(Manner::Tcp),
            Self::LibtorrentBbr => Some(Manner::Bbr),
            Self::LibtorrentSuper => Some(Manner::SuperSeeding),
        }
    }
}

/// Says whether the machine has what `who` needs.
pub(crate) fn check(who: &[Who]) -> anyhow::Result<()> {
    if who.iter().any(|who| who.rival().is_some()) {
        println!("libtorrent {}", rival::version()?);
    }
    Ok(())
}

/// One run in a lab of its own.
pub(crate) fn run(
    distributary: &Path,
    swarm: &Swarm,
    who: Who,
    seed: u64,
    back_end: BackEnd,
) -> anyhow::Result<Entry> {
    let lab = Lab::start(&swarm.plan(seed)?, back_end)?;
    let from = if swarm.far_client { CLIENT } else { BASE };
    let content = Content { nodes: swarm.nodes, bytes: swarm.bytes, from, seed };
    let mut access: Vec<Sample> = Vec::new();
    let mut look = |passed: Duration| {
        let due = access.last().is_none_or(|last| passed.as_secs_f64() >= last.s + STEP_S);
        if due {
            access.push(sample(swarm, &lab.links()?, passed));
        }
        Ok(())
    };
    let ran = match who.rival() {
        None => fleet::spread(distributary, &lab, content, &mut look),
        Some(manner) => rival::spread(manner, &lab, content, &mut look),
    }?;
    Ok(entry(swarm, who, seed, ran, access))
}

const STEP_S: f64 = SAMPLE_EVERY.as_millis() as f64 / 1e3;

fn sample(swarm: &Swarm, links: &[(Place, LinkCounters)], passed: Duration) -> Sample {
    let bytes = |place: Place| {
        let link = links.iter().find(|(at, _)| *at == place);
        link.map_or(0, |(_, link)| link.delivered_bytes)
    };
    let nodes = FIRST_NODE..FIRST_NODE + swarm.nodes;
    Sample {
        s: passed.as_secs_f64(),
        client: bytes(Place::Path(CLIENT, BASE)),
        base_up: bytes(Place::Up(BASE)),
        up: nodes.clone().map(|node| bytes(Place::Up(node))).collect(),
        down: nodes.map(|node| bytes(Place::Down(node))).collect(),
    }
}

fn entry(swarm: &Swarm, who: Who, seed: u64, ran: Ran, access: Vec<Sample>) -> Entry {
    let bound = swarm.bound().as_secs_f64();
    let took_s: Vec<Option<f64>> =
        ran.took.iter().map(|took| took.map(|took| took.as_secs_f64())).collect();
    let all: Option<Vec<f64>> = took_s.iter().copied().collect();
    let last = all.as_ref().map(|all| all.iter().copied().fold(0.0, f64::max) / bound);
    let nodes = whole(u64::try_from(swarm.nodes).unwrap_or(u64::MAX));
    let mean = all.map(|all| all.iter().sum::<f64>() / nodes / bound);
    let sent = ran.metrics.get("base");
    let sent = sent.and_then(|base| base.get(SENT_TO_NODES));
    let base_up = ran.lab.links.iter().find(|link| link.link == "base up");
    let lacks = ran.equal.iter().enumerate().filter(|(_, equal)| !**equal);
    let mut faults: Vec<String> =
        lacks.map(|(node, _)| format!("n{node} does not hold what was spread")).collect();
    if ran.exit != Some(0) {
        faults.push(format!("the push ended with {:?}", ran.exit));
    }
    let progress = ran.progress.into_iter().map(|(at, bytes)| (at.as_secs_f64(), bytes));
    Entry {
        who: who.name(),
        seed,
        took_s,
        last,
        mean,
        copies: sent.map(|sent| sent / whole(swarm.bytes)),
        base_up: base_up.map_or(0.0, |link| whole(link.delivered_bytes) / whole(swarm.bytes)),
        faults,
        lab: ran.lab,
        progress: progress.collect(),
        access,
        metrics: ran.metrics,
    }
}

const SENT_TO_NODES: &str = "distributary_content_bytes_sent_total{peer_role=\"node\"}";

/// Prints a run as one line.
pub(crate) fn show(entry: &Entry) {
    let figure = |figure: Option<f64>| figure.map_or("-".to_owned(), |it| format!("{it:.2}"));
    println!(
        "{:16} seed {} last {} mean {} of the bound, copies {}, base sent {:.2} {} {} {}",
        entry.who,
        entry.seed,
        figure(entry.last),
        figure(entry.mean),
        figure(entry.copies),
        entry.base_up,
        entry.lab.late(),
        entry.lab.invalid.join("; "),
        entry.faults.join("; "),
    );
}

/// Writes `swarm.json` into `folder`.
pub(crate) fn write(folder: &Path, swarm: &Swarm, runs: &[Entry]) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let json = serde_json::json!({
        "v": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "nodes": swarm.nodes,
        "access": swarm.access.to_string(),
        "path": swarm.path.to_string(),
        "bytes": swarm.bytes,
        "far_client": swarm.far_client,
        "bound_s": swarm.bound().as_secs_f64(),
        "runs": runs,
    });
    Ok(fs::write(folder.join("swarm.json"), serde_json::to_string(&json)?)?)
}

/// A count of bytes such as `50MB`.
pub(crate) fn size(words: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] =
        [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000), ("B", 1)];
    let found = UNITS.into_iter().find_map(|(unit, size)| Some((words.strip_suffix(unit)?, size)));
    let bytes = found.and_then(|(count, size)| count.trim().parse::<u64>().ok()?.checked_mul(size));
    let bytes = bytes.filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("{words:?} is no size such as 50MB; units are B, KB, MB and GB"))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a run are far below 2^53")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swarm() -> Swarm {
        Swarm {
            nodes: 3,
            access: "20Mbit 200000B-queue".parse().unwrap(),
            rate_bps: 20_000_000,
            path: "20ms 1%-loss".parse().unwrap(),
            bytes: 50_000_000,
            far_client: false,
        }
    }

    #[test]
    fn any_two_of_base_and_nodes_are_joined_by_the_path() {
        let swarm = swarm();
        let plan = swarm.plan(1).unwrap();
        assert_eq!(plan.hosts, ["base", "client", "n0", "n1", "n2"]);
        let paths = plan.links.iter().filter(|(_, spec)| *spec == swarm.path).count();
        let access = plan.links.iter().filter(|(_, spec)| *spec == swarm.access).count();
        assert_eq!((paths, access), (4 * 3, 1 + 2 * 3));
    }

    #[test]
    fn the_bound_is_one_copy_over_an_access_link() {
        assert_eq!(swarm().bound(), Duration::from_secs(20));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("50MB"), Ok(50_000_000));
        assert_eq!(size("1GB"), Ok(1_000_000_000));
        assert_eq!(size("7 B"), Ok(7));
        for wrong in ["", "50", "0MB", "-1MB", "99999999999999GB", "5MiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
