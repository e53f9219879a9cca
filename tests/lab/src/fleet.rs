//! A fleet of real processes: `distributary` as base, nodes and push, each on a host of its own.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    iter,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use distributary_tests::{
    link::SplitMix,
    link::topology::Place,
    scenario::{self, Event, Scenario, Site, link},
};
use serde_json::Value;

use crate::{
    back_end::BackEnd,
    clock::pause,
    lab::{Lab, LabError, LabReport, Plan},
};

/// Hosts by their numbers: the base, the client beside it, then the nodes.
pub(crate) const BASE: usize = 0;
pub(crate) const CLIENT: usize = 1;
pub(crate) const FIRST_NODE: usize = 2;
const LISTEN: u16 = 7400;
const HTTP: u16 = 7401;
/// How long base and nodes may take to be there, and a push to end.
pub(crate) const START: Duration = Duration::from_secs(20);
const PATIENCE: &str = "3m";
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a scenario did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// When each node was complete, counted from the job's creation; none if it was not.
    pub(crate) took: Vec<Option<Duration>>,
    /// Whether each node's file is the one that was pushed.
    pub(crate) equal: Vec<bool>,
    /// Durable bytes at each node, from time to time.
    pub(crate) progress: Vec<(Duration, Vec<u64>)>,
    /// The exit code of the push.
    pub(crate) exit: Option<i32>,
    /// What base and nodes counted, by host and metric.
    pub(crate) metrics: BTreeMap<String, BTreeMap<String, f64>>,
    pub(crate) lab: LabReport,
}

/// What is spread, from where, over how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) nodes: usize,
    pub(crate) bytes: u64,
    /// The number of the host of the push: the client's, or the base's.
    pub(crate) from: usize,
    /// What the bytes are.
    pub(crate) seed: u64,
}

/// Runs a scenario with the executable `distributary`.
pub(crate) fn run(
    distributary: &Path,
    scenario: &Scenario,
    seed: u64,
    back_end: BackEnd,
) -> anyhow::Result<Ran> {
    let lab = Lab::start(&plan(scenario, seed), back_end)?;
    let (nodes, bytes) = (scenario.nodes.len(), scenario.bytes);
    let content = Content { nodes, bytes, from: CLIENT, seed };
    let mut changes = scenario.events.iter().peekable();
    let mut paths: Vec<&str> = scenario.nodes.iter().map(|site| site.path).collect();
    spread(distributary, &lab, content, &mut |passed| {
        while let Some((_, event)) = changes.next_if(|(at, _)| passed >= *at) {
            change(&lab, *event, &mut paths)?;
        }
        Ok(())
    })
}

/// What looks at a run, or changes its links, as time passes.
pub(crate) type Look<'a> = dyn FnMut(Duration) -> anyhow::Result<()> + 'a;

/// Pushes a file to the nodes of a lab whose hosts are the base, the client and the nodes. `look`
/// is called every 20 ms with the time since the job's creation; its failure ends the run.
pub(crate) fn spread(
    distributary: &Path,
    lab: &Lab,
    content: Content,
    look: &mut Look<'_>,
) -> anyhow::Result<Ran> {
    let folder = tempfile::tempdir()?;
    let Content { nodes, from, .. } = content;
    let fleet = Fleet { distributary, folder: folder.path(), lab, nodes, from };
    fleet.issue()?;
    let source = make_source(folder.path(), content)?;
    let mut services = Services::default();
    services.0.push(fleet.base()?);
    for node in 0..content.nodes {
        services.0.push(fleet.node(node)?);
    }
    fleet.wait_for_all(&mut services)?;
    let told = fleet.push(&source, look)?;
    let metrics = fleet.metrics()?;
    let equal = (0..content.nodes).map(|node| fleet.holds(node, &source)).collect();
    let lab = lab.report();
    Ok(Ran { took: told.took, equal, progress: told.progress, exit: told.exit, metrics, lab })
}

/// A file that nothing can make shorter.
pub(crate) fn make_source(folder: &Path, content: Content) -> anyhow::Result<PathBuf> {
    let path = folder.join("source");
    let mut random = SplitMix::from_parts(&[content.seed]);
    let words = content.bytes.div_ceil(8);
    let mut bytes: Vec<u8> = (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    bytes.truncate(usize::try_from(content.bytes)?);
    fs::write(&path, bytes)?;
    Ok(path)
}

/// The host of a node.
pub(crate) fn node_name(node: usize) -> String {
    format!("n{node}")
}

/// The links of a scenario.
fn plan(scenario: &Scenario, seed: u64) -> Plan {
    let mut hosts = vec!["base".to_owned(), "client".to_owned()];
    let mut links = vec![(Place::Up(BASE), link(scenario.base_up))];
    let mut join = |host: usize, path: &str| {
        links.push((Place::Path(BASE, host), link(path)));
        links.push((Place::Path(host, BASE), link(path)));
    };
    join(CLIENT, scenario::CLIENT);
    for (node, Site { path, .. }) in scenario.nodes.iter().enumerate() {
        join(FIRST_NODE + node, path);
    }
    for (node, Site { path, .. }) in scenario.nodes.iter().enumerate() {
        let others = scenario.nodes.iter().enumerate().filter(|(other, _)| *other != node);
        for (other, beyond) in others {
            let place = Place::Path(FIRST_NODE + node, FIRST_NODE + other);
            links.push((place, link(path).then(&link(beyond.path))));
        }
    }
    for (node, Site { up, down, .. }) in scenario.nodes.iter().enumerate() {
        links.push((Place::Up(FIRST_NODE + node), link(up)));
        links.push((Place::Down(FIRST_NODE + node), link(down)));
        hosts.push(node_name(node));
    }
    Plan { hosts, links, seed }
}

struct Fleet<'a> {
    distributary: &'a Path,
    folder: &'a Path,
    lab: &'a Lab,
    nodes: usize,
    /// The host of the push.
    from: usize,
}

/// What a push has told.
#[derive(Debug, Default)]
struct Told {
    took: Vec<Option<Duration>>,
    progress: Vec<(Duration, Vec<u64>)>,
    exit: Option<i32>,
}

impl Fleet<'_> {
    fn issue(&self) -> anyhow::Result<()> {
        let certs = |words: &[&str]| {
            let mut command = Command::new(self.distributary);
            let output = command.current_dir(self.folder).arg("certs").args(words).output()?;
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            ensure!(output.status.success(), "certs {words:?}: {said}");
            Ok(())
        };
        certs(&["init", "--dir", "pki"])?;
        let issue = |role: &str, name: &str| {
            certs(&["issue", "--dir", "pki", "--role", role, "--name", name, "--out", name])
        };
        issue("base", "base")?;
        issue("client", "client")?;
        (0..self.nodes).try_for_each(|node| issue("node", &node_name(node)))
    }

    fn command(&self, host: usize, words: &[&str]) -> anyhow::Result<Command> {
        let name = match host {
            BASE => "base".to_owned(),
            CLIENT => "client".to_owned(),
            node => node_name(node - FIRST_NODE),
        };
        let mut command = self.lab.command(&name, self.distributary)?;
        command.current_dir(self.folder).args(words).stderr(Stdio::null()).stdin(Stdio::null());
        Ok(command)
    }

    fn base_address(&self) -> anyhow::Result<String> {
        Ok(format!("{}:{LISTEN}", self.lab.address("base")?))
    }

    fn service(&self, host: usize, name: &str, words: &[&str]) -> anyhow::Result<Child> {
        let data = format!("{name}-data");
        let any = format!("{}:{LISTEN}", Ipv4Addr::UNSPECIFIED);
        let http = format!("{}:{HTTP}", Ipv4Addr::LOCALHOST);
        let common = ["--identity", name, "--data", &data, "--listen", &any, "--http", &http];
        let mut command = self.command(host, &[words, &common].concat())?;
        command.arg("--until-stdin-closes").stdin(Stdio::piped()).stdout(Stdio::null());
        command.spawn().with_context(|| format!("cannot start {name}"))
    }

    fn base(&self) -> anyhow::Result<Child> {
        self.service(BASE, "base", &["base"])
    }

    fn node(&self, node: usize) -> anyhow::Result<Child> {
        let base = self.base_address()?;
        self.service(FIRST_NODE + node, &node_name(node), &["node", "--base", &base])
    }

    /// Waits until the base names every node as up.
    fn wait_for_all(&self, services: &mut Services) -> anyhow::Result<()> {
        let base = self.base_address()?;
        let until = self.lab.now() + START;
        loop {
            services.check()?;
            let words = ["nodes", "--base", &base, "--identity", "client", "--json"];
            let output = self.command(self.from, &words)?.output()?;
            let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let nodes = told.get("nodes").and_then(Value::as_array);
            let up = nodes.into_iter().flatten().filter(|node| node["state"] == "up").count();
            if up == self.nodes {
                return Ok(());
            }
            ensure!(self.lab.now() < until, "only {up} nodes are up after {START:?}");
            pause(LOOK_EVERY);
        }
    }

    /// Pushes the source and looks at things while it is on its way.
    fn push(&self, source: &Path, look: &mut Look<'_>) -> anyhow::Result<Told> {
        let base = self.base_address()?;
        let source = source.to_str().context("a folder whose name is not UTF-8")?;
        let to = ["push", source, "--base", &base, "--identity", "client"];
        let words = [&to[..], &["--json", "--timeout", PATIENCE]].concat();
        let mut push =
            Services(vec![self.command(self.from, &words)?.stdout(Stdio::piped()).spawn()?]);
        let child = push.0.first_mut().context("no push")?;
        let out = child.stdout.take().context("a push without output")?;
        let heard: Arc<Mutex<Vec<(Duration, Value)>>> = Arc::default();
        let listener = self.listen(BufReader::new(out), &heard);
        let mut created = None;
        let status = loop {
            created = created.or_else(|| first(&heard, "created"));
            if let Some(created) = created {
                look(self.lab.now().saturating_sub(created))?;
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            pause(LOOK_EVERY);
        };
        if listener.join().is_err() {
            bail!("the thread that hears the push has ended early");
        }
        let created = created.or_else(|| first(&heard, "created"));
        let created = created.context("the push told of no job")?;
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.told(created, &heard, status.code()))
    }

    fn listen(
        &self,
        out: BufReader<std::process::ChildStdout>,
        heard: &Arc<Mutex<Vec<(Duration, Value)>>>,
    ) -> JoinHandle<()> {
        let (heard, clock) = (Arc::clone(heard), self.lab.clock());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { continue };
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push((clock.now(), event));
            }
        })
    }

    fn told(&self, created: Duration, heard: &[(Duration, Value)], exit: Option<i32>) -> Told {
        let names: Vec<String> = (0..self.nodes).map(node_name).collect();
        let mut told = Told { took: vec![None; names.len()], exit, ..Told::default() };
        for (at, event) in heard {
            let at = at.saturating_sub(created);
            if event["event"] == "node" && event["state"] == "complete" {
                let place = names.iter().position(|name| event["node"] == name.as_str());
                if let Some(took) = place.and_then(|place| told.took.get_mut(place)) {
                    *took = Some(at);
                }
            }
            if let Some(nodes) = event["nodes"].as_array() {
                let bytes = |name: &String| {
                    let node = nodes.iter().find(|node| node["name"] == name.as_str());
                    node.and_then(|node| node["bytes"].as_u64()).unwrap_or(0)
                };
                told.progress.push((at, names.iter().map(bytes).collect()));
            }
        }
        told
    }

    /// What `/metrics` of base and nodes say.
    fn metrics(&self) -> anyhow::Result<BTreeMap<String, BTreeMap<String, f64>>> {
        let hosts = iter::once("base".to_owned()).chain((0..self.nodes).map(node_name));
        hosts
            .map(|host| {
                let said = self.lab.get(&host, HTTP, "/metrics");
                let said = said.with_context(|| format!("cannot read the metrics of {host}"))?;
                Ok((host, counted(&said)))
            })
            .collect()
    }

    /// Whether a node has exactly what was pushed.
    fn holds(&self, node: usize, source: &Path) -> bool {
        let jobs = self.folder.join(format!("{}-data", node_name(node))).join("jobs");
        let folders = fs::read_dir(jobs).into_iter().flatten().flatten();
        let mut files = folders.map(|folder| folder.path().join("files/source"));
        files.any(|file| equal(&file, source))
    }
}

/// Whether two files have the same bytes.
pub(crate) fn equal(file: &Path, source: &Path) -> bool {
    let Ok(expected) = fs::read(source) else { return false };
    fs::read(file).is_ok_and(|bytes| bytes == expected)
}

/// Metrics in Prometheus' text format, those that are zero left out.
fn counted(metrics: &str) -> BTreeMap<String, f64> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    pairs.filter(|(_, value)| *value != 0.0).collect()
}

fn change(lab: &Lab, event: Event, paths: &mut [&'static str]) -> Result<(), LabError> {
    let Event::Path(node, words) = event;
    let (host, spec) = (FIRST_NODE + node, link(words));
    lab.set(Place::Path(BASE, host), &spec)?;
    lab.set(Place::Path(host, BASE), &spec)?;
    if let Some(path) = paths.get_mut(node) {
        *path = words;
    }
    let others = paths.iter().enumerate().filter(|(other, _)| *other != node);
    for (other, beyond) in others {
        let (other, spec) = (FIRST_NODE + other, spec.then(&link(beyond)));
        lab.set(Place::Path(other, host), &spec)?;
        lab.set(Place::Path(host, other), &spec)?;
    }
    Ok(())
}

/// When the first event of a kind was heard.
fn first(heard: &Mutex<Vec<(Duration, Value)>>, kind: &str) -> Option<Duration> {
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    heard.iter().find(|(_, event)| event["event"] == kind).map(|(at, _)| *at)
}

/// Processes that end when this is dropped.
#[derive(Default)]
pub(crate) struct Services(pub(crate) Vec<Child>);

impl Services {
    /// Fails if one has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                bail!("a process of the fleet has ended with {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netem;

    #[test]
    fn netem_can_be_the_links_of_all_scenarios() {
        for scenario in scenario::scenarios() {
            let Plan { hosts, links, .. } = plan(&scenario, 1);
            assert!(netem::script(&hosts, &links).is_ok(), "{}", scenario.name);
        }
    }

    #[test]
    fn metrics_are_read_and_zeros_left_out() {
        let text = "# HELP a b\na{peer_role=\"node\"} 12\nb 0\nc 1.5\nnonsense\n";
        let counted = counted(text);
        assert_eq!(counted.len(), 2);
        assert!((counted["a{peer_role=\"node\"}"] - 12.0).abs() < 1e-9);
    }
}
