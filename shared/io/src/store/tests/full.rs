//! A disk without room: nothing is lost, and what failed can be made again.

use std::fs::OpenOptions;

use super::super::room;
use super::*;

fn plain() -> Job {
    let mut chance = Chance(3);
    Job::new(1, 64, vec![("a", FILE, chance.bytes(100)), ("b", FILE, chance.bytes(60))])
}

#[test]
fn a_chunk_without_room_is_written_when_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = StoreRoot::open(folder.path(), Layout::Files).unwrap();
    let job = plain();
    let store = root.create(&job.signed, &job.object).unwrap();
    job.append_pages(&store);
    room::take(&store, 0);
    for _ in 0..2 {
        let error = store.write_chunk(0, &job.chunks[0]).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert!(!store.holds(0));
    }
    room::give(&store, 0);
    job.write_all(&store);
    let told = RefCell::new(Vec::new());
    let again =
        flush_group(&root, &[Arc::clone(&store)], &|flushed| told.borrow_mut().push(flushed));
    assert!(again.is_empty());
    assert!(told.borrow().last().is_some_and(|flushed| flushed.complete), "{told:?}");
    assert_eq!(job.assert_shown(&store), 2);
}

#[test]
fn a_page_without_room_is_not_stored_and_the_store_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let root = StoreRoot::open(folder.path(), Layout::Files).unwrap();
    let job = plain();
    drop(root.create(&job.signed, &job.object).unwrap());
    let log = folder.path().join(job.object.id.to_string()).join("pages.log");
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let store = JobStore::open(&root, job.object.id, log.parent().unwrap()).unwrap();
    let (bytes, page) = &job.pages[0];
    for _ in 0..2 {
        let error = store.append_page(bytes, page).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(store.pages(), 0);
    }
}

#[test]
fn a_journal_without_room_vouches_for_nothing_until_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = StoreRoot::open(folder.path(), Layout::Files).unwrap();
    let job = plain();
    let store = root.create(&job.signed, &job.object).unwrap();
    job.write_all(&store);
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).unwrap();
    store.journal().log = open(Path::new("/dev/full"));
    let told = RefCell::new(Vec::new());
    let flush = || {
        told.borrow_mut().clear();
        flush_group(&root, &[Arc::clone(&store)], &|flushed| told.borrow_mut().push(flushed)).len()
    };
    for _ in 0..2 {
        assert_eq!(flush(), 1, "it is to be made again");
        let told = told.borrow();
        let [flushed] = told.as_slice() else { panic!("{told:?}") };
        assert!(flushed.error.as_ref().is_some_and(StoreError::is_full), "{flushed:?}");
        assert!(flushed.durable.is_empty() && !flushed.complete);
    }
    store.journal().log = open(&store.folder().join("have.log"));
    assert_eq!(flush(), 0);
    assert!(told.borrow().last().is_some_and(|flushed| flushed.complete), "{told:?}");
    drop(store);
    let found = root.recover(&|_| Ok(job.object.clone())).unwrap().jobs;
    assert!(found[0].complete, "{:?}", found[0].notes);
}

#[test]
fn a_live_object_without_room_grows_when_there_is() {
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let disk = Disk::new(Layout::Files);
        let job = Job::new(1, 64, vec![("stream", LIVE, chance.bytes(64 * 10 + 7))]);
        let (root, store) = disk.create(&job);
        job.append_pages(&store);
        let mut due: Vec<u64> = (0..job.chunks.len() as u64).collect();
        chance.shuffle(&mut due);
        let mut reports = Vec::new();
        while let Some(chunk) = due.pop() {
            let (seen, _) = store.live_shown(0).unwrap();
            match chance.below(4) {
                0 if chunk * 64 > seen => room::take(&store, 0),
                1 => room::take_shown(&store, 0),
                _ => {}
            }
            if let Err(error) = store.write_chunk(chunk, &job.chunks[chunk as usize]) {
                assert!(error.is_full(), "seed {seed}: {error}");
                assert!(!store.holds(chunk));
                // It comes again as the next one, as a job's worker does it.
                due.push(chunk);
            }
            room::give(&store, 0);
            let shown = std::fs::read(store.folder().join("files/stream")).unwrap();
            assert!(job.objects[0].2.starts_with(&shown), "seed {seed}");
            if chance.below(3) == 0 {
                reports.extend(flush(&root, &[Arc::clone(&store)]));
            }
        }
        reports.extend(flush(&root, &[Arc::clone(&store)]));
        assert!(reports.last().unwrap().complete, "seed {seed}: {reports:?}");
        job.assert_complete(&store);
    }
}
