//! The JSON that scripts read: jobs, nodes and events, field by field as promised.

use serde::Serialize;
use shared::view::{
    Event, EventBody, JobNodeView, JobState, JobView, KindView, NodeInfo, NodeJobState,
    NodeProgress, VERSION,
};

/// One event as one object.
#[derive(Debug, Serialize)]
pub(crate) struct EventLine<'a> {
    v: u32,
    event: &'static str,
    job: &'a str,
    at: &'a str,
    #[serde(flatten)]
    body: BodyFields<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum BodyFields<'a> {
    Nothing {},
    Progress { size: Option<u64>, bytes: u64, nodes: &'a [NodeProgress] },
    Node { node: &'a str, state: NodeJobState, reason: &'a Option<String> },
    Closed(ClosedFields<'a>),
}

#[derive(Debug, Serialize)]
struct ClosedFields<'a> {
    #[serde(flatten)]
    job: JobFields<'a>,
    nodes: &'a [JobNodeView],
}

/// A job without its version and its nodes.
#[derive(Debug, Serialize)]
struct JobFields<'a> {
    id: &'a str,
    name: &'a str,
    kind: KindView,
    state: JobState,
    reason: &'a Option<String>,
    size: Option<u64>,
    bytes: u64,
    digest: &'a Option<String>,
    created_at: &'a str,
    deadline: &'a Option<String>,
    closed_at: &'a Option<String>,
}

#[derive(Debug, Serialize)]
struct JobLine<'a> {
    v: u32,
    #[serde(flatten)]
    job: JobFields<'a>,
}

/// All jobs.
#[derive(Debug, Serialize)]
pub(crate) struct Jobs<'a> {
    v: u32,
    jobs: Vec<JobLine<'a>>,
}

/// All nodes.
#[derive(Debug, Serialize)]
pub(crate) struct Nodes<'a> {
    v: u32,
    nodes: &'a [NodeInfo],
}

/// What a command answers that has nothing to tell.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    v: u32,
    ok: bool,
}

impl<'a> From<&'a Event> for EventLine<'a> {
    fn from(event: &'a Event) -> Self {
        let (name, body) = match &event.body {
            EventBody::Created => ("created", BodyFields::Nothing {}),
            EventBody::Progress { size, bytes, nodes } => {
                ("progress", BodyFields::Progress { size: *size, bytes: *bytes, nodes })
            }
            EventBody::Node { node, state, reason } => {
                ("node", BodyFields::Node { node, state: *state, reason })
            }
            EventBody::Quorum => ("quorum", BodyFields::Nothing {}),
            EventBody::Closed(view) => {
                let closed = ClosedFields { job: JobFields::from(&**view), nodes: &view.nodes };
                ("closed", BodyFields::Closed(closed))
            }
        };
        Self { v: VERSION, event: name, job: &event.job, at: &event.at, body }
    }
}

impl<'a> From<&'a JobView> for JobFields<'a> {
    fn from(view: &'a JobView) -> Self {
        Self {
            id: &view.id,
            name: &view.name,
            kind: view.kind,
            state: view.state,
            reason: &view.reason,
            size: view.size,
            bytes: view.bytes,
            digest: &view.digest,
            created_at: &view.created_at,
            deadline: &view.deadline,
            closed_at: &view.closed_at,
        }
    }
}

impl<'a> Jobs<'a> {
    /// The object for `jobs`.
    pub(crate) fn new(jobs: &'a [JobView]) -> Self {
        let line = |view| JobLine { v: VERSION, job: JobFields::from(view) };
        Self { v: VERSION, jobs: jobs.iter().map(line).collect() }
    }
}

impl<'a> Nodes<'a> {
    /// The object for `nodes`.
    pub(crate) const fn new(nodes: &'a [NodeInfo]) -> Self {
        Self { v: VERSION, nodes }
    }
}

impl Done {
    /// The object of a command that succeeded.
    pub(crate) const fn new() -> Self {
        Self { v: VERSION, ok: true }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use shared::view::{NodeState, SourceView};

    use super::*;

    /// A job that is closed as partial.
    pub(crate) fn view() -> JobView {
        let node = |name: &str, state, reason: Option<&str>| JobNodeView {
            name: name.to_owned(),
            state,
            bytes: 5,
            rate_bps: 80,
            upstreams: vec!["base".to_owned()],
            sources: vec![SourceView { name: "base".to_owned(), bytes: 5, rate_bps: 80 }],
            completed_at: None,
            reason: reason.map(str::to_owned),
        };
        JobView {
            v: VERSION,
            id: "id".to_owned(),
            name: "j".to_owned(),
            kind: KindView::Files,
            state: JobState::Partial,
            reason: Some("n2 is missing".to_owned()),
            size: Some(5),
            bytes: 5,
            digest: Some("d1".to_owned()),
            created_at: "t0".to_owned(),
            deadline: Some("t1".to_owned()),
            closed_at: None,
            nodes: vec![
                node("n1", NodeJobState::Complete, None),
                node("n2", NodeJobState::Unreachable, Some("no answer for 8 s")),
            ],
        }
    }

    const JOB_TEXT: &str = r#""id":"id","name":"j","kind":"files","state":"partial","reason":"n2 is missing","size":5,"bytes":5,"digest":"d1","created_at":"t0","deadline":"t1","closed_at":null"#;
    const NODES_TEXT: &str = r#""nodes":[{"name":"n1","state":"complete","bytes":5,"rate_bps":80,"upstreams":["base"],"sources":[{"name":"base","bytes":5,"rate_bps":80}],"completed_at":null,"reason":null},{"name":"n2","state":"unreachable","bytes":5,"rate_bps":80,"upstreams":["base"],"sources":[{"name":"base","bytes":5,"rate_bps":80}],"completed_at":null,"reason":"no answer for 8 s"}]"#;

    fn line(body: EventBody) -> String {
        let event = Event { job: "id".to_owned(), at: "t".to_owned(), body };
        serde_json::to_string(&EventLine::from(&event)).unwrap()
    }

    #[test]
    fn jobs_are_as_promised() {
        let text = serde_json::to_string(&view()).unwrap();
        assert_eq!(text, format!("{{\"v\":1,{JOB_TEXT},{NODES_TEXT}}}"));
        let text = serde_json::to_string(&Jobs::new(&[view()])).unwrap();
        assert_eq!(text, format!("{{\"v\":1,\"jobs\":[{{\"v\":1,{JOB_TEXT}}}]}}"));
    }

    #[test]
    fn events_are_as_promised() {
        assert_eq!(line(EventBody::Created), r#"{"v":1,"event":"created","job":"id","at":"t"}"#);
        assert_eq!(line(EventBody::Quorum), r#"{"v":1,"event":"quorum","job":"id","at":"t"}"#);
        let nodes = vec![NodeProgress {
            name: "n1".to_owned(),
            state: NodeJobState::Receiving,
            bytes: 1,
            rate_bps: 8,
        }];
        assert_eq!(
            line(EventBody::Progress { size: None, bytes: 2, nodes }),
            r#"{"v":1,"event":"progress","job":"id","at":"t","size":null,"bytes":2,"nodes":[{"name":"n1","state":"receiving","bytes":1,"rate_bps":8}]}"#
        );
        let node = "n1".to_owned();
        assert_eq!(
            line(EventBody::Node { node, state: NodeJobState::Lost, reason: None }),
            r#"{"v":1,"event":"node","job":"id","at":"t","node":"n1","state":"lost","reason":null}"#
        );
    }

    #[test]
    fn the_closed_event_has_the_job_beside_it() {
        let head = r#""v":1,"event":"closed","job":"id","at":"t""#;
        let text = line(EventBody::Closed(Box::new(view())));
        assert_eq!(text, format!("{{{head},{JOB_TEXT},{NODES_TEXT}}}"));
    }

    #[test]
    fn nodes_are_as_promised() {
        let info = NodeInfo {
            name: "n1".to_owned(),
            address: "a:1".to_owned(),
            labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            state: NodeState::Up,
            jobs: 2,
            rtt_ms: None,
        };
        assert_eq!(
            serde_json::to_string(&Nodes::new(&[info])).unwrap(),
            r#"{"v":1,"nodes":[{"name":"n1","address":"a:1","labels":{"k":"v"},"state":"up","jobs":2,"rtt_ms":null}]}"#
        );
        assert_eq!(serde_json::to_string(&Done::new()).unwrap(), r#"{"v":1,"ok":true}"#);
    }
}
