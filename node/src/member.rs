//! What a node does about what its base says: accepts jobs, drops them, reports on them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use shared::control::Pace;
use shared::id::{JobId, Name, PeerId, Role};
use shared::job::{JobObject, JobObjectError, ServerList, SignedJob};
use shared::seal::{Hash, PublicKey};
use shared::wire::code::Code;
use shared::wire::codec;
use shared::wire::message::{
    Answer, Assign, FrameType, Hello, Offer, Phase, Query, Report, StateKind, View, Want, Welcome,
};
use shared::wire::request::{Reply, Request};
use shared_io::clock::Clock;
use shared_io::data_folder::DataFolder;
use shared_io::health::Readiness;
use shared_io::job::{Job, Keeping, Origin, Relays, Restored, Surroundings, Watcher};
use shared_io::link::{Conduct, Link, Links, Taken, chain};
use shared_io::neighbours::{Introduction, Neighbours};
use shared_io::request;
use shared_io::store::{
    FLUSH_BYTES_MAX, Flusher, JobStore, Layout, NODE_FLUSH_EVERY, StoreError, StoreRoot,
};
use shared_io::telemetry;
use shared_io::transport::Terms;
use tokio_util::task::TaskTracker;

use crate::state::NodeState;
use crate::{Config, NodeError};

/// Bytes that stay free on the disk when a job is accepted.
const DISK_RESERVE: u64 = 64 * 1024 * 1024;

/// A node's jobs and its place at the base.
#[derive(Debug)]
pub(crate) struct Member {
    config: Config,
    folder: DataFolder,
    root: Arc<StoreRoot>,
    state: Mutex<NodeState>,
    relays: Arc<Relays>,
    links: Arc<Links>,
    clock: Clock,
    surroundings: OnceLock<Arc<Surroundings>>,
    /// Held while a job is taken up.
    taking: Arc<Mutex<()>>,
    /// Who is to have the jobs that are here, as far as that was asked since the start.
    servers: Mutex<BTreeMap<JobId, Arc<ServerList>>>,
    neighbours: Arc<Neighbours>,
}

impl Member {
    /// Takes up what the data folder holds.
    pub(crate) fn start(
        config: Config,
        folder: DataFolder,
        (clock, terms): (Clock, &Terms),
        tasks: TaskTracker,
    ) -> Result<Arc<Self>, NodeError> {
        let state = NodeState::start(&folder)?;
        let root = StoreRoot::open(&folder.path().join("jobs"), Layout::Files)?;
        let relays = Arc::new(Relays::default());
        let known = Arc::clone(&relays);
        let flusher =
            Flusher::start(Arc::clone(&root), NODE_FLUSH_EVERY, FLUSH_BYTES_MAX, move |flushed| {
                if let Some(job) = known.get(flushed.job) {
                    job.flushed(&flushed);
                }
            })?;
        let member = Arc::new(Self {
            config,
            folder,
            root,
            state: Mutex::new(state),
            relays,
            links: Arc::new(Links::new(terms)),
            clock,
            surroundings: OnceLock::new(),
            taking: Arc::default(),
            servers: Mutex::default(),
            neighbours: Arc::default(),
        });
        let surroundings = Surroundings {
            clock: member.clock,
            links: Arc::clone(&member.links),
            tasks,
            flusher: Some(Arc::new(flusher)),
            watcher: Arc::clone(&member) as Arc<dyn Watcher>,
            receiving: AtomicUsize::new(0),
        };
        let surroundings = member.surroundings.get_or_init(|| Arc::new(surroundings));
        member.recover(surroundings)?;
        Ok(member)
    }

    fn recover(&self, surroundings: &Arc<Surroundings>) -> Result<(), NodeError> {
        let key = self.state().base_key;
        let open = |job: &SignedJob| match key {
            Some(key) => job.open(&key),
            None => Err(JobObjectError::Signature),
        };
        let recovery = self.root.recover(&open)?;
        for refused in recovery.refused {
            let (path, reason) = (refused.path.display(), refused.reason);
            tracing::warn!(%path, %reason, "this folder is left alone: it is no job");
        }
        for found in recovery.jobs {
            for note in &found.notes {
                tracing::warn!(job = %found.object.id, %note, "damaged; it will be fetched again");
            }
            let restored = Restored {
                manifest: found.manifest,
                held: found.held,
                pages_durable: found.pages_durable,
                complete: found.complete,
            };
            let around = Arc::clone(surroundings);
            let job = Job::restore(found.object, Origin::Signed, found.store, around, restored)?;
            self.relays.insert(job);
        }
        Ok(())
    }

    pub(crate) const fn relays(&self) -> &Arc<Relays> {
        &self.relays
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) const fn folder(&self) -> &DataFolder {
        &self.folder
    }

    pub(crate) const fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn state(&self) -> NodeState {
        self.lock_state().clone()
    }

    /// What this node greets others with.
    pub(crate) fn hello(&self) -> Hello {
        let state = self.state();
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: state.store,
            boot: state.boot,
            incarnation: state.incarnation,
            advertise: self.config.advertise.clone(),
        }
    }

    /// What other nodes are told of this one: nothing that is between it and the base.
    pub(crate) fn introduction(&self) -> Introduction {
        let hello = Hello { store: [0; 16], boot: 0, advertise: None, ..self.hello() };
        Introduction { name: self.config.identity.name().clone(), hello }
    }

    pub(crate) const fn neighbours(&self) -> &Arc<Neighbours> {
        &self.neighbours
    }

    pub(crate) fn base_link(&self) -> Option<Arc<Link>> {
        self.links.get(&PeerId::Base)
    }

    pub(crate) fn free_space(&self) -> u64 {
        self.root.free_space().unwrap_or(0)
    }

    /// The base has welcomed this node: its terms are durable before they are acted upon.
    pub(crate) fn welcomed(&self, welcome: &Welcome, key: PublicKey) -> Result<(), NodeError> {
        let mut state = self.lock_state();
        state.epoch = welcome.epoch;
        state.incarnation = welcome.incarnation;
        state.base_key = Some(key);
        state.save(&self.folder)
    }

    /// Ends when nothing becomes durable any more.
    pub(crate) async fn flusher_panicked(&self) -> StoreError {
        match self.surroundings.get() {
            Some(surroundings) => surroundings.flusher_panicked().await,
            None => std::future::pending().await,
        }
    }

    /// Stops all jobs and makes durable what was received.
    pub(crate) async fn stop(&self) -> Result<(), StoreError> {
        self.relays.all().iter().for_each(|job| job.stop());
        match self.surroundings.get() {
            Some(surroundings) => surroundings.stop_flusher().await,
            None => Ok(()),
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_up(&self, link: &Arc<Link>, id: JobId, signed: &SignedJob) {
        if let Some(job) = self.relays.get(id) {
            self.tell_report(&job, true);
            if self.servers_of(id).is_none()
                && let Err(reason) = self.check_servers(link, job.object()).await
            {
                tracing::warn!(job = %id, %reason, "the job is kept, and shared with nobody");
            }
            self.meet_neighbours(&job);
            return;
        }
        let object = match signed.open(&link.identity().public_key) {
            Ok(object) if object.id == id => object,
            Ok(_) => return link.fault(Code::Fault, "another job's object"),
            Err(error) => {
                return link.fault(Code::Fault, &chain(&error));
            }
        };
        if let Err(reason) = self.accept(link, signed, object).await {
            tracing::warn!(job = %id, %reason, "the job is refused");
            let phase = Phase::Failed(reason);
            let report = Report::of_nothing(phase);
            link.set_state(StateKind::Report, id, codec::encode(&report), Pace::Now);
        }
    }

    async fn accept(
        &self,
        link: &Arc<Link>,
        signed: &SignedJob,
        object: JobObject,
    ) -> Result<(), String> {
        self.check_servers(link, &object).await?;
        let free = self.free_space();
        let needed = object.size.unwrap_or(0).saturating_add(DISK_RESERVE);
        if free < needed {
            return Err(format!("disk full: the job needs {needed} bytes, {free} are free"));
        }
        let Some(surroundings) = self.surroundings.get() else { return Ok(()) };
        let (root, relays) = (Arc::clone(&self.root), Arc::clone(&self.relays));
        let (around, signed) = (Arc::clone(surroundings), signed.clone());
        // The link may go while the store is made, and with it this future: what has begun is
        // ended all the same, and one at a time, so that the next link finds the job.
        let taking = Arc::clone(&self.taking);
        let take = tokio::task::spawn_blocking(move || {
            let _taking = taking.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(job) = relays.get(object.id) {
                return Ok(job);
            }
            let store = root.create(&signed, &object)?;
            let job = Job::new(object, Origin::Signed, Keeping::Disk(store), around);
            relays.insert(Arc::clone(&job));
            Ok::<_, StoreError>(job)
        });
        match take.await {
            Ok(Ok(job)) => {
                self.tell_report(&job, true);
                self.meet_neighbours(&job);
            }
            Ok(Err(error)) => return Err(chain(&error)),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// Fetches the server list and checks that this node is on it.
    async fn check_servers(&self, link: &Arc<Link>, object: &JobObject) -> Result<(), String> {
        let request = Request::Servers { job: object.id, hash: object.servers_hash };
        let fetch = async {
            let mut asked = request::ask(link.connection(), &request).await?;
            asked.next().await
        };
        match fetch.await {
            Ok(Some(Reply::Servers(list))) if list.hash() == object.servers_hash => {
                if list.contains(self.config.identity.name()) {
                    self.lock_servers().insert(object.id, Arc::new(list));
                    Ok(())
                } else {
                    Err("this node is not on the job's server list".to_owned())
                }
            }
            Ok(_) => Err("the base does not give the job's server list".to_owned()),
            Err(error) => Err(format!("the job's server list: {}", chain(&error))),
        }
    }

    fn lock_servers(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<ServerList>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers_of(&self, job: JobId) -> Option<Arc<ServerList>> {
        self.lock_servers().get(&job).cloned()
    }

    /// Whether `peer` is to have the job.
    fn is_listed(&self, peer: &PeerId, job: JobId) -> bool {
        is_on(self.servers_of(job).as_deref(), peer)
    }

    /// Takes up what was offered of the job before it was known who is to have it.
    fn take_up_early(&self, job: &Arc<Job>) {
        self.relays.take_up_early(job, |peer| self.is_listed(peer, job.id()));
    }

    /// Takes up what the nodes that are connected and on the job's list have offered, and offers
    /// it to them.
    fn meet_neighbours(&self, job: &Arc<Job>) {
        self.take_up_early(job);
        let target_bps = self.neighbours.target_bps(job.id());
        job.step(|relay, _fx| relay.set_target(target_bps));
        self.neighbours.wake();
        for link in self.links.all() {
            let peer = link.peer();
            if matches!(peer, PeerId::Node(_)) && self.is_listed(peer, job.id()) {
                job.step(|relay, fx| relay.invite(peer, fx));
            }
        }
    }

    async fn drop_job(&self, link: &Arc<Link>, id: JobId) {
        self.neighbours.forget(id);
        self.lock_servers().remove(&id);
        if let Some(job) = self.relays.remove(id)
            && let Keeping::Disk(store) = job.keeping()
        {
            let store: Arc<JobStore> = Arc::clone(store);
            match tokio::task::spawn_blocking(move || store.remove()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(job = %id, error = chain(&error), "the job's files stay");
                }
                Err(error) => tracing::error!(job = %id, %error, "the job's files stay"),
            }
        }
        let report = Report::of_nothing(Phase::Dropped);
        link.set_state(StateKind::Report, id, codec::encode(&report), Pace::Now);
    }

    fn tell_report(&self, job: &Arc<Job>, urgent: bool) {
        if let Some(link) = self.base_link() {
            let pace = if urgent { Pace::Now } else { Pace::Relaxed };
            link.set_state(StateKind::Report, job.id(), codec::encode(&job.report()), pace);
        }
    }
}

/// Whether `peer` is to have a job with this server list. The base may always have it back.
fn is_on(list: Option<&ServerList>, peer: &PeerId) -> bool {
    match peer {
        PeerId::Base => true,
        PeerId::Node(name) => list.is_some_and(|list| list.contains(name)),
        PeerId::Client(..) => false,
    }
}

impl Watcher for Member {
    fn changed(&self, job: &Arc<Job>, urgent: bool) {
        self.tell_report(job, urgent);
    }

    fn ended(&self, job: &Arc<Job>, size: u64, _digest: Hash) {
        tracing::debug!(job = %job.id(), size, "the end of the log is known");
    }
}

impl Conduct for Member {
    fn role(&self) -> Role {
        Role::Node
    }

    fn relays(&self) -> &Relays {
        &self.relays
    }

    fn links(&self) -> &Links {
        &self.links
    }

    fn up(&self, link: Arc<Link>) -> Taken<'_> {
        let peer = link.peer();
        for job in self.relays.all() {
            if *peer == PeerId::Base {
                self.tell_report(&job, true);
            } else if self.is_listed(peer, job.id()) {
                job.step(|relay, fx| relay.invite(peer, fx));
            }
        }
        Box::pin(std::future::ready(()))
    }

    fn down(&self, _link: Arc<Link>) -> Taken<'_> {
        Box::pin(std::future::ready(()))
    }

    fn assign(&self, link: Arc<Link>, job: JobId, assign: Assign) -> Taken<'_> {
        Box::pin(async move {
            match assign {
                Assign::Open(signed) | Assign::Closed(signed) => {
                    self.take_up(&link, job, &signed).await;
                }
                Assign::Drop => self.drop_job(&link, job).await,
            }
        })
    }

    /// Only nodes of the server list feed each other.
    fn offered(&self, link: &Arc<Link>, job: JobId, offer: Offer) {
        let list = self.servers_of(job);
        if is_on(list.as_deref(), link.peer()) {
            return self.relays.offered(link, job, offer);
        }
        if list.is_none() {
            self.relays.defer(link, job, offer);
            // Who is to have the job may have become known, and what was deferred been taken up,
            // in between.
            if self.servers_of(job).is_some()
                && let Some(job) = self.relays.get(job)
            {
                self.take_up_early(&job);
            }
        }
    }

    fn wanted(&self, link: &Arc<Link>, job: JobId, want: Want) {
        if self.is_listed(link.peer(), job) {
            self.relays.wanted(link, job, want);
        } else if self.servers_of(job).is_some() {
            link.fault(Code::Refused, "this node is not on the job's server list");
        } else if self.relays.get(job).is_some() {
            // Found by a restart: the peer comes again, and by then the base may have told.
            link.close(Code::Done, "it is not known yet who is to have the job");
        }
    }

    fn view(&self, _link: &Arc<Link>, job: JobId, view: View) {
        if let Some(job) = self.relays.get(job) {
            job.step(|relay, _fx| relay.set_target(view.target_bps));
        }
        self.neighbours.set(job, view);
    }

    fn shares_a_job_with(&self, node: &Name) -> bool {
        self.lock_servers().values().any(|list| list.contains(node))
    }

    fn query(&self, link: &Arc<Link>, query: Query) {
        let report = self.relays.get(query.job).map(|job| job.report());
        let answer = Answer { job: query.job, nonce: query.nonce, report };
        link.send_frame(FrameType::Answer, &codec::encode(&answer));
    }
}

impl Readiness for Member {
    fn ready(&self) -> Result<(), String> {
        match self.base_link() {
            Some(_) => Ok(()),
            None => Err(format!("not joined to the base {}", self.config.base)),
        }
    }

    fn refresh(&self) {
        let mut counts: BTreeMap<&'static str, usize> =
            ["receiving", "complete", "failed"].into_iter().map(|state| (state, 0)).collect();
        for job in self.relays.all() {
            let state = match job.report().phase {
                Phase::Receiving | Phase::Stalled(_) => "receiving",
                Phase::Complete => "complete",
                Phase::Failed(_) | Phase::Dropped => "failed",
            };
            *counts.entry(state).or_default() += 1;
        }
        counts.into_iter().for_each(|(state, count)| telemetry::jobs(state, count));
    }
}
