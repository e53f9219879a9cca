//! The whole congestion table in virtual time: `cargo bench --locked -p distributary-tests --bench
//! congestion [-- WORD...]` runs the cells whose group or name holds one of the words, with three
//! seeds, prints one row for each, in Markdown, and ends with 1 if a limit is not kept.
//!
//! `SENDER` in the environment (shallow, cubic, bbr) chooses whom to judge.

#![expect(clippy::print_stdout, reason = "the table is the output of the command")]

use std::{
    env,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, bail};
use distributary_tests::flows::{
    Scenario,
    cell::{Cell, Measured, Sender, cells, judge},
    run,
};

const SEEDS: [u64; 3] = [1, 2, 3];

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |cell: &Cell| {
        words.is_empty()
            || words.iter().any(|word| cell.group == word || cell.name.contains(word.as_str()))
    };
    let mut cells = cells(sender()?)?;
    cells.retain(wanted);
    let rows = run_all(&cells)?;
    println!(
        "| cell | goodput Mbit/s (part of the limit) | first 8 s | dropped % | RTT / path's | least and most share | kept |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut failed = 0;
    for (cell, runs) in cells.iter().zip(&rows) {
        println!("{}", row(cell, runs));
        failed += usize::from(runs.iter().any(|(_, failed)| !failed.is_empty()));
    }
    println!("\n{} of {} cells kept with seeds {SEEDS:?}", cells.len() - failed, cells.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sender() -> anyhow::Result<Sender> {
    Ok(match env::var("SENDER").as_deref() {
        Err(_) | Ok("shallow") => Sender::Shallow,
        Ok("cubic") => Sender::Cubic,
        Ok("bbr") => Sender::Bbr,
        Ok(other) => bail!("SENDER is {other:?}, expected shallow, cubic or bbr"),
    })
}

type Run = (Measured, Vec<String>);

/// Runs all cells with all seeds on all cores.
fn run_all(cells: &[Cell]) -> anyhow::Result<Vec<Vec<Run>>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let count = cells.len() * SEEDS.len();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let cell = cells.get(index / SEEDS.len());
                    let (Some(cell), Some(seed)) = (cell, SEEDS.get(index % SEEDS.len())) else {
                        break;
                    };
                    let report = run(&Scenario::of(cell, *seed));
                    if let Ok(mut done) = done.lock() {
                        done.push((index, report));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().ok().context("a run panicked")?;
    done.sort_by_key(|(index, _)| *index);
    if done.len() != count {
        bail!("{} of {count} runs ended", done.len());
    }
    let mut rows: Vec<Vec<Run>> = cells.iter().map(|_| Vec::new()).collect();
    for (index, report) in done {
        let at = index / SEEDS.len();
        if let (Some(cell), Some(row)) = (cells.get(at), rows.get_mut(at)) {
            let report = report?;
            row.push((Measured::of(cell, &report), judge(cell, &report)));
        }
    }
    Ok(rows)
}

/// The worst of all seeds.
fn row(cell: &Cell, runs: &[Run]) -> String {
    let least = |of: &dyn Fn(&Measured) -> f64| {
        runs.iter().map(|(measured, _)| of(measured)).fold(f64::INFINITY, f64::min)
    };
    let most = |of: &dyn Fn(&Measured) -> f64| {
        runs.iter().map(|(measured, _)| of(measured)).fold(0.0, f64::max)
    };
    let goodput = least(&|measured| measured.goodput);
    let shares = match cell.flows.len() {
        0 | 1 => "-".into(),
        _ => format!("{:.2} {:.2}", least(&|m| m.shares().0), most(&|m| m.shares().1)),
    };
    let mut failed: Vec<&str> =
        runs.iter().flat_map(|(_, failed)| failed.iter().map(String::as_str)).collect();
    failed.sort_unstable();
    let kept = if failed.is_empty() { "yes".into() } else { format!("**{}**", failed.join("; ")) };
    format!(
        "| {}: {} | {goodput:.1} ({:.3}) | {:.1} | {:.2} | {:.3} | {shares} | {kept} |",
        cell.group,
        cell.name,
        goodput / cell.limit,
        least(&|measured| measured.first),
        most(&|measured| measured.dropped),
        most(&|measured| measured.rtt),
    )
}
