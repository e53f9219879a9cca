//! Who feeds whom, for people.

use std::collections::BTreeMap;

use shared::view::{JobNodeView, JobView, NodeJobState, SourceView};

use crate::output::TextTable;
use crate::units::{show_rate_like, show_size};

/// Receivers of one source that are named; further ones are counted.
const NAMED_MAX: usize = 8;

/// Who feeds a node: while it receives at which rate, in the unit of its own; else which part of
/// what came each has brought.
pub(crate) fn feeders(node: &JobNodeView) -> String {
    let is_receiving = node.state == NodeJobState::Receiving && node.rate_bps > 0;
    if node.sources.is_empty() {
        return node.upstreams.join(", ");
    }
    let sum: u64 = node.sources.iter().map(|source| source.bytes).fold(0, u64::saturating_add);
    let feeder = |source: &SourceView| {
        let SourceView { name, bytes, rate_bps } = source;
        match is_receiving {
            true => format!("{name} {}", show_rate_like(*rate_bps, node.rate_bps)),
            false => format!("{name} {} %", percent(*bytes, sum)),
        }
    };
    let feeding = node.sources.iter().filter(|source| !is_receiving || source.rate_bps > 0);
    feeding.map(feeder).collect::<Vec<_>>().join(", ")
}

/// What part of `whole` is `part`, rounded down.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// Who gave whom how much; the base comes first.
pub(crate) fn givers(job: &JobView) -> TextTable<4> {
    let mut gave: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for node in &job.nodes {
        for source in &node.sources {
            gave.entry(&source.name).or_default().push((source.bytes, &node.name));
        }
    }
    let mut givers: Vec<_> = gave.into_iter().collect();
    givers.sort_by_key(|(name, _)| *name != "base");
    let mut table = TextTable::new(["SOURCE", "GAVE", "COPIES", "TO"]);
    for (name, mut receivers) in givers {
        receivers.sort_by(|(a, x), (b, y)| b.cmp(a).then(x.cmp(y)));
        let sum = receivers.iter().map(|(bytes, _)| *bytes).fold(0, u64::saturating_add);
        let copies = job.size.filter(|size| *size > 0).map(|size| {
            let hundredths = percent(sum, size);
            format!("{}.{:02}", hundredths / 100, hundredths % 100)
        });
        let named = receivers.iter().take(NAMED_MAX);
        let named = named.map(|(bytes, name)| format!("{name} {}", show_size(*bytes)));
        let more = receivers.len().saturating_sub(NAMED_MAX);
        let more = (more > 0).then(|| format!("and {more} more"));
        let to = named.chain(more).collect::<Vec<_>>().join(", ");
        table.row([name.to_owned(), show_size(sum), copies.unwrap_or_default(), to]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::view;

    fn source(name: &str, bytes: u64, rate_bps: u64) -> SourceView {
        SourceView { name: name.to_owned(), bytes, rate_bps }
    }

    #[test]
    fn a_node_that_receives_is_shown_with_rates_and_another_one_with_parts() {
        let mut node = view().nodes.remove(0);
        node.sources =
            vec![source("n2", 100, 9_140_000), source("base", 300, 3_000), source("n3", 1, 0)];
        assert_eq!(feeders(&node), "n2 24 %, base 74 %, n3 0 %");
        (node.state, node.rate_bps) = (NodeJobState::Receiving, 12_000_000);
        assert_eq!(feeders(&node), "n2 9.1, base 0.0");
        node.sources.clear();
        assert_eq!(feeders(&node), "base");
    }

    #[test]
    fn givers_are_shown_with_what_they_gave_to_whom() {
        let mut job = view();
        job.size = Some(1_000);
        job.nodes[0].sources = vec![source("base", 700, 0), source("a", 300, 0)];
        job.nodes[1].sources = vec![source("base", 800, 0), source("n1", 200, 0)];
        let lines: Vec<String> = givers(&job).lines().collect();
        assert_eq!(
            lines,
            [
                "SOURCE  GAVE     COPIES  TO",
                "base    1.5 KiB  1.50    n2 800 B, n1 700 B",
                "a       300 B    0.30    n1 300 B",
                "n1      200 B    0.20    n2 200 B",
            ]
        );
        let many = |n: usize| JobNodeView { name: format!("m{n:02}"), ..job.nodes[0].clone() };
        job.nodes = (0..20).map(many).collect();
        let lines: Vec<String> = givers(&job).lines().collect();
        assert!(lines[1].ends_with("m07 700 B, and 12 more"), "{lines:?}");
    }
}
