//! Which bytes of an object answer a request: decided from what can be seen of the object.

use shared::manifest::ObjectKind;
use shared_io::store::{ObjectView, Standing};

use super::range::Range;

/// The last position that a range of an object without an end claims: the largest number that
/// every reader can hold (RFC 8673 section 2.1).
const LAST_POSITION: u64 = (1 << 53) - 1;

/// What a request asks of an object.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// A live object from its newest sync point, not from its first byte.
    pub(super) from_live: bool,
    /// The range, if there is one that is not to be ignored.
    pub(super) range: Option<Range>,
    /// `If-None-Match`.
    pub(super) if_none_match: Option<String>,
    /// `If-Range`.
    pub(super) if_range: Option<String>,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing of it can be seen yet.
    Wait,
    /// The asker has it already.
    NotModified,
    /// These bytes.
    Send(Extent),
    /// There are no such bytes, but so many in all.
    Beyond(u64),
}

/// Bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The position of the first one.
    pub(super) start: u64,
    /// The position behind the last one; none for as far as the object will go.
    pub(super) end: Option<u64>,
    /// Whether they can all be seen already.
    pub(super) is_there: bool,
    /// If they answer a range: the object's length, if that is known.
    pub(super) part_of: Option<Option<u64>>,
}

impl Asked {
    /// The answer as far as `object` has come. A directory is not for this to judge.
    pub(super) fn answer(&self, object: &ObjectView) -> Answer {
        match object.standing {
            Standing::Awaited => Answer::Wait,
            Standing::Whole => self.answer_whole(object),
            Standing::Growing { sync } => self.answer_growing(object.shown, sync),
        }
    }

    fn answer_whole(&self, object: &ObjectView) -> Answer {
        let (len, etag) = (object.shown, etag(object));
        if self.if_none_match.as_ref().is_some_and(|field| lists(field, etag.as_deref())) {
            return Answer::NotModified;
        }
        if self.from_live && object.attributes.kind == ObjectKind::Live {
            return Answer::Send(Extent::whole(len, len));
        }
        let same = self.if_range.as_ref().is_none_or(|field| Some(field) == etag.as_ref());
        match self.range.filter(|_| same) {
            None => Answer::Send(Extent::whole(0, len)),
            // There are none, and no range can say so.
            Some(Range::Last(1..)) if len == 0 => Answer::Send(Extent::whole(0, 0)),
            Some(range) => match range.within(len) {
                None => Answer::Beyond(len),
                Some((start, end)) => {
                    let part_of = Some(Some(len));
                    Answer::Send(Extent { start, end: Some(end), is_there: true, part_of })
                }
            },
        }
    }

    /// Of an object that grows: there is nothing yet that `If-Range` could be the same as.
    fn answer_growing(&self, shown: u64, sync: Option<u64>) -> Answer {
        let range = self.range.filter(|_| self.if_range.is_none() && !self.from_live);
        let start = match range {
            None if self.from_live => sync.unwrap_or(shown),
            None => 0,
            Some(Range::From(first) | Range::Between(first, _)) => first,
            Some(Range::Last(count)) => shown.saturating_sub(count),
        };
        let end = match range {
            Some(Range::Between(_, last)) => last.checked_add(1),
            _ => None,
        };
        let has_begun = if end.is_some() { start < shown } else { start <= shown };
        if shown == 0 || !has_begun {
            return Answer::Wait;
        }
        // From the first byte on is all of it, which needs no range without an end.
        let is_part = range.is_some() && (start > 0 || end.is_some());
        let is_there = end.is_some_and(|end| end <= shown);
        Answer::Send(Extent { start, end, is_there, part_of: is_part.then_some(None) })
    }
}

impl Extent {
    const fn whole(start: u64, end: u64) -> Self {
        Self { start, end: Some(end), is_there: true, part_of: None }
    }

    /// How many bytes, if that is certain.
    pub(super) fn len(&self) -> Option<u64> {
        self.end.filter(|_| self.is_there).map(|end| end.saturating_sub(self.start))
    }

    /// `Content-Range`, if it answers a range.
    pub(super) fn content_range(&self) -> Option<String> {
        let len = self.part_of?.map_or_else(|| "*".to_owned(), |len| len.to_string());
        let last = self.end.map_or(LAST_POSITION, |end| end.saturating_sub(1));
        Some(format!("bytes {}-{last}/{len}", self.start))
    }
}

/// The strong validator of an object: its digest, once all of it can be seen.
pub(super) fn etag(object: &ObjectView) -> Option<String> {
    let (_, digest) = object.closed.filter(|_| object.standing == Standing::Whole)?;
    Some(format!("\"{digest}\""))
}

/// Whether a field of validators has this one; `If-None-Match` does not tell weak from strong.
fn lists(field: &str, etag: Option<&str>) -> bool {
    let same = |one: &str| {
        let one = one.trim();
        one == "*" || etag == Some(one.strip_prefix("W/").unwrap_or(one))
    };
    field.split(',').any(same)
}

#[cfg(test)]
mod tests {
    use shared::manifest::Attributes;
    use shared::seal::Hash;

    use super::*;

    fn object(kind: ObjectKind, shown: u64, standing: Standing) -> ObjectView {
        let attributes = Attributes { kind, modified: None, executable: false };
        let closed = (standing == Standing::Whole).then_some((shown, Hash::ZERO));
        ObjectView { number: 0, name: "o".to_owned(), attributes, shown, closed, standing }
    }

    fn range(field: &str) -> Asked {
        Asked { range: Range::parse(field), ..Asked::default() }
    }

    /// Start, length if certain, and `Content-Range`.
    fn sent(answer: &Answer) -> Option<(u64, Option<u64>, Option<String>)> {
        match answer {
            Answer::Send(extent) => Some((extent.start, extent.len(), extent.content_range())),
            _ => None,
        }
    }

    #[test]
    fn a_whole_object_is_answered_by_range_and_validator() {
        let whole = object(ObjectKind::File, 10, Standing::Whole);
        let etag = etag(&whole).unwrap();
        let part = |text: &str| Some(text.to_owned());
        for (asked, expected) in [
            (range(""), Some((0, Some(10), None))),
            (range("bytes=0-"), Some((0, Some(10), part("bytes 0-9/10")))),
            (range("bytes=2-3"), Some((2, Some(2), part("bytes 2-3/10")))),
            (range("bytes=-3"), Some((7, Some(3), part("bytes 7-9/10")))),
            (range("bytes=0-1,3-4"), Some((0, Some(10), None))),
            (
                Asked { if_range: Some(etag.clone()), ..range("bytes=9-") },
                Some((9, Some(1), part("bytes 9-9/10"))),
            ),
            (
                Asked { if_range: Some("\"other\"".to_owned()), ..range("bytes=9-") },
                Some((0, Some(10), None)),
            ),
            (
                Asked { if_range: Some(format!("W/{etag}")), ..range("bytes=9-") },
                Some((0, Some(10), None)),
            ),
            (
                Asked { if_none_match: Some("\"other\"".to_owned()), ..range("") },
                Some((0, Some(10), None)),
            ),
            (Asked { from_live: true, ..range("") }, Some((0, Some(10), None))),
        ] {
            assert_eq!(sent(&asked.answer(&whole)), expected, "{asked:?}");
        }
        for beyond in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(range(beyond).answer(&whole), Answer::Beyond(10), "{beyond}");
        }
        for known in ["*".to_owned(), format!("\"a\", {etag}"), format!("W/{etag}")] {
            let asked = Asked { if_none_match: Some(known), ..range("bytes=99-") };
            assert_eq!(asked.answer(&whole), Answer::NotModified, "{asked:?}");
        }
        let empty = object(ObjectKind::File, 0, Standing::Whole);
        assert_eq!(sent(&range("").answer(&empty)), Some((0, Some(0), None)));
        assert_eq!(sent(&range("bytes=-1").answer(&empty)), Some((0, Some(0), None)));
        assert_eq!(range("bytes=0-").answer(&empty), Answer::Beyond(0));
        let ended = object(ObjectKind::Live, 10, Standing::Whole);
        let asked = Asked { from_live: true, ..range("") };
        assert_eq!(sent(&asked.answer(&ended)), Some((10, Some(0), None)));
    }

    #[test]
    fn a_growing_object_is_followed_from_where_it_was_asked_for() {
        let growing = |shown, sync| object(ObjectKind::Live, shown, Standing::Growing { sync });
        let live = Asked { from_live: true, ..Asked::default() };
        let open = |start| Some(format!("bytes {start}-9007199254740991/*"));
        for (asked, sync, expected) in [
            (range(""), Some(7), Some((0, None, None))),
            (range("bytes=0-"), None, Some((0, None, None))),
            (range("bytes=4-"), None, Some((4, None, open(4)))),
            (range("bytes=10-"), None, Some((10, None, open(10)))),
            (range("bytes=-3"), None, Some((7, None, open(7)))),
            (range("bytes=-0"), None, Some((10, None, open(10)))),
            (range("bytes=2-3"), None, Some((2, Some(2), Some("bytes 2-3/*".to_owned())))),
            (range("bytes=2-99"), None, Some((2, None, Some("bytes 2-99/*".to_owned())))),
            (Asked { from_live: true, ..range("bytes=4-") }, Some(7), Some((7, None, None))),
            (Asked { from_live: true, ..range("") }, None, Some((10, None, None))),
            (
                Asked { if_range: Some("\"x\"".to_owned()), ..range("bytes=4-") },
                None,
                Some((0, None, None)),
            ),
        ] {
            assert_eq!(sent(&asked.answer(&growing(10, sync))), expected, "{asked:?}");
        }
        for later in [range("bytes=11-"), range("bytes=10-10")] {
            assert_eq!(later.answer(&growing(10, None)), Answer::Wait, "{later:?}");
        }
        for asked in [range(""), range("bytes=-1"), live] {
            assert_eq!(asked.answer(&growing(0, None)), Answer::Wait, "{asked:?}");
        }
        let awaited = object(ObjectKind::File, 0, Standing::Awaited);
        assert_eq!(range("").answer(&awaited), Answer::Wait);
    }
}
