//! Trees to push, and what a folder holds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What one name stands for.
#[derive(PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    File {
        content: Vec<u8>,
        modified: SystemTime,
        executable: bool,
    },
    /// Anything else: a symlink, a device.
    Other,
}

/// Everything below `dir`, by its name in it.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for child in fs::read_dir(folder).unwrap() {
            let path = child.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(dir).unwrap().to_owned();
            let entry = if meta.is_dir() {
                open.push(path);
                Entry::Directory
            } else if meta.is_file() {
                Entry::File {
                    content: fs::read(&path).unwrap(),
                    modified: meta.modified().unwrap(),
                    executable: meta.permissions().mode() & 0o100 != 0,
                }
            } else {
                Entry::Other
            };
            entries.insert(name, entry);
        }
    }
    entries
}

/// Fails unless `dir` holds exactly `expected`; says what differs.
#[track_caller]
pub(crate) fn assert_holds(dir: &Path, expected: &BTreeMap<PathBuf, Entry>) {
    assert!(!expected.is_empty());
    let found = snapshot(dir);
    let mut wrong = Vec::new();
    for (name, entry) in expected {
        match (entry, found.get(name)) {
            (_, None) => wrong.push(format!("{name:?} is missing")),
            (wanted, Some(entry)) if wanted == entry => {}
            (
                Entry::File { content, modified, executable },
                Some(Entry::File { content: c, modified: m, executable: e }),
            ) => wrong.push(format!(
                "{name:?}: same content: {}, {modified:?} and {m:?}, executable {executable} and {e}",
                content == c
            )),
            (_, Some(_)) => wrong.push(format!("{name:?} is of another kind")),
        }
    }
    let more = found.keys().filter(|name| !expected.contains_key(*name));
    wrong.extend(more.map(|name| format!("{name:?} was never pushed")));
    assert!(wrong.is_empty(), "{dir:?}: {wrong:#?}");
}

/// A file with its folders.
pub(crate) fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Bytes that look random and are the same for one seed.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    let key = *blake3::hash(&seed.to_le_bytes()).as_bytes();
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut content);
    content
}
