//! The devices of a lab that the kernel carries, and the commands that make and change them. Pure:
//! nothing is run here.
//!
//! Every host has a veth `wan0`, whose other end is in one more namespace, the router. There, a
//! packet crosses the same three links as in the emulator, each the way out of a device of its own:
//!
//! ```text
//! wan0 ─▶ h0   u0 ─▶ v0   p0-1 ─▶ q0-1   h1 ─▶ wan0
//!            up(0)      path(0, 1)     down(1)
//! ```
//!
//! `u0`/`v0` and `p0-1`/`q0-1` are pairs with both ends in the router. What comes in at `h0` goes
//! out at `u0`, what comes in at `v0` at the path to its receiver, all else at the device of its
//! receiver. A path that nobody described has no device.
//!
//! Every device has the same hardware address and asks for none, so that nothing but the hosts'
//! packets is on the links. `wan0` hands over one segment at a time: a batch of them would be one
//! packet for netem. That is why the way out of `wan0` is not a link.

use std::{fmt, net::Ipv4Addr};

use distributary_tests::link::topology::Place;

use super::discipline::Discipline;
use crate::namespace::{self, DEVICE, MTU, NETWORK};

/// The hardware address of all devices: one that is administered locally.
const HARDWARE: &str = "02:00:00:4d:00:01";
/// A packet's bytes count without its Ethernet header, as in the link model.
const WITHOUT_HEADER: &str = "stab overhead -14 linklayer ethernet";
/// Before the rules that every namespace has.
const PREFERENCE: u32 = 100;
/// Routing tables of hosts begin behind those that the kernel names.
const FIRST_TABLE: usize = 1_000;

/// What reads the lines of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `ip -batch`.
    Ip,
    /// `tc -batch`.
    Tc,
    /// `sh`.
    Sh,
}

/// Lines for one tool in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) tool: Tool,
    pub(crate) namespace: String,
    pub(crate) lines: Vec<String>,
}

/// As a person would type it, one command a line.
impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match self.tool {
                Tool::Ip => writeln!(f, "ip -n {} {line}", self.namespace)?,
                Tool::Tc => writeln!(f, "tc -n {} {line}", self.namespace)?,
                Tool::Sh => writeln!(f, "ip netns exec {} sh -c '{line}'", self.namespace)?,
            }
        }
        Ok(())
    }
}

/// The namespaces of a lab.
#[derive(Clone, Debug)]
pub(crate) struct Sites {
    /// Of the hosts; their numbers are their places.
    pub(crate) hosts: Vec<String>,
    pub(crate) router: String,
}

impl Sites {
    /// Joins all hosts by the router, without any limit between them.
    pub(crate) fn join(&self) -> Vec<Batch> {
        let mut batches = vec![self.at_router(Tool::Sh, settings())];
        let numbers = 0..self.hosts.len();
        let devices = self.hosts.iter().enumerate().flat_map(|(host, site)| access(host, site));
        let routes = numbers.flat_map(routes);
        batches.push(self.at_router(Tool::Ip, devices.chain(routes).collect()));
        for (host, site) in self.hosts.iter().enumerate() {
            let lines = own_device(namespace::address(host));
            batches.push(Batch { tool: Tool::Ip, namespace: site.clone(), lines });
        }
        batches
    }

    /// Makes one link what `discipline` says, for the first time.
    pub(crate) fn add(&self, place: Place, discipline: &Discipline) -> Vec<Batch> {
        let mut batches = Vec::new();
        if let Place::Path(from, to) = place {
            batches.push(self.at_router(Tool::Ip, path(from, to)));
        }
        let device = device(place);
        let mut lines = vec![root("add", &device, &discipline.netem)];
        lines.extend(discipline.bucket.as_ref().map(|words| bucket("add", &device, words)));
        batches.push(self.at_router(Tool::Tc, lines));
        batches
    }

    /// Makes one link what `new` says; what is under way stays. What differs is said only: a change
    /// of netem begins its losses anew, one of the bucket fills it.
    pub(crate) fn change(&self, place: Place, old: &Discipline, new: &Discipline) -> Vec<Batch> {
        let device = device(place);
        let mut lines = Vec::new();
        if old.netem != new.netem {
            lines.push(root("change", &device, &new.netem));
        }
        match (&old.bucket, &new.bucket) {
            (Some(old), Some(new)) if old != new => lines.push(bucket("change", &device, new)),
            (None, Some(new)) => lines.push(bucket("add", &device, new)),
            (Some(_), None) => lines.push(format!("qdisc del dev {device} parent 1:1 handle 10:")),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if lines.is_empty() { Vec::new() } else { vec![self.at_router(Tool::Tc, lines)] }
    }

    fn at_router(&self, tool: Tool, lines: Vec<String>) -> Batch {
        Batch { tool, namespace: self.router.clone(), lines }
    }
}

/// The device whose way out is a link.
pub(crate) fn device(place: Place) -> String {
    match place {
        Place::Up(host) => format!("u{host}"),
        Place::Path(from, to) => format!("p{from}-{to}"),
        Place::Down(host) => format!("h{host}"),
    }
}

fn settings() -> Vec<String> {
    vec![
        "echo 1 > /proc/sys/net/ipv4/ip_forward".to_owned(),
        // A path there and the one back are different devices.
        "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter".to_owned(),
        "echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter".to_owned(),
        "test ! -e /proc/sys/net/ipv6 || echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"
            .to_owned(),
    ]
}

/// The devices of a host at the router.
fn access(host: usize, site: &str) -> Vec<String> {
    let (up, behind, down) = (device(Place::Up(host)), behind(host), device(Place::Down(host)));
    let mut lines = pair(&down, &format!("{DEVICE} address {HARDWARE} netns {site}"));
    lines.extend(pair(&up, &format!("{behind} address {HARDWARE}")));
    lines.extend([down, up, behind].iter().map(|device| start(device)));
    lines
}

fn routes(host: usize) -> Vec<String> {
    let (up, down) = (device(Place::Up(host)), device(Place::Down(host)));
    let (out, paths) = (FIRST_TABLE + 2 * host, paths_of(host));
    vec![
        format!("route add {}/32 dev {down}", namespace::address(host)),
        format!("rule add iif {down} lookup {out} pref {PREFERENCE}"),
        format!("route add {NETWORK} dev {up} table {out}"),
        format!("rule add iif {} lookup {paths} pref {PREFERENCE}", behind(host)),
    ]
}

fn path(from: usize, to: usize) -> Vec<String> {
    let near = device(Place::Path(from, to));
    let far = format!("q{from}-{to}");
    let mut lines = pair(&near, &format!("{far} address {HARDWARE}"));
    lines.extend([&near, &far].map(|device| start(device)));
    let (to, paths) = (namespace::address(to), paths_of(from));
    lines.push(format!("route add {to}/32 dev {near} table {paths}"));
    lines
}

/// The other end of a host's uplink.
fn behind(host: usize) -> String {
    format!("v{host}")
}

/// The table of the paths from a host.
fn paths_of(host: usize) -> usize {
    FIRST_TABLE + 2 * host + 1
}

fn pair(device: &str, peer: &str) -> Vec<String> {
    vec![format!("link add {device} address {HARDWARE} type veth peer name {peer}")]
}

fn start(device: &str) -> String {
    format!("link set {device} mtu {MTU} arp off up")
}

/// What a host's own device is told, in the host's namespace.
fn own_device(address: Ipv4Addr) -> Vec<String> {
    vec![
        format!("link set {DEVICE} addrgenmode none"),
        format!("link set {DEVICE} mtu {MTU} gso_max_segs 1 arp off up"),
        format!("addr add {address}/16 dev {DEVICE}"),
    ]
}

fn root(verb: &str, device: &str, netem: &str) -> String {
    format!("qdisc {verb} dev {device} root handle 1: {WITHOUT_HEADER} netem {netem}")
}

fn bucket(verb: &str, device: &str, words: &str) -> String {
    format!("qdisc {verb} dev {device} parent 1:1 handle 10: tbf {words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites() -> Sites {
        Sites { hosts: vec!["A".into(), "B".into()], router: "R".into() }
    }

    fn link(words: &str) -> Discipline {
        Discipline::of(&words.parse().unwrap()).unwrap()
    }

    fn text(batches: &[Batch]) -> String {
        batches.iter().map(ToString::to_string).collect()
    }

    fn change(old: &str, new: &str) -> String {
        text(&sites().change(Place::Up(0), &link(old), &link(new)))
    }

    #[test]
    fn hosts_are_joined_by_a_router() {
        let expected = "\
ip netns exec R sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
ip netns exec R sh -c 'echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter'
ip netns exec R sh -c 'echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter'
ip netns exec R sh -c 'test ! -e /proc/sys/net/ipv6 || echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6'
ip -n R link add h0 address 02:00:00:4d:00:01 type veth peer name wan0 address 02:00:00:4d:00:01 netns A
ip -n R link add u0 address 02:00:00:4d:00:01 type veth peer name v0 address 02:00:00:4d:00:01
ip -n R link set h0 mtu 1500 arp off up
ip -n R link set u0 mtu 1500 arp off up
ip -n R link set v0 mtu 1500 arp off up
ip -n R link add h1 address 02:00:00:4d:00:01 type veth peer name wan0 address 02:00:00:4d:00:01 netns B
ip -n R link add u1 address 02:00:00:4d:00:01 type veth peer name v1 address 02:00:00:4d:00:01
ip -n R link set h1 mtu 1500 arp off up
ip -n R link set u1 mtu 1500 arp off up
ip -n R link set v1 mtu 1500 arp off up
ip -n R route add 10.77.0.1/32 dev h0
ip -n R rule add iif h0 lookup 1000 pref 100
ip -n R route add 10.77.0.0/16 dev u0 table 1000
ip -n R rule add iif v0 lookup 1001 pref 100
ip -n R route add 10.77.0.2/32 dev h1
ip -n R rule add iif h1 lookup 1002 pref 100
ip -n R route add 10.77.0.0/16 dev u1 table 1002
ip -n R rule add iif v1 lookup 1003 pref 100
ip -n A link set wan0 addrgenmode none
ip -n A link set wan0 mtu 1500 gso_max_segs 1 arp off up
ip -n A addr add 10.77.0.1/16 dev wan0
ip -n B link set wan0 addrgenmode none
ip -n B link set wan0 mtu 1500 gso_max_segs 1 arp off up
ip -n B addr add 10.77.0.2/16 dev wan0
";
        assert_eq!(text(&sites().join()), expected);
    }

    #[test]
    fn a_path_has_devices_of_its_own() {
        let expected = "\
ip -n R link add p0-1 address 02:00:00:4d:00:01 type veth peer name q0-1 address 02:00:00:4d:00:01
ip -n R link set p0-1 mtu 1500 arp off up
ip -n R link set q0-1 mtu 1500 arp off up
ip -n R route add 10.77.0.2/32 dev p0-1 table 1001
tc -n R qdisc add dev p0-1 root handle 1: stab overhead -14 linklayer ethernet netem limit 262144 delay 20000us 0us loss random 1% duplicate 0% corrupt 0% rate 0bit
";
        assert_eq!(text(&sites().add(Place::Path(0, 1), &link("20ms 1%-loss"))), expected);
    }

    #[test]
    fn an_access_link_has_its_devices_already() {
        let down = text(&sites().add(Place::Down(1), &link("50Mbit 256KiB-queue")));
        let expected = "\
tc -n R qdisc add dev h1 root handle 1: stab overhead -14 linklayer ethernet netem limit 262144 delay 0us 0us loss random 0% duplicate 0% corrupt 0% rate 0bit
tc -n R qdisc add dev h1 parent 1:1 handle 10: tbf rate 50000000bit burst 4639b limit 260630b
";
        assert_eq!(down, expected);
        assert!(text(&sites().add(Place::Up(0), &link("1Mbit"))).contains("add dev u0 root"));
    }

    #[test]
    fn a_change_says_what_differs() {
        let netem = "tc -n R qdisc change dev u0 root handle 1: stab overhead -14 linklayer \
                     ethernet netem limit 262144 delay 0us 0us loss random";
        let cut = change("50Mbit", "50Mbit down");
        assert_eq!(cut, format!("{netem} 100% duplicate 0% corrupt 0% rate 0bit\n"));
        let bucket = "dev u0 parent 1:1 handle 10:";
        let words = "tbf rate 20000000bit burst 2764b limit 248486b\n";
        assert_eq!(change("50Mbit", "20Mbit"), format!("tc -n R qdisc change {bucket} {words}"));
        assert_eq!(change("0ms", "20Mbit"), format!("tc -n R qdisc add {bucket} {words}"));
        assert_eq!(change("20Mbit", "0ms"), format!("tc -n R qdisc del {bucket}\n"));
        assert_eq!(change("20Mbit", "20Mbit"), "");
        assert_eq!(change("20Mbit", "1%-loss 30Mbit").lines().count(), 2);
    }

    #[test]
    fn names_of_devices_are_short_enough_for_the_kernel() {
        // IFNAMSIZ is 16, the final zero included.
        assert!(device(Place::Path(64_999, 64_999)).len() < 16);
    }
}
