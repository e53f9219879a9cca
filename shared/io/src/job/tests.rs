//! A job whose disk has no room.

use std::time::Duration;

use ring::signature::KeyPair;
use shared::job::{Keep, Kind, ServerList};
use shared::manifest::{Attributes, ObjectKind, Slice};
use shared::wire::message::Phase;

use super::*;
use crate::store::{FLUSH_BYTES_MAX, Layout, StoreRoot, room};

#[derive(Debug)]
struct Deaf;

impl Watcher for Deaf {
    fn changed(&self, _job: &Arc<Job>, _urgent: bool) {}
    fn ended(&self, _job: &Arc<Job>, _size: u64, _digest: Hash) {}
}

fn object(key: &Ed25519KeyPair) -> JobObject {
    JobObject {
        id: JobId([1; 16]),
        name: Name::new("j").unwrap(),
        tenant: Name::new("t").unwrap(),
        kind: Kind::Files,
        size: None,
        created_at_ms: 0,
        stripes: 1,
        chunk_max: 16_384,
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        page_key: key.public_key().as_ref().try_into().unwrap(),
        servers: 0,
        servers_hash: ServerList::new(Vec::new()).hash(),
    }
}

/// The pages and chunks of a job with one file of two chunks, a page for each.
fn content(object: &JobObject, key: &Ed25519KeyPair) -> ([PageBytes; 2], [Bytes; 2]) {
    let chunks = [Bytes::from(vec![1; 100]), Bytes::from(vec![2; 50])];
    let entry = |number: usize, offset| Entry::Chunk {
        len: chunks[number].len() as u32,
        hash: Hash::of(&chunks[number]),
        slices: vec![Slice { object: 0, offset, len: chunks[number].len() as u32 }],
    };
    let attributes = Attributes { kind: ObjectKind::File, modified: None, executable: false };
    let open = Entry::Open { object: 0, name: "f".to_owned(), attributes };
    let digest = Hash::of(&chunks.concat());
    let ends =
        [Entry::Close { object: 0, len: 150, digest }, Entry::End { content_len: 150, digest }];
    let mut manifest = Manifest::new(object.id, object.chunk_max);
    let first = manifest.next_page(vec![open, entry(0, 0)]);
    manifest.accept(&first, &first.draft()).unwrap();
    let second = manifest.next_page([vec![entry(1, 100)], ends.to_vec()].concat());
    ([first, second].map(|page| page.draft().sign(key)), chunks)
}

#[tokio::test]
async fn a_job_without_room_says_so_and_goes_on_when_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let key = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let object = object(&key);
    let root = StoreRoot::open(folder.path(), Layout::Files).unwrap();
    let store = root.create(&object.sign(&key), &object).unwrap();
    let relays = Arc::new(Relays::default());
    let known = Arc::clone(&relays);
    let flusher = Flusher::start(
        Arc::clone(&root),
        Duration::from_millis(1),
        FLUSH_BYTES_MAX,
        move |flushed| {
            if let Some(job) = known.get(flushed.job) {
                job.flushed(&flushed);
            }
        },
    );
    let surroundings = Arc::new(Surroundings {
        clock: Clock::start(),
        links: Arc::default(),
        receiving: AtomicUsize::new(0),
        tasks: TaskTracker::new(),
        flusher: Some(Arc::new(flusher.unwrap())),
        watcher: Arc::new(Deaf),
    });
    let keeping = Keeping::Disk(Arc::clone(&store));
    let (pages, chunks) = content(&object, &key);
    let job = Job::new(object, Origin::Signed, keeping, surroundings);
    relays.insert(Arc::clone(&job));
    let phase = async |wanted: fn(&Phase) -> bool| {
        let looking = async {
            while !wanted(&job.report().phase) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), looking).await;
        assert!(found.is_ok(), "{:?}", job.report());
    };

    room::take(&store, 0);
    let [first, second] = pages;
    assert!(job.arrived(Arrival::Page { bytes: first, in_place: false, from: None }));
    assert!(job.arrived(Arrival::Chunk(0, chunks[0].clone(), None)));
    phase(|phase| matches!(phase, Phase::Stalled(reason) if reason.contains("disk full"))).await;
    // What comes meanwhile waits too, in whatever order.
    assert!(job.arrived(Arrival::Chunk(1, chunks[1].clone(), None)));
    assert!(job.arrived(Arrival::Page { bytes: second, in_place: false, from: None }));
    room::give(&store, 0);
    phase(|phase| *phase == Phase::Complete).await;
    let file = store.folder().join("files").join("f");
    assert_eq!(std::fs::read(file).unwrap(), chunks.concat());
    job.stop();
}

/// At the base: the page behind a page that cuts anew arrives before the last short chunk.
#[tokio::test]
async fn a_late_short_chunk_behind_a_page_that_cuts_anew_fails_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let key = Arc::new(Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap());
    let object = object(&key);
    let root = StoreRoot::open(folder.path(), Layout::Spool).unwrap();
    let store = root.create(&object.sign(&key), &object).unwrap();
    let surroundings = Arc::new(Surroundings {
        receiving: AtomicUsize::new(0),
        clock: Clock::start(),
        links: Arc::default(),
        tasks: TaskTracker::new(),
        flusher: None,
        watcher: Arc::new(Deaf),
    });
    let chunk = |offset: u64, len: u32| Entry::Chunk {
        len,
        hash: Hash::of(&vec![7; len as usize]),
        slices: vec![Slice { object: 0, offset, len }],
    };
    let mut manifest = Manifest::new(object.id, object.chunk_max);
    let attributes = Attributes { kind: ObjectKind::Live, modified: None, executable: false };
    let mut pages = Vec::new();
    let mut push = |manifest: &mut Manifest, entries: Vec<Entry>| {
        let page = manifest.next_page(entries);
        manifest.accept(&page, &page.draft()).unwrap();
        pages.push(page.draft());
    };
    push(&mut manifest, vec![Entry::Open { object: 0, name: "f".to_owned(), attributes }]);
    push(&mut manifest, vec![chunk(0, 10)]);
    push(&mut manifest, vec![chunk(10, 10)]);
    let recut = manifest.recut_entry();
    push(&mut manifest, vec![recut, chunk(0, 20)]);
    push(&mut manifest, vec![chunk(20, 10)]);
    let origin = Origin::Drafts { publisher: Name::new("p").unwrap(), key };
    let job = Job::new(object, origin, Keeping::Disk(store), surroundings);
    for bytes in pages {
        assert!(job.arrived(Arrival::Page { bytes, in_place: false, from: None }));
    }
    assert!(job.arrived(Arrival::Chunk(0, Bytes::from(vec![7; 10]), None)));
    while job.is_working() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(job.report().phase, Phase::Receiving);
}
