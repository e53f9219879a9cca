//! Nodes that complete a job among themselves while their base is gone.

use rustix::process::Signal;

use super::fields::text;
use super::fleet::{Fleet, until};
use super::journal::Durable;
use super::tree::{assert_holds, bytes, snapshot, write};

const NODES: usize = 8;
/// Slow enough that what comes from the base fast takes some seconds from node to node.
const SLOW: &[&str] = &["--uplink", "2Mbit"];
const BYTES: usize = 1_000_000;

fn nodes() -> impl Iterator<Item = String> {
    (1..=NODES).map(|number| format!("n{number}"))
}

/// What each node has of a job.
fn parts(fleet: &Fleet, job: &str) -> Vec<Durable> {
    nodes().map(|node| Durable::of(&fleet.data(&node).join("jobs").join(job))).collect()
}

/// Waits until all nodes together have everything. None of them has it then.
async fn the_whole_is_among_them(fleet: &Fleet, job: &str) {
    until("the parts are the whole", async || {
        let parts = parts(fleet, job);
        assert!(parts.iter().all(|part| !part.is_whole()), "a node has everything already");
        let all = parts.iter().fold(Durable::default(), Durable::and);
        all.is_whole().then_some(())
    })
    .await;
}

#[tokio::test]
async fn nodes_that_have_the_whole_among_them_complete_it_without_the_base() {
    let mut fleet = Fleet::start_with(NODES, SLOW).await;
    let source = fleet.path("source");
    write(&source.join("file"), &bytes(1, BYTES));
    let mut push = fleet.push("alice", &[&source]);
    let job = text(&push.event(|event| event["event"] == "created").await, "job").to_owned();
    the_whole_is_among_them(&fleet, &job).await;
    fleet.end("b", Signal::KILL).await;
    let lacking = parts(&fleet, &job).iter().filter(|part| !part.is_whole()).count();
    assert_eq!(lacking, NODES, "nodes had everything when the base was gone");
    // A file has its name when all of it is there and verified.
    until("all have the file", async || {
        let is_there = |node: String| fleet.files(&node, &job).join("source/file").exists();
        nodes().all(is_there).then_some(())
    })
    .await;
    for node in nodes() {
        assert_holds(&fleet.files(&node, &job).join("source"), &snapshot(&source));
    }
    fleet.start_again("b").await;
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(0), "complete"), "{err}");
}
