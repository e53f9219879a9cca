//! How late packets were handed over, as a histogram.

use std::time::Duration;

use serde::Serialize;

/// Buckets of 10 us; the last one takes all that is later.
const STEP_MICROS: u128 = 10;
const BUCKETS: usize = 10_000;

/// Counts of packets by how much later than due they were handed over.
#[derive(Clone, Debug)]
pub(crate) struct Lateness {
    buckets: Vec<u64>,
    count: u64,
    most: Duration,
}

/// Percentiles of lateness, microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct LatenessReport {
    /// Packets counted.
    pub(crate) packets: u64,
    /// Half of them were not later than this.
    pub(crate) p50_us: u64,
    /// 99 of 100 were not.
    pub(crate) p99_us: u64,
    /// None was.
    pub(crate) max_us: u64,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, most: Duration::ZERO }
    }
}

impl Lateness {
    pub(crate) fn add(&mut self, late: Duration) {
        let at = usize::try_from(late.as_micros() / STEP_MICROS).unwrap_or(usize::MAX);
        if let Some(bucket) = self.buckets.get_mut(at.min(BUCKETS - 1)) {
            *bucket += 1;
        }
        self.count += 1;
        self.most = self.most.max(late);
    }

    pub(crate) fn report(&self) -> LatenessReport {
        LatenessReport {
            packets: self.count,
            p50_us: self.percentile(50),
            p99_us: self.percentile(99),
            max_us: u64::try_from(self.most.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Upper edge of the bucket in which the percentile lies.
    fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return (u64::try_from(at).unwrap_or(u64::MAX) + 1) * 10;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.report().p99_us, 0);
        for late in 1..=100 {
            lateness.add(Duration::from_micros(late * 100 - 1));
        }
        let report = lateness.report();
        assert_eq!((report.packets, report.p50_us, report.p99_us), (100, 5_000, 9_900));
        assert_eq!(report.max_us, 9_999);
    }
}
