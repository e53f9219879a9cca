//! Windows x loss x RTT x readers that pause: no connection dies.
//!
//! Loss is the same in both directions. The senders are the product's default and one that never
//! slows down; not quinn's BBR, which draws from the system's randomness, so that its runs
//! cannot be repeated.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use distributary_tests::wan::{self, Trace, Wan};
use tokio::time::{Instant, timeout};

use crate::traffic::{self, Controller, MIB, PRODUCT_WINDOW, QUINN_WINDOW};

/// Survival under loss is a matter of chance, so each cell is run with several seeds.
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// Read before the pause, so that the sender is in full swing, or for as long as this.
const WARM_UP: u64 = 2 << 20;
const WARM_UP_TIME: Duration = Duration::from_secs(6);
/// What must arrive anew after the pause, and in what time.
const PROGRESS: u64 = 64 << 10;
const PROGRESS_TIME: Duration = Duration::from_secs(60);

const LOSS_PERCENT: [u64; 4] = [0, 1, 5, 15];
const RTT_MS: [u64; 3] = [20, 100, 400];
const PAUSE_MS: [u64; 3] = [300, 3_000, 30_000];

#[derive(Clone, Copy, Debug)]
struct Cell {
    seed: u64,
    window: u32,
    loss_percent: u64,
    rtt_ms: u64,
    pause_ms: u64,
    controller: Controller,
    ordered: bool,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, {:?} {:>5} KiB window, loss {:>2} %, rtt {:>3} ms, pause {:>5} ms",
            self.seed,
            self.controller,
            self.window >> 10,
            self.loss_percent,
            self.rtt_ms,
            self.pause_ms,
        )?;
        if self.ordered { f.write_str(", ordered") } else { Ok(()) }
    }
}

/// What a cell did.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    /// Both ends are alive and bytes sent after the pause have arrived.
    result: Result<(), String>,
    /// Bytes that arrived during the pause and before it, of packets.
    before_resume: u64,
    /// Bytes read in all.
    read: u64,
    /// Time from the end of the pause to fresh bytes.
    recovery: Duration,
    /// Virtual time of the run.
    ended_at: Duration,
    trace: Trace,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(()) => write!(f, "alive, fresh bytes {:?} after the pause", self.recovery)?,
            Err(error) => f.write_str(error)?,
        }
        write!(
            f,
            "; {} KiB read, {} packets, ended at {:?}",
            self.read >> 10,
            self.trace.packets,
            self.ended_at,
        )
    }
}

impl Cell {
    fn run(self) -> Outcome {
        wan::run(self.seed, |wan| self.scenario(wan)).unwrap()
    }

    async fn scenario(self, wan: Wan) -> Outcome {
        let Self { rtt_ms, loss_percent, .. } = self;
        let link = format!("{}ms {loss_percent}%-loss 100Mbit 100ms-queue", rtt_ms / 2);
        let config = traffic::transport(self.window, self.controller);
        let pair = traffic::connect(wan, &traffic::spec(&link), config).await;
        let (mut stream, _sender) = traffic::stream(&pair).await;
        let mut outcome = Outcome {
            result: Ok(()),
            before_resume: 0,
            read: 0,
            recovery: Duration::ZERO,
            ended_at: Duration::ZERO,
            trace: pair.wan.trace(),
        };
        outcome.result = self.pause_and_resume(&pair, &mut stream, &mut outcome).await;
        if let (Err(error), Some(reason)) = (&mut outcome.result, pair.acceptor.close_reason()) {
            *error = format!("{error}: {reason}");
        }
        outcome.ended_at = pair.wan.now();
        outcome.trace = pair.wan.trace();
        outcome
    }

    async fn pause_and_resume(
        self,
        pair: &traffic::Pair,
        stream: &mut quinn::RecvStream,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let warm = Instant::now() + WARM_UP_TIME;
        let warm = |bytes| bytes >= WARM_UP || Instant::now() >= warm;
        outcome.read = traffic::read_until(stream, self.ordered, warm)
            .await
            .map_err(|error| format!("before the pause: {error}"))?;
        tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
        // An upper bound for what has arrived of the stream: whatever is read beyond it is new.
        outcome.before_resume = pair.acceptor.stats().udp_rx.bytes;
        let missing = (outcome.before_resume + PROGRESS).saturating_sub(outcome.read);
        let resumed = Instant::now();
        let read = traffic::read_until(stream, self.ordered, |bytes| bytes >= missing);
        let read = timeout(PROGRESS_TIME, read)
            .await
            .map_err(|elapsed| format!("no fresh bytes after the pause: {elapsed}"))?
            .map_err(|error| format!("after the pause: {error}"))?;
        outcome.read += read;
        outcome.recovery = resumed.elapsed();
        let ends = [pair.dialler.close_reason(), pair.acceptor.close_reason()];
        match ends {
            [None, None] => Ok(()),
            [Some(reason), _] | [None, Some(reason)] => Err(format!("closed: {reason}")),
        }
    }
}

/// Runs all cells on all cores, each in a runtime of its own.
fn run_all(cells: &[Cell]) -> Vec<(Cell, Outcome)> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cell) = cells.get(index) else { break };
                    let outcome = cell.run();
                    done.lock().unwrap().push((index, *cell, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, ..)| *index);
    assert_eq!(done.len(), cells.len());
    done.into_iter().map(|(_, cell, outcome)| (cell, outcome)).collect()
}

/// All of loss, RTT and pause, for one window and one seed.
fn conditions(window: u32, controller: Controller, seed: u64) -> impl Iterator<Item = Cell> {
    LOSS_PERCENT.into_iter().flat_map(move |loss_percent| {
        RTT_MS.into_iter().flat_map(move |rtt_ms| {
            PAUSE_MS.into_iter().map(move |pause_ms| Cell {
                seed,
                window,
                loss_percent,
                rtt_ms,
                pause_ms,
                controller,
                ordered: false,
            })
        })
    })
}

fn matrix(windows: &[u32], controller: Controller) -> Vec<Cell> {
    let each_window = windows.iter().flat_map(|window| SEEDS.map(|seed| (*window, seed)));
    each_window.flat_map(|(window, seed)| conditions(window, controller, seed)).collect()
}

/// Runs `cells`, prints what they did, and fails with the list of those that died.
fn assert_all_live(cells: &[Cell]) {
    let outcomes = run_all(cells);
    let mut dead = Vec::new();
    let mut virtual_time = Duration::ZERO;
    for (cell, outcome) in &outcomes {
        println!("{cell}: {outcome}");
        virtual_time += outcome.ended_at;
        if let Err(error) = &outcome.result {
            dead.push(format!("{cell}: {error}"));
        }
    }
    println!("{} cells, {} s of virtual time", outcomes.len(), virtual_time.as_secs());
    assert!(
        dead.is_empty(),
        "{} of {} cells failed:\n{}",
        dead.len(),
        cells.len(),
        dead.join("\n")
    );
}

/// The product's default controller, with quinn's window and with the product's.
#[test]
fn no_connection_dies_while_its_reader_pauses() {
    let cells = matrix(&[QUINN_WINDOW, 4 * MIB, PRODUCT_WINDOW], Controller::Product);
    assert_eq!(cells.len(), 108 * SEEDS.len());
    assert_all_live(&cells);
}

/// Whatever the controller does: up to 4 MiB, survival does not depend on it.
#[test]
fn a_sender_that_ignores_loss_kills_nothing_up_to_4_mib() {
    assert_all_live(&matrix(&[QUINN_WINDOW, 4 * MIB], Controller::Flood));
}

const WORST: Cell = Cell {
    seed: 1,
    window: 32 * MIB,
    loss_percent: 15,
    rtt_ms: 100,
    pause_ms: 3_000,
    controller: Controller::Flood,
    ordered: false,
};

fn assert_dies_of_gaps(cell: Cell) {
    let outcome = cell.run();
    let died = matches!(&outcome.result, Err(error) if error.contains("too many gaps"));
    assert!(died, "{cell} was to die of gaps: {outcome}");
}

/// The matrix can fail: a window of 32 MiB is the death that it looks for.
#[test]
fn a_window_of_32_mib_dies_of_gaps() {
    assert_dies_of_gaps(WORST);
    let harmless = Cell { loss_percent: 0, ..WORST };
    assert_eq!(harmless.run().result, Ok(()), "without loss there are no gaps");
}

/// Why job streams are read unordered: read in order, the stream dies without any pause.
#[test]
fn ordered_reads_die_where_unordered_ones_live() {
    let short = Cell { pause_ms: 300, ..WORST };
    assert_eq!(short.run().result, Ok(()));
    assert_dies_of_gaps(Cell { ordered: true, ..short });
}

/// Also beside other cells in other threads.
#[test]
fn a_cell_repeats_itself() {
    let cell =
        Cell { window: PRODUCT_WINDOW, loss_percent: 5, controller: Controller::Product, ..WORST };
    let outcomes = run_all(&[cell; 4]);
    let (_, first) = &outcomes[0];
    assert!(first.trace.packets > 500, "{first}");
    for (_, other) in &outcomes {
        assert_eq!(first, other);
    }
}
