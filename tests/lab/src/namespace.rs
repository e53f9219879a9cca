//! Network namespaces: one for each host, made and removed with `ip netns` (iproute2), and the
//! addresses of hosts.
//!
//! Names are `dlab-<pid>-<host>`: what a killed lab left behind is known by its dead process and
//! removed by the next one.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{self, Command},
};

use std::os::fd::AsFd as _;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";
const PREFIX: &str = "dlab-";
/// The device of each host.
pub(crate) const DEVICE: &str = "wan0";
/// All hosts.
pub(crate) const NETWORK: &str = "10.77.0.0/16";
/// As on Ethernet.
pub(crate) const MTU: &str = "1500";
/// Packets that may wait between a host's kernel and the emulator.
const DEVICE_QUEUE: &str = "4000";

/// Why a namespace cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamespaceError {
    /// A command that could not be started.
    #[error("cannot run `{command}`: {source}; install iproute2")]
    Start {
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A command that failed.
    #[error("`{command}` failed: {stderr}; the lab needs root")]
    Failed {
        /// The command.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// The namespace cannot be entered.
    #[error("cannot enter the namespace {name}: {source}; the lab needs root")]
    Enter {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// The address of host `number` in the lab's network.
pub(crate) fn address(number: usize) -> Ipv4Addr {
    let low = u8::try_from(number % 254 + 1).unwrap_or(1);
    let high = u8::try_from(number / 254).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, high, low)
}

/// What the namespace of `host` is called while this process runs.
pub(crate) fn name(host: &str) -> String {
    format!("{PREFIX}{}-{host}", process::id())
}

/// A namespace; removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace of `host`.
    pub(crate) fn create(host: &str) -> Result<Self, NamespaceError> {
        let name = name(host);
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        run(namespace.ip().args(["link", "set", "lo", "up"]))?;
        Ok(namespace)
    }

    /// What `ip netns` calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the device of host `number`, once it exists, its address and brings it up.
    pub(crate) fn bring_up(&self, number: usize) -> Result<(), NamespaceError> {
        let address = format!("{}/16", address(number));
        run(self.ip().args(["addr", "add", &address, "dev", DEVICE]))?;
        run(self.ip().args(["link", "set", DEVICE, "mtu", MTU, "txqueuelen", DEVICE_QUEUE, "up"]))
    }

    /// `program`, to be run on this host.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn enter(&self) -> Result<(), NamespaceError> {
        let enter = || {
            let file = File::open(Path::new(NAMES).join(&self.name))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(())
        };
        enter().map_err(|source| NamespaceError::Enter { name: self.name.clone(), source })
    }

    /// What `path` holds as seen from this host.
    pub(crate) fn read(&self, path: &str) -> String {
        let output = self.command("cat").arg(path).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    }

    fn ip(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left is swept by the next lab.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Removes the namespaces of labs that are no more.
pub(crate) fn sweep() {
    for name in left_behind() {
        let _ = run(Command::new("ip").args(["netns", "del", &name]));
    }
}

fn left_behind() -> Vec<String> {
    let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| owner(name).is_some_and(|pid| !is_alive(pid))).collect()
}

fn owner(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    pid.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

fn run(command: &mut Command) -> Result<(), NamespaceError> {
    let words = || {
        let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
        let program = command.get_program().to_string_lossy().into_owned();
        std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
    };
    let named = words();
    let output = command
        .output()
        .map_err(|source| NamespaceError::Start { command: named.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NamespaceError::Failed { command: named, stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_leave_out_those_of_networks() {
        assert_eq!(address(0), Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(address(253), Ipv4Addr::new(10, 77, 0, 254));
        assert_eq!(address(254), Ipv4Addr::new(10, 77, 1, 1));
    }

    #[test]
    fn the_owner_of_a_namespace_is_in_its_name() {
        assert_eq!(owner("dlab-123-node-1"), Some(123));
        assert_eq!(owner("dlab-x-node"), None);
        assert_eq!(owner("other-1-2"), None);
        assert!(is_alive(process::id()));
    }
}
