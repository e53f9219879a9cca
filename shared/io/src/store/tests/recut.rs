//! A live object whose log is cut anew: what was durable stays so, whichever cut it came in, and
//! crashes between any two steps lose nothing that was reported.

use std::collections::BTreeSet;

use super::*;

/// Pages of a log, the payload of each chunk, and the bytes of its one object.
struct Log {
    pages: Pages,
    chunks: BTreeMap<u64, Vec<u8>>,
    bytes: Vec<u8>,
}

const LONG: u32 = 64;

fn log(seed: u64) -> Log {
    let mut chance = Chance(seed);
    let job = job_object(1, LONG);
    let mut manifest = Manifest::new(job.id, LONG);
    let mut log = Log { pages: Vec::new(), chunks: BTreeMap::new(), bytes: Vec::new() };
    let open = Entry::Open { object: 0, name: "on/air".to_owned(), attributes: LIVE };
    log.push(&mut manifest, vec![open]);
    let mut tail = Vec::new();
    for _ in 0..40 {
        let (offset, len) = (log.bytes.len(), 1 + chance.below(20) as usize);
        log.bytes.extend(chance.bytes(len));
        tail.push((offset, len));
        let entry = log.chunk(offset, len);
        log.push(&mut manifest, vec![entry]);
        if tail.len() > 5 && chance.below(5) == 0 {
            let entries = log.cut_anew(&manifest, &std::mem::take(&mut tail));
            log.push(&mut manifest, entries);
        }
    }
    let len = log.bytes.len() as u64;
    let close = Entry::Close { object: 0, len, digest: Hash::of(&log.bytes) };
    log.push(&mut manifest, vec![close, Entry::End { content_len: len, digest: Hash::ZERO }]);
    log
}

impl Log {
    fn chunk(&self, offset: usize, len: usize) -> Entry {
        let payload = &self.bytes[offset..offset + len];
        let slices = vec![Slice { object: 0, offset: offset as u64, len: len as u32 }];
        Entry::Chunk { len: len as u32, hash: Hash::of(payload), slices }
    }

    fn cut_anew(&self, manifest: &Manifest, tail: &[(usize, usize)]) -> Vec<Entry> {
        let mut entries = vec![manifest.recut_entry()];
        let (mut from, mut sum) = (tail[0].0, 0);
        for (offset, len) in tail {
            if sum + len > LONG as usize {
                entries.push(self.chunk(from, sum));
                (from, sum) = (*offset, 0);
            }
            sum += len;
        }
        entries.push(self.chunk(from, sum));
        entries
    }

    fn push(&mut self, manifest: &mut Manifest, entries: Vec<Entry>) {
        let page = manifest.next_page(entries);
        for (number, len, _, slices) in page.chunks() {
            let from = slices[0].offset as usize;
            self.chunks.insert(number, self.bytes[from..from + len as usize].to_vec());
        }
        manifest.accept(&page, &page.draft()).unwrap();
        self.pages.push((page.draft(), Arc::new(page)));
    }

    /// Appends up to `count` pages; `skip` takes pages that cut anew in place of others.
    fn append(&self, store: &JobStore, manifest: &mut Manifest, count: u64, skip: bool) {
        for _ in 0..count {
            let due = store.pages() as usize;
            let may_skip = |page: &Page| skip && manifest.may_skip_to(page);
            let ahead = self.pages.iter().skip(due).find(|(_, page)| may_skip(page));
            let Some((bytes, page)) = ahead.or_else(|| self.pages.get(due)) else { return };
            manifest.accept(page, bytes).unwrap();
            store.append_page(bytes, page).unwrap();
        }
    }

    fn assert_prefix(&self, store: &JobStore) {
        let shown = std::fs::read(store.folder().join("files/on/air")).unwrap_or_default();
        assert!(self.bytes.starts_with(&shown));
    }
}

#[test]
fn crashes_lose_nothing_that_was_reported_in_either_cut() {
    for seed in 0..60 {
        let layout = if seed % 3 == 0 { Layout::Spool } else { Layout::Files };
        let (disk, log) = (Disk::new(layout), log(seed));
        let object = job_object(1, LONG);
        let root = disk.root();
        drop(root.create(&unsigned(&object), &object).unwrap());
        let mut chance = Chance(seed);
        let mut reported = BTreeSet::new();
        for _start in 0..8 {
            let mut recovered = disk.recover_one();
            assert_eq!(recovered.notes, Vec::<String>::new());
            for chunk in &reported {
                assert!(recovered.held.contains(*chunk), "seed {seed}: chunk {chunk} is gone");
            }
            let store = Arc::clone(&recovered.store);
            // A base takes every page: it has the log from its publisher.
            let skip = layout == Layout::Files && chance.below(3) == 0;
            log.append(&store, &mut recovered.manifest, chance.below(12), skip);
            for _ in 0..chance.below(20) {
                let chunk = chance.below(store.chunks().max(1));
                if store.is_described(chunk) && !store.holds(chunk) {
                    store.write_chunk(chunk, &log.chunks[&chunk]).unwrap();
                }
            }
            match chance.below(4) {
                3 => {
                    for report in flush(&store.root, &[Arc::clone(&store)]) {
                        assert!(report.error.is_none(), "{report:?}");
                        let runs = report.durable.into_iter();
                        reported.extend(runs.flat_map(|(first, len)| first..first + len));
                    }
                }
                steps => flush_until(&store.root, &store, steps),
            }
            log.assert_prefix(&store);
        }
        let mut recovered = disk.recover_one();
        let store = Arc::clone(&recovered.store);
        log.append(&store, &mut recovered.manifest, 1_000, false);
        for chunk in 0..store.chunks() {
            if !store.holds(chunk) {
                store.write_chunk(chunk, &log.chunks[&chunk]).unwrap();
            }
            if store.is_described(chunk) {
                assert_eq!(store.read_chunk(chunk).unwrap(), log.chunks[&chunk], "chunk {chunk}");
            }
        }
        let reports = flush(&store.root, &[Arc::clone(&store)]);
        assert!(recovered.complete || reports.last().unwrap().complete, "seed {seed}: {reports:?}");
        if layout == Layout::Files {
            assert_eq!(std::fs::read(store.folder().join("files/on/air")).unwrap(), log.bytes);
        }
        drop((store, recovered));
        assert!(disk.recover_one().complete);
    }
}

/// Shorts of 10 bytes 0..4, cut anew as two of 20 (chunks 4, 5), a short one (6), cut anew again.
fn small() -> Log {
    let job = job_object(1, LONG);
    let mut manifest = Manifest::new(job.id, LONG);
    let mut log = Log { pages: Vec::new(), chunks: BTreeMap::new(), bytes: (0..60).collect() };
    let open = Entry::Open { object: 0, name: "on/air".to_owned(), attributes: LIVE };
    log.push(&mut manifest, vec![open]);
    for at in 0..4 {
        let entry = log.chunk(at * 10, 10);
        log.push(&mut manifest, vec![entry]);
    }
    let entries = vec![manifest.recut_entry(), log.chunk(0, 20), log.chunk(20, 20)];
    log.push(&mut manifest, entries);
    let entry = log.chunk(40, 10);
    log.push(&mut manifest, vec![entry]);
    let entries = vec![manifest.recut_entry(), log.chunk(40, 10)];
    log.push(&mut manifest, entries);
    log
}

fn setup() -> (Disk, Arc<StoreRoot>, Arc<JobStore>, Log) {
    let disk = Disk::new(Layout::Files);
    let object = job_object(1, LONG);
    let root = disk.root();
    let store = root.create(&unsigned(&object), &object).unwrap();
    (disk, root, store, small())
}

#[test]
fn engine_and_store_agree_on_what_a_page_in_place_leaves_missing() {
    use shared::relay::Relay;
    let (_disk, _root, store, log) = setup();
    let mut manifest = Manifest::new(job_object(1, LONG).id, LONG);
    let mut relay = Relay::new(1, 64);
    for at in [0usize, 1, 2, 5] {
        let (bytes, page) = &log.pages[at];
        let summary = manifest.accept(page, bytes).unwrap();
        store.append_page(bytes, page).unwrap();
        let lens: Vec<u32> = page.chunks().map(|(_, len, ..)| len).collect();
        relay.page(&summary, &lens, false, &mut Vec::new());
        if at == 2 {
            for chunk in 0..2u64 {
                store.write_chunk(chunk, &log.chunks[&chunk]).unwrap();
                relay.hold(shared::time::Time::ZERO, chunk, 10, &mut Vec::new());
            }
        }
    }
    for chunk in 0..6 {
        assert_eq!(relay.held().contains(chunk), store.holds(chunk), "chunk {chunk}");
    }
}

#[test]
fn a_short_chunk_that_comes_behind_the_long_one_takes_nothing_away() {
    let (_disk, root, store, log) = setup();
    for at in 0..6 {
        store.append_page(&log.pages[at].0, &log.pages[at].1).unwrap();
    }
    // Chunk 5 is bytes 20..40, chunk 2 is 20..30.
    for chunk in [5, 2] {
        store.write_chunk(chunk, &log.chunks[&chunk]).unwrap();
    }
    for at in 6..8 {
        store.append_page(&log.pages[at].0, &log.pages[at].1).unwrap();
    }
    for chunk in [4, 6] {
        store.write_chunk(chunk, &log.chunks[&chunk]).unwrap();
    }
    drop(flush(&root, &[Arc::clone(&store)]));
    let shown = std::fs::read(store.folder().join("files/on/air")).unwrap();
    assert_eq!(shown.len(), 50);
}

#[test]
fn what_lies_ahead_is_not_durable_when_its_short_chunks_become_void() {
    let (disk, root, store, log) = setup();
    for at in 0..6 {
        store.append_page(&log.pages[at].0, &log.pages[at].1).unwrap();
    }
    for chunk in [1, 2, 3] {
        store.write_chunk(chunk, &log.chunks[&chunk]).unwrap();
    }
    for at in 6..8 {
        store.append_page(&log.pages[at].0, &log.pages[at].1).unwrap();
    }
    let durable: Vec<_> =
        flush(&root, &[Arc::clone(&store)]).into_iter().flat_map(|f| f.durable).collect();
    drop((root, store));
    let held = disk.recover_one().held;
    for (first, len) in durable {
        for chunk in first..first + len {
            assert!(held.contains(chunk), "chunk {chunk} was reported durable and is gone");
        }
    }
}

#[test]
fn void_chunks_and_pages_are_unknown_to_the_store() {
    let (_disk, _root, store, log) = setup();
    for at in 0..7 {
        store.append_page(&log.pages[at].0, &log.pages[at].1).unwrap();
    }
    for chunk in [0, 1, 2, 3, 6] {
        store.write_chunk(chunk, &log.chunks[&chunk]).unwrap();
    }
    store.append_page(&log.pages[7].0, &log.pages[7].1).unwrap();
    assert!(matches!(store.read_chunk(0), Err(StoreError::NoChunk(0))));
    assert!(matches!(store.read_page(1), Err(StoreError::NoPage(1))));
}

/// 20 times eight short chunks, and the log cut anew.
fn cut_anew_often() -> Log {
    let mut manifest = Manifest::new(job_object(1, LONG).id, LONG);
    let bytes = (0..1_600u32).map(|at| at as u8).collect();
    let mut log = Log { pages: Vec::new(), chunks: BTreeMap::new(), bytes };
    let open = Entry::Open { object: 0, name: "on/air".to_owned(), attributes: LIVE };
    log.push(&mut manifest, vec![open]);
    for turn in 0..20 {
        let tail: Vec<(usize, usize)> = (0..8).map(|at| ((turn * 8 + at) * 10, 10)).collect();
        for (offset, len) in &tail {
            let entry = log.chunk(*offset, *len);
            log.push(&mut manifest, vec![entry]);
        }
        let entries = log.cut_anew(&manifest, &tail);
        log.push(&mut manifest, entries);
    }
    let close = Entry::Close { object: 0, len: 1_600, digest: Hash::of(&log.bytes) };
    log.push(&mut manifest, vec![close, Entry::End { content_len: 1_600, digest: Hash::ZERO }]);
    log
}

/// The lengths of both logs.
fn logs(store: &JobStore) -> (u64, u64) {
    let len = |name: &str| store.folder().join(name).metadata().unwrap().len();
    (len("pages.log"), len("have.log"))
}

#[test]
fn a_start_drops_what_is_void_from_the_logs() {
    for layout in [Layout::Files, Layout::Spool] {
        let (disk, log) = (Disk::new(layout), cut_anew_often());
        let object = job_object(1, LONG);
        let root = disk.root();
        let store = root.create(&unsigned(&object), &object).unwrap();
        let mut manifest = Manifest::new(object.id, LONG);
        while store.pages() < log.pages.len() as u32 {
            log.append(&store, &mut manifest, 1, false);
            for chunk in 0..store.chunks() {
                if store.is_described(chunk) && !store.holds(chunk) {
                    store.write_chunk(chunk, &log.chunks[&chunk]).unwrap();
                }
            }
            drop(flush(&root, &[Arc::clone(&store)]));
        }
        let before = logs(&store);
        let pages_log = store.folder().join("pages.log");
        let all_pages = std::fs::read(&pages_log).unwrap();
        let pages = store.pages();
        let held = store.state().durable.clone();
        drop((root, store));
        // What was written anew says the same, also if only `have.log` was when it was killed.
        for start in 0..3 {
            if start == 2 {
                std::fs::write(&pages_log, &all_pages).unwrap();
            }
            let again = disk.recover_one();
            let after = logs(&again.store);
            assert!(after.0 * 2 < before.0, "{layout:?}: {before:?} became {after:?}");
            assert_eq!(again.notes, Vec::<String>::new());
            assert_eq!((&again.held, again.store.pages()), (&held, pages), "{layout:?}");
            assert_eq!(again.manifest.last_hash(), manifest.last_hash());
            assert!(again.complete);
            for chunk in (0..again.store.chunks()).filter(|chunk| again.store.is_described(*chunk))
            {
                assert_eq!(again.store.read_chunk(chunk).unwrap(), log.chunks[&chunk]);
            }
        }
    }
}

#[test]
fn a_job_that_keeps_all_its_pages_is_left_as_it_is() {
    let (disk, root, store, log) = setup();
    for at in 0..3 {
        store.append_page(&log.pages[at].0, &log.pages[at].1).unwrap();
    }
    drop(flush(&root, &[Arc::clone(&store)]));
    let inode = |store: &JobStore| {
        use std::os::unix::fs::MetadataExt;
        store.folder().join("pages.log").metadata().unwrap().ino()
    };
    let before = inode(&store);
    drop((root, store));
    assert_eq!(inode(&disk.recover_one().store), before);
}
