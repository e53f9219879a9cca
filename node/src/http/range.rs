//! Ranges of bytes, as RFC 9110 section 14 has them.

/// One range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// From a position on.
    From(u64),
    /// From a position to another one, which belongs to it.
    Between(u64, u64),
    /// So many last bytes.
    Last(u64),
}

impl Range {
    /// Reads a `Range` field. `None` for what may be ignored and so is answered by the whole:
    /// several ranges, other units, and what is malformed.
    pub(super) fn parse(field: &str) -> Option<Self> {
        let (first, last) = field.trim().strip_prefix("bytes=")?.trim().split_once('-')?;
        match (first, last) {
            ("", last) => number(last).map(Self::Last),
            (first, "") => number(first).map(Self::From),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// Where it begins and ends in `len` bytes: the position of its first byte and the one behind
    /// its last; `None` if there are no such bytes.
    pub(super) fn within(self, len: u64) -> Option<(u64, u64)> {
        let (first, end) = match self {
            Self::From(first) => (first, len),
            Self::Between(first, last) => (first, last.saturating_add(1).min(len)),
            Self::Last(count) => (len.saturating_sub(count), len),
        };
        (first < end).then_some((first, end))
    }
}

fn number(digits: &str) -> Option<u64> {
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // What is beyond all lengths is beyond this one too.
    is_plain.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_ranges_or_ignored() {
        for (field, range) in [
            ("bytes=0-", Some(Range::From(0))),
            ("bytes=7-", Some(Range::From(7))),
            (" bytes=7-7 ", Some(Range::Between(7, 7))),
            ("bytes=-3", Some(Range::Last(3))),
            ("bytes=0-99999999999999999999", Some(Range::Between(0, u64::MAX))),
            ("bytes=2-1", None),
            ("bytes=1-2,4-5", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes=1", None),
            ("bytes", None),
            ("items=0-1", None),
            ("", None),
        ] {
            assert_eq!(Range::parse(field), range, "{field:?}");
        }
    }

    #[test]
    fn a_range_is_cut_to_what_there_is() {
        for (range, len, bytes) in [
            (Range::From(0), 10, Some((0, 10))),
            (Range::From(9), 10, Some((9, 10))),
            (Range::From(10), 10, None),
            (Range::Between(2, 3), 10, Some((2, 4))),
            (Range::Between(2, u64::MAX), 10, Some((2, 10))),
            (Range::Between(10, 11), 10, None),
            (Range::Last(3), 10, Some((7, 10))),
            (Range::Last(30), 10, Some((0, 10))),
            (Range::Last(0), 10, None),
            (Range::From(0), 0, None),
            (Range::Last(1), 0, None),
        ] {
            assert_eq!(range.within(len), bytes, "{range:?} in {len}");
        }
    }
}
