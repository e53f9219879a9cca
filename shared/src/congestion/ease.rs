//! Whether less is lost when less is sent.
//!
//! A queue may be too short to be seen: shorter than what timers, batches and acknowledgements
//! that come together make of a round trip. A flow that overfills it loses packets that look like
//! those of a path which loses at random. So a flow that loses for long sends less for a moment:
//! what a path loses at random it still loses, what a queue dropped is gone. Then the window stays
//! below what was too much, and grows towards it slowly.

use std::time::Duration;

use crate::time::Time;

use super::{Controller, Round, part};

/// Loss from which on a flow asks: below, less would be gained than asking costs.
const LOSS: f64 = 0.02;
/// Packets that must have been lost lately for that, and what the counters keep from one round to the
/// next: they remember some 30 rounds.
const LOST_MIN: f64 = 30.0;
const KEEP: f64 = 0.97;
/// A queue longer than this, seconds, can be seen: its losses are told by [`super::loss`].
const SEEN: f64 = 0.004;
/// Part of the window that is held back while it asks. A flow that has an eighth of a link that is
/// overfilled by 5 % sees its loss halved.
const CUT: f64 = 0.25;
/// Lost packets that are expected before the answer counts, and how many do if time is over.
const EXPECTED: f64 = 40.0;
const EXPECTED_MIN: f64 = 15.0;
const PATIENCE: Duration = Duration::from_secs(3);
/// What of the loss may be left if a queue was the reason. Chance takes two fifths of 40 losses
/// away in one of 200 times.
const LEFT: f64 = 0.62;
/// How long a path that loses at random is not asked again, unless it loses this much more.
const REST: Duration = Duration::from_secs(8);
const WORSE: f64 = 1.5;
/// Growth of the highest window, packets a second: flows that share the queue come to have the same
/// that way, as with RFC 5681, whatever their round trips.
const CEILING_GROWTH: f64 = 50.0;

/// What is known of loss by asking.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ease {
    /// Bytes that were acknowledged and lost lately.
    acked: f64,
    lost: f64,
    asked: Option<Asked>,
    /// The highest window while a queue is known that runs over above it.
    ceiling: Option<f64>,
    /// When the path was found to lose at random last, and how much.
    random: Option<(Time, f64)>,
}

/// A question under way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// Packets sent from here on count.
    from: Time,
    /// The loss before.
    loss: f64,
    /// The window before.
    window: f64,
    acked: f64,
    lost: f64,
}

impl Ease {
    /// Bytes of a packet that was sent at `sent` were acknowledged.
    pub(super) fn acked(&mut self, sent: Time, bytes: f64) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| sent >= asked.from) {
            asked.acked += bytes;
        }
    }

    /// Bytes of packets that were sent at `sent` were lost.
    pub(super) fn lost(&mut self, sent: Time, bytes: f64) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| sent >= asked.from) {
            asked.lost += bytes;
        }
    }

    fn end_round(&mut self, round: &Round) {
        self.acked = KEEP * self.acked + round.acked;
        self.lost = KEEP * self.lost + round.lost;
    }

    /// Part of the packets that was lost lately, if they were enough to tell.
    fn loss(&self, mtu: f64) -> Option<f64> {
        (self.lost >= LOST_MIN * mtu).then(|| part(self.lost, self.acked))
    }

    /// Whether the window is held back to see what it does.
    pub(super) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// What was found does not hold any more: the path is another one.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn is_rested(&self, now: Time, loss: f64) -> bool {
        self.random.is_none_or(|(at, random)| now.since(at) >= REST || loss > WORSE * random + LOSS)
    }
}

impl Controller {
    /// Asks, listens, or keeps to what was found; once a round.
    pub(super) fn ease_off(&mut self, now: Time, round: &Round) {
        self.ease.end_round(round);
        let unseen = self.path.longest_queue() < SEEN;
        let loss = self.ease.loss(self.mtu).filter(|loss| *loss > LOSS);
        if let Some(asked) = self.ease.asked {
            self.hear(now, &asked);
        } else if let Some(loss) = loss.filter(|_| unseen && self.was_full(round))
            && self.ease.is_rested(now, loss)
        {
            let window = self.window;
            self.ease.asked = Some(Asked { from: now, loss, window, acked: 0.0, lost: 0.0 });
            self.window *= 1.0 - CUT;
        }
        if let Some(ceiling) = &mut self.ease.ceiling {
            *ceiling += CEILING_GROWTH * self.mtu * self.path.base();
            self.window = self.window.min(*ceiling);
        }
    }

    fn hear(&mut self, now: Time, asked: &Asked) {
        let held_back = (1.0 - CUT) * asked.window;
        let expected = (asked.acked + asked.lost) * asked.loss / self.mtu;
        if expected < EXPECTED && now.since(asked.from) < PATIENCE {
            self.window = self.window.min(held_back);
            return;
        }
        self.ease.asked = None;
        let lost = asked.lost / self.mtu;
        if expected >= EXPECTED_MIN && lost <= LEFT * expected {
            self.ease.ceiling = Some(held_back);
            (self.ease.acked, self.ease.lost) = (0.0, 0.0);
        } else {
            self.ease.random = Some((now, asked.loss));
            self.ease.ceiling = None;
            self.window = asked.window.min(self.window / (1.0 - CUT));
        }
    }
}
