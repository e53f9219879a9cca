//! What goes in comes out, in any order, and is shown when it is whole and not before.

use super::*;

#[test]
fn a_spool_gives_back_pages_and_chunks() {
    let disk = Disk::new(Layout::Spool);
    let job = Job::mixed(1);
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    job.assert_readable(&store);
    for (bytes, page) in &job.pages {
        assert_eq!(&store.read_page(page.index).unwrap(), bytes);
        assert_eq!(store.decoded(page.index).unwrap().page(), page);
    }
    let reports = flush(&root, &[Arc::clone(&store)]);
    let all = vec![(0, job.chunks.len() as u64)];
    assert_eq!(reports.len(), 1);
    assert_eq!((&reports[0].durable, reports[0].complete), (&all, true));
    assert_eq!(reports[0].pages as usize, job.pages.len());
    assert!(flush(&root, &[Arc::clone(&store)]).is_empty());
    let content = std::fs::read(store.folder().join("content")).unwrap();
    assert_eq!(content, job.chunks.concat());
}

#[test]
fn files_appear_in_any_order_of_arrival_and_only_when_whole() {
    for seed in 0..20 {
        let disk = Disk::new(Layout::Files);
        let job = Job::mixed(1);
        let (root, store) = disk.create(&job);
        let mut chance = Chance(seed);
        let mut order: Vec<u64> = (0..job.chunks.len() as u64).collect();
        chance.shuffle(&mut order);
        job.append_pages(&store);
        let (mut shown, mut complete, mut durable) = (0, 0, 0);
        for chunk in order {
            job.write(&store, chunk);
            assert!(!store.write_chunk(chunk, &job.chunks[chunk as usize]).unwrap());
            assert_eq!(store.read_chunk(chunk).unwrap(), job.chunks[chunk as usize]);
            if chance.below(3) == 0 || store.is_written() {
                for report in flush(&root, &[Arc::clone(&store)]) {
                    assert!(report.error.is_none());
                    complete += usize::from(report.complete);
                    durable += report.durable.iter().map(|(_, len)| len).sum::<u64>();
                }
                let now = job.assert_shown(&store);
                assert!(now >= shown);
                shown = now;
            }
        }
        assert_eq!((complete, durable), (1, job.chunks.len() as u64));
        job.assert_complete(&store);
        job.assert_readable(&store);
    }
}

#[test]
fn pages_count_as_durable_with_all_their_chunks_and_without_a_gap() {
    let disk = Disk::new(Layout::Spool);
    let job = Job::mixed(1);
    let (root, store) = disk.create(&job);
    job.append_pages(&store);
    let pages = |chunks: &[u64]| {
        chunks.iter().for_each(|chunk| job.write(&store, *chunk));
        flush(&root, &[Arc::clone(&store)])[0].pages
    };
    // Pages have two chunks each.
    assert_eq!(pages(&[2, 3]), 0);
    assert_eq!(pages(&[0]), 0);
    assert_eq!(pages(&[1]), 2);
    assert_eq!(pages(&[5]), 2);
}

#[test]
fn a_job_without_a_chunk_is_complete() {
    for layout in [Layout::Spool, Layout::Files] {
        let disk = Disk::new(layout);
        let job = Job::new(1, 64, vec![("d/e", DIRECTORY, vec![]), ("f", PROGRAM, vec![])]);
        let (root, store) = disk.create(&job);
        job.append_pages(&store);
        assert!(store.is_written());
        assert!(flush(&root, &[Arc::clone(&store)]).last().unwrap().complete);
        if layout == Layout::Files {
            job.assert_complete(&store);
        }
        assert!(disk.recover_one().complete);
    }
}

#[test]
fn many_small_files_share_chunks_and_one_flush() {
    let disk = Disk::new(Layout::Files);
    let names: Vec<String> = (0..500).map(|i| format!("dir {}/file {i}", i % 7)).collect();
    let mut chance = Chance(3);
    let objects = names.iter().map(|name| (name.as_str(), FILE, chance.bytes(37))).collect();
    let job = Job::new(1, 1_000, objects);
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    let reports = flush(&root, &[Arc::clone(&store)]);
    assert!(reports.iter().all(|report| report.error.is_none()));
    assert!(reports.last().unwrap().complete);
    job.assert_complete(&store);
    job.assert_readable(&store);
}

#[test]
fn jobs_are_flushed_together_and_reported_apart() {
    let disk = Disk::new(Layout::Files);
    let root = disk.root();
    let jobs: Vec<Job> = (1..=20).map(Job::mixed).collect();
    let stores: Vec<Arc<JobStore>> =
        jobs.iter().map(|job| root.create(&job.signed, &job.object).unwrap()).collect();
    for (job, store) in jobs.iter().zip(&stores) {
        job.write_all(store);
    }
    let reports = by_job(flush(&root, &stores));
    for (job, store) in jobs.iter().zip(&stores) {
        let reports = &reports[&job.object.id];
        assert_eq!(reports.iter().filter(|report| report.complete).count(), 1);
        job.assert_complete(store);
    }
}

#[test]
fn what_cannot_be_right_is_refused_and_harms_nothing() {
    let disk = Disk::new(Layout::Files);
    let job = Job::mixed(1);
    let (root, store) = disk.create(&job);
    assert!(matches!(root.create(&job.signed, &job.object), Err(StoreError::Exists(_))));
    let (bytes, page) = &job.pages[1];
    assert!(matches!(store.append_page(bytes, page), Err(StoreError::PageOrder { .. })));
    assert!(matches!(store.write_chunk(0, b"x"), Err(StoreError::NoChunk(0))));
    job.append_pages(&store);
    assert!(matches!(store.write_chunk(0, b"x"), Err(StoreError::ChunkLength { .. })));
    assert!(matches!(store.read_chunk(0), Err(StoreError::NotHeld(0))));
    assert!(matches!(store.read_page(99), Err(StoreError::NoPage(99))));
    job.write_all(&store);
    assert!(flush(&root, &[Arc::clone(&store)]).last().unwrap().complete);
}

#[test]
fn what_stands_in_the_way_is_neither_followed_nor_replaced() {
    type Obstacle = fn(&Path, &Path);
    let obstacles: [(&str, Obstacle); 3] = [
        ("big", |path, _| std::fs::write(path, "mine").unwrap()),
        ("d", |path, outside| {
            std::os::unix::fs::symlink(outside, path).unwrap();
        }),
        ("big", |path, outside| {
            std::os::unix::fs::symlink(outside, path).unwrap();
        }),
    ];
    for (name, make) in obstacles {
        let (disk, outside) = (Disk::new(Layout::Files), tempfile::tempdir().unwrap());
        let job = Job::mixed(1);
        let (root, store) = disk.create(&job);
        let path = store.folder().join("files").join(name);
        make(&path, outside.path());
        job.write_all(&store);
        let reports = flush(&root, &[Arc::clone(&store)]);
        let last = reports.last().unwrap();
        assert!(matches!(last.error, Some(StoreError::InTheWay { .. })), "{last:?}");
        assert!(!last.complete);
        assert!(is_failed(&store.read_chunk(0).unwrap_err()));
        assert_eq!(tree(outside.path()), Vec::<PathBuf>::new());
        assert!(path.is_symlink() || std::fs::read(&path).unwrap() == b"mine");
        // Once it is out of the way, the next start goes on.
        std::fs::remove_file(&path).unwrap();
        let again = disk.recover_one();
        assert!(again.complete, "{:?}", again.notes);
        job.assert_complete(&again.store);
    }
}

#[test]
fn a_removed_job_is_gone_and_never_comes_back() {
    for layout in [Layout::Spool, Layout::Files] {
        let disk = Disk::new(layout);
        let job = Job::mixed(1);
        let (root, store) = disk.create(&job);
        job.write_all(&store);
        store.remove().unwrap();
        assert_eq!(tree(&disk.path()), Vec::<PathBuf>::new());
        assert!(flush(&root, &[Arc::clone(&store)]).is_empty());
        assert!(matches!(store.write_chunk(0, &job.chunks[0]), Err(StoreError::Removed(_))));
        store.remove().unwrap();
        assert!(disk.recover().jobs.is_empty());
        // The same job can be made anew.
        disk.create(&job);
    }
}

#[test]
fn a_removal_that_was_cut_off_is_finished_at_the_next_start() {
    let disk = Disk::new(Layout::Files);
    let (_, store) = disk.create(&Job::mixed(1));
    let removed = disk.path().join(format!("{}.removed", store.job()));
    std::fs::rename(store.folder(), &removed).unwrap();
    assert!(disk.recover().jobs.is_empty());
    assert_eq!(tree(&disk.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_program_can_be_run_as_soon_as_it_appears() {
    let disk = Disk::new(Layout::Files);
    let program = b"#!/bin/sh\nexit 7\n".to_vec();
    let job = Job::new(1, 64, vec![("run", PROGRAM, program)]);
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    flush(&root, &[Arc::clone(&store)]);
    store.read_chunk(0).unwrap();
    let status = std::process::Command::new(store.folder().join("files/run")).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn free_space_is_that_of_the_file_system() {
    assert!(Disk::new(Layout::Spool).root().free_space().unwrap() > 0);
}
