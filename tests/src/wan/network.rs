//! The network's state: links, packets under way, inboxes of sockets, the trace. No clock of its
//! own and no waiting.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use quinn::udp::EcnCodepoint;

use crate::link::{
    LinkCounters, LinkSpec,
    topology::{Arrived, Place, Topology},
};

/// Bytes of an IPv4 and a UDP header, which count on links.
const HEADERS: usize = 28;
/// Longest IP packet that the network carries, as on Ethernet.
const MAX_PACKET: usize = 1500;
/// Room of a socket's inbox, what the product asks its sockets for.
const MAX_INBOX_BYTES: usize = 4 << 20;

/// A host is known by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) Ipv4Addr);

impl HostId {
    pub(super) fn number(self) -> u64 {
        u64::from(u32::from(self.0))
    }

    /// The host's number in the topology.
    fn index(self) -> usize {
        usize::try_from(u32::from(self.0)).unwrap_or(usize::MAX)
    }

    fn of(address: SocketAddr) -> Option<Self> {
        match address.ip() {
            IpAddr::V4(ip) => Some(Self(ip)),
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map(Self),
        }
    }
}

/// One UDP datagram.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) payload: Bytes,
}

/// All packets sent in a run: equal for two runs that sent the same lengths between the same ends
/// at the same times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Packets sent.
    pub packets: u64,
    /// Their bytes, IP and UDP headers included.
    pub bytes: u64,
    /// Hash over (time, from, to, length) of each, in order.
    pub hash: u64,
}

impl Trace {
    /// The start value of 64-bit FNV-1a.
    const START: Self = Self { packets: 0, bytes: 0, hash: 0xcbf2_9ce4_8422_2325 };

    fn add(&mut self, now: Duration, packet: &Packet) {
        let length = to_u64(packet.payload.len() + HEADERS);
        self.packets += 1;
        self.bytes += length;
        self.mix(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        for end in [packet.from, packet.to] {
            self.mix(HostId::of(end).map_or(0, HostId::number) << 16 | u64::from(end.port()));
        }
        self.mix(length);
    }

    fn mix(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Packets dropped by the hosts or by the network as a whole, not by a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// No path from the sender's host to the receiver's.
    pub no_link: u64,
    /// No socket at the address of the receiver.
    pub no_socket: u64,
    /// Longer than 1,500 bytes with headers, as MTU discovery tries them.
    pub too_long: u64,
    /// The receiving socket's buffer of 4 MiB was full.
    pub inbox_full: u64,
    /// A bit was flipped on the way: the UDP checksum of the receiving host refuses it.
    pub checksum: u64,
    /// More than about 260,000 packets under way.
    pub network_full: u64,
}

/// What [`Network::deliver`] did.
#[derive(Debug)]
pub(super) struct Delivered {
    /// Readers of the inboxes that got packets.
    pub(super) woken: Vec<Waker>,
    /// When the next packet is due.
    pub(super) next: Option<Duration>,
}

#[derive(Debug, Default)]
struct Inbox {
    packets: VecDeque<Packet>,
    bytes: usize,
    reader: Option<Waker>,
}

#[derive(Debug)]
pub(super) struct Network {
    topology: Topology<Packet>,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    /// Hosts that stand still.
    frozen: BTreeSet<HostId>,
    /// Who waits for a frozen host to send again.
    writers: Vec<Waker>,
    trace: Trace,
    drops: Drops,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            topology: Topology::new(seed),
            inboxes: BTreeMap::new(),
            frozen: BTreeSet::new(),
            writers: Vec::new(),
            trace: Trace::START,
            drops: Drops::default(),
        }
    }

    pub(super) fn set_path(&mut self, from: HostId, to: HostId, spec: &LinkSpec) {
        self.topology.set(Place::Path(from.index(), to.index()), spec);
    }

    pub(super) fn set_uplink(&mut self, host: HostId, spec: &LinkSpec) {
        self.topology.set(Place::Up(host.index()), spec);
    }

    pub(super) fn set_downlink(&mut self, host: HostId, spec: &LinkSpec) {
        self.topology.set(Place::Down(host.index()), spec);
    }

    pub(super) fn path_counters(&self, from: HostId, to: HostId) -> Option<LinkCounters> {
        self.topology.link_counters(Place::Path(from.index(), to.index()))
    }

    pub(super) fn uplink_counters(&self, host: HostId) -> Option<LinkCounters> {
        self.topology.link_counters(Place::Up(host.index()))
    }

    /// Has a host stand still. What arrives there waits in its inboxes.
    pub(super) fn freeze(&mut self, host: HostId) {
        self.frozen.insert(host);
    }

    /// Has a host go on; its readers, and whoever waits to write, are to be woken.
    pub(super) fn thaw(&mut self, host: HostId) -> Vec<Waker> {
        self.frozen.remove(&host);
        let inboxes = self.inboxes.iter_mut().filter(|(at, _)| HostId::of(**at) == Some(host));
        let readers = inboxes.filter_map(|(_, inbox)| inbox.reader.take());
        readers.chain(std::mem::take(&mut self.writers)).collect()
    }

    /// Whether the host of `address` stands still.
    pub(super) fn is_frozen(&self, address: SocketAddr) -> bool {
        HostId::of(address).is_some_and(|host| self.frozen.contains(&host))
    }

    /// Whether `address` may send; if not, `writer` is woken when it may.
    pub(super) fn may_send(&mut self, address: SocketAddr, writer: &Waker) -> bool {
        let frozen = self.is_frozen(address);
        if frozen {
            self.writers.push(writer.clone());
        }
        !frozen
    }

    pub(super) fn trace(&self) -> Trace {
        self.trace
    }

    pub(super) fn drops(&self) -> Drops {
        Drops { network_full: self.topology.dropped(), ..self.drops }
    }

    /// Whether the address was free and is now bound.
    pub(super) fn bind(&mut self, address: SocketAddr) -> bool {
        let free = !self.inboxes.contains_key(&address);
        if free {
            self.inboxes.insert(address, Inbox::default());
        }
        free
    }

    pub(super) fn unbind(&mut self, address: SocketAddr) {
        self.inboxes.remove(&address);
    }

    /// Takes a packet from a socket; whether it is due before all others.
    pub(super) fn send(&mut self, now: Duration, packet: Packet) -> bool {
        self.trace.add(now, &packet);
        let length = packet.payload.len() + HEADERS;
        if length > MAX_PACKET {
            self.drops.too_long += 1;
            return false;
        }
        let ends = HostId::of(packet.from).zip(HostId::of(packet.to));
        let ends = ends.map(|(from, to)| (from.index(), to.index()));
        let known =
            |ends: &(usize, usize)| self.topology.spec(Place::Path(ends.0, ends.1)).is_some();
        let Some((from, to)) = ends.filter(known) else {
            self.drops.no_link += 1;
            return false;
        };
        let before = self.topology.next_due();
        self.topology.send(now, from, to, length, packet);
        let after = self.topology.next_due();
        after.is_some_and(|after| before.is_none_or(|before| after < before))
    }

    /// Moves all packets due by `now` into the inboxes of their sockets.
    pub(super) fn deliver(&mut self, now: Duration) -> Delivered {
        let mut woken = Vec::new();
        while let Some(arrived) = self.topology.arrived(now) {
            woken.extend(self.put_in_inbox(arrived));
        }
        Delivered { woken, next: self.topology.next_due() }
    }

    /// The oldest packet in the inbox of `address`; without one, `reader` is woken by the next.
    pub(super) fn receive(&mut self, address: SocketAddr, reader: &Waker) -> Option<Packet> {
        let frozen = self.is_frozen(address);
        let inbox = self.inboxes.get_mut(&address)?;
        let packet = if frozen { None } else { inbox.packets.pop_front() };
        match &packet {
            Some(packet) => inbox.bytes -= packet.payload.len(),
            None => inbox.reader = Some(reader.clone()),
        }
        packet
    }

    fn put_in_inbox(&mut self, arrived: Arrived<Packet>) -> Option<Waker> {
        let Arrived { payload: packet, flipped_bit, .. } = arrived;
        let frozen = self.is_frozen(packet.to);
        let Some(inbox) = self.inboxes.get_mut(&packet.to) else {
            self.drops.no_socket += 1;
            return None;
        };
        if flipped_bit.is_some() {
            self.drops.checksum += 1;
            return None;
        }
        if inbox.bytes + packet.payload.len() > MAX_INBOX_BYTES {
            self.drops.inbox_full += 1;
            return None;
        }
        inbox.bytes += packet.payload.len();
        inbox.packets.push_back(packet);
        if frozen { None } else { inbox.reader.take() }
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
