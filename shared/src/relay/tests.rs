//! The engine against itself: a source and a receiver with nothing but numbers between them.

use std::time::Duration;

use super::*;

mod recut;

const NOW: Time = Time::ZERO;

fn chance(seed: &mut u64, of: u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 33) % of
}

fn next_page(relay: &mut Relay, lens: &[u32], last: bool, fx: &mut Vec<Effect>) {
    let summary = PageSummary::plain(relay.pages(), relay.chunks());
    relay.page(&summary, lens, last, fx);
}

/// A source that holds `pages` pages of `per_page` chunks, all published.
fn source(stripes: u8, pages: u32, per_page: usize) -> Relay {
    let mut relay = Relay::new(stripes, 8);
    let mut fx = Vec::new();
    for page in 0..pages {
        next_page(&mut relay, &vec![10; per_page], page + 1 == pages, &mut fx);
    }
    for chunk in 0..u64::from(pages) * per_page as u64 {
        relay.hold(NOW, chunk, 10, &mut fx);
    }
    relay.publish(pages, &mut fx);
    relay
}

/// Carries effects between two peers until neither has any; records pass in random order.
struct Pair {
    source: Relay,
    receiver: Relay,
    /// Every page's chunk count, and which is the last.
    per_page: usize,
    pages: u32,
    parked: BTreeMap<u32, ()>,
    sent: Vec<u64>,
    seed: u64,
}

impl Pair {
    fn new(stripes: u8, pages: u32, per_page: usize, window: u64, seed: u64) -> Self {
        Self {
            source: source(stripes, pages, per_page),
            receiver: Relay::new(stripes, window),
            per_page,
            pages,
            parked: BTreeMap::new(),
            sent: Vec::new(),
            seed,
        }
    }

    fn connect(&mut self) {
        let mut fx = Vec::new();
        self.source.invite(&PeerId::Node("n".parse().unwrap()), &mut fx);
        for effect in fx {
            if let Effect::Offer { offer, .. } = effect {
                let mut fx = Vec::new();
                self.receiver.offered(&PeerId::Base, offer, &mut fx);
                self.carry(fx);
            }
        }
    }

    fn disconnect(&mut self) {
        let mut fx = Vec::new();
        self.source.peer_lost(&PeerId::Node("n".parse().unwrap()), &mut fx);
        self.receiver.peer_lost(&PeerId::Base, &mut fx);
        self.parked.clear();
    }

    fn carry(&mut self, fx: Vec<Effect>) {
        for effect in fx {
            if let Effect::Want { want, .. } = effect {
                let mut fx = Vec::new();
                self.source.wanted(&PeerId::Node("n".parse().unwrap()), want, &mut fx);
            }
        }
    }

    /// Sends up to `most` records and lets them land in random order.
    fn pump(&mut self, most: usize) -> usize {
        let node = PeerId::Node("n".parse().unwrap());
        let mut flying = Vec::new();
        while flying.len() < most {
            let Some(next) = self.source.next_send(&node) else { break };
            if let Next::Chunk(chunk) = next {
                assert_eq!(self.receiver.landing(&PeerId::Base, chunk), Landing::Wanted);
                self.sent.push(chunk);
            }
            flying.push(next);
        }
        let count = flying.len();
        while !flying.is_empty() {
            let at = chance(&mut self.seed, flying.len() as u64) as usize;
            self.land(flying.swap_remove(at));
        }
        count
    }

    fn land(&mut self, next: Next) {
        let mut fx = Vec::new();
        match next {
            Next::Page(page) | Next::PageInPlace(page) => {
                self.parked.insert(page, ());
                while self.parked.remove(&self.receiver.pages()).is_some() {
                    let last = self.receiver.pages() + 1 == self.pages;
                    next_page(&mut self.receiver, &vec![10; self.per_page], last, &mut fx);
                }
            }
            Next::Chunk(chunk) => self.receiver.hold(NOW, chunk, 10, &mut fx),
        }
        self.carry(fx);
    }

    fn run_to_the_end(&mut self) {
        while !self.receiver.is_whole() {
            assert!(self.pump(5) > 0, "stuck at {:?}", self.receiver.held().head());
        }
    }
}

#[test]
fn every_chunk_is_sent_once_and_never_beyond_credit() {
    for (stripes, window, seed) in [(1, 4, 1), (2, 4, 2), (4, 16, 3), (16, 16, 4), (3, 100, 5)] {
        let mut pair = Pair::new(stripes, 7, 13, window, seed);
        pair.connect();
        pair.run_to_the_end();
        pair.sent.sort_unstable();
        assert!(pair.sent.iter().copied().eq(0..91), "stripes {stripes}");
    }
}

#[test]
fn a_new_connection_resumes_without_sending_twice() {
    for seed in 0..50 {
        let mut pair = Pair::new(4, 9, 11, 24, seed);
        pair.connect();
        for _ in 0..3 {
            pair.pump(7);
            pair.disconnect();
            pair.connect();
        }
        pair.run_to_the_end();
        pair.sent.sort_unstable();
        assert!(pair.sent.iter().copied().eq(0..99), "seed {seed}");
    }
}

#[test]
fn a_source_passes_on_what_comes_late() {
    let node = PeerId::Node("n".parse().unwrap());
    let mut relay = Relay::new(1, 8);
    let mut fx = Vec::new();
    next_page(&mut relay, &[10; 4], true, &mut fx);
    relay.publish(1, &mut fx);
    let stripes = vec![crate::wire::message::StripeWant { stripe: 0, from: 0, credit: 8 }];
    relay.wanted(&node, Want { stripes, ..Want::default() }, &mut fx);
    assert_eq!(relay.next_send(&node), Some(Next::Page(0)));
    assert_eq!(relay.next_send(&node), None);
    relay.hold(NOW, 2, 10, &mut fx);
    assert_eq!(relay.next_send(&node), Some(Next::Chunk(2)));
    fx.clear();
    relay.hold(NOW, 0, 10, &mut fx);
    assert!(fx.contains(&Effect::Ready { peer: node.clone() }));
    relay.hold(NOW, 3, 10, &mut fx);
    assert_eq!(relay.next_send(&node), Some(Next::Chunk(0)));
    assert_eq!(relay.next_send(&node), Some(Next::Chunk(3)));
    assert_eq!(relay.next_send(&node), None);
}

#[test]
fn only_published_pages_and_their_chunks_are_passed_on() {
    let node = PeerId::Node("n".parse().unwrap());
    let mut relay = Relay::new(1, 8);
    let mut fx = Vec::new();
    next_page(&mut relay, &[10; 2], false, &mut fx);
    relay.hold(NOW, 0, 10, &mut fx);
    let stripes = vec![crate::wire::message::StripeWant { stripe: 0, from: 0, credit: 8 }];
    relay.wanted(&node, Want { stripes, ..Want::default() }, &mut fx);
    assert_eq!(relay.next_send(&node), None);
    relay.publish(1, &mut fx);
    assert_eq!(relay.next_send(&node), Some(Next::Page(0)));
    assert_eq!(relay.next_send(&node), Some(Next::Chunk(0)));
}

#[test]
fn what_is_not_asked_for_is_a_fault() {
    let mut relay = Relay::new(2, 4);
    let mut fx = Vec::new();
    assert_eq!(relay.landing(&PeerId::Base, 0), Landing::BeyondCredit);
    relay.offered(&PeerId::Base, Offer { pages: 1, head: 9, spare_bps: 0 }, &mut fx);
    assert_eq!(relay.landing(&PeerId::Base, 3), Landing::Wanted);
    assert_eq!(relay.landing(&PeerId::Base, 6), Landing::BeyondCredit);
    relay.hold(NOW, 3, 10, &mut fx);
    assert_eq!(relay.landing(&PeerId::Base, 3), Landing::Duplicate);
}

#[test]
fn complete_is_reported_when_told_and_bytes_when_durable() {
    let mut relay = Relay::new(1, 4);
    let mut fx = Vec::new();
    next_page(&mut relay, &[10, 20], true, &mut fx);
    relay.hold(NOW, 0, 10, &mut fx);
    relay.hold(NOW, 1, 20, &mut fx);
    assert!(relay.is_whole());
    assert_eq!(relay.report(NOW).bytes, 0);
    relay.flushed(&[(0, 2)], &mut fx);
    assert_eq!((relay.report(NOW).bytes, relay.report(NOW).phase), (30, Phase::Receiving));
    relay.completed(&mut fx);
    assert_eq!(relay.report(NOW).phase, Phase::Complete);
    assert!(fx.contains(&Effect::Report { urgent: true }));
}

#[test]
fn a_job_without_chunks_still_gets_its_pages() {
    let mut pair = Pair::new(2, 1, 0, 4, 1);
    pair.connect();
    assert_eq!(pair.pump(5), 1);
    assert!(pair.receiver.is_whole());
}

/// The stripes that each peer was last told are wanted of it.
fn wanted_of(fx: &[Effect], peer: &PeerId) -> Option<usize> {
    fx.iter().rev().find_map(|effect| match effect {
        Effect::Want { peer: of, want } if of == peer => Some(want.stripes.len()),
        _ => None,
    })
}

#[test]
fn what_was_lost_comes_back_from_a_receiver_before_the_publisher_feeds_again() {
    let node = PeerId::Node("n".parse().unwrap());
    let publisher = PeerId::Client("alice".parse().unwrap(), 1);
    let mut fx = Vec::new();
    let mut base = source(2, 3, 4);
    let offer = |pages: u32| Offer { pages, head: u64::from(pages) * 4, spare_bps: 0 };
    base.ended = false;
    base.offered(&publisher, offer(9), &mut fx);
    assert_eq!(wanted_of(&fx, &publisher), Some(2));
    base.offered_back(&node, offer(3), &mut fx);
    assert_eq!(wanted_of(&fx, &node), None, "it has no more than is here");

    base.offered_back(&node, offer(5), &mut fx);
    assert_eq!((wanted_of(&fx, &node), wanted_of(&fx, &publisher)), (Some(2), Some(0)));
    for page in 3..5u64 {
        next_page(&mut base, &[10; 4], false, &mut fx);
        for chunk in page * 4..page * 4 + 4 {
            assert_eq!(base.landing(&node, chunk), Landing::Wanted);
            base.hold(NOW, chunk, 10, &mut fx);
        }
    }
    assert_eq!((wanted_of(&fx, &node), wanted_of(&fx, &publisher)), (Some(0), Some(2)));
    assert_eq!(base.landing(&node, 19), Landing::Duplicate, "what is under way is no fault");
    assert_eq!(base.landing(&publisher, 20), Landing::Wanted);
}

#[test]
fn a_publisher_feeds_when_who_gave_back_is_gone() {
    let node = PeerId::Node("n".parse().unwrap());
    let publisher = PeerId::Client("alice".parse().unwrap(), 1);
    let mut fx = Vec::new();
    let mut base = Relay::new(1, 8);
    base.offered_back(&node, Offer { pages: 5, head: 20, spare_bps: 0 }, &mut fx);
    base.offered(&publisher, Offer { pages: 9, head: 36, spare_bps: 0 }, &mut fx);
    assert_eq!((wanted_of(&fx, &node), wanted_of(&fx, &publisher)), (Some(1), None));
    base.peer_lost(&node, &mut fx);
    assert_eq!(wanted_of(&fx, &publisher), Some(1));
}

#[test]
fn a_receiver_that_brings_nothing_of_what_it_offers_back_keeps_nobody_waiting() {
    let [liar, honest] = ["liar", "node"].map(|name| PeerId::Node(name.parse().unwrap()));
    let publisher = PeerId::Client("alice".parse().unwrap(), 1);
    let offer = |pages| Offer { pages, head: u64::from(pages) * 4, spare_bps: 0 };
    let mut fx = Vec::new();
    let mut base = Relay::new(1, 8);
    base.offered(&publisher, offer(9), &mut fx);
    let at = |secs| NOW + Duration::from_secs(secs);
    let patience = limit::GIVE_BACK_PATIENCE.as_secs();

    base.offered_back(&honest, offer(5), &mut fx);
    base.look_at_givers(at(0), &mut fx);
    base.offered_back(&liar, offer(1_000), &mut fx);
    assert_eq!(wanted_of(&fx, &liar), None, "one at a time");
    base.look_at_givers(at(patience - 1), &mut fx);
    next_page(&mut base, &[10; 4], false, &mut fx);
    base.look_at_givers(at(2 * patience - 2), &mut fx);
    base.stall(Some("no room".into()), &mut fx);
    base.look_at_givers(at(5 * patience), &mut fx);
    base.stall(None, &mut fx);
    base.look_at_givers(at(6 * patience - 1), &mut fx);
    assert_eq!((wanted_of(&fx, &honest), wanted_of(&fx, &publisher)), (Some(1), Some(0)));

    base.look_at_givers(at(6 * patience), &mut fx);
    assert_eq!((wanted_of(&fx, &honest), wanted_of(&fx, &liar)), (Some(0), Some(1)));
    base.look_at_givers(at(7 * patience), &mut fx);
    base.offered_back(&liar, offer(2_000), &mut fx);
    base.look_at_givers(at(8 * patience), &mut fx);
    assert_eq!((wanted_of(&fx, &liar), wanted_of(&fx, &publisher)), (Some(0), Some(1)));
    base.offered_back(&liar, offer(3_000), &mut fx);
    assert_eq!((wanted_of(&fx, &liar), wanted_of(&fx, &publisher)), (Some(0), Some(1)));
}

#[test]
fn a_source_that_has_less_is_offered_what_is_here() {
    let offered_back = |pages, head| {
        let (mut fx, mut node) = (Vec::new(), source(1, 3, 4));
        node.offered(&PeerId::Base, Offer { pages, head, spare_bps: 0 }, &mut fx);
        fx.iter().any(|effect| matches!(effect, Effect::Offer { peer: PeerId::Base, .. }))
    };
    assert!(offered_back(2, 8) && offered_back(3, 11));
    assert!(!offered_back(3, 12) && !offered_back(9, 36));
}
