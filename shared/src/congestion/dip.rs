//! Dips: the window shrinks for an instant, and the round trip tells why there is a queue.
//!
//! A dip of `cut` bytes takes `cut / capacity` seconds out of the queue of a link. A flow knows
//! its rate, not the capacity: if the round trip falls by less than `cut / rate`, the quotient is
//! the flow's share of the link. An empty path, or one that became longer, does not fall at all.

use crate::time::Time;

use super::compete::Growth;
use super::longer::{ASK_PART, Answer};
use super::{
    Controller, FOREIGN_WITHIN, OURS_ROUNDS, OVERFLOW_WITHIN, PROBATION, Phase, SHARE_ALONE,
    SHARE_OURS,
};

/// How long the window stays low, once the bytes in flight have followed: half a base within
/// these bounds, seconds. Others must see it.
const HOLD_PART: f64 = 0.5;
const HOLD: (f64, f64) = (0.01, 0.05);
/// What a look takes out: this part of the window, or so many times what the flow keeps in the
/// queue if that is more, and half of the window at most.
const LOOK_PART: f64 = 0.25;
const LOOK_QUEUES: f64 = 4.0;
/// A look that leaves a queue of this part of an alarm, and this part of the queue before, has not
/// cleared it.
const LOOK_CLEARS: f64 = 0.25;
const LOOK_LEAVES: f64 = 0.4;
/// After so many such looks in a row, at a queue that is not at rest, it is somebody else's.
const KEPT_LOOKS: u32 = 2;
/// Packets of a dip from which on the second least round trip counts, not the least.
const SURE: u32 = 4;
/// Round trips after which all packets of a dip have been acknowledged.
const ANSWERED: f64 = 1.1;
/// Packets in flight of a flow that steps aside.
const ASIDE_PACKETS: f64 = 4.0;

/// A dip under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dip {
    /// Since when the bytes in flight have been low.
    low_since: Option<Time>,
    /// The window after it.
    after: f64,
    /// What goes on after it, if the flow competes.
    growth: Option<Growth>,
}

/// Why there is a dip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// To see the path without the queue.
    Look,
    /// To see whether the path has become longer.
    Longer,
    /// To see whose queue it is.
    Share,
    /// The queue ran over while the flow competed: to see whether it fills again.
    Aside,
}

/// What a dip is to show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    why: Why,
    /// Packets sent from here on count.
    from: Option<Time>,
    /// Least round trip of these, and the standing one before, seconds.
    least: f64,
    lowest: [f64; 2],
    count: u32,
    before: f64,
    cut: f64,
    rate: f64,
    /// The window before.
    window: f64,
}

impl Trial {
    /// A packet sent at `sent` came through in `rtt` seconds.
    pub(super) fn seen(&mut self, sent: Time, rtt: f64) {
        if self.from.is_some_and(|from| sent >= from) {
            let [first, second] = self.lowest;
            let (first, second) = (first.min(rtt), second.min(rtt.max(first)));
            self.lowest = [first, second];
            self.count += 1;
            self.least = if self.count < SURE { first } else { second };
        }
    }

    /// The flow's share of the link, 0 to 1.
    fn share(&self) -> f64 {
        self.moved().max(0.0)
    }

    /// How far the round trip followed, as a part of what `cut` takes at the flow's own rate.
    fn moved(&self) -> f64 {
        (self.before - self.least) * self.rate / self.cut
    }
}

impl Controller {
    /// Dips to see the path without the queue.
    pub(super) fn look(&mut self, standing: f64) {
        let cut = (LOOK_QUEUES * self.queue()).max(LOOK_PART * self.window).min(self.window / 2.0);
        self.begin(Why::Look, standing, cut, self.window, None);
    }

    /// Dips to see whether the path has become longer.
    pub(super) fn ask_if_longer(&mut self, now: Time, standing: f64) {
        self.longer.asked(now);
        self.begin(Why::Longer, standing, ASK_PART * self.window, self.window, None);
    }

    /// Dips by `cut` bytes to see whose queue it is.
    pub(super) fn test(&mut self, now: Time, standing: f64, cut: f64, growth: Option<Growth>) {
        self.tested = now;
        self.begin(Why::Share, standing, cut, self.window, growth);
    }

    /// Leaves the queue to the others for a round trip, and comes back with what RFC 9438 leaves.
    pub(super) fn step_aside(&mut self, now: Time, standing: f64) {
        (self.tested, self.aside) = (now, now);
        let growth = Growth::cut(now, self.window, self.share);
        let cut = (self.window - ASIDE_PACKETS * self.mtu).max(self.mtu);
        self.begin(Why::Aside, standing, cut, growth.window(), Some(growth));
    }

    fn begin(&mut self, why: Why, before: f64, cut: f64, after: f64, growth: Option<Growth>) {
        let (rate, window) = (self.rate, self.window);
        self.trial = Some(Trial {
            why,
            from: None,
            least: f64::INFINITY,
            lowest: [f64::INFINITY; 2],
            count: 0,
            before,
            cut,
            rate,
            window,
        });
        self.window -= cut;
        self.phase = Phase::Dip(Dip { low_since: None, after, growth });
    }

    pub(super) fn dip(&mut self, now: Time, dip: Dip) {
        let hold = (HOLD_PART * self.path.base()).clamp(HOLD.0, HOLD.1);
        match dip.low_since {
            None if self.in_flight <= self.window + self.mtu => {
                self.phase = Phase::Dip(Dip { low_since: Some(now), ..dip });
                if let Some(trial) = &mut self.trial {
                    trial.from = Some(now);
                }
            }
            Some(since) if now.since(since).as_secs_f64() >= hold => {
                self.window = dip.after;
                self.phase = dip.growth.map_or(Phase::Cruise, Phase::Compete);
            }
            _ => {}
        }
    }

    /// Judges a dip whose packets have been acknowledged.
    pub(super) fn finish_trial(&mut self, now: Time) {
        let over = |trial: &Trial| {
            let waited = trial.from.map_or(0.0, |from| now.since(from).as_secs_f64());
            trial.least.is_finite() && waited >= ANSWERED * trial.least
        };
        let Some(trial) = self.trial.filter(over) else {
            return;
        };
        self.trial = None;
        // The acknowledgement that ends a trial may be the one that ends its dip.
        let growth = match self.phase {
            Phase::Compete(growth) => Some(growth),
            Phase::Dip(dip) => dip.growth,
            _ => None,
        };
        match (trial.why, growth) {
            (Why::Look, _) => self.judge_look(now, &trial),
            (Why::Longer, _) => _ = self.is_longer(now, &trial),
            (_, Some(growth)) => {
                self.share = trial.share();
                self.judge_rivals(now, &trial, growth);
            }
            (_, None) => self.judge_queue(now, &trial),
        }
    }

    fn is_drained(&self, trial: &Trial) -> bool {
        trial.least < self.path.floor() + 0.5 * self.path.alarm()
    }

    /// A look at the path. Flows of this kind dip together and clear their queue, and it
    /// does not move between dips; a queue that does, and is still there, is somebody else's.
    fn judge_look(&mut self, now: Time, trial: &Trial) {
        let base = self.path.base();
        let standing = trial.before - base;
        let still = trial.least - base;
        let kept = still > LOOK_CLEARS * self.path.alarm() && still > LOOK_LEAVES * standing;
        self.path.looked(now, trial.least);
        if self.is_longer(now, trial) {
            return;
        }
        let foreign = kept && self.path.is_restless(now);
        self.kept_queues = if foreign { self.kept_queues + 1 } else { 0 };
        if self.kept_queues >= KEPT_LOOKS {
            self.kept_queues = 0;
            self.phase = Phase::Compete(Growth::uncut());
        }
    }

    /// Whether the path has become longer, as far as this dip tells.
    fn is_longer(&mut self, now: Time, trial: &Trial) -> bool {
        let answer = Answer {
            moved: trial.moved(),
            packets: trial.cut / self.mtu,
            queues: (trial.least - self.path.base()) * trial.rate / self.queue(),
        };
        let longer = self.longer.take(now, answer) && !self.path.is_restless(now);
        if longer {
            self.path.rebase(now, trial.least);
            (self.alarm, self.kept_queues) = (None, 0);
        }
        longer
    }

    /// A queue met while cruising: ours, or another's.
    fn judge_queue(&mut self, now: Time, trial: &Trial) {
        let drained = self.is_drained(trial);
        if drained || trial.share() > SHARE_OURS {
            let rest = std::time::Duration::from_secs_f64(OURS_ROUNDS * trial.before);
            self.ours_until = now + rest;
            if !drained {
                self.path.rebase(now, trial.least.min(self.path.base()));
            }
            return;
        }
        let (count, last) = self.foreign;
        let again = now.since(last).as_secs_f64() <= FOREIGN_WITHIN;
        self.foreign = (if again { count + 1 } else { 1 }, now);
        let above_floor = trial.least > self.path.floor() + self.path.alarm();
        self.path.rebase(now, trial.least);
        let filled = self.losses.overflowed(now, OVERFLOW_WITHIN);
        if (self.foreign.0 >= 2 || filled) && above_floor {
            self.phase = Phase::Compete(Growth::uncut());
        }
    }

    /// A queue met while competing: whether anybody else fills it.
    fn judge_rivals(&mut self, now: Time, trial: &Trial, growth: Growth) {
        match trial.why {
            // What flows of this kind hold together is gone when all step aside, as they do when
            // the queue runs over for all. Somebody who does not will have it back soon.
            Why::Aside if self.is_drained(trial) => {
                self.window = trial.window * self.path.floor() / trial.before;
                self.path.rebase(now, trial.least);
                let until = now + std::time::Duration::from_secs_f64(PROBATION);
                self.probation = Some((until, growth));
                self.phase = Phase::Cruise;
            }
            Why::Share if trial.share() > SHARE_ALONE => {
                self.foreign = (0, now);
                self.path.rebase(now, self.path.floor());
                self.phase = Phase::Cruise;
            }
            _ => {}
        }
    }
}
