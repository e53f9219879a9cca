//! Sharing a queue with flows that fill it: the window of CUBIC (RFC 9438), since whoever keeps a
//! short queue beside one that fills it is left with nothing.

use crate::time::Time;

use super::{COMPETE_TEST_EVERY, Controller, Phase, Round, part};

/// RFC 9438, sections 4.1 and 4.6: packets a second cubed, and what a cut leaves.
const CUBIC: f64 = 0.4;
const CUT: f64 = 0.7;
/// What a cut leaves to a flow that was found to hold less than this share of the link: beside
/// somebody who does not give way at all, CUBIC's own cut leaves it a tenth of the link.
const CUT_SMALL: f64 = 0.9;
const SHARE_SMALL: f64 = 0.3;
/// Growth a round at most, also before the queue has run over for the first time.
const GROWTH_MAX: f64 = 1.25;
/// Loss of a round, beyond what the path loses by itself, that is a queue that ran over, also for
/// a flow with a small share; and the least number of packets.
const OVER: f64 = 0.005;
const OVER_SMALL: f64 = 0.02;
const OVER_PACKETS: f64 = 2.0;
/// Time between two times of stepping aside, seconds: each costs a round trip.
const ASIDE_EVERY: f64 = 4.0;
/// Round trips between two cuts, so that each has shown what it does.
const CUT_ROUNDS: f64 = 8.0;

/// Growth since the last cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth {
    /// The last cut, the window before it, and the part that was left; none if nothing was cut.
    cut: Option<(Time, f64, f64)>,
}

impl Growth {
    /// The queue has not run over yet.
    pub(super) fn uncut() -> Self {
        Self { cut: None }
    }

    /// It ran over with a window of `top` bytes, of a flow that holds this share of the link as
    /// far as is known.
    pub(super) fn cut(now: Time, top: f64, share: f64) -> Self {
        let keep = if share < SHARE_SMALL { CUT_SMALL } else { CUT };
        Self { cut: Some((now, top, keep)) }
    }

    /// The window after the cut, bytes; 0 if there was none.
    pub(super) fn window(&self) -> f64 {
        self.cut.map_or(0.0, |(_, top, keep)| keep * top)
    }

    /// The window after a round with `window` bytes.
    fn next(&self, now: Time, window: f64, mtu: f64) -> f64 {
        let most = (GROWTH_MAX * window).max(window + mtu);
        let Some((cut, top, keep)) = self.cut else {
            return most;
        };
        let top = top / mtu;
        let back_at_top = (top * (1.0 - keep) / CUBIC).cbrt();
        let cubic = CUBIC * (now.since(cut).as_secs_f64() - back_at_top).powi(3) + top;
        (cubic * mtu).clamp(window + mtu, most)
    }

    fn may_cut(&self, now: Time, standing: f64) -> bool {
        self.cut.is_none_or(|(at, ..)| now.since(at).as_secs_f64() > CUT_ROUNDS * standing)
    }
}

impl Controller {
    pub(super) fn compete(&mut self, now: Time, round: &Round, standing: f64, growth: Growth) {
        if self.trial.is_some() || !self.was_full(round) {
            return;
        }
        let late = (standing - self.path.floor()).max(0.0);
        let wait = COMPETE_TEST_EVERY * (1.0 + 0.25 * self.next_chance());
        let is_due = now.since(self.tested).as_secs_f64() > wait;
        let lost = part(round.lost, round.acked);
        let over = if self.share < SHARE_SMALL { OVER_SMALL } else { OVER };
        let ran_over = round.lost >= OVER_PACKETS * self.mtu && lost > self.losses.random() + over;
        if ran_over && late < self.path.alarm() {
            // A queue that runs over while it is short is no place to compete for.
            self.give_way(now, 0.0);
            self.phase = Phase::Cruise;
        } else if ran_over && growth.may_cut(now, standing) {
            self.cut_down(now, standing);
        } else if is_due {
            let cut = (0.5 * self.rate * late).min(self.window / 2.0).max(self.mtu);
            self.test(now, standing, cut, Some(growth));
        } else {
            self.window = growth.next(now, self.window, self.mtu);
            self.phase = Phase::Compete(growth);
        }
    }

    /// The queue ran over, or was marked as if it had.
    fn cut_down(&mut self, now: Time, standing: f64) {
        if now.since(self.aside).as_secs_f64() > ASIDE_EVERY {
            self.step_aside(now, standing);
        } else {
            let growth = Growth::cut(now, self.window, self.share);
            self.window = growth.window();
            self.phase = Phase::Compete(growth);
        }
    }

    /// The path marked a packet: a word like that of a queue that ran over, within the same limits.
    pub(super) fn marked_while_competing(&mut self, now: Time, growth: Growth) {
        let standing = self.path.newest();
        if self.trial.is_none() && growth.may_cut(now, standing) {
            self.cut_down(now, standing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_rfc_9438() {
        let (mtu, top) = (1_000.0, 1_000_000.0);
        let growth = Growth::cut(Time::ZERO, top, 1.0);
        // 1,000 packets are reached again after the cube root of 300 / 0.4, 9.1 s; somewhat earlier
        // with the packet a round that growth never falls below.
        let mut window = growth.window();
        assert!((window - 700_000.0).abs() < 1.0);
        let mut reached = None;
        for step in 1..200_u64 {
            let now = Time::from_micros(step * 100_000);
            window = growth.next(now, window, mtu);
            if window >= top && reached.is_none() {
                reached = Some(step);
            }
        }
        assert!(reached.is_some_and(|tenths| (60..=91).contains(&tenths)), "{reached:?}");
    }

    #[test]
    fn growth_before_the_first_cut_is_a_quarter_a_round() {
        assert!((Growth::uncut().next(Time::ZERO, 1e6, 1e3) - 1.25e6).abs() < 1.0);
    }
}
