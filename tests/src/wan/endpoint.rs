//! Hosts, and quinn endpoints on them whose every random choice that shows on the wire comes from
//! the seed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use quinn::{
    AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    ServerConfig, TimeSource, TokioRuntime, TransportConfig,
};
use ring::{hkdf, hmac};

use shared_io::access::Access;
use shared_io::transport::capped;

use super::{Authority, Wan, WanError, WanSocket, network::HostId};
use crate::link::SplitMix;

/// Length of the connection ids, quinn's own.
const CONNECTION_ID_BYTES: usize = 8;
/// Length of the first connection id of a client, quinn's own.
const FIRST_CONNECTION_ID_BYTES: usize = 20;

/// A host of a [`Wan`]; clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    wan: Wan,
    name: String,
    id: HostId,
}

impl Host {
    pub(super) fn new(wan: Wan, name: &str, id: HostId) -> Self {
        Self { wan, name: name.to_owned(), id }
    }

    pub(super) fn id(&self) -> HostId {
        self.id
    }

    /// The name, which is also the one in the host's certificate.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.id.0
    }

    /// A UDP socket of this host.
    ///
    /// # Errors
    /// Port 0, or a port in use.
    pub fn bind(&self, port: u16) -> Result<Arc<WanSocket>, WanError> {
        if port == 0 {
            return Err(WanError::PortZero(self.name.clone()));
        }
        let address = SocketAddr::from((self.ip(), port));
        WanSocket::bind(self.wan.clone(), address).ok_or(WanError::AddressInUse(address))
    }

    /// An endpoint that dials and accepts, with mutual TLS under `authority` and with `transport`
    /// in both roles.
    ///
    /// # Errors
    /// See [`Self::bind`]; besides, what rustls or quinn refuse.
    pub fn endpoint(
        &self,
        port: u16,
        authority: &Authority,
        transport: Arc<TransportConfig>,
    ) -> Result<Endpoint, WanError> {
        let mut server = ServerConfig::with_crypto(Arc::new(authority.server(&self.name)?));
        server.transport_config(Arc::clone(&transport));
        let mut client = ClientConfig::new(Arc::new(authority.client(&self.name)?));
        client.transport_config(transport);
        self.open_endpoint(port, Some(server), client, &Access::default())
    }

    /// An endpoint that dials as `client` says and, with `server`, accepts: for a role with TLS
    /// and limits of its own, whose caps are those of `access`. What would be random in them is
    /// drawn from the seed.
    ///
    /// # Errors
    /// See [`Self::bind`]; besides, what quinn refuses.
    pub fn open_endpoint(
        &self,
        port: u16,
        mut server: Option<ServerConfig>,
        mut client: ClientConfig,
        access: &Access,
    ) -> Result<Endpoint, WanError> {
        let randomness = self.randomness();
        if let Some(server) = &mut server {
            server.token_key(randomness.token_key());
            server.time_source(Arc::new(VirtualWallClock(self.wan.clone())));
        }
        client.initial_dst_cid_provider(randomness.first_connection_ids());
        let socket = capped(self.bind(port)?, access);
        let mut endpoint = self.open(socket, randomness.endpoint_config(), server)?;
        endpoint.set_default_client_config(client);
        Ok(endpoint)
    }

    /// Seeds for one endpoint. Every call gives others, as every start of a program would.
    #[must_use]
    pub fn randomness(&self) -> Randomness {
        let parts = [self.wan.seed(), self.id.number(), self.wan.next_bind()];
        Randomness(SplitMix::from_parts(&parts))
    }

    fn open(
        &self,
        socket: Arc<dyn AsyncUdpSocket>,
        config: EndpointConfig,
        server: Option<ServerConfig>,
    ) -> Result<Endpoint, WanError> {
        let at = socket.local_addr().unwrap_or_else(|_| SocketAddr::from((self.ip(), 0)));
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
            .map_err(|source| WanError::Endpoint { at, source })
    }
}

/// The random choices of one endpoint that show on the wire, all from one seed.
#[derive(Clone, Debug)]
pub struct Randomness(SplitMix);

impl Randomness {
    /// Seeds that depend on all `parts` and on their order.
    #[must_use]
    pub fn from_parts(parts: &[u64]) -> Self {
        Self(SplitMix::from_parts(parts))
    }

    /// An endpoint configuration with quinn's defaults and nothing random.
    #[must_use]
    pub fn endpoint_config(&self) -> EndpointConfig {
        let mut config =
            EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.bytes("reset"))));
        config.rng_seed(Some(self.bytes("quinn")));
        let ids = self.part("ids");
        config.cid_generator(move || Box::new(SeededIds(ids.clone())));
        config
    }

    /// The first connection ids of a client, for
    /// [`ClientConfig::initial_dst_cid_provider`].
    #[must_use]
    pub fn first_connection_ids(&self) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
        let rng = Mutex::new(self.part("first ids"));
        Arc::new(move || {
            let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
            connection_id(&mut rng, FIRST_CONNECTION_ID_BYTES)
        })
    }

    /// A key for the tokens of a server, for [`ServerConfig::token_key`].
    #[must_use]
    pub fn token_key(&self) -> Arc<hkdf::Prk> {
        Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.bytes("tokens")))
    }

    fn part(&self, name: &str) -> SplitMix {
        let mut parts = vec![self.0.clone().next_u64()];
        parts.extend(name.bytes().map(u64::from));
        SplitMix::from_parts(&parts)
    }

    fn bytes(&self, name: &str) -> [u8; 32] {
        let mut rng = self.part(name);
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&rng.next_u64().to_be_bytes());
        }
        bytes
    }
}

struct SeededIds(SplitMix);

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        connection_id(&mut self.0, CONNECTION_ID_BYTES)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn connection_id(rng: &mut SplitMix, length: usize) -> ConnectionId {
    let bytes: Vec<u8> = (0..3).flat_map(|_| rng.next_u64().to_be_bytes()).take(length).collect();
    ConnectionId::new(&bytes)
}

/// Wall-clock time of a run, for the age of a server's tokens: a fixed day plus virtual time.
struct VirtualWallClock(Wan);

impl TimeSource for VirtualWallClock {
    fn now(&self) -> SystemTime {
        const START: Duration = Duration::from_secs(1_700_000_000);
        SystemTime::UNIX_EPOCH + START + self.0.now()
    }
}
