//! Names and identifiers: who speaks, and about which job.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a node, client or job, in bytes.
pub const NAME_LEN_MAX: usize = 64;

/// Names with a meaning of their own on the command line and in reports.
const RESERVED_NAMES: [&str; 2] = ["all", "base"];

/// A name of a node, client, operator, base or job: `[a-z0-9._-]{1,64}`.
///
/// Decoding checks the alphabet and the length, so a `Name` from a peer is well-formed.
/// Whether a reserved name is acceptable depends on the place: see [`Name::is_reserved`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than [`NAME_LEN_MAX`].
    #[error("name {0:?} has {len} bytes, allowed are 1 to {NAME_LEN_MAX}", len = .0.len())]
    Length(String),
    /// A byte outside `[a-z0-9._-]`.
    #[error("name {0:?} may contain only a-z, 0-9, '.', '_' and '-'")]
    Alphabet(String),
}

impl Name {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// [`NameError`] if the length or the alphabet is not allowed.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() || text.len() > NAME_LEN_MAX {
            return Err(NameError::Length(text));
        }
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if !text.bytes().all(allowed) {
            return Err(NameError::Alphabet(text));
        }
        Ok(Self(text))
    }

    /// Whether the name is taken by the command line itself (`all`, `base`).
    pub fn is_reserved(&self) -> bool {
        RESERVED_NAMES.contains(&self.0.as_str())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What a certificate allows its holder to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Makes jobs and accounts for them.
    Base,
    /// Receives jobs and is a source of them.
    Node,
    /// Pushes jobs and sees its own.
    Client,
    /// Sees and does everything, but pushes under its own name.
    Operator,
}

impl Role {
    /// Every role, in a fixed order.
    pub const ALL: [Self; 4] = [Self::Base, Self::Node, Self::Client, Self::Operator];

    /// The role as written in certificates, metrics and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Node => "node",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }
}

/// A text that names no [`Role`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown role {0:?}, expected base, node, client or operator")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One peer of this process, as the relay and the control protocol name it.
///
/// There is one base and one connection per node name; clients may connect many times
/// under one name, so theirs carry a number that is unique within the process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerId {
    /// The base.
    Base,
    /// A node, by name.
    Node(Name),
    /// One connection of a client or operator.
    Client(Name, u64),
}

impl PeerId {
    /// The role of the peer. An operator's connection counts as a client's.
    pub const fn role(&self) -> Role {
        match self {
            Self::Base => Role::Base,
            Self::Node(_) => Role::Node,
            Self::Client(..) => Role::Client,
        }
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Node(name) => write!(f, "{name}"),
            Self::Client(name, number) => write!(f, "{name}#{number}"),
        }
    }
}

/// A job's identifier: the 16 bytes of a UUID v7, minted by the base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub [u8; 16]);

/// A text that is not a job id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a job id (expected a UUID such as 0192f0c1-7b4e-7c3a-9f11-2b1d0c3e4f5a)")]
pub struct JobIdError(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = JobIdError;

    /// Reads the form that `Display` writes: 8-4-4-4-12 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, JobIdError> {
        let wrong = || JobIdError(text.to_owned());
        let dashes_in_place = text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| (b == b'-') == matches!(i, 8 | 13 | 18 | 23));
        if !dashes_in_place {
            return Err(wrong());
        }
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| *c != '-')
            .map(|c| c.to_digit(16).filter(|_| !c.is_ascii_uppercase()))
            .map(|digit| digit.and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return Err(wrong()) };
            *byte = high << 4 | low;
        }
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_on_the_way_in() {
        assert!(Name::new("edge-1.fra_2").is_ok());
        for wrong in ["", "Edge", "a/b", "ä", "a b", &"x".repeat(65)] {
            assert!(Name::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(Name::new("all").unwrap().is_reserved());
    }

    #[test]
    fn job_ids_read_back_what_they_print() {
        let id = JobId(*b"\x01\x92\xf0\xc1\x7b\x4e\x7c\x3a\x9f\x11\x2b\x1d\x0c\x3e\x4f\x5a");
        assert_eq!(id.to_string(), "0192f0c1-7b4e-7c3a-9f11-2b1d0c3e4f5a");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in
            ["", "0192f0c17b4e7c3a9f112b1d0c3e4f5a", "0192F0C1-7b4e-7c3a-9f11-2b1d0c3e4f5a"]
        {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong:?}");
        }
    }
}
