use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

fn tree(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        if file.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
    }
    dir
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.entries().map(|entry| entry.name).collect()
}

fn refused(path: impl AsRef<Path>) -> TreeError {
    plan(&[path], false).unwrap_err()
}

fn with_slash(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}/", path.display()))
}

#[test]
fn files_and_directories_are_named_as_cp_would() {
    let dir = tree(&["x/one", "d/a", "d/a-b", "d/sub/c", "d/empty/", "only/z", "only/y/"]);
    let at = |path: &str| dir.path().join(path);
    let plan = plan(&[at("x/one"), at("d"), with_slash(&at("only"))], false).unwrap();
    let expected = ["d", "d/a", "d/a-b", "d/empty", "d/sub", "d/sub/c", "one", "y", "z"];
    assert_eq!(names(&plan), expected);
    assert_eq!((plan.files(), plan.len()), (5, 9));
    assert_eq!(plan.size(), plan.entries().map(|entry| entry.size).sum::<u64>());
    for entry in plan.entries() {
        let is_dir = entry.attributes.kind == ObjectKind::Directory;
        assert_eq!(fs::metadata(entry.path()).unwrap().is_dir(), is_dir, "{}", entry.name);
    }
    assert_eq!(plan.entry(6).unwrap().path(), at("x/one"));
    assert_eq!(plan.entry(8).unwrap().path(), at("only/z"));
}

#[test]
fn time_and_executable_bit_are_kept() {
    let dir = tree(&["run", "read"]);
    let path = dir.path().join("run");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let plan = plan(&[with_slash(dir.path())], false).unwrap();
    let [read, run] = [plan.entry(0).unwrap(), plan.entry(1).unwrap()];
    assert_eq!(run.attributes.modified, Some((1_000_000_000, 123_456_789)));
    assert_eq!((run.attributes.executable, read.attributes.executable), (true, false));
}

#[test]
fn nothing_is_a_plan_and_so_is_an_empty_directory() {
    let dir = tree(&["e/"]);
    assert!(plan(&[with_slash(&dir.path().join("e"))], false).unwrap().is_empty());
    assert_eq!(names(&plan(&[dir.path().join("e")], false).unwrap()), ["e"]);
}

#[test]
fn links_are_refused_wherever_they_are() {
    let dir = tree(&["d/a", "target/b"]);
    let at = |path: &str| dir.path().join(path);
    symlink(at("target"), at("link")).unwrap();
    symlink("nowhere", at("d/broken")).unwrap();
    for (given, named) in
        [(at("link"), at("link")), (with_slash(&at("link")), at("link")), (at("d"), at("d/broken"))]
    {
        let error = refused(&given);
        assert!(matches!(&error, TreeError::Symlink { path } if *path == named), "{error}");
    }
    // A link on the way to a PATH is not pushed and does no harm.
    assert_eq!(names(&plan(&[at("link/b")], false).unwrap()), ["b"]);
}

#[test]
fn sockets_fifos_and_devices_are_refused() {
    let dir = tree(&["s/", "f/"]);
    let at = |path: &str| dir.path().join(path);
    let _socket = UnixListener::bind(at("s/socket")).unwrap();
    let fifo = at("f/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    for (given, named, kind) in [
        (at("s"), at("s/socket"), "socket"),
        (at("f"), fifo, "FIFO"),
        (PathBuf::from("/dev/null"), PathBuf::from("/dev/null"), "device"),
    ] {
        let error = refused(given);
        let right =
            matches!(&error, TreeError::Special { path, what } if *path == named && *what == kind);
        assert!(right, "{error}");
    }
}

#[test]
fn names_that_no_object_may_have_are_refused() {
    let dir = tree(&["u/", "c/line\nfeed", "del\u{7f}"]);
    let not_utf8 = dir.path().join("u").join(OsStr::from_bytes(b"\xff"));
    fs::write(&not_utf8, "").unwrap();
    assert!(
        matches!(refused(dir.path().join("u")), TreeError::NotUtf8 { path } if path == not_utf8)
    );
    assert!(matches!(refused(&not_utf8), TreeError::NotUtf8 { .. }));
    for (given, named) in [("c", "c/line\nfeed"), ("del\u{7f}", "del\u{7f}")] {
        let error = refused(dir.path().join(given));
        let text = error.to_string();
        assert!(
            matches!(&error, TreeError::Name { path, .. } if *path == dir.path().join(named)),
            "{text}"
        );
        assert!(!text.contains('\n') && !text.contains('\u{7f}'), "{text:?}");
    }
}

#[test]
fn odd_names_that_are_allowed_pass() {
    let odd =
        ["- -", "a b", "back\\slash", "quote'\"", "\u{fc}\u{1f600}", "...", "%2e", "*?", ".hidden"];
    let dir = tree(&odd);
    let plan = plan(&[with_slash(dir.path())], false).unwrap();
    let mut sorted = odd;
    sorted.sort_unstable();
    assert_eq!(names(&plan), sorted);
}

#[test]
fn a_name_over_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Made step by step from inside, because the whole path is longer than the system takes.
    let component = "x".repeat(255);
    let mut at =
        rustix::fs::open(dir.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..17 {
        rustix::fs::mkdirat(&at, component.as_str(), rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(
            &at,
            component.as_str(),
            rustix::fs::OFlags::PATH,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
    }
    let error = refused(with_slash(dir.path()));
    let named = matches!(
        error,
        TreeError::Name { reason: ObjectNameError::TooLong(_), .. } | TreeError::Unreadable { .. }
    );
    assert!(named, "{error}");
}

#[test]
fn paths_that_meet_are_both_named() {
    let dir = tree(&["1/same", "2/same", "3/d/x", "4/d/"]);
    let at = |path: &str| dir.path().join(path);
    let pairs = [
        (at("1/same"), at("2/same"), at("1/same"), at("2/same")),
        (with_slash(&at("1")), at("2/same"), at("1/same"), at("2/same")),
        (at("3/d"), at("4/d"), at("3/d"), at("4/d")),
        (at("1/same"), at("1/same"), at("1/same"), at("1/same")),
    ];
    for (one, two, a, b) in pairs {
        let error = plan(&[one, two], false).unwrap_err();
        let right =
            matches!(&error, TreeError::Meet { first, second, .. } if *first == a && *second == b);
        assert!(right, "{error}");
    }
}

#[test]
fn names_that_differ_only_in_case_need_consent() {
    let dir = tree(&["d/ReadMe", "d/README", "d/other"]);
    let path = dir.path().join("d");
    let error = refused(&path);
    let (a, b) = (path.join("README"), path.join("ReadMe"));
    assert!(
        matches!(&error, TreeError::Case { first, second } if *first == a && *second == b),
        "{error}"
    );
    assert_eq!(plan(&[path], true).unwrap().len(), 4);
}

#[test]
fn what_is_not_there_or_no_directory_is_named() {
    let dir = tree(&["file"]);
    let at = |path: &str| dir.path().join(path);
    for path in [at("none"), at("none/"), at("file/below"), PathBuf::new()] {
        assert!(matches!(refused(&path), TreeError::Missing { path: named } if named == path));
    }
    assert!(matches!(refused(with_slash(&at("file"))), TreeError::NotADirectory { .. }));
    assert!(matches!(refused(at("..")), TreeError::Parent { .. }));
}

#[test]
fn what_may_not_be_read_is_refused_before_anything_is_sent() {
    if rustix::process::geteuid().is_root() {
        // Root may read everything, so there is nothing to refuse.
        return;
    }
    let dir = tree(&["f/secret", "d/closed/"]);
    for (given, named) in [("f", "f/secret"), ("d", "d/closed")] {
        let named = dir.path().join(named);
        fs::set_permissions(&named, Permissions::from_mode(0o000)).unwrap();
        let error = refused(dir.path().join(given));
        assert!(matches!(&error, TreeError::Unreadable { path, .. } if *path == named), "{error}");
        fs::set_permissions(&named, Permissions::from_mode(0o700)).unwrap();
    }
}
