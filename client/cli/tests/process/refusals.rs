//! What is refused beside the table of hostile inputs (`hostile`), and what is not.

use std::fs;

use super::fleet::{Fleet, Ran, distributary};
use super::tree::write;

#[tokio::test]
async fn what_looks_like_what_is_refused_is_done_if_it_is_allowed() {
    let fleet = Fleet::start(1).await;
    for name in ["case/Name", "case/naMe", "file"] {
        write(&fleet.path(name), b"x");
    }
    let mut push = fleet.command("alice", &["push", "--allow-case"]);
    push.arg(fleet.path("case"));
    Ran::of(push).await.ok();
    write(&fleet.path("config.toml"), b"[push]\nname = 'of-file'\n");
    let (path, config) = (fleet.path("file"), fleet.path("config.toml"));
    let push = ["push", path.to_str().unwrap(), "--config", config.to_str().unwrap()];
    fleet.run(&push).await.ok();
    fleet.run(&["job", "show", "of-file"]).await.ok();
}

#[tokio::test]
async fn an_authority_and_a_node_that_is_up_are_left_alone() {
    let fleet = Fleet::start(1).await;
    let key = fs::read(fleet.path("pki/ca-key.pem")).unwrap();
    let mut init = distributary();
    init.args(["certs", "init", "--dir"]).arg(fleet.path("pki"));
    Ran::of(init).await.refused(1, "pki");
    assert_eq!(fs::read(fleet.path("pki/ca-key.pem")).unwrap(), key);
    let mut second = distributary();
    second.args(["node", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    second.args(["--base", fleet.base()]).arg("--data").arg(fleet.path("x3"));
    second.arg("--identity").arg(fleet.identity("n1"));
    Ran::of(second).await.refused(5, "n1");
    let nodes = fleet.run(&["nodes", "--json"]).await.json();
    assert_eq!(nodes["nodes"][0]["state"], "up");
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
