//! A base, nodes and clients, each a process of its own on a port that the system chose.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long anything may take here before the test says that it does not come.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often a condition is looked at that cannot be waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The series of content that has come, before the role that it came from.
const RECEIVED: &str = "distributary_content_bytes_received_total{";

/// Waits until `look` gives something; fails with `what` if it never does.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, looking).await;
    seen.unwrap_or_else(|_elapsed| panic!("not within {PATIENCE:?}: {what}"))
}

/// The executable, without what the environment of the tests may say to it.
pub(crate) fn distributary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distributary"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DISTRIBUTARY_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Runs `command` to its end.
    pub(crate) async fn of(mut command: Command) -> Self {
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = ended.unwrap_or_else(|_elapsed| panic!("still running: {command:?}"));
        let output = output.unwrap();
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What it printed, if it ended with 0.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.out
    }

    /// What it printed as one JSON object, if it ended with 0.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.ok()).unwrap()
    }

    /// Fails unless it ended with `code`, printed nothing and complained with `words`.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        assert!(self.err.contains(words), "{words:?} is not in {self:?}");
    }
}

/// Identities of one authority, the processes that run with them, and a folder for all.
pub(crate) struct Fleet {
    dir: TempDir,
    /// What nodes are started with beside what all are.
    node_arguments: &'static [&'static str],
    roles: BTreeMap<String, Role>,
}

struct Role {
    child: Child,
    /// The process ends when this does, however the test ends.
    _stdin: ChildStdin,
    listen: String,
    http: String,
}

impl Fleet {
    /// A base and `nodes` nodes `n1`, `n2`, … that have joined it; node `n1` has the label
    /// `site=a`, the others `site=b`. There are clients `alice` and `bob`, and an operator
    /// `op`.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// The same with more arguments of all nodes.
    pub(crate) async fn start_with(nodes: usize, node_arguments: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = Self { dir, node_arguments, roles: BTreeMap::new() };
        make_authority(&fleet.path("pki")).await;
        for (role, name) in [("base", "b"), ("client", "alice"), ("client", "bob")] {
            fleet.issue(role, name, &[]).await;
        }
        fleet.issue("operator", "op", &[]).await;
        fleet.start_role("b").await;
        for number in 1..=nodes {
            let label = if number == 1 { "site=a" } else { "site=b" };
            let name = format!("n{number}");
            fleet.issue("node", &name, &["--label", label]).await;
            fleet.start_role(&name).await;
        }
        for number in 1..=nodes {
            fleet.joined(&format!("n{number}")).await;
        }
        fleet
    }

    /// A path in the fleet's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where an identity is.
    pub(crate) fn identity(&self, name: &str) -> PathBuf {
        self.path("identity").join(name)
    }

    /// What a role has as its `--data`.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.path("data").join(name)
    }

    /// A node's files of a job.
    pub(crate) fn files(&self, node: &str, job: &str) -> PathBuf {
        self.data(node).join("jobs").join(job).join("files")
    }

    /// Where the base listens.
    pub(crate) fn base(&self) -> &str {
        &self.roles["b"].listen
    }

    /// Where a role answers HTTP.
    pub(crate) fn http(&self, role: &str) -> String {
        self.roles[role].http.clone()
    }

    /// The most memory that a role has taken since it started, in bytes.
    pub(crate) fn memory(&self, role: &str) -> u64 {
        let pid = self.roles[role].child.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Runs a command as `alice`.
    pub(crate) async fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        self.run_as("alice", arguments).await
    }

    /// Runs a command as `who`.
    pub(crate) async fn run_as<A: AsRef<OsStr>>(&self, who: &str, arguments: &[A]) -> Ran {
        Ran::of(self.command(who, arguments)).await
    }

    /// A command of `who` to the base.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, who: &str, arguments: &[A]) -> Command {
        self.contact(who).command(arguments)
    }

    /// How `who` reaches the base.
    pub(crate) fn contact(&self, who: &str) -> Contact {
        Contact { base: self.base().to_owned(), identity: self.identity(who) }
    }

    /// `push --json` with `arguments`, under way.
    pub(crate) fn push<A: AsRef<OsStr>>(&self, who: &str, arguments: &[A]) -> Following {
        let mut command = self.command(who, &["push", "--json"]);
        command.args(arguments);
        Following::new(command)
    }

    /// Pushes `path` as `alice` to an end with 0, and gives the job's id.
    pub(crate) async fn pushed(&self, path: &Path) -> String {
        let ran = self.run(&[OsStr::new("push"), path.as_os_str()]).await;
        ran.ok().lines().next().unwrap().to_owned()
    }

    /// `job show --json`.
    pub(crate) async fn show(&self, job: &str) -> Value {
        self.run(&["job", "show", job, "--json"]).await.json()
    }

    /// Sends a signal to a role.
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        send(&self.roles[name].child, signal);
    }

    /// Sends a signal to a role and gives the exit code that it ends with.
    pub(crate) async fn end(&mut self, name: &str, signal: Signal) -> Option<i32> {
        self.signal(name, signal);
        let ended = tokio::time::timeout(PATIENCE, self.roles.get_mut(name).unwrap().child.wait());
        ended.await.unwrap_or_else(|_elapsed| panic!("{name} does not end")).unwrap().code()
    }

    /// Starts a role that has ended with the same folder and the same ports.
    pub(crate) async fn start_again(&mut self, name: &str) {
        self.start_role(name).await;
    }

    /// Waits until a node has joined the base, and the base calls it up.
    pub(crate) async fn joined(&self, node: &str) {
        until(&format!("{node} is ready"), async || {
            self.get(node, "/readyz").await.is_some_and(|(status, _)| status == 200).then_some(())
        })
        .await;
        until(&format!("{node} is up"), async || {
            let (_, body) = self.get("b", "/api/v1/nodes").await?;
            let nodes: Value = serde_json::from_str(&body).unwrap();
            let found = nodes["nodes"].as_array().unwrap().iter().find(|n| n["name"] == node)?;
            (found["state"] == "up").then_some(())
        })
        .await;
    }

    /// The status and the body of a page of a role; none if it cannot be had now.
    pub(crate) async fn get(&self, role: &str, path: &str) -> Option<(u16, String)> {
        let (status, _, body) = self.fetch(role, path, "").await?;
        Some((status, String::from_utf8(body).ok()?))
    }

    /// The status, the head and the body of a page of a role, asked for with `fields`, each with
    /// the end of its line; none if it cannot be had now, or is cut off.
    pub(crate) async fn fetch(
        &self,
        role: &str,
        path: &str,
        fields: &str,
    ) -> Option<(u16, String, Vec<u8>)> {
        let addr = &self.roles[role].http;
        let mut stream = TcpStream::connect(addr).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).ok()?.to_ascii_lowercase();
        let status = head.strip_prefix("http/1.1 ")?.get(..3)?.parse().ok()?;
        let is_chunked = head.contains("transfer-encoding: chunked");
        let body = if is_chunked { unchunked(&body)? } else { body };
        Some((status, head, body))
    }

    /// One value of a role's metrics; `series` is its name and labels.
    pub(crate) async fn metric(&self, role: &str, series: &str) -> u64 {
        let (status, page) = self.get(role, "/metrics").await.unwrap();
        assert_eq!(status, 200);
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("{series} is not in {page}"))
    }

    /// Content that a role has received in its present life, of whomever.
    pub(crate) async fn received(&self, role: &str) -> u64 {
        let (status, page) = self.get(role, "/metrics").await.unwrap();
        assert_eq!(status, 200);
        let of_peers = page.lines().filter_map(|line| line.strip_prefix(RECEIVED));
        of_peers.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum()
    }

    async fn issue(&self, role: &str, name: &str, more: &[&str]) {
        issue(&self.path("pki"), role, name, more, &self.identity(name)).await;
    }

    /// Starts a role that has ended, and kills it at some moment of its start.
    pub(crate) async fn start_and_kill(&mut self, name: &str, moment: Duration) {
        let (mut child, _stdin) = self.launch(name);
        tokio::time::sleep(moment).await;
        child.kill().await.unwrap();
    }

    async fn start_role(&mut self, name: &str) {
        let (mut child, stdin) = self.launch(name);
        let data = self.data(name);
        let pid = u64::from(child.id().unwrap());
        let ready = until(&format!("{name} serves"), async || {
            assert_eq!(child.try_wait().unwrap(), None, "{name} has ended");
            let text = std::fs::read_to_string(data.join("ready.json")).ok()?;
            // A killed process has left the file of its own.
            let ready: Value = serde_json::from_str(&text).unwrap();
            (ready["pid"] == pid).then_some(ready)
        })
        .await;
        assert_eq!(ready["v"], 1);
        let of = |key: &str| ready[key].as_str().unwrap().to_owned();
        let (listen, http) = (of("listen"), of("http"));
        self.roles.insert(name.to_owned(), Role { child, _stdin: stdin, listen, http });
    }

    /// Starts the process of a role, with the ports that it had before.
    fn launch(&self, name: &str) -> (Child, ChildStdin) {
        let before = self.roles.get(name);
        let address = |chosen: fn(&Role) -> &String| {
            before.map_or("127.0.0.1:0".to_owned(), |role| chosen(role).clone())
        };
        let data = self.data(name);
        let mut command = distributary();
        command.arg(if name == "b" { "base" } else { "node" });
        command.arg("--identity").arg(self.identity(name)).arg("--data").arg(&data);
        command.arg("--listen").arg(address(|role| &role.listen));
        command.arg("--http").arg(address(|role| &role.http));
        if name != "b" {
            command.arg("--base").arg(self.base()).args(self.node_arguments);
        }
        let log = self.path(&format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command.arg("--until-stdin-closes").stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    }
}

/// A base, and an identity to reach it with.
pub(crate) struct Contact {
    base: String,
    identity: PathBuf,
}

impl Contact {
    /// A command to the base.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = distributary();
        command.args(arguments).arg("--base").arg(&self.base);
        command.arg("--identity").arg(&self.identity);
        command
    }
}

/// A body that came in chunks; none if its end is missing.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let len = std::str::from_utf8(&rest[..line]).ok()?;
        let len = usize::from_str_radix(len, 16).ok()?;
        rest = &rest[line + 2..];
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..len)?);
        rest = rest.get(len + 2..)?;
    }
}

/// A command that prints events, under way.
pub(crate) struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// All events up to now.
    pub(crate) events: Vec<Value>,
}

impl Following {
    /// Starts `command`.
    pub(crate) fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, events: Vec::new() }
    }

    /// The next event; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_elapsed| panic!("no event after {:?}", self.events));
        let event: Value = serde_json::from_str(&line.unwrap()?).unwrap();
        self.events.push(event.clone());
        Some(event)
    }

    /// Waits for an event that `fits`, and gives it.
    pub(crate) async fn event(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next().await;
            let event = event.unwrap_or_else(|| panic!("no such event: {:?}", self.events));
            if fits(&event) {
                return event;
            }
        }
    }

    /// The standard input of a command that was given a pipe.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Sends a signal to the command.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Kills the command.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Follows it to its end; gives the exit code, the last event and what it complained of.
    pub(crate) async fn finish(&mut self) -> (Option<i32>, Value, String) {
        while self.next().await.is_some() {}
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        (status.code(), self.events.last().cloned().unwrap_or_default(), err)
    }
}

/// Makes an authority with `certs init`.
pub(crate) async fn make_authority(pki: &Path) {
    let mut command = distributary();
    command.args(["certs", "init", "--dir"]).arg(pki);
    Ran::of(command).await.ok();
}

/// Issues an identity with `certs issue`.
pub(crate) async fn issue(pki: &Path, role: &str, name: &str, more: &[&str], out: &Path) {
    let mut command = distributary();
    command.args(["certs", "issue", "--role", role, "--name", name]).args(more);
    command.arg("--dir").arg(pki).arg("--out").arg(out);
    Ran::of(command).await.ok();
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    kill_process(pid.unwrap(), signal).unwrap();
}
