//! What the nodes have after a push.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::fields::{list, node, text};
use super::fleet::Fleet;
use super::tree::{assert_holds, bytes, snapshot, write};

/// Names that shells, file systems and URLs stumble over.
const ODD: [&str; 30] = [
    "-rf",
    "--",
    "sp ace",
    "trail ",
    "trail.",
    ".hidden",
    "..x",
    "x..",
    "q\"uo'te",
    "back\\slash",
    "*?[x]",
    "$(id)",
    "a&b;c|d",
    "a:b",
    "%41",
    "#x",
    "~",
    "con",
    "files",
    "parts",
    "job",
    "tmp",
    ".part",
    "ünïcode",
    "日本語",
    "e\u{301}",
    "\u{e9}",
    "zero\u{200b}width",
    "\u{202e}rtl",
    "😀",
];

fn odd_tree(dir: &Path) {
    for (seed, name) in (0..).zip(ODD) {
        write(&dir.join("names").join(name), &bytes(seed, 100));
    }
    write(&dir.join("names").join("x".repeat(255)), b"long");
    write(&dir.join("deep").join(["d"; 60].join("/")).join("leaf"), b"leaf");
    write(&dir.join("zero"), b"");
    fs::create_dir_all(dir.join("nothing/in here/at all")).unwrap();
    write(&dir.join("run"), b"#!/bin/sh\n");
    fs::set_permissions(dir.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    write(&dir.join("read-only"), b"r");
    fs::set_permissions(dir.join("read-only"), fs::Permissions::from_mode(0o444)).unwrap();
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_millis(86_400_500);
    let fine = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    for (name, time) in [("zero", before_1970), ("run", fine)] {
        let file = fs::File::options().read(true).open(dir.join(name)).unwrap();
        file.set_modified(time).unwrap();
    }
}

fn copied(paths: &[PathBuf], to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut cp = Command::new("cp");
    cp.args(["-r", "--preserve=mode,timestamps", "--"]).args(paths).arg(to);
    assert!(cp.status().unwrap().success());
}

#[tokio::test]
async fn all_nodes_have_what_cp_would_make() {
    let fleet = Fleet::start(3).await;
    let source = fleet.path("source");
    odd_tree(&source.join("odd"));
    for number in 0..500 {
        let len = usize::try_from(number * 37 % 4001).unwrap();
        write(&source.join(format!("many/{}/f{number:03}", number % 7)), &bytes(number, len));
    }
    write(&source.join("single"), &bytes(1, 1_500_000));
    fs::create_dir(source.join("empty")).unwrap();
    let paths = ["single", "odd", "empty"].map(|name| source.join(name));
    let expected = fleet.path("expected");
    copied(&paths, &expected);
    // What `DIR/` stands for, `cp` writes `DIR/.`.
    copied(&[source.join("many/.")], &expected);
    let expected = snapshot(&expected);

    let mut arguments = paths.to_vec();
    arguments.push(source.join("many/"));
    let mut push = fleet.push("alice", &arguments);
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, &closed["state"]), (Some(0), &"complete".into()), "{err}");
    for node in ["n1", "n2", "n3"] {
        assert_holds(&fleet.files(node, text(&closed, "job")), &expected);
    }
}

#[tokio::test]
async fn contents_alone_and_names_like_options_can_be_pushed() {
    let fleet = Fleet::start(1).await;
    let source = fleet.path("source");
    write(&source.join("-rf/a"), b"a");
    write(&source.join("-rf/b/c"), b"c");
    let expected = snapshot(&source.join("-rf"));
    for (folder, path) in [(source.join("-rf"), "."), (source.clone(), "-rf/")] {
        let mut push = fleet.command("alice", &["push"]);
        let ran = super::fleet::Ran::of({
            push.current_dir(folder).args(["--", path]);
            push
        });
        let ran = ran.await;
        let job = ran.ok().lines().next().unwrap();
        assert_holds(&fleet.files("n1", job), &expected);
    }
    fs::create_dir(fleet.path("empty")).unwrap();
    let job = fleet.pushed(&fleet.path("empty/")).await;
    assert!(snapshot(&fleet.files("n1", &job)).is_empty());
    assert_eq!(fleet.show(&job).await["size"], 0);
}

#[tokio::test]
async fn jobs_of_two_clients_at_once_all_end_equal_and_stay_their_own() {
    let fleet = Fleet::start(4).await;
    let mut pushes = Vec::new();
    for (seed, who) in (0..).zip(["alice", "bob", "alice", "bob", "alice", "bob"]) {
        let source = fleet.path(&format!("source-{seed}"));
        write(&source.join("big"), &bytes(seed, 3_000_000));
        for number in 0..40 {
            write(&source.join(format!("small/{number}")), &bytes(seed + number, 999));
        }
        let name = format!("job-{seed}");
        let path = format!("{}/", source.display());
        let push = fleet.push(who, &[path, "--name".to_owned(), name]);
        pushes.push((who, snapshot(&source), push));
    }
    let mut jobs = Vec::new();
    for (who, expected, mut push) in pushes {
        let (code, closed, err) = push.finish().await;
        assert_eq!(code, Some(0), "{err}");
        let job = text(&closed, "job").to_owned();
        for node in ["n1", "n2", "n3", "n4"] {
            assert_holds(&fleet.files(node, &job), &expected);
        }
        jobs.push((who, job));
    }
    let ids = |own: &dyn Fn(&str) -> bool| -> Vec<String> {
        let mut ids: Vec<_> =
            jobs.iter().filter(|(who, _)| own(who)).map(|(_, id)| id.clone()).collect();
        ids.sort();
        ids
    };
    for who in ["alice", "bob", "op"] {
        let listed = fleet.run_as(who, &["job", "ls", "--json"]).await.json();
        let mut listed: Vec<_> =
            list(&listed, "jobs").iter().map(|job| text(job, "id").to_owned()).collect();
        listed.sort();
        assert_eq!(listed, ids(&|owner| who == "op" || who == owner), "{who}");
    }
    a_foreign_job_looks_unknown(&fleet, &jobs[1].1).await;
}

/// `job` is bob's job-1.
async fn a_foreign_job_looks_unknown(fleet: &Fleet, job: &str) {
    for command in ["show", "watch", "cancel", "rm"] {
        let of = async |job: &str| {
            let ran = fleet.run(&["job", command, job]).await;
            ran.refused(1, job);
            ran.err.replace(job, "")
        };
        let unknown = of("job-9").await;
        assert_eq!(of("job-1").await, unknown, "{command}");
        let never = "01a00000-0000-7000-8000-000000000000";
        assert_eq!(of(job).await, of(never).await, "{command}");
    }
    let shown = fleet.run_as("op", &["job", "show", job, "--json"]).await.json();
    assert_eq!(shown["state"], "complete");
}

#[tokio::test]
async fn only_the_selected_nodes_have_it() {
    let fleet = Fleet::start(3).await;
    let source = fleet.path("file");
    write(&source, b"some");
    let path = source.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--to", "n1,n3"], &["n1", "n3"]),
        (&["--to", "site=b"], &["n2", "n3"]),
        (&["--to", "site=a", "--to", "n2"], &["n1", "n2"]),
        (&["--to", "site=b", "--to", "n2"], &["n2", "n3"]),
        (&["--to", "all"], &["n1", "n2", "n3"]),
    ];
    for (to, expected) in cases {
        let mut push = fleet.push("alice", &[&[path], to].concat());
        let (code, closed, err) = push.finish().await;
        assert_eq!(code, Some(0), "{err}");
        let job = text(&closed, "job");
        for name in ["n1", "n2", "n3"] {
            let has = fleet.data(name).join("jobs").join(job).exists();
            assert_eq!(has, expected.contains(&name), "{name} {to:?}");
        }
        assert_eq!(list(&closed, "nodes").len(), expected.len(), "{to:?}");
        for name in expected {
            assert_eq!(node(&closed, name)["state"], "complete");
        }
    }
    // A label given by an operator counts, and what is asked for with a comma are all labels.
    fleet.run_as("op", &["nodes", "label", "n3", "disk=big"]).await.ok();
    let mut push = fleet.push("alice", &[path, "--to", "site=b,disk=big"]);
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, list(&closed, "nodes").len()), (Some(0), 1), "{err}");
    assert_eq!(node(&closed, "n3")["state"], "complete");
}
