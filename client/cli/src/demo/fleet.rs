//! The processes of the demo: started, watched, asked and ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use certs::{Authority, Request};
use shared::id::{Name, Role};
use shared_io::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

use crate::exit::Failure;

use super::folder::WorkFolder;

/// How long a role may take until it serves, and until it has ended.
const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(12);
/// How often files that say so are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The demo's certificates live so long: longer than any demo, shorter than its folder.
const VALID_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// A base and its nodes, each a process.
pub(super) struct Fleet {
    folder: PathBuf,
    base: Process,
    nodes: Vec<Process>,
}

struct Process {
    name: String,
    data: PathBuf,
    child: Child,
    /// Its standard input, held open: waiting for a child closes what it still holds.
    _stdin: Option<ChildStdin>,
    listen: String,
    http: String,
}

impl Fleet {
    /// Makes certificates, starts the base, then the nodes, and waits until all serve and
    /// every node has joined.
    pub(super) async fn start(folder: &WorkFolder, nodes: u16) -> Result<Self, Failure> {
        let folder = folder.path().to_owned();
        let names: Vec<String> = (1..=nodes).map(|number| format!("node-{number}")).collect();
        issue_all(&folder, &names)?;
        let base = Process::start(&folder, "base", &["base"], &[]).await?;
        let mut fleet = Self { folder, base, nodes: Vec::new() };
        for name in names {
            let extra = ["--base", &fleet.base.listen];
            let node = Process::start(&fleet.folder, &name, &["node"], &extra).await?;
            fleet.nodes.push(node);
        }
        for node in &fleet.nodes {
            node.wait_until_ready().await?;
        }
        Ok(fleet)
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where the base listens.
    pub(super) fn base(&self) -> &str {
        &self.base.listen
    }

    /// The client's identity.
    pub(super) fn client_identity(&self) -> PathBuf {
        self.folder.join("identity/client")
    }

    /// Each node's folder of jobs.
    pub(super) fn job_roots(&self) -> Vec<(String, PathBuf)> {
        self.nodes.iter().map(|node| (node.name.clone(), node.data.join("jobs"))).collect()
    }

    /// Where each node has the files of a job.
    pub(super) fn job_folders(&self, job: &str) -> BTreeMap<String, PathBuf> {
        let folder = |node: &Process| node.data.join("jobs").join(job).join("files");
        self.nodes.iter().map(|node| (node.name.clone(), folder(node))).collect()
    }

    /// Waits until a process ends that should not, and says which.
    pub(super) async fn first_to_end(&mut self) -> String {
        let all = std::iter::once(&mut self.base).chain(&mut self.nodes);
        let mut ends: Vec<_> = all
            .map(|process| {
                Box::pin(async move {
                    let status = process.child.wait().await;
                    let log = process.data.join("log");
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    format!("{} has ended ({status}); its log: {}", process.name, tail(&log))
                })
            })
            .collect();
        std::future::poll_fn(|context| {
            for end in &mut ends {
                if let std::task::Poll::Ready(text) = end.as_mut().poll(context) {
                    return std::task::Poll::Ready(text);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Content bytes that the base has sent to nodes, over `size`.
    pub(super) async fn base_copies(&self, size: u64) -> Result<f64, Failure> {
        let metrics = http_get(&self.base.http, "/metrics")
            .await
            .map_err(|error| Failure::failed(format!("cannot read the base's metrics: {error}")))?;
        let name = "distributary_content_bytes_sent_total{peer_role=\"node\"} ";
        let sent = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let sent: f64 = sent.unwrap_or(0.0);
        Ok(if size == 0 { 0.0 } else { sent / size as f64 })
    }

    /// Where the base tells of jobs over HTTP.
    pub(super) fn base_http(&self) -> &str {
        &self.base.http
    }

    /// Ends all processes and waits for them.
    pub(super) async fn stop(&mut self) {
        let all = || std::iter::once(&self.base).chain(&self.nodes);
        for pid in all().filter_map(|process| process.child.id()) {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // A process that has ended already needs no signal.
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
            }
        }
        for process in std::iter::once(&mut self.base).chain(&mut self.nodes) {
            if tokio::time::timeout(STOP_PATIENCE, process.child.wait()).await.is_err() {
                tracing::warn!(process = process.name, "does not end by itself: killed");
                process.child.kill().await.ok();
            }
        }
    }
}

impl Process {
    async fn start(
        folder: &Path,
        name: &str,
        command: &[&str],
        extra: &[&str],
    ) -> Result<Self, Failure> {
        let data = folder.join("data").join(name);
        let failed =
            |error: std::io::Error| Failure::failed(format!("cannot start {name}: {error}"));
        std::fs::create_dir_all(&data).map_err(failed)?;
        let log = std::fs::File::create(data.join("log")).map_err(failed)?;
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(command)
            .arg("--identity")
            .arg(folder.join("identity").join(name))
            .arg("--data")
            .arg(&data)
            .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--until-stdin-closes"])
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut process = Self {
            name: name.to_owned(),
            data,
            _stdin: child.stdin.take(),
            child,
            listen: String::new(),
            http: String::new(),
        };
        process.wait_until_serving().await?;
        Ok(process)
    }

    async fn wait_until_serving(&mut self) -> Result<(), Failure> {
        let ready = self.data.join("ready.json");
        let looking = async {
            loop {
                if let Some(text) = std::fs::read_to_string(&ready).ok()
                    && let Ok(json) = serde_json::from_str::<serde_json::Value>(&text)
                {
                    let field = |key: &str| json.get(key)?.as_str().map(str::to_owned);
                    return (field("listen"), field("http"));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let looked = tokio::select! {
            looked = tokio::time::timeout(START_PATIENCE, looking) => looked,
            status = self.child.wait() => {
                let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                let log = tail(&self.data.join("log"));
                return Err(Failure::failed(format!("{} ended at its start ({status}): {log}", self.name)));
            }
        };
        match looked {
            Ok((Some(listen), Some(http))) => {
                (self.listen, self.http) = (listen, http);
                Ok(())
            }
            Ok(_) => Err(Failure::failed(format!("{} wrote no addresses", self.name))),
            Err(_elapsed) => Err(self.too_slow("serve")),
        }
    }

    async fn wait_until_ready(&self) -> Result<(), Failure> {
        let asking = async {
            loop {
                if http_get(&self.http, "/readyz").await.is_ok_and(|text| text.contains("ready")) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let asked = tokio::time::timeout(START_PATIENCE, asking).await;
        asked.map_err(|_elapsed| self.too_slow("join the base"))
    }

    fn too_slow(&self, what: &str) -> Failure {
        let seconds = START_PATIENCE.as_secs();
        let log = tail(&self.data.join("log"));
        Failure::failed(format!("{} did not {what} within {seconds} s: {log}", self.name))
    }
}

/// Makes an authority and an identity for everyone.
fn issue_all(folder: &Path, nodes: &[String]) -> Result<(), Failure> {
    let now = Clock::wall();
    let authority = Authority::init(&folder.join("pki"), now)?;
    let roles = [("base", Role::Base), ("client", Role::Client)].into_iter();
    let nodes = nodes.iter().map(|name| (name.as_str(), Role::Node));
    for (name, role) in roles.chain(nodes) {
        let request = Request {
            role,
            name: Name::new(name).map_err(Failure::failed)?,
            labels: BTreeMap::new(),
            hosts: Vec::new(),
            valid_for: VALID_FOR,
        };
        authority.issue(&request, now)?.write(&folder.join("identity").join(name))?;
    }
    Ok(())
}

/// The last lines of a log, to say why a process has ended.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// The body of a page that answers with 200.
pub(super) async fn http_get(addr: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(answer.lines().next().unwrap_or("no answer").to_owned())),
    }
}
