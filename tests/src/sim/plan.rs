//! What one seed makes happen: the network, the jobs and the faults, drawn beforehand.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ring::signature::Ed25519KeyPair;
use shared::id::{JobId, Name};
use shared::job::{Dimensions, JobObject, Keep, Kind, Quorum, Selector, ServerList};
use shared::table::NewJob;
use shared::time::Time;

use super::chance::Chance;

/// Nodes of a run.
pub(super) const NODES: usize = 8;
/// The link that is the client's; those before are the nodes'.
pub(super) const CLIENT: usize = NODES;
/// Jobs of a run, at most.
const JOBS_MAX: u64 = 12;
/// Faults happen before this.
pub(super) const FAULTS_END: Time = Time::from_micros(480_000_000);
/// A run ends here.
pub(super) const RUN_END: Time = Time::from_micros(600_000_000);

static KEY: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "every 32 bytes are a seed")]
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key")
});

/// What a seed makes happen.
#[derive(Debug)]
pub(super) struct Plan {
    /// Datagrams lost, of 1,000.
    pub(super) loss: u64,
    /// Datagrams that arrive twice, of 1,000.
    pub(super) doubled: u64,
    /// One-way delay in milliseconds.
    pub(super) delay: (u64, u64),
    /// How long a link is busy with one record, in milliseconds.
    pub(super) busy: (u64, u64),
    /// How long a node's disk takes to sync, in milliseconds.
    pub(super) sync: (u64, u64),
    /// How long the base's ledger takes to commit, in milliseconds.
    pub(super) commit: (u64, u64),
    /// Records that arrive damaged, of 1,000,000.
    pub(super) damaged: u64,
    /// Largest datagram; 0 if the path has none.
    pub(super) datagram_max: usize,
    /// Whether beats are sent. They are most of the traffic and change little here, so one
    /// run of eight has them.
    pub(super) beats: bool,
    pub(super) jobs: Vec<Arc<JobPlan>>,
    pub(super) faults: Vec<(Time, Fault)>,
}

/// A job that the client will push.
#[derive(Debug)]
pub(super) struct JobPlan {
    pub(super) created: Time,
    pub(super) servers: Vec<usize>,
    pub(super) stripes: u8,
    /// Chunks that may be on their way to one receiver.
    pub(super) window: u64,
    /// The lengths of each page's chunks.
    pub(super) pages: Vec<Vec<u32>>,
    /// How fast the publisher makes pages.
    pub(super) page_every: Duration,
    pub(super) deadline_s: u64,
    pub(super) grace_s: u64,
    pub(super) ending: Ending,
}

/// What becomes of a job beside its being pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing.
    Pushed,
    /// The client cancels it then.
    Cancelled(Time),
    /// The client removes it then.
    Removed(Time),
    /// The publisher leaves when it has made so many pages.
    Abandoned(usize),
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A node is killed and starts again; `wiped`: on an empty disk.
    NodeCrash { node: usize, down: Duration, wiped: bool },
    /// The base is killed and starts again.
    BaseCrash { down: Duration },
    /// A connection is lost; each side notices in its own time.
    Break { link: usize },
    /// Nothing gets through on a link for so long.
    Partition { link: usize, lasts: Duration },
}

impl JobPlan {
    /// Chunks of the job.
    pub(super) fn chunks(&self) -> u64 {
        self.pages.iter().map(|page| page.len() as u64).sum()
    }

    /// Whether its deadline lies beyond the run, so that it has to become complete.
    pub(super) const fn is_unhurried(&self) -> bool {
        self.deadline_s >= 3_600
    }
}

impl Plan {
    pub(super) fn new(chance: &mut Chance) -> Self {
        let slowest = chance.pick(20..=200);
        let count = chance.pick(1..=JOBS_MAX);
        let jobs: Vec<Arc<JobPlan>> = (0..count).map(|_| Arc::new(job(chance))).collect();
        Self {
            busy: (2, slow(chance, 40, 1_500)),
            sync: (1, slow(chance, 250, 4_000)),
            commit: (1, slow(chance, 30, 1_000)),
            faults: faults(chance, &jobs),
            jobs,
            loss: chance.pick(0..=400),
            doubled: chance.pick(0..=100),
            delay: (10, slowest),
            damaged: if chance.happens(300) { chance.pick(0..=2_000) } else { 0 },
            datagram_max: match chance.pick(0..=9) {
                0 => 0,
                1 => usize::try_from(chance.pick(130..=400)).unwrap_or(400),
                _ => 1_200,
            },
            beats: chance.happens(125),
        }
    }
}

/// Something is slow in one run of three.
fn slow(chance: &mut Chance, usual: u64, slowest: u64) -> u64 {
    if chance.happens(333) { chance.pick(usual..=slowest) } else { usual }
}

fn job(chance: &mut Chance) -> JobPlan {
    let created = Time::from_micros(chance.pick(0..=300_000_000));
    let mut servers: Vec<usize> = (0..NODES).filter(|_| chance.happens(700)).collect();
    if servers.is_empty() {
        servers.push(chance.index(NODES));
    }
    let page_count = chance.pick(1..=5);
    let page = |chance: &mut Chance| {
        let chunks = chance.pick(0..=6);
        (0..chunks).map(|_| u32::try_from(chance.pick(1..=65_536)).unwrap_or(1)).collect()
    };
    let pages: Vec<Vec<u32>> = (0..page_count).map(|_| page(chance)).collect();
    let ending = match chance.pick(0..=9) {
        0 => Ending::Cancelled(created + chance.millis(0..=60_000)),
        1 => Ending::Removed(created + chance.millis(0..=200_000)),
        2 => Ending::Abandoned(chance.index(pages.len())),
        _ => Ending::Pushed,
    };
    JobPlan {
        created,
        servers,
        stripes: [1, 2, 4, 8].get(chance.index(4)).copied().unwrap_or(1),
        window: chance.pick(8..=32),
        pages,
        page_every: chance.millis(10..=8_000),
        deadline_s: if chance.happens(300) { chance.pick(1..=120) } else { 36_000 },
        grace_s: if matches!(ending, Ending::Abandoned(_)) { 20 } else { 36_000 },
        ending,
    }
}

fn faults(chance: &mut Chance, jobs: &[Arc<JobPlan>]) -> Vec<(Time, Fault)> {
    let count = chance.pick(0..=80);
    let end = FAULTS_END.as_micros() - 30_000_000;
    let mut faults: Vec<(Time, Fault)> = Vec::new();
    for _ in 0..count {
        // Most of them soon after a job was created, when there is something to break.
        let at = match jobs.get(chance.index(jobs.len())) {
            Some(job) if chance.happens(700) => job.created + chance.millis(0..=20_000),
            _ => Time::from_micros(chance.pick(0..=end)),
        };
        let link = chance.index(NODES + 1);
        let node = chance.index(NODES);
        match chance.pick(0..=99) {
            0..=34 => {
                let down = chance.millis(50..=20_000);
                faults.push((at, Fault::NodeCrash { node, down, wiped: chance.happens(150) }));
            }
            35..=49 => faults.push((at, Fault::BaseCrash { down: chance.millis(50..=15_000) })),
            50..=69 => faults.push((at, Fault::Break { link })),
            70..=94 => {
                faults.push((at, Fault::Partition { link, lasts: chance.millis(300..=30_000) }));
            }
            _ => {
                // The base is cut off from everybody.
                let lasts = chance.millis(300..=20_000);
                let all = (0..=NODES).map(|link| (at, Fault::Partition { link, lasts }));
                faults.extend(all);
            }
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// The name of a node.
pub(super) fn node_name(node: usize) -> Name {
    name(&format!("n{node}"))
}

/// The name of the client.
pub(super) fn client_name() -> Name {
    name("publisher")
}

fn name(text: &str) -> Name {
    #[expect(clippy::expect_used, reason = "the simulator's names keep to the alphabet")]
    Name::new(text).expect("a name")
}

/// The id that the base mints as its `number`th for the job of this plan.
pub(super) fn job_id(plan: usize, number: u64) -> JobId {
    let mut id = [0; 16];
    let [high, low @ ..] = &mut id;
    *high = u8::try_from(plan).unwrap_or(u8::MAX);
    for (to, from) in low.iter_mut().zip(number.to_be_bytes()) {
        *to = from;
    }
    JobId(id)
}

/// The plan that an id belongs to.
pub(super) fn plan_of(job: JobId) -> usize {
    let [high, ..] = job.0;
    usize::from(high)
}

/// What the base makes of the client's wish.
pub(super) fn new_job(plan: usize, wish: &JobPlan, id: JobId) -> NewJob {
    let names = wish.servers.iter().map(|node| node_name(*node)).collect();
    let servers = ServerList::new(names);
    let name = name(&format!("job-{plan}"));
    let object = JobObject {
        id,
        name: name.clone(),
        tenant: client_name(),
        kind: Kind::Files,
        size: None,
        created_at_ms: 0,
        deadline_s: None,
        stripes: wish.stripes,
        chunk_max: 65_536,
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        page_key: [0; 32],
        servers: u32::try_from(servers.names().len()).unwrap_or(u32::MAX),
        servers_hash: servers.hash(),
    };
    let dimensions = Dimensions {
        kind: Kind::Files,
        name: Some(name.clone()),
        to: vec![Selector::All],
        size: None,
        deadline_s: Some(wish.deadline_s),
        quorum: Quorum::All,
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        grace_s: wish.grace_s,
    };
    let key = [u8::try_from(plan).unwrap_or(u8::MAX); 16];
    let object = object.sign(&KEY);
    let client = client_name();
    NewJob { id, client, key, name, dimensions, object, servers: Arc::new(servers) }
}
