//! What `tc` is told so that a device behaves as a [`LinkSpec`] says, and what it cannot be told.
//!
//! A link is one netem at the root of a device, and behind it, if the link has a rate, a token
//! bucket (tbf), whose queue counts bytes; that of netem's own `rate` counts packets, those under
//! way included. The model queues first and delays then. For a constant delay that is the same;
//! for one that changes it is not, and is refused.
//!
//! Sources: tc-netem(8), tc-tbf(8), and `net/sched/sch_netem.c` of Linux.

use std::time::Duration;

use distributary_tests::link::{Chance, LinkSpec, Loss, Reorder};

/// Packets that netem may hold, as many as the emulator: never the limit of a link.
const HELD_MAX: u32 = 1 << 18;
/// Longest packet with its Ethernet header, bytes: the kernel warns of a bucket that is smaller.
const PACKET: u64 = 1_514;
/// How late the kernel's timers may be before a bucket loses rate. Measured on two busy cores with
/// 50 and 200 Mbit/s: a bucket of one packet carries 71 and 59 %, one of 500 us 96 and 97 %.
const TIMER: Duration = Duration::from_micros(500);
/// netem keeps packets in order as soon as it has a rate. This one takes 12 ns for 1,500 bytes.
const IN_ORDER: &str = "1000000000000bit";
/// netem's jitter is a 32-bit number of nanoseconds with a sign.
const JITTER_MAX: Duration = Duration::from_secs(2);
/// Below it, the time for a bucket's bytes is beyond what tbf can hold.
const RATE_MIN: u64 = 1_000;

/// Why a link cannot be had from netem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Inexpressible {
    /// Turns at fixed times.
    #[error("netem's slots open a time after the last one, not at multiples of a time: no `clump`")]
    Clump,
    /// It would change what the queue sees.
    #[error(
        "netem delays before the queue: `jitter` cannot stand beside a rate; give one link the rate and another the jitter"
    )]
    JitterAndRate,
    /// Too long for its number.
    #[error("netem knows jitter up to {JITTER_MAX:?}, not {0:?}")]
    Jitter(Duration),
    /// netem lets some overtake; the model holds some back.
    #[error(
        "netem lets packets overtake by sending them at once: `reorder` cannot stand beside a delay or a rate; give them to another link"
    )]
    Reorder,
    /// A copy is one packet more for all that netem does.
    #[error(
        "netem's copies are delayed, lost and queued on their own: `dup` can stand beside a delay without jitter only"
    )]
    Dup,
    /// Too slow for its numbers.
    #[error("the kernel's token bucket begins at {RATE_MIN} bit/s, not at {0}")]
    Rate(u64),
    /// Too long for its number.
    #[error("the kernel's token bucket holds a queue of less than 4 GiB, not of {0} bytes")]
    Queue(u64),
}

/// What a link is for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discipline {
    /// The words behind `netem`. All are said each time: what a change leaves out stays as it was.
    pub(crate) netem: String,
    /// The words behind `tbf`, for a link with a rate.
    pub(crate) bucket: Option<String>,
}

impl Discipline {
    /// What `spec` is for the kernel.
    ///
    /// # Errors
    /// What netem cannot do.
    pub(crate) fn of(spec: &LinkSpec) -> Result<Self, Inexpressible> {
        check(spec)?;
        // A packet that is both lost and doubled passes netem, so a link that is cut doubles none.
        let dup = if spec.down { Chance::NEVER } else { spec.dup };
        let (delay, reorder) = delay(spec);
        let in_order = !spec.jitter.is_zero() && !spec.jitter_reorders;
        let rate = if in_order { IN_ORDER } else { "0bit" };
        let netem = format!(
            "limit {HELD_MAX} delay {} {} loss {} duplicate {dup} corrupt {}{reorder} rate {rate}",
            micros(delay),
            micros(spec.jitter),
            loss(spec),
            spec.corrupt,
        );
        let bucket = spec.rate_bps.map(|rate| bucket(spec, rate));
        Ok(Self { netem, bucket })
    }
}

fn check(spec: &LinkSpec) -> Result<(), Inexpressible> {
    let varies = !spec.jitter.is_zero();
    let has_rate = spec.rate_bps.is_some();
    if !spec.clump.is_zero() {
        return Err(Inexpressible::Clump);
    }
    if varies && has_rate {
        return Err(Inexpressible::JitterAndRate);
    }
    if spec.jitter > JITTER_MAX {
        return Err(Inexpressible::Jitter(spec.jitter));
    }
    if spec.reorder.is_some() && (!spec.delay.is_zero() || has_rate) {
        return Err(Inexpressible::Reorder);
    }
    let loses = spec.loss != Loss::Random(Chance::NEVER) || spec.corrupt != Chance::NEVER;
    if spec.dup != Chance::NEVER && (varies || has_rate || loses || spec.reorder.is_some()) {
        return Err(Inexpressible::Dup);
    }
    match spec.rate_bps {
        Some(rate) if rate < RATE_MIN => Err(Inexpressible::Rate(rate)),
        Some(_) if spec.queue_bytes() > u64::from(u32::MAX) => {
            Err(Inexpressible::Queue(spec.queue_bytes()))
        }
        _ => Ok(()),
    }
}

/// The delay of what is delayed, and which share is not: of a link without delay that holds some
/// packets back, all others are sent at once.
fn delay(spec: &LinkSpec) -> (Duration, String) {
    match spec.reorder {
        Some(Reorder { chance, late }) if !late.is_zero() => {
            let at_once = 100.0 - 100.0 * chance.as_f64();
            (late, format!(" reorder {at_once:.7}% gap 1"))
        }
        _ => (spec.delay, String::new()),
    }
}

fn loss(spec: &LinkSpec) -> String {
    match spec.loss {
        _ if spec.down => "random 100%".to_owned(),
        Loss::Random(chance) => format!("random {chance}"),
        Loss::GilbertElliott { to_bad, to_good, in_bad, in_good } => {
            format!("gemodel {to_bad} {to_good} {in_bad} {in_good}")
        }
    }
}

/// A bucket that is as full as one packet and what leaves while a timer is late. The packet on the
/// wire is part of the model's queue, and none of the kernel's.
fn bucket(spec: &LinkSpec, rate_bps: u64) -> String {
    let late = u128::from(rate_bps) * TIMER.as_nanos() / 8_000_000_000;
    let burst = u128::from(PACKET) + late;
    let limit = spec.queue_bytes().saturating_sub(PACKET).max(PACKET);
    format!("rate {rate_bps}bit burst {burst}b limit {limit}b")
}

/// Microseconds: the smallest unit that every `tc` reads.
fn micros(time: Duration) -> String {
    let (whole, nanos) = (time.as_micros(), time.as_nanos() % 1_000);
    if nanos == 0 { format!("{whole}us") } else { format!("{whole}.{nanos:03}us") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Result<Discipline, Inexpressible> {
        Discipline::of(&words.parse().unwrap())
    }

    /// The words behind `netem` between the limit and the rate, and those behind `tbf`.
    fn said(words: &str) -> (String, Option<String>) {
        let discipline = of(words).unwrap();
        let netem = discipline.netem.strip_prefix("limit 262144 ").unwrap();
        (netem.strip_suffix(" rate 0bit").unwrap_or(netem).to_owned(), discipline.bucket)
    }

    #[test]
    fn every_word_is_said_to_the_kernel() {
        let cases = [
            ("0ms", "delay 0us 0us loss random 0% duplicate 0% corrupt 0%"),
            ("20ms", "delay 20000us 0us loss random 0% duplicate 0% corrupt 0%"),
            ("1234567ns", "delay 1234.567us 0us loss random 0% duplicate 0% corrupt 0%"),
            ("20ms 1.5%-loss", "delay 20000us 0us loss random 1.5% duplicate 0% corrupt 0%"),
            (
                "20ms ge(0.1%,20%)-loss",
                "delay 20000us 0us loss gemodel 0.1% 20% 100% 0% duplicate 0% corrupt 0%",
            ),
            (
                "ge(0.1%,20%,50%,1%)-loss",
                "delay 0us 0us loss gemodel 0.1% 20% 50% 1% duplicate 0% corrupt 0%",
            ),
            ("20ms 2%-dup", "delay 20000us 0us loss random 0% duplicate 2% corrupt 0%"),
            ("0.01%-corrupt", "delay 0us 0us loss random 0% duplicate 0% corrupt 0.01%"),
            (
                "1%-reorder 2ms-late",
                "delay 2000us 0us loss random 0% duplicate 0% corrupt 0% reorder 99.0000000% gap 1",
            ),
            (
                "20ms 5ms-jitter jitter-reorders",
                "delay 20000us 5000us loss random 0% duplicate 0% corrupt 0%",
            ),
            (
                "20ms 5ms-jitter",
                "delay 20000us 5000us loss random 0% duplicate 0% corrupt 0% rate 1000000000000bit",
            ),
            ("20ms 2%-loss down", "delay 20000us 0us loss random 100% duplicate 0% corrupt 0%"),
            ("2%-dup down", "delay 0us 0us loss random 100% duplicate 0% corrupt 0%"),
        ];
        for (words, expected) in cases {
            assert_eq!(said(words), (expected.to_owned(), None), "{words}");
        }
    }

    #[test]
    fn a_rate_has_a_bucket_and_its_queue_is_in_bytes() {
        let cases = [
            // 1,514 + 500 us at the rate; 256 KiB less the packet on the wire.
            ("50Mbit 256KiB-queue", "rate 50000000bit burst 4639b limit 260630b"),
            // Without a word for it, the queue is 100 ms long.
            ("1Mbit", "rate 1000000bit burst 1576b limit 10986b"),
            ("1Gbit 10ms-queue", "rate 1000000000bit burst 64014b limit 1248486b"),
            // There is always room for one packet.
            ("10Mbit 100B-queue", "rate 10000000bit burst 2139b limit 1514b"),
        ];
        for (words, bucket) in cases {
            assert_eq!(said(words).1.as_deref(), Some(bucket), "{words}");
        }
        let (netem, bucket) = said("10ms 1%-loss 0.1%-corrupt 50Mbit 256KiB-queue");
        assert_eq!(netem, "delay 10000us 0us loss random 1% duplicate 0% corrupt 0.1%");
        assert!(bucket.is_some());
    }

    #[test]
    fn what_netem_cannot_do_is_refused() {
        let cases = [
            ("20ms 10ms-clump", Inexpressible::Clump),
            ("20ms 5ms-jitter 50Mbit", Inexpressible::JitterAndRate),
            ("20ms 5ms-jitter jitter-reorders 50Mbit", Inexpressible::JitterAndRate),
            ("3s 3s-jitter", Inexpressible::Jitter(Duration::from_secs(3))),
            ("20ms 1%-reorder 2ms-late", Inexpressible::Reorder),
            ("1%-reorder 2ms-late 50Mbit", Inexpressible::Reorder),
            ("1%-dup 1%-loss", Inexpressible::Dup),
            ("1%-dup 50Mbit", Inexpressible::Dup),
            ("20ms 5ms-jitter 1%-dup", Inexpressible::Dup),
            ("1%-dup 1%-corrupt", Inexpressible::Dup),
            ("999bit", Inexpressible::Rate(999)),
            ("1000Gbit 1s-queue", Inexpressible::Queue(125_000_000_000)),
        ];
        for (words, why) in cases {
            assert_eq!(of(words), Err(why), "{words}");
        }
    }
}
