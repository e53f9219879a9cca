//! Whether another source would bring the only stripe of a live stream earlier.
//!
//! All sources of a live stream bring it at its own rate, so their rates say nothing. Every word of
//! another node of how far it is says when its newest chunk could have been on its way here; how
//! much later, or earlier, that chunk came from the present source is what the other one would
//! gain. Clocks are not compared: both times are taken here. The change is made as after a trial:
//! the source before sends what it would soon have sent, the new one what is behind that.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::PeerId;
use crate::time::Time;

use super::patience::AT_END;
use super::trial::{SETTLED, SURE};
use super::upstream::Upstream;
use super::{Effect, Relay, Span, SwitchReason};

/// What another source must gain: less is not worth a change, and a chunk that waits at a sender
/// for its next word may seem later by as much.
const GAIN_LEAST: Duration = Duration::from_millis(50);
/// Words that a verdict needs, and over how long they must have come; how many are kept, and how
/// long they count. Words come five times a second, after a pause fifty times for half of one.
const WORDS_MIN: usize = 5;
const WORDS_TIME: Duration = Duration::from_secs(1);
const WORDS_MAX: usize = 64;
const WORDS_AGE: Duration = Duration::from_secs(4);
/// Who lags behind its source as much as so long before, give or take [`AT_END`] chunks, does not
/// catch up.
const STEADY: Duration = Duration::from_secs(3);
/// A word counts before the present source has come so far if that takes longer.
const LATE: Duration = Duration::from_millis(200);
/// How long the present source goes on while it is told that another one follows.
const REST_OF_OLD: Duration = Duration::from_millis(500);

/// What a source that does not feed would gain.
#[derive(Debug, Clone, Default)]
pub(super) struct Gains {
    /// Up to where it had said to be, and when, and the present source has not come.
    awaited: VecDeque<(u64, Time)>,
    /// By how much earlier it was, in seconds, and when that was seen.
    seen: VecDeque<(Time, f64)>,
    /// When it was first heard, up to where it had said to be, and what was missing here.
    first: Option<(Time, u64, u64)>,
}

impl Gains {
    fn see(&mut self, now: Time, seconds: f64) {
        if self.seen.len() >= WORDS_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back((now, seconds));
    }

    /// Everything before `missing` is here now.
    fn reached(&mut self, missing: u64, now: Time) {
        while let Some((_, heard)) = self.awaited.pop_front_if(|(ahead, _)| *ahead <= missing) {
            self.see(now, now.since(heard).as_secs_f64());
        }
    }

    fn wait_for(&mut self, ahead: u64, now: Time) {
        if self.awaited.len() >= WORDS_MAX {
            self.awaited.pop_front();
        }
        self.awaited.push_back((ahead, now));
    }

    /// Whether more comes here than to it, as far as is known yet: then the end of the stream is
    /// not here, and when chunks come says nothing of how early their source is.
    fn is_caught_up_with(&mut self, ahead: u64, missing: u64, now: Time) -> bool {
        let (at, first_ahead, first_missing) = *self.first.get_or_insert((now, ahead, missing));
        let there = ahead.saturating_sub(first_ahead);
        let here = missing.saturating_sub(first_missing);
        let falls_behind = here.saturating_add(AT_END) < there;
        let is_steady = here <= there.saturating_add(AT_END) && now.since(at) >= STEADY;
        !falls_behind && !is_steady
    }

    /// What was seen says nothing.
    fn forget(&mut self) {
        self.awaited.clear();
        self.seen.clear();
    }

    /// What is seen by now, with the times of it.
    fn words(&self, now: Time) -> impl Iterator<Item = (Time, f64)> {
        let seen = self.seen.iter().copied().filter(move |(at, _)| now.since(*at) <= WORDS_AGE);
        let late = self
            .awaited
            .iter()
            .filter(move |(_, heard)| (LATE..=WORDS_AGE).contains(&now.since(*heard)));
        seen.chain(late.map(move |(_, heard)| (*heard, now.since(*heard).as_secs_f64())))
    }

    /// What it gains at least, in seconds, as far as chance does not explain it.
    fn at_least(&self, now: Time) -> Option<f64> {
        let count = self.words(now).count();
        let first = self.words(now).map(|(at, _)| at).min().unwrap_or(now);
        if count < WORDS_MIN || now.since(first) < WORDS_TIME {
            return None;
        }
        // At most 128.
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let count = count as f64;
        let mean = self.words(now).map(|(_, gain)| gain).sum::<f64>() / count;
        let variance =
            self.words(now).map(|(_, gain)| (gain - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Some(mean - SURE * (variance / count).sqrt())
    }
}

impl Relay {
    /// `peer`, which does not feed, says to have everything below `ahead`.
    pub(super) fn note_word(&mut self, peer: &PeerId, ahead: u64) {
        let (now, missing) = (self.now, self.missing.first().copied().unwrap_or(0));
        let [feed] = self.feeds.as_slice() else { return };
        let is_source = feed.sources().any(|source| source == peer);
        if is_source || feed.by.is_none() || now.since(feed.since) < SETTLED {
            return;
        }
        let was_at_end = feed.was_at_end;
        let came = ahead.checked_sub(1).and_then(|chunk| self.reached.at(chunk));
        let Some(Upstream { gains, .. }) = self.upstreams.get_mut(peer) else { return };
        if gains.is_caught_up_with(ahead, missing, now) && !was_at_end {
            return gains.forget();
        }
        if ahead > missing {
            gains.wait_for(ahead, now);
        } else if let Some(came) = came {
            gains.see(now, -now.since(came).as_secs_f64());
        }
    }

    /// When chunks could be sent on is remembered of the only stripe: as soon as they come, at the
    /// base when they are durable.
    pub(super) fn note_reached(&mut self) {
        let &[missing] = self.missing.as_slice() else { return };
        let at = self.spans.partition_point(|span| span.index < self.published);
        let described = at.checked_sub(1).and_then(|at| self.spans.get(at)).map_or(0, Span::end);
        let durable = self.durable.head().min(described);
        let sendable = if self.spreads() { durable } else { missing };
        self.reached.note(sendable, self.now);
        for upstream in self.upstreams.values_mut() {
            upstream.gains.reached(missing, self.now);
        }
        let is_at_end = self.feeds.first().is_some_and(|feed| {
            let source = feed.by.as_ref().and_then(|by| self.upstreams.get(by));
            // The root announces nothing but where it was when the job was offered.
            let of_root = source.filter(|source| source.offer.is_root());
            let known = of_root.map_or(0, |root| root.offer.head);
            known <= missing.saturating_add(AT_END) && self.is_at_end(feed)
        });
        self.feeds.iter_mut().for_each(|feed| feed.was_at_end |= is_at_end);
    }

    /// The only stripe has another source: what was seen of others was beside the one before.
    pub(super) fn forget_gains(&mut self) {
        self.upstreams.values_mut().for_each(|upstream| upstream.gains = Gains::default());
    }

    /// Whether a source that does not feed is earlier than the present one, beyond chance.
    pub(super) fn is_earlier(&self, peer: &PeerId) -> bool {
        self.gain_of(peer).is_some()
    }

    fn gain_of(&self, peer: &PeerId) -> Option<f64> {
        let [feed] = self.feeds.as_slice() else { return None };
        let may_change = feed.beside.is_none()
            && !feed.sources().any(|source| source == peer)
            && self.now.since(feed.since) >= SETTLED;
        let upstream = self.upstreams.get(peer).filter(|_| may_change)?;
        let may_feed = !upstream.gives_back && self.now >= upstream.rests_until;
        let gain = upstream.gains.at_least(self.now).filter(|_| may_feed)?;
        (gain >= GAIN_LEAST.as_secs_f64()).then_some(gain)
    }

    /// Lets the earliest source feed that has opened the stripe, if it is earlier than the present
    /// one. Whether anything is wanted that was not before.
    pub(super) fn look_for_earlier(&mut self, fx: &mut Vec<Effect>) -> bool {
        if self.stripes > 1 || self.failed.is_some() || self.has_whole(0) {
            return false;
        }
        let gains = self.upstreams.keys().filter_map(|peer| Some((self.gain_of(peer)?, peer)));
        let mut earlier: Vec<(f64, PeerId)> = gains.map(|(g, peer)| (g, peer.clone())).collect();
        earlier.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let of_stripe = (0, self.ahead(0));
        let opened = earlier.iter().find(|(_, peer)| {
            let upstream = self.upstreams.get(peer);
            upstream.is_some_and(|upstream| self.can_feed(upstream, of_stripe, 0))
        });
        match opened {
            Some((_, peer)) => self.change_to_earlier(&peer.clone(), fx),
            // They are asked to open it.
            None => return !earlier.is_empty(),
        }
        true
    }

    fn change_to_earlier(&mut self, peer: &PeerId, fx: &mut Vec<Effect>) {
        let [feed] = self.feeds.as_slice() else { return };
        let Some(old) = feed.by.clone() else { return };
        let brought = feed.brought.clone();
        self.rest(&old);
        self.feed_from((peer.clone(), 0), SwitchReason::Earlier, fx);
        self.let_finish(0, old, brought);
    }

    /// `peer` is not tried for some time.
    pub(super) fn rest(&mut self, peer: &PeerId) {
        let now = self.now;
        self.upstreams.get_mut(peer).into_iter().for_each(|upstream| upstream.rest(now));
    }

    /// Chunks of the only stripe that come within [`REST_OF_OLD`], at least one.
    pub(super) fn soon_of_one(&self) -> u64 {
        let mean = self.cadence.mean().as_micros().max(1);
        u64::try_from(REST_OF_OLD.as_micros() / mean).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_is_believed_beyond_chance_and_not_before_a_second() {
        let at = |ms: u64| Time::from_micros(ms * 1_000);
        let mut gains = Gains::default();
        for word in 0..5 {
            assert_eq!(gains.at_least(at(200 * word)), None);
            gains.see(at(200 * word), if word % 2 == 0 { 0.16 } else { 0.14 });
        }
        assert_eq!(gains.at_least(at(900)), None);
        assert!(gains.at_least(at(1_000)).is_some_and(|gain| (0.14..0.15).contains(&gain)));
        (0..5).for_each(|word| gains.see(at(1_000 + 200 * word), -0.2));
        assert!(gains.at_least(at(2_000)).is_some_and(|gain| gain < 0.0));
        assert_eq!(gains.at_least(at(6_000)), None, "they are old");
        (0..5).for_each(|word| gains.wait_for(10 + word, at(6_000 + 200 * word)));
        assert!(gains.at_least(at(7_100)).is_some_and(|gain| gain > 0.2), "it is late already");
    }
}
