//! A lab: hosts that are network namespaces, and the emulator between them.

use std::{
    ffi::OsStr, fs::OpenOptions, io, net::Ipv4Addr, process::Command, thread, time::Duration,
};

use distributary_tests::link::{
    LinkCounters, LinkSpec,
    topology::{Place, Topology},
};
use rustix::process::geteuid;
use serde::Serialize;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::{
    clock::Clock,
    emulator::Emulator,
    lateness::LatenessReport,
    namespace::{self, DEVICE, Namespace, NamespaceError},
};

/// Beyond these a run says nothing about the links: packets were late, or lost outside of them.
const LATE_P99: Duration = Duration::from_millis(1);
const HOST_DROPS_MAX: u64 = 0;
/// A description of the device node that the kernel gives for tunnels.
const TUN: &str = "/dev/net/tun";

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

/// A running lab; everything is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    emulator: Emulator,
    names: Vec<String>,
    namespaces: Vec<Namespace>,
    clock: Clock,
}

/// What became of a lab's packets.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LabReport {
    /// Why the run says nothing, if it does not.
    pub(crate) invalid: Vec<String>,
    /// Packets by how late they were handed over.
    pub(crate) lateness: LatenessReport,
    /// What each described link did.
    pub(crate) links: Vec<LinkReport>,
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
    /// Lost at random.
    pub(crate) lost: u64,
    /// Dropped by its queue.
    pub(crate) queue_dropped: u64,
    /// Dropped while it was cut.
    pub(crate) down_dropped: u64,
}

/// What the lab needs and this machine lacks; empty if nothing.
#[must_use]
pub(crate) fn lacking() -> Vec<String> {
    let mut lacking = Vec::new();
    if !geteuid().is_root() {
        lacking.push("it needs root: run it with sudo".into());
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open(TUN) {
        lacking.push(format!("it needs {TUN} ({error}): load the kernel module tun"));
    }
    if Command::new("ip").arg("-V").output().is_err() {
        lacking.push("it needs the command ip: install iproute2".into());
    }
    lacking
}

impl Lab {
    /// Sets up hosts and links and starts to carry packets.
    ///
    /// # Errors
    /// [`LabError`]; nothing is left behind then.
    pub(crate) fn start(plan: &Plan) -> Result<Self, LabError> {
        if let Some(what) = lacking().into_iter().next() {
            return Err(LabError::Lacking(what));
        }
        namespace::sweep();
        let mut topology = Topology::new(plan.seed);
        for (place, spec) in &plan.links {
            topology.set(*place, spec);
        }
        let mut namespaces = Vec::new();
        let mut devices = Vec::new();
        for (number, host) in plan.hosts.iter().enumerate() {
            let namespace = Namespace::create(host, number)?;
            devices.push(device(host, &namespace)?);
            namespace.bring_up()?;
            namespaces.push(namespace);
        }
        let clock = Clock::start();
        let emulator = Emulator::start(clock, topology, devices).map_err(LabError::Emulator)?;
        Ok(Self { emulator, names: plan.hosts.clone(), namespaces, clock })
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
        Ok(self.namespace(host)?.address())
    }

    /// Changes a link from now on.
    pub(crate) fn set(&self, place: Place, spec: &LinkSpec) {
        self.emulator.set(place, spec);
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

    /// What one link has done.
    #[must_use]
    pub(crate) fn link(&self, place: Place) -> LinkCounters {
        let links = self.emulator.report().links;
        links.into_iter().find(|(at, _)| *at == place).map(|(_, link)| link).unwrap_or_default()
    }

    /// What became of the packets so far, and whether that can be relied upon.
    #[must_use]
    pub(crate) fn report(&self) -> LabReport {
        let report = self.emulator.report();
        let mut invalid = Vec::new();
        if u128::from(report.lateness.p99_us) > LATE_P99.as_micros() {
            let late = report.lateness.p99_us;
            invalid.push(format!("1 of 100 packets was more than {late} us late"));
        }
        if report.overflow > 0 {
            invalid.push(format!("{} packets too many were under way", report.overflow));
        }
        for (name, namespace) in self.names.iter().zip(&self.namespaces) {
            let drops = host_drops(namespace);
            if drops > HOST_DROPS_MAX {
                invalid
                    .push(format!("host {name} dropped {drops} packets before or after the links"));
            }
        }
        let links = report.links.iter().map(|(place, link)| self.link_report(*place, link));
        LabReport { invalid, lateness: report.lateness, links: links.collect() }
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
            lost: link.lost,
            queue_dropped: link.queue_dropped,
            down_dropped: link.down_dropped,
        }
    }

    fn namespace(&self, host: &str) -> Result<&Namespace, LabError> {
        let at = self.names.iter().position(|name| name == host);
        let namespace = at.and_then(|at| self.namespaces.get(at));
        namespace.ok_or_else(|| LabError::NoHost(host.to_owned()))
    }
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
