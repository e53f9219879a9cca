//! Hashes and signatures: BLAKE3 for content, Ed25519 for what the base vouches for.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// A BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The value that stands where there is nothing to hash: before the first page.
    pub const ZERO: Self = Self([0; 32]);

    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];

/// Length of a [`Signature`] in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// An Ed25519 signature, in two halves because serde knows arrays up to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// Reads a signature from exactly [`SIGNATURE_LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (r, s) = bytes.split_first_chunk::<32>()?;
        Some(Self(*r, s.try_into().ok()?))
    }

    /// The signature's bytes.
    pub fn to_bytes(self) -> [u8; SIGNATURE_LEN] {
        let mut bytes = [0; SIGNATURE_LEN];
        let (r, s) = bytes.split_at_mut(32);
        r.copy_from_slice(&self.0);
        s.copy_from_slice(&self.1);
        bytes
    }
}

/// What a signature is about, so that one can never stand for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A manifest page.
    Page,
    /// A job object.
    Job,
}

impl Purpose {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Page => b"distributary/1 page\0",
            Self::Job => b"distributary/1 job\0",
        }
    }

    fn message(self, body: &[u8]) -> Vec<u8> {
        [self.prefix(), body].concat()
    }
}

/// Signs `body` for `purpose`. Ed25519 is deterministic: no randomness is drawn.
pub fn sign(key: &Ed25519KeyPair, purpose: Purpose, body: &[u8]) -> Signature {
    let signature = key.sign(&purpose.message(body));
    // An Ed25519 signature is 64 bytes long by definition.
    Signature::from_slice(signature.as_ref()).unwrap_or(Signature([0; 32], [0; 32]))
}

/// Whether `signature` over `body` for `purpose` was made with the key of `public`.
pub fn verify(public: &PublicKey, purpose: Purpose, body: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, public)
        .verify(&purpose.message(body), &signature.to_bytes())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
    }

    fn public(key: &Ed25519KeyPair) -> PublicKey {
        ring::signature::KeyPair::public_key(key).as_ref().try_into().unwrap()
    }

    #[test]
    fn a_signature_holds_for_its_body_and_purpose_only() {
        let key = key();
        let signature = sign(&key, Purpose::Page, b"body");
        assert!(verify(&public(&key), Purpose::Page, b"body", &signature));
        assert!(!verify(&public(&key), Purpose::Page, b"bodY", &signature));
        assert!(!verify(&public(&key), Purpose::Job, b"body", &signature));
        assert_eq!(Signature::from_slice(&signature.to_bytes()), Some(signature));
        assert_eq!(Signature::from_slice(&[0; 63]), None);
    }
}
