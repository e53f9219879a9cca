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
    let wrong = differences(&snapshot(dir), expected);
    assert!(wrong.is_empty(), "{}: {wrong:#?}", dir.display());
}

fn differences(
    found: &BTreeMap<PathBuf, Entry>,
    expected: &BTreeMap<PathBuf, Entry>,
) -> Vec<String> {
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
    wrong
}

#[test]
fn every_difference_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a/file");
    write(&file, b"content");
    let before = snapshot(dir.path());
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(differences(&snapshot(dir.path()), &before), Vec::<String>::new());
    let changes: [(&str, &dyn Fn()); 6] = [
        ("same content: false", &|| fs::write(&file, b"cOntent").unwrap()),
        ("executable false and true", &|| {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("same content: true", &|| {
            let later = modified + std::time::Duration::from_nanos(1);
            fs::File::open(&file).unwrap().set_modified(later).unwrap();
        }),
        ("never pushed", &|| fs::create_dir(dir.path().join("b")).unwrap()),
        ("missing", &|| fs::remove_file(&file).unwrap()),
        ("another kind", &|| {
            fs::remove_dir_all(dir.path().join("a")).unwrap();
            std::os::unix::fs::symlink("b", dir.path().join("a")).unwrap();
        }),
    ];
    for (said, change) in changes {
        change();
        let wrong = differences(&snapshot(dir.path()), &before).concat();
        assert!(wrong.contains(said), "{said} is not in {wrong}");
        // Each change is judged by itself.
        let _ = fs::remove_file(dir.path().join("a"));
        let _ = fs::remove_dir(dir.path().join("b"));
        write(&file, b"content");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::File::open(&file).unwrap().set_modified(modified).unwrap();
    }
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
