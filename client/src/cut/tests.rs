use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use shared::limit;
use shared::seal::Hash;
use tempfile::TempDir;

use super::*;
use crate::tree;

const JOB: JobId = JobId([9; 16]);

#[test]
fn a_large_source_is_not_read_to_its_end_after_a_change() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "large", 8 << 20);
    let mut cutter = Cutter::new(plan(&dir), JOB, 16384, None);
    assert!(cutter.next().unwrap().is_some());
    let file = File::options().write(true).open(dir.path().join("large")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(matches!(cutter.next(), Err(CutError::Changed { .. })));
}

/// What a receiver of the pages has: objects by name, and what the log said of them.
#[derive(Default)]
struct Received {
    objects: BTreeMap<String, (ObjectKind, Vec<u8>)>,
    end: Option<(u64, Hash)>,
    chunks: Vec<u32>,
    pages: usize,
    longest_page: usize,
}

/// Cuts `plan` and puts it together again as a receiver would, checking every hash.
fn cut(plan: &Plan, chunk_max: u32) -> Received {
    let mut cutter = Cutter::new(plan.clone(), JOB, chunk_max, None);
    let mut manifest = Manifest::new(JOB, chunk_max);
    let mut received = Received::default();
    let mut names = Vec::new();
    while let Some(cut) = cutter.next().unwrap() {
        let page = cut.page.decode().unwrap();
        assert_eq!(page, cut.page_decoded);
        manifest.accept(&page, &cut.page).unwrap();
        assert_eq!(page.chunk_count(), cut.chunks.len() as u64);
        let content: usize = cut.chunks.iter().map(Bytes::len).sum();
        assert!(content as u64 <= limit::PAGE_CONTENT_AIM + 2 * u64::from(chunk_max));
        received.pages += 1;
        received.longest_page = received.longest_page.max(cut.page.to_record().len());
        let mut payloads = cut.chunks.iter();
        for entry in &page.entries {
            match entry {
                Entry::Open { name, attributes, .. } => {
                    names.push(name.clone());
                    received.objects.insert(name.clone(), (attributes.kind, Vec::new()));
                }
                Entry::Chunk { len, hash, slices } => {
                    let mut payload = payloads.next().unwrap().clone();
                    assert_eq!((payload.len(), Hash::of(&payload)), (*len as usize, *hash));
                    received.chunks.push(*len);
                    for slice in slices {
                        let object =
                            received.objects.get_mut(&names[slice.object as usize]).unwrap();
                        object.1.extend(payload.split_to(slice.len as usize));
                    }
                }
                Entry::Close { object, len, digest } => {
                    let bytes = &received.objects[&names[*object as usize]].1;
                    assert_eq!((bytes.len() as u64, Hash::of(bytes)), (*len, *digest));
                }
                Entry::End { content_len, digest } => received.end = Some((*content_len, *digest)),
                Entry::Sync { .. } | Entry::Recut { .. } => panic!("files have no sync points"),
            }
        }
    }
    assert!(cutter.next().unwrap().is_none());
    assert_eq!(manifest.end(), received.end);
    received
}

fn write(dir: &Path, name: &str, len: usize) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let seed = u64::from(Hash::of(name.as_bytes()).0[0]);
    let byte = |i: u64| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    fs::write(path, (0..len as u64).map(byte).collect::<Vec<_>>()).unwrap();
}

fn plan(dir: &TempDir) -> Plan {
    tree::plan(&[format!("{}/", dir.path().display())], false).unwrap()
}

/// Content and digest, found without the cutter.
fn expected(dir: &TempDir, plan: &Plan) -> (u64, Hash) {
    let mut files: Vec<&str> = plan.entries().map(|entry| entry.name).collect();
    files.retain(|name| dir.path().join(name).is_file());
    files.sort_unstable();
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let len = files.iter().map(|name| read(name).len() as u64).sum();
    if let [only] = files[..] {
        return (len, Hash::of(&read(only)));
    }
    let mut lines: Vec<String> =
        files.iter().map(|name| format!("{}  {name}\n", Hash::of(&read(name)))).collect();
    lines.sort_unstable();
    (len, Hash::of(lines.concat().as_bytes()))
}

/// Cuts the tree in `dir` and checks that all of it arrives.
fn check(dir: &TempDir, chunk_max: u32) -> Received {
    let plan = plan(dir);
    let received = cut(&plan, chunk_max);
    assert_eq!(received.objects.len(), plan.len());
    for entry in plan.entries() {
        let (kind, bytes) = &received.objects[entry.name];
        assert_eq!(*kind, entry.attributes.kind);
        if *kind == ObjectKind::File {
            assert!(*bytes == fs::read(entry.path()).unwrap(), "{}", entry.name);
        }
    }
    assert_eq!(received.end, Some(expected(dir, &plan)));
    assert!(received.longest_page + shared::seal::SIGNATURE_LEN <= limit::PAGE_LEN_MAX);
    received
}

#[test]
fn lengths_around_the_chunk_come_back_whole() {
    for lens in [
        vec![0],
        vec![1],
        vec![100],
        vec![101],
        vec![300],
        vec![99, 1],
        vec![60, 60, 60],
        vec![30, 250, 30, 0, 100, 100, 5],
        vec![0, 0, 99, 0, 101, 0],
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (i, len) in lens.iter().enumerate() {
            write(dir.path(), &format!("{i}"), *len);
        }
        let received = check(&dir, 100);
        assert!(received.chunks.iter().all(|len| *len <= 100), "{lens:?}");
    }
}

#[test]
fn odd_names_empty_files_and_empty_directories_come_back() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a b", "d/e/\u{fc}\u{1f600}", "d/- -", "d/.hidden", "empty", "d/also empty"] {
        let len = if name.contains("empty") { 0 } else { 1000 };
        write(dir.path(), name, len);
    }
    fs::create_dir_all(dir.path().join("hollow/deep")).unwrap();
    let received = check(&dir, 4096);
    assert_eq!(received.objects["hollow/deep"].0, ObjectKind::Directory);
    assert_eq!(received.chunks, [4000]);
}

#[test]
fn nothing_at_all_is_a_log_that_ends() {
    let dir = tempfile::tempdir().unwrap();
    let received = check(&dir, 16384);
    assert_eq!((received.pages, received.end), (1, Some((0, Hash::of(b"")))));
}

#[test]
fn small_files_share_chunks() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..500 {
        write(dir.path(), &format!("d{}/f{i}", i % 7), 100 + i);
    }
    let received = check(&dir, 16 * 1024);
    let content: u32 = received.chunks.iter().sum();
    // One chunk at the end of each page is cut short.
    let most = (content / (16 * 1024)) as usize + received.pages;
    assert!(received.chunks.len() <= most, "{:?}", received.chunks);
}

#[test]
fn a_large_file_starts_a_chunk_and_fills_pages() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", 10);
    write(dir.path(), "b", 5 << 20);
    write(dir.path(), "c", 20);
    let received = check(&dir, 16 * 1024);
    let full = (5 << 20) / (16 * 1024);
    assert_eq!((received.chunks[0], received.chunks[1], received.chunks[full]), (10, 16384, 16384));
    assert_eq!((received.chunks.last(), received.chunks.len()), (Some(&20), full + 2));
    assert_eq!(received.pages, 7, "five that grow, and two");
}

#[test]
fn pages_and_open_objects_stay_within_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    for i in 0..6000 {
        let len = usize::from(i % 3 == 0);
        write(dir.path(), &format!("{}/{long}{i}", if i < 3000 { "x" } else { "y" }), len);
    }
    let received = check(&dir, 256 * 1024);
    assert!(received.pages > 20, "{}", received.pages);
}

#[test]
fn thousands_of_tiny_files_arrive() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..9000 {
        fs::write(dir.path().join(format!("{i:x}")), "1").unwrap();
    }
    check(&dir, 256 * 1024);
}

fn first_error(plan: Plan, chunk_max: u32, meanwhile: impl FnOnce()) -> CutError {
    let mut cutter = Cutter::new(plan, JOB, chunk_max, None);
    let mut meanwhile = Some(meanwhile);
    loop {
        match cutter.next() {
            Ok(Some(_)) => meanwhile.take().into_iter().for_each(|act| act()),
            Ok(None) => panic!("nothing was noticed"),
            Err(error) => {
                assert!(cutter.next().unwrap().is_none(), "something comes after {error}");
                return error;
            }
        }
    }
}

#[test]
fn a_source_that_changed_after_the_plan_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", 10);
    let path = dir.path().join("b");
    let touch = || {
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    };
    let changes: [(&str, &dyn Fn()); 4] = [
        ("longer", &|| fs::write(&path, "12345678901").unwrap()),
        ("touched", &touch),
        ("a link", &|| {
            fs::remove_file(&path).unwrap();
            symlink("a", &path).unwrap();
        }),
        ("a directory", &|| {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }),
    ];
    for (what, change) in changes {
        write(dir.path(), "b", 10);
        let plan = plan(&dir);
        change();
        let error = first_error(plan, 16384, || ());
        assert!(
            matches!(&error, CutError::Changed { path: named } if *named == path),
            "{what}: {error}"
        );
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
    write(dir.path(), "b", 10);
    let plan = plan(&dir);
    fs::remove_file(&path).unwrap();
    let error = first_error(plan, 16384, || ());
    assert!(matches!(&error, CutError::Vanished { path: named } if *named == path), "{error}");
}

type Change = fn(&File);

#[test]
fn a_source_that_changes_while_it_is_read_is_named() {
    let changes: [(&str, Change); 3] = [
        ("longer", |file| file.set_len(9 << 20).unwrap()),
        ("shorter", |file| file.set_len(3 << 20).unwrap()),
        ("touched", |file| {
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }),
    ];
    for (what, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "large", 8 << 20);
        let path = dir.path().join("large");
        let file = File::options().write(true).open(&path).unwrap();
        let error = first_error(plan(&dir), 16384, || change(&file));
        assert!(
            matches!(&error, CutError::Changed { path: named } if *named == path),
            "{what}: {error}"
        );
    }
}

/// Content of the pages of one file of 8 MiB, in KiB.
fn page_contents(rate_bps: Option<u64>) -> Vec<usize> {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a"), vec![1; 8 << 20]).unwrap();
    let mut cutter = Cutter::new(plan(&dir), JOB, 65_536, rate_bps);
    let mut contents = Vec::new();
    while let Some(cut) = cutter.next().unwrap() {
        contents.push(cut.chunks.iter().map(Bytes::len).sum::<usize>() / 1024);
    }
    contents
}

#[test]
fn the_first_pages_are_short_and_so_are_those_of_a_slow_job() {
    assert_eq!(page_contents(None), [64, 128, 256, 512, 1024, 2048, 2048, 2048, 64]);
    let slow = page_contents(Some(20_000_000));
    assert_eq!(slow[..5], [64, 128, 256, 512, 640]);
    assert!(slow[5..slow.len() - 1].iter().all(|content| *content == 640), "{slow:?}");
    let slowest = page_contents(Some(1));
    assert!(slowest.len() > 128 && slowest[..128].iter().all(|content| *content == 64));
}
