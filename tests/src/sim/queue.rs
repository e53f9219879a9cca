//! Virtual time: what will happen, in order, and a hash of what did.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use shared::id::JobId;
use shared::time::Time;
use shared::wire::message::Stamp;

use super::net::Packet;
use super::plan::Fault;

/// Something that happens at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A packet arrives at one end of a link.
    Deliver { link: usize, to_base: bool, generation: u64, packet: Packet },
    /// The far end of a link tries to connect.
    Dial { link: usize },
    /// The connection that was tried is there.
    Linked { link: usize },
    /// One end notices that its connection is gone.
    Lost { link: usize, at_base: bool, generation: u64 },
    /// A channel has something to send.
    Wake { link: usize, at_base: bool },
    /// The link is free for the next record.
    Pump { link: usize, from_base: bool, generation: u64 },
    /// A batch of content is on disk, at the base (no node) or a node.
    Flushed { node: Option<usize>, life: u64, job: JobId },
    /// A node's copy of a job is deleted for good.
    Deleted { node: usize, life: u64, job: JobId, stamp: Stamp },
    /// The ledger's batch is durable.
    Committed { life: u64 },
    /// The job table's timer.
    TableWake { life: u64 },
    /// A fault of the plan.
    Fault(Fault),
    /// A node, or the base, starts again.
    Start { node: Option<usize> },
    /// The client does the next thing for a job.
    Client { plan: usize, step: ClientStep },
    /// The client's view of all jobs is looked at.
    Look,
}

/// What the client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClientStep {
    /// Creates the job.
    Create,
    /// Makes the next page.
    Page,
    /// Cancels or removes it.
    End,
}

/// The event queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(Time, u64, Box<Event>)>>,
    number: u64,
    hash: u64,
    count: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Time, event: Event) {
        self.number += 1;
        self.heap.push(Reverse((at, self.number, Box::new(event))));
    }

    /// The next event, if it is not after `end`.
    pub(super) fn pop(&mut self, end: Time) -> Option<(Time, Event)> {
        self.heap.peek().filter(|Reverse((at, ..))| *at <= end)?;
        let Reverse((at, number, event)) = self.heap.pop()?;
        self.count += 1;
        self.mix(at.as_micros());
        self.mix(number);
        self.mix(tag(&event));
        Some((at, *event))
    }

    /// Events that have happened.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// A number that differs if anything went differently.
    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, value: u64) {
        // FNV-1a over whole words, with a rotation so that high bits come to count.
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }
}

/// What an event is and, for packets, what is in it.
fn tag(event: &Event) -> u64 {
    match event {
        Event::Deliver { link, to_base, packet, .. } => {
            packet.tag() << 16 | (*link as u64) << 8 | u64::from(*to_base)
        }
        Event::Dial { link } => 2 << 16 | *link as u64,
        Event::Linked { link } => 3 << 16 | *link as u64,
        Event::Lost { link, .. } => 4 << 16 | *link as u64,
        Event::Wake { link, .. } => 5 << 16 | *link as u64,
        Event::Pump { link, .. } => 6 << 16 | *link as u64,
        Event::Flushed { .. } => 7,
        Event::Deleted { .. } => 8,
        Event::Committed { .. } => 9,
        Event::TableWake { .. } => 10,
        Event::Fault(_) => 11,
        Event::Start { .. } => 12,
        Event::Client { .. } => 13,
        Event::Look => 14,
    }
}
