//! Where connections, jobs and content meet: what the base does about what its peers say,
//! and what its job table wants done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use certs::Identity;
use certs::peer::PeerIdentity;
use ring::signature::Ed25519KeyPair;
use shared::control::Pace;
use shared::id::{JobId, Name, PeerId, Role};
use shared::job::SignedJob;
use shared::limit;
use shared::seal::{Hash, PublicKey};
use shared::table::Input;
use shared::view::{JobState, NodeState};
use shared::wire::code::Code;
use shared::wire::codec;
use shared::wire::message::{
    Answer, Assign, Beat, FrameType, Hello, Offer, Phase, Query, Reconcile, Report, StateKind, Want,
};
use shared::wire::request::{Refusal, RefusalKind, Reply, Request};
use shared_io::clock::Clock;
use shared_io::data_folder::DataFolder;
use shared_io::health::Readiness;
use shared_io::job::{Job, Keeping, Origin, Relays, Restored, Surroundings, Watcher};
use shared_io::link::{Conduct, Link, Links, Taken, chain};
use shared_io::request::Replies;
use shared_io::store::{
    BASE_FLUSH_EVERY, FLUSH_BYTES_MAX, Flusher, JobStore, Layout, Recovered, StoreError, StoreRoot,
};
use shared_io::telemetry;
use shared_io::transport::Terms;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::BaseError;
use crate::asked::Asked;
use crate::jobs::{self, Admission, Applicant, Asker, Jobs, Session};
use crate::probe;

/// How often silent nodes are looked for.
const SILENCE_LOOK: Duration = Duration::from_millis(500);

/// The base's connections, jobs and content.
#[derive(Debug)]
pub(crate) struct Hub {
    root: Arc<StoreRoot>,
    key: Arc<Ed25519KeyPair>,
    public_key: PublicKey,
    clock: Clock,
    tasks: TaskTracker,
    relays: Arc<Relays>,
    me: Weak<Self>,
    links: Arc<Links>,
    stores: Mutex<BTreeMap<Name, Visit>>,
    clients: AtomicU64,
    queries: AtomicU64,
    asked: Mutex<Asked>,
    publishers: Mutex<BTreeMap<JobId, PeerId>>,
    ends: Mutex<BTreeMap<JobId, (u64, Hash)>>,
    changed: Mutex<BTreeSet<JobId>>,
    news: Notify,
    jobs: OnceLock<Arc<Jobs>>,
    surroundings: OnceLock<Arc<Surroundings>>,
    /// Held while the store of a new job is made.
    beginning: Arc<Mutex<()>>,
}

/// A node's present or last visit.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    store: [u8; 16],
    admission: Admission,
    pub(crate) address: String,
    /// What its uplink carries, as it says; 0 if unknown.
    pub(crate) uplink_bps: u64,
}

impl Hub {
    pub(crate) fn new(
        folder: &DataFolder,
        identity: &Identity,
        (clock, terms): (Clock, &Terms),
        tasks: TaskTracker,
    ) -> Result<Arc<Self>, BaseError> {
        let root = StoreRoot::open(&folder.path().join("jobs"), Layout::Spool)?;
        Ok(Arc::new_cyclic(|me| Self {
            root,
            key: Arc::clone(identity.signing_key()),
            public_key: identity.public_key(),
            clock,
            tasks,
            relays: Arc::new(Relays::default()),
            me: me.clone(),
            links: Arc::new(Links::new(terms)),
            stores: Mutex::default(),
            clients: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            asked: Mutex::default(),
            publishers: Mutex::default(),
            ends: Mutex::default(),
            changed: Mutex::default(),
            news: Notify::new(),
            jobs: OnceLock::new(),
            surroundings: OnceLock::new(),
            beginning: Arc::default(),
        }))
    }

    /// Joins the hub with the jobs and takes up the content on disk.
    pub(crate) fn attach(self: &Arc<Self>, jobs: Jobs) -> Result<Arc<Jobs>, BaseError> {
        let known = Arc::clone(&self.relays);
        let flusher = Flusher::start(
            Arc::clone(&self.root),
            BASE_FLUSH_EVERY,
            FLUSH_BYTES_MAX,
            move |flushed| {
                if let Some(job) = known.get(flushed.job) {
                    job.flushed(&flushed);
                }
            },
        )?;
        let surroundings = Arc::new(Surroundings {
            clock: self.clock,
            links: Arc::clone(&self.links),
            tasks: self.tasks.clone(),
            flusher: Some(Arc::new(flusher)),
            watcher: Arc::clone(self) as Arc<dyn Watcher>,
            receiving: AtomicUsize::new(0),
        });
        let surroundings = self.surroundings.get_or_init(|| surroundings);
        let jobs = Arc::clone(self.jobs.get_or_init(|| Arc::new(jobs)));
        self.recover(&jobs, surroundings)?;
        Ok(jobs)
    }

    fn recover(
        self: &Arc<Self>,
        jobs: &Jobs,
        surroundings: &Arc<Surroundings>,
    ) -> Result<(), BaseError> {
        let recovery = self.root.recover(&|job| job.open(&self.public_key))?;
        for refused in recovery.refused {
            let (path, reason) = (refused.path.display(), refused.reason);
            tracing::warn!(%path, %reason, "this folder is left alone: it is no job");
        }
        let wanted: BTreeSet<JobId> = jobs.jobs_with_content().into_iter().collect();
        for found in recovery.jobs {
            for note in &found.notes {
                tracing::warn!(job = %found.object.id, %note, "damaged content");
            }
            if wanted.contains(&found.object.id) {
                self.restore(found, surroundings)?;
            } else {
                found.store.remove()?;
            }
        }
        Ok(())
    }

    fn restore(
        self: &Arc<Self>,
        found: Recovered,
        surroundings: &Arc<Surroundings>,
    ) -> Result<(), BaseError> {
        let id = found.object.id;
        if let Some(end) = found.manifest.end() {
            self.ends().insert(id, end);
        }
        let restored = Restored {
            manifest: found.manifest,
            held: found.held,
            pages_durable: found.pages_durable,
            complete: found.complete,
        };
        let origin = self.origin(&found.object.tenant);
        let around = Arc::clone(surroundings);
        let job = Job::restore(found.object, origin, found.store, around, restored)?;
        job.step(|relay, fx| relay.spread(&[], fx));
        self.relays.insert(Arc::clone(&job));
        self.changed(&job, true);
        Ok(())
    }

    fn origin(&self, publisher: &Name) -> Origin {
        Origin::Drafts { publisher: publisher.clone(), key: Arc::clone(&self.key) }
    }

    pub(crate) const fn relays(&self) -> &Arc<Relays> {
        &self.relays
    }

    pub(crate) const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    pub(crate) const fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.jobs.get().map_or(0, |jobs| jobs.epoch())
    }

    pub(crate) fn jobs(&self) -> Option<&Arc<Jobs>> {
        self.jobs.get()
    }

    pub(crate) fn free_space(&self) -> u64 {
        self.root.free_space().unwrap_or(0)
    }

    pub(crate) fn next_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// Judges a node that has greeted; the error is what it is told.
    pub(crate) async fn admit(
        &self,
        identity: &PeerIdentity,
        hello: &Hello,
    ) -> Result<Admission, String> {
        let name = &identity.name;
        let other = self.stores().get(name).is_some_and(|visit| visit.store != hello.store);
        if other && let Some(before) = self.links.get(&PeerId::Node(name.clone())) {
            if probe::answers(&before).await {
                return Err(format!(
                    "a node named {name} is connected with another data folder; \
                     names must differ: issue another certificate, or stop the other node"
                ));
            }
            before.close(Code::Done, "it did not answer, and came back with another data folder");
        }
        let jobs = self.jobs().ok_or_else(|| "the base is starting".to_owned())?;
        let applicant = Applicant {
            name: name.clone(),
            labels: identity.labels.clone(),
            store: hello.store,
            boot: hello.boot,
        };
        match jobs.admit(applicant).await {
            Ok(Ok(admission)) => Ok(admission),
            Ok(Err(full)) => Err(full.to_string()),
            Err(stopped) => Err(stopped.to_string()),
        }
    }

    /// A node was welcomed; its link starts next.
    pub(crate) fn node_comes(&self, link: &Link, hello: &Hello, admission: Admission) {
        let Hello { store, advertise: advertised, .. } = hello;
        if let PeerId::Node(name) = link.peer() {
            let seen = link.connection().remote_address();
            let address = advertised.clone().unwrap_or_else(|| seen.to_string());
            let mut stores = self.stores();
            // The first visit since the base started counts as one with a new store: that it
            // was one may have been noted right before the base was killed, and not acted on.
            let new_store = admission.new_store || !stores.contains_key(name);
            let admission = Admission { new_store, ..admission };
            let uplink_bps = stores.get(name).map_or(0, |visit| visit.uplink_bps);
            let visit = Visit { store: *store, admission, address, uplink_bps };
            stores.insert(name.clone(), visit);
        }
    }

    /// Says goodbye to everyone, all at the same time, and makes durable what has come.
    pub(crate) async fn farewell(&self, code: Code, patience: Duration) -> Result<(), StoreError> {
        let goodbyes = TaskTracker::new();
        for link in self.links.all() {
            goodbyes.spawn(async move { link.farewell(code, patience).await });
        }
        goodbyes.close();
        goodbyes.wait().await;
        self.relays.all().iter().for_each(|job| job.stop());
        match self.surroundings.get() {
            Some(surroundings) => surroundings.stop_flusher().await,
            None => Ok(()),
        }
    }

    /// Ends when nothing becomes durable any more.
    pub(crate) async fn flusher_panicked(&self) -> StoreError {
        match self.surroundings.get() {
            Some(surroundings) => surroundings.flusher_panicked().await,
            None => std::future::pending().await,
        }
    }

    /// Tells the job table how much of each job is durable here, until `stop`.
    pub(crate) async fn account(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.news.notified() => {}
            }
            self.account_for_changes().await;
        }
    }

    /// Tells the job table how much is durable here of the jobs that have changed.
    pub(crate) async fn account_for_changes(&self) {
        let changed = std::mem::take(&mut *self.lock(&self.changed));
        for id in changed {
            let Some(job) = self.relays.get(id) else { continue };
            let (bytes, complete) =
                job.with_relay(|relay| (relay.durable_bytes(), relay.is_complete()));
            let end = self.ends().get(&id).copied().filter(|_| complete);
            self.input(Input::Content { job: id, bytes, end }).await;
            if let Phase::Failed(reason) = job.report().phase {
                self.fail(id, reason).await;
            }
        }
    }

    /// Ends the links of nodes that say nothing any more, until `stop`.
    pub(crate) async fn watch_silence(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(SILENCE_LOOK);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            for link in self.links.all() {
                let silent = self.clock.now().since(link.heard());
                if link.peer().role() == Role::Node && silent >= limit::DOWN_AFTER {
                    link.close(Code::Done, "nothing was heard of the node");
                }
            }
        }
    }

    async fn input(&self, input: Input) {
        if let Some(jobs) = self.jobs()
            && let Err(stopped) = jobs.input(input).await
        {
            tracing::debug!(%stopped, "the job table takes nothing any more");
        }
    }

    /// The base itself cannot go on with a job.
    async fn fail(&self, job: JobId, reason: String) {
        let Some(jobs) = self.jobs() else { return };
        let Ok(name) = Name::new("base") else { return };
        let request = Request::Fail { job, reason };
        if jobs.handle(&Asker { role: Role::Operator, name }, request).await.is_err() {
            tracing::debug!(%job, "the job table takes nothing any more");
        }
    }

    /// Makes the store and the engine of a job that was created.
    pub(crate) async fn begin(self: &Arc<Self>, signed: &SignedJob) -> Result<(), String> {
        let object = signed.open(&self.public_key).map_err(|error| chain(&error))?;
        if self.relays.get(object.id).is_some() {
            return Ok(());
        }
        let Some(surroundings) = self.surroundings.get() else { return Ok(()) };
        let (root, relays) = (Arc::clone(&self.root), Arc::clone(&self.relays));
        let (around, signed) = (Arc::clone(surroundings), signed.clone());
        let origin = self.origin(&object.tenant);
        let present = self.with_uplinks(self.present_nodes(object.id));
        // The asker may go while the store is made; what has begun is ended all the same, and
        // one at a time, so that the request that is asked again finds the job.
        let beginning = Arc::clone(&self.beginning);
        let begin = tokio::task::spawn_blocking(move || {
            let _beginning = beginning.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(job) = relays.get(object.id) {
                return Ok(job);
            }
            let store = root.create(&signed, &object)?;
            let job = Job::new(object, origin, Keeping::Disk(store), around);
            job.step(|relay, fx| relay.spread(&present, fx));
            relays.insert(Arc::clone(&job));
            Ok::<_, StoreError>(job)
        });
        let job = begin.await.map_err(|error| error.to_string())?;
        let job = job.map_err(|error| chain(&error))?;
        // Nodes may have accepted the job while its store was made.
        for peer in self.present_nodes(job.id()) {
            job.step(|relay, fx| relay.invite(&peer, fx));
        }
        self.tell_all_views(&job);
        Ok(())
    }

    async fn answer_request(
        self: Arc<Self>,
        link: Arc<Link>,
        request: Request,
        mut replies: Replies,
    ) -> Result<(), quinn::WriteError> {
        let Some(jobs) = self.jobs() else { return Ok(()) };
        let identity = link.identity();
        let asker = Asker { role: identity.role, name: identity.name.clone() };
        let answer = match jobs.handle(&asker, request).await {
            Ok(answer) => answer,
            Err(stopped) => {
                return replies.refuse(RefusalKind::Cannot, stopped.to_string()).await;
            }
        };
        match answer {
            jobs::Answer::Reply(reply) => {
                let reply = self.began(reply).await;
                replies.finish(&reply).await
            }
            jobs::Answer::Watch(mut watcher) => {
                while let Some(event) = watcher.next().await {
                    let event = Box::new(event.as_ref().clone());
                    replies.send(&Reply::Event(event)).await?;
                }
                replies.end();
                Ok(())
            }
            jobs::Answer::Resume(signed, pages) => self.resume(link, *signed, pages, replies).await,
        }
    }

    /// Before a client is told of its job, the job can receive.
    async fn began(self: &Arc<Self>, reply: Reply) -> Reply {
        let Reply::Created(signed) = &reply else { return reply };
        match self.begin(signed).await {
            Ok(()) => reply,
            Err(text) => Reply::Refused(Refusal { kind: RefusalKind::Cannot, text }),
        }
    }

    /// The job at this process.
    pub(crate) fn job(&self, id: JobId) -> Option<Arc<Job>> {
        self.relays.get(id)
    }

    /// The connection that feeds a job, if it is there.
    pub(crate) fn publisher(&self, id: JobId) -> Option<Arc<Link>> {
        let peer = self.lock(&self.publishers).get(&id).cloned()?;
        self.links.get(&peer)
    }

    fn is_listed(&self, node: &Name, id: JobId) -> bool {
        let head = self.jobs().and_then(|jobs| jobs.head(id));
        head.is_some_and(|head| head.servers.names().contains(node))
    }

    fn incarnation(&self, node: &Name) -> u64 {
        self.stores().get(node).map_or(0, |visit| visit.admission.incarnation)
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stores(&self) -> MutexGuard<'_, BTreeMap<Name, Visit>> {
        self.lock(&self.stores)
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<JobId, (u64, Hash)>> {
        self.lock(&self.ends)
    }
}

impl Watcher for Hub {
    fn changed(&self, job: &Arc<Job>, _urgent: bool) {
        self.lock(&self.changed).insert(job.id());
        self.news.notify_one();
    }

    fn ended(&self, job: &Arc<Job>, size: u64, digest: Hash) {
        self.ends().insert(job.id(), (size, digest));
    }
}

impl Conduct for Hub {
    fn role(&self) -> Role {
        Role::Base
    }

    fn relays(&self) -> &Relays {
        &self.relays
    }

    fn links(&self) -> &Links {
        &self.links
    }

    fn up(&self, link: Arc<Link>) -> Taken<'_> {
        Box::pin(async move {
            let PeerId::Node(node) = link.peer() else { return };
            let Some(visit) = self.stores().get(node).cloned() else { return };
            let Admission { incarnation, new_store } = visit.admission;
            self.input(Input::NodeUp { node: node.clone(), incarnation, new_store }).await;
            self.tell_views(node);
        })
    }

    fn down(&self, link: Arc<Link>) -> Taken<'_> {
        Box::pin(async move {
            match link.peer() {
                PeerId::Node(node) => {
                    self.input(Input::NodeDown { node: node.clone() }).await;
                    // A new link may have come up in between: its word was the first then.
                    if let Some(newer) = self.links.get(link.peer()) {
                        self.up(newer).await;
                    }
                }
                PeerId::Client(..) => {
                    let gone: Vec<JobId> = {
                        let mut publishers = self.lock(&self.publishers);
                        let of_link = publishers.iter().filter(|(_, peer)| *peer == link.peer());
                        let gone: Vec<JobId> = of_link.map(|(job, _)| *job).collect();
                        gone.iter().for_each(|job| drop(publishers.remove(job)));
                        gone
                    };
                    for job in gone {
                        self.input(Input::PublisherGone { job }).await;
                        // Another one may have come in between: its word was the first then.
                        if self.publisher(job).is_some() {
                            self.input(Input::PublisherBack { job }).await;
                        }
                    }
                }
                PeerId::Base => {}
            }
        })
    }

    /// Only the owner of a job feeds it to the base, and its nodes what the base has lost of it.
    fn offered(&self, link: &Arc<Link>, id: JobId, offer: Offer) {
        let Some(job) = self.relays.get(id) else { return };
        let peer = link.peer().clone();
        if let PeerId::Node(node) = &peer {
            if self.is_listed(node, id) {
                job.step(|relay, fx| relay.offered_back(&peer, offer, fx));
            }
            return;
        }
        let owner =
            matches!(peer, PeerId::Client(..)) && link.identity().name == job.object().tenant;
        if !owner {
            tracing::warn!(%peer, job = %id, "an offer of a job that is not the peer's is ignored");
            return;
        }
        self.lock(&self.publishers).insert(id, peer.clone());
        let Some(hub) = self.me.upgrade() else { return };
        link.spawn(async move { hub.input(Input::PublisherBack { job: id }).await });
        job.step(|relay, fx| relay.offered(&peer, offer, fx));
    }

    /// Only nodes of the server list get anything.
    fn wanted(&self, link: &Arc<Link>, id: JobId, want: Want) {
        let PeerId::Node(node) = link.peer() else { return };
        if self.is_listed(node, id) {
            self.relays.wanted(link, id, want);
        } else {
            link.fault(Code::Refused, "this node is not on the job's server list");
        }
    }

    fn report(&self, link: Arc<Link>, id: JobId, report: Report) -> Taken<'_> {
        Box::pin(async move {
            let PeerId::Node(node) = link.peer() else { return };
            let is_receiving = matches!(report.phase, Phase::Receiving | Phase::Stalled(_));
            let is_complete = report.phase == Phase::Complete;
            let incarnation = self.incarnation(node);
            let node_name = node.clone();
            self.input(Input::Report { node: node_name, incarnation, job: id, report }).await;
            let Some(job) = self.relays.get(id) else { return };
            job.step(|relay, fx| {
                // One of the two lacks something that the other may have.
                if is_receiving || (is_complete && !relay.is_complete()) {
                    relay.invite(link.peer(), fx);
                }
            });
        })
    }

    fn reconcile(&self, link: Arc<Link>, reconcile: Reconcile) -> Taken<'_> {
        Box::pin(async move {
            let PeerId::Node(node) = link.peer() else { return };
            for job in reconcile.jobs {
                self.input(Input::Known { node: node.clone(), job }).await;
            }
        })
    }

    fn answer(&self, link: Arc<Link>, answer: Answer) -> Taken<'_> {
        Box::pin(async move {
            let PeerId::Node(node) = link.peer() else { return };
            let (node, incarnation) = (node.clone(), self.incarnation(node));
            let Answer { job, nonce, report } = answer;
            if !self.lock(&self.asked).take(&node, job, nonce) {
                tracing::debug!(%node, %job, nonce, "an answer to an earlier question is ignored");
                return;
            }
            self.input(Input::Answer { node, incarnation, job, report }).await;
        })
    }

    fn beat(&self, link: &Arc<Link>, beat: Beat) {
        if let PeerId::Node(node) = link.peer()
            && let Some(visit) = self.stores().get_mut(node)
        {
            visit.uplink_bps = beat.uplink_bps;
        }
    }

    fn request(&self, link: Arc<Link>, request: Request, replies: Replies) -> Taken<'_> {
        Box::pin(async move {
            let Some(hub) = self.me.upgrade() else { return };
            if let Err(error) = hub.answer_request(link, request, replies).await {
                tracing::debug!(%error, "the asker is gone");
            }
        })
    }
}

impl Session for Hub {
    fn assign(&self, node: &Name, job: JobId, order: Assign) {
        if let Some(link) = self.links.get(&PeerId::Node(node.clone())) {
            link.set_state(StateKind::Assign, job, codec::encode(&order), Pace::Now);
        }
    }

    fn query(&self, node: &Name, job: JobId) {
        if let Some(link) = self.links.get(&PeerId::Node(node.clone())) {
            let nonce = self.queries.fetch_add(1, Ordering::Relaxed);
            self.lock(&self.asked).ask(node, job, nonce);
            link.send_frame(FrameType::Query, &codec::encode(&Query { job, nonce }));
        }
    }

    fn drop_content(&self, id: JobId) {
        let Some(hub) = self.me.upgrade() else { return };
        self.tasks.spawn(async move {
            if let Some(job) = hub.relays.remove(id)
                && let Keeping::Disk(store) = job.keeping()
            {
                let store: Arc<JobStore> = Arc::clone(store);
                match tokio::task::spawn_blocking(move || store.remove()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(job = %id, error = chain(&error), "content stays");
                    }
                    Err(error) => tracing::error!(job = %id, %error, "content stays"),
                }
            }
            hub.ends().remove(&id);
            hub.input(Input::ContentDropped { job: id }).await;
        });
    }

    fn closed(&self, job: JobId, _state: JobState) {
        self.lock(&self.publishers).remove(&job);
        self.lock(&self.asked).forget(job);
    }

    fn free_space(&self) -> u64 {
        Self::free_space(self)
    }

    fn waits_for(&self, job: JobId) -> Option<String> {
        match self.relays.get(job)?.report().phase {
            Phase::Stalled(reason) => Some(format!("the base: {reason}")),
            Phase::Receiving | Phase::Complete | Phase::Failed(_) | Phase::Dropped => None,
        }
    }

    fn link(&self, node: &Name) -> jobs::Link {
        let address =
            self.stores().get(node).map(|visit| visit.address.clone()).unwrap_or_default();
        let Some(link) = self.links.get(&PeerId::Node(node.clone())) else {
            return jobs::Link { address, state: NodeState::Down, rtt_ms: None };
        };
        let silent = self.clock.now().since(link.heard());
        let state = match silent {
            silent if silent >= limit::DOWN_AFTER => NodeState::Down,
            silent if silent >= limit::SILENT_AFTER => NodeState::Silent,
            _ => NodeState::Up,
        };
        let rtt_ms = Some(link.connection().rtt().as_secs_f64() * 1_000.0);
        jobs::Link { address, state, rtt_ms }
    }
}

impl Readiness for Hub {
    fn ready(&self) -> Result<(), String> {
        match self.jobs() {
            Some(_) => Ok(()),
            None => Err("the ledger is not open yet".to_owned()),
        }
    }

    fn refresh(&self) {
        if let Some(jobs) = self.jobs() {
            for (state, count) in jobs.counts() {
                telemetry::jobs(state.as_str(), count);
            }
        }
    }

    fn series(&self) -> String {
        let open = self.jobs().map(|jobs| jobs.open_jobs()).unwrap_or_default();
        let copies_of =
            |id| self.relays.get(id).and_then(|job| copies(&job)).map(|sent| (id, sent));
        telemetry::base_copies(open.into_iter().filter_map(copies_of))
    }
}

/// What of a job has left the base, in copies of what of it is here; `None` while that is nothing.
fn copies(job: &Job) -> Option<f64> {
    let (sent, here) = job.with_relay(|relay| (relay.bytes_sent(), relay.durable_bytes()));
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let copies = sent as f64 / here as f64;
    (here > 0).then_some(copies)
}
