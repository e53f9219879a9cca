//! The QUIC endpoint: sockets, TLS, and every limit of the transport.
//!
//! The figures are DESIGN section 5's; what each is for stands beside it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use certs::{Identity, tls};
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    Runtime as _, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use shared::budget::Budget;
use shared::wire::code::ALPN;
use socket2::{Domain, Protocol, Socket, Type};

use crate::access::Access;
use crate::congestion::{Metered, ShallowConfig};
use crate::shaped::Shaped;
use crate::stream_room;

/// Receive window of one stream, which bounds one job between two peers: 1 Gbit/s over 67 ms. A
/// job stream is always read, so it is not back-pressure but a bound on what a peer may have on
/// its way. quinn ends a connection on whose streams more than 1,024 gaps are open. Our own
/// controller stays below that at 8 MiB, and not at 16 (15 % loss, 400 ms); a sender that floods its path gets there above 4 MiB, and ends
/// its own connection only (`tests/tests/wan/matrix.rs`).
pub const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// Least and most bytes that wait inside quinn on one connection; see [`send_window`]. A
/// connection that has little to send has the least, which holds 0.4 s of 1 Mbit/s.
pub(crate) const SEND_WINDOW_MIN: u64 = 64 * 1024;
const SEND_WINDOW_MAX: u64 = 16 * 1024 * 1024;
/// Socket buffers that are asked for: the usual 208 KiB lose packets by themselves.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// How often a connection shows that it is alive, and how long silence may last.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(8);
/// Before the first round trip is known: a WAN's, rather than quinn's 333 ms.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// MTU discovery's upper bound. Above 6,500 quinn's batches of ten exceed what UDP carries.
const MTU_MAX: u16 = 1_452;
/// Datagrams waiting to be sent: state is repeated, so a short queue of fresh ones is best.
const DATAGRAM_BUFFER: usize = 64 * 1024;
/// Requests that a peer may have open at a time.
const BIDI_STREAMS_MAX: u32 = 64;
/// Handshakes in progress at a time, and what each may have sent before it is accepted.
const INCOMING_MAX: usize = 1_024;
const INCOMING_BUFFER: u64 = 64 * 1024;

/// Packets, and round trips, that must have passed one before it counts as lost with our own
/// controller, which does not take a few lost packets for congestion: a path that reorders is not
/// one that loses (quinn's 3 packets halve the goodput and worse, docs/BENCHMARKS.md).
const REORDERING_PACKETS: u32 = 1_000;
const REORDERING_TIME: f32 = 1.25;

/// Which congestion controller to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// Our own: fills a path that loses packets, keeps its queue short, shares it.
    #[default]
    Shallow,
    /// quinn's Cubic: slow under random loss, fills the queue.
    Cubic,
    /// quinn's BBR: fast under random loss, floods the bottleneck's queue.
    Bbr,
}

impl std::str::FromStr for Congestion {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "shallow" => Ok(Self::Shallow),
            "cubic" => Ok(Self::Cubic),
            "bbr" => Ok(Self::Bbr),
            _ => Err(format!(
                "unknown congestion controller {text:?}, expected shallow, cubic or bbr"
            )),
        }
    }
}

/// What all connections of a process have in common.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Their congestion controller.
    pub congestion: Congestion,
    /// The memory that they share.
    pub budget: Budget,
    /// The access link that they share.
    pub access: Arc<Access>,
}

/// Why an endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The UDP socket.
    #[error("cannot listen on {addr} (UDP); choose another address or port with --listen")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The identity gives no TLS configuration.
    #[error("the identity cannot be used")]
    Tls(#[from] tls::TlsError),
    /// The TLS configuration has no cipher suite for QUIC.
    #[error("no cipher suite for QUIC")]
    Cipher(#[from] NoInitialCipherSuite),
}

/// What quinn is told for every connection.
pub fn transport_config(terms: &Terms) -> TransportConfig {
    let Terms { congestion, budget, access } = terms;
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match congestion {
        Congestion::Shallow => Arc::new(ShallowConfig::default()),
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u64(budget.receiving()).unwrap_or(VarInt::MAX))
        .send_window(SEND_WINDOW_MAX)
        .max_concurrent_uni_streams(VarInt::from_u32(stream_room::FIRST))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_MAX))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .congestion_controller_factory(Arc::new(Metered::new(factory, &access.meter)));
    if *congestion == Congestion::Shallow {
        config.packet_threshold(REORDERING_PACKETS).time_threshold(REORDERING_TIME);
    }
    config
}

/// How many bytes should wait inside quinn on a connection that is sending: twice its congestion
/// window, so that the path stays full while what was not sent yet can still be decided anew.
pub fn send_window(congestion_window: u64) -> u64 {
    congestion_window.saturating_mul(2).clamp(SEND_WINDOW_MIN, SEND_WINDOW_MAX)
}

/// The configuration with which peers are accepted.
///
/// # Errors
/// [`TransportError`] if the identity cannot be used.
pub fn server_config(identity: &Identity, terms: &Terms) -> Result<ServerConfig, TransportError> {
    let tls = tls::server_config(identity, &[ALPN])?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport_config(terms)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER * INCOMING_MAX as u64);
    Ok(config)
}

/// The configuration with which peers are dialled.
///
/// # Errors
/// [`TransportError`] if the identity cannot be used.
pub fn client_config(identity: &Identity, terms: &Terms) -> Result<ClientConfig, TransportError> {
    let tls = tls::client_config(identity, &[ALPN])?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport_config(terms)));
    Ok(config)
}

/// Opens an endpoint on `listen`; without `server` it only dials.
///
/// `reset_key` makes the stateless resets of a restarted role end its old connections at once.
/// What is sent keeps the cap of `access`.
///
/// # Errors
/// [`TransportError::Bind`] if the address cannot be used.
pub fn open_endpoint(
    listen: SocketAddr,
    server: Option<ServerConfig>,
    reset_key: &[u8; 32],
    access: &Access,
) -> Result<Endpoint, TransportError> {
    let bind = |source| TransportError::Bind { addr: listen, source };
    let socket = open_socket(listen).map_err(bind)?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    // Connection ids that a restarted role knows as its own: it answers them with a reset at
    // once, instead of leaving the peer to find out by silence.
    let digest = ring::digest::digest(&ring::digest::SHA256, reset_key);
    let own = digest.as_ref().first_chunk().copied().map_or(0, u64::from_le_bytes);
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(own)));
    let socket = capped(TokioRuntime.wrap_udp_socket(socket).map_err(bind)?, access);
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new_with_abstract_socket(config, server, socket, runtime).map_err(bind)
}

/// `socket`, sending no faster than `access` allows.
pub fn capped(socket: Arc<dyn AsyncUdpSocket>, access: &Access) -> Arc<dyn AsyncUdpSocket> {
    match access.uplink_cap() {
        Some(rate_bps) => Arc::new(Shaped::new(socket, access.clock(), rate_bps)),
        None => socket,
    }
}

fn open_socket(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Refused sizes are not errors: the kernel grants what its limit allows.
    let asked =
        [socket.set_recv_buffer_size(SOCKET_BUFFER), socket.set_send_buffer_size(SOCKET_BUFFER)];
    for error in asked.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "asking for UDP socket buffers");
    }
    let granted = [
        ("net.core.rmem_max", socket.recv_buffer_size()?),
        ("net.core.wmem_max", socket.send_buffer_size()?),
    ];
    for (sysctl, bytes) in granted {
        // Linux reports twice what was asked for, its own bookkeeping included.
        if bytes < SOCKET_BUFFER {
            tracing::warn!(
                sysctl,
                granted_bytes = bytes,
                wanted_bytes = SOCKET_BUFFER,
                "small UDP socket buffer loses packets; raise it: sysctl -w {sysctl}={SOCKET_BUFFER}"
            );
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_send_window_follows_the_congestion_window_within_bounds() {
        assert_eq!(send_window(0), SEND_WINDOW_MIN);
        assert_eq!(send_window(1_000_000), 2_000_000);
        assert_eq!(send_window(u64::MAX), SEND_WINDOW_MAX);
    }
}
