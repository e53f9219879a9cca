//! The SDK over real processes: its examples as they are written, and what else it can do.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;

use client::{
    AskError, Client, ConnectOptions, Dimensions, EventBody, Events, JobState, NodeState, Push,
    PushError, tree,
};
use futures_core::Stream;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::fleet::{Fleet, Ran};
use super::tree::bytes;

/// An example that was built beside the executable.
fn example(fleet: &Fleet, name: &str) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_distributary")).with_file_name("examples").join(name);
    assert!(built.exists(), "{} is not built: cargo build --examples", built.display());
    let mut command = Command::new(built);
    command.arg(fleet.base()).arg(fleet.identity("alice")).kill_on_drop(true);
    command
}

/// The job in what an example has printed.
fn complete_job(printed: &str) -> &str {
    let (job, state) = printed.trim_end().split_once(' ').unwrap();
    assert_eq!(state, "complete");
    job
}

async fn connect(fleet: &Fleet, who: &str) -> Client {
    let options = ConnectOptions::load(fleet.base(), &fleet.identity(who)).unwrap();
    Client::connect(options).await.unwrap()
}

fn source(fleet: &Fleet, content: &[u8]) -> PathBuf {
    let source = fleet.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), content).unwrap();
    source
}

#[tokio::test]
async fn the_example_of_files_runs() {
    let fleet = Fleet::start(2).await;
    let content = bytes(5, 300_000);
    let mut command = example(&fleet, "push_files");
    command.arg(source(&fleet, &content));
    let ran = Ran::of(command).await;
    let job = complete_job(ran.ok());
    for node in ["n1", "n2"] {
        let there = std::fs::read(fleet.files(node, job).join("source/file")).unwrap();
        assert!(there == content, "{node}");
    }
}

#[tokio::test]
async fn the_example_of_a_live_object_runs() {
    let fleet = Fleet::start(1).await;
    let content = bytes(6, 300_000);
    let mut command = example(&fleet, "push_live");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&content).await.unwrap();
    drop(pipe);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let there = std::fs::read(fleet.files("n1", complete_job(&printed)).join("stream")).unwrap();
    assert!(there == content);
}

async fn next(events: &mut Events<Push, PushError>) -> Option<Result<EventBody, PushError>> {
    let event = std::future::poll_fn(|cx| Pin::new(&mut *events).poll_next(cx)).await?;
    Some(event.map(|event| event.body))
}

#[tokio::test]
async fn a_program_pushes_watches_and_asks() {
    let fleet = Fleet::start(1).await;
    let alice = connect(&fleet, "alice").await;
    let nodes = alice.nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].state), (1, NodeState::Up));
    let plan = tree::plan(&[source(&fleet, b"content")], false).unwrap();
    let name = Some("j".parse().unwrap());
    let push = alice.push(plan, Dimensions { name, ..Dimensions::default() }).await.unwrap();
    let mut events = push.events();
    let first = next(&mut events).await.unwrap().unwrap();
    assert!(matches!(first, EventBody::Created), "{first:?}");
    let closed = loop {
        if let EventBody::Closed(view) = next(&mut events).await.unwrap().unwrap() {
            break view;
        }
    };
    assert!(next(&mut events).await.is_none());
    assert_eq!((closed.state, closed.size), (JobState::Complete, Some(7)));
    assert_eq!(alice.jobs().await.unwrap()[0].id, closed.id);
    assert_eq!(alice.job("j".parse().unwrap()).await.unwrap().nodes, closed.nodes);
    let (mut writer, push) = alice.push_live("air", Dimensions::default()).await.unwrap();
    writer.write_all(b"on").await.unwrap();
    writer.mark_sync().await.unwrap();
    let live = || push.job().to_string().parse().unwrap();
    let bob = connect(&fleet, "bob").await;
    assert!(matches!(bob.job(live()).await, Err(AskError::Refused(_))));
    alice.cancel(live()).await.unwrap();
    assert_eq!(alice.job(live()).await.unwrap().state, JobState::Cancelled);
    alice.remove(live()).await.unwrap();
    assert!(matches!(alice.job(live()).await, Err(AskError::Refused(_))));
    bob.close().await;
    drop(push);
    alice.close().await;
}
