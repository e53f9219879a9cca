//! Objects by name: what a reader finds, and when.

use super::*;
use crate::store::{ObjectView, Standing};

fn view(store: &JobStore, name: &str) -> ObjectView {
    store.object(name).unwrap().unwrap()
}

fn read(store: &Arc<JobStore>, view: &ObjectView) -> Vec<u8> {
    let file = store.open_object(view).unwrap().unwrap();
    assert_eq!(file.shown().unwrap().0, view.shown);
    file.read(0, view.shown as u32).unwrap().to_vec()
}

#[test]
fn every_object_of_a_job_is_found_by_name_and_read() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    assert_eq!(store.object("big").unwrap(), None);
    job.append_pages(&store);
    assert_eq!(view(&store, "big").standing, Standing::Awaited);
    assert_eq!(view(&store, "big").closed.unwrap().0, 1_000);
    job.write_all(&store);
    assert_eq!(view(&store, "big").standing, Standing::Awaited, "it is not durable");
    flush(&root, &[Arc::clone(&store)]);
    let check = |store: &Arc<JobStore>| {
        for (number, (name, attributes, bytes)) in (0..).zip(&job.objects) {
            let found = view(store, name);
            let expected = ObjectView {
                number,
                name: name.clone(),
                attributes: *attributes,
                shown: bytes.len() as u64,
                closed: Some((bytes.len() as u64, Hash::of(bytes))),
                standing: Standing::Whole,
            };
            assert_eq!(found, expected);
            if attributes.kind == ObjectKind::Directory {
                assert!(store.open_object(&found).unwrap().is_none());
            } else {
                assert_eq!(&read(store, &found), bytes, "{name:?}");
            }
        }
        for absent in ["", "d/", "d/e", "/big", "BIG", "../job"] {
            assert_eq!(store.object(absent).unwrap(), None, "{absent:?}");
        }
        let all = store.objects(0, 100).unwrap();
        let names: Vec<_> = all.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(names, job.objects.iter().map(|o| o.0.as_str()).collect::<Vec<_>>());
        assert_eq!(store.objects(3, 2).unwrap(), all[3..5]);
        assert_eq!(store.objects(all.len() as u32, 2).unwrap(), []);
    };
    check(&store);
    drop((root, store));
    check(&disk.recover_one().store);
}

#[test]
fn names_beyond_the_index_are_found_in_their_pages() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    flush(&root, &[Arc::clone(&store)]);
    let names = root.names(store.serial);
    names.lock().unwrap().fill();
    for (name, ..) in &job.objects {
        assert_eq!(&view(&store, name).name, name);
    }
    assert_eq!(names.lock().unwrap().objects(), 0);
}

#[test]
fn what_becomes_visible_is_told() {
    let (disk, job) = (
        Disk::new(Layout::Files),
        Job::new(1, 64, vec![("a", FILE, vec![1; 100]), ("b", LIVE, vec![2; 100])]),
    );
    let (root, store) = disk.create(&job);
    let mut changes = store.changes();
    let mut told = || {
        let told = changes.has_changed().unwrap();
        changes.mark_unchanged();
        told
    };
    assert!(!told());
    job.append_pages(&store);
    assert!(told());
    // Of chunk 1, the first part belongs to `a`; chunk 2 lies ahead in `b`.
    job.write(&store, 0);
    job.write(&store, 2);
    assert!(!told());
    assert_eq!(view(&store, "b").shown, 0);
    job.write(&store, 1);
    assert!(told());
    assert_eq!(view(&store, "b").shown, 28 + 64);
    job.write(&store, 3);
    assert!(told());
    assert_eq!(view(&store, "b").standing, Standing::Whole, "it is whole before it is durable");
    assert_eq!(view(&store, "a").standing, Standing::Awaited);
    flush(&root, &[Arc::clone(&store)]);
    assert!(told());
    assert_eq!(view(&store, "a").standing, Standing::Whole);
    flush(&root, &[Arc::clone(&store)]);
    assert!(!told());
    let file = store.open_object(&view(&store, "b")).unwrap().unwrap();
    store.remove().unwrap();
    assert!(told());
    assert!(matches!(store.object("a"), Err(StoreError::Removed(_))));
    assert!(matches!(file.shown(), Err(StoreError::Removed(_))));
    assert!(matches!(file.read(0, 1), Err(StoreError::Removed(_))));
}

/// Two chunks of 64 bytes with a sync point between them and one behind them.
fn marked() -> Job {
    let mut job = Job::new(1, 64, vec![("b", LIVE, vec![2; 128])]);
    let mut manifest = Manifest::new(job.object.id, 64);
    let mut entries = job.pages[0].1.entries.clone();
    entries.insert(2, Entry::Sync { object: 0, offset: 64 });
    entries.insert(4, Entry::Sync { object: 0, offset: 128 });
    entries.retain(|entry| !matches!(entry, Entry::Close { .. }));
    let page = manifest.next_page(entries);
    let bytes = page.draft();
    manifest.accept(&page, &bytes).unwrap();
    job.pages = vec![(bytes, Arc::new(page))];
    job
}

#[test]
fn a_reader_may_start_at_the_newest_sync_point_that_can_be_seen() {
    let (disk, job) = (Disk::new(Layout::Files), marked());
    let (root, store) = disk.create(&job);
    job.append_pages(&store);
    let sync = |store: &JobStore| match view(store, "b").standing {
        Standing::Growing { sync } => sync,
        other => panic!("{other:?}"),
    };
    assert_eq!(sync(&store), None);
    job.write(&store, 0);
    assert_eq!(sync(&store), Some(64));
    flush(&root, &[Arc::clone(&store)]);
    drop((root, store));
    let store = disk.recover_one().store;
    assert_eq!(sync(&store), Some(64), "a start finds it again");
    job.write(&store, 1);
    assert_eq!(sync(&store), Some(128));
}

#[test]
fn what_stands_in_for_an_object_is_not_served() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    flush(&root, &[Arc::clone(&store)]);
    let secret = disk.path().join("secret");
    std::fs::write(&secret, [0; 1_000]).unwrap();
    let big = store.folder().join("files/big");
    std::fs::remove_file(&big).unwrap();
    assert!(matches!(store.open_object(&view(&store, "big")), Err(StoreError::Lost { .. })));
    std::os::unix::fs::symlink(&secret, &big).unwrap();
    assert!(store.open_object(&view(&store, "big")).is_err());
    std::fs::remove_file(&big).unwrap();
    std::fs::write(&big, b"short").unwrap();
    assert!(matches!(store.open_object(&view(&store, "big")), Err(StoreError::Lost { .. })));
    let directory = store.folder().join("files/d");
    std::fs::rename(&directory, disk.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(disk.path().join("elsewhere"), &directory).unwrap();
    assert!(store.open_object(&view(&store, "d/one")).is_err());
}
