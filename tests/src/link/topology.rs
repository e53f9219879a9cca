//! Hosts, their access links, and the paths between them.
//!
//! A packet leaves through the sender's access link, crosses the path to the receiver and comes in
//! through the receiver's access link: `up(a)`, `path(a, b)`, `down(b)`. The access links are what
//! all traffic of a host shares. Every link is a [`Link`]; one without words lets everything
//! through at once.
//!
//! Pure: time is an argument, packets are held until they are due, payload is whatever the caller
//! carries. The lab's emulator drives it with the clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use super::{Link, LinkCounters, LinkSpec, Verdict};

/// Packets under way at a time; beyond it new ones are dropped and counted.
pub const MAX_UNDER_WAY: usize = 1 << 18;

/// One of the links of a topology, by the numbers of the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// What a host sends.
    Up(usize),
    /// From one host to another.
    Path(usize, usize),
    /// What a host receives.
    Down(usize),
}

/// A packet that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived<P> {
    /// When it was due.
    pub at: Duration,
    /// The receiving host.
    pub to: usize,
    /// What was sent.
    pub payload: P,
    /// Index of a flipped bit.
    pub flipped_bit: Option<u64>,
}

#[derive(Debug)]
struct Due<P> {
    at: Duration,
    number: u64,
    place: Place,
    to: usize,
    bytes: usize,
    flipped_bit: Option<u64>,
    payload: P,
}

impl<P> PartialEq for Due<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Due<P> {}

impl<P> PartialOrd for Due<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Due<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Hosts with numbers from 0 and the links between them.
#[derive(Debug)]
pub struct Topology<P> {
    seed: u64,
    links: BTreeMap<Place, Link>,
    due: BinaryHeap<Reverse<Due<P>>>,
    /// Arrived, and not asked for yet.
    ready: VecDeque<Arrived<P>>,
    sent: u64,
    dropped: u64,
}

impl<P: Clone> Topology<P> {
    /// Hosts without any limit between them. Every link draws from a seed of its own, so that a
    /// link more leaves the others as they were.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            links: BTreeMap::new(),
            due: BinaryHeap::new(),
            ready: VecDeque::new(),
            sent: 0,
            dropped: 0,
        }
    }

    /// Sets a link, or changes it from now on.
    pub fn set(&mut self, place: Place, spec: &LinkSpec) {
        let (kind, from, to) = match place {
            Place::Path(from, to) => (0, from, to),
            Place::Up(host) => (1, host, host),
            Place::Down(host) => (2, host, host),
        };
        let seed = self.seed ^ (kind << 56);
        self.links
            .entry(place)
            .and_modify(|link| link.set_spec(spec.clone()))
            .or_insert_with(|| Link::new(spec.clone(), seed, number(from), number(to)));
    }

    /// How a link is described; `None` if nothing was said about it.
    #[must_use]
    pub fn spec(&self, place: Place) -> Option<&LinkSpec> {
        self.links.get(&place).map(Link::spec)
    }

    /// What one link has done; `None` if nothing was said about it.
    #[must_use]
    pub fn link_counters(&self, place: Place) -> Option<LinkCounters> {
        self.links.get(&place).map(Link::counters)
    }

    /// What each link that was described has done.
    pub fn counters(&self) -> impl Iterator<Item = (Place, LinkCounters)> {
        self.links.iter().map(|(place, link)| (*place, link.counters()))
    }

    /// Packets that were dropped because too many were under way.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Host `from` sends a packet of `bytes` (IP header included) to host `to` at `now`, the time
    /// since the start of the run. Times never go back.
    pub fn send(&mut self, now: Duration, from: usize, to: usize, bytes: usize, payload: P) {
        self.advance(now);
        self.sent += 1;
        let number = self.sent;
        let place = Place::Up(from);
        let due = Due { at: now, number, place, to, bytes, flipped_bit: None, payload };
        self.cross(due, Place::Path(from, to));
        self.advance(now);
    }

    /// When the next packet goes from one link to the next, or arrives.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let ready = self.ready.front().map(|arrived| arrived.at);
        ready.or_else(|| self.due.peek().map(|Reverse(first)| first.at))
    }

    /// The next packet that has arrived by `now`, in order of arrival.
    pub fn arrived(&mut self, now: Duration) -> Option<Arrived<P>> {
        self.advance(now);
        self.ready.pop_front()
    }

    /// Moves every packet on that is due by `now`.
    fn advance(&mut self, now: Duration) {
        while self.due.peek().is_some_and(|Reverse(first)| first.at <= now) {
            let Some(Reverse(due)) = self.due.pop() else {
                break;
            };
            match due.place {
                // The place of a packet in the heap is the link that it comes to next.
                Place::Path(..) => {
                    let next = Place::Down(due.to);
                    self.cross(due, next);
                }
                Place::Down(_) => {
                    let arrived = Place::Up(due.to);
                    self.cross(due, arrived);
                }
                Place::Up(_) => {
                    let Due { at, to, payload, flipped_bit, .. } = due;
                    self.ready.push_back(Arrived { at, to, payload, flipped_bit });
                }
            }
        }
    }

    /// Offers a packet to the link that it has come to; if it gets through, it comes to `next`.
    fn cross(&mut self, due: Due<P>, next: Place) {
        let Some(link) = self.links.get_mut(&due.place) else {
            self.hold(Due { place: next, ..due });
            return;
        };
        let Verdict::Deliver(arrival) = link.offer(due.at, due.bytes) else {
            return;
        };
        let flipped_bit = due.flipped_bit.or(arrival.flipped_bit);
        let through = Due { at: arrival.at, place: next, flipped_bit, ..due };
        if arrival.twice {
            self.hold(second(&through));
        }
        self.hold(through);
    }

    fn hold(&mut self, due: Due<P>) {
        if self.due.len() + self.ready.len() < MAX_UNDER_WAY {
            self.due.push(Reverse(due));
        } else {
            self.dropped += 1;
        }
    }
}

/// A second packet like `due`.
fn second<P: Clone>(due: &Due<P>) -> Due<P> {
    Due {
        at: due.at,
        number: due.number,
        place: due.place,
        to: due.to,
        bytes: due.bytes,
        flipped_bit: due.flipped_bit,
        payload: due.payload.clone(),
    }
}

fn number(host: usize) -> u64 {
    u64::try_from(host).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(words: &str) -> LinkSpec {
        words.parse().unwrap()
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_packet_crosses_three_links_in_their_order() {
        let mut topology = Topology::new(1);
        topology.set(Place::Up(0), &spec("12Mbit"));
        topology.set(Place::Path(0, 1), &spec("10ms"));
        topology.set(Place::Down(1), &spec("6Mbit"));
        for payload in 0..2 {
            topology.send(ms(0), 0, 1, 1_500, payload);
        }
        // 1 ms on the way up, 10 ms across, 2 ms on the way down; the second waits for the first.
        assert_eq!(topology.arrived(ms(12)), None);
        let arrived = topology.arrived(ms(13)).unwrap();
        assert_eq!((arrived.at, arrived.to, arrived.payload), (ms(13), 1, 0));
        assert_eq!(topology.arrived(ms(14)), None);
        assert_eq!(topology.arrived(ms(15)).unwrap().at, ms(15));
        assert_eq!(topology.next_due(), None);
    }

    #[test]
    fn all_that_a_host_sends_shares_its_uplink() {
        let mut topology = Topology::new(1);
        topology.set(Place::Up(0), &spec("12Mbit 3000B-queue"));
        for to in [1, 2, 3] {
            topology.send(ms(0), 0, to, 1_500, to);
        }
        let mut arrived = Vec::new();
        while let Some(packet) = topology.arrived(ms(100)) {
            arrived.push((packet.at, packet.to));
        }
        assert_eq!(arrived, [(ms(1), 1), (ms(2), 2)]);
        let (place, counters) = topology.counters().next().unwrap();
        assert_eq!((place, counters.queue_dropped), (Place::Up(0), 1));
    }

    #[test]
    fn a_link_is_cut_and_healed_while_packets_are_under_way() {
        let mut topology = Topology::new(1);
        topology.set(Place::Path(0, 1), &spec("10ms"));
        topology.send(ms(0), 0, 1, 100, "before");
        topology.set(Place::Path(0, 1), &spec("10ms down"));
        topology.send(ms(1), 0, 1, 100, "cut");
        topology.set(Place::Path(0, 1), &spec("10ms"));
        topology.send(ms(2), 0, 1, 100, "after");
        assert_eq!(topology.arrived(ms(50)).unwrap().payload, "before");
        assert_eq!(topology.arrived(ms(50)).unwrap().payload, "after");
        assert_eq!(topology.arrived(ms(50)), None);
    }

    #[test]
    fn clumps_arrive_together_and_in_order() {
        let mut topology = Topology::new(1);
        topology.set(Place::Path(0, 1), &spec("3ms 10ms-clump"));
        for step in 0..20 {
            topology.send(ms(step), 0, 1, 100, step);
        }
        let mut arrived = Vec::new();
        while let Some(packet) = topology.arrived(ms(100)) {
            arrived.push((packet.at.as_millis(), packet.payload));
        }
        assert!(arrived.is_sorted(), "{arrived:?}");
        assert_eq!(arrived.iter().filter(|(at, _)| *at == 10).count(), 8);
        assert_eq!(arrived.iter().filter(|(at, _)| *at == 20).count(), 10);
    }

    #[test]
    fn a_doubled_packet_arrives_twice() {
        let mut topology = Topology::new(1);
        topology.set(Place::Down(1), &spec("100%-dup"));
        topology.send(ms(0), 0, 1, 100, ());
        assert!(topology.arrived(ms(0)).is_some());
        assert!(topology.arrived(ms(0)).is_some());
        assert!(topology.arrived(ms(0)).is_none());
    }
}
