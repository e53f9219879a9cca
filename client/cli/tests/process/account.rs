//! What is told of jobs and nodes, as JSON on standard output and over HTTP.

use rustix::process::Signal;
use serde_json::Value;

use super::fields::{EVENT, JOB, NODE, assert_fields, assert_shown, list, node, text};
use super::fleet::{Fleet, Following, until};
use super::tree::{bytes, write};

/// Fails unless these are the events of one job, from `created` to `closed`.
#[track_caller]
fn assert_events(events: &[Value], job: &str) {
    for event in events {
        assert_fields(event, EVENT);
        assert_eq!(event["job"], job);
        match text(event, "event") {
            "progress" => {
                assert_fields(event, "size:count? bytes:count nodes:list");
                for node in list(event, "nodes") {
                    assert_fields(node, "name:text state:text bytes:count rate_bps:count");
                }
            }
            "node" => assert_fields(event, "node:text state:text reason:text?"),
            "closed" => assert_shown(event),
            _ => {}
        }
    }
    let names: Vec<_> = events.iter().map(|event| text(event, "event")).collect();
    let count = |name: &str| names.iter().filter(|found| **found == name).count();
    assert_eq!((names.first(), names.last()), (Some(&"created"), Some(&"closed")));
    assert_eq!((count("created"), count("closed")), (1, 1), "{names:?}");
}

#[tokio::test]
async fn a_push_is_told_event_by_event_and_shown_afterwards() {
    let fleet = Fleet::start(2).await;
    let source = fleet.path("file");
    let content = bytes(7, 2_000_000);
    write(&source, &content);
    let path = source.to_str().unwrap();
    let mut push = fleet.push("alice", &[path, "--name", "told", "--rate", "30Mbit"]);
    let job = text(&push.event(|event| event["event"] == "created").await, "job").to_owned();
    let mut watch = Following::new(fleet.command("alice", &["job", "watch", "told", "--json"]));
    let open = fleet.show(&job).await;
    assert_shown(&open);
    assert!(["receiving", "distributing"].contains(&text(&open, "state")), "{open}");
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_events(&push.events, &job);
    let names: Vec<_> = push.events.iter().map(|event| text(event, "event")).collect();
    assert!(names.contains(&"progress") && names.contains(&"node"), "{names:?}");
    assert_eq!(names.iter().filter(|name| **name == "quorum").count(), 1);

    let digest = blake3::hash(&content).to_hex().to_string();
    let shown = fleet.show("told").await;
    for job in [&closed, &shown] {
        assert_eq!((&job["state"], &job["kind"]), (&"complete".into(), &"files".into()));
        assert_eq!((&job["size"], &job["bytes"]), (&2_000_000.into(), &2_000_000.into()));
        assert_eq!((text(job, "digest"), text(job, "name")), (digest.as_str(), "told"));
        for name in ["n1", "n2"] {
            let node = node(job, name);
            assert_eq!((&node["state"], &node["bytes"]), (&"complete".into(), &2_000_000.into()));
            let sources = list(node, "upstreams").iter().map(|source| source.as_str().unwrap());
            let others: Vec<&str> = sources.filter(|source| *source != "base").collect();
            assert!(others.is_empty() || others == [if name == "n1" { "n2" } else { "n1" }]);
            assert!(node["completed_at"].is_string(), "{node}");
        }
    }
    assert_shown(&shown);
    let (code, _, err) = watch.finish().await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_events(&watch.events, &job);
    let mut late = Following::new(fleet.command("alice", &["job", "watch", &job, "--json"]));
    assert_eq!(late.finish().await.0, Some(0));
    assert_events(&late.events, &job);
}

#[tokio::test]
async fn who_feeds_whom_is_shown_with_rates_and_counted() {
    let fleet = Fleet::start(3).await;
    write(&fleet.path("file"), &bytes(7, 4_000_000));
    let path = fleet.path("file");
    let arguments = [path.to_str().unwrap(), "--name", "seen", "--rate", "8Mbit"];
    let mut push = fleet.push("alice", &arguments);
    let job = text(&push.event(|event| event["event"] == "created").await, "job").to_owned();
    let sources = |job: &Value, name: &str| list(node(job, name), "sources").clone();
    let copies = format!("distributary_job_base_copies{{job=\"{job}\"}}");
    until("sources with rates, and what has left the base", async || {
        let shown = fleet.show(&job).await;
        let mut fed = sources(&shown, "n1").into_iter();
        let page = fleet.get("b", "/metrics").await?.1;
        let is_seen = page.contains(&copies) && fed.any(|by| by["rate_bps"].as_u64() > Some(0));
        is_seen.then_some(())
    })
    .await;
    assert_eq!(push.finish().await.0, Some(0));
    let shown = fleet.show(&job).await;
    for name in ["n1", "n2", "n3"] {
        let mut sum = 0;
        for source in sources(&shown, name) {
            assert_fields(&source, "name:text bytes:count rate_bps:count");
            let from = text(&source, "name");
            let role = if from == "base" { "base" } else { "node" };
            let series = "distributary_peer_content_bytes_received_total";
            let series = format!("{series}{{peer_role=\"{role}\",peer=\"{from}\"}}");
            assert_eq!(fleet.metric(name, &series).await, source["bytes"].as_u64().unwrap());
            sum += source["bytes"].as_u64().unwrap();
        }
        assert_eq!(sum, 4_000_000, "{shown}");
        for series in [
            "distributary_upstream_switches_total{reason=\"first\"}",
            "distributary_offers_received_total{peer_role=\"base\"}",
        ] {
            assert!(fleet.metric(name, series).await > 0, "{name} {series}");
        }
    }
    assert!(fleet.metric("b", "distributary_stripes_given_total{peer_role=\"node\"}").await > 0);
    let page = fleet.get("b", "/metrics").await.unwrap().1;
    assert!(!page.contains(&copies), "a closed job has no series: {page}");
}

#[tokio::test]
async fn lists_and_pages_have_the_promised_fields() {
    let fleet = Fleet::start(2).await;
    write(&fleet.path("set/a"), b"first");
    write(&fleet.path("set/b/c"), b"second");
    let job = fleet.pushed(&fleet.path("set/")).await;

    let shown = fleet.show(&job).await;
    let line = |name: &str, content: &[u8]| format!("{}  {name}\n", blake3::hash(content));
    let mut lines = [line("a", b"first"), line("b/c", b"second")];
    lines.sort();
    assert_eq!(text(&shown, "digest"), blake3::hash(lines.concat().as_bytes()).to_string());

    let jobs = fleet.run(&["job", "ls", "--json"]).await.json();
    assert_eq!((&jobs["v"], list(&jobs, "jobs").len()), (&1.into(), 1));
    assert_fields(&jobs["jobs"][0], JOB);
    let nodes = fleet.run(&["nodes", "--json"]).await.json();
    assert_eq!((&nodes["v"], list(&nodes, "nodes").len()), (&1.into(), 2));
    for node in list(&nodes, "nodes") {
        assert_fields(node, NODE);
        assert_eq!((&node["state"], &node["jobs"]), (&"up".into(), &0.into()));
    }
    assert_eq!(node(&nodes, "n1")["labels"], serde_json::json!({"site": "a"}));

    let page = async |path: &str| -> Value {
        let (status, body) = fleet.get("b", path).await.unwrap();
        assert_eq!(status, 200, "{path}");
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(page("/api/v1/jobs").await, jobs);
    assert_eq!(page(&format!("/api/v1/jobs/{job}")).await, shown);
    let served = page("/api/v1/nodes").await;
    assert_eq!((&served["v"], list(&served, "nodes").len()), (&1.into(), 2));
    list(&served, "nodes").iter().for_each(|node| assert_fields(node, NODE));
    let (status, _) = fleet.get("b", "/api/v1/jobs/nosuch").await.unwrap();
    assert_eq!(status, 404);
}

#[tokio::test]
async fn health_and_metrics_are_served_by_both() {
    let mut fleet = Fleet::start(1).await;
    write(&fleet.path("file"), &bytes(1, 70_000));
    fleet.pushed(&fleet.path("file")).await;
    for role in ["b", "n1"] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(fleet.get(role, path).await.unwrap().0, 200, "{role} {path}");
        }
        assert_eq!(fleet.metric(role, "distributary_duplicate_bytes_total").await, 0);
    }
    let sent = "distributary_content_bytes_sent_total";
    let received = "distributary_content_bytes_received_total";
    for (role, series, peer, expected) in [
        ("b", received, "client", 70_000),
        ("b", sent, "node", 70_000),
        ("n1", received, "base", 70_000),
        ("n1", sent, "node", 0),
    ] {
        let series = format!("{series}{{peer_role=\"{peer}\"}}");
        assert_eq!(fleet.metric(role, &series).await, expected, "{role} {series}");
    }
    for role in ["b", "n1"] {
        assert_eq!(fleet.metric(role, "distributary_jobs{state=\"complete\"}").await, 1);
    }
    // A node without its base lives and is not ready.
    assert_eq!(fleet.end("b", Signal::TERM).await, Some(0));
    until("the node misses its base", async || {
        let (status, _) = fleet.get("n1", "/readyz").await.unwrap();
        (status == 503).then_some(())
    })
    .await;
    assert_eq!(fleet.get("n1", "/healthz").await.unwrap().0, 200);
    assert_eq!(fleet.end("n1", Signal::TERM).await, Some(0));
}

#[tokio::test]
async fn ends_before_the_job_does_have_their_codes() {
    let fleet = Fleet::start(1).await;
    write(&fleet.path("file"), &bytes(1, 4_000_000));
    let path = fleet.path("file");
    let path = path.to_str().unwrap();
    let slow = ["--rate", "100kbit", "--name"];
    // Its own time is over: 4. The job goes on.
    let timed = [&[path, "--timeout", "500ms"], slow.as_slice(), &["timed"]].concat();
    let (code, last, err) = fleet.push("alice", &timed).finish().await;
    assert_eq!(code, Some(4), "{err}");
    assert!(last["event"] != "closed" && err.contains(text(&last, "job")), "{last} {err}");
    // The name is taken while that job is open: 1.
    fleet.run_as("bob", &["push", path, "--name", "timed"]).await.refused(1, "timed");
    // Interrupted: 130, and told how to go on.
    let mut push = fleet.push("alice", &[&[path], slow.as_slice(), &["halted"]].concat());
    push.event(|event| event["event"] == "progress").await;
    push.signal(Signal::INT);
    let (code, _, err) = push.finish().await;
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("distributary job watch"), "{err}");
    // Cancelled: 1, for who pushes and for who watches; the node keeps nothing.
    let mut push = fleet.push("alice", &[&[path], slow.as_slice(), &["gone"]].concat());
    let job = text(&push.event(|_| true).await, "job").to_owned();
    until("the node has begun", async || {
        fleet.data("n1").join("jobs").join(&job).exists().then_some(())
    })
    .await;
    fleet.run(&["job", "cancel", "gone"]).await.ok();
    let (code, closed, _) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(1), "cancelled"));
    assert_eq!(fleet.run(&["job", "watch", &job]).await.code, Some(1));
    until("the node has dropped it", async || {
        (!fleet.data("n1").join("jobs").join(&job).exists()).then_some(())
    })
    .await;
    // Removed: unknown afterwards.
    fleet.run(&["job", "rm", &job]).await.ok();
    fleet.run(&["job", "show", &job]).await.refused(1, &job);
}
