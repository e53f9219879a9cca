//! Pages, and the manifest that they make.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shared::id::JobId;
use shared::limit;
use shared::manifest::{Entry, Manifest, ObjectKind, Page, PageBytes, check_object_name};
use shared::wire::codec;

use super::input::Input;
use super::memory;

pub(super) const JOB: JobId = JobId([7; 16]);
const CHUNK_MAX: u32 = 65_536;

/// Records of pages, one behind the other, of which the manifest takes those that follow.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut manifest = Manifest::new(JOB, CHUNK_MAX);
    let mut model = Model::default();
    while !input.is_empty() && model.pages.len() < 64 {
        let as_it_is = input.byte().is_multiple_of(8);
        let Some(page) = read(input.part()) else { continue };
        // Its hash of the page before is hard to guess, so it is put right, mostly.
        let page = if as_it_is { page } else { manifest.next_page(page.entries) };
        let before = manifest.clone();
        match manifest.accept(&page, &page.draft()) {
            Ok(_) => model.take(&before, &manifest, page),
            // It may have taken up a part; the job would be over.
            Err(_) => manifest = before,
        }
    }
    again(&manifest, &model);
}

/// Reads a page as a peer does; what is read, written and read again is the same.
fn read(record: &[u8]) -> Option<Page> {
    let record = Bytes::copy_from_slice(record);
    let signed = PageBytes::from_record(record.clone(), true);
    if let Ok(page) = signed {
        assert_eq!(page.to_record(), record);
    }
    let bytes = PageBytes::from_record(record.clone(), false).ok()?;
    let (decoded, peak) = memory::peak_of(|| bytes.decode());
    let most = 3 * 1024 * 1024 + 64 * record.len();
    assert!(peak <= most, "{peak} bytes for {} of a page", record.len());
    let page = decoded.ok()?;
    assert!(record.len() <= limit::PAGE_LEN_MAX);
    let draft = page.draft();
    assert!(draft.len() <= record.len());
    assert_eq!(draft.decode().as_ref(), Ok(&page));
    Some(page)
}

/// What the pages that were accepted say, read in the plainest way.
#[derive(Default)]
struct Model {
    pages: Vec<Page>,
    /// Bytes of each open object, and whether it is a directory.
    open: BTreeMap<u32, (u64, bool)>,
    names: BTreeSet<String>,
    ended: bool,
}

impl Model {
    fn take(&mut self, before: &Manifest, after: &Manifest, page: Page) {
        assert!(!self.ended, "nothing follows the end");
        assert_eq!(after.pages(), page.index + 1);
        assert_eq!(after.chunks(), page.first_chunk + page.chunk_count());
        assert!(after.pages() > before.pages() && after.chunks() >= before.chunks());
        assert!(after.content() >= before.content());
        assert_eq!(after.last_hash(), page.draft().hash());
        assert!(page.entries.len() <= limit::PAGE_ENTRIES_MAX);
        let known = page.entries.iter().all(|entry| {
            matches!(
                entry,
                Entry::Chunk { .. }
                    | Entry::Open { .. }
                    | Entry::Close { .. }
                    | Entry::End { .. }
                    | Entry::Sync { .. }
            )
        });
        if known {
            assert_eq!((after.pages(), page.first_chunk), (before.pages() + 1, before.chunks()));
            let content: u64 = page.entries.iter().map(|entry| self.apply(entry)).sum();
            assert_eq!(after.content(), before.content() + content);
        }
        // A page that says something anew takes nothing back.
        for (object, (len, _)) in &mut self.open {
            let found = after.object(*object).expect("an open object").len;
            assert!(if known { found == *len } else { found >= *len }, "object {object}");
            *len = found;
        }
        self.ended = after.end().is_some();
        if let Some((len, _)) = after.end() {
            assert_eq!(len, after.content());
            assert!(self.open.is_empty());
        }
        self.pages.push(page);
    }

    /// Content bytes that the entry adds.
    fn apply(&mut self, entry: &Entry) -> u64 {
        match entry {
            Entry::Open { object, name, attributes } => {
                assert_eq!(check_object_name(name), Ok(()));
                let directory = attributes.kind == ObjectKind::Directory;
                assert!(self.names.insert(name.clone()) || directory, "{name:?} twice");
                assert!(self.open.insert(*object, (0, directory)).is_none());
                0
            }
            Entry::Chunk { len, slices, .. } => {
                assert!((1..=CHUNK_MAX).contains(len));
                assert!(!slices.is_empty() && slices.len() <= limit::SLICES_MAX);
                let sum: u64 = slices.iter().map(|slice| u64::from(slice.len)).sum();
                assert_eq!(sum, u64::from(*len));
                for slice in slices {
                    let (end, directory) = self.open.get_mut(&slice.object).expect("it is open");
                    assert!(!*directory && slice.len > 0);
                    assert_eq!(slice.offset, *end, "a hole or an overlap in {}", slice.object);
                    *end += u64::from(slice.len);
                }
                u64::from(*len)
            }
            Entry::Close { object, len, .. } => {
                let (end, _) = self.open.remove(object).expect("it is open");
                assert_eq!(end, *len);
                0
            }
            _ => 0,
        }
    }
}

/// A second manifest that is given the same pages, as bytes, comes to the same end.
fn again(manifest: &Manifest, model: &Model) {
    let mut second = Manifest::new(JOB, CHUNK_MAX);
    for page in &model.pages {
        let bytes = page.draft();
        let read: Page = codec::decode::<_, { 1 << 22 }>(&bytes.to_record()).unwrap();
        second.accept(&read, &bytes).unwrap();
    }
    let state = |m: &Manifest| (m.pages(), m.chunks(), m.content(), m.last_hash(), m.end());
    assert_eq!(state(&second), state(manifest));
}
