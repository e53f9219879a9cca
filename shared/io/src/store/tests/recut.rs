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
