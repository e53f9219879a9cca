//! Control frames, from the control stream and from datagrams, and the states in them.

use std::fmt::Debug;

use shared::control::{Channel, Path, Via};
use shared::id::{Name, PeerId};
use shared::limit;
use shared::relay::Relay;
use shared::time::Time;
use shared::wire::codec::{self, DecodeError};
use shared::wire::frame::{FRAME_HEADER_LEN, Frame, FrameReader, datagram_frames, put_frame};
use shared::wire::message::{
    self, Acks, Answer, Assign, Beat, Checked, Envelope, FrameType, Hello, Offer, Query, Reconcile,
    Report, StateKind, View, Want, Welcome,
};
use shared::wire::request::{Reply, Request};

use super::memory;

/// Bytes of a control stream, however they are cut.
pub(super) fn stream(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let at_once = frames(bytes, bytes.len().max(1));
    assert_eq!(at_once, frames(bytes, usize::from(cut) + 1), "the cut makes a difference");
    let (frames, _) = at_once;
    let len: usize = frames.iter().map(|frame| FRAME_HEADER_LEN + frame.body.len()).sum();
    assert!(len <= bytes.len(), "frames out of nothing");
    assert!(frames.iter().all(|frame| frame.body.len() <= limit::FRAME_LEN_MAX));
    take_all(&frames, Via::Stream);
}

/// One datagram.
pub(super) fn datagram(data: &[u8]) {
    let (read, peak) = memory::peak_of(|| datagram_frames(data));
    // A frame is a header at least, and a handle of 40 bytes in memory.
    assert!(peak <= 4_096 + 40 * data.len(), "{peak} bytes for {} of a datagram", data.len());
    let Ok(frames) = read else { return };
    let mut again = Vec::new();
    frames.iter().for_each(|frame| put_frame(&mut again, frame.kind, &frame.body));
    assert_eq!(again, data, "a datagram is its frames");
    take_all(&frames, Via::Datagram);
}

fn frames(bytes: &[u8], cut: usize) -> (Vec<Frame>, Option<DecodeError>) {
    let (mut reader, mut found) = (FrameReader::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        reader.push(piece);
        loop {
            match reader.next(limit::FRAME_LEN_MAX) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// What a peer does with frames: bodies are read, states go through the inbox and, if they are
/// new, to the engine of a job.
fn take_all(frames: &[Frame], via: Via) {
    let now = Time::from_micros(1_000_000);
    let (mut channel, mut relay, mut effects) = (Channel::new(1), Relay::new(4, 64), Vec::new());
    channel.connected(now);
    let peer = PeerId::Node(Name::new("rogue").unwrap());
    for frame in frames {
        let Some(kind) = FrameType::from_byte(frame.kind) else { continue };
        if !read_body(kind, &frame.body) {
            continue;
        }
        if kind == FrameType::Acks
            && let Ok(acks) = message::decode::<Acks>(&frame.body)
        {
            channel.acked(now, &acks);
        }
        let Some(state) = kind.state() else { continue };
        let Ok(envelope) = message::decode::<Envelope>(&frame.body) else { continue };
        let _ = channel.receive(now, via, state, &envelope);
        channel.accept(now, state, envelope.job, envelope.stamp);
        match state {
            StateKind::Offer => {
                if let Ok(offer) = message::decode::<Offer>(&envelope.body) {
                    relay.offered(&peer, offer, &mut effects);
                }
            }
            StateKind::Want => {
                if let Ok(want) = message::decode::<Want>(&envelope.body) {
                    relay.wanted(&peer, want, &mut effects);
                    assert!(relay.next_send(&peer).is_none(), "there is nothing to send");
                }
            }
            StateKind::Assign | StateKind::Report | StateKind::View => {}
        }
        effects.clear();
    }
    assert!(channel.inbox_len() <= limit::INBOX_SLOTS_MAX);
    let path = Path { rtt: std::time::Duration::from_millis(50), datagram_max: 1_200 };
    let mut out = Vec::new();
    channel.poll(now + std::time::Duration::from_millis(20), path, &mut out);
}

/// Reads the body of a frame; says whether it could be read.
fn read_body(kind: FrameType, body: &[u8]) -> bool {
    match kind {
        FrameType::Hello => reread::<Hello>(body),
        FrameType::Welcome => reread::<Welcome>(body),
        FrameType::Beat => reread::<Beat>(body),
        FrameType::Acks => reread::<Acks>(body),
        FrameType::Reconcile => reread::<Reconcile>(body),
        FrameType::Goodbye | FrameType::GoodbyeAck => true,
        FrameType::Query => reread::<Query>(body),
        FrameType::Answer => reread::<Answer>(body),
        FrameType::Assign => state::<Assign>(body),
        FrameType::Offer => state::<Offer>(body),
        FrameType::Want => state::<Want>(body),
        FrameType::Report => state::<Report>(body),
        FrameType::View => state::<View>(body),
        FrameType::Request => reread::<Request>(body),
        FrameType::Reply => reread::<Reply>(body),
    }
}

fn state<T: Checked + Debug>(body: &[u8]) -> bool {
    let envelope = message::decode::<Envelope>(body);
    reread::<Envelope>(body) && envelope.is_ok_and(|envelope| reread::<T>(&envelope.body))
}

/// Reads a message; if it can be read, it reads again as what it was written as.
pub(super) fn reread<T: Checked + Debug>(body: &[u8]) -> bool {
    let (read, peak) = memory::peak_of(|| message::decode::<T>(body));
    // What a text may claim follows the length of the message in steps of 16 times 16; see
    // `message::decode`. A list sets room for at most 1 MiB aside before its elements are read,
    // and lists are nested two deep.
    let most = 3 * 1024 * 1024 + 512 * body.len();
    assert!(peak <= most, "{peak} bytes for {} of a message", body.len());
    let Ok(value) = read else { return false };
    assert!(body.len() <= T::LEN_MAX);
    let bytes = codec::encode(&value);
    assert!(bytes.len() <= body.len(), "the shortest form is longer: {value:?}");
    let again = message::decode::<T>(&bytes).unwrap();
    assert_eq!(codec::encode(&again), bytes, "{value:?}");
    true
}
