//! What the kernel counts for each link, as `tc` and `ip` tell it in JSON. Pure.
//!
//! netem counts what it has passed on, and in one number all that it dropped: at random, cut, and
//! by the queue behind it. That queue counts its own. So random loss is the difference, and it is
//! told from loss by a cut by when it happened.

use std::collections::BTreeMap;

use distributary_tests::link::LinkCounters;
use serde::Deserialize;

/// One queueing discipline of `tc -s -j qdisc`; what is not named here is passed over.
#[derive(Debug, Deserialize)]
struct Qdisc {
    kind: String,
    #[serde(default)]
    dev: String,
    #[serde(default)]
    root: bool,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    packets: u64,
    #[serde(default)]
    drops: u64,
}

/// What one link's disciplines have counted since they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    passed: u64,
    passed_bytes: u64,
    /// Those that the queue dropped included.
    dropped: u64,
    queue_dropped: u64,
}

/// What the links have counted, by device, from `tc -s -j qdisc show`.
///
/// # Errors
/// Text that is not what `tc` prints.
pub(crate) fn readings(json: &str) -> serde_json::Result<BTreeMap<String, Reading>> {
    let qdiscs: Vec<Qdisc> = serde_json::from_str(json)?;
    let mut readings: BTreeMap<String, Reading> = BTreeMap::new();
    for qdisc in qdiscs {
        match qdisc.kind.as_str() {
            "netem" if qdisc.root => {
                let reading = readings.entry(qdisc.dev).or_default();
                reading.passed = qdisc.packets;
                reading.passed_bytes = qdisc.bytes;
                reading.dropped = qdisc.drops;
            }
            "tbf" if !qdisc.root => {
                readings.entry(qdisc.dev).or_default().queue_dropped = qdisc.drops;
            }
            _ => {}
        }
    }
    Ok(readings)
}

/// One device of `ip -s -j link`.
#[derive(Debug, Deserialize)]
struct Device {
    stats64: Option<Stats>,
}

#[derive(Debug, Deserialize)]
struct Stats {
    rx: Direction,
    tx: Direction,
}

#[derive(Debug, Deserialize)]
struct Direction {
    #[serde(default)]
    dropped: u64,
}

/// Packets that devices dropped on their own, outside of the links, from `ip -s -j link show`.
///
/// # Errors
/// Text that is not what `ip` prints.
pub(crate) fn device_drops(json: &str) -> serde_json::Result<u64> {
    let devices: Vec<Device> = serde_json::from_str(json)?;
    let stats = devices.iter().filter_map(|device| device.stats64.as_ref());
    Ok(stats.map(|stats| stats.rx.dropped + stats.tx.dropped).sum())
}

/// What a link has done, over all its changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    last: Reading,
    counters: LinkCounters,
}

impl Tally {
    /// Takes up what the link has counted since it was last read, all that time `down` or not.
    pub(crate) fn take(&mut self, reading: Reading, down: bool) {
        let last = self.last;
        let queue_dropped = since(last.queue_dropped, reading.queue_dropped);
        let lost = since(last.dropped, reading.dropped).saturating_sub(queue_dropped);
        let counters = &mut self.counters;
        counters.delivered += since(last.passed, reading.passed);
        counters.delivered_bytes += since(last.passed_bytes, reading.passed_bytes);
        counters.queue_dropped += queue_dropped;
        let chance = if down { &mut counters.down_dropped } else { &mut counters.lost };
        *chance += lost;
        self.last = reading;
    }

    /// What it has done. What is under way is not offered yet, copies count as delivered, and the
    /// bytes of what was dropped are unknown.
    pub(crate) fn counters(&self) -> LinkCounters {
        let LinkCounters { delivered, lost, queue_dropped, down_dropped, .. } = self.counters;
        let offered = delivered + lost + queue_dropped + down_dropped;
        let offered_bytes = self.counters.delivered_bytes;
        LinkCounters { offered, offered_bytes, ..self.counters }
    }
}

/// What was counted since `last`; a counter that is lower belongs to a queue that was made anew.
fn since(last: u64, now: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `tc` 6.1 prints devices without links and a bucket; what it prints of netem is from its
    /// source, `tc/q_netem.c`.
    const QDISCS: &str = r#"[
{"kind":"noqueue","handle":"0:","dev":"lo","root":true,"refcnt":2,"options":{},"bytes":0,"packets":0,"drops":0,"overlimits":0,"requeues":0,"backlog":0,"qlen":0},
{"kind":"noqueue","handle":"0:","dev":"v0","root":true,"refcnt":2,"options":{},"bytes":0,"packets":0,"drops":0,"overlimits":0,"requeues":0,"backlog":0,"qlen":0},
{"kind":"netem","handle":"1:","dev":"u0","root":true,"refcnt":3,"options":{"limit":262144,"delay":{"delay":0,"jitter":0,"correlation":0},"ecn":false,"gap":0},"bytes":153500,"packets":125,"drops":37,"overlimits":0,"requeues":0,"backlog":14736,"qlen":12},
{"kind":"tbf","handle":"10:","dev":"u0","parent":"1:1","options":{"rate":1250000,"burst":2139,"lat":10789},"bytes":153500,"packets":125,"drops":30,"overlimits":71,"requeues":0,"backlog":14736,"qlen":12},
{"kind":"netem","handle":"1:","dev":"p0-1","root":true,"refcnt":3,"options":{"limit":262144,"delay":{"delay":0.02,"jitter":0,"correlation":0},"loss-random":{"loss":0.01,"correlation":0},"ecn":false,"gap":0},"bytes":121572,"packets":99,"drops":1,"overlimits":0,"requeues":0,"backlog":0,"qlen":0}]"#;

    #[test]
    fn each_link_is_read_from_its_device() {
        let readings = readings(QDISCS).unwrap();
        let up = Reading { passed: 125, passed_bytes: 153_500, dropped: 37, queue_dropped: 30 };
        let path = Reading { passed: 99, passed_bytes: 121_572, dropped: 1, queue_dropped: 0 };
        let expected = [("p0-1".to_owned(), path), ("u0".to_owned(), up)];
        assert_eq!(readings, BTreeMap::from(expected));
        assert!(super::readings("Error").is_err());
        assert!(super::readings("[]").unwrap().is_empty());
    }

    #[test]
    fn drops_of_devices_are_summed() {
        let json = r#"[{"ifindex":1,"ifname":"lo"},
{"ifindex":5,"link":"v0","ifname":"u0","flags":["BROADCAST","MULTICAST","NOARP","UP","LOWER_UP"],"mtu":1500,"qdisc":"tbf","operstate":"UP","stats64":{"rx":{"bytes":0,"packets":0,"errors":0,"dropped":2,"over_errors":0,"multicast":0},"tx":{"bytes":200982,"packets":121,"errors":0,"dropped":1,"carrier_errors":0,"collisions":0}}}]"#;
        assert_eq!(device_drops(json).unwrap(), 3);
        assert!(device_drops("{}").is_err());
    }

    #[test]
    fn loss_is_what_the_queue_did_not_drop_and_a_cut_is_told_by_its_time() {
        let mut tally = Tally::default();
        let up = Reading { passed: 10, passed_bytes: 1_000, dropped: 5, queue_dropped: 3 };
        tally.take(up, false);
        tally.take(Reading { passed: 11, passed_bytes: 1_100, dropped: 25, ..up }, true);
        let counters = tally.counters();
        assert_eq!((counters.delivered, counters.delivered_bytes), (11, 1_100));
        assert_eq!((counters.lost, counters.queue_dropped, counters.down_dropped), (2, 3, 20));
        assert_eq!(counters.offered, 36);
    }

    #[test]
    fn a_queue_that_was_made_anew_begins_at_zero() {
        let mut tally = Tally::default();
        tally.take(Reading { dropped: 7, queue_dropped: 7, ..Reading::default() }, false);
        // Its bucket was removed and made again; netem has gone on counting.
        tally.take(Reading { dropped: 9, queue_dropped: 2, ..Reading::default() }, false);
        assert_eq!((tally.counters().queue_dropped, tally.counters().lost), (9, 0));
    }
}
