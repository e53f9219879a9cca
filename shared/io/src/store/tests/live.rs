//! Live objects: seen from the first byte, and never anything but the prefix.

use super::*;

fn stream() -> Job {
    Job::new(1, 64, vec![("stream", LIVE, Chance(3).bytes(64 * 10 + 7))])
}

fn shown(store: &JobStore) -> Vec<u8> {
    std::fs::read(store.folder().join("files/stream")).unwrap()
}

#[test]
fn a_reader_sees_the_prefix_and_never_a_hole() {
    for seed in 0..50 {
        let (disk, job) = (Disk::new(Layout::Files), stream());
        let (root, store) = disk.create(&job);
        job.append_pages(&store);
        assert_eq!(shown(&store), b"", "it is there before its first byte");
        let whole = &job.objects[0].2;
        let mut order: Vec<u64> = (0..job.chunks.len() as u64).collect();
        Chance(seed).shuffle(&mut order);
        for (at, chunk) in order.iter().enumerate() {
            job.write(&store, *chunk);
            let head = (0..).find(|chunk| !order[..=at].contains(chunk)).unwrap() as usize;
            let len = whole.len().min(head * 64);
            assert_eq!(shown(&store), whole[..len], "seed {seed}, after {at}");
            assert_eq!(store.live_shown(0), Some((len as u64, len == whole.len())));
            order[..=at].iter().for_each(|chunk| {
                assert_eq!(store.read_chunk(*chunk).unwrap(), job.chunks[*chunk as usize]);
            });
        }
        assert!(flush(&root, &[Arc::clone(&store)]).last().unwrap().complete);
        job.assert_complete(&store);
        assert_eq!(store.live_shown(0), None);
    }
}

#[test]
fn what_lies_ahead_is_not_durable_and_a_start_throws_it_away() {
    let (disk, job) = (Disk::new(Layout::Files), stream());
    let (root, store) = disk.create(&job);
    job.append_pages(&store);
    [0, 1, 3, 4].into_iter().for_each(|chunk| job.write(&store, chunk));
    let durable: Vec<_> =
        flush(&root, &[Arc::clone(&store)]).into_iter().flat_map(|f| f.durable).collect();
    assert_eq!(durable, [(0, 2)]);
    // Behind the flush: shown and not durable.
    job.write(&store, 2);
    assert_eq!(shown(&store).len(), 5 * 64);
    drop((root, store));
    let recovered = disk.recover_one();
    assert_eq!(recovered.held.runs(0).collect::<Vec<_>>(), [(0, 2)]);
    assert_eq!(shown(&recovered.store), job.objects[0].2[..128]);
    let store = &recovered.store;
    (2..job.chunks.len() as u64).rev().for_each(|chunk| job.write(store, chunk));
    let reports = flush(&store.root, &[Arc::clone(store)]);
    assert!(reports.last().unwrap().complete);
    job.assert_complete(store);
}

#[test]
fn a_file_that_is_shorter_than_its_journal_is_fetched_again() {
    let (disk, job) = (Disk::new(Layout::Files), stream());
    let (root, store) = disk.create(&job);
    job.append_pages(&store);
    (0..5).for_each(|chunk| job.write(&store, chunk));
    flush(&root, &[Arc::clone(&store)]);
    std::fs::write(store.folder().join("files/stream"), &job.objects[0].2[..100]).unwrap();
    drop((root, store));
    let recovered = disk.recover_one();
    assert!(recovered.notes.iter().any(|note| note.contains("stream")), "{:?}", recovered.notes);
    assert_eq!(recovered.held.len(), 0);
    let store = &recovered.store;
    (0..job.chunks.len() as u64).for_each(|chunk| job.write(store, chunk));
    assert!(flush(&store.root, &[Arc::clone(store)]).last().unwrap().complete);
    job.assert_complete(store);
}

#[test]
fn another_file_under_the_name_is_in_the_way() {
    let (disk, job) = (Disk::new(Layout::Files), stream());
    let (_root, store) = disk.create(&job);
    std::fs::write(store.folder().join("files/stream"), b"mine").unwrap();
    let (bytes, page) = &job.pages[0];
    assert!(matches!(store.append_page(bytes, page), Err(StoreError::InTheWay { .. })));
    assert_eq!(shown(&store), b"mine");
}
