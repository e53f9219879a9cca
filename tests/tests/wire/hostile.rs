//! Bytes as a hostile peer sends them: refused, and never a panic.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use shared::id::JobId;
use shared::job::{JobObject, Keep, Kind, Quorum, Selector, ServerList, SignedJob};
use shared::limit;
use shared::manifest::{Entry, Manifest, ObjectKind, Page, PageBytes};
use shared::view::{EventBody, JobState, KindView, NodeJobState, NodeState};
use shared::wire::codec::{self, DecodeError};
use shared::wire::frame::{FrameReader, datagram_frames, put_frame};
use shared::wire::message::{
    self, Ack, Acks, Assign, Beat, Checked, Flow, FrameType, Hello, Neighbour, Offer, Phase, Query,
    Reconcile, Report, Source, StateKind, StripeWant, View, Want,
};
use shared::wire::record::{RecordError, RecordKind, RecordReader};
use shared::wire::request::{JobRef, RefusalKind, Reply, Request};

use super::rows::{self, Row};
use super::sample;

/// Numbers that look like chance and are the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// What is read of broken bytes, if anything, is a value: it reads back as itself.
fn read_broken(row: &Row, bytes: &[u8]) {
    if let Ok(again) = (row.read)(bytes) {
        let twice = (row.read)(&again);
        assert_eq!(twice.as_deref(), Ok(&again[..]), "{}: {bytes:02x?}", row.name);
    }
}

#[test]
fn bytes_that_are_cut_off_are_refused() {
    for row in rows::all() {
        for len in 0..row.bytes.len() {
            assert!((row.read)(&row.bytes[..len]).is_err(), "{} cut at {len}", row.name);
        }
    }
}

#[test]
fn bytes_that_are_left_over_are_refused() {
    for row in rows::all().iter().filter(|row| !row.stream) {
        for more in [&[0][..], &[1], &[0xff], &[0; 32]] {
            let bytes = [&row.bytes[..], more].concat();
            assert!((row.read)(&bytes).is_err(), "{} and {more:?}", row.name);
        }
    }
}

#[test]
fn changed_bytes_never_panic() {
    for row in rows::all() {
        for at in 0..row.bytes.len() {
            for byte in [0, 1, 2, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff] {
                let mut bytes = row.bytes.clone();
                bytes[at] = byte;
                read_broken(&row, &bytes);
            }
        }
    }
}

/// Lengths that a peer can claim in ten bytes: beyond all memory, beyond every limit, and
/// within what the limit of the largest message lets pass.
fn bombs() -> Vec<Vec<u8>> {
    let claims = [u64::MAX, 1 << 62, 1 << 40, u64::from(u32::MAX), 100_000_000, 1_000_000, 60_000];
    claims.iter().map(codec::encode).collect()
}

#[test]
fn lengths_that_claim_too_much_are_refused_wherever_they_stand() {
    for row in rows::all() {
        for at in 0..row.bytes.len() {
            for bomb in bombs() {
                // The end is cut off too, so that nothing but the claim is left.
                let bytes = [&row.bytes[..at], &bomb].concat();
                read_broken(&row, &bytes);
                read_broken(&row, &[&bytes[..], &row.bytes[at + 1..]].concat());
            }
        }
    }
    for bomb in bombs() {
        refused::<Hello>("version", &bomb);
        refused::<Acks>("acks", &bomb);
        refused::<Reconcile>("jobs", &bomb);
        refused::<Want>("held", &[&[0, 0, 0, 0][..], &bomb].concat());
        refused::<Reply>("jobs", &[&[1][..], &bomb].concat());
        refused::<Reply>("text", &[&[7, 0][..], &bomb].concat());
        assert!(codec::decode::<SignedJob, 4_096>(&bomb).is_err());
        let page = [&[0; 16 + 1 + 1 + 32][..], &bomb].concat();
        assert!(PageBytes::from_record(page.into(), false).unwrap().decode().is_err());
    }
}

fn refused<T: Checked + std::fmt::Debug>(what: &str, bytes: &[u8]) {
    let read = message::decode::<T>(bytes);
    assert!(read.is_err(), "{what}: {read:?}");
}

#[test]
fn noise_never_panics() {
    let mut chance = Chance(1);
    for row in rows::all() {
        for _ in 0..200 {
            let noise: Vec<u8> = (0..chance.below(300)).map(|_| chance.byte()).collect();
            read_broken(&row, &noise);
            let mut bytes = row.bytes.clone();
            for _ in 0..4 {
                let at = usize::try_from(chance.below(bytes.len() as u64)).unwrap();
                bytes[at] = chance.byte();
            }
            read_broken(&row, &bytes);
        }
    }
}

#[test]
fn streams_of_noise_never_panic() {
    let mut chance = Chance(2);
    for _ in 0..2_000 {
        let mut reader = RecordReader::new();
        for _ in 0..20 {
            // Headers that are nearly right, so that fragments are read too.
            let mut bytes = vec![2, 16, 0, 16, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
            let at = usize::try_from(chance.below(14)).unwrap();
            bytes[at] = chance.byte();
            bytes.resize(14 + usize::try_from(chance.below(40)).unwrap(), 2);
            let offset = chance.below(3) * 8_192 + chance.below(60);
            if reader.push(offset, Bytes::from(bytes), |_| {}).is_err() {
                break;
            }
        }
    }
    let far = RecordReader::new().push(u64::MAX - 3, Bytes::from_static(&[0; 64]), |_| {});
    assert!(far.is_ok() || far == Err(RecordError::Blocks));
}

#[test]
fn records_beyond_the_limit_of_their_kind_are_refused() {
    let kinds = each!(RecordKind {
        Job => RecordKind::Job,
        Chunk => RecordKind::Chunk,
        Page => RecordKind::Page,
        Draft => RecordKind::Draft,
        PageInPlace => RecordKind::PageInPlace,
    });
    let limits = [16, 256 * 1024, 64 * 1024, 64 * 1024];
    for ((name, kind), most) in kinds.into_iter().zip(limits) {
        let read = |total: u32| {
            let [a, b, c, _] = total.to_le_bytes();
            let header = [kind as u8, 1, 0, a, b, c, 0, 0, 0, 0, 0, 0, 0, 0];
            RecordReader::new().push(0, Bytes::copy_from_slice(&header), |_| {})
        };
        assert_eq!(kind.len_max(), most as usize, "{name}");
        assert_eq!(read(most), Ok(()), "{name}");
        for total in [0, most + 1, 0x00ff_ffff] {
            assert!(matches!(read(total), Err(RecordError::Length { .. })), "{name} of {total}");
        }
    }
}

#[test]
fn frames_beyond_the_limit_are_refused_by_their_header() {
    let mut reader = FrameReader::new();
    reader.push(&[1, 0xff, 0xff, 0xff]);
    let (len, limit) = (0x00ff_ffff, limit::FRAME_LEN_MAX);
    assert_eq!(reader.next(limit), Err(DecodeError::TooLong { len, limit }));
    assert!(datagram_frames(&[1, 1, 0, 0]).is_err());
    assert_eq!(datagram_frames(&[]), Ok(vec![]));
}

#[test]
fn a_frame_of_an_unknown_type_is_stepped_over() {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, 200, b"a newer version's");
    put_frame(&mut bytes, FrameType::Beat as u8, &codec::encode(&sample::BEAT));
    let frames = datagram_frames(&bytes).unwrap();
    let known: Vec<_> = frames.iter().filter_map(|f| FrameType::from_byte(f.kind)).collect();
    assert_eq!((frames.len(), known), (2, vec![FrameType::Beat]));
}

/// The first index behind the variants of an enum, with whatever may follow.
fn behind<T: DeserializeOwned + std::fmt::Debug>(name: &str, variants: usize) {
    for index in [variants as u64, 251, u64::from(u32::MAX), u64::MAX] {
        let bytes = [codec::encode(&index), vec![0; 300]].concat();
        let read = codec::decode::<T, { 1 << 20 }>(&bytes);
        let refused = matches!(&read, Err(DecodeError::Malformed(_)));
        assert!(refused, "variant {index} of {name}: {read:?}");
    }
}

#[test]
fn variants_that_do_not_exist_are_refused() {
    behind::<StateKind>("StateKind", 5);
    behind::<Kind>("Kind", 2);
    behind::<Quorum>("Quorum", 3);
    behind::<Selector>("Selector", 3);
    behind::<Keep>("Keep", 2);
    behind::<ObjectKind>("ObjectKind", 3);
    behind::<Entry>("Entry", sample::entries().len());
    behind::<Assign>("Assign", sample::assigns().len());
    behind::<Phase>("Phase", sample::phases().len());
    behind::<Source>("Source", sample::sources().len());
    behind::<JobRef>("JobRef", sample::job_refs().len());
    behind::<Request>("Request", sample::requests().len());
    behind::<Reply>("Reply", sample::replies().len());
    behind::<RefusalKind>("RefusalKind", sample::refusals().len());
    behind::<EventBody>("EventBody", sample::events().len());
    behind::<KindView>("KindView", 2);
    behind::<JobState>("JobState", JobState::ALL.len());
    behind::<NodeJobState>("NodeJobState", 6);
    behind::<NodeState>("NodeState", 4);
    assert!(codec::decode::<bool, 8>(&[2]).is_err());
    assert!(codec::decode::<Option<u8>, 8>(&[2, 0]).is_err());
    assert!(codec::decode::<String, 8>(&[1, 0xff]).is_err());
}

#[test]
fn server_lists_out_of_order_or_too_long_are_refused() {
    let read = |names: &[String]| codec::decode::<ServerList, { 1 << 20 }>(&codec::encode(&names));
    let names = |count: usize| (0..count).map(|at| format!("n{at:05}")).collect::<Vec<_>>();
    assert!(read(&names(limit::SERVERS_MAX)).is_ok());
    assert!(read(&names(limit::SERVERS_MAX + 1)).is_err());
    assert!(read(&["b".to_owned(), "a".to_owned()]).is_err());
    assert!(read(&["a".to_owned(), "a".to_owned()]).is_err());
}

#[test]
fn names_that_are_not_well_formed_are_refused() {
    let long = "x".repeat(65);
    for text in ["", "Edge", "a/b", "a b", "ü", "a\0", &long] {
        refused::<JobRefMessage>(text, &codec::encode(&(1u8, text)));
    }
}

/// A request that holds a name: `Job` by name.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct JobRefMessage(JobRef);

impl Checked for JobRefMessage {
    const LEN_MAX: usize = 1_024;
}

fn fits<T: Checked + PartialEq + std::fmt::Debug>(what: &str, message: &T) {
    let read = message::decode::<T>(&codec::encode(message));
    assert_eq!(read.as_ref(), Ok(message), "{what}");
}

fn over<T: Checked + std::fmt::Debug>(what: &str, message: &T) {
    refused::<T>(what, &codec::encode(message));
}

#[test]
fn the_largest_lawful_states_pass_and_one_more_is_refused() {
    let chunk = limit::CHUNKS_MAX;
    let longest = Some((chunk - limit::SKIP_CHUNKS_MAX, chunk));
    let stripe = |stripe| {
        let comes_bps = u64::MAX;
        StripeWant { skip: longest, comes_bps, ..StripeWant::new(stripe, chunk, chunk) }
    };
    let want = Want {
        pages: limit::PAGES_MAX,
        pages_to: limit::PAGES_MAX,
        durable: u64::MAX,
        complete: true,
        stripes: (0..limit::STRIPES_MAX).map(stripe).collect(),
        held: (chunk - limit::WANT_RUNS_MAX as u64..chunk).map(|first| (first, 1)).collect(),
    };
    fits("want", &want);
    over(
        "stripes",
        &Want { stripes: (0..=limit::STRIPES_MAX).map(stripe).collect(), ..want.clone() },
    );
    over(
        "runs",
        &Want {
            held: (0..=limit::WANT_RUNS_MAX as u64).map(|first| (first, 1)).collect(),
            ..want.clone()
        },
    );
    over("page", &Want { pages_to: limit::PAGES_MAX + 1, ..want.clone() });
    over("overlap", &Want { held: vec![(0, 2), (1, 1)], ..want.clone() });
    over("order", &Want { held: vec![(5, 1), (1, 1)], ..want.clone() });
    over("run", &Want { held: vec![(chunk, 1)], ..want.clone() });
    over("run", &Want { held: vec![(u64::MAX, u64::MAX)], ..want.clone() });
    let beyond = StripeWant::new(0, 0, chunk + 1);
    over("credit", &Want { stripes: vec![beyond], ..want.clone() });
    let skip = Some((0, limit::SKIP_CHUNKS_MAX + 1));
    let skips = StripeWant { skip, ..StripeWant::new(0, 0, chunk) };
    over("left out", &Want { stripes: vec![skips], ..want.clone() });
    let backwards = StripeWant { skip: Some((5, 1)), ..skips };
    over("left out", &Want { stripes: vec![backwards], ..want.clone() });
    let end = StripeWant { skip: Some((chunk, chunk + 1)), ..skips };
    over("chunk", &Want { stripes: vec![end], ..want.clone() });
    over("order", &Want { stripes: vec![StripeWant::new(1, 0, 1); 2], ..want });
    let ahead = vec![chunk; usize::from(limit::STRIPES_MAX)];
    let offer = Offer {
        spare_bps: u64::MAX,
        ahead: ahead.clone(),
        ..Offer::of_root(limit::PAGES_MAX, chunk)
    };
    fits("offer", &offer);
    over("offer", &Offer { head: chunk + 1, ..offer.clone() });
    over("offer", &Offer { ahead: [ahead.clone(), vec![0]].concat(), ..offer.clone() });
    over("offer", &Offer { ahead: vec![chunk + 1], ..offer.clone() });
    over("offer", &Offer { pages: limit::PAGES_MAX + 1, ..offer });
    let peers = |count: usize, len: usize| {
        let peer = Neighbour { name: sample::name(&"n".repeat(64)), address: "a".repeat(len) };
        View { target_bps: u64::MAX, peers: vec![peer; count] }
    };
    fits("view", &peers(limit::VIEW_MAX, limit::ADDRESS_LEN_MAX));
    over("neighbours", &peers(limit::VIEW_MAX + 1, 0));
    over("address", &peers(1, limit::ADDRESS_LEN_MAX + 1));
}

#[test]
fn the_largest_lawful_reports_pass_and_one_more_is_refused() {
    let node = || Source::Node(sample::name(&"n".repeat(64)));
    let flow = || Flow { source: node(), bytes: u64::MAX, rate_bps: u64::MAX };
    let report = Report {
        phase: Phase::Failed("x".repeat(limit::REASON_LEN_MAX)),
        bytes: u64::MAX,
        rate_bps: u64::MAX,
        upstreams: (0..limit::UPSTREAMS_MAX).map(|_| node()).collect(),
        flows: (0..limit::FLOWS_MAX).map(|_| flow()).collect(),
    };
    fits("report", &report);
    let answer = message::Answer { report: Some(report.clone()), ..sample::answer() };
    fits("answer", &answer);
    let upstreams = (0..=limit::UPSTREAMS_MAX).map(|_| node()).collect();
    over("upstreams", &Report { upstreams, ..report.clone() });
    let flows = (0..=limit::FLOWS_MAX).map(|_| flow()).collect();
    over("flows", &Report { flows, ..report.clone() });
    let phase = Phase::Failed("x".repeat(limit::REASON_LEN_MAX + 1));
    let wrong = Report { phase, ..report };
    over("reason", &wrong);
    over("answer", &message::Answer { report: Some(wrong), ..answer });
}

#[test]
fn the_largest_lawful_frames_pass_and_one_more_is_refused() {
    let stamp = message::Stamp { term: u64::MAX, revision: u64::MAX };
    let ack = Ack { kind: StateKind::Report, job: sample::JOB, stamp };
    fits("acks", &Acks(vec![ack; limit::ACKS_MAX]));
    over("acks", &Acks(vec![ack; limit::ACKS_MAX + 1]));

    let jobs = |count| Reconcile { jobs: vec![JobId([7; 16]); count], more: false };
    fits("jobs", &jobs(limit::JOBS_OPEN_MAX));
    over("jobs", &jobs(limit::JOBS_OPEN_MAX + 1));

    let hello = |version: usize, address: usize| Hello {
        version: "v".repeat(version),
        advertise: Some("a".repeat(address)),
        boot: u64::MAX,
        incarnation: u64::MAX,
        ..sample::hello()
    };
    fits("hello", &hello(64, 300));
    over("version", &hello(65, 1));
    over("address", &hello(1, 301));

    fits("beat", &Beat { number: u64::MAX, disk_free: u64::MAX, uplink_bps: u64::MAX });
    fits("query", &Query { nonce: u64::MAX, ..sample::QUERY });
    let body = vec![0xff; limit::FRAME_LEN_MAX - 64];
    let envelope = message::Envelope { job: sample::JOB, stamp, body };
    fits("envelope", &envelope);
    over("envelope", &message::Envelope { body: vec![0; limit::FRAME_LEN_MAX], ..envelope });
}

#[test]
fn requests_beyond_their_limits_are_refused() {
    let create = |change: &dyn Fn(&mut shared::job::Dimensions)| {
        let mut dimensions = Box::new(sample::dimensions());
        change(&mut dimensions);
        Request::Create { key: [0; 16], dimensions }
    };
    fits("create", &create(&|d| d.to = vec![Selector::All; limit::SELECTORS_MAX]));
    over("selectors", &create(&|d| d.to = vec![Selector::All; limit::SELECTORS_MAX + 1]));
    over("selectors", &create(&|d| d.to = vec![]));
    over("priority", &create(&|d| d.priority = 10));
    over("name", &create(&|d| d.name = Some(sample::name("all"))));
    let fail = |len| Request::Fail { job: sample::JOB, reason: "x".repeat(len) };
    fits("reason", &fail(limit::REASON_LEN_MAX));
    over("reason", &fail(limit::REASON_LEN_MAX + 1));
    let label = |key: &str, value: &str| Request::LabelNode {
        node: sample::name("edge-1"),
        labels: vec![(key.to_owned(), value.to_owned())],
    };
    let long = "x".repeat(limit::LABEL_LEN_MAX);
    fits("label", &label("k", "v"));
    for (key, value) in
        [("", "v"), ("k", ""), ("k", "a,b"), ("k", "a\n"), ("k", &format!("{long}x"))]
    {
        over("label", &label(key, value));
    }
    let padded = [codec::encode(&Request::Jobs), vec![0; limit::FRAME_LEN_MAX]].concat();
    assert!(matches!(message::decode::<Request>(&padded), Err(DecodeError::TooLong { .. })));
}

#[test]
fn job_objects_out_of_range_are_refused_though_signed() {
    let open = |change: &dyn Fn(&mut JobObject)| {
        let mut object = sample::object();
        change(&mut object);
        object.sign(&sample::key()).open(&sample::public_key())
    };
    assert!(open(&|_| {}).is_ok());
    assert!(open(&|o| o.stripes = limit::STRIPES_MAX).is_ok());
    assert!(open(&|o| o.stripes = 0).is_err());
    assert!(open(&|o| o.stripes = limit::STRIPES_MAX + 1).is_err());
    assert!(open(&|o| o.chunk_max = 0).is_err());
    assert!(open(&|o| o.chunk_max = limit::CHUNK_LEN_MAX + 1).is_err());
    assert!(open(&|o| o.priority = 10).is_err());
}

#[test]
fn every_bit_of_a_signed_job_and_page_is_signed() {
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    let job = codec::encode(&sample::signed_job());
    for bit in 0..job.len() * 8 {
        let read = codec::decode::<SignedJob, 4_096>(&flipped(&job, bit));
        assert!(
            read.is_ok_and(|job| job.open(&sample::public_key()).is_ok()).eq(&false),
            "bit {bit}"
        );
    }
    let page = sample::pages()[0].draft().sign(&sample::key()).to_record();
    for bit in 0..page.len() * 8 {
        let read = PageBytes::from_record(flipped(&page, bit).into(), true).unwrap();
        assert!(!read.verify(&sample::public_key()), "bit {bit}");
    }
}

#[test]
fn pages_beyond_their_limits_are_refused() {
    let long = Bytes::from(vec![0; limit::PAGE_LEN_MAX + 1]);
    assert!(PageBytes::from_record(long.clone(), false).is_err());
    assert!(PageBytes::from_record(long, true).is_err());
    assert!(PageBytes::from_record(Bytes::from(vec![0; 63]), true).is_err());

    // The smallest entry there is, as often as it goes into a page.
    let slices = |count: usize| Page {
        entries: vec![Entry::Chunk {
            len: 1,
            hash: shared::seal::Hash::ZERO,
            slices: vec![shared::manifest::Slice { object: 0, offset: 0, len: 1 }; count],
        }],
        ..sample::pages()[0].clone()
    };
    let most = slices(limit::SLICES_MAX);
    assert_eq!(most.draft().decode(), Ok(most.clone()));
    let over = slices(limit::SLICES_MAX + 1);
    let accepted = Manifest::new(sample::JOB, 65_536).accept(&over, &over.draft());
    assert!(accepted.is_err());
}
