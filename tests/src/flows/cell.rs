//! The cells of the congestion table: who sends over what, and what must come of it.
//!
//! The same cells are run in exact virtual time ([`super::run`]) and, with real processes, in the
//! lab. Limits are those of the project's design; where one is not met, the table says so.

use std::time::Duration;

use super::{Change, Report};
use crate::link::{LinkSpec, LinkSpecError};

/// What sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Our connection with our controller.
    Shallow,
    /// Our connection with quinn's Cubic.
    Cubic,
    /// Our connection with quinn's BBR.
    Bbr,
    /// quinn's BBR behind `--uplink` with 97 % of the link: pacing by what is known instead of a
    /// controller that finds it out. In virtual time it is not paced.
    Paced,
    /// The kernel's TCP with cubic; in virtual time quinn's Cubic stands in.
    TcpCubic,
    /// The kernel's TCP with bbr; in virtual time quinn's BBR stands in.
    TcpBbr,
}

impl Sender {
    /// As the table shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shallow => "shallow",
            Self::Cubic => "quinn cubic",
            Self::Bbr => "quinn bbr",
            Self::Paced => "quinn bbr, --uplink",
            Self::TcpCubic => "tcp cubic",
            Self::TcpBbr => "tcp bbr",
        }
    }
}

/// One sender of a cell.
#[derive(Clone, Debug)]
pub struct CellFlow {
    /// What sends.
    pub sender: Sender,
    /// When it starts.
    pub start: Duration,
    /// From the bottleneck to its receiver.
    pub path: LinkSpec,
    /// And back.
    pub back: LinkSpec,
}

/// What must come of a cell; what is `None` is not judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Least sum of goodputs, as a part of what the link carries.
    pub goodput: Option<f64>,
    /// Least mean goodput of the first 8 s, Mbit/s.
    pub first: Option<f64>,
    /// Most packets that the queue drops over the whole run, percent.
    pub dropped: Option<f64>,
    /// Longest smoothed round trip, as a multiple of the path's.
    pub rtt: Option<f64>,
    /// Least and most goodput of each flow, as a multiple of an equal share.
    pub shares: Option<(f64, f64)>,
}

/// Flows over one bottleneck, and what must come of them.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Unique in the table.
    pub name: String,
    /// The table's part that it belongs to.
    pub group: &'static str,
    /// What all flows share.
    pub bottleneck: LinkSpec,
    /// Who sends.
    pub flows: Vec<CellFlow>,
    /// What happens when.
    pub changes: Vec<(Duration, Change)>,
    /// How long it runs.
    pub length: Duration,
    /// Goodput and round trips count from here to the end.
    pub from: Duration,
    /// Goodput that the link allows from there on, Mbit/s.
    pub limit: f64,
    /// Round trip of the first flow without a queue.
    pub rtt: Duration,
    /// What must come of it.
    pub limits: Limits,
}

/// Goodput of a link: 1,452 bytes of each IP packet of 1,480 are QUIC's, less what it frames them
/// with.
pub const GOODPUT_PART: f64 = 0.958;
/// Smallest queue of a cell, bytes: 17 packets.
const QUEUE_MIN: u64 = 25_000;
/// The groups of the table, in its order.
pub const GROUPS: [&str; 8] =
    ["single", "several", "late", "rtts", "rivals", "paths", "changes", "rates"];

/// All cells with `sender` as the one that is judged.
///
/// # Errors
/// A cell that is not described in the words of [`LinkSpec`].
pub fn cells(sender: Sender) -> Result<Vec<Cell>, LinkSpecError> {
    let mut cells = single(sender)?;
    cells.extend(several(sender)?);
    cells.push(late(sender)?);
    cells.push(unequal_paths(sender)?);
    cells.extend(rivals(sender)?);
    cells.extend(rough_paths(sender)?);
    cells.extend(changes(sender)?);
    cells.extend(rates(sender)?);
    Ok(cells)
}

/// Whether `report` keeps the limits of `cell`: what it does not keep, in words.
#[must_use]
pub fn judge(cell: &Cell, report: &Report) -> Vec<String> {
    let mut failed = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            failed.push(what);
        }
    };
    let measured = Measured::of(cell, report);
    if let Some(least) = cell.limits.goodput {
        let part = measured.goodput / cell.limit;
        check(part >= least, format!("goodput {part:.3} of the limit, not {least}"));
    }
    if let Some(least) = cell.limits.first {
        check(measured.first >= least, format!("first 8 s {:.1}, not {least}", measured.first));
    }
    if let Some(most) = cell.limits.dropped {
        check(measured.dropped <= most, format!("dropped {:.2} %, not {most}", measured.dropped));
    }
    if let Some(most) = cell.limits.rtt {
        check(measured.rtt <= most, format!("round trip {:.3}, not {most}", measured.rtt));
    }
    if let Some((least, most)) = cell.limits.shares {
        let (low, high) = measured.shares();
        check(low >= least, format!("a share of {low:.2}, not {least}"));
        check(high <= most, format!("a share of {high:.2}, not {most}"));
    }
    for flow in &report.flows {
        check(flow.died.is_none(), format!("died: {:?}", flow.died));
    }
    failed
}

/// What a cell is judged by.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Sum of the goodputs, Mbit/s.
    pub goodput: f64,
    /// Of the first flow in the first 8 s, Mbit/s.
    pub first: f64,
    /// Percent of the packets offered to the bottleneck.
    pub dropped: f64,
    /// Smoothed round trip of the first flow as a multiple of the path's.
    pub rtt: f64,
    /// Goodput of each flow, Mbit/s.
    pub each: Vec<f64>,
}

impl Measured {
    /// Reads a report.
    #[must_use]
    pub fn of(cell: &Cell, report: &Report) -> Self {
        let (from, to) = (cell.from, cell.length);
        let each: Vec<f64> = report.flows.iter().map(|flow| flow.goodput(from, to)).collect();
        let first = report.flows.first();
        let start = cell.flows.first().map_or(Duration::ZERO, |flow| flow.start);
        let rtt = first.map_or(Duration::ZERO, |flow| flow.rtt(from, to));
        Self {
            goodput: each.iter().sum(),
            first: first.map_or(0.0, |flow| flow.goodput(start, start + Duration::from_secs(8))),
            dropped: report.dropped_percent(),
            rtt: rtt.as_secs_f64() / cell.rtt.as_secs_f64(),
            each,
        }
    }

    /// Least and most goodput of a flow, as multiples of an equal share.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a handful of flows")]
    pub fn shares(&self) -> (f64, f64) {
        let equal = self.goodput / self.each.len().max(1) as f64;
        let low = self.each.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.each.iter().copied().fold(0.0, f64::max);
        (low / equal, high / equal)
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Bytes of `bdp` times what a path of `mbit` Mbit/s and `rtt_ms` holds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "bytes of a queue are far below 2^52"
)]
fn queue(bdp: f64, mbit: u64, rtt_ms: u64) -> u64 {
    let bytes = bdp * (mbit * rtt_ms * 125) as f64;
    (bytes as u64).max(QUEUE_MIN)
}

fn flow(sender: Sender, start: Duration, rtt_ms: u64) -> Result<CellFlow, LinkSpecError> {
    let path: LinkSpec = format!("{}us", rtt_ms * 500).parse()?;
    Ok(CellFlow { sender, start, path: path.clone(), back: path })
}

fn cell(
    group: &'static str,
    name: String,
    bottleneck: &str,
    flows: Vec<CellFlow>,
    rtt_ms: u64,
) -> Result<Cell, LinkSpecError> {
    Ok(Cell {
        name,
        group,
        bottleneck: bottleneck.parse()?,
        flows,
        changes: Vec::new(),
        length: secs(20),
        from: secs(10),
        limit: 100.0 * GOODPUT_PART,
        rtt: ms(rtt_ms),
        limits: Limits::default(),
    })
}

/// One flow: round trips, loss, queues.
fn single(sender: Sender) -> Result<Vec<Cell>, LinkSpecError> {
    let mut cells = Vec::new();
    for bdp in [0.1, 1.0, 4.0] {
        for loss in [0.0, 0.1, 1.0, 3.0, 5.0] {
            for rtt in [20, 50, 100, 200] {
                cells.push(single_cell(sender, bdp, loss, rtt)?);
            }
        }
    }
    Ok(cells)
}

fn single_cell(sender: Sender, bdp: f64, loss: f64, rtt: u64) -> Result<Cell, LinkSpecError> {
    let name = format!("{rtt} ms, {loss} % loss, queue {bdp} BDP");
    let link = format!("100Mbit {loss}%-loss {}B-queue", queue(bdp, 100, rtt));
    let mut cell = cell("single", name, &link, vec![flow(sender, secs(0), rtt)?], rtt)?;
    cell.limit *= 1.0 - loss / 100.0;
    let shallow = bdp < 1.0;
    cell.limits = Limits {
        goodput: Some(0.97),
        first: (rtt == 100 && loss == 0.0).then_some(90.0),
        dropped: Some(if shallow { 1.5 } else { 0.2 }),
        rtt: (!shallow).then_some(1.1),
        shares: None,
    };
    Ok(cell)
}

/// Several flows on one uplink.
fn several(sender: Sender) -> Result<Vec<Cell>, LinkSpecError> {
    let mut cells = Vec::new();
    for count in [2, 8] {
        for rtt in [20, 50] {
            for bdp in [1.0, 0.1] {
                let name = format!("{count} flows, {rtt} ms, queue {bdp} BDP");
                let link = format!("100Mbit {}B-queue", queue(bdp, 100, rtt));
                let flows = (0..count).map(|at| flow(sender, ms(10 * at), rtt));
                let flows = flows.collect::<Result<_, _>>()?;
                let mut cell = cell("several", name, &link, flows, rtt)?;
                (cell.length, cell.from) = (secs(24), secs(12));
                cell.limits = Limits {
                    goodput: Some(0.95),
                    dropped: Some(if bdp < 1.0 { 2.0 } else { 0.3 }),
                    shares: Some((0.5, 2.0)),
                    ..Limits::default()
                };
                cells.push(cell);
            }
        }
    }
    Ok(cells)
}

/// A flow that starts 5 s late has its share after 5 s more.
fn late(sender: Sender) -> Result<Cell, LinkSpecError> {
    let flows = vec![flow(sender, secs(0), 50)?, flow(sender, secs(5), 50)?];
    let link = format!("100Mbit {}B-queue", queue(1.0, 100, 50));
    let mut cell = cell("late", "the second 5 s later, 50 ms".into(), &link, flows, 50)?;
    cell.limits = Limits { goodput: Some(0.95), shares: Some((0.5, 1.5)), ..Limits::default() };
    Ok(cell)
}

/// Flows with round trips of 20 and 100 ms.
fn unequal_paths(sender: Sender) -> Result<Cell, LinkSpecError> {
    let flows = vec![flow(sender, secs(0), 20)?, flow(sender, secs(0), 100)?];
    let link = format!("100Mbit {}B-queue", queue(1.0, 100, 50));
    let mut cell = cell("rtts", "20 and 100 ms".into(), &link, flows, 20)?;
    (cell.length, cell.from) = (secs(24), secs(12));
    cell.limits = Limits { goodput: Some(0.95), shares: Some((0.5, 1.5)), ..Limits::default() };
    Ok(cell)
}

/// Beside flows that fill the queue.
fn rivals(sender: Sender) -> Result<Vec<Cell>, LinkSpecError> {
    let mut cells = Vec::new();
    for rival in [Sender::TcpCubic, Sender::TcpBbr] {
        for bdp in [1.0, 4.0] {
            let name = format!("beside {}, 50 ms, queue {bdp} BDP", rival.name());
            let link = format!("100Mbit {}B-queue", queue(bdp, 100, 50));
            let flows = vec![flow(sender, secs(0), 50)?, flow(rival, secs(0), 50)?];
            let mut cell = cell("rivals", name, &link, flows, 50)?;
            (cell.length, cell.from) = (secs(30), secs(10));
            cell.limits = Limits { shares: Some((0.3, 2.0)), ..Limits::default() };
            cells.push(cell);
        }
    }
    Ok(cells)
}

/// Jitter, acknowledgements in clumps or lost, loss in bursts.
fn rough_paths(sender: Sender) -> Result<Vec<Cell>, LinkSpecError> {
    let table = [
        ("jitter 5 ms, in order", "", "20ms 5ms-jitter", "20ms", 0.9),
        ("jitter 5 ms both ways, in order", "", "20ms 5ms-jitter", "20ms 5ms-jitter", 0.9),
        ("jitter 5 ms, reordering", "", "20ms 5ms-jitter jitter-reorders", "20ms", 0.9),
        ("acknowledgements in clumps of 10 ms", "", "20ms", "20ms 10ms-clump", 0.9),
        ("loss in bursts", "ge(0.1%,20%)-loss", "20ms", "20ms", 0.9),
        ("2 % of the acknowledgements lost", "", "20ms", "20ms 2%-loss", 0.97),
    ];
    let mut cells = Vec::new();
    for (name, more, path, back, least) in table {
        let link = format!("100Mbit {}B-queue {more}", queue(1.0, 100, 40));
        let flow = CellFlow { sender, start: secs(0), path: path.parse()?, back: back.parse()? };
        let mut cell = cell("paths", format!("{name}, 40 ms"), &link, vec![flow], 40)?;
        cell.limits = Limits { goodput: Some(least), ..Limits::default() };
        cells.push(cell);
    }
    Ok(cells)
}

/// Rates and delays that change after 8 s; judged from 5 s later on.
fn changes(sender: Sender) -> Result<Vec<Cell>, LinkSpecError> {
    let link = |mbit| format!("{mbit}Mbit {}B-queue", queue(1.0, 100, 40));
    let table = [
        ("the rate halves", link(100), 40, Change::Bottleneck(link(50).parse()?), 50.0),
        ("the rate doubles", link(50), 40, Change::Bottleneck(link(100).parse()?), 100.0),
        ("from 20 to 24 ms", link(100), 20, Change::Paths("12ms".parse()?), 100.0),
        ("from 100 to 112 ms", link(100), 100, Change::Paths("56ms".parse()?), 100.0),
        ("from 20 to 80 ms", link(100), 20, Change::Paths("40ms".parse()?), 100.0),
        ("from 40 to 160 ms", link(100), 40, Change::Paths("80ms".parse()?), 100.0),
    ];
    let mut cells = Vec::new();
    for (name, link, rtt, change, mbit) in table {
        let flows = vec![flow(sender, secs(0), rtt)?];
        let mut cell = cell("changes", name.into(), &link, flows, rtt)?;
        cell.changes = vec![(secs(8), change)];
        (cell.length, cell.from) = (secs(18), secs(13));
        cell.limit = mbit * GOODPUT_PART;
        cell.limits = Limits { goodput: Some(0.9), ..Limits::default() };
        cells.push(cell);
    }
    Ok(cells)
}

/// Slow and fast links.
fn rates(sender: Sender) -> Result<Vec<Cell>, LinkSpecError> {
    let mut cells = Vec::new();
    for (mbit, limit) in [(5, 5.0), (1_000, 1_000.0)] {
        for rtt in [20, 50, 100] {
            let link = format!("{mbit}Mbit {}B-queue", queue(1.0, mbit, rtt));
            let name = format!("{mbit} Mbit/s, {rtt} ms");
            let mut cell = cell("rates", name, &link, vec![flow(sender, secs(0), rtt)?], rtt)?;
            cell.limit = limit * GOODPUT_PART;
            cell.limits = Limits { goodput: Some(0.93), ..Limits::default() };
            cells.push(cell);
        }
    }
    Ok(cells)
}
