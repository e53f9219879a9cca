//! The same bytes over quinn alone, with the product's transport: one stream, read unordered.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use certs::tls;
use shared::id::Role;
use shared_io::transport::{self, Congestion, Terms};

use super::cost;
use super::worker::{ANY, Worker, identity};

/// Content that chunks are cut from.
const BLOCK: usize = 16 * 1024 * 1024;

/// CPU time of both ends.
pub(crate) struct Hop {
    pub(crate) send: Duration,
    pub(crate) receive: Duration,
}

impl Hop {
    pub(crate) fn cpu(&self) -> Duration {
        self.send + self.receive
    }
}

/// Sends `size` bytes in writes of `chunk` bytes from one process to another, with a congestion
/// controller of this name.
pub(crate) async fn hop(dir: &Path, size: u64, chunk: usize, controller: &str) -> Result<Hop> {
    let path = dir.to_str().context("the folder's name is text")?;
    let (size, chunk) = (size.to_string(), chunk.to_string());
    let mut sender = Worker::start("send", &[path, &size, &chunk, controller])?;
    let addr = sender.line().await?;
    let mut receiver = Worker::start("receive", &[path, &addr, controller])?;
    let received = receiver.line().await?;
    ensure!(received.starts_with(&format!("{size} ")), "received: {received}");
    let spent = |line: &str| -> Result<Duration> {
        let last = line.split(' ').next_back().unwrap_or_default();
        Ok(Duration::from_secs_f64(last.parse()?))
    };
    let hop = Hop { send: spent(&sender.line().await?)?, receive: spent(&received)? };
    sender.stop().await?;
    receiver.stop().await?;
    Ok(hop)
}

/// The sending process: prints its address, later its CPU seconds.
pub(crate) async fn send(
    dir: &Path,
    size: u64,
    chunk: usize,
    congestion: Congestion,
) -> Result<()> {
    let terms = Terms { congestion, ..Terms::default() };
    let config = transport::server_config(&identity(dir, "base")?, &terms)?;
    let endpoint = transport::open_endpoint(ANY, Some(config), &[0; 32], &terms.access)?;
    println!("{}", endpoint.local_addr()?);
    let mut content = vec![0; BLOCK.max(chunk)];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    let content = Bytes::from(content);
    let connection = endpoint.accept().await.context("nobody has connected")?.await?;
    let before = cost::cpu("self")?;
    let mut stream = connection.open_uni().await?;
    let (mut left, mut at) = (size, 0);
    while left > 0 {
        let len = chunk.min(usize::try_from(left)?);
        if at + len > content.len() {
            at = 0;
        }
        stream.write_chunk(content.slice(at..at + len)).await?;
        at += len;
        left -= len as u64;
    }
    stream.finish()?;
    stream.stopped().await?;
    let spent = cost::cpu("self")?.saturating_sub(before);
    connection.closed().await;
    println!("{}", spent.as_secs_f64());
    endpoint.wait_idle().await;
    Ok(())
}

/// The receiving process: prints how many bytes came, and its CPU seconds.
pub(crate) async fn receive(dir: &Path, addr: SocketAddr, congestion: Congestion) -> Result<()> {
    let terms = Terms { congestion, ..Terms::default() };
    let mut endpoint = transport::open_endpoint(ANY, None, &[1; 32], &terms.access)?;
    let config = transport::client_config(&identity(dir, "node")?, &terms)?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(addr, tls::server_name(Role::Base))?.await?;
    let before = cost::cpu("self")?;
    let mut stream = connection.accept_uni().await?;
    let mut received = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX, false).await? {
        received += chunk.bytes.len();
    }
    let spent = cost::cpu("self")?.saturating_sub(before);
    println!("{received} {}", spent.as_secs_f64());
    connection.close(0_u8.into(), b"");
    endpoint.wait_idle().await;
    Ok(())
}
