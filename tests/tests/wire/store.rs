//! The files of the store, which a later version must be able to read.

use std::fs;
use std::sync::Arc;

use shared::chunk_set::ChunkSet;
use shared_io::store::{Layout, StoreRoot, flush_group};

use super::sample;

const FILES: [&str; 3] = ["job", "pages.log", "have.log"];

/// What the store writes about the sample job: its first page signed, its second a draft, and
/// both chunks durable.
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let root = StoreRoot::open(folder.path(), Layout::Spool).unwrap();
    let store = root.create(&sample::signed_job(), &sample::object()).unwrap();
    let [first, second] = sample::pages();
    let signed = first.draft().sign(&sample::key());
    store.append_page(&signed, &Arc::new(first)).unwrap();
    let draft = second.draft();
    store.append_page(&draft, &Arc::new(second)).unwrap();
    for (number, chunk) in (0..).zip(sample::content()) {
        store.write_chunk(number, chunk).unwrap();
    }
    flush_group(&root, &[Arc::clone(&store)], &|flushed| {
        assert!(flushed.error.is_none());
    });
    let read = |name: &str| fs::read(store.folder().join(name)).unwrap();
    assert_eq!(read("content"), b"hello world");
    let rows = ["Store.job", "Store.pages.log", "Store.have.log"];
    rows.into_iter().zip(FILES.map(read)).collect()
}

#[test]
fn the_files_are_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = StoreRoot::open(folder.path(), Layout::Spool).unwrap();
    let job = folder.path().join(sample::JOB.to_string());
    fs::create_dir(&job).unwrap();
    for (name, (_, bytes)) in FILES.into_iter().zip(files()) {
        fs::write(job.join(name), bytes).unwrap();
    }
    fs::write(job.join("content"), b"hello world").unwrap();
    let recovery = root.recover(&|job| job.open(&sample::public_key())).unwrap();
    let [found] = recovery.jobs.as_slice() else { panic!("{recovery:?}") };
    let mut both = ChunkSet::new();
    both.insert(0);
    both.insert(1);
    assert_eq!((&found.held, &found.object), (&both, &sample::object()));
    assert_eq!((found.manifest.pages(), found.complete), (2, true));
    assert_eq!(found.notes, Vec::<String>::new());
}
