//! Whether the lab's links are what they are asked to be: probes over links of known delay and
//! loss, stamped with the machine's monotonic clock, which all hosts share.

use std::{
    env,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use distributary_tests::link::topology::Place;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{
    back_end::BackEnd,
    clock::pause,
    exec::MISSED,
    lab::{Lab, LabReport, LinkReport, Plan},
};

const PORT: u16 = 4434;
/// Bytes of a probe.
const PROBE: usize = 200;
/// Probes of one batch, and the time between batches: 10,000 a second.
const BATCH: u32 = 10;
const EVERY: Duration = Duration::from_millis(1);
/// The receiver ends when nothing has come for so long.
const SILENCE: Duration = Duration::from_secs(2);
/// What the lab promises: so late is 1 of 100 packets at most.
const LATE_MS: f64 = 1.0;
const LOSS_WITHIN: f64 = 0.1;

/// A link, the delay asked for in ms, and the loss in percent.
const LINKS: [(&str, f64, f64); 5] = [
    ("1ms", 1.0, 0.0),
    ("20ms", 20.0, 0.0),
    ("100ms 1%-loss", 100.0, 1.0),
    ("40ms 5%-loss", 40.0, 5.0),
    // In the bad state for 1 of 26 packets on average, which loses all.
    ("20ms ge(1%,25%)-loss", 20.0, 100.0 / 26.0),
];

/// What a receiver has seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    received: u64,
    /// One-way delays, ms.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Sends `count` probes over each link and compares. What is `typical` hardly depends on what else
/// the machine does: the median of the delay, and what the links lost of the packets that reached
/// them. The exit code is 1 if a link lost more or less than asked, 5 if all are right but late.
pub(crate) fn run(count: u32, typical: bool, back_end: BackEnd) -> anyhow::Result<ExitCode> {
    let (mut all_close, mut in_time) = (true, true);
    for (words, delay, loss) in LINKS {
        let link = words.parse()?;
        let hosts = vec!["a".to_owned(), "b".to_owned()];
        let plan = Plan { hosts, links: vec![(Place::Path(0, 1), link)], seed: 1 };
        let lab = Lab::start(&plan, back_end)?;
        let seen = probe(&lab, count)?;
        let report = lab.report();
        let lost = if typical { lost_by_links(&report) } else { missing(&seen, count) };
        let late = if typical { seen.p50_ms } else { seen.p99_ms } - delay;
        let close = (lost - loss).abs() <= LOSS_WITHIN * loss + f64::EPSILON;
        let close = close && seen.p50_ms >= delay;
        let right = close && late <= LATE_MS;
        println!(
            "{words:22} {count} probes: delay p50 {:.3} p99 {:.3} max {:.3} ms, lost {lost:.3} % \
             (asked {loss:.3}) {}{}",
            seen.p50_ms,
            seen.p99_ms,
            seen.max_ms,
            if right { "as asked" } else { "NOT AS ASKED" },
            report.invalid.iter().map(|why| format!("; invalid: {why}")).collect::<String>(),
        );
        all_close &= close;
        in_time &= right && (typical || report.invalid.is_empty());
    }
    Ok(match (all_close, in_time) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(MISSED),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// Percent of the probes that did not arrive.
fn missing(seen: &Seen, count: u32) -> f64 {
    let count = u64::from(count);
    percent(count.saturating_sub(seen.received), count)
}

/// Percent of the packets offered to the links that these lost.
fn lost_by_links(report: &LabReport) -> f64 {
    let sum = |what: fn(&LinkReport) -> u64| report.links.iter().map(what).sum();
    percent(sum(|link| link.lost), sum(|link| link.offered))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 packets")]
fn percent(part: u64, all: u64) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

fn probe(lab: &Lab, count: u32) -> anyhow::Result<Seen> {
    let own = env::current_exe().context("the lab does not find itself")?;
    let mut receive = lab.command("b", &own)?;
    let receive = receive.args(["probe", "receive"]).stdout(Stdio::piped()).spawn()?;
    pause(Duration::from_millis(300));
    let to = lab.address("b")?.to_string();
    let mut send = lab.command("a", &own)?;
    let sent = send.args(["probe", "send", &to, &count.to_string()]).status()?;
    let output = receive.wait_with_output()?;
    anyhow::ensure!(sent.success() && output.status.success(), "a probe ended early");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Sends `count` probes to `to`.
pub(crate) fn send(to: Ipv4Addr, count: u32) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, PORT))?;
    let mut probe = [0; PROBE];
    let begin = now();
    for batch in 0..count.div_ceil(BATCH) {
        pause((begin + EVERY * batch).saturating_sub(now()));
        for _ in 0..BATCH.min(count - batch * BATCH) {
            let stamp = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX).to_be_bytes();
            if let Some(place) = probe.first_chunk_mut() {
                *place = stamp;
            }
            socket.send(&probe)?;
        }
    }
    Ok(())
}

/// Counts probes until no more come, and tells what it has seen as JSON.
pub(crate) fn receive() -> anyhow::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)))?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut delays = Vec::new();
    let mut probe = [0; PROBE];
    loop {
        match socket.recv(&mut probe) {
            Ok(_) => {
                let sent = probe.first_chunk().copied().map_or(0, u64::from_be_bytes);
                delays.push(now().saturating_sub(Duration::from_nanos(sent)));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    delays.sort_unstable();
    serde_json::to_writer(io::stdout(), &seen(&delays))?;
    Ok(io::stdout().flush()?)
}

fn seen(delays: &[Duration]) -> Seen {
    let at = |percent: usize| {
        let place = (delays.len() * percent / 100).min(delays.len().saturating_sub(1));
        delays.get(place).map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
    };
    let received = u64::try_from(delays.len()).unwrap_or(u64::MAX);
    Seen { received, p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
}

/// The machine's monotonic clock, the same in all its processes.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_delays() {
        let delays: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let seen = seen(&delays);
        assert_eq!(seen.received, 200);
        assert!((seen.p50_ms - 101.0).abs() < 1e-9 && (seen.p99_ms - 199.0).abs() < 1e-9);
        assert!((seen.max_ms - 200.0).abs() < 1e-9);
    }
}
