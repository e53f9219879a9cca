//! The second back end: the kernel carries the packets, through veth devices with netem and token
//! buckets. What is decided stands in [`layout`] and [`discipline`]; here it is run.

mod counters;
mod discipline;
mod layout;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use distributary_tests::link::{LinkCounters, LinkSpec, topology::Place};

use self::{
    counters::{Reading, Tally},
    discipline::{Discipline, Inexpressible},
    layout::{Batch, Sites, Tool},
};
use crate::namespace::{self, Namespace, NamespaceError};

/// The namespaces of the router and of the probe; a host's name has no colon.
const ROUTER: &str = "router:";
const PROBE: &str = "probe:";
/// What `tc` says of a discipline that the kernel does not have.
const UNKNOWN: &str = "qdisc kind is unknown";

/// Why the kernel does not carry a lab's packets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetemError {
    /// A link that netem cannot be.
    #[error("the link `{spec}` cannot be had from netem: {why}; the emulator has it")]
    Inexpressible {
        /// What was asked for.
        spec: String,
        /// Why not.
        why: Inexpressible,
    },
    /// A namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A command that could not be run.
    #[error("cannot run `{command}`: {source}; install iproute2")]
    Run {
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A command that failed.
    #[error("`{command}` failed: {stderr}")]
    Failed {
        /// The command.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// Counters that are not what the tools print.
    #[error("cannot read what `{command}` printed: {source}")]
    Counters {
        /// The command.
        command: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// One link as it is now.
#[derive(Debug)]
struct Shaped {
    discipline: Discipline,
    down: bool,
    tally: Tally,
}

/// The router of a lab, and its links; removed when dropped.
#[derive(Debug)]
pub(crate) struct Netem {
    sites: Sites,
    links: Mutex<BTreeMap<Place, Shaped>>,
    router: Namespace,
}

/// The commands that join `hosts` by `links`, for a person to read. Nothing is run.
///
/// # Errors
/// A link that netem cannot be.
pub(crate) fn script(hosts: &[String], links: &[(Place, LinkSpec)]) -> Result<String, NetemError> {
    let sites = sites(hosts);
    let names = sites.hosts.iter().chain([&sites.router]);
    let mut script: String = names.map(|name| format!("ip netns add {name}\n")).collect();
    let links = disciplines(links)?;
    let added = links.iter().flat_map(|(place, shaped)| sites.add(*place, &shaped.discipline));
    for batch in sites.join().into_iter().chain(added) {
        script += &batch.to_string();
    }
    Ok(script)
}

/// What keeps the kernel from being a back end; `None` if nothing. Needs root and iproute2.
pub(crate) fn lacking() -> Option<String> {
    let probe = || -> Result<(), NetemError> {
        let scratch = Namespace::create(PROBE)?;
        let namespace = scratch.name().to_owned();
        let lines = vec!["qdisc add dev lo root netem delay 1ms".to_owned()];
        run(&Batch { tool: Tool::Tc, namespace, lines })
    };
    match probe() {
        Ok(()) => None,
        Err(NetemError::Failed { stderr, .. }) if stderr.contains(UNKNOWN) => Some(
            "the kernel has no netem: load its module with `modprobe sch_netem` (where there is \
             none, install the kernel's package of further modules, or a kernel built with \
             CONFIG_NET_SCH_NETEM), or use `--back-end emulator`, which needs none"
                .to_owned(),
        ),
        Err(error) => Some(format!("netem cannot be tried: {error}")),
    }
}

impl Netem {
    /// Joins the hosts, whose namespaces are there, and makes the links.
    ///
    /// # Errors
    /// A link that netem cannot be, before anything is made; a command that fails.
    pub(crate) fn start(hosts: &[String], links: &[(Place, LinkSpec)]) -> Result<Self, NetemError> {
        let links = disciplines(links)?;
        let sites = sites(hosts);
        let router = Namespace::create(ROUTER)?;
        sites.join().iter().try_for_each(run)?;
        for (place, shaped) in &links {
            sites.add(*place, &shaped.discipline).iter().try_for_each(run)?;
        }
        Ok(Self { sites, links: Mutex::new(links), router })
    }

    /// Changes a link from now on.
    ///
    /// # Errors
    /// What netem cannot be, or a command that fails.
    pub(crate) fn set(&self, place: Place, spec: &LinkSpec) -> Result<(), NetemError> {
        let new = shaped(spec)?;
        let mut links = self.links();
        // What was dropped so far was dropped by the link as it was.
        self.read(&mut links)?;
        let Some(link) = links.get_mut(&place) else {
            self.sites.add(place, &new.discipline).iter().try_for_each(run)?;
            links.insert(place, new);
            return Ok(());
        };
        let batches = self.sites.change(place, &link.discipline, &new.discipline);
        batches.iter().try_for_each(run)?;
        link.discipline = new.discipline;
        link.down = new.down;
        Ok(())
    }

    /// What each link has done.
    ///
    /// # Errors
    /// Counters that cannot be read.
    pub(crate) fn counters(&self) -> Result<Vec<(Place, LinkCounters)>, NetemError> {
        let mut links = self.links();
        self.read(&mut links)?;
        Ok(links.iter().map(|(place, link)| (*place, link.tally.counters())).collect())
    }

    /// Packets that the router's devices dropped outside of the links.
    ///
    /// # Errors
    /// Counters that cannot be read.
    pub(crate) fn drops(&self) -> Result<u64, NetemError> {
        self.ask("ip", &["-s", "-j", "link", "show"], counters::device_drops)
    }

    fn read(&self, links: &mut BTreeMap<Place, Shaped>) -> Result<(), NetemError> {
        let readings = self.ask("tc", &["-s", "-j", "qdisc", "show"], counters::readings)?;
        for (place, link) in links {
            let reading: Option<&Reading> = readings.get(&layout::device(*place));
            link.tally.take(reading.copied().unwrap_or_default(), link.down);
        }
        Ok(())
    }

    fn ask<T>(
        &self,
        program: &str,
        args: &[&str],
        read: impl Fn(&str) -> serde_json::Result<T>,
    ) -> Result<T, NetemError> {
        let name = self.router.name();
        let command = format!("{program} -n {name} {}", args.join(" "));
        let output = Command::new(program)
            .args(["-n", name])
            .args(args)
            .output()
            .map_err(|source| NetemError::Run { command: command.clone(), source })?;
        read(&String::from_utf8_lossy(&output.stdout))
            .map_err(|source| NetemError::Counters { command, source })
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<Place, Shaped>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sites(hosts: &[String]) -> Sites {
    let hosts = hosts.iter().map(|host| namespace::name(host)).collect();
    Sites { hosts, router: namespace::name(ROUTER) }
}

/// The links by their places; of two for one place the later one, as in the emulator.
fn disciplines(links: &[(Place, LinkSpec)]) -> Result<BTreeMap<Place, Shaped>, NetemError> {
    links.iter().map(|(place, spec)| Ok((*place, shaped(spec)?))).collect()
}

fn shaped(spec: &LinkSpec) -> Result<Shaped, NetemError> {
    let discipline = Discipline::of(spec)
        .map_err(|why| NetemError::Inexpressible { spec: spec.to_string(), why })?;
    Ok(Shaped { discipline, down: spec.down, tally: Tally::default() })
}

/// Gives a batch to its tool, which ends at the first line that fails.
fn run(batch: &Batch) -> Result<(), NetemError> {
    let namespace = batch.namespace.as_str();
    let (program, args) = match batch.tool {
        Tool::Ip => ("ip", vec!["-n", namespace, "-batch", "-"]),
        Tool::Tc => ("tc", vec!["-n", namespace, "-batch", "-"]),
        Tool::Sh => ("ip", vec!["netns", "exec", namespace, "sh", "-e"]),
    };
    let command = format!("{program} {}", args.join(" "));
    let failed = |source| NetemError::Run { command: command.clone(), source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let text = batch.lines.join("\n") + "\n";
    // A tool that has ended early says why on its standard error.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let line = failed_line(&stderr).and_then(|line| batch.lines.get(line));
    let command = line.map_or(command.clone(), |line| format!("{command}: {line}"));
    Err(NetemError::Failed { command, stderr })
}

/// Which line of a batch failed: `ip` and `tc` end with "Command failed -:3", counted from 1.
fn failed_line(stderr: &str) -> Option<usize> {
    let (_, number) = stderr.lines().last()?.rsplit_once(':')?;
    number.trim().parse::<usize>().ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_batch_that_failed_is_found() {
        let stderr = "Error: Specified qdisc kind is unknown.\nCommand failed -:3";
        assert_eq!(failed_line(stderr), Some(2));
        assert_eq!(failed_line("sh: something: else"), None);
        assert_eq!(failed_line(""), None);
    }

    #[test]
    fn a_script_names_its_namespaces_first_and_then_the_links() {
        let hosts = ["a".to_owned(), "b".to_owned()];
        let links = [(Place::Path(0, 1), "20ms".parse().unwrap())];
        let script = script(&hosts, &links).unwrap();
        let lines: Vec<&str> = script.lines().collect();
        assert_eq!(lines[0], format!("ip netns add {}", namespace::name("a")));
        assert_eq!(lines[2], format!("ip netns add {}", namespace::name("router:")));
        assert!(lines.last().unwrap().contains("netem limit 262144 delay 20000us"));
    }

    #[test]
    fn what_netem_cannot_be_is_named() {
        let error = script(&["a".to_owned()], &[(Place::Up(0), "10ms-clump".parse().unwrap())]);
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("the link `0ms 10ms-clump` cannot be had from netem"), "{text}");
    }
}
