//! A job that was begun before: what the base has of it, page by page.

use std::sync::Arc;
use std::time::Duration;

use shared::job::{Dimensions, JobObject, SignedJob};
use shared::manifest::{Page, PageBytes};
use shared::wire::request::{Reply, Request};
use shared_io::request::{self, Asked, RequestError};

use crate::push::{PushError, opened};
use crate::session::{AskError, Standing};

/// How long to wait before a broken connection is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// An open job whose publisher was gone, and the pages of it that the base has.
#[derive(Debug)]
pub(crate) struct Begun {
    standing: Arc<Standing>,
    dimensions: Dimensions,
    object: JobObject,
    asked: Option<Asked>,
    /// The first page that was not seen yet.
    next: u32,
}

impl Begun {
    /// The job that a push with `dimensions` goes on with, if there is one.
    ///
    /// # Errors
    /// [`PushError`] if it is being pushed, was begun with other dimensions, or the base
    /// cannot be asked.
    pub(crate) async fn find(
        standing: &Arc<Standing>,
        dimensions: &Dimensions,
    ) -> Result<Option<Self>, PushError> {
        if dimensions.name.is_none() {
            return Ok(None);
        }
        let (asked, signed) = loop {
            match ask(standing, dimensions, 0).await {
                Ok(found) => break found,
                Err(error) if error.is_not_open() => return Ok(None),
                Err(error) => retry(error).await?,
            }
        };
        let object = opened(standing, &signed).await?;
        let (standing, dimensions) = (Arc::clone(standing), dimensions.clone());
        Ok(Some(Self { standing, dimensions, object, asked: Some(asked), next: 0 }))
    }

    /// The job.
    pub(crate) const fn object(&self) -> &JobObject {
        &self.object
    }

    /// The next page that the base has, as it was drafted; `None` behind the last one. Pages
    /// whose chunks are void are left out. A connection that breaks is made again.
    ///
    /// # Errors
    /// [`AskError`] if the base does not say.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>, AskError> {
        loop {
            let asked = match &mut self.asked {
                Some(asked) => asked,
                None => match ask(&self.standing, &self.dimensions, self.next).await {
                    Ok((_, signed)) if signed.open(&self.object.page_key).is_err() => {
                        return Err(AskError::Answer);
                    }
                    Ok((asked, _)) => self.asked.insert(asked),
                    Err(error) => {
                        retry(error).await?;
                        continue;
                    }
                },
            };
            match asked.next().await {
                Ok(Some(Reply::Page(record))) => {
                    let page = PageBytes::from_record(record.into(), true);
                    let page = page.map_err(|error| AskError::Broken(error.into()))?;
                    let page = page.decode().map_err(|_error| AskError::Answer)?;
                    self.next = page.index.saturating_add(1);
                    return Ok(Some(page));
                }
                Ok(Some(Reply::Refused(refusal))) => return Err(AskError::Refused(refusal)),
                Ok(Some(_)) => return Err(AskError::Answer),
                Ok(None) => return Ok(None),
                Err(error) => {
                    tracing::debug!(%error, "what the base has of the job");
                    self.asked = None;
                }
            }
        }
    }
}

/// Asks for the job and its pages from `pages` on; the object is the first reply.
async fn ask(
    standing: &Standing,
    dimensions: &Dimensions,
    pages: u32,
) -> Result<(Asked, Box<SignedJob>), AskError> {
    let link = standing.link().await.map_err(|_lost| AskError::Answer)?;
    let request = Request::Resume { dimensions: Box::new(dimensions.clone()), pages };
    let mut asked = request::ask(link.connection(), &request).await?;
    match asked.next().await? {
        Some(Reply::Created(signed)) => Ok((asked, signed)),
        Some(Reply::Refused(refusal)) => Err(AskError::Refused(refusal)),
        Some(_) => Err(AskError::Answer),
        None => Err(RequestError::Ended.into()),
    }
}

/// Waits a moment if the connection broke; any other error stands.
async fn retry(error: AskError) -> Result<(), AskError> {
    let AskError::Broken(error) = error else { return Err(error) };
    tracing::debug!(%error, "asking for the job again");
    tokio::time::sleep(AGAIN).await;
    Ok(())
}
