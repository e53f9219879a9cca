//! The push of the demo, followed event by event.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use shared::view::{JobView, NodeProgress};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::exit::Failure;
use crate::feeders::feeders;
use crate::output;
use crate::progress::Bars;

use super::Pushed;
use super::fleet::{Fleet, http_get};

/// How long a push may take to end after its last event.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How long the base may take to say who feeds whom.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// A push under way, a process of its own.
pub(super) struct Spread {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Lines<BufReader<ChildStdout>>,
    errors: Option<ChildStderr>,
    json: bool,
    bars: Bars,
    base_http: String,
    /// Who feeds each node now, for people.
    feeders: BTreeMap<String, String>,
    created_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
    completed_at: BTreeMap<String, Timestamp>,
}

impl Spread {
    /// Starts the push.
    ///
    /// What is written to [`Self::take_stdin`] is the content of a live push; the standard input
    /// of another one is held open, and it ends when that closes.
    pub(super) fn start(fleet: &Fleet, pushed: &Pushed, json: bool) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot start push: {error}"));
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["push", "--json", "--no-progress", "--base", fleet.base()])
            .arg("--identity")
            .arg(fleet.client_identity())
            .args(pushed.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let no_pipe = || Failure::failed("push has no output to read");
        let events = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?).lines();
        let errors = child.stderr.take();
        let bars = Bars::new();
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            events,
            errors,
            json,
            bars,
            base_http: fleet.base_http().to_owned(),
            feeders: BTreeMap::new(),
            created_at: None,
            closed_at: None,
            completed_at: BTreeMap::new(),
        })
    }

    /// The push's standard input.
    pub(super) const fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Follows the push to its end; what it says last is the closed job.
    pub(super) async fn finish(&mut self) -> Result<JobView, Failure> {
        let mut closed = None;
        loop {
            let line = self.events.next_line().await;
            let line = line.map_err(|error| Failure::failed(format!("reading push: {error}")))?;
            let Some(line) = line else { break };
            let event: Value = serde_json::from_str(&line)
                .map_err(|error| Failure::failed(format!("push said {line:?}: {error}")))?;
            if self.json {
                output::json(&event)?;
            }
            self.look_who_feeds(&event).await;
            closed = self.take(&event).or(closed);
        }
        self.bars.clear();
        let status = tokio::time::timeout(END_PATIENCE, self.child.wait()).await;
        match (closed, status) {
            (Some(closed), Ok(Ok(status))) if status.success() => Ok(closed),
            (_, status) => {
                let mut said = String::new();
                if let Some(errors) = &mut self.errors {
                    errors.read_to_string(&mut said).await.ok();
                }
                let status = match status {
                    Ok(Ok(status)) => status.to_string(),
                    Ok(Err(error)) => error.to_string(),
                    Err(_elapsed) => "still running".to_owned(),
                };
                Err(Failure::failed(format!("push did not succeed ({status}): {}", said.trim())))
            }
        }
    }

    /// Asks the base who feeds whom, for the bars.
    async fn look_who_feeds(&mut self, event: &Value) {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let (Some("progress"), Some(job)) = (text("event"), text("job")) else { return };
        if self.json || !output::bars_wanted(false) {
            return;
        }
        // What cannot be asked now is asked with the next event.
        let path = format!("/api/v1/jobs/{job}");
        let asking = http_get(&self.base_http, &path);
        let Ok(page) = tokio::time::timeout(LOOK_PATIENCE, asking).await else { return };
        let view = page.ok().and_then(|page| serde_json::from_str::<JobView>(&page).ok());
        let nodes = view.into_iter().flat_map(|view| view.nodes);
        self.feeders.extend(nodes.map(|node| (node.name.clone(), feeders(&node))));
    }

    /// Seconds from the job's creation to its close.
    pub(super) fn seconds(&self) -> f64 {
        self.closed_at.and_then(|at| self.after(at)).unwrap_or(0.0)
    }

    /// Seconds from the job's creation to a node's completion.
    pub(super) fn completed_after(&self, node: &str) -> Option<f64> {
        self.completed_at.get(node).and_then(|at| self.after(*at))
    }

    fn after(&self, at: Timestamp) -> Option<f64> {
        self.created_at.map(|created| at.duration_since(created).as_secs_f64())
    }

    fn take(&mut self, event: &Value) -> Option<JobView> {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let at: Option<Timestamp> = text("at").and_then(|at| at.parse().ok());
        match text("event")? {
            "created" => self.created_at = at,
            "progress" if !self.json => {
                let nodes: Vec<NodeProgress> =
                    serde_json::from_value(event.get("nodes")?.clone()).ok()?;
                let size = event.get("size").and_then(Value::as_u64);
                let bytes = event.get("bytes").and_then(Value::as_u64).unwrap_or(0);
                self.bars.update(size, bytes, &nodes);
                self.bars.show_feeders(&self.feeders);
            }
            "node" if text("state") == Some("complete") => {
                self.completed_at.insert(text("node")?.to_owned(), at?);
            }
            "closed" => {
                self.closed_at = at;
                return serde_json::from_value(event.clone()).ok();
            }
            _ => {}
        }
        None
    }
}
