use std::sync::Arc;

use ring::signature::Ed25519KeyPair;
use shared::id::JobId;
use shared::job::{Dimensions, JobObject, Keep, Kind, Quorum, Selector, ServerList};
use shared::table::{Head, NodeRecord, Status, Transition, Verdict};
use shared::view::JobState;
use shared::wire::message::Source;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn head(number: u8, job_name: &str, client: &str, nodes: &[&str]) -> Head {
    let servers = ServerList::new(nodes.iter().map(|node| name(node)).collect());
    let dimensions = Dimensions {
        kind: Kind::Files,
        name: Some(name(job_name)),
        to: vec![Selector::All],
        size: Some(100),
        deadline_s: None,
        quorum: Quorum::Percent(80),
        priority: 5,
        rate_bps: None,
        keep: Keep::Seconds(60),
        grace_s: 300,
    };
    let object = JobObject {
        id: JobId([number; 16]),
        name: name(job_name),
        tenant: name(client),
        kind: Kind::Files,
        size: Some(100),
        created_at_ms: 5,
        deadline_s: None,
        stripes: 1,
        chunk_max: 16_384,
        priority: 5,
        rate_bps: None,
        keep: Keep::Seconds(60),
        page_key: [0; 32],
        servers: 1,
        servers_hash: servers.hash(),
    };
    Head {
        id: JobId([number; 16]),
        client: name(client),
        key: [0xa0 | number; 16],
        name: name(job_name),
        dimensions,
        object: object.sign(&Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap()),
        servers: Arc::new(servers),
        created_ms: 5,
        created_us: 6,
    }
}

fn created(head: &Head) -> Write {
    let status = Status::new(Some(100));
    Write::Transition(Transition::Created(Box::new(head.clone()), Box::new(status)))
}

fn closed(head: &Head, us: u64) -> (Status, Write) {
    let status = Status {
        state: JobState::Partial,
        reason: Some("b is missing".to_owned()),
        closed_us: Some(us),
        closed_ms: Some(7),
        ..Status::new(Some(100))
    };
    let write = Transition::Status(head.id, Box::new(status.clone()));
    (status, Write::Transition(write))
}

fn line(head: &Head, node: &str) -> ((Name, NodeRecord), Write) {
    let record = NodeRecord {
        verdict: Verdict::Complete,
        bytes: 100,
        incarnation: u64::MAX,
        completed_ms: Some(8),
        reason: None,
        upstreams: vec![Source::Base, Source::Node(name("other"))],
        dropped: false,
    };
    let write = Transition::Node(head.id, name(node), Box::new(record.clone()));
    ((name(node), record), Write::Transition(write))
}

fn node(text: &str) -> NodeRow {
    NodeRow {
        name: name(text),
        cert_labels: [("site".to_owned(), "eu".to_owned())].into(),
        operator_labels: [("site".to_owned(), "us".to_owned())].into(),
        store: [4; 16],
        boot: u64::MAX,
        incarnation: 9,
        forgotten: false,
    }
}

/// Changes the byte at the start of `text`, where it stands in the file for the last time, or
/// for the first time if it is the name of a number: what comes later is an index.
fn flip(path: &Path, text: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let mut places = bytes.windows(text.len()).enumerate().filter(|(_, place)| *place == text);
    let at = if text == b"epoch" { places.next() } else { places.next_back() };
    let (at, _) = at.unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

async fn open_in(dir: &Path, wall_ms: u64) -> Result<Opened, LedgerError> {
    Ledger::open(&DataFolder::open(dir).unwrap(), wall_ms).await
}

async fn write(dir: &Path, writes: Vec<Write>) {
    let ledger = open_in(dir, 1_000).await.unwrap().ledger;
    ledger.commit(writes).await.unwrap();
    ledger.close().await;
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (head(1, "one", "t", &["a", "b"]), head(2, "two", "u", &["a", "b"]));
    let gone = head(3, "gone", "u", &["c"]);
    let (status, close) = closed(&two, 50);
    let (kept_line, put_line) = line(&two, "a");
    let mut writes = vec![created(&one), created(&two), created(&gone), close, put_line];
    writes.extend([line(&gone, "c").1, Write::Node(node("a"))]);
    writes.push(Write::Transition(Transition::Forgotten(gone.id)));
    writes.push(Write::Transition(Transition::Clock(77)));
    // Twice is as once.
    write(dir.path(), [writes.clone(), writes].concat()).await;

    let opened = open_in(dir.path(), 1_000).await.unwrap();
    assert_eq!(opened.damage, [""; 0]);
    assert_eq!(opened.nodes, BTreeMap::from([(name("a"), node("a"))]));
    assert_eq!(opened.nodes[&name("a")].labels()["site"], "us", "the operator's word wins");
    let rows = vec![
        Row { head: one, status: Status::new(Some(100)), nodes: Vec::new() },
        Row { head: two, status, nodes: vec![kept_line] },
    ];
    let restored = Restored { rows, archived: Vec::new(), clock_us: 77, lossy: false };
    assert_eq!(opened.restored, restored);
}

#[tokio::test]
async fn the_epoch_rises_at_each_start_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for wall_ms in [5_000_000, 5_000_000, 9_000_000, 1_000, 0] {
        let ledger = open_in(dir.path(), wall_ms).await.unwrap().ledger;
        assert!(ledger.epoch() > last && ledger.epoch() >= wall_ms / 1_000);
        last = ledger.epoch();
        ledger.close().await;
    }
    let fresh = tempfile::tempdir().unwrap();
    let opened = open_in(fresh.path(), 10_000_000).await.unwrap();
    assert!(opened.ledger.epoch() > last, "a lost data folder does not lower it");
}

#[tokio::test]
async fn a_flipped_byte_is_named_and_its_row_not_used() {
    let (one, two) = (head(1, "one", "t", &["a"]), head(2, "two", "t", &["b"]));
    let (_, close) = closed(&two, 50);
    let mut missing_epoch = 0;
    let cases: [(&[u8], &str, bool); 7] = [
        // (what is hit, what is named, whether jobs may be missing)
        (b"b is missing", "job 02020202-0202-0202-0202-020202020202: its status", true),
        (&two.key, "job 02020202-0202-0202-0202-020202020202: its head", true),
        // Only an index has it last: the rows are whole.
        (&two.id.0, "file structure: ", true),
        (b"eu", "node \"n1\"", false),
        (b"other", "job 01010101-0101-0101-0101-010101010101, node \"a\"", false),
        (b"\x01b", "server list", true),
        (b"epoch", "number \"dpoch\"", true),
    ];
    for (text, named, lossy) in cases {
        let dir = tempfile::tempdir().unwrap();
        let all = vec![created(&one), created(&two), close.clone(), line(&one, "a").1];
        write(dir.path(), [all, vec![Write::Node(node("n1"))]].concat()).await;
        flip(&dir.path().join(LEDGER_FILE), text);
        let opened = open_in(dir.path(), 9_000_000).await.unwrap();
        let damage = opened.damage.join("\n");
        assert!(damage.contains(named), "{named}: {damage}");
        assert_eq!(opened.restored.lossy, lossy, "{damage}");
        let lost_job = named.contains("02020202") || named == "server list";
        let lost_node = named.contains("n1");
        assert_eq!(opened.restored.rows.len(), 2 - usize::from(lost_job), "{damage}");
        assert_eq!(opened.nodes.len(), 1 - usize::from(lost_node), "{damage}");
        missing_epoch = opened.ledger.epoch();
        opened.ledger.close().await;
        drop(opened.ledger);
        let again = open_in(dir.path(), 9_000_000).await.unwrap();
        assert_eq!(again.restored.lossy, lossy, "remembered");
    }
    assert_eq!(missing_epoch, 9_000, "by the clock, since the last one is not known");
}

#[tokio::test]
async fn a_broken_page_costs_what_is_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LEDGER_FILE);
    let one = head(1, "one", "t", &["a"]);
    let nodes: Vec<NodeRow> = (0..1_000).map(|n| node(&format!("node-{n:04}"))).collect();
    let writes = nodes.iter().cloned().map(Write::Node).chain([created(&one)]);
    write(dir.path(), writes.collect()).await;
    let mut bytes = std::fs::read(&path).unwrap();
    // A leaf of a table (0x0d) that holds the row, not the index entry beside it.
    let holds = |page: &[u8]| page[0] == 0x0d && page.windows(9).any(|text| text == b"node-0500");
    let page = bytes.chunks_mut(4_096).find(|page| holds(page)).unwrap();
    page[0] = 0;
    std::fs::write(&path, bytes).unwrap();

    let opened = open_in(dir.path(), 2_000).await.unwrap();
    let damage = opened.damage.join("\n");
    assert!(damage.contains("table nodes: ") && damage.contains("sqlite.damaged-2000"), "{damage}");
    assert!(path.with_extension("sqlite.damaged-2000").exists());
    assert_eq!(opened.restored.rows.len(), 1);
    assert!(opened.restored.lossy);
    let left = opened.nodes.len();
    assert!((900..1_000).contains(&left), "{left}");
    assert!(!opened.nodes.contains_key(&name("node-0500")));
    assert!(opened.nodes.contains_key(&name("node-0000")));
    assert!(opened.nodes.contains_key(&name("node-0999")));
    opened.ledger.commit(vec![Write::Node(node("new"))]).await.unwrap();
    opened.ledger.close().await;
    drop(opened.ledger);
    let again = open_in(dir.path(), 3_000).await.unwrap();
    assert_eq!((again.damage, again.nodes.len()), (Vec::new(), left + 1));
    assert!(again.restored.lossy, "remembered");
}

#[tokio::test]
async fn what_is_no_ledger_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LEDGER_FILE);
    let garbage = vec![0x5a; 10_000];
    std::fs::write(&path, &garbage).unwrap();
    let error = open_in(dir.path(), 0).await.unwrap_err();
    assert!(matches!(error, LedgerError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

#[tokio::test]
async fn jobs_are_found_by_id_and_by_name_of_their_client() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open_in(dir.path(), 0).await.unwrap().ledger;
    let (old, new) = (head(1, "n", "t", &["a"]), head(2, "n", "u", &["a"]));
    let writes = vec![created(&old), created(&new), closed(&old, 5).1, closed(&new, 6).1];
    ledger.commit(writes).await.unwrap();
    ledger.commit(vec![line(&old, "a").1]).await.unwrap();
    let by_name = JobRef::Name(name("n"));
    let by_id = JobRef::Id(old.id);
    let cases = [
        (by_name.clone(), None, Some(new.id)),
        (by_name.clone(), Some("t"), Some(old.id)),
        (by_name, Some("v"), None),
        (by_id.clone(), None, Some(old.id)),
        (by_id, Some("u"), None),
        (JobRef::Name(name("m")), None, None),
    ];
    for (wanted, client, expected) in cases {
        let found = ledger.find(wanted.clone(), client.map(name)).await.unwrap();
        assert_eq!(found.as_ref().map(|row| row.head.id), expected, "{wanted} {client:?}");
        let lines = found.filter(|row| row.head.id == old.id).map(|row| row.nodes);
        assert!(lines.is_none_or(|lines| lines == [line(&old, "a").0]));
    }
}

#[tokio::test]
async fn commits_of_many_at_once_are_all_made() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(open_in(dir.path(), 0).await.unwrap().ledger);
    let mut all = JoinSet::new();
    for n in 0..200 {
        let ledger = Arc::clone(&ledger);
        all.spawn(async move { ledger.commit(vec![Write::Node(node(&format!("n{n}")))]).await });
    }
    assert!(all.join_all().await.iter().all(Result::is_ok));
    ledger.close().await;
    assert!(matches!(ledger.commit(Vec::new()).await, Err(LedgerError::Closed)));
    drop(ledger);
    assert_eq!(open_in(dir.path(), 0).await.unwrap().nodes.len(), 200);
}

#[tokio::test]
async fn a_write_that_fails_ends_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open_in(dir.path(), 0).await.unwrap().ledger;
    let mut other = connect(&dir.path().join(LEDGER_FILE)).await.unwrap();
    sqlx::query("DROP TABLE nodes").execute(&mut other).await.unwrap();
    let failed = ledger.commit(vec![Write::Node(node("a"))]).await;
    assert!(matches!(failed, Err(LedgerError::Write(_))), "{failed:?}");
    let later = ledger.commit(Vec::new()).await;
    assert!(matches!(later, Err(LedgerError::Closed)), "{later:?}");
}
