//! The table of the overlay: how long a job takes until the last node has it, beside the fluid
//! bound, over topologies that the tests do not use.
//!
//! `cargo bench --locked -p distributary-tests --bench overlay [-- WORD...]` prints it in Markdown.
//! Words choose rows and columns: a family (`homog`, `upl`, `wan`), a number of nodes (`8`, `32`,
//! `128`, `1024`), a level (`chunk`, `packet`), a rule (`plan`, `plain`, `star`); of each sort
//! that none is named of, all.
//!
//! In the environment, `SENDER` (shallow, cubic) chooses the congestion control, `SEEDS` how many
//! topologies, `IDLE_MS` how long peers are connected before the content comes, `TARGET=0` lets the
//! base not know at which rate the job can reach all, `UPLINKS=1` lets it know from the start what
//! the uplinks of nodes carry, as it does of nodes that are told or had a job before.

#![expect(clippy::print_stdout, reason = "the table is the output of the command")]

use std::{env, time::Duration};

use anyhow::{Context, bail};
use distributary_tests::swarm::{self, Family, Job, Rule, Sender, Topology};
use shared::job::{Kind, stripe_count};

/// Rates, and the size of the job, are an eighth of the families': 256 MB.
const DIVIDED_BY: u32 = 8;
const BYTES: u64 = 32_000_000;
const CHUNK: u32 = 16 * 1024;
/// How long all are connected before the push begins.
const IDLE_MS: u64 = 100;
/// The first seed: the tests take those below.
const FIRST_SEED: u64 = 101;
const SIZES: [usize; 4] = [8, 32, 128, 1_024];
/// The virtual WAN carries that many.
const PACKET_NODES_MAX: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Packet,
    Chunk,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Chunk => "chunk",
        }
    }
}

struct Choice {
    words: Vec<String>,
    sender: Sender,
    seeds: u64,
    knows_target: bool,
    knows_uplinks: bool,
    idle: Duration,
}

impl Choice {
    fn read() -> anyhow::Result<Self> {
        let sender = match env::var("SENDER").as_deref() {
            Err(_) | Ok("shallow") => Sender::Shallow,
            Ok("cubic") => Sender::Cubic,
            Ok(other) => bail!("SENDER is {other:?}, expected shallow or cubic"),
        };
        let seeds = match env::var("SEEDS") {
            Ok(text) => text.parse().with_context(|| format!("SEEDS={text} is not a number"))?,
            Err(_) => 5,
        };
        let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
        let knows_target = env::var("TARGET").as_deref() != Ok("0");
        let knows_uplinks = env::var("UPLINKS").as_deref() == Ok("1");
        let idle = match env::var("IDLE_MS") {
            Ok(text) => text.parse().with_context(|| format!("IDLE_MS={text} is not a number"))?,
            Err(_) => IDLE_MS,
        };
        let idle = Duration::from_millis(idle);
        Ok(Self { words, sender, seeds, knows_target, knows_uplinks, idle })
    }

    /// Those of `all` that are named, or all if none is.
    fn of<T: Copy>(&self, all: &[T], name: impl Fn(T) -> String) -> Vec<T> {
        let named: Vec<T> =
            all.iter().copied().filter(|one| self.words.contains(&name(*one))).collect();
        if named.is_empty() { all.to_vec() } else { named }
    }
}

/// What one run came to.
struct Run {
    ratio: f64,
    copies: f64,
    twice: f64,
}

fn main() -> anyhow::Result<()> {
    let choice = Choice::read()?;
    let rules = choice.of(&["plan", "plain", "star"], str::to_owned);
    let columns = rules.iter().map(|rule| format!(" {rule}: of the bound | copies | twice % |"));
    println!("| topology | nodes | level |{}", columns.collect::<String>());
    println!("|---|---|---|{}", "---|---|---|".repeat(rules.len()));
    for family in choice.of(&Family::ALL, |family| family.name().to_owned()) {
        for nodes in choice.of(&SIZES, |nodes| nodes.to_string()) {
            for level in choice.of(&[Level::Packet, Level::Chunk], |l| l.name().to_owned()) {
                if level == Level::Chunk || nodes <= PACKET_NODES_MAX {
                    let cells = rules.iter().map(|rule| cell(&choice, family, nodes, level, rule));
                    let (name, level) = (family.name(), level.name());
                    println!("| {name} | {nodes} | {level} |{}", cells.collect::<String>());
                }
            }
        }
    }
    Ok(())
}

fn cell(choice: &Choice, family: Family, nodes: usize, level: Level, rule: &str) -> String {
    let seeds = FIRST_SEED..FIRST_SEED + choice.seeds;
    let runs = seeds
        .map(|seed| run(choice, &Topology::draw(family, nodes, seed, DIVIDED_BY), (level, rule)));
    let runs: Option<Vec<Run>> = runs.collect();
    let Some(runs) = runs else { return " not complete | | |".to_owned() };
    let mean = |of: fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    let worst = runs.iter().map(|run| run.ratio).fold(0.0, f64::max);
    format!(
        " {:.2} ({worst:.2}) | {:.2} | {:.2} |",
        mean(|run| run.ratio),
        mean(|run| run.copies),
        mean(|run| run.twice * 100.0)
    )
}

/// One run; `None` if not every node had everything.
fn run(choice: &Choice, topology: &Topology, (level, rule): (Level, &str)) -> Option<Run> {
    let nodes = topology.nodes();
    // A star needs as many times the bound as there are nodes: of less content.
    let is_star = rule == "star";
    let bytes = if is_star { (BYTES / nodes as u64).max(u64::from(CHUNK) * 16) } else { BYTES };
    let rule = match rule {
        "plan" => Rule::Stripes(stripe_count(Kind::Files, nodes)),
        "plain" => Rule::Stripes(1),
        _ => Rule::Star,
    };
    let target_bps = if choice.knows_target { topology.target_bps() } else { 0 };
    let job = Job {
        bytes,
        chunk: CHUNK,
        rule,
        target_bps,
        knows_uplinks: choice.knows_uplinks,
        idle: choice.idle,
        sender: choice.sender,
    };
    let bound = topology.bound(bytes).as_secs_f64();
    let all = (nodes as u64 * bytes) as f64;
    match level {
        Level::Chunk => {
            let outcome = swarm::run(topology, &job, topology.seed);
            let ratio = outcome.last()?.as_secs_f64() / bound;
            Some(Run { ratio, copies: outcome.copies(bytes), twice: outcome.twice() })
        }
        Level::Packet => {
            let measured = swarm::run_in_wan(topology, &job, topology.seed);
            let ratio = measured.last.as_secs_f64() / bound;
            let (copies, sent) = (measured.base_sent as f64 / bytes as f64, measured.sent as f64);
            Some(Run { ratio, copies, twice: (sent - all).max(0.0) / sent })
        }
    }
}
