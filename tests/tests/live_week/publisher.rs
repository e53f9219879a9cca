//! The publisher: a page for each chunk, and the end of the log cut anew as the product does.

use shared::id::PeerId;
use shared::limit;
use shared::manifest::{Attributes, Entry, ObjectKind, Slice};
use shared::seal::Hash;
use shared::time::Time;

use crate::peer::{Content, Peer};

pub(crate) struct Publisher {
    pub(crate) peer: Peer,
    len: u64,
    /// The long chunks of the tail: where each begins and its length.
    long: Vec<(u64, u32)>,
    pages: u32,
    bytes: u64,
}

impl Publisher {
    pub(crate) fn new(content: &mut Content) -> Self {
        let peer = Peer::new(PeerId::Client("publisher".parse().unwrap(), 1));
        let mut publisher = Self { peer, len: 0, long: Vec::new(), pages: 0, bytes: 0 };
        let attributes = Attributes { kind: ObjectKind::Live, modified: None, executable: false };
        let open = Entry::Open { object: 0, name: "stream".to_owned(), attributes };
        publisher.publish(vec![open], content);
        publisher
    }

    /// Content bytes so far.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn chunk(&mut self, now: Time, len: u32, content: &mut Content) {
        let number = self.peer.relay.chunks();
        self.publish(vec![chunk(self.len, len)], content);
        self.peer.hold(now, number, len, &mut Vec::new());
        self.lengthen(len);
        self.len += u64::from(len);
        self.bytes += u64::from(len);
        self.pages += 1;
        if self.bytes >= limit::RECUT_BYTES || self.pages >= limit::RECUT_PAGES {
            let long = std::mem::take(&mut self.long);
            let chunks = long.into_iter().map(|(from, len)| chunk(from, len));
            let recut = self.peer.manifest.recut_entry();
            self.publish(std::iter::once(recut).chain(chunks).collect(), content);
            (self.pages, self.bytes) = (0, 0);
        }
        self.peer.flush(None);
    }

    pub(crate) fn end(&mut self, content: &mut Content) {
        let (len, digest) = (self.len, Hash::ZERO);
        let close = Entry::Close { object: 0, len, digest };
        self.publish(vec![close, Entry::End { content_len: len, digest }], content);
        self.peer.flush(None);
    }

    fn lengthen(&mut self, len: u32) {
        match self.long.last_mut() {
            Some((_, sum)) if *sum + len <= limit::CHUNK_LEN_MAX => *sum += len,
            _ => self.long.push((self.len, len)),
        }
    }

    fn publish(&mut self, entries: Vec<Entry>, content: &mut Content) {
        let page = self.peer.manifest.next_page(entries);
        let bytes = page.draft();
        self.peer.page(&page, &bytes, &mut Vec::new());
        content.add(page, bytes);
    }
}

fn chunk(offset: u64, len: u32) -> Entry {
    let slices = vec![Slice { object: 0, offset, len }];
    Entry::Chunk { len, hash: Hash::ZERO, slices }
}
