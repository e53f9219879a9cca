//! Mutual TLS 1.3 between identities of one authority.
//!
//! Both sides verify the other's chain against `ca.pem` alone. The dialling side passes
//! [`server_name`] of the role it expects instead of a host's name: every certificate
//! carries the name of its role, so the stock verifier checks the role and no address
//! matters. Which peer it is, [`crate::peer::identify`] says after the handshake.
//!
//! There are no tickets, no resumption and no early data: each connection is judged anew.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig, ServerConfig, SignatureScheme};
use shared::id::Role;

use crate::identity::{Identity, IdentityError};
use crate::subject;

/// Why an identity gives no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The role cannot do this.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// rustls refuses what it was given.
    #[error("cannot configure TLS: {0}")]
    Config(#[from] rustls::Error),
}

impl TlsError {
    /// Whether the identity itself is refused (exit code 5).
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Identity(error) if error.is_refusal())
    }
}

/// The TLS server name by which a peer of `role` is dialled, whatever its address.
pub const fn server_name(role: Role) -> &'static str {
    subject::server_name(role)
}

/// The accepting side, which demands a certificate of the same authority. `alpn` are the
/// protocols it speaks, best first; a peer that speaks none of them is refused.
///
/// # Errors
/// [`TlsError::Identity`] unless the identity is a base's or a node's.
pub fn server_config(identity: &Identity, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    identity.require(&[Role::Base, Role::Node])?;
    let mut config = ServerConfig::builder_with_provider(provider()?)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(client_verifier(identity)?)
        .with_single_cert(identity.chain().to_vec(), identity.tls_key())?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The dialling side, for connections to [`server_name`] of the expected role. `alpn` are
/// the protocols it speaks, best first.
///
/// # Errors
/// [`TlsError::Config`] if rustls refuses chain or key.
pub fn client_config(identity: &Identity, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider()?)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(Arc::clone(identity.roots()))
        .with_client_auth_cert(identity.chain().to_vec(), identity.tls_key())?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// What a TLS alert says about an identity, or `None` if it is about something else.
///
/// QUIC reports a failed handshake, whichever side refused, as error `0x100 + alert`; with
/// an answer here the exit code is 5.
pub fn identity_alert(alert: u8) -> Option<&'static str> {
    match AlertDescription::from(alert) {
        AlertDescription::CertificateExpired => {
            Some("a certificate is expired or not yet valid; check both clocks and `cert.pem`")
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            Some("the certificates come from different authorities; compare `ca.pem` of both sides")
        }
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            Some("no certificate was shown; an identity is needed")
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnrecognisedName => {
            Some("the certificate does not allow the role that was expected of its holder")
        }
        AlertDescription::CertificateRevoked | AlertDescription::AccessDenied => {
            Some("access was denied to the certificate")
        }
        _ => None,
    }
}

/// Judges the certificates of dialling peers. Names of authorities are not sent to them:
/// each has one certificate and would not choose by them.
pub(crate) fn client_verifier(
    identity: &Identity,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    WebPkiClientVerifier::builder_with_provider(Arc::clone(identity.roots()), provider()?)
        .clear_root_hint_subjects()
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))
}

/// ring, with the suite that QUIC needs anyway first, and with no signature but ours, so
/// that a stranger cannot make us compute others.
fn provider() -> Result<Arc<CryptoProvider>, rustls::Error> {
    let base = default_provider();
    Ok(Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        signature_verification_algorithms: only_ed25519(base.signature_verification_algorithms)
            .ok_or_else(|| rustls::Error::General("the provider has no Ed25519".to_owned()))?,
        ..base
    }))
}

fn only_ed25519(all: WebPkiSupportedAlgorithms) -> Option<WebPkiSupportedAlgorithms> {
    let is_ed25519 = |(scheme, _): &(SignatureScheme, _)| *scheme == SignatureScheme::ED25519;
    let at = all.mapping.iter().position(is_ed25519)?;
    let mapping = all.mapping.get(at..=at)?;
    let (_, algorithms) = mapping.first()?;
    Some(WebPkiSupportedAlgorithms { all: algorithms, mapping })
}
