//! A pipe as a live object: seen at every node while it grows, ended by its publisher alone.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

use super::fields::{node, text};
use super::fleet::{Fleet, Following, until};
use super::journal;
use super::tree::bytes;

const HALF: usize = 3 << 20;

/// `push --live -` under way, and its pipe.
fn push_live(fleet: &Fleet, more: &[&str]) -> (Following, ChildStdin) {
    let mut command = fleet.command("alice", &["push", "--json", "--live", "-"]);
    command.args(more).stdin(Stdio::piped());
    let mut push = Following::new(command);
    let pipe = push.take_stdin();
    (push, pipe)
}

async fn created(push: &mut Following) -> String {
    text(&push.event(|event| event["event"] == "created").await, "job").to_owned()
}

/// What `node` shows of the object `name`.
fn shown(fleet: &Fleet, node: &str, job: &str, name: &str) -> Option<Vec<u8>> {
    std::fs::read(fleet.files(node, job).join(name)).ok()
}

#[tokio::test]
async fn a_reader_sees_what_was_written_while_the_pipe_is_open_and_all_of_it_at_the_end() {
    let fleet = Fleet::start(2).await;
    let content = bytes(8, 2 * HALF);
    let (mut push, mut pipe) = push_live(&fleet, &["--name", "news", "--object", "on/air"]);
    let job = created(&mut push).await;
    until("it is there before its first byte", async || {
        (shown(&fleet, "n1", &job, "on/air")? == b"").then_some(())
    })
    .await;
    pipe.write_all(&content[..HALF]).await.unwrap();
    for node in ["n1", "n2"] {
        until("the first half", async || {
            let shown = shown(&fleet, node, &job, "on/air")?;
            assert!(content.starts_with(&shown), "{node} shows what was not pushed");
            (shown.len() == HALF).then_some(())
        })
        .await;
    }
    let live = fleet.show("news").await;
    assert_eq!((text(&live, "kind"), text(&live, "state")), ("live", "receiving"));
    assert_eq!((&live["size"], &live["digest"]), (&Value::Null, &Value::Null), "{live}");
    pipe.write_all(&content[HALF..]).await.unwrap();
    drop(pipe);
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    assert_eq!(closed["size"], 2 * HALF);
    assert_eq!(text(&closed, "digest"), blake3::hash(&content).to_string());
    for node in ["n1", "n2"] {
        assert_eq!(shown(&fleet, node, &job, "on/air").as_deref(), Some(&content[..]), "{node}");
    }
}

#[tokio::test]
async fn a_publisher_that_is_gone_does_not_end_its_object() {
    let fleet = Fleet::start(1).await;
    let (mut push, mut pipe) = push_live(&fleet, &["--grace", "2s"]);
    let job = created(&mut push).await;
    pipe.write_all(b"to be continued").await.unwrap();
    until("its bytes", async || {
        (shown(&fleet, "n1", &job, "stream")? == b"to be continued").then_some(())
    })
    .await;
    push.signal(Signal::KILL);
    drop(pipe);
    let failed = until("the grace is over", async || {
        let job = fleet.show(&job).await;
        (text(&job, "state") != "receiving").then_some(job)
    })
    .await;
    assert_eq!(text(&failed, "state"), "failed", "{failed}");
    until("a failed job leaves nothing", async || {
        (!fleet.files("n1", &job).exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_starts_again_goes_on_at_what_is_durable() {
    let mut fleet = Fleet::start(1).await;
    let content = bytes(9, HALF);
    let (mut push, mut pipe) = push_live(&fleet, &[]);
    let job = created(&mut push).await;
    pipe.write_all(&content[..HALF / 2]).await.unwrap();
    until("half of it is durable", async || {
        let shown = fleet.show(&job).await;
        (shown["nodes"][0]["bytes"] == HALF / 2).then_some(())
    })
    .await;
    fleet.end("n1", Signal::KILL).await;
    pipe.write_all(&content[HALF / 2..]).await.unwrap();
    fleet.start_again("n1").await;
    drop(pipe);
    let (code, _, err) = push.finish().await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(shown(&fleet, "n1", &job, "stream").as_deref(), Some(&content[..]));
    let series = "distributary_content_bytes_received_total{peer_role=\"base\"} ";
    let received = fleet.metric("n1", series).await;
    assert_eq!(received, (HALF - HALF / 2) as u64, "what was durable did not come again");
}

#[tokio::test]
async fn a_live_push_goes_on_over_kills_of_base_and_nodes() {
    let mut fleet = Fleet::start(2).await;
    let content = bytes(14, HALF);
    let (mut push, mut pipe) = push_live(&fleet, &[]);
    let job = created(&mut push).await;
    for (at, piece) in content.chunks(HALF / 12).enumerate() {
        pipe.write_all(piece).await.unwrap();
        let role = ["b", "n1", "b", "n2"][at % 4];
        fleet.end(role, Signal::KILL).await;
        fleet.start_again(role).await;
        until("what was written is seen", async || {
            let shown = shown(&fleet, "n1", &job, "stream")?;
            assert!(content.starts_with(&shown), "n1 shows what was not pushed");
            (shown.len() >= content.len().min(at * (HALF / 12))).then_some(())
        })
        .await;
    }
    drop(pipe);
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    for name in ["n1", "n2"] {
        assert!(shown(&fleet, name, &job, "stream").as_deref() == Some(&content[..]), "{name}");
    }
}

/// A live push named "news" that is killed when `first` is durable at the base.
async fn killed_when_durable(fleet: &Fleet, first: &[u8]) -> String {
    let (mut push, mut pipe) = push_live(fleet, &["--name", "news"]);
    let job = created(&mut push).await;
    pipe.write_all(first).await.unwrap();
    until("it is durable at the base", async || {
        (fleet.show(&job).await["bytes"] == first.len()).then_some(())
    })
    .await;
    push.kill().await;
    job
}

#[tokio::test]
async fn a_killed_live_push_goes_on_where_the_base_has_it() {
    let fleet = Fleet::start(1).await;
    let content = bytes(10, HALF);
    let job = killed_when_durable(&fleet, &content[..HALF / 2]).await;
    let (mut push, mut pipe) = push_live(&fleet, &["--name", "news"]);
    assert_eq!(created(&mut push).await, job, "it is the same job");
    pipe.write_all(&content).await.unwrap();
    drop(pipe);
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    assert_eq!(text(&closed, "digest"), blake3::hash(&content).to_string());
    assert_eq!(shown(&fleet, "n1", &job, "stream").as_deref(), Some(&content[..]));
    for (role, from) in [("b", "client"), ("n1", "base")] {
        let series = format!("distributary_content_bytes_received_total{{peer_role=\"{from}\"}} ");
        let received = fleet.metric(role, &series).await;
        assert_eq!(received, HALF as u64, "{role} got what it had once more");
    }
}

#[tokio::test]
async fn a_live_push_of_something_else_is_refused_and_the_job_stays() {
    let fleet = Fleet::start(1).await;
    let content = bytes(11, 200_000);
    let job = killed_when_durable(&fleet, &content).await;
    let other = bytes(12, 200_000);
    let short = &content[..150_000];
    let cases: [(&[&str], &[u8], &str); 3] = [
        (&[], &other, "has other bytes"),
        (&[], short, "has another size"),
        (&["--object", "else"], &content, "is another object"),
    ];
    for (more, wrong, what) in cases {
        let (mut push, mut pipe) = push_live(&fleet, &[&["--name", "news"], more].concat());
        // The push may end before it has taken everything.
        let _ = pipe.write_all(wrong).await;
        drop(pipe);
        let (code, _, err) = push.finish().await;
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains(what) && err.contains("news"), "{err}");
        assert_eq!(text(&fleet.show(&job).await, "state"), "receiving");
    }
    let (mut push, mut pipe) = push_live(&fleet, &["--name", "news"]);
    pipe.write_all(&content).await.unwrap();
    drop(pipe);
    assert_eq!(push.finish().await.0, Some(0));
    assert_eq!(shown(&fleet, "n1", &job, "stream"), Some(content));
}

/// Bytes after which the end of the log is cut anew.
const RECUT: usize = 64 << 20;

#[tokio::test]
async fn a_log_that_is_cut_anew_reaches_those_who_follow_were_killed_and_come_late() {
    let mut fleet = Fleet::start(3).await;
    let content = bytes(13, 2 * RECUT + RECUT / 4);
    fleet.end("n3", Signal::TERM).await;
    let (mut push, mut pipe) = push_live(&fleet, &[]);
    let job = created(&mut push).await;
    let (first, rest) = content.split_at(RECUT + RECUT / 4);
    pipe.write_all(first).await.unwrap();
    until("it is durable at n2", async || {
        let job = fleet.show(&job).await;
        (node(&job, "n2")["bytes"] == first.len()).then_some(())
    })
    .await;
    fleet.end("n2", Signal::KILL).await;
    pipe.write_all(rest).await.unwrap();
    // What was cut anew first is in force at the base now.
    fleet.start_again("n2").await;
    // Whoever may feed n3 knows of it too, then.
    until("everything is durable at n2", async || {
        let job = fleet.show(&job).await;
        (node(&job, "n2")["bytes"] == content.len()).then_some(())
    })
    .await;
    fleet.start_again("n3").await;
    drop(pipe);
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    for name in ["n1", "n2", "n3"] {
        let shown = shown(&fleet, name, &job, "stream").unwrap();
        assert!(shown == content, "{name} has {} of {} bytes", shown.len(), content.len());
        let received = fleet.received(name).await;
        let life = content.len() - if name == "n2" { first.len() } else { 0 };
        assert!(received <= (life + life / 20) as u64, "{name} has received {received} of {life}");
    }
    // Who came late took the pages that cut anew in place of those before: 64 MiB in chunks of at
    // most 64 KiB are 1,024 pages or more, and those that stand for them are a few dozen.
    let pages = |node| journal::pages(&fleet.data(node).join("jobs").join(&job));
    let (late, all) = (pages("n3"), pages("n1"));
    assert!(late + 900 < all, "{late} of {all} pages");
    for role in ["b", "n1"] {
        fleet.end(role, Signal::KILL).await;
        fleet.start_again(role).await;
    }
    assert_eq!(text(&fleet.show(&job).await, "state"), "complete");
    assert!(shown(&fleet, "n1", &job, "stream").as_deref() == Some(&content[..]));
}
