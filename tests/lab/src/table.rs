//! The cells of the congestion table with real processes: each flow is a sender on one host and
//! a receiver on another, the bottleneck is the uplink that the senders share.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use distributary_tests::{
    flows::{
        Change, FlowReport, Report, SAMPLE_EVERY, Sample,
        cell::{Cell, CellFlow, Sender},
    },
    link::topology::Place,
};

use crate::{
    back_end::BackEnd,
    clock::pause,
    flow::Told,
    lab::{Lab, LabError, LabReport, Plan},
};

/// The host of all senders; receivers are numbered from 1.
const SENDING: &str = "base";
/// Runs of a cell until one says something about the links.
const RUNS_MAX: u32 = 3;
/// Until all receivers listen and all senders wait for their time.
const READY: Duration = Duration::from_millis(500);

/// What a cell did in the lab.
pub(crate) struct Ran {
    pub(crate) report: Report,
    pub(crate) lab: LabReport,
}

/// Runs a cell, again if a run says nothing about the links; the last run.
pub(crate) fn run_until_valid(cell: &Cell, seed: u64, back_end: BackEnd) -> anyhow::Result<Ran> {
    let mut ran = run(cell, seed, back_end)?;
    for _ in 1..RUNS_MAX {
        if ran.lab.invalid.is_empty() {
            break;
        }
        println!("{:46} again: {}", cell.name, ran.lab.invalid.join("; "));
        ran = run(cell, seed, back_end)?;
    }
    Ok(ran)
}

/// Runs a cell in a lab of its own.
pub(crate) fn run(cell: &Cell, seed: u64, back_end: BackEnd) -> anyhow::Result<Ran> {
    let lab = Lab::start(&plan(cell, seed), back_end)?;
    let told = Arc::new(Mutex::new(vec![Told::default(); cell.flows.len()]));
    let mut children = Children::default();
    for (at, flow) in cell.flows.iter().enumerate() {
        children.listen(&lab, at, flow, &told)?;
        children.make_ready(&lab, at, flow, cell.length - flow.start, &told)?;
    }
    pause(READY);
    let samples = drive(&lab, cell, &mut children.senders, &told)?;
    let died = children.end();
    let lost = lock(&told).iter().map(|told| told.lost).collect::<Vec<_>>();
    let flows = samples.into_iter().zip(died).zip(lost);
    let flows =
        flows.map(|((samples, died), lost_packets)| FlowReport { samples, lost_packets, died });
    let report = Report { flows: flows.collect(), bottleneck: lab.link(Place::Up(0))? };
    Ok(Ran { report, lab: lab.report() })
}

fn receiver(at: usize) -> String {
    format!("node{}", at + 1)
}

fn plan(cell: &Cell, seed: u64) -> Plan {
    let mut hosts = vec![SENDING.to_owned()];
    let mut links = vec![(Place::Up(0), cell.bottleneck.clone())];
    for (at, flow) in cell.flows.iter().enumerate() {
        hosts.push(receiver(at));
        links.push((Place::Path(0, at + 1), flow.path.clone()));
        links.push((Place::Path(at + 1, 0), flow.back.clone()));
    }
    Plan { hosts, links, seed }
}

/// Lets the senders begin when it is their time, makes the changes, and looks at all flows every
/// 100 ms.
fn drive(
    lab: &Lab,
    cell: &Cell,
    senders: &mut [ChildStdin],
    told: &Mutex<Vec<Told>>,
) -> anyhow::Result<Vec<Vec<Sample>>> {
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); cell.flows.len()];
    let mut changes = cell.changes.iter().peekable();
    let mut started = vec![false; cell.flows.len()];
    let begin = lab.now();
    for step in 0.. {
        let due = SAMPLE_EVERY * step;
        pause((begin + due).saturating_sub(lab.now()));
        for ((flow, sender), started) in cell.flows.iter().zip(&mut *senders).zip(&mut started) {
            if flow.start <= due && !std::mem::replace(started, true) {
                sender.write_all(b"\n").context("a sender has ended before its time")?;
            }
        }
        while let Some((_, change)) = changes.next_if(|(when, _)| *when <= due) {
            apply(lab, cell, change)?;
        }
        for (samples, told) in samples.iter_mut().zip(lock(told).iter()) {
            let rtt = Duration::from_micros(told.rtt_us);
            samples.push(Sample { bytes: told.bytes, rtt, window: told.window });
        }
        if due >= cell.length {
            break;
        }
    }
    Ok(samples)
}

fn apply(lab: &Lab, cell: &Cell, change: &Change) -> Result<(), LabError> {
    match change {
        Change::Bottleneck(spec) => lab.set(Place::Up(0), spec)?,
        Change::Paths(spec) => {
            for at in 0..cell.flows.len() {
                lab.set(Place::Path(0, at + 1), spec)?;
                lab.set(Place::Path(at + 1, 0), spec)?;
            }
        }
    }
    Ok(())
}

/// The processes of a cell, ended when dropped.
#[derive(Default)]
struct Children {
    /// Sender or receiver, which flow, and what listens to it.
    running: Vec<(usize, Child, JoinHandle<()>)>,
    /// What lets each sender begin.
    senders: Vec<ChildStdin>,
    died: Vec<Option<String>>,
}

impl Children {
    fn listen(
        &mut self,
        lab: &Lab,
        at: usize,
        flow: &CellFlow,
        told: &Arc<Mutex<Vec<Told>>>,
    ) -> anyhow::Result<()> {
        self.died.push(None);
        let args = ["flow", "receive", name(flow.sender)].map(str::to_owned);
        self.start(lab, &receiver(at), at, &args, told).map(drop)
    }

    fn make_ready(
        &mut self,
        lab: &Lab,
        at: usize,
        flow: &CellFlow,
        time: Duration,
        told: &Arc<Mutex<Vec<Told>>>,
    ) -> anyhow::Result<()> {
        let to = lab.address(&receiver(at))?.to_string();
        let seconds = time.as_secs_f64().to_string();
        let args = ["flow", "send", name(flow.sender), &to, &seconds].map(str::to_owned);
        let begins = self.start(lab, SENDING, at, &args, told)?;
        self.senders.push(begins);
        Ok(())
    }

    fn start(
        &mut self,
        lab: &Lab,
        host: &str,
        at: usize,
        args: &[String],
        told: &Arc<Mutex<Vec<Told>>>,
    ) -> anyhow::Result<ChildStdin> {
        let own = env::current_exe().context("the lab does not find itself")?;
        let mut command = lab.command(host, own)?;
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {args:?}"))?;
        let out = child.stdout.take().context("a child without output")?;
        let input = child.stdin.take().context("a child without input")?;
        let told = Arc::clone(told);
        let listener = thread::spawn(move || hear(out, at, &told));
        self.running.push((at, child, listener));
        Ok(input)
    }

    /// Ends all; why flows ended before.
    fn end(&mut self) -> Vec<Option<String>> {
        for (at, child, _) in &mut self.running {
            if let Ok(Some(status)) = child.try_wait()
                && !status.success()
                && let Some(died) = self.died.get_mut(*at)
            {
                *died = Some(format!("a process ended with {status}"));
            }
        }
        self.kill();
        std::mem::take(&mut self.died)
    }

    fn kill(&mut self) {
        for (_, mut child, listener) in self.running.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
            let _ = listener.join();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps the newest that a process tells.
fn hear(out: ChildStdout, at: usize, told: &Mutex<Vec<Told>>) {
    for line in BufReader::new(out).lines() {
        let Ok(new) = line
            .map_err(serde_json::Error::io)
            .and_then(|line| serde_json::from_str::<Told>(&line))
        else {
            break;
        };
        if let Some(told) = lock(told).get_mut(at) {
            told.bytes = told.bytes.max(new.bytes);
            if new.window > 0 {
                *told = Told { bytes: told.bytes, ..new };
            }
        }
    }
}

fn lock(told: &Mutex<Vec<Told>>) -> std::sync::MutexGuard<'_, Vec<Told>> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All senders.
pub(crate) const SENDERS: [Sender; 6] =
    [Sender::Shallow, Sender::Cubic, Sender::Bbr, Sender::Paced, Sender::TcpCubic, Sender::TcpBbr];

/// The word for a sender on the command line.
pub(crate) fn name(sender: Sender) -> &'static str {
    match sender {
        Sender::Shallow => "shallow",
        Sender::Cubic => "cubic",
        Sender::Bbr => "bbr",
        Sender::Paced => "paced",
        Sender::TcpCubic => "tcp-cubic",
        Sender::TcpBbr => "tcp-bbr",
    }
}

/// The sender that a word names.
pub(crate) fn sender(word: &str) -> Result<Sender, String> {
    let found = SENDERS.into_iter().find(|sender| name(*sender) == word);
    found.ok_or_else(|| {
        format!(
            "unknown sender {word:?}, expected shallow, cubic, bbr, paced, tcp-cubic or tcp-bbr"
        )
    })
}

#[cfg(test)]
mod tests {
    use distributary_tests::flows::cell::cells;

    use super::*;
    use crate::netem;

    #[test]
    fn netem_can_be_the_links_of_all_cells_but_clumps() {
        for cell in cells(Sender::Shallow).unwrap() {
            let Plan { hosts, links, .. } = plan(&cell, 1);
            let can_be = netem::script(&hosts, &links).is_ok();
            assert_eq!(can_be, !cell.name.contains("clumps"), "{}", cell.name);
        }
    }
}
