//! How long is waited for what: by whether a job has one stripe, as live streams have, or more,
//! and by how its chunks come.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// How long is waited in a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// A source brings nothing of a stripe: at least so long. At most [`IDLE_MAX`].
    pub(super) idle: Duration,
    /// It was chosen and has brought nothing yet.
    pub(super) first: Duration,
    /// It brings nothing, and at most [`AT_END`] chunks are known that it could bring: then at most
    /// so long.
    pub(super) at_end: Duration,
    /// It brings nothing though another node says to have more: if it is on its way, it comes
    /// within so long. No matter if the base says so: what it has told of is overdue.
    pub(super) lacks: Duration,
    /// Other nodes are asked for a stripe before the base is.
    pub(super) alone: Duration,
    /// A node asks the base in vain; and the base has fed another one for that reason, which did
    /// not take it.
    pub(super) adopt: Duration,
    /// The base has had a new chunk that a node lacks which asks for it, if that counts: so long a
    /// chunk may take over the node's source.
    pub(super) overdue: Option<Duration>,
    /// A node that the base feeds since it has asked gives it to those that ask as well.
    pub(super) passes_on: Duration,
    /// Receivers are told how far this source is, while nothing else changes.
    pub(super) progress: Duration,
    /// The same while they may wait for it: it has gone on lately.
    pub(super) resumed: Duration,
}

/// How long a source may bring nothing when nothing is known of how long a chunk takes.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(10);
/// Who lacks at most so many chunks follows the stream, and does not catch up: they are short.
pub(super) const AT_END: u64 = 2;
/// How long a source that goes on after a pause, or feeds anew, tells its progress more often.
pub(super) const RESUMED: Duration = Duration::from_millis(500);

/// Sets of files: a source that is left early costs uplink, and nobody waits for the next chunk.
const OF_FILES: Patience = Patience {
    idle: Duration::from_secs(1),
    first: Duration::from_secs(1),
    at_end: IDLE_MAX,
    lacks: Duration::ZERO,
    alone: Duration::from_secs(3),
    adopt: Duration::from_secs(1),
    overdue: None,
    passes_on: Duration::from_secs(1),
    progress: Duration::from_millis(200),
    resumed: Duration::from_millis(200),
};

/// Live streams: half a second is what a viewer may notice, of which a look takes up to 100 ms
/// and the way from the base over a node to others three and a half round trips. Who asks the base
/// though nothing new is there has said one word too many, which the base keeps; a chunk may
/// take 150 ms over two or three nodes.
const OF_LIVE: Patience = Patience {
    idle: Duration::from_millis(150),
    first: Duration::from_millis(500),
    at_end: Duration::from_millis(300),
    lacks: Duration::from_millis(100),
    alone: Duration::from_millis(150),
    adopt: Duration::from_millis(300),
    overdue: Some(Duration::from_millis(150)),
    passes_on: Duration::from_secs(1),
    progress: Duration::from_millis(200),
    resumed: Duration::from_millis(20),
};

impl Patience {
    pub(super) const fn of(stripes: u64) -> Self {
        if stripes == 1 { OF_LIVE } else { OF_FILES }
    }
}

/// How long it takes from one chunk to the next: the mean and how far from it that usually is, as
/// RFC 6298 has it for round trips.
#[derive(Debug, Clone, Default)]
pub(super) struct Cadence {
    last: Option<Time>,
    mean: Duration,
    deviation: Duration,
}

/// Deviations from the mean that are usual.
const DEVIATIONS: u32 = 4;

impl Cadence {
    /// A chunk has come. How long after the one before.
    pub(super) fn chunk(&mut self, now: Time) -> Duration {
        let Some(last) = self.last.replace(now) else { return Duration::ZERO };
        let took = now.since(last);
        if self.mean.is_zero() {
            (self.mean, self.deviation) = (took, took / 2);
        }
        self.deviation = (self.deviation * 3 + self.mean.abs_diff(took)) / 4;
        self.mean = (self.mean * 7 + took) / 8;
        took
    }

    pub(super) const fn mean(&self) -> Duration {
        self.mean
    }

    /// After how long without a chunk that is unusual.
    pub(super) fn usual(&self) -> Duration {
        self.mean.saturating_add(self.deviation.saturating_mul(DEVIATIONS))
    }
}

/// Times are kept of numbers that were reached so far from each other, at least, and of so many.
const APART: Duration = Duration::from_millis(10);
const MARKS_MAX: usize = 256;

/// When chunks came to be here, with all before them: of the newest ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Reached(VecDeque<(u64, Time)>);

impl Reached {
    /// All chunks below `below` are here.
    pub(super) fn note(&mut self, below: u64, now: Time) {
        match self.0.back_mut() {
            Some((last, _)) if below <= *last => {}
            Some((last, at)) if now.since(*at) < APART => *last = below,
            Some(_) | None => {
                if self.0.len() >= MARKS_MAX {
                    self.0.pop_front();
                }
                self.0.push_back((below, now));
            }
        }
    }

    /// When `chunk` was here, if it is and that is remembered.
    pub(super) fn at(&self, chunk: u64) -> Option<Time> {
        let oldest = self.0.front().is_some_and(|(below, _)| *below > chunk);
        let mark = self.0.partition_point(|(below, _)| *below <= chunk);
        self.0.get(mark).filter(|_| !oldest).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1_000)
    }

    #[test]
    fn what_is_usual_follows_the_chunks() {
        let mut cadence = Cadence::default();
        (0..200).for_each(|chunk| _ = cadence.chunk(at(100 * chunk)));
        assert!((99..110).contains(&cadence.usual().as_millis()), "{cadence:?}");
        (0..400).for_each(|chunk| _ = cadence.chunk(at(20_000 + 20 * chunk + 10 * (chunk % 2))));
        assert!((50..80).contains(&cadence.usual().as_millis()), "{cadence:?}");
    }

    #[test]
    fn it_is_known_when_the_newest_chunks_came() {
        let mut reached = Reached::default();
        assert_eq!(reached.at(0), None);
        reached.note(0, at(0));
        reached.note(3, at(20));
        reached.note(4, at(25));
        reached.note(3, at(28));
        reached.note(9, at(40));
        assert_eq!(
            [0, 2, 3, 4, 8, 9].map(|chunk| reached.at(chunk)),
            [Some(at(20)), Some(at(20)), Some(at(20)), Some(at(40)), Some(at(40)), None]
        );
        (10..1_000).for_each(|chunk| reached.note(chunk, at(20 * chunk)));
        assert_eq!((reached.at(500), reached.at(998)), (None, Some(at(19_980))));
        assert_eq!(reached.0.len(), MARKS_MAX);
    }
}
