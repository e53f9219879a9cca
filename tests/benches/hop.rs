//! What one hop on loopback costs, base to node, beside the least that it could cost.
//!
//! `cargo bench --locked -p distributary-tests --bench hop` prints the CPU seconds (user and
//! system) for each GB of: the product (base and node together, the content already at the
//! base); bare quinn with the same settings, read unordered; BLAKE3 of the chunks; and the disk
//! (read by the source, written and flushed by the receiver). All are measured in each round, so
//! that what else the machine does touches all of them; the ratio is the median of the rounds.
//!
//! With the word `congestion` it compares bare quinn with our congestion controller and with
//! quinn's Cubic instead, one after the other in each round.
//!
//! `HOP_MIB` and `HOP_ROUNDS` set the size and the rounds.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

#[path = "hop/bare.rs"]
mod bare;
#[path = "hop/cost.rs"]
mod cost;
#[path = "hop/product.rs"]
mod product;
#[path = "hop/worker.rs"]
mod worker;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use certs::{Authority, Request};
use shared::id::Role;
use shared_io::clock::Clock;

/// What the product may cost, as a multiple of its parts.
const TARGET: f64 = 1.3;
/// What our congestion controller may cost, as a multiple of quinn's Cubic.
const CONTROLLER_TARGET: f64 = 1.05;
const OURS: &str = "shallow";
const CUBIC: &str = "cubic";
/// Rounds that the comparison of controllers has at least: they differ by less than rounds do.
const CONTROLLER_ROUNDS_MIN: u64 = 9;
const WRITE: usize = 64 * 1024;
const DEFAULT_MIB: u64 = 1024;
const DEFAULT_ROUNDS: u64 = 3;
const GB: f64 = 1e9;
const VALID_FOR: Duration = Duration::from_secs(24 * 3600);

/// CPU time of one round.
struct Round {
    product: product::Hop,
    bare: bare::Hop,
    hash: Duration,
    disk: cost::Disk,
}

impl Round {
    fn parts(&self) -> Duration {
        self.bare.cpu() + self.hash + self.disk.cpu()
    }

    fn ratio(&self) -> f64 {
        self.product.cpu().as_secs_f64() / self.parts().as_secs_f64()
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((role, rest)) = worker::asked(&arguments) {
        return worker::run(role, rest);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        // Built with the tests, it is not run with them.
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.iter().any(|argument| argument == "congestion") {
        true => runtime.block_on(compare_controllers()),
        false => runtime.block_on(measure()),
    }
}

async fn compare_controllers() -> Result<()> {
    let mib = setting("HOP_MIB", DEFAULT_MIB)?;
    let rounds = setting("HOP_ROUNDS", CONTROLLER_ROUNDS_MIN)?;
    let dir = tempfile::tempdir()?;
    issue_all(dir.path())?;
    let size = mib * 1024 * 1024;
    println!("bare quinn on loopback, {mib} MiB, {rounds} rounds; CPU seconds for each GB");
    println!("{:>6} {OURS:>8} {CUBIC:>8} {:>6}", "round", "ratio");
    let (mut ours, mut ratios) = (Vec::new(), Vec::new());
    for number in 1..=rounds {
        // Whoever is first finds caches as the one before left them.
        let order = if number % 2 == 0 { [OURS, CUBIC] } else { [CUBIC, OURS] };
        let first = bare::hop(dir.path(), size, WRITE, order[0]).await?.cpu();
        let second = bare::hop(dir.path(), size, WRITE, order[1]).await?.cpu();
        let [our, cubic] = if order[0] == OURS { [first, second] } else { [second, first] };
        let ratio = our.as_secs_f64() / cubic.as_secs_f64();
        let (our, cubic) = (per_gb(our, size), per_gb(cubic, size));
        println!("{number:>6} {our:>8.2} {cubic:>8.2} {ratio:>6.3}");
        ours.push(our);
        ratios.push(ratio);
    }
    let ratio = median(ratios).context("no rounds")?;
    let verdict = if ratio <= CONTROLLER_TARGET { "within" } else { "NOT within" };
    let ours = median(ours).unwrap_or_default();
    println!("median: {ours:.2} CPU s/GB; ratio {ratio:.3}, {verdict} {CONTROLLER_TARGET}");
    Ok(())
}

async fn measure() -> Result<()> {
    let mib = setting("HOP_MIB", DEFAULT_MIB)?;
    let rounds = setting("HOP_ROUNDS", DEFAULT_ROUNDS)?;
    let dir = tempfile::tempdir()?;
    issue_all(dir.path())?;
    let size = mib * 1024 * 1024;
    let source = dir.path().join("source");
    cost::make_source(&source, size)?;
    let mut fleet = product::Fleet::start(dir.path()).await?;
    let mut done: Vec<Round> = Vec::new();
    println!("one hop on loopback, {mib} MiB, {rounds} rounds; CPU seconds for each GB");
    println!(
        "{:>6} {:>6} {:>6} {:>8} | {:>6} {:>6} {:>7} {:>6} {:>6} {:>8} | {:>6}",
        "round",
        "base",
        "node",
        "product",
        "send",
        "recv",
        "BLAKE3",
        "read",
        "write",
        "parts",
        "ratio"
    );
    for number in 1..=rounds {
        let (product, chunk) = fleet.hop(&source).await?;
        let bare = bare::hop(dir.path(), size, chunk, OURS).await?;
        let hash = cost::hash(&source, chunk)?;
        let disk = cost::disk(&source, &dir.path().join("written"), chunk)?;
        let round = Round { product, bare, hash, disk };
        print(number, &round, size);
        done.push(round);
    }
    fleet.stop().await?;
    let ratio = median(done.iter().map(Round::ratio).collect()).context("no rounds")?;
    let cost = |of: fn(&Round) -> Duration| {
        let all = done.iter().map(|round| per_gb(of(round), size)).collect();
        median(all).unwrap_or_default()
    };
    let walls = done.iter().map(|round| size as f64 / 1e6 / round.product.wall.as_secs_f64());
    let verdict = if ratio <= TARGET { "within" } else { "NOT within" };
    println!(
        "median: product {:.2} CPU s/GB ({:.0} MB/s), parts {:.2}; ratio {ratio:.2}, {verdict} {TARGET}",
        cost(|round| round.product.cpu()),
        median(walls.collect()).unwrap_or_default(),
        cost(Round::parts),
    );
    Ok(())
}

fn print(number: u64, round: &Round, size: u64) {
    let gb = |time| per_gb(time, size);
    println!(
        "{number:>6} {:>6.2} {:>6.2} {:>8.2} | {:>6.2} {:>6.2} {:>7.2} {:>6.2} {:>6.2} {:>8.2} | {:>6.2}",
        gb(round.product.base),
        gb(round.product.node),
        gb(round.product.cpu()),
        gb(round.bare.send),
        gb(round.bare.receive),
        gb(round.hash),
        gb(round.disk.read),
        gb(round.disk.write),
        gb(round.parts()),
        round.ratio(),
    );
}

fn per_gb(time: Duration, size: u64) -> f64 {
    time.as_secs_f64() * GB / size as f64
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn setting(name: &str, default: u64) -> Result<u64> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    let value: u64 = text.parse().with_context(|| format!("{name}={text} is not a number"))?;
    ensure!(value > 0, "{name} must be at least 1");
    Ok(value)
}

fn issue_all(dir: &Path) -> Result<()> {
    let now = Clock::wall();
    let authority = Authority::init(&dir.join("pki"), now)?;
    for (name, role) in [("base", Role::Base), ("node", Role::Node), ("client", Role::Client)] {
        let request = Request {
            role,
            name: name.parse()?,
            labels: std::collections::BTreeMap::new(),
            hosts: Vec::new(),
            valid_for: VALID_FOR,
        };
        authority.issue(&request, now)?.write(&dir.join(name))?;
    }
    Ok(())
}
