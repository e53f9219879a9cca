//! Any programs on the hosts of a lab, and what became of their packets.

use std::process::{Child, ExitCode};

use anyhow::Context as _;
use distributary_tests::link::{LinkSpec, topology::Place};

use crate::{
    back_end::BackEnd,
    lab::{Lab, Plan},
    netem,
};

/// The exit code of a run that says nothing about the links.
pub(crate) const INVALID: u8 = 4;
/// The exit code of a run that did its work, and a measured time, rate or delay is not what it
/// should be.
pub(crate) const MISSED: u8 = 5;

/// Runs `programs`, each `host: words for sh`, until the last of them has ended. The exit code is
/// 0 if all ended with 0, 4 if the run says nothing about the links.
pub(crate) fn run(
    link: &LinkSpec,
    up: Option<&LinkSpec>,
    programs: &[String],
    back_end: BackEnd,
) -> anyhow::Result<ExitCode> {
    let programs = parse(programs)?;
    let lab = Lab::start(&plan(link, up, &programs), back_end)?;
    let mut children: Vec<Child> = Vec::new();
    for (host, words) in &programs {
        let mut command = lab.command(host, "sh")?;
        children.push(command.args(["-c", words]).spawn()?);
    }
    let mut good = true;
    for mut child in children {
        good &= child.wait()?.success();
    }
    let report = lab.report();
    eprintln!("{}", serde_json::to_string_pretty(&report)?);
    Ok(match (report.invalid.is_empty(), good) {
        (false, _) => ExitCode::from(INVALID),
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::FAILURE,
    })
}

/// What the kernel would be told for such a run, one command a line.
pub(crate) fn script(
    link: &LinkSpec,
    up: Option<&LinkSpec>,
    programs: &[String],
) -> anyhow::Result<String> {
    let plan = plan(link, up, &parse(programs)?);
    Ok(netem::script(&plan.hosts, &plan.links)?)
}

fn parse(programs: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let split = |program: &String| {
        let (host, words) = program
            .split_once(':')
            .with_context(|| format!("{program:?} is not `host: program and arguments`"))?;
        anyhow::Ok((host.trim().to_owned(), words.trim().to_owned()))
    };
    programs.iter().map(split).collect()
}

fn plan(link: &LinkSpec, up: Option<&LinkSpec>, programs: &[(String, String)]) -> Plan {
    let mut hosts: Vec<String> = Vec::new();
    for (host, _) in programs {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    let mut links = Vec::new();
    for from in 0..hosts.len() {
        links.extend(up.map(|up| (Place::Up(from), up.clone())));
        let others = (0..hosts.len()).filter(|to| *to != from);
        links.extend(others.map(|to| (Place::Path(from, to), link.clone())));
    }
    Plan { hosts, links, seed: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_numbered_as_they_are_named() {
        let words = ["b: sleep 1", "a: ls", "b: true"].map(str::to_owned);
        let programs = parse(&words).unwrap();
        let plan = plan(&"5ms".parse().unwrap(), Some(&"1Mbit".parse().unwrap()), &programs);
        assert_eq!(plan.hosts, ["b", "a"]);
        assert_eq!(plan.links.len(), 4);
        assert!(parse(&["nothing".to_owned()]).is_err());
    }
}
