//! A live log that is cut anew again and again: who follows gets each byte once, who comes late
//! gets the long chunks, and nobody keeps an index of what is void.

use crate::id::JobId;
use crate::manifest::{Attributes, Entry, Manifest, ObjectKind, Page, Slice};
use crate::seal::Hash;

use super::*;

const JOB: JobId = JobId([1; 16]);
const LONG: u32 = 30;

/// The publisher's log: its pages, and where the bytes of each chunk are.
pub(super) struct Log {
    manifest: Manifest,
    pub(super) pages: Vec<Page>,
    places: BTreeMap<u64, (u64, u32)>,
    pub(super) len: u64,
    /// Short chunks since the log was cut anew.
    pub(super) tail: Vec<(u64, u32)>,
}

impl Log {
    pub(super) fn new() -> Self {
        let attributes = Attributes { kind: ObjectKind::Live, modified: None, executable: false };
        let mut log = Self {
            manifest: Manifest::new(JOB, LONG),
            pages: Vec::new(),
            places: BTreeMap::new(),
            len: 0,
            tail: Vec::new(),
        };
        log.push(vec![Entry::Open { object: 0, name: "a".to_owned(), attributes }]);
        log
    }

    fn push(&mut self, entries: Vec<Entry>) {
        let page = self.manifest.next_page(entries);
        for (number, len, _, slices) in page.chunks() {
            self.places.insert(number, (slices[0].offset, len));
        }
        self.manifest.accept(&page, &page.draft()).unwrap();
        self.pages.push(page);
    }

    pub(super) fn chunk(&mut self, len: u32) {
        self.chunks(1, len);
    }

    /// A page of `count` chunks.
    pub(super) fn chunks(&mut self, count: usize, len: u32) {
        let entry = |_| {
            let entry = chunk(self.len, len);
            self.tail.push((self.len, len));
            self.len += u64::from(len);
            entry
        };
        let entries = (0..count).map(entry).collect();
        self.push(entries);
    }

    pub(super) fn cut_anew(&mut self) {
        let mut entries = vec![self.manifest.recut_entry()];
        let mut long: Option<(u64, u32)> = None;
        for (offset, len) in std::mem::take(&mut self.tail) {
            long = match long {
                Some((from, sum)) if sum + len <= LONG => Some((from, sum + len)),
                Some((from, sum)) => {
                    entries.push(chunk(from, sum));
                    Some((offset, len))
                }
                None => Some((offset, len)),
            };
        }
        entries.extend(long.map(|(from, sum)| chunk(from, sum)));
        self.push(entries);
    }

    pub(super) fn end(&mut self) {
        let digest = Hash::ZERO;
        let close = Entry::Close { object: 0, len: self.len, digest };
        self.push(vec![close, Entry::End { content_len: self.len, digest }]);
    }
}

fn chunk(offset: u64, len: u32) -> Entry {
    let slices = vec![Slice { object: 0, offset, len }];
    Entry::Chunk { len, hash: Hash::ZERO, slices }
}

/// A peer: what it knows of the log, and the bytes that it has.
pub(super) struct Peer {
    manifest: Manifest,
    pub(super) relay: Relay,
    pub(super) now: Time,
    /// Pages that wait, and whether they come in place of others.
    parked: BTreeMap<u32, (Page, bool)>,
    early: BTreeSet<u64>,
    pub(super) has: BTreeSet<u64>,
    /// The pages that were taken up, in order: what its store has.
    taken: Vec<u32>,
    received: u64,
}

impl Peer {
    pub(super) fn new(stripes: u8, window: u64) -> Self {
        Self {
            manifest: Manifest::new(JOB, LONG),
            relay: Relay::new(stripes, window),
            now: NOW,
            parked: BTreeMap::new(),
            early: BTreeSet::new(),
            has: BTreeSet::new(),
            taken: Vec::new(),
            received: 0,
        }
    }

    /// What a restart finds: the pages that were taken up, and of the chunks that are not void
    /// those that `keeps`.
    pub(super) fn restart(&self, log: &Log, window: u64, mut keeps: impl FnMut() -> bool) -> Self {
        let stripes = u8::try_from(self.relay.stripes).unwrap();
        let mut new = Self { now: self.now, ..Self::new(stripes, window) };
        let mut cuts = Cuts::default();
        for index in &self.taken {
            let page = &log.pages[*index as usize];
            let summary = new.manifest.accept(page, &page.draft()).unwrap();
            let lens: Vec<u32> = page.chunks().map(|(_, len, ..)| len).collect();
            if let Some(recut) = summary.recut {
                let within = (recut.first_page..recut.page).map(|page| &log.pages[page as usize]);
                let short = within.flat_map(|page| page.chunks().map(|(_, len, ..)| len));
                let short: Vec<u32> = short.collect();
                cuts = if summary.skipped {
                    Cuts::default()
                } else {
                    Cuts::new(&recut, &short, &lens)
                };
            }
            if self.relay.has_page(*index) {
                let last = new.manifest.end().is_some();
                new.relay.restore_page((*index, page.first_chunk), &lens, page.recut(), last);
            }
        }
        new.taken.clone_from(&self.taken);
        let mut held = ChunkSet::new();
        for chunk in (0..self.relay.chunks()).filter(|chunk| self.relay.held().contains(*chunk)) {
            if self.relay.is_void(chunk) || (!cuts.has_long(chunk) && keeps()) {
                held.insert(chunk);
            }
        }
        for cut in cuts.iter() {
            if cut.is_in(&held) {
                held.insert(cut.chunk);
            }
        }
        for (chunk, (offset, len)) in &log.places {
            if held.contains(*chunk) && !self.relay.is_void(*chunk) {
                new.has.extend(*offset..*offset + u64::from(*len));
            }
        }
        new.relay.restore(&held, cuts, false);
        new.relay.publish(new.relay.pages(), &mut Vec::new());
        new
    }

    pub(super) fn page(&mut self, page: &Page, in_place: bool, fx: &mut Vec<Effect>) {
        let due = self.manifest.pages();
        if page.index < due {
            return;
        }
        if page.index > due && !(in_place && self.manifest.may_skip_to(page)) {
            let before = self.parked.get(&page.index).is_some_and(|(_, in_place)| *in_place);
            self.parked.insert(page.index, (page.clone(), in_place || before));
            return;
        }
        let summary = self.manifest.accept(page, &page.draft()).unwrap();
        self.taken.push(page.index);
        let lens: Vec<u32> = page.chunks().map(|(_, len, ..)| len).collect();
        self.relay.page(&summary, &lens, self.manifest.end().is_some(), fx);
        self.relay.publish(self.relay.pages(), fx);
        self.parked = self.parked.split_off(&self.manifest.pages());
        let due = self.manifest.pages();
        let mut parked = self.parked.iter();
        let next = parked.find(|(index, (_, in_place))| **index == due || *in_place);
        if let Some(index) = next.map(|(index, _)| *index)
            && let Some((page, in_place)) = self.parked.remove(&index)
        {
            self.page(&page, in_place, fx);
        }
    }

    pub(super) fn chunk(&mut self, log: &Log, chunk: u64, fx: &mut Vec<Effect>) {
        let (offset, len) = log.places[&chunk];
        if chunk >= self.relay.chunks() {
            self.early.insert(chunk);
            return;
        }
        self.received += u64::from(len);
        if self.relay.held().contains(chunk) {
            return;
        }
        assert_eq!(self.relay.chunk_len(chunk), len);
        self.has.extend(offset..offset + u64::from(len));
        self.relay.hold(self.now, chunk, len, fx);
    }

    /// Makes durable what has come.
    pub(super) fn flush(&mut self, log: &Log, fx: &mut Vec<Effect>) {
        let bytes = self.relay.durable_bytes();
        let (held, durable) = (self.relay.held(), self.relay.durable());
        if held.len() > durable.len() {
            let runs: Vec<(u64, u64)> = held.runs(durable.head()).collect();
            self.relay.flushed(&runs, fx);
        }
        assert!(self.relay.durable_bytes() >= bytes, "durable bytes went back");
        assert!(self.relay.durable_bytes() <= log.len);
    }

    pub(super) fn early(&mut self, log: &Log, fx: &mut Vec<Effect>) {
        let known: Vec<u64> = self.early.range(..self.relay.chunks()).copied().collect();
        for chunk in known {
            self.early.remove(&chunk);
            self.chunk(log, chunk, fx);
        }
    }
}

/// A source that has everything, and a receiver; records arrive in any order.
struct Line {
    log: Log,
    source: Peer,
    node: Peer,
    flying: Vec<Next>,
    connected: bool,
    seed: u64,
}

impl Line {
    fn new(stripes: u8, window: u64, seed: u64) -> Self {
        let mut line = Self {
            log: Log::new(),
            source: Peer::new(stripes, window),
            node: Peer::new(stripes, window),
            flying: Vec::new(),
            connected: false,
            seed,
        };
        line.follow(0);
        line
    }

    fn node_id() -> PeerId {
        PeerId::Node("n".parse().unwrap())
    }

    /// The source takes up the pages of the log from `from` on, with their short chunks.
    fn follow(&mut self, from: usize) {
        let mut fx = Vec::new();
        for at in from..self.log.pages.len() {
            let page = self.log.pages[at].clone();
            self.source.page(&page, false, &mut fx);
            if page.recut().is_none() {
                page.chunks().for_each(|(number, ..)| {
                    self.source.chunk(&self.log, number, &mut fx);
                    self.source.flush(&self.log, &mut fx);
                });
            }
        }
    }

    fn publish(&mut self, act: impl FnOnce(&mut Log)) {
        let from = self.log.pages.len();
        act(&mut self.log);
        self.follow(from);
    }

    fn connect(&mut self) {
        self.connected = true;
        let mut fx = Vec::new();
        self.source.relay.invite(&Self::node_id(), &mut fx);
        for effect in fx {
            if let Effect::Offer { offer, .. } = effect {
                let mut fx = Vec::new();
                self.node.relay.offered(&PeerId::Base, offer, &mut fx);
                self.carry(fx);
            }
        }
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.flying.clear();
        self.source.relay.peer_lost(&Self::node_id(), &mut Vec::new());
        self.node.relay.peer_lost(&PeerId::Base, &mut Vec::new());
    }

    fn carry(&mut self, fx: Vec<Effect>) {
        for effect in fx {
            if let Effect::Want { want, .. } = effect {
                self.source.relay.wanted(&Self::node_id(), want, &mut Vec::new());
            }
        }
    }

    /// Sends a few records, and lets a few arrive.
    fn turn(&mut self) -> bool {
        if !self.connected {
            return false;
        }
        for _ in 0..chance(&mut self.seed, 4) {
            let Some(next) = self.source.relay.next_send(&Self::node_id()) else { break };
            if let Next::Page(index) | Next::PageInPlace(index) = next {
                assert!(self.source.relay.has_page(index), "page {index} is void");
            }
            if let Next::Chunk(chunk) = next {
                assert!(!self.source.relay.is_void(chunk), "chunk {chunk} is void");
                assert_ne!(self.node.relay.landing(&PeerId::Base, chunk), Landing::BeyondCredit);
            }
            self.flying.push(next);
        }
        let some = !self.flying.is_empty();
        for _ in 0..chance(&mut self.seed, 4).min(self.flying.len() as u64) {
            let at = chance(&mut self.seed, self.flying.len() as u64) as usize;
            let mut fx = Vec::new();
            let next = self.flying.swap_remove(at);
            match next {
                Next::Page(index) | Next::PageInPlace(index) => {
                    let in_place = matches!(next, Next::PageInPlace(_));
                    self.node.page(&self.log.pages[index as usize], in_place, &mut fx);
                    self.node.early(&self.log, &mut fx);
                }
                Next::Chunk(chunk) => self.node.chunk(&self.log, chunk, &mut fx),
            }
            self.node.flush(&self.log, &mut fx);
            self.carry(fx);
        }
        some
    }

    fn finish(&mut self) {
        self.publish(Log::end);
        let mut idle = 0;
        while !self.node.relay.is_whole() {
            idle = if self.turn() { 0 } else { idle + 1 };
            assert!(idle < 1_000, "stuck at {} of {}", self.node.relay.held().head(), self.log.len);
        }
        assert_eq!(self.node.has.len() as u64, self.log.len, "bytes are missing");
        assert_eq!(self.node.relay.durable_bytes(), self.log.len);
        assert_eq!(self.source.relay.durable_bytes(), self.log.len);
    }
}

#[test]
fn who_follows_gets_each_byte_once_and_keeps_no_index_of_what_is_void() {
    for seed in 0..200 {
        let stripes = [1, 1, 2, 5][seed as usize % 4];
        let mut line = Line::new(stripes, 40, seed);
        line.connect();
        for step in 0..400u32 {
            let len = 1 + chance(&mut line.seed, 9) as u32;
            line.publish(|log| log.chunk(len));
            if step % 50 == 49 {
                line.publish(Log::cut_anew);
            }
            for _ in 0..6 {
                line.turn();
            }
            // Two tails, and a long chunk for every three short ones at least.
            let most = 2 * 52 + step as usize / 10;
            assert!(line.source.relay.spans.len() <= most, "{}", line.source.relay.spans.len());
        }
        line.finish();
        assert_eq!(line.node.received, line.log.len, "seed {seed}: received twice");
    }
}

#[test]
fn who_comes_late_or_was_away_gets_the_long_chunks() {
    for seed in 0..300 {
        let stripes = [1, 2, 5][seed as usize % 3];
        let mut line = Line::new(stripes, 20, seed);
        for step in 0..300u32 {
            let len = 1 + chance(&mut line.seed, 9) as u32;
            line.publish(|log| log.chunk(len));
            if chance(&mut line.seed, 30) == 0 && line.log.tail.len() > 5 {
                line.publish(Log::cut_anew);
            }
            match (line.connected, chance(&mut line.seed, 40)) {
                (true, 0) => line.disconnect(),
                (false, 0) if step > 100 => line.connect(),
                _ => {}
            }
            for _ in 0..chance(&mut line.seed, 5) {
                line.turn();
            }
        }
        if !line.connected {
            line.connect();
        }
        line.finish();
        let index = line.node.relay.spans.len();
        assert!(index <= line.log.pages.len());
    }
}

/// A source whose log was cut anew `turns` times, with ten short chunks each, and a node that has
/// pages and chunks up to the first cut but for some of the chunks.
fn behind(turns: u32) -> Line {
    let mut line = Line::new(1, 4, 1);
    line.connect();
    for _ in 0..5 {
        line.publish(|log| log.chunk(5));
    }
    while line.node.relay.pages() < 4 {
        line.turn();
    }
    line.disconnect();
    for _ in 0..turns {
        for _ in 0..10 {
            line.publish(|log| log.chunk(5));
        }
        line.publish(Log::cut_anew);
    }
    line
}

#[test]
fn pages_that_tell_of_void_chunks_end_with_the_one_that_does() {
    let mut line = behind(30);
    line.connect();
    let mut sent = Vec::new();
    while let Some(next) = line.source.relay.next_send(&Line::node_id()) {
        sent.push(next);
    }
    let pages = sent.iter().filter(|next| !matches!(next, Next::Chunk(_))).count();
    assert!(matches!(sent[0], Next::PageInPlace(_)), "{sent:?}");
    assert!(pages <= 2, "{pages} pages without credit: {sent:?}");
}

#[test]
fn who_has_all_pages_before_a_cut_learns_of_void_chunks_from_the_next_one() {
    // The node has every page up to the first cut, which comes as the next page for it.
    let mut line = Line::new(1, 40, 1);
    line.connect();
    for _ in 0..10 {
        line.publish(|log| log.chunk(5));
    }
    while line.node.relay.pages() < line.source.relay.pages() {
        let Some(next) = line.source.relay.next_send(&Line::node_id()) else { break };
        if let Next::Page(index) = next {
            line.node.page(&line.log.pages[index as usize], false, &mut Vec::new());
        }
    }
    line.disconnect();
    for _ in 0..5 {
        line.publish(Log::cut_anew);
        for _ in 0..10 {
            line.publish(|log| log.chunk(5));
        }
    }
    line.connect();
    line.finish();
}

#[test]
fn of_long_chunks_fewer_are_on_their_way() {
    let mut relay = Relay::new(1, 0);
    relay.set_window(8, 10);
    let mut fx = Vec::new();
    let credit = |fx: &[Effect]| {
        fx.iter().rev().find_map(|effect| match effect {
            Effect::Want { want, .. } => Some(want.stripes[0].credit),
            _ => None,
        })
    };
    relay.offered(&PeerId::Base, Offer::of_root(1, 9), &mut fx);
    assert_eq!(credit(&fx), Some(8), "nothing is known of them");
    relay.page(&PageSummary::plain(0, 0), &[10, 40, 40, 40], false, &mut fx);
    relay.hold(NOW, 0, 10, &mut fx);
    assert_eq!(relay.window_at(1), 2);
    assert_eq!(relay.window_at(9), 8);
}

#[test]
fn who_subscribes_when_chunks_are_void_gets_the_long_ones_though_it_was_known_before() {
    let mut line = Line::new(1, 64, 1);
    let (late, mut fx) = (PeerId::Node("late".parse().unwrap()), Vec::new());
    line.source.relay.wanted(&late, Want::default(), &mut fx);
    for _ in 0..2 {
        for _ in 0..6 {
            line.publish(|log| log.chunk(5));
        }
        line.publish(Log::cut_anew);
    }
    let stripes = vec![crate::wire::message::StripeWant::new(0, 0, 64)];
    let want = Want { stripes, pages_to: limit::PAGES_AHEAD, ..Want::default() };
    let relay = &mut line.source.relay;
    relay.wanted(&late, want, &mut fx);
    let sent: Vec<Next> = std::iter::from_fn(|| relay.next_send(&late)).collect();
    let bytes: u64 = sent
        .iter()
        .map(|next| match next {
            Next::Chunk(chunk) => u64::from(relay.chunk_len(*chunk)),
            Next::Page(_) | Next::PageInPlace(_) => 0,
        })
        .sum();
    assert_eq!(bytes, line.log.len, "{sent:?}");
}

/// What is sent to a receiver that says `want`.
fn sent_to(line: &mut Line, peer: &PeerId, want: Want) -> Vec<Next> {
    line.source.relay.wanted(peer, want, &mut Vec::new());
    std::iter::from_fn(|| line.source.relay.next_send(peer)).collect()
}

fn wants(pages: u32, from: u64) -> Want {
    let stripes = vec![crate::wire::message::StripeWant::new(0, from, 64)];
    Want { pages, stripes, pages_to: limit::PAGES_AHEAD, ..Want::default() }
}

#[test]
fn who_has_no_use_for_short_chunks_gets_the_long_ones_once_while_both_can_be_had() {
    let (mut line, late) = (Line::new(1, 64, 1), PeerId::Node("late".parse().unwrap()));
    line.publish(|log| log.chunks(12, 5));
    line.publish(Log::cut_anew);
    // It took the third page in place of the second.
    let long = [Next::Chunk(12), Next::Chunk(13)];
    assert_eq!(sent_to(&mut line, &late, wants(3, 12)), long);
    line.publish(|log| log.chunks(6, 5));
    line.publish(Log::cut_anew);
    let sent = sent_to(&mut line, &late, wants(3, 13));
    assert!(sent.contains(&Next::Chunk(14)), "{sent:?}");
    assert!(long.iter().all(|long| !sent.contains(long)), "{sent:?}");
}

#[test]
fn who_lacks_a_long_chunk_whose_bytes_it_was_sent_lacks_those_behind_it_too() {
    let (mut line, late) = (Line::new(1, 64, 1), PeerId::Node("late".parse().unwrap()));
    line.publish(|log| log.chunks(12, 5));
    line.publish(Log::cut_anew);
    sent_to(&mut line, &late, wants(0, 0));
    line.publish(|log| log.chunks(6, 5));
    line.publish(Log::cut_anew);
    // The short chunks were void for it when they came.
    let sent = sent_to(&mut line, &late, wants(3, 12));
    let long: Vec<&Next> =
        sent.iter().filter(|next| matches!(next, Next::Chunk(12 | 13))).collect();
    assert_eq!(long, [&Next::Chunk(12), &Next::Chunk(13)], "{sent:?}");
}
