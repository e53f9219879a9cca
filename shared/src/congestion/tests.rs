//! The controller against a model of one link: packets, a rate, a queue, loss. The same with real
//! quinn is in `tests/tests/flows.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

const MTU: u16 = 1_452;

/// A link with one sender that always has more to send.
struct Link {
    controller: Controller,
    now: Time,
    /// Bytes a second; bytes.
    rate: f64,
    queue: f64,
    delay: Duration,
    loss: f64,
    /// When the last packet taken will have left.
    idle_at: Time,
    /// Acknowledgements, or losses found out, under way: when, and the packet's sending.
    under_way: VecDeque<(Time, Time, bool)>,
    in_flight: u64,
    next_send: Time,
    delivered: u64,
    dropped: u64,
    chance: u64,
}

impl Link {
    fn new(mbit: f64, queue_bdp: f64, rtt_ms: u64, loss: f64) -> Self {
        let (rate, delay) = (mbit * 125_000.0, Duration::from_millis(rtt_ms));
        Self {
            controller: Controller::new(MTU, 1),
            now: Time::ZERO,
            rate,
            queue: queue_bdp * rate * delay.as_secs_f64(),
            delay,
            loss,
            idle_at: Time::ZERO,
            under_way: VecDeque::new(),
            in_flight: 0,
            next_send: Time::ZERO,
            delivered: 0,
            dropped: 0,
            chance: 7,
        }
    }

    fn chance(&mut self) -> f64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        f64::from(u32::try_from(self.chance >> 32).unwrap()) / f64::from(u32::MAX)
    }

    /// Sends one packet into the queue.
    fn send(&mut self) {
        let wait = self.idle_at.since(self.now);
        let full = wait.as_secs_f64() * self.rate + f64::from(MTU) > self.queue + f64::from(MTU);
        let lost = full || self.chance() < self.loss;
        self.dropped += u64::from(full);
        if !full {
            let took = Duration::from_secs_f64(f64::from(MTU) / self.rate);
            self.idle_at = self.now + wait + took;
        }
        self.under_way.push_back((self.idle_at + self.delay, self.now, lost));
        self.in_flight += u64::from(MTU);
        self.controller.sent(self.now, u64::from(MTU));
        // As quinn paces: a quarter faster than the window a round trip.
        let rtt = self.delay + wait;
        let pace = rtt.as_secs_f64() / (1.25 * self.controller.window() as f64 / f64::from(MTU));
        self.next_send = self.now + Duration::from_secs_f64(pace);
    }

    fn hear(&mut self, sent: Time, lost: bool) {
        self.in_flight -= u64::from(MTU);
        if lost {
            self.controller.lost(self.now, sent, u64::from(MTU));
        } else {
            self.delivered += u64::from(MTU);
            self.controller.acked(self.now, sent, u64::from(MTU), false);
            self.controller.acks_end(self.now, self.in_flight);
        }
    }

    /// Goes on for so many seconds; Mbit/s delivered.
    fn run(&mut self, seconds: u64) -> f64 {
        self.run_for(Duration::from_secs(seconds))
    }

    fn run_for(&mut self, length: Duration) -> f64 {
        let end = self.now + length;
        let before = self.delivered;
        while self.now < end {
            let may_send = self.in_flight + u64::from(MTU) < self.controller.window();
            let send_at = may_send.then_some(self.next_send.max(self.now));
            let hear_at = self.under_way.front().map(|(at, ..)| *at);
            match (send_at, hear_at) {
                (Some(send), hear) if hear.is_none_or(|hear| send < hear) => {
                    self.now = send;
                    self.send();
                }
                (_, Some(hear)) => {
                    self.now = self.now.max(hear);
                    let (_, sent, lost) = self.under_way.pop_front().unwrap();
                    self.hear(sent, lost);
                }
                (_, None) => unreachable!("a window without room and nothing under way"),
            }
        }
        (self.delivered - before) as f64 * 8e-6 / length.as_secs_f64()
    }

    fn standing(&self) -> f64 {
        self.idle_at.since(self.now).as_secs_f64()
    }
}

#[test]
fn a_link_is_filled_with_a_short_queue_whatever_it_loses() {
    for rtt in [20, 100, 200] {
        for loss in [0.0, 0.01, 0.05] {
            let mut link = Link::new(100.0, 1.0, rtt, loss);
            link.run(6);
            let rate = link.run(6);
            assert!(rate > 97.0 * (1.0 - loss), "{rate} Mbit/s at {rtt} ms, {loss}");
            assert!(link.standing() < 0.004, "{} s wait at {rtt} ms, {loss}", link.standing());
            assert_eq!(link.dropped, 0, "{rtt} ms, {loss}");
        }
    }
}

#[test]
fn a_shallow_queue_drops_little_after_the_start() {
    let mut link = Link::new(100.0, 0.1, 50, 0.0);
    link.run(5);
    let before = link.dropped;
    let rate = link.run(10);
    assert!(rate > 97.0, "{rate}");
    assert!(link.dropped - before < 90, "{} packets of 86,000", link.dropped - before);
}

#[test]
fn a_longer_path_is_found_out() {
    let mut link = Link::new(100.0, 1.0, 20, 0.0);
    link.run(8);
    link.delay = Duration::from_millis(80);
    link.queue *= 4.0;
    link.run(5);
    let rate = link.run(5);
    assert!(rate > 90.0, "{rate}");
}

#[test]
fn a_path_that_is_a_little_longer_is_found_out() {
    for (before, after) in [(20, 24), (100, 112)] {
        let mut link = Link::new(100.0, 1.0, before, 0.0);
        link.run(10);
        link.delay = Duration::from_millis(after);
        link.run(5);
        let mbit = link.run(3);
        assert!(mbit > 90.0, "from {before} to {after} ms: {mbit} Mbit/s");
    }
}

#[test]
fn a_moment_without_a_path_costs_little() {
    for rtt in [50, 100, 200] {
        let mut link = Link::new(100.0, 1.0, rtt, 0.0);
        link.run(8);
        link.loss = 1.0;
        link.run_for(Duration::from_millis(rtt + 20));
        link.loss = 0.0;
        link.run_for(12 * link.delay);
        let rate = link.run(1);
        assert!(rate > 90.0, "{rate} Mbit/s at {rtt} ms");
    }
}

/// A path that polices instead of queueing carries a tenth all at once.
#[test]
fn a_second_flood_is_no_moment_without_a_path() {
    let mut link = Link::new(100.0, 0.05, 50, 0.0);
    link.run(6);
    link.rate *= 0.1;
    link.queue *= 0.1;
    link.run(1);
    let before = link.dropped;
    let rate = link.run(2);
    assert!(rate > 7.0, "{rate}");
    let dropped = link.dropped - before;
    assert!(dropped < 300, "{dropped} packets of 1,700");
}

/// More transmissions in one round trip than are remembered: none of them gives a sample.
#[test]
fn a_flood_ends_the_start_though_no_sample_shows_a_rate() {
    let mut controller = Controller::new(MTU, 1);
    let (rtt, mtu) = (Duration::from_millis(100), u64::from(MTU));
    controller.sent(Time::ZERO, mtu);
    let first = Time::ZERO + rtt;
    controller.acked(first, Time::ZERO, mtu, false);
    controller.acks_end(first, 0);
    controller.window = 1e7;
    for step in 0..10_000 {
        controller.sent(first + Duration::from_micros(step), mtu);
    }
    controller.lost(first + rtt, first, 1_000 * mtu);
    controller.acked(first + rtt, first, mtu, false);
    assert!(controller.window() <= 10 * u64::from(MTU), "{}", controller.window());
}

#[test]
fn after_a_blackout_the_path_may_be_another_one() {
    let mut link = Link::new(100.0, 1.0, 20, 0.0);
    link.run(8);
    link.under_way.clear();
    (link.in_flight, link.idle_at) = (0, link.now);
    link.controller.blacked_out(link.now);
    link.delay = Duration::from_millis(80);
    link.queue *= 4.0;
    link.run(1);
    let rate = link.run(1);
    assert!(rate > 90.0, "{rate}");
}

#[test]
fn marks_of_one_round_are_one_word() {
    let mut link = Link::new(100.0, 1.0, 50, 0.0);
    link.run(4);
    let sent = link.now - Duration::from_millis(20);
    let claim = link.controller.claim;
    for _ in 0..8 {
        link.controller.marked(link.now, sent);
    }
    assert!((link.controller.claim - CLAIM_CUT * claim).abs() < 1e-9, "{}", link.controller.claim);
}

#[test]
fn a_process_that_was_held_up_once_has_seen_no_queue() {
    let mut link = Link::new(100.0, 1.0, 50, 0.0);
    link.run(4);
    let before = link.controller.path.longest_queue();
    link.now = link.now + Duration::from_millis(500);
    link.idle_at = link.now;
    link.run(2);
    let longest = link.controller.path.longest_queue();
    assert!(longest < 0.12, "{before} s, then {longest}");
}

#[test]
fn a_rate_that_changes_is_followed() {
    let mut link = Link::new(50.0, 2.0, 40, 0.0);
    link.run(8);
    link.rate *= 2.0;
    link.run(4);
    assert!(link.run(4) > 95.0);
    link.rate /= 2.0;
    link.run(4);
    assert!(link.run(4) > 47.0);
    assert!(link.standing() < 0.01, "{}", link.standing());
}

#[test]
fn what_nobody_acknowledges_begins_anew() {
    let mut link = Link::new(100.0, 1.0, 50, 0.0);
    link.run(4);
    let before = link.controller.window();
    link.controller.blacked_out(link.now);
    assert!(link.controller.window() < before / 50);
    link.run(3);
    assert!(link.run(2) > 95.0);
}

#[test]
fn an_application_with_little_to_send_does_not_grow_the_window() {
    let mut controller = Controller::new(MTU, 1);
    let first = 200_000;
    for step in 0..1_000 {
        let sent = Time::from_micros(step * 20_000);
        controller.sent(sent, 2_904);
        let now = sent + Duration::from_millis(15);
        controller.acked(now, sent, 1_452, true);
        controller.acked(now, sent, 1_452, true);
        controller.acks_end(now, 0);
    }
    assert!(controller.window() <= first, "{}", controller.window());
}

/// The numbers that come from outside are those of a peer's acknowledgements: in any order and
/// with any times they must do no more than misjudge the path.
#[test]
fn nothing_that_is_told_breaks_it() {
    for seed in 1..200_u64 {
        let mut controller = Controller::new(MTU, seed);
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |most: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % most
        };
        let mut now = Time::ZERO;
        let mut sendings = VecDeque::new();
        for _ in 0..2_000 {
            now = now + Duration::from_micros(draw(200_000));
            let any = now - Duration::from_micros(draw(1_000_000));
            let known = sendings.get(usize::try_from(draw(64)).unwrap()).copied();
            let sent = known.filter(|_| draw(4) > 0).unwrap_or(any);
            match draw(7) {
                0 => {
                    controller.sent(now, draw(20_000));
                    sendings.push_front(now);
                    sendings.truncate(64);
                }
                1 | 2 => controller.acked(now, sent, draw(3_000), draw(2) == 0),
                3 => controller.acks_end(now, draw(10_000_000)),
                4 => controller.lost(now, sent, draw(100_000)),
                5 => controller.marked(now, sent),
                _ if draw(50) == 0 => controller.blacked_out(now),
                _ => controller.mtu_changed(u16::try_from(1_200 + draw(300)).unwrap()),
            }
            let window = controller.window();
            assert!((4_800..=1_000_000_000).contains(&window), "{window}, seed {seed}");
            let inside = [controller.window, controller.rate, controller.loss, controller.claim];
            assert!(inside.iter().all(|number| number.is_finite()), "{controller:?}");
            assert!(controller.window > 0.0 && controller.share.is_finite(), "{controller:?}");
        }
    }
}
