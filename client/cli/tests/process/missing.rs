//! Nodes that are gone at the deadline.

use rustix::process::Signal;
use serde_json::Value;

use super::fields::{node, text};
use super::fleet::{Fleet, Following, until};
use super::tree::{assert_holds, bytes, snapshot, write};

#[track_caller]
fn assert_states(job: &Value, expected: &[(&str, &str)]) {
    for (name, state) in expected {
        assert_eq!(text(node(job, name), "state"), *state, "{name} in {job}");
    }
}

/// Waits until a node is known to receive, from what was told or is told now.
async fn until_receiving(push: &mut Following, name: &str) {
    let fits = |event: &Value| match event["event"].as_str() {
        Some("node") => event["node"] == name && event["state"] == "receiving",
        Some("progress") => node(event, name)["state"] == "receiving",
        _ => false,
    };
    if !push.events.iter().any(fits) {
        push.event(fits).await;
    }
}

#[tokio::test]
async fn nodes_stopped_during_a_push_are_named_unless_the_quorum_does_without() {
    let mut fleet = Fleet::start(4).await;
    let source = fleet.path("source");
    write(&source.join("file"), &bytes(3, 2_000_000));
    let path = source.to_str().unwrap();
    let common = [path, "--deadline", "6s", "--rate", "40Mbit"];
    let mut all = fleet.push("alice", &common);
    let mut two = fleet.push("bob", &[common.as_slice(), &["--quorum", "2"]].concat());
    let mut half = fleet.push("bob", &[common.as_slice(), &["--quorum", "50%"]].concat());
    // They have taken up the jobs, and are not done yet.
    for push in [&mut all, &mut two, &mut half] {
        for name in ["n3", "n4"] {
            until_receiving(push, name).await;
        }
    }
    fleet.signal("n3", Signal::STOP);
    fleet.end("n4", Signal::KILL).await;

    let (code, closed, err) = all.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(3), "partial"), "{err}");
    let job = text(&closed, "job").to_owned();
    let states =
        [("n1", "complete"), ("n2", "complete"), ("n3", "unreachable"), ("n4", "unreachable")];
    assert_states(&closed, &states);
    for name in ["n3", "n4"] {
        assert!(text(&closed, "reason").contains(name), "{closed}");
        assert!(node(&closed, name)["reason"].is_string(), "{closed}");
        assert!(err.contains(name), "{err}");
    }
    assert!(!text(&closed, "reason").contains("n1"), "{closed}");
    for mut push in [two, half] {
        let (code, closed, err) = push.finish().await;
        assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
        assert_states(&closed, &states);
    }

    // Who comes back later finishes, and that changes nothing but its own line.
    let before = fleet.show(&job).await;
    fleet.signal("n3", Signal::CONT);
    fleet.start_again("n4").await;
    let after = until("n3 and n4 finish", async || {
        let job = fleet.show(&job).await;
        let done = ["n3", "n4"].iter().all(|name| node(&job, name)["state"] == "complete");
        done.then_some(job)
    })
    .await;
    for field in ["state", "reason", "closed_at", "digest", "bytes"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(fleet.run(&["job", "watch", &job]).await.code, Some(3));
    let expected = snapshot(&fleet.path("source"));
    for name in ["n1", "n2", "n3", "n4"] {
        assert_holds(&fleet.files(name, &job).join("source"), &expected);
    }
}
