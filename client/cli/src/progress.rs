//! Progress bars: one for the whole job and one for each node, folded when there are many.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shared::view::{NodeJobState, NodeProgress};

use crate::units::show_rate;

/// Bars of single nodes; further ones are folded into one line.
const ROWS_MAX: usize = 8;

/// The bars of one job, on standard error.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    rows: Vec<ProgressBar>,
    folded: Option<ProgressBar>,
}

impl Bars {
    /// Bars that show nothing yet. They show nothing at all where no terminal is.
    pub(crate) fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::no_length().with_style(style(BAR)).with_prefix("total"));
        Self { all, total, rows: Vec::new(), folded: None }
    }

    /// Shows where the job stands: `size` content bytes, `bytes` of them at the base.
    pub(crate) fn update(&mut self, size: Option<u64>, bytes: u64, nodes: &[NodeProgress]) {
        let size = size.unwrap_or(bytes);
        let count = nodes.len() as u64;
        self.total.set_length(size.saturating_mul(count));
        self.total.set_position(nodes.iter().map(|node| node.bytes).sum());
        let done = complete(nodes.iter());
        let at_base = bytes.saturating_mul(100).checked_div(size).unwrap_or(100);
        self.total.set_message(format!("{done} of {count} nodes complete, base {at_base} %"));
        let (shown, rest) = split(nodes);
        while self.rows.len() < shown.len() {
            self.rows.push(self.all.add(ProgressBar::new(size).with_style(style(BAR))));
        }
        for (bar, node) in self.rows.iter().zip(&shown) {
            bar.set_prefix(node.name.clone());
            bar.set_length(size);
            bar.set_position(node.bytes);
            bar.set_message(match node.state {
                NodeJobState::Receiving => show_rate(node.rate_bps),
                state => state.as_str().to_owned(),
            });
        }
        if !rest.is_empty() {
            let line = || self.all.add(ProgressBar::new_spinner().with_style(style("{msg}")));
            let folded = self.folded.get_or_insert_with(line);
            let done = complete(rest.iter().copied());
            folded
                .set_message(format!("and {} further nodes, {done} of them complete", rest.len()));
        }
    }

    /// Adds to each node's bar who feeds it.
    pub(crate) fn show_feeders(&self, feeders: &BTreeMap<String, String>) {
        for bar in &self.rows {
            if let Some(from) = feeders.get(&bar.prefix()).filter(|from| !from.is_empty()) {
                bar.set_message(format!("{}  from {from}", bar.message()));
            }
        }
    }

    /// Says a line above the bars.
    pub(crate) fn say(&self, act: impl FnOnce()) {
        self.all.suspend(act);
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        // A terminal that is gone needs no clearing.
        let _ = self.all.clear();
    }
}

const BAR: &str = "{prefix:>16.16} {bar:24} {binary_bytes:>11} of {binary_total_bytes:<11} {msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_wrong_template| ProgressStyle::default_bar())
        .progress_chars("##-")
}

fn complete<'a>(nodes: impl Iterator<Item = &'a NodeProgress>) -> usize {
    nodes.filter(|node| node.state == NodeJobState::Complete).count()
}

/// The nodes that get a bar, and the others. Where not all fit, those that are furthest
/// behind are shown, by name among equals.
fn split(nodes: &[NodeProgress]) -> (Vec<&NodeProgress>, Vec<&NodeProgress>) {
    let mut shown: Vec<&NodeProgress> = nodes.iter().collect();
    if shown.len() <= ROWS_MAX {
        return (shown, Vec::new());
    }
    let key = |node: &&NodeProgress| (node.state == NodeJobState::Complete, node.bytes);
    shown.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name)));
    let rest = shown.split_off(ROWS_MAX);
    (shown, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: usize, bytes: u64) -> NodeProgress {
        let state = if bytes == 100 { NodeJobState::Complete } else { NodeJobState::Receiving };
        NodeProgress { name: format!("n{name:02}"), state, bytes, rate_bps: 0 }
    }

    #[test]
    fn few_nodes_are_all_shown_and_of_many_those_behind() {
        let few: Vec<_> = (0..ROWS_MAX).map(|i| node(i, 100 - i as u64)).collect();
        let (shown, rest) = split(&few);
        assert_eq!((shown.len(), rest.len()), (ROWS_MAX, 0));
        assert_eq!(shown[0].name, "n00");
        let many: Vec<_> = (0..ROWS_MAX + 5).map(|i| node(i, 100 - i as u64)).collect();
        let (shown, rest) = split(&many);
        assert_eq!((shown.len(), rest.len()), (ROWS_MAX, 5));
        assert_eq!((shown[0].name.as_str(), rest[4].name.as_str()), ("n12", "n00"));
    }

    #[test]
    fn the_bars_follow_the_job() {
        let mut bars = Bars::new();
        bars.update(Some(100), 50, &[node(1, 100), node(2, 20)]);
        assert_eq!((bars.total.length(), bars.total.position()), (Some(200), 120));
        assert_eq!(bars.total.message(), "1 of 2 nodes complete, base 50 %");
        assert_eq!((bars.rows.len(), bars.folded.is_none()), (2, true));
        let many: Vec<_> = (0..20).map(|i| node(i, 0)).collect();
        bars.update(Some(0), 0, &many);
        assert_eq!(bars.folded.unwrap().message(), "and 12 further nodes, 0 of them complete");
    }
}
