//! A job and its worker: a disk without room, pages and chunks in an unlucky order, the last flush.

use std::path::Path;
use std::time::Duration;

use ring::signature::KeyPair;
use shared::job::{Keep, Kind, ServerList};
use shared::manifest::{Attributes, ObjectKind, Slice};
use shared::wire::message::Phase;

use super::*;
use crate::store::{FLUSH_BYTES_MAX, Layout, StoreRoot, room};

/// Is told of changes.
#[derive(Debug, Default)]
struct Told(Notify);

impl Watcher for Told {
    fn changed(&self, _job: &Arc<Job>, _urgent: bool) {
        self.0.notify_one();
    }
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
        deadline_s: None,
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

/// A live log, whose chunks are all sevens.
struct Log {
    manifest: Manifest,
    pages: Vec<PageBytes>,
}

impl Log {
    fn new(object: &JobObject) -> Self {
        let manifest = Manifest::new(object.id, object.chunk_max);
        let attributes = Attributes { kind: ObjectKind::Live, modified: None, executable: false };
        let mut log = Self { manifest, pages: Vec::new() };
        log.push(vec![Entry::Open { object: 0, name: "f".to_owned(), attributes }]);
        log
    }

    fn push(&mut self, entries: Vec<Entry>) {
        let page = self.manifest.next_page(entries);
        self.manifest.accept(&page, &page.draft()).unwrap();
        self.pages.push(page.draft());
    }
}

fn chunk(offset: u64, len: u32) -> Entry {
    let slices = vec![Slice { object: 0, offset, len }];
    Entry::Chunk { len, hash: Hash::of(&vec![7; len as usize]), slices }
}

fn surroundings(flusher: Option<Arc<Flusher>>, told: &Arc<Told>) -> Arc<Surroundings> {
    Arc::new(Surroundings {
        receiving: AtomicUsize::new(0),
        clock: Clock::start(),
        links: Arc::default(),
        tasks: TaskTracker::new(),
        flusher,
        watcher: Arc::clone(told) as Arc<dyn Watcher>,
    })
}

/// A job without content, at a node.
pub(crate) fn on_disk(folder: &Path) -> Arc<Job> {
    let key = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let object = object(&key);
    let root = StoreRoot::open(folder, Layout::Files).unwrap();
    let store = root.create(&object.sign(&key), &object).unwrap();
    let surroundings = surroundings(None, &Arc::default());
    Job::new(object, Origin::Signed, Keeping::Disk(store), surroundings)
}

/// Waits until all that has arrived was worked on.
async fn worked(tasks: &TaskTracker) {
    tasks.close();
    tasks.wait().await;
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
    let told = Arc::new(Told::default());
    let surroundings = surroundings(Some(Arc::new(flusher.unwrap())), &told);
    let keeping = Keeping::Disk(Arc::clone(&store));
    let (pages, chunks) = content(&object, &key);
    let job = Job::new(object, Origin::Signed, keeping, surroundings);
    relays.insert(Arc::clone(&job));
    let phase = async |wanted: fn(&Phase) -> bool| {
        let looking = async {
            while !wanted(&job.report().phase) {
                told.0.notified().await;
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
    let surroundings = surroundings(None, &Arc::default());
    let tasks = surroundings.tasks.clone();
    let mut log = Log::new(&object);
    log.push(vec![chunk(0, 10)]);
    log.push(vec![chunk(10, 10)]);
    let recut = log.manifest.recut_entry();
    log.push(vec![recut, chunk(0, 20)]);
    log.push(vec![chunk(20, 10)]);
    let origin = Origin::Drafts { publisher: Name::new("p").unwrap(), key };
    let job = Job::new(object, origin, Keeping::Disk(store), surroundings);
    for bytes in log.pages {
        assert!(job.arrived(Arrival::Page { bytes, in_place: false, from: None }));
    }
    assert!(job.arrived(Arrival::Chunk(0, Bytes::from(vec![7; 10]), None)));
    worked(&tasks).await;
    assert_eq!(job.report().phase, Phase::Receiving);
}

/// Two sources of a live log differ for a moment in what they know to be void.
#[tokio::test]
async fn a_page_that_is_void_and_comes_again_fails_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let key = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let object = object(&key);
    let root = StoreRoot::open(folder.path(), Layout::Files).unwrap();
    let store = root.create(&object.sign(&key), &object).unwrap();
    let surroundings = surroundings(None, &Arc::default());
    let tasks = surroundings.tasks.clone();
    let mut log = Log::new(&object);
    for offset in [0, 20] {
        log.push(vec![chunk(offset, 10)]);
        log.push(vec![chunk(offset + 10, 10)]);
        let recut = log.manifest.recut_entry();
        log.push(vec![recut, chunk(offset, 20)]);
    }
    let job = Job::new(object, Origin::Signed, Keeping::Disk(Arc::clone(&store)), surroundings);
    let signed = |page: &PageBytes| Arrival::Page {
        bytes: page.clone().sign(&key),
        in_place: false,
        from: None,
    };
    for page in &log.pages {
        assert!(job.arrived(signed(page)));
    }
    worked(&tasks).await;
    assert!(matches!(store.read_page(1), Err(StoreError::NoPage(1))), "page 1 is void");
    assert!(job.arrived(signed(&log.pages[1])));
    worked(&tasks).await;
    assert_eq!(job.report().phase, Phase::Receiving);
}

#[tokio::test]
async fn a_flusher_that_panics_in_its_last_flush_is_no_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    let key = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let object = object(&key);
    let root = StoreRoot::open(folder.path(), Layout::Files).unwrap();
    let store = root.create(&object.sign(&key), &object).unwrap();
    let page = Log::new(&object).pages[0].sign(&key);
    store.append_page(&page, &Arc::new(page.decode().unwrap())).unwrap();
    let never = Duration::from_secs(3_600);
    let flusher = |report: fn(Flushed)| {
        let flusher = Flusher::start(Arc::clone(&root), never, FLUSH_BYTES_MAX, report);
        surroundings(Some(Arc::new(flusher.unwrap())), &Arc::default())
    };
    let panics = flusher(|_flushed| panic!("wanted by the test"));
    panics.flusher.as_ref().unwrap().dirty(&store, 0).unwrap();
    assert!(matches!(panics.stop_flusher().await, Err(StoreError::FlusherPanicked)));
    let sound = flusher(|_flushed| {});
    sound.flusher.as_ref().unwrap().dirty(&store, 0).unwrap();
    assert!(sound.stop_flusher().await.is_ok());
}
