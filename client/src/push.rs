//! Pushing a file set or a live object: a job, its feeding, and its events.

use std::sync::Arc;

use shared::id::{JobId, Name};
use shared::job::{Dimensions, JobObject, SignedJob};
use shared::manifest::{ObjectNameError, check_object_name};
use shared::view::Event;
use shared::wire::code::Code;
use shared::wire::request::{JobRef, Reply, Request};
use shared_io::content::{Content, Window};
use shared_io::data_folder::{DataFolderError, random};
use shared_io::job::{Job, Keeping, Origin};
use shared_io::link::chain;
use tokio::sync::oneshot;

use crate::cut::{CutError, Cutter, LiveCutter};
use crate::differ::Difference;
use crate::feed::{self, Fed, FeedError};
use crate::live::{LiveFeed, LiveWriter};
use crate::resume::Begun;
use crate::session::{AskError, Standing};
use crate::tree::Plan;
use crate::watch::Watch;

/// Why a push cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// A source changed, vanished or cannot be read; the job has failed.
    #[error(transparent)]
    Source(#[from] CutError),
    /// The base refuses, or cannot be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The source is not what the job was begun with; the job stays as it is.
    #[error(
        "{difference}: job {name} ({job}) was begun with something else; to go on with it, \
         restore the source and push it again; to give it up: distributary job cancel {job}; \
         for another job, choose another --name"
    )]
    Differs {
        /// The job.
        job: JobId,
        /// Its name.
        name: Name,
        /// The first object that differs, and in what.
        difference: Difference,
    },
    /// The job object is not what was asked for.
    #[error("the base's job object: {0}")]
    Object(String),
    /// The name of a live object.
    #[error(transparent)]
    Name(#[from] ObjectNameError),
    /// The system gives no randomness.
    #[error(transparent)]
    System(#[from] DataFolderError),
    /// The feeding of the job has ended by itself.
    #[error("feeding the job: {0}")]
    Feed(String),
}

/// A job that is being pushed. Dropping it stops the feeding and leaves the job.
#[derive(Debug)]
pub struct Push {
    job: Arc<Job>,
    watch: Watch,
    standing: Arc<Standing>,
    fed: Option<oneshot::Receiver<Result<(), FeedError>>>,
}

impl Push {
    pub(crate) async fn start(
        standing: Arc<Standing>,
        plan: Plan,
        dimensions: Dimensions,
    ) -> Result<Self, PushError> {
        let begun = Begun::find(&standing, &dimensions).await?;
        let object = match &begun {
            Some(begun) => begun.object().clone(),
            None => create(&standing, random()?, dimensions.clone()).await?,
        };
        let (mut push, window) = Self::begin(standing, object).await?;
        let object = push.job.object();
        let cutter = Cutter::new(plan, object.id, object.chunk_max, object.rate_bps);
        let (standing, job) = (Arc::clone(&push.standing), Arc::clone(&push.job));
        let tell = push.fed_by();
        let feed = FileFeed { standing, dimensions, job, window };
        push.standing.tasks.spawn(feed.run(cutter, begun, tell));
        Ok(push)
    }

    /// Makes a job of one live object, and what writes it.
    pub(crate) async fn start_live(
        standing: Arc<Standing>,
        name: &str,
        dimensions: Dimensions,
    ) -> Result<(LiveWriter, Self), PushError> {
        check_object_name(name)?;
        let begun = Begun::find(&standing, &dimensions).await?;
        let object = match &begun {
            Some(begun) => begun.object().clone(),
            None => create(&standing, random()?, dimensions).await?,
        };
        let (mut push, window) = Self::begin(standing, object).await?;
        let object = push.job.object();
        let cutter = LiveCutter::new(object.id, object.chunk_max, name)?;
        let (standing, job) = (Arc::clone(&push.standing), Arc::clone(&push.job));
        let (feed, writer) = LiveFeed::new(standing, job, window, cutter, begun);
        let tell = push.fed_by();
        push.standing.tasks.spawn(async move { tell_fed(tell, feed.run().await) });
        Ok((writer, push))
    }

    /// Offers a job that nothing feeds yet, and makes the window of its publisher.
    async fn begin(
        standing: Arc<Standing>,
        object: JobObject,
    ) -> Result<(Self, Arc<Window>), PushError> {
        let (job, window) = offer(&standing, object);
        let watch = Watch::start(Arc::clone(&standing), JobRef::Id(job.id())).await?;
        Ok((Self { job, watch, standing, fed: None }, window))
    }

    /// Takes up what the feeding comes to.
    fn fed_by(&mut self) -> oneshot::Sender<Result<(), FeedError>> {
        let (tell, fed) = oneshot::channel();
        self.fed = Some(fed);
        tell
    }

    /// The job's id.
    pub fn job(&self) -> JobId {
        self.job.id()
    }

    /// The job object that the base made.
    pub fn created(&self) -> &JobObject {
        self.job.object()
    }

    /// The next event; `None` behind the last one, `Closed`.
    ///
    /// # Errors
    /// [`PushError`] if a source fails, the base refuses or cannot be reached any more.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn next(&mut self) -> Result<Option<Event>, PushError> {
        loop {
            let Some(fed) = &mut self.fed else { return Ok(self.watch.next().await?) };
            tokio::select! {
                biased;
                result = fed => {
                    self.fed = None;
                    self.feeding_ended(result.unwrap_or(Err(FeedError::Stopped))).await?;
                }
                event = self.watch.next() => return Ok(event?),
            }
        }
    }

    /// Waits until the base has all content durable: the client may leave then.
    ///
    /// # Errors
    /// [`PushError`] if a source fails or the base cannot be reached any more.
    pub async fn stored(&mut self) -> Result<(), PushError> {
        let Some(fed) = self.fed.take() else { return Ok(()) };
        let result = fed.await.unwrap_or(Err(FeedError::Stopped));
        self.feeding_ended(result).await
    }

    async fn feeding_ended(&self, result: Result<(), FeedError>) -> Result<(), PushError> {
        match result {
            Ok(()) => Ok(()),
            Err(FeedError::Cut(error)) => {
                self.standing.tell_failed(self.job(), &error).await;
                Err(PushError::Source(error))
            }
            Err(FeedError::Differs(difference)) => Err(PushError::Differs {
                job: self.job(),
                name: self.job.object().name.clone(),
                difference,
            }),
            Err(FeedError::Begun(error)) => Err(PushError::Ask(error)),
            // The job was closed under it: the events tell.
            Err(FeedError::Stopped) => Ok(()),
            Err(error @ (FeedError::Store(_) | FeedError::Cutter(_) | FeedError::Lost(_))) => {
                Err(PushError::Feed(chain(&error)))
            }
        }
    }
}

/// Offers a job with an empty window to the base.
fn offer(standing: &Arc<Standing>, object: JobObject) -> (Arc<Job>, Arc<Window>) {
    let window = Arc::new(Window::new());
    let keeping = Keeping::Memory(Arc::clone(&window) as Arc<dyn Content>);
    let job = Job::new(object, Origin::Own, keeping, standing.surroundings());
    standing.relays.insert(Arc::clone(&job));
    job.step(|relay, fx| relay.invite(&shared::id::PeerId::Base, fx));
    (job, window)
}

/// Feeds files until the job is closed or the push dropped: a base that has stored everything may
/// lose it.
struct FileFeed {
    standing: Arc<Standing>,
    dimensions: Dimensions,
    job: Arc<Job>,
    window: Arc<Window>,
}

impl FileFeed {
    async fn run(
        mut self,
        mut cutter: Cutter,
        mut begun: Option<Begun>,
        tell: oneshot::Sender<Result<(), FeedError>>,
    ) {
        let mut tell = Some(tell);
        loop {
            let fed = feed::run(&self.standing, &self.job, &self.window, cutter, begun).await;
            let fed = match fed {
                Ok(Fed::Stored(cutter)) => {
                    tell_fed(tell.take(), Ok(()));
                    self.until_lost().await.map(|()| cutter)
                }
                Ok(Fed::Behind(cutter)) => Ok(cutter),
                Err(error) => Err(error),
            };
            match fed {
                Ok(before) => cutter = before.begin_again(),
                Err(error) => return tell_fed(tell, Err(error)),
            }
            begun = match self.begin_again().await {
                Ok(found) => Some(found),
                Err(error) => return tell_fed(tell, Err(error)),
            };
        }
    }

    /// Waits until the base has lost what it had stored, and no node gives it back.
    async fn until_lost(&self) -> Result<(), FeedError> {
        feed::wait_until(&self.standing, &self.job, &self.window, |_| false).await.map(drop)
    }

    /// Goes on with the job as a push does that is begun again.
    async fn begin_again(&mut self) -> Result<Begun, FeedError> {
        let job = self.job.id();
        tracing::warn!(%job, "the base has lost what it had stored: it is read again");
        // What was agreed on the connection was of what the window had.
        self.standing.relays.remove(job);
        if let Ok(link) = self.standing.link().await {
            link.close(Code::Done, "the job is pushed from its beginning again");
            link.ended().await;
        }
        let named =
            Dimensions { name: Some(self.job.object().name.clone()), ..self.dimensions.clone() };
        let begun = Begun::find(&self.standing, &named).await.map_err(|error| match error {
            PushError::Ask(error) => FeedError::from(error),
            other => FeedError::Lost(other.to_string()),
        })?;
        (self.job, self.window) = offer(&self.standing, self.job.object().clone());
        begun.ok_or(FeedError::Stopped)
    }
}

/// Nobody waits for the result when the push was dropped, or was told before.
fn tell_fed(
    tell: impl Into<Option<oneshot::Sender<Result<(), FeedError>>>>,
    result: Result<(), FeedError>,
) {
    match (tell.into(), result) {
        (Some(tell), result) => drop(tell.send(result)),
        (None, Err(error)) => tracing::debug!(%error, "feeding has ended"),
        (None, Ok(())) => {}
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.standing.relays.remove(self.job.id());
    }
}

/// Connections over which a job is asked for, and the pause between two of them. A base that
/// takes so many and answers on none is not one to wait for.
const CREATE_TRIES_MAX: u32 = 50;
const CREATE_PAUSE: std::time::Duration = std::time::Duration::from_millis(300);

/// Asks for the job until there is an answer; the key makes it one job however often.
async fn create(
    standing: &Standing,
    key: [u8; 16],
    dimensions: Dimensions,
) -> Result<JobObject, PushError> {
    let request = Request::Create { key, dimensions: Box::new(dimensions) };
    let mut tries = 1..CREATE_TRIES_MAX;
    let signed = loop {
        match standing.ask(&request).await {
            Ok(Reply::Created(signed)) => break signed,
            Ok(_) => return Err(AskError::Answer.into()),
            Err(AskError::Broken(error)) if tries.next().is_some() => {
                tracing::debug!(%error, "asking for the job again");
                tokio::time::sleep(CREATE_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    opened(standing, &signed).await
}

/// The job object, if it is the base's word.
pub(crate) async fn opened(
    standing: &Standing,
    signed: &SignedJob,
) -> Result<JobObject, PushError> {
    let link = standing.link().await.map_err(PushError::Object)?;
    let key = link.identity().public_key;
    signed.open(&key).map_err(|error| PushError::Object(chain(&error)))
}
