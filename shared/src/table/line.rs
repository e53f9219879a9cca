//! A node's line of a job: what the node said, and what that makes of it.

use crate::limit;
use crate::view::{JobNodeView, NodeJobState, NodeProgress, SourceView, rfc3339};
use crate::wire::message::{Flow, Phase, Report, Source};

use super::row::{NodeRecord, Verdict};

/// A line. Its displayed state also depends on whether the node is heard: [`Line::shown`].
#[derive(Debug, Clone)]
pub(super) struct Line {
    stand: Stand,
    bytes: u64,
    rate_bps: u64,
    upstreams: Vec<Source>,
    flows: Vec<Flow>,
    incarnation: u64,
    completed_ms: Option<u64>,
    reason: Option<Box<str>>,
    /// It said that it is complete before the end of the job was durable at the base.
    early: bool,
    dropped: bool,
    /// It cannot store now and tries again; the reason says why.
    stalled: bool,
    /// What watchers were told last: the state, and whether it is stalled.
    told: (NodeJobState, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Waiting,
    Receiving,
    Complete,
    Lost,
    Failed,
}

/// What a report changed beyond progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that is kept.
    None,
    /// The verdict: it must be written down.
    Verdict,
}

impl Line {
    /// The line of a node that has not been heard about the job.
    pub(super) const fn new() -> Self {
        Self {
            stand: Stand::Waiting,
            bytes: 0,
            rate_bps: 0,
            upstreams: Vec::new(),
            flows: Vec::new(),
            incarnation: 0,
            completed_ms: None,
            reason: None,
            early: false,
            dropped: false,
            stalled: false,
            told: (NodeJobState::Waiting, false),
        }
    }

    /// The line as it was kept.
    pub(super) fn restore(record: NodeRecord) -> Self {
        let stand = match record.verdict {
            Verdict::Open => Stand::Waiting,
            Verdict::Complete => Stand::Complete,
            Verdict::Lost => Stand::Lost,
            Verdict::Failed => Stand::Failed,
        };
        let mut line = Self {
            stand,
            bytes: record.bytes,
            rate_bps: 0,
            upstreams: record.upstreams,
            flows: Vec::new(),
            incarnation: record.incarnation,
            completed_ms: record.completed_ms,
            reason: record.reason.map(Into::into),
            early: false,
            dropped: record.dropped,
            stalled: false,
            told: (NodeJobState::Waiting, false),
        };
        line.told = (line.shown(false), false);
        line
    }

    /// The line as it is kept.
    pub(super) fn record(&self) -> NodeRecord {
        let verdict = match self.stand {
            Stand::Waiting | Stand::Receiving => Verdict::Open,
            Stand::Complete => Verdict::Complete,
            Stand::Lost => Verdict::Lost,
            Stand::Failed => Verdict::Failed,
        };
        NodeRecord {
            verdict,
            bytes: self.bytes,
            incarnation: self.incarnation,
            completed_ms: self.completed_ms,
            reason: self.reason.as_deref().map(str::to_owned),
            upstreams: self.upstreams.clone(),
            dropped: self.dropped,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.stand == Stand::Complete
    }

    pub(super) const fn is_dropped(&self) -> bool {
        self.dropped
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether the node has said anything about the job that stands.
    pub(super) fn is_heard(&self) -> bool {
        !matches!(self.stand, Stand::Waiting)
    }

    /// What people see: what is final stays, else a node that is not heard is unreachable.
    pub(super) const fn shown(&self, down: bool) -> NodeJobState {
        match self.stand {
            Stand::Complete => NodeJobState::Complete,
            Stand::Failed => NodeJobState::Failed,
            Stand::Waiting | Stand::Receiving | Stand::Lost if down => NodeJobState::Unreachable,
            Stand::Waiting => NodeJobState::Waiting,
            Stand::Receiving => NodeJobState::Receiving,
            Stand::Lost => NodeJobState::Lost,
        }
    }

    /// The shown state if watchers have not been told of it, or of a stall that has begun or
    /// ended; then they count as told.
    pub(super) fn news(&mut self, down: bool) -> Option<NodeJobState> {
        let shown = self.shown(down);
        let now = (shown, self.stalled);
        (std::mem::replace(&mut self.told, now) != now).then_some(shown)
    }

    /// The node is not heard any more.
    pub(super) fn quiet(&mut self) {
        self.rate_bps = 0;
        self.flows.iter_mut().for_each(|flow| flow.rate_bps = 0);
    }

    /// The node has confirmed that it dropped the job, as it was told to.
    pub(super) fn confirm_dropped(&mut self) -> Change {
        match std::mem::replace(&mut self.dropped, true) {
            true => Change::None,
            false => Change::Verdict,
        }
    }

    /// Why the line was missing when the job closed, unless the node gave a reason itself.
    pub(super) fn set_missing(&mut self, reason: String) {
        if !self.stalled && !matches!(self.stand, Stand::Failed | Stand::Lost) {
            self.reason = Some(reason.into());
        }
    }

    /// The end of the job is durable at the base: a completion told before it counts now.
    pub(super) fn end_known(&mut self, wall_ms: u64) -> Change {
        match self.early {
            true => self.complete(wall_ms),
            false => Change::None,
        }
    }

    /// Takes up the word of a node. `ended`: whether the end is durable at the base.
    /// `late`: it may be older than the last report (the answer to a query).
    pub(super) fn hear(
        &mut self,
        (incarnation, report): (u64, &Report),
        ended: bool,
        late: bool,
        wall_ms: u64,
    ) -> Change {
        if incarnation < self.incarnation {
            return Change::None;
        }
        let newer = incarnation > self.incarnation;
        self.incarnation = incarnation;
        self.dropped = false;
        self.stalled = false;
        self.hear_flow(report);
        match &report.phase {
            Phase::Complete if ended => {
                self.bytes = report.bytes.max(if newer { 0 } else { self.bytes });
                self.complete(wall_ms)
            }
            Phase::Complete => {
                self.early = true;
                self.progress(newer, report.bytes)
            }
            Phase::Receiving => {
                self.early &= !newer;
                self.progress(newer, report.bytes)
            }
            Phase::Stalled(reason) => {
                self.early &= !newer;
                let change = self.progress(newer, report.bytes);
                if self.stand == Stand::Receiving {
                    self.stalled = true;
                    self.reason = Some(clip(reason).into());
                }
                change
            }
            Phase::Failed(_) if self.is_complete() && late => Change::None,
            Phase::Failed(reason) => self.fail(newer, report.bytes, clip(reason)),
            Phase::Dropped if late => Change::None,
            Phase::Dropped => self.gone(),
        }
    }

    fn hear_flow(&mut self, report: &Report) {
        self.rate_bps = report.rate_bps;
        if !report.upstreams.is_empty() {
            self.upstreams.clone_from(&report.upstreams);
        }
        // A node that has started again knows of no flows: what it said before stays.
        match report.flows.is_empty() {
            true => self.flows.iter_mut().for_each(|flow| flow.rate_bps = 0),
            false => self.flows.clone_from(&report.flows),
        }
    }

    fn complete(&mut self, wall_ms: u64) -> Change {
        if self.is_complete() {
            return Change::None;
        }
        self.stand = Stand::Complete;
        self.early = false;
        self.completed_ms = Some(wall_ms);
        self.reason = None;
        Change::Verdict
    }

    fn progress(&mut self, newer: bool, bytes: u64) -> Change {
        if self.is_complete() {
            // Only a new incarnation can have less; of the same one this is an old word.
            if !newer || bytes >= self.bytes {
                return Change::None;
            }
            let had = self.bytes;
            return self.lose(bytes, format!("after a restart it has {bytes} of {had} bytes"));
        }
        let grown = bytes > self.bytes;
        if newer || grown {
            self.bytes = bytes;
        }
        if self.stand == Stand::Lost && !grown {
            return Change::None;
        }
        self.stand = Stand::Receiving;
        self.reason = None;
        Change::None
    }

    fn fail(&mut self, newer: bool, bytes: u64, reason: &str) -> Change {
        if self.is_complete() {
            return self.lose(bytes, reason.to_owned());
        }
        self.bytes = bytes.max(if newer { 0 } else { self.bytes });
        let told = matches!(self.stand, Stand::Failed | Stand::Lost);
        if told && self.reason.as_deref() == Some(reason) {
            // The same word again; a completion that it revoked stays revoked.
            return Change::None;
        }
        self.stand = Stand::Failed;
        self.reason = Some(reason.into());
        self.early = false;
        Change::Verdict
    }

    /// It has dropped a job that nobody told it to drop.
    fn gone(&mut self) -> Change {
        if self.is_complete() {
            return self.lose(0, "the node has dropped it".to_owned());
        }
        let change = if self.stand == Stand::Failed { Change::Verdict } else { Change::None };
        self.bytes = 0;
        self.early = false;
        if self.stand != Stand::Lost {
            self.stand = Stand::Waiting;
            self.reason = None;
        }
        change
    }

    fn lose(&mut self, bytes: u64, reason: String) -> Change {
        self.stand = Stand::Lost;
        self.bytes = bytes;
        self.completed_ms = None;
        self.early = false;
        self.reason = Some(reason.into());
        Change::Verdict
    }

    /// The line as `job show` has it.
    pub(super) fn view(&self, name: &str, down: bool) -> JobNodeView {
        let source = |flow: &Flow| SourceView {
            name: shown_source(&flow.source),
            bytes: flow.bytes,
            rate_bps: if down { 0 } else { flow.rate_bps },
        };
        JobNodeView {
            name: name.to_owned(),
            state: self.shown(down),
            bytes: self.bytes,
            rate_bps: if down { 0 } else { self.rate_bps },
            upstreams: self.upstreams.iter().map(shown_source).collect(),
            sources: self.flows.iter().map(source).collect(),
            completed_at: self.completed_ms.map(rfc3339),
            reason: self.reason.as_deref().map(str::to_owned),
        }
    }

    /// The line as a progress event has it.
    pub(super) fn progress_view(&self, name: &str, down: bool) -> NodeProgress {
        NodeProgress {
            name: name.to_owned(),
            state: self.shown(down),
            bytes: self.bytes,
            rate_bps: if down { 0 } else { self.rate_bps },
        }
    }
}

fn shown_source(source: &Source) -> String {
    match source {
        Source::Base => "base".to_owned(),
        Source::Node(name) => name.to_string(),
    }
}

/// At most [`limit::REASON_LEN_MAX`] bytes of a reason.
pub(super) fn clip(reason: &str) -> &str {
    let end = (0..=limit::REASON_LEN_MAX.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end));
    reason.get(..end.unwrap_or(0)).unwrap_or_default()
}
