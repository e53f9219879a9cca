//! How many job streams a peer may have open on a connection.
//!
//! quinn sets a place aside for each that is allowed, 50 KiB for [`limit::JOBS_OPEN_MAX`], and a
//! node has up to 64 connections. So few are allowed at first, and twice as many each time that
//! half are taken: who opens one at a time never waits.

use std::sync::Arc;

use shared::limit;

/// Job streams that a peer may have open at first, and at most.
pub(crate) const FIRST: u32 = 32;
pub(crate) const MOST: u32 = limit::JOBS_OPEN_MAX as u32 + 24;

/// The room for the streams of one connection.
#[derive(Debug)]
pub(crate) struct StreamRoom {
    taken: Arc<()>,
    allowed: u32,
}

/// The place of an open stream; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _taken: Arc<()>,
}

impl StreamRoom {
    pub(crate) fn new() -> Self {
        Self { taken: Arc::new(()), allowed: FIRST }
    }

    /// A stream was opened. Gives its place, and how many are allowed from now on if that changes.
    pub(crate) fn take(&mut self) -> (Place, Option<u32>) {
        let place = Place { _taken: Arc::clone(&self.taken) };
        let open = Arc::strong_count(&self.taken) - 1;
        if 2 * open < self.allowed as usize || self.allowed == MOST {
            return (place, None);
        }
        self.allowed = (2 * self.allowed).min(MOST);
        (place, Some(self.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_doubles_when_half_is_taken_up_to_the_most() {
        let mut room = StreamRoom::new();
        let mut allowed = FIRST;
        let mut places = Vec::new();
        for open in 1..=MOST {
            let (place, more) = room.take();
            places.push(place);
            allowed = more.unwrap_or(allowed);
            assert!(allowed > open || allowed == MOST, "{open} of {allowed}");
        }
        assert_eq!(allowed, MOST);
    }

    #[test]
    fn a_place_that_is_free_again_counts_no_more() {
        let mut room = StreamRoom::new();
        for _ in 0..10 * FIRST {
            let (place, more) = room.take();
            assert_eq!(more, None);
            drop(place);
        }
    }
}
