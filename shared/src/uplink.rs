//! What a process's uplink carries, learnt from its connections together.
//!
//! The shell counts, for all connections, what was acknowledged and how much of that was sent
//! while the network, not the application, set the pace; [`Uplink`] looks at it twice a second.
//! What is acknowledged has passed the uplink, so every look is a lower bound, which counts at
//! once. Whether less than before means a slower uplink or slow receivers cannot be seen from one
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
/// Of what the uplink carries, what jobs that share it are given turns for; and every so many
/// looks (5 s), and after a look that raised it by so much, what they are given to find more.
const TURNS_PERCENT: u64 = 95;
const PROBE_PERCENT: u64 = 110;
const PROBE_LOOKS: u32 = 10;
const GROWN_PERCENT: u64 = 103;

/// What all connections of a process did from one look to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Bytes of IP packets that were acknowledged.
    pub acked: u64,
    /// Those of them that were sent while the application had more to send.
    pub held_up: u64,
    /// Connections that had such packets.
    pub connections: u64,
    /// Whether jobs waited for turns: then these set the pace, and what is acknowledged is a lower
    /// bound though no connection was held up.
    pub in_turns: bool,
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
    /// Whether the last look raised what is believed.
    grew: bool,
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
    /// time to time a little more, to see whether it carries more.
    pub fn turns_bps(&self) -> Option<u64> {
        let percent =
            if self.set.is_none() && self.is_probe() { PROBE_PERCENT } else { TURNS_PERCENT };
        self.carries_bps().map(|bps| bps.saturating_mul(percent) / 100)
    }

    fn is_probe(&self) -> bool {
        self.grew || self.looks.is_multiple_of(PROBE_LOOKS)
    }

    /// Takes up what the connections did in `time`.
    pub fn look(&mut self, time: Duration, look: Look) {
        let micros = time.as_micros().max(1);
        let rate = u128::from(look.acked) * 8_000_000 / micros;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.used = rate;
        self.looks = self.looks.wrapping_add(1);
        let before = self.measured;
        if look.in_turns {
            self.measured = before.map(|believed| believed.max(rate));
        }
        self.take_up(rate, look);
        let grown = |before: u64| before.saturating_mul(GROWN_PERCENT) / 100;
        self.grew = before.zip(self.measured).is_some_and(|(before, now)| now > grown(before));
    }

    fn take_up(&mut self, rate: u64, look: Look) {
        if look.acked == 0 || look.held_up.saturating_mul(2) < look.acked {
            return;
        }
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
        if u128::from(rate) * 100 >= u128::from(believed) * u128::from(CONFIRMED_PERCENT) {
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

    #[test]
    fn turns_find_what_the_uplink_carries_and_are_a_little_less() {
        let mut uplink = Uplink::new(None);
        assert_eq!(uplink.turns_bps(), None);
        uplink.look(LOOK_EVERY, held_up(10, 1));
        assert_eq!(uplink.carries_bps(), Some(10_000_000));
        for _ in 0..40 {
            let at_turns = uplink.turns_bps().unwrap().min(20_000_000);
            let acked = at_turns / 16;
            let look = Look { acked, held_up: 0, connections: 0, in_turns: true };
            uplink.look(LOOK_EVERY, look);
        }
        assert_eq!(uplink.carries_bps(), Some(20_000_000));
        let turns: Vec<_> = (0..10)
            .map(|_| {
                uplink.look(LOOK_EVERY, Look { in_turns: true, ..Look::default() });
                uplink.turns_bps().unwrap()
            })
            .collect();
        assert_eq!(turns.iter().filter(|bps| **bps == 22_000_000).count(), 1);
        assert_eq!(turns.iter().filter(|bps| **bps == 19_000_000).count(), 9);
        assert_eq!(Uplink::new(Some(100)).turns_bps(), Some(95));
    }
}
