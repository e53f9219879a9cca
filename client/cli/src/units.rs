//! Sizes, rates and times with units: `64MiB`, `50Mbit`, `10m`.
//!
//! k, M, G and T are powers of 1000, Ki, Mi, Gi and Ti of 1024. A bare number counts bytes,
//! bits per second, or seconds.

use std::time::Duration;

use shared::budget::Budget;

/// Why a text is no size, rate or time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    /// No digits where a number must begin.
    #[error("{text:?} is not a {what}: a number is missing, such as {example}")]
    Number { text: String, what: &'static str, example: &'static str },
    /// A unit that does not exist.
    #[error("{unit:?} in {text:?} is not a unit of a {what}; use {allowed}")]
    Unit { text: String, unit: String, what: &'static str, allowed: &'static str },
    /// Beyond what can be counted.
    #[error("{0:?} is too large")]
    TooLarge(String),
    /// Nothing, where nothing would never end.
    #[error("{0:?} is zero; leave the option out for no limit")]
    Zero(String),
}

const PREFIXES: [(&str, u128); 9] = [
    ("", 1),
    ("k", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
];

const NANOS: [(&str, u128); 11] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("min", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
    ("hour", 3600 * 1_000_000_000),
    ("d", 24 * 3600 * 1_000_000_000),
    ("day", 24 * 3600 * 1_000_000_000),
    ("days", 24 * 3600 * 1_000_000_000),
    ("w", 7 * 24 * 3600 * 1_000_000_000),
];

/// Reads a size in bytes, such as `64MiB`, `1.5G` or `4096`.
///
/// # Errors
/// [`UnitError`] says which part is wrong.
pub(crate) fn size(text: &str) -> Result<u64, UnitError> {
    const WHAT: &str = "size";
    let (number, unit) = split(text).ok_or_else(|| number_missing(text, WHAT, "64MiB"))?;
    let factor = prefix(unit.strip_suffix('B').unwrap_or(unit)).ok_or_else(|| UnitError::Unit {
        text: text.to_owned(),
        unit: unit.to_owned(),
        what: WHAT,
        allowed: "B, kB, MB, GB, TB (1000) or KiB, MiB, GiB, TiB (1024)",
    })?;
    number.times(factor, text)
}

/// Reads a rate in bits per second, such as `50Mbit`, `2.5Gbit/s` or `6MB`.
///
/// # Errors
/// [`UnitError`] says which part is wrong; a rate of zero is refused.
pub(crate) fn rate(text: &str) -> Result<u64, UnitError> {
    const WHAT: &str = "rate";
    let (number, unit) = split(text).ok_or_else(|| number_missing(text, WHAT, "50Mbit"))?;
    let bare = unit.strip_suffix("/s").unwrap_or(unit);
    let factor = if let Some(bytes) = bare.strip_suffix('B') {
        prefix(bytes).map(|factor| factor * 8)
    } else {
        let bits = ["bit", "bps"].into_iter().find_map(|suffix| bare.strip_suffix(suffix));
        prefix(bits.unwrap_or(bare))
    };
    let factor = factor.ok_or_else(|| UnitError::Unit {
        text: text.to_owned(),
        unit: unit.to_owned(),
        what: WHAT,
        allowed: "bit, kbit, Mbit, Gbit, or kB, MB, KiB, MiB; it is per second",
    })?;
    match number.times(factor, text)? {
        0 => Err(UnitError::Zero(text.to_owned())),
        rate => Ok(rate),
    }
}

/// A size of memory that a process can do with.
pub(crate) fn memory(text: &str) -> Result<Budget, String> {
    let bytes = size(text).map_err(|error| error.to_string())?;
    Budget::new(bytes).map_err(|error| error.to_string())
}

/// Reads a time, such as `10m`, `1.5h`, `1h30m` or `250ms`.
///
/// # Errors
/// [`UnitError`] says which part is wrong.
pub(crate) fn time(text: &str) -> Result<Duration, UnitError> {
    const WHAT: &str = "time";
    let missing = || number_missing(text, WHAT, "10m");
    let mut rest = text;
    let mut nanos: u64 = 0;
    loop {
        let (number, tail) = split(rest).ok_or_else(missing)?;
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let first_and_last = rest.len() == text.len() && next.is_empty();
        let named = if unit.is_empty() && first_and_last { "s" } else { unit };
        let factor = NANOS.iter().find(|(name, _)| *name == named).map(|(_, factor)| *factor);
        let factor = factor.ok_or_else(|| UnitError::Unit {
            text: text.to_owned(),
            unit: unit.to_owned(),
            what: WHAT,
            allowed: "ms, s, m, h, d or w",
        })?;
        let part = number.times(factor, text)?;
        nanos = nanos.checked_add(part).ok_or_else(|| UnitError::TooLarge(text.to_owned()))?;
        if next.is_empty() {
            return Ok(Duration::from_nanos(nanos));
        }
        rest = next;
    }
}

/// Whole seconds, rounded up, so that no time becomes shorter than it was asked for.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Bytes for people, such as `64.0 MiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Bits per second for people, such as `50.0 Mbit/s`.
pub(crate) fn show_rate(bits: u64) -> String {
    scaled(bits, 1000.0, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// Rates for people in the unit that [`show_rate`] has for `like`, without that unit.
pub(crate) fn show_rate_like(bits: u64, like: u64) -> String {
    let units = [1, 1_000, 1_000_000, 1_000_000_000];
    // 999.95 and more would be shown as 1000.0.
    let fits = |unit: &u64| u128::from(like) * 100 < u128::from(*unit) * 99_995;
    let unit = units.into_iter().find(fits).unwrap_or(1_000_000_000_000);
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let scaled = bits as f64 / unit as f64;
    if unit == 1 { bits.to_string() } else { format!("{scaled:.1}") }
}

fn scaled(value: u64, step: f64, units: [&str; 5]) -> String {
    let [first, larger @ ..] = units;
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut scaled = value as f64;
    let mut unit = first;
    for next in larger {
        // 999.95 and more would be shown as 1000.0.
        if scaled < step - 0.05 {
            break;
        }
        scaled /= step;
        unit = next;
    }
    if unit == first { format!("{value} {unit}") } else { format!("{scaled:.1} {unit}") }
}

/// A decimal number: its digits as one integer, and how many of them are behind the point.
struct Number {
    digits: u128,
    decimals: u32,
}

impl Number {
    fn times(&self, factor: u128, text: &str) -> Result<u64, UnitError> {
        let too_large = || UnitError::TooLarge(text.to_owned());
        let product = self.digits.checked_mul(factor).ok_or_else(too_large)?;
        let value = product / 10u128.pow(self.decimals);
        u64::try_from(value).map_err(|_too_wide| too_large())
    }
}

/// Splits the number off the front of `text`.
fn split(text: &str) -> Option<(Number, &str)> {
    /// More digits than any 64-bit value has; keeps the arithmetic within 128 bits.
    const DIGITS_MAX: usize = 20;
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let right = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !right(whole) || !right(fraction) || whole.len() > DIGITS_MAX {
        return None;
    }
    let fraction = fraction.get(..fraction.len().min(6)).unwrap_or(fraction);
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some((Number { digits, decimals: u32::try_from(fraction.len()).ok()? }, unit))
}

fn prefix(text: &str) -> Option<u128> {
    // K is taken for k: nobody writes kelvin here.
    let text = if text == "K" { "k" } else { text };
    PREFIXES.iter().find(|(name, _)| *name == text).map(|(_, factor)| *factor)
}

fn number_missing(text: &str, what: &'static str, example: &'static str) -> UnitError {
    UnitError::Number { text: text.to_owned(), what, example }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [
            ("0", 0),
            ("4096", 4096),
            ("10B", 10),
            ("1k", 1000),
            ("1kB", 1000),
            ("1KB", 1000),
            ("64MiB", 64 << 20),
            ("64Mi", 64 << 20),
            ("64MB", 64_000_000),
            ("1.5GiB", 3 << 29),
            ("0.5k", 500),
            ("2T", 2_000_000_000_000),
            ("1TiB", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            "MiB",
            "-1",
            "1 MiB",
            "1mib",
            "1Kib",
            "1MiBs",
            "1Mbit",
            "1.",
            ".5",
            "1.2.3",
            "18446744073709551616",
            "1000000000000000000000",
            "99999999TiB",
            "1e3",
            "0x10",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates() {
        let table = [
            ("50Mbit", 50_000_000),
            ("50Mbit/s", 50_000_000),
            ("50Mbps", 50_000_000),
            ("50M", 50_000_000),
            ("1000", 1000),
            ("2.5Gbit", 2_500_000_000),
            ("1Mibit", 1 << 20),
            ("6MB", 48_000_000),
            ("6MB/s", 48_000_000),
            ("1KiB", 8192),
        ];
        for (text, bits) in table {
            assert_eq!(rate(text), Ok(bits), "{text}");
        }
        for wrong in ["", "0", "0Mbit", "0.1bit", "fast", "5m", "5Mbit/h", "5Mbits", "-5Mbit"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("30", 30_000),
            ("250ms", 250),
            ("10m", 600_000),
            ("10min", 600_000),
            ("1.5h", 5_400_000),
            ("1h30m", 5_400_000),
            ("0h5s", 5_000),
            ("365d", 31_536_000_000),
            ("2w", 1_209_600_000),
        ];
        for (text, ms) in table {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "m", "-5s", "5x", "5M", "1h30", "5 s", "forever", "99999999999w", "1..5s"]
        {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(1)), 1);
    }

    #[test]
    fn errors_say_which_part_is_wrong() {
        let text = |error: UnitError| error.to_string();
        assert_eq!(
            text(size("64MBit").unwrap_err()),
            "\"MBit\" in \"64MBit\" is not a unit of a size; use B, kB, MB, GB, TB (1000) or KiB, MiB, GiB, TiB (1024)"
        );
        assert_eq!(
            text(time("m").unwrap_err()),
            "\"m\" is not a time: a number is missing, such as 10m"
        );
    }

    #[test]
    fn what_is_shown_is_short() {
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_size(1023), "1023 B");
        assert_eq!(show_size(64 << 20), "64.0 MiB");
        assert_eq!(show_size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(show_rate(50_000_000), "50.0 Mbit/s");
        assert_eq!(show_rate(999), "999 bit/s");
        assert_eq!(show_rate_like(6_040_000, 18_000_000), "6.0");
        assert_eq!(show_rate_like(300, 18_000_000), "0.0");
        assert_eq!(show_rate_like(7, 999), "7");
        assert_eq!(show_rate_like(300, 1_000), "0.3");
    }
}
