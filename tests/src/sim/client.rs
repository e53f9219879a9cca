//! The client of a run: it pushes every job, asks until it is answered, and never crashes.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::control::{Pace, Receipt, Via};
use shared::id::{JobId, PeerId, Role};
use shared::manifest::PageSummary;
use shared::relay::{Effect, Next, Relay};
use shared::wire::codec;
use shared::wire::frame::datagram_frames;
use shared::wire::message::{self, Acks, Envelope, FrameType, StateKind, Want};
use shared::wire::rights;

use super::net::{End, Packet, Request};
use super::plan::{CLIENT, Ending, plan_of};
use super::queue::{ClientStep, Event};
use super::world::World;

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) end: End,
    pub(super) jobs: Vec<Job>,
}

/// A job as the client has it.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// The base's id for it.
    pub(super) id: Option<JobId>,
    /// Requests without an answer.
    requests: BTreeSet<Request>,
    relay: Option<Relay>,
    pages: usize,
}

impl Client {
    pub(super) fn new(jobs: usize) -> Self {
        Self { end: End::new(0), jobs: (0..jobs).map(|_| Job::default()).collect() }
    }

    /// Whether every request was answered.
    pub(super) fn is_answered(&self) -> bool {
        self.jobs.iter().all(|job| job.requests.is_empty())
    }
}

impl World {
    /// A connection is new on both sides: what was said on the last one is void.
    pub(super) fn client_connected(&mut self) {
        let (now, epoch) = (self.now, self.base.running.as_ref().map_or(0, |run| run.epoch));
        for (at_base, term) in [(true, epoch), (false, 0)] {
            if let Some(end) = self.end_mut(CLIENT, at_base) {
                *end = End::connected(term, end.generation);
                end.channel.connected(now);
                self.touched.push((CLIENT, at_base));
            }
        }
        self.forget_stamps(CLIENT);
        for plan in 0..self.client.jobs.len() {
            self.ask(plan);
            self.at_relay(plan, |relay, fx| relay.invite(&PeerId::Base, fx));
        }
    }

    pub(super) fn client_lost(&mut self) {
        for plan in 0..self.client.jobs.len() {
            self.at_relay(plan, |relay, fx| relay.peer_lost(&PeerId::Base, fx));
        }
        self.dial(CLIENT);
    }

    /// Sends the first request of a job that has no answer.
    fn ask(&mut self, plan: usize) {
        let first = self.client.jobs.get(plan).and_then(|job| job.requests.first().copied());
        if let Some(what) = first {
            self.send(CLIENT, false, Packet::Request { plan, what });
        }
    }

    fn want_answer(&mut self, plan: usize, what: Request) {
        if let Some(job) = self.client.jobs.get_mut(plan) {
            job.requests.insert(what);
            if job.requests.len() == 1 {
                self.ask(plan);
            }
        }
    }

    fn at_relay<T>(
        &mut self,
        plan: usize,
        act: impl FnOnce(&mut Relay, &mut Vec<Effect>) -> T,
    ) -> Option<T> {
        let mut fx = Vec::new();
        let job = self.client.jobs.get_mut(plan)?;
        let id = job.id?;
        let result = act(job.relay.as_mut()?, &mut fx);
        for effect in fx {
            match effect {
                Effect::Offer { offer, .. } => {
                    let body = codec::encode(&offer);
                    self.say((CLIENT, false), StateKind::Offer, id, body, Pace::Now);
                }
                Effect::Ready { .. } => self.ready(CLIENT, false, id),
                Effect::Want { .. } | Effect::Report { .. } | Effect::Count(_) => {}
            }
        }
        Some(result)
    }

    /// The client does the next thing for a job.
    pub(super) fn client_step(&mut self, plan: usize, step: ClientStep) {
        let Some(wish) = self.plan.jobs.get(plan).map(Arc::clone) else {
            return;
        };
        match step {
            ClientStep::Create => self.want_answer(plan, Request::Create),
            ClientStep::End => match wish.ending {
                Ending::Cancelled(_) => self.want_answer(plan, Request::Cancel),
                Ending::Removed(_) => self.want_answer(plan, Request::Remove),
                Ending::Pushed | Ending::Abandoned(_) => {}
            },
            ClientStep::Page => {
                let Some(job) = self.client.jobs.get_mut(plan) else {
                    return;
                };
                let page = job.pages;
                if wish.ending == Ending::Abandoned(page) {
                    return self.stop_publishing(plan, true);
                }
                let Some(lens) = wish.pages.get(page) else {
                    return;
                };
                job.pages += 1;
                let (now, is_last) = (self.now, page + 1 == wish.pages.len());
                self.at_relay(plan, |relay, fx| {
                    let first = relay.chunks();
                    let summary = PageSummary::plain(relay.pages(), relay.chunks());
                    relay.page(&summary, lens, is_last, fx);
                    for (chunk, len) in (first..).zip(lens) {
                        relay.hold(now, chunk, *len, fx);
                    }
                    relay.publish(relay.pages(), fx);
                });
                let next = Event::Client { plan, step: ClientStep::Page };
                self.queue.push(self.now + wish.page_every, next);
            }
        }
    }

    fn stop_publishing(&mut self, plan: usize, leaves: bool) {
        let Some(job) = self.client.jobs.get_mut(plan) else {
            return;
        };
        if let (Some(id), Some(_)) = (job.id, job.relay.take()) {
            self.client.end.channel.forget(StateKind::Offer, id);
        }
        if leaves {
            self.want_answer(plan, Request::Leave);
        }
    }

    pub(super) fn next_of_client(&mut self, job: JobId) -> Option<Next> {
        self.at_relay(plan_of(job), |relay, _| relay.next_send(&PeerId::Base))?
    }

    /// A packet has come to the client.
    pub(super) fn at_client(&mut self, packet: Packet) {
        match packet {
            Packet::Datagram(bytes) => self.client_frames(Via::Datagram, &bytes),
            Packet::Control(bytes) => self.client_frames(Via::Stream, &bytes),
            Packet::Reply { plan, what, job } => self.answered(plan, what, job),
            Packet::Closed { job } => self.stop_publishing(plan_of(job), false),
            Packet::Record { .. } | Packet::Request { .. } => {}
        }
    }

    fn answered(&mut self, plan: usize, what: Request, id: JobId) {
        let Some(wish) = self.plan.jobs.get(plan).map(Arc::clone) else {
            return;
        };
        let Some(job) = self.client.jobs.get_mut(plan) else {
            return;
        };
        if !job.requests.remove(&what) {
            return;
        }
        if what == Request::Create {
            job.id = Some(id);
            job.relay = Some(Relay::new(wish.stripes, wish.window));
            self.at_relay(plan, |relay, fx| relay.invite(&PeerId::Base, fx));
            self.queue.push(self.now, Event::Client { plan, step: ClientStep::Page });
        }
        self.ask(plan);
    }

    fn client_frames(&mut self, via: Via, bytes: &[u8]) {
        let now = self.now;
        for frame in datagram_frames(bytes).unwrap_or_default() {
            let Some(kind) = FrameType::from_byte(frame.kind) else {
                continue;
            };
            if !rights::may_send(Role::Base, kind, Role::Client) {
                self.fail("I12", format!("the base sends {kind:?} to a client"));
                return;
            }
            if let (FrameType::Acks, Ok(acks)) = (kind, message::decode::<Acks>(&frame.body)) {
                self.client.end.channel.acked(now, &acks);
            }
            let (Some(kind), Ok(state)) = (kind.state(), message::decode::<Envelope>(&frame.body))
            else {
                continue;
            };
            let channel = &mut self.client.end.channel;
            if channel.receive(now, via, kind, &state) == Receipt::New {
                self.check_newer(CLIENT, false, kind, &state);
                if let Ok(want) = message::decode::<Want>(&state.body) {
                    let plan = plan_of(state.job);
                    self.at_relay(plan, |relay, fx| relay.wanted(&PeerId::Base, want, fx));
                }
                self.client.end.channel.accept(now, kind, state.job, state.stamp);
            }
        }
        self.touched.push((CLIENT, false));
    }
}
