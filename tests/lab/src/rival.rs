//! The rival of a swarm: a BitTorrent client (Debian's libtorrent, by `rival.py`) on the hosts of
//! base and nodes. All peers run and have the torrent file before the clock starts; the seeder has
//! the content, hashed. Then each is told of the seeder and the others.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{
    clock::{Clock, pause},
    fleet::{self, Content, LOOK_EVERY, Look, Ran, START, Services, node_name},
    lab::{Lab, LabError},
    namespace::{DEVICE, NETWORK},
};

/// Debian's modules are seen by Debian's Python only.
const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("rival.py");
const SEEDER: &str = "base";
/// The congestion control of TCP on all hosts: what Debian's kernel has if nobody changes it.
const TCP: &str = "cubic";
/// How long all may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// How libtorrent is to do it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// uTP and TCP, as it likes.
    AsItComes,
    /// TCP only.
    Tcp,
    /// TCP only, with the kernel's BBR.
    Bbr,
    /// TCP only, and the seeder shows each peer pieces that nobody has.
    SuperSeeding,
}

impl Manner {
    /// The words for the script.
    fn words(self) -> &'static str {
        match self {
            Self::AsItComes => "-",
            Self::Tcp | Self::Bbr => "tcp",
            Self::SuperSeeding => "tcp,super",
        }
    }

    fn tcp(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::AsItComes | Self::Tcp | Self::SuperSeeding => TCP,
        }
    }
}

/// The version of libtorrent.
///
/// # Errors
/// [`LabError::Lacking`] if it is not there.
pub(crate) fn version() -> Result<String, LabError> {
    let words = "import libtorrent; print(libtorrent.version)";
    let output = Command::new(PYTHON).args(["-c", words]).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => {
            let lacks = "it needs libtorrent for Python: install Debian's python3-libtorrent";
            Err(LabError::Lacking(lacks.to_owned()))
        }
    }
}

/// What a peer says.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    ready: bool,
    bytes: Option<u64>,
    complete: bool,
}

/// What was heard of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    is_ready: bool,
    bytes: u64,
    complete_at: Option<Duration>,
}

/// Spreads a file from the base's host to those of the nodes. `look` is called every 20 ms with
/// the time since the peers were told of each other.
pub(crate) fn spread(
    manner: Manner,
    lab: &Lab,
    content: Content,
    look: &mut Look<'_>,
) -> anyhow::Result<Ran> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("rival.py"), SCRIPT)?;
    let source = fleet::make_source(folder.path(), content)?;
    let made = Command::new(PYTHON)
        .current_dir(folder.path())
        .args(["rival.py", "make", "source", "torrent"])
        .status()?;
    ensure!(made.success(), "no torrent could be made");
    let mut peers = Peers::start(lab, folder.path(), manner, content.nodes)?;
    peers.wait_until_ready(lab)?;
    let begin = lab.now();
    peers.introduce()?;
    let mut progress = Vec::new();
    let is_complete = loop {
        let passed = lab.now().saturating_sub(begin);
        look(passed)?;
        let heard = peers.leechers();
        if progress.last().is_none_or(|(at, _)| passed >= *at + PROGRESS_EVERY) {
            progress.push((passed, heard.iter().map(|heard| heard.bytes).collect()));
        }
        if heard.iter().all(|heard| heard.complete_at.is_some()) {
            break true;
        }
        if passed > PATIENCE {
            break false;
        }
        peers.children.check()?;
        pause(LOOK_EVERY);
    };
    let heard = peers.leechers();
    let took = |heard: &Heard| heard.complete_at.map(|at| at.saturating_sub(begin));
    let lab = lab.report();
    drop(peers);
    let file = |node| folder.path().join(node_name(node)).join("source");
    Ok(Ran {
        took: heard.iter().map(took).collect(),
        equal: (0..content.nodes).map(|node| fleet::equal(&file(node), &source)).collect(),
        progress,
        exit: is_complete.then_some(0),
        metrics: BTreeMap::new(),
        lab,
    })
}

const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// The seeder, then the leechers.
struct Peers {
    children: Services,
    inputs: Vec<ChildStdin>,
    addresses: Vec<String>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Peers {
    fn start(lab: &Lab, folder: &Path, manner: Manner, nodes: usize) -> anyhow::Result<Self> {
        let heard = Arc::new(Mutex::new(vec![Heard::default(); nodes + 1]));
        let mut peers = Self {
            children: Services::default(),
            inputs: Vec::new(),
            addresses: Vec::new(),
            heard,
        };
        peers.add(lab, folder, manner, (SEEDER, "seed", "."))?;
        for name in (0..nodes).map(node_name) {
            fs::create_dir_all(folder.join(&name))?;
            peers.add(lab, folder, manner, (&name, "leech", &name))?;
        }
        Ok(peers)
    }

    fn add(
        &mut self,
        lab: &Lab,
        folder: &Path,
        manner: Manner,
        (host, role, into): (&str, &str, &str),
    ) -> anyhow::Result<()> {
        let address = lab.address(host)?.to_string();
        set_tcp(lab, host, &address, manner.tcp())?;
        let mut command = lab.command(host, PYTHON)?;
        command.current_dir(folder);
        command.args(["rival.py", role, &address, "torrent", into, manner.words()]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child: Child = piped.spawn().with_context(|| format!("no peer on {host}"))?;
        let out = child.stdout.take().context("a peer without output")?;
        let (place, heard, clock) = (self.addresses.len(), Arc::clone(&self.heard), lab.clock());
        thread::spawn(move || hear(out, place, &heard, clock));
        self.inputs.push(child.stdin.take().context("a peer without input")?);
        self.children.0.push(child);
        self.addresses.push(address);
        Ok(())
    }

    fn wait_until_ready(&mut self, lab: &Lab) -> anyhow::Result<()> {
        let until = lab.now() + START;
        while !lock(&self.heard).iter().all(|heard| heard.is_ready) {
            ensure!(lab.now() < until, "peers are not ready after {START:?}");
            self.children.check()?;
            pause(LOOK_EVERY);
        }
        Ok(())
    }

    /// Tells each leecher of the seeder and of the leechers before it, so that any two connect.
    fn introduce(&mut self) -> anyhow::Result<()> {
        for (place, input) in self.inputs.iter_mut().enumerate() {
            let before = self.addresses.get(..place).unwrap_or_default();
            writeln!(input, "{}", before.join(" ")).context("a peer does not hear")?;
        }
        Ok(())
    }

    fn leechers(&self) -> Vec<Heard> {
        lock(&self.heard).iter().skip(1).copied().collect()
    }
}

/// Sets the congestion control of a host's TCP connections. It goes with the route: not every
/// kernel lets a namespace change its default.
fn set_tcp(lab: &Lab, host: &str, address: &str, name: &str) -> anyhow::Result<()> {
    let route = ["route", "replace", NETWORK, "dev", DEVICE, "proto", "kernel", "scope", "link"];
    let mut command = lab.command(host, "ip")?;
    let status = command.args(route).args(["src", address, "congctl", name]).status()?;
    ensure!(status.success(), "this kernel has no TCP {name}");
    Ok(())
}

fn hear(out: ChildStdout, place: usize, heard: &Mutex<Vec<Heard>>, clock: Clock) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let Ok(said) = serde_json::from_str::<Said>(&line) else { continue };
        if let Some(heard) = lock(heard).get_mut(place) {
            heard.is_ready |= said.ready;
            heard.bytes = said.bytes.unwrap_or(heard.bytes);
            if said.complete {
                heard.complete_at.get_or_insert(clock.now());
            }
        }
    }
}

fn lock(heard: &Mutex<Vec<Heard>>) -> std::sync::MutexGuard<'_, Vec<Heard>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
