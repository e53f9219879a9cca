//! Memory stays within what a role was given.

use super::fleet::Fleet;
use super::tree::{bytes, write};

/// What a role is given if nothing else is said.
const MEMORY_KIB: u64 = 256 * 1024;

/// The most memory that a role's process ever had, in KiB.
fn peak_kib(fleet: &Fleet, role: &str) -> u64 {
    let ready = std::fs::read_to_string(fleet.data(role).join("ready.json")).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", ready["pid"])).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_push_of_several_jobs_stays_within_the_memory_of_every_role() {
    let fleet = Fleet::start(2).await;
    let source = fleet.path("source");
    // More than a role may have, if all that passes through it stayed in memory.
    write(&source.join("file"), &bytes(4, 96 << 20));
    let path = source.to_str().unwrap();
    let (plain, little) = (["push", path], ["push", path, "--memory", "64MiB"]);
    let (a, b, c) = tokio::join!(
        fleet.run_as("alice", &plain),
        fleet.run_as("alice", &plain),
        fleet.run_as("bob", &little),
    );
    for ran in [a, b, c] {
        ran.ok();
    }
    for role in ["b", "n1", "n2"] {
        let peak = peak_kib(&fleet, role);
        assert!(peak <= MEMORY_KIB, "{role} had {peak} KiB");
    }
}

#[tokio::test]
async fn too_little_memory_is_refused_with_what_is_needed() {
    let fleet = Fleet::start(1).await;
    fleet.run(&["push", "x", "--memory", "1MiB"]).await.refused(2, "64MiB");
}
