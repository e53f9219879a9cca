//! The link lab: hosts that are network namespaces of one Linux machine, joined by links that
//! delay, lose, queue and cut as a WAN does. It runs the real `distributary` in them, or any other
//! program, and says when a run cannot be relied upon. `docs/LAB.md` is its manual.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command: what it prints is its result"
)]

mod clock;
mod emulator;
mod exec;
mod flow;
mod lab;
mod lateness;
mod namespace;
mod table;
mod truth;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use distributary_tests::flows::cell::{Measured, Sender, cells, judge};

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
        /// Whom to judge: shallow, cubic, bbr, tcp-cubic or tcp-bbr.
        #[arg(long, default_value = "shallow", value_parser = table::sender)]
        sender: Sender,
        /// Runs of each cell, each with links of another seed.
        #[arg(long, default_value_t = 1)]
        runs: u64,
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
