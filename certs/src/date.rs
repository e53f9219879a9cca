//! Dates as certificates and messages carry them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// `at` as a date with whole seconds; `None` outside the years that a certificate can name.
pub(crate) fn to_date(at: SystemTime) -> Option<OffsetDateTime> {
    let seconds = at.duration_since(UNIX_EPOCH).ok()?.as_secs();
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

/// The moment `seconds` after 1970; moments before it, which no certificate of ours has,
/// count as 1970.
pub(crate) fn from_unix(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// `at` for a reader, such as `2026-03-01 09:30:00 UTC`.
pub(crate) fn text(at: SystemTime) -> String {
    let Some(date) = to_date(at) else {
        return "a date out of range".to_owned();
    };
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = date.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_as_a_person_expects() {
        assert_eq!(text(from_unix(1_772_357_400)), "2026-03-01 09:30:00 UTC");
        assert_eq!(text(from_unix(-5)), "1970-01-01 00:00:00 UTC");
        assert_eq!(text(from_unix(i64::MAX)), "a date out of range");
    }
}
