//! Congestion control: how many bytes a connection may have on its way.
//!
//! A [`Controller`] keeps a small standing queue at the bottleneck and takes its length, never a
//! lost packet by itself, for the measure of how much is enough. A path that loses packets at
//! random is filled like one that does not, and nobody beside us waits behind our packets.
//!
//! **Cruise.** Once a round trip, the window follows
//! `window ← window · base / standing + queue`, half of the way. `base` is the round trip of the
//! empty path, `standing` the least of the last round, `queue` the bytes that this flow keeps
//! waiting: proportional to the root of its rate. The fixed point has exactly these bytes
//! standing whatever is lost, because loss does not enter; flows that share a bottleneck have one
//! rate whatever their round trips, and their common queue grows with the root of their number.
//! The form is that of FAST TCP (Wei, Jin, Low, Hegde: IEEE/ACM ToN 14(6), 2006), the standing
//! round trip that of Copa (Arun, Balakrishnan: NSDI 2018). The least of a round does not see
//! acknowledgements that come in clumps; what jitter is left in it is measured and allowed for
//! ([`path`]).
//!
//! **Base.** It is learnt where the queue is short. Every 5 s without such a moment the window
//! dips for an instant ([`dip`]); flows that see the dip of one dip together from then on,
//! as BBR's do (draft-ietf-ccwg-bbr, ProbeRTT), so that none takes the queue of the others for
//! the path's length.
//!
//! **A queue that runs over** is told from random loss by where the losses are: among packets
//! that met a long queue, or anywhere ([`loss`]). Then the flow's `claim` on the queue is halved,
//! and comes back by a hundredth each round.
//!
//! **Foreign queues.** A queue that flows of this kind would not keep is tested: the window
//! shrinks by what would empty it, and how far the round trip follows is this flow's share of the
//! link ([`dip`]). If it is ours, the window shrinks for good. If it is not, the path has become
//! longer, or somebody fills the queue on purpose; the second such finding makes the flow compete
//! by the rule of RFC 9438 ([`compete`]) until it holds most of the link or the queue is gone.
//!
//! **A path that becomes longer** by less than that is told from a queue by a dip that moves
//! nothing ([`longer`]).
//!
//! **Start.** The window doubles each round trip until packets meet a queue; what is delivered in
//! the half round trip after that is the bottleneck's rate.
//!
//! Time and randomness are arguments; nothing here allocates once a connection is warm.

mod compete;
mod delivery;
mod dip;
mod ease;
mod longer;
mod loss;
mod path;
#[cfg(test)]
mod tests;

use crate::time::Time;

use compete::Growth;
use delivery::Flights;
use dip::{Dip, Trial};
use ease::Ease;
use longer::Longer;
use loss::Losses;
use path::Path;

/// Bytes of the first window before a round trip is known: ten packets (RFC 9002, section 7.2).
const FIRST_PACKETS: f64 = 10.0;
/// Rate of the first round, bytes a second: 16 Mbit/s, spread over the round trip by quinn's
/// pacer. A fixed window would be a flood on a short path and hours on a long one.
const FIRST_RATE: f64 = 2e6;
/// Largest first window, bytes: 100 ms of [`FIRST_RATE`].
const FIRST_BYTES_MAX: f64 = 200_000.0;
/// Packets that the window always has room for. With fewer in flight a receiver delays its
/// acknowledgement, which looks like a queue.
const WINDOW_PACKETS_MIN: f64 = 4.0;
/// Largest window, bytes: above 4 GiB quinn does not pace.
const WINDOW_BYTES_MAX: f64 = 1e9;
/// Lost packets within one window, at most: quinn's receivers end a connection on which more than
/// 1,024 gaps are open, and a gap stays for a round trip and a half, or longer if what fills it is
/// lost too.
const GAPS_MAX: f64 = 350.0;
/// How fast the part of packets that is lost follows that of a round.
const LOSS_GAIN: f64 = 0.125;
/// Queue that a flow keeps, in bytes, is this times the root of its rate in bytes a second:
/// 12.5 kB (1 ms) at 100 Mbit/s, 39 kB (0.3 ms) at 1 Gbit/s.
const QUEUE_PER_ROOT: f64 = 3.5;
/// Bounds of that queue, in packets: fewer are lost in the grain of packets, more are not needed.
const QUEUE_PACKETS: (f64, f64) = (2.0, 64.0);
/// Least packets where the queue has room for them, below 34 Mbit/s. With fewer, what
/// acknowledgements wait behind the data of their sender counts for more than what flows keep, and
/// flows that share 20 Mbit/s and a busy way back have the rates that chance gave them.
const QUEUE_PACKETS_ROOM: f64 = 5.0;
/// A path as short as this, seconds, is within a building or a machine. There a window of a few
/// packets costs a wake-up for each, 2.4 times the CPU time of quinn's Cubic on loopback
/// (docs/BENCHMARKS.md), so the queue is this long, seconds, up to so many bytes.
const NEAR: f64 = 0.001;
const NEAR_QUEUE: f64 = 0.006;
const NEAR_QUEUE_MAX: f64 = 3e6;
/// A window of more packets than the first, the more up to the second, allows for up to so much
/// more than the jitter, where no other controller probes: what it has too little of costs rate.
/// Flows with fewer packets share the rates that chance gave them for as long as all the delay there
/// is counts as jitter; with 40 for both, a live stream that leaves 20 Mbit/s beside file jobs is a
/// fifth later.
const WIDE_PACKETS: (f64, f64) = (120.0, 240.0);
const WIDE_NOISE: f64 = 0.4;
/// How far the window goes towards its target each round. With the whole way, what is measured
/// and what is set are a round apart and swing.
const GAIN: f64 = 0.5;
/// The window shrinks in one round by a quarter at most.
const SHRINK_MAX: f64 = 0.75;
/// Rounds without a queue after which growth doubles each round, up to half of the window.
const CALM_ROUNDS: u32 = 2;
const CALM_DOUBLINGS_MAX: u32 = 12;
const CALM_GROWTH_MAX: f64 = 0.5;
/// Growth of the delivery rate below which a round of the start has brought nothing, and how many
/// such rounds end it (draft-ietf-ccwg-bbr).
const START_GROWTH: f64 = 1.25;
const START_STALE_ROUNDS: u32 = 3;
/// Part of a round's packets whose loss ends the start, and later cuts the window by as much; and
/// how many packets that must be, lest a few lost ones of a small window pass for a flood.
const LOSS_FLOOD: f64 = 0.15;
const LOSS_FLOOD_PACKETS: f64 = 6.0;
/// A flood of this part, the first in so many round trips, is taken for a moment without a path, which
/// is most likely what it was before: it leaves this part of the window at least, and counts for so
/// many rounds without a queue. A second one soon after is a path that carries less.
const LOSS_GONE: f64 = 0.4;
const LOSS_GONE_ROUNDS: f64 = 8.0;
const LOSS_FLOOD_KEEP: f64 = 0.5;
const LOSS_GONE_CALM: u32 = 10;
/// The claim on the queue after it ran over, and what comes back each round; less where no queue
/// longer than this, seconds, was seen lately: eight flows that are back in 2 s fill one of 17
/// packets anew, and drop 1.85 % instead of 1.5. With 0.004 what chance makes of their shares stays.
const CLAIM_CUT: f64 = 0.5;
const CLAIM_BACK: f64 = 0.01;
const CLAIM_BACK_SHORT: f64 = 0.006;
const SHORT_QUEUE: f64 = 0.01;
const CLAIM_MIN: f64 = 0.01;
/// Time without a look at the empty path after which the window dips, and after a look that did
/// not clear the queue.
const LOOK_EVERY: f64 = 5.0;
const LOOK_AGAIN: f64 = 1.0;
/// Round trips for which a queue that was found to be ours may be drained without a new test.
const OURS_ROUNDS: f64 = 10.0;
/// Rounds for which shrinking must not have halved a long queue before it is tested: flows of
/// this kind that start together have drained theirs by then.
const ALARM_ROUNDS: u32 = 6;
/// Time within which a second foreign queue makes the flow compete.
const FOREIGN_WITHIN: f64 = 10.0;
/// One foreign queue is enough if packets that met a long queue were lost in the last so many
/// seconds: a path that becomes longer loses none.
const OVERFLOW_WITHIN: f64 = 3.0;
/// A flow that holds this share of the link has nobody to compete with.
const SHARE_ALONE: f64 = 0.75;
/// A share from which on the queue is ours to drain.
const SHARE_OURS: f64 = 0.6;
/// Time for which a flow that found the queue empty while it competed keeps its window.
const PROBATION: f64 = 12.0;
/// Time between two tests of a flow that competes; up to a quarter more, at random, so that
/// flows of this kind do not test together.
const COMPETE_TEST_EVERY: f64 = 3.0;

/// What the window follows at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Doubles each round trip.
    Start,
    /// The queue has shown: what comes in is counted for half a round trip.
    Settle { since: Time, delivered: f64 },
    /// Holds a short standing queue.
    Cruise,
    /// Sends less for an instant to see the path without the queue.
    Dip(Dip),
    /// Shares a queue with flows that fill it.
    Compete(Growth),
}

/// A queue longer than flows of this kind keep.
#[derive(Debug, Clone, Copy)]
struct Alarm {
    rounds: u32,
    /// The queue, seconds, and the window when it was found, or when it had halved.
    late: f64,
    window: f64,
}

/// What was seen since the round began: a round ends when a packet that was sent in it is
/// acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    began: Time,
    acked: f64,
    lost: f64,
    /// Bytes acknowledged while the application had nothing to send.
    idle: f64,
    /// Most bytes in flight.
    in_flight: f64,
}

/// Part of a round's bytes that may be acknowledged to an idle application, if the window is to
/// count as what limited it.
const IDLE_MAX: f64 = 0.05;

/// The congestion controller of one path. Bytes and seconds are `f64` inside.
#[derive(Debug, Clone)]
pub struct Controller {
    mtu: f64,
    window: f64,
    phase: Phase,
    flights: Flights,
    round: Round,
    path: Path,
    losses: Losses,
    ease: Ease,
    /// Delivery rate, bytes a second, smoothed over rounds in which the application had enough.
    rate: f64,
    /// Part of the packets that is lost, 0 to 1, smoothed.
    loss: f64,
    /// Highest delivery rate of the start.
    best: f64,
    stale_rounds: u32,
    calm_rounds: u32,
    alarm: Option<Alarm>,
    /// Part of the usual queue that this flow keeps, 0 to 1; it counts under the root, so that
    /// rates are proportional to claims.
    claim: f64,
    trial: Option<Trial>,
    /// Looks in a row that did not clear the queue.
    kept_queues: u32,
    longer: Longer,
    /// Share of the link that the last trial of a flow that competes has shown.
    share: f64,
    tested: Time,
    /// The last flood that was taken for a moment without a path.
    gone: Option<Time>,
    /// When it stepped aside last.
    aside: Time,
    ours_until: Time,
    /// Foreign queues found lately, and when the last one was.
    foreign: (u32, Time),
    /// What to go back to if the queue returns, and until when.
    probation: Option<(Time, Growth)>,
    /// When the newest packet acknowledged so far was sent.
    newest_acked: Time,
    /// Packets sent before this are not held against the present window.
    fresh: Time,
    /// Marks of packets sent before this have been answered.
    unmarked: Time,
    in_flight: f64,
    chance: u64,
}

impl Controller {
    /// A controller for a path that carries packets of `mtu` bytes. `seed` decides its random
    /// choices.
    #[must_use]
    pub fn new(mtu: u16, seed: u64) -> Self {
        let mtu = f64::from(mtu);
        Self {
            mtu,
            window: FIRST_PACKETS * mtu,
            phase: Phase::Start,
            flights: Flights::default(),
            round: Round::default(),
            path: Path::default(),
            losses: Losses::default(),
            ease: Ease::default(),
            rate: 0.0,
            loss: 0.0,
            best: 0.0,
            stale_rounds: 0,
            calm_rounds: 0,
            alarm: None,
            claim: 1.0,
            trial: None,
            kept_queues: 0,
            longer: Longer::default(),
            share: 1.0,
            tested: Time::ZERO,
            gone: None,
            aside: Time::ZERO,
            ours_until: Time::ZERO,
            foreign: (0, Time::ZERO),
            probation: None,
            newest_acked: Time::ZERO,
            fresh: Time::ZERO,
            unmarked: Time::ZERO,
            in_flight: 0.0,
            chance: seed,
        }
    }

    /// Bytes that may be in flight.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between some packets and 1e9"
    )]
    pub fn window(&self) -> u64 {
        let gaps = GAPS_MAX * self.mtu / self.loss.max(1e-6);
        self.window.min(gaps).clamp(WINDOW_PACKETS_MIN * self.mtu, WINDOW_BYTES_MAX) as u64
    }

    /// What the path delivered lately while the application had enough to send, bytes a second;
    /// `None` if that was never the case.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of bytes is positive and far below 2^63"
    )]
    pub fn delivery_rate(&self) -> Option<u64> {
        (self.rate > 0.0).then_some(self.rate as u64)
    }

    /// The path carries packets of so many bytes from now on.
    pub fn mtu_changed(&mut self, mtu: u16) {
        self.mtu = f64::from(mtu);
    }

    /// `bytes` were sent at `now`, in one or several packets.
    pub fn sent(&mut self, now: Time, bytes: u64) {
        self.in_flight += float(bytes);
        self.round.in_flight = self.round.in_flight.max(self.in_flight);
        self.flights.sent(now, self.in_flight);
    }

    /// A packet of `bytes` that was sent at `sent` is acknowledged.
    pub fn acked(&mut self, now: Time, sent: Time, bytes: u64, app_limited: bool) {
        let bytes = float(bytes);
        let rtt = now.since(sent).as_secs_f64().max(1e-6);
        let is_first = !self.path.is_known() && self.fresh == Time::ZERO;
        if is_first {
            let first = (FIRST_RATE * rtt).min(FIRST_BYTES_MAX);
            self.window = self.window.max(first);
        }
        if app_limited {
            self.flights.application_idle();
            self.round.idle += bytes;
        }
        let sample = self.flights.acked(now, sent, bytes, rtt);
        self.path.seen(now, sent, rtt);
        self.losses.acked(rtt - self.path.base(), bytes);
        self.ease.acked(sent, bytes);
        self.round.acked += bytes;
        if let Some(trial) = &mut self.trial {
            trial.seen(sent, rtt);
        }
        match &mut self.phase {
            Phase::Start if self.round.in_flight > 0.5 * self.window => self.window += bytes,
            Phase::Settle { delivered, .. } => *delivered += bytes,
            _ => {}
        }
        self.newest_acked = self.newest_acked.max(sent);
        if sent >= self.round.began {
            self.end_round(now, sample);
        }
    }

    /// All packets that one acknowledgement names have been told; `in_flight` bytes remain.
    pub fn acks_end(&mut self, now: Time, in_flight: u64) {
        self.in_flight = float(in_flight);
        self.path.acks_end(now);
        self.flights.forget_before(now, self.path.base());
        match self.phase {
            Phase::Start if self.path.queue_shows() => self.leave_start(now, self.newest_acked),
            Phase::Settle { since, delivered } => self.settle(now, since, delivered),
            Phase::Dip(dip) => self.dip(now, dip),
            _ => {}
        }
    }

    /// `bytes` are lost; the last of them was sent at `sent`.
    pub fn lost(&mut self, now: Time, sent: Time, bytes: u64) {
        if sent < self.fresh {
            return;
        }
        let bytes = float(bytes);
        self.round.lost += bytes;
        self.ease.lost(sent, bytes);
        let met = self.flights.rtt_near(sent).map(|rtt| rtt - self.path.base());
        self.losses.lost(now, met, bytes);
    }

    /// Everything sent for some round trips is lost (RFC 9002, section 7.6): what was known of
    /// the path no longer holds.
    pub fn blacked_out(&mut self, now: Time) {
        self.window = WINDOW_PACKETS_MIN * self.mtu;
        self.phase = Phase::Start;
        self.path = Path::default();
        self.losses = Losses::default();
        self.ease.forget();
        self.round = Round { began: now, in_flight: self.in_flight, ..Round::default() };
        (self.rate, self.loss, self.claim, self.share) = (0.0, 0.0, 1.0, 1.0);
        (self.best, self.stale_rounds, self.calm_rounds) = (0.0, 0, 0);
        (self.trial, self.alarm, self.probation) = (None, None, None);
        self.longer = Longer::default();
        (self.kept_queues, self.foreign, self.ours_until) = (0, (0, Time::ZERO), Time::ZERO);
        self.flights.forget();
        self.fresh = now;
    }

    /// The path marked a packet that was sent at `sent` instead of dropping it (RFC 3168).
    pub fn marked(&mut self, now: Time, sent: Time) {
        if sent < self.fresh.max(self.unmarked) || !self.path.is_known() {
            return;
        }
        self.unmarked = now;
        match self.phase {
            Phase::Start => self.leave_start(now, sent),
            Phase::Compete(growth) => self.marked_while_competing(now, growth),
            _ => self.give_way(now, 0.0),
        }
    }

    /// Bytes of the queue that this flow keeps, its claim considered, jitter not.
    fn queue(&self) -> f64 {
        let (least, most) = QUEUE_PACKETS;
        let least = least + self.claim * (QUEUE_PACKETS_ROOM - least);
        let whole = (QUEUE_PER_ROOT * self.rate.sqrt()).clamp(least * self.mtu, most * self.mtu);
        let near = if self.path.base() < NEAR { NEAR_QUEUE * self.rate } else { 0.0 };
        self.claim.sqrt() * whole.max(near.min(NEAR_QUEUE_MAX))
    }

    fn end_round(&mut self, now: Time, sample: Option<delivery::Sample>) {
        let round = std::mem::replace(&mut self.round, Round { began: now, ..Round::default() });
        if let Some(sample) = sample
            && (!sample.app_limited || sample.rate > self.rate)
        {
            let old = if self.rate == 0.0 { sample.rate } else { self.rate };
            self.rate = 0.5 * (old + sample.rate);
            self.longer.rate(self.rate);
        }
        self.path.keeps(if self.rate > 0.0 { self.queue() / self.rate } else { 0.0 });
        self.loss += LOSS_GAIN * (part(round.lost, round.acked) - self.loss);
        let Some(standing) = self.path.end_round(now) else {
            return;
        };
        self.losses.end_round(self.path.longest_queue());
        self.finish_trial(now);
        match self.phase {
            Phase::Start => self.start(now, &round, sample),
            Phase::Cruise => self.cruise(now, &round, standing),
            Phase::Compete(growth) => self.compete(now, &round, standing, growth),
            Phase::Settle { .. } | Phase::Dip(_) => {}
        }
        self.window = self.window.max(2.0 * self.mtu);
    }

    /// Whether the window, not the application, limited what was sent: an application that
    /// sends in bursts fills a window too, and its queue is empty in between.
    fn was_full(&self, round: &Round) -> bool {
        let reached = round.in_flight + 2.0 * self.mtu >= 0.9 * self.window;
        reached && round.idle <= IDLE_MAX * round.acked
    }

    // Start and settle.

    fn start(&mut self, now: Time, round: &Round, sample: Option<delivery::Sample>) {
        let flooded = self.flood(round) > 0.0;
        let rate = match sample {
            Some(sample) if !sample.app_limited || flooded => sample.rate,
            None if flooded => 0.0,
            _ => return,
        };
        if rate > START_GROWTH * self.best {
            (self.best, self.stale_rounds) = (rate, 0);
        } else {
            self.stale_rounds += 1;
        }
        if self.stale_rounds >= START_STALE_ROUNDS || flooded {
            let filled = self.best.max(rate) * self.path.base() + self.queue();
            self.window = filled.min(self.window);
            self.fresh = now;
            // A path that seems to carry next to nothing was not there yet: while the handshake is
            // not done, a peer drops what comes.
            if self.window >= FIRST_PACKETS * self.mtu {
                self.phase = Phase::Cruise;
            } else {
                self.window = FIRST_PACKETS * self.mtu;
                (self.best, self.stale_rounds) = (0.0, 0);
            }
        }
    }

    /// The packet sent at `sent` met a queue. What was in flight then filled the path, what came
    /// on top waits in the queue.
    fn leave_start(&mut self, now: Time, sent: Time) {
        let then = self.flights.in_flight_at(sent).unwrap_or(self.window);
        self.window = then.max(self.best * self.path.base()).min(self.window);
        self.phase = Phase::Settle { since: now, delivered: 0.0 };
        self.fresh = now;
    }

    fn settle(&mut self, now: Time, since: Time, delivered: f64) {
        let passed = now.since(since).as_secs_f64();
        if passed >= 0.5 * self.path.base() {
            self.rate = delivered / passed;
            self.window = self.rate * self.path.base() + self.queue();
            self.phase = Phase::Cruise;
        }
    }

    // Cruise.

    fn cruise(&mut self, now: Time, round: &Round, standing: f64) {
        let flood = self.flood(round);
        if self.losses.run_over(now, flood > 0.0, self.path.base(), self.mtu) {
            self.give_way(now, flood);
        } else {
            let short = self.path.longest_queue() < SHORT_QUEUE;
            let back = if short { CLAIM_BACK_SHORT } else { CLAIM_BACK };
            self.claim = (self.claim + back).min(1.0);
        }
        let late = standing - self.path.base();
        self.probation = self.probation.filter(|(until, _)| now < *until);
        self.watch_queue(now, late);
        self.follow_queue(now, standing, self.was_full(round), self.probation.is_none());
        self.ease_off(now, round);
        if self.was_full(round) && self.trial.is_none() && !self.ease.is_asking() {
            self.look_closer(now, standing, late);
        }
    }

    /// The step of the window towards the standing queue that is wanted. It is the longer of the
    /// own one and of what covers jitter, not the sum: what waits in proportion to the rate makes
    /// no two flows equal, since each that has the jitter's time already stays as it is.
    fn follow_queue(&mut self, now: Time, standing: f64, was_full: bool, may_shrink: bool) {
        let base = self.path.base();
        let queue = self.queue().max(self.wideness(now) * self.path.noise() * self.rate);
        let calm = (standing - base) * self.rate < queue / 4.0;
        self.calm_rounds = if calm { self.calm_rounds + 1 } else { 0 };
        let doublings = self.calm_rounds.saturating_sub(CALM_ROUNDS).min(CALM_DOUBLINGS_MAX);
        let whole = queue / self.claim.sqrt().max(0.2);
        let growth = whole * f64::from(1_u32 << doublings);
        let growth = if self.calm_rounds > CALM_ROUNDS { growth } else { queue };
        let growth = growth.min(CALM_GROWTH_MAX * self.window).max(queue);
        let target = self.window * base / standing + growth;
        let next = self.window + GAIN * (target - self.window);
        if (next > self.window && was_full) || (next < self.window && may_shrink) {
            self.window = next.max(SHRINK_MAX * self.window);
        }
    }

    /// How many times the jitter is allowed for.
    fn wideness(&self, now: Time) -> f64 {
        let (from, to) = WIDE_PACKETS;
        let wide = ((self.window / self.mtu - from) / (to - from)).clamp(0.0, 1.0);
        if self.path.is_restless(now) { 1.0 } else { 1.0 + wide * WIDE_NOISE }
    }

    /// Whether the round trip stays longer by `late` than flows of this kind would make it.
    fn watch_queue(&mut self, now: Time, late: f64) {
        let long = late > self.path.alarm() && now >= self.ours_until;
        let anew = Alarm { rounds: 0, late, window: self.window };
        self.alarm = long.then(|| match self.alarm {
            Some(alarm) if late > 0.5 * alarm.late => Alarm { rounds: alarm.rounds + 1, ..alarm },
            _ => anew,
        });
    }

    fn look_closer(&mut self, now: Time, standing: f64, late: f64) {
        let look_every = if self.kept_queues > 0 { LOOK_AGAIN } else { LOOK_EVERY };
        if let Some((_, growth)) = self.probation
            && standing - self.path.floor() > self.path.alarm()
        {
            self.probation = None;
            self.window = self.window.max(growth.window());
            self.phase = Phase::Compete(growth);
        } else if let Some(alarm) = self.alarm.filter(|alarm| alarm.rounds >= ALARM_ROUNDS) {
            self.alarm = None;
            self.window = self.window.max(alarm.window);
            let cut = (self.rate * late).min(self.window / 2.0);
            self.test(now, standing, cut, None);
        } else if self.path.is_stale(now, look_every) {
            self.look(standing);
        } else if self.alarm.is_none()
            && !self.path.is_restless(now)
            && self.longer.is_due(now, self.rate, self.window, self.mtu)
        {
            self.ask_if_longer(now, standing);
        }
    }

    /// Which part of a round's packets was lost if that is a flood, else 0.
    fn flood(&self, round: &Round) -> f64 {
        let lost = part(round.lost, round.acked);
        let many = round.lost >= LOSS_FLOOD_PACKETS * self.mtu;
        if many && lost > LOSS_FLOOD { lost } else { 0.0 }
    }

    /// The queue ran over, with `flood` of all packets lost: a smaller claim on it.
    fn give_way(&mut self, now: Time, flood: f64) {
        let before = self.queue();
        self.claim = (self.claim * CLAIM_CUT).max(CLAIM_MIN);
        self.window -= before - self.queue();
        let is_gone = flood > LOSS_GONE && self.gone_is_over(now);
        self.window *= if is_gone { (1.0 - flood).max(LOSS_FLOOD_KEEP) } else { 1.0 - flood };
        self.window = self.window.max(2.0 * self.mtu);
        self.gone = if is_gone { Some(now) } else { self.gone };
        self.calm_rounds = if is_gone { LOSS_GONE_CALM } else { 0 };
        self.losses.judged(now);
    }

    /// Whether a flood may once more be a moment without a path.
    fn gone_is_over(&self, now: Time) -> bool {
        let over = LOSS_GONE_ROUNDS * self.path.base();
        self.gone.is_none_or(|at| now.since(at).as_secs_f64() > over)
    }

    // Helpers of all phases.

    fn next_chance(&mut self) -> f64 {
        // Knuth's MMIX generator; only the spacing of tests hangs on it.
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.chance >> 33).unwrap_or(0)) / f64::from(1_u32 << 31)
    }
}

/// Exact below 2^53 bytes, 9 PB.
#[expect(clippy::cast_precision_loss, reason = "bytes in flight are far below 2^53")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// Which part of all packets is lost, 0 to 1.
fn part(lost: f64, acked: f64) -> f64 {
    if lost > 0.0 { lost / (lost + acked) } else { 0.0 }
}
