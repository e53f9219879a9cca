//! Going on with a live object whose publisher ended: it is written again from its first byte,
//! and what the base has is compared with that, not sent.

use bytes::{Bytes, BytesMut};
use shared::manifest::{Entry, Page, Slice};
use shared::seal::Hash;

use crate::cut::LiveCutter;
use crate::differ::{BYTES, Difference, SIZE};

/// What of a page has to be written again before it can be taken up.
#[derive(Debug)]
pub(crate) struct Replay {
    page: Page,
    /// The chunks that are not there yet, the last one first.
    due: Vec<(u32, Hash)>,
    chunks: Vec<Bytes>,
}

impl Replay {
    /// What `page`, which the base has and which comes next, wants of the object `name` that
    /// `cutter` has taken up so far.
    ///
    /// # Errors
    /// [`Difference`] if the page is of another object.
    pub(crate) fn new(page: Page, cutter: &LiveCutter, name: &str) -> Result<Self, Difference> {
        let mut due = Vec::new();
        for entry in page.entries.iter().rev() {
            match entry {
                Entry::Open { name: theirs, .. } if theirs != name => {
                    return Err(Difference::of(Some(name), "is another object"));
                }
                Entry::Chunk { len, hash, slices } if is_new(slices, cutter) => {
                    due.push((*len, *hash));
                }
                _ => {}
            }
        }
        Ok(Self { page, due, chunks: Vec::new() })
    }

    /// Takes what is due out of `given`; says whether all of it was there.
    ///
    /// # Errors
    /// [`Difference`] if it is not what the base has.
    pub(crate) fn take(&mut self, given: &mut BytesMut, name: &str) -> Result<bool, Difference> {
        while let Some(&(len, hash)) = self.due.last() {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            if given.len() < len {
                return Ok(false);
            }
            let payload = given.split_to(len).freeze();
            if Hash::of(&payload) != hash {
                return Err(Difference::of(Some(name), BYTES));
            }
            self.chunks.push(payload);
            self.due.pop();
        }
        Ok(true)
    }

    /// The page and the payload of its chunks.
    pub(crate) fn into_parts(self) -> (Page, Vec<Bytes>) {
        (self.page, self.chunks)
    }
}

/// That the object ends where the base has more of it, or the other way round.
pub(crate) fn other_size(name: &str) -> Difference {
    Difference::of(Some(name), SIZE)
}

/// Whether a chunk has bytes that were not taken up: chunks that are cut anew may have none.
fn is_new(slices: &[Slice], cutter: &LiveCutter) -> bool {
    slices.first().is_some_and(|slice| slice.offset >= cutter.cut_len())
}

#[cfg(test)]
mod tests {
    use shared::id::JobId;
    use shared::limit;

    use super::*;
    use crate::cut::CutPage;

    const NAME: &str = "stream";
    const JOB: JobId = JobId([3; 16]);

    fn cutter() -> LiveCutter {
        LiveCutter::new(JOB, limit::CHUNK_LEN_MAX, NAME).unwrap()
    }

    /// Cuts `pieces`, each a chunk of its own, and the log anew behind the pieces of `anew`.
    fn cut(cutter: &mut LiveCutter, pieces: &[&[u8]], anew: &[usize]) -> Vec<CutPage> {
        let mut pages = vec![cutter.cut().unwrap()];
        for (at, piece) in pieces.iter().enumerate() {
            assert_eq!(cutter.write(piece), piece.len());
            cutter.mark_sync();
            pages.push(cutter.cut().unwrap());
            if anew.contains(&at) {
                pages.push(cutter.cut_anew().unwrap());
            }
        }
        pages
    }

    /// Takes up `pages` while `source` is given in pieces of `step` bytes; what is left of it.
    fn replay(
        cutter: &mut LiveCutter,
        pages: &[CutPage],
        source: &[u8],
        step: usize,
    ) -> Result<BytesMut, Difference> {
        let (mut given, mut rest) = (BytesMut::new(), source.chunks(step));
        for page in pages {
            let mut replay = Replay::new(page.page_decoded.clone(), cutter, NAME)?;
            while !replay.take(&mut given, NAME)? {
                given.extend_from_slice(rest.next().ok_or_else(|| other_size(NAME))?);
            }
            let (page, chunks) = replay.into_parts();
            cutter.take_up(page, chunks).unwrap();
        }
        rest.for_each(|piece| given.extend_from_slice(piece));
        Ok(given)
    }

    #[test]
    fn a_cutter_that_has_taken_up_pages_goes_on_as_the_one_that_cut_them() {
        let pieces: [&[u8]; 6] = [b"one", b"second", b"a third", b"4", b"the fifth", b"six"];
        let whole = pieces.concat();
        // Pages that are kept: all; without those void since the second cut anew.
        for (anew, void) in [(vec![], 0..0), (vec![2], 0..0), (vec![1, 4], 1..3)] {
            let mut first = cutter();
            let mut pages = cut(&mut first, &pieces, &anew);
            pages.drain(void);
            for step in [1, 4, 100] {
                let mut again = cutter();
                let source = [&whole[..], b" and more"].concat();
                let rest = replay(&mut again, &pages, &source, step).unwrap();
                assert_eq!(rest, &b" and more"[..], "{anew:?}");
                again.write(&rest);
                let mut expected = first.clone();
                expected.write(&rest);
                assert_eq!(again.cut().unwrap().page, expected.cut().unwrap().page);
                let anew = [again.cut_anew().unwrap().page, expected.cut_anew().unwrap().page];
                assert_eq!(anew[0], anew[1]);
                assert_eq!(again.finish().unwrap().page, expected.finish().unwrap().page);
            }
        }
    }

    #[test]
    fn another_source_is_named() {
        let pages = cut(&mut cutter(), &[b"one", b"second"], &[]);
        let other = |source: &[u8]| replay(&mut cutter(), &pages, source, 2).unwrap_err().what;
        assert_eq!([other(b"oneSecond"), other(b"onesec")], [BYTES, SIZE]);
        let mut named = LiveCutter::new(JOB, 10, "other").unwrap();
        let page = named.cut().unwrap().page_decoded;
        assert!(Replay::new(page, &cutter(), NAME).is_err());
    }
}
