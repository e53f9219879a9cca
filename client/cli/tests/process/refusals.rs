//! What is refused, with which exit code, and that the complaint names it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::fields::{list, text};
use super::fleet::{Fleet, Ran, distributary, issue, make_authority};
use super::tree::write;

#[tokio::test]
async fn paths_that_cannot_be_pushed_are_named() {
    let fleet = Fleet::start(1).await;
    let file = |name: &str| {
        write(&fleet.path(name), b"x");
        fleet.path(name)
    };
    let under = |name: &[u8]| {
        let path = fleet.path("bad-name").join(std::ffi::OsStr::from_bytes(name));
        write(&path, b"x");
        path
    };
    symlink("nowhere", file("link/file").with_file_name("lnk")).unwrap();
    let _socket = UnixListener::bind(file("socket/file").with_file_name("sock")).unwrap();
    file("case/Name");
    file("case/naMe");
    let twice = [file("one/same"), file("two/same")];
    let cases: [(Vec<PathBuf>, &str); 7] = [
        (vec![fleet.path("absent")], "absent"),
        (vec![fleet.path("link")], "lnk"),
        (vec![fleet.path("link/lnk")], "lnk"),
        (vec![fleet.path("socket")], "sock"),
        (vec![fleet.path("case")], "naMe"),
        (twice.to_vec(), "same"),
        (vec![PathBuf::from("/dev/null")], "/dev/null"),
    ];
    for (paths, words) in cases {
        let mut arguments = vec![PathBuf::from("push"), file("good")];
        arguments.extend(paths);
        fleet.run(&arguments).await.refused(1, words);
    }
    for (name, words) in [(b"li\nne".as_slice(), "li"), (b"by\xffte", "by"), (b"\x1b[1m", "[1m")] {
        let path = under(name);
        let ran = fleet.run(&[PathBuf::from("push"), fleet.path("bad-name")]).await;
        ran.refused(1, words);
        // What a name holds is not done to the terminal.
        assert!(!ran.err.contains('\u{1b}'), "{ran:?}");
        fs::remove_file(path).unwrap();
    }
    fleet.run(&["push"]).await.refused(2, "PATH");
    // Nothing of all that has made a job; what is allowed can be pushed.
    let jobs = fleet.run(&["job", "ls", "--json"]).await.json();
    assert!(list(&jobs, "jobs").is_empty(), "{jobs}");
    let mut push = fleet.command("alice", &["push", "--allow-case"]);
    push.arg(fleet.path("case"));
    Ran::of(push).await.ok();
}

#[tokio::test]
async fn identities_that_may_not_are_refused() {
    let fleet = Fleet::start(1).await;
    write(&fleet.path("file"), b"x");
    let path = fleet.path("file");
    let push = ["push", path.to_str().unwrap()];
    // Another authority's client, with the very name that is known here.
    make_authority(&fleet.path("other-pki")).await;
    let foreign = fleet.identity("foreign");
    issue(&fleet.path("other-pki"), "client", "alice", &[], &foreign).await;
    fleet.run_as("foreign", &push).await.refused(5, "certificate");
    fleet.run_as("foreign", &["job", "ls"]).await.refused(5, "certificate");
    for name in ["n1", "b"] {
        fleet.run_as(name, &push).await.refused(5, name);
        fleet.run_as(name, &["nodes"]).await.refused(5, name);
    }
    for command in [["nodes", "forget", "n1"].as_slice(), &["nodes", "label", "n1", "a=b"]] {
        fleet.run(command).await.refused(5, "client");
    }
    // A role that is not that of the certificate, and a node that another one is already.
    let role = |kind: &str, identity: &str, data: &str| {
        let mut command = distributary();
        command.args([kind, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.arg("--identity").arg(fleet.identity(identity));
        command.arg("--data").arg(fleet.path(data));
        if kind == "node" {
            command.args(["--base", fleet.base()]);
        }
        command
    };
    assert_eq!(Ran::of(role("base", "n1", "x1")).await.code, Some(5));
    assert_eq!(Ran::of(role("node", "alice", "x2")).await.code, Some(5));
    let second = Ran::of(role("node", "n1", "x3")).await;
    assert_eq!(second.code, Some(5), "{second:?}");
    assert!(second.err.contains("n1"), "{second:?}");
    let nodes = fleet.run(&["nodes", "--json"]).await.json();
    assert_eq!(nodes["nodes"][0]["state"], "up");
    // A key that others can read.
    let key = fleet.identity("bob").join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    fleet.run_as("bob", &push).await.refused(1, "key.pem");
}

#[tokio::test]
async fn selections_folders_and_settings_that_make_no_sense_are_refused() {
    let fleet = Fleet::start(1).await;
    write(&fleet.path("file"), b"x");
    let path = fleet.path("file");
    let path = path.to_str().unwrap();
    fleet.run(&["push", path, "--to", "n1,n7"]).await.refused(1, "n7");
    fleet.run(&["push", path, "--to", "site=c"]).await.refused(1, "site=c");
    fleet.run(&["job", "show", "nosuch"]).await.refused(1, "nosuch");
    for wrong in [
        ["--deadline", "soon"],
        ["--priority", "10"],
        ["--quorum", "most"],
        ["--name", "Not Allowed"],
        ["--rate", "fast"],
    ] {
        fleet.run(&["push", path, wrong[0], wrong[1]]).await.refused(2, wrong[1]);
    }
    // One base on a data folder.
    let mut second = distributary();
    second.args(["base", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    second.arg("--identity").arg(fleet.identity("b")).arg("--data").arg(fleet.data("b"));
    let second = Ran::of(second).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains("in use"), "{second:?}");
    // An authority is not overwritten.
    let key = fs::read(fleet.path("pki/ca.pem")).unwrap();
    let mut init = distributary();
    init.args(["certs", "init", "--dir"]).arg(fleet.path("pki"));
    Ran::of(init).await.refused(1, "pki");
    assert_eq!(fs::read(fleet.path("pki/ca.pem")).unwrap(), key);
    // An unknown key in the configuration.
    write(&fleet.path("config.toml"), b"[push]\nqourum = 1\n");
    let config = fleet.path("config.toml");
    fleet.run(&["push", path, "--config", config.to_str().unwrap()]).await.refused(2, "qourum");
    write(&config, b"[push]\nname = 'of-file'\n");
    fleet.run(&["push", path, "--config", config.to_str().unwrap()]).await.ok();
    fleet.run(&["job", "show", "of-file"]).await.ok();
}

#[tokio::test]
async fn nobody_reached_is_6_and_the_own_time_before_that_4() {
    let fleet = Fleet::start(0).await;
    write(&fleet.path("file"), b"x");
    // A port of this test that nobody answers on.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let command = |arguments: &[&str]| {
        let mut command = distributary();
        command.args(arguments).args(["--base", &addr]);
        command.arg("--identity").arg(fleet.identity("alice"));
        command
    };
    let path = fleet.path("file");
    let timed = command(&["push", path.to_str().unwrap(), "--timeout", "300ms"]);
    let (nobody, timed) = tokio::join!(Ran::of(command(&["job", "ls"])), Ran::of(timed));
    nobody.refused(6, &addr);
    timed.refused(4, "--timeout");
}

#[tokio::test]
async fn a_source_that_changes_while_it_is_pushed_fails_the_job() {
    let fleet = Fleet::start(1).await;
    let path = fleet.path("changing");
    // Far more than a push reads ahead; a hole, so that the disk has nothing to do.
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    let mut push = fleet.push("alice", &[path.to_str().unwrap(), "--rate", "10Mbit"]);
    push.event(|event| event["event"] == "progress" && event["bytes"].as_u64() > Some(0)).await;
    file.set_len((1 << 30) + 1).unwrap();
    let (code, closed, err) = push.finish().await;
    assert_eq!((code, text(&closed, "state")), (Some(1), "failed"), "{err}");
    assert!(err.contains("changing") && text(&closed, "reason").contains("changing"), "{err}");
}
