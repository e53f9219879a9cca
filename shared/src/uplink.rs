//! What a process's uplink carries, learnt from its connections together.
//!
//! The shell counts, for all connections, what was acknowledged and how much of that was sent
//! while the network, not the application, set the pace; [`Uplink`] looks at it twice a second.
//! What is acknowledged has passed the uplink, so every look is a lower bound, which counts at
//! once. That it is all that the uplink carries is seen when connections are held up and get no
//! more than is believed: it is full. Whether less than before means a slower uplink or slow receivers cannot be seen from one
//! connection. Two or more that are held up at a time share the uplink, so what they get together
//! over some looks of the last half minute replaces what was believed; one alone must fall short of
//! it for ten minutes.

use std::collections::VecDeque;
use std::time::Duration;

/// How often the connections are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks whose best is believed: 5 s in which several connections were held up, of the last half
/// minute.
const SHARED_LOOKS: usize = 10;
const SHARED_WITHIN: u32 = 60;
/// Looks without what was believed, while a single connection was held up: ten minutes.
const LONELY_LOOKS: u32 = 1_200;
/// What comes within so many hundredths of what is believed confirms it.
const CONFIRMED_PERCENT: u64 = 90;
/// Of what the uplink is set to carry, and of what was measured, what jobs that share it are given
/// turns for; and a second after it was seen to be full, every so many looks (5 s) from then on,
/// and after a look that raised it by so much, what they are given to find more. What a look finds
/// too much waits in the queue of the uplink, and with it what acknowledges streams that come in:
/// 5 % of half a second are gone a quarter of a second later.
const TURNS_OF_SET_PERCENT: u64 = 95;
const TURNS_PERCENT: u64 = 90;
const PROBE_PERCENT: u64 = 105;
const PROBE_LOOKS: u32 = 10;
const PROBE_FIRST: u32 = 2;
const GROWN_PERCENT: u64 = 103;
/// Looks in a row that each found more than the turns before: then the uplink is not what is
/// short.
const GROWN_LOOKS: u32 = 3;
/// For how many looks the uplink counts as full that was seen to be: half a minute.
const FULL_LOOKS: u32 = 60;

/// What all connections of a process did from one look to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Bytes of IP packets that were acknowledged.
    pub acked: u64,
    /// Those of them that were sent while the application had more to send.
    pub held_up: u64,
    /// Connections that were held up for half of the time or longer.
    pub connections: u64,
    /// Whether jobs waited for turns: then these set the pace, and that no more passed does not
    /// show that the uplink is full.
    pub in_turns: bool,
}

/// The first and the last look that showed that the uplink is full: connections were held up, and
/// got no more than was believed.
#[derive(Debug, Clone, Copy)]
struct Full {
    since: u32,
    at: u32,
}

/// An estimate of the bits per second that an uplink carries.
#[derive(Debug, Clone, Default)]
pub struct Uplink {
    set: Option<u64>,
    measured: Option<u64>,
    used: u64,
    /// The last looks in which several connections were held up, and their rates.
    shared: VecDeque<(u32, u64)>,
    /// Looks in a row that did not confirm what is believed, and the best of them.
    unconfirmed: (u32, u64),
    looks: u32,
    /// Looks in a row that raised what is believed, until now.
    grown: u32,
    full: Option<Full>,
}

impl Uplink {
    /// An uplink of which nothing is known, or which is said to carry `set` bits per second: that
    /// stands whatever is measured.
    pub fn new(set: Option<u64>) -> Self {
        Self { set, ..Self::default() }
    }

    /// Bits per second of IP packets that the uplink carries; `None` while that is unknown: never
    /// yet did the network hold a connection up.
    pub fn carries_bps(&self) -> Option<u64> {
        self.set.or(self.measured)
    }

    /// Whether it is set, or was seen to be full not long ago: else it may carry more.
    pub const fn was_full(&self) -> bool {
        self.set.is_some() || self.full.is_some()
    }

    /// Bits per second that were used between the last two looks.
    pub const fn used_bps(&self) -> u64 {
        self.used
    }

    /// Bits per second that are left; `None` while it is unknown what the uplink carries.
    pub fn spare_bps(&self) -> Option<u64> {
        self.carries_bps().map(|carries| carries.saturating_sub(self.used))
    }

    /// Bits per second at which jobs that share the uplink are given turns: a little less than it
    /// carries, so that who is next is decided there and not in the queues of connections; from
    /// time to time a little more, to see whether it carries more. `None` while the uplink was
    /// not seen to be full: a lower bound of what it carries must hold nobody back.
    pub fn turns_bps(&self) -> Option<u64> {
        let percent = |bps: u64, percent| bps.saturating_mul(percent) / 100;
        if let Some(set) = self.set {
            return Some(percent(set, TURNS_OF_SET_PERCENT));
        }
        let (full, measured) = self.full.zip(self.measured)?;
        let looks = self.looks.wrapping_sub(full.since);
        let is_probe = self.grown > 0 || looks % PROBE_LOOKS == PROBE_FIRST;
        Some(percent(measured, if is_probe { PROBE_PERCENT } else { TURNS_PERCENT }))
    }

    /// Takes up what the connections did in `time`.
    pub fn look(&mut self, time: Duration, look: Look) {
        let micros = time.as_micros().max(1);
        let rate = u128::from(look.acked) * 8_000_000 / micros;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.used = rate;
        self.looks = self.looks.wrapping_add(1);
        let before = self.measured;
        self.measured = before.map(|believed| believed.max(rate));
        let is_held_up = look.connections > 0 && look.held_up.saturating_mul(2) >= look.acked;
        if is_held_up {
            self.take_up(rate, look);
        }
        if let Some(before) = before {
            self.look_full(rate, before, is_held_up, look.in_turns);
        }
    }

    /// Whether the uplink is full, after a look before which `before` was believed.
    fn look_full(&mut self, rate: u64, before: u64, is_held_up: bool, in_turns: bool) {
        let grows = rate > before.saturating_mul(GROWN_PERCENT) / 100;
        self.grown = if grows { self.grown.saturating_add(1) } else { 0 };
        let is_full = is_held_up && !grows;
        let looks = self.looks;
        self.full = match self.full {
            Some(Full { since, .. }) if is_full => Some(Full { since, at: looks }),
            None if is_full && !in_turns => Some(Full { since: looks, at: looks }),
            Some(_) if self.grown >= GROWN_LOOKS => None,
            // Turns are what keeps it from being seen to be full.
            Some(Full { since, .. }) if in_turns => Some(Full { since, at: looks }),
            Some(Full { at, .. }) if looks.wrapping_sub(at) > FULL_LOOKS => None,
            unchanged => unchanged,
        };
    }

    fn take_up(&mut self, rate: u64, look: Look) {
        let believed = self.measured.unwrap_or(0);
        self.measured = Some(believed.max(rate));
        if look.connections >= 2 {
            self.look_shared(rate);
        }
        self.look_lonely(rate, believed);
    }

    fn look_shared(&mut self, rate: u64) {
        let now = self.looks;
        self.shared.push_back((now, rate));
        if self.shared.len() > SHARED_LOOKS {
            self.shared.pop_front();
        }
        self.shared.retain(|(look, _)| now.wrapping_sub(*look) <= SHARED_WITHIN);
        if self.shared.len() == SHARED_LOOKS {
            self.measured = self.shared.iter().map(|(_, rate)| *rate).max();
        }
    }

    fn look_lonely(&mut self, rate: u64, believed: u64) {
        if confirms(rate, believed) {
            self.unconfirmed = (0, 0);
            return;
        }
        let (looks, best) = self.unconfirmed;
        self.unconfirmed = (looks + 1, best.max(rate));
        if looks + 1 >= LONELY_LOOKS {
            self.measured = Some(best.max(rate));
            self.unconfirmed = (0, 0);
        }
    }
}

fn confirms(rate: u64, believed: u64) -> bool {
    u128::from(rate) * 100 >= u128::from(believed) * u128::from(CONFIRMED_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look in which `connections` were held up and got `mbit` Mbit/s together.
    fn held_up(mbit: u64, connections: u64) -> Look {
        let acked = mbit * 1_000_000 / 8 / 2;
        Look { acked, held_up: acked, connections, in_turns: false }
    }

    fn believed(uplink: &mut Uplink, looks: usize, look: Look) -> Option<u64> {
        (0..looks).for_each(|_| uplink.look(LOOK_EVERY, look));
        uplink.carries_bps().map(|bps| bps / 1_000_000)
    }

    #[test]
    fn what_passed_counts_at_once() {
        let mut uplink = Uplink::default();
        assert_eq!(uplink.spare_bps(), None);
        let idle = Look { acked: 1_000_000, held_up: 0, connections: 0, in_turns: false };
        assert_eq!(believed(&mut uplink, 5, idle), None, "nothing held it up");
        assert_eq!(uplink.used_bps(), 16_000_000);
        assert_eq!(believed(&mut uplink, 1, held_up(20, 1)), Some(20));
        assert_eq!(believed(&mut uplink, 1, held_up(100, 1)), Some(100));
        assert_eq!(believed(&mut uplink, 1, Look::default()), Some(100));
        assert_eq!(uplink.spare_bps(), Some(100_000_000));
    }

    #[test]
    fn a_slow_receiver_is_no_slow_uplink() {
        let mut uplink = Uplink::default();
        believed(&mut uplink, 10, held_up(100, 1));
        assert_eq!(believed(&mut uplink, 1_199, held_up(5, 1)), Some(100));
        assert_eq!(believed(&mut uplink, 1, held_up(5, 1)), Some(5), "after ten minutes");
        believed(&mut uplink, 1_000, held_up(1, 1));
        believed(&mut uplink, 1, held_up(5, 1));
        assert_eq!(believed(&mut uplink, 1_000, held_up(1, 1)), Some(5), "confirmed in between");
    }

    #[test]
    fn several_that_are_held_up_show_a_slower_uplink() {
        let mut uplink = Uplink::default();
        assert_eq!(believed(&mut uplink, 20, held_up(100, 2)), Some(100));
        assert_eq!(believed(&mut uplink, 9, held_up(50, 3)), Some(100));
        assert_eq!(believed(&mut uplink, 1, held_up(50, 3)), Some(50));
        assert_eq!(believed(&mut uplink, 1, held_up(80, 3)), Some(80));
    }

    #[test]
    fn what_several_had_long_ago_is_no_measure() {
        let mut uplink = Uplink::default();
        believed(&mut uplink, 9, held_up(10, 2));
        assert_eq!(believed(&mut uplink, 100, held_up(100, 1)), Some(100));
        assert_eq!(believed(&mut uplink, 9, held_up(10, 2)), Some(100));
        assert_eq!(believed(&mut uplink, 1, held_up(10, 2)), Some(10));
    }

    #[test]
    fn what_is_set_stands() {
        let mut uplink = Uplink::new(Some(30_000_000));
        assert_eq!(believed(&mut uplink, 20, held_up(10, 2)), Some(30));
        assert_eq!(uplink.spare_bps(), Some(20_000_000));
    }

    /// Looks during which jobs take turns on an uplink of 20 Mbit/s; the rates of turns.
    fn in_turns(uplink: &mut Uplink, looks: usize) -> Vec<Option<u64>> {
        let one = |uplink: &mut Uplink| {
            let turns = uplink.turns_bps();
            let wanted = turns.unwrap_or(u64::MAX);
            let acked = wanted.min(20_000_000) / 16;
            let held_up = if wanted > 20_000_000 { acked } else { 0 };
            let connections = u64::from(held_up > 0);
            let look = Look { acked, held_up, connections, in_turns: turns.is_some() };
            uplink.look(LOOK_EVERY, look);
            uplink.turns_bps()
        };
        (0..looks).map(|_| one(uplink)).collect()
    }

    #[test]
    fn turns_are_a_little_less_than_the_uplink_carries_and_look_for_more() {
        let mut uplink = Uplink::new(None);
        believed(&mut uplink, 2, held_up(20, 1));
        let turns = in_turns(&mut uplink, 20);
        assert_eq!(uplink.carries_bps(), Some(20_000_000));
        assert_eq!(turns.iter().filter(|bps| **bps == Some(21_000_000)).count(), 2);
        assert_eq!(turns.iter().filter(|bps| **bps == Some(18_000_000)).count(), 18);
        assert_eq!(Uplink::new(Some(100)).turns_bps(), Some(95));
    }

    #[test]
    fn what_was_not_seen_to_be_all_holds_nobody_back() {
        let mut uplink = Uplink::new(None);
        assert_eq!(uplink.turns_bps(), None);
        for mbit in [1, 2, 4] {
            uplink.look(LOOK_EVERY, held_up(mbit, 1));
            assert_eq!(uplink.turns_bps(), None, "{mbit}");
        }
        let idle = Look { acked: 250_000, held_up: 0, connections: 0, in_turns: false };
        uplink.look(LOOK_EVERY, idle);
        assert_eq!(uplink.turns_bps(), None, "nothing was held up");
        uplink.look(LOOK_EVERY, held_up(4, 1));
        assert!(uplink.turns_bps().is_some());
    }

    #[test]
    fn that_it_was_full_is_forgotten_after_half_a_minute() {
        let mut uplink = Uplink::new(None);
        believed(&mut uplink, 2, held_up(5, 1));
        assert!(uplink.was_full() && uplink.turns_bps().is_some());
        believed(&mut uplink, 60, Look::default());
        assert!(uplink.was_full());
        believed(&mut uplink, 1, Look::default());
        assert!(!uplink.was_full() && uplink.turns_bps().is_none());
        assert!(Uplink::new(Some(1)).was_full());
    }

    #[test]
    fn turns_that_are_too_few_end_within_three_seconds() {
        let mut uplink = Uplink::new(None);
        believed(&mut uplink, 2, held_up(1, 1));
        assert_eq!(uplink.turns_bps(), Some(900_000));
        let turns = in_turns(&mut uplink, 7);
        assert!(turns.contains(&None), "{turns:?}");
        in_turns(&mut uplink, 3);
        assert_eq!(uplink.carries_bps(), Some(20_000_000));
        assert!(uplink.turns_bps().is_some());
    }
}
