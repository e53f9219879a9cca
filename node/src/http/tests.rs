//! The routes over a real store.

use std::pin::Pin;
use std::task::Poll;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, Request, Uri};
use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use shared::id::{JobId, Name};
use shared::job::{JobObject, Keep, ServerList};
use shared::manifest::{Attributes, Entry, Manifest, Slice};
use shared::seal::Hash;
use shared_io::clock::Clock;
use shared_io::job::{Origin, Surroundings, Watcher};
use shared_io::store::{Layout, StoreRoot, flush_group};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::*;

const CHUNK: usize = 16 * 1024;

#[derive(Debug)]
struct Deaf;

impl Watcher for Deaf {
    fn changed(&self, _job: &Arc<Job>, _urgent: bool) {}
    fn ended(&self, _job: &Arc<Job>, _size: u64, _digest: Hash) {}
}

/// A node with one job `j`, whose log the test writes.
struct Node {
    _dir: TempDir,
    root: Arc<StoreRoot>,
    relays: Arc<Relays>,
    store: Arc<JobStore>,
    job: Arc<Job>,
    manifest: Manifest,
    objects: u32,
    stop: CancellationToken,
    router: Router,
}

/// An answer, and its body as far as it was read.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Node {
    fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let object = JobObject {
            id: JobId([1; 16]),
            name: Name::new("j").unwrap(),
            tenant: Name::new("t").unwrap(),
            kind,
            size: None,
            created_at_ms: 0,
            deadline_s: None,
            stripes: 1,
            chunk_max: CHUNK as u32,
            priority: 5,
            rate_bps: None,
            keep: Keep::Forever,
            page_key: key.public_key().as_ref().try_into().unwrap(),
            servers: 0,
            servers_hash: ServerList::new(Vec::new()).hash(),
        };
        let root = StoreRoot::open(&dir.path().join("jobs"), Layout::Files).unwrap();
        let store = root.create(&object.sign(&key), &object).unwrap();
        let surroundings = Arc::new(Surroundings {
            clock: Clock::start(),
            links: Arc::default(),
            tasks: TaskTracker::new(),
            flusher: None,
            watcher: Arc::new(Deaf),
            receiving: std::sync::atomic::AtomicUsize::new(0),
        });
        let manifest = Manifest::new(object.id, object.chunk_max);
        let keeping = Keeping::Disk(Arc::clone(&store));
        let job = Job::new(object, Origin::Signed, keeping, surroundings);
        let relays = Arc::new(Relays::default());
        relays.insert(Arc::clone(&job));
        let stop = CancellationToken::new();
        let router = router(Arc::clone(&relays), stop.clone());
        Self { _dir: dir, root, relays, store, job, manifest, objects: 0, stop, router }
    }

    /// Appends a page.
    fn page(&mut self, entries: Vec<Entry>) {
        let page = self.manifest.next_page(entries);
        let bytes = page.draft();
        self.manifest.accept(&page, &bytes).unwrap();
        self.store.append_page(&bytes, &Arc::new(page)).unwrap();
    }

    fn open(&mut self, name: &str, kind: ObjectKind) -> (u32, Entry) {
        let object = self.objects;
        self.objects += 1;
        let modified = Some((784_111_777, 0));
        let attributes = Attributes { kind, modified, executable: false };
        (object, Entry::Open { object, name: name.to_owned(), attributes })
    }

    /// Adds `bytes` of an object as a page of chunks.
    fn add(&mut self, object: u32, offset: usize, bytes: &[u8], around: [Vec<Entry>; 2]) {
        let chunk = |(at, piece): (usize, &[u8])| {
            let (offset, len) = ((offset + at * CHUNK) as u64, piece.len() as u32);
            let slices = vec![Slice { object, offset, len }];
            Entry::Chunk { len, hash: Hash::of(piece), slices }
        };
        let [before, behind] = around;
        let chunks: Vec<Entry> = bytes.chunks(CHUNK).enumerate().map(chunk).collect();
        let first = self.manifest.chunks();
        self.page([before, chunks, behind].concat());
        for (chunk, piece) in (first..).zip(bytes.chunks(CHUNK)) {
            self.store.write_chunk(chunk, piece).unwrap();
        }
    }

    /// A file, written and not flushed.
    fn file(&mut self, name: &str, bytes: &[u8]) {
        let (object, open) = self.open(name, ObjectKind::File);
        let close = Entry::Close { object, len: bytes.len() as u64, digest: Hash::of(bytes) };
        self.add(object, 0, bytes, [vec![open], vec![close]]);
    }

    fn live(&mut self, name: &str) -> u32 {
        let (object, open) = self.open(name, ObjectKind::Live);
        self.page(vec![open]);
        object
    }

    fn end_live(&mut self, object: u32, bytes: &[u8]) {
        let close = Entry::Close { object, len: bytes.len() as u64, digest: Hash::of(bytes) };
        self.page(vec![close, Entry::End { content_len: bytes.len() as u64, digest: Hash::ZERO }]);
    }

    fn end(&mut self, content_len: usize) {
        self.page(vec![Entry::End { content_len: content_len as u64, digest: Hash::of(b"all") }]);
    }

    fn flush(&self) {
        flush_group(&self.root, &[Arc::clone(&self.store)], &|flushed| self.job.flushed(&flushed));
    }

    async fn ask(&self, method: Method, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(path.parse::<Uri>().unwrap());
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn get_with(&self, path: &str, fields: &[(&str, &str)]) -> Got {
        finish(self.ask(Method::GET, path, fields).await).await
    }

    async fn get(&self, path: &str) -> Got {
        self.get_with(path, &[]).await
    }
}

async fn frame(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

/// Reads as many bytes as are wanted, and at most so many.
async fn read(body: &mut Body, wanted: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < wanted {
        bytes.extend_from_slice(&frame(body).await.unwrap().unwrap());
    }
    assert_eq!(bytes.len(), wanted);
    bytes
}

async fn finish(response: Response) -> Got {
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = frame(&mut body).await {
        bytes.extend_from_slice(&frame.unwrap());
    }
    Got { status: parts.status.as_u16(), headers: parts.headers, body: bytes }
}

/// Whether nothing comes of `body` for now.
async fn is_silent(body: &mut Body) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx).is_pending())).await
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[tokio::test]
async fn what_a_node_holds_is_listed() {
    let mut node = Node::new(Kind::Files);
    node.file("a/b", &bytes(10));
    let got = node.get("/jobs").await;
    assert_eq!((got.status, got.header("access-control-allow-origin")), (200, "*"));
    let id = node.job.id().to_string();
    let job = json!({
        "v": 1, "id": id, "name": "j", "kind": "files", "state": "receiving", "reason": null,
        "size": null, "bytes": 0, "digest": null, "object_count": 1,
    });
    assert_eq!(got.json(), json!({ "v": 1, "jobs": [job] }));
    let (object, directory) = node.open("d", ObjectKind::Directory);
    node.page(vec![directory, Entry::Close { object, len: 0, digest: Hash::of(b"") }]);
    node.end(10);
    node.flush();
    for path in ["/jobs/j", "/jobs/j/", &format!("/jobs/{id}")] {
        let shown = node.get(path).await.json();
        assert_eq!((&shown["size"], &shown["next"]), (&json!(10), &Value::Null));
        assert_eq!(shown["digest"], Hash::of(b"all").to_string());
        let file = json!({
            "name": "a/b", "kind": "file", "state": "whole", "size": 10, "bytes": 10,
            "digest": Hash::of(&bytes(10)).to_string(),
        });
        assert_eq!(shown["objects"][0], file);
        assert_eq!(
            (&shown["objects"][1]["name"], &shown["objects"][1]["kind"]),
            (&json!("d"), &json!("directory"))
        );
    }
    assert_eq!(node.get("/jobs/j?first=1").await.json()["objects"][0]["name"], "d");
    assert_eq!(node.get("/jobs/j?first=x").await.status, 400);
}

#[tokio::test]
async fn many_objects_are_listed_in_parts() {
    let mut node = Node::new(Kind::Files);
    for page in 0..3 {
        let entries = (0..500).flat_map(|number| {
            let (object, open) = node.open(&format!("{page}-{number}"), ObjectKind::File);
            [open, Entry::Close { object, len: 0, digest: Hash::of(b"") }]
        });
        let entries = entries.collect();
        node.page(entries);
    }
    let shown = node.get("/jobs/j").await.json();
    assert_eq!(
        (shown["objects"].as_array().unwrap().len(), &shown["next"]),
        (1_000, &json!(1_000))
    );
    let rest = node.get("/jobs/j?first=1000").await.json();
    assert_eq!((rest["objects"].as_array().unwrap().len(), &rest["next"]), (500, &Value::Null));
    assert_eq!(rest["objects"][0]["name"], "2-0");
}

#[tokio::test]
async fn a_file_is_served_whole_and_in_parts() {
    let mut node = Node::new(Kind::Files);
    let content = bytes(5 * CHUNK + 3);
    node.file("clips/ü 1%.mp4", &content);
    node.end(content.len());
    node.flush();
    let path = "/jobs/j/clips/%C3%BC%201%25.mp4";
    let whole = node.get(path).await;
    let etag = format!("\"{}\"", Hash::of(&content));
    assert_eq!((whole.status, &whole.body), (200, &content));
    for (name, value) in [
        ("etag", etag.as_str()),
        ("content-length", &content.len().to_string()),
        ("content-type", "video/mp4"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    let head = finish(node.ask(Method::HEAD, path, &[]).await).await;
    assert_eq!((head.status, head.body.len(), &head.headers), (200, 0, &whole.headers));
    let len = content.len();
    for (range, from, to) in
        [("bytes=5-9", 5, 10), ("bytes=70000-", 70_000, len), ("bytes=-7", len - 7, len)]
    {
        let part = node.get_with(path, &[("range", range), ("if-range", &etag)]).await;
        assert_eq!((part.status, part.body.as_slice()), (206, &content[from..to]), "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{len}", to - 1));
        assert_eq!(part.header("content-length"), (to - from).to_string());
    }
    let changed = node.get_with(path, &[("range", "bytes=5-9"), ("if-range", "\"x\"")]).await;
    assert_eq!((changed.status, changed.body.len()), (200, len));
    let beyond = node.get_with(path, &[("range", &format!("bytes={len}-"))]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, &*format!("bytes */{len}")));
    let known = node.get_with(path, &[("if-none-match", &etag)]).await;
    assert_eq!((known.status, known.header("etag"), known.body.len()), (304, &*etag, 0));
}

#[tokio::test]
async fn what_cannot_be_had_is_named() {
    let mut node = Node::new(Kind::Files);
    node.file("f", b"");
    let (object, directory) = node.open("d", ObjectKind::Directory);
    node.page(vec![directory, Entry::Close { object, len: 0, digest: Hash::of(b"") }]);
    node.end(0);
    node.flush();
    assert_eq!(
        (node.get("/jobs/j/f").await.status, node.get("/jobs/j/f").await.body.len()),
        (200, 0)
    );
    for (path, status, words) in [
        ("/jobs/other", 404, "no job \"other\""),
        ("/jobs/other/f", 404, "no job \"other\""),
        ("/jobs/NOT%20A%20NAME/f", 404, "no job"),
        ("/jobs/00000000-0000-0000-0000-000000000000/f", 404, "no job"),
        ("/jobs/j/g", 404, "no object \"g\""),
        ("/jobs/j/f/g", 404, "no object \"f/g\""),
        ("/jobs/j/d", 404, "is a directory"),
        ("/jobs/j/../job", 400, "'..'"),
        ("/jobs/j/%2e%2e/job", 400, "'..'"),
        ("/jobs/j/f%00", 400, "control character"),
        ("/jobs/j/f%zz", 400, "hexadecimal"),
        ("/jobs/j/f?from=end", 400, "?from=live"),
        ("/jobs/j/f?form=live", 400, "?from=live"),
    ] {
        let got = node.get(path).await;
        let error = got.json()["error"].as_str().unwrap().to_owned();
        assert!(got.status == status && error.contains(words), "{path}: {} {error}", got.status);
    }
    let posted = finish(node.ask(Method::POST, "/jobs/j/f", &[]).await).await;
    assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD, OPTIONS"));
    let asked = finish(node.ask(Method::OPTIONS, "/jobs/j/f", &[]).await).await;
    assert_eq!((asked.status, asked.header("access-control-allow-methods")), (204, "GET, HEAD"));
    std::fs::remove_file(node.store.folder().join("files/f")).unwrap();
    assert_eq!(node.get("/jobs/j/f").await.status, 500);
    node.store.remove().unwrap();
    assert_eq!(node.get("/jobs/j/f").await.status, 410);
    node.relays.remove(node.job.id());
    assert_eq!(node.get("/jobs/j/f").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_yet_is_waited_for() {
    let mut node = Node::new(Kind::Files);
    let begun = tokio::time::Instant::now();
    let never = node.get("/jobs/j/f").await;
    assert_eq!((never.status, never.header("retry-after")), (503, RETRY_AFTER_S));
    assert_eq!(begun.elapsed().as_secs(), 10);
    let router = node.router.clone();
    let ask = |name: &str| {
        let uri = format!("/jobs/j/{name}").parse::<Uri>().unwrap();
        router.clone().oneshot(Request::builder().uri(uri).body(Body::empty()).unwrap())
    };
    let (mut file, mut unknown) = (std::pin::pin!(ask("f")), std::pin::pin!(ask("g")));
    let patience = std::time::Duration::from_secs(1);
    assert!(tokio::time::timeout(patience, &mut file).await.is_err());
    node.file("f", b"content");
    assert!(tokio::time::timeout(patience, &mut file).await.is_err(), "it is not durable");
    node.flush();
    assert_eq!(finish(file.await.unwrap()).await.body, b"content");
    assert!(tokio::time::timeout(patience, &mut unknown).await.is_err());
    node.end(7);
    assert_eq!(unknown.await.unwrap().status(), 404, "as soon as the log has ended");
    assert!(begun.elapsed().as_secs() < 20);
}

#[tokio::test(start_paused = true)]
async fn a_live_object_is_followed_until_it_ends() {
    let mut node = Node::new(Kind::Live);
    let content = bytes(6 * CHUNK);
    let object = node.live("on/air.ts");
    let path = "/jobs/j/on/air.ts";
    assert_eq!(node.get(path).await.status, 503, "nothing can be seen");
    assert_eq!(node.get(&format!("{path}?from=live")).await.status, 503);
    node.add(object, 0, &content[..2 * CHUNK], [vec![], vec![]]);
    let begin = node.ask(Method::GET, path, &[]).await;
    assert_eq!((begin.status(), begin.headers().get("content-length")), (StatusCode::OK, None));
    assert_eq!(begin.headers()["content-type"], "video/mp2t");
    assert_eq!(
        (begin.headers().get("etag"), &begin.headers()["cache-control"]),
        (None, &HeaderValue::from_static("no-store"))
    );
    let mut begin = begin.into_body();
    assert_eq!(read(&mut begin, 2 * CHUNK).await, content[..2 * CHUNK]);
    let range = [("range", "bytes=100-")];
    let part = node.ask(Method::GET, path, &range).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 100-9007199254740991/*");
    let mut part = part.into_body();
    assert_eq!(read(&mut part, 2 * CHUNK - 100).await, content[100..2 * CHUNK]);
    let mut edge = node.ask(Method::GET, path, &[("range", "bytes=-1")]).await.into_body();
    assert_eq!(read(&mut edge, 1).await, content[2 * CHUNK - 1..2 * CHUNK]);
    // No sync point yet: from the end of what can be seen.
    let live = format!("{path}?from=live");
    let mut unmarked = node.ask(Method::GET, &live, &[]).await.into_body();
    let sync = |offset: usize| Entry::Sync { object, offset: offset as u64 };
    node.add(object, 2 * CHUNK, &content[2 * CHUNK..4 * CHUNK], [vec![sync(2 * CHUNK)], vec![]]);
    let mut marked = node.ask(Method::GET, &live, &[]).await.into_body();
    for body in [&mut begin, &mut part, &mut edge, &mut unmarked, &mut marked] {
        assert_eq!(read(body, 2 * CHUNK).await, content[2 * CHUNK..4 * CHUNK]);
        assert!(is_silent(body).await);
    }
    let ahead = [("range", "bytes=0-80000")];
    let mut ahead = node.ask(Method::GET, path, &ahead).await.into_body();
    assert_eq!(read(&mut ahead, 4 * CHUNK).await, content[..4 * CHUNK]);
    node.add(object, 4 * CHUNK, &content[4 * CHUNK..], [vec![], vec![]]);
    node.end_live(object, &content);
    assert_eq!(read(&mut ahead, 80_001 - 4 * CHUNK).await, content[4 * CHUNK..80_001]);
    assert!(frame(&mut ahead).await.is_none());
    for body in [&mut begin, &mut part, &mut edge, &mut unmarked, &mut marked] {
        assert_eq!(read(body, 2 * CHUNK).await, content[4 * CHUNK..]);
        assert!(frame(body).await.is_none(), "it has ended");
    }
    node.flush();
    let whole = node.get(path).await;
    assert_eq!((whole.status, &whole.body), (200, &content));
    assert_eq!(whole.header("etag"), format!("\"{}\"", Hash::of(&content)));
    let late = node.get(&live).await;
    assert_eq!((late.status, late.body.len()), (200, 0));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_one_buffer() {
    let mut node = Node::new(Kind::Files);
    let content = bytes(3 * body::BUFFER_LEN as usize);
    node.file("f", &content);
    node.end(content.len());
    node.flush();
    let mut body = node.ask(Method::GET, "/jobs/j/f", &[]).await.into_body();
    let first = frame(&mut body).await.unwrap().unwrap();
    assert_eq!(first, content[..body::BUFFER_LEN as usize]);
    let patience = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(patience, frame(&mut body)).await.is_err());
    drop(first);
    let second = frame(&mut body).await.unwrap().unwrap();
    assert_eq!(second, content[body::BUFFER_LEN as usize..][..body::BUFFER_LEN as usize]);
}

#[tokio::test]
async fn only_so_many_readers_are_served_at_a_time() {
    let mut node = Node::new(Kind::Live);
    let object = node.live("a");
    node.add(object, 0, b"a", [vec![], vec![]]);
    let mut readers = Vec::new();
    for _ in 0..READERS_MAX {
        let followed = node.ask(Method::GET, "/jobs/j/a", &[]).await;
        assert_eq!(followed.status(), 200);
        readers.push(followed);
    }
    let refused = node.get("/jobs/j/a").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, RETRY_AFTER_S));
    readers.pop();
    let asked = node.ask(Method::HEAD, "/jobs/j/a", &[]).await;
    assert_eq!(finish(asked).await.status, 200);
}

#[tokio::test]
async fn who_follows_is_cut_off_when_the_node_stops_or_the_job_goes() {
    for stop in [true, false] {
        let mut node = Node::new(Kind::Live);
        let object = node.live("a");
        node.add(object, 0, b"a", [vec![], vec![]]);
        let mut body = node.ask(Method::GET, "/jobs/j/a", &[]).await.into_body();
        assert_eq!(read(&mut body, 1).await, b"a");
        assert!(is_silent(&mut body).await);
        if stop {
            node.stop.cancel();
        } else {
            node.store.remove().unwrap();
        }
        assert!(frame(&mut body).await.unwrap().is_err(), "this is no end");
        assert!(frame(&mut body).await.is_none());
    }
}
