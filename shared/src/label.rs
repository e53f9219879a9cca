//! Labels: `KEY=VALUE` pairs that a certificate or an operator gives to a node, and that
//! `--to` selects by.

use std::collections::BTreeMap;

/// Most labels of one identity. With the longest texts the certificate stays within what a
/// server may send before the client's address is validated.
pub const LABELS_MAX: usize = 16;
/// Longest key, in bytes.
pub const KEY_LEN_MAX: usize = crate::limit::LABEL_LEN_MAX;
/// Longest value, in bytes.
pub const VALUE_LEN_MAX: usize = crate::limit::LABEL_LEN_MAX;

/// Why a label, or a set of labels, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// No `=` between key and value.
    #[error("label {0:?} has no '='; write it as KEY=VALUE")]
    NoEquals(String),
    /// The key is empty, too long, or has a byte outside `[a-z0-9._-]`.
    #[error("label key {0:?} must be 1 to {KEY_LEN_MAX} of a-z, 0-9, '.', '_' and '-'")]
    Key(String),
    /// The value is empty, too long, or has a byte outside `[A-Za-z0-9._-]`.
    #[error("label value {0:?} must be 1 to {VALUE_LEN_MAX} of A-Z, a-z, 0-9, '.', '_' and '-'")]
    Value(String),
    /// The same key twice.
    #[error("label key {0:?} is given twice")]
    Twice(String),
    /// More than [`LABELS_MAX`] labels.
    #[error("{0} labels, allowed are {LABELS_MAX}")]
    TooMany(usize),
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// [`LabelError`] if the form, a length or an alphabet is wrong.
pub fn parse(text: &str) -> Result<(String, String), LabelError> {
    let (key, value) = text.split_once('=').ok_or_else(|| LabelError::NoEquals(text.to_owned()))?;
    check(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Checks lengths and alphabets of one label.
///
/// # Errors
/// [`LabelError::Key`] or [`LabelError::Value`].
pub fn check(key: &str, value: &str) -> Result<(), LabelError> {
    let punctuation = |b: u8| matches!(b, b'.' | b'_' | b'-');
    let in_key = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || punctuation(b);
    let in_value = |b: u8| b.is_ascii_alphanumeric() || punctuation(b);
    if !(1..=KEY_LEN_MAX).contains(&key.len()) || !key.bytes().all(in_key) {
        return Err(LabelError::Key(key.to_owned()));
    }
    if !(1..=VALUE_LEN_MAX).contains(&value.len()) || !value.bytes().all(in_value) {
        return Err(LabelError::Value(value.to_owned()));
    }
    Ok(())
}

/// Checks a whole set: each label and their number.
///
/// # Errors
/// [`LabelError`] for the first label that is wrong.
pub fn check_all(labels: &BTreeMap<String, String>) -> Result<(), LabelError> {
    if labels.len() > LABELS_MAX {
        return Err(LabelError::TooMany(labels.len()));
    }
    labels.iter().try_for_each(|(key, value)| check(key, value))
}

/// Adds one label to a set.
///
/// # Errors
/// [`LabelError::Twice`] if the key is there already, [`LabelError::TooMany`] if the set is
/// full.
pub fn insert(
    labels: &mut BTreeMap<String, String>,
    (key, value): (String, String),
) -> Result<(), LabelError> {
    if labels.contains_key(&key) {
        return Err(LabelError::Twice(key));
    }
    if labels.len() >= LABELS_MAX {
        return Err(LabelError::TooMany(labels.len().saturating_add(1)));
    }
    labels.insert(key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked() {
        assert_eq!(parse("region=EU-1"), Ok(("region".to_owned(), "EU-1".to_owned())));
        let long = format!("k={}", "x".repeat(VALUE_LEN_MAX + 1));
        let wrong = [
            "region", "", "=v", "k=", "K=v", "k=a=b", "k=a,b", "k=a b", "k=\u{e4}", "k=a\n", &long,
        ];
        for text in wrong {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_set_has_a_limit_and_no_key_twice() {
        let mut labels = BTreeMap::new();
        for i in 0..LABELS_MAX {
            insert(&mut labels, (format!("k{i}"), "v".to_owned())).unwrap();
        }
        let twice = insert(&mut labels, ("k0".to_owned(), "w".to_owned()));
        assert_eq!(twice, Err(LabelError::Twice("k0".to_owned())));
        let over = insert(&mut labels, ("more".to_owned(), "v".to_owned()));
        assert_eq!(over, Err(LabelError::TooMany(LABELS_MAX + 1)));
        assert_eq!(check_all(&labels), Ok(()));
        labels.insert("more".to_owned(), "v".to_owned());
        assert_eq!(check_all(&labels), Err(LabelError::TooMany(LABELS_MAX + 1)));
    }
}
