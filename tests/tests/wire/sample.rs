//! Fixed values of everything that travels.

use std::collections::BTreeMap;

use ring::signature::{Ed25519KeyPair, KeyPair};
use shared::id::{JobId, Name};
use shared::job::{Dimensions, JobObject, Keep, Kind, Quorum, Selector, ServerList, SignedJob};
use shared::manifest::{Attributes, Entry, ObjectKind, Page, Slice};
use shared::seal::{Hash, PublicKey};
use shared::view::{
    Event, EventBody, JobNodeView, JobState, JobView, KindView, NodeInfo, NodeJobState,
    NodeProgress, NodeState, SourceView,
};
use shared::wire::message::{
    Ack, Acks, Answer, Assign, Beat, Envelope, Flow, Hello, Neighbour, Offer, Phase, Query,
    Reconcile, Report, Source, Stamp, StateKind, StripeWant, View, Want, Welcome,
};
use shared::wire::request::{JobRef, Refusal, RefusalKind, Reply, Request};

/// The sixteen bytes 00 11 22 to ff.
pub(crate) const JOB: JobId = JobId([
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
]);

/// The base's key: the seed is 32 times 42.
pub(crate) fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[0x42; 32]).unwrap()
}

pub(crate) fn public_key() -> PublicKey {
    key().public_key().as_ref().try_into().unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn servers() -> ServerList {
    ServerList::new(vec![name("edge-2"), name("edge-1")])
}

pub(crate) fn object() -> JobObject {
    JobObject {
        id: JOB,
        name: name("release"),
        tenant: name("ci"),
        kind: Kind::Files,
        size: Some(300_000),
        created_at_ms: 1_767_323_045_678,
        deadline_s: Some(3_600),
        stripes: 2,
        chunk_max: 65_536,
        priority: 5,
        rate_bps: Some(50_000_000),
        keep: Keep::Seconds(86_400),
        page_key: public_key(),
        servers: 2,
        servers_hash: servers().hash(),
    }
}

pub(crate) fn signed_job() -> SignedJob {
    object().sign(&key())
}

pub(crate) fn selectors() -> Vec<(&'static str, Selector)> {
    each!(Selector {
        All => Selector::All,
        Names => Selector::Names(vec![name("edge-1"), name("edge-2")]),
        Labels => Selector::Labels(vec![("region".to_owned(), "eu".to_owned())]),
    })
}

pub(crate) fn dimensions() -> Dimensions {
    Dimensions {
        kind: Kind::Files,
        name: Some(name("release")),
        to: selectors().into_iter().map(|(_, selector)| selector).collect(),
        size: None,
        deadline_s: Some(600),
        quorum: Quorum::Percent(80),
        priority: 5,
        rate_bps: Some(50_000_000),
        keep: Keep::Forever,
        grace_s: 300,
    }
}

pub(crate) const FILE: Attributes =
    Attributes { kind: ObjectKind::File, modified: Some((-1, 999_999_999)), executable: true };

pub(crate) fn content() -> [&'static [u8]; 2] {
    [b"hello ", b"world"]
}

fn whole() -> Hash {
    Hash::of(b"hello world")
}

/// The entries of the two pages of a job whose one object, `a/b`, is `hello world`.
pub(crate) fn entries() -> Vec<(&'static str, Entry)> {
    let [hello, _] = content();
    each!(Entry {
        Chunk => Entry::Chunk {
            len: 6,
            hash: Hash::of(hello),
            slices: vec![Slice { object: 0, offset: 0, len: 6 }],
        },
        Open => Entry::Open { object: 0, name: "a/b".to_owned(), attributes: FILE },
        Close => Entry::Close { object: 0, len: 11, digest: whole() },
        End => Entry::End { content_len: 11, digest: whole() },
        Sync => Entry::Sync { object: 0, offset: 11 },
        Recut => Entry::Recut { first_page: 1, first_chunk: 0, previous: whole() },
    })
}

pub(crate) fn entry(variant: &str) -> Entry {
    entries().into_iter().find(|(found, _)| *found == variant).unwrap().1
}

pub(crate) fn pages() -> [Page; 2] {
    let [_, world] = content();
    let first = Page {
        job: JOB,
        index: 0,
        first_chunk: 0,
        previous: Hash::ZERO,
        entries: vec![entry("Open"), entry("Chunk")],
    };
    let chunk = Entry::Chunk {
        len: 5,
        hash: Hash::of(world),
        slices: vec![Slice { object: 0, offset: 6, len: 5 }],
    };
    let second = Page {
        job: JOB,
        index: 1,
        first_chunk: 1,
        previous: first.draft().hash(),
        entries: vec![chunk, entry("Close"), entry("End")],
    };
    [first, second]
}

pub(crate) const STAMP: Stamp = Stamp { term: 3, revision: 300 };

pub(crate) fn envelope(body: Vec<u8>) -> Envelope {
    Envelope { job: JOB, stamp: STAMP, body }
}

pub(crate) fn hello() -> Hello {
    Hello {
        version: "0.1.0".to_owned(),
        store: [0x5a; 16],
        boot: 7,
        incarnation: 12,
        advertise: Some("edge-1.example:7410".to_owned()),
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome { version: "0.1.0".to_owned(), epoch: 3, incarnation: 13 }
}

pub(crate) fn acks() -> Acks {
    let ack = |kind, stamp| Ack { kind, job: JOB, stamp };
    let newest = Stamp { term: u64::MAX, revision: 70_000 };
    Acks(vec![ack(StateKind::Assign, STAMP), ack(StateKind::Report, newest)])
}

pub(crate) fn reconcile() -> Reconcile {
    Reconcile { jobs: vec![JOB, JobId([1; 16])], more: true }
}

pub(crate) const BEAT: Beat = Beat { number: 250, disk_free: 1 << 40, uplink_bps: 50_000_000 };
pub(crate) const QUERY: Query = Query { job: JOB, nonce: 0x0123_4567_89ab_cdef };

pub(crate) fn answer() -> Answer {
    Answer { job: JOB, nonce: QUERY.nonce, report: Some(report(Phase::Receiving)) }
}

pub(crate) fn assigns() -> Vec<(&'static str, Assign)> {
    each!(Assign {
        Open => Assign::Open(Box::new(signed_job())),
        Closed => Assign::Closed(Box::new(signed_job())),
        Drop => Assign::Drop,
    })
}

pub(crate) fn offer() -> Offer {
    let open = [0, 3].into_iter().collect();
    Offer { pages: 1, head: 65_535, spare_bps: 8_000_000, open, ahead: vec![65_536, 70_001] }
}

pub(crate) fn view() -> View {
    let peer = |text, address: &str| Neighbour { name: name(text), address: address.to_owned() };
    let peers = vec![peer("edge-2", "192.0.2.7:7410"), peer("edge-3", "edge-3.example:7410")];
    View { target_bps: 80_000_000, peers }
}

pub(crate) fn want() -> Want {
    Want {
        pages: 1,
        pages_to: 17,
        durable: 250,
        complete: false,
        stripes: vec![
            StripeWant::new(0, 250, 506),
            StripeWant { skip: Some((301, 401)), ..StripeWant::new(1, 251, 507) },
            StripeWant { comes_bps: 5_000_000, ..StripeWant::new(2, 254, 0) },
        ],
        held: vec![(260, 4), (65_536, 1)],
    }
}

pub(crate) fn phases() -> Vec<(&'static str, Phase)> {
    each!(Phase {
        Receiving => Phase::Receiving,
        Complete => Phase::Complete,
        Failed => Phase::Failed("disk full".to_owned()),
        Dropped => Phase::Dropped,
        Stalled => Phase::Stalled("disk full".to_owned()),
    })
}

pub(crate) fn sources() -> Vec<(&'static str, Source)> {
    each!(Source {
        Base => Source::Base,
        Node => Source::Node(name("edge-2")),
    })
}

pub(crate) fn report(phase: Phase) -> Report {
    let upstreams = sources().into_iter().map(|(_, source)| source).collect();
    let flow = |(source, rate_bps)| Flow { source, bytes: 65_536, rate_bps };
    let flows = sources().into_iter().map(|(_, source)| source).zip([2_500_000_000, 7]);
    let flows = flows.map(flow).collect();
    Report { phase, bytes: 131_072, rate_bps: 4_000_000_000, upstreams, flows }
}

pub(crate) fn job_refs() -> Vec<(&'static str, JobRef)> {
    each!(JobRef {
        Id => JobRef::Id(JOB),
        Name => JobRef::Name(name("release")),
    })
}

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let by_name = || JobRef::Name(name("release"));
    each!(Request {
        Create => Request::Create { key: [0xa5; 16], dimensions: Box::new(dimensions()) },
        Jobs => Request::Jobs,
        Job => Request::Job(JobRef::Id(JOB)),
        Watch => Request::Watch(by_name()),
        Cancel => Request::Cancel(by_name()),
        Remove => Request::Remove(by_name()),
        Fail => Request::Fail { job: JOB, reason: "a.bin has changed".to_owned() },
        Nodes => Request::Nodes,
        ForgetNode => Request::ForgetNode(name("edge-2")),
        LabelNode => Request::LabelNode {
            node: name("edge-2"),
            labels: vec![("region".to_owned(), "eu".to_owned())],
        },
        Servers => Request::Servers { job: JOB, hash: servers().hash() },
        Resume => Request::Resume { dimensions: Box::new(dimensions()), pages: 7 },
    })
}

pub(crate) fn refusals() -> Vec<(&'static str, RefusalKind)> {
    each!(RefusalKind {
        Cannot => RefusalKind::Cannot,
        Rights => RefusalKind::Rights,
        NotOpen => RefusalKind::NotOpen,
    })
}

pub(crate) fn replies() -> Vec<(&'static str, Reply)> {
    let event = Event { job: JOB.to_string(), at: AT.to_owned(), body: EventBody::Quorum };
    let refusal = Refusal { kind: RefusalKind::Rights, text: "no".to_owned() };
    each!(Reply {
        Created => Reply::Created(Box::new(signed_job())),
        Jobs => Reply::Jobs(vec![job_view()]),
        Job => Reply::Job(Box::new(job_view())),
        Event => Reply::Event(Box::new(event)),
        Nodes => Reply::Nodes(vec![node_info()]),
        Done => Reply::Done,
        Servers => Reply::Servers(servers()),
        Refused => Reply::Refused(refusal),
        Page => Reply::Page(b"signature and page".to_vec()),
    })
}

const AT: &str = "2026-01-02T03:04:05.678Z";

pub(crate) fn job_view() -> JobView {
    JobView {
        v: 1,
        id: JOB.to_string(),
        name: "release".to_owned(),
        kind: KindView::Files,
        state: JobState::Partial,
        reason: Some("late".to_owned()),
        size: Some(300_000),
        bytes: 300_000,
        digest: None,
        created_at: AT.to_owned(),
        deadline: None,
        closed_at: Some(AT.to_owned()),
        nodes: vec![JobNodeView {
            name: "edge-1".to_owned(),
            state: NodeJobState::Complete,
            bytes: 300_000,
            rate_bps: 0,
            upstreams: vec!["base".to_owned()],
            sources: vec![SourceView { name: "base".to_owned(), bytes: 300_000, rate_bps: 0 }],
            completed_at: Some(AT.to_owned()),
            reason: None,
        }],
    }
}

pub(crate) fn node_info() -> NodeInfo {
    NodeInfo {
        name: "edge-1".to_owned(),
        address: "192.0.2.1:7410".to_owned(),
        labels: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
        state: NodeState::Up,
        jobs: 1,
        rtt_ms: Some(0.5),
    }
}

pub(crate) fn events() -> Vec<(&'static str, EventBody)> {
    let node = NodeProgress {
        name: "edge-1".to_owned(),
        state: NodeJobState::Receiving,
        bytes: 131_072,
        rate_bps: 8_000_000,
    };
    each!(EventBody {
        Created => EventBody::Created,
        Progress => EventBody::Progress { size: None, bytes: 300_000, nodes: vec![node] },
        Node => EventBody::Node {
            node: "edge-1".to_owned(),
            state: NodeJobState::Failed,
            reason: Some("disk full".to_owned()),
        },
        Quorum => EventBody::Quorum,
        Closed => EventBody::Closed(Box::new(job_view())),
    })
}
