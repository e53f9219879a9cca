//! The thread that flushes.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::super::{FLUSH_BYTES_MAX, Flusher, FlusherPanicked};
use super::*;

/// Longer than any test may take: a flush that is due only then never comes.
const NEVER: Duration = Duration::from_secs(100_000);

fn start(root: &Arc<StoreRoot>, period: Duration, bytes_max: u64) -> (Flusher, Receiver<Flushed>) {
    let (tell, told) = sync_channel(1_000);
    let report = move |flushed| tell.send(flushed).unwrap();
    (Flusher::start(Arc::clone(root), period, bytes_max, report).unwrap(), told)
}

#[test]
fn an_idle_flusher_flushes_at_once_and_then_when_the_job_is_whole() {
    let (disk, job) = (Disk::new(Layout::Files), Job::mixed(1));
    let (root, store) = disk.create(&job);
    let (flusher, told) = start(&root, NEVER, FLUSH_BYTES_MAX);
    job.append_pages(&store);
    job.write(&store, 0);
    flusher.dirty(&store, 64).unwrap();
    assert_eq!(told.recv().unwrap().durable, [(0, 1)]);
    // It rests now; only the last chunk wakes it.
    for chunk in 1..job.chunks.len() as u64 {
        job.write(&store, chunk);
        flusher.dirty(&store, 64).unwrap();
    }
    let report = told.recv().unwrap();
    assert_eq!(report.durable, [(1, job.chunks.len() as u64 - 1)]);
    assert!(told.recv().unwrap().complete);
    job.assert_complete(&store);
    flusher.stop().unwrap();
}

#[test]
fn a_full_group_is_flushed_before_its_time() {
    let (disk, job) = (Disk::new(Layout::Spool), Job::mixed(1));
    let (root, store) = disk.create(&job);
    let (flusher, told) = start(&root, NEVER, 200);
    job.append_pages(&store);
    flusher.dirty(&store, 0).unwrap();
    told.recv().unwrap();
    for chunk in 0..4 {
        job.write(&store, chunk);
        flusher.dirty(&store, 64).unwrap();
    }
    let mut durable = 0;
    while durable < 4 {
        durable += told.recv().unwrap().durable.iter().map(|(_, len)| len).sum::<u64>();
    }
    flusher.stop().unwrap();
}

#[test]
fn what_waits_is_flushed_after_the_period_and_at_the_stop() {
    let (disk, job) = (Disk::new(Layout::Spool), Job::mixed(1));
    let (root, store) = disk.create(&job);
    let (flusher, told) = start(&root, Duration::from_millis(1), FLUSH_BYTES_MAX);
    job.append_pages(&store);
    for chunk in 0..4 {
        job.write(&store, chunk);
        flusher.dirty(&store, 64).unwrap();
        assert_eq!(told.recv().unwrap().durable, [(chunk, 1)]);
    }
    flusher.stop().unwrap();
    let (flusher, told) = start(&root, NEVER, FLUSH_BYTES_MAX);
    job.write(&store, 4);
    flusher.dirty(&store, 64).unwrap();
    job.write(&store, 5);
    flusher.dirty(&store, 64).unwrap();
    flusher.stop().unwrap();
    let durable: u64 = told.iter().flat_map(|report| report.durable).map(|(_, len)| len).sum();
    assert_eq!(durable, 2);
}

#[test]
fn a_panic_is_seen() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (disk, job) = (Disk::new(Layout::Spool), Job::mixed(1));
    let (root, store) = disk.create(&job);
    let (tell, told) = sync_channel::<()>(1);
    let report = move |_| {
        let _tell = &tell;
        panic!("wanted by the test");
    };
    let flusher = Flusher::start(root, NEVER, FLUSH_BYTES_MAX, report).unwrap();
    job.append_pages(&store);
    flusher.dirty(&store, 0).unwrap();
    // The channel closes when the thread has unwound.
    assert!(told.recv().is_err());
    runtime.block_on(flusher.panicked());
    assert!(matches!(flusher.stop(), Err(FlusherPanicked)));
}
