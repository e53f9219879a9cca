//! A path that has become longer by less than an alarm: by 4 ms of 20, say.
//!
//! It looks like a queue that others keep, and the flow would shrink until its own queue is all
//! that the difference leaves room for: a seventh of the link. But a queue that is shared becomes
//! shorter when one of those who share it sends less, by its share of what was left out, and a
//! longer path does not. A flow whose rate has fallen asks for this with half of its window; two
//! answers in a row that nothing has moved make the round trip that was seen the path's own. A look
//! at the empty path ([`super::dip`]) answers too.
//!
//! Only a window of 80 packets asks, of 24 the second time. In a smaller one the answer is in the
//! grain of packets and of what others send meanwhile, and flows that share 20 Mbit/s with as much
//! coming back were left with the rates that chance gave them.

use crate::time::Time;

/// A rate below this part of the usual one is asked about.
const POOR: f64 = 0.6;
/// How fast the usual rate follows one that is lower, each round, and what an answer leaves of it:
/// a link that carries less from now on is not asked about for ever.
const USUAL_GAIN: f64 = 0.01;
const USUAL_KEEP: f64 = 0.9;
/// Time between two such questions, seconds, and after one that nothing has moved.
const ASK_EVERY: f64 = 2.0;
const ASK_AGAIN: f64 = 1.0;
/// What a question takes out of the window, and the packets that this must be at first: each costs
/// a flow half a round trip, and flows that take turns on 20 Mbit/s have poor rates often.
pub(super) const ASK_PART: f64 = 0.5;
const ASK_PACKETS: f64 = 40.0;
/// A share of the link below which nothing has moved: 3 % of the round trip with half of a window
/// left out. A flow that has less than this of a link cannot tell a longer path from the others.
const UNMOVED_SHARE: f64 = 0.06;
/// Packets whose absence must have moved a queue that is shared.
const UNMOVED_PACKETS: f64 = 12.0;
/// What stands must be this part of the queue that the flow keeps, or it costs next to nothing.
const UNMOVED_QUEUE: f64 = 0.5;
/// Answers in a row.
const UNMOVED_TIMES: u32 = 2;
/// How long an answer counts, seconds.
const ANSWER_KEEP: f64 = 10.0;

/// What a dip has shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    /// How far the round trip followed: this flow's share of the link, below 0 if it rose.
    pub(super) moved: f64,
    /// Packets that were left out.
    pub(super) packets: f64,
    /// What still stands above the base, in queues that this flow keeps.
    pub(super) queues: f64,
}

/// Whether the path has become longer. Rates in bytes a second.
#[derive(Debug, Clone, Default)]
pub(super) struct Longer {
    usual: f64,
    asked: Time,
    answered: Time,
    unmoved: u32,
}

impl Longer {
    /// The rate of a round.
    pub(super) fn rate(&mut self, rate: f64) {
        self.usual = rate.max(self.usual + USUAL_GAIN * (rate - self.usual));
    }

    /// Whether to ask now, with `window` bytes in packets of `mtu`.
    pub(super) fn is_due(&self, now: Time, rate: f64, window: f64, mtu: f64) -> bool {
        let waited = now.since(self.answered.max(self.asked)).as_secs_f64();
        let packets = ASK_PART * window / mtu;
        match self.unmoved {
            0 => packets > ASK_PACKETS && rate < POOR * self.usual && waited > ASK_EVERY,
            _ => packets > UNMOVED_PACKETS && waited > ASK_AGAIN,
        }
    }

    /// It is asked now.
    pub(super) fn asked(&mut self, now: Time) {
        self.asked = now;
        self.usual *= USUAL_KEEP;
    }

    /// Takes the answer; whether the path has become longer.
    pub(super) fn take(&mut self, now: Time, answer: Answer) -> bool {
        let before = std::mem::replace(&mut self.answered, now);
        if now.since(before).as_secs_f64() > ANSWER_KEEP {
            self.unmoved = 0;
        }
        let unmoved = answer.moved.abs() < UNMOVED_SHARE
            && answer.packets > UNMOVED_PACKETS
            && answer.queues > UNMOVED_QUEUE;
        self.unmoved = if unmoved { self.unmoved + 1 } else { 0 };
        let longer = self.unmoved >= UNMOVED_TIMES;
        self.unmoved = if longer { 0 } else { self.unmoved };
        longer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: f64 = 1_250.0;
    const RATE: f64 = 1e7;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn takes_at(longer: &mut Longer, seconds: u64, moved: f64) -> bool {
        longer.take(at(seconds), Answer { moved, packets: 50.0, queues: 4.0 })
    }

    fn takes(longer: &mut Longer, moved: f64) -> bool {
        takes_at(longer, 1, moved)
    }

    #[test]
    fn two_answers_that_nothing_has_moved_are_a_longer_path() {
        let mut longer = Longer::default();
        assert!(!takes(&mut longer, 0.0));
        assert!(takes(&mut longer, 0.0));
        assert!(!takes(&mut longer, 0.0));
    }

    #[test]
    fn a_queue_that_follows_is_none() {
        let mut longer = Longer::default();
        assert!(!takes(&mut longer, 0.0));
        assert!(!takes(&mut longer, 0.12));
        assert!(!takes(&mut longer, 0.0));
    }

    #[test]
    fn what_is_small_says_nothing() {
        for (packets, queues) in [(10.0, 4.0), (50.0, 0.4)] {
            let mut longer = Longer::default();
            let answer = Answer { moved: 0.0, packets, queues };
            assert!(!longer.take(at(1), answer));
            assert!(!longer.take(at(2), answer), "{answer:?}");
        }
    }

    #[test]
    fn an_old_answer_counts_no_more() {
        let mut longer = Longer::default();
        assert!(!takes_at(&mut longer, 1, 0.0));
        assert!(!takes_at(&mut longer, 12, 0.0));
        assert!(takes_at(&mut longer, 13, 0.0));
    }

    #[test]
    fn it_is_asked_while_the_rate_is_poor_and_the_window_wide() {
        let wide = 90.0 * MTU;
        let mut longer = Longer::default();
        longer.rate(RATE);
        assert!(!longer.is_due(at(9), 0.7 * RATE, wide, MTU));
        assert!(longer.is_due(at(9), 0.5 * RATE, wide, MTU));
        assert!(!longer.is_due(at(9), 0.5 * RATE, 70.0 * MTU, MTU));
        longer.asked(at(9));
        assert!(!longer.is_due(at(10), 0.5 * RATE, wide, MTU));
        assert!(longer.is_due(at(12), 0.5 * RATE, wide, MTU));
        longer.asked(at(12));
        longer.asked(at(15));
        assert!(!longer.is_due(at(18), 0.5 * RATE, wide, MTU), "it is the usual rate by now");
        takes_at(&mut longer, 19, 0.0);
        assert!(!longer.is_due(at(20), 0.5 * RATE, wide, MTU));
        assert!(
            longer.is_due(at(21), 0.5 * RATE, 28.0 * MTU, MTU),
            "once unmoved it is asked again"
        );
        assert!(!longer.is_due(at(21), 0.5 * RATE, 20.0 * MTU, MTU));
    }
}
