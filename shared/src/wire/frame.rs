//! Frames: a type, a length, a body. Unknown types can be skipped.
//!
//! A control stream and a control datagram carry frames one behind the other. A frame is
//! `type: u8`, `length: u24` little-endian, `body`.

use bytes::{Buf, Bytes, BytesMut};

use super::codec::DecodeError;

/// Bytes before the body of a frame.
pub const FRAME_HEADER_LEN: usize = 4;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which message the body is; see [`super::message::FrameType`].
    pub kind: u8,
    /// The encoded message.
    pub body: Bytes,
}

/// Appends a frame to `out`. Bodies are cut by their limits long before the 16 MiB of u24.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let [a, b, c, _] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&[kind, a, b, c]);
    out.extend_from_slice(body);
}

/// Takes frames off the front of a byte stream that arrives in pieces.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// A reader with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing is left over: the stream may end here.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] if a frame announces a body longer than `limit`.
    pub fn next(&mut self, limit: usize) -> Result<Option<Frame>, DecodeError> {
        let Some(&[kind, a, b, c]) = self.buffer.first_chunk::<FRAME_HEADER_LEN>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(usize::MAX);
        if len > limit {
            return Err(DecodeError::TooLong { len, limit });
        }
        if self.buffer.len() - FRAME_HEADER_LEN < len {
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEADER_LEN);
        Ok(Some(Frame { kind, body: self.buffer.split_to(len).freeze() }))
    }
}

/// The frames of one datagram.
///
/// # Errors
/// [`DecodeError`] if the last frame is cut off: a datagram carries whole frames.
pub fn datagram_frames(datagram: &[u8]) -> Result<Vec<Frame>, DecodeError> {
    let mut reader = FrameReader::new();
    reader.push(datagram);
    let mut frames = Vec::new();
    while let Some(frame) = reader.next(datagram.len())? {
        frames.push(frame);
    }
    if reader.is_empty() { Ok(frames) } else { Err(DecodeError::Trailing(reader.buffer.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, b"one");
        put_frame(&mut bytes, 200, b"");
        put_frame(&mut bytes, 3, &[9; 300]);
        let mut reader = FrameReader::new();
        let mut found = Vec::new();
        for byte in &bytes {
            reader.push(std::slice::from_ref(byte));
            found.extend(reader.next(300).unwrap());
        }
        assert!(reader.is_empty());
        assert_eq!(found, datagram_frames(&bytes).unwrap());
        assert_eq!(
            found.iter().map(|f| (f.kind, f.body.len())).collect::<Vec<_>>(),
            [(1, 3), (200, 0), (3, 300)]
        );
    }

    #[test]
    fn long_and_cut_off_frames_are_refused() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, &[0; 20]);
        let mut reader = FrameReader::new();
        reader.push(&bytes);
        assert_eq!(reader.next(19), Err(DecodeError::TooLong { len: 20, limit: 19 }));
        assert!(datagram_frames(&bytes[..23]).is_err());
        assert!(datagram_frames(&bytes[..3]).is_err());
    }
}
