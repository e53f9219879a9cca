//! `demo`, from outside.

use std::path::Path;

use serde_json::Value;

use super::fields::{assert_fields, list};
use super::fleet::{Following, Ran, distributary, until};
use super::tree::snapshot;
use rustix::process::Signal;

#[tokio::test]
async fn the_demo_ends_equal_and_leaves_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = distributary();
    demo.args(["demo", "--nodes", "3", "--size", "2MiB", "--json"]).env("TMPDIR", tmp.path());
    let ran = Ran::of(demo).await;
    let last: Value = serde_json::from_str(ran.ok().lines().last().unwrap()).unwrap();
    assert_fields(&last, "v:one bytes:count seconds:number base_copies:number nodes:list");
    assert_eq!((&last["ok"], &last["bytes"]), (&true.into(), &(2 << 20).into()), "{last}");
    assert_eq!(list(&last, "nodes").len(), 3);
    for node in list(&last, "nodes") {
        assert_fields(node, "name:text seconds:number upstreams:list sources:list");
        assert_eq!(node["equal"], true, "{last}");
    }
    assert!(last["base_copies"].as_f64().unwrap() >= 1.0, "{last}");
    assert!(snapshot(tmp.path()).is_empty(), "{:?}", snapshot(tmp.path()).keys());
}

#[tokio::test]
async fn a_live_demo_ends_equal() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = distributary();
    demo.args(["demo", "--nodes", "2", "--live", "2", "--json"]).env("TMPDIR", tmp.path());
    let ran = Ran::of(demo).await;
    let last: Value = serde_json::from_str(ran.ok().lines().last().unwrap()).unwrap();
    assert_eq!((&last["ok"], &last["bytes"]), (&true.into(), &2_000_000.into()), "{last}");
    assert!(snapshot(tmp.path()).is_empty(), "{:?}", snapshot(tmp.path()).keys());
}

#[tokio::test]
async fn a_demo_keeps_its_folder_if_asked_and_pushes_what_is_given() {
    let tmp = tempfile::tempdir().unwrap();
    let (source, kept) = (tmp.path().join("given"), tmp.path().join("kept"));
    super::tree::write(&source.join("deep/file"), b"given");
    let mut demo = distributary();
    demo.args(["demo", "--nodes", "1", "--json", "--keep"]).arg(&kept).arg(&source);
    let ran = Ran::of(demo).await;
    let last: Value = serde_json::from_str(ran.ok().lines().last().unwrap()).unwrap();
    assert_eq!((&last["ok"], &last["bytes"]), (&true.into(), &5.into()), "{last}");
    let found = snapshot(&kept);
    assert!(found.keys().any(|name| name.ends_with("files/given/deep/file")), "{:?}", found.keys());
}

/// The processes that were told of `folder` on their command line.
fn processes_of(folder: &Path) -> Vec<String> {
    let wanted = folder.to_str().unwrap();
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read_to_string(entry.ok()?.path().join("cmdline")).ok()?;
        line.contains(wanted).then_some(line)
    });
    lines.collect()
}

#[tokio::test]
async fn the_children_of_a_killed_demo_end_with_it() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = distributary();
    demo.args(["demo", "--nodes", "2", "--size", "4MiB", "--json"]).env("TMPDIR", tmp.path());
    // Its push must not be able to end by itself before the others do.
    demo.env("DISTRIBUTARY_RATE", "100kbit");
    let mut demo = Following::new(demo);
    demo.event(|event| event["event"] == "created").await;
    // A base, two nodes and a push.
    assert_eq!(processes_of(tmp.path()).len(), 4, "{:?}", processes_of(tmp.path()));
    demo.signal(Signal::KILL);
    until("all have ended", async || processes_of(tmp.path()).is_empty().then_some(())).await;
}
