//! Cutting one live object as it is written. Pure: who drives it decides when a chunk is cut.

use std::collections::VecDeque;

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use shared::id::JobId;
use shared::limit;
use shared::manifest::{
    Attributes, Entry, Manifest, ObjectKind, ObjectNameError, Page, Slice, check_object_name,
};
use shared::seal::Hash;

use super::{CutError, CutPage};

/// The only object of a live push has the first number.
const OBJECT: u32 = 0;

/// Cuts a live object into chunks, each with a page of its own so that it can go at once.
#[derive(Debug, Clone)]
pub struct LiveCutter {
    name: String,
    manifest: Manifest,
    /// Bytes with which a chunk is full.
    cut_at: usize,
    buffer: BytesMut,
    /// Bytes that were cut.
    len: u64,
    hasher: Hasher,
    sync: bool,
    /// What was cut since the last page that cut anew, cut anew.
    long: LongDraft,
    /// The newest sync points.
    syncs: VecDeque<u64>,
}

/// The end of the log as long chunks: chunks one behind the other, as many as fit.
#[derive(Debug, Clone)]
struct LongDraft {
    len_max: u64,
    done: Vec<Entry>,
    len: u64,
    offset: u64,
    hasher: Hasher,
    pages: u32,
    content: u64,
}

impl LongDraft {
    fn new(len_max: u32) -> Self {
        let len_max = u64::from(len_max);
        let (done, hasher) = (Vec::new(), Hasher::new());
        Self { len_max, done, len: 0, offset: 0, hasher, pages: 0, content: 0 }
    }

    /// A chunk was cut, which goes on at `offset` of the object.
    fn add(&mut self, offset: u64, bytes: &[u8]) {
        let len = bytes.len() as u64;
        if self.len + len > self.len_max {
            self.close();
        }
        if self.len == 0 {
            self.offset = offset;
        }
        self.hasher.update(bytes);
        self.len += len;
        self.content += len;
    }

    fn close(&mut self) {
        if self.len > 0 {
            let hash = Hash(*self.hasher.finalize().as_bytes());
            let len = u32::try_from(self.len).unwrap_or(u32::MAX);
            let slices = vec![Slice { object: OBJECT, offset: self.offset, len }];
            self.done.push(Entry::Chunk { len, hash, slices });
            self.hasher.reset();
            self.len = 0;
        }
    }

    /// All of it; the draft begins anew.
    fn take(&mut self) -> Vec<Entry> {
        self.close();
        (self.pages, self.content) = (0, 0);
        std::mem::take(&mut self.done)
    }
}

impl LiveCutter {
    /// Cuts the object `name` for `job`, whose chunks have at most `chunk_max` bytes.
    ///
    /// # Errors
    /// [`ObjectNameError`] if an object may not have that name.
    pub fn new(job: JobId, chunk_max: u32, name: &str) -> Result<Self, ObjectNameError> {
        check_object_name(name)?;
        let cut_at = chunk_max.clamp(1, limit::LIVE_CHUNK_LEN_MAX);
        Ok(Self {
            name: name.to_owned(),
            manifest: Manifest::new(job, chunk_max),
            cut_at: usize::try_from(cut_at).unwrap_or(usize::MAX),
            buffer: BytesMut::new(),
            len: 0,
            hasher: Hasher::new(),
            sync: false,
            long: LongDraft::new(chunk_max),
            syncs: VecDeque::new(),
        })
    }

    /// Takes as much of `bytes` as the chunk has room for, and says how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.cut_at.saturating_sub(self.buffer.len()));
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        taken
    }

    /// Whether the chunk takes no more: it is to be cut now.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= self.cut_at
    }

    /// Whether something waits to be cut.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len + self.buffer.len() as u64
    }

    /// Says that a reader may start behind what was written so far; cut then. It is no news
    /// where it was said before.
    pub fn mark_sync(&mut self) {
        self.sync = self.syncs.back() != Some(&self.len());
    }

    /// Whether there is anything to be cut: bytes or a mark.
    pub fn has_news(&self) -> bool {
        self.sync || !self.buffer.is_empty()
    }

    /// Cuts what was written: a page, with a chunk if there is anything in it. The first page
    /// opens the object.
    ///
    /// # Errors
    /// [`CutError::Manifest`] if the object exceeds what a job may have.
    pub fn cut(&mut self) -> Result<CutPage, CutError> {
        let (entries, chunks) = self.entries();
        self.page(entries, chunks)
    }

    /// Cuts the rest and ends the object and the job.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub fn finish(&mut self) -> Result<CutPage, CutError> {
        let (mut entries, chunks) = self.entries();
        let digest = Hash(*self.hasher.finalize().as_bytes());
        entries.push(Entry::Close { object: OBJECT, len: self.len, digest });
        entries.push(Entry::End { content_len: self.len, digest });
        self.page(entries, chunks)
    }

    /// Whether so much was cut in short chunks that their index is to be made short again. If so
    /// gives the first chunk that need not be durable at the base for [`Self::cut_anew`]: what
    /// was cut anew the last time has to be.
    pub fn may_cut_anew(&self) -> Option<u64> {
        let due = self.long.content >= limit::RECUT_BYTES || self.long.pages >= limit::RECUT_PAGES;
        let (_, chunk) = self.manifest.tail();
        due.then_some(chunk)
    }

    /// A page that describes what was cut since the last such page in long chunks.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub fn cut_anew(&mut self) -> Result<CutPage, CutError> {
        let mut entries = vec![self.manifest.recut_entry()];
        entries.append(&mut self.long.take());
        let syncs = self.syncs.iter().map(|offset| Entry::Sync { object: OBJECT, offset: *offset });
        entries.extend(syncs);
        let page = self.page(entries, Vec::new())?;
        self.long.pages = 0;
        Ok(page)
    }

    /// Takes up `page`, which was cut before, with the payload of its chunks: none if it cuts
    /// anew what was taken up already.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub fn take_up(&mut self, page: Page, chunks: Vec<Bytes>) -> Result<CutPage, CutError> {
        let is_recut = page.recut().is_some();
        for entry in &page.entries {
            if let Entry::Sync { offset, .. } = entry {
                self.remember_sync(*offset);
            }
        }
        for payload in &chunks {
            self.hasher.update(payload);
            if !is_recut {
                self.long.add(self.len, payload);
            }
            self.len += payload.len() as u64;
        }
        if is_recut {
            self.long.take();
        }
        let cut = self.accept(page, chunks)?;
        if is_recut {
            self.long.pages = 0;
        }
        Ok(cut)
    }

    /// Whether the object was opened.
    pub const fn has_begun(&self) -> bool {
        self.manifest.objects() > 0
    }

    /// Whether the object and the job have ended.
    pub const fn has_ended(&self) -> bool {
        self.manifest.end().is_some()
    }

    /// Bytes of the object that were cut.
    pub const fn cut_len(&self) -> u64 {
        self.len
    }

    fn remember_sync(&mut self, offset: u64) {
        if self.syncs.back().is_some_and(|last| *last >= offset) {
            return;
        }
        if self.syncs.len() >= limit::RECUT_SYNCS {
            self.syncs.pop_front();
        }
        self.syncs.push_back(offset);
    }

    fn entries(&mut self) -> (Vec<Entry>, Vec<Bytes>) {
        let mut entries = Vec::new();
        let mut chunks = Vec::new();
        if self.manifest.objects() == 0 {
            let attributes =
                Attributes { kind: ObjectKind::Live, modified: None, executable: false };
            entries.push(Entry::Open { object: OBJECT, name: self.name.clone(), attributes });
        }
        if !self.buffer.is_empty() {
            let bytes = self.buffer.split().freeze();
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let slice = Slice { object: OBJECT, offset: self.len, len };
            self.hasher.update(&bytes);
            entries.push(Entry::Chunk { len, hash: Hash::of(&bytes), slices: vec![slice] });
            self.long.add(self.len, &bytes);
            self.len += u64::from(len);
            chunks.push(bytes);
        }
        if std::mem::take(&mut self.sync) {
            self.remember_sync(self.len);
            entries.push(Entry::Sync { object: OBJECT, offset: self.len });
        }
        (entries, chunks)
    }

    fn page(&mut self, entries: Vec<Entry>, chunks: Vec<Bytes>) -> Result<CutPage, CutError> {
        self.accept(self.manifest.next_page(entries), chunks)
    }

    fn accept(&mut self, page_decoded: Page, chunks: Vec<Bytes>) -> Result<CutPage, CutError> {
        let page = page_decoded.draft();
        let summary = self.manifest.accept(&page_decoded, &page)?;
        self.long.pages += 1;
        Ok(CutPage { page, page_decoded, summary, chunks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_cut_once_and_in_order() {
        let mut cutter = LiveCutter::new(JobId([1; 16]), 10, "stream").unwrap();
        let opened = cutter.cut().unwrap();
        assert!(matches!(opened.page_decoded.entries[..], [Entry::Open { .. }]));
        let text = b"what is written is cut once and in order";
        let (mut rest, mut cut) = (&text[..], Vec::new());
        while !rest.is_empty() {
            rest = &rest[cutter.write(rest)..];
            if cutter.is_full() {
                cut.extend(cutter.cut().unwrap().chunks);
            }
        }
        cutter.mark_sync();
        let synced = cutter.cut().unwrap();
        assert_eq!(
            synced.page_decoded.entries.last(),
            Some(&Entry::Sync { object: 0, offset: text.len() as u64 })
        );
        cutter.mark_sync();
        assert!(!cutter.has_news(), "it is marked already");
        cutter.write(b"!");
        let last = cutter.finish().unwrap();
        cut.extend(last.chunks);
        let whole = [&text[..], b"!"].concat();
        assert_eq!(cut.concat(), whole);
        let digest = Hash::of(&whole);
        let end = Entry::End { content_len: whole.len() as u64, digest };
        assert_eq!(last.page_decoded.entries.last(), Some(&end));
        assert!(cut.iter().all(|chunk| chunk.len() <= 10));
    }

    #[test]
    fn an_object_without_bytes_can_end() {
        let mut cutter = LiveCutter::new(JobId([1; 16]), 10, "stream").unwrap();
        let only = cutter.finish().unwrap();
        assert!(only.chunks.is_empty());
        assert_eq!(only.page_decoded.entries.len(), 3);
        assert!(LiveCutter::new(JobId([1; 16]), 10, "../stream").is_err());
    }
}
