use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use shared::job::{Dimensions, Keep, Kind, Quorum, SignedJob};
use shared::seal::Hash;
use shared::view::{Event, NodeJobState};
use shared::wire::message::{Phase, Report};
use shared::wire::request::{JobRef, Refusal, RefusalKind, Reply, Request};

use shared_io::data_folder::DataFolder;

use super::*;
use shared::id::Role;

/// Remembers what it was told to do.
#[derive(Default)]
struct Told {
    orders: Mutex<BTreeMap<(Name, JobId), Assign>>,
    queries: Mutex<Vec<(Name, JobId)>>,
    drops: Mutex<Vec<JobId>>,
    closed: Mutex<Vec<(JobId, JobState)>>,
    up: Mutex<Vec<Name>>,
    full: Mutex<Vec<JobId>>,
    used: AtomicU64,
}

impl Session for Told {
    fn assign(&self, node: &Name, job: JobId, order: Assign) {
        self.orders.lock().unwrap().insert((node.clone(), job), order);
    }
    fn query(&self, node: &Name, job: JobId) {
        self.queries.lock().unwrap().push((node.clone(), job));
    }
    fn drop_content(&self, job: JobId) {
        self.drops.lock().unwrap().push(job);
    }
    fn closed(&self, job: JobId, state: JobState) {
        self.closed.lock().unwrap().push((job, state));
    }
    fn free_space(&self) -> u64 {
        (1 << 40) - self.used.load(Ordering::Relaxed)
    }
    fn waits_for(&self, job: JobId) -> Option<String> {
        self.full.lock().unwrap().contains(&job).then(|| "no room".to_owned())
    }
    fn link(&self, node: &Name) -> Link {
        let up = self.up.lock().unwrap().contains(node);
        let state = if up { NodeState::Up } else { NodeState::Down };
        Link { address: String::new(), state, rtt_ms: None }
    }
}

struct World {
    jobs: Jobs,
    told: Arc<Told>,
    seconds: Arc<AtomicU64>,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn asker(role: Role, text: &str) -> Asker {
    Asker { role, name: name(text) }
}

fn client() -> Asker {
    asker(Role::Client, "t")
}

fn dimensions(job: &str, to: &str) -> Dimensions {
    Dimensions {
        kind: Kind::Files,
        name: (!job.is_empty()).then(|| name(job)),
        to: vec![to.parse().unwrap()],
        size: Some(100),
        deadline_s: Some(60),
        quorum: Quorum::Count(1),
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        grace_s: 300,
    }
}

impl World {
    async fn open(dir: &Path) -> Self {
        let opened = Ledger::open(&DataFolder::open(dir).unwrap(), 1_000_000).await.unwrap();
        let key = Arc::new(Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap());
        let told = Arc::new(Told::default());
        let seconds = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&seconds);
        let clock = Arc::new(move || {
            let seconds = shown.load(Ordering::SeqCst);
            (Time::from_micros(seconds * 1_000_000), 1_700_000_000_000 + seconds * 1_000)
        });
        let session: Arc<dyn Session> = Arc::clone(&told) as Arc<dyn Session>;
        Self { jobs: Jobs::start(opened, key, clock, session), told, seconds }
    }

    async fn admit(&self, node: &str, labels: &[(&str, &str)]) -> Admission {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let applicant = Applicant { name: name(node), labels, store: [1; 16], boot: 1 };
        let admission = self.jobs.admit(applicant).await.unwrap().unwrap();
        let Admission { incarnation, new_store } = admission;
        self.input(Input::NodeUp { node: name(node), incarnation, new_store }).await;
        admission
    }

    async fn input(&self, input: Input) {
        self.jobs.input(input).await.unwrap();
    }

    async fn ask(&self, asker: &Asker, request: Request) -> Reply {
        match self.jobs.handle(asker, request).await.unwrap() {
            Answer::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    async fn create(&self, key: u8, dimensions: Dimensions) -> Result<SignedJob, Refusal> {
        let dimensions = Box::new(dimensions);
        match self.ask(&client(), Request::Create { key: [key; 16], dimensions }).await {
            Reply::Created(object) => Ok(*object),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    async fn refusal(&self, key: u8, dimensions: Dimensions) -> (RefusalKind, String) {
        let refusal = self.create(key, dimensions).await.unwrap_err();
        (refusal.kind, refusal.text)
    }

    async fn view(&self, asker: &Asker, job: &str) -> Option<JobView> {
        match self.ask(asker, Request::Job(job.parse().unwrap())).await {
            Reply::Job(view) => Some(*view),
            Reply::Refused(refusal) => {
                assert!(refusal.text.contains(job), "{refusal:?}");
                None
            }
            other => panic!("{other:?}"),
        }
    }

    async fn watch(&self, job: JobId) -> Watcher {
        match self.jobs.handle(&client(), Request::Watch(JobRef::Id(job))).await.unwrap() {
            Answer::Watch(watcher) => watcher,
            other => panic!("{other:?}"),
        }
    }

    async fn report(&self, node: &str, job: JobId, phase: Phase, bytes: u64) {
        let report = Report { bytes, rate_bps: 1, ..Report::of_nothing(phase) };
        self.input(Input::Report { node: name(node), incarnation: 1, job, report }).await;
    }
}

fn job_of(object: &SignedJob) -> JobId {
    let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let public = ring::signature::KeyPair::public_key(&key).as_ref().try_into().unwrap();
    object.open(&public).unwrap().id
}

async fn events(mut watcher: Watcher) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    while let Some(event) = watcher.next().await {
        events.push(event);
    }
    events
}

fn end() -> Option<(u64, Hash)> {
    Some((100, Hash([9; 32])))
}

#[tokio::test]
async fn a_job_is_created_reported_closed_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    world.admit("a", &[]).await;
    let job = job_of(&world.create(1, dimensions("j", "all")).await.unwrap());
    let order = world.told.orders.lock().unwrap().get(&(name("a"), job)).cloned();
    assert!(matches!(order, Some(Assign::Open(_))), "{order:?}");
    let watcher = world.watch(job).await;
    world.input(Input::Content { job, bytes: 100, end: end() }).await;
    world.report("a", job, Phase::Receiving, 50).await;
    world.told.full.lock().unwrap().push(job);
    let alice = asker(Role::Operator, "ops");
    let open = world.view(&alice, &job.to_string()).await.unwrap();
    assert_eq!(open.reason.as_deref(), Some("no room"), "an open job tells what it waits for");
    world.report("a", job, Phase::Complete, 100).await;
    let closed = world.view(&alice, &job.to_string()).await.unwrap();
    assert_eq!(closed.reason, None);
    let bodies: Vec<Arc<Event>> = events(watcher).await;
    let kinds = bodies.iter().map(|event| match &event.body {
        EventBody::Created => "created",
        EventBody::Progress { .. } => "progress",
        EventBody::Node { state, .. } => state.as_str(),
        EventBody::Quorum => "quorum",
        EventBody::Closed(view) => view.state.as_str(),
    });
    let kinds: Vec<&str> = kinds.filter(|kind| *kind != "progress").collect();
    let complete = NodeJobState::Complete.as_str();
    assert_eq!(kinds, ["created", "receiving", complete, "quorum", JobState::Complete.as_str()]);
    assert_eq!(*world.told.closed.lock().unwrap(), [(job, JobState::Complete)]);

    // As after a kill: what a watcher was told stands in the files as they are now.
    let copy = tempfile::tempdir().unwrap();
    for file in ["ledger.sqlite", "ledger.sqlite-wal"] {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let after = World::open(copy.path()).await;
    let (before, after_view) =
        (world.view(&client(), "j").await.unwrap(), after.view(&client(), "j").await.unwrap());
    assert_eq!(after_view.state, JobState::Complete);
    assert_eq!(after_view.closed_at, before.closed_at);
    assert_eq!(after_view.nodes[0].completed_at, before.nodes[0].completed_at);
    let late: Vec<Arc<Event>> = events(after.watch(job).await).await;
    assert!(matches!(late[0].body, EventBody::Created));
    assert!(matches!(&late[1].body, EventBody::Closed(view) if view.state == JobState::Complete));
    assert_eq!(late.len(), 2);
}

#[tokio::test]
async fn a_clean_stop_keeps_open_jobs_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let first = world.admit("a", &[]).await;
    let object = world.create(1, dimensions("j", "all")).await.unwrap();
    let watcher = world.watch(job_of(&object)).await;
    world.seconds.store(40, Ordering::SeqCst);
    world.jobs.close().await;
    assert!(!events(watcher).await.is_empty(), "the watch ends");
    assert_eq!(world.jobs.input(Input::Tick).await, Err(Stopped));
    let epoch = world.jobs.epoch();
    drop(world);

    let world = World::open(dir.path()).await;
    assert!(world.jobs.epoch() > epoch);
    let job = job_of(&object);
    assert_eq!(world.jobs.open_jobs(), [job]);
    assert_eq!(world.create(1, dimensions("j", "all")).await, Ok(object), "under the same key");
    assert_eq!(world.admit("a", &[]).await, first, "the same store and boot");
    world.input(Input::Content { job, bytes: 100, end: end() }).await;
    world.seconds.store(19, Ordering::SeqCst);
    world.input(Input::Tick).await;
    world.view(&client(), "j").await;
    assert!(world.told.queries.lock().unwrap().is_empty());
    world.seconds.store(20, Ordering::SeqCst);
    world.input(Input::Tick).await;
    world.view(&client(), "j").await;
    assert_eq!(*world.told.queries.lock().unwrap(), [(name("a"), job)], "40 s had passed before");
}

#[tokio::test]
async fn a_creation_that_cannot_be_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let (kind, text) = world.refusal(1, dimensions("j", "all")).await;
    assert!(kind == RefusalKind::Cannot && text.contains("no node was ever admitted"), "{text}");
    world.admit("a", &[("site", "eu")]).await;
    world.admit("b", &[("site", "us")]).await;
    let cases = [("a,zz", "unknown node zz"), ("site=xx", "no node matches --to site=xx")];
    for (to, expected) in cases {
        let (kind, text) = world.refusal(1, dimensions("j", to)).await;
        assert!(kind == RefusalKind::Cannot && text.contains(expected), "{text}");
    }
    let object = world.create(1, dimensions("j", "site=us")).await.unwrap();
    let view = world.view(&client(), "j").await.unwrap();
    assert_eq!(view.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(world.create(1, dimensions("j", "all")).await.as_ref(), Ok(&object));
    let (_, text) = world.refusal(2, dimensions("j", "all")).await;
    assert!(text.contains("name j is taken") && text.contains(&view.id), "{text}");
    let unnamed = job_of(&world.create(3, dimensions("", "all")).await.unwrap());
    let made_up = world.view(&client(), &unnamed.to_string()).await.unwrap().name;
    assert!(made_up.starts_with("job-"), "{made_up}");
}

#[tokio::test]
async fn a_rate_of_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    world.admit("n1", &[]).await;
    let capped = |rate| Dimensions { rate_bps: Some(rate), ..dimensions("", "all") };
    let (kind, text) = world.refusal(1, capped(0)).await;
    assert_eq!(kind, RefusalKind::Cannot);
    assert!(text.contains("rate of 0"), "{text}");
    world.create(2, capped(1)).await.unwrap();
}

#[tokio::test]
async fn a_quorum_and_a_size_that_cannot_be_are_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    world.admit("a", &[]).await;
    world.admit("b", &[]).await;
    let of = |count| Dimensions { quorum: Quorum::Count(count), ..dimensions("j", "all") };
    let (kind, text) = world.refusal(1, of(3)).await;
    assert_eq!(kind, RefusalKind::Cannot);
    assert!(text.contains("quorum of 3") && text.contains("the 2 that"), "{text}");
    world.told.used.store((1 << 40) - DISK_RESERVE - 99, Ordering::Relaxed);
    let (kind, text) = world.refusal(2, of(2)).await;
    assert_eq!(kind, RefusalKind::Cannot);
    let (needed, free) = (DISK_RESERVE + 100, DISK_RESERVE + 99);
    assert!(text.contains(&needed.to_string()) && text.contains(&free.to_string()), "{text}");
    world.told.used.store(0, Ordering::Relaxed);
    world.create(3, of(2)).await.unwrap();
}

#[tokio::test]
async fn everybody_gets_what_is_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    world.admit("a", &[]).await;
    world.admit("b", &[]).await;
    let object = world.create(1, dimensions("j", "a")).await.unwrap();
    let job = job_of(&object);
    let (stranger, operator) = (asker(Role::Client, "u"), asker(Role::Operator, "o"));
    let node = |text| asker(Role::Node, text);
    assert!(world.view(&client(), "j").await.is_some());
    assert!(world.view(&operator, "j").await.is_some());
    assert!(world.view(&stranger, "j").await.is_none());
    let by_id = || JobRef::Id(job);
    let foreign = [
        Request::Cancel(by_id()),
        Request::Remove(by_id()),
        Request::Watch(by_id()),
        Request::Fail { job, reason: "x".into() },
    ];
    for request in foreign {
        let reply = world.ask(&stranger, request).await;
        assert!(matches!(&reply, Reply::Refused(r) if r.text.contains("unknown job")), "{reply:?}");
    }
    let rights =
        |reply: &Reply| matches!(reply, Reply::Refused(r) if r.kind == RefusalKind::Rights);
    assert!(rights(&world.ask(&node("a"), Request::Jobs).await));
    assert!(rights(&world.ask(&client(), Request::ForgetNode(name("a"))).await));

    let hash = world.jobs.head(job).unwrap().servers.hash();
    let servers = || Request::Servers { job, hash };
    assert!(matches!(world.ask(&node("a"), servers()).await, Reply::Servers(_)));
    assert!(matches!(world.ask(&node("b"), servers()).await, Reply::Refused(_)), "not its job");
    let other = Request::Servers { job, hash: Hash([0; 32]) };
    assert!(matches!(world.ask(&node("a"), other).await, Reply::Refused(_)));
    assert_eq!(world.ask(&operator, Request::Cancel(by_id())).await, Reply::Done);
    let view = world.view(&client(), "j").await.unwrap();
    assert_eq!(view.reason.as_deref(), Some("cancelled by o"));
    assert_eq!(*world.told.drops.lock().unwrap(), [job]);
    assert_eq!(world.ask(&client(), Request::Remove(by_id())).await, Reply::Done);
    assert!(world.view(&operator, "j").await.is_none());
}

#[tokio::test]
async fn incarnations_rise_and_labels_select() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let operator = asker(Role::Operator, "o");
    let hello = |node: &str, store: u8, boot| Applicant {
        name: name(node),
        labels: BTreeMap::new(),
        store: [store; 16],
        boot,
    };
    let mut last = 0;
    let starts = [
        ("a", 1, 1, false),
        ("a", 1, 2, false),
        ("b", 9, 1, false),
        ("a", 2, 1, true),
        ("a", 1, 1, true),
    ];
    for (node, store, boot, new_store) in starts {
        let admitted = world.jobs.admit(hello(node, store, boot)).await.unwrap().unwrap();
        assert!(admitted.incarnation > last, "{node} {store} {boot}");
        assert_eq!(admitted.new_store, new_store, "{node} {store} {boot}");
        let again = world.jobs.admit(hello(node, store, boot)).await.unwrap().unwrap();
        assert_eq!(again, Admission { incarnation: admitted.incarnation, new_store: false });
        last = admitted.incarnation;
    }
    let labels = vec![("site".to_owned(), "eu".to_owned())];
    let label = |node| Request::LabelNode { node: name(node), labels: labels.clone() };
    assert_eq!(world.ask(&operator, label("a")).await, Reply::Done);
    let unknown = world.ask(&operator, label("zz")).await;
    assert!(matches!(&unknown, Reply::Refused(r) if r.text.contains("unknown node zz")));
    assert!(world.create(1, dimensions("j", "site=eu")).await.is_ok());

    world.told.up.lock().unwrap().push(name("a"));
    let forget = || Request::ForgetNode(name("a"));
    let refused = world.ask(&operator, forget()).await;
    assert!(matches!(&refused, Reply::Refused(r) if r.text.contains("connected")), "{refused:?}");
    world.told.up.lock().unwrap().clear();
    assert_eq!(world.ask(&operator, forget()).await, Reply::Done);
    let (_, text) = world.refusal(2, dimensions("k", "a")).await;
    assert!(text.contains("unknown node a"), "{text}");
    let Reply::Nodes(nodes) = world.ask(&operator, Request::Nodes).await else { panic!() };
    assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["b"]);

    world.jobs.close().await;
    drop(world);
    let world = World::open(dir.path()).await;
    let admitted = world.jobs.admit(hello("a", 1, 1)).await.unwrap().unwrap();
    assert!(admitted.incarnation > last, "also when it was forgotten, and over a restart");
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_stops_everything() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    world.admit("a", &[]).await;
    let file = dir.path().join(crate::ledger::LEDGER_FILE);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("DROP TABLE jobs").execute(&mut other).await.unwrap();
    let dimensions = Box::new(dimensions("j", "all"));
    let create = Request::Create { key: [1; 16], dimensions };
    assert!(world.jobs.handle(&client(), create).await.is_err());
    assert!(matches!(world.jobs.failed().await, LedgerError::Write(_)));
    assert!(world.told.orders.lock().unwrap().is_empty(), "nobody was told of the job");
    assert!(world.jobs.handle(&client(), Request::Jobs).await.is_err());
}

#[test]
fn what_runs_in_tasks_can_be_sent_to_them() {
    const fn is_send<T: Send>(_: &T) {}
    const fn is_sync<T: Sync>() {}
    is_sync::<Jobs>();
    let folder = DataFolder::open(tempfile::tempdir().unwrap().path()).unwrap();
    is_send(&Ledger::open(&folder, 0));
    let _ = |jobs: Jobs| is_send(&jobs.handle(&client(), Request::Jobs));
    let _ = |jobs: Jobs| is_send(&jobs.input(Input::Tick));
    let _ = |jobs: Jobs| is_send(&jobs.close());
}
