//! The programs that the table's flows are: one that sends as much as it may, one that counts what
//! it gets. Each tells every 10 ms, as a line of JSON, how far it is.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use distributary_tests::{flows::cell::Sender, wan::Authority};
use quinn::{ClientConfig, Connection, ServerConfig};
use rustix::net::sockopt::set_tcp_congestion;
use serde::{Deserialize, Serialize};
use shared_io::access::Access;
use shared_io::clock::Clock;
use shared_io::transport::{Congestion, Terms, open_endpoint, transport_config};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    time::{MissedTickBehavior, interval, timeout},
};

/// Where flows are received.
pub(crate) const PORT: u16 = 4433;
/// How often a flow tells how far it is: what it told last is that old at most when it is looked at,
/// and 100 ms would be 1.2 % of the first 8 s.
const TELL_EVERY: Duration = Duration::from_millis(10);
const PIECE: usize = 64 << 10;
/// Both ends of a flow make their certificates from it.
const SEED: u64 = 1;
/// How long a sender tries to reach its receiver, which may have been started just now.
const DIAL: Duration = Duration::from_secs(10);

/// How far a flow is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Bytes received so far.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// Smoothed round trip, microseconds.
    #[serde(default)]
    pub(crate) rtt_us: u64,
    /// Congestion window, bytes.
    #[serde(default)]
    pub(crate) window: u64,
    /// Packets lost so far.
    #[serde(default)]
    pub(crate) lost: u64,
}

/// What [`Sender::Paced`] is told of a link of 100 Mbit/s.
const PACED_BPS: u64 = 97_000_000;

/// Sends to `to` for `time`, as soon as a line or the end comes on the standard input.
pub(crate) async fn send(sender: Sender, to: Ipv4Addr, time: Duration) -> anyhow::Result<()> {
    let to = SocketAddr::from((to, PORT));
    match sender {
        Sender::Shallow => send_quic(Congestion::Shallow, None, to, time).await,
        Sender::Cubic => send_quic(Congestion::Cubic, None, to, time).await,
        Sender::Bbr => send_quic(Congestion::Bbr, None, to, time).await,
        Sender::Paced => send_quic(Congestion::Bbr, Some(PACED_BPS), to, time).await,
        Sender::TcpCubic => send_tcp("cubic", to, time).await,
        Sender::TcpBbr => send_tcp("bbr", to, time).await,
    }
}

/// Receives one flow over QUIC, or over TCP, until it ends.
pub(crate) async fn receive(sender: Sender) -> anyhow::Result<()> {
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    match sender {
        Sender::TcpCubic | Sender::TcpBbr => receive_tcp(at).await,
        Sender::Shallow | Sender::Cubic | Sender::Bbr | Sender::Paced => receive_quic(at).await,
    }
}

async fn send_quic(
    congestion: Congestion,
    uplink_bps: Option<u64>,
    to: SocketAddr,
    time: Duration,
) -> anyhow::Result<()> {
    let authority = Authority::new(SEED)?;
    let access = Arc::new(Access::new(Clock::start(), uplink_bps, None));
    let terms = Terms { congestion, access, ..Terms::default() };
    let mut config = ClientConfig::new(Arc::new(authority.client("sender")?));
    config.transport_config(Arc::new(transport_config(&terms)));
    let endpoint = open_endpoint((Ipv4Addr::UNSPECIFIED, 0).into(), None, &[0; 32], &terms.access)?;
    wait_for_start()?;
    let dial = endpoint.connect_with(config, to, "receiver")?;
    let connection = timeout(DIAL, dial).await.context("nobody answers")??;
    let sending = async {
        let mut stream = connection.open_uni().await?;
        let piece = Bytes::from(vec![7; PIECE]);
        loop {
            stream.write_chunk(piece.clone()).await?;
        }
    };
    tokio::select! {
        ended = sending => { let ended: anyhow::Result<()> = ended; ended },
        () = tell_path(&connection) => Ok(()),
        () = tokio::time::sleep(time) => Ok(()),
    }
}

/// Waits until it is this flow's time: what a process takes to start is none of its first seconds.
fn wait_for_start() -> io::Result<()> {
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

async fn tell_path(connection: &Connection) {
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let path = connection.stats().path;
        tell(&Told {
            bytes: 0,
            rtt_us: u64::try_from(path.rtt.as_micros()).unwrap_or(u64::MAX),
            window: path.cwnd,
            lost: path.lost_packets,
        });
    }
}

async fn receive_quic(at: SocketAddr) -> anyhow::Result<()> {
    let authority = Authority::new(SEED)?;
    let mut config = ServerConfig::with_crypto(Arc::new(authority.server("receiver")?));
    let terms = Terms::default();
    config.transport_config(Arc::new(transport_config(&terms)));
    let endpoint = open_endpoint(at, Some(config), &[0; 32], &terms.access)?;
    tell(&Told::default());
    let connection = endpoint.accept().await.context("the endpoint has ended")?.await?;
    let bytes = AtomicU64::new(0);
    let reading = async {
        let mut stream = connection.accept_uni().await?;
        while let Some(chunk) = stream.read_chunk(PIECE, false).await? {
            let length = u64::try_from(chunk.bytes.len()).unwrap_or(0);
            bytes.fetch_add(length, Ordering::Relaxed);
        }
        anyhow::Ok(())
    };
    count(&bytes, reading).await
}

async fn send_tcp(congestion: &str, to: SocketAddr, time: Duration) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    set_tcp_congestion(&socket, congestion)
        .with_context(|| format!("the kernel has no TCP congestion control {congestion}"))?;
    wait_for_start()?;
    let mut stream = timeout(DIAL, socket.connect(to)).await.context("nobody answers")??;
    let piece = vec![7; PIECE];
    let sending = async {
        loop {
            stream.write_all(&piece).await?;
        }
    };
    tokio::select! {
        ended = sending => { let ended: io::Result<()> = ended; Ok(ended?) },
        () = tokio::time::sleep(time) => Ok(()),
    }
}

async fn receive_tcp(at: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at).await?;
    tell(&Told::default());
    let (mut stream, _) = listener.accept().await?;
    let bytes = AtomicU64::new(0);
    let reading = async {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = stream.read(&mut buffer).await?;
            if length == 0 {
                bail!("the sender has ended");
            }
            bytes.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
        }
    };
    count(&bytes, reading).await
}

/// Tells how far `reading` is until it ends, which is when its sender does.
async fn count(
    bytes: &AtomicU64,
    reading: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let telling = async {
        let mut ticks = interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            tell(&Told { bytes: bytes.load(Ordering::Relaxed), ..Told::default() });
        }
    };
    tokio::select! {
        ended = reading => ended.or(Ok(())),
        () = telling => Ok(()),
    }
}

fn tell(told: &Told) {
    let mut out = io::stdout().lock();
    // Whoever listened is gone when this fails, and the flow ends with its sender.
    let _ = serde_json::to_writer(&mut out, told).map_err(io::Error::from);
    let _ = out.write_all(b"\n").and_then(|()| out.flush());
}
