//! Certificates and TLS configurations of the hosts: mutual TLS 1.3 under an authority made from
//! the seed. Ed25519 throughout, because its signatures have one length, so that handshakes of
//! two runs have the same packets.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SerialNumber,
};
use rustls::{
    RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};

use crate::link::SplitMix;

const ALPN: &[u8] = b"distributary-wan";
/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410, section 10.3).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Why an identity or its TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate.
    #[error("cannot make the certificate of `{name}`: {source}")]
    Certificate {
        /// Whose.
        name: String,
        /// What rcgen says.
        source: rcgen::Error,
    },
    /// The TLS configuration.
    #[error("rustls refuses the configuration of a host: {0}")]
    Tls(#[from] rustls::Error),
    /// The check of client certificates.
    #[error("rustls refuses the check of client certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// The provider lacks what QUIC's first packets need.
    #[error("the TLS provider lacks AES-128-GCM, which QUIC needs: {0}")]
    Suite(#[from] NoInitialCipherSuite),
}

/// Signs the certificates of hosts. Two authorities of one seed are the same, and so are the
/// certificates that they sign.
#[derive(Debug)]
pub struct Authority {
    seed: u64,
    issuer: CertifiedIssuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Authority {
    /// The authority of a seed.
    ///
    /// # Errors
    /// [`IdentityError`] if a library refuses the certificate.
    pub fn new(seed: u64) -> Result<Self, IdentityError> {
        let name = "authority";
        let mut params = params_of(seed, name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, key_pair(seed, name)?)
            .map_err(|source| of(name, source))?;
        let mut roots = RootCertStore::empty();
        roots.add(issuer.as_ref().der().clone())?;
        let provider = Arc::new(ring::default_provider());
        Ok(Self { seed, issuer, roots: Arc::new(roots), provider })
    }

    /// A server that shows the certificate of `host` and asks for one of this authority.
    ///
    /// # Errors
    /// [`IdentityError`] if a library refuses the certificate.
    pub fn server(&self, host: &str) -> Result<QuicServerConfig, IdentityError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
        )
        .build()?;
        let (chain, key) = self.certify(host)?;
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(QuicServerConfig::try_from(config)?)
    }

    /// A client that shows the certificate of `host` and accepts servers of this authority.
    ///
    /// # Errors
    /// [`IdentityError`] if a library refuses the certificate.
    pub fn client(&self, host: &str) -> Result<QuicClientConfig, IdentityError> {
        let (chain, key) = self.certify(host)?;
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(QuicClientConfig::try_from(config)?)
    }

    fn certify(
        &self,
        host: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
        let mut params = params_of(self.seed, host)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = key_pair(self.seed, host)?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(|source| of(host, source))?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((vec![certificate.der().clone()], key.into()))
    }
}

/// The serial number would else come from the key and vary in length.
fn params_of(seed: u64, name: &str) -> Result<CertificateParams, IdentityError> {
    let mut params =
        CertificateParams::new(vec![name.to_owned()]).map_err(|source| of(name, source))?;
    let [_, tail @ ..] = number_of(seed, name).next_u64().to_be_bytes();
    let mut serial = vec![1];
    serial.extend(tail);
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn key_pair(seed: u64, name: &str) -> Result<KeyPair, IdentityError> {
    let mut rng = number_of(seed, name);
    let mut der = PKCS8_PREFIX.to_vec();
    der.extend((0..4).flat_map(|_| rng.next_u64().to_be_bytes()));
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
        .map_err(|source| of(name, source))
}

fn number_of(seed: u64, name: &str) -> SplitMix {
    let mut parts = vec![seed];
    parts.extend(name.bytes().map(u64::from));
    SplitMix::from_parts(&parts)
}

fn of(name: &str, source: rcgen::Error) -> IdentityError {
    IdentityError::Certificate { name: name.to_owned(), source }
}
