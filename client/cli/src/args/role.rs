//! `base`, `node` and `demo`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use shared::budget::Budget;
use shared_io::transport::Congestion;

use crate::units;

/// Run the base.
#[derive(Debug, Args)]
pub(crate) struct BaseArgs {
    /// The folder with ca.pem, cert.pem and key.pem.
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,

    /// The folder for everything that the base writes.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// Where nodes and clients connect (UDP); port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7400")]
    pub(crate) listen: SocketAddr,

    /// Where health, metrics and the JSON interface are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7401")]
    pub(crate) http: SocketAddr,

    /// What the base may send per second: whole IP packets.
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub(crate) uplink: Option<u64>,

    #[command(flatten)]
    pub(crate) service: ServiceArgs,
}

/// What both services take.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// The congestion controller: shallow (Distributary's own), cubic or bbr.
    #[arg(long, value_name = "NAME", default_value = "shallow")]
    pub(crate) congestion: Congestion,

    /// How much memory the process may use; bounds on what waits are parts of it.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = units::memory)]
    pub(crate) memory: Budget,

    /// Stop when standard input ends: a service ends with the process that holds its pipe.
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

/// Run a node.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The folder with ca.pem, cert.pem and key.pem.
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,

    /// The folder for everything that the node writes.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// The base's address.
    #[arg(long, value_name = "HOST:PORT", value_parser = super::host_and_port)]
    pub(crate) base: String,

    /// Where other nodes connect (UDP); port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7410")]
    pub(crate) listen: SocketAddr,

    /// The address under which other nodes reach this one, if it is not the one seen.
    #[arg(long, value_name = "HOST:PORT", value_parser = super::host_and_port)]
    pub(crate) advertise: Option<String>,

    /// Where health, metrics and content are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7411")]
    pub(crate) http: SocketAddr,

    /// What the node may send per second: whole IP packets.
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub(crate) uplink: Option<u64>,

    /// What the node may receive of content per second, with its packets' headers.
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub(crate) downlink: Option<u64>,

    #[command(flatten)]
    pub(crate) service: ServiceArgs,
}

/// Run a base, nodes and a push on this machine.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) nodes: u16,

    /// How much content to make, if no PATH is given.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = units::size)]
    pub(crate) size: u64,

    /// Push a live stream for so long instead of files.
    #[arg(long, value_name = "SECONDS", value_parser = units::time)]
    pub(crate) live: Option<Duration>,

    /// What to push instead of made content.
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Work in this folder and leave everything there.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,

    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}
