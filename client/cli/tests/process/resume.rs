//! A push under the name of an open job whose publisher is gone goes on with that job.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::fields::{node, text};
use super::fleet::{Fleet, Following, until};
use super::tree::{assert_holds, bytes, snapshot, write};

const RECEIVED: &str = "distributary_content_bytes_received_total{peer_role=\"client\"}";

const SIZE: usize = 3_000_000;

/// What is done to a source.
type Step<'a> = &'a dyn Fn();

/// Files of three pages: a big one, and small ones that share a chunk.
fn source(fleet: &Fleet) -> std::path::PathBuf {
    let source = fleet.path("source");
    write(&source.join("a-small/one"), b"first");
    write(&source.join("a-small/two"), b"other");
    write(&source.join("big"), &bytes(1, SIZE));
    write(&source.join("last"), b"last");
    source
}

/// A push that takes some seconds.
fn begin(fleet: &Fleet, source: &Path, more: &[&str]) -> Following {
    let arguments = [&[source.to_str().unwrap(), "--rate", "8Mbit"], more].concat();
    fleet.push("alice", &arguments)
}

/// Follows a push until the base has `bytes`, and gives the job.
async fn reached(push: &mut Following, bytes: u64) -> String {
    let reached = |event: &Value| event["bytes"].as_u64() > Some(bytes);
    let event = push.event(reached).await;
    assert_ne!(event["event"], "closed", "it was too fast to be interrupted");
    text(&event, "job").to_owned()
}

#[tokio::test]
async fn a_killed_push_goes_on_where_the_base_has_it() {
    let fleet = Fleet::start(1).await;
    let source = source(&fleet);
    let mut push = begin(&fleet, &source, &["--name", "set"]);
    let job = reached(&mut push, 400_000).await;
    push.kill().await;
    let mut again = begin(&fleet, &source, &["--name", "set"]);
    let created = again.event(|_| true).await;
    assert_eq!((text(&created, "event"), text(&created, "job")), ("created", job.as_str()));
    let (code, closed, err) = again.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
    assert_holds(&fleet.files("n1", &job).join("source"), &snapshot(&source));
    // Only what was on its way when it was killed came twice.
    let received = fleet.metric("b", RECEIVED).await;
    assert!(received < SIZE as u64 + 1_000_000, "{received} bytes were sent for {SIZE}");
}

#[tokio::test]
async fn who_still_pushes_is_not_replaced() {
    let fleet = Fleet::start(1).await;
    let source = source(&fleet);
    let mut push = begin(&fleet, &source, &["--name", "set"]);
    let job = reached(&mut push, 100_000).await;
    let path = source.to_str().unwrap();
    let same = ["push", path, "--rate", "8Mbit", "--name", "set"];
    fleet.run(&same).await.refused(1, &job);
    fleet.run_as("bob", &same).await.refused(1, "taken");
    assert_eq!(push.finish().await.0, Some(0));
}

#[tokio::test]
async fn what_an_interrupted_push_says_is_how_it_goes_on() {
    let fleet = Fleet::start(1).await;
    let source = source(&fleet);
    // The base makes up its name.
    let mut push = begin(&fleet, &source, &[]);
    let job = reached(&mut push, 100_000).await;
    push.signal(Signal::INT);
    let (code, _, err) = push.finish().await;
    assert_eq!(code, Some(130), "{err}");
    let hint = err.split("the same push with --name ").nth(1).unwrap();
    let name = hint.split_whitespace().next().unwrap();
    // Other options are another job.
    let path = source.to_str().unwrap();
    let other = ["push", path, "--rate", "9Mbit", "--name", name];
    fleet.run(&other).await.refused(1, "--rate");
    let mut again = begin(&fleet, &source, &["--name", name]);
    let (code, closed, err) = again.finish().await;
    assert_eq!((code, text(&closed, "job")), (Some(0), job.as_str()), "{err}");
}

#[tokio::test]
async fn a_publisher_that_stays_away_has_failed() {
    let fleet = Fleet::start(1).await;
    let source = source(&fleet);
    let mut push = begin(&fleet, &source, &["--name", "set", "--grace", "1s"]);
    let job = reached(&mut push, 100_000).await;
    push.kill().await;
    let failed = until("the job fails", async || {
        let shown = fleet.show(&job).await;
        (shown["state"] == "failed").then_some(shown)
    })
    .await;
    assert!(text(&failed, "reason").contains("publisher alice"), "{failed}");
    until("its files are gone", async || {
        (!fleet.data("n1").join("jobs").join(&job).exists()).then_some(())
    })
    .await;
    // Its name is free again: another job.
    let mut again = begin(&fleet, &source, &["--name", "set", "--grace", "1s"]);
    let (code, closed, err) = again.finish().await;
    assert_eq!(code, Some(0), "{err}");
    assert_ne!(text(&closed, "job"), job);
}

#[tokio::test]
async fn a_source_that_differs_is_refused_and_the_job_stays() {
    let fleet = Fleet::start(1).await;
    let source = source(&fleet);
    let mut push = begin(&fleet, &source, &["--name", "set"]);
    let job = reached(&mut push, 400_000).await;
    push.kill().await;
    let modified = |name: &str| fs::metadata(source.join(name)).unwrap().modified().unwrap();
    let keep = |name: &str, time| File::open(source.join(name)).unwrap().set_modified(time);
    let one = "a-small/one";
    let (time, folder) = (modified(one), modified("a-small"));
    let put = |name: &str, content: &[u8], time| {
        write(&source.join(name), content);
        keep(name, time).unwrap();
        keep("a-small", folder).unwrap();
    };
    let mode = |bits| fs::set_permissions(source.join(one), Permissions::from_mode(bits)).unwrap();
    let later = time + Duration::from_secs(1);
    let big = bytes(1, SIZE);
    let big_time = modified("big");
    let changes: [(&str, Step<'_>, Step<'_>); 7] = [
        ("a-small/one\" has other bytes", &|| put(one, b"fIrst", time), &|| {
            put(one, b"first", time);
        }),
        ("a-small/one\" has another size", &|| put(one, b"firs", time), &|| {
            put(one, b"first", time);
        }),
        ("a-small/one\" has another modification time", &|| keep(one, later).unwrap(), &|| {
            keep(one, time).unwrap();
        }),
        ("a-small/one\" has another executable bit", &|| mode(0o755), &|| mode(0o644)),
        (
            "a-small/one\" is missing",
            &|| {
                fs::remove_file(source.join(one)).unwrap();
                keep("a-small", folder).unwrap();
            },
            &|| put(one, b"first", time),
        ),
        ("a-small/new\" was not there", &|| put("a-small/new", b"", time), &|| {
            fs::remove_file(source.join("a-small/new")).unwrap();
            keep("a-small", folder).unwrap();
        }),
        (
            "big\" has other bytes",
            &|| {
                let mut other = big.clone();
                other[1_000_000] ^= 1;
                put("big", &other, big_time);
            },
            &|| put("big", &big, big_time),
        ),
    ];
    for (said, change, back) in changes {
        change();
        let (code, _, err) = begin(&fleet, &source, &["--name", "set"]).finish().await;
        assert_eq!(code, Some(1), "{said}: {err}");
        assert!(err.contains(said) && err.contains("job cancel"), "{said:?} is not in {err}");
        back();
        assert_eq!(fleet.show(&job).await["state"], "receiving", "{said}");
    }
    let (code, closed, err) = begin(&fleet, &source, &["--name", "set"]).finish().await;
    assert_eq!((code, text(&closed, "job")), (Some(0), job.as_str()), "{err}");
    assert_eq!(node(&closed, "n1")["state"], "complete");
    assert_holds(&fleet.files("n1", &job).join("source"), &snapshot(&source));
}
