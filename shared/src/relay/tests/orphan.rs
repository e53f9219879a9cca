//! A live stream whose source goes: who is asked, when, and whom the base feeds.

use super::*;

const fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1_000)
}

/// A chunk of a page of its own comes to the base and is published.
fn grow(base: &mut Relay, ms: u64) {
    arrive(base, ms);
    settle(base, ms);
}

/// A chunk of a page of its own comes to the base, which has not stored it.
fn arrive(base: &mut Relay, ms: u64) {
    let (chunk, mut fx) = (base.chunks(), Vec::new());
    base.at(at(ms));
    next_page(base, &[10], false, &mut fx);
    base.hold(at(ms), chunk, 10, &mut fx);
}

/// What has come to the base is durable and published.
fn settle(base: &mut Relay, ms: u64) {
    let mut fx = Vec::new();
    base.at(at(ms));
    let head = base.durable().head();
    base.flushed(&[(head, base.chunks() - head)], &mut fx);
    base.publish(base.pages(), &mut fx);
}

/// A base with a home and children, which have the first `chunks` chunks.
fn base(children: &[&str], chunks: u64) -> Relay {
    let (mut base, mut fx) = (Relay::new(1, 8), Vec::new());
    base.spread(&[(node("home"), 0)], &mut fx);
    (0..chunks).for_each(|chunk| grow(&mut base, 20 * chunk));
    base.invite(&node("home"), &mut fx);
    base.wanted(&node("home"), of_all(1, 0, 8), &mut fx);
    for child in children {
        base.invite(&node(child), &mut fx);
    }
    base
}

fn asks(base: &mut Relay, child: &str, from: u64, ms: u64) -> Vec<PeerId> {
    let mut fx = Vec::new();
    base.at(at(ms));
    base.wanted(&node(child), of_all(1, from, 0), &mut fx);
    opened(fx)
}

/// To whom the stripe has been opened.
fn opened(fx: Vec<Effect>) -> Vec<PeerId> {
    let open = |effect| match effect {
        Effect::Offer { peer, offer } if offer.open.contains(0) => Some(peer),
        _ => None,
    };
    fx.into_iter().filter_map(open).collect()
}

fn looks(base: &mut Relay, ms: u64) -> Vec<PeerId> {
    let mut fx = Vec::new();
    base.tick(at(ms), None, &mut fx);
    opened(fx)
}

#[test]
fn the_base_feeds_one_orphan_at_once_and_tells_the_others_that_there_is_more() {
    let mut base = base(&["a", "b"], 5);
    grow(&mut base, 3_000);
    assert_eq!(asks(&mut base, "a", 5, 3_140), [], "its source may bring it yet");
    assert_eq!(asks(&mut base, "b", 4, 3_150), [], "chunk 4 is old: b comes late");
    assert_eq!(looks(&mut base, 3_150), [node("a")]);
    let (mut fx, who) = (Vec::new(), node("b"));
    base.wanted(&who, of_all(1, 5, 0), &mut fx);
    let told = |effect: &Effect| matches!(effect, Effect::Offer { peer, offer } if *peer == who && offer.head == 6 && !offer.open.contains(0));
    assert!(fx.iter().any(told), "{fx:?}");
    base.wanted(&node("a"), of_all(1, 5, 8), &mut fx);
    assert_eq!(looks(&mut base, 3_900), [], "a has time to pass it on");
    assert_eq!(looks(&mut base, 4_200), [node("b")]);
}

#[test]
fn what_the_base_could_not_send_before_is_not_overdue() {
    let mut base = base(&["a"], 5);
    arrive(&mut base, 3_000);
    assert_eq!(asks(&mut base, "a", 5, 3_140), []);
    assert_eq!(looks(&mut base, 3_590), []);
    settle(&mut base, 3_600);
    assert_eq!(looks(&mut base, 3_700), [], "it has been on its way for a tenth of a second");
    assert_eq!(looks(&mut base, 3_760), [node("a")]);
}

#[test]
fn nobody_is_fed_while_there_is_nothing_new() {
    let mut base = base(&["a", "b"], 5);
    assert_eq!(asks(&mut base, "a", 5, 500), []);
    assert_eq!(asks(&mut base, "b", 5, 500), []);
    assert!((6..600).all(|tenth| looks(&mut base, 100 * tenth).is_empty()));
    grow(&mut base, 60_000);
    assert_eq!(looks(&mut base, 60_100), []);
    // It has come on its usual way.
    base.at(at(60_110));
    for child in ["a", "b"] {
        base.wanted(&node(child), Want::default(), &mut Vec::new());
    }
    assert!((602..700).all(|tenth| looks(&mut base, 100 * tenth).is_empty()));
}

/// Whom a child wants anything of, by what it has told last.
fn wants_of(fx: &[Effect], wants: &mut BTreeMap<PeerId, Want>) -> Vec<PeerId> {
    for effect in fx {
        if let Effect::Want { peer, want } = effect {
            wants.insert(peer.clone(), want.clone());
        }
    }
    let any = wants.iter().filter(|(_, want)| !want.stripes.is_empty());
    any.map(|(peer, _)| peer.clone()).collect()
}

#[test]
fn a_child_asks_the_base_when_its_source_is_silent_and_nodes_when_they_have_had_more_for_long() {
    let (mut child, mut wants, mut fx) = (Relay::new(1, 8), BTreeMap::new(), Vec::new());
    let has = |ahead| Offer { ahead: vec![ahead], ..Offer::of_root(0, 0) };
    let closed = |offer| Offer { open: StripeSet::NONE, ..offer };
    child.share();
    child.offered(&PeerId::Base, closed(Offer::of_root(1, 4)), &mut fx);
    child.offered(&node("home"), has(5), &mut fx);
    for chunk in 0..20 {
        next_page(&mut child, &[10], false, &mut fx);
        child.hold(at(1_000 + 20 * chunk), chunk, 10, &mut fx);
    }
    child.offered(&node("home"), has(20), &mut fx);
    child.offered(&node("b"), closed(has(20)), &mut fx);
    child.tick(at(1_500), None, &mut fx);
    assert_eq!(wants_of(&fx, &mut wants), [node("home")]);
    child.tick(at(1_530), None, &mut fx);
    assert_eq!(wants_of(&fx, &mut wants), [PeerId::Base, node("home")]);
    child.at(at(1_540));
    child.offered(&node("b"), closed(has(21)), &mut fx);
    child.tick(at(1_630), None, &mut fx);
    assert!(!wants_of(&fx, &mut wants).contains(&node("b")), "it may be on its way");
    child.tick(at(1_640), None, &mut fx);
    assert!(wants_of(&fx, &mut wants).contains(&node("b")));
    child.hold(at(1_650), 20, 10, &mut fx);
    child.tick(at(1_660), None, &mut fx);
    assert_eq!(wants_of(&fx, &mut wants), [node("home")]);
}
