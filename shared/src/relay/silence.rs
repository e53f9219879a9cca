//! When a source that brings nothing is left: it may be gone, or there is nothing to be brought.

use std::time::Duration;

use super::Relay;
use super::patience::{AT_END, IDLE_MAX, Patience};
use super::upstream::Feed;

/// Times that chunks of many stripes usually take to come, after which a source counts as idle; and
/// a chunk of known length of the only one.
const IDLE_CHUNKS: u32 = 4;
const IDLE_CHUNK: u32 = 2;

impl Relay {
    /// Notes whether the source of the only stripe is silent, and whether others have more.
    pub(super) fn look_for_silence(&mut self) {
        let [feed] = self.feeds.as_slice() else { return };
        let is_silent = feed.by.is_some()
            && (feed.is_silent || self.now.since(feed.lively) >= self.idle_patience(feed));
        let lacks = feed.lacks.or_else(|| self.has_node(0).then_some(self.now));
        if let [feed] = self.feeds.as_mut_slice() {
            (feed.is_silent, feed.lacks) = (is_silent, lacks.filter(|_| is_silent));
        }
    }

    /// Whether a silent source should have brought something by now.
    pub(super) fn lacks(&self, feed: &Feed) -> bool {
        let missing = self.missing.first().copied().unwrap_or(0);
        let mut others = self.upstreams.values();
        let is_overdue = others.any(|up| up.offer.is_root() && up.offer.head > missing);
        let most = self.patience().lacks;
        is_overdue || feed.lacks.is_some_and(|since| self.now.since(since) >= most)
    }

    /// The base is asked, which knows whether there is anything to be had. Whether that is news.
    pub(super) fn keep_and_ask(&mut self, at: usize) -> bool {
        let feed = self.feeds.get_mut(at);
        feed.is_some_and(|feed| !std::mem::replace(&mut feed.wants_other, true))
    }

    pub(super) const fn patience(&self) -> Patience {
        Patience::of(self.stripes)
    }

    /// How long a source may bring nothing of a stripe, by how long its chunks take.
    pub(super) fn idle_patience(&self, feed: &Feed) -> Duration {
        let Patience { idle, first, at_end, .. } = self.patience();
        if self.stripes > 1 {
            return (self.chunk_time(self.longest) * IDLE_CHUNKS).clamp(idle, IDLE_MAX);
        }
        let missing = self.missing.first().copied().unwrap_or(0);
        let least = if feed.brought.is_any() { idle } else { first };
        let most = if self.is_at_end(feed) { at_end.max(least) } else { IDLE_MAX };
        let chunk = self.chunk_time(self.chunk_len(missing)) * IDLE_CHUNK;
        self.cadence.usual().max(chunk).clamp(least, most)
    }

    /// Whether the only stripe is here up to what its source has, but for [`AT_END`] chunks.
    pub(super) fn is_at_end(&self, feed: &Feed) -> bool {
        let missing = self.missing.first().copied().unwrap_or(0);
        let source = feed.by.as_ref().and_then(|by| self.upstreams.get(by));
        let source = source.filter(|source| !source.offer.is_root());
        let known = source.map_or(0, |source| source.offer.ahead_in(0)).max(self.chunks);
        known <= missing.saturating_add(AT_END)
    }

    /// How long a chunk of a stripe takes at the rate at which the job comes.
    fn chunk_time(&self, len: u32) -> Duration {
        let bits = u64::from(len).saturating_mul(8).saturating_mul(self.stripes);
        let micros = u128::from(bits) * 1_000_000 / u128::from(self.latest_bps.max(1));
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(IDLE_MAX)
    }
}
