//! The events of a job, over as many connections as it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::view::{Event, EventBody, NodeJobState, NodeProgress};
use shared::wire::request::{JobRef, Reply, Request};
use shared_io::request::{self, Asked};

use crate::session::{AskError, Standing};

/// A stream of a job's events: `Created` first, `Closed` last.
#[derive(Debug)]
pub struct Watch {
    standing: Arc<Standing>,
    job: JobRef,
    asked: Option<Asked>,
    created: bool,
    closed: bool,
    known: Known,
}

/// What is known of the nodes' bytes: a base that was started anew has not heard of them yet.
#[derive(Debug, Default)]
struct Known(BTreeMap<String, u64>);

impl Known {
    /// A node that the base has not heard yet has what it had.
    fn fill_in(&mut self, nodes: &mut [NodeProgress]) {
        for node in nodes {
            let known = self.0.entry(node.name.clone()).or_default();
            let unheard = matches!(node.state, NodeJobState::Waiting | NodeJobState::Unreachable);
            if unheard && node.bytes < *known {
                node.bytes = *known;
            }
            *known = node.bytes;
        }
    }
}

impl Watch {
    pub(crate) async fn start(standing: Arc<Standing>, job: JobRef) -> Result<Self, AskError> {
        let mut watch = Self {
            standing,
            job,
            asked: None,
            created: false,
            closed: false,
            known: Known::default(),
        };
        match watch.ask().await {
            // The events are asked for again over the next connection.
            Ok(()) | Err(AskError::Broken(_)) => Ok(watch),
            Err(error) => Err(error),
        }
    }

    async fn ask(&mut self) -> Result<(), AskError> {
        let link = self.standing.link().await.map_err(|_lost| AskError::Answer)?;
        let request = Request::Watch(self.job.clone());
        self.asked = Some(request::ask(link.connection(), &request).await?);
        Ok(())
    }

    /// The next event; `None` behind `Closed`. A connection that breaks is made again, and
    /// the events go on with the present state of the job.
    ///
    /// # Errors
    /// [`AskError`] if the base refuses, or cannot be reached any more.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn next(&mut self) -> Result<Option<Event>, AskError> {
        while !self.closed {
            let Some(asked) = &mut self.asked else {
                match self.ask().await {
                    Ok(()) => continue,
                    // Broken once more: wait for the next link.
                    Err(AskError::Broken(error)) => {
                        tracing::debug!(%error, "watching");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            };
            match asked.next().await {
                Ok(Some(Reply::Event(event))) => {
                    if let Some(event) = self.take(*event) {
                        return Ok(Some(event));
                    }
                }
                Ok(Some(Reply::Refused(refusal))) => return Err(AskError::Refused(refusal)),
                Ok(Some(_)) => return Err(AskError::Answer),
                Ok(None) | Err(_) => self.asked = None,
            }
        }
        Ok(None)
    }

    /// Drops what a watch that was begun again repeats.
    fn take(&mut self, mut event: Event) -> Option<Event> {
        match &mut event.body {
            EventBody::Created if std::mem::replace(&mut self.created, true) => None,
            EventBody::Closed(_) => {
                self.closed = true;
                Some(event)
            }
            EventBody::Progress { nodes, .. } => {
                self.known.fill_in(nodes);
                Some(event)
            }
            EventBody::Created | EventBody::Node { .. } | EventBody::Quorum => Some(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_not_heard_yet_has_what_it_had() {
        let mut known = Known::default();
        let steps = [
            (NodeJobState::Receiving, 5, 5),
            (NodeJobState::Waiting, 0, 5),
            (NodeJobState::Unreachable, 0, 5),
            (NodeJobState::Receiving, 7, 7),
            // It was heard, and has lost it.
            (NodeJobState::Lost, 0, 0),
            (NodeJobState::Waiting, 0, 0),
        ];
        for (state, told, shown) in steps {
            let name = "n".to_owned();
            let mut nodes = [NodeProgress { name, state, bytes: told, rate_bps: 0 }];
            known.fill_in(&mut nodes);
            assert_eq!(nodes[0].bytes, shown, "{state:?}");
        }
    }
}
