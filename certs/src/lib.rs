//! Identities: who may speak, in which role, and the TLS configurations made of that.
//!
//! An [`Authority`] is a private certificate authority in a folder. It issues identities: a
//! folder with `ca.pem`, `cert.pem` and `key.pem`, read back as an [`Identity`]. Role, name
//! and labels stand in the certificate, written by the authority alone. [`tls`] makes the
//! mutual TLS 1.3 configurations of an identity; [`peer::identify`] says who is at the other
//! end of a connection. Peers are judged by authority, role and name, never by address.
//!
//! Whatever depends on the time of day takes it as an argument.
//!
//! A module belongs here if it is about certificates and keys; what a role may do with a
//! message is decided elsewhere.

mod authority;
mod date;
mod files;
mod identity;
pub mod peer;
mod subject;
pub mod tls;

pub use authority::{
    Authority, AuthorityError, CA_KEY_FILE, CA_VALID_FOR, CLOCK_SKEW, HOSTS_MAX, Issued, Request,
};
pub use files::{FILE_LEN_MAX, FileError};
pub use identity::{CA_FILE, CERT_FILE, Identity, IdentityError, KEY_FILE};
pub use peer::{IdentifyError, PeerIdentity};
