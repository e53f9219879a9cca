//! A client's standing with a base: its connection, made again when it breaks.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::Endpoint;
use shared::id::{PeerId, Role};
use shared::job::{Dimensions, Kind};
use shared::seal::Hash;
use shared::view::{JobView, NodeInfo};
use shared::wire::code::Code;
use shared::wire::request::{JobRef, Refusal, RefusalKind, Reply, Request};
use shared_io::access::Access;
use shared_io::clock::Clock;
use shared_io::job::{Job, Relays, Surroundings, Watcher};
use shared_io::link::{Conduct, Link, Links, Taken};
use shared_io::request::{self, RequestError};
use shared_io::transport::Terms;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::{self, ConnectError, ConnectOptions};
use crate::cut::CutError;
use crate::live::LiveWriter;
use crate::push::{Push, PushError};
use crate::tree::Plan;
use crate::watch::Watch;

/// How long the base gets to acknowledge what was said last.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long one try to reach the base again lasts before the next begins.
const AGAIN: Duration = Duration::from_secs(20);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The base says no.
    #[error("{}", .0.text)]
    Refused(Refusal),
    /// The base answers something else.
    #[error("the base answers with something else than was asked")]
    Answer,
    /// The connection broke.
    #[error("the connection to the base broke")]
    Broken(#[from] RequestError),
}

impl AskError {
    /// Whether the base refused because of role, identity or quota.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(refusal) if matches!(refusal.kind, RefusalKind::Rights))
    }

    /// Whether there is no open job of that name.
    pub(crate) const fn is_not_open(&self) -> bool {
        matches!(self, Self::Refused(refusal) if matches!(refusal.kind, RefusalKind::NotOpen))
    }
}

/// A connection to a base. It is made again whenever it breaks, until this is closed or dropped.
#[derive(Debug)]
pub struct Client {
    pub(crate) standing: Arc<Standing>,
}

/// What the tasks of a client share.
#[derive(Debug)]
pub(crate) struct Standing {
    options: ConnectOptions,
    endpoint: Endpoint,
    pub(crate) relays: Arc<Relays>,
    links: Arc<Links>,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// The link that is up, or none while it is made again.
    link: watch::Sender<Option<Arc<Link>>>,
    /// Why the connection will not come back.
    lost: Mutex<Option<String>>,
    /// Told when the base's account of a job here has changed.
    pub(crate) news: Notify,
}

impl Client {
    /// Connects to a base.
    ///
    /// # Errors
    /// [`ConnectError`] if the identity cannot be used, the base refuses it, or nobody is
    /// reached in time.
    ///
    /// # Cancellation
    /// Safe: nothing is left of the try.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        let clock = Clock::start();
        let terms = Terms {
            congestion: options.congestion,
            budget: options.memory,
            access: Arc::new(Access::new(clock, None, None)),
        };
        let endpoint = connect::open_endpoint(&options, &terms).await?;
        let greeted = connect::reach(&endpoint, &options.base, options.patience).await?;
        let standing = Arc::new(Standing {
            options,
            endpoint,
            relays: Arc::new(Relays::default()),
            links: Arc::new(Links::new(&terms)),
            clock,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            link: watch::Sender::new(None),
            lost: Mutex::new(None),
            news: Notify::new(),
        });
        let running = standing.start_link(greeted);
        standing.tasks.spawn(Arc::clone(&standing).keep_connected(running));
        Ok(Self { standing })
    }

    /// The jobs that this client may see, without their nodes.
    ///
    /// # Errors
    /// [`AskError`] if the base refuses or the connection breaks.
    pub async fn jobs(&self) -> Result<Vec<JobView>, AskError> {
        match self.request(Request::Jobs).await? {
            Reply::Jobs(jobs) => Ok(jobs),
            _ => Err(AskError::Answer),
        }
    }

    /// How a job stands, node by node.
    ///
    /// # Errors
    /// [`AskError`] if the base refuses, as for a job that is unknown or another client's, or the
    /// connection breaks.
    pub async fn job(&self, job: JobRef) -> Result<JobView, AskError> {
        match self.request(Request::Job(job)).await? {
            Reply::Job(view) => Ok(*view),
            _ => Err(AskError::Answer),
        }
    }

    /// Ends a job: its nodes drop what they have of it.
    ///
    /// # Errors
    /// As [`Self::job`], and if the job is closed.
    ///
    /// # Cancellation
    /// The job may be cancelled or not: [`Self::job`] tells.
    pub async fn cancel(&self, job: JobRef) -> Result<(), AskError> {
        self.order(Request::Cancel(job)).await
    }

    /// Removes a job and its files everywhere.
    ///
    /// # Errors
    /// As [`Self::job`].
    ///
    /// # Cancellation
    /// As [`Self::cancel`].
    pub async fn remove(&self, job: JobRef) -> Result<(), AskError> {
        self.order(Request::Remove(job)).await
    }

    /// All nodes.
    ///
    /// # Errors
    /// [`AskError`] if the base refuses or the connection breaks.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, AskError> {
        match self.request(Request::Nodes).await? {
            Reply::Nodes(nodes) => Ok(nodes),
            _ => Err(AskError::Answer),
        }
    }

    async fn order(&self, request: Request) -> Result<(), AskError> {
        match self.request(request).await? {
            Reply::Done => Ok(()),
            _ => Err(AskError::Answer),
        }
    }

    /// Asks the base one question with one answer.
    ///
    /// # Errors
    /// [`AskError`] if the base refuses or the connection breaks.
    ///
    /// # Cancellation
    /// Whether the base has taken the question is not known.
    pub async fn request(&self, request: Request) -> Result<Reply, AskError> {
        self.standing.ask(&request).await
    }

    /// Watches a job from now on: its state first, then its events until it is closed.
    ///
    /// # Errors
    /// [`AskError`] if the base refuses or the connection breaks.
    pub async fn watch(&self, job: JobRef) -> Result<Watch, AskError> {
        Watch::start(Arc::clone(&self.standing), job).await
    }

    /// Makes a job of `plan` and feeds it in the background. If the dimensions name an open
    /// job of this client whose publisher is gone, the push goes on with that job: what the
    /// base has of it is compared with the source, and only what it lacks is sent.
    ///
    /// # Errors
    /// [`PushError`] if the base does not make the job, or the open job was begun with other
    /// dimensions or is being pushed. That the source differs is told by [`Push::next`].
    ///
    /// # Cancellation
    /// A job that the base has made by then fails when its grace is over, unless it is pushed
    /// again under its name.
    pub async fn push(&self, plan: Plan, mut dimensions: Dimensions) -> Result<Push, PushError> {
        dimensions.kind = Kind::Files;
        dimensions.size.get_or_insert_with(|| plan.size());
        Push::start(Arc::clone(&self.standing), plan, dimensions).await
    }

    /// Makes a job of one live object called `name`; its bytes are those that are written.
    ///
    /// If the dimensions name a job of this client that is open and whose publisher has gone,
    /// this goes on with it: the object is written again from its first byte on. What the base
    /// has is compared with what is written and not sent again; marks and cuts in it are those
    /// that were made first.
    ///
    /// # Errors
    /// [`PushError`] if an object may not have that name, the base does not make the job, or it
    /// is open with other dimensions or being pushed. [`PushError::Differs`] comes from
    /// [`Push::next`] and [`Push::stored`]: the job stays as it is.
    ///
    /// # Cancellation
    /// As [`Self::push`].
    pub async fn push_live(
        &self,
        name: &str,
        mut dimensions: Dimensions,
    ) -> Result<(LiveWriter, Push), PushError> {
        dimensions.kind = Kind::Live;
        Push::start_live(Arc::clone(&self.standing), name, dimensions).await
    }

    /// Waits until the base has acknowledged what was said last, for 2 s at most, and closes the
    /// connection. Pushes that are not stored are left as they are.
    ///
    /// # Cancellation
    /// The connection is closed, and what was said last may not have arrived.
    pub async fn close(self) {
        let standing = &self.standing;
        let link = standing.link.borrow().clone();
        if let Some(link) = link {
            link.farewell(Code::Done, FAREWELL).await;
        }
        standing.stop.cancel();
        standing.relays.all().iter().for_each(|job| job.stop());
        standing.endpoint.close(Code::Done.number().into(), b"done");
        standing.tasks.close();
        standing.tasks.wait().await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.standing.stop.cancel();
        self.standing.relays.all().iter().for_each(|job| job.stop());
        self.standing.endpoint.close(Code::Done.number().into(), b"dropped");
    }
}

impl Standing {
    /// What the jobs of this client share.
    pub(crate) fn surroundings(self: &Arc<Self>) -> Arc<Surroundings> {
        Arc::new(Surroundings {
            clock: self.clock,
            links: Arc::clone(&self.links),
            tasks: self.tasks.clone(),
            flusher: None,
            watcher: Arc::clone(self) as Arc<dyn Watcher>,
            receiving: AtomicUsize::new(0),
        })
    }

    /// Content bytes that a push here may keep until they are durable at the base.
    pub(crate) fn window_bytes(&self) -> u64 {
        self.links.budget().publishing_of(self.relays.all().len())
    }

    /// The link, as soon as there is one.
    ///
    /// # Errors
    /// Why there will be none any more.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, String> {
        let mut link = self.link.subscribe();
        let found = link.wait_for(|link| link.is_some() || self.lost().is_some()).await;
        match found.ok().and_then(|found| found.clone()) {
            Some(link) => Ok(link),
            None => Err(self.lost().clone().unwrap_or_else(|| "the client is closed".to_owned())),
        }
    }

    /// Asks one question; its answer is the first reply.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply, AskError> {
        let link = self.link().await.map_err(|_lost| AskError::Answer)?;
        let mut asked = request::ask(link.connection(), request).await?;
        match asked.next().await? {
            Some(Reply::Refused(refusal)) => Err(AskError::Refused(refusal)),
            Some(reply) => Ok(reply),
            None => Err(AskError::Answer),
        }
    }

    /// Says that the publisher of a job cannot go on.
    pub(crate) async fn tell_failed(&self, job: shared::id::JobId, error: &CutError) {
        let mut reason = error.to_string();
        while reason.len() > shared::limit::REASON_LEN_MAX {
            reason.pop();
        }
        if let Err(error) = self.ask(&Request::Fail { job, reason }).await {
            tracing::warn!(%job, %error, "the base was not told that the job has failed");
        }
    }

    fn start_link(
        self: &Arc<Self>,
        greeted: shared_io::greet::Greeted<shared::wire::message::Welcome>,
    ) -> impl Future<Output = String> + Send + use<> {
        let clock = self.clock;
        let (link, queues) =
            Link::new(PeerId::Base, greeted.identity, greeted.connection, clock, 0, None);
        link.run(greeted.control, queues, Arc::clone(self) as Arc<dyn Conduct>)
    }

    /// Runs the link, and makes another one whenever it ends, until the client is closed.
    async fn keep_connected(self: Arc<Self>, first: impl Future<Output = String> + Send) {
        let mut why = tokio::select! {
            biased;
            why = first => why,
            () = self.stop.cancelled() => return,
        };
        loop {
            tracing::warn!(%why, "the connection to the base is gone; trying to reach it again");
            let reached = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                reached = connect::reach(&self.endpoint, &self.options.base, AGAIN) => reached,
            };
            why = match reached {
                Ok(greeted) => {
                    let running = self.start_link(greeted);
                    tokio::select! {
                        biased;
                        why = running => why,
                        () = self.stop.cancelled() => return,
                    }
                }
                Err(error) if error.is_unreachable() => error.to_string(),
                Err(error) => {
                    *self.lost() = Some(error.to_string());
                    self.link.send_replace(None);
                    self.news.notify_waiters();
                    return;
                }
            };
        }
    }

    pub(crate) fn lost(&self) -> MutexGuard<'_, Option<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher for Standing {
    fn changed(&self, _job: &Arc<Job>, _urgent: bool) {
        self.news.notify_waiters();
    }

    fn ended(&self, job: &Arc<Job>, size: u64, _digest: Hash) {
        tracing::debug!(job = %job.id(), size, "all content is cut");
    }
}

impl Conduct for Standing {
    fn role(&self) -> Role {
        self.options.identity.role()
    }

    fn relays(&self) -> &Relays {
        &self.relays
    }

    fn links(&self) -> &Links {
        &self.links
    }

    fn up(&self, link: Arc<Link>) -> Taken<'_> {
        for job in self.relays.all() {
            job.step(|relay, fx| relay.invite(&PeerId::Base, fx));
        }
        self.link.send_replace(Some(link));
        Box::pin(std::future::ready(()))
    }

    fn down(&self, _link: Arc<Link>) -> Taken<'_> {
        self.link.send_replace(None);
        Box::pin(std::future::ready(()))
    }
}
