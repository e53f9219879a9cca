//! Mutual TLS between identities, over buffers in memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod pki;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certs::peer::identify;
use certs::tls::{TlsError, client_config, identity_alert, server_config, server_name};
use certs::{Identity, PeerIdentity};
use pki::{HOUR, Pki, now, request};
use rustls::client::Resumption;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::ServerSessionMemoryCache;
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, CipherSuite, ClientConfig, ClientConnection, Error,
    HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, SignatureScheme,
};
use shared::id::{Name, Role};

const ALPN: [&[u8]; 1] = [b"distributary/1"];

/// A clock that stands still.
#[derive(Debug)]
struct At(SystemTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.duration_since(UNIX_EPOCH).ok()?))
    }
}

fn dialling(identity: &Identity) -> ClientConfig {
    let mut config = client_config(identity, &ALPN).unwrap();
    config.time_provider = Arc::new(At(now()));
    config
}

fn accepting(identity: &Identity) -> ServerConfig {
    let mut config = server_config(identity, &ALPN).unwrap();
    config.time_provider = Arc::new(At(now()));
    config
}

/// Which side refused, and why; the other side gets an alert.
#[derive(Debug)]
enum Refused {
    ByClient(Error),
    ByServer(Error),
}

struct Link {
    client: ClientConnection,
    server: ServerConnection,
}

impl Link {
    fn new(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, expect: Role) -> Self {
        let name = server_name(expect).try_into().unwrap();
        Self {
            client: ClientConnection::new(Arc::clone(client), name).unwrap(),
            server: ServerConnection::new(Arc::clone(server)).unwrap(),
        }
    }

    /// Carries bytes to and fro until neither side has any.
    fn run(&mut self) -> Result<(), Refused> {
        loop {
            let to_server = self.carry_to_server();
            self.server.process_new_packets().map_err(Refused::ByServer)?;
            let to_client = self.carry_to_client();
            self.client.process_new_packets().map_err(Refused::ByClient)?;
            if !to_server && !to_client {
                assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
                return Ok(());
            }
        }
    }

    fn carry_to_server(&mut self) -> bool {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.server.read_tls(&mut rest).unwrap();
        }
        !bytes.is_empty()
    }

    fn carry_to_client(&mut self) -> bool {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
        }
        !bytes.is_empty()
    }

    fn peers(&self) -> (PeerIdentity, PeerIdentity) {
        let server = identify(self.client.peer_certificates().unwrap()).unwrap();
        let client = identify(self.server.peer_certificates().unwrap()).unwrap();
        (client, server)
    }
}

fn connect(client: ClientConfig, server: ServerConfig, expect: Role) -> Result<Link, Refused> {
    let mut link = Link::new(&Arc::new(client), &Arc::new(server), expect);
    link.run().map(|()| link)
}

fn refusal(client: ClientConfig, server: ServerConfig, expect: Role) -> Refused {
    match connect(client, server, expect) {
        Ok(link) => panic!("connected as {:?}", link.peers()),
        Err(refused) => refused,
    }
}

/// What the refusing side tells the other.
fn alert_for(error: &CertificateError) -> AlertDescription {
    AlertDescription::from(error.clone())
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let pki = Pki::new();
    let mut wanted = request(Role::Node, "edge-1");
    wanted.labels = [("region".to_owned(), "eu".to_owned())].into();
    let node = Identity::load(&pki.write(&wanted), now()).unwrap();
    let base = pki.identity(Role::Base, "origin");
    let link = connect(dialling(&node), accepting(&base), Role::Base).unwrap();
    let (dialled_by, answered_by) = link.peers();
    assert_eq!((dialled_by.role, dialled_by.labels), (Role::Node, wanted.labels));
    assert_eq!(dialled_by.name, Name::new("edge-1").unwrap());
    assert_eq!(dialled_by.public_key, node.public_key());
    assert_eq!(answered_by, *base.as_peer());
    assert_eq!(link.client.alpn_protocol(), Some(ALPN[0]));
}

#[test]
fn every_role_reaches_bases_and_nodes() {
    let pki = Pki::new();
    for server in [Role::Base, Role::Node] {
        let answering = pki.identity(server, &format!("s-{server}"));
        for client in Role::ALL {
            let identity = pki.identity(client, &format!("c-{client}-{server}"));
            let link = connect(dialling(&identity), accepting(&answering), server).unwrap();
            let (dialled_by, answered_by) = link.peers();
            assert_eq!((dialled_by.role, answered_by.role), (client, server));
        }
    }
}

#[test]
fn a_client_that_would_resume_gets_nothing_to_resume_with() {
    let pki = Pki::new();
    let (node, base) = (pki.identity(Role::Node, "a"), pki.identity(Role::Base, "origin"));
    let mut eager = dialling(&node);
    eager.resumption = Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    let (client, server) = (Arc::new(eager), Arc::new(accepting(&base)));
    for _ in 0..2 {
        let mut link = Link::new(&client, &server, Role::Base);
        link.run().unwrap();
        assert_eq!(link.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(link.client.tls13_tickets_received(), 0);
        assert!(!link.client.is_early_data_accepted());
    }
    // Each of these alone would do; none may go unnoticed.
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    assert!(!dialling(&node).enable_early_data);
}

#[test]
fn a_server_that_hands_out_tickets_gets_none_back() {
    let pki = Pki::new();
    let (node, base) = (pki.identity(Role::Node, "a"), pki.identity(Role::Base, "origin"));
    let mut generous = accepting(&base);
    generous.session_storage = ServerSessionMemoryCache::new(8);
    generous.send_tls13_tickets = 2;
    let (client, server) = (Arc::new(dialling(&node)), Arc::new(generous));
    for _ in 0..2 {
        let mut link = Link::new(&client, &server, Role::Base);
        link.run().unwrap();
        assert_eq!(link.client.tls13_tickets_received(), 2);
        assert_eq!(link.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn tls_is_1_3_with_aes_128_and_never_resumed() {
    let pki = Pki::new();
    let (node, base) = (pki.identity(Role::Node, "a"), pki.identity(Role::Base, "origin"));
    let (client, server) = (Arc::new(dialling(&node)), Arc::new(accepting(&base)));
    let algorithms = client.crypto_provider().signature_verification_algorithms;
    assert_eq!(algorithms.supported_schemes(), [SignatureScheme::ED25519]);
    assert_eq!(algorithms.all.len(), 1);
    for _ in 0..2 {
        let mut link = Link::new(&client, &server, Role::Base);
        link.run().unwrap();
        assert_eq!(link.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(link.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let suite = link.client.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(link.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_server_of_another_role_is_refused() {
    let pki = Pki::new();
    let (node, base) = (pki.identity(Role::Node, "a"), pki.identity(Role::Base, "origin"));
    let client = pki.identity(Role::Client, "studio");
    for (server, expect) in [(&node, Role::Base), (&base, Role::Node)] {
        match refusal(dialling(&client), accepting(server), expect) {
            Refused::ByClient(Error::InvalidCertificate(why)) => {
                assert!(matches!(why, CertificateError::NotValidForNameContext { .. }), "{why:?}");
                assert!(identity_alert(alert_for(&why).into()).is_some());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_cannot_pose_as_a_server() {
    let pki = Pki::new();
    let (client, node) = (pki.identity(Role::Client, "studio"), pki.identity(Role::Node, "a"));
    let error = server_config(&client, &ALPN).unwrap_err();
    assert!(matches!(error, TlsError::Identity(_)) && error.is_refusal(), "{error}");

    let mut posing = accepting(&node);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(client.pkcs8().to_vec()));
    let provider = posing.crypto_provider();
    let certified =
        rustls::sign::CertifiedKey::from_der(client.chain().to_vec(), key, provider).unwrap();
    posing.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    match refusal(dialling(&node), posing, Role::Client) {
        Refused::ByClient(Error::InvalidCertificate(why)) => {
            assert!(matches!(why, CertificateError::InvalidPurposeContext { .. }), "{why:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_foreign_authority_is_refused_by_either_side() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let base = ours.identity(Role::Base, "origin");
    let stranger = theirs.identity(Role::Node, "a");
    match refusal(dialling(&stranger), accepting(&base), Role::Base) {
        Refused::ByClient(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
        other => panic!("{other:?}"),
    }
    // A client that trusts the base but shows a certificate of its own authority.
    let mut both = dialling(&ours.identity(Role::Node, "a"));
    both.client_auth_cert_resolver = dialling(&stranger).client_auth_cert_resolver;
    match refusal(both, accepting(&base), Role::Base) {
        Refused::ByServer(Error::InvalidCertificate(why)) => {
            assert_eq!(why, CertificateError::UnknownIssuer);
            assert!(identity_alert(alert_for(&why).into()).is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let pki = Pki::new();
    let base = pki.identity(Role::Base, "origin");
    let mut bare = dialling(&pki.identity(Role::Node, "a"));
    let provider = Arc::clone(bare.crypto_provider());
    bare.client_auth_cert_resolver = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(Arc::clone(base.roots()))
        .with_no_client_auth()
        .client_auth_cert_resolver;
    match refusal(bare, accepting(&base), Role::Base) {
        Refused::ByServer(Error::NoCertificatesPresented) => {}
        other => panic!("{other:?}"),
    }
    assert!(identity_alert(AlertDescription::CertificateRequired.into()).is_some());
}

#[test]
fn dates_are_judged_on_each_connection() {
    let pki = Pki::new();
    let (node, base) = (pki.identity(Role::Node, "a"), pki.identity(Role::Base, "origin"));
    let late = now() + HOUR + Duration::from_secs(1);
    let early = now() - HOUR;
    for (at, is_expired) in [(late, true), (early, false)] {
        let mut client = dialling(&node);
        client.time_provider = Arc::new(At(at));
        let by_client = refusal(client, accepting(&base), Role::Base);
        let mut server = accepting(&base);
        server.time_provider = Arc::new(At(at));
        let by_server = refusal(dialling(&node), server, Role::Base);
        let (
            Refused::ByClient(Error::InvalidCertificate(first)),
            Refused::ByServer(Error::InvalidCertificate(second)),
        ) = (by_client, by_server)
        else {
            panic!("refused for another reason");
        };
        for why in [first, second] {
            assert!(identity_alert(alert_for(&why).into()).is_some());
            match why {
                CertificateError::ExpiredContext { .. } => assert!(is_expired),
                CertificateError::NotValidYetContext { .. } => assert!(!is_expired),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn another_protocol_is_refused_and_not_for_the_identity() {
    let pki = Pki::new();
    let (node, base) = (pki.identity(Role::Node, "a"), pki.identity(Role::Base, "origin"));
    let mut client = client_config(&node, &[b"distributary/2"]).unwrap();
    client.time_provider = Arc::new(At(now()));
    match refusal(client, accepting(&base), Role::Base) {
        Refused::ByServer(Error::NoApplicationProtocol) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(identity_alert(AlertDescription::NoApplicationProtocol.into()), None);
}
