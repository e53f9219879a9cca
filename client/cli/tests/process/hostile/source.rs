//! Sources: names and kinds of files that are not pushed, and files that change meanwhile.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;

use rustix::fs::{CWD, Mode};

use super::super::fields::{list, text};
use super::super::fleet::{Fleet, Ran};
use super::command::copy;
use super::table::CASES;
use super::{Ends, Verdicts, What};

/// Somebody who is not root, for whom files can be unreadable.
const NOBODY: u32 = 65_534;

#[tokio::test]
async fn sources_are_refused() {
    let fleet = Fleet::start(1).await;
    let root = rustix::process::geteuid().is_root();
    let mut verdicts = Verdicts::default();
    fs::set_permissions(fleet.path(""), Permissions::from_mode(0o755)).unwrap();
    let identity = fleet.path("nobody");
    copy(&fleet.identity("alice"), &identity);
    for case in CASES {
        let What::Source(make) = &case.what else { continue };
        let folder = fleet.path("source");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("good"), b"x").unwrap();
        let paths = make(&folder);
        if root {
            own(&identity);
            own(&folder);
        }
        let mut command = fleet.command("../nobody", &[OsStr::new("push"), OsStr::new("good")]);
        command.args(paths).current_dir(&folder);
        if root {
            command.as_std_mut().uid(NOBODY).gid(NOBODY);
        }
        let ran = Ran::of(command).await;
        let ends = match (ran.code, ran.out.as_str()) {
            (Some(code), "") => Ok(Ends::Exit(code)),
            other => Err(format!("{other:?}")),
        };
        // What a name holds is not done to the terminal.
        let ends = if ran.err.contains('\u{1b}') { Err("an escape".to_owned()) } else { ends };
        verdicts.judge(case, ends, &ran.err);
        open_up(&folder);
        fs::remove_dir_all(&folder).unwrap();
    }
    verdicts.end();
    let jobs = fleet.run_as("op", &["job", "ls", "--json"]).await.json();
    assert!(list(&jobs, "jobs").is_empty(), "{jobs}");
    assert_eq!(fs::read_dir(fleet.data("n1").join("jobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn sources_that_change_fail_the_job() {
    let fleet = Fleet::start(1).await;
    let mut verdicts = Verdicts::default();
    for case in CASES {
        let What::Changing(change) = &case.what else { continue };
        let path = fleet.path("changing");
        // Far more than a push reads ahead; a hole, so that the disk has nothing to do.
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        let mut push = fleet.push("alice", &[path.to_str().unwrap(), "--rate", "10Mbit"]);
        push.event(|event| event["event"] == "progress" && event["bytes"].as_u64() > Some(0)).await;
        change(&path);
        let (code, closed, err) = push.finish().await;
        let state = text(&closed, "state");
        let named = text(&closed, "reason").contains("changing") && state == "failed";
        let ends = code.filter(|_| named).map(Ends::Exit).ok_or_else(|| closed.to_string());
        verdicts.judge(case, ends, &err);
    }
    verdicts.end();
}

fn own(path: &Path) {
    // What lies too deep for a path stays root's, and readable.
    drop(std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)));
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path());
        }
    }
}

/// So that an unreadable folder can be removed.
fn open_up(path: &Path) {
    if path.is_symlink() || !path.is_dir() {
        return;
    }
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(path).unwrap() {
        open_up(&entry.unwrap().path());
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn named(folder: &Path, name: &[u8]) -> Vec<OsString> {
    fs::create_dir(folder.join("d")).unwrap();
    fs::write(folder.join("d").join(OsStr::from_bytes(name)), b"x").unwrap();
    words(&["d"])
}

pub(super) fn absent(_: &Path) -> Vec<OsString> {
    words(&["absent"])
}

pub(super) fn empty_path(_: &Path) -> Vec<OsString> {
    words(&[""])
}

pub(super) fn under_a_file(_: &Path) -> Vec<OsString> {
    words(&["good/x"])
}

pub(super) fn file_with_slash(_: &Path) -> Vec<OsString> {
    words(&["good/"])
}

pub(super) fn parent(_: &Path) -> Vec<OsString> {
    words(&["../source/.."])
}

pub(super) fn link(folder: &Path) -> Vec<OsString> {
    symlink("good", folder.join("lnk")).unwrap();
    words(&["lnk"])
}

pub(super) fn link_to_directory(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("real")).unwrap();
    symlink("real", folder.join("lnk")).unwrap();
    words(&["lnk"])
}

pub(super) fn link_inside(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("d")).unwrap();
    symlink("../good", folder.join("d/lnk")).unwrap();
    words(&["d"])
}

pub(super) fn dangling(folder: &Path) -> Vec<OsString> {
    symlink("nowhere", folder.join("lnk")).unwrap();
    words(&["lnk"])
}

pub(super) fn looping(folder: &Path) -> Vec<OsString> {
    symlink("lnk", folder.join("lnk")).unwrap();
    words(&["lnk"])
}

pub(super) fn loop_inside(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("d")).unwrap();
    symlink("..", folder.join("d/up")).unwrap();
    words(&["d"])
}

pub(super) fn absolute_link(folder: &Path) -> Vec<OsString> {
    symlink("/etc/passwd", folder.join("lnk")).unwrap();
    words(&["lnk"])
}

pub(super) fn fifo(folder: &Path) -> Vec<OsString> {
    rustix::fs::mkfifoat(CWD, folder.join("pipe"), Mode::RUSR).unwrap();
    words(&["pipe"])
}

pub(super) fn fifo_inside(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("d")).unwrap();
    rustix::fs::mkfifoat(CWD, folder.join("d/pipe"), Mode::RUSR).unwrap();
    words(&["d"])
}

pub(super) fn socket(folder: &Path) -> Vec<OsString> {
    drop(UnixListener::bind(folder.join("sock")).unwrap());
    words(&["sock"])
}

pub(super) fn device(_: &Path) -> Vec<OsString> {
    words(&["/dev/null"])
}

pub(super) fn terminal(_: &Path) -> Vec<OsString> {
    words(&["/dev/zero"])
}

pub(super) fn not_utf8(folder: &Path) -> Vec<OsString> {
    named(folder, b"by\xffte")
}

pub(super) fn surrogate(folder: &Path) -> Vec<OsString> {
    named(folder, b"half\xed\xa0\x80")
}

pub(super) fn overlong(folder: &Path) -> Vec<OsString> {
    named(folder, b"dot\xc0\xae")
}

pub(super) fn newline(folder: &Path) -> Vec<OsString> {
    named(folder, b"li\nne")
}

pub(super) fn escape(folder: &Path) -> Vec<OsString> {
    named(folder, b"\x1b[1m")
}

pub(super) fn delete(folder: &Path) -> Vec<OsString> {
    named(folder, b"de\x7fl")
}

pub(super) fn control_beyond_ascii(folder: &Path) -> Vec<OsString> {
    named(folder, "ne\u{85}l".as_bytes())
}

pub(super) fn tab(folder: &Path) -> Vec<OsString> {
    named(folder, b"ta\tb")
}

pub(super) fn directory_not_utf8(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join(OsStr::from_bytes(b"di\xffr"))).unwrap();
    words(&["."])
}

/// The name alone has 256 bytes; no file system here can hold it.
pub(super) fn component_of_256(_: &Path) -> Vec<OsString> {
    vec![OsString::from("n".repeat(256))]
}

/// 17 folders of 250 bytes, made step by step: too long for a path, and for a name.
pub(super) fn name_of_4097(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("d")).unwrap();
    let open = |at: &rustix::fd::OwnedFd, name: &str| {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        rustix::fs::openat(at, name, flags, Mode::empty()).unwrap()
    };
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mut at = rustix::fs::openat(CWD, folder.join("d"), flags, Mode::empty()).unwrap();
    let name = "n".repeat(250);
    for _ in 0..17 {
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        rustix::fs::mkdirat(&at, CString::new(name.as_str()).unwrap(), mode).unwrap();
        at = open(&at, &name);
    }
    words(&["d"])
}

pub(super) fn case_clash(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("d")).unwrap();
    fs::write(folder.join("d/Name"), b"x").unwrap();
    fs::write(folder.join("d/naMe"), b"x").unwrap();
    words(&["d"])
}

pub(super) fn case_clash_of_directories(folder: &Path) -> Vec<OsString> {
    fs::create_dir_all(folder.join("d/Sub")).unwrap();
    fs::create_dir_all(folder.join("d/sUb")).unwrap();
    words(&["d"])
}

pub(super) fn case_clash_beyond_ascii(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("d")).unwrap();
    fs::write(folder.join("d/\u{c4}rger"), b"x").unwrap();
    fs::write(folder.join("d/\u{e4}rger"), b"x").unwrap();
    words(&["d"])
}

pub(super) fn same_path_twice(_: &Path) -> Vec<OsString> {
    words(&["good"])
}

pub(super) fn two_that_meet(folder: &Path) -> Vec<OsString> {
    for name in ["one", "two"] {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("same"), b"x").unwrap();
    }
    words(&["one/same", "two/same"])
}

pub(super) fn content_that_meets(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("one")).unwrap();
    fs::write(folder.join("one/good"), b"x").unwrap();
    words(&["one/"])
}

pub(super) fn file_and_directory_that_meet(folder: &Path) -> Vec<OsString> {
    fs::create_dir_all(folder.join("one/good/sub")).unwrap();
    words(&["one/"])
}

pub(super) fn unreadable_file(folder: &Path) -> Vec<OsString> {
    fs::write(folder.join("secret"), b"x").unwrap();
    fs::set_permissions(folder.join("secret"), Permissions::from_mode(0o0)).unwrap();
    words(&["secret"])
}

pub(super) fn unreadable_file_inside(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("d")).unwrap();
    fs::write(folder.join("d/secret"), b"x").unwrap();
    fs::set_permissions(folder.join("d/secret"), Permissions::from_mode(0o0)).unwrap();
    words(&["d"])
}

pub(super) fn unreadable_directory(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("shut")).unwrap();
    fs::set_permissions(folder.join("shut"), Permissions::from_mode(0o0)).unwrap();
    words(&["shut"])
}

pub(super) fn directory_not_to_be_entered(folder: &Path) -> Vec<OsString> {
    fs::create_dir(folder.join("shut")).unwrap();
    fs::write(folder.join("shut/x"), b"x").unwrap();
    fs::set_permissions(folder.join("shut"), Permissions::from_mode(0o444)).unwrap();
    words(&["shut"])
}

pub(super) fn grows(path: &Path) {
    fs::File::options().write(true).open(path).unwrap().set_len((1 << 30) + 1).unwrap();
}

pub(super) fn shrinks(path: &Path) {
    fs::File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
}

pub(super) fn is_emptied(path: &Path) {
    fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
}

pub(super) fn is_touched(path: &Path) {
    let later = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
}
