//! A peer with a valid certificate that does not keep to the protocol, against a running base.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use certs::Identity;
use quinn::{Connection, Endpoint, VarInt};
use serde_json::Value;
use shared::id::{JobId, Name, Role};
use shared::job::{Dimensions, Keep, Kind, Quorum, Selector};
use shared::manifest::{Attributes, Entry, Manifest, ObjectKind, Slice};
use shared::seal::Hash;
use shared::wire::code::Code;
use shared::wire::codec;
use shared::wire::frame::{FrameReader, put_frame};
use shared::wire::message::{Envelope, FrameType, Hello, Offer, Stamp};
use shared::wire::record::{RecordKind, RecordWriter};
use shared::wire::request::{Reply, Request};
use shared_io::greet::{self, GreetError, Greeted};
use shared_io::link::ControlStream;
use shared_io::request::ask;
use shared_io::transport::{self, Terms};
use tokio::process::ChildStdin;

use super::super::fleet::{Fleet, Following};
use super::impostor::wanted;
use super::table::CASES;
use super::{Ends, Verdicts, What, load};

/// Who the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Client,
    Node,
    /// Another base of the same authority.
    Base,
}

/// What it sends, and where.
pub(crate) enum Sends {
    /// On the control stream, in place of a greeting.
    Greeting(fn() -> Vec<u8>),
    /// On the control stream, after the greeting.
    Control(fn(&Rogue) -> Vec<u8>),
    /// The control stream ends behind this.
    LastWords(fn(&Rogue) -> Vec<u8>),
    Datagram(fn(&Rogue) -> Vec<u8>),
    /// A unidirectional stream.
    Stream(fn(&Rogue) -> Vec<u8>),
    /// A bidirectional stream, which ends.
    Asks(fn(&Rogue) -> Vec<u8>),
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that was welcomed, and what the peer knows.
pub(crate) struct Rogue {
    pub(super) connection: Connection,
    control: ControlStream,
    base_key: [u8; 32],
    /// A job of its own, if it is a client; it is offered, so that there is credit.
    pub(super) job: JobId,
    /// A job of another client.
    pub(super) other: JobId,
}

#[tokio::test]
async fn peers_that_break_the_protocol_are_refused_and_others_are_not_disturbed() {
    let fleet = Fleet::start(1).await;
    let (open, _pipe, created) = open_job(&fleet).await;
    let other: JobId = created["job"].as_str().unwrap().parse().unwrap();
    super::super::fleet::issue(&fleet.path("pki"), "node", "rogue", &[], &fleet.identity("rogue"))
        .await;
    super::super::fleet::issue(&fleet.path("pki"), "base", "b2", &[], &fleet.identity("b2")).await;
    let mut verdicts = Verdicts::default();
    for case in CASES {
        let What::Peer(who, sends) = &case.what else { continue };
        let name = match who {
            Who::Client => "alice",
            Who::Node => "rogue",
            Who::Base => "b2",
        };
        let identity = load(&fleet.identity(name));
        let run = one(&fleet, &identity, *who, sends, other);
        let (ends, text) = match tokio::time::timeout(PATIENCE, run).await {
            Ok((ends, text)) => (Ok(ends), text),
            Err(_elapsed) => (Err("nothing happens".to_owned()), String::new()),
        };
        verdicts.judge(case, ends, &text);
    }
    verdicts.end();
    drop(open);
    // The node and bob's job have not noticed.
    let (status, _) = fleet.get("n1", "/readyz").await.unwrap();
    assert_eq!(status, 200);
    fleet.run_as("bob", &["job", "show", "open"]).await.ok();
}

/// A live job `open` of bob's, which stays open as long as its pipe.
pub(super) async fn open_job(fleet: &Fleet) -> (Following, ChildStdin, Value) {
    let mut command = fleet.command("bob", &["push", "--json", "--live", "-", "--name", "open"]);
    command.stdin(Stdio::piped());
    let mut push = Following::new(command);
    let pipe = push.take_stdin();
    let created = push.event(|event| event["event"] == "created").await;
    (push, pipe, created)
}

fn hello() -> Hello {
    Hello { version: "0".to_owned(), store: [9; 16], boot: 1, incarnation: 0, advertise: None }
}

pub(super) fn endpoint(identity: &Identity) -> Endpoint {
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let terms = Terms::default();
    let mut endpoint = transport::open_endpoint(any, None, &[1; 32], &terms.access).unwrap();
    endpoint.set_default_client_config(transport::client_config(identity, &terms).unwrap());
    endpoint
}

async fn one(
    fleet: &Fleet,
    identity: &Identity,
    who: Who,
    sends: &Sends,
    other: JobId,
) -> (Ends, String) {
    let endpoint = endpoint(identity);
    let base: SocketAddr = fleet.base().parse().unwrap();
    if let Sends::Greeting(bytes) = sends {
        let name = certs::tls::server_name(Role::Base);
        let connection = endpoint.connect(base, name).unwrap().await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes()).await.unwrap();
        return closed(&connection).await;
    }
    let mut rogue = match welcomed(&endpoint, base, other).await {
        Ok(rogue) => rogue,
        Err(error) => return (Ends::Closed(Code::Refused), error.to_string()),
    };
    if who == Who::Client {
        rogue.begin(identity).await;
    }
    let outcome = rogue.send(sends).await;
    // A client's job is not left behind.
    if who == Who::Client {
        let ran = fleet.run(&["job", "cancel", &rogue.job.to_string()]).await;
        assert!(matches!(ran.code, Some(0 | 1)), "{ran:?}");
    }
    outcome
}

/// Greets the base as a peer should.
pub(super) async fn welcomed(
    endpoint: &Endpoint,
    base: SocketAddr,
    other: JobId,
) -> Result<Rogue, GreetError> {
    let greeted = greet::dial(endpoint, base, Role::Base, &hello()).await?;
    let Greeted { connection, control, identity: base, .. } = greeted;
    let job = JobId([0; 16]);
    Ok(Rogue { connection, control, base_key: base.public_key, job, other })
}

pub(super) async fn closed(connection: &Connection) -> (Ends, String) {
    match connection.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let code = Code::from_number(close.error_code.into_inner());
            let text = String::from_utf8_lossy(&close.reason).into_owned();
            (code.map_or(Ends::Nothing, Ends::Closed), text)
        }
        other => (Ends::Nothing, other.to_string()),
    }
}

impl Rogue {
    /// Makes a job and offers it, so that the base gives credit.
    pub(super) async fn begin(&mut self, identity: &Identity) {
        let dimensions = Dimensions {
            kind: Kind::Files,
            name: None,
            to: vec![Selector::All],
            size: Some(10_000_000),
            deadline_s: Some(600),
            quorum: Quorum::All,
            priority: 5,
            rate_bps: None,
            keep: Keep::Forever,
            grace_s: 300,
        };
        let key = shared_io::data_folder::random().unwrap();
        let request = Request::Create { key, dimensions: Box::new(dimensions) };
        let Some(Reply::Created(signed)) = self.reply(&request).await else { panic!("no job") };
        let object = signed.open(&self.base_key).unwrap();
        self.job = object.id;
        assert_eq!(&object.tenant, identity.name());
        let offer = Offer::of_root(1, 0);
        let bytes = state(FrameType::Offer, self.job, 1, &codec::encode(&offer));
        self.control.send.write_all(&bytes).await.unwrap();
        wanted(&self.connection, &mut self.control).await;
    }

    pub(super) async fn reply(&self, request: &Request) -> Option<Reply> {
        ask(&self.connection, request).await.ok()?.next().await.ok()?
    }

    async fn send(&mut self, sends: &Sends) -> (Ends, String) {
        match sends {
            Sends::Greeting(_) => unreachable!("it was sent before the greeting"),
            Sends::Control(bytes) => {
                let bytes = bytes(self);
                drop(self.control.send.write_all(&bytes).await);
            }
            Sends::LastWords(bytes) => {
                let bytes = bytes(self);
                drop(self.control.send.write_all(&bytes).await);
                self.control.send.finish().unwrap();
                return closed(&self.connection).await;
            }
            Sends::Datagram(bytes) => {
                self.connection.send_datagram(bytes(self).into()).unwrap();
            }
            Sends::Stream(bytes) => {
                let bytes = bytes(self);
                let mut stream = self.connection.open_uni().await.unwrap();
                drop(stream.write_all(&bytes).await);
                let stopped = tokio::select! {
                    close = closed(&self.connection) => return close,
                    stopped = stream.stopped() => stopped,
                    () = self.answers_for_a_while() => Ok(None),
                };
                if let Ok(Some(code)) = stopped {
                    let code = Code::from_number(code.into_inner());
                    return (code.map_or(Ends::Nothing, Ends::Stopped), String::new());
                }
            }
            Sends::Asks(bytes) => return self.asks(bytes(self)).await,
        }
        tokio::select! {
            close = closed(&self.connection) => close,
            () = self.answers_for_a_while() => (Ends::Nothing, String::new()),
        }
    }

    /// The base has answered several requests after what was sent.
    async fn answers_for_a_while(&self) {
        for _ in 0..10 {
            if self.reply(&Request::Nodes).await.is_none() {
                return std::future::pending().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn asks(&self, bytes: Vec<u8>) -> (Ends, String) {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        drop(send.write_all(&bytes).await);
        drop(send.finish());
        let mut frames = FrameReader::new();
        loop {
            if let Ok(Some(frame)) = frames.next(1 << 20) {
                let reply = shared::wire::message::decode::<Reply>(&frame.body).unwrap();
                let Reply::Refused(refusal) = reply else {
                    return (Ends::Nothing, format!("{reply:?}"));
                };
                return (Ends::Answered(refusal.kind), refusal.text);
            }
            match recv.read_chunk(65_536, true).await {
                Ok(Some(chunk)) => frames.push(&chunk.bytes),
                Ok(None) => return (Ends::Nothing, "no reply".to_owned()),
                Err(_) => return closed(&self.connection).await,
            }
        }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

pub(super) fn frame(kind: FrameType, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, kind as u8, body);
    bytes
}

/// A state of revision `revision`; terms of nodes rise with the incarnation, so the highest is
/// taken.
pub(super) fn state(kind: FrameType, job: JobId, revision: u64, body: &[u8]) -> Vec<u8> {
    let stamp = Stamp { term: 0, revision };
    let envelope = Envelope { job, stamp, body: body.to_vec() };
    frame(kind, &codec::encode(&envelope))
}

/// The records of a job stream.
pub(super) fn records(records: &[(RecordKind, u64, Vec<u8>)]) -> Vec<u8> {
    let (mut writer, mut out) = (RecordWriter::new(), Vec::new());
    for (kind, number, payload) in records {
        writer.put(*kind, *number, payload, &mut out);
    }
    out
}

/// The header of a fragment, and nothing behind it but the bytes given.
pub(super) fn fragment(
    kind: u8,
    len: u16,
    total: u32,
    offset: u32,
    number: u64,
    bytes: &[u8],
) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&total.to_le_bytes()[..3]);
    out.extend_from_slice(&offset.to_le_bytes()[..3]);
    out.extend_from_slice(&number.to_le_bytes()[..5]);
    out.extend_from_slice(bytes);
    out
}

/// A stream of the rogue's own job: its name, then `more`.
pub(super) fn of_job(rogue: &Rogue, more: Vec<(RecordKind, u64, Vec<u8>)>) -> Vec<u8> {
    records(&[vec![(RecordKind::Job, 0, rogue.job.0.to_vec())], more].concat())
}

/// The first page of a job: one file with one chunk of `len` bytes.
pub(super) fn first_page(job: JobId, hash: Hash, len: u32) -> Vec<u8> {
    let attributes = Attributes { kind: ObjectKind::File, modified: None, executable: false };
    let open = Entry::Open { object: 0, name: "f".to_owned(), attributes };
    let slices = vec![Slice { object: 0, offset: 0, len }];
    let page =
        Manifest::new(job, 1 << 20).next_page(vec![open, Entry::Chunk { len, hash, slices }]);
    page.draft().to_record().to_vec()
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}
