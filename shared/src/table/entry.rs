//! One job: its status, its lines, and when it closes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::{JobId, Name};
use crate::job::{Keep, Kind};
use crate::limit;
use crate::seal::Hash;
use crate::time::Time;
use crate::view::{EventBody, JobState, NodeJobState};
use crate::wire::message::{Assign, Phase, Report};

use super::CONTENT_KEPT;
use super::clock::{BaseClock, deadline_budget};
use super::effect::Effect;
use super::line::{Change, Line, clip};
use super::presence::Presence;
use super::row::{Head, Row, Status, Transition};

/// What a step of a job needs from around it.
pub(super) struct Turn<'a> {
    /// Base time.
    pub(super) now: Time,
    pub(super) wall_ms: u64,
    pub(super) presence: &'a Presence,
    pub(super) clock: &'a BaseClock,
    pub(super) fx: &'a mut Vec<Effect>,
}

/// A job of the table.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) head: Head,
    pub(super) status: Status,
    /// In the order of the server list.
    pub(super) lines: Vec<Line>,
    pub(super) bytes: u64,
    complete: usize,
    /// Since when a job that is being received has no publisher, in base time.
    publisher_gone: Option<Time>,
    closing: Option<Closing>,
    drop_asked: bool,
    /// Whether nodes were told, since the start, that they need not keep it any longer.
    expiry_told: bool,
}

/// The deadline has passed and the nodes that are behind were asked.
#[derive(Debug)]
struct Closing {
    until: Time,
    awaited: BTreeSet<usize>,
}

impl Job {
    /// A job without a publisher since `now`.
    pub(super) fn new(head: Head, status: Status, now: Time) -> Self {
        let lines = vec![Line::new(); head.servers.names().len()];
        let bytes = status.bytes;
        let publisher_gone = Some(now);
        Self {
            head,
            status,
            lines,
            bytes,
            complete: 0,
            publisher_gone,
            closing: None,
            drop_asked: false,
            expiry_told: false,
        }
    }

    /// A job as it was kept.
    pub(super) fn restore(row: Row, now: Time) -> Self {
        let mut job = Self::new(row.head, row.status, now);
        for (node, record) in row.nodes {
            if let Some(line) = job.index(&node).and_then(|index| job.lines.get_mut(index)) {
                *line = Line::restore(record);
            }
        }
        job.complete = job.lines.iter().filter(|line| line.is_complete()).count();
        job
    }

    pub(super) const fn id(&self) -> JobId {
        self.head.id
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.status.state.is_closed()
    }

    /// Where a node stands in the server list.
    pub(super) fn index(&self, node: &Name) -> Option<usize> {
        self.head.servers.names().binary_search(node).ok()
    }

    pub(super) fn name_of(&self, index: usize) -> Option<&Name> {
        self.head.servers.names().get(index)
    }

    /// Whether some node has yet to complete it, or to drop it.
    pub(super) fn is_unsettled(&self) -> bool {
        match self.status.is_dropping() {
            true => self.lines.iter().any(|line| !line.is_dropped()),
            false => self.complete < self.lines.len(),
        }
    }

    /// Whether nothing of a removed job is left anywhere.
    pub(super) fn is_forgettable(&self) -> bool {
        self.status.removed && self.status.content_dropped && !self.is_unsettled()
    }

    /// Whether its content is dropped or ordered to be.
    pub(super) const fn is_content_gone(&self) -> bool {
        self.status.content_dropped || self.drop_asked
    }

    /// The deadline in base time; none while a live job's publisher goes on.
    pub(super) fn deadline(&self) -> Option<Time> {
        let dimensions = &self.head.dimensions;
        let from = match dimensions.kind {
            Kind::Files => Some(self.head.created_us),
            Kind::Live => self.status.ended_us,
        };
        let size = self.status.size.unwrap_or(self.bytes);
        from.map(|from| Time::from_micros(from) + deadline_budget(dimensions, size))
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.head.dimensions.grace_s)
    }

    /// When time alone changes something, in base time.
    pub(super) fn wake(&self) -> Option<Time> {
        if self.is_closed() {
            let expiry = self.expires().filter(|_| !self.expiry_told);
            return [self.content_due(), expiry].into_iter().flatten().min();
        }
        let gone = self.publisher_gone.filter(|_| self.status.ended_us.is_none());
        let gone = gone.map(|since| since + self.grace());
        let close = self.closing.as_ref().map(|closing| closing.until);
        [gone, close.or_else(|| self.deadline())].into_iter().flatten().min()
    }

    /// When the base's copy of a closed job is to be dropped, in base time.
    fn content_due(&self) -> Option<Time> {
        let closed = self.status.closed_us.filter(|_| !self.is_content_gone())?;
        let kept = if self.status.is_dropping() { Duration::ZERO } else { CONTENT_KEPT };
        Some(Time::from_micros(closed) + kept)
    }

    /// Until when nodes keep a closed job, in base time; none if for ever.
    fn expires(&self) -> Option<Time> {
        let closed = self.status.closed_us.filter(|_| !self.status.is_dropping())?;
        match self.head.dimensions.keep {
            Keep::Forever => None,
            Keep::Seconds(seconds) => {
                Some(Time::from_micros(closed) + Duration::from_secs(seconds))
            }
        }
    }

    /// Whether nodes have kept the job for as long as was asked for.
    fn is_expired(&self, now: Time) -> bool {
        self.expires().is_some_and(|expires| expires <= now)
    }

    /// What a node is to be told.
    fn order(&self, now: Time) -> Assign {
        let object = || Box::new(self.head.object.clone());
        match self.status.is_dropping() || self.is_expired(now) {
            true => Assign::Drop,
            false if self.is_closed() => Assign::Closed(object()),
            false => Assign::Open(object()),
        }
    }

    /// Tells a node what to do.
    pub(super) fn assign(&self, index: usize, turn: &mut Turn<'_>) {
        if let Some(node) = self.name_of(index) {
            let (node, job, order) = (node.clone(), self.id(), self.order(turn.now));
            turn.fx.push(Effect::Assign { node, job, order });
        }
    }

    /// Tells all nodes what to do.
    pub(super) fn assign_all(&self, turn: &mut Turn<'_>) {
        (0..self.lines.len()).for_each(|index| self.assign(index, turn));
    }

    /// A node is connected: it is told what it may have missed.
    pub(super) fn node_up(&mut self, index: usize, new_store: bool, turn: &mut Turn<'_>) {
        let Some(line) = self.lines.get(index) else {
            return;
        };
        let done = match self.status.is_dropping() {
            true => line.is_dropped(),
            false => self.is_closed() && line.is_complete() && !new_store,
        };
        if !done {
            self.assign(index, turn);
        }
        self.tell(index, turn);
    }

    /// A node is not heard any more.
    pub(super) fn node_down(&mut self, index: usize, turn: &mut Turn<'_>) {
        if let Some(line) = self.lines.get_mut(index) {
            line.quiet();
        }
        self.tell(index, turn);
    }

    /// Tells watchers of a changed state; after closing nothing follows.
    pub(super) fn tell(&mut self, index: usize, turn: &mut Turn<'_>) {
        let open = !self.is_closed();
        let (Some(node), Some(line)) =
            (self.head.servers.names().get(index), self.lines.get_mut(index))
        else {
            return;
        };
        let Some(state) = line.news(turn.presence.is_down(node)) else {
            return;
        };
        let reason = match state {
            NodeJobState::Unreachable => Some("nothing heard of it for 8 s".to_owned()),
            _ => line.reason().map(str::to_owned),
        };
        let node = node.to_string();
        if open {
            self.event(EventBody::Node { node, state, reason }, turn);
        }
    }

    fn event(&self, body: EventBody, turn: &mut Turn<'_>) {
        turn.fx.push(Effect::Event { job: self.id(), at_ms: turn.wall_ms, body });
    }

    fn persist_status(&self, turn: &mut Turn<'_>) {
        let transition = Transition::Status(self.id(), Box::new(self.status.clone()));
        turn.fx.push(Effect::Persist(transition));
    }

    fn persist_line(&self, index: usize, turn: &mut Turn<'_>) {
        if let (Some(node), Some(line)) = (self.name_of(index), self.lines.get(index)) {
            let record = Box::new(line.record());
            turn.fx.push(Effect::Persist(Transition::Node(self.id(), node.clone(), record)));
        }
    }

    /// Runs `change` on a line, keeps the count and the ledger, and tells watchers.
    fn change(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Line) -> Change,
    ) {
        let Some(line) = self.lines.get_mut(index) else {
            return;
        };
        let before = usize::from(line.is_complete());
        let changed = change(line);
        let after = usize::from(line.is_complete());
        self.complete = (self.complete + after).saturating_sub(before);
        if changed == Change::Verdict {
            self.persist_line(index, turn);
        }
        self.tell(index, turn);
    }

    /// Takes up the word of a node.
    pub(super) fn hear(
        &mut self,
        index: usize,
        word: (u64, &Report),
        late: bool,
        turn: &mut Turn<'_>,
    ) {
        let dropped = word.1.phase == Phase::Dropped;
        if self.status.is_dropping() {
            match dropped {
                true => self.change(index, turn, Line::confirm_dropped),
                false => self.assign(index, turn),
            }
            return;
        }
        if self.is_expired(turn.now) {
            // It was kept for as long as was asked for: its account stays as it was.
            if !dropped {
                self.assign(index, turn);
            }
            return;
        }
        let (ended, wall_ms) = (self.status.ended_us.is_some(), turn.wall_ms);
        self.change(index, turn, |line| line.hear(word, ended, late, wall_ms));
        if dropped && !late && !self.is_closed() {
            self.assign(index, turn);
        }
        self.settle(turn);
    }

    /// A node answered the query; `None`: it does not know the job.
    pub(super) fn answered(
        &mut self,
        index: usize,
        (incarnation, report): (u64, Option<&Report>),
        turn: &mut Turn<'_>,
    ) {
        if let Some(closing) = &mut self.closing {
            closing.awaited.remove(&index);
        }
        match report {
            Some(report) => self.hear(index, (incarnation, report), true, turn),
            None if self.status.is_dropping() => {
                self.change(index, turn, Line::confirm_dropped);
            }
            None => {
                self.assign(index, turn);
                self.settle(turn);
            }
        }
    }

    /// A forgotten node need not drop anything.
    pub(super) fn excuse(&mut self, index: usize, turn: &mut Turn<'_>) {
        if self.status.is_dropping() {
            self.change(index, turn, Line::confirm_dropped);
        }
    }

    /// More of the content is durable at the base. That says nothing of the publisher: what it
    /// sent last becomes durable after it has gone.
    pub(super) fn content(&mut self, bytes: u64, end: Option<(u64, Hash)>, turn: &mut Turn<'_>) {
        if self.is_closed() {
            return;
        }
        self.bytes = self.bytes.max(bytes);
        let (Some((size, digest)), None) = (end, self.status.ended_us) else {
            return;
        };
        self.status.state = JobState::Distributing;
        self.status.size = Some(size);
        self.status.digest = Some(digest);
        self.status.ended_us = Some(turn.now.as_micros());
        self.persist_status(turn);
        let wall_ms = turn.wall_ms;
        for index in 0..self.lines.len() {
            self.change(index, turn, |line| line.end_known(wall_ms));
        }
        self.settle(turn);
    }

    /// The publisher came or went.
    pub(super) fn publisher(&mut self, there: bool, now: Time) {
        self.publisher_gone = match (there, self.publisher_gone) {
            (true, _) => None,
            (false, since) => since.or(Some(now)),
        };
    }

    /// The base's copy of the content is gone.
    pub(super) fn content_dropped(&mut self, turn: &mut Turn<'_>) {
        if self.is_closed() && !self.status.content_dropped {
            self.status.content_dropped = true;
            self.persist_status(turn);
        }
    }

    /// Orders the base's copy to be dropped, once.
    pub(super) fn drop_content(&mut self, turn: &mut Turn<'_>) {
        if !self.is_content_gone() {
            self.drop_asked = true;
            turn.fx.push(Effect::DropContent { job: self.id() });
        }
    }

    /// Does what is due.
    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) {
        if self.is_closed() {
            if self.content_due().is_some_and(|due| due <= turn.now) {
                self.drop_content(turn);
            }
            if self.is_expired(turn.now) && !std::mem::replace(&mut self.expiry_told, true) {
                self.assign_all(turn);
            }
            return;
        }
        let gone = self.publisher_gone.filter(|_| self.status.ended_us.is_none());
        if gone.is_some_and(|since| since + self.grace() <= turn.now) {
            let (client, grace) = (&self.head.client, self.head.dimensions.grace_s);
            let bytes = self.bytes;
            let reason = format!(
                "the publisher {client} was gone for more than {grace} s, {bytes} bytes had come"
            );
            self.close(JobState::Failed, Some(reason), turn);
            return;
        }
        self.settle(turn);
    }

    /// Announces the quorum, queries at the deadline, closes when it is time.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        if self.is_closed() {
            return;
        }
        let ended = self.status.ended_us.is_some();
        let needed = self.head.dimensions.quorum.of(self.lines.len());
        let quorum = ended && self.complete >= needed;
        if quorum != self.status.quorum {
            self.status.quorum = quorum;
            self.persist_status(turn);
            if quorum {
                self.event(EventBody::Quorum, turn);
            }
        }
        if ended && self.complete == self.lines.len() {
            self.close(JobState::Complete, None, turn);
            return;
        }
        let overdue = self.deadline().is_some_and(|deadline| deadline <= turn.now);
        match &self.closing {
            Some(closing) if closing.awaited.is_empty() || closing.until <= turn.now => {
                self.close_overdue(turn);
            }
            Some(_) => {}
            None if overdue => self.query(turn),
            None => {}
        }
    }

    /// Asks every node that is behind, once.
    fn query(&mut self, turn: &mut Turn<'_>) {
        let behind = self.lines.iter().enumerate().filter(|(_, line)| !line.is_complete());
        let awaited: BTreeSet<usize> = behind.map(|(index, _)| index).collect();
        for node in awaited.iter().filter_map(|index| self.name_of(*index)) {
            turn.fx.push(Effect::Query { node: node.clone(), job: self.id() });
        }
        let until = turn.now + limit::QUERY_PATIENCE.min(limit::CLOSING_MAX);
        self.closing = Some(Closing { until, awaited });
    }

    /// The nodes that are behind had their chance.
    fn close_overdue(&mut self, turn: &mut Turn<'_>) {
        let silent = self.closing.take().map(|closing| closing.awaited).unwrap_or_default();
        let missing: Vec<usize> = self
            .lines
            .iter()
            .enumerate()
            .filter(|(_, line)| !line.is_complete())
            .map(|(index, _)| index)
            .collect();
        let mut account = Vec::new();
        for index in &missing {
            let why = self.why_missing(*index, silent.contains(index), turn.presence);
            if let (Some(node), Some(line)) =
                (self.head.servers.names().get(*index), self.lines.get_mut(*index))
            {
                account.push(format!("{node} ({why})"));
                line.set_missing(why);
            }
            self.persist_line(*index, turn);
        }
        match self.status.quorum {
            true => self.close(JobState::Complete, None, turn),
            false => {
                let (count, all) = (missing.len(), self.lines.len());
                let unfinished = match self.status.ended_us {
                    Some(_) => String::new(),
                    None => format!("the publisher had not finished, {} bytes; ", self.bytes),
                };
                let names = account.join(", ");
                let reason =
                    format!("{unfinished}{count} of {all} nodes missing at the deadline: {names}");
                self.close(JobState::Partial, Some(reason), turn);
            }
        }
    }

    fn why_missing(&self, index: usize, silent: bool, presence: &Presence) -> String {
        let (Some(node), Some(line)) = (self.name_of(index), self.lines.get(index)) else {
            return String::new();
        };
        let of = self.status.size.map_or_else(String::new, |size| format!(" of {size}"));
        let bytes = line.bytes();
        match line.shown(presence.is_down(node)) {
            state @ (NodeJobState::Failed | NodeJobState::Lost) => {
                format!("{}: {}", state.as_str(), line.reason().unwrap_or("no reason given"))
            }
            NodeJobState::Unreachable => {
                format!("unreachable, no answer to the query; {bytes}{of} bytes when last heard")
            }
            _ if silent => format!("no answer to the query, {bytes}{of} bytes"),
            _ if line.is_heard() => format!("not complete, {bytes}{of} bytes"),
            _ => "it has not accepted the job".to_owned(),
        }
    }

    /// Closes the job for good.
    pub(super) fn close(&mut self, state: JobState, reason: Option<String>, turn: &mut Turn<'_>) {
        if self.is_closed() {
            return;
        }
        self.closing = None;
        self.status.state = state;
        self.status.reason = reason;
        self.status.bytes = self.bytes;
        self.status.closed_us = Some(turn.now.as_micros());
        self.status.closed_ms = Some(turn.wall_ms);
        self.persist_status(turn);
        let view = self.view(turn.presence, turn.clock);
        self.event(EventBody::Closed(Box::new(view)), turn);
        self.assign_all(turn);
        if self.status.is_dropping() {
            self.drop_content(turn);
        }
    }

    /// Removes the job, cancelling it if it is open.
    pub(super) fn remove(&mut self, reason: &str, turn: &mut Turn<'_>) {
        if self.status.removed {
            return;
        }
        self.close(JobState::Cancelled, Some(clip(reason).to_owned()), turn);
        self.status.removed = true;
        self.persist_status(turn);
        self.assign_all(turn);
        self.drop_content(turn);
    }
}
