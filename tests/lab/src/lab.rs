//! A lab: hosts that are network namespaces, and what carries packets between them.

use std::{
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use distributary_tests::link::{
    LinkCounters, LinkSpec,
    topology::{Place, Topology},
};
use serde::Serialize;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::{
    back_end::BackEnd,
    clock::Clock,
    emulator::{Emulator, EmulatorReport},
    lateness::LatenessReport,
    namespace::{self, DEVICE, Namespace, NamespaceError},
    netem::{Netem, NetemError},
};

/// Beyond these a run says nothing about the links: packets were late, or lost outside of them.
const LATE_P99: Duration = Duration::from_millis(1);
const HOST_DROPS_MAX: u64 = 0;
/// How long a server may take to answer, and how much it may say.
const ANSWER: Duration = Duration::from_secs(5);
const ANSWER_MAX: u64 = 1 << 20;

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LabError {
    /// The machine lacks something.
    #[error("the lab cannot run here: {0}")]
    Lacking(String),
    /// Namespaces.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A TUN device.
    #[error("cannot make the TUN device of host {host}: {source}")]
    Device {
        /// Whose.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The emulator's thread.
    #[error("cannot start the emulator: {0}")]
    Emulator(io::Error),
    /// The kernel as a back end.
    #[error(transparent)]
    Netem(#[from] NetemError),
    /// A host that nobody named.
    #[error("no host is called {0:?}")]
    NoHost(String),
}

/// What a lab consists of, before it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Names of the hosts; their numbers are their places.
    pub(crate) hosts: Vec<String>,
    /// Links that are not without limit.
    pub(crate) links: Vec<(Place, LinkSpec)>,
    /// Randomness of the links.
    pub(crate) seed: u64,
}

/// What carries the packets of a running lab.
#[derive(Debug)]
enum Carrier {
    Emulator(Emulator),
    Netem(Netem),
}

/// A running lab; everything is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    carrier: Carrier,
    names: Vec<String>,
    namespaces: Vec<Namespace>,
    clock: Clock,
}

/// What became of a lab's packets.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LabReport {
    /// What carried the packets.
    pub(crate) back_end: BackEnd,
    /// Why the run says nothing, if it does not.
    pub(crate) invalid: Vec<String>,
    /// Packets by how late they were handed over; the kernel does not tell.
    pub(crate) lateness: Option<LatenessReport>,
    /// What each described link did.
    pub(crate) links: Vec<LinkReport>,
}

impl LabReport {
    /// How late packets were, for a line of text.
    pub(crate) fn late(&self) -> String {
        match &self.lateness {
            Some(lateness) => format!("late p99 {} us", lateness.p99_us),
            None => "late unknown".to_owned(),
        }
    }
}

/// One link's packets.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LinkReport {
    /// Which.
    pub(crate) link: String,
    /// Packets offered to it.
    pub(crate) offered: u64,
    /// Handed on.
    pub(crate) delivered: u64,
    /// Bytes of the packets handed on.
    pub(crate) delivered_bytes: u64,
    /// Lost at random.
    pub(crate) lost: u64,
    /// Dropped by its queue.
    pub(crate) queue_dropped: u64,
    /// Dropped while it was cut.
    pub(crate) down_dropped: u64,
}

impl Lab {
    /// Sets up hosts and links and starts to carry packets.
    ///
    /// # Errors
    /// [`LabError`]; nothing is left behind then.
    pub(crate) fn start(plan: &Plan, back_end: BackEnd) -> Result<Self, LabError> {
        if let Some(what) = back_end.lacking().into_iter().next() {
            return Err(LabError::Lacking(what));
        }
        namespace::sweep();
        let hosts = plan.hosts.iter().map(|host| Namespace::create(host));
        let namespaces = hosts.collect::<Result<Vec<_>, _>>()?;
        let clock = Clock::start();
        let carrier = match back_end {
            BackEnd::Emulator => Carrier::Emulator(emulator(plan, &namespaces, clock)?),
            BackEnd::Netem => Carrier::Netem(Netem::start(&plan.hosts, &plan.links)?),
        };
        Ok(Self { carrier, names: plan.hosts.clone(), namespaces, clock })
    }

    /// `program`, to be run on `host`.
    ///
    /// # Errors
    /// A host that nobody named.
    pub(crate) fn command(
        &self,
        host: &str,
        program: impl AsRef<OsStr>,
    ) -> Result<Command, LabError> {
        Ok(self.namespace(host)?.command(program))
    }

    /// The address of a host.
    ///
    /// # Errors
    /// A host that nobody named.
    pub(crate) fn address(&self, host: &str) -> Result<Ipv4Addr, LabError> {
        Ok(namespace::address(self.number(host)?))
    }

    /// What an HTTP server of `host`, which listens on its loopback, answers.
    ///
    /// # Errors
    /// A host that nobody named, or whose server does not answer.
    pub(crate) fn get(&self, host: &str, port: u16, path: &str) -> io::Result<String> {
        let namespace = self.namespace(host).map_err(io::Error::other)?;
        let ask = || {
            namespace.enter().map_err(io::Error::other)?;
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_read_timeout(Some(ANSWER))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
            let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
            body.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        thread::scope(|scope| scope.spawn(ask).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread that asks ended early")))
    }

    /// Changes a link from now on.
    ///
    /// # Errors
    /// A link that the back end cannot be.
    pub(crate) fn set(&self, place: Place, spec: &LinkSpec) -> Result<(), LabError> {
        match &self.carrier {
            Carrier::Emulator(emulator) => emulator.set(place, spec),
            Carrier::Netem(netem) => netem.set(place, spec)?,
        }
        Ok(())
    }

    /// What tells the time since the lab was started.
    #[must_use]
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Time since the lab was started.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// What each link has done.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub(crate) fn links(&self) -> Result<Vec<(Place, LinkCounters)>, LabError> {
        match &self.carrier {
            Carrier::Emulator(emulator) => Ok(emulator.report().links),
            Carrier::Netem(netem) => Ok(netem.counters()?),
        }
    }

    /// What one link has done.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub(crate) fn link(&self, place: Place) -> Result<LinkCounters, LabError> {
        let links = self.links()?;
        let link = links.into_iter().find(|(at, _)| *at == place);
        Ok(link.map(|(_, link)| link).unwrap_or_default())
    }

    /// What became of the packets so far, and whether that can be relied upon.
    #[must_use]
    pub(crate) fn report(&self) -> LabReport {
        let mut report = match &self.carrier {
            Carrier::Emulator(emulator) => self.emulated(&emulator.report()),
            Carrier::Netem(netem) => self.by_kernel(netem),
        };
        for (name, namespace) in self.names.iter().zip(&self.namespaces) {
            let drops = host_drops(namespace);
            if drops > HOST_DROPS_MAX {
                let why = format!("host {name} dropped {drops} packets before or after the links");
                report.invalid.push(why);
            }
        }
        report
    }

    fn emulated(&self, report: &EmulatorReport) -> LabReport {
        let mut invalid = Vec::new();
        if u128::from(report.lateness.p99_us) > LATE_P99.as_micros() {
            let late = report.lateness.p99_us;
            invalid.push(format!("1 of 100 packets was more than {late} us late"));
        }
        if report.overflow > 0 {
            invalid.push(format!("{} packets too many were under way", report.overflow));
        }
        let lateness = Some(report.lateness);
        let links = self.link_reports(&report.links);
        LabReport { back_end: BackEnd::Emulator, invalid, lateness, links }
    }

    fn by_kernel(&self, netem: &Netem) -> LabReport {
        let mut invalid = Vec::new();
        match netem.drops() {
            Ok(0) => {}
            Ok(drops) => invalid.push(format!("{drops} packets were dropped between the links")),
            Err(error) => invalid.push(error.to_string()),
        }
        let counters = netem.counters().unwrap_or_else(|error| {
            invalid.push(error.to_string());
            Vec::new()
        });
        let links = self.link_reports(&counters);
        LabReport { back_end: BackEnd::Netem, invalid, lateness: None, links }
    }

    fn link_reports(&self, links: &[(Place, LinkCounters)]) -> Vec<LinkReport> {
        links.iter().map(|(place, link)| self.link_report(*place, link)).collect()
    }

    fn link_report(&self, place: Place, link: &LinkCounters) -> LinkReport {
        let name = |host: usize| self.names.get(host).map_or("?", String::as_str);
        let name = match place {
            Place::Up(host) => format!("{} up", name(host)),
            Place::Down(host) => format!("{} down", name(host)),
            Place::Path(from, to) => format!("{} to {}", name(from), name(to)),
        };
        LinkReport {
            link: name,
            offered: link.offered,
            delivered: link.delivered,
            delivered_bytes: link.delivered_bytes,
            lost: link.lost,
            queue_dropped: link.queue_dropped,
            down_dropped: link.down_dropped,
        }
    }

    fn namespace(&self, host: &str) -> Result<&Namespace, LabError> {
        let namespace = self.namespaces.get(self.number(host)?);
        namespace.ok_or_else(|| LabError::NoHost(host.to_owned()))
    }

    fn number(&self, host: &str) -> Result<usize, LabError> {
        let number = self.names.iter().position(|name| name == host);
        number.ok_or_else(|| LabError::NoHost(host.to_owned()))
    }
}

/// The emulator between hosts, whose namespaces are there.
fn emulator(plan: &Plan, namespaces: &[Namespace], clock: Clock) -> Result<Emulator, LabError> {
    let mut topology = Topology::new(plan.seed);
    for (place, spec) in &plan.links {
        topology.set(*place, spec);
    }
    let mut devices = Vec::new();
    for (number, (host, namespace)) in plan.hosts.iter().zip(namespaces).enumerate() {
        devices.push(device(host, namespace)?);
        namespace.bring_up(number)?;
    }
    Emulator::start(clock, topology, devices).map_err(LabError::Emulator)
}

/// The TUN device of a host. A device belongs to the namespace of the thread that makes it.
fn device(host: &str, namespace: &Namespace) -> Result<SyncDevice, LabError> {
    let failed = |source| LabError::Device { host: host.to_owned(), source };
    let make = || -> Result<SyncDevice, LabError> {
        namespace.enter()?;
        let device = DeviceBuilder::new()
            .name(DEVICE)
            .packet_information(false)
            .offload(false)
            .build_sync()
            .map_err(failed)?;
        rustix::io::ioctl_fionbio(&device, true).map_err(|error| failed(error.into()))?;
        Ok(device)
    };
    thread::scope(|scope| scope.spawn(make).join())
        .unwrap_or_else(|_| Err(failed(io::Error::other("the thread that makes it ended early"))))
}

/// Packets that a host's device or sockets dropped.
fn host_drops(namespace: &Namespace) -> u64 {
    let statistics = format!("/sys/class/net/{DEVICE}/statistics");
    let device = ["tx_dropped", "rx_dropped"]
        .map(|name| namespace.read(&format!("{statistics}/{name}")).trim().parse().unwrap_or(0));
    device.iter().sum::<u64>() + socket_drops(&namespace.read("/proc/net/snmp"))
}

/// UDP datagrams that found a socket's buffer full, from the kernel's table: a line of names and
/// one of numbers.
fn socket_drops(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let pairs = names.split(' ').zip(values.split(' '));
    let wanted = pairs.filter(|(name, _)| matches!(*name, "RcvbufErrors" | "SndbufErrors"));
    wanted.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_sockets_are_read_from_the_kernels_table() {
        let snmp = "Ip: a b\nIp: 1 2\nUdp: InDatagrams NoPorts RcvbufErrors SndbufErrors\n\
                    Udp: 10 1 7 2\n";
        assert_eq!(socket_drops(snmp), 9);
        assert_eq!(socket_drops(""), 0);
    }
}
