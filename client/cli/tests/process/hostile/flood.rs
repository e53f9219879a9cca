//! Floods against a running base: it stays within its memory, and others are served.

use std::net::SocketAddr;
use std::time::Duration;

use shared::id::{JobId, Role};
use shared::wire::code::Code;
use shared::wire::message::FrameType;
use shared::wire::record::{HEADER_LEN, RecordKind};
use shared::wire::request::Request;

use super::super::fleet::{Fleet, issue, until};
use super::peer::{closed, endpoint, fragment, frame, records, welcomed};
use super::{Ends, load};

/// The most that a base may take in these tests: 64 MiB for what is not whole and 16 MiB of
/// receive window on each of the connections that send, and what it takes by itself.
const MEMORY_MAX: u64 = 256 * 1024 * 1024;
const NOBODY: JobId = JobId([0; 16]);

/// The base has served somebody else, and what it took is within bounds.
#[track_caller]
fn assert_small(fleet: &Fleet) {
    let memory = fleet.memory("b");
    assert!(memory <= MEMORY_MAX, "{} MiB", memory / 1024 / 1024);
}

fn base(fleet: &Fleet) -> SocketAddr {
    fleet.base().parse().unwrap()
}

#[tokio::test]
async fn a_flood_of_datagrams() {
    let fleet = Fleet::start(1).await;
    issue(&fleet.path("pki"), "node", "rogue", &[], &fleet.identity("rogue")).await;
    let endpoint = endpoint(&load(&fleet.identity("rogue")));
    let rogue = welcomed(&endpoint, base(&fleet), NOBODY).await.unwrap();
    // As many frames of an unknown type as fit, and beats, which are taken up.
    let unknown = [200u8, 0, 0, 0].repeat(250);
    for number in 0..100_000u32 {
        let beat = frame(FrameType::Beat, &[number.to_le_bytes()[0] % 250, 0, 0]);
        let bytes = if number % 2 == 0 { unknown.clone() } else { beat };
        rogue.connection.send_datagram_wait(bytes.into()).await.unwrap();
    }
    fleet.run_as("bob", &["job", "ls"]).await.ok();
    assert!(rogue.connection.close_reason().is_none(), "{:?}", rogue.connection.close_reason());
    assert_small(&fleet);
}

#[tokio::test]
async fn a_flood_of_streams_with_nothing_whole() {
    let fleet = Fleet::start(1).await;
    let identity = load(&fleet.identity("alice"));
    let endpoint = endpoint(&identity);
    let mut rogue = welcomed(&endpoint, base(&fleet), NOBODY).await.unwrap();
    rogue.begin(&identity).await;
    // Each stream begins all chunks that there is credit for, 2 MiB, and ends none.
    let begun = |number: u64| fragment(RecordKind::Chunk as u8, 1, 16_384, 0, number, &[1]);
    let mut stream = records(&[(RecordKind::Job, 0, rogue.job.0.to_vec())]);
    for number in 0..128 {
        let left = 8_192 - stream.len() % 8_192;
        if left <= HEADER_LEN {
            stream.resize(stream.len() + left, 0);
        }
        stream.extend(begun(number));
    }
    let mut streams = Vec::new();
    let flood = async {
        for _ in 0..1_000 {
            let Ok(mut send) = rogue.connection.open_uni().await else { return };
            if send.write_all(&stream).await.is_err() {
                return;
            }
            streams.push(send);
        }
        std::future::pending::<()>().await;
    };
    let patience = Duration::from_secs(30);
    let ended = tokio::time::timeout(patience, async {
        tokio::select! {
            ended = closed(&rogue.connection) => ended,
            () = flood => closed(&rogue.connection).await,
        }
    });
    let (ends, text) = ended.await.expect("the base puts up with all of it");
    assert_eq!(ends, Ends::Closed(Code::Fault), "{text}");
    assert!(text.contains("not whole"), "{text}");
    fleet.run_as("bob", &["job", "ls"]).await.ok();
    assert_small(&fleet);
}

#[tokio::test]
async fn a_flood_of_handshakes_and_of_noise() {
    let fleet = Fleet::start(1).await;
    let identity = load(&fleet.identity("alice"));
    let endpoint = endpoint(&identity);
    let name = certs::tls::server_name(Role::Base);
    // Handshakes that are never followed by a greeting, more than the base accepts unproved.
    let silent: Vec<_> = (0..400).map(|_| endpoint.connect(base(&fleet), name).unwrap()).collect();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..50_000u32 {
        // Long and short headers, versions that there are not, lengths that are wrong.
        let mut packet = vec![0xc0 | number.to_le_bytes()[0]; 1_200];
        packet[1..5].copy_from_slice(&number.to_le_bytes());
        drop(socket.send_to(&packet, base(&fleet)));
    }
    fleet.run_as("bob", &["job", "ls"]).await.ok();
    let mut connected = Vec::new();
    for connecting in silent {
        if let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_secs(10), connecting).await
        {
            connected.push(connection);
        }
    }
    assert!(connected.len() >= 200, "{}", connected.len());
    // Who does not greet is sent away.
    until("those that say nothing are closed", async || {
        connected.iter().all(|connection| connection.close_reason().is_some()).then_some(())
    })
    .await;
    fleet.run_as("bob", &["job", "ls"]).await.ok();
    assert_small(&fleet);
}

#[tokio::test]
async fn a_flood_of_requests() {
    let fleet = Fleet::start(1).await;
    let identity = load(&fleet.identity("alice"));
    let endpoint = endpoint(&identity);
    let rogue = welcomed(&endpoint, base(&fleet), NOBODY).await.unwrap();
    // As many requests as the base lets open, none of which is ever ended.
    let mut open = Vec::new();
    while let Ok(Ok((mut send, recv))) =
        tokio::time::timeout(Duration::from_millis(300), rogue.connection.open_bi()).await
    {
        send.write_all(&[32, 0xff, 0xff, 0]).await.unwrap();
        send.write_all(&vec![0; 60_000]).await.unwrap();
        open.push((send, recv));
    }
    assert_eq!(open.len(), 63, "64 streams, one of them the control stream");
    fleet.run_as("bob", &["job", "ls"]).await.ok();
    assert_small(&fleet);
    drop(open);
    assert!(
        rogue.reply(&Request::Nodes).await.is_some() || rogue.connection.close_reason().is_some()
    );
}
