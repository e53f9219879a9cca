//! `nodes`, `nodes forget` and `nodes label`.

use shared::view::{NodeInfo, NodeState};
use shared::wire::request::{Reply, Request};

use crate::args::{NodesArgs, NodesCommand};
use crate::exit::{Exit, Failure};
use crate::json::{Done, Nodes};
use crate::output::{self, TextTable};
use crate::session;

/// Runs `nodes`.
///
/// # Errors
/// [`Failure`] if the base is not reached or refuses.
pub(crate) fn run(args: NodesArgs) -> Result<Exit, Failure> {
    let NodesArgs { command, contact, json } = args;
    let (request, done) = match command {
        None => (Request::Nodes, String::new()),
        Some(NodesCommand::Forget { name }) => {
            let done = format!("{name} is forgotten");
            (Request::ForgetNode(name), done)
        }
        Some(NodesCommand::Label { name, labels }) => {
            let done = format!("{name} is labelled");
            (Request::LabelNode { node: name, labels }, done)
        }
    };
    match session::ask(&contact, request)? {
        Reply::Nodes(nodes) if json => output::json(&Nodes::new(&nodes))?,
        Reply::Nodes(nodes) => table(&nodes).print()?,
        Reply::Done if json => output::json(&Done::new())?,
        Reply::Done => output::line(&done)?,
        _ => return Err(session::unexpected()),
    }
    Ok(Exit::Done)
}

fn table(nodes: &[NodeInfo]) -> TextTable<6> {
    let mut table = TextTable::new(["NAME", "STATE", "ADDRESS", "RTT", "JOBS", "LABELS"]);
    for node in nodes {
        let labels: Vec<String> =
            node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row([
            node.name.clone(),
            state(node.state).to_owned(),
            node.address.clone(),
            node.rtt_ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default(),
            node.jobs.to_string(),
            labels.join(","),
        ]);
    }
    table
}

const fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Silent => "silent",
        NodeState::Down => "down",
        NodeState::Quarantined => "quarantined",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_node_is_one_row() {
        let node = NodeInfo {
            name: "n1".to_owned(),
            address: "10.0.0.1:7410".to_owned(),
            labels: BTreeMap::from([
                ("k".to_owned(), "v".to_owned()),
                ("r".to_owned(), "eu".to_owned()),
            ]),
            state: NodeState::Up,
            jobs: 2,
            rtt_ms: Some(12.34),
        };
        let lines: Vec<String> = table(&[node]).lines().collect();
        assert_eq!(
            lines,
            [
                "NAME  STATE  ADDRESS        RTT      JOBS  LABELS",
                "n1    up     10.0.0.1:7410  12.3 ms  2     k=v,r=eu"
            ]
        );
    }
}
