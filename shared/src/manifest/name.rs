//! Which names an object may have: relative, plain, and the same on every system.

use crate::limit::{COMPONENT_LEN_MAX, OBJECT_NAME_LEN_MAX};

/// Why an object may not have a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectNameError {
    /// No name at all.
    #[error("the name is empty")]
    Empty,
    /// Longer than [`OBJECT_NAME_LEN_MAX`].
    #[error("the name has {0} bytes, allowed are {OBJECT_NAME_LEN_MAX}")]
    TooLong(usize),
    /// A component longer than [`COMPONENT_LEN_MAX`].
    #[error("a component of {name:?} has {len} bytes, allowed are {COMPONENT_LEN_MAX}")]
    ComponentTooLong {
        /// The whole name.
        name: String,
        /// Bytes of the component.
        len: usize,
    },
    /// `.`, `..`, an empty component, or a leading or trailing slash.
    #[error("{0:?} has an empty, '.' or '..' component")]
    Component(String),
    /// NUL or another control character.
    #[error("{0:?} contains a control character")]
    Control(String),
}

/// Checks that `name` is a plain relative path with `/` between its components.
///
/// # Errors
/// [`ObjectNameError`] says what is wrong with it.
pub fn check_object_name(name: &str) -> Result<(), ObjectNameError> {
    if name.is_empty() {
        return Err(ObjectNameError::Empty);
    }
    if name.len() > OBJECT_NAME_LEN_MAX {
        return Err(ObjectNameError::TooLong(name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err(ObjectNameError::Control(name.to_owned()));
    }
    for component in name.split('/') {
        if matches!(component, "" | "." | "..") {
            return Err(ObjectNameError::Component(name.to_owned()));
        }
        if component.len() > COMPONENT_LEN_MAX {
            let len = component.len();
            return Err(ObjectNameError::ComponentTooLong { name: name.to_owned(), len });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_names_pass() {
        for right in ["a", "a/b c/ü", "-", "...", "a\\b", "a/.hidden", &"x".repeat(255)] {
            assert_eq!(check_object_name(right), Ok(()), "{right:?}");
        }
        let long = "x/".repeat(2048) + "y";
        for wrong in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a\0b",
            "a\nb",
            "a\u{85}b",
            &"x".repeat(256),
            &long,
        ] {
            assert!(check_object_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
