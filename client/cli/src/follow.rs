//! Following a job until it is closed: what `push` and `job watch` say on the way.

use shared::view::{Event, EventBody, JobState, JobView, NodeJobState};

use crate::exit::{Exit, Failure};
use crate::json::EventLine;
use crate::output;
use crate::progress::Bars;
use crate::units::show_size;

/// Says what happens to one job.
#[derive(Debug)]
pub(crate) struct Follower {
    json: bool,
    bars: Option<Bars>,
}

impl Follower {
    /// A follower that prints JSON events, or text for people, with bars if `bars`.
    pub(crate) fn new(json: bool, bars: bool) -> Self {
        Self { json, bars: bars.then(Bars::new) }
    }

    /// Says what happened; gives the exit code once the job is closed.
    ///
    /// # Errors
    /// [`Failure`] if nothing can be written, or with what went wrong with the job.
    pub(crate) fn event(&mut self, event: &Event) -> Result<Option<Exit>, Failure> {
        if self.json {
            output::json(&EventLine::from(event))?;
        }
        match &event.body {
            EventBody::Created => Ok(None),
            EventBody::Progress { size, bytes, nodes } => {
                if let Some(bars) = &mut self.bars {
                    bars.update(*size, *bytes, nodes);
                }
                Ok(None)
            }
            EventBody::Node { node, state, reason } => {
                self.node(node, *state, reason.as_deref());
                Ok(None)
            }
            EventBody::Quorum => {
                self.say("the quorum has it");
                Ok(None)
            }
            EventBody::Closed(view) => self.closed(view).map(Some),
        }
    }

    /// Takes the bars away, before the command says something of its own.
    pub(crate) fn quiet(&mut self) {
        if let Some(bars) = self.bars.take() {
            bars.clear();
        }
    }

    fn node(&self, node: &str, state: NodeJobState, reason: Option<&str>) {
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        match state {
            NodeJobState::Waiting | NodeJobState::Receiving => {}
            NodeJobState::Complete
            | NodeJobState::Lost
            | NodeJobState::Unreachable
            | NodeJobState::Failed => self.say(&format!("{node} {}{reason}", state.as_str())),
        }
    }

    fn closed(&mut self, view: &JobView) -> Result<Exit, Failure> {
        self.quiet();
        let exit = Exit::of_job(view);
        if exit != Exit::Done {
            return Err(Failure::new(exit, what_went_wrong(view)));
        }
        if !self.json {
            output::line(&success(view))?;
        }
        let missing = missing(view);
        if !missing.is_empty() {
            self.say(&format!("the quorum has it, without: {missing}"));
        }
        Ok(exit)
    }

    /// Says something to people; who reads JSON has it in the events.
    fn say(&self, text: &str) {
        match &self.bars {
            _ if self.json => {}
            Some(bars) => bars.say(|| output::note(text)),
            None => output::note(text),
        }
    }
}

fn success(view: &JobView) -> String {
    let size = show_size(view.size.unwrap_or(view.bytes));
    let digest = view.digest.as_deref().unwrap_or("unknown");
    let (have, of) = have(view);
    format!("complete: {have} of {of} nodes have {size}, digest {digest}")
}

fn what_went_wrong(view: &JobView) -> String {
    let JobView { name, id, .. } = view;
    let reason = view.reason.as_deref().unwrap_or("no reason was given");
    match view.state {
        JobState::Partial => {
            let (have, of) = have(view);
            let missing = missing(view);
            format!(
                "job {name} ({id}) is closed as partial: {have} of {of} nodes have it by the \
                 deadline; missing: {missing}"
            )
        }
        JobState::Cancelled => format!("job {name} ({id}) was cancelled: {reason}"),
        JobState::Failed | JobState::Receiving | JobState::Distributing | JobState::Complete => {
            format!("job {name} ({id}) has failed: {reason}")
        }
    }
}

fn have(view: &JobView) -> (usize, usize) {
    let complete = |node: &&shared::view::JobNodeView| node.state == NodeJobState::Complete;
    (view.nodes.iter().filter(complete).count(), view.nodes.len())
}

/// The nodes that do not have the job, with what is known of each.
fn missing(view: &JobView) -> String {
    let missing = view.nodes.iter().filter(|node| node.state != NodeJobState::Complete);
    let named = missing.map(|node| match &node.reason {
        Some(reason) if reason.starts_with(node.state.as_str()) => {
            format!("{} ({reason})", node.name)
        }
        Some(reason) => format!("{} ({}: {reason})", node.name, node.state.as_str()),
        None => format!("{} ({})", node.name, node.state.as_str()),
    });
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::view;

    fn close(state: JobState) -> Result<Option<Exit>, Failure> {
        let body = EventBody::Closed(Box::new(JobView { state, ..view() }));
        let event = Event { job: "id".to_owned(), at: "t".to_owned(), body };
        Follower::new(false, false).event(&event)
    }

    #[test]
    fn a_partial_job_names_the_missing_nodes() {
        let failure = close(JobState::Partial).unwrap_err();
        assert_eq!(failure.exit, Exit::Partial);
        let end =
            "1 of 2 nodes have it by the deadline; missing: n2 (unreachable: no answer for 8 s)";
        assert!(failure.text.ends_with(end), "{failure}");
    }

    #[test]
    fn a_reason_that_names_the_state_is_not_told_twice() {
        let mut view = view();
        let node = view.nodes.iter_mut().find(|node| node.state == NodeJobState::Unreachable);
        node.unwrap().reason = Some("unreachable, no answer to the query".to_owned());
        assert_eq!(missing(&view), "n2 (unreachable, no answer to the query)");
    }

    #[test]
    fn the_state_at_closing_is_the_result() {
        assert_eq!(close(JobState::Complete), Ok(Some(Exit::Done)));
        assert_eq!(close(JobState::Failed).unwrap_err().exit, Exit::Failed);
        let cancelled = close(JobState::Cancelled).unwrap_err();
        assert_eq!(cancelled.exit, Exit::Failed);
        assert!(cancelled.text.contains("was cancelled"), "{cancelled}");
    }

    #[test]
    fn other_events_end_nothing() {
        let nodes = Vec::new();
        for body in [
            EventBody::Created,
            EventBody::Quorum,
            EventBody::Progress { size: None, bytes: 0, nodes },
            EventBody::Node { node: "n".to_owned(), state: NodeJobState::Failed, reason: None },
        ] {
            let event = Event { job: "id".to_owned(), at: "t".to_owned(), body };
            assert_eq!(Follower::new(false, false).event(&event), Ok(None));
        }
    }

    #[test]
    fn success_says_who_has_what() {
        let text = success(&view());
        assert_eq!(text, "complete: 1 of 2 nodes have 5 B, digest d1");
    }
}
