//! Data folders that were damaged while nobody looked: what is whole is used, what is not is
//! named in the log.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;

use super::super::fleet::{Fleet, distributary, until};
use super::super::tree::{bytes, write};
use super::command::copy;
use super::table::CASES;
use super::{Ends, Verdicts, What};

/// Whose data folder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Base,
    Node,
}

#[tokio::test]
async fn damaged_folders_are_named_and_what_is_whole_is_used() {
    let mut fleet = Fleet::start(1).await;
    write(&fleet.path("source/a"), &bytes(1, 300_000));
    write(&fleet.path("source/b"), &bytes(2, 50_000));
    fleet.pushed(&fleet.path("source")).await;
    assert_eq!(fleet.end("n1", Signal::TERM).await, Some(0));
    let mut verdicts = Verdicts::default();
    for case in cases(Role::Node) {
        let (ends, log) = serve(&fleet, Role::Node, case).await;
        verdicts.judge(case, ends, &log);
    }
    assert_eq!(fleet.end("b", Signal::TERM).await, Some(0));
    for case in cases(Role::Base) {
        let (ends, log) = serve(&fleet, Role::Base, case).await;
        verdicts.judge(case, ends, &log);
    }
    verdicts.end();
}

fn cases(role: Role) -> impl Iterator<Item = &'static super::Case> {
    CASES.iter().filter(move |case| matches!(case.what, What::Folder(of, _) if of == role))
}

/// Starts a role on a damaged copy of its folder; says how that ends, and what it logged.
async fn serve(fleet: &Fleet, role: Role, case: &super::Case) -> (Result<Ends, String>, String) {
    let What::Folder(_, damage) = &case.what else { panic!("{}", case.name) };
    let name = if role == Role::Base { "b" } else { "n1" };
    let (data, log) = (fleet.path("damaged"), fleet.path("damaged.log"));
    if data.is_dir() {
        fs::remove_dir_all(&data).unwrap();
    }
    copy(&fleet.data(name), &data);
    damage(&data);
    let mut command = distributary();
    command.args([if role == Role::Base { "base" } else { "node" }, "--listen", "127.0.0.1:0"]);
    command.args(["--http", "127.0.0.1:0", "--until-stdin-closes"]);
    command.arg("--identity").arg(fleet.identity(name)).arg("--data").arg(&data);
    if role == Role::Node {
        command.args(["--base", fleet.base()]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let pid = child.id().map(u64::from);
    let ends = until(case.name, async || {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.code().map(Ends::Exit).ok_or_else(|| status.to_string()));
        }
        let ready = fs::read_to_string(data.join("ready.json")).ok()?;
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        (ready["pid"].as_u64() == pid).then_some(Ok(Ends::Serves))
    })
    .await;
    drop(child.stdin.take());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), child.wait()).await;
    let ends = if ended.is_ok() { ends } else { Err("it does not end".to_owned()) };
    (ends, fs::read_to_string(log).unwrap())
}

fn job(data: &Path) -> PathBuf {
    let mut jobs = fs::read_dir(data.join("jobs")).unwrap();
    jobs.next().unwrap().unwrap().path()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, to: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(to).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    fs::File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

pub(super) fn page_flipped(data: &Path) {
    flip(&job(data).join("pages.log"), 40);
}

pub(super) fn pages_emptied(data: &Path) {
    cut(&job(data).join("pages.log"), 0);
}

pub(super) fn journal_flipped(data: &Path) {
    let log = job(data).join("have.log");
    // More behind it: a wrong sum at the very end is a torn write, and no damage.
    let record = fs::read(&log).unwrap();
    append(&log, &record);
    flip(&log, 15);
}

pub(super) fn journal_of_noise(data: &Path) {
    fs::write(job(data).join("have.log"), bytes(9, 100_000)).unwrap();
}

pub(super) fn file_gone(data: &Path) {
    fs::remove_file(job(data).join("files/source/a")).unwrap();
}

pub(super) fn file_cut(data: &Path) {
    cut(&job(data).join("files/source/a"), 10);
}

pub(super) fn file_is_a_folder(data: &Path) {
    let path = job(data).join("files/source/a");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
}

pub(super) fn job_file_flipped(data: &Path) {
    flip(&job(data).join("job"), 20);
}

pub(super) fn job_file_cut(data: &Path) {
    cut(&job(data).join("job"), 20);
}

pub(super) fn job_file_long(data: &Path) {
    fs::write(job(data).join("job"), vec![0xfb; 1_000_000]).unwrap();
}

pub(super) fn job_of_another_name(data: &Path) {
    let to = data.join("jobs/0192f0c1-7b4e-7c3a-9f11-2b1d0c3e4f5a");
    fs::rename(job(data), to).unwrap();
}

pub(super) fn stranger_among_jobs(data: &Path) {
    fs::create_dir(data.join("jobs/no-job")).unwrap();
}

pub(super) fn state_flipped(data: &Path) {
    flip(&data.join("node.state"), 3);
}

pub(super) fn state_cut(data: &Path) {
    cut(&data.join("node.state"), 5);
}

pub(super) fn state_emptied(data: &Path) {
    cut(&data.join("node.state"), 0);
}

pub(super) fn jobs_is_a_file(data: &Path) {
    fs::remove_dir_all(data.join("jobs")).unwrap();
    fs::write(data.join("jobs"), b"x").unwrap();
}

pub(super) fn content_cut(data: &Path) {
    cut(&job(data).join("content"), 10);
}

pub(super) fn ledger_of_noise(data: &Path) {
    fs::write(data.join("ledger.sqlite"), bytes(9, 100_000)).unwrap();
}

pub(super) fn ledger_page_broken(data: &Path) {
    let path = data.join("ledger.sqlite");
    let mut ledger = fs::read(&path).unwrap();
    ledger[3 * 4_096..4 * 4_096].fill(0xa5);
    fs::write(path, ledger).unwrap();
}

/// The last place where the job's name stands is in a row, not in an index.
pub(super) fn ledger_row_flipped(data: &Path) {
    let path = data.join("ledger.sqlite");
    let ledger = fs::read(&path).unwrap();
    let id = job(data).file_name().unwrap().to_str().unwrap().replace('-', "");
    let end = &id[20..];
    let name = format!("job-{end}");
    let at = ledger.windows(name.len()).rposition(|window| window == name.as_bytes()).unwrap();
    flip(&path, at);
}

pub(super) fn ledger_is_a_folder(data: &Path) {
    fs::remove_file(data.join("ledger.sqlite")).unwrap();
    fs::create_dir(data.join("ledger.sqlite")).unwrap();
}
