//! The event loop: packets under way, timers, changes, looks.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::{ClientConfig, EndpointConfig, ServerConfig, TransportConfig};
use shared_io::{
    congestion::ShallowConfig,
    transport::{Congestion, Terms, transport_config},
};

use super::{
    Change, Flow, FlowError, FlowReport, Report, SAMPLE_EVERY, Sample, Scenario,
    peer::{Part, Peer},
};
use crate::{
    link::{Link, Verdict},
    wan::{Authority, Randomness},
};

/// Bytes of an IPv4 and a UDP header.
const HEADERS: usize = 28;
/// Longest IP packet that the links carry, as on Ethernet.
const MAX_PACKET: usize = 1_500;
const PORT: u16 = 4433;

/// Runs a scenario to its end.
///
/// # Errors
/// Certificates that cannot be made, connections that cannot be dialled.
pub fn run(scenario: &Scenario) -> Result<Report, FlowError> {
    let mut bench = Bench::new(scenario)?;
    bench.schedule(scenario);
    bench.go(scenario)?;
    Ok(bench.report())
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    /// From the bottleneck onto the path of its flow.
    Path,
    /// To its receiver.
    Arrive,
}

#[derive(Debug)]
enum What {
    Packet { flow: usize, forth: bool, hop: Hop, payload: Bytes },
    Timer { flow: usize, sender: bool },
    Start(usize),
    Change(usize),
    Look,
}

struct Due {
    at: Duration,
    number: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// One flow under way.
struct Running {
    sender: Peer,
    receiver: Peer,
    client: ClientConfig,
    path: Link,
    back: Link,
    returns: bool,
    report: FlowReport,
    /// The timers that are in the heap: of sender and receiver.
    timers: [Option<Duration>; 2],
}

struct Queue {
    heap: BinaryHeap<Reverse<Due>>,
    count: u64,
}

impl Queue {
    fn push(&mut self, at: Duration, what: What) {
        self.count += 1;
        self.heap.push(Reverse(Due { at, number: self.count, what }));
    }
}

struct Bench {
    origin: Instant,
    flows: Vec<Running>,
    bottleneck: Link,
    return_bottleneck: Option<Link>,
    queue: Queue,
}

impl Bench {
    fn new(scenario: &Scenario) -> Result<Self, FlowError> {
        let authority = Authority::new(scenario.seed)?;
        let flows = scenario.flows.iter().enumerate();
        let flows = flows.map(|(at, flow)| running(scenario.seed, at, flow, &authority));
        #[expect(clippy::disallowed_methods, reason = "an origin of virtual time, read once")]
        let origin = Instant::now();
        Ok(Self {
            origin,
            flows: flows.collect::<Result<_, _>>()?,
            bottleneck: Link::new(scenario.bottleneck.clone(), scenario.seed, 0, 0),
            return_bottleneck: scenario
                .return_bottleneck
                .clone()
                .map(|spec| Link::new(spec, scenario.seed, 0, 1)),
            queue: Queue { heap: BinaryHeap::new(), count: 0 },
        })
    }

    fn schedule(&mut self, scenario: &Scenario) {
        for (at, flow) in scenario.flows.iter().enumerate() {
            self.queue.push(flow.start, What::Start(at));
        }
        for (at, (time, _)) in scenario.changes.iter().enumerate() {
            self.queue.push(*time, What::Change(at));
        }
        self.queue.push(Duration::ZERO, What::Look);
    }

    fn go(&mut self, scenario: &Scenario) -> Result<(), FlowError> {
        while let Some(Reverse(Due { at, what, .. })) = self.queue.heap.pop() {
            if at > scenario.length {
                break;
            }
            match what {
                What::Packet { flow, forth, hop, payload } => {
                    self.packet(at, flow, forth, hop, payload);
                }
                What::Timer { flow, sender } => self.timer(at, flow, sender),
                What::Start(flow) => self.start(at, flow)?,
                What::Change(index) => {
                    if let Some((_, change)) = scenario.changes.get(index) {
                        self.change(change);
                    }
                }
                What::Look => self.look(at),
            }
        }
        Ok(())
    }

    fn start(&mut self, at: Duration, flow: usize) -> Result<(), FlowError> {
        let now = self.origin + at;
        if let Some(running) = self.flows.get_mut(flow) {
            let to = running.receiver.address();
            let client = running.client.clone();
            running
                .sender
                .dial(now, client, (to, "receiver"))
                .map_err(|source| FlowError::Dial { flow, source })?;
        }
        self.go_on(at, flow, true);
        Ok(())
    }

    fn packet(&mut self, at: Duration, flow: usize, forth: bool, hop: Hop, payload: Bytes) {
        let Some(running) = self.flows.get_mut(flow) else {
            return;
        };
        if hop == Hop::Path {
            let link = if forth { &mut running.path } else { &mut running.back };
            carry(link, at, payload, |at, payload| {
                self.queue.push(at, What::Packet { flow, forth, hop: Hop::Arrive, payload });
            });
            return;
        }
        let now = self.origin + at;
        let from = if forth { running.sender.address() } else { running.receiver.address() };
        let to = if forth { &mut running.receiver } else { &mut running.sender };
        to.receive(now, from, &payload);
        self.go_on(at, flow, !forth);
    }

    fn timer(&mut self, at: Duration, flow: usize, sender: bool) {
        let Some(running) = self.flows.get_mut(flow) else {
            return;
        };
        let [of_sender, of_receiver] = &mut running.timers;
        let (peer, timer) = match sender {
            true => (&mut running.sender, of_sender),
            false => (&mut running.receiver, of_receiver),
        };
        if *timer == Some(at) {
            *timer = None;
            peer.time_passed(self.origin + at);
            self.go_on(at, flow, sender);
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Bottleneck(spec) => self.bottleneck.set_spec(spec.clone()),
            Change::Paths(spec) => {
                for running in &mut self.flows {
                    running.path.set_spec(spec.clone());
                    running.back.set_spec(spec.clone());
                }
            }
        }
    }

    /// Lets one end of a flow send what it may, and notes when it wants to be woken.
    fn go_on(&mut self, at: Duration, flow: usize, sender: bool) {
        let Self { origin, flows, bottleneck, return_bottleneck, queue } = self;
        let Some(running) = flows.get_mut(flow) else {
            return;
        };
        let Running { sender: sends, receiver, timers: [of_sender, of_receiver], .. } = running;
        let (peer, timer, way) = match sender {
            true => (sends, of_sender, &mut running.path),
            false => (receiver, of_receiver, &mut running.back),
        };
        let first =
            if sender == running.returns { return_bottleneck.as_mut() } else { Some(bottleneck) };
        let (link, hop) = first.map_or((way, Hop::Arrive), |first| (first, Hop::Path));
        peer.go_on(*origin + at, |_, datagram| {
            carry(link, at, Bytes::copy_from_slice(datagram), |at, payload| {
                queue.push(at, What::Packet { flow, forth: sender, hop, payload });
            });
        });
        if let Some(due) = peer.next_timer() {
            let due = due.saturating_duration_since(*origin).max(at);
            if timer.is_none_or(|known| known != due) {
                *timer = Some(due);
                queue.push(due, What::Timer { flow, sender });
            }
        }
    }

    fn look(&mut self, at: Duration) {
        for running in &mut self.flows {
            let mut sample = Sample { bytes: running.receiver.read, ..Sample::default() };
            if let Some(connection) = running.sender.connection() {
                let path = connection.stats().path;
                sample.rtt = path.rtt;
                sample.window = path.cwnd;
                running.report.lost_packets = path.lost_packets;
            }
            running.report.samples.push(sample);
        }
        self.queue.push(at + SAMPLE_EVERY, What::Look);
    }

    fn report(self) -> Report {
        let flows = self.flows.into_iter().map(|mut running| {
            running.report.died = running.sender.died.or(running.receiver.died);
            running.report
        });
        Report { flows: flows.collect(), bottleneck: self.bottleneck.counters() }
    }
}

fn carry(link: &mut Link, at: Duration, payload: Bytes, mut arrive: impl FnMut(Duration, Bytes)) {
    let bytes = payload.len() + HEADERS;
    if bytes > MAX_PACKET {
        return;
    }
    if let Verdict::Deliver(arrival) = link.offer(at, bytes) {
        if arrival.twice {
            arrive(arrival.at, payload.clone());
        }
        // A flipped bit is found by UDP's checksum.
        if arrival.flipped_bit.is_none() {
            arrive(arrival.at, payload);
        }
    }
}

fn running(seed: u64, at: usize, flow: &Flow, authority: &Authority) -> Result<Running, FlowError> {
    let number = u64::try_from(at).unwrap_or(u64::MAX) + 1;
    let mut transport: TransportConfig =
        transport_config(&Terms { congestion: flow.congestion, ..Terms::default() });
    if flow.congestion == Congestion::Shallow {
        // Seeded, unlike those of a process.
        transport.congestion_controller_factory(Arc::new(ShallowConfig::with_seed(seed)));
    }
    let transport = Arc::new(transport);
    let sends = Randomness::from_parts(&[seed, number, 1]);
    let reads = Randomness::from_parts(&[seed, number, 2]);
    let mut client = ClientConfig::new(Arc::new(authority.client("sender")?));
    client.transport_config(Arc::clone(&transport));
    client.initial_dst_cid_provider(sends.first_connection_ids());
    let mut server = ServerConfig::with_crypto(Arc::new(authority.server("receiver")?));
    server.transport_config(transport);
    server.token_key(reads.token_key());
    let host = |last| SocketAddr::from((Ipv4Addr::new(10, 77, octet(at), last), PORT));
    let peer = |address, part, randomness: &Randomness, server| {
        let config: EndpointConfig = randomness.endpoint_config();
        Peer::new(address, part, config, server)
    };
    Ok(Running {
        sender: peer(host(1), Part::Sends, &sends, None),
        receiver: peer(host(2), Part::Reads, &reads, Some(server)),
        client,
        path: Link::new(flow.path.clone(), seed, number, 1),
        back: Link::new(flow.back.clone(), seed, number, 2),
        returns: flow.returns,
        report: FlowReport::default(),
        timers: [None, None],
    })
}

fn octet(at: usize) -> u8 {
    u8::try_from(at).unwrap_or(u8::MAX)
}
