//! The link lab: hosts that are network namespaces of one Linux machine, joined by links that
//! delay, lose, queue and cut as a WAN does. It runs the real `distributary` in them, or any other
//! program, and says when a run cannot be relied upon. `docs/LAB.md` is its manual.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command: what it prints is its result"
)]

mod back_end;
mod clock;
mod compare;
mod emulator;
mod exec;
mod fleet;
mod flow;
mod lab;
mod lateness;
mod namespace;
mod netem;
mod report;
mod rival;
mod swarm;
mod table;
mod truth;

use std::{
    env,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use distributary_tests::{
    fleet::run_scenario,
    flows::cell::{Measured, Sender, cells, judge},
    link::LinkSpec,
    scenario::scenarios,
};

use crate::{
    back_end::BackEnd,
    swarm::{Swarm, Who},
};

/// Links of a WAN between processes of one machine.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Args {
    /// What carries packets: the link model in a process of its own, or the kernel.
    #[arg(long, global = true, value_enum, default_value_t)]
    back_end: BackEnd,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what this machine lacks.
    Check,
    /// Run cells of the congestion table with real processes.
    Table {
        /// Cells whose group or name holds one of these words; all without any.
        words: Vec<String>,
        /// Whom to judge: shallow, cubic, bbr, paced, tcp-cubic or tcp-bbr.
        #[arg(long, default_value = "shallow", value_parser = table::sender)]
        sender: Sender,
        /// Runs of each cell, each with links of another seed.
        #[arg(long, default_value_t = 1)]
        runs: u64,
    },
    /// Run scenarios with the real `distributary`, and compare them with the virtual WAN.
    Run {
        /// Scenarios whose name holds one of these words; all without any.
        words: Vec<String>,
        /// The executable; the one beside this program if absent.
        #[arg(long)]
        distributary: Option<PathBuf>,
        /// Where scenarios.json and scenarios.html go.
        #[arg(long, default_value = "target/lab")]
        out: PathBuf,
        /// Randomness of the links.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Spread a file over nodes with equal links; how far the last one is from the bound.
    Swarm {
        /// How many.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// What the base sends, and what each node sends and receives, passes such a link; it has
        /// a rate.
        #[arg(long, default_value = "20Mbit 200000B-queue")]
        access: LinkSpec,
        /// Between any two of them, each way.
        #[arg(long, default_value = "20ms")]
        path: LinkSpec,
        /// Size of the file.
        #[arg(long, default_value = "50MB", value_parser = swarm::size)]
        bytes: u64,
        /// Push from a host 2 ms from the base, not from the base's.
        #[arg(long)]
        far_client: bool,
        /// Who spreads it, one after the other.
        #[arg(long, value_delimiter = ',', default_value = "distributary")]
        who: Vec<Who>,
        /// Runs of each, each with links of another seed.
        #[arg(long, default_value_t = 1)]
        runs: u64,
        /// Randomness of the links of the first run.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The executable; the one beside this program if absent.
        #[arg(long)]
        distributary: Option<PathBuf>,
        /// Where swarm.json goes.
        #[arg(long, default_value = "target/lab")]
        out: PathBuf,
    },
    /// Compare all senders over some cells of the congestion table.
    Compare {
        /// Where compare.md and compare.svg go.
        #[arg(long, default_value = "target/lab")]
        out: PathBuf,
    },
    /// Measure whether the lab's own links are what they are asked to be.
    Truth {
        /// Probes over each link.
        #[arg(long, default_value_t = 100_000)]
        probes: u32,
        /// Judge the median of the delay, and the packets that the links lost of those that
        /// reached them: for machines that do other things meanwhile.
        #[arg(long)]
        typical: bool,
    },
    /// Run programs on hosts that are joined by one kind of link, until the last of them ends.
    Exec {
        /// The link from each host to each other, in the words of the link model.
        #[arg(long, default_value = "0ms")]
        link: LinkSpec,
        /// What each host sends shares this uplink.
        #[arg(long)]
        up: Option<LinkSpec>,
        /// Print the commands that would make the links, and run nothing; for `--back-end netem`.
        #[arg(long)]
        dry_run: bool,
        /// `host: program and arguments`, run by sh. Hosts are 10.77.0.1, 10.77.0.2 and so on, in
        /// the order in which they are first named.
        #[arg(required = true)]
        programs: Vec<String>,
    },
    /// One end of a probe; truth runs these.
    #[command(hide = true)]
    Probe {
        #[command(subcommand)]
        end: ProbeEnd,
    },
    /// One end of a flow; the table runs these.
    #[command(hide = true)]
    Flow {
        #[command(subcommand)]
        end: End,
    },
}

#[derive(Debug, Subcommand)]
enum End {
    /// Send as much as possible.
    Send {
        #[arg(value_parser = table::sender)]
        sender: Sender,
        to: std::net::Ipv4Addr,
        seconds: f64,
    },
    /// Count what comes.
    Receive {
        #[arg(value_parser = table::sender)]
        sender: Sender,
    },
}

#[derive(Debug, Subcommand)]
enum ProbeEnd {
    /// Send probes.
    Send { to: std::net::Ipv4Addr, count: u32 },
    /// Count them.
    Receive,
}

/// What is not there, as distinct from what failed.
const LACKING: u8 = 3;

fn main() -> ExitCode {
    let Args { back_end, command } = Args::parse();
    match run(command, back_end) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            let lacks = error.downcast_ref::<lab::LabError>();
            match lacks {
                Some(lab::LabError::Lacking(_)) => ExitCode::from(LACKING),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command, back_end: BackEnd) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check => Ok(check(back_end)),
        Command::Table { words, sender, runs } => run_table(&words, sender, runs, back_end),
        Command::Run { words, distributary, out, seed } => {
            run_scenarios(&words, distributary, &out, seed, back_end)
        }
        Command::Swarm {
            nodes,
            access,
            path,
            bytes,
            far_client,
            who,
            runs,
            seed,
            distributary,
            out,
        } => {
            let rate_bps = access.rate_bps.context("an access link needs a rate")?;
            ensure!(nodes > 0, "a swarm needs nodes");
            let swarm = Swarm { nodes, access, rate_bps, path, bytes, far_client };
            run_swarm(&swarm, &who, seed..seed + runs, distributary, &out, back_end)
        }
        Command::Compare { out } => {
            let valid = compare::run(&out, back_end)?;
            Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(exec::INVALID) })
        }
        Command::Truth { probes, typical } => truth::run(probes, typical, back_end),
        Command::Exec { link, up, dry_run: true, programs } => {
            ensure!(back_end == BackEnd::Netem, "--dry-run is for --back-end netem");
            print!("{}", exec::script(&link, up.as_ref(), &programs)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Exec { link, up, dry_run: false, programs } => {
            exec::run(&link, up.as_ref(), &programs, back_end)
        }
        Command::Probe { end } => {
            match end {
                ProbeEnd::Send { to, count } => truth::send(to, count)?,
                ProbeEnd::Receive => truth::receive()?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Flow { end } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                match end {
                    End::Send { sender, to, seconds } => {
                        flow::send(sender, to, Duration::from_secs_f64(seconds)).await
                    }
                    End::Receive { sender } => flow::receive(sender).await,
                }
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The exit code is 0 if all hold, 1 if a node does not have everything, 5 if one does at another
/// time than in the virtual WAN, 4 if a run says nothing about the links.
fn run_scenarios(
    words: &[String],
    distributary: Option<PathBuf>,
    out: &Path,
    seed: u64,
    back_end: BackEnd,
) -> anyhow::Result<ExitCode> {
    let distributary = executable(distributary)?;
    let mut all = scenarios();
    all.retain(|it| words.is_empty() || words.iter().any(|word| it.name.contains(word.as_str())));
    ensure!(!all.is_empty(), "no scenario is called {words:?}");
    let mut entries = Vec::new();
    for scenario in &all {
        let ran = fleet::run(&distributary, scenario, seed, back_end)
            .with_context(|| format!("scenario {}", scenario.name))?;
        let virtual_wan = (seed..seed + report::SEEDS).map(|seed| run_scenario(seed, scenario));
        let entry = report::Entry::new(scenario, ran, &virtual_wan.collect::<Vec<_>>())?;
        show(&entry);
        entries.push(entry);
    }
    report::write(out, &entries)?;
    println!("{} and scenarios.json beside it", out.join("scenarios.html").display());
    let any = |of: fn(&report::Entry) -> &Vec<String>| entries.iter().any(|it| !of(it).is_empty());
    if any(|entry| &entry.faults) {
        return Ok(ExitCode::FAILURE);
    }
    Ok(code(any(|entry| &entry.lab.invalid), any(|entry| &entry.misses)))
}

fn executable(distributary: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let distributary = match distributary {
        Some(path) => path.canonicalize().with_context(|| format!("no {}", path.display()))?,
        None => env::current_exe()?.with_file_name("distributary"),
    };
    ensure!(distributary.is_file(), "{} is not there: build it first", distributary.display());
    Ok(distributary)
}

/// The exit code of runs that did their work.
fn code(invalid: bool, missed: bool) -> ExitCode {
    match (invalid, missed) {
        (_, true) => ExitCode::from(exec::MISSED),
        (true, false) => ExitCode::from(exec::INVALID),
        (false, false) => ExitCode::SUCCESS,
    }
}

/// The exit code is 0 if all nodes have everything, 1 if not, 4 if a run says nothing.
fn run_swarm(
    swarm: &Swarm,
    who: &[Who],
    seeds: Range<u64>,
    distributary: Option<PathBuf>,
    out: &Path,
    back_end: BackEnd,
) -> anyhow::Result<ExitCode> {
    let distributary = executable(distributary)?;
    swarm::check(who)?;
    let mut entries = Vec::new();
    for (seed, who) in seeds.flat_map(|seed| who.iter().map(move |who| (seed, *who))) {
        let entry = swarm::run(&distributary, swarm, who, seed, back_end)?;
        swarm::show(&entry);
        entries.push(entry);
        swarm::write(out, swarm, &entries)?;
    }
    let any = |of: fn(&swarm::Entry) -> &Vec<String>| entries.iter().any(|it| !of(it).is_empty());
    if any(|entry| &entry.faults) {
        return Ok(ExitCode::FAILURE);
    }
    Ok(code(any(|entry| &entry.lab.invalid), false))
}

fn show(entry: &report::Entry) {
    let times = entry.nodes.iter().map(|node| {
        let seconds = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1}"));
        let virtual_s = node.virtual_s.map_or("-".to_owned(), |range| range.to_string());
        format!("{}/{virtual_s}", seconds(node.lab_s))
    });
    let times = times.collect::<Vec<_>>().join(" ");
    let [lab, virtual_wan] = entry.dropped.map(|share| 100.0 * share);
    println!(
        "{:14} lab/virtual s {times:44} dropped {lab:.2}/{virtual_wan:.2} % {} {} {} {}",
        entry.name,
        entry.lab.late(),
        entry.lab.invalid.join("; "),
        entry.faults.join("; "),
        entry.misses.join("; "),
    );
}

/// Says what the back end lacks; of the other one, whether it could be used.
fn check(back_end: BackEnd) -> ExitCode {
    let lacking = back_end.lacking();
    if !lacking.is_empty() {
        for what in &lacking {
            println!("{what}");
        }
        return ExitCode::from(LACKING);
    }
    println!("everything is there");
    if back_end == BackEnd::Emulator {
        match BackEnd::Netem.lacking().as_slice() {
            [] => println!("the kernel has netem: --back-end netem can be used too"),
            lacking => println!("--back-end netem cannot be used: {}", lacking.join("; ")),
        }
    }
    ExitCode::SUCCESS
}

fn run_table(
    words: &[String],
    sender: Sender,
    runs: u64,
    back_end: BackEnd,
) -> anyhow::Result<ExitCode> {
    let mut all = cells(sender)?;
    all.retain(|cell| {
        words.is_empty()
            || words.iter().any(|word| cell.group == word || cell.name.contains(word.as_str()))
    });
    let (mut failed, mut silent) = (0, 0);
    for cell in &all {
        for seed in 1..=runs {
            let ran = table::run(cell, seed, back_end)?;
            let measured = Measured::of(cell, &ran.report);
            let misses = judge(cell, &ran.report);
            let is_valid = ran.lab.invalid.is_empty();
            failed += usize::from(is_valid && !misses.is_empty());
            silent += usize::from(!is_valid);
            let each: Vec<String> = measured.each.iter().map(|mbit| format!("{mbit:.1}")).collect();
            println!(
                "{:46} {:5.1} ({:.3}) first {:5.1} drop {:5.2}% rtt {:.3} each {:24} {} {} {}",
                cell.name,
                measured.goodput,
                measured.goodput / cell.limit,
                measured.first,
                measured.dropped,
                measured.rtt,
                each.join(" "),
                ran.lab.late(),
                ran.lab.invalid.join("; "),
                misses.join("; "),
            );
        }
    }
    println!("{failed} runs did not hold, {silent} say nothing");
    Ok(code(silent > 0, failed > 0))
}
