//! The engine against itself: a source and a receiver with nothing but numbers between them.

use std::time::Duration;

use super::opening::Given;
use super::*;
use crate::stripe_set::StripeSet;
use crate::wire::message::Flow;

mod delay;
mod duel;
mod mesh;
mod orphan;
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
    let stripes = vec![crate::wire::message::StripeWant::new(0, 0, 8)];
    relay.wanted(&node, Want { stripes, pages_to: 1, ..Want::default() }, &mut fx);
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
    let stripes = vec![crate::wire::message::StripeWant::new(0, 0, 8)];
    relay.wanted(&node, Want { stripes, pages_to: 1, ..Want::default() }, &mut fx);
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
    relay.offered(&PeerId::Base, Offer::of_root(1, 9), &mut fx);
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
    let offer = |pages: u32| Offer::of_root(pages, u64::from(pages) * 4);
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
    base.offered_back(&node, Offer::of_root(5, 20), &mut fx);
    base.offered(&publisher, Offer::of_root(9, 36), &mut fx);
    assert_eq!((wanted_of(&fx, &node), wanted_of(&fx, &publisher)), (Some(1), None));
    base.peer_lost(&node, &mut fx);
    assert_eq!(wanted_of(&fx, &publisher), Some(1));
}

#[test]
fn a_receiver_that_brings_nothing_of_what_it_offers_back_keeps_nobody_waiting() {
    let [liar, honest] = ["liar", "node"].map(|name| PeerId::Node(name.parse().unwrap()));
    let publisher = PeerId::Client("alice".parse().unwrap(), 1);
    let offer = |pages| Offer::of_root(pages, u64::from(pages) * 4);
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
        node.offered(&PeerId::Base, Offer::of_root(pages, head), &mut fx);
        fx.iter().any(|effect| matches!(effect, Effect::Offer { peer: PeerId::Base, .. }))
    };
    assert!(offered_back(2, 8) && offered_back(3, 11));
    assert!(!offered_back(3, 12) && !offered_back(9, 36));
}

#[test]
fn a_node_is_no_root_whatever_it_says() {
    let (node, mut fx) = (PeerId::Node("n".parse().unwrap()), Vec::new());
    let mut relay = Relay::new(2, 8);
    relay.share();
    relay.offered(&node, Offer::of_root(1, 9), &mut fx);
    assert_eq!(relay.feeds.iter().filter(|feed| feed.by.is_some()).count(), 0);
    let further = Offer { ahead: vec![2, 1], ..Offer::of_root(1, 9) };
    relay.offered(&node, further, &mut fx);
    // The second stripe begins at chunk 1, which it does not have.
    assert_eq!(relay.feeds.iter().map(|feed| feed.by.is_some()).collect::<Vec<_>>(), [true, false]);
}

fn of_all(stripes: u8, from: u64, credit: u64) -> Want {
    let want = |stripe| crate::wire::message::StripeWant::new(stripe, from, credit);
    Want { stripes: (0..stripes).map(want).collect(), pages_to: 9, ..Want::default() }
}

fn node(name: &str) -> PeerId {
    PeerId::Node(name.parse().unwrap())
}

/// The chunks that are sent to `peer` next.
fn sent_to(relay: &mut Relay, peer: &PeerId) -> Vec<u64> {
    let all = std::iter::from_fn(|| relay.next_send(peer));
    let chunks = all.filter_map(|next| match next {
        Next::Chunk(chunk) => Some(chunk),
        Next::Page(_) | Next::PageInPlace(_) => None,
    });
    chunks.collect()
}

#[test]
fn who_comes_back_to_a_source_is_sent_nothing_again_while_the_stream_lasts() {
    let (mut base, mut fx) = (source(2, 2, 4), Vec::new());
    let peer = node("n");
    base.wanted(&peer, of_all(2, 0, 6), &mut fx);
    assert_eq!(sent_to(&mut base, &peer), [0, 1, 2, 3, 4, 5]);
    base.wanted(&peer, of_all(1, 0, 6), &mut fx);
    base.wanted(&peer, of_all(2, 0, 8), &mut fx);
    assert_eq!(sent_to(&mut base, &peer), [6, 7]);
    base.stopped_by(&peer);
    assert_eq!(sent_to(&mut base, &peer), [], "it wants nothing");
    base.wanted(&peer, of_all(2, 0, 8), &mut fx);
    assert_eq!(sent_to(&mut base, &peer), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn who_is_sent_away_and_still_served_tells_the_base_that_something_comes() {
    let (mut relay, mut fx) = (Relay::new(2, 64), Vec::new());
    relay.share();
    next_page(&mut relay, &[10_000; 64], false, &mut fx);
    let closed = Offer { open: StripeSet::NONE, ..Offer::of_root(1, 64) };
    let node_offer = Offer { ahead: vec![64, 65], ..Offer::of_root(1, 64) };
    relay.offered(&PeerId::Base, closed.clone(), &mut fx);
    relay.offered(&node("s"), node_offer.clone(), &mut fx);
    let at = |ms: u64| Time::from_micros(ms * 1_000);
    for look in 0..10 {
        let now = at(100 * (look + 1));
        (2 * look..2 * look + 2).for_each(|chunk| relay.hold(now, chunk, 10_000, &mut fx));
        relay.tick(now, None, &mut fx);
    }
    let told_base = |fx: &[Effect]| {
        let wants = fx.iter().rev().find_map(|effect| match effect {
            Effect::Want { peer: PeerId::Base, want } => Some(want),
            _ => None,
        });
        wants.map(|want| want.stripes.iter().map(|ask| ask.comes_bps).collect::<Vec<_>>())
    };
    fx.clear();
    relay.offered(&node("s"), Offer { open: StripeSet::NONE, ..node_offer }, &mut fx);
    let comes = told_base(&fx).unwrap();
    assert!(comes.len() == 2 && comes.iter().all(|bps| *bps >= 400_000), "{comes:?}");
    (20..40).for_each(|look| relay.tick(at(100 * look), None, &mut fx));
    assert_eq!(told_base(&fx).unwrap(), [0, 0], "nothing comes any more");
}

#[test]
fn who_was_sent_away_may_come_back_when_the_uplink_carries_more() {
    let (mut relay, mut fx) = (source(2, 2, 4), Vec::new());
    relay.share();
    relay.set_target(8_000_000);
    let spare = |carries_bps, left_bps, was_full| Some(Spare { carries_bps, left_bps, was_full });
    let names = ["a", "b", "c"];
    for (name, ms) in names.into_iter().zip([0, 10, 20]) {
        relay.at(Time::from_micros(ms * 1_000));
        relay.invite(&node(name), &mut fx);
        let want = crate::wire::message::StripeWant::new(0, 0, 8);
        let want = Want { stripes: vec![want], pages_to: 9, ..Want::default() };
        relay.receivers.get_mut(&node(name)).unwrap().given.insert(0, Given::adopted(relay.now));
        relay.wanted(&node(name), want, &mut fx);
    }
    let mut open = |ms: u64, spare| {
        relay.tick(Time::from_micros(ms * 1_000), spare, &mut fx);
        names.map(|name| relay.open_to(&node(name)).contains(0))
    };
    let tight = |was_full| spare(8_000_000, 0, was_full);
    for ms in [2_000, 6_000] {
        assert_eq!(open(ms, tight(false)), [true; 3], "it may carry more");
    }
    open(7_000, tight(true));
    assert_eq!(open(10_100, tight(true)), [true, true, false], "the youngest");
    assert_eq!(open(10_200, tight(true)), [true, true, false], "one at a time");
    assert_eq!(open(11_000, spare(80_000_000, 70_000_000, true)), [true; 3]);
}

#[test]
fn the_base_feeds_who_asks_in_vain_though_the_home_is_fed() {
    // A live stream, which has one stripe, waits for a shorter time.
    for (stripes, early, late) in [(2, 500, 1_100), (1, 200, 400)] {
        base_feeds_who_asks_in_vain(stripes, early, late);
    }
}

fn base_feeds_who_asks_in_vain(stripes: u8, early: u64, late: u64) {
    let (mut base, mut fx) = (source(stripes, 2, 4), Vec::new());
    base.flushed(&[(0, 8)], &mut fx);
    base.spread(&[(node("home"), 0)], &mut fx);
    for name in ["home", "other"] {
        base.invite(&node(name), &mut fx);
    }
    base.wanted(&node("home"), of_all(stripes, 0, 8), &mut fx);
    base.wanted(&node("other"), of_all(stripes, 0, 0), &mut fx);
    fx.clear();
    let at = |ms: u64| Time::from_micros(ms * 1_000);
    base.tick(at(early), None, &mut fx);
    assert!(fx.is_empty(), "{fx:?}");
    base.tick(at(late), None, &mut fx);
    let open = |effect: &Effect| matches!(effect, Effect::Offer { peer, offer } if *peer == node("other") && offer.open.contains(0));
    assert!(fx.iter().any(open), "{fx:?}");
    base.wanted(&node("other"), of_all(stripes, 0, 8), &mut fx);
    assert_eq!(base.next_send(&node("other")), Some(Next::Page(0)));
}

#[test]
fn a_stripe_moves_to_a_node_that_receives_and_carries_far_more() {
    let at = |ms: u64| Time::from_micros(ms * 1_000);
    let nodes = ["large", "small", "other"];
    for (receives, moved) in [(true, [4, 2, 2]), (false, [3, 3, 2])] {
        let (mut base, mut fx) = (source(8, 2, 4), Vec::new());
        base.flushed(&[(0, 8)], &mut fx);
        base.spread(&nodes.map(|name| (node(name), 8_000)), &mut fx);
        nodes.iter().for_each(|name| base.invite(&node(name), &mut fx));
        if receives {
            let open = base.open_to(&node("large"));
            let mut want = of_all(8, 0, 8);
            want.stripes.retain(|stripe| open.contains(u64::from(stripe.stripe)));
            base.wanted(&node("large"), want, &mut fx);
        }
        let homes = |base: &Relay| {
            nodes.map(|name| (0..8).filter(|s| base.open_to(&node(name)).contains(*s)).count())
        };
        base.set_uplink(&node("large"), 80_000);
        base.tick(at(1_000), None, &mut fx);
        assert_eq!(homes(&base), [3, 3, 2], "they may carry more");
        base.tick(at(2_000), None, &mut fx);
        assert_eq!(homes(&base), moved);
    }
}

#[test]
fn the_root_is_asked_for_more_speed_below_half_of_what_is_needed() {
    let at = |ms: u64| Time::from_micros(ms * 1_000);
    for (target_bps, is_asked) in [(0, true), (16_000, true), (1_200, false)] {
        let (mut relay, mut fx) = (Relay::new(2, 8), Vec::new());
        relay.share();
        relay.set_target(target_bps);
        next_page(&mut relay, &[10; 64], true, &mut fx);
        let (open, ahead) = ((0..2).collect(), vec![64, 64]);
        relay.offered(&node("slow"), Offer { open, ahead, ..Offer::of_root(1, 64) }, &mut fx);
        relay.offered(&PeerId::Base, Offer::of_root(1, 64), &mut fx);
        // 50 bytes of each stripe a second: 400 bits.
        for tick in 0..30 {
            relay.hold(at(tick * 100), tick, 10, &mut fx);
            relay.tick(at(tick * 100), None, &mut fx);
        }
        let asks = |effect: &Effect| {
            let Effect::Want { peer: PeerId::Base, want } = effect else { return false };
            want.stripes.iter().any(|stripe| stripe.is_ask())
        };
        assert_eq!(fx.iter().any(asks), is_asked, "{target_bps}");
    }
}

/// Nodes ask in vain for something over a second each time and take nothing, one after the other.
#[test]
fn who_asks_for_long_goes_before_larger_uplinks() {
    let at = |ms: u64| Time::from_micros(ms * 1_000);
    let (mut base, mut fx) = (source(2, 2, 4), Vec::new());
    base.flushed(&[(0, 8)], &mut fx);
    base.spread(&[(node("home"), 0)], &mut fx);
    for (name, bps) in [("home", 1), ("small", 1), ("large", 1 << 40), ("larger", 1 << 41)] {
        base.invite(&node(name), &mut fx);
        base.set_uplink(&node(name), bps);
    }
    base.wanted(&node("home"), of_all(2, 0, 8), &mut fx);
    let ask = |base: &mut Relay, name: &str| {
        base.wanted(&node(name), of_all(2, 0, 0), &mut Vec::new());
    };
    ["small", "large", "larger"].iter().for_each(|name| ask(&mut base, name));
    let mut first = Vec::new();
    for tick in 1..60 {
        base.wanted(&node("home"), of_all(2, 0, 8), &mut fx);
        fx.clear();
        base.tick(at(tick * 100), None, &mut fx);
        for effect in &fx {
            if let Effect::Offer { peer, offer } = effect
                && offer.open.contains(0)
            {
                first.push(peer.clone());
            }
        }
        ["large", "larger"].iter().for_each(|name| ask(&mut base, name));
    }
    assert_eq!(first.first(), Some(&node("larger")), "{first:?}");
    assert!(first.contains(&node("small")), "{first:?}");
}

#[test]
fn who_asks_before_the_content_is_there_has_not_asked_in_vain() {
    let (mut base, mut fx) = (Relay::new(1, 8), Vec::new());
    base.spread(&[(node("home"), 0)], &mut fx);
    for (name, credit) in [("home", 8), ("other", 0)] {
        base.invite(&node(name), &mut fx);
        base.wanted(&node(name), of_all(1, 0, credit), &mut fx);
    }
    let at = |ms: u64| Time::from_micros(ms * 1_000);
    base.tick(at(5_000), None, &mut fx);
    next_page(&mut base, &[10; 4], false, &mut fx);
    (0..4).for_each(|chunk| base.hold(at(5_010), chunk, 10, &mut fx));
    base.flushed(&[(0, 4)], &mut fx);
    base.publish(1, &mut fx);
    let opens = |base: &mut Relay, ms| {
        let mut fx = Vec::new();
        base.tick(at(ms), None, &mut fx);
        let open = |effect: &Effect| matches!(effect, Effect::Offer { peer, offer } if *peer == node("other") && offer.open.contains(0));
        fx.iter().any(open)
    };
    assert!(!opens(&mut base, 5_100), "its home has not got anything yet");
    assert!((5..=9).any(|tick| opens(&mut base, 5_600 + 100 * tick)));
}

#[test]
fn what_was_wanted_while_it_was_closed_is_fed_when_it_opens() {
    let (mut relay, mut fx) = (source(1, 2, 4), Vec::new());
    relay.share();
    relay.offered(&PeerId::Base, Offer::of_root(2, 8), &mut fx);
    relay.feeds[0].by = Some(PeerId::Base);
    relay.set_target(8_000_000);
    let spare = |left_bps| Some(Spare { carries_bps: 10_000_000, left_bps, was_full: true });
    relay.tick(Time::from_micros(1), spare(0), &mut fx);
    relay.invite(&node("n"), &mut fx);
    relay.wanted(&node("n"), of_all(1, 0, 8), &mut fx);
    while matches!(relay.next_send(&node("n")), Some(Next::Page(_))) {}
    assert_eq!(relay.next_send(&node("n")), None, "it is closed");
    relay.tick(Time::from_micros(2), spare(9_000_000), &mut fx);
    assert_eq!(relay.next_send(&node("n")), Some(Next::Chunk(0)));
}

#[test]
fn what_was_lost_is_awaited_from_who_gives_it_back_though_it_takes_long() {
    let publisher = PeerId::Client("alice".parse().unwrap(), 1);
    for stripes in [1, 2] {
        let (mut base, mut fx) = (Relay::new(stripes, 8), Vec::new());
        base.offered(&publisher, Offer::of_root(9, 36), &mut fx);
        base.offered_back(&node("n"), Offer::of_root(5, 20), &mut fx);
        fx.clear();
        for secs in 1..limit::GIVE_BACK_PATIENCE.as_secs() {
            base.tick(NOW + Duration::from_secs(secs), None, &mut fx);
        }
        let of_publisher = |effect: &&Effect| matches!(effect, Effect::Want { peer, want } if *peer == publisher && (!want.stripes.is_empty() || want.pages_to > 0));
        assert_eq!(fx.iter().find(of_publisher), None, "{stripes} stripes");
    }
}

#[test]
fn a_complete_peer_rests_unless_a_receiver_has_told_that_it_lacks_something() {
    let (mut relay, mut fx) = (source(1, 2, 4), Vec::new());
    relay.completed(&mut fx);
    relay.invite(&node("n"), &mut fx);
    assert!(!relay.is_restless());
    relay.wanted(&node("n"), of_all(1, 0, 0), &mut fx);
    assert!(relay.is_restless());
    relay.wanted(&node("n"), Want { complete: true, ..Want::default() }, &mut fx);
    assert!(!relay.is_restless());
}

/// Why stripes have got other sources, and which.
fn switches(fx: &mut Vec<Effect>) -> Vec<(PeerId, SwitchReason)> {
    let switch = |effect| match effect {
        Effect::Count(Counted::Switched { to, reason, .. }) => Some((to, reason)),
        _ => None,
    };
    fx.drain(..).filter_map(switch).collect()
}

#[test]
fn every_switch_is_told_with_its_reason() {
    let at = |secs| NOW + Duration::from_secs(secs);
    let has = |ahead| Offer { ahead: vec![ahead], ..Offer::of_root(1, 9) };
    let mut fx = Vec::new();
    let mut relay = Relay::new(1, 8);
    relay.share();
    relay.offered(&node("a"), has(4), &mut fx);
    assert_eq!(switches(&mut fx), [(node("a"), SwitchReason::First)]);
    relay.offered(&node("b"), has(5), &mut fx);
    assert_eq!(switches(&mut fx), [], "one that is fed looks for nobody");
    relay.peer_lost(&node("a"), &mut fx);
    assert_eq!(switches(&mut fx), [(node("b"), SwitchReason::Lost)]);
    relay.offered(&node("c"), has(6), &mut fx);
    relay.tick(at(11), None, &mut fx);
    assert_eq!(switches(&mut fx), [], "what c has may be on its way from b");
    relay.tick(at(12), None, &mut fx);
    assert_eq!(switches(&mut fx), [(node("c"), SwitchReason::Idle)]);
    relay.offered(&node("c"), Offer { open: StripeSet::NONE, ..has(6) }, &mut fx);
    assert_eq!(switches(&mut fx), [(node("b"), SwitchReason::Closed)]);
    // The last one goes, and the next comes later.
    relay.peer_lost(&node("b"), &mut fx);
    assert_eq!(switches(&mut fx), []);
    relay.offered(&node("d"), has(4), &mut fx);
    assert_eq!(switches(&mut fx), [(node("d"), SwitchReason::Lost)]);

    let publisher = PeerId::Client("alice".parse().unwrap(), 1);
    let mut base = Relay::new(1, 8);
    base.offered(&publisher, Offer::of_root(9, 36), &mut fx);
    base.offered_back(&node("n"), Offer::of_root(5, 20), &mut fx);
    let first = (publisher.clone(), SwitchReason::First);
    assert_eq!(switches(&mut fx), [first, (node("n"), SwitchReason::GivenBack)]);
    base.tick(at(0), None, &mut fx);
    base.tick(at(limit::GIVE_BACK_PATIENCE.as_secs()), None, &mut fx);
    assert_eq!(switches(&mut fx), [(publisher, SwitchReason::Idle)]);
}

#[test]
fn stripes_that_are_given_and_closed_are_counted_once() {
    let (mut base, mut fx) = (source(2, 2, 4), Vec::new());
    base.spread(&[(node("first"), 0)], &mut fx);
    base.invite(&node("first"), &mut fx);
    let counted = |fx: &mut Vec<Effect>| {
        let count = |effect| match effect {
            Effect::Count(counted) => Some(counted),
            _ => None,
        };
        fx.drain(..).filter_map(count).collect::<Vec<_>>()
    };
    let given = |name, stripe| Counted::Given { peer: node(name), stripe };
    base.wanted(&node("first"), of_all(2, 0, 8), &mut fx);
    base.wanted(&node("first"), of_all(2, 2, 8), &mut fx);
    assert_eq!(counted(&mut fx), [given("first", 0), given("first", 1)]);
    // A second home takes one of the two over.
    base.invite(&node("second"), &mut fx);
    let stripes = vec![crate::wire::message::StripeWant::new(1, 1, 8)];
    let second = Want { stripes, ..of_all(2, 0, 8) };
    base.wanted(&node("second"), second, &mut fx);
    base.tick(NOW + Duration::from_secs(1), None, &mut fx);
    base.tick(NOW + Duration::from_secs(2), None, &mut fx);
    let closed = Counted::Closed { peer: node("first"), stripe: 1 };
    assert_eq!(counted(&mut fx), [given("second", 1), closed]);
}

#[test]
fn a_report_tells_how_much_each_source_brings() {
    let mut relay = Relay::new(1, 8);
    let mut fx = Vec::new();
    let alice = PeerId::Client("alice".parse().unwrap(), 1);
    for ms in (0..10_000).step_by(100) {
        relay.at(Time::from_micros(ms * 1_000));
        relay.fed_by(&PeerId::Base, 1_000, &mut fx);
        if ms < 3_000 {
            relay.fed_by(&node("fast"), 10_000, &mut fx);
        }
        relay.fed_by(&alice, 1_000, &mut fx);
    }
    let flow = |source, bytes, rate_bps| Flow { source, bytes, rate_bps };
    let now = Time::from_micros(9_999_000);
    let [base, fast] = [Source::Base, Source::Node("fast".parse().unwrap())];
    let flows = relay.report(now).flows;
    let rate = flows[0].rate_bps;
    assert!((78_000..=85_000).contains(&rate), "{rate}");
    assert_eq!(flows, [flow(base.clone(), 100_000, rate), flow(fast.clone(), 300_000, 0)]);
    relay.completed(&mut fx);
    assert_eq!(relay.report(now).upstreams, [base, fast]);
    for number in 0..limit::INFLOWS_MAX + 9 {
        relay.fed_by(&node(&format!("n{number}")), 1, &mut fx);
    }
    assert_eq!(relay.inflows.len(), limit::INFLOWS_MAX);
    let report = relay.report(now);
    assert_eq!((report.flows.len(), report.flows[0].bytes), (limit::FLOWS_MAX, 100_000));
    assert_eq!(report.upstreams.len(), limit::UPSTREAMS_MAX);
}

/// What `peer` is sent until there is nothing more.
fn chunks_for(source: &mut Relay, peer: &PeerId) -> Vec<u64> {
    let next = std::iter::from_fn(|| source.next_send(peer));
    let chunk = |next| if let Next::Chunk(chunk) = next { Some(chunk) } else { None };
    next.filter_map(chunk).collect()
}

#[test]
fn what_another_source_was_to_send_and_does_not_comes_after_all() {
    let want = |from, credit, skip| {
        let stripe = crate::wire::message::StripeWant {
            skip,
            ..crate::wire::message::StripeWant::new(0, from, credit)
        };
        Want { stripes: vec![stripe], pages_to: 9, ..Want::default() }
    };
    let all = |range: std::ops::Range<u64>| range.collect::<Vec<_>>();
    let peer = node("n");
    let begin = |first: Want| {
        let (mut source, mut fx) = (source(1, 8, 10), Vec::new());
        source.invite(&peer, &mut fx);
        source.wanted(&peer, first, &mut fx);
        let sent = chunks_for(&mut source, &peer);
        (source, sent)
    };
    // Chunks that are left out, and then are not.
    let (mut source, sent) = begin(want(0, 40, Some((10, 20))));
    assert_eq!(sent, [all(0..10), all(20..40)].concat());
    source.wanted(&peer, want(10, 40, None), &mut Vec::new());
    assert_eq!(chunks_for(&mut source, &peer), all(10..20));
    // Chunks that are said to be there, and then are not.
    let (mut source, sent) = begin(want(0, 10, None));
    assert_eq!(sent, all(0..10));
    source.wanted(&peer, want(20, 40, None), &mut Vec::new());
    assert_eq!(chunks_for(&mut source, &peer), all(20..40));
    source.wanted(&peer, want(12, 40, None), &mut Vec::new());
    assert_eq!(chunks_for(&mut source, &peer), all(12..20));
    // Chunks before the first that was wanted.
    let (mut source, sent) = begin(want(20, 40, None));
    assert_eq!(sent, all(20..40));
    source.wanted(&peer, want(5, 40, None), &mut Vec::new());
    assert_eq!(chunks_for(&mut source, &peer), all(5..20));
}

#[test]
fn a_job_that_begins_late_in_the_life_of_its_process_knows_its_rate_at_once() {
    let late = Time::ZERO + Duration::from_secs(3_600);
    let after = |millis: u64| late + Duration::from_millis(millis);
    let (mut relay, mut fx) = (Relay::new(1, 8), Vec::new());
    relay.at(late);
    relay.offered(&PeerId::Base, Offer::of_root(1, 40), &mut fx);
    next_page(&mut relay, &[10_000; 40], true, &mut fx);
    for tenth in 0..8 {
        relay.hold(after(100 * tenth + 50), tenth, 10_000, &mut fx);
        relay.tick(after(100 * (tenth + 1)), None, &mut fx);
    }
    assert_eq!(relay.feeds[0].brought.bps(), 800_000);
    // A long time without a look is no look.
    relay.tick(after(60_000), None, &mut fx);
    assert_eq!(relay.feeds[0].brought.bps(), 800_000);
}
