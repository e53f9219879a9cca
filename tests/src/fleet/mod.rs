//! A base with clients and nodes around it, the jobs that go through it, and what happens to them.
//!
//! The product's own links, engines and byte movers in the virtual WAN. Time is virtual, so work
//! of the CPU and of the disk takes none. Content is kept in memory and becomes durable at the
//! product's intervals.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a harness of tests: what is wrong in it ends the test"
)]
#![allow(missing_docs, clippy::cast_precision_loss, reason = "tests read it, nobody else")]

mod content;
pub mod identities;
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::link::{LinkCounters, LinkSpec};
use crate::scenario::{self, Scenario};
use crate::wan::{self, Trace, Wan};
use shared::id::PeerId;
use shared::job::JobObject;
use shared_io::access::Access;
use shared_io::clock::Clock;
use shared_io::content::{Content, Window};
use shared_io::job::{Job, Keeping, Origin};
use shared_io::link::Conduct as _;
use shared_io::store::{BASE_FLUSH_EVERY, NODE_FLUSH_EVERY};
use tokio::time::{Instant, sleep, sleep_until};

use self::content::{CHUNK, Cutter, Shelf};
use self::site::Site;

/// Bytes that a publisher keeps until they are durable at the base, as the product's does.
const WINDOW_BYTES_MAX: u64 = 24 << 20;
/// Chunks of a page of a job that is cut as fast as it goes, and of one that is cut as it comes.
const PAGE_CHUNKS: u64 = 128;
const PACED_PAGE_CHUNKS: u64 = 1;
/// How often is looked whether all is done, and when that is given up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the progress of the first job is noted.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(600);

/// A fleet and what happens to it, as data.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The link between the base and each client.
    pub clients: Vec<&'static str>,
    /// The link between the base and each node.
    pub nodes: Vec<&'static str>,
    pub jobs: Vec<Push>,
    pub events: Vec<(Duration, Event)>,
    pub caps: Caps,
    /// What all that the base sends passes first; nothing, if empty.
    pub base_up: &'static str,
    /// What all that each node sends passes first, and all that it receives last.
    pub node_access: Vec<(&'static str, &'static str)>,
}

impl From<&Scenario> for Plan {
    /// One push to all nodes, as fast as it goes.
    fn from(scenario: &Scenario) -> Self {
        let to = (0..scenario.nodes.len()).collect();
        let push = Push {
            number: 1,
            client: 0,
            to,
            bytes: scenario.bytes,
            at: Duration::ZERO,
            source_bps: None,
            stalled: None,
        };
        let event = |(at, event): &(Duration, scenario::Event)| {
            let scenario::Event::Path(node, path) = *event;
            (*at, Event::Link(node, path))
        };
        Self {
            clients: vec![scenario::CLIENT],
            nodes: scenario.nodes.iter().map(|site| site.path).collect(),
            jobs: vec![push],
            events: scenario.events.iter().map(event).collect(),
            caps: Caps::default(),
            base_up: scenario.base_up,
            node_access: scenario.nodes.iter().map(|site| (site.up, site.down)).collect(),
        }
    }
}

/// Runs a scenario in the virtual WAN until every node has everything.
pub fn run_scenario(seed: u64, scenario: &Scenario) -> Outcome {
    let all = (0..scenario.nodes.len()).map(|node| (1, node)).collect();
    run(seed, &Plan::from(scenario), &all)
}

/// What roles were told to keep to, bits per second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caps {
    /// What the base may send.
    pub base_uplink: Option<u64>,
    /// What each node may receive.
    pub node_downlink: Option<u64>,
    /// What each job may use of an uplink.
    pub job: Option<u64>,
}

/// A job that is pushed.
#[derive(Clone, Debug)]
pub struct Push {
    /// Names it: the same job has the same number in all runs that are compared.
    pub number: u8,
    pub client: usize,
    pub to: Vec<usize>,
    pub bytes: u64,
    /// When it begins.
    pub at: Duration,
    /// Bits per second that its source gives; as much as is taken if absent.
    pub source_bps: Option<u64>,
    /// Where there is no room for it.
    pub stalled: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Base,
    Nodes,
}

#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A node stands still, or goes on.
    Freeze(usize),
    Thaw(usize),
    /// The link to a node is from now on this one.
    Link(usize, &'static str),
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How long each job took to be complete at each node, from its beginning.
    pub took: BTreeMap<(u8, usize), Duration>,
    /// What the base has learnt of its uplink, bits per second.
    pub uplink: Option<u64>,
    /// What the base's uplink has done, if it was described.
    pub base_up: Option<LinkCounters>,
    /// Durable bytes of the first job at each of its nodes, from time to time.
    pub progress: Vec<(Duration, Vec<u64>)>,
    pub trace: Trace,
    pub ended_at: Duration,
}

/// Runs `plan` until each of `awaited`, jobs by number and nodes, is complete.
pub fn run(seed: u64, plan: &Plan, awaited: &BTreeSet<(u8, usize)>) -> Outcome {
    wan::run(seed, async |wan| {
        let fleet = Fleet::start(&wan, plan);
        let outcome = fleet.run(plan, awaited).await;
        fleet.check(awaited, plan);
        fleet.sites().for_each(|site| site.forget_all());
        outcome
    })
    .unwrap()
}

struct Fleet {
    wan: Wan,
    base: Arc<Site>,
    nodes: Vec<Arc<Site>>,
    clients: Vec<Arc<Site>>,
    shelves: BTreeMap<(u8, usize), Arc<Shelf>>,
}

fn spec(text: &str) -> LinkSpec {
    text.parse().unwrap()
}

impl Fleet {
    fn start(wan: &Wan, plan: &Plan) -> Self {
        let Caps { base_uplink, node_downlink, job: _ } = plan.caps;
        let start = |name: &str, identity, uplink, downlink| {
            let access = Access::new(Clock::start(), uplink, downlink);
            Site::start(wan.host(name).unwrap(), identity, access)
        };
        let base = start("base", identities::base(), base_uplink, None);
        if !plan.base_up.is_empty() {
            wan.uplink(&base.host, &spec(plan.base_up));
        }
        let join = |name: String, identity, link: &str, downlink| {
            let site = start(&name, identity, None, downlink);
            wan.link(&site.host, &base.host, &spec(link));
            base.tasks.spawn(Arc::clone(&site).join(base.address()));
            site
        };
        base.tasks.spawn(Arc::clone(&base).accept());
        let nodes = plan.nodes.iter().enumerate();
        let nodes: Vec<_> = nodes
            .map(|(i, link)| join(format!("node{i}"), identities::node(i), link, node_downlink))
            .collect();
        let clients = plan.clients.iter().enumerate();
        let clients: Vec<_> = clients
            .map(|(i, link)| join(format!("client{i}"), identities::client(i), link, None))
            .collect();
        base.tasks.spawn(Arc::clone(&base).flush(BASE_FLUSH_EVERY));
        for node in &nodes {
            node.tasks.spawn(Arc::clone(node).flush(NODE_FLUSH_EVERY));
        }
        for (node, (up, down)) in nodes.iter().zip(&plan.node_access) {
            wan.uplink(&node.host, &spec(up));
            wan.downlink(&node.host, &spec(down));
        }
        let shelves = BTreeMap::new();
        let mut fleet = Self { wan: wan.clone(), base, nodes, clients, shelves };
        plan.jobs.iter().for_each(|push| fleet.prepare(push, plan.caps));
        fleet
    }

    fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        [&self.base].into_iter().chain(&self.nodes).chain(&self.clients)
    }

    /// Makes a job at the base and its nodes.
    fn prepare(&mut self, push: &Push, caps: Caps) {
        let object = capped(content::object(push.number, push.client), caps);
        let identity = identities::base();
        let publisher = object.tenant.clone();
        let origin = Origin::Drafts { publisher, key: Arc::clone(identity.signing_key()) };
        let receivers =
            push.to.iter().map(|node| PeerId::Node(identities::node(*node).name().clone()));
        let receivers = receivers.collect();
        let shelf = shelf_of(push.stalled == Some(Place::Base));
        place(&self.base, &object, origin, &shelf, receivers);
        for &node in &push.to {
            let shelf = shelf_of(push.stalled == Some(Place::Nodes));
            place(&self.nodes[node], &object, Origin::Signed, &shelf, Vec::new());
            self.shelves.insert((push.number, node), shelf);
        }
    }

    async fn run(&self, plan: &Plan, awaited: &BTreeSet<(u8, usize)>) -> Outcome {
        let start = Instant::now();
        for push in &plan.jobs {
            let site = Arc::clone(&self.clients[push.client]);
            site.tasks.spawn(feed(Arc::clone(&site), push.clone(), plan.caps));
        }
        let mut events = plan.events.iter().peekable();
        let mut took = BTreeMap::new();
        let mut progress: Vec<(Duration, Vec<u64>)> = Vec::new();
        while took.len() < awaited.len() {
            assert!(start.elapsed() < PATIENCE, "only {took:?} are complete");
            while let Some((_, event)) = events.next_if(|(at, _)| *at <= start.elapsed()) {
                self.happen(*event);
            }
            sleep(LOOK_EVERY).await;
            let complete = awaited.iter().filter_map(|&(number, node)| {
                let object = content::object(number, 0);
                let at = self.nodes[node].complete_at(object.id)?;
                let push = plan.jobs.iter().find(|push| push.number == number)?;
                Some(((number, node), at.duration_since(start + push.at)))
            });
            took = complete.collect();
            let now = start.elapsed();
            if progress.last().is_none_or(|(at, _)| now >= *at + PROGRESS_EVERY) {
                progress.push((now, self.progress(&plan.jobs)));
            }
        }
        progress.push((start.elapsed(), self.progress(&plan.jobs)));
        let uplink = self.base.links().access().carries_bps();
        let base_up = self.wan.uplink_counters(&self.base.host);
        Outcome {
            took,
            uplink,
            base_up,
            progress,
            trace: self.wan.trace(),
            ended_at: self.wan.now(),
        }
    }

    fn progress(&self, jobs: &[Push]) -> Vec<u64> {
        let Some(first) = jobs.first() else { return Vec::new() };
        let id = content::object(first.number, first.client).id;
        let bytes = |node: &usize| {
            let job = self.nodes[*node].relays().get(id);
            job.map_or(0, |job| job.with_relay(|relay| relay.durable_bytes()))
        };
        first.to.iter().map(bytes).collect()
    }

    fn happen(&self, event: Event) {
        match event {
            Event::Freeze(node) => self.wan.freeze(&self.nodes[node].host),
            Event::Thaw(node) => self.wan.thaw(&self.nodes[node].host),
            Event::Link(node, link) => {
                self.wan.link(&self.nodes[node].host, &self.base.host, &spec(link));
            }
        }
    }

    /// What is complete is what was pushed.
    fn check(&self, awaited: &BTreeSet<(u8, usize)>, plan: &Plan) {
        for push in &plan.jobs {
            let job = content::object(push.number, push.client).id;
            let nodes = push.to.iter().filter(|node| awaited.contains(&(push.number, **node)));
            for node in nodes {
                let shelf = &self.shelves[&(push.number, *node)];
                for chunk in 0..chunks(push) {
                    let held = shelf.read_chunk(chunk).unwrap();
                    assert!(held == content::payload(job, chunk), "chunk {chunk} of {push:?}");
                }
            }
        }
    }
}

fn capped(object: JobObject, caps: Caps) -> JobObject {
    JobObject { rate_bps: caps.job, ..object }
}

fn shelf_of(full: bool) -> Arc<Shelf> {
    Arc::new(if full { Shelf::full() } else { Shelf::default() })
}

fn place(
    site: &Site,
    object: &JobObject,
    origin: Origin,
    shelf: &Arc<Shelf>,
    receivers: Vec<PeerId>,
) {
    let keeping = Keeping::Memory(Arc::clone(shelf) as Arc<dyn Content>);
    let job = Job::new(object.clone(), origin, keeping, site.surroundings());
    site.keep(&job, shelf);
    site.add(&job, receivers);
}

fn chunks(push: &Push) -> u64 {
    push.bytes.div_ceil(u64::from(CHUNK))
}

/// Pushes a job, as the product's client does: within a window, from which goes what is durable
/// at the base.
async fn feed(site: Arc<Site>, push: Push, caps: Caps) {
    sleep(push.at).await;
    let start = Instant::now();
    let object = capped(content::object(push.number, push.client), caps);
    let paced = push.source_bps.or(caps.job).is_some();
    let page_chunks = if paced { PACED_PAGE_CHUNKS } else { PAGE_CHUNKS };
    let cutter = Cutter::new(&object, chunks(&push), page_chunks);
    let window = Arc::new(Window::new());
    let keeping = Keeping::Memory(Arc::clone(&window) as Arc<dyn Content>);
    let job = Job::new(object, Origin::Own, keeping, site.surroundings());
    site.add(&job, vec![PeerId::Base]);
    for cut in cutter {
        if let Some(bps) = push.source_bps {
            let bytes = cut.page.first_chunk * u64::from(CHUNK);
            sleep_until(start + Duration::from_secs_f64(bytes as f64 * 8.0 / bps as f64)).await;
        }
        room(&site, &job, &window).await;
        job.publish((&cut.bytes, &cut.page), &cut.summary, cut.chunks).unwrap();
    }
    while !job.with_relay(|relay| relay.is_complete_at(&PeerId::Base)) {
        forget(&job, &window);
        site.news.notified().await;
    }
}

async fn room(site: &Site, job: &Job, window: &Window) {
    loop {
        forget(job, window);
        if window.bytes() < WINDOW_BYTES_MAX {
            return;
        }
        site.news.notified().await;
    }
}

fn forget(job: &Job, window: &Window) {
    let durable = job.with_relay(|relay| relay.durable_at(&PeerId::Base));
    window.forget_below(durable.unwrap_or(0));
}
