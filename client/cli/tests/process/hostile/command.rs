//! Commands: lines that do not parse, settings that make no sense, identities that may not.

use std::fs;
use std::path::Path;

use tokio::process::Command;

use super::super::fields::list;
use super::super::fleet::{Fleet, Ran, distributary, issue, make_authority};
use super::super::tree::write;
use super::table::CASES;
use super::{Ends, Verdicts, What};

/// What a word in braces stands for.
fn filled(fleet: &Fleet, word: &str) -> String {
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    word.replace("{base}", fleet.base())
        .replace("{http}", &fleet.http("b"))
        .replace("{id}", &path(fleet.path("identity")))
        .replace("{data}", &path(fleet.path("data")))
        .replace("{pki}", &path(fleet.path("pki")))
        .replace("{dir}", &path(fleet.path("")))
        .replace("{65}", &"x".repeat(65))
}

/// A fleet in which a job of bob's is open and a folder has what the cases need.
async fn yard() -> Fleet {
    let fleet = Fleet::start(1).await;
    write(&fleet.path("file"), b"x");
    fs::create_dir(fleet.path("folder")).unwrap();
    fs::write(fleet.path("long.toml"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
    make_authority(&fleet.path("other-pki")).await;
    issue(&fleet.path("other-pki"), "client", "alice", &[], &fleet.identity("foreign")).await;
    issue(&fleet.path("other-pki"), "node", "n1", &[], &fleet.identity("foreign-node")).await;
    issue(&fleet.path("other-pki"), "base", "b", &[], &fleet.identity("foreign-base")).await;
    fleet
}

#[tokio::test]
async fn commands_are_refused() {
    let fleet = yard().await;
    let _open = super::peer::open_job(&fleet).await;
    let mut verdicts = Verdicts::default();
    for case in CASES {
        let command = match &case.what {
            What::Line(variables, words) => {
                let mut command = distributary();
                command.envs(variables.iter().copied());
                command.args(words.iter().map(|word| filled(&fleet, word)));
                command
            }
            What::Push(words) => {
                let mut command = fleet.command("alice", &["push", "file"]);
                command.args(words.iter().map(|word| filled(&fleet, word)));
                command
            }
            What::Config(text) => {
                fs::write(fleet.path("c.toml"), text).unwrap();
                fleet.command("alice", &["push", "file", "--config", "c.toml"])
            }
            _ => continue,
        };
        judge(&fleet, &mut verdicts, case, command).await;
    }
    verdicts.end();
    let jobs = fleet.run_as("op", &["job", "ls", "--json"]).await.json();
    assert_eq!(list(&jobs, "jobs").len(), 1, "bob's alone: {jobs}");
}

#[tokio::test]
async fn identities_are_refused() {
    let fleet = yard().await;
    let mut verdicts = Verdicts::default();
    for case in CASES {
        let What::Identity(spoil) = &case.what else { continue };
        let identity = fleet.identity("spoilt");
        if identity.exists() {
            fs::remove_dir_all(&identity).unwrap();
        }
        copy(&fleet.identity("alice"), &identity);
        spoil(&identity, &fleet.path(""));
        let command = fleet.command("spoilt", &["push", "file"]);
        judge(&fleet, &mut verdicts, case, command).await;
    }
    verdicts.end();
    let jobs = fleet.run_as("op", &["job", "ls", "--json"]).await.json();
    assert!(list(&jobs, "jobs").is_empty(), "{jobs}");
    assert_eq!(fs::read_dir(fleet.data("n1").join("jobs")).unwrap().count(), 0);
}

async fn judge(fleet: &Fleet, verdicts: &mut Verdicts, case: &super::Case, mut command: Command) {
    command.current_dir(fleet.path(""));
    let ran = Ran::of(command).await;
    let ends = match (ran.code, ran.out.as_str()) {
        (Some(code), "") => Ok(Ends::Exit(code)),
        other => Err(format!("{other:?}")),
    };
    verdicts.judge(case, ends, &ran.err);
}

/// Copies a folder of files, with their modes.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
