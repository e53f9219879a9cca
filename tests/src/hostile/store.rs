//! What a start makes of a job's folder: journal, pages, content.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use shared::job::{JobObject, Keep, Kind, ServerList};
use shared::limit;
use shared::manifest::{Manifest, PageBytes};
use shared::seal::Hash;
use shared::wire::codec;
use shared_io::store::{Layout, Recovered, StoreRoot};
use tempfile::TempDir;

use super::input::Input;
use super::job::{key, public_key};
use super::page::JOB;

/// The chunks of a job in these runs are far fewer than a job may have, so that a run costs
/// little time.
const CHUNKS_MAX: u64 = 4_096;

/// A folder made of parts: records of both logs, whole or broken, and content.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let layout = if input.byte().is_multiple_of(2) { Layout::Spool } else { Layout::Files };
    let mut folder = Folder::new();
    while !input.is_empty() {
        folder.add(&mut input);
    }
    folder.write();
    let first = recover(layout, &folder);
    let Some(first) = first else { return };
    let held: Vec<(u64, u64)> = first.held.runs(0).collect();
    for chunk in held.iter().flat_map(|(first, len)| *first..first + len) {
        assert!(folder.vouched.contains(&chunk), "chunk {chunk} is not in the journal");
        assert!(chunk < first.manifest.chunks(), "no page describes chunk {chunk}");
        let len = first.store.chunk_len(chunk).expect("a page that describes it");
        let bytes = first.store.read_chunk(chunk).expect("bytes that are there");
        assert_eq!(bytes.len(), len as usize);
    }
    let whole = first.manifest.end().is_some() && first.held.len() == first.manifest.chunks();
    assert!(whole || !first.complete, "complete without all chunks");
    assert!(first.pages_durable <= first.manifest.pages());
    let state = (held, first.manifest.pages(), first.manifest.last_hash(), first.complete);
    drop(first);
    // Twice is as once, and what was damaged is out of the way.
    let second = recover(layout, &folder).expect("the same job");
    let held: Vec<(u64, u64)> = second.held.runs(0).collect();
    let again = (held, second.manifest.pages(), second.manifest.last_hash(), second.complete);
    assert_eq!(again, state);
}

fn recover(layout: Layout, folder: &Folder) -> Option<Recovered> {
    let root = StoreRoot::open(folder.root.path(), layout).unwrap();
    let recovered = root.recover(&|job| job.open(&public_key())).unwrap();
    assert!(recovered.jobs.len() <= 1);
    recovered.jobs.into_iter().next()
}

struct Folder {
    root: TempDir,
    have: Vec<u8>,
    pages: Vec<u8>,
    content: Vec<u8>,
    parts: Vec<(u8, Vec<u8>)>,
    files: Vec<(String, Vec<u8>)>,
    manifest: Manifest,
    /// Every chunk that any record of the journal names.
    vouched: BTreeSet<u64>,
}

impl Folder {
    fn new() -> Self {
        let root = scratch();
        let manifest = Manifest::new(JOB, object().chunk_max);
        let (have, pages, content) = (Vec::new(), Vec::new(), Vec::new());
        let (parts, files, vouched) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { root, have, pages, content, parts, files, manifest, vouched }
    }

    fn add(&mut self, input: &mut Input<'_>) {
        match input.byte() % 9 {
            0 => self.add_runs(input),
            1 => self.add_page(input),
            2 => self.content.resize(self.content.len() + usize::from(input.short()), 1),
            3 => {
                let (object, len) = (input.byte() % 8, usize::from(input.short()));
                self.parts.push((object, vec![2; len]));
            }
            4 => {
                let name = String::from_utf8_lossy(input.take(2)).into_owned();
                let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if plain && !name.is_empty() {
                    self.files.push((name, vec![3; usize::from(input.short())]));
                }
            }
            5 => self.have.extend_from_slice(input.part()),
            6 => self.pages.extend_from_slice(input.part()),
            7 => {
                let (log, at, bit) = (input.byte(), usize::from(input.short()), input.byte());
                let log = if log.is_multiple_of(2) { &mut self.have } else { &mut self.pages };
                if let Some(byte) = log.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            _ => {
                let (log, back) = (input.byte(), usize::from(input.short()));
                let log = if log.is_multiple_of(2) { &mut self.have } else { &mut self.pages };
                log.truncate(log.len().saturating_sub(back));
            }
        }
    }

    fn add_runs(&mut self, input: &mut Input<'_>) {
        let mut payload = Vec::new();
        for _ in 0..input.byte() % 8 {
            let (first, len) = (u64::from(input.short()), u64::from(input.byte()));
            // The highest numbers stand for those beyond every job.
            let first =
                if first == u64::from(u16::MAX) { u64::MAX - 1 } else { first % CHUNKS_MAX };
            payload.extend_from_slice(&first.to_le_bytes());
            payload.extend_from_slice(&len.to_le_bytes());
            self.vouched.extend((first..first.saturating_add(len)).take_while(|c| *c < u64::MAX));
        }
        let tag = if input.byte().is_multiple_of(16) { input.byte() } else { 1 };
        put_record(&mut self.have, tag, &payload);
    }

    /// A page whose entries come from the input and which follows the page before it, mostly.
    fn add_page(&mut self, input: &mut Input<'_>) {
        let flags = input.byte();
        let bytes = PageBytes::from_record(Bytes::copy_from_slice(input.part()), false);
        let Ok(Ok(page)) = bytes.map(|bytes| bytes.decode()) else { return };
        let page =
            if flags.is_multiple_of(8) { page } else { self.manifest.next_page(page.entries) };
        let before = self.manifest.clone();
        if self.manifest.accept(&page, &page.draft()).is_err() {
            self.manifest = before;
            // A page that the manifest refuses is never stored; one in sixteen is.
            if flags % 16 != 3 {
                return;
            }
        }
        let (tag, bytes) = match flags & 0x80 {
            0 => (1, page.draft()),
            _ => (2, page.draft().sign(&key())),
        };
        put_record(&mut self.pages, tag, &bytes.to_record());
    }

    fn write(&self) {
        let folder = self.root.path().join(JOB.to_string());
        fs::create_dir_all(folder.join("parts")).unwrap();
        fs::create_dir_all(folder.join("files")).unwrap();
        fs::write(folder.join("job"), codec::encode(&object().sign(&key()))).unwrap();
        fs::write(folder.join("have.log"), &self.have).unwrap();
        fs::write(folder.join("pages.log"), &self.pages).unwrap();
        fs::write(folder.join("content"), &self.content).unwrap();
        for (object, bytes) in &self.parts {
            fs::write(folder.join("parts").join(object.to_string()), bytes).unwrap();
        }
        for (name, bytes) in &self.files {
            fs::write(folder.join("files").join(name), bytes).unwrap();
        }
    }
}

/// As docs/WIRE.md section 9 has it.
fn put_record(log: &mut Vec<u8>, tag: u8, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let Hash(sum) = Hash::of(&[&len[..], &[tag], payload].concat());
    log.extend_from_slice(&len);
    log.push(tag);
    log.extend_from_slice(sum.get(..8).unwrap());
    log.extend_from_slice(payload);
}

fn object() -> JobObject {
    let servers = ServerList::new(Vec::new());
    JobObject {
        id: JOB,
        name: shared::id::Name::new("j").unwrap(),
        tenant: shared::id::Name::new("t").unwrap(),
        kind: Kind::Files,
        size: None,
        created_at_ms: 0,
        deadline_s: None,
        stripes: 1,
        chunk_max: limit::CHUNK_LEN_MAX,
        priority: 5,
        rate_bps: None,
        keep: Keep::Forever,
        page_key: public_key(),
        servers: 0,
        servers_hash: servers.hash(),
    }
}

/// An empty folder, in memory where the system has such a place: a start flushes its file system.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.unwrap()
}
