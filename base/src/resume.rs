//! Going on with a job: its publisher has gone, another process of the same client takes its
//! place and is shown what is here.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use shared::id::JobId;
use shared::job::{JobObject, SignedJob};
use shared::manifest::PageBytes;
use shared::table::TableError;
use shared::wire::code::Code;
use shared::wire::request::{RefusalKind, Reply};
use shared_io::job::{Job, Keeping};
use shared_io::link::{Link, chain};
use shared_io::request::Replies;
use shared_io::store::{JobStore, StoreError};

use crate::hub::Hub;
use crate::probe;

/// How long what a publisher sent last may take to be stored.
const QUIET_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for.
const QUIET_EVERY: Duration = Duration::from_millis(20);
/// Pages that are read at a time: at most 1 MiB.
const PAGES_AT_A_TIME: u32 = 16;

impl Hub {
    /// Lets `link` take the place of a publisher that has gone: the job object, then the pages
    /// from `from` on.
    pub(crate) async fn resume(
        self: Arc<Self>,
        link: Arc<Link>,
        signed: SignedJob,
        from: u32,
        mut replies: Replies,
    ) -> Result<(), quinn::WriteError> {
        let id = match self.place_for(&link, &signed).await {
            Ok(id) => id,
            Err(text) => return replies.refuse(RefusalKind::Cannot, text).await,
        };
        replies.send(&Reply::Created(Box::new(signed))).await?;
        let Some(job) = self.job(id) else {
            replies.end();
            return Ok(());
        };
        match send_pages(&job, from, &mut replies).await? {
            Ok(()) => replies.end(),
            Err(error) => replies.refuse(RefusalKind::Cannot, chain(&error)).await?,
        }
        Ok(())
    }

    /// Makes sure that nobody else feeds the job, and that nothing of who did is under way.
    async fn place_for(
        self: &Arc<Self>,
        link: &Arc<Link>,
        signed: &SignedJob,
    ) -> Result<JobId, String> {
        self.begin(signed).await?;
        let object = signed.open(&self.public_key()).map_err(|error| chain(&error))?;
        let before = self.publisher(object.id).filter(|before| before.peer() != link.peer());
        if let Some(before) = before {
            if probe::answers(&before).await {
                let taken = TableError::NameTaken { name: object.name, own: Some(object.id) };
                return Err(taken.to_string());
            }
            before.close(Code::Done, "it did not answer, and its client goes on elsewhere");
        }
        let quiet = tokio::time::timeout(QUIET_PATIENCE, self.quiet(object.id, link));
        match quiet.await {
            Ok(()) => Ok(object.id),
            Err(_elapsed) => {
                let JobObject { name, id, .. } = object;
                Err(format!("job {name} ({id}) is still busy with what came before; try again"))
            }
        }
    }

    /// Waits until nothing comes from anybody but `link`, and what has come is stored.
    async fn quiet(&self, id: JobId, link: &Link) {
        let fed = || self.publisher(id).is_some_and(|other| other.peer() != link.peer());
        let working = || self.job(id).is_some_and(|job| job.is_working());
        while fed() || working() {
            tokio::time::sleep(QUIET_EVERY).await;
        }
    }
}

/// The pages of `batch`, but for those whose chunks are void.
fn read_kept(store: &JobStore, batch: Range<u32>) -> Result<Vec<PageBytes>, StoreError> {
    let mut pages = Vec::new();
    let mut next = store.next_page(batch.start);
    while let Some(index) = next.filter(|index| batch.contains(index)) {
        pages.push(store.read_page(index)?);
        next = store.next_page(index.saturating_add(1));
    }
    Ok(pages)
}

/// Sends the pages that are here, from `from` on.
async fn send_pages(
    job: &Job,
    from: u32,
    replies: &mut Replies,
) -> Result<Result<(), StoreError>, quinn::WriteError> {
    let Keeping::Disk(store) = job.keeping() else { return Ok(Ok(())) };
    let pages = store.pages();
    let mut next = from;
    while next < pages {
        let batch = next..pages.min(next.saturating_add(PAGES_AT_A_TIME));
        next = batch.end;
        let store = Arc::clone(store);
        let read = tokio::task::spawn_blocking(move || read_kept(&store, batch));
        let read = match read.await {
            Ok(Ok(pages)) => pages,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(error) => {
                let (job, reason) = (job.id(), error.to_string());
                return Ok(Err(StoreError::Failed { job, reason }));
            }
        };
        for page in read {
            replies.send(&Reply::Page(page.to_record().to_vec())).await?;
        }
    }
    Ok(Ok(()))
}
