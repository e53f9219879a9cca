//! The newest chunks of a job in memory, so that they reach several receivers unread.

use std::collections::VecDeque;

use bytes::Bytes;

/// A bounded ring of chunks, oldest out first.
#[derive(Debug)]
pub struct Recent {
    chunks: VecDeque<(u64, Bytes)>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    /// A ring of at most `bytes_max` bytes.
    pub const fn new(bytes_max: usize) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds a chunk and drops the oldest ones that no longer fit.
    pub fn insert(&mut self, chunk: u64, payload: Bytes) {
        self.bytes += cost(&payload);
        self.chunks.push_back((chunk, payload));
        while self.bytes > self.bytes_max {
            let Some((_, gone)) = self.chunks.pop_front() else { break };
            self.bytes -= cost(&gone);
        }
    }

    /// The payload of `chunk`, if it is still here.
    pub fn get(&self, chunk: u64) -> Option<Bytes> {
        // What is asked for came lately: look from the newest end.
        let found = self.chunks.iter().rev().find(|(number, _)| *number == chunk);
        found.map(|(_, payload)| payload.clone())
    }
}

/// What a chunk takes: live ones may be of a few bytes.
const fn cost(payload: &Bytes) -> usize {
    const ENTRY: usize = 128;
    payload.len() + ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_chunks_make_room() {
        let mut recent = Recent::new(2 * cost(&Bytes::from_static(b"four")));
        for chunk in 0..5 {
            recent.insert(chunk, Bytes::from(vec![chunk as u8; 4]));
        }
        assert_eq!(recent.get(2), None);
        assert_eq!(recent.get(3), Some(Bytes::from(vec![3; 4])));
        assert_eq!(recent.get(4), Some(Bytes::from(vec![4; 4])));
    }
}
