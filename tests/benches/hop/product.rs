//! The product's hop: a base that has the content, and a node that comes up and fetches it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use client::{Client, ConnectOptions};
use shared::budget::Budget;
use shared::job::{Dimensions, Keep, Kind, Quorum, Selector};
use shared::view::{EventBody, JobState};
use shared::wire::request::{JobRef, Reply, Request};
use shared_io::transport::Congestion;
use tokio::time::{Instant, sleep, timeout};

use super::worker::{Worker, identity};

const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const DEADLINE_S: u64 = 3600;

/// CPU time of both ends, and how long it took.
pub(crate) struct Hop {
    pub(crate) base: Duration,
    /// From its start.
    pub(crate) node: Duration,
    pub(crate) wall: Duration,
}

impl Hop {
    pub(crate) fn cpu(&self) -> Duration {
        self.base + self.node
    }
}

/// A base with one node that is down between the hops, and a client.
pub(crate) struct Fleet {
    dir: PathBuf,
    base: Worker,
    addr: String,
    client: Client,
}

impl Fleet {
    /// Starts the base and has the node join once.
    pub(crate) async fn start(dir: &Path) -> Result<Self> {
        let mut base = Worker::start("base", &[text(dir)?])?;
        let ready = dir.join("base-data/ready.json");
        let addr = loop {
            base.check()?;
            if let Ok(ready) = std::fs::read_to_string(&ready) {
                let ready: serde_json::Value = serde_json::from_str(&ready)?;
                let addr = ready.get("listen").and_then(serde_json::Value::as_str);
                break addr.context("ready.json names the address")?.to_owned();
            }
            sleep(LOOK_EVERY).await;
        };
        let client = Client::connect(ConnectOptions {
            base: addr.clone(),
            identity: identity(dir, "client")?,
            patience: PATIENCE,
            congestion: Congestion::default(),
            memory: Budget::default(),
        })
        .await?;
        let fleet = Self { dir: dir.to_owned(), base, addr, client };
        let node = fleet.start_node()?;
        timeout(PATIENCE, fleet.joined()).await.context("the node does not join")??;
        node.stop().await?;
        Ok(fleet)
    }

    /// One hop of the file `source`; also gives the length of the job's chunks.
    pub(crate) async fn hop(&mut self, source: &Path) -> Result<(Hop, usize)> {
        let plan = client::tree::plan(&[source], false)?;
        let dimensions = Dimensions {
            kind: Kind::Files,
            name: None,
            to: vec![Selector::All],
            size: Some(plan.size()),
            deadline_s: Some(DEADLINE_S),
            quorum: Quorum::All,
            priority: 5,
            rate_bps: None,
            keep: Keep::Forever,
            grace_s: DEADLINE_S,
        };
        let mut push = self.client.push(plan, dimensions).await?;
        push.stored().await?;
        let (job, chunk) = (push.job(), push.created().chunk_max);
        drop(push);
        let mut watch = self.client.watch(JobRef::Id(job)).await?;

        let (before, started) = (self.base.cpu()?, Instant::now());
        let node = self.start_node()?;
        let closed = loop {
            let event = watch.next().await?.context("the job has no end")?;
            if let EventBody::Closed(job) = event.body {
                break job;
            }
        };
        let wall = started.elapsed();
        let hop = Hop { base: self.base.cpu()?.saturating_sub(before), node: node.cpu()?, wall };
        ensure!(closed.state == JobState::Complete, "the job is {:?}", closed.state);
        self.client.request(Request::Remove(JobRef::Id(job))).await?;
        self.removed(&job.to_string()).await?;
        node.stop().await?;
        Ok((hop, usize::try_from(chunk)?))
    }

    /// Ends the base.
    pub(crate) async fn stop(self) -> Result<()> {
        self.client.close().await;
        self.base.stop().await
    }

    fn start_node(&self) -> Result<Worker> {
        Worker::start("node", &[text(&self.dir)?, &self.addr])
    }

    async fn joined(&self) -> Result<()> {
        loop {
            match self.client.request(Request::Nodes).await? {
                Reply::Nodes(nodes) if !nodes.is_empty() => return Ok(()),
                Reply::Nodes(_) => sleep(LOOK_EVERY).await,
                other => bail!("the base lists no nodes: {other:?}"),
            }
        }
    }

    /// Waits until base and node have dropped a job: its pages in the cache and its blocks on
    /// the disk are not to be the next round's.
    async fn removed(&self, job: &str) -> Result<()> {
        let folders =
            ["base-data", "node-data"].map(|data| self.dir.join(data).join("jobs").join(job));
        let waiting = async {
            while folders.iter().any(|folder| folder.exists()) {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, waiting).await.context("a removed job stays")
    }
}

fn text(dir: &Path) -> Result<&str> {
    dir.to_str().context("the folder's name is text")
}
