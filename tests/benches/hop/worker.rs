//! Roles of the benchmark in processes of their own: this executable again, with a role.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use certs::Identity;
use shared_io::clock::Clock;
use shared_io::telemetry;
use shared_io::transport::Congestion;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

/// The argument before a role.
const MARK: &str = "--as";
/// Any port of loopback.
pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The role that this process was started for, and what it was told.
pub(crate) fn asked(arguments: &[String]) -> Option<(&str, &[String])> {
    match arguments {
        [mark, role, rest @ ..] if mark == MARK => Some((role, rest)),
        _ => None,
    }
}

/// Plays a role until standard input closes.
pub(crate) fn run(role: &str, rest: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    // Reading a pipe cannot be interrupted: the thread ends with the process.
    std::thread::spawn(move || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        told.cancel();
    });
    runtime.block_on(async {
        match (role, rest) {
            ("base", [dir]) => base(Path::new(dir), stop).await,
            ("node", [dir, base]) => node(Path::new(dir), base, stop).await,
            ("send", [dir, size, chunk, controller]) => {
                let controller = controller.parse().map_err(anyhow::Error::msg)?;
                super::bare::send(Path::new(dir), size.parse()?, chunk.parse()?, controller).await
            }
            ("receive", [dir, addr, controller]) => {
                let controller = controller.parse().map_err(anyhow::Error::msg)?;
                super::bare::receive(Path::new(dir), addr.parse()?, controller).await
            }
            _ => bail!("{role} with {rest:?} is no role"),
        }
    })
}

/// An identity of `dir`.
pub(crate) fn identity(dir: &Path, name: &str) -> Result<Identity> {
    Ok(Identity::load(&dir.join(name), Clock::wall())?)
}

async fn base(dir: &Path, stop: CancellationToken) -> Result<()> {
    let config = base::Config {
        identity: identity(dir, "base")?,
        data: dir.join("base-data"),
        listen: ANY,
        http: ANY,
        uplink_bps: None,
        congestion: Congestion::default(),
        memory: shared::budget::Budget::default(),
    };
    Ok(base::run(config, telemetry::install()?, stop).await?)
}

async fn node(dir: &Path, base: &str, stop: CancellationToken) -> Result<()> {
    let config = node::Config {
        identity: identity(dir, "node")?,
        data: dir.join("node-data"),
        base: base.to_owned(),
        listen: ANY,
        advertise: None,
        http: ANY,
        uplink_bps: None,
        downlink_bps: None,
        congestion: Congestion::default(),
        memory: shared::budget::Budget::default(),
    };
    Ok(node::run(config, telemetry::install()?, stop).await?)
}

/// A process that plays a role.
pub(crate) struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts this executable with a role.
    pub(crate) fn start(role: &str, rest: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([MARK, role])
            .args(rest)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a worker has an output")?;
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// The next line that it prints.
    pub(crate) async fn line(&mut self) -> Result<String> {
        self.lines.next_line().await?.context("a worker has ended early")
    }

    /// CPU time that it has used.
    pub(crate) fn cpu(&self) -> Result<std::time::Duration> {
        let pid = self.child.id().context("a worker has ended early")?;
        super::cost::cpu(&pid.to_string())
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("a worker has ended early: {status}"),
            None => Ok(()),
        }
    }

    /// Ends it and waits for that.
    pub(crate) async fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "a worker failed: {status}");
        Ok(())
    }
}
