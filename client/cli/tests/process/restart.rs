//! Roles that are killed and started again with the same folder and ports.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use super::fields::{list, node, text};
use super::fleet::{Fleet, Following, until};
use super::tree::{assert_holds, bytes, snapshot, write};

const SENT: &str = "distributary_content_bytes_sent_total{peer_role=\"node\"}";

/// A job without what is measured.
fn settled(mut job: Value) -> Value {
    for node in job["nodes"].as_array_mut().unwrap() {
        // What is measured is kept in memory only.
        let node = node.as_object_mut().unwrap();
        assert!(node.remove("rate_bps").is_some() && node.remove("sources").is_some(), "{node:?}");
    }
    // It is kept as time that is left, so that it says something else after a restart.
    job.as_object_mut().unwrap().remove("deadline");
    job
}

#[tokio::test]
async fn what_was_complete_stays_complete_and_is_not_sent_again() {
    let mut fleet = Fleet::start(2).await;
    let source = fleet.path("source");
    write(&source.join("big"), &bytes(1, 3_000_000));
    write(&source.join("small"), b"small");
    let expected = snapshot(&source);
    let job = fleet.pushed(&fleet.path("source/")).await;
    let before = settled(fleet.show(&job).await);
    fleet.end("b", Signal::KILL).await;
    fleet.start_again("b").await;
    assert_eq!(settled(fleet.show(&job).await), before);
    fleet.end("n1", Signal::KILL).await;
    fleet.start_again("n1").await;
    for name in ["n1", "n2"] {
        fleet.joined(name).await;
    }
    // What the nodes have to say, they have said when a job after it is complete.
    write(&fleet.path("next"), &bytes(2, 1000));
    fleet.pushed(&fleet.path("next")).await;
    assert_eq!(settled(fleet.show(&job).await), before);
    let sent = fleet.metric("b", SENT).await;
    assert!((1000..=2000).contains(&sent), "{sent}");
    assert_eq!(fleet.received("n1").await, 1000);
    for name in ["n1", "n2"] {
        assert_holds(&fleet.files(name, &job), &expected);
    }
}

#[tokio::test]
async fn a_base_killed_during_a_push_finishes_it() {
    let mut fleet = Fleet::start(2).await;
    let source = fleet.path("source");
    write(&source.join("file"), &bytes(1, 3_000_000));
    let mut push = fleet.push("alice", &[source.to_str().unwrap(), "--rate", "16Mbit"]);
    let begun = |event: &Value| event["bytes"].as_u64() > Some(100_000);
    let progress = push.event(begun).await;
    assert_ne!(progress["bytes"], 3_000_000);
    fleet.end("b", Signal::KILL).await;
    fleet.start_again("b").await;
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    let created = push.events.iter().filter(|event| event["event"] == "created").count();
    assert_eq!(created, 1);
    let jobs = fleet.run(&["job", "ls", "--json"]).await.json();
    assert_eq!(list(&jobs, "jobs").len(), 1, "{jobs}");
    for name in ["n1", "n2"] {
        assert_holds(&fleet.files(name, text(&closed, "job")).join("source"), &snapshot(&source));
    }
}

#[tokio::test]
async fn a_node_killed_during_a_push_goes_on_where_it_was() {
    let mut fleet = Fleet::start(2).await;
    let source = fleet.path("source");
    write(&source.join("file"), &bytes(1, 3_000_000));
    let mut push = fleet.push("alice", &[source.to_str().unwrap(), "--rate", "16Mbit"]);
    let half = |event: &Value| {
        event["event"] == "progress" && node(event, "n1")["bytes"].as_u64() > Some(1_000_000)
    };
    push.event(half).await;
    fleet.end("n1", Signal::KILL).await;
    let job = text(&push.events[0], "job").to_owned();
    // What is not whole is not under its final name.
    let early = snapshot(&fleet.files("n1", &job));
    assert!(early.keys().all(|name| !name.ends_with("file")), "{:?}", early.keys());
    fleet.start_again("n1").await;
    let (code, _, err) = push.finish().await;
    assert_eq!(code, Some(0), "{err}");
    let received = fleet.received("n1").await;
    assert!((1..2_000_001).contains(&received), "{received} bytes were sent again");
    for name in ["n1", "n2"] {
        assert_holds(&fleet.files(name, &job).join("source"), &snapshot(&source));
    }
}

#[tokio::test]
async fn a_node_that_starts_before_its_base_waits_for_it() {
    let mut fleet = Fleet::start(1).await;
    fleet.end("n1", Signal::TERM).await;
    assert_eq!(fleet.end("b", Signal::TERM).await, Some(0));
    fleet.start_again("n1").await;
    until("the node serves and is not ready", async || {
        (fleet.get("n1", "/readyz").await?.0 == 503).then_some(())
    })
    .await;
    fleet.start_again("b").await;
    fleet.joined("n1").await;
    write(&fleet.path("file"), b"x");
    let job = fleet.pushed(&fleet.path("file")).await;
    assert!(fleet.files("n1", &job).join("file").exists());
}

/// The logs of a job at the base, as they were at some moment.
struct Logs(Vec<(PathBuf, Vec<u8>)>);

impl Logs {
    fn read(fleet: &Fleet, job: &str) -> Self {
        let folder = fleet.data("b").join("jobs").join(job);
        let logs = ["pages.log", "have.log"].map(|log| folder.join(log));
        Self(logs.map(|log| (log.clone(), std::fs::read(log).unwrap_or_default())).into())
    }

    /// What came later is lost.
    fn put_back(&self) {
        for (log, bytes) in &self.0 {
            write(log, bytes);
        }
    }
}

/// Kills the base when `who`, or the base itself, has 1.2 MB of a push, and has it lose what came
/// after its own first 300 kB.
async fn lose_the_tail(fleet: &mut Fleet, push: &mut Following, who: Option<&str>) {
    let at_base = |event: &Value| event["bytes"].as_u64();
    let begun = |event: &Value| event["event"] == "progress" && at_base(event) > Some(300_000);
    let job = text(&push.event(begun).await, "job").to_owned();
    let logs = Logs::read(fleet, &job);
    let bytes = |event: &Value| match who {
        Some(name) => node(event, name)["bytes"].as_u64(),
        None => at_base(event),
    };
    let more = |event: &Value| event["event"] == "progress" && bytes(event) > Some(1_200_000);
    push.event(more).await;
    fleet.end("b", Signal::KILL).await;
    logs.put_back();
    fleet.start_again("b").await;
}

const GIVEN_BACK: &str = "distributary_content_bytes_received_total{peer_role=\"node\"}";

#[tokio::test]
async fn a_base_that_lost_its_tail_gets_it_back_from_a_node() {
    let mut fleet = Fleet::start(2).await;
    let source = fleet.path("source");
    write(&source.join("file"), &bytes(1, 4_000_000));
    let mut push = fleet.push("alice", &[source.to_str().unwrap(), "--rate", "4Mbit"]);
    lose_the_tail(&mut fleet, &mut push, Some("n1")).await;
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    for name in ["n1", "n2"] {
        assert_holds(&fleet.files(name, text(&closed, "job")).join("source"), &snapshot(&source));
    }
    let given_back = fleet.metric("b", GIVEN_BACK).await;
    assert!(given_back > 100_000, "only {given_back} bytes came from a node");
}

#[tokio::test]
async fn a_base_that_lost_its_tail_gets_it_back_from_the_source_if_no_node_has_it() {
    let mut fleet = Fleet::start(1).await;
    let source = fleet.path("source");
    write(&source.join("file"), &bytes(1, 4_000_000));
    fleet.end("n1", Signal::TERM).await;
    let mut push = fleet.push("alice", &[source.to_str().unwrap(), "--rate", "4Mbit"]);
    lose_the_tail(&mut fleet, &mut push, None).await;
    fleet.start_again("n1").await;
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    assert_holds(&fleet.files("n1", text(&closed, "job")).join("source"), &snapshot(&source));
}

#[tokio::test]
async fn a_base_that_lost_its_tail_after_the_push_gets_it_back_from_a_node() {
    let mut fleet = Fleet::start(2).await;
    let source = fleet.path("source");
    write(&source.join("file"), &bytes(1, 4_000_000));
    fleet.end("n2", Signal::TERM).await;
    let mut push = fleet.push("alice", &[source.to_str().unwrap(), "--rate", "16Mbit"]);
    let begun =
        |event: &Value| event["event"] == "progress" && event["bytes"].as_u64() > Some(500_000);
    let job = text(&push.event(begun).await, "job").to_owned();
    let logs = Logs::read(&fleet, &job);
    let whole = |event: &Value| event["event"] == "node" && event["state"] == "complete";
    push.event(whole).await;
    push.kill().await;
    fleet.end("b", Signal::KILL).await;
    logs.put_back();
    fleet.start_again("b").await;
    fleet.start_again("n2").await;
    let closed = until("the job is complete", async || {
        let job = fleet.show(&job).await;
        (text(&job, "state") == "complete").then_some(job)
    })
    .await;
    assert_eq!(closed["bytes"], 4_000_000, "{closed}");
    for name in ["n1", "n2"] {
        assert_holds(&fleet.files(name, &job).join("source"), &snapshot(&source));
    }
}

#[tokio::test]
async fn a_node_with_an_empty_disk_loses_its_completion_and_gets_everything_again() {
    let mut fleet = Fleet::start(2).await;
    let source = fleet.path("source");
    write(&source.join("file"), &bytes(1, 1_000_000));
    fleet.end("n2", Signal::TERM).await;
    let mut push = fleet.push("alice", &[source.to_str().unwrap()]);
    let of_n1 = |event: &Value, state: &str| {
        event["event"] == "node" && event["node"] == "n1" && event["state"] == state
    };
    push.event(|event| of_n1(event, "complete")).await;
    fleet.end("n1", Signal::KILL).await;
    std::fs::remove_dir_all(fleet.data("n1")).unwrap();
    fleet.start_again("n1").await;
    let lost = push.event(|event| of_n1(event, "lost")).await;
    assert_ne!(lost["reason"], Value::Null, "{lost}");
    push.event(|event| of_n1(event, "complete")).await;
    fleet.start_again("n2").await;
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    assert_holds(&fleet.files("n1", text(&closed, "job")).join("source"), &snapshot(&source));
}
