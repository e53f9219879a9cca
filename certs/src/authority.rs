//! The private certificate authority and the identities it issues.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, DnsName};
use shared::id::{Name, Role};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::date;
use crate::files::{self, FileError, Secrecy};
use crate::identity::{CA_FILE, CERT_FILE, KEY_FILE, read_certificates};
use crate::subject::{self, Subject};
use shared::label::{self, LabelError};

/// The secret key of an authority (PKCS#8, mode 0600).
pub const CA_KEY_FILE: &str = "ca-key.pem";
/// How long an authority is valid, and so the latest end of what it issues: 20 years.
pub const CA_VALID_FOR: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// Certificates are valid from this long before they are made, because a peer's clock may
/// be behind: 5 minutes.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// Most `--host` names of one identity.
pub const HOSTS_MAX: usize = 16;

const HINT: &str = "make an authority with `distributary certs init --dir DIR`";

/// A certificate authority in a folder: `ca.pem` and `ca-key.pem`.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: Vec<u8>,
    not_after: SystemTime,
}

/// What an identity is to be.
#[derive(Debug, Clone)]
pub struct Request {
    /// What its holder may be.
    pub role: Role,
    /// Its holder's name; `all` is taken, and `base` too unless the role is base.
    pub name: Name,
    /// Labels, at most [`label::LABELS_MAX`].
    pub labels: BTreeMap<String, String>,
    /// Further host names or IP addresses, at most [`HOSTS_MAX`]. Our own peers ignore them.
    pub hosts: Vec<String>,
    /// From now on; whole seconds, at least one.
    pub valid_for: Duration,
}

/// An identity that was issued and is not written yet.
pub struct Issued {
    ca_pem: Vec<u8>,
    cert_pem: String,
    key_pem: Zeroizing<String>,
    not_after: SystemTime,
}

/// Why an authority cannot be made or used. None is a refusal of an identity: each is
/// something that cannot be done (exit code 1).
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written, or is a key open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// `init` on a folder that has something in it.
    #[error(
        "{} is not empty, and an authority in it would be lost; choose a new folder",
        dir.display()
    )]
    Used {
        /// The folder.
        dir: PathBuf,
    },
    /// Key and certificate are of different authorities.
    #[error("{CA_KEY_FILE} and {CA_FILE} in {} do not belong together", dir.display())]
    KeyMismatch {
        /// The authority's folder.
        dir: PathBuf,
    },
    /// A name that the role may not have.
    #[error("the name {name} is taken; choose another --name for this {role}")]
    ReservedName {
        /// The role asked for.
        role: Role,
        /// The name asked for.
        name: Name,
    },
    /// A label that is not well-formed.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Neither a DNS name nor an IP address.
    #[error("host {0:?} is neither a DNS name nor an IP address")]
    Host(String),
    /// A DNS name that says a role.
    #[error("host {0:?} is one of the names by which roles are known; leave it out")]
    HostTaken(String),
    /// More than [`HOSTS_MAX`] hosts.
    #[error("{0} hosts, allowed are {HOSTS_MAX}")]
    TooManyHosts(usize),
    /// Valid for less than a second.
    #[error("a certificate must be valid for at least one second")]
    TooShort,
    /// It would outlive the authority.
    #[error(
        "a certificate cannot be valid for longer than its authority, which ends on {}; choose \
         a shorter --valid-for or make a new authority",
        date::text(*not_after)
    )]
    TooLong {
        /// Last moment at which the authority is valid.
        not_after: SystemTime,
    },
    /// The clock is outside the years that a certificate can name.
    #[error("the clock shows a date that no certificate can carry; set it right")]
    Clock,
    /// Keys or certificates could not be made.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl AuthorityError {
    /// Whether an identity is refused (exit code 5): never, see [`AuthorityError`].
    pub const fn is_refusal(&self) -> bool {
        false
    }
}

impl Authority {
    /// Makes an authority in `dir`, which is created (0700) if absent and must be empty.
    ///
    /// # Errors
    /// [`AuthorityError::Used`] if `dir` has something in it, or another [`AuthorityError`].
    pub fn init(dir: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        refuse_used(dir)?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let params = authority_params(&key, now)?;
        let certificate = params.self_signed(&key)?;
        let (ca_pem, key_pem) = (certificate.pem(), Zeroizing::new(key.serialize_pem()));
        files::write_set(
            dir,
            &[
                (CA_KEY_FILE, key_pem.as_bytes(), Secrecy::Secret),
                (CA_FILE, ca_pem.as_bytes(), Secrecy::Public),
            ],
        )?;
        let not_after = SystemTime::from(params.not_after);
        Ok(Self { issuer: Issuer::new(params, key), ca_pem: ca_pem.into_bytes(), not_after })
    }

    /// Opens the authority in `dir`. If `ca.pem` has several certificates, the first is the
    /// one that issues; identities get all of them to trust.
    ///
    /// # Errors
    /// [`AuthorityError`] if a file is missing, wrong, or a key open to others.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (ca_path, key_path) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
        let certificates = read_certificates(&ca_path, HINT)?;
        let ca_pem = files::read(&ca_path, Secrecy::Public, HINT)?.to_vec();
        let key = read_key(&key_path)?;
        let unusable = |reason: String| FileError::Content {
            path: ca_path.clone(),
            what: "certificate of an authority",
            reason,
        };
        let first = certificates.first().ok_or_else(|| unusable("it is empty".to_owned()))?;
        let (public_key, not_after) = read_authority(first).map_err(unusable)?;
        if public_key != key.der_bytes() {
            return Err(AuthorityError::KeyMismatch { dir: dir.to_owned() });
        }
        Ok(Self { issuer: Issuer::from_ca_cert_der(first, key)?, ca_pem, not_after })
    }

    /// Makes a key and a certificate for what `request` says, valid from [`CLOCK_SKEW`]
    /// before `now`.
    ///
    /// # Errors
    /// [`AuthorityError`] if something in the request is not allowed.
    pub fn issue(&self, request: &Request, now: SystemTime) -> Result<Issued, AuthorityError> {
        let not_after = self.end_of(request.valid_for, now)?;
        let mut params = holder_params(request)?;
        params.not_before = start_at(now)?;
        params.not_after = date::to_date(not_after).ok_or(AuthorityError::Clock)?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            ca_pem: self.ca_pem.clone(),
            cert_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            not_after: SystemTime::from(params.not_after),
        })
    }

    /// Last moment at which the authority, and so what it issues, is valid.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    fn end_of(&self, valid_for: Duration, now: SystemTime) -> Result<SystemTime, AuthorityError> {
        if valid_for < Duration::from_secs(1) {
            return Err(AuthorityError::TooShort);
        }
        now.checked_add(valid_for)
            .filter(|end| *end <= self.not_after)
            .ok_or(AuthorityError::TooLong { not_after: self.not_after })
    }
}

impl Issued {
    /// Writes `ca.pem`, `cert.pem` and `key.pem` (0600) into `dir`, which is made (0700) if
    /// absent.
    ///
    /// # Errors
    /// [`FileError::Exists`] if one of them is there already; then nothing is written.
    pub fn write(&self, dir: &Path) -> Result<(), AuthorityError> {
        files::write_set(
            dir,
            &[
                (KEY_FILE, self.key_pem.as_bytes(), Secrecy::Secret),
                (CERT_FILE, self.cert_pem.as_bytes(), Secrecy::Public),
                (CA_FILE, &self.ca_pem, Secrecy::Public),
            ],
        )?;
        Ok(())
    }

    /// Last moment at which the certificate is valid.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

fn refuse_used(dir: &Path) -> Result<(), AuthorityError> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(AuthorityError::Used { dir: dir.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(reason) => Err(FileError::Read { path: dir.to_owned(), reason }.into()),
    }
}

fn read_key(path: &Path) -> Result<KeyPair, FileError> {
    let wrong = |reason: String| FileError::Content {
        path: path.to_owned(),
        what: "Ed25519 key in PKCS#8",
        reason,
    };
    let pem = files::read(path, Secrecy::Secret, HINT)?;
    let text = std::str::from_utf8(&pem).map_err(|e| wrong(e.to_string()))?;
    KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ED25519).map_err(|e| wrong(e.to_string()))
}

/// The key of an authority's certificate and the end of its validity.
fn read_authority(der: &CertificateDer<'_>) -> Result<(Vec<u8>, SystemTime), String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string())?;
    if !certificate.is_ca() {
        return Err("it may not issue others".to_owned());
    }
    let not_after = date::from_unix(certificate.validity().not_after.timestamp());
    Ok((certificate.public_key().subject_public_key.data.to_vec(), not_after))
}

fn start_at(now: SystemTime) -> Result<OffsetDateTime, AuthorityError> {
    now.checked_sub(CLOCK_SKEW).and_then(date::to_date).ok_or(AuthorityError::Clock)
}

fn authority_params(key: &KeyPair, now: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = start_at(now)?;
    params.not_after =
        now.checked_add(CA_VALID_FOR).and_then(date::to_date).ok_or(AuthorityError::Clock)?;
    // A name of its own for each authority: then a certificate of another one is refused as
    // coming from an unknown issuer, not as a forged signature.
    let key_start: String = key.der_bytes().iter().take(4).map(|b| format!("{b:02x}")).collect();
    params.distinguished_name = common_name(&format!("Distributary CA {key_start}"));
    Ok(params)
}

/// Everything of a holder's certificate but its validity.
fn holder_params(request: &Request) -> Result<CertificateParams, AuthorityError> {
    let Request { role, name, labels, hosts, .. } = request;
    let (role, name, labels) = (*role, name.clone(), labels.clone());
    if !subject::is_name_allowed(role, &name) {
        return Err(AuthorityError::ReservedName { role, name });
    }
    label::check_all(&labels)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name.as_str());
    params.subject_alt_names = vec![SanType::DnsName(ia5(subject::server_name(role))?)];
    for uri in (Subject { role, name, labels }).uris() {
        params.subject_alt_names.push(SanType::URI(ia5(&uri)?));
    }
    params.subject_alt_names.extend(host_names(hosts)?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match role {
        Role::Base | Role::Node => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        Role::Client | Role::Operator => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn host_names(hosts: &[String]) -> Result<Vec<SanType>, AuthorityError> {
    if hosts.len() > HOSTS_MAX {
        return Err(AuthorityError::TooManyHosts(hosts.len()));
    }
    hosts.iter().map(|host| host_name(host)).collect()
}

fn host_name(host: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if DnsName::try_from(name).is_err() || name.ends_with('.') {
        return Err(AuthorityError::Host(host.to_owned()));
    }
    if subject::is_in_zone(name) {
        return Err(AuthorityError::HostTaken(host.to_owned()));
    }
    Ok(SanType::DnsName(ia5(&name.to_ascii_lowercase())?))
}

fn ia5(text: &str) -> Result<Ia5String, rcgen::Error> {
    Ia5String::try_from(text)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}
