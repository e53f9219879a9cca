//! The one thread that flushes all jobs of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use shared::id::JobId;
use tokio_util::sync::CancellationToken;

use super::flush::flush_group;
use super::{Flushed, JobStore, StoreError, StoreRoot};

/// The flusher's thread panicked: nothing that was not reported durable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the flusher panicked")]
pub struct FlusherPanicked;

/// Flushes all jobs with news together: at once if it was idle, then at most every `period`,
/// and earlier when `bytes_max` wait or a job has its last chunk.
#[derive(Debug)]
pub struct Flusher {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
    bytes_max: u64,
    panicked: CancellationToken,
}

/// At most one entry for each open job.
#[derive(Debug, Default)]
struct Queue {
    dirty: BTreeMap<JobId, Arc<JobStore>>,
    bytes: u64,
    urgent: bool,
    stop: bool,
    ended: bool,
}

impl Flusher {
    /// Starts the thread. `report` is called on it and should not take long.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system gives no thread.
    pub fn start(
        root: Arc<StoreRoot>,
        period: Duration,
        bytes_max: u64,
        report: impl Fn(Flushed) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            news: Condvar::new(),
            bytes_max,
            panicked: CancellationToken::new(),
        });
        let its = Arc::clone(&shared);
        let path = root.path().to_owned();
        let thread = std::thread::Builder::new()
            .name("flusher".to_owned())
            .spawn(move || {
                let _end = EndMark(&its);
                run(&its, &root, period, &report);
            })
            .map_err(StoreError::io("start the flusher of", &path))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Says that `store` has news: pages, or chunks of `bytes` bytes together.
    ///
    /// # Errors
    /// [`StoreError::FlusherEnded`] if the thread has stopped or panicked.
    pub fn dirty(&self, store: &Arc<JobStore>, bytes: u64) -> Result<(), StoreError> {
        let last = store.is_written();
        let mut queue = self.shared.queue();
        if queue.ended || queue.stop {
            return Err(StoreError::FlusherEnded);
        }
        let idle = queue.dirty.is_empty();
        queue.dirty.entry(store.job()).or_insert_with(|| Arc::clone(store));
        queue.bytes = queue.bytes.saturating_add(bytes);
        let urgent = last || queue.bytes >= self.shared.bytes_max;
        let wake = idle || (urgent && !queue.urgent);
        queue.urgent |= urgent;
        drop(queue);
        if wake {
            self.shared.news.notify_one();
        }
        Ok(())
    }

    /// Ends when the thread has panicked, and never else.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn panicked(&self) {
        self.shared.panicked.cancelled().await;
    }

    /// Flushes what waits, ends the thread and waits for it.
    ///
    /// # Errors
    /// [`FlusherPanicked`] if it did.
    pub fn stop(&self) -> Result<(), FlusherPanicked> {
        self.shared.queue().stop = true;
        self.shared.news.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread.map(JoinHandle::join) {
            Some(Err(_)) => Err(FlusherPanicked),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        if self.stop().is_err() {
            tracing::error!("the flusher panicked");
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the end of the thread, however it comes.
struct EndMark<'a>(&'a Shared);

impl Drop for EndMark<'_> {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        if std::thread::panicking() {
            self.0.panicked.cancel();
        }
    }
}

fn run(shared: &Shared, root: &StoreRoot, period: Duration, report: &dyn Fn(Flushed)) {
    let mut queue = shared.queue();
    loop {
        if queue.dirty.is_empty() {
            if queue.stop {
                return;
            }
            queue = shared.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let stores: Vec<Arc<JobStore>> = std::mem::take(&mut queue.dirty).into_values().collect();
        queue.bytes = 0;
        queue.urgent = false;
        drop(queue);
        let again = flush_group(root, &stores, report);
        drop(stores);
        let wait = |queue: &mut Queue| !queue.urgent && !queue.stop;
        let waited = shared.news.wait_timeout_while(shared.queue(), period, wait);
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        if !queue.stop {
            again.into_iter().for_each(|store| drop(queue.dirty.insert(store.job(), store)));
        }
    }
}
