//! The tables, written out from what each role is for, and compared cell by cell.
//!
//! A cell that is not written here is refused: a new frame, request or role is nobody's until
//! it has a line.

use std::collections::{BTreeMap, BTreeSet};

use shared::id::{JobId, Name, Role};
use shared::job::{Dimensions, Keep, Kind, Quorum, Selector};
use shared::seal::Hash;
use shared::wire::message::FrameType;
use shared::wire::request::{JobRef, Request};
use shared::wire::rights::{may_feed, may_request, may_send};

/// Frames, by sender and receiver: `yes` or `-`.
///
/// * Clients, operators and nodes dial the base, nodes also dial nodes: who dials says hello,
///   who is dialled says welcome. Nobody dials a client, and the base dials nobody.
/// * Base and nodes show each other that they are there; clients are not watched.
/// * Whoever sends states is sent acknowledgements, and both ends may take their leave.
/// * Only the base orders (`Assign`, `Query`), tells who else has a job (`View`), and only nodes account to it (`Report`,
///   `Answer`); what a node has is named to the base (`Reconcile`), which assigns each job anew.
/// * A source offers and a receiver wants: content flows from clients and operators to the
///   base, and between base and nodes, and among nodes, either way. Nothing flows to a client.
/// * Only the base answers requests, so they are made of nobody else.
const FRAMES: &str = "
frame       node>base base>node node>node client>base base>client operator>base base>operator
Hello       yes       -         yes       yes         -           yes           -
Welcome     -         yes       yes       -           yes         -             yes
Beat        yes       yes       yes       -           -           -             -
Acks        yes       yes       yes       yes         yes         yes           yes
Reconcile   yes       -         -         -           -           -             -
Goodbye     yes       yes       yes       yes         yes         yes           yes
GoodbyeAck  yes       yes       yes       yes         yes         yes           yes
Query       -         yes       -         -           -           -             -
Answer      yes       -         -         -           -           -             -
Assign      -         yes       -         -           -           -             -
View        -         yes       -         -           -           -             -
Offer       yes       yes       yes       yes         -           yes           -
Want        yes       yes       yes       -           yes         -             yes
Report      yes       -         -         -           -           -             -
Request     yes       -         -         yes         -           yes           -
Reply       -         yes       -         -           yes         -             yes
";

/// Job streams: as `Offer`, since a stream follows an offer and a want.
const STREAMS: &str = "
stream      node>base base>node node>node client>base base>client operator>base base>operator
job         yes       yes       yes       yes         -           yes           -
";

/// Requests, by who makes them of the base.
///
/// * A client creates, shows, watches, cancels and removes jobs, says that it cannot go on
///   with one or that it goes on after all, and lists nodes. An operator does all that, and alone forgets and labels nodes.
/// * Nodes give no commands; they fetch the list of a job's nodes. A base asks nobody.
const REQUESTS: &str = "
request     client operator node base
Create      yes    yes      -    -
Jobs        yes    yes      -    -
Job         yes    yes      -    -
Watch       yes    yes      -    -
Cancel      yes    yes      -    -
Remove      yes    yes      -    -
Fail        yes    yes      -    -
Nodes       yes    yes      -    -
ForgetNode  -      yes      -    -
LabelNode   -      yes      -    -
Servers     -      -        yes  -
Resume      yes    yes      -    -
";

/// A table by row and column.
struct Table {
    rows: BTreeSet<String>,
    columns: BTreeSet<String>,
    allowed: BTreeMap<(String, String), bool>,
}

impl Table {
    fn read(text: &str) -> Self {
        let mut lines = text.trim().lines();
        let columns: Vec<&str> = lines.next().unwrap().split_whitespace().skip(1).collect();
        let (mut rows, mut allowed) = (BTreeSet::new(), BTreeMap::new());
        for line in lines {
            let mut cells = line.split_whitespace();
            let row = cells.next().unwrap().to_owned();
            assert!(rows.insert(row.clone()), "{row} has two lines");
            let cells: Vec<&str> = cells.collect();
            assert_eq!(cells.len(), columns.len(), "{row} has another number of cells");
            for (column, cell) in columns.iter().zip(cells) {
                let yes = match cell {
                    "yes" => true,
                    "-" => false,
                    other => panic!("{row}, {column}: {other:?} is neither yes nor -"),
                };
                allowed.insert((row.clone(), (*column).to_owned()), yes);
            }
        }
        Self { rows, columns: columns.into_iter().map(str::to_owned).collect(), allowed }
    }

    /// What is not in the table is refused.
    fn allows(&self, row: &str, column: &str) -> bool {
        self.allowed.get(&(row.to_owned(), column.to_owned())).copied().unwrap_or(false)
    }

    fn assert_rows(&self, names: impl Iterator<Item = String>) {
        let names: BTreeSet<String> = names.collect();
        assert_eq!(self.rows, names, "the table's lines are not all there are");
    }

    /// Both a yes and a no in the table, so that it is no table of one answer.
    fn assert_mixed(&self) {
        let answers: BTreeSet<bool> = self.allowed.values().copied().collect();
        assert_eq!(answers.len(), 2);
    }
}

fn roles() -> Vec<Role> {
    let roles = each!(Role {
        Base => Role::Base,
        Node => Role::Node,
        Client => Role::Client,
        Operator => Role::Operator,
    });
    let roles: Vec<Role> = roles.into_iter().map(|(_, role)| role).collect();
    assert_eq!(roles, Role::ALL);
    roles
}

fn pairs() -> Vec<(Role, Role, String)> {
    let roles = roles();
    let of = |sender: Role| {
        let to = move |receiver: Role| (sender, receiver, format!("{sender}>{receiver}"));
        Role::ALL.into_iter().map(to)
    };
    let pairs: Vec<_> = roles.into_iter().flat_map(of).collect();
    assert_eq!(pairs.len(), 16);
    pairs
}

#[test]
fn every_frame_from_every_role_to_every_role() {
    let table = Table::read(FRAMES);
    table.assert_mixed();
    table.assert_rows(FrameType::ALL.iter().map(|kind| format!("{kind:?}")));
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (sender, receiver, pair) in pairs() {
        for kind in FrameType::ALL {
            let expected = table.allows(&format!("{kind:?}"), &pair);
            seen += usize::from(table.columns.contains(&pair));
            if may_send(sender, kind, receiver) != expected {
                wrong.push(format!("{kind:?} {pair}: expected {expected}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(seen, table.allowed.len(), "a cell of the table is of no roles there are");
}

/// The table of frames in `docs/WIRE.md`: type, frame, body, then a column for each pair.
#[test]
fn the_specification_says_the_same() {
    const PAIRS: [(Role, Role); 5] = [
        (Role::Base, Role::Node),
        (Role::Node, Role::Base),
        (Role::Node, Role::Node),
        (Role::Client, Role::Base),
        (Role::Base, Role::Client),
    ];
    let text = include_str!("../../../docs/WIRE.md");
    let line_of = |kind: FrameType| {
        let start = format!("| {} | `{kind:?}` |", kind as u8);
        let mut lines = text.lines().filter(move |line| line.starts_with(&start));
        let line = lines.next().unwrap_or_else(|| panic!("{kind:?} has no line"));
        assert_eq!(lines.next(), None, "{kind:?} has two lines");
        line
    };
    let mut wrong = Vec::new();
    for kind in FrameType::ALL {
        let cells: Vec<&str> = line_of(kind).split('|').map(str::trim).collect();
        let ["", _, _, _, cells @ .., ""] = cells.as_slice() else { panic!("{kind:?}: {cells:?}") };
        assert_eq!(cells.len(), PAIRS.len(), "{kind:?}");
        for ((sender, receiver), cell) in PAIRS.into_iter().zip(cells) {
            let allowed = if may_send(sender, kind, receiver) { "yes" } else { "" };
            if *cell != allowed {
                wrong.push(format!("{kind:?} from {sender} to {receiver}: {cell:?}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_job_stream_from_every_role_to_every_role() {
    let table = Table::read(STREAMS);
    table.assert_mixed();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (sender, receiver, pair) in pairs() {
        let expected = table.allows("job", &pair);
        seen += usize::from(table.columns.contains(&pair));
        if may_feed(sender, receiver) != expected {
            wrong.push(format!("{pair}: expected {expected}"));
        }
        let offers = may_send(sender, FrameType::Offer, receiver);
        let wants = may_send(receiver, FrameType::Want, sender);
        assert_eq!((offers, wants), (expected, expected), "{pair}: a stream and no offer or want");
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(seen, table.allowed.len());
}

fn requests() -> Vec<(&'static str, Request)> {
    let job = || JobRef::Id(JobId([1; 16]));
    let node = || Name::new("edge-1").unwrap();
    let dimensions = Dimensions {
        kind: Kind::Files,
        name: None,
        to: vec![Selector::All],
        size: None,
        deadline_s: None,
        quorum: Quorum::All,
        priority: 0,
        rate_bps: None,
        keep: Keep::Forever,
        grace_s: 0,
    };
    each!(Request {
        Create => Request::Create { key: [0; 16], dimensions: Box::new(dimensions.clone()) },
        Jobs => Request::Jobs,
        Job => Request::Job(job()),
        Watch => Request::Watch(job()),
        Cancel => Request::Cancel(job()),
        Remove => Request::Remove(job()),
        Fail => Request::Fail { job: JobId([1; 16]), reason: String::new() },
        Nodes => Request::Nodes,
        ForgetNode => Request::ForgetNode(node()),
        LabelNode => Request::LabelNode { node: node(), labels: vec![] },
        Servers => Request::Servers { job: JobId([1; 16]), hash: Hash::ZERO },
        Resume => Request::Resume { dimensions: Box::new(dimensions), pages: 0 },
    })
}

#[test]
fn every_request_of_every_role() {
    let table = Table::read(REQUESTS);
    table.assert_mixed();
    table.assert_rows(requests().into_iter().map(|(name, _)| name.to_owned()));
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (name, request) in requests() {
        for role in roles() {
            let expected = table.allows(name, role.as_str());
            seen += usize::from(table.columns.contains(role.as_str()));
            if may_request(role, &request) != expected {
                wrong.push(format!("{name} of a {role}: expected {expected}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(seen, table.allowed.len());
}

#[test]
fn who_may_request_something_may_send_requests_and_be_answered() {
    for role in roles() {
        let any = requests().iter().any(|(_, request)| may_request(role, request));
        assert_eq!(may_send(role, FrameType::Request, Role::Base), any, "{role}");
        assert_eq!(may_send(Role::Base, FrameType::Reply, role), any, "{role}");
    }
}
