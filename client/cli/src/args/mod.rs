//! The command line: every command and flag with its help.
//!
//! Environment variables and the configuration file are added by [`crate::config`], so that
//! no flag can be forgotten there.

mod certs;
mod job;
mod nodes;
mod push;
mod role;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use certs::{CertsArgs, CertsCommand, IssueArgs};
pub(crate) use job::{JobArgs, JobCommand};
pub(crate) use nodes::{NodesArgs, NodesCommand};
pub(crate) use push::PushArgs;
pub(crate) use role::{BaseArgs, DemoArgs, NodeArgs};

use crate::exit::Failure;

/// Spreads file sets and live streams to many places and says truthfully who has them.
///
/// Each flag can also be set by an environment variable (DISTRIBUTARY_ and the flag's name)
/// and in a TOML file (--config; one table per command). A flag goes before the environment,
/// that before the file. Sizes, rates and times carry units: 64MiB, 50Mbit, 10m.
#[derive(Debug, Parser)]
#[command(
    name = "distributary",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong command line; 3 partial: nodes are missing; \
                  4 --timeout; 5 refused; 6 nobody reached; 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Read flags from a TOML file: one table per command, keys are the flags' names.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// What is logged: error, warn, info, debug, trace, or a filter such as quinn=debug.
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an authority and identities.
    Certs(CertsArgs),
    /// Run the base: it makes jobs and accounts for them.
    Base(BaseArgs),
    /// Run a node: it receives jobs, stores them and passes them on.
    Node(NodeArgs),
    /// Push files and directories to nodes.
    Push(PushArgs),
    /// See, follow and end jobs.
    Job(JobArgs),
    /// See, forget and label nodes.
    Nodes(NodesArgs),
    /// Run a base, nodes and a push on this machine and compare the results.
    Demo(DemoArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether the command is a service that runs until it is stopped.
    pub(crate) const fn is_role(&self) -> bool {
        matches!(self, Self::Base(_) | Self::Node(_))
    }
}

/// Which base, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct Contact {
    /// The base's address (required).
    #[arg(long, global = true, value_name = "HOST:PORT", value_parser = host_and_port)]
    base: Option<String>,

    /// The folder with ca.pem, cert.pem and key.pem (required).
    #[arg(long, global = true, value_name = "DIR")]
    identity: Option<PathBuf>,
}

impl Contact {
    /// The base's address.
    pub(crate) fn base(&self) -> Result<&str, Failure> {
        self.base.as_deref().ok_or_else(|| missing("base", "HOST:PORT"))
    }

    /// The identity's folder.
    pub(crate) fn identity(&self) -> Result<&PathBuf, Failure> {
        self.identity.as_ref().ok_or_else(|| missing("identity", "DIR"))
    }
}

fn missing(flag: &str, value: &str) -> Failure {
    let variable = crate::config::variable(flag);
    Failure::usage(format!("--{flag} {value} is missing; give it, or set {variable}"))
}

/// Reads `HOST:PORT`; an IPv6 address stands in brackets.
fn host_and_port(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not HOST:PORT, such as base.example:7400 or [::1]:7400");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    let spaced = host.contains(char::is_whitespace);
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() && !bare_v6 && !spaced => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_need_a_port() {
        for right in ["a:1", "127.0.0.1:7400", "[::1]:7400", "base.example:65535"] {
            assert!(host_and_port(right).is_ok(), "{right}");
        }
        for wrong in ["", "a", ":1", "a:", "a:0", "a:65536", "::1:7400", "a b:1", "a:x"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }
}
