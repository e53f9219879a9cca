//! A base that does not keep to the protocol, against a running node.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use certs::Identity;
use quinn::{Connection, Endpoint};
use shared::id::JobId;
use shared::job::{JobObject, Keep, Kind, ServerList, SignedJob};
use shared::seal::Hash;
use shared::wire::code::Code;
use shared::wire::codec;
use shared::wire::frame::FrameReader;
use shared::wire::message::{Assign, FrameType, Hello, Offer, StateKind, Welcome};
use shared::wire::record::RecordKind;
use shared::wire::request::Reply;
use shared_io::greet::{self, Greeted};
use shared_io::link::ControlStream;
use shared_io::transport::{self, Terms};

use super::super::fleet::{Fleet, distributary};
use super::peer::{first_page, frame, name, records, state};
use super::table::CASES;
use super::{Ends, Verdicts, What, load};

/// What the base sends once the node has accepted its job and wants it.
pub(crate) enum Sends {
    /// On the control stream.
    Control(fn(&Impostor) -> Vec<u8>),
    /// On a job stream.
    Stream(fn(&Impostor) -> Vec<u8>),
}

pub(crate) struct Impostor {
    pub(super) identity: Identity,
    pub(super) object: JobObject,
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_node_believes_a_base_nothing_that_it_can_check() {
    let fleet = Fleet::start(0).await;
    super::super::fleet::issue(&fleet.path("pki"), "node", "n9", &[], &fleet.identity("n9")).await;
    let mut verdicts = Verdicts::default();
    for (number, case) in (1..).zip(CASES) {
        let What::Base(sends) = &case.what else { continue };
        let run = one(&fleet, number, sends);
        let (ends, text) = match tokio::time::timeout(PATIENCE, run).await {
            Ok((ends, text)) => (Ok(ends), text),
            Err(_elapsed) => (Err("nothing happens".to_owned()), String::new()),
        };
        verdicts.judge(case, ends, &text);
        // Nothing of it is shown.
        let jobs = fleet.path(&format!("n9-{number}")).join("jobs");
        for job in std::fs::read_dir(jobs).into_iter().flatten() {
            let files = job.unwrap().path().join("files");
            assert_eq!(std::fs::read_dir(files).unwrap().count(), 0, "{}", case.name);
        }
    }
    verdicts.end();
}

async fn one(fleet: &Fleet, number: u8, sends: &Sends) -> (Ends, String) {
    let identity = load(&fleet.identity("b"));
    let terms = Terms::default();
    let config = transport::server_config(&identity, &terms).unwrap();
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = transport::open_endpoint(any, Some(config), &[2; 32], &terms.access).unwrap();
    let mut command = distributary();
    command.args(["node", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.arg("--until-stdin-closes").stdin(Stdio::piped()).stderr(Stdio::null());
    command.args(["--base", &endpoint.local_addr().unwrap().to_string()]);
    command.arg("--identity").arg(fleet.identity("n9"));
    command.arg("--data").arg(fleet.path(&format!("n9-{number}")));
    let mut node = command.spawn().unwrap();
    let _stdin = node.stdin.take();
    let impostor = Impostor { object: object(&identity, number), identity };
    impostor.serve(&endpoint, sends).await
}

fn servers() -> ServerList {
    ServerList::new(vec![name("n9")])
}

fn object(identity: &Identity, number: u8) -> JobObject {
    JobObject {
        id: JobId([number; 16]),
        name: name("false"),
        tenant: name("alice"),
        kind: Kind::Files,
        size: Some(1_000_000),
        created_at_ms: 0,
        deadline_s: None,
        stripes: 1,
        chunk_max: 16_384,
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        page_key: identity.public_key(),
        servers: 1,
        servers_hash: servers().hash(),
    }
}

impl Impostor {
    fn signed(&self) -> SignedJob {
        self.object.sign(self.identity.signing_key())
    }

    async fn serve(&self, endpoint: &Endpoint, sends: &Sends) -> (Ends, String) {
        let incoming = endpoint.accept().await.unwrap();
        let Greeted::<Hello> { connection, mut control, .. } =
            greet::accept(incoming).await.unwrap();
        let welcome = Welcome { version: "0".to_owned(), epoch: 1, incarnation: 1 };
        greet::welcome(&mut control, &welcome).await.unwrap();
        let assign = codec::encode(&Assign::Open(Box::new(self.signed())));
        let mut open = state(FrameType::Assign, self.object.id, 1, &assign);
        let offer = codec::encode(&Offer::of_root(1, 1));
        open.extend(state(FrameType::Offer, self.object.id, 2, &offer));
        control.send.write_all(&open).await.unwrap();
        let asked = answer_servers(&connection);
        let accepted = wanted(&connection, &mut control);
        tokio::join!(asked, accepted);
        let mut stream = connection.open_uni().await.unwrap();
        match sends {
            Sends::Control(bytes) => drop(control.send.write_all(&bytes(self)).await),
            Sends::Stream(bytes) => drop(stream.write_all(&bytes(self)).await),
        }
        tokio::select! {
            close = connection.closed() => match close {
                quinn::ConnectionError::ApplicationClosed(close) => {
                    let code = Code::from_number(close.error_code.into_inner());
                    let text = String::from_utf8_lossy(&close.reason).into_owned();
                    (code.map_or(Ends::Nothing, Ends::Closed), text)
                }
                other => (Ends::Nothing, other.to_string()),
            },
            Ok(Some(code)) = stream.stopped() => {
                let code = Code::from_number(code.into_inner());
                (code.map_or(Ends::Nothing, Ends::Stopped), String::new())
            }
        }
    }
}

async fn answer_servers(connection: &Connection) {
    let (mut send, mut recv) = connection.accept_bi().await.unwrap();
    drop(recv.read_to_end(65_536).await.unwrap());
    let reply = frame(FrameType::Reply, &codec::encode(&Reply::Servers(servers())));
    send.write_all(&reply).await.unwrap();
    send.finish().unwrap();
}

/// Waits until the peer wants the job, which it says in a datagram or on the stream.
pub(super) async fn wanted(connection: &Connection, control: &mut ControlStream) {
    let is_want = |kind: u8| kind == StateKind::Want.frame_type() as u8;
    let mut frames = FrameReader::new();
    loop {
        tokio::select! {
            datagram = connection.read_datagram() => {
                let found = shared::wire::frame::datagram_frames(&datagram.unwrap()).unwrap();
                if found.iter().any(|frame| is_want(frame.kind)) {
                    return;
                }
            }
            chunk = control.recv.read_chunk(65_536, true) => {
                frames.push(&chunk.unwrap().unwrap().bytes);
                while let Some(frame) = frames.next(65_536).unwrap() {
                    if is_want(frame.kind) {
                        return;
                    }
                }
            }
        }
    }
}

/// The job's name, then `more`.
pub(super) fn of_job(impostor: &Impostor, more: Vec<(RecordKind, u64, Vec<u8>)>) -> Vec<u8> {
    records(&[vec![(RecordKind::Job, 0, impostor.object.id.0.to_vec())], more].concat())
}

/// The first page, signed by `identity`: one file with one chunk of 5 bytes.
pub(super) fn signed_page(job: JobId, identity: &Identity) -> Vec<u8> {
    let draft = first_page(job, Hash::of(b"right"), 5);
    let page = shared::manifest::PageBytes::from_record(draft.into(), false).unwrap();
    page.sign(identity.signing_key()).to_record().to_vec()
}
