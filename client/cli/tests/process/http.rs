//! What a node serves over HTTP is what was pushed, while it comes in too.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::fields::text;
use super::fleet::{Fleet, Following, until};
use super::tree::bytes;

#[tokio::test]
async fn a_pushed_file_is_read_at_a_node() {
    let fleet = Fleet::start(1).await;
    let content = bytes(3, 1 << 20);
    let source = fleet.path("a tree");
    std::fs::create_dir_all(source.join("below")).unwrap();
    std::fs::write(source.join("below/größe 1%.bin"), &content).unwrap();
    std::fs::write(source.join("empty"), b"").unwrap();
    let job = fleet.pushed(&source).await;
    let path = format!("/jobs/{job}/a%20tree/below/gr%C3%B6%C3%9Fe%201%25.bin");
    let (status, head, body) = fleet.fetch("n1", &path, "").await.unwrap();
    assert_eq!((status, body == content), (200, true), "{head}");
    let etag = format!("\"{}\"", blake3::hash(&content));
    assert!(head.contains(&format!("etag: {etag}")), "{head}");
    let range = format!("Range: bytes=1000-1999\r\nIf-Range: {etag}\r\n");
    let (status, head, body) = fleet.fetch("n1", &path, &range).await.unwrap();
    assert_eq!((status, body.as_slice()), (206, &content[1_000..2_000]), "{head}");
    let known = format!("If-None-Match: {etag}\r\n");
    assert_eq!(fleet.fetch("n1", &path, &known).await.unwrap().0, 304);
    let (status, _, body) =
        fleet.fetch("n1", &format!("/jobs/{job}/a%20tree/empty"), "").await.unwrap();
    assert_eq!((status, body.len()), (200, 0));
    let absent = format!("/jobs/{job}/a%20tree/absent");
    assert_eq!(fleet.get("n1", &absent).await.unwrap().0, 404);
    assert_eq!(fleet.get("n1", "/jobs/unknown/x").await.unwrap().0, 404);
    let (_, shown) = fleet.get("n1", &format!("/jobs/{job}")).await.unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((text(&shown, "state"), &shown["size"]), ("complete", &Value::from(1 << 20)));
    let at_base = fleet.show(&job).await;
    assert_eq!((&shown["digest"], &shown["name"]), (&at_base["digest"], &at_base["name"]));
    let (_, listed) = fleet.get("n1", "/jobs").await.unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(text(&listed["jobs"][0], "id"), job);
    let sent = fleet.metric("n1", "distributary_http_content_bytes_sent_total ").await;
    assert_eq!(sent, (1 << 20) + 1_000);
}

#[tokio::test]
async fn a_live_object_is_followed_over_http_to_its_end() {
    let mut fleet = Fleet::start(1).await;
    let content = bytes(4, 3 << 20);
    let mut command = fleet.command("alice", &["push", "--json", "--live", "-", "--name", "news"]);
    command.stdin(Stdio::piped());
    let mut push = Following::new(command);
    let mut pipe = push.take_stdin();
    pipe.write_all(&content[..1 << 20]).await.unwrap();
    until("the node has the job", async || {
        let (_, listed) = fleet.get("n1", "/jobs").await?;
        listed.contains("\"news\"").then_some(())
    })
    .await;
    let follow = fleet.fetch("n1", "/jobs/news/stream", "");
    let write = async {
        // Followed by now, or from the first byte a little later.
        fleet.fetch("n1", "/jobs/news/stream", "Range: bytes=5-9\r\n").await.unwrap();
        pipe.write_all(&content[1 << 20..]).await.unwrap();
        drop(pipe);
    };
    let (followed, ()) = tokio::join!(follow, write);
    let (status, head, body) = followed.unwrap();
    assert_eq!((status, body == content), (200, true), "{head}");
    let (code, _, err) = push.finish().await;
    assert_eq!(code, Some(0), "{err}");
    let (_, head, body) = fleet.fetch("n1", "/jobs/news/stream", "").await.unwrap();
    assert!(body == content && head.contains("etag: "), "{head}");
    assert_eq!(fleet.end("n1", rustix::process::Signal::TERM).await, Some(0));
}
