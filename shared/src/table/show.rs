//! What people see of a job.

use crate::job::Kind;
use crate::view::{EventBody, JobView, KindView, VERSION, rfc3339};

use super::clock::BaseClock;
use super::entry::Job;
use super::line::clip;
use super::presence::Presence;

impl Job {
    /// The job with its nodes.
    pub(super) fn view(&self, presence: &Presence, clock: &BaseClock) -> JobView {
        let names = self.head.servers.names().iter();
        let line = |(name, line): (&crate::id::Name, &super::line::Line)| {
            line.view(name.as_str(), presence.is_down(name))
        };
        JobView { nodes: names.zip(&self.lines).map(line).collect(), ..self.outline(clock) }
    }

    /// The job without its nodes, its reason cut to what a list has room for.
    pub(super) fn summary(&self, clock: &BaseClock) -> JobView {
        let mut view = self.outline(clock);
        view.reason = view.reason.map(|reason| clip(&reason).to_owned());
        view
    }

    fn outline(&self, clock: &BaseClock) -> JobView {
        let kind = match self.head.dimensions.kind {
            Kind::Files => KindView::Files,
            Kind::Live => KindView::Live,
        };
        JobView {
            v: VERSION,
            id: self.head.id.to_string(),
            name: self.head.name.to_string(),
            kind,
            state: self.status.state,
            reason: self.status.reason.clone(),
            size: self.status.size,
            bytes: self.bytes,
            digest: self.status.digest.map(|digest| digest.to_string()),
            created_at: rfc3339(self.head.created_ms),
            deadline: self.deadline().map(|at| rfc3339(clock.wall_ms(at))),
            closed_at: self.status.closed_ms.map(rfc3339),
            nodes: Vec::new(),
        }
    }

    /// How far the job is.
    pub(super) fn progress(&self, presence: &Presence) -> EventBody {
        let lines = self.head.servers.names().iter().zip(&self.lines);
        let nodes = lines
            .map(|(name, line)| line.progress_view(name.as_str(), presence.is_down(name)))
            .collect();
        EventBody::Progress { size: self.status.size, bytes: self.bytes, nodes }
    }
}
