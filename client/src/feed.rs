//! Feeding a job: cutting ahead within a window, dropping what is durable at the base.

use std::sync::Arc;

use shared::id::PeerId;
use shared_io::content::Window;
use shared_io::job::Job;
use shared_io::store::StoreError;

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

/// Feeds `job` from `cutter` until everything is durable at the base. What was `begun` before
/// has to be what is cut now.
pub(crate) async fn run(
    standing: Arc<Standing>,
    job: Arc<Job>,
    window: Arc<Window>,
    mut cutter: Cutter,
    mut begun: Option<Begun>,
) -> Result<(), FeedError> {
    loop {
        room(&standing, &job, &window).await?;
        let (back, cut) = tokio::task::spawn_blocking(move || {
            let cut = cutter.next();
            (cutter, cut)
        })
        .await?;
        cutter = back;
        let Some(CutPage { page, page_decoded, summary, chunks }) = cut? else { break };
        if let Some(pages) = &mut begun {
            match pages.next().await {
                Ok(None) => begun = None,
                Ok(Some(theirs)) if theirs == page_decoded => {}
                Ok(Some(theirs)) => {
                    let difference = differ::first(cutter.plan(), &page_decoded, &theirs);
                    return Err(FeedError::Differs(difference));
                }
                Err(error) => return Err(error.into()),
            }
        }
        job.publish((&page, &Arc::new(page_decoded)), &summary, chunks)?;
    }
    stored(&standing, &job, &window).await
}

/// Waits until the window has room for more.
pub(crate) async fn room(
    standing: &Standing,
    job: &Arc<Job>,
    window: &Window,
) -> Result<(), FeedError> {
    let most = standing.window_bytes();
    wait_until(standing, job, window, |_| window.bytes() < most).await
}

/// Waits until everything is durable at the base.
pub(crate) async fn stored(
    standing: &Standing,
    job: &Arc<Job>,
    window: &Window,
) -> Result<(), FeedError> {
    let stored = |job: &Job| job.with_relay(|relay| relay.is_complete_at(&PeerId::Base));
    wait_until(standing, job, window, stored).await
}

async fn wait_until(
    standing: &Standing,
    job: &Arc<Job>,
    window: &Window,
    done: impl Fn(&Job) -> bool,
) -> Result<(), FeedError> {
    loop {
        let news = standing.news.notified();
        let mut news = std::pin::pin!(news);
        news.as_mut().enable();
        let durable = job.with_relay(|relay| relay.durable_at(&PeerId::Base));
        window.forget_below(durable);
        if done(job) {
            return Ok(());
        }
        if let Some(lost) = standing.lost().clone() {
            return Err(FeedError::Lost(lost));
        }
        tokio::select! {
            biased;
            () = job.over().cancelled() => return Err(FeedError::Stopped),
            () = news => {}
        }
    }
}
