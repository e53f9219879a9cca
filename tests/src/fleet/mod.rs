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
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::link::{LinkCounters, LinkSpec};
use crate::scenario::{self, Scenario};
use crate::wan::{self, Trace, Wan};
use shared::id::PeerId;
use shared::job::{JobObject, Kind, stripe_count};
use shared::limit;
use shared::neighbourhood;
use shared::wire::message::{Neighbour, View};
use shared_io::access::Access;
use shared_io::clock::Clock;
use shared_io::content::{Content, Window};
use shared_io::job::{Job, Keeping, Origin};
use shared_io::link::Conduct as _;
use shared_io::store::{BASE_FLUSH_EVERY, NODE_FLUSH_EVERY};
use shared_io::transport::{Congestion, Terms};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::content::CHUNK;
use self::content::{Copies, Cutter, Shelf};
use self::site::Site;

/// Bytes that a publisher keeps until they are durable at the base, as the product's does.
const WINDOW_BYTES_MAX: u64 = 24 << 20;
/// Chunks of a page of a job that is cut as fast as it goes, and of one that is cut as it comes.
const PAGE_CHUNKS: u64 = 128;
const PACED_PAGE_CHUNKS: u64 = 1;
/// How often is looked whether all is done, and when that is given up.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often the progress of the first job is noted.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(600);
/// A link that lets nothing through.
const CUT: &str = "20ms 100%-loss";

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
    /// How nodes feed each other; if absent, the base alone feeds them.
    pub mesh: Option<Mesh>,
    /// The congestion controller of all connections.
    pub congestion: Congestion,
}

/// Nodes that feed each other.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// Stripes of each job.
    pub stripes: u8,
    /// The path between two nodes, if none is named for them; if this is empty, the link of the
    /// one to the base and that of the other: the base stands in the middle.
    pub path: &'static str,
    /// Paths between certain nodes.
    pub paths: Vec<(usize, usize, &'static str)>,
    /// What the base tells of the rate at which jobs can reach all, bits per second.
    pub target_bps: u64,
    /// What the base knows from the start that the uplinks of nodes carry, bits per second; no
    /// words: nothing.
    pub uplinks: Vec<u64>,
}

impl Mesh {
    fn uplink_of(&self, node: usize) -> u64 {
        self.uplinks.get(node).copied().unwrap_or(0)
    }
}

impl From<&Scenario> for Plan {
    /// One push to all nodes, as fast as it goes.
    fn from(scenario: &Scenario) -> Self {
        let to = (0..scenario.nodes.len()).collect();
        let push = Push { to, bytes: scenario.bytes, ..Push::default() };
        let event = |(at, event): &(Duration, scenario::Event)| {
            let scenario::Event::Path(node, path) = *event;
            (*at, Event::Site(node, path))
        };
        Self {
            clients: vec![scenario::CLIENT],
            nodes: scenario.nodes.iter().map(|site| site.path).collect(),
            jobs: vec![push],
            events: scenario.events.iter().map(event).collect(),
            caps: Caps::default(),
            base_up: scenario.base_up,
            node_access: scenario.nodes.iter().map(|site| (site.up, site.down)).collect(),
            mesh: Some(Mesh {
                stripes: stripe_count(Kind::Files, scenario.nodes.len()),
                ..Mesh::default()
            }),
            congestion: Congestion::default(),
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
    /// After how long its source pauses each time, and for how long.
    pub pauses: Option<(Duration, Duration)>,
    /// Where there is no room for it.
    pub stalled: Option<Place>,
    /// A live stream has one stripe; of a file set nodes feed each other in those of the mesh.
    pub kind: Kind,
    /// 0 to 9; higher goes first.
    pub priority: u8,
}

impl Push {
    /// Content bytes, if they are known beforehand.
    fn size(&self) -> Option<u64> {
        (self.kind == Kind::Files).then_some(self.bytes)
    }
}

impl Default for Push {
    fn default() -> Self {
        Self {
            number: 1,
            client: 0,
            to: Vec::new(),
            bytes: 1,
            at: Duration::ZERO,
            source_bps: None,
            pauses: None,
            stalled: None,
            kind: Kind::Files,
            priority: 5,
        }
    }
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
    /// A node's process ends: its connections are closed, and it makes no others.
    Close(usize),
    /// Nothing comes to a node or from it any more.
    Cut(usize),
    /// A node has no room for a job any more: it takes what was granted and grants nothing.
    Fill(u8, usize),
    /// A node drops a job: it resets the streams of it.
    Drop(u8, usize),
    /// The link to a node is from now on this one.
    Link(usize, &'static str),
    /// The same, and with it the paths to all other nodes that lead over it.
    Site(usize, &'static str),
    /// The path between two nodes is from now on this one.
    Path(usize, usize, &'static str),
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How long each job took to be complete at each node, from its beginning.
    pub took: BTreeMap<(u8, usize), Duration>,
    /// What the base has learnt of its uplink, bits per second.
    pub uplink: Option<u64>,
    /// Content bytes of all jobs that the base has sent.
    pub base_sent: u64,
    /// Content bytes of all jobs that base and nodes have sent.
    pub sent: u64,
    /// What the base's uplink has done, if it was described.
    pub base_up: Option<LinkCounters>,
    /// Durable bytes of the first job at each of its nodes, from time to time.
    pub progress: Vec<(Duration, Vec<u64>)>,
    /// Chunks of the first job that are at the base and at each of its nodes, counted from the
    /// first without a gap, at each look at which one had more than before.
    pub heads: Vec<(Duration, Vec<u64>)>,
    pub trace: Trace,
    pub ended_at: Duration,
}

impl Outcome {
    /// When each chunk of the first job was at the base (0), or at the first of its nodes (1) and
    /// so on.
    pub fn arrivals(&self, place: usize) -> Vec<Duration> {
        let mut arrived = Vec::new();
        for (at, heads) in &self.heads {
            let head = usize::try_from(heads[place]).unwrap();
            arrived.resize(head.max(arrived.len()), *at);
        }
        arrived
    }
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
    /// The link between the base and each node, now.
    node_links: Mutex<Vec<&'static str>>,
    shelves: BTreeMap<(u8, usize), Arc<Shelf>>,
    copies: Arc<Copies>,
}

fn spec(text: &str) -> LinkSpec {
    text.parse().unwrap()
}

impl Fleet {
    fn start(wan: &Wan, plan: &Plan) -> Self {
        let Caps { base_uplink, node_downlink, job: _ } = plan.caps;
        let start = |name: &str, identity, uplink, downlink| {
            let access = Access::new(Clock::start(), uplink, downlink);
            let terms =
                Terms { congestion: plan.congestion, access: Arc::new(access), ..Terms::default() };
            Site::start(wan.host(name).unwrap(), identity, terms)
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
        let node_links = Mutex::new(plan.nodes.clone());
        let copies = Arc::default();
        let mut fleet =
            Self { wan: wan.clone(), base, nodes, clients, node_links, shelves, copies };
        if let Some(mesh) = &plan.mesh {
            fleet.connect(mesh, &plan.jobs);
        }
        plan.jobs.iter().for_each(|push| fleet.prepare(push, plan));
        fleet
    }

    /// Lets nodes reach each other.
    fn connect(&self, mesh: &Mesh, jobs: &[Push]) {
        for (one, other) in acquainted(jobs) {
            let named = mesh
                .paths
                .iter()
                .find(|(a, b, _)| (*a, *b) == (one, other) || (*b, *a) == (one, other));
            let path = match named.map_or(mesh.path, |(.., path)| path) {
                "" => self.over_the_base(one, other),
                path => spec(path),
            };
            self.wan.link(&self.nodes[one].host, &self.nodes[other].host, &path);
        }
        for site in self.sites() {
            site.tasks.spawn(Arc::clone(site.relays_of()).tick(CancellationToken::new()));
        }
        for node in &self.nodes {
            node.tasks.spawn(Arc::clone(node).meet());
        }
    }

    fn over_the_base(&self, one: usize, other: usize) -> LinkSpec {
        let link = |node: usize| self.node_links.lock().unwrap()[node];
        spec(link(one)).then(&spec(link(other)))
    }

    /// Tells the nodes of a job of each other.
    fn introduce(&self, job: &JobObject, to: &[usize], mesh: &Mesh) {
        for (place, node) in to.iter().enumerate() {
            let known = neighbourhood::neighbours(job.id, job.size, place, to.len());
            let peers = known.into_iter().map(|other| {
                let site = &self.nodes[to[other]];
                let name = identities::node(to[other]).name().clone();
                Neighbour { name, address: site.address().to_string() }
            });
            let view = View { target_bps: mesh.target_bps, peers: peers.collect() };
            self.nodes[*node].view(job.id, view);
        }
    }

    fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        [&self.base].into_iter().chain(&self.nodes).chain(&self.clients)
    }

    /// Makes a job at the base and its nodes.
    fn prepare(&mut self, push: &Push, plan: &Plan) {
        let object = planned(push, plan);
        let identity = identities::base();
        let publisher = object.tenant.clone();
        let origin = Origin::Drafts { publisher, key: Arc::clone(identity.signing_key()) };
        let receivers =
            push.to.iter().map(|node| PeerId::Node(identities::node(*node).name().clone()));
        let receivers = receivers.collect();
        let shelf_of = |full| Arc::new(Shelf::new(&self.copies, full));
        let shelf = shelf_of(push.stalled == Some(Place::Base));
        let uplinks = plan.mesh.as_ref().map(|mesh| push.to.iter().map(|n| mesh.uplink_of(*n)));
        place(&self.base, &object, origin, &shelf, receivers, uplinks.map(Iterator::collect));
        for &node in &push.to {
            let shelf = shelf_of(push.stalled == Some(Place::Nodes));
            place(&self.nodes[node], &object, Origin::Signed, &shelf, Vec::new(), None);
            self.shelves.insert((push.number, node), shelf);
        }
        if let Some(mesh) = &plan.mesh {
            self.introduce(&object, &push.to, mesh);
        }
    }

    async fn run(&self, plan: &Plan, awaited: &BTreeSet<(u8, usize)>) -> Outcome {
        let start = Instant::now();
        for push in &plan.jobs {
            let site = Arc::clone(&self.clients[push.client]);
            site.tasks.spawn(feed(Arc::clone(&site), push.clone(), plan.clone()));
        }
        let mut events = plan.events.iter().peekable();
        let mut took = BTreeMap::new();
        let mut beaten = Duration::ZERO;
        let mut progress: Vec<(Duration, Vec<u64>)> = Vec::new();
        let mut heads: Vec<(Duration, Vec<u64>)> = Vec::new();
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
            let seen = self.heads(&plan.jobs);
            if heads.last().is_none_or(|(_, before)| *before != seen) {
                heads.push((now, seen));
            }
            if now >= beaten + limit::BEAT_EVERY {
                beaten = now;
                self.beat(plan);
            }
            if progress.last().is_none_or(|(at, _)| now >= *at + PROGRESS_EVERY) {
                progress.push((now, self.progress(&plan.jobs)));
            }
        }
        progress.push((start.elapsed(), self.progress(&plan.jobs)));
        let uplink = self.base.links().access().carries_bps();
        let base_sent = self.base.content_sent();
        let sent = base_sent + self.nodes.iter().map(|node| node.content_sent()).sum::<u64>();
        let base_up = self.wan.uplink_counters(&self.base.host);
        Outcome {
            took,
            uplink,
            base_sent,
            sent,
            base_up,
            progress,
            heads,
            trace: self.wan.trace(),
            ended_at: self.wan.now(),
        }
    }

    /// Tells the base what the uplinks of nodes carry, as beats do.
    fn beat(&self, plan: &Plan) {
        let Some(mesh) = &plan.mesh else { return };
        for push in &plan.jobs {
            let job = content::object(push.number, push.client).id;
            let Some(job) = self.base.relays().get(job) else { continue };
            for &node in &push.to {
                let learnt = self.nodes[node].links().access().carries_bps().unwrap_or(0);
                let (peer, bps) = (identities::node(node), mesh.uplink_of(node).max(learnt));
                let peer = PeerId::Node(peer.name().clone());
                job.step(|relay, _| relay.set_uplink(&peer, bps));
            }
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

    /// Chunks of the first job at the base and at each of its nodes.
    fn heads(&self, jobs: &[Push]) -> Vec<u64> {
        let Some(first) = jobs.first() else { return Vec::new() };
        let id = content::object(first.number, first.client).id;
        let head = |site: &Arc<Site>| {
            site.relays().get(id).map_or(0, |job| job.with_relay(|relay| relay.held().head()))
        };
        let nodes = first.to.iter().map(|node| head(&self.nodes[*node]));
        [head(&self.base)].into_iter().chain(nodes).collect()
    }

    fn happen(&self, event: Event) {
        match event {
            Event::Freeze(node) => self.wan.freeze(&self.nodes[node].host),
            Event::Thaw(node) => self.wan.thaw(&self.nodes[node].host),
            Event::Close(node) => self.nodes[node].endpoint.close(0u32.into(), b"ended"),
            Event::Cut(node) => {
                self.happen(Event::Link(node, CUT));
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    self.happen(Event::Path(node, other, CUT));
                }
            }
            Event::Fill(number, node) => self.shelves[&(number, node)].fill(),
            Event::Drop(number, node) => {
                self.nodes[node].relays().remove(content::object(number, 0).id).unwrap();
            }
            Event::Link(node, link) => {
                self.wan.link(&self.nodes[node].host, &self.base.host, &spec(link));
            }
            Event::Site(node, link) => {
                self.happen(Event::Link(node, link));
                self.node_links.lock().unwrap()[node] = link;
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    let path = self.over_the_base(node, other);
                    self.wan.link(&self.nodes[node].host, &self.nodes[other].host, &path);
                }
            }
            Event::Path(one, other, path) => {
                self.wan.link(&self.nodes[one].host, &self.nodes[other].host, &spec(path));
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

/// The pairs of nodes that some job has know each other: of a thousand nodes not all have paths.
fn acquainted(jobs: &[Push]) -> BTreeSet<(usize, usize)> {
    let of_job = |push: &Push| {
        let (job, to) = (content::object(push.number, push.client).id, push.to.clone());
        let size = push.size();
        let known = (0..to.len()).flat_map(move |place| {
            let others = neighbourhood::neighbours(job, size, place, to.len());
            let (one, to) = (to[place], to.clone());
            others.into_iter().map(move |other| (one.max(to[other]), one.min(to[other])))
        });
        known.collect::<Vec<_>>()
    };
    jobs.iter().flat_map(of_job).collect()
}

fn planned(push: &Push, plan: &Plan) -> JobObject {
    let object = content::object(push.number, push.client);
    let stripes = match push.kind {
        Kind::Files => plan.mesh.as_ref().map_or(object.stripes, |mesh| mesh.stripes),
        Kind::Live => 1,
    };
    let (kind, size, priority) = (push.kind, push.size(), push.priority);
    JobObject { kind, size, priority, rate_bps: plan.caps.job, stripes, ..object }
}

fn place(
    site: &Site,
    object: &JobObject,
    origin: Origin,
    shelf: &Arc<Shelf>,
    receivers: Vec<PeerId>,
    spreads: Option<Vec<u64>>,
) {
    let keeping = Keeping::Memory(Arc::clone(shelf) as Arc<dyn Content>);
    let job = Job::new(object.clone(), origin, keeping, site.surroundings());
    if let Some(uplinks) = spreads {
        let nodes: Vec<_> = receivers.iter().cloned().zip(uplinks).collect();
        job.step(|relay, fx| relay.spread(&nodes, fx));
    }
    site.keep(&job, shelf);
    site.add(&job, receivers);
}

fn chunks(push: &Push) -> u64 {
    push.bytes.div_ceil(u64::from(CHUNK))
}

/// Pushes a job, as the product's client does: within a window, from which goes what is durable
/// at the base.
async fn feed(site: Arc<Site>, push: Push, plan: Plan) {
    sleep(push.at).await;
    let start = Instant::now();
    let object = planned(&push, &plan);
    let paced = push.source_bps.or(plan.caps.job).is_some();
    let page_chunks = if paced { PACED_PAGE_CHUNKS } else { PAGE_CHUNKS };
    let cutter = Cutter::new(&object, chunks(&push), page_chunks);
    let window = Arc::new(Window::new());
    let keeping = Keeping::Memory(Arc::clone(&window) as Arc<dyn Content>);
    let job = Job::new(object, Origin::Own, keeping, site.surroundings());
    site.add(&job, vec![PeerId::Base]);
    for cut in cutter {
        if let Some(bps) = push.source_bps {
            let bytes = cut.page.first_chunk * u64::from(CHUNK);
            let seconds = bytes as f64 * 8.0 / bps as f64;
            let pause = |(every, long): (Duration, Duration)| {
                (seconds / every.as_secs_f64()).floor() * long.as_secs_f64()
            };
            let paused = push.pauses.map_or(0.0, pause);
            sleep_until(start + Duration::from_secs_f64(seconds + paused)).await;
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

#[cfg(test)]
mod tests {
    use shared::wire::message::{StripeWant, Want};

    use super::*;

    /// The thread that flushes tells a job of what is durable, and what is durable may be the
    /// first that a peer can be sent.
    #[test]
    fn a_thread_outside_of_the_runtime_may_begin_to_send() {
        let push = Push::default();
        let (clients, nodes) = (vec!["10ms"], vec!["10ms"]);
        let plan = Plan { clients, nodes, jobs: vec![push], ..Plan::default() };
        let node = PeerId::Node(identities::node(0).name().clone());
        let began = wan::run(1, async |wan| {
            let fleet = Fleet::start(&wan, &plan);
            while fleet.base.links().get(&node).is_none() {
                sleep(LOOK_EVERY).await;
            }
            let job = fleet.base.relays().get(content::object(1, 0).id).unwrap();
            let stripes = vec![StripeWant::new(0, 0, 8)];
            let want = Want { stripes, ..Want::default() };
            let step = move || job.step(|relay, fx| relay.wanted(&node, want, fx));
            let ended = std::thread::spawn(step).join();
            fleet.sites().for_each(|site| site.forget_all());
            ended.is_ok()
        });
        assert!(began.unwrap(), "the thread has panicked");
    }
}
