//! The control protocol between two peers: versioned state, repeated until it is taken up.
//!
//! A [`Channel`] is one side of it for one peer. What one side says about a job is a *state*
//! under the key (kind, job): the newest replaces the one before, in the outbox here and in
//! the inbox there, so a message that is doubled, late or out of order does nothing. States
//! ride on datagrams, several to one, and are repeated until the peer's application has taken
//! them up; what is too large, or fails to get through so, goes by the control stream. Every
//! new connection sends all states again by the stream. That alone makes the protocol
//! correct; datagrams make it fast.
//!
//! An acknowledgement goes back the way its state came: the stream is reliable, so a state on
//! it is sent once and so is the answer, while a datagram's answer may be lost, since the
//! state will be repeated and answered again.

mod inbox;
mod outbox;
mod pack;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::id::JobId;
use crate::limit;
use crate::time::Time;
use crate::wire::message::{Acks, Beat, Envelope, FrameType, Stamp, StateKind};

pub use self::inbox::Receipt;
pub use self::outbox::SetError;

use self::inbox::Inbox;
use self::outbox::{Outbox, Route};
use self::pack::Packer;

/// Shortest time after which a state is sent again by datagram.
pub const RESEND_MIN: Duration = Duration::from_millis(25);
/// Longest time after which a state is sent again by datagram.
pub const RESEND_MAX: Duration = Duration::from_secs(2);
/// Sends by datagram without an answer, after which a state goes by stream.
pub const DATAGRAM_SENDS_MAX: u32 = 5;
/// Longest time for which an acknowledgement waits for company.
pub const ACK_DELAY: Duration = Duration::from_millis(10);
/// Shortest time between two sends of a state that is set with [`Pace::Relaxed`].
pub const RELAXED_EVERY: Duration = Duration::from_millis(250);
/// Frames that one [`Channel::poll`] hands out; the rest waits for the next call, so that the
/// caller's buffers and the transport's datagram queue (1 MiB) stay small.
pub const POLL_FRAMES_MAX: usize = 256;

/// The key of a state.
pub(crate) type Key = (StateKind, JobId);

/// How soon a state goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// With the next [`Channel::poll`].
    Now,
    /// At most four times a second; what is set in between is never sent.
    Relaxed,
}

/// Which way a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// In a datagram.
    Datagram,
    /// On the control stream.
    Stream,
}

/// What the channel must know of the path when it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The connection's smoothed round-trip time.
    pub rtt: Duration,
    /// Largest datagram that the connection takes now, in bytes; 0 if it takes none.
    pub datagram_max: usize,
}

/// Bytes to be sent: whole frames, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// One datagram. If it is refused as too large, its bytes may go by the stream instead.
    Datagram(Vec<u8>),
    /// Bytes for the control stream, in this order.
    Stream(Vec<u8>),
}

/// One side of the control protocol with one peer.
///
/// It outlives connections: what is set while there is none is sent when one comes. Nothing
/// is sent before [`Channel::connected`] and after [`Channel::disconnected`].
#[derive(Debug)]
pub struct Channel {
    connected: bool,
    outbox: Outbox,
    inbox: Inbox,
    beats: Beats,
}

#[derive(Debug, Default)]
struct Beats {
    disk_free: Option<u64>,
    uplink_bps: u64,
    number: u64,
    next: Time,
}

impl Channel {
    /// A channel whose states carry `term`: the own epoch or incarnation, 0 for a client.
    pub fn new(term: u64) -> Self {
        Self {
            connected: false,
            outbox: Outbox::new(term),
            inbox: Inbox::default(),
            beats: Beats::default(),
        }
    }

    /// Changes the own term. All states are stamped anew and are to be acknowledged again,
    /// since the peer may hold stamps of a former life of this side.
    pub fn set_term(&mut self, now: Time, term: u64) {
        self.outbox.set_term(now, term);
    }

    /// The own term.
    pub const fn term(&self) -> u64 {
        self.outbox.term()
    }

    /// Turns beats on, with the bytes free that they tell, or off (as at first): clients
    /// neither send nor get them.
    pub const fn set_beat(&mut self, disk_free: Option<u64>) {
        self.beats.disk_free = disk_free;
    }

    /// Sets what the next beats tell of the uplink, bits per second; 0 if that is unknown.
    pub const fn set_uplink(&mut self, bps: u64) {
        self.beats.uplink_bps = bps;
    }

    /// Sets the newest state of `kind` about `job`; the one before is not sent any more.
    ///
    /// Setting the same body again says it again with [`Pace::Now`], for a peer that has
    /// undone it, and does nothing with [`Pace::Relaxed`].
    ///
    /// # Errors
    /// [`SetError`] if the outbox has [`limit::OUTBOX_SLOTS_MAX`] other states, or the body
    /// does not fit a frame.
    pub fn set(
        &mut self,
        now: Time,
        kind: StateKind,
        job: JobId,
        body: Vec<u8>,
        pace: Pace,
    ) -> Result<(), SetError> {
        self.outbox.set(now, (kind, job), body, pace)
    }

    /// Whether the peer has taken up the newest state of `kind` about `job`, or there is none:
    /// a final one may be forgotten then.
    pub fn is_acked(&self, kind: StateKind, job: JobId) -> bool {
        self.outbox.is_acked((kind, job))
    }

    /// Takes a state out of the outbox: it is neither sent nor repeated any more, also not on
    /// a new connection. What the peer has taken up stays there.
    pub fn forget(&mut self, kind: StateKind, job: JobId) {
        self.outbox.forget((kind, job));
    }

    /// Lets the inbox forget the peer's state of `kind` about `job`, a minute from now: until
    /// then, late copies of what was received are still known as old. For when the peer has
    /// forgotten the state too; one that it says again after that minute is new.
    pub fn release(&mut self, now: Time, kind: StateKind, job: JobId) {
        self.inbox.release(now, (kind, job));
    }

    /// A new connection to the peer is there: every state is sent, by the stream.
    pub fn connected(&mut self, now: Time) {
        self.connected = true;
        self.outbox.connected(now);
        self.beats.number = 0;
        self.beats.next = now;
    }

    /// The connection is gone; what was under way may be lost.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.outbox.disconnected();
        self.inbox.disconnected();
    }

    /// Whether there is a connection.
    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Forgets everything that the peer ever said: what it says next is new.
    pub fn reset_inbox(&mut self) {
        self.inbox = Inbox::default();
    }

    /// Judges a state that has arrived. If it is [`Receipt::New`], the caller applies it and
    /// then, when its effect holds (durably, where that matters), calls [`Channel::accept`];
    /// copies that arrive in between are [`Receipt::Old`].
    pub fn receive(
        &mut self,
        now: Time,
        via: Via,
        kind: StateKind,
        envelope: &Envelope,
    ) -> Receipt {
        self.inbox.receive(now, via, (kind, envelope.job), envelope.stamp)
    }

    /// The application has taken up the state with this stamp: it will be acknowledged.
    pub fn accept(&mut self, now: Time, kind: StateKind, job: JobId, stamp: Stamp) {
        self.inbox.accept(now, (kind, job), stamp);
    }

    /// The peer has acknowledged states.
    pub fn acked(&mut self, now: Time, acks: &Acks) {
        for ack in &acks.0 {
            self.outbox.acked(now, (ack.kind, ack.job), ack.stamp);
        }
    }

    /// Appends to `out` what is to be sent at `now`, at most [`POLL_FRAMES_MAX`] frames.
    ///
    /// Call it again at [`Channel::next_wake`], and after anything was set or accepted.
    pub fn poll(&mut self, now: Time, path: Path, out: &mut Vec<Outgoing>) {
        if !self.connected {
            return;
        }
        let mut packer = Packer::new(path.datagram_max, out);
        self.beat(now, &mut packer);
        for _ in 0..POLL_FRAMES_MAX {
            let Some((kind, frame)) = self.outbox.next(now, path.rtt, packer.room()) else {
                break;
            };
            match frame {
                (Route::Datagram, body) => packer.datagram(kind, &body),
                (Route::Stream, body) => packer.stream(kind, &body),
            }
        }
        if self.inbox.acks_due().is_some_and(|due| due <= now) || !packer.is_empty() {
            self.inbox.take_acks(&mut packer);
        }
        packer.finish();
    }

    /// When [`Channel::poll`] has something to do, which may be in the past; `None` while
    /// there is no connection or nothing to say.
    pub fn next_wake(&self) -> Option<Time> {
        if !self.connected {
            return None;
        }
        let beat = self.beats.disk_free.map(|_| self.beats.next);
        [self.outbox.next_due(), self.inbox.acks_due(), beat].into_iter().flatten().min()
    }

    /// Whether the peer has acknowledged every state and was told everything that it waits
    /// for: the connection may be closed.
    pub fn settled(&self) -> bool {
        self.outbox.settled() && self.inbox.acks_due().is_none()
    }

    /// States in the outbox.
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// Keys in the inbox.
    pub fn inbox_len(&self) -> usize {
        self.inbox.len()
    }

    fn beat(&mut self, now: Time, packer: &mut Packer<'_>) {
        let Some(disk_free) = self.beats.disk_free else {
            return;
        };
        if self.beats.next <= now {
            let Beats { number, uplink_bps, .. } = self.beats;
            let beat = Beat { number, disk_free, uplink_bps };
            packer.datagram(FrameType::Beat, &crate::wire::codec::encode(&beat));
            self.beats.number += 1;
            self.beats.next = now + limit::BEAT_EVERY;
        }
    }
}

/// How long to wait for the answer to the send after `expiries` vain ones.
pub(crate) fn resend_after(rtt: Duration, expiries: u32) -> Duration {
    let base = rtt.saturating_add(rtt / 4).saturating_add(Duration::from_millis(10));
    base.max(RESEND_MIN).saturating_mul(1 << expiries.min(16)).min(RESEND_MAX)
}
