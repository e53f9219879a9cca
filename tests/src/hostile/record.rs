//! Job streams: records out of bytes that arrive in any order.

use std::collections::BTreeMap;

use bytes::Bytes;
use shared::wire::record::{Piece, RecordError, RecordKind, RecordReader, RecordWriter};

use super::input::Input;
use super::memory;

/// A byte chooses: bytes of a stream in any order, bytes at any place, or records to write.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => in_any_order(input),
        1 => anywhere(input),
        _ => written(input),
    }
}

/// The same bytes in order and in another order give the same pieces of records.
fn in_any_order(mut input: Input<'_>) {
    let (cut, seed) = (usize::from(input.short()) + 1, u64::from(input.byte()));
    // So that a short input reaches the end of a block.
    let skip = usize::from(input.short()) % 8_192;
    let bytes = [&padded_fragment(skip)[..], input.rest()].concat();
    let mut pieces: Vec<(u64, Bytes)> = bytes
        .chunks(cut.max(bytes.len() / 64))
        .scan(0, |at, piece| {
            let from = *at;
            *at += piece.len() as u64;
            Some((from, Bytes::copy_from_slice(piece)))
        })
        .collect();
    let ordered = read(&pieces);
    shuffle(&mut pieces, seed);
    let shuffled = read(&pieces);
    if let (Ok(ordered), Ok(shuffled)) = (&ordered, &shuffled) {
        assert_eq!(ordered, shuffled, "the order makes a difference");
        let placed: usize = ordered.values().map(Vec::len).sum();
        assert!(placed <= bytes.len(), "records out of nothing");
    }
    // Broken bytes may be found only if those before them are there.
    assert_eq!(ordered.is_ok(), shuffled.is_ok(), "{ordered:?} {shuffled:?}");
}

/// The number of a record that is not looked at.
const PADDING: u64 = (1 << 40) - 1;

/// One fragment with which a stream begins, of `len` bytes with its header.
fn padded_fragment(len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(payload) = len.checked_sub(14).filter(|payload| *payload > 0) {
        RecordWriter::new().put(RecordKind::Chunk, PADDING, &vec![7; payload], &mut bytes);
    }
    bytes
}

/// Every byte of every record by kind, number, length and place.
type Placed = BTreeMap<(u8, u64, u32, u32), Vec<u8>>;

fn read(pieces: &[(u64, Bytes)]) -> Result<Placed, RecordError> {
    let (mut reader, mut placed) = (RecordReader::new(), Placed::new());
    for (offset, bytes) in pieces {
        reader.push(*offset, bytes.clone(), |piece| place(&mut placed, &piece))?;
    }
    // Two fragments may claim one place; which comes first is the stream's affair, and what
    // becomes of them is for the hash of the record to say.
    placed.values_mut().for_each(|bytes| bytes.sort_unstable());
    Ok(placed)
}

fn place(placed: &mut Placed, piece: &Piece) {
    let record = piece.record;
    assert!(!piece.bytes.is_empty());
    assert!(record.total as usize <= record.kind.len_max() && record.number < 1 << 40);
    assert!(piece.offset as usize + piece.bytes.len() <= record.total as usize);
    if record.number == PADDING {
        return;
    }
    for (at, byte) in (piece.offset..).zip(&piece.bytes) {
        placed.entry((record.kind as u8, record.number, record.total, at)).or_default().push(*byte);
    }
}

fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for i in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        items.swap(i, (seed >> 33) as usize % (i + 1));
    }
}

/// Pieces at offsets that no writer would choose: what waits for those between is bounded.
fn anywhere(mut input: Input<'_>) {
    let (mut reader, mut placed) = (RecordReader::new(), Placed::new());
    let mut pushed = 0;
    let (result, peak) = memory::peak_of(|| {
        while !input.is_empty() {
            let block = u64::from(input.byte());
            let within = u64::from(input.short()) % 8_192;
            let len = usize::from(input.byte());
            let bytes = Bytes::copy_from_slice(input.take(len));
            pushed += bytes.len() + 1;
            // The highest blocks stand for the end of the number range.
            let block = if block == 255 { (1 << 49) - 1 } else { block };
            reader.push(block * 8_192 + within, bytes, |piece| {
                assert!(piece.bytes.len() <= piece.record.total as usize);
            })?;
        }
        Ok::<_, RecordError>(())
    });
    drop((result, std::mem::take(&mut placed)));
    assert!(peak <= 4_096 + 700 * pushed, "{peak} bytes for {pushed} of a stream");
}

/// What a writer lays out is read as it was, cut anywhere.
fn written(mut input: Input<'_>) {
    let cut = usize::from(input.short()) + 1;
    let kinds = [RecordKind::Job, RecordKind::Chunk, RecordKind::Page, RecordKind::Draft];
    let (mut writer, mut stream, mut want) = (RecordWriter::new(), Vec::new(), Vec::new());
    while !input.is_empty() && want.len() < 8 {
        let kind = kinds.into_iter().cycle().nth(usize::from(input.byte() % 4));
        let kind = kind.unwrap_or(RecordKind::Job);
        let payload =
            vec![input.byte(); (usize::from(input.short()) % kind.len_max().min(20_000)).max(1)];
        writer.put(kind, want.len() as u64, &payload, &mut stream);
        want.push((kind, payload));
    }
    let cut = cut.max(stream.len() / 256);
    let (mut reader, mut found) = (RecordReader::new(), BTreeMap::new());
    for (index, piece) in stream.chunks(cut).enumerate() {
        let at = (index * cut) as u64;
        let read = reader.push(at, Bytes::copy_from_slice(piece), |piece| {
            let record: &mut (RecordKind, Vec<u8>) =
                found.entry(piece.record.number).or_insert((piece.record.kind, Vec::new()));
            assert_eq!(record.1.len(), piece.offset as usize, "the order of a record's pieces");
            record.1.extend_from_slice(&piece.bytes);
        });
        assert_eq!(read, Ok(()));
    }
    assert!(found.into_values().eq(want), "what was written is not what is read");
}
