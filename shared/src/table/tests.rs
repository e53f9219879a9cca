//! One test for each rule, and a seeded run that asserts what must hold in every state.

mod closing;
mod rules;
mod seeds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ring::signature::Ed25519KeyPair;

use super::*;
use crate::job::{Dimensions, JobObject, Keep, Kind, Quorum, Selector};
use crate::seal::Hash;
use crate::view::{JobView, NodeJobState};
use crate::wire::message::Source;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn id(number: u64) -> JobId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    JobId(bytes)
}

fn dimensions() -> Dimensions {
    Dimensions {
        kind: Kind::Files,
        name: None,
        to: vec![Selector::All],
        size: Some(100),
        deadline_s: Some(60),
        quorum: Quorum::All,
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        grace_s: 20,
    }
}

fn new_job(number: u64, client: &str, nodes: &[&str], dimensions: Dimensions) -> NewJob {
    let servers = ServerList::new(nodes.iter().map(|node| name(node)).collect());
    let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let object = JobObject {
        id: id(number),
        name: name(&format!("j{number}")),
        tenant: name(client),
        kind: dimensions.kind,
        size: dimensions.size,
        created_at_ms: 0,
        deadline_s: None,
        stripes: 1,
        chunk_max: 16_384,
        priority: 5,
        rate_bps: None,
        keep: dimensions.keep,
        page_key: [0; 32],
        servers: 1,
        servers_hash: servers.hash(),
    };
    NewJob {
        id: id(number),
        client: name(client),
        key: id(number).0,
        name: dimensions.name.clone().unwrap_or(object.name.clone()),
        dimensions,
        object: object.sign(&key),
        servers: Arc::new(servers),
    }
}

fn report(phase: Phase, bytes: u64) -> Report {
    Report { phase, bytes, rate_bps: 8, upstreams: vec![Source::Base], flows: Vec::new() }
}

const END: Option<(u64, Hash)> = Some((100, Hash([9; 32])));

/// A table with its clock and what a ledger would have kept of it.
struct World {
    table: JobTable,
    now: Time,
    wall_ms: u64,
    kept: Restored,
}

impl World {
    fn new() -> Self {
        Self::restart(Restored::default(), Time::from_micros(77), 1_000)
    }

    fn restart(kept: Restored, now: Time, wall_ms: u64) -> Self {
        Self { table: JobTable::new(now, wall_ms, kept.clone()), now, wall_ms, kept }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.wall_ms += u64::try_from(time.as_millis()).unwrap();
    }

    fn keep(&mut self, fx: Vec<Effect>) -> Vec<Effect> {
        for effect in &fx {
            if let Effect::Persist(transition) = effect {
                keep(&mut self.kept, transition.clone());
            }
        }
        fx.into_iter().filter(|effect| !matches!(effect, Effect::Persist(_))).collect()
    }

    fn create(&mut self, new: NewJob) -> Result<Created, TableError> {
        let mut fx = Vec::new();
        let created = self.table.create(self.now, self.wall_ms, new, &mut fx);
        self.keep(fx);
        created
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut fx = Vec::new();
        self.table.step(self.now, self.wall_ms, input, &mut fx);
        self.keep(fx)
    }

    fn up(&mut self, node: &str) -> Vec<Effect> {
        self.step(Input::NodeUp { node: name(node), incarnation: 1, new_store: false })
    }

    fn report(&mut self, node: &str, incarnation: u64, phase: Phase, bytes: u64) -> Vec<Effect> {
        let (node, report) = (name(node), report(phase, bytes));
        self.step(Input::Report { node, incarnation, job: id(1), report })
    }

    fn content(&mut self, bytes: u64, end: Option<(u64, Hash)>) -> Vec<Effect> {
        self.step(Input::Content { job: id(1), bytes, end })
    }

    fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.wait(time);
        self.step(Input::Tick)
    }

    fn state(&self) -> JobState {
        self.table.view(id(1)).unwrap().state
    }

    fn line(&self, node: &str) -> (NodeJobState, u64) {
        let view = self.table.view(id(1)).unwrap();
        let line = view.nodes.iter().find(|line| line.name == node).unwrap();
        (line.state, line.bytes)
    }
}

fn keep(kept: &mut Restored, transition: Transition) {
    let row = |kept: &'_ mut Restored, id| {
        kept.rows.iter().position(|row| row.head.id == id).map(|at| kept.rows.remove(at))
    };
    match transition {
        Transition::Created(head, status) => {
            kept.rows.push(Row { head: *head, status: *status, nodes: Vec::new() });
        }
        Transition::Status(id, status) => {
            if let Some(row) = row(kept, id) {
                kept.rows.push(Row { status: *status, ..row });
            }
        }
        Transition::Node(id, node, record) => {
            if let Some(mut row) = row(kept, id) {
                row.nodes.retain(|(other, _)| *other != node);
                row.nodes.push((node, *record));
                kept.rows.push(row);
            }
        }
        Transition::Forgotten(id) => drop(row(kept, id)),
        Transition::Clock(us) => kept.clock_us = us,
    }
}

/// One job to nodes a, b and c, all of them up.
fn three(dimensions: Dimensions) -> World {
    let mut world = World::new();
    for node in ["a", "b", "c"] {
        world.up(node);
    }
    world.create(new_job(1, "t", &["a", "b", "c"], dimensions)).unwrap();
    world.step(Input::PublisherBack { job: id(1) });
    world
}

fn closings(fx: &[Effect]) -> Vec<JobState> {
    let closed = fx.iter().filter_map(|effect| match effect {
        Effect::Event { body: EventBody::Closed(view), .. } => Some(view.state),
        _ => None,
    });
    closed.collect()
}

fn orders(fx: &[Effect]) -> Vec<(String, &'static str)> {
    let orders = fx.iter().filter_map(|effect| match effect {
        Effect::Assign { node, order, .. } => Some((node.to_string(), kind(order))),
        _ => None,
    });
    orders.collect()
}

const fn kind(order: &Assign) -> &'static str {
    match order {
        Assign::Open(_) => "open",
        Assign::Closed(_) => "closed",
        Assign::Drop => "drop",
    }
}

fn told(fx: &[Effect]) -> BTreeMap<String, NodeJobState> {
    let nodes = fx.iter().filter_map(|effect| match effect {
        Effect::Event { body: EventBody::Node { node, state, .. }, .. } => {
            Some((node.clone(), *state))
        }
        _ => None,
    });
    nodes.collect()
}

fn each(nodes: &[&str], kind: &'static str) -> Vec<(String, &'static str)> {
    nodes.iter().map(|node| ((*node).to_owned(), kind)).collect()
}
