//! Base, nodes and clients are killed again and again, at random moments, while several jobs
//! are in flight: every push ends with 0, no byte differs, and what was durable is not sent
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::fields::{list, text};
use super::fleet::{Contact, Fleet, Following, until};
use super::journal::durable_bytes;
use super::tree::{Entry, assert_holds, bytes, snapshot, write};

/// Kills of each role.
const KILLS: usize = 50;
/// Jobs in flight.
const JOBS: usize = 3;
const NODES: [&str; 2] = ["n1", "n2"];
/// Bytes that a role moves from one kill to the next, at most.
const APART: u64 = 400_000;
/// Slow enough for some kills within a job.
const RATE: &str = "12Mbit";
/// Another seed, other moments: `DISTRIBUTARY_KILLS_SEED=7`.
const SEED: &str = "DISTRIBUTARY_KILLS_SEED";

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Node,
    Base,
    Client,
}

const TARGETS: [Target; 3] = [Target::Node, Target::Base, Target::Client];

/// Chance from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// What a role has received over all its lives, and what of it was not durable when it was
/// killed.
#[derive(Debug, Default, Clone, Copy)]
struct Received {
    bytes: u64,
    undurable: u64,
    /// Durable when the present life began.
    durable: u64,
}

struct World {
    fleet: Fleet,
    chance: Chance,
    left: BTreeMap<Target, usize>,
    received: BTreeMap<&'static str, Received>,
    /// Content bytes of all jobs that there were.
    pushed: u64,
    round: u64,
}

/// A push that is begun again whenever it is killed.
struct Pusher {
    kill: mpsc::Sender<()>,
    source: PathBuf,
    jobs: Arc<Mutex<BTreeSet<String>>>,
}

#[tokio::test]
async fn fifty_kills_of_each_role_lose_nothing() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("{SEED}={seed}");
    let mut world = World {
        fleet: Fleet::start(NODES.len()).await,
        chance: Chance(seed),
        left: TARGETS.into_iter().map(|target| (target, KILLS)).collect(),
        received: ["b", "n1", "n2"].into_iter().map(|role| (role, Received::default())).collect(),
        pushed: 0,
        round: 0,
    };
    while world.left.values().any(|left| *left > 0) {
        world.round().await;
    }
    world.check_received().await;
}

impl World {
    /// Pushes some jobs, kills while they are in flight, and looks at what came of it.
    async fn round(&mut self) {
        self.round += 1;
        let running = Arc::new(AtomicUsize::new(JOBS));
        let mut tasks = JoinSet::new();
        let pushers: Vec<Pusher> =
            (0..JOBS).map(|job| self.begin(job, &running, &mut tasks)).collect();
        while let Some(target) = self.next_target() {
            let apart = self.chance.below(APART);
            if !self.moved(target, apart, &running).await {
                break;
            }
            match target {
                Target::Client => {
                    let number = self.chance.below(JOBS as u64);
                    // One that has ended has no use for it.
                    let _ = pushers[usize::try_from(number).unwrap()].kill.try_send(());
                }
                Target::Base => self.kill("b").await,
                Target::Node => {
                    let node = self.chance.pick(&NODES);
                    self.kill(node).await;
                }
            }
            *self.left.get_mut(&target).unwrap() -= 1;
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        for pusher in pushers {
            self.check(&pusher).await;
        }
    }

    fn next_target(&mut self) -> Option<Target> {
        let left: Vec<Target> =
            self.left.iter().filter(|(_, left)| **left > 0).map(|(target, _)| *target).collect();
        (!left.is_empty()).then(|| self.chance.pick(&left))
    }

    /// Files of all sizes, pushed until the end.
    fn begin(&self, job: usize, running: &Arc<AtomicUsize>, tasks: &mut JoinSet<()>) -> Pusher {
        let name = format!("r{}-{job}", self.round);
        let source = self.fleet.path(&name);
        let seed = self.round * 10 + job as u64;
        for (file, len) in
            [("big", 1_100_000), ("a/1", 1), ("a/2", 5_000), ("b/0", 0), ("b/c/3", 150_000)]
        {
            write(&source.join(file), &bytes(seed + len as u64, len));
        }
        std::fs::create_dir(source.join("empty")).unwrap();
        let (kill, killed) = mpsc::channel(1);
        let jobs = Arc::new(Mutex::new(BTreeSet::new()));
        let arguments = ["push", "--json", "--rate", RATE, "--name", &name].map(str::to_owned);
        let mut arguments = arguments.to_vec();
        arguments.push(format!("{}/", source.display()));
        let (contact, running) = (self.fleet.contact("alice"), Arc::clone(running));
        tasks.spawn(push(contact, arguments, killed, Arc::clone(&jobs), running));
        Pusher { kill, source, jobs }
    }

    /// Waits until what is to be killed has moved so many bytes more; not if the pushes end
    /// before that.
    async fn moved(&self, target: Target, bytes: u64, running: &AtomicUsize) -> bool {
        let role = if target == Target::Node { self.fleet_node() } else { "b" };
        let begin = until("its account", async || self.received_now(role).await).await;
        until("bytes or the end", async || {
            if running.load(Ordering::SeqCst) == 0 {
                return Some(false);
            }
            let moved = self.received_now(role).await?;
            (moved >= begin + bytes).then_some(true)
        })
        .await
    }

    const fn fleet_node(&self) -> &'static str {
        NODES[(self.round % 2) as usize]
    }

    /// Content that a role has received in its present life, also what it had already.
    async fn received_now(&self, role: &str) -> Option<u64> {
        let (_, page) = self.fleet.get(role, "/metrics").await?;
        let counts = page.lines().filter(|line| {
            line.starts_with("distributary_content_bytes_received_total{")
                || line.starts_with("distributary_duplicate_bytes_total")
        });
        let numbers = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        Some(numbers.sum())
    }

    /// Kills a role and starts it again, now and then killing it at its start first.
    async fn kill(&mut self, role: &'static str) {
        let received = until("its account", async || self.received_now(role).await).await;
        self.fleet.end(role, Signal::KILL).await;
        let durable = durable_bytes(&self.fleet.data(role).join("jobs"));
        let account = self.received.get_mut(role).unwrap();
        account.bytes += received;
        account.undurable += received.saturating_sub(durable - account.durable);
        account.durable = durable;
        if self.chance.below(6) == 0 {
            // A random moment of its start: nothing is waited for.
            let moment = Duration::from_millis(self.chance.below(60));
            self.fleet.start_and_kill(role, moment).await;
        }
        self.fleet.start_again(role).await;
    }

    /// All jobs of a push are complete and the same everywhere.
    async fn check(&mut self, pusher: &Pusher) {
        let expected = snapshot(&pusher.source);
        let size = |entry: &Entry| match entry {
            Entry::File { content, .. } => content.len() as u64,
            Entry::Directory | Entry::Other => 0,
        };
        let size: u64 = expected.values().map(size).sum();
        let jobs = pusher.jobs.lock().unwrap().clone();
        for job in jobs {
            let shown = self.fleet.show(&job).await;
            assert_eq!((text(&shown, "state"), &shown["size"]), ("complete", &size.into()));
            for node in NODES {
                assert_holds(&self.fleet.files(node, &job), &expected);
            }
            self.pushed += size;
        }
    }

    async fn check_received(&self) {
        for (role, account) in &self.received {
            let now = self.received_now(role).await.unwrap();
            let Received { bytes, undurable, .. } = *account;
            let most = self.pushed + self.pushed / 20 + undurable;
            println!(
                "{role}: {} of {} bytes, {undurable} were not durable",
                bytes + now,
                self.pushed
            );
            assert!(bytes + now <= most, "{role}: {} bytes, at most {most}", bytes + now);
        }
    }
}

/// Pushes until the command ends by itself.
async fn push(
    contact: Contact,
    arguments: Vec<String>,
    mut killed: mpsc::Receiver<()>,
    jobs: Arc<Mutex<BTreeSet<String>>>,
    running: Arc<AtomicUsize>,
) {
    let _running = Running(running);
    loop {
        let mut push = Following::new(contact.command(&arguments));
        let by_itself = loop {
            tokio::select! {
                Some(()) = killed.recv() => {
                    push.kill().await;
                    break false;
                }
                event = push.next() => if event.is_none() { break true },
            }
        };
        assert_never_back(&push.events);
        jobs.lock().unwrap().extend(push.events.first().map(|event| text(event, "job").to_owned()));
        if by_itself {
            let (code, closed, err) = push.finish().await;
            assert_eq!(code, Some(0), "{arguments:?}: {closed} {err}");
            break;
        }
    }
}

/// A push that is under way, whatever becomes of it.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Progress goes on and never back, but where a completion was revoked.
fn assert_never_back(events: &[Value]) {
    let mut most: BTreeMap<String, u64> = BTreeMap::new();
    for event in events {
        if event["event"] == "node" && event["state"] == "lost" {
            most.remove(text(event, "node"));
        }
        if event["event"] != "progress" {
            continue;
        }
        let nodes = list(event, "nodes").iter().map(|node| (text(node, "name"), &node["bytes"]));
        for (name, bytes) in nodes.chain([("base", &event["bytes"])]) {
            let bytes = bytes.as_u64().unwrap();
            let before = most.insert(name.to_owned(), bytes).unwrap_or(0);
            assert!(before <= bytes, "{name} had {before}, has {bytes}: {event}");
        }
    }
}
