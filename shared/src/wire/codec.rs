//! The only place that names the serializer: bincode 2, standard configuration.
//!
//! The crate is unmaintained (RUSTSEC-2025-0141, informational), so its bytes are the
//! format and the crate can be replaced in this file: golden bytes in `docs/WIRE.md` and in
//! the tests hold it in place. Every decode has a byte limit (a length prefix without one
//! can make bincode allocate without bound) and must use up its input exactly.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes from outside are not the value that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than the limit of this kind of message.
    #[error("{len} bytes exceed the limit of {limit} bytes")]
    TooLong {
        /// Bytes offered.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes do not decode.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Bytes are left over.
    #[error("{0} bytes are left over behind the value")]
    Trailing(usize),
    /// The value decodes and cannot be right.
    #[error("invalid: {0}")]
    Invalid(String),
}

/// The bytes of `value`.
///
/// The wire types are plain data without maps or borrowed parts, for which bincode's encoder
/// has no failing path; an empty vector, which no decoder accepts, stands for one.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap_or_default()
}

/// Decodes a value that takes all of `bytes` and allocates at most about `LIMIT` bytes.
///
/// # Errors
/// [`DecodeError`] if `bytes` are longer than `LIMIT`, malformed or not used up.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > LIMIT {
        return Err(DecodeError::TooLong { len: bytes.len(), limit: LIMIT });
    }
    // The limit also counts what lengths in the input claim, so it is given some room over
    // the input: containers claim the size of their elements in memory.
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    match bytes.len().checked_sub(used) {
        Some(0) => Ok(value),
        left => Err(DecodeError::Trailing(left.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_claims_too_much_is_refused_without_allocating() {
        let claim = encode(&(1u64 << 40));
        assert!(decode::<String, 1024>(&claim).is_err());
        assert!(decode::<Vec<u64>, 1024>(&claim).is_err());
    }

    #[test]
    fn bytes_behind_the_value_are_refused() {
        let mut bytes = encode(&7u32);
        assert_eq!(decode::<u32, 16>(&bytes), Ok(7));
        bytes.push(0);
        assert_eq!(decode::<u32, 16>(&bytes), Err(DecodeError::Trailing(1)));
        assert!(matches!(decode::<u32, 1>(&bytes), Err(DecodeError::TooLong { len: 2, limit: 1 })));
    }
}
