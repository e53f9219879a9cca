//! What a path names.

use shared::manifest::check_object_name;

/// What a path under `/jobs` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// All jobs.
    Jobs,
    /// A job, by what may be its id or name.
    Job(String),
    /// An object of it.
    Object(String, String),
}

/// Why a path names nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TargetError {
    /// Not one of these paths.
    #[error("{0:?} is not /jobs, /jobs/JOB or /jobs/JOB/OBJECT")]
    Path(String),
    /// A `%` without two hexadecimal digits.
    #[error("{0:?} has a '%' without two hexadecimal digits behind it; write a plain '%' as %25")]
    Escape(String),
    /// Not UTF-8 when it is decoded.
    #[error("{0:?} is not UTF-8 when it is decoded")]
    NotUtf8(String),
    /// No object has such a name.
    #[error("no object can be called that: {0}")]
    Name(#[from] shared::manifest::ObjectNameError),
}

impl Target {
    /// Reads a path as it was sent.
    pub(super) fn parse(path: &str) -> Result<Self, TargetError> {
        let below = path.strip_prefix("/jobs").map(|below| below.strip_prefix('/'));
        let below = match below {
            Some(Some(below)) => below,
            Some(None) if path == "/jobs" => return Ok(Self::Jobs),
            _ => return Err(TargetError::Path(path.to_owned())),
        };
        let (job, object) = below.split_once('/').unwrap_or((below, ""));
        match (job, object) {
            ("", "") => Ok(Self::Jobs),
            (job, "") => Ok(Self::Job(decode(job)?)),
            (job, object) => {
                let object = decode(object)?;
                check_object_name(&object)?;
                Ok(Self::Object(decode(job)?, object))
            }
        }
    }
}

fn decode(text: &str) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => hex(rest.next())
                .zip(hex(rest.next()))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(|| TargetError::Escape(text.to_owned()))?,
            plain => plain,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_not_utf8| TargetError::NotUtf8(text.to_owned()))
}

fn hex(digit: Option<u8>) -> Option<u8> {
    char::from(digit?).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(job: &str, name: &str) -> Result<Target, TargetError> {
        Ok(Target::Object(job.to_owned(), name.to_owned()))
    }

    #[test]
    fn paths_name_jobs_and_objects() {
        assert_eq!(Target::parse("/jobs"), Ok(Target::Jobs));
        assert_eq!(Target::parse("/jobs/"), Ok(Target::Jobs));
        assert_eq!(Target::parse("/jobs/a"), Ok(Target::Job("a".to_owned())));
        assert_eq!(Target::parse("/jobs/a/"), Ok(Target::Job("a".to_owned())));
        assert_eq!(Target::parse("/jobs/a/b/c.ts"), object("a", "b/c.ts"));
        assert_eq!(Target::parse("/jobs/a/b%2Fc%20d"), object("a", "b/c d"));
        assert_eq!(Target::parse("/jobs/a/%c3%BC+%25"), object("a", "ü+%"));
        assert_eq!(Target::parse("/jobs/a/.../%5C"), object("a", ".../\\"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for escape in ["%", "%a", "%zz", "a%2", "%-1", "%+1"] {
            let path = format!("/jobs/a/{escape}");
            assert!(matches!(Target::parse(&path), Err(TargetError::Escape(_))), "{path}");
        }
        for name in ["..", "../a", "a/../b", "%2e%2e/a", "a/.", "a//b", "a%00", "%0a", "b/", "/b"] {
            let path = format!("/jobs/a/{name}");
            assert!(matches!(Target::parse(&path), Err(TargetError::Name(_))), "{path}");
        }
        assert!(matches!(Target::parse("/jobs/a/%ff"), Err(TargetError::NotUtf8(_))));
        assert!(matches!(Target::parse("/job"), Err(TargetError::Path(_))));
        assert!(matches!(Target::parse("/jobs2"), Err(TargetError::Path(_))));
    }
}
