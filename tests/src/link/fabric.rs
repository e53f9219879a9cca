//! Hosts joined by links: which links a packet passes, and what is on them.
//!
//! Each host has an access link up and one down, shared by all that it sends and receives; each
//! directed pair has a path. A packet passes the sender's access link up, the path, and the
//! receiver's access link down. A host that was given no access link has no limit there.
//!
//! Links are offered packets in the order of time, so the fabric holds a packet between two links
//! until the first has delivered it. Like a [`Link`] it has no clock and no sockets: the virtual
//! WAN and the emulator under real processes both drive it, each with a payload of its own.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use super::{Arrival, Link, LinkCounters, LinkSpec, Retimed, SplitMix, Verdict, next_multiple};

/// Packets on all links together; beyond it new ones are dropped.
pub const MAX_UNDER_WAY: usize = 1 << 20;

/// A host is known by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostNumber(pub u64);

/// One directed link of a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkId {
    /// From a host to all others.
    Up(HostNumber),
    /// From one host to another.
    Path(HostNumber, HostNumber),
    /// From all others to a host.
    Down(HostNumber),
}

impl LinkId {
    /// The link's own numbers, which depend on nothing but the seed and the link.
    fn rng(self, seed: u64) -> SplitMix {
        match self {
            Self::Up(HostNumber(host)) => SplitMix::from_parts(&[seed, 1, host, 0]),
            Self::Path(HostNumber(src), HostNumber(dst)) => SplitMix::from_parts(&[seed, src, dst]),
            Self::Down(HostNumber(host)) => SplitMix::from_parts(&[seed, 2, host, 0]),
        }
    }
}

/// A packet that has passed all its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived<P> {
    /// When.
    pub at: Duration,
    /// The sender.
    pub from: HostNumber,
    /// The receiver.
    pub to: HostNumber,
    /// Indices of the bits that links have flipped.
    pub flipped_bits: Vec<u64>,
    /// What was sent.
    pub payload: P,
}

/// The sender and the receiver have no path between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPath;

/// Hosts, their links, and the packets on them.
#[derive(Debug)]
pub struct Fabric<P> {
    seed: u64,
    links: BTreeMap<LinkId, Link>,
    under_way: BinaryHeap<Reverse<UnderWay<P>>>,
    /// Packets whose time has come, in order.
    arrived: VecDeque<Arrived<P>>,
    /// Packets ever put under way, which numbers them.
    count: u64,
    overflowed: u64,
}

impl<P: Clone> Fabric<P> {
    /// A fabric without links, whose randomness depends on `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            links: BTreeMap::new(),
            under_way: BinaryHeap::new(),
            arrived: VecDeque::new(),
            count: 0,
            overflowed: 0,
        }
    }

    /// Adds a link, or changes it from `now` on.
    pub fn set(&mut self, now: Duration, id: LinkId, spec: &LinkSpec) {
        self.advance(now);
        let Some(link) = self.links.get_mut(&id) else {
            self.links.insert(id, Link::with_rng(spec.clone(), id.rng(self.seed)));
            return;
        };
        if let Some(retimed) = link.set_spec(now, spec.clone()) {
            self.retime(id, retimed);
        }
    }

    /// How a link is described at present.
    #[must_use]
    pub fn spec(&self, id: LinkId) -> Option<&LinkSpec> {
        self.links.get(&id).map(Link::spec)
    }

    /// What a link has done.
    #[must_use]
    pub fn counters(&self, id: LinkId) -> Option<LinkCounters> {
        self.links.get(&id).map(Link::counters)
    }

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// Packets dropped because [`MAX_UNDER_WAY`] others were on the links.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Takes a packet of `bytes`, IP header included, at `now`.
    ///
    /// # Errors
    /// [`NoPath`] if no path leads from `from` to `to`.
    pub fn send(
        &mut self,
        now: Duration,
        (from, to): (HostNumber, HostNumber),
        bytes: usize,
        payload: P,
    ) -> Result<(), NoPath> {
        if !self.links.contains_key(&LinkId::Path(from, to)) {
            return Err(NoPath);
        }
        self.advance(now);
        let packet = Packet { from, to, bytes, flipped_bits: Vec::new(), payload };
        match self.links.contains_key(&LinkId::Up(from)) {
            true => self.offer(now, LinkId::Up(from), packet),
            false => self.offer(now, LinkId::Path(from, to), packet),
        }
        Ok(())
    }

    /// When [`Self::poll`] is to be called next.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let first = self.under_way.peek().map(|Reverse(first)| first.at);
        self.arrived.front().map(|arrived| arrived.at).or(first)
    }

    /// The next packet that has arrived by `now`.
    pub fn poll(&mut self, now: Duration) -> Option<Arrived<P>> {
        if self.arrived.is_empty() {
            self.advance(now);
        }
        self.arrived.pop_front()
    }

    /// Moves packets on to their next links until `now`.
    fn advance(&mut self, now: Duration) {
        while self.under_way.peek().is_some_and(|Reverse(first)| first.at <= now) {
            let Some(Reverse(due)) = self.under_way.pop() else { return };
            self.pass_on(due);
        }
    }

    fn pass_on(&mut self, due: UnderWay<P>) {
        let UnderWay { at, link, packet, .. } = due;
        let down = LinkId::Down(packet.to);
        match link {
            LinkId::Up(from) => self.offer(at, LinkId::Path(from, packet.to), packet),
            LinkId::Path(..) if self.links.contains_key(&down) => self.offer(at, down, packet),
            LinkId::Path(..) | LinkId::Down(_) => {
                let Packet { from, to, flipped_bits, payload, .. } = packet;
                self.arrived.push_back(Arrived { at, from, to, flipped_bits, payload });
            }
        }
    }

    fn offer(&mut self, now: Duration, id: LinkId, mut packet: Packet<P>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Verdict::Deliver(arrival) = link.offer(now, packet.bytes) else { return };
        packet.flipped_bits.extend(arrival.flipped_bit);
        if arrival.twice {
            self.put_under_way(arrival, id, packet.clone());
        }
        self.put_under_way(arrival, id, packet);
    }

    fn put_under_way(&mut self, arrival: Arrival, link: LinkId, packet: Packet<P>) {
        if self.under_way.len() + self.arrived.len() >= MAX_UNDER_WAY {
            self.overflowed += 1;
            return;
        }
        self.count += 1;
        let Arrival { left, at, .. } = arrival;
        self.under_way.push(Reverse(UnderWay { at, number: self.count, left, link, packet }));
    }

    /// Moves what waits in the queue of a link whose rate has changed.
    fn retime(&mut self, id: LinkId, retimed: Retimed) {
        let clump = self.spec(id).map_or(Duration::ZERO, |spec| spec.clump);
        let mut packets = std::mem::take(&mut self.under_way).into_vec();
        for Reverse(packet) in packets.iter_mut().filter(|Reverse(packet)| packet.link == id) {
            let left = retimed.left(packet.left);
            if left != packet.left {
                let on_the_way = packet.at.saturating_sub(packet.left);
                packet.at = next_multiple(left.saturating_add(on_the_way), clump);
                packet.left = left;
            }
        }
        self.under_way = packets.into();
    }
}

#[derive(Clone, Debug)]
struct Packet<P> {
    from: HostNumber,
    to: HostNumber,
    bytes: usize,
    flipped_bits: Vec<u64>,
    payload: P,
}

/// A packet on a link, ordered by arrival at the link's end and, among equals, by the order in
/// which they came to their links.
#[derive(Debug)]
struct UnderWay<P> {
    at: Duration,
    number: u64,
    /// When it has left the queue of the link.
    left: Duration,
    link: LinkId,
    packet: Packet<P>,
}

impl<P> PartialEq for UnderWay<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for UnderWay<P> {}

impl<P> PartialOrd for UnderWay<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for UnderWay<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostNumber = HostNumber(1);
    const B: HostNumber = HostNumber(2);
    const C: HostNumber = HostNumber(3);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn fabric(links: &[(LinkId, &str)]) -> Fabric<u64> {
        let mut fabric = Fabric::new(7);
        for (id, spec) in links {
            fabric.set(ms(0), *id, &spec.parse().unwrap());
        }
        fabric
    }

    fn arrivals(fabric: &mut Fabric<u64>, until: Duration) -> Vec<(u64, Duration)> {
        let next = || fabric.poll(until).map(|arrived| (arrived.payload, arrived.at));
        std::iter::from_fn(next).collect()
    }

    /// 1,000 bytes take 1 ms at 8 Mbit/s.
    const RATE: &str = "0ms 8Mbit 1MiB-queue";

    #[test]
    fn a_packet_passes_up_path_and_down() {
        let mut fabric = fabric(&[
            (LinkId::Up(A), "1ms"),
            (LinkId::Path(A, B), "10ms"),
            (LinkId::Down(B), "100ms"),
        ]);
        fabric.send(ms(5), (A, B), 1000, 1).unwrap();
        assert_eq!(fabric.next_due(), Some(ms(6)), "at the end of the access link");
        assert_eq!(arrivals(&mut fabric, ms(115)), []);
        assert_eq!(arrivals(&mut fabric, ms(116)), [(1, ms(116))]);
        assert_eq!(fabric.next_due(), None);
        assert_eq!(fabric.send(ms(5), (B, A), 1000, 2), Err(NoPath));
    }

    #[test]
    fn the_access_links_are_shared_and_the_paths_are_not() {
        let paths = [(LinkId::Path(A, B), "10ms"), (LinkId::Path(A, C), "20ms")];
        let mut free = fabric(&paths);
        let mut shared = fabric(&[paths[0], paths[1], (LinkId::Up(A), RATE)]);
        for fabric in [&mut free, &mut shared] {
            fabric.send(ms(0), (A, B), 1000, 1).unwrap();
            fabric.send(ms(0), (A, C), 1000, 2).unwrap();
        }
        assert_eq!(arrivals(&mut free, ms(100)), [(1, ms(10)), (2, ms(20))]);
        assert_eq!(arrivals(&mut shared, ms(100)), [(1, ms(11)), (2, ms(22))]);

        let mut down = fabric(&[
            (LinkId::Path(A, C), "10ms"),
            (LinkId::Path(B, C), "10ms"),
            (LinkId::Down(C), RATE),
        ]);
        down.send(ms(0), (A, C), 1000, 1).unwrap();
        down.send(ms(0), (B, C), 1000, 2).unwrap();
        assert_eq!(arrivals(&mut down, ms(100)), [(1, ms(11)), (2, ms(12))]);
    }

    /// However late the fabric is called, its links see packets at the times of the links before.
    #[test]
    fn a_late_caller_changes_nothing_on_the_links() {
        let links = [(LinkId::Up(A), RATE), (LinkId::Path(A, B), "3ms"), (LinkId::Down(B), RATE)];
        let run = |every: u64| {
            let mut fabric = fabric(&links);
            let mut got = Vec::new();
            for sent in 0..20 {
                fabric.send(ms(sent), (A, B), 500, sent).unwrap();
                if sent.is_multiple_of(every) {
                    got.extend(arrivals(&mut fabric, ms(sent)));
                }
            }
            got.extend(arrivals(&mut fabric, ms(1000)));
            got
        };
        assert_eq!(run(1), run(20));
        assert_eq!(run(1)[0], (0, ms(4)));
    }

    #[test]
    fn a_link_that_is_added_leaves_the_others_as_they_were() {
        let lossy = "5ms 4ms-jitter 30%-loss";
        let run = |links: &[(LinkId, &str)]| {
            let mut fabric = fabric(links);
            (0..100).for_each(|i| fabric.send(ms(i), (A, B), 100, i).unwrap());
            arrivals(&mut fabric, ms(1000))
        };
        let alone = run(&[(LinkId::Path(A, B), lossy)]);
        assert!((50..90).contains(&alone.len()), "{}", alone.len());
        let beside = [(LinkId::Path(A, B), lossy), (LinkId::Path(A, C), lossy)];
        assert_eq!(run(&beside), alone);
        let behind =
            [(LinkId::Path(A, B), lossy), (LinkId::Up(A), "0ms"), (LinkId::Down(B), "0ms")];
        assert_eq!(run(&behind), alone);
    }

    #[test]
    fn a_change_of_rate_moves_what_waits_and_nothing_else() {
        let path = LinkId::Path(A, B);
        let mut fabric = fabric(&[(path, "10ms 8Mbit 4KiB-queue")]);
        (0..4).for_each(|i| fabric.send(ms(0), (A, B), 1000, i).unwrap());
        // One has left, the second has half left, two wait.
        fabric.set(Duration::from_micros(1500), path, &"10ms 80Mbit 4KiB-queue".parse().unwrap());
        let us = Duration::from_micros;
        let expected = [(0, ms(11)), (1, us(11_550)), (2, us(11_650)), (3, us(11_750))];
        assert_eq!(arrivals(&mut fabric, ms(100)), expected);
        fabric.send(ms(200), (A, B), 1000, 4).unwrap();
        assert_eq!(arrivals(&mut fabric, ms(300)), [(4, us(210_100))]);
    }

    /// A queue that was filled at the old rate has the room at the new one that its bytes leave.
    #[test]
    fn a_change_of_rate_leaves_the_bytes_in_the_queue_as_they_are() {
        let path = LinkId::Path(A, B);
        let mut fabric = fabric(&[(path, "0ms 8Mbit 4000B-queue")]);
        (0..4).for_each(|i| fabric.send(ms(0), (A, B), 1000, i).unwrap());
        for (now, rate) in [(1, "80Mbit"), (1, "800Kbit")] {
            let spec = format!("0ms {rate} 4000B-queue");
            fabric.set(ms(now), path, &spec.parse().unwrap());
        }
        fabric.send(ms(1), (A, B), 1000, 4).unwrap();
        fabric.send(ms(1), (A, B), 1000, 5).unwrap();
        let expected = [(0, ms(1)), (1, ms(11)), (2, ms(21)), (3, ms(31)), (4, ms(41))];
        assert_eq!(arrivals(&mut fabric, ms(100)), expected);
        assert_eq!(fabric.counters(path).unwrap().queue_dropped, 1);
    }

    #[test]
    fn every_link_that_flips_a_bit_is_told_of() {
        let bad = "0ms 100%-corrupt";
        let mut fabric = fabric(&[(LinkId::Up(A), bad), (LinkId::Path(A, B), bad)]);
        fabric.send(ms(0), (A, B), 100, 1).unwrap();
        let arrived = fabric.poll(ms(0)).unwrap();
        assert_eq!(arrived.flipped_bits.len(), 2);
        assert!(arrived.flipped_bits.iter().all(|bit| *bit < 800));
    }
}
