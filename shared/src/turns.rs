//! Whose turn it is where several jobs send: on an uplink, and on one connection.
//!
//! Whoever wants to send a piece claims a turn. Live streams come first, the one that waits
//! longest before the others: what they send is small, and worth nothing later. Files go by
//! priority, then by deadline, then to the job that has had least. So that nobody starves, every
//! fifth byte goes to the job that has had least for its weight, whatever else waits; weights are
//! priorities, from 1 to 10.
//!
//! What a job has had is counted from the moment at which it begins to wait (start-time fair
//! queueing: Goyal, Vin, Cheng, SIGCOMM 1996), so a job that comes does not make up for what it
//! never asked for.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use crate::id::JobId;
use crate::job::Kind;

/// Of five bytes, one goes by weight.
const BY_URGENCY_PER_FAIR: u64 = 4;
/// What may be owed to those that have had least: more is of no use to them.
const OWED_BYTES_MAX: u64 = 256 * 1024;
/// Jobs whose share is remembered though nothing of them waits.
const REMEMBERED_MAX: usize = 256;

/// What a turn is claimed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The job.
    pub job: JobId,
    /// Live streams before files.
    pub kind: Kind,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// When the job should be done, milliseconds since the Unix epoch, if it has a deadline.
    pub due_ms: Option<u64>,
    /// Bytes of the piece.
    pub bytes: u64,
}

/// Names a claim that waits; in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    number: u64,
    job: JobId,
}

/// Claims of one job that wait: the oldest is the next. They differ in their bytes alone.
type Claims = VecDeque<(Ticket, Claim)>;

/// Claims that wait, and what jobs have had. It holds as many claims as are made and neither
/// given a turn nor withdrawn; a turn looks at the oldest of each job.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    next: u64,
    /// Jobs of which something waits.
    waiting: BTreeMap<JobId, Claims>,
    /// What each job has had, bytes over its weight.
    had: BTreeMap<JobId, u64>,
    /// What the job has had that was served last by weight: others begin there.
    virtual_time: u64,
    /// Bytes that go by weight next.
    owed: u64,
    /// Whether live streams wait for nobody.
    live_alone: bool,
}

impl Turns {
    /// Turns where files may wait for as long as live streams have something to send: they can
    /// come another way.
    pub fn live_alone() -> Self {
        Self { live_alone: true, ..Self::default() }
    }

    /// Claims a turn.
    pub fn claim(&mut self, claim: Claim) -> Ticket {
        let ticket = Ticket { number: self.next, job: claim.job };
        self.next += 1;
        let claims = self.waiting.entry(claim.job).or_default();
        let is_first = claims.is_empty();
        claims.push_back((ticket, claim));
        if is_first {
            let had = self.had.entry(claim.job).or_insert(0);
            *had = (*had).max(self.virtual_time);
            self.forget();
        }
        ticket
    }

    /// The claim is not made any more.
    pub fn withdraw(&mut self, ticket: Ticket) {
        self.take(ticket);
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives the next turn, which counts as used.
    pub fn give(&mut self) -> Option<(Ticket, Claim)> {
        let urgent = self.most_urgent()?;
        let is_alone = self.live_alone && urgent.1.kind == Kind::Live;
        let fair = if is_alone { urgent } else { self.least_served()? };
        let is_owed = fair.0 != urgent.0 && self.owed >= fair.1.bytes;
        let (ticket, claim) = if is_owed { fair } else { urgent };
        self.take(ticket);
        let is_fair = ticket == fair.0;
        if is_fair {
            self.owed = self.owed.saturating_sub(claim.bytes);
        } else {
            let owed = self.owed.saturating_add(claim.bytes / BY_URGENCY_PER_FAIR);
            self.owed = owed.min(OWED_BYTES_MAX);
        }
        let had = self.had.entry(claim.job).or_insert(0);
        if is_fair {
            self.virtual_time = self.virtual_time.max(*had);
        }
        *had = had.saturating_add(claim.bytes / weight(&claim));
        Some((ticket, claim))
    }

    fn take(&mut self, ticket: Ticket) {
        if let Entry::Occupied(mut job) = self.waiting.entry(ticket.job) {
            let claims = job.get_mut();
            if let Ok(place) = claims.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
                claims.remove(place);
            }
            if job.get().is_empty() {
                job.remove();
            }
        }
    }

    /// The oldest claim of each job that waits.
    fn oldest(&self) -> impl Iterator<Item = (Ticket, Claim)> {
        self.waiting.values().filter_map(VecDeque::front).copied()
    }

    fn had(&self, claim: &Claim) -> u64 {
        self.had.get(&claim.job).copied().unwrap_or(self.virtual_time)
    }

    fn most_urgent(&self) -> Option<(Ticket, Claim)> {
        self.oldest().min_by_key(|(ticket, claim)| {
            let is_file = claim.kind == Kind::Files;
            let had = if is_file { self.had(claim) } else { 0 };
            let due = claim.due_ms.filter(|_| is_file).unwrap_or(u64::MAX);
            // Live streams do not wait for each other: none may starve on a connection.
            let priority = if is_file { claim.priority } else { 0 };
            (is_file, Reverse(priority), due, had, *ticket)
        })
    }

    fn least_served(&self) -> Option<(Ticket, Claim)> {
        self.oldest().min_by_key(|(ticket, claim)| (self.had(claim), *ticket))
    }

    /// Drops what is known of jobs of which nothing waits, if that is many.
    fn forget(&mut self) {
        if self.had.len() > self.waiting.len() + REMEMBERED_MAX {
            self.had.retain(|job, _| self.waiting.contains_key(job));
        }
    }
}

fn weight(claim: &Claim) -> u64 {
    u64::from(claim.priority) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 16 * 1024;

    fn files(number: u8, priority: u8) -> Claim {
        let job = JobId([number; 16]);
        Claim { job, kind: Kind::Files, priority, due_ms: None, bytes: PIECE }
    }

    fn live(number: u8) -> Claim {
        Claim { kind: Kind::Live, ..files(number, 5) }
    }

    /// Gives `count` turns among claims that are made anew as soon as they are served; how many
    /// each has had.
    fn served<const N: usize>(turns: &mut Turns, claims: [Claim; N], count: usize) -> [usize; N] {
        let mut tickets = claims.map(|claim| turns.claim(claim));
        let mut had = [0; N];
        for _ in 0..count {
            let (ticket, claim) = turns.give().unwrap();
            let at = tickets.iter().position(|other| *other == ticket).unwrap();
            had[at] += 1;
            tickets[at] = turns.claim(claim);
        }
        tickets.into_iter().for_each(|ticket| turns.withdraw(ticket));
        had
    }

    #[test]
    fn a_live_stream_goes_first_and_files_get_a_fifth() {
        let mut turns = Turns::default();
        assert_eq!(served(&mut turns, [files(1, 9), live(2)], 1_000), [200, 800]);
        let mut turns = Turns::live_alone();
        assert_eq!(served(&mut turns, [files(1, 9), live(2)], 1_000), [0, 1_000]);
        turns.claim(files(1, 9));
        let first = turns.claim(live(2));
        turns.claim(Claim { priority: 9, ..live(3) });
        assert_eq!(turns.give().unwrap().0, first, "who waits longest");
    }

    #[test]
    fn equal_jobs_have_equal_parts_whatever_the_number_of_their_claims() {
        let mut turns = Turns::default();
        let had = served(&mut turns, [files(1, 5), files(1, 5), files(1, 5), files(2, 5)], 1_000);
        assert!(had[3].abs_diff(500) <= 2, "{had:?}");
    }

    #[test]
    fn the_higher_priority_and_the_earlier_deadline_have_four_fifths() {
        let mut turns = Turns::default();
        let had = served(&mut turns, [files(1, 9), files(2, 0)], 1_100);
        assert!(had[0] > 800 && had[1] >= 90, "{had:?}");
        let due = |number, due_ms| Claim { due_ms: Some(due_ms), ..files(number, 5) };
        let mut turns = Turns::default();
        let had = served(&mut turns, [due(1, 2_000), due(2, 1_000), files(3, 5)], 1_000);
        assert!(had[1] >= 800 && had[0] >= 95 && had[2] >= 95, "{had:?}");
    }

    #[test]
    fn by_weight_goes_what_is_owed() {
        let mut turns = Turns::default();
        let had = served(&mut turns, [live(1), files(2, 8), files(3, 2)], 10_000);
        assert!(had[0].abs_diff(8_000) <= 10, "{had:?}");
        assert!(had[1].abs_diff(3 * had[2]) <= 10, "{had:?}");
    }

    #[test]
    fn who_comes_does_not_make_up_for_what_it_never_asked_for() {
        let mut turns = Turns::default();
        served(&mut turns, [files(1, 5)], 10_000);
        let had = served(&mut turns, [files(1, 5), files(2, 5)], 100);
        assert!(had[0].abs_diff(had[1]) <= 2, "{had:?}");
    }

    /// Gives all turns that are waited for.
    fn rest(turns: &mut Turns) -> Vec<(Ticket, u64)> {
        let given = std::iter::from_fn(|| turns.give());
        given.map(|(ticket, claim)| (ticket, claim.bytes)).collect()
    }

    #[test]
    fn claims_of_one_job_are_served_in_their_order_whatever_their_bytes() {
        let mut turns = Turns::default();
        let bytes = [PIECE, 1, 3 * PIECE, 7, PIECE];
        let made = bytes.map(|bytes| (turns.claim(Claim { bytes, ..files(1, 5) }), bytes));
        turns.claim(files(2, 9));
        let given = rest(&mut turns);
        let other = |(ticket, _): &&(Ticket, u64)| made.iter().all(|(own, _)| own != ticket);
        assert_eq!(given.iter().position(|given| other(&given)), Some(0), "priority");
        assert_eq!(given.get(1..), Some(&made[..]));
    }

    #[test]
    fn a_claim_in_the_middle_is_withdrawn_and_the_others_keep_their_places() {
        let mut turns = Turns::default();
        let made = [1, 2, 3, 4].map(|bytes| (turns.claim(Claim { bytes, ..files(1, 5) }), bytes));
        turns.withdraw(made[1].0);
        assert_eq!(turns.give().map(|(ticket, _)| ticket), Some(made[0].0));
        // Whoever has had its turn withdraws too.
        turns.withdraw(made[0].0);
        turns.withdraw(made[1].0);
        assert_eq!(rest(&mut turns), [made[2], made[3]]);
        assert!(turns.is_empty() && turns.waiting.is_empty());
    }

    #[test]
    fn what_is_withdrawn_gets_no_turn_and_jobs_are_forgotten() {
        let mut turns = Turns::default();
        let gone = turns.claim(files(1, 5));
        let other = turns.claim(files(2, 5));
        turns.withdraw(gone);
        assert_eq!(turns.give().unwrap().0, other);
        assert!(turns.give().is_none() && turns.is_empty());
        for round in 0..20_u8 {
            for number in 0..=255 {
                let claim = Claim { bytes: u64::from(round) + PIECE, ..files(number, 5) };
                let job = JobId([number, round, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                turns.claim(Claim { job, ..claim });
                turns.give().unwrap();
            }
        }
        assert!(turns.had.len() <= REMEMBERED_MAX + 1, "{}", turns.had.len());
    }
}
