//! What comes to the base: frames, records, requests.

use std::sync::Arc;

use shared::control::{Receipt, Via};
use shared::id::{JobId, PeerId, Role};
use shared::table::Input;
use shared::wire::frame::datagram_frames;
use shared::wire::message::{
    self, Acks, Answer, Envelope, FrameType, Hello, Offer, Phase, Reconcile, Report, StateKind,
    Want,
};
use shared::wire::rights;

use super::Variant;
use super::base::{Item, client_peer, peer_of};
use super::coverage::Scene;
use super::holding::{Bad, DiskJob, Holding};
use super::ledger::Registered;
use super::net::{Packet, Request};
use super::plan::{CLIENT, client_name, job_id, new_job, node_name, plan_of};
use super::world::World;

impl World {
    /// A packet has come to the base.
    pub(super) fn at_base(&mut self, link: usize, generation: u64, packet: Packet) {
        match packet {
            Packet::Datagram(bytes) => self.base_frames(link, Via::Datagram, &bytes),
            Packet::Control(bytes) => self.base_frames(link, Via::Stream, &bytes),
            Packet::Record { job, is_page, number, damaged } => {
                let peer = peer_of(link, generation);
                let Some(plan) = self.plan.jobs.get(plan_of(job)) else {
                    return;
                };
                let plan = Arc::clone(plan);
                let record = (is_page, number, damaged);
                let result = self.at_holding(job, |holding, now, fx| {
                    holding.record(now, &plan, &peer, record, fx)
                });
                if self.at_holding(job, |holding, _, _| holding.is_parking()) == Some(true) {
                    self.coverage.reach(Scene::RecordParked);
                }
                self.record_taken(link, true, result);
                self.flush_base(job);
            }
            Packet::Request { plan, what } => self.requested(generation, plan, what),
            Packet::Reply { .. } | Packet::Closed { .. } => {}
        }
    }

    /// A bad source is cut off; a rule that the engine broke is a finding.
    pub(super) fn record_taken(
        &mut self,
        link: usize,
        at_base: bool,
        result: Option<Result<(), Bad>>,
    ) {
        match result {
            None | Some(Ok(())) => {}
            Some(Err(Bad::Damaged)) => {
                self.coverage.reach(Scene::RecordDamaged);
                let generation = self.links.get(link).map_or(0, |state| state.generation);
                self.break_link(link);
                self.lost(link, at_base, generation);
            }
            Some(Err(Bad::Rule(text))) => self.fail("I7", text),
        }
    }

    fn requested(&mut self, generation: u64, plan: usize, what: Request) {
        let (now, wall_ms) = (self.now, self.wall_ms());
        let Some(wish) = self.plan.jobs.get(plan) else {
            return;
        };
        let Some(run) = &mut self.base.running else {
            return;
        };
        let key = [u8::try_from(plan).unwrap_or(u8::MAX); 16];
        let known = run.table.by_key(&client_name(), &key);
        let mut fx = Vec::new();
        let job = match (what, known) {
            (Request::Create, _) => {
                self.base.minted += 1;
                let new = new_job(plan, wish, job_id(plan, self.base.minted));
                let Ok(created) = run.table.create(now, wall_ms, new, &mut fx) else {
                    return;
                };
                if !created.fresh {
                    self.coverage.reach(Scene::CreatedTwice);
                } else {
                    let holding = Holding::new(wish, &DiskJob::default(), false);
                    run.holdings.insert(created.id, holding);
                    self.ids.insert(created.id);
                }
                created.id
            }
            // It is removed already, and nothing is left of it.
            (_, None) => JobId([0; 16]),
            (Request::Cancel, Some(id)) => {
                // It may have closed before.
                let _closed = run.table.cancel(now, wall_ms, (id, "by the client"), &mut fx);
                id
            }
            (Request::Remove, Some(id)) => {
                let _unknown = run.table.remove(now, wall_ms, (id, "by the client"), &mut fx);
                id
            }
            (Request::Leave, Some(job)) => {
                run.left.insert(job);
                run.published.remove(&job);
                run.table.step(now, wall_ms, Input::PublisherGone { job }, &mut fx);
                job
            }
        };
        self.file(fx);
        self.push(Item::Reply { generation, plan, what, job });
    }

    fn base_frames(&mut self, link: usize, via: Via, bytes: &[u8]) {
        let role = if link == CLIENT { Role::Client } else { Role::Node };
        for frame in datagram_frames(bytes).unwrap_or_default() {
            let Some(kind) = FrameType::from_byte(frame.kind) else {
                continue;
            };
            if !rights::may_send(role, kind, Role::Base) {
                self.fail("I12", format!("{role} sends {kind:?} to the base"));
                return;
            }
            self.base_frame(link, via, kind, &frame.body);
        }
    }

    fn base_frame(&mut self, link: usize, via: Via, kind: FrameType, body: &[u8]) {
        let now = self.now;
        match kind {
            FrameType::Hello => {
                if let Ok(hello) = message::decode::<Hello>(body) {
                    self.greet(link, &hello);
                }
            }
            FrameType::Acks => {
                if let (Ok(acks), Some(end)) =
                    (message::decode::<Acks>(body), self.end_mut(link, true))
                {
                    end.channel.acked(now, &acks);
                    self.touched.push((link, true));
                }
            }
            FrameType::Reconcile => {
                let jobs = message::decode::<Reconcile>(body).map(|known| known.jobs);
                for job in jobs.unwrap_or_default() {
                    self.step(Input::Known { node: node_name(link), job });
                    self.invite(link, job);
                }
            }
            FrameType::Beat => self.coverage.reach(Scene::Beat),
            FrameType::Answer => {
                let Ok(Answer { job, report, .. }) = message::decode(body) else {
                    return;
                };
                let incarnation = self.greeted(link).unwrap_or(0);
                self.step(Input::Answer { node: node_name(link), incarnation, job, report });
            }
            _ => {
                let (Some(kind), Ok(state)) = (kind.state(), message::decode::<Envelope>(body))
                else {
                    return;
                };
                let Some(end) = self.end_mut(link, true) else {
                    return;
                };
                if end.channel.receive(now, via, kind, &state) == Receipt::New {
                    self.check_newer(link, true, kind, &state);
                    self.base_state(link, kind, state);
                } else {
                    self.coverage.reach(Scene::OldState);
                }
                self.touched.push((link, true));
            }
        }
    }

    fn greeted(&self, node: usize) -> Option<u64> {
        self.base.running.as_ref()?.greeted.get(node).copied().flatten()
    }

    fn greet(&mut self, node: usize, hello: &Hello) {
        let Some(run) = &mut self.base.running else {
            return;
        };
        let Some(generation) = run.ends.get(node).and_then(|end| end.generation) else {
            return;
        };
        let max = run.nodes.values().map(|node| node.incarnation).max().unwrap_or(0);
        let known = run.nodes.get(&node).copied();
        let same_store = known.filter(|known| known.store == hello.store);
        let same = same_store.filter(|known| known.boot == hello.boot);
        let registered = same.unwrap_or(Registered {
            store: hello.store,
            boot: hello.boot,
            incarnation: max + 1,
            since: same_store.map_or(max + 1, |known| known.since),
        });
        run.nodes.insert(node, registered);
        // A base that was killed may have learnt of the new store and not have acted on it.
        let first = run.met.insert(node) && registered.since > 1;
        let new_store = first || (known.is_some() && same_store.is_none());
        let incarnation = match self.variant {
            Variant::NoIncarnation => 1,
            _ => registered.incarnation,
        };
        self.push(Item::Register(node, registered));
        self.push(Item::Welcome { node, generation, incarnation, new_store });
    }

    /// Offers a job to a node that has accepted it, once on each connection.
    fn invite(&mut self, node: usize, job: JobId) {
        let Some(run) = &mut self.base.running else {
            return;
        };
        if run.table.servers(job, &node_name(node)).is_none() || !run.holdings.contains_key(&job) {
            return;
        }
        if run.invited.get_mut(node).is_some_and(|invited| invited.insert(job)) {
            let peer = PeerId::Node(node_name(node));
            self.at_holding(job, |holding, _, fx| holding.relay.invite(&peer, fx));
        }
    }

    /// A node has dropped what it was told to: that need not be said again.
    fn stop_dropping(&mut self, node: usize, job: JobId) {
        let Some(run) = &mut self.base.running else {
            return;
        };
        if run.table.status(job).is_none_or(|status| status.is_dropping())
            && let Some(end) = run.ends.get_mut(node)
        {
            end.channel.forget(StateKind::Assign, job);
        }
    }

    fn base_state(&mut self, link: usize, kind: StateKind, state: Envelope) {
        let Envelope { job, stamp, body } = state;
        match kind {
            StateKind::Report => {
                let Ok(report) = message::decode::<Report>(&body) else {
                    return;
                };
                if self.greeted(link) != Some(stamp.term) {
                    return;
                }
                let (phase, node) = (report.phase.clone(), node_name(link));
                self.check_progress(link, job, &report);
                self.step(Input::Report { node, incarnation: stamp.term, job, report });
                match phase {
                    Phase::Receiving | Phase::Stalled(_) => self.invite(link, job),
                    Phase::Dropped => self.stop_dropping(link, job),
                    Phase::Complete | Phase::Failed(_) => {}
                }
            }
            StateKind::Want => {
                let Ok(want) = message::decode::<Want>(&body) else {
                    return;
                };
                let Some(run) = &self.base.running else {
                    return;
                };
                if run.table.servers(job, &node_name(link)).is_some() {
                    let peer = PeerId::Node(node_name(link));
                    self.at_holding(job, |holding, _, fx| holding.relay.wanted(&peer, want, fx));
                }
            }
            StateKind::Offer => {
                let Ok(offer) = message::decode::<Offer>(&body) else {
                    return;
                };
                let generation = self.links.get(link).map_or(0, |state| state.generation);
                let Some(run) = &mut self.base.running else {
                    return;
                };
                let is_open = run.table.open_jobs().any(|open| open == job);
                if is_open && !run.left.contains(&job) {
                    run.published.insert(job);
                    self.step(Input::PublisherBack { job });
                    let peer = client_peer(generation);
                    self.at_holding(job, |holding, _, fx| {
                        holding.relay.offered(&peer, offer, fx);
                    });
                } else if self.was_closed(job) {
                    self.send(CLIENT, true, Packet::Closed { job });
                }
            }
            StateKind::Assign | StateKind::View => {}
        }
        self.push(Item::Accept { link, kind, job, stamp });
    }
}
