//! What was sent when, and the delivery rate that its acknowledgement shows.
//!
//! Samples are those of draft-cheng-iccrg-delivery-rate-estimation: bytes delivered between the
//! sending of a packet and its acknowledgement, over the longer of the time that sending and
//! acknowledging took. Packets are known by the instant at which they were sent: all packets of
//! one transmission share it.

use std::collections::VecDeque;

use crate::time::Time;

/// Transmissions that are remembered. At 1 Gbit/s and ten packets each, half a second.
const FLIGHTS_MAX: usize = 1 << 12;
/// Least time for which a transmission is remembered, seconds.
const REMEMBER: f64 = 0.5;
/// Transmissions that are looked through for one near a lost packet.
const NEAR_MAX: usize = 8;

/// The rate that one acknowledgement shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Bytes a second.
    pub(super) rate: f64,
    /// Whether the application had less to send than the path would have carried.
    pub(super) app_limited: bool,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    sent: Time,
    /// Bytes in flight with it.
    in_flight: f64,
    /// Bytes delivered before it was sent, and when the last of them was acknowledged.
    delivered: f64,
    delivered_at: Time,
    /// When the last of them had been sent.
    first_sent: Time,
    app_limited: bool,
    /// Round trip, seconds, once it is acknowledged.
    rtt: Option<f64>,
}

/// The transmissions of the last round trips, in the order of sending.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights {
    flights: VecDeque<Flight>,
    delivered: f64,
    delivered_at: Time,
    first_sent: Time,
    /// Bytes that must have been delivered before samples count again.
    limited_until: f64,
}

impl Flights {
    pub(super) fn sent(&mut self, now: Time, in_flight: f64) {
        if self.flights.back().is_some_and(|last| last.sent >= now) {
            return;
        }
        if self.flights.len() == FLIGHTS_MAX {
            self.flights.pop_front();
        }
        if self.flights.is_empty() {
            (self.delivered_at, self.first_sent) = (now, now);
        }
        self.flights.push_back(Flight {
            sent: now,
            in_flight,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            app_limited: self.delivered < self.limited_until,
            rtt: None,
        });
    }

    /// The application has nothing to send: what is under way now says little about the path.
    pub(super) fn application_idle(&mut self) {
        let under_way = self.flights.back().map_or(0.0, |last| last.in_flight);
        self.limited_until = self.delivered + under_way;
    }

    /// `bytes` of what was sent at `sent` are acknowledged, after `rtt` seconds.
    pub(super) fn acked(&mut self, now: Time, sent: Time, bytes: f64, rtt: f64) -> Option<Sample> {
        self.delivered += bytes;
        self.delivered_at = now;
        self.first_sent = self.first_sent.max(sent);
        let at = self.flights.partition_point(|flight| flight.sent < sent);
        let flight = self.flights.get_mut(at).filter(|flight| flight.sent == sent)?;
        flight.rtt = Some(rtt);
        let sending = flight.sent.since(flight.first_sent);
        let acking = now.since(flight.delivered_at);
        let took = sending.max(acking).as_secs_f64();
        let rate = (self.delivered - flight.delivered) / took;
        (took > 0.0).then_some(Sample { rate, app_limited: flight.app_limited })
    }

    /// The round trip of the last acknowledged transmission at or shortly before `sent`.
    pub(super) fn rtt_near(&self, sent: Time) -> Option<f64> {
        let end = self.flights.partition_point(|flight| flight.sent <= sent);
        let near = self.flights.range(end.saturating_sub(NEAR_MAX)..end);
        near.rev().find_map(|flight| flight.rtt)
    }

    /// Bytes in flight when what was sent at `sent` was sent.
    pub(super) fn in_flight_at(&self, sent: Time) -> Option<f64> {
        let at = self.flights.partition_point(|flight| flight.sent < sent);
        self.flights.get(at).map(|flight| flight.in_flight)
    }

    /// Forgets all transmissions: the path is another one.
    pub(super) fn forget(&mut self) {
        self.flights.clear();
    }

    /// Forgets what nobody asks for any more.
    pub(super) fn forget_before(&mut self, now: Time, base: f64) {
        let keep = (4.0 * base).max(REMEMBER);
        while self.flights.front().is_some_and(|first| now.since(first.sent).as_secs_f64() > keep) {
            self.flights.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    #[test]
    fn a_sample_is_what_came_between_sending_and_acknowledgement() {
        let mut flights = Flights::default();
        // 1,000 bytes every 10 ms, a round trip of 50 ms.
        let mut last = None;
        for step in 0_u32..20 {
            let now = at(u64::from(step) * 10);
            if step >= 5 {
                let sent = at(u64::from(step - 5) * 10);
                last = flights.acked(now, sent, 1_000.0, 0.05);
            }
            flights.sent(now, 5_000.0);
        }
        let sample = last.unwrap();
        assert!((sample.rate - 100_000.0).abs() < 1.0, "{sample:?}");
        assert!(!sample.app_limited);
    }

    #[test]
    fn acknowledgements_that_come_at_once_do_not_show_more_than_was_sent() {
        let mut flights = Flights::default();
        for step in 0..10 {
            flights.sent(at(step * 10), 1_000.0);
        }
        let mut rates = Vec::new();
        for step in 0..10 {
            let sample = flights.acked(at(150), at(step * 10), 1_000.0, 0.1);
            rates.extend(sample.map(|sample| sample.rate));
        }
        assert!(rates.iter().all(|rate| *rate <= 100_000.0), "{rates:?}");
    }

    #[test]
    fn what_was_sent_beside_an_idle_application_is_marked() {
        let mut flights = Flights::default();
        flights.sent(at(0), 1_000.0);
        flights.application_idle();
        flights.sent(at(1), 2_000.0);
        assert!(flights.acked(at(51), at(1), 1_000.0, 0.05).unwrap().app_limited);
        flights.sent(at(60), 1_000.0);
        assert!(!flights.acked(at(110), at(60), 1_000.0, 0.05).unwrap().app_limited);
    }

    #[test]
    fn memory_is_bounded() {
        let mut flights = Flights::default();
        for step in 0..100_000 {
            flights.sent(Time::from_micros(step), 1.0);
        }
        assert_eq!(flights.flights.len(), FLIGHTS_MAX);
        flights.forget_before(at(10_000), 0.1);
        assert!(flights.flights.is_empty());
        assert_eq!(flights.rtt_near(at(1)), None);
    }
}
