//! Turns to write to job streams: of all jobs on the uplink, at the rate that it carries, and of
//! the jobs of one connection, one at a time. Who is next says [`shared::turns`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::id::JobId;
use shared::job::Kind;
use shared::pacer::Pacer;
use shared::time::Time;
use shared::turns::{Claim, Ticket, Turns};
use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;

/// A job that has claimed nothing for so long does not share the uplink.
const ACTIVE: Duration = Duration::from_secs(1);

/// Claims, and those that wait for their turns.
#[derive(Debug)]
struct Queue<T> {
    turns: Turns,
    waiting: BTreeMap<Ticket, oneshot::Sender<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { turns: Turns::default(), waiting: BTreeMap::new() }
    }
}

impl<T> Queue<T> {
    fn claim(&mut self, claim: Claim) -> (Ticket, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        let ticket = self.turns.claim(claim);
        self.waiting.insert(ticket, sender);
        (ticket, receiver)
    }

    fn withdraw(&mut self, ticket: Ticket) {
        self.turns.withdraw(ticket);
        self.waiting.remove(&ticket);
    }

    /// Who is next, and the bytes of its piece.
    fn next(&mut self) -> Option<(oneshot::Sender<T>, u64)> {
        let (ticket, claim) = self.turns.give()?;
        self.waiting.remove(&ticket).map(|sender| (sender, claim.bytes))
    }
}

/// Turns of all jobs on an uplink. Without a rate, and as long as all jobs that send are of one
/// rank, nobody waits: they share it as their connections do, and all of it.
#[derive(Debug)]
pub(crate) struct UplinkTurns {
    clock: Clock,
    inner: Mutex<Shared>,
    wake: Notify,
}

/// What makes a job go before another one.
type Rank = (Kind, u8, Option<u64>);

fn rank(claim: &Claim) -> Rank {
    (claim.kind, claim.priority, claim.due_ms)
}

#[derive(Debug, Default)]
struct Shared {
    queue: Queue<()>,
    pacer: Option<Pacer>,
    rate_bps: Option<u64>,
    /// When each job last had something to send, and its rank.
    active: BTreeMap<JobId, (Time, Rank)>,
    /// Whether anybody had to wait since this was asked last.
    waited: bool,
}

impl UplinkTurns {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, inner: Mutex::default(), wake: Notify::new() }
    }

    /// Gives turns at `rate_bps` bits of job streams per second from now on.
    pub(crate) fn set_rate(&self, rate_bps: Option<u64>) {
        let mut inner = self.lock();
        if inner.rate_bps != rate_bps {
            inner.rate_bps = rate_bps;
            match (&mut inner.pacer, rate_bps) {
                (Some(pacer), Some(rate_bps)) => pacer.set_rate(rate_bps),
                (pacer, rate_bps) => *pacer = rate_bps.map(Pacer::new),
            }
            self.wake.notify_one();
        }
    }

    /// Whether anybody had to wait for a turn since this was asked last.
    pub(crate) fn were_waited_for(&self) -> bool {
        std::mem::take(&mut self.lock().waited)
    }

    /// Waits for the turn to send a piece.
    pub(crate) async fn turn(&self, claim: Claim) {
        let claimed = self.lock().claim(self.clock.now(), claim);
        let Some((ticket, receiver)) = claimed else { return };
        let _withdrawn = Withdrawn(|| self.lock().queue.withdraw(ticket));
        self.wake.notify_one();
        receiver.await.ok();
    }

    /// Gives turns when it is time.
    ///
    /// # Cancellation
    /// Safe: claims wait until it is called again.
    pub(crate) async fn give(&self) {
        loop {
            let next = self.lock().give(self.clock.now());
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(self.clock.instant(at)) => {}
                    () = self.wake.notified() => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Nothing if the turn has come.
    fn claim(&mut self, now: Time, claim: Claim) -> Option<(Ticket, oneshot::Receiver<()>)> {
        self.active.retain(|_, (at, _)| now.since(*at) < ACTIVE);
        let rank = rank(&claim);
        self.active.insert(claim.job, (now, rank));
        let differs = self.active.values().any(|(_, other)| *other != rank);
        // Who waits may have claimed so long ago that its job does not count any more.
        let is_due = self.pacer.is_none() || !differs && self.queue.turns.is_empty();
        self.waited |= !is_due;
        (!is_due).then(|| self.queue.claim(claim))
    }

    /// Gives the turns that are due; when the next one is, if somebody waits.
    fn give(&mut self, now: Time) -> Option<Time> {
        while !self.queue.turns.is_empty() {
            let at = self.pacer.as_mut().map_or(now, |pacer| pacer.take(now, 0));
            if at > now {
                return Some(at);
            }
            let Some((sender, bytes)) = self.queue.next() else { continue };
            if let (Ok(()), Some(pacer)) = (sender.send(()), &mut self.pacer) {
                pacer.take(now, bytes);
            }
        }
        None
    }
}

/// Withdraws a claim when it is dropped, be it that its turn has come.
struct Withdrawn<F: Fn()>(F);

impl<F: Fn()> Drop for Withdrawn<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Turns of the jobs of one connection.
#[derive(Debug)]
pub(crate) struct LinkTurns(Mutex<OneByOne>);

impl Default for LinkTurns {
    fn default() -> Self {
        let queue = Queue { turns: Turns::live_alone(), ..Queue::default() };
        Self(Mutex::new(OneByOne { queue, is_taken: false }))
    }
}

#[derive(Debug)]
struct OneByOne {
    queue: Queue<Turn>,
    is_taken: bool,
}

/// The turn to write to a connection; the next one begins when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    of: Arc<LinkTurns>,
}

impl LinkTurns {
    /// Waits for the turn to write a piece. Who gives up the turn that it `has` for the next one
    /// goes on with it unless somebody else is before it.
    pub(crate) async fn turn(self: &Arc<Self>, claim: Claim, has: Option<Turn>) -> Turn {
        let (ticket, receiver) = {
            let mut inner = self.lock();
            if !std::mem::replace(&mut inner.is_taken, true) {
                return Turn { of: Arc::clone(self) };
            }
            inner.queue.claim(claim)
        };
        drop(has);
        let withdrawn = Withdrawn(|| self.lock().queue.withdraw(ticket));
        let turn = receiver.await;
        drop(withdrawn);
        // The sender is dropped with the claim alone, which stands until here.
        turn.unwrap_or_else(|_| Turn { of: Arc::clone(self) })
    }

    fn lock(&self) -> MutexGuard<'_, OneByOne> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.of.lock();
        let next = inner.queue.next();
        inner.is_taken = next.is_some();
        drop(inner);
        if let Some((sender, _)) = next {
            // One that has gone gives its turn on by dropping it.
            drop(sender.send(Self { of: Arc::clone(&self.of) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const PIECE: u64 = 10_000;

    fn claim(number: u8, kind: Kind) -> Claim {
        Claim { job: JobId([number; 16]), kind, priority: 5, due_ms: None, bytes: PIECE }
    }

    /// Sends pieces of a job until the time is over; how many.
    async fn send(turns: Arc<UplinkTurns>, claim: Claim, until: Instant) -> u64 {
        let mut sent = 0;
        while Instant::now() < until {
            turns.turn(claim).await;
            sent += 1;
            tokio::task::yield_now().await;
            // What nobody limits would go on for ever in virtual time.
            if sent > 100_000 {
                break;
            }
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_that_share_the_uplink_take_turns_at_its_rate() {
        let turns = Arc::new(UplinkTurns::new(Clock::start()));
        turns.set_rate(Some(8 * PIECE * 100));
        let until = Instant::now() + Duration::from_secs(10);
        let one = send(Arc::clone(&turns), claim(1, Kind::Files), until);
        let other = send(Arc::clone(&turns), claim(2, Kind::Live), until);
        let sent = tokio::select! {
            sent = async { tokio::join!(one, other) } => sent,
            () = turns.give() => unreachable!("it never ends"),
        };
        assert!(sent.0.abs_diff(200) <= 20 && sent.1.abs_diff(800) <= 20, "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_of_one_rank_and_an_unknown_uplink_wait_for_nobody() {
        let turns = UplinkTurns::new(Clock::start());
        let begin = Instant::now();
        for kind in [Kind::Files, Kind::Live] {
            turns.turn(claim(1, kind)).await;
        }
        tokio::time::advance(ACTIVE).await;
        turns.set_rate(Some(8));
        for number in 0..100 {
            turns.turn(claim(number, Kind::Files)).await;
        }
        assert_eq!(begin.elapsed(), ACTIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_long_still_counts_and_a_new_rate_forgives_nothing() {
        let turns = UplinkTurns::new(Clock::start());
        turns.set_rate(Some(8 * PIECE / 10));
        turns.turn(claim(1, Kind::Live)).await;
        // A piece takes ten seconds, and the first one is used.
        let waits = turns.turn(claim(2, Kind::Files));
        tokio::pin!(waits);
        assert!(poll_once(&mut waits).is_none());
        turns.lock().give(turns.clock.now());
        let waits_too = turns.turn(claim(2, Kind::Files));
        tokio::pin!(waits_too);
        assert!(poll_once(&mut waits_too).is_none());
        tokio::time::advance(2 * ACTIVE).await;
        turns.set_rate(Some(8 * PIECE / 5));
        assert!(turns.lock().give(turns.clock.now()).is_some(), "the debt stands");
        let live = turns.turn(claim(1, Kind::Live));
        tokio::pin!(live);
        assert!(poll_once(&mut live).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn claims_that_are_given_up_are_forgotten() {
        let turns = UplinkTurns::new(Clock::start());
        turns.set_rate(Some(8));
        turns.turn(claim(1, Kind::Live)).await;
        let waits = turns.turn(claim(2, Kind::Files));
        tokio::time::timeout(Duration::from_millis(10), waits).await.unwrap_err();
        assert!(turns.lock().queue.turns.is_empty() && turns.lock().queue.waiting.is_empty());
    }

    #[tokio::test]
    async fn a_connection_is_written_to_by_one_and_a_live_stream_keeps_its_turn() {
        let turns = Arc::new(LinkTurns::default());
        let held = turns.turn(claim(1, Kind::Live), None).await;
        let files = turns.turn(claim(2, Kind::Files), None);
        tokio::pin!(files);
        assert!(poll_once(&mut files).is_none());
        let held = turns.turn(claim(1, Kind::Live), Some(held)).await;
        assert!(poll_once(&mut files).is_none());
        drop(held);
        let held = files.await;
        // Who has gone before its turn has it not.
        {
            let gone = turns.turn(claim(3, Kind::Live), None);
            tokio::pin!(gone);
            assert!(poll_once(&mut gone).is_none());
            drop(held);
        }
        turns.turn(claim(4, Kind::Files), None).await;
    }

    fn poll_once<F: Future>(future: &mut std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
