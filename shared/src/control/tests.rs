use std::collections::BTreeMap;

use crate::wire::codec;
use crate::wire::frame::{FrameReader, datagram_frames};
use crate::wire::message::{self, Ack};

use super::*;

const PATH: Path = Path { rtt: Duration::from_millis(40), datagram_max: 1_200 };
/// 1.25 × 40 ms + 10 ms.
const RTO: Duration = Duration::from_millis(60);

fn job(number: u8) -> JobId {
    JobId([number; 16])
}

fn at(millis: u64) -> Time {
    Time::from_micros(1_000 * millis)
}

fn poll(channel: &mut Channel, now: Time) -> Vec<Outgoing> {
    let mut out = Vec::new();
    channel.poll(now, PATH, &mut out);
    out
}

/// The frames of `out` with the way that they go.
fn frames(out: &[Outgoing]) -> Vec<(Via, FrameType, Vec<u8>)> {
    let mut found = Vec::new();
    for piece in out {
        let (via, frames) = match piece {
            Outgoing::Datagram(bytes) => (Via::Datagram, datagram_frames(bytes).unwrap()),
            Outgoing::Stream(bytes) => {
                let mut reader = FrameReader::new();
                reader.push(bytes);
                let next = || reader.next(limit::FRAME_LEN_MAX).unwrap();
                (Via::Stream, std::iter::from_fn(next).collect())
            }
        };
        for frame in frames {
            found.push((via, FrameType::from_byte(frame.kind).unwrap(), frame.body.to_vec()));
        }
    }
    found
}

fn states(out: &[Outgoing]) -> Vec<(Via, StateKind, Envelope)> {
    let frames = frames(out).into_iter();
    frames
        .filter_map(|(via, kind, body)| Some((via, kind.state()?, message::decode(&body).unwrap())))
        .collect()
}

fn bodies(out: &[Outgoing]) -> Vec<(Via, Vec<u8>)> {
    states(out).into_iter().map(|(via, _, envelope)| (via, envelope.body)).collect()
}

/// A channel on a connection that is no longer new: what is set goes by datagram.
fn open(term: u64) -> Channel {
    let mut channel = Channel::new(term);
    channel.connected(at(0));
    channel
}

fn set(channel: &mut Channel, now: Time, number: u8, body: &[u8]) {
    channel.set(now, StateKind::Report, job(number), body.to_vec(), Pace::Now).unwrap();
}

/// Hands everything to `to`, which takes it up at once. Says what was new.
fn deliver(to: &mut Channel, now: Time, out: &[Outgoing]) -> Vec<Vec<u8>> {
    let mut applied = Vec::new();
    for (via, kind, body) in frames(out) {
        if kind == FrameType::Acks {
            to.acked(now, &message::decode(&body).unwrap());
        } else if let Some(kind) = kind.state() {
            let envelope: Envelope = message::decode(&body).unwrap();
            if to.receive(now, via, kind, &envelope) == Receipt::New {
                to.accept(now, kind, envelope.job, envelope.stamp);
                applied.push(envelope.body);
            }
        }
    }
    applied
}

#[test]
fn an_unanswered_state_is_repeated_ever_more_slowly_and_then_goes_by_stream_once() {
    let mut channel = open(1);
    set(&mut channel, at(0), 1, b"here");
    let mut sends = Vec::new();
    while let Some(wake) = channel.next_wake().filter(|wake| *wake < at(60_000)) {
        for (via, body) in bodies(&poll(&mut channel, wake)) {
            assert_eq!(body, b"here");
            sends.push((wake.as_micros() / 1_000, via));
        }
    }
    let ends = [0, 60, 180, 420, 900].map(|sent| (sent, Via::Datagram));
    assert_eq!(sends[..5], ends);
    assert_eq!(sends[5..], [(900 + 960, Via::Stream)]);
    assert!(!channel.settled());
}

#[test]
fn waits_have_a_floor_and_a_ceiling() {
    assert_eq!(resend_after(Duration::ZERO, 0), RESEND_MIN);
    assert_eq!(resend_after(PATH.rtt, 0), RTO);
    assert_eq!(resend_after(Duration::from_secs(1), 3), RESEND_MAX);
    assert_eq!(resend_after(Duration::MAX, u32::MAX), RESEND_MAX);
}

#[test]
fn a_round_trip_applies_once_and_settles_both_sides() {
    let (mut one, mut two) = (open(1), open(2));
    set(&mut one, at(0), 1, b"a");
    set(&mut one, at(0), 2, b"b");
    let out = poll(&mut one, at(0));
    assert_eq!(out.len(), 1, "several keys share a datagram");
    assert_eq!(deliver(&mut two, at(20), &out), [b"a", b"b"]);
    assert!(!two.settled());
    assert_eq!(poll(&mut two, at(25)), [], "acknowledgements wait for company");
    assert_eq!(two.next_wake(), Some(at(30)));
    let answer = poll(&mut two, at(30));
    assert_eq!(deliver(&mut one, at(50), &answer), Vec::<Vec<u8>>::new());
    assert!(one.settled() && two.settled());
    assert_eq!((one.next_wake(), two.next_wake()), (None, None));
    // A late copy is answered again and applied no more.
    assert_eq!(deliver(&mut two, at(60), &out), Vec::<Vec<u8>>::new());
    assert_eq!(frames(&poll(&mut two, at(70))).len(), 1);
}

#[test]
fn acknowledgements_ride_with_what_goes_out() {
    let (mut one, mut two) = (open(1), open(2));
    set(&mut one, at(0), 1, b"a");
    deliver(&mut two, at(20), &poll(&mut one, at(0)));
    set(&mut two, at(21), 1, b"b");
    let out = poll(&mut two, at(21));
    let kinds: Vec<FrameType> = frames(&out).into_iter().map(|(_, kind, _)| kind).collect();
    assert_eq!((out.len(), kinds), (1, vec![FrameType::Report, FrameType::Acks]));
}

#[test]
fn nothing_is_acknowledged_before_it_is_taken_up() {
    let (mut one, mut two) = (open(1), open(2));
    set(&mut one, at(0), 1, b"a");
    let out = poll(&mut one, at(0));
    let (via, kind, envelope) = states(&out).remove(0);
    assert_eq!(two.receive(at(20), via, kind, &envelope), Receipt::New);
    assert_eq!(two.receive(at(80), via, kind, &envelope), Receipt::Old);
    assert_eq!(two.next_wake(), None);
    two.accept(at(90), kind, envelope.job, envelope.stamp);
    assert_eq!(two.next_wake(), Some(at(100)));
}

#[test]
fn the_newest_wins_whatever_the_order() {
    let (mut one, mut two) = (open(1), open(2));
    let mut sent = Vec::new();
    for (millis, body) in [(0, b"1"), (1, b"2"), (2, b"3")] {
        set(&mut one, at(millis), 1, body);
        sent.push(poll(&mut one, at(millis)));
    }
    assert_eq!(deliver(&mut two, at(20), &sent[1]), [b"2"]);
    assert_eq!(deliver(&mut two, at(21), &sent[0]), Vec::<Vec<u8>>::new());
    assert_eq!(deliver(&mut two, at(22), &sent[2]), [b"3"]);
    for again in &sent {
        assert_eq!(deliver(&mut two, at(23), again), Vec::<Vec<u8>>::new());
    }
    // The answer to an older one does not settle the newest.
    let stamp = states(&sent[1])[0].2.stamp;
    one.acked(at(30), &Acks(vec![Ack { kind: StateKind::Report, job: job(1), stamp }]));
    assert!(!one.settled());
    deliver(&mut one, at(40), &poll(&mut two, at(40)));
    assert!(one.settled());
}

#[test]
fn a_higher_term_beats_every_revision_and_a_lower_one_is_old() {
    let mut two = open(9);
    let envelope = |term, revision| Envelope {
        job: job(1),
        stamp: Stamp { term, revision },
        body: Vec::new(),
    };
    let mut receive = |envelope| two.receive(at(0), Via::Datagram, StateKind::Report, &envelope);
    assert_eq!(receive(envelope(1, 50)), Receipt::New);
    assert_eq!(receive(envelope(2, 1)), Receipt::New);
    assert_eq!(receive(envelope(1, 51)), Receipt::Old);
    assert_eq!(receive(envelope(2, 1)), Receipt::Old);
    assert_eq!(receive(envelope(2, 2)), Receipt::New);
    // Also about a job that was not heard of under the new term.
    let other = Envelope { job: job(2), ..envelope(1, 99) };
    assert_eq!(receive(other), Receipt::Old);
    two.reset_inbox();
    assert_eq!(two.receive(at(0), Via::Datagram, StateKind::Report, &envelope(1, 1)), Receipt::New);
}

#[test]
fn a_new_term_stamps_and_says_everything_again() {
    let (mut one, mut two) = (open(0), open(2));
    set(&mut one, at(0), 1, b"a");
    deliver(&mut two, at(20), &poll(&mut one, at(0)));
    deliver(&mut one, at(40), &poll(&mut two, at(30)));
    assert!(one.settled());
    one.set_term(at(50), 0);
    assert!(one.settled(), "the same term changes nothing");
    one.set_term(at(50), 7);
    assert!(!one.settled());
    let again = poll(&mut one, at(50));
    assert_eq!(states(&again)[0].2.stamp.term, 7);
    assert_eq!(deliver(&mut two, at(70), &again), [b"a"]);
    deliver(&mut one, at(90), &poll(&mut two, at(80)));
    assert!(one.settled());
}

#[test]
fn relaxed_states_go_out_four_times_a_second_and_the_last_one_does() {
    let mut channel = open(1);
    let mut sent = Vec::new();
    for millis in 0..2_000u64 {
        let body = millis.to_le_bytes().to_vec();
        channel.set(at(millis), StateKind::Report, job(1), body, Pace::Relaxed).unwrap();
        for (_, kind, envelope) in states(&poll(&mut channel, at(millis))) {
            // Answered at once, so that nothing is sent for want of an answer.
            let ack = Ack { kind, job: envelope.job, stamp: envelope.stamp };
            channel.acked(at(millis), &Acks(vec![ack]));
            sent.push(u64::from_le_bytes(envelope.body.try_into().unwrap()));
        }
    }
    assert_eq!(sent, [0, 250, 500, 750, 1_000, 1_250, 1_500, 1_750]);
    assert_eq!(channel.next_wake(), Some(at(2_000)));
    assert_eq!(bodies(&poll(&mut channel, at(2_000)))[0].1, 1_999u64.to_le_bytes());
    // What is urgent does not wait.
    set(&mut channel, at(2_001), 1, b"done");
    assert_eq!(bodies(&poll(&mut channel, at(2_001))).len(), 1);
}

#[test]
fn the_same_body_is_said_again_only_if_that_is_urgent() {
    let mut channel = open(1);
    let mut again = |millis, pace| {
        channel.set(at(millis), StateKind::Report, job(1), b"a".to_vec(), pace).unwrap();
        poll(&mut channel, at(millis)).len()
    };
    assert_eq!(again(0, Pace::Now), 1);
    assert_eq!(again(1, Pace::Relaxed), 0);
    assert_eq!(again(2, Pace::Now), 1);
    assert!(!channel.is_acked(StateKind::Report, job(1)));
    assert!(channel.is_acked(StateKind::Report, job(2)));
}

#[test]
fn what_no_datagram_takes_goes_by_stream_and_its_answer_too() {
    let (mut one, mut two) = (open(1), open(2));
    set(&mut one, at(0), 1, &[7; 1_000]);
    let out = poll(&mut one, at(0));
    assert_eq!(bodies(&out), [(Via::Stream, vec![7; 1_000])]);
    assert_eq!(one.next_wake(), None, "the stream is reliable");
    deliver(&mut two, at(20), &out);
    let answer = poll(&mut two, at(30));
    assert!(matches!(&answer[..], [Outgoing::Stream(_)]));
    deliver(&mut one, at(50), &answer);
    assert!(one.settled());
    // A path without datagrams takes everything by stream.
    set(&mut one, at(60), 2, b"small");
    one.set_beat(Some(1));
    let mut out = Vec::new();
    one.poll(at(60), Path { datagram_max: 0, ..PATH }, &mut out);
    assert!(matches!(&out[..], [Outgoing::Stream(_)]));
    assert_eq!(frames(&out).len(), 2);
}

#[test]
fn one_key_has_one_state_on_the_stream_at_a_time() {
    let (mut one, mut two) = (open(1), open(2));
    let mut bytes = Vec::new();
    for round in 0..100 {
        set(&mut one, at(round), 1, &[u8::try_from(round).unwrap(); 2_000]);
        bytes.extend(poll(&mut one, at(round)));
    }
    assert_eq!(bytes.len(), 1);
    assert_eq!(deliver(&mut two, at(100), &bytes), [[0; 2_000]]);
    deliver(&mut one, at(120), &poll(&mut two, at(110)));
    let rest = poll(&mut one, at(120));
    assert_eq!(deliver(&mut two, at(140), &rest), [[99; 2_000]]);
    deliver(&mut one, at(160), &poll(&mut two, at(150)));
    assert!(one.settled());
}

#[test]
fn what_was_on_a_lost_stream_or_under_a_former_term_does_not_hold_up_the_stream() {
    let mut one = open(0);
    let large = [7; 2_000];
    set(&mut one, at(0), 1, &large);
    assert_eq!(bodies(&poll(&mut one, at(0))).len(), 1);
    one.disconnected();
    one.connected(at(10));
    assert_eq!(bodies(&poll(&mut one, at(10))).len(), 1);
    one.set_term(at(20), 9);
    assert_eq!(bodies(&poll(&mut one, at(20))).len(), 1);
}

#[test]
fn a_stream_copy_is_answered_on_the_stream_even_if_a_datagram_came_first() {
    let mut two = open(2);
    let envelope = Envelope { job: job(1), stamp: Stamp { term: 1, revision: 1 }, body: vec![] };
    two.receive(at(0), Via::Datagram, StateKind::Report, &envelope);
    assert_eq!(two.receive(at(1), Via::Stream, StateKind::Report, &envelope), Receipt::Old);
    two.accept(at(2), StateKind::Report, envelope.job, envelope.stamp);
    assert!(matches!(&poll(&mut two, at(20))[..], [Outgoing::Stream(_)]));
    two.receive(at(30), Via::Datagram, StateKind::Report, &envelope);
    assert!(matches!(&poll(&mut two, at(50))[..], [Outgoing::Datagram(_)]));
}

#[test]
fn a_new_connection_says_everything_again_by_stream() {
    let (mut one, mut two) = (open(1), open(2));
    set(&mut one, at(0), 1, b"a");
    deliver(&mut two, at(20), &poll(&mut one, at(0)));
    deliver(&mut one, at(40), &poll(&mut two, at(30)));
    one.disconnected();
    set(&mut one, at(50), 2, b"b");
    assert_eq!((one.next_wake(), poll(&mut one, at(50))), (None, vec![]));
    one.connected(at(60));
    assert!(!one.settled());
    let out = poll(&mut one, at(60));
    assert!(matches!(&out[..], [Outgoing::Stream(_)]));
    two.disconnected();
    two.connected(at(60));
    assert_eq!(deliver(&mut two, at(80), &out), [b"b"], "the inbox remembers");
    deliver(&mut one, at(100), &poll(&mut two, at(90)));
    assert!(one.settled());
}

#[test]
fn a_forgotten_state_is_not_said_any_more() {
    let mut channel = open(1);
    set(&mut channel, at(0), 1, b"a");
    channel.forget(StateKind::Report, job(1));
    assert!(channel.settled());
    assert_eq!(poll(&mut channel, at(0)), []);
    channel.connected(at(10));
    assert_eq!(poll(&mut channel, at(10)), []);
}

#[test]
fn late_copies_are_known_for_a_minute_after_a_release() {
    let mut two = open(2);
    let envelope = Envelope { job: job(1), stamp: Stamp { term: 1, revision: 1 }, body: vec![] };
    let receive = |two: &mut Channel, millis| {
        two.receive(at(millis), Via::Datagram, StateKind::Assign, &envelope)
    };
    assert_eq!(receive(&mut two, 0), Receipt::New);
    two.accept(at(0), StateKind::Assign, job(1), envelope.stamp);
    two.release(at(0), StateKind::Assign, job(1));
    assert_eq!(receive(&mut two, 59_999), Receipt::Old);
    assert_eq!(receive(&mut two, 60_000), Receipt::New);
    // A release does not outlive something newer.
    two.release(at(60_000), StateKind::Assign, job(1));
    let newer = Envelope { stamp: Stamp { term: 1, revision: 2 }, ..envelope.clone() };
    assert_eq!(two.receive(at(60_001), Via::Datagram, StateKind::Assign, &newer), Receipt::New);
    assert_eq!(receive(&mut two, 200_000), Receipt::Old);
}

#[test]
fn outbox_and_inbox_have_limits_that_show() {
    let (mut one, mut two) = (open(1), open(2));
    let id = |number: u64| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        JobId(id)
    };
    for number in 0..100_000 {
        let job = id(number % limit::OUTBOX_SLOTS_MAX as u64);
        let body = number.to_le_bytes().to_vec();
        one.set(at(0), StateKind::Report, job, body, Pace::Relaxed).unwrap();
    }
    assert_eq!(one.outbox_len(), limit::OUTBOX_SLOTS_MAX);
    let more = one.set(at(0), StateKind::Report, id(u64::MAX), vec![], Pace::Now);
    assert_eq!(more, Err(SetError::Full(limit::OUTBOX_SLOTS_MAX)));
    let long = one.set(at(0), StateKind::Want, id(0), vec![0; limit::FRAME_LEN_MAX], Pace::Now);
    assert!(matches!(long, Err(SetError::TooLong { .. })));

    let mut polls = 0;
    let mut newest = BTreeMap::new();
    while one.next_wake() == Some(at(0)) {
        let out = poll(&mut one, at(0));
        assert!(frames(&out).len() <= POLL_FRAMES_MAX);
        for body in deliver(&mut two, at(1), &out) {
            let number = u64::from_le_bytes(body.try_into().unwrap());
            newest.insert(number % limit::OUTBOX_SLOTS_MAX as u64, number);
        }
        polls += 1;
    }
    assert_eq!(polls, limit::OUTBOX_SLOTS_MAX.div_ceil(POLL_FRAMES_MAX));
    assert!(newest.values().all(|number| *number >= 100_000 - limit::OUTBOX_SLOTS_MAX as u64));
    assert_eq!((newest.len(), two.inbox_len()), (limit::OUTBOX_SLOTS_MAX, limit::INBOX_SLOTS_MAX));
    let extra = Envelope { job: id(u64::MAX), stamp: Stamp { term: 1, revision: 1 }, body: vec![] };
    let receive = |two: &mut Channel| two.receive(at(2), Via::Stream, StateKind::Report, &extra);
    assert_eq!(receive(&mut two), Receipt::Full);
    two.release(at(2), StateKind::Report, id(0));
    assert_eq!(receive(&mut two), Receipt::New);
    // The answers to all of them fit their datagrams and settle everything.
    let answers = poll(&mut two, at(20));
    for answer in &answers {
        let Outgoing::Datagram(bytes) = answer else {
            continue;
        };
        assert!(bytes.len() <= limit::DATAGRAM_LEN_MAX);
    }
    deliver(&mut one, at(40), &answers);
    assert!(one.settled());
}

#[test]
fn acknowledgements_fill_datagrams_and_never_exceed_their_limits() {
    let mut two = open(2);
    let stamp = Stamp { term: u64::MAX, revision: u64::MAX };
    for number in 0..200 {
        let envelope = Envelope { job: job(number), stamp, body: vec![] };
        let via = if number < 100 { Via::Datagram } else { Via::Stream };
        two.receive(at(0), via, StateKind::Offer, &envelope);
        two.accept(at(0), StateKind::Offer, envelope.job, stamp);
    }
    let out = poll(&mut two, at(10));
    let mut acks = 0;
    for (_, kind, body) in frames(&out) {
        assert_eq!(kind, FrameType::Acks);
        acks += message::decode::<Acks>(&body).unwrap().0.len();
    }
    assert_eq!(acks, 200);
    let datagrams: Vec<usize> = out
        .iter()
        .filter_map(|out| if let Outgoing::Datagram(d) = out { Some(d.len()) } else { None })
        .collect();
    assert_eq!(datagrams.len(), 4, "{datagrams:?}");
    assert!(datagrams.iter().all(|len| *len <= limit::DATAGRAM_LEN_MAX));
}

#[test]
fn beats_go_once_a_second_while_there_is_a_connection() {
    let mut channel = open(1);
    assert_eq!(channel.next_wake(), None);
    channel.set_beat(Some(5));
    let mut beats = Vec::new();
    while let Some(wake) = channel.next_wake().filter(|wake| *wake < at(3_500)) {
        for (_, kind, body) in frames(&poll(&mut channel, wake)) {
            assert_eq!(kind, FrameType::Beat);
            let beat: Beat = message::decode(&body).unwrap();
            beats.push((wake, beat.number, beat.disk_free));
        }
    }
    assert_eq!(beats, [(at(0), 0, 5), (at(1_000), 1, 5), (at(2_000), 2, 5), (at(3_000), 3, 5)]);
    channel.disconnected();
    assert_eq!(channel.next_wake(), None);
}

#[test]
fn constant_change_does_not_hide_that_datagrams_fail() {
    let mut channel = open(1);
    let mut by_stream = 0;
    for millis in 0..4_000u64 {
        set(&mut channel, at(millis), 1, &millis.to_le_bytes());
        let out = poll(&mut channel, at(millis));
        by_stream += bodies(&out).iter().filter(|(via, _)| *via == Via::Stream).count();
    }
    assert_eq!(by_stream, 1);
}

#[test]
fn both_sides_agree_in_the_end_over_a_bad_path() {
    for seed in 0..200u64 {
        let mut chance = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut below = |limit: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % limit
        };
        let (mut one, mut two) = (open(1), open(2));
        let (mut said, mut heard) = (BTreeMap::new(), BTreeMap::new());
        // In flight: (arrival, to the second side, piece).
        let mut flight: Vec<(u64, bool, Outgoing)> = Vec::new();
        let mut streams = [0u64; 2];
        for millis in 0..60_000u64 {
            if millis < 2_000 && below(20) == 0 {
                let (number, body) = (u8::try_from(below(5)).unwrap(), millis.to_le_bytes());
                set(&mut one, at(millis), number, &body);
                said.insert(number, body.to_vec());
            }
            for (to_two, channel) in [(true, &mut one), (false, &mut two)] {
                for piece in poll(channel, at(millis)) {
                    let by_stream = matches!(piece, Outgoing::Stream(_));
                    let last = &mut streams[usize::from(to_two)];
                    let mut arrival = millis + 10 + below(200);
                    if by_stream {
                        arrival = arrival.max(*last);
                        *last = arrival;
                    } else if below(100) < 40 {
                        continue;
                    } else if below(10) == 0 {
                        flight.push((arrival + below(3_000), to_two, piece.clone()));
                    }
                    flight.push((arrival, to_two, piece));
                }
            }
            let (now, later) = flight.into_iter().partition(|(arrival, ..)| *arrival <= millis);
            flight = later;
            let now: Vec<(u64, bool, Outgoing)> = now;
            for (_, to_two, piece) in now {
                if !to_two {
                    deliver(&mut one, at(millis), &[piece]);
                    continue;
                }
                for (via, kind, envelope) in states(std::slice::from_ref(&piece)) {
                    if two.receive(at(millis), via, kind, &envelope) == Receipt::New {
                        let before = heard.insert(envelope.job.0[0], envelope.body.clone());
                        let number = |body: &[u8]| u64::from_le_bytes(body.try_into().unwrap());
                        assert!(before.is_none_or(|b| number(&b) < number(&envelope.body)));
                        two.accept(at(millis), kind, envelope.job, envelope.stamp);
                    }
                }
                deliver(&mut two, at(millis), &[piece]);
            }
            if millis > 2_000 && one.settled() && two.settled() && flight.is_empty() {
                break;
            }
        }
        assert!(one.settled() && two.settled(), "seed {seed}");
        assert_eq!(said, heard, "seed {seed}");
    }
}

#[test]
fn frames_decode_to_what_was_set() {
    let mut channel = open(u64::MAX);
    let body = codec::encode(&message::Offer::of_root(3, limit::CHUNKS_MAX));
    channel.set(at(0), StateKind::Offer, job(3), body.clone(), Pace::Now).unwrap();
    let out = poll(&mut channel, at(0));
    let (_, kind, envelope) = states(&out).remove(0);
    assert_eq!((kind, envelope.job, envelope.stamp.term), (StateKind::Offer, job(3), u64::MAX));
    let offer: message::Offer = message::decode(&envelope.body).unwrap();
    assert_eq!(codec::encode(&offer), body);
}
