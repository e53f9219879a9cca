//! The words that describe a link, and their parser.

use std::{fmt, str::FromStr, time::Duration};

/// Longest delay, jitter, lateness or queue that a spec may name.
const MAX_TIME: Duration = Duration::from_secs(60);
/// Fastest link that a spec may name, bit/s.
const MAX_RATE_BPS: u64 = 1_000_000_000_000;
/// Largest queue that a spec may name, bytes.
const MAX_QUEUE_BYTES: u64 = 1 << 30;
/// Queue of a link that has a rate and no word for its queue.
const DEFAULT_QUEUE: Queue = Queue::Time(Duration::from_millis(100));

/// The words that a spec may hold, as the error for an unknown one shows them.
const KNOWN_WORDS: &str = "40ms (one-way delay), 5ms-jitter, jitter-reorders, 10ms-clump, 1%-loss, \
     ge(0.1%,20%)-loss, 0.1%-dup, 1%-reorder 2ms-late, 0.01%-corrupt, 50Mbit, 256KiB-queue, \
     100ms-queue, down";

/// A probability, exact to one in 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance {
    billionths: u64,
}

impl Chance {
    /// Certainty.
    pub const ALWAYS: Self = Self { billionths: 1_000_000_000 };
    /// Impossibility.
    pub const NEVER: Self = Self { billionths: 0 };

    /// Whether the event happens, for a number drawn evenly from all of `u64`.
    #[must_use]
    pub fn hits(self, draw: u64) -> bool {
        let point = (u128::from(draw) * u128::from(Self::ALWAYS.billionths)) >> 64;
        point < u128::from(self.billionths)
    }

    /// That this happens, or `other`, which does not depend on it.
    fn or(self, other: Self) -> Self {
        let always = Self::ALWAYS.billionths;
        let neither = (always - self.billionths) * (always - other.billionths) / always;
        Self { billionths: always - neither }
    }

    /// The probability, 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 10^9, exact in an f64")]
    pub fn as_f64(self) -> f64 {
        self.billionths as f64 / 1e9
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PER_PERCENT: u64 = 10_000_000;
        let fraction = format!("{:07}", self.billionths % PER_PERCENT);
        write!(f, "{}", self.billionths / PER_PERCENT)?;
        match fraction.trim_end_matches('0') {
            "" => f.write_str("%"),
            digits => write!(f, ".{digits}%"),
        }
    }
}

/// How packets are lost at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each packet by itself.
    Random(Chance),
    /// In bursts: a good and a bad state, changed per packet, each with its own loss.
    GilbertElliott {
        /// From good to bad.
        to_bad: Chance,
        /// From bad to good; the mean burst is its inverse.
        to_good: Chance,
        /// Loss in the bad state.
        in_bad: Chance,
        /// Loss in the good state.
        in_good: Chance,
    },
}

impl Loss {
    fn then(self, next: Self) -> Self {
        match (self, next) {
            (Self::Random(one), Self::Random(other)) => Self::Random(one.or(other)),
            (Self::Random(Chance::NEVER), bursts) => bursts,
            (Self::GilbertElliott { to_bad, to_good, in_bad, in_good }, Self::Random(other)) => {
                let (in_bad, in_good) = (in_bad.or(other), in_good.or(other));
                Self::GilbertElliott { to_bad, to_good, in_bad, in_good }
            }
            (one @ Self::Random(_), other) => other.then(one),
            (
                Self::GilbertElliott { to_bad, to_good, in_bad, in_good },
                Self::GilbertElliott { to_bad: also, in_good: other, .. },
            ) => {
                let (to_bad, in_good) = (to_bad.or(also), in_good.or(other));
                Self::GilbertElliott { to_bad, to_good, in_bad, in_good }
            }
        }
    }
}

/// Room of the drop-tail queue before the link's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// In bytes.
    Bytes(u64),
    /// In time at the link's rate.
    Time(Duration),
}

/// Packets held back, so that later ones overtake them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reorder {
    /// How many.
    pub chance: Chance,
    /// By how much.
    pub late: Duration,
}

/// What a link is like. Parsed from words such as
/// `40ms 5ms-jitter 1%-loss 50Mbit 256KiB-queue`, in any order, each at most once; [`Display`]
/// writes words that parse back to the same value.
///
/// Units: `ns us ms s`, `bit Kbit Mbit Gbit` (powers of 1,000, per second), `B KiB MiB GiB`, `%`.
/// The default is a link without delay, loss or limit.
///
/// [`Display`]: fmt::Display
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// One-way delay, up to 60 s.
    pub delay: Duration,
    /// Largest deviation from the delay, at most the delay itself.
    pub jitter: Duration,
    /// Whether jitter may change the order of packets.
    pub jitter_reorders: bool,
    /// Packets arrive at multiples of this time only, as over a shared medium that grants turns;
    /// zero if they come as they are.
    pub clump: Duration,
    /// Random loss.
    pub loss: Loss,
    /// Packets that arrive twice.
    pub dup: Chance,
    /// Packets that are held back.
    pub reorder: Option<Reorder>,
    /// Packets in which one bit is flipped.
    pub corrupt: Chance,
    /// Rate in bit/s of IP packets; without one, the link has no limit and no queue.
    pub rate_bps: Option<u64>,
    /// Queue; without one, 100 ms at the rate.
    pub queue: Option<Queue>,
    /// Whether the link drops everything.
    pub down: bool,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            jitter_reorders: false,
            clump: Duration::ZERO,
            loss: Loss::Random(Chance::NEVER),
            dup: Chance::NEVER,
            reorder: None,
            corrupt: Chance::NEVER,
            rate_bps: None,
            queue: None,
            down: false,
        }
    }
}

impl LinkSpec {
    /// Room of the queue in bytes; [`u64::MAX`] for a link without a rate, which needs none.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        match (self.rate_bps, self.queue.unwrap_or(DEFAULT_QUEUE)) {
            (None, _) => u64::MAX,
            (Some(_), Queue::Bytes(bytes)) => bytes,
            (Some(rate), Queue::Time(time)) => super::bytes_in(time, rate),
        }
    }

    /// This link with `next` behind it, as one link. Of two that lose in bursts the bursts are as
    /// long as this one's, and as many as those of both; of two rates the slower one is kept, with
    /// its queue.
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        let narrow = match (self.rate_bps, next.rate_bps) {
            (Some(rate), Some(then)) if then < rate => next,
            (None, _) => next,
            (Some(_), _) => self,
        };
        Self {
            delay: self.delay + next.delay,
            jitter: self.jitter + next.jitter,
            jitter_reorders: self.jitter_reorders || next.jitter_reorders,
            clump: self.clump.max(next.clump),
            loss: self.loss.then(next.loss),
            dup: self.dup.or(next.dup),
            reorder: self.reorder.or(next.reorder),
            corrupt: self.corrupt.or(next.corrupt),
            rate_bps: narrow.rate_bps,
            queue: narrow.queue,
            down: self.down || next.down,
        }
    }
}

/// Why a link's description is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkSpecError {
    /// Nothing was said.
    #[error("the link description is empty; known words: {KNOWN_WORDS}")]
    Empty,
    /// A word that means nothing.
    #[error("unknown link word `{word}`; known words: {KNOWN_WORDS}")]
    UnknownWord {
        /// The word.
        word: String,
    },
    /// A known word with a value that it cannot have.
    #[error("link word `{word}` needs {needs}")]
    BadValue {
        /// The word.
        word: String,
        /// What would be valid.
        needs: &'static str,
    },
    /// The same thing said twice.
    #[error("link word `{word}` says again what an earlier word said; give it once")]
    Repeated {
        /// The second word.
        word: String,
    },
    /// A word that means nothing without another.
    #[error("link word `{word}` needs {needs} beside it")]
    Incomplete {
        /// The word.
        word: &'static str,
        /// What is missing.
        needs: &'static str,
    },
}

impl FromStr for LinkSpec {
    type Err = LinkSpecError;

    fn from_str(text: &str) -> Result<Self, LinkSpecError> {
        let mut words = Words::default();
        for word in text.split_whitespace() {
            words.take(word)?;
        }
        if words == Words::default() {
            return Err(LinkSpecError::Empty);
        }
        words.finish()
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Time(self.delay))?;
        if !self.jitter.is_zero() {
            write!(f, " {}-jitter", Time(self.jitter))?;
        }
        if self.jitter_reorders {
            f.write_str(" jitter-reorders")?;
        }
        if !self.clump.is_zero() {
            write!(f, " {}-clump", Time(self.clump))?;
        }
        write_loss(f, self.loss)?;
        if self.dup != Chance::NEVER {
            write!(f, " {}-dup", self.dup)?;
        }
        if let Some(Reorder { chance, late }) = self.reorder {
            write!(f, " {chance}-reorder {}-late", Time(late))?;
        }
        if self.corrupt != Chance::NEVER {
            write!(f, " {}-corrupt", self.corrupt)?;
        }
        if let Some(rate) = self.rate_bps {
            write!(f, " {}", Scaled(rate, RATE_UNITS))?;
        }
        match self.queue {
            None => {}
            Some(Queue::Bytes(bytes)) => write!(f, " {}-queue", Scaled(bytes, SIZE_UNITS))?,
            Some(Queue::Time(time)) => write!(f, " {}-queue", Time(time))?,
        }
        if self.down { f.write_str(" down") } else { Ok(()) }
    }
}

fn write_loss(f: &mut fmt::Formatter<'_>, loss: Loss) -> fmt::Result {
    match loss {
        Loss::Random(Chance::NEVER) => Ok(()),
        Loss::Random(chance) => write!(f, " {chance}-loss"),
        Loss::GilbertElliott { to_bad, to_good, in_bad, in_good } => {
            write!(f, " ge({to_bad},{to_good}")?;
            if in_bad != Chance::ALWAYS || in_good != Chance::NEVER {
                write!(f, ",{in_bad},{in_good}")?;
            }
            f.write_str(")-loss")
        }
    }
}

type Unit = (&'static str, u64);
const TIME_UNITS: &[Unit] = &[("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];
const RATE_UNITS: &[Unit] =
    &[("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("Kbit", 1_000), ("bit", 1)];
const SIZE_UNITS: &[Unit] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A whole number in the largest unit that holds it exactly.
struct Scaled(u64, &'static [Unit]);

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = self.1.iter().find(|(_, size)| self.0.is_multiple_of(*size));
        match exact {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Milliseconds are how people speak of links; seconds would be larger but stranger.
        let units = TIME_UNITS.get(1..).unwrap_or(TIME_UNITS);
        Scaled(super::nanos(self.0), units).fmt(f)
    }
}

/// What the words read so far have said.
#[derive(Default, PartialEq)]
struct Words {
    delay: Option<Duration>,
    jitter: Option<Duration>,
    jitter_reorders: Option<()>,
    clump: Option<Duration>,
    loss: Option<Loss>,
    dup: Option<Chance>,
    reorder: Option<Chance>,
    late: Option<Duration>,
    corrupt: Option<Chance>,
    rate_bps: Option<u64>,
    queue: Option<Queue>,
    down: Option<()>,
}

impl Words {
    fn take(&mut self, word: &str) -> Result<(), LinkSpecError> {
        match word.rsplit_once('-') {
            None if word == "down" => set(&mut self.down, (), word),
            None if has_unit(word, RATE_UNITS) => set(&mut self.rate_bps, rate(word)?, word),
            None if has_unit(word, TIME_UNITS) => set(&mut self.delay, time(word, word)?, word),
            Some(("jitter", "reorders")) => set(&mut self.jitter_reorders, (), word),
            Some((value, "jitter")) => set(&mut self.jitter, time(value, word)?, word),
            Some((value, "clump")) => set(&mut self.clump, time(value, word)?, word),
            Some((value, "late")) => set(&mut self.late, time(value, word)?, word),
            Some((value, "loss")) => set(&mut self.loss, loss(value, word)?, word),
            Some((value, "dup")) => set(&mut self.dup, chance(value, word)?, word),
            Some((value, "reorder")) => set(&mut self.reorder, chance(value, word)?, word),
            Some((value, "corrupt")) => set(&mut self.corrupt, chance(value, word)?, word),
            Some((value, "queue")) => set(&mut self.queue, queue(value, word)?, word),
            None | Some(_) => Err(LinkSpecError::UnknownWord { word: word.to_owned() }),
        }
    }

    fn finish(self) -> Result<LinkSpec, LinkSpecError> {
        let delay = self.delay.unwrap_or_default();
        let jitter = self.jitter.unwrap_or_default();
        let incomplete = |word, needs| Err(LinkSpecError::Incomplete { word, needs });
        if jitter > delay {
            return incomplete("jitter", "a delay that is not smaller");
        }
        if self.jitter_reorders.is_some() && jitter.is_zero() {
            return incomplete("jitter-reorders", "a jitter such as `5ms-jitter`");
        }
        if self.queue.is_some() && self.rate_bps.is_none() {
            return incomplete("queue", "a rate such as `50Mbit`");
        }
        let reorder = match (self.reorder, self.late) {
            (None, None) => None,
            (Some(chance), Some(late)) => Some(Reorder { chance, late }),
            (Some(_), None) => return incomplete("reorder", "a time such as `2ms-late`"),
            (None, Some(_)) => return incomplete("late", "a share such as `1%-reorder`"),
        };
        Ok(LinkSpec {
            delay,
            jitter,
            jitter_reorders: self.jitter_reorders.is_some(),
            clump: self.clump.unwrap_or_default(),
            loss: self.loss.unwrap_or(Loss::Random(Chance::NEVER)),
            dup: self.dup.unwrap_or_default(),
            reorder,
            corrupt: self.corrupt.unwrap_or_default(),
            rate_bps: self.rate_bps,
            queue: self.queue,
            down: self.down.is_some(),
        })
    }
}

fn set<T>(slot: &mut Option<T>, value: T, word: &str) -> Result<(), LinkSpecError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(LinkSpecError::Repeated { word: word.to_owned() }),
    }
}

fn has_unit(word: &str, units: &[Unit]) -> bool {
    let unit = split_unit(word).1;
    units.iter().any(|(name, _)| *name == unit)
}

fn time(value: &str, word: &str) -> Result<Duration, LinkSpecError> {
    let limit = super::nanos(MAX_TIME);
    let nanos = quantity(value, TIME_UNITS, limit)
        .ok_or_else(|| bad(word, "a time of whole nanoseconds up to 60 s, such as `40ms`"))?;
    Ok(Duration::from_nanos(nanos))
}

fn rate(word: &str) -> Result<u64, LinkSpecError> {
    quantity(word, RATE_UNITS, MAX_RATE_BPS)
        .filter(|rate| *rate > 0)
        .ok_or_else(|| bad(word, "a rate from 1bit to 1000Gbit, such as `50Mbit`"))
}

fn queue(value: &str, word: &str) -> Result<Queue, LinkSpecError> {
    if let Some(bytes) = quantity(value, SIZE_UNITS, MAX_QUEUE_BYTES) {
        return Ok(Queue::Bytes(bytes));
    }
    quantity(value, TIME_UNITS, super::nanos(MAX_TIME))
        .map(|nanos| Queue::Time(Duration::from_nanos(nanos)))
        .ok_or_else(|| bad(word, "a size up to 1GiB or a time up to 60s, such as `256KiB-queue`"))
}

fn loss(value: &str, word: &str) -> Result<Loss, LinkSpecError> {
    let Some(burst) = value.strip_prefix("ge(").and_then(|rest| rest.strip_suffix(')')) else {
        return chance(value, word).map(Loss::Random);
    };
    let chances: Result<Vec<_>, _> = burst.split(',').map(|part| chance(part, word)).collect();
    let (to_bad, to_good, in_bad, in_good) = match chances?.as_slice() {
        [to_bad, to_good] => (*to_bad, *to_good, Chance::ALWAYS, Chance::NEVER),
        [to_bad, to_good, in_bad] => (*to_bad, *to_good, *in_bad, Chance::NEVER),
        [to_bad, to_good, in_bad, in_good] => (*to_bad, *to_good, *in_bad, *in_good),
        _ => {
            return Err(bad(word, "two to four percentages, such as `ge(0.1%,20%)-loss`"));
        }
    };
    Ok(Loss::GilbertElliott { to_bad, to_good, in_bad, in_good })
}

fn chance(value: &str, word: &str) -> Result<Chance, LinkSpecError> {
    const PERCENT: &[Unit] = &[("%", 10_000_000)];
    quantity(value, PERCENT, Chance::ALWAYS.billionths)
        .map(|billionths| Chance { billionths })
        .ok_or_else(|| bad(word, "a percentage from 0% to 100%, in steps of 0.0000001%"))
}

fn bad(word: &str, needs: &'static str) -> LinkSpecError {
    LinkSpecError::BadValue { word: word.to_owned(), needs }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// A decimal number with one of `units`, as a whole count of the smallest unit; `None` if it is
/// not one, not whole, or above `limit`.
fn quantity(text: &str, units: &[Unit], limit: u64) -> Option<u64> {
    const FRACTION_DIGITS: u32 = 9;
    let (number, unit) = split_unit(text);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    let missing = FRACTION_DIGITS.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    let billion = 10_u128.pow(FRACTION_DIGITS);
    let below = match fraction {
        "" => 0,
        digits => u128::from(digits.parse::<u64>().ok()?) * 10_u128.pow(missing),
    };
    let scaled = (u128::from(whole.parse::<u64>().ok()?) * billion + below) * u128::from(*size);
    let value = u64::try_from(scaled / billion).ok()?;
    (scaled.is_multiple_of(billion) && value <= limit).then_some(value)
}
