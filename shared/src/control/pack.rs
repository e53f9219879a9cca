//! Packs frames: several to a datagram, the others behind each other for the stream.

use crate::limit;
use crate::wire::codec;
use crate::wire::frame::{FRAME_HEADER_LEN, put_frame};
use crate::wire::message::{Ack, Acks, FrameType};

use super::{Outgoing, Via};

/// Below this, in bytes, a path's datagrams are of no use; no QUIC path is so narrow.
const DATAGRAM_LEN_MIN: usize = 128;
/// Bytes that the count of a list of at most [`limit::ACKS_MAX`] takes.
const COUNT_LEN: usize = 1;

pub(super) struct Packer<'a> {
    room: usize,
    datagram: Vec<u8>,
    stream: Vec<u8>,
    out: &'a mut Vec<Outgoing>,
    frames: usize,
}

impl<'a> Packer<'a> {
    pub(super) fn new(datagram_max: usize, out: &'a mut Vec<Outgoing>) -> Self {
        let room = datagram_max.min(limit::DATAGRAM_LEN_MAX);
        let room = if room < DATAGRAM_LEN_MIN { 0 } else { room };
        Self { room, datagram: Vec::new(), stream: Vec::new(), out, frames: 0 }
    }

    /// Largest frame that fits a datagram, its header included; 0 without datagrams.
    pub(super) const fn room(&self) -> usize {
        self.room
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Adds a frame to the datagrams, or to the stream if no datagram takes it.
    pub(super) fn datagram(&mut self, kind: FrameType, body: &[u8]) {
        let len = FRAME_HEADER_LEN + body.len();
        if len > self.room {
            return self.stream(kind, body);
        }
        if self.datagram.len() + len > self.room {
            self.flush_datagram();
        }
        put_frame(&mut self.datagram, kind as u8, body);
        self.frames += 1;
    }

    pub(super) fn stream(&mut self, kind: FrameType, body: &[u8]) {
        put_frame(&mut self.stream, kind as u8, body);
        self.frames += 1;
    }

    pub(super) fn acks(&mut self, way: Via, acks: impl Iterator<Item = Ack>) {
        let mut batch = Acks(Vec::new());
        let mut len = FRAME_HEADER_LEN + COUNT_LEN;
        for ack in acks {
            let more = codec::encode(&ack).len();
            // What is left of the datagram that is being filled, or a whole one.
            let left = self.room.saturating_sub(self.datagram.len());
            let whole = if left < len + more { self.room } else { left };
            let full = way == Via::Datagram && self.room > 0 && len + more > whole;
            if full || batch.0.len() >= limit::ACKS_MAX {
                self.put_acks(way, &mut batch);
                len = FRAME_HEADER_LEN + COUNT_LEN;
            }
            batch.0.push(ack);
            len += more;
        }
        self.put_acks(way, &mut batch);
    }

    pub(super) fn finish(mut self) {
        self.flush_datagram();
        if !self.stream.is_empty() {
            self.out.push(Outgoing::Stream(self.stream));
        }
    }

    fn put_acks(&mut self, way: Via, batch: &mut Acks) {
        if batch.0.is_empty() {
            return;
        }
        let body = codec::encode(batch);
        batch.0.clear();
        match way {
            Via::Datagram => self.datagram(FrameType::Acks, &body),
            Via::Stream => self.stream(FrameType::Acks, &body),
        }
    }

    fn flush_datagram(&mut self) {
        if !self.datagram.is_empty() {
            self.out.push(Outgoing::Datagram(std::mem::take(&mut self.datagram)));
        }
    }
}
