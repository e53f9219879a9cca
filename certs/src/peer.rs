//! Who a certificate says its holder is.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use shared::id::{Name, NameError, Role, UnknownRole};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_SIG_ED25519;

use crate::date;
use crate::subject::Subject;
use shared::label::LabelError;

/// What the certificate of a peer, or our own, says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What the holder may be.
    pub role: Role,
    /// The holder's name.
    pub name: Name,
    /// The labels given by the authority.
    pub labels: BTreeMap<String, String>,
    /// The Ed25519 key of the certificate; a base signs pages with its secret half.
    pub public_key: [u8; 32],
    /// First moment at which the certificate is valid.
    pub not_before: SystemTime,
    /// Last moment at which the certificate is valid.
    pub not_after: SystemTime,
}

/// Why a certificate does not say who its holder is. Each is a refusal of the identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// The peer showed no certificate.
    #[error("the peer shows no certificate")]
    NoCertificate,
    /// Not X.509, or with something behind it.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// The key is of another kind.
    #[error("the certificate's key is not Ed25519; issue it with `distributary certs issue`")]
    Key,
    /// No role and name.
    #[error("the certificate names no role; issue it with `distributary certs issue`")]
    NoRole,
    /// More than one role and name.
    #[error("the certificate names two roles")]
    TwoRoles,
    /// A statement of ours that this version does not know.
    #[error("the certificate states {0:?}, which this version does not understand")]
    UnknownStatement(String),
    /// A role that does not exist.
    #[error(transparent)]
    Role(#[from] UnknownRole),
    /// A name that is not well-formed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name that the role may not have.
    #[error("the certificate names a {role} {name:?}, but that name is taken")]
    ReservedName {
        /// The role.
        role: Role,
        /// The name.
        name: Name,
    },
    /// A label that is not well-formed.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// It carries the server name of a role that it does not have.
    #[error("the certificate of a {role} carries the server name {dns_name:?} of another role")]
    OtherRolesName {
        /// The role.
        role: Role,
        /// The DNS name.
        dns_name: String,
    },
}

/// Reads who the holder of a chain is from its first certificate.
///
/// It reads and does not judge: pass only a chain that TLS has verified, such as that of
/// `quinn::Connection::peer_identity()` under the configurations of [`crate::tls`].
///
/// # Errors
/// [`IdentifyError`] if the certificate is not one that an [`crate::Authority`] issues.
pub fn identify(certs: &[CertificateDer<'_>]) -> Result<PeerIdentity, IdentifyError> {
    let der = certs.first().ok_or(IdentifyError::NoCertificate)?;
    let unreadable = |reason: String| IdentifyError::Unreadable(reason);
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|e| unreadable(e.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable(format!("{} bytes follow it", rest.len())));
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| unreadable(e.to_string()))?
        .ok_or(IdentifyError::NoRole)?;
    let Subject { role, name, labels } = Subject::read(&names.value.general_names)?;
    let validity = certificate.validity();
    Ok(PeerIdentity {
        role,
        name,
        labels,
        public_key: public_key(&certificate)?,
        not_before: date::from_unix(validity.not_before.timestamp()),
        not_after: date::from_unix(validity.not_after.timestamp()),
    })
}

/// Whether `signature` over `message` was made with the key whose public half is
/// `public_key`, as [`crate::Identity::sign`] makes it.
pub fn is_signed_by(public_key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}

/// The certificate's Ed25519 key.
fn public_key(certificate: &X509Certificate<'_>) -> Result<[u8; 32], IdentifyError> {
    let info = certificate.public_key();
    if info.algorithm.algorithm != OID_SIG_ED25519 {
        return Err(IdentifyError::Key);
    }
    let bytes: &[u8] = &info.subject_public_key.data;
    bytes.try_into().ok().ok_or(IdentifyError::Key)
}
