//! The link lab: hosts that are network namespaces of one Linux machine, joined by links that
//! delay, lose, queue and cut as a WAN does. It runs the real `distributary` in them, or any other
//! program, and says when a run cannot be relied upon. `docs/LAB.md` is its manual.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command: what it prints is its result"
)]

mod clock;
mod compare;
mod emulator;
mod exec;
mod fleet;
mod flow;
mod lab;
mod lateness;
mod namespace;
mod report;
mod table;
mod truth;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use distributary_tests::{
    fleet::run_scenario,
    flows::cell::{Measured, Sender, cells, judge},
    scenario::scenarios,
};

/// Links of a WAN between processes of one machine.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once")]
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
    },
    /// Run programs on hosts that are joined by one kind of link, until the last of them ends.
    Exec {
        /// The link from each host to each other, in the words of the link model.
        #[arg(long, default_value = "0ms")]
        link: distributary_tests::link::LinkSpec,
        /// What each host sends shares this uplink.
        #[arg(long)]
        up: Option<distributary_tests::link::LinkSpec>,
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
    match run(Args::parse().command) {
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

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check => Ok(check()),
        Command::Table { words, sender, runs } => run_table(&words, sender, runs),
        Command::Run { words, distributary, out, seed } => {
            run_scenarios(&words, distributary, &out, seed)
        }
        Command::Compare { out } => {
            let valid = compare::run(&out)?;
            Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(exec::INVALID) })
        }
        Command::Truth { probes } => {
            let holds = truth::run(probes)?;
            Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Exec { link, up, programs } => exec::run(&link, up.as_ref(), &programs),
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

/// The exit code is 0 if all hold, 4 if a run says nothing about the links.
fn run_scenarios(
    words: &[String],
    distributary: Option<PathBuf>,
    out: &Path,
    seed: u64,
) -> anyhow::Result<ExitCode> {
    let distributary = match distributary {
        Some(path) => path.canonicalize().with_context(|| format!("no {}", path.display()))?,
        None => env::current_exe()?.with_file_name("distributary"),
    };
    ensure!(distributary.is_file(), "{} is not there: build it first", distributary.display());
    let mut all = scenarios();
    all.retain(|it| words.is_empty() || words.iter().any(|word| it.name.contains(word.as_str())));
    ensure!(!all.is_empty(), "no scenario is called {words:?}");
    let mut entries = Vec::new();
    for scenario in &all {
        let ran = fleet::run(&distributary, scenario, seed)
            .with_context(|| format!("scenario {}", scenario.name))?;
        let entry = report::Entry::new(scenario, ran, &run_scenario(seed, scenario))?;
        show(&entry);
        entries.push(entry);
    }
    report::write(out, &entries)?;
    println!("{} and scenarios.json beside it", out.join("scenarios.html").display());
    let invalid = entries.iter().any(|entry| !entry.lab.invalid.is_empty());
    let misses = entries.iter().any(|entry| !entry.misses.is_empty());
    Ok(match (invalid, misses) {
        (true, _) => ExitCode::from(exec::INVALID),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

fn show(entry: &report::Entry) {
    let times = entry.nodes.iter().map(|node| {
        let seconds = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1}"));
        format!("{}/{}", seconds(node.lab_s), seconds(node.virtual_s))
    });
    let times = times.collect::<Vec<_>>().join(" ");
    let [lab, virtual_wan] = entry.dropped.map(|share| 100.0 * share);
    println!(
        "{:14} lab/virtual s {times:44} dropped {lab:.2}/{virtual_wan:.2} % late p99 {} us {} {}",
        entry.name,
        entry.lab.lateness.p99_us,
        entry.lab.invalid.join("; "),
        entry.misses.join("; "),
    );
}

fn check() -> ExitCode {
    let lacking = lab::lacking();
    if lacking.is_empty() {
        println!("everything is there");
        return ExitCode::SUCCESS;
    }
    for what in &lacking {
        println!("{what}");
    }
    ExitCode::from(LACKING)
}

fn run_table(words: &[String], sender: Sender, runs: u64) -> anyhow::Result<ExitCode> {
    let mut all = cells(sender)?;
    all.retain(|cell| {
        words.is_empty()
            || words.iter().any(|word| cell.group == word || cell.name.contains(word.as_str()))
    });
    let mut failed = 0;
    for cell in &all {
        for seed in 1..=runs {
            let ran = table::run(cell, seed)?;
            let measured = Measured::of(cell, &ran.report);
            let misses = judge(cell, &ran.report);
            failed += usize::from(!misses.is_empty() || !ran.lab.invalid.is_empty());
            let each: Vec<String> = measured.each.iter().map(|mbit| format!("{mbit:.1}")).collect();
            println!(
                "{:46} {:5.1} ({:.3}) first {:5.1} drop {:5.2}% rtt {:.3} each {:24} late p99 {} us {} {}",
                cell.name,
                measured.goodput,
                measured.goodput / cell.limit,
                measured.first,
                measured.dropped,
                measured.rtt,
                each.join(" "),
                ran.lab.lateness.p99_us,
                ran.lab.invalid.join("; "),
                misses.join("; "),
            );
        }
    }
    println!("{failed} runs did not hold");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
