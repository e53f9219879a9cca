//! The layouts of `docs/WIRE.md`, written down a second time by hand.

use ring::signature::{ED25519, UnparsedPublicKey};
use shared::id::JobId;
use shared::seal::Hash;
use shared::wire::codec;
use shared::wire::frame::{FrameReader, put_frame};
use shared::wire::message::FrameType;
use shared::wire::record::{RecordKind, RecordWriter};

use super::sample;

/// Integers of any width: the shortest of five forms.
fn integer(value: u64) -> Vec<u8> {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match value {
        0..=250 => vec![a],
        251..=0xffff => vec![0xfb, a, b],
        0x1_0000..=0xffff_ffff => vec![0xfc, a, b, c, d],
        _ => vec![0xfd, a, b, c, d, e, f, g, h],
    }
}

#[test]
fn integers_are_as_short_as_they_can_be() {
    for shift in 0..64 {
        for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
            assert_eq!(codec::encode(&value), integer(value), "{value}");
        }
    }
    for edge in [250, 251, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000] {
        assert_eq!(codec::encode(&edge), integer(edge), "{edge}");
    }
    for (signed, zigzag) in [(0i64, 0), (-1, 1), (1, 2), (-2, 3), (i64::MIN, u64::MAX)] {
        assert_eq!(codec::encode(&signed), integer(zigzag), "{signed}");
    }
}

#[test]
fn a_longer_form_of_an_integer_is_read() {
    let forms: [&[u8]; 4] =
        [&[7], &[0xfb, 7, 0], &[0xfc, 7, 0, 0, 0], &[0xfd, 7, 0, 0, 0, 0, 0, 0, 0]];
    for form in forms {
        assert_eq!(codec::decode::<u64, 64>(form), Ok(7), "{form:?}");
    }
    assert!(codec::decode::<u64, 64>(&[0xff]).is_err());
    assert!(codec::decode::<u32, 64>(&[0xfd, 0, 0, 0, 0, 1, 0, 0, 0]).is_err());
}

#[test]
fn parts_of_values_stand_behind_each_other() {
    assert_eq!(codec::encode(&(7u8, 251u8, -1i8, true, false)), [7, 251, 255, 1, 0]);
    assert_eq!(codec::encode(&Some(300u32)), [1, 0xfb, 0x2c, 1]);
    assert_eq!(codec::encode(&None::<u32>), [0]);
    assert_eq!(codec::encode(&"ü"), [2, 0xc3, 0xbc]);
    assert_eq!(codec::encode(&vec![1u64, 2]), [2, 1, 2]);
    assert_eq!(codec::encode(&JobId([9; 16])), [9; 16]);
    assert_eq!(codec::encode(&Hash([9; 32])), [9; 32]);
    assert_eq!(codec::encode(&0.5f64), 0.5f64.to_le_bytes());
}

#[test]
fn a_frame_is_a_type_a_length_and_a_body() {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, FrameType::Offer as u8, &[7; 0x1_0203]);
    assert_eq!(bytes[..4], [17, 0x03, 0x02, 0x01]);
    assert_eq!(bytes[4..], [7; 0x1_0203]);
    let mut reader = FrameReader::new();
    reader.push(&bytes);
    let frame = reader.next(0x1_0203).unwrap().unwrap();
    assert_eq!((frame.kind, frame.body.len()), (17, 0x1_0203));
}

#[test]
fn types_that_are_not_known_are_told_from_those_that_are() {
    let known: Vec<u8> = (0..=255).filter(|byte| FrameType::from_byte(*byte).is_some()).collect();
    assert_eq!(known, [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 18, 19, 20, 32, 33]);
}

#[test]
fn signatures_are_over_a_context_and_the_body() {
    let public = sample::public_key();
    let public = UnparsedPublicKey::new(&ED25519, &public);
    let body = codec::encode(&sample::object());
    let signed = codec::encode(&sample::signed_job());
    let (head, signature) = signed.split_at(signed.len() - 64);
    assert_eq!(head, [integer(body.len() as u64), body.clone()].concat());
    let message = [b"distributary/1 job\0".as_slice(), &body].concat();
    public.verify(&message, signature).unwrap();

    let draft = sample::pages()[0].draft();
    let record = draft.sign(&sample::key()).to_record();
    let (signature, page) = record.split_at(64);
    assert_eq!(page, &draft.to_record()[..]);
    let message = [b"distributary/1 page\0".as_slice(), page].concat();
    public.verify(&message, signature).unwrap();
    assert!(!draft.verify(&sample::public_key()), "a draft has no signature");
}

#[test]
fn hashes_are_over_the_bytes_as_they_are_sent() {
    let [first, second] = sample::pages();
    let body = first.draft().to_record();
    assert_eq!(second.previous.0, *blake3::hash(&body).as_bytes());
    let signed = first.draft().sign(&sample::key());
    assert_eq!(signed.hash(), second.previous, "the signature is no part of what is hashed");
    let list = [2, 6].into_iter().chain(*b"edge-1").chain([6]).chain(*b"edge-2");
    let list: Vec<u8> = list.collect();
    assert_eq!(codec::encode(&sample::servers()), list);
    assert_eq!(sample::object().servers_hash.0, *blake3::hash(&list).as_bytes());
}

/// Lays records out as the specification says.
fn lay_out(records: &[(RecordKind, u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, number, payload) in records {
        let mut done = 0;
        while done < payload.len() {
            let room = 8_192 - out.len() % 8_192;
            if room <= 14 {
                out.extend(vec![0; room]);
                continue;
            }
            let len = (payload.len() - done).min(room - 14);
            out.push(*kind as u8);
            out.extend(&len.to_le_bytes()[..2]);
            out.extend(&payload.len().to_le_bytes()[..3]);
            out.extend(&done.to_le_bytes()[..3]);
            out.extend(&number.to_le_bytes()[..5]);
            out.extend(&payload[done..done + len]);
            done += len;
        }
    }
    out
}

#[test]
fn records_are_laid_out_in_blocks() {
    // Every way in which a record can meet the end of a block.
    for lead in (8_192 - 60)..(8_192 + 4) {
        let records = [
            (RecordKind::Job, 0, sample::JOB.0.to_vec()),
            (RecordKind::Chunk, 3, vec![3; lead - 30 - 14]),
            (RecordKind::Chunk, (1 << 40) - 1, vec![4; 17]),
            (RecordKind::Draft, 1, vec![5; 20_000]),
        ];
        let (mut writer, mut out) = (RecordWriter::new(), Vec::new());
        for (kind, number, payload) in &records {
            writer.put(*kind, *number, payload, &mut out);
        }
        assert!(out == lay_out(&records), "lead {lead}");
        assert_eq!(writer.offset(), out.len() as u64);
    }
}
