//! What carries a lab's packets, and what it needs.

use std::{fs::OpenOptions, process::Command};

use clap::ValueEnum;
use rustix::process::geteuid;
use serde::Serialize;

use crate::netem;

/// A description of the device node that the kernel gives for tunnels.
const TUN: &str = "/dev/net/tun";

/// What carries the packets between hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackEnd {
    /// The link model, in a process beside the hosts.
    #[default]
    Emulator,
    /// The kernel's netem, where it has one.
    Netem,
}

impl BackEnd {
    /// What it needs and this machine lacks; empty if nothing.
    #[must_use]
    pub(crate) fn lacking(self) -> Vec<String> {
        let mut lacking = Vec::new();
        if !geteuid().is_root() {
            lacking.push("it needs root: run it with sudo".into());
        }
        for tool in self.tools() {
            if Command::new(tool).arg("-V").output().is_err() {
                lacking.push(format!("it needs the command {tool}: install iproute2"));
            }
        }
        match self {
            Self::Emulator => {
                if let Err(error) = OpenOptions::new().read(true).write(true).open(TUN) {
                    lacking.push(format!("it needs {TUN} ({error}): load the kernel module tun"));
                }
            }
            // Only with root and the tools can the kernel be asked.
            Self::Netem if lacking.is_empty() => lacking.extend(netem::lacking()),
            Self::Netem => {}
        }
        lacking
    }

    fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Emulator => &["ip"],
            Self::Netem => &["ip", "tc"],
        }
    }
}
