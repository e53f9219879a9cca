//! The process ends between any two steps, or the disk is not what it was: what is held after
//! the next start is durable, and the job can always be finished.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::*;

/// Gives `recovered` what it does not hold, and sees that the job becomes whole.
fn finish(job: &Job, recovered: &Recovered) {
    let store = &recovered.store;
    job.append_pages(store);
    for chunk in 0..job.chunks.len() as u64 {
        assert_eq!(store.holds(chunk), recovered.held.contains(chunk));
        if recovered.held.contains(chunk) {
            assert_eq!(store.read_chunk(chunk).unwrap(), job.chunks[chunk as usize], "{chunk}");
        } else {
            job.write(store, chunk);
        }
    }
    let reports = flush(&store.root, &[Arc::clone(store)]);
    assert!(reports.iter().all(|report| report.error.is_none()), "{reports:?}");
    assert!(recovered.complete || reports.last().unwrap().complete);
    job.assert_readable(store);
    if store.root.layout() == Layout::Files {
        job.assert_complete(store);
    }
}

fn damage(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

fn cut(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn len(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

#[test]
fn whatever_was_reported_durable_is_there_after_a_crash_at_any_step() {
    for seed in 0..30 {
        let layout = if seed % 3 == 0 { Layout::Spool } else { Layout::Files };
        let (disk, job) = (Disk::new(layout), Job::mixed(1));
        let mut chance = Chance(seed);
        disk.create(&job);
        let mut reported = BTreeSet::new();
        for _start in 0..6 {
            let recovered = disk.recover_one();
            assert_eq!(recovered.notes, Vec::<String>::new());
            assert!(reported.iter().all(|chunk| recovered.held.contains(*chunk)));
            let store = &recovered.store;
            for (bytes, page) in job.pages.iter().skip(store.pages() as usize) {
                if chance.below(3) > 0 {
                    store.append_page(bytes, page).unwrap();
                } else {
                    break;
                }
            }
            for _ in 0..chance.below(6) {
                let chunk = chance.below(job.chunks.len() as u64);
                if chunk < store.chunks() {
                    job.write(store, chunk);
                }
            }
            match chance.below(4) {
                3 => {
                    for report in flush(&store.root, &[Arc::clone(store)]) {
                        for (first, len) in report.durable {
                            reported.extend(first..first + len);
                        }
                    }
                }
                steps => flush_until(&store.root, store, steps),
            }
            if layout == Layout::Files {
                job.assert_shown(store);
            }
        }
        finish(&job, &disk.recover_one());
        let last = disk.recover_one();
        assert!(last.complete && last.pages_durable as usize == job.pages.len());
        assert_eq!(last.manifest.end().unwrap().0, job.chunks.concat().len() as u64);
    }
}

#[test]
fn what_was_written_and_not_journalled_is_not_held() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    flush_until(&root, &store, 1);
    drop(store);
    let recovered = disk.recover_one();
    assert!(recovered.held.is_empty() && !recovered.complete);
    finish(&job, &recovered);
}

#[test]
fn names_are_given_after_a_crash_right_behind_the_journal() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    // Names come in step 3, and only for what step 2 made durable for the store.
    flush_until(&root, &store, 2);
    // Live objects and the directory that they are in.
    assert_eq!(job.assert_shown(&store), 3);
    let recovered = disk.recover_one();
    assert!(recovered.complete);
    job.assert_complete(&recovered.store);
}

#[test]
fn a_crash_between_two_names_is_repaired() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    flush(&root, &[Arc::clone(&store)]);
    // As if only some names had been given, and some times not been set.
    let number = job.objects.iter().position(|(name, ..)| name == "big").unwrap();
    let (files, parts) = (store.folder().join("files"), store.folder().join("parts"));
    std::fs::rename(files.join("big"), parts.join(number.to_string())).unwrap();
    std::fs::remove_file(files.join("last")).unwrap();
    std::fs::write(files.join("d/none"), "").unwrap();
    std::fs::remove_dir(files.join("bare")).unwrap();
    let recovered = disk.recover_one();
    assert_eq!(recovered.notes, Vec::<String>::new());
    assert!(recovered.complete);
    job.assert_complete(&recovered.store);
}

#[test]
fn torn_tails_are_cut_off() {
    for layout in [Layout::Spool, Layout::Files] {
        for name in ["pages.log", "have.log"] {
            let (disk, job) = (Disk::new(layout), Job::mixed(1));
            let (root, store) = disk.create(&job);
            let path = store.folder().join(name);
            (0..2).for_each(|page| {
                let (bytes, page) = &job.pages[page];
                store.append_page(bytes, page).unwrap();
            });
            job.write(&store, 0);
            flush(&root, &[Arc::clone(&store)]);
            let whole = len(&path);
            job.write_all(&store);
            flush_until(&root, &store, 2);
            let longer = len(&path);
            drop(store);
            // Of what came after the last flush, only a part reached the disk; pages.log is
            // always flushed first.
            if name == "pages.log" {
                cut(&path.with_file_name("have.log"), 0);
            }
            for torn in [longer - 1, whole + 20, whole + 5, whole + 1] {
                cut(&path, torn);
                let recovered = disk.recover_one();
                assert_eq!(recovered.notes, Vec::<String>::new(), "{name} {torn}");
                let expected = u64::from(name == "have.log");
                assert_eq!(recovered.held.len(), expected, "{name} {torn}");
                assert!(len(&path) < torn && len(&path) >= whole);
                cut(&path, torn);
            }
            finish(&job, &disk.recover_one());
        }
    }
}

#[test]
fn a_tail_of_zeros_is_cut_off() {
    let (disk, job) = (Disk::new(Layout::Spool), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    flush(&root, &[Arc::clone(&store)]);
    for name in ["pages.log", "have.log"] {
        let path = store.folder().join(name);
        cut(&path, len(&path) + 100_000);
    }
    let recovered = disk.recover_one();
    assert!(recovered.complete && recovered.notes.is_empty(), "{:?}", recovered.notes);
}

#[test]
fn damage_inside_a_log_is_named_and_what_follows_is_fetched_again() {
    for layout in [Layout::Spool, Layout::Files] {
        for (name, at) in [("pages.log", 600), ("pages.log", 3), ("have.log", 40), ("have.log", 20)]
        {
            let (disk, job) = (Disk::new(layout), Job::mixed(1));
            let (root, store) = disk.create(&job);
            job.append_pages(&store);
            for chunk in 0..job.chunks.len() as u64 {
                job.write(&store, chunk);
                flush(&root, &[Arc::clone(&store)]);
            }
            damage(&store.folder().join(name), at);
            drop(store);
            let recovered = disk.recover_one();
            assert!(
                recovered.notes.iter().any(|note| note.contains(name)),
                "{:?}",
                recovered.notes
            );
            assert!(!recovered.complete && recovered.held.len() < job.chunks.len() as u64);
            if layout == Layout::Files {
                let objects = recovered.manifest.objects() as usize;
                let unknown = objects < job.objects.len();
                // Files of pages that are gone keep their names; all others are withdrawn.
                assert!(unknown || job.assert_shown(&recovered.store) < job.objects.len());
            }
            // The damage is gone with the journal that knew of it.
            drop(recovered);
            let again = disk.recover_one();
            assert_eq!(again.notes, Vec::<String>::new());
            finish(&job, &again);
            assert!(disk.recover_one().complete);
        }
    }
}

#[test]
fn files_and_parts_that_are_gone_are_fetched_again() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    flush(&root, &[Arc::clone(&store)]);
    let files = store.folder().join("files");
    std::fs::remove_file(files.join("d/two")).unwrap();
    cut(&files.join("three"), 5);
    std::fs::remove_dir_all(files.join("d/e")).unwrap();
    drop(store);
    let recovered = disk.recover_one();
    assert!(!recovered.complete);
    for name in ["d/two", "three", "d/e/deep/ü file"] {
        assert!(recovered.notes.iter().any(|note| note.contains(name)), "{:?}", recovered.notes);
    }
    job.assert_shown(&recovered.store);
    drop(recovered);
    let again = disk.recover_one();
    assert_eq!(again.notes, Vec::<String>::new());
    finish(&job, &again);
}

#[test]
fn a_spool_that_is_too_short_loses_its_end() {
    let (disk, job) = (Disk::new(Layout::Spool), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    flush(&root, &[Arc::clone(&store)]);
    cut(&store.folder().join("content"), 130);
    drop(store);
    let recovered = disk.recover_one();
    assert_eq!(recovered.notes.len(), 1);
    assert_eq!(recovered.held.runs(0).collect::<Vec<_>>(), [(0, 2)]);
    finish(&job, &recovered);
}

#[test]
fn a_part_left_from_a_lost_page_does_no_harm() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (_, store) = disk.create(&job);
    for object in 0..=job.objects.len() {
        std::fs::write(store.folder().join("parts").join(object.to_string()), [7; 5_000]).unwrap();
    }
    let recovered = disk.recover_one();
    assert_eq!(tree(&store.folder().join("parts")), Vec::<PathBuf>::new());
    // Within known pages they stay and are cut when the object is whole.
    job.append_pages(&recovered.store);
    std::fs::write(store.folder().join("parts/2"), [7; 5_000]).unwrap();
    finish(&job, &recovered);
}

#[test]
fn folders_that_are_no_jobs_are_left_alone_or_cleaned_up() {
    let disk = Disk::new(Layout::Files);
    let (job, other) = (Job::mixed(1), Job::mixed(2));
    let (root, store) = disk.create(&job);
    let second = root.create(&other.signed, &other.object).unwrap();
    // Without its job object nothing was promised.
    std::fs::remove_file(second.folder().join("job")).unwrap();
    std::fs::create_dir(disk.path().join("not a job")).unwrap();
    let recovery = disk.recover();
    assert_eq!((recovery.jobs.len(), recovery.refused.len()), (1, 1));
    assert!(!second.folder().exists() && disk.path().join("not a job").exists());
    damage(&store.folder().join("job"), 5);
    let recovery = disk.recover();
    assert_eq!((recovery.jobs.len(), recovery.refused.len()), (0, 2));
    assert!(store.folder().join("pages.log").exists());
}

#[test]
fn a_failed_flush_fails_the_store() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    job.write_all(&store);
    // The part is gone when it should get its name.
    std::fs::remove_dir_all(store.folder().join("parts")).unwrap();
    let reports = flush(&root, &[Arc::clone(&store)]);
    assert!(reports.last().unwrap().error.is_some());
    assert!(reports.iter().all(|report| !report.complete));
    assert!(is_failed(&store.write_chunk(0, &job.chunks[0]).unwrap_err()));
    assert!(flush(&root, &[Arc::clone(&store)]).is_empty());
    let recovered = disk.recover_one();
    finish(&job, &recovered);
}
