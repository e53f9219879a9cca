//! Figures for `docs/DECISIONS.md`: run with `--ignored --nocapture`.

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{BASE_FLUSH_EVERY, FLUSH_BYTES_MAX, Flusher, NODE_FLUSH_EVERY};
use super::*;

static NUMBER: AtomicU8 = AtomicU8::new(1);

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn run(what: &str, layout: Layout, period: Duration, files: usize, len: usize, chunk_max: u32) {
    let disk = Disk::new(layout);
    let names: Vec<String> = (0..files).map(|i| format!("files/{i}")).collect();
    let bytes = vec![0x5a; len];
    // Each job has a name of its own, and with it a region of the disk.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let object = job_object(number, chunk_max);
    let mut packer = Packer::new(object.id, chunk_max);
    for (number, name) in (0..).zip(&names) {
        packer.object(number, name, FILE, &bytes);
    }
    let (pages, chunks) = packer.finish();
    let root = disk.root();
    let store = root.create(&unsigned(&object), &object).unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(10_000);
    let flushes = Arc::new(Mutex::new(0));
    let count = Arc::clone(&flushes);
    let flusher = Flusher::start(root, period, FLUSH_BYTES_MAX, move |flushed| {
        *count.lock().unwrap() += 1;
        assert!(flushed.error.is_none(), "{flushed:?}");
        if flushed.complete {
            tell.send(()).unwrap();
        }
    })
    .unwrap();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for (bytes, page) in &pages {
        store.append_page(bytes, page).unwrap();
        let first = page.first_chunk as usize;
        for (chunk, bytes) in chunks
            .iter()
            .enumerate()
            .skip(first)
            .take(page.chunk_count() as usize)
        {
            store.write_chunk(chunk as u64, bytes).unwrap();
            flusher.dirty(&store, bytes.len() as u64).unwrap();
        }
        flusher.dirty(&store, 0).unwrap();
    }
    let written = start.elapsed();
    told.recv().unwrap();
    let (all, used) = (start.elapsed(), cpu_seconds() - cpu);
    let flushes = *flushes.lock().unwrap();
    println!(
        "{what}: written {written:.2?}, complete {all:.2?}, cpu {used:.2} s, {flushes} reports"
    );
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for chunk in 0..chunks.len() as u64 {
        assert_eq!(
            store.read_chunk(chunk).unwrap().len(),
            chunks[chunk as usize].len()
        );
    }
    println!(
        "  read back {:.2?}, cpu {:.2} s",
        start.elapsed(),
        cpu_seconds() - cpu
    );
    flusher.stop().unwrap();
    drop(store);
    let start = Instant::now();
    assert!(disk.recover_one().complete);
    println!("  recovered in {:.2?}", start.elapsed());
}

/// 1 GiB in pieces of 64 KiB, flushed every 64 MiB: what the disk costs without a store.
fn bare() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("bare")).unwrap();
    let piece = vec![0x5a; 64 * 1024];
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for i in 0..16 * 1024 {
        file.write_all_at(&piece, i * 64 * 1024).unwrap();
        if i % 1024 == 1023 {
            file.sync_data().unwrap();
        }
    }
    println!(
        "1 GiB bare: {:.2?}, cpu {:.2} s",
        start.elapsed(),
        cpu_seconds() - cpu
    );
}

#[test]
#[ignore = "a measurement"]
fn stores() {
    for _ in 0..3 {
        bare();
        run(
            "1 GiB, spool",
            Layout::Spool,
            BASE_FLUSH_EVERY,
            1,
            1 << 30,
            64 * 1024,
        );
        run(
            "1 GiB, files",
            Layout::Files,
            NODE_FLUSH_EVERY,
            1,
            1 << 30,
            64 * 1024,
        );
        run(
            "5,000 files of 10 KB, spool",
            Layout::Spool,
            BASE_FLUSH_EVERY,
            5_000,
            10_000,
            16 * 1024,
        );
        run(
            "5,000 files of 10 KB, files",
            Layout::Files,
            NODE_FLUSH_EVERY,
            5_000,
            10_000,
            16 * 1024,
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn flushing_one_by_one_or_all() {
    let folder = tempfile::tempdir().unwrap();
    for files in [1, 2, 4, 8, 16, 32, 64, 256] {
        let make = |round: usize| -> Vec<File> {
            let make = |i| {
                let path = folder.path().join(format!("{round} {files} {i}"));
                std::fs::write(&path, [1; 10_000]).unwrap();
                File::open(&path).unwrap()
            };
            (0..files).map(make).collect()
        };
        let (mut each, mut all) = (Duration::MAX, Duration::MAX);
        for round in 0..5 {
            let made = make(2 * round);
            let start = Instant::now();
            made.iter().for_each(|file| file.sync_data().unwrap());
            each = each.min(start.elapsed());
            let made = make(2 * round + 1);
            let start = Instant::now();
            rustix::fs::syncfs(&made[0]).unwrap();
            all = all.min(start.elapsed());
        }
        println!("{files} files: fdatasync each {each:.2?}, syncfs {all:.2?}");
    }
}
