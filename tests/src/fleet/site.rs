//! A process of the product in the virtual WAN: its links, jobs and byte movers are the
//! product's, what the role adds is as little as feeding and being fed needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::wan::Host;
use quinn::Endpoint;
use shared::control::Pace;
use shared::id::{JobId, Name, PeerId, Role};
use shared::seal::Hash;
use shared::wire::codec;
use shared::wire::message::{Hello, StateKind, View, Welcome};
use shared_io::clock::Clock;
use shared_io::greet;
use shared_io::job::{Job, Relays, Surroundings, Watcher};
use shared_io::link::{Conduct, Link, Links, Taken};
use shared_io::neighbours::{self, Introduction, Neighbours};
use shared_io::store::Flushed;
use shared_io::transport::{self, Terms};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::content::Shelf;

pub(crate) const PORT: u16 = 4433;
/// Pause before a peer that is gone is dialled again.
const AGAIN: Duration = Duration::from_millis(500);
/// Space that a node says is free.
const FREE: u64 = 1 << 40;

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) host: Host,
    pub(crate) endpoint: Endpoint,
    role: Role,
    name: Name,
    neighbours: Arc<Neighbours>,
    relays: Arc<Relays>,
    links: Arc<Links>,
    clock: Clock,
    pub(crate) tasks: TaskTracker,
    surroundings: OnceLock<Arc<Surroundings>>,
    /// Whom each job is offered to.
    receivers: Mutex<BTreeMap<JobId, Vec<PeerId>>>,
    shelves: Mutex<BTreeMap<JobId, Arc<Shelf>>>,
    /// When jobs were complete here.
    complete: Mutex<BTreeMap<JobId, Instant>>,
    /// Told of every change of a job's account.
    pub(crate) news: Notify,
}

impl Site {
    pub(crate) fn start(host: Host, identity: &'static certs::Identity, terms: Terms) -> Arc<Self> {
        let role = identity.role();
        let accepts = matches!(role, Role::Base | Role::Node);
        let server = accepts.then(|| transport::server_config(identity, &terms).unwrap());
        let client = transport::client_config(identity, &terms).unwrap();
        let endpoint = host.open_endpoint(PORT, server, client, &terms.access).unwrap();
        let site = Arc::new(Self {
            host,
            endpoint,
            role,
            name: identity.name().clone(),
            neighbours: Arc::default(),
            relays: Arc::default(),
            links: Arc::new(Links::new(&terms)),
            clock: Clock::start(),
            tasks: TaskTracker::new(),
            surroundings: OnceLock::new(),
            receivers: Mutex::default(),
            shelves: Mutex::default(),
            complete: Mutex::default(),
            news: Notify::new(),
        });
        let surroundings = Surroundings {
            clock: site.clock,
            links: Arc::clone(&site.links),
            tasks: site.tasks.clone(),
            flusher: None,
            watcher: Arc::clone(&site) as Arc<dyn Watcher>,
            receiving: AtomicUsize::new(0),
        };
        site.surroundings.get_or_init(|| Arc::new(surroundings));
        site.tasks.spawn(terms.access.watch(CancellationToken::new()));
        site
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (self.host.ip(), PORT).into()
    }

    pub(crate) fn surroundings(&self) -> Arc<Surroundings> {
        Arc::clone(self.surroundings.get().unwrap())
    }

    /// Adds a job that is offered to `receivers`.
    pub(crate) fn add(&self, job: &Arc<Job>, receivers: Vec<PeerId>) {
        self.relays.insert(Arc::clone(job));
        self.relays.take_up_early(job, |_peer| true);
        for peer in &receivers {
            if self.links.get(peer).is_some() {
                job.step(|relay, fx| relay.invite(peer, fx));
            }
        }
        self.receivers.lock().unwrap().insert(job.id(), receivers);
    }

    /// Has what `shelf` holds of its job become durable.
    pub(crate) fn keep(&self, job: &Job, shelf: &Arc<Shelf>) {
        self.shelves.lock().unwrap().insert(job.id(), Arc::clone(shelf));
    }

    pub(crate) const fn relays_of(&self) -> &Arc<Relays> {
        &self.relays
    }

    /// Content bytes of the present jobs that were sent from here.
    pub(crate) fn content_sent(&self) -> u64 {
        self.relays.all().iter().map(|job| job.with_relay(|relay| relay.bytes_sent())).sum()
    }

    /// Is told of the other nodes of a job.
    pub(crate) fn view(&self, job: JobId, view: View) {
        if let Some(job) = self.relays.get(job) {
            job.step(|relay, _fx| relay.set_target(view.target_bps));
        }
        self.neighbours.set(job, view);
    }

    /// Stays connected to the nodes that its jobs need.
    pub(crate) async fn meet(self: Arc<Self>) {
        let introduction = Introduction { name: self.name.clone(), hello: hello() };
        let (neighbours, endpoint) = (Arc::clone(&self.neighbours), self.endpoint.clone());
        let (clock, never) = (self.clock, CancellationToken::new());
        let conduct = Arc::clone(&self) as Arc<dyn Conduct>;
        neighbours::run(neighbours, endpoint, || introduction.clone(), conduct, clock, never).await;
    }

    /// When a job was complete here.
    pub(crate) fn complete_at(&self, job: JobId) -> Option<Instant> {
        self.complete.lock().unwrap().get(&job).copied()
    }

    /// Forgets the jobs and with them their content, which else lives as long as what refers to
    /// each other.
    pub(crate) fn forget_all(&self) {
        for job in self.relays.all() {
            self.relays.remove(job.id());
        }
        self.shelves.lock().unwrap().clear();
    }

    /// Accepts peers.
    pub(crate) async fn accept(self: Arc<Self>) {
        let mut clients = 0;
        while let Some(incoming) = self.endpoint.accept().await {
            clients += 1;
            self.tasks.spawn(Arc::clone(&self).serve(incoming, clients));
        }
    }

    async fn serve(self: Arc<Self>, incoming: quinn::Incoming, number: u64) {
        let Ok(mut greeted) = greet::accept(incoming).await else { return };
        let welcome = Welcome { version: String::new(), epoch: 1, incarnation: 1 };
        if greet::welcome(&mut greeted.control, &welcome).await.is_err() {
            return;
        }
        let name = greeted.identity.name.clone();
        let (peer, beat) = match greeted.identity.role {
            Role::Node => (PeerId::Node(name), Some(FREE)),
            _ => (PeerId::Client(name, number), None),
        };
        let (identity, connection) = (greeted.identity, greeted.connection);
        let (link, queues) = Link::new(peer, identity, connection, self.clock, 1, beat);
        link.run(greeted.control, queues, self).await;
    }

    /// Stays connected to the base at `base`.
    pub(crate) async fn join(self: Arc<Self>, base: SocketAddr) {
        loop {
            if let Ok(greeted) = greet::dial(&self.endpoint, base, Role::Base, &hello()).await {
                let beat = (self.role == Role::Node).then_some(FREE);
                let (identity, connection) = (greeted.identity, greeted.connection);
                let (link, queues) =
                    Link::new(PeerId::Base, identity, connection, self.clock, 1, beat);
                let conduct = Arc::clone(&self) as Arc<dyn Conduct>;
                link.run(greeted.control, queues, conduct).await;
            }
            sleep(AGAIN).await;
        }
    }

    /// Makes durable what has arrived, all jobs together, as often as the product does.
    pub(crate) async fn flush(self: Arc<Self>, every: Duration) {
        loop {
            sleep(every).await;
            let shelves = self.shelves.lock().unwrap().clone();
            for (id, shelf) in shelves {
                let Some(job) = self.relays.get(id) else { continue };
                if let Some(flushed) = news(&job, &shelf) {
                    job.flushed(&flushed);
                }
            }
        }
    }
}

fn hello() -> Hello {
    Hello { version: String::new(), store: [1; 16], boot: 1, incarnation: 1, advertise: None }
}

/// What of a job is to become durable now.
fn news(job: &Job, shelf: &Shelf) -> Option<Flushed> {
    job.with_relay(|relay| {
        let (held, durable) = (relay.held(), relay.durable());
        let complete = relay.is_whole() && !relay.is_complete();
        if held.len() == durable.len() && !complete {
            return None;
        }
        let runs = held.runs(durable.head()).collect();
        let pages = shelf.pages_before(held.head());
        Some(Flushed { job: job.id(), durable: runs, pages, complete, error: None })
    })
}

impl Watcher for Site {
    fn changed(&self, job: &Arc<Job>, urgent: bool) {
        self.news.notify_waiters();
        if self.role != Role::Node {
            return;
        }
        if job.with_relay(|relay| relay.is_complete()) {
            self.complete.lock().unwrap().entry(job.id()).or_insert_with(Instant::now);
            self.news.notify_waiters();
        }
        if let Some(link) = self.links.get(&PeerId::Base) {
            let pace = if urgent { Pace::Now } else { Pace::Relaxed };
            link.set_state(StateKind::Report, job.id(), codec::encode(&job.report()), pace);
        }
    }

    fn ended(&self, _job: &Arc<Job>, _size: u64, _digest: Hash) {}
}

impl Conduct for Site {
    fn role(&self) -> Role {
        self.role
    }

    fn relays(&self) -> &Relays {
        &self.relays
    }

    fn links(&self) -> &Links {
        &self.links
    }

    fn up(&self, link: Arc<Link>) -> Taken<'_> {
        let receivers = self.receivers.lock().unwrap().clone();
        let among_nodes = self.role == Role::Node && link.peer().role() == Role::Node;
        for job in self.relays.all() {
            let listed = receivers.get(&job.id()).is_some_and(|to| to.contains(link.peer()));
            if listed || among_nodes {
                job.step(|relay, fx| relay.invite(link.peer(), fx));
            }
        }
        Box::pin(std::future::ready(()))
    }

    fn shares_a_job_with(&self, _node: &Name) -> bool {
        true
    }

    fn down(&self, _link: Arc<Link>) -> Taken<'_> {
        Box::pin(std::future::ready(()))
    }
}
