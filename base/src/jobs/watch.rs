//! Those who watch a job: each has a bounded queue of its own and none waits for another.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use shared::id::JobId;
use shared::view::{Event, EventBody};
use tokio::sync::Notify;

/// Watchers of all jobs together.
pub const WATCHERS_MAX: usize = 1_000;
/// Events of one watcher that wait before older states of one node give way to newer ones:
/// beyond it, at most one event a node waits.
const EVENTS_MAX: usize = 1_024;

/// The events of one job for one watcher. Dropping it ends the watch.
///
/// A watcher that lags gets the newest progress only. States of nodes, the quorum and the
/// closing are never left out, except that a state may give way to a newer one of its node.
#[derive(Debug)]
pub struct Watcher {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pending: Mutex<Pending>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    events: VecDeque<Arc<Event>>,
    progress: Option<Arc<Event>>,
    ended: bool,
}

impl Watcher {
    /// A watcher without events yet, and its queue.
    pub(super) fn new() -> (Self, Arc<Queue>) {
        let queue = Arc::new(Queue::default());
        (Self { queue: Arc::clone(&queue) }, queue)
    }

    /// The next event; `None` after `closed`, or if the base stops before.
    ///
    /// # Cancellation
    /// No event is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            {
                let mut pending = self.queue.lock();
                let next = pending.events.pop_front().or_else(|| pending.progress.take());
                if next.is_some() || pending.ended {
                    return next;
                }
            }
            self.queue.ready.notified().await;
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, event: &Arc<Event>) {
        let mut pending = self.lock();
        if pending.ended {
            return;
        }
        match &event.body {
            EventBody::Progress { .. } => pending.progress = Some(Arc::clone(event)),
            EventBody::Closed(_) => {
                pending.progress = None;
                pending.events.push_back(Arc::clone(event));
                pending.ended = true;
            }
            EventBody::Node { node, .. } => {
                if pending.events.len() >= EVENTS_MAX {
                    pending.events.retain(|older| !is_of_node(older, node));
                }
                pending.events.push_back(Arc::clone(event));
            }
            EventBody::Created | EventBody::Quorum => pending.events.push_back(Arc::clone(event)),
        }
        drop(pending);
        self.ready.notify_one();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.ready.notify_one();
    }
}

fn is_of_node(event: &Event, name: &str) -> bool {
    matches!(&event.body, EventBody::Node { node, .. } if node == name)
}

/// All watchers, by job.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_job: BTreeMap<JobId, Vec<Weak<Queue>>>,
}

impl Watchers {
    pub(super) fn add(&mut self, job: JobId, queue: &Arc<Queue>) {
        self.by_job.entry(job).or_default().push(Arc::downgrade(queue));
    }

    /// How many there are, after those that are gone are left out.
    pub(super) fn count(&mut self) -> usize {
        self.by_job.retain(|_, watchers| {
            watchers.retain(|watcher| watcher.strong_count() > 0);
            !watchers.is_empty()
        });
        self.by_job.values().map(Vec::len).sum()
    }

    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.by_job.keys().copied().collect()
    }

    /// Hands an event to those who watch its job.
    pub(super) fn tell(&mut self, job: JobId, event: &Arc<Event>) {
        let last = matches!(event.body, EventBody::Closed(_));
        let watchers = self.by_job.get(&job).into_iter().flatten();
        watchers.filter_map(Weak::upgrade).for_each(|queue| queue.push(event));
        if last {
            self.by_job.remove(&job);
        }
    }

    /// Ends all watches: the base stops.
    pub(super) fn end(&mut self) {
        let all = std::mem::take(&mut self.by_job).into_values().flatten();
        all.filter_map(|watcher| watcher.upgrade()).for_each(|queue| queue.end());
    }
}

#[cfg(test)]
mod tests {
    use shared::view::NodeJobState;

    use super::*;

    fn event(body: EventBody) -> Arc<Event> {
        Arc::new(Event { job: "j".to_owned(), at: "t".to_owned(), body })
    }

    fn node(name: &str, state: NodeJobState) -> Arc<Event> {
        event(EventBody::Node { node: name.to_owned(), state, reason: None })
    }

    fn progress(bytes: u64) -> Arc<Event> {
        event(EventBody::Progress { size: None, bytes, nodes: Vec::new() })
    }

    async fn drain(watcher: &mut Watcher) -> Vec<EventBody> {
        let mut bodies = Vec::new();
        while let Some(event) = watcher.next().await {
            bodies.push(event.body.clone());
        }
        bodies
    }

    #[tokio::test]
    async fn a_watcher_that_lags_gets_the_newest_progress_and_every_node() {
        let (mut watcher, queue) = Watcher::new();
        queue.push(&event(EventBody::Created));
        (0..5_000).for_each(|bytes| queue.push(&progress(bytes)));
        for round in [NodeJobState::Receiving, NodeJobState::Unreachable, NodeJobState::Complete] {
            (0..EVENTS_MAX).for_each(|n| queue.push(&node(&format!("n{n}"), round)));
        }
        queue.push(&event(EventBody::Quorum));
        queue.end();
        let bodies = drain(&mut watcher).await;
        assert_eq!(bodies.first(), Some(&EventBody::Created));
        assert_eq!(bodies.last(), Some(&progress(4_999).body), "only the newest");
        for n in 0..EVENTS_MAX {
            let name = format!("n{n}");
            let last = bodies
                .iter()
                .rev()
                .find(|body| matches!(body, EventBody::Node { node, .. } if *node == name));
            assert_eq!(last, Some(&node(&name, NodeJobState::Complete).body));
        }
        assert!(bodies.contains(&EventBody::Quorum));
        assert!(bodies.len() <= 2 * EVENTS_MAX + 3, "{}", bodies.len());
    }

    #[tokio::test]
    async fn nothing_follows_an_end() {
        let (mut watcher, queue) = Watcher::new();
        queue.push(&event(EventBody::Created));
        queue.end();
        queue.push(&event(EventBody::Quorum));
        assert_eq!(drain(&mut watcher).await, vec![EventBody::Created]);
    }

    #[test]
    fn a_dropped_watcher_is_counted_no_more() {
        let mut watchers = Watchers::default();
        let (watcher, queue) = Watcher::new();
        watchers.add(JobId([1; 16]), &queue);
        drop(queue);
        assert_eq!(watchers.count(), 1);
        drop(watcher);
        assert_eq!(watchers.count(), 0);
    }
}
