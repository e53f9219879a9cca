//! The live stream of the demo: made as it is pushed, kept to compare with, and looked at half
//! way to see that every node shows it while it grows.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::MissedTickBehavior;

use crate::exit::Failure;

use super::source::Made;

/// The name of the object.
pub(super) const NAME: &str = "stream";
/// Bytes of the stream a second: 8 Mbit/s, a picture in high definition.
pub(super) const BYTES_PER_SECOND: u64 = 1_000_000;
/// How often something is written.
const WRITE_EVERY: Duration = Duration::from_millis(10);
/// Bytes written then.
const PIECE: usize = (BYTES_PER_SECOND / 100) as usize;

/// What a node showed while the stream was being pushed.
#[derive(Debug)]
pub(super) struct Glimpse {
    pub(super) node: String,
    /// Bytes that it showed, if they were what was pushed.
    pub(super) shown: Result<u64, String>,
    /// Bytes that had been pushed.
    pub(super) pushed: u64,
}

/// Writes a stream for `duration` to the push and to `kept`. Half way it looks at what the nodes
/// show; `nodes` has the folder of jobs of each.
pub(super) async fn write(
    mut push: ChildStdin,
    kept: &Path,
    duration: Duration,
    nodes: &[(String, PathBuf)],
) -> Result<Vec<Glimpse>, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("writing the stream: {error}"));
    let mut copy = tokio::fs::File::create(kept).await.map_err(failed)?;
    let pieces = (duration.as_millis() / WRITE_EVERY.as_millis()).max(2);
    let mut made = Made::default();
    let mut glimpses = Vec::new();
    let mut tick = tokio::time::interval(WRITE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut piece = vec![0; PIECE];
    for number in 0..pieces {
        tick.tick().await;
        made.fill(&mut piece);
        copy.write_all(&piece).await.map_err(failed)?;
        push.write_all(&piece).await.map_err(failed)?;
        if number == pieces / 2 {
            copy.flush().await.map_err(failed)?;
            let pushed = u64::try_from(number + 1).unwrap_or(0) * PIECE as u64;
            glimpses = look(nodes, kept, pushed).await?;
        }
    }
    copy.flush().await.map_err(failed)?;
    push.shutdown().await.map_err(failed)?;
    Ok(glimpses)
}

async fn look(
    nodes: &[(String, PathBuf)],
    kept: &Path,
    pushed: u64,
) -> Result<Vec<Glimpse>, Failure> {
    let (nodes, kept) = (nodes.to_vec(), kept.to_owned());
    let looked = tokio::task::spawn_blocking(move || {
        let glimpse =
            |(node, jobs): (String, PathBuf)| Glimpse { node, shown: shown(&jobs, &kept), pushed };
        nodes.into_iter().map(glimpse).collect()
    });
    looked.await.map_err(|error| Failure::failed(error.to_string()))
}

/// Bytes that the one job in `jobs` shows of the stream; the error says what is wrong with them.
fn shown(jobs: &Path, kept: &Path) -> Result<u64, String> {
    let read = || -> std::io::Result<Option<Vec<u8>>> {
        for job in std::fs::read_dir(jobs)? {
            let path = job?.path().join("files").join(NAME);
            if path.exists() {
                return std::fs::read(path).map(Some);
            }
        }
        Ok(None)
    };
    let Some(shown) = read().map_err(|error| error.to_string())? else {
        return Err("it shows nothing yet".to_owned());
    };
    let mut begun = Vec::new();
    let file = std::fs::File::open(kept).map_err(|error| error.to_string())?;
    file.take(shown.len() as u64).read_to_end(&mut begun).map_err(|error| error.to_string())?;
    if begun == shown {
        Ok(shown.len() as u64)
    } else {
        Err("it shows other bytes than were pushed".to_owned())
    }
}
