//! The identity of this process: its certificate, its key and whom it trusts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use shared::id::{Name, Role};
use zeroize::{Zeroize, Zeroizing};

use crate::files::{self, FileError, Secrecy};
use crate::peer::{self, IdentifyError, PeerIdentity};
use crate::{date, tls};

/// The certificates of the authorities that are trusted, in an identity and an authority.
pub const CA_FILE: &str = "ca.pem";
/// The certificate of an identity, followed by intermediate ones if there are any.
pub const CERT_FILE: &str = "cert.pem";
/// The secret key of an identity (PKCS#8, mode 0600).
pub const KEY_FILE: &str = "key.pem";

const HINT: &str = "an identity is a folder with ca.pem, cert.pem and key.pem, made by \
                    `distributary certs issue --out DIR`";

/// A certificate with its key, checked: they belong together, the date is right, and the
/// authority in `ca.pem` has signed it.
pub struct Identity {
    dir: PathBuf,
    says: PeerIdentity,
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    pkcs8: Zeroizing<Vec<u8>>,
    key: Arc<Ed25519KeyPair>,
}

/// Why a folder is no identity that can be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read, or is a key open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate is not of our making.
    #[error("{} is refused: {reason}", path.display())]
    Unidentified {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong with it.
        reason: IdentifyError,
    },
    /// Key and certificate are of different identities.
    #[error(
        "{KEY_FILE} and {CERT_FILE} in {} do not belong together; issue the identity again",
        dir.display()
    )]
    KeyMismatch {
        /// The identity's folder.
        dir: PathBuf,
    },
    /// Too late.
    #[error(
        "{} expired on {}; issue a new identity with `distributary certs issue`",
        path.display(), date::text(*not_after)
    )]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// Last moment at which it was valid.
        not_after: SystemTime,
    },
    /// Too early.
    #[error(
        "{} is not valid before {}; is the clock of this machine right?",
        path.display(), date::text(*not_before)
    )]
    NotYetValid {
        /// The certificate file.
        path: PathBuf,
        /// First moment at which it is valid.
        not_before: SystemTime,
    },
    /// The certificate comes from another authority than the one beside it.
    #[error(
        "{CERT_FILE} in {} is not signed by the authority in {CA_FILE} ({reason}); take all \
         three files from one `distributary certs issue`",
        dir.display()
    )]
    Untrusted {
        /// The identity's folder.
        dir: PathBuf,
        /// What the verification says.
        reason: rustls::Error,
    },
    /// An identity of another role.
    #[error(
        "the identity in {} is that of the {found} {name}, but {} is needed; issue one with \
         `distributary certs issue --role`",
        dir.display(), any_of(allowed)
    )]
    WrongRole {
        /// The identity's folder.
        dir: PathBuf,
        /// Its role.
        found: Role,
        /// Its name.
        name: Name,
        /// The roles that would do.
        allowed: Vec<Role>,
    },
}

impl IdentityError {
    /// Whether the identity itself is refused (exit code 5), as opposed to files that cannot
    /// be used as they are (exit code 1).
    pub const fn is_refusal(&self) -> bool {
        !matches!(self, Self::File(_) | Self::KeyMismatch { .. })
    }
}

impl Identity {
    /// Reads and checks the identity in `dir` for use at `now`.
    ///
    /// # Errors
    /// [`IdentityError`], which names the file or folder and the next step.
    pub fn load(dir: &Path, now: SystemTime) -> Result<Self, IdentityError> {
        let roots = read_certificates(&dir.join(CA_FILE), HINT)?;
        let chain = read_certificates(&dir.join(CERT_FILE), HINT)?;
        let (pkcs8, key) = read_key(&dir.join(KEY_FILE))?;
        let says = peer::identify(&chain)
            .map_err(|reason| IdentityError::Unidentified { path: dir.join(CERT_FILE), reason })?;
        if key.public_key().as_ref() != says.public_key {
            return Err(IdentityError::KeyMismatch { dir: dir.to_owned() });
        }
        let roots = root_store(&dir.join(CA_FILE), roots)?;
        let (dir, key) = (dir.to_owned(), Arc::new(key));
        let identity = Self { dir, says, chain, roots: Arc::new(roots), pkcs8, key };
        identity.check_date(now)?;
        identity.check_chain(now)?;
        Ok(identity)
    }

    /// Demands one of the roles in `allowed`.
    ///
    /// # Errors
    /// [`IdentityError::WrongRole`] if the identity has none of them.
    pub fn require(&self, allowed: &[Role]) -> Result<(), IdentityError> {
        if allowed.contains(&self.says.role) {
            return Ok(());
        }
        Err(IdentityError::WrongRole {
            dir: self.dir.clone(),
            found: self.says.role,
            name: self.says.name.clone(),
            allowed: allowed.to_vec(),
        })
    }

    /// The role in the certificate.
    pub const fn role(&self) -> Role {
        self.says.role
    }

    /// The name in the certificate.
    pub const fn name(&self) -> &Name {
        &self.says.name
    }

    /// The labels in the certificate.
    pub const fn labels(&self) -> &BTreeMap<String, String> {
        &self.says.labels
    }

    /// First moment at which the certificate is valid.
    pub const fn not_before(&self) -> SystemTime {
        self.says.not_before
    }

    /// Last moment at which the certificate is valid.
    pub const fn not_after(&self) -> SystemTime {
        self.says.not_after
    }

    /// The Ed25519 key of the certificate, public half.
    pub const fn public_key(&self) -> [u8; 32] {
        self.says.public_key
    }

    /// Everything the certificate says, as a peer sees it.
    pub const fn as_peer(&self) -> &PeerIdentity {
        &self.says
    }

    /// The certificate, then intermediate ones if there are any.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The authorities whose certificates are accepted from peers.
    pub const fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// The secret key as PKCS#8 in DER. To be shown to nobody.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The secret key for signing.
    pub const fn signing_key(&self) -> &Arc<Ed25519KeyPair> {
        &self.key
    }

    /// Signs `message` with the certificate's key; [`peer::is_signed_by`] is the check.
    ///
    /// The key also signs TLS handshakes, whose messages begin with 64 spaces: begin each
    /// kind of message with a text of its own, so that none can be taken for another.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        let made = self.key.sign(message);
        for (to, from) in signature.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
        signature
    }

    /// The secret key in the form that rustls takes.
    pub(crate) fn tls_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }

    fn check_date(&self, now: SystemTime) -> Result<(), IdentityError> {
        let path = || self.dir.join(CERT_FILE);
        let PeerIdentity { not_before, not_after, .. } = self.says;
        if now > not_after {
            return Err(IdentityError::Expired { path: path(), not_after });
        }
        if now < not_before {
            return Err(IdentityError::NotYetValid { path: path(), not_before });
        }
        Ok(())
    }

    /// Judges the own certificate as a peer with the same `ca.pem` would.
    fn check_chain(&self, now: SystemTime) -> Result<(), IdentityError> {
        let untrusted = |reason| IdentityError::Untrusted { dir: self.dir.clone(), reason };
        let (leaf, intermediates) = self
            .chain
            .split_first()
            .ok_or(rustls::Error::NoCertificatesPresented)
            .map_err(untrusted)?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let verifier = tls::client_verifier(self).map_err(untrusted)?;
        verifier.verify_client_cert(leaf, intermediates, now).map_err(untrusted)?;
        Ok(())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("dir", &self.dir)
            .field("says", &self.says)
            .finish_non_exhaustive()
    }
}

/// The certificates in a PEM file, at least one.
pub(crate) fn read_certificates(
    path: &Path,
    hint: &'static str,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let pem = files::read(path, Secrecy::Public, hint)?;
    let wrong =
        |reason: String| FileError::Content { path: path.to_owned(), what: "certificate", reason };
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| wrong(e.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("no PEM section CERTIFICATE".to_owned()));
    }
    Ok(certificates)
}

/// The key in a PEM file, as PKCS#8 and ready to sign.
fn read_key(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Ed25519KeyPair), FileError> {
    let pem = files::read(path, Secrecy::Secret, HINT)?;
    let wrong = |reason: String| FileError::Content {
        path: path.to_owned(),
        what: "Ed25519 key in PKCS#8",
        reason,
    };
    let mut der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|e| wrong(e.to_string()))?;
    let pkcs8 = Zeroizing::new(der.secret_pkcs8_der().to_vec());
    der.zeroize();
    let key =
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|e| wrong(e.to_string()))?;
    Ok((pkcs8, key))
}

fn root_store(
    path: &Path,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|e| FileError::Content {
            path: path.to_owned(),
            what: "certificate of an authority",
            reason: e.to_string(),
        })?;
    }
    Ok(roots)
}

fn any_of(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ")
}
