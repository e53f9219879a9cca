//! Every row of the table: a name, its bytes, and how they are read back.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::job::{JobObject, Keep, Kind, Quorum, SignedJob};
use shared::manifest::{ObjectKind, Page, PageBytes};
use shared::seal::{self, Hash, Purpose};
use shared::view::{JobState, KindView, NodeJobState, NodeState};
use shared::wire::code::{ALPN, Code};
use shared::wire::codec::{self, DecodeError};
use shared::wire::frame::{datagram_frames, put_frame};
use shared::wire::message::{
    self, Acks, Answer, Assign, Beat, Checked, Envelope, FrameType, Hello, Offer, Phase, Query,
    Reconcile, Report, Stamp, StateKind, View, Want, Welcome,
};
use shared::wire::record::{RecordKind, RecordReader, RecordWriter};
use shared::wire::request::{Reply, Request};

use super::{sample, store};

/// Reads bytes and encodes what they say again.
type Read = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, DecodeError>>;

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) read: Read,
    /// Whether more bytes may lawfully follow.
    pub(crate) stream: bool,
}

/// Every row, in the order of the file.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = vec![constant("Alpn", ALPN)];
    rows.extend(codes());
    rows.extend(frames());
    rows.extend(messages());
    rows.extend(parts());
    rows.extend(requests());
    rows.extend(views());
    rows.extend(sealed());
    rows.extend(records());
    rows.extend(store::files().into_iter().map(|(name, bytes)| constant(name, &bytes)));
    rows
}

fn row(name: impl Into<String>, bytes: Vec<u8>, read: Read) -> Row {
    Row { name: name.into(), bytes, read, stream: false }
}

/// Bytes that are compared and not read.
fn constant(name: &str, bytes: &[u8]) -> Row {
    let (bytes, expected) = (bytes.to_vec(), bytes.to_vec());
    let read = move |found: &[u8]| match found == expected {
        true => Ok(found.to_vec()),
        false => Err(DecodeError::Invalid("other bytes".to_owned())),
    };
    row(name, bytes, Box::new(read))
}

/// A value that `decode` reads back as the same value.
fn value<T: Serialize + PartialEq + 'static>(
    name: impl Into<String>,
    value: T,
    decode: fn(&[u8]) -> Result<T, DecodeError>,
) -> Row {
    let bytes = codec::encode(&value);
    let own = bytes.clone();
    let read = move |found: &[u8]| {
        let decoded = decode(found)?;
        assert!(found != own || decoded == value, "the own bytes say something else");
        Ok(codec::encode(&decoded))
    };
    row(name, bytes, Box::new(read))
}

fn message_row<T: Checked + PartialEq + 'static>(name: impl Into<String>, message: T) -> Row {
    value(name, message, message::decode::<T>)
}

fn part<T>(name: impl Into<String>, part: T) -> Row
where
    T: Serialize + DeserializeOwned + PartialEq + 'static,
{
    value(name, part, codec::decode::<T, { 1 << 20 }>)
}

fn variants<T>(of: &str, values: Vec<(&'static str, T)>) -> Vec<Row>
where
    T: Serialize + DeserializeOwned + PartialEq + 'static,
{
    values.into_iter().map(|(variant, value)| part(format!("{of}.{variant}"), value)).collect()
}

fn codes() -> Vec<Row> {
    let codes = each!(Code {
        Done => Code::Done,
        Stopping => Code::Stopping,
        Malformed => Code::Malformed,
        Refused => Code::Refused,
        Replaced => Code::Replaced,
        Fault => Code::Fault,
        NoJob => Code::NoJob,
        Busy => Code::Busy,
        Internal => Code::Internal,
    });
    let read = |bytes: &[u8]| {
        let unknown = || DecodeError::Invalid("no code".to_owned());
        let [byte] = *bytes else {
            return Err(unknown());
        };
        let code = Code::from_number(u64::from(byte)).ok_or_else(unknown)?;
        Ok(vec![u8::try_from(code.number()).unwrap()])
    };
    let byte = |code: Code| vec![u8::try_from(code.number()).unwrap()];
    codes
        .into_iter()
        .map(|(name, code)| row(format!("Code.{name}"), byte(code), Box::new(read)))
        .collect()
}

/// Whole frames, one of each type.
fn frames() -> Vec<Row> {
    let state = |body: Vec<u8>| codec::encode(&sample::envelope(body));
    let assign = sample::assigns().swap_remove(0).1;
    let frames = each!(FrameType {
        Hello => FrameType::Hello,
        Welcome => FrameType::Welcome,
        Beat => FrameType::Beat,
        Acks => FrameType::Acks,
        Reconcile => FrameType::Reconcile,
        Goodbye => FrameType::Goodbye,
        GoodbyeAck => FrameType::GoodbyeAck,
        Query => FrameType::Query,
        Answer => FrameType::Answer,
        Assign => FrameType::Assign,
        Offer => FrameType::Offer,
        Want => FrameType::Want,
        Report => FrameType::Report,
        View => FrameType::View,
        Request => FrameType::Request,
        Reply => FrameType::Reply,
    });
    assert_eq!(frames.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), FrameType::ALL);
    let report = sample::report(Phase::Receiving);
    let body = |kind: FrameType| match kind {
        FrameType::Hello => codec::encode(&sample::hello()),
        FrameType::Welcome => codec::encode(&sample::welcome()),
        FrameType::Beat => codec::encode(&sample::BEAT),
        FrameType::Acks => codec::encode(&sample::acks()),
        FrameType::Reconcile => codec::encode(&sample::reconcile()),
        FrameType::Goodbye | FrameType::GoodbyeAck => Vec::new(),
        FrameType::Query => codec::encode(&sample::QUERY),
        FrameType::Answer => codec::encode(&sample::answer()),
        FrameType::Assign => state(codec::encode(&assign)),
        FrameType::Offer => state(codec::encode(&sample::offer())),
        FrameType::Want => state(codec::encode(&sample::want())),
        FrameType::Report => state(codec::encode(&report)),
        FrameType::View => state(codec::encode(&sample::view())),
        FrameType::Request => codec::encode(&sample::requests()[0].1),
        FrameType::Reply => codec::encode(&sample::replies()[0].1),
    };
    let frame = |kind: FrameType| {
        let mut frame = Vec::new();
        put_frame(&mut frame, kind as u8, &body(kind));
        frame
    };
    frames
        .into_iter()
        .map(|(name, kind)| row(format!("Frame.{name}"), frame(kind), Box::new(read_frame)))
        .collect()
}

/// Reads one frame as a peer does: framing, type, body, and what is in an envelope.
pub(crate) fn read_frame(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let invalid = |text: &str| DecodeError::Invalid(text.to_owned());
    let frames = datagram_frames(bytes)?;
    let [frame] = frames.as_slice() else {
        return Err(invalid("not one frame"));
    };
    let kind = FrameType::from_byte(frame.kind).ok_or_else(|| invalid("unknown type"))?;
    let body = &frame.body[..];
    let body = match kind {
        FrameType::Hello => again::<Hello>(body),
        FrameType::Welcome => again::<Welcome>(body),
        FrameType::Beat => again::<Beat>(body),
        FrameType::Acks => again::<Acks>(body),
        FrameType::Reconcile => again::<Reconcile>(body),
        // Nothing is read of the body of these, so that a newer version may put something there.
        FrameType::Goodbye | FrameType::GoodbyeAck => Ok(Vec::new()),
        FrameType::Query => again::<Query>(body),
        FrameType::Answer => again::<Answer>(body),
        FrameType::Assign => state_again::<Assign>(body),
        FrameType::Offer => state_again::<Offer>(body),
        FrameType::Want => state_again::<Want>(body),
        FrameType::Report => state_again::<Report>(body),
        FrameType::View => state_again::<View>(body),
        FrameType::Request => again::<Request>(body),
        FrameType::Reply => again::<Reply>(body),
    }?;
    let mut out = Vec::new();
    put_frame(&mut out, frame.kind, &body);
    Ok(out)
}

fn again<T: Checked>(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    message::decode::<T>(body).map(|message| codec::encode(&message))
}

fn state_again<T: Checked>(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut envelope: Envelope = message::decode(body)?;
    envelope.body = again::<T>(&envelope.body)?;
    Ok(codec::encode(&envelope))
}

fn messages() -> Vec<Row> {
    let mut rows = vec![
        message_row("Envelope", sample::envelope(vec![0xde, 0xad])),
        message_row("Hello", sample::hello()),
        message_row("Hello.unadvertised", Hello { advertise: None, ..sample::hello() }),
        message_row("Welcome", sample::welcome()),
        message_row("Beat", sample::BEAT),
        message_row("Acks", sample::acks()),
        message_row("Reconcile", sample::reconcile()),
        message_row("Query", sample::QUERY),
        message_row("Answer", sample::answer()),
        message_row("Answer.unknown", Answer { report: None, ..sample::answer() }),
        message_row("Offer", sample::offer()),
        message_row("Offer.root", Offer::of_root(1, 65_535)),
        message_row("View", sample::view()),
        message_row("Want", sample::want()),
        message_row("Want.stop", Want::default()),
    ];
    let states = sample::assigns().into_iter();
    rows.extend(states.map(|(name, state)| message_row(format!("Assign.{name}"), state)));
    let phases = sample::phases().into_iter();
    rows.extend(
        phases.map(|(name, phase)| message_row(format!("Report.{name}"), sample::report(phase))),
    );
    rows
}

/// What messages are made of.
fn parts() -> Vec<Row> {
    let mut rows = vec![
        part("JobId", sample::JOB),
        part("Name", sample::name("a-z.0_9")),
        part("Stamp", Stamp { term: 250, revision: 251 }),
        part("Hash", Hash([0xab; 32])),
        part("Dimensions", sample::dimensions()),
    ];
    let kinds = each!(StateKind {
        Assign => StateKind::Assign,
        Offer => StateKind::Offer,
        Want => StateKind::Want,
        Report => StateKind::Report,
        View => StateKind::View,
    });
    let contents = each!(Kind { Files => Kind::Files, Live => Kind::Live });
    let quorums = each!(Quorum {
        All => Quorum::All,
        Count => Quorum::Count(300),
        Percent => Quorum::Percent(100),
    });
    let keeps = each!(Keep { Forever => Keep::Forever, Seconds => Keep::Seconds(86_400) });
    let objects = each!(ObjectKind {
        File => ObjectKind::File,
        Directory => ObjectKind::Directory,
        Live => ObjectKind::Live,
    });
    rows.extend(variants("StateKind", kinds));
    rows.extend(variants("Kind", contents));
    rows.extend(variants("Quorum", quorums));
    rows.extend(variants("Selector", sample::selectors()));
    rows.extend(variants("Keep", keeps));
    rows.extend(variants("Phase", sample::phases()));
    rows.extend(variants("Source", sample::sources()));
    rows.extend(variants("JobRef", sample::job_refs()));
    rows.extend(variants("RefusalKind", sample::refusals()));
    rows.extend(variants("ObjectKind", objects));
    rows.extend(variants("Entry", sample::entries()));
    rows
}

fn requests() -> Vec<Row> {
    let requests = sample::requests().into_iter();
    let requests = requests.map(|(name, value)| message_row(format!("Request.{name}"), value));
    let replies = sample::replies().into_iter();
    let replies = replies.map(|(name, value)| message_row(format!("Reply.{name}"), value));
    requests.chain(replies).collect()
}

/// What replies show.
fn views() -> Vec<Row> {
    let kinds = each!(KindView { Files => KindView::Files, Live => KindView::Live });
    let jobs = each!(JobState {
        Receiving => JobState::Receiving,
        Distributing => JobState::Distributing,
        Complete => JobState::Complete,
        Partial => JobState::Partial,
        Failed => JobState::Failed,
        Cancelled => JobState::Cancelled,
    });
    let copies = each!(NodeJobState {
        Waiting => NodeJobState::Waiting,
        Receiving => NodeJobState::Receiving,
        Complete => NodeJobState::Complete,
        Lost => NodeJobState::Lost,
        Unreachable => NodeJobState::Unreachable,
        Failed => NodeJobState::Failed,
    });
    let nodes = each!(NodeState {
        Up => NodeState::Up,
        Silent => NodeState::Silent,
        Down => NodeState::Down,
        Quarantined => NodeState::Quarantined,
    });
    let mut rows = vec![part("JobView", sample::job_view()), part("NodeInfo", sample::node_info())];
    rows.extend(variants("KindView", kinds));
    rows.extend(variants("JobState", jobs));
    rows.extend(variants("NodeJobState", copies));
    rows.extend(variants("NodeState", nodes));
    rows.extend(variants("EventBody", sample::events()));
    rows
}

/// What is hashed and signed.
fn sealed() -> Vec<Row> {
    let mut rows = vec![
        part("JobObject", sample::object()),
        part("ServerList", sample::servers()),
        constant("ServerList.hash", &sample::servers().hash().0),
    ];
    let read_job = |bytes: &[u8]| {
        let job: SignedJob = codec::decode::<_, 4_096>(bytes)?;
        let opened = job.open(&sample::public_key());
        let object: JobObject = opened.map_err(|e| DecodeError::Invalid(e.to_string()))?;
        Ok(codec::encode(&object.sign(&sample::key())))
    };
    rows.push(row("SignedJob", codec::encode(&sample::signed_job()), Box::new(read_job)));
    for page in sample::pages() {
        let (draft, index) = (page.draft(), page.index);
        let signed = draft.sign(&sample::key());
        rows.push(row(
            format!("Page.{index}.draft"),
            draft.to_record().into(),
            Box::new(read_draft),
        ));
        rows.push(constant(&format!("Page.{index}.hash"), &draft.hash().0));
        let read = Box::new(read_page);
        rows.push(row(format!("Page.{index}.signed"), signed.to_record().into(), read));
    }
    let purposes = each!(Purpose { Page => Purpose::Page, Job => Purpose::Job });
    rows.extend(purposes.into_iter().map(|(name, purpose)| {
        let signature = seal::sign(&sample::key(), purpose, b"body");
        constant(&format!("Signature.{name}"), &signature.to_bytes())
    }));
    rows
}

fn read_draft(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let page: Page = PageBytes::from_record(Bytes::copy_from_slice(bytes), false)?.decode()?;
    Ok(page.draft().to_record().into())
}

fn read_page(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let page = PageBytes::from_record(Bytes::copy_from_slice(bytes), true)?;
    let decoded = page.decode()?;
    if !page.verify(&sample::public_key()) {
        return Err(DecodeError::Invalid("signature".to_owned()));
    }
    Ok(decoded.draft().sign(&sample::key()).to_record().into())
}

/// A stream that begins with one record, for each kind.
fn records() -> Vec<Row> {
    let [page, _] = sample::pages();
    let kinds = each!(RecordKind {
        Job => RecordKind::Job,
        Chunk => RecordKind::Chunk,
        Page => RecordKind::Page,
        Draft => RecordKind::Draft,
        PageInPlace => RecordKind::PageInPlace,
    });
    let payload = |kind| match kind {
        RecordKind::Job => sample::JOB.0.to_vec(),
        RecordKind::Chunk => sample::content()[1].to_vec(),
        RecordKind::Page | RecordKind::PageInPlace => {
            page.draft().sign(&sample::key()).to_record().to_vec()
        }
        RecordKind::Draft => page.draft().to_record().to_vec(),
    };
    let record = |kind| {
        let (mut writer, mut out) = (RecordWriter::new(), Vec::new());
        let number = if kind == RecordKind::Chunk { 0x01_0203_0405 } else { 0 };
        writer.put(kind, number, &payload(kind), &mut out);
        out
    };
    let rows = kinds.into_iter().map(|(name, kind)| Row {
        stream: true,
        ..row(format!("Record.{name}"), record(kind), Box::new(read_record))
    });
    rows.collect()
}

fn read_record(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let invalid = |text: &str| DecodeError::Invalid(text.to_owned());
    let (mut pieces, mut reader) = (Vec::new(), RecordReader::new());
    let read = reader.push(0, Bytes::copy_from_slice(bytes), |piece| pieces.push(piece));
    read.map_err(|error| invalid(&error.to_string()))?;
    let first = pieces.first().ok_or_else(|| invalid("nothing whole"))?;
    let (record, mut payload) = (first.record, Vec::new());
    for piece in pieces.iter().filter(|piece| piece.record == record) {
        if piece.offset as usize != payload.len() {
            return Err(invalid("order"));
        }
        payload.extend_from_slice(&piece.bytes);
    }
    if payload.len() != record.total as usize {
        return Err(invalid("not whole"));
    }
    if record.kind == RecordKind::Job && payload.len() != sample::JOB.0.len() {
        return Err(invalid("no job id"));
    }
    let mut out = Vec::new();
    RecordWriter::new().put(record.kind, record.number, &payload, &mut out);
    Ok(out)
}
