//! What the peer says: the newest stamp per key, and the acknowledgements that are owed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::limit;
use crate::time::Time;
use crate::wire::message::{Ack, Stamp};

use super::pack::Packer;
use super::{ACK_DELAY, Key, Via};

/// How long a released key is still known. Longer than any packet of a connection lives.
const RELEASED_KEPT: Duration = Duration::from_secs(60);

/// The judgement of a state that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// To be applied and then accepted.
    New,
    /// Known, or replaced by a newer one, or of a former life of the peer: nothing to do.
    Old,
    /// The inbox holds [`limit::INBOX_SLOTS_MAX`] other keys: a peer that keeps to the limits
    /// never gets there, so the caller ends the connection and says why.
    Full,
}

#[derive(Debug)]
struct Entry {
    /// The newest stamp that was handed to the application.
    seen: Stamp,
    /// The newest stamp that the application took up.
    accepted: Option<Stamp>,
    /// A copy came by the stream, so the acknowledgement has to go there too.
    by_stream: bool,
    /// The number of the release after which nothing came, if any.
    released: Option<u64>,
}

/// The inbox.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The highest term that the peer has shown; what is below is of a former life.
    term: u64,
    entries: BTreeMap<Key, Entry>,
    /// Released keys, oldest first. An entry counts only if its number is the key's last.
    released: VecDeque<(Time, u64, Key)>,
    releases: u64,
    acks: BTreeMap<Key, (Stamp, Via)>,
    acks_due: Option<Time>,
}

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn acks_due(&self) -> Option<Time> {
        self.acks_due
    }

    pub(super) fn disconnected(&mut self) {
        // The peer will send again what it did not see acknowledged.
        self.acks.clear();
        self.acks_due = None;
        for entry in self.entries.values_mut() {
            entry.by_stream = false;
        }
    }

    pub(super) fn receive(&mut self, now: Time, via: Via, key: Key, stamp: Stamp) -> Receipt {
        if stamp.term < self.term {
            return Receipt::Old;
        }
        if stamp.term > self.term {
            *self = Self { term: stamp.term, ..Self::default() };
        }
        while self.drop_released(Some(now)) {}
        let full = self.entries.len() >= limit::INBOX_SLOTS_MAX;
        let Some(entry) = self.entries.get_mut(&key) else {
            if full && !self.drop_released(None) {
                return Receipt::Full;
            }
            let by_stream = via == Via::Stream;
            let entry = Entry { seen: stamp, accepted: None, by_stream, released: None };
            self.entries.insert(key, entry);
            return Receipt::New;
        };
        entry.by_stream |= via == Via::Stream;
        if stamp > entry.seen {
            entry.seen = stamp;
            entry.released = None;
            return Receipt::New;
        }
        if entry.accepted == Some(entry.seen) {
            self.owe(now, key);
        }
        Receipt::Old
    }

    pub(super) fn accept(&mut self, now: Time, key: Key, stamp: Stamp) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if stamp <= entry.seen && entry.accepted.is_none_or(|accepted| accepted < stamp) {
            entry.accepted = Some(stamp);
            self.owe(now, key);
        }
    }

    pub(super) fn release(&mut self, now: Time, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if entry.released.is_none() {
            self.releases += 1;
            entry.released = Some(self.releases);
            self.released.push_back((now, self.releases, key));
            if self.released.len() > 2 * limit::INBOX_SLOTS_MAX {
                let entries = &self.entries;
                self.released.retain(|(_, number, key)| {
                    entries.get(key).is_some_and(|entry| entry.released == Some(*number))
                });
            }
        }
    }

    pub(super) fn take_acks(&mut self, packer: &mut Packer<'_>) {
        let owed = std::mem::take(&mut self.acks);
        self.acks_due = None;
        for way in [Via::Datagram, Via::Stream] {
            let acks = owed.iter().filter(|(_, (_, via))| *via == way);
            let acks = acks.map(|(&(kind, job), &(stamp, _))| Ack { kind, job, stamp });
            packer.acks(way, acks);
        }
    }

    fn owe(&mut self, now: Time, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let Some(stamp) = entry.accepted else { return };
        let before = self.acks.get(&key).map(|(_, via)| *via);
        let by_stream = entry.by_stream || before == Some(Via::Stream);
        if stamp == entry.seen {
            entry.by_stream = false;
        }
        self.acks.insert(key, (stamp, if by_stream { Via::Stream } else { Via::Datagram }));
        self.acks_due.get_or_insert(now + ACK_DELAY);
    }

    /// Drops the oldest released key, if it was released long enough before `now`, or at all.
    fn drop_released(&mut self, now: Option<Time>) -> bool {
        while let Some((at, number, key)) = self.released.front().copied() {
            let stale = self.entries.get(&key).is_none_or(|entry| entry.released != Some(number));
            if !stale && now.is_some_and(|now| now.since(at) < RELEASED_KEPT) {
                return false;
            }
            self.released.pop_front();
            if !stale {
                self.entries.remove(&key);
                return true;
            }
        }
        false
    }
}
