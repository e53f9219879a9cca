//! Feeding a job: cutting ahead within a window, dropping what is durable at the base.

use std::sync::Arc;
use std::time::Duration;

use shared::id::PeerId;
use shared_io::content::Window;
use shared_io::job::Job;
use shared_io::store::StoreError;
use tokio::time::Instant;

use crate::cut::{CutError, CutPage, Cutter};
use crate::differ::{self, Difference};
use crate::resume::Begun;
use crate::session::{AskError, Standing};

/// Why the feeding ended before all content was durable at the base.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// A source.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// The source is not what the job was begun with.
    #[error("{0}")]
    Differs(#[from] Difference),
    /// The base does not say what it has of the job.
    #[error(transparent)]
    Begun(AskError),
    /// The window.
    #[error("keeping a chunk")]
    Store(#[from] StoreError),
    /// The cutter panicked.
    #[error("the cutter has ended")]
    Cutter(#[from] tokio::task::JoinError),
    /// The job is closed, or the push was dropped.
    #[error("the push was stopped")]
    Stopped,
    /// The base does not take this client any more.
    #[error("{0}")]
    Lost(String),
}

impl From<AskError> for FeedError {
    /// Of asking for what was begun: a job that is not open any more was closed in between.
    fn from(error: AskError) -> Self {
        if error.is_not_open() { Self::Stopped } else { Self::Begun(error) }
    }
}

/// How the feeding of files ended.
#[derive(Debug)]
pub(crate) enum Fed {
    /// Everything is durable at the base.
    Stored(Box<Cutter>),
    /// The base has lost what was durable there, and no node gives it back: the sources have to
    /// be read again.
    Behind(Box<Cutter>),
}

/// What a wait has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// What was waited for.
    Done,
    /// The base has lost what is gone from the window, and got nothing of it for
    /// [`LOSS_PATIENCE`].
    Behind,
}

/// How long the base may take to get back from its nodes the next piece of what it has lost.
const LOSS_PATIENCE: Duration = Duration::from_secs(5);

/// Feeds `job` from `cutter` until everything is durable at the base. What was `begun` before
/// has to be what is cut now.
pub(crate) async fn run(
    standing: &Arc<Standing>,
    job: &Arc<Job>,
    window: &Window,
    mut cutter: Cutter,
    mut begun: Option<Begun>,
) -> Result<Fed, FeedError> {
    loop {
        if room(standing, job, window).await? == Waited::Behind {
            return Ok(Fed::Behind(Box::new(cutter)));
        }
        let (back, cut) = tokio::task::spawn_blocking(move || {
            let cut = cutter.next();
            (cutter, cut)
        })
        .await?;
        cutter = back;
        let Some(CutPage { page, page_decoded, summary, chunks }) = cut? else { break };
        if let Some(pages) = &mut begun {
            match pages.next().await? {
                None => begun = None,
                Some(theirs) if theirs == page_decoded => {}
                Some(theirs) => {
                    let difference = differ::first(cutter.plan(), &page_decoded, &theirs);
                    return Err(FeedError::Differs(difference));
                }
            }
        }
        job.publish((&page, &Arc::new(page_decoded)), &summary, chunks)?;
    }
    let cutter = Box::new(cutter);
    Ok(match stored(standing, job, window).await? {
        Waited::Done => Fed::Stored(cutter),
        Waited::Behind => Fed::Behind(cutter),
    })
}

/// Waits until the window has room for more.
pub(crate) async fn room(
    standing: &Standing,
    job: &Arc<Job>,
    window: &Window,
) -> Result<Waited, FeedError> {
    let most = standing.window_bytes();
    wait_until(standing, job, window, |_| window.bytes() < most).await
}

/// Waits until everything is durable at the base.
pub(crate) async fn stored(
    standing: &Standing,
    job: &Arc<Job>,
    window: &Window,
) -> Result<Waited, FeedError> {
    let stored = |job: &Job| job.with_relay(|relay| relay.is_complete_at(&PeerId::Base));
    wait_until(standing, job, window, stored).await
}

/// Waits until `done`, dropping from the window what is durable at the base.
pub(crate) async fn wait_until(
    standing: &Standing,
    job: &Arc<Job>,
    window: &Window,
    done: impl Fn(&Job) -> bool,
) -> Result<Waited, FeedError> {
    let mut loss = Loss::default();
    loop {
        let news = standing.news.notified();
        let mut news = std::pin::pin!(news);
        news.as_mut().enable();
        let durable = job.with_relay(|relay| relay.durable_at(&PeerId::Base));
        window.forget_below(durable.unwrap_or(0));
        if done(job) {
            return Ok(Waited::Done);
        }
        if let Some(lost) = standing.lost().clone() {
            return Err(FeedError::Lost(lost));
        }
        let until = loss.look(durable.filter(|durable| *durable < window.floor()));
        tokio::select! {
            biased;
            () = job.over().cancelled() => return Err(FeedError::Stopped),
            () = news => {}
            () = over(until) => return Ok(Waited::Behind),
        }
    }
}

/// What the base has of what it had before, and until when it may stay so.
#[derive(Debug, Default)]
struct Loss(Option<(u64, Instant)>);

impl Loss {
    /// `durable` chunks are left where there were more; `None` if nothing is lost.
    fn look(&mut self, durable: Option<u64>) -> Option<Instant> {
        let is_news = durable != self.0.map(|(before, _)| before);
        if is_news {
            self.0 = durable.map(|durable| (durable, Instant::now() + LOSS_PATIENCE));
        }
        self.0.map(|(_, until)| until)
    }
}

async fn over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
