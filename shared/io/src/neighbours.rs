//! The links of a node to other nodes: dialled when a job needs them, shared by all jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Endpoint, Incoming};
use shared::id::{JobId, Name, PeerId, Role};
use shared::limit;
use shared::time::Time;
use shared::wire::code::Code;
use shared::wire::message::{Hello, Neighbour, View, Welcome};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::greet::{self, GreetError, Greeted};
use crate::link::{Conduct, Link, chain};

/// How often is looked who is missing.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the node with the greater name waits to be dialled before it dials: one of two that
/// can reach each other is enough.
const LATER: Duration = Duration::from_secs(1);
/// First and longest pause before a node that was not reached is dialled again.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Connections above which an address must prove itself before any work is done for it.
const RETRY_ABOVE: usize = limit::NEIGHBOURS_MAX / 2;
/// How long a link that no job needs stays.
const UNUSED: Duration = Duration::from_secs(30);

/// What a node says of itself to others.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Its name.
    pub name: Name,
    /// What it greets with.
    pub hello: Hello,
}

/// The other nodes that the jobs of this one need.
#[derive(Debug, Default)]
pub struct Neighbours {
    views: Mutex<BTreeMap<JobId, View>>,
    changed: Notify,
}

impl Neighbours {
    /// The base tells who else has a job.
    pub fn set(&self, job: JobId, view: View) {
        self.views().insert(job, view);
        self.changed.notify_one();
    }

    /// The rate at which the job can reach all its nodes, as the base says; 0 if unknown.
    pub fn target_bps(&self, job: JobId) -> u64 {
        self.views().get(&job).map_or(0, |view| view.target_bps)
    }

    /// A job has come: its neighbours are needed now.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// The job is gone.
    pub fn forget(&self, job: JobId) {
        self.views().remove(&job);
    }

    fn views(&self) -> MutexGuard<'_, BTreeMap<JobId, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom the jobs that are not complete here need, by name.
    fn needed(&self, conduct: &dyn Conduct) -> BTreeMap<Name, String> {
        let views = self.views();
        let open = views.iter().filter(|(job, _)| {
            let job = conduct.relays().get(**job);
            job.is_some_and(|job| job.with_relay(|relay| !relay.is_complete()))
        });
        let peers = open.flat_map(|(_, view)| &view.peers);
        peers.map(|Neighbour { name, address }| (name.clone(), address.clone())).collect()
    }
}

/// A node that is not linked.
#[derive(Debug)]
struct Missing {
    dial_at: Time,
    pause: Duration,
    is_dialling: bool,
}

/// Keeps the links to the other nodes that are needed: dials and accepts, until `stop`.
///
/// # Cancellation
/// Cancel `stop`: the links are left to be ended by their endpoint.
pub async fn run(
    neighbours: Arc<Neighbours>,
    endpoint: Endpoint,
    introduction: impl Fn() -> Introduction + Send + Sync,
    conduct: Arc<dyn Conduct>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut keeper = Keeper {
        neighbours: &neighbours,
        endpoint: &endpoint,
        conduct: &conduct,
        clock,
        missing: BTreeMap::new(),
        unused: BTreeMap::new(),
        links: JoinSet::new(),
    };
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => keeper.accept(incoming, &introduction()),
                None => return,
            },
            Some(ended) = keeper.links.join_next() => keeper.ended(ended),
            () = neighbours.changed.notified() => keeper.look(&introduction()),
            _ = interval.tick() => keeper.look(&introduction()),
        }
    }
}

struct Keeper<'a> {
    neighbours: &'a Neighbours,
    endpoint: &'a Endpoint,
    conduct: &'a Arc<dyn Conduct>,
    clock: Clock,
    missing: BTreeMap<Name, Missing>,
    /// Since when no job needs a link.
    unused: BTreeMap<Name, Time>,
    links: JoinSet<Option<Name>>,
}

impl Keeper<'_> {
    fn look(&mut self, introduction: &Introduction) {
        let now = self.clock.now();
        let needed = self.neighbours.needed(self.conduct.as_ref());
        self.missing.retain(|name, _| needed.contains_key(name));
        for (name, address) in &needed {
            if self.conduct.links().get(&PeerId::Node(name.clone())).is_some() {
                self.missing.remove(name);
                continue;
            }
            let later = if introduction.name < *name { Duration::ZERO } else { LATER };
            let first = || Missing { dial_at: now + later, pause: PAUSE_MIN, is_dialling: false };
            let missing = self.missing.entry(name.clone()).or_insert_with(first);
            let is_full = self.links.len() >= limit::NEIGHBOURS_MAX;
            if missing.is_dialling || now < missing.dial_at || is_full {
                continue;
            }
            missing.is_dialling = true;
            let dial = dial(
                (name.clone(), address.clone()),
                self.endpoint.clone(),
                introduction.hello.clone(),
                Arc::clone(self.conduct),
                self.clock,
            );
            self.links.spawn(dial);
        }
        self.end_unused(&needed, now);
    }

    fn ended(&mut self, ended: Result<Option<Name>, tokio::task::JoinError>) {
        match ended {
            Ok(Some(name)) => {
                if let Some(missing) = self.missing.get_mut(&name) {
                    missing.is_dialling = false;
                    missing.dial_at = self.clock.now() + missing.pause;
                    missing.pause = (missing.pause * 2).min(PAUSE_MAX);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a link to a node has panicked"),
        }
    }

    fn accept(&mut self, incoming: Incoming, introduction: &Introduction) {
        if self.links.len() >= limit::NEIGHBOURS_MAX {
            tracing::debug!("a node is refused: too many are connected");
            return incoming.refuse();
        }
        if self.links.len() >= RETRY_ABOVE && !incoming.remote_address_validated() {
            if incoming.retry().is_err() {
                tracing::debug!("a connection cannot be asked to prove its address");
            }
            return;
        }
        let term = introduction.hello.incarnation;
        self.links.spawn(accept(incoming, Arc::clone(self.conduct), self.clock, term));
    }

    /// Ends the links that no job has needed for a while, here or there.
    fn end_unused(&mut self, needed: &BTreeMap<Name, String>, now: Time) {
        let mut present = BTreeSet::new();
        for link in self.conduct.links().all() {
            let PeerId::Node(name) = link.peer() else { continue };
            present.insert(name.clone());
            let is_served =
                |job: &Arc<crate::job::Job>| job.with_relay(|relay| relay.is_feeding(link.peer()));
            if needed.contains_key(name) || self.conduct.relays().all().iter().any(is_served) {
                self.unused.remove(name);
            } else if now.since(*self.unused.entry(name.clone()).or_insert(now)) >= UNUSED {
                link.close(Code::Done, "no job needs this connection");
            }
        }
        self.unused.retain(|name, _| present.contains(name));
    }
}

/// Dials a node and runs the link to its end; gives its name.
async fn dial(
    (name, address): (Name, String),
    endpoint: Endpoint,
    hello: Hello,
    conduct: Arc<dyn Conduct>,
    clock: Clock,
) -> Option<Name> {
    match dial_node(&name, &address, &endpoint, &hello).await {
        Ok(greeted) => {
            tracing::debug!(node = %name, address, "connected to a node");
            run_link(greeted, hello.incarnation, conduct, clock).await;
        }
        Err(error) => {
            tracing::debug!(node = %name, address, error = chain(&error), "a node is not reached");
        }
    }
    Some(name)
}

async fn dial_node(
    name: &Name,
    address: &str,
    endpoint: &Endpoint,
    hello: &Hello,
) -> Result<Greeted<Welcome>, GreetError> {
    let found = look_up(address, endpoint).await?;
    let greeted = greet::dial(endpoint, found, Role::Node, hello).await?;
    if greeted.identity.name != *name {
        let text = format!("{address} is {}, not {name}", greeted.identity.name);
        return Err(greet::refuse(&greeted.connection, text));
    }
    Ok(greeted)
}

async fn accept(
    incoming: Incoming,
    conduct: Arc<dyn Conduct>,
    clock: Clock,
    term: u64,
) -> Option<Name> {
    let from = incoming.remote_address();
    if let Err(error) = greet_back(incoming, conduct, clock, term).await {
        tracing::info!(%from, error = chain(&error), "a peer was not admitted");
    }
    None
}

async fn greet_back(
    incoming: Incoming,
    conduct: Arc<dyn Conduct>,
    clock: Clock,
    term: u64,
) -> Result<(), GreetError> {
    let mut greeted = greet::accept(incoming).await?;
    let identity = &greeted.identity;
    if identity.role != Role::Node || !conduct.shares_a_job_with(&identity.name) {
        let text = format!("{} {} shares no job with this node", identity.role, identity.name);
        return Err(greet::refuse(&greeted.connection, text));
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let welcome = Welcome { version, epoch: 0, incarnation: greeted.greeting.incarnation };
    greet::welcome(&mut greeted.control, &welcome).await?;
    run_link(greeted, term, conduct, clock).await;
    Ok(())
}

async fn run_link<G>(greeted: Greeted<G>, term: u64, conduct: Arc<dyn Conduct>, clock: Clock) {
    let Greeted { connection, control, identity, .. } = greeted;
    let peer = PeerId::Node(identity.name.clone());
    let (link, queues) = Link::new(peer, identity, connection, clock, term, Some(0));
    let why = Arc::clone(&link).run(control, queues, conduct).await;
    tracing::debug!(node = %link.peer(), %why, "the connection to a node is gone");
}

/// Finds an address that the endpoint's socket can reach.
///
/// # Errors
/// [`GreetError::Malformed`] if there is none.
pub async fn look_up(host: &str, endpoint: &Endpoint) -> Result<SocketAddr, GreetError> {
    let local = endpoint.local_addr().ok();
    let found = tokio::net::lookup_host(host).await;
    let found =
        found.map_err(|error| GreetError::Malformed(format!("looking up {host}: {error}")))?;
    let mut found: Vec<SocketAddr> = found.collect();
    // A socket that is bound to an IPv4 address reaches no other.
    if local.is_some_and(|local| local.is_ipv4()) {
        found.retain(SocketAddr::is_ipv4);
    }
    let first = found.first().copied();
    first.ok_or_else(|| GreetError::Malformed(format!("{host} has no usable address")))
}
