//! Job objects and server lists.

use ring::signature::{Ed25519KeyPair, KeyPair};
use shared::job::{JobObject, ServerList, SignedJob};
use shared::limit;
use shared::seal::{self, PublicKey, Purpose};
use shared::wire::codec;

use super::memory;

/// Room for one list is set aside, at most 1 MiB, before its elements are read.
const MEMORY_MAX: usize = 1024 * 1024 + 64 * 1024;

/// The base's key of all targets.
pub(super) fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[0x42; 32]).unwrap()
}

pub(super) fn public_key() -> PublicKey {
    key().public_key().as_ref().try_into().unwrap()
}

/// The first byte chooses: a signed job as it is, the body of one that is signed here, or a
/// server list.
pub(super) fn run(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind % 3 {
        0 => signed(bytes),
        1 => body(bytes),
        _ => server_list(bytes),
    }
}

fn signed(bytes: &[u8]) {
    let (read, peak) = memory::peak_of(|| codec::decode::<SignedJob, { 4_096 + 128 }>(bytes));
    assert!(peak <= MEMORY_MAX, "{peak} bytes");
    let Ok(job) = read else { return };
    let again = codec::encode(&job);
    assert_eq!(codec::decode::<SignedJob, { 4_096 + 128 }>(&again).as_ref(), Ok(&job));
    if let Ok(object) = job.open(&public_key()) {
        check(&object);
    }
}

fn body(bytes: &[u8]) {
    let signature = seal::sign(&key(), Purpose::Job, bytes);
    let wire = codec::encode(&(bytes.to_vec(), signature));
    let Ok(job) = codec::decode::<SignedJob, { 1 << 20 }>(&wire) else {
        panic!("a body and its signature are a signed job");
    };
    let (opened, peak) = memory::peak_of(|| job.open(&public_key()));
    assert!(peak <= MEMORY_MAX, "{peak} bytes");
    let Ok(object) = opened else { return };
    assert!(bytes.len() <= limit::JOB_OBJECT_LEN_MAX);
    check(&object);
    let wrong = job.open(&[0; 32]);
    assert!(wrong.is_err(), "opened with another key");
}

fn check(object: &JobObject) {
    assert!((1..=limit::STRIPES_MAX).contains(&object.stripes));
    assert!((1..=limit::CHUNK_LEN_MAX).contains(&object.chunk_max));
    assert!(object.priority <= 9);
    assert_eq!(object.sign(&key()).open(&public_key()).as_ref(), Ok(object));
}

fn server_list(bytes: &[u8]) {
    let Ok(list) = codec::decode::<ServerList, { 1 << 20 }>(bytes) else { return };
    assert!(list.names().len() <= limit::SERVERS_MAX);
    assert!(list.names().is_sorted_by(|a, b| a < b), "names in order, none twice");
    assert_eq!(ServerList::new(list.names().to_vec()).hash(), list.hash());
}
