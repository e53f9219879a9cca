//! What this side says: one slot per key, the newest state in it, and when to send it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::JobId;
use crate::limit;
use crate::time::Time;
use crate::wire::codec;
use crate::wire::frame::FRAME_HEADER_LEN;
use crate::wire::message::{Envelope, FrameType, Stamp};

use super::{DATAGRAM_SENDS_MAX, Key, Pace, RELAXED_EVERY, resend_after};

/// Bytes that an envelope adds to its body at most: job, stamp, length.
const ENVELOPE_LEN_MAX: usize = 16 + 9 + 9 + 9;

/// Why a state is not taken into the outbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The outbox holds as many other states as it may.
    #[error("the outbox holds {0} states already; jobs have to close first")]
    Full(usize),
    /// The body does not fit a frame.
    #[error("a state of {len} bytes exceeds the limit of {limit} bytes")]
    TooLong {
        /// Bytes of the body.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Datagram,
    Stream,
}

/// The newest state of one key and what became of it.
#[derive(Debug)]
struct Slot {
    stamp: Stamp,
    body: Vec<u8>,
    acked: bool,
    /// When this stamp is to be sent for the first time.
    send_at: Option<Time>,
    /// When a send by datagram, of this stamp or one before, counts as vain.
    resend_at: Option<Time>,
    /// When anything of this key was sent last.
    sent_at: Option<Time>,
    /// Sends in vain since the last acknowledgement of this key.
    expiries: u32,
    /// The revision that is on the stream and not acknowledged. While there is one, nothing
    /// more of this key goes there: that bounds what a peer that does not read can pile up.
    streamed: Option<u64>,
    /// Goes by stream, since the connection is new.
    reconcile: bool,
}

impl Slot {
    const fn new(stamp: Stamp, body: Vec<u8>) -> Self {
        Self {
            stamp,
            body,
            acked: false,
            send_at: None,
            resend_at: None,
            sent_at: None,
            expiries: 0,
            streamed: None,
            reconcile: false,
        }
    }

    fn due(&self) -> Option<Time> {
        [self.send_at, self.resend_at].into_iter().flatten().min()
    }

    /// The newest stamp is neither under way nor taken up.
    fn is_unsent(&self) -> bool {
        !self.acked && self.resend_at.is_none() && self.streamed != Some(self.stamp.revision)
    }
}

/// The outbox. Its timers hold, for each slot with something to do, when.
#[derive(Debug)]
pub(super) struct Outbox {
    term: u64,
    revision: u64,
    connected: bool,
    slots: BTreeMap<Key, Slot>,
    timers: BTreeSet<(Time, Key)>,
    unacked: usize,
}

impl Outbox {
    pub(super) const fn new(term: u64) -> Self {
        Self {
            term,
            revision: 0,
            connected: false,
            slots: BTreeMap::new(),
            timers: BTreeSet::new(),
            unacked: 0,
        }
    }

    pub(super) const fn term(&self) -> u64 {
        self.term
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_acked(&self, key: Key) -> bool {
        self.slots.get(&key).is_none_or(|slot| slot.acked)
    }

    pub(super) const fn settled(&self) -> bool {
        self.unacked == 0
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    pub(super) fn set_term(&mut self, now: Time, term: u64) {
        if self.term == term {
            return;
        }
        self.term = term;
        for key in self.keys() {
            let stamp = self.next_stamp();
            self.change(key, |slot| {
                slot.stamp = stamp;
                slot.acked = false;
                slot.send_at = Some(now);
                slot.streamed = None;
            });
        }
    }

    pub(super) fn set(
        &mut self,
        now: Time,
        key: Key,
        body: Vec<u8>,
        pace: Pace,
    ) -> Result<(), SetError> {
        let limit = limit::FRAME_LEN_MAX - FRAME_HEADER_LEN - ENVELOPE_LEN_MAX;
        if body.len() > limit {
            return Err(SetError::TooLong { len: body.len(), limit });
        }
        match self.slots.get(&key) {
            Some(slot) if slot.body == body && pace == Pace::Relaxed => return Ok(()),
            Some(_) => {}
            None if self.slots.len() >= limit::OUTBOX_SLOTS_MAX => {
                return Err(SetError::Full(self.slots.len()));
            }
            None => {
                self.slots.insert(key, Slot::new(Stamp::default(), Vec::new()));
                self.unacked += 1;
            }
        }
        let stamp = self.next_stamp();
        self.change(key, |slot| {
            let at = match (pace, slot.sent_at) {
                (Pace::Relaxed, Some(sent)) => now.max(sent + RELAXED_EVERY),
                (Pace::Relaxed, None) | (Pace::Now, _) => now,
            };
            slot.stamp = stamp;
            slot.body = body;
            slot.acked = false;
            slot.send_at = Some(slot.send_at.map_or(at, |before| before.min(at)));
        });
        Ok(())
    }

    pub(super) fn forget(&mut self, key: Key) {
        if let Some(slot) = self.slots.remove(&key) {
            self.unacked -= usize::from(!slot.acked);
            if let Some(due) = slot.due() {
                self.timers.remove(&(due, key));
            }
        }
    }

    pub(super) fn connected(&mut self, now: Time) {
        self.connected = true;
        for key in self.keys() {
            self.change(key, |slot| {
                slot.acked = false;
                slot.send_at = Some(now);
                slot.resend_at = None;
                slot.expiries = 0;
                slot.streamed = None;
                slot.reconcile = true;
            });
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.timers.clear();
    }

    pub(super) fn acked(&mut self, now: Time, key: Key, stamp: Stamp) {
        let known = self
            .slots
            .get(&key)
            .is_some_and(|slot| stamp.term == self.term && stamp.revision <= slot.stamp.revision);
        if !known {
            return;
        }
        self.change(key, |slot| {
            slot.expiries = 0;
            if slot.streamed.is_some_and(|revision| revision <= stamp.revision) {
                slot.streamed = None;
            }
            if slot.stamp == stamp {
                slot.acked = true;
                slot.send_at = None;
                slot.resend_at = None;
            } else if slot.send_at.is_none() && slot.is_unsent() {
                slot.send_at = Some(now);
            }
        });
    }

    /// The next state that is due, encoded, and the way it goes: by datagram if the frame
    /// fits `room` bytes.
    pub(super) fn next(
        &mut self,
        now: Time,
        rtt: Duration,
        room: usize,
    ) -> Option<(FrameType, (Route, Vec<u8>))> {
        while let Some((due, key)) = self.timers.first().copied() {
            if due > now {
                return None;
            }
            if let Some((route, body)) =
                self.change(key, |slot| slot.send(now, rtt, room, key.1))?
            {
                return Some((key.0.frame_type(), (route, body)));
            }
        }
        None
    }

    fn keys(&self) -> Vec<Key> {
        self.slots.keys().copied().collect()
    }

    const fn next_stamp(&mut self) -> Stamp {
        self.revision += 1;
        Stamp { term: self.term, revision: self.revision }
    }

    /// Changes a slot and keeps the timers and the count of the unacknowledged in step.
    fn change<T>(&mut self, key: Key, change: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let slot = self.slots.get_mut(&key)?;
        let (due, acked) = (slot.due(), slot.acked);
        let result = change(slot);
        self.unacked = self.unacked + usize::from(acked) - usize::from(slot.acked);
        if let Some(due) = due.filter(|due| slot.due() != Some(*due)) {
            self.timers.remove(&(due, key));
        }
        if let Some(due) = slot.due().filter(|_| self.connected) {
            self.timers.insert((due, key));
        }
        Some(result)
    }
}

impl Slot {
    fn send(
        &mut self,
        now: Time,
        rtt: Duration,
        room: usize,
        job: JobId,
    ) -> Option<(Route, Vec<u8>)> {
        let expired = self.resend_at.is_some_and(|at| at <= now);
        self.expiries += u32::from(expired);
        self.send_at = None;
        let envelope = Envelope { job, stamp: self.stamp, body: std::mem::take(&mut self.body) };
        let bytes = codec::encode(&envelope);
        self.body = envelope.body;
        let fits = bytes.len() + FRAME_HEADER_LEN <= room;
        if !fits || self.reconcile || self.expiries >= DATAGRAM_SENDS_MAX {
            self.resend_at = None;
            if self.streamed.is_some() {
                return None;
            }
            self.reconcile = false;
            self.streamed = Some(self.stamp.revision);
            self.sent_at = Some(now);
            return Some((Route::Stream, bytes));
        }
        if expired || self.resend_at.is_none() {
            self.resend_at = Some(now + resend_after(rtt, self.expiries));
        }
        self.sent_at = Some(now);
        Some((Route::Datagram, bytes))
    }
}
