//! The byte mover out: from the content store into one peer's job stream.

use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{SendStream, StoppedError, VarInt, WriteError};
use shared::job::{JobObject, Kind};
use shared::relay::Next;
use shared::turns::Claim;
use shared::wire::code::Code;
use shared::wire::record::{RecordKind, RecordWriter};
use tokio::sync::Notify;

use crate::job::{Job, Keeping};
use crate::link::{Link, chain};
use crate::store::StoreError;
use crate::turns::Turn;

/// Bytes that are read and laid out at a time: with the send window, all that a stop or a
/// more urgent job has to wait for.
const BATCH_MIN: u64 = 16 * 1024;
const BATCH_MAX: u64 = 256 * 1024;
/// How old the choice of what to send may be when a job's rate cap holds it back.
const BATCH_TIME: Duration = Duration::from_millis(200);
/// Bytes that one job writes before it is another one's turn on the connection.
const TURN: usize = 16 * 1024;
/// What a live stream has before files: more than the highest priority of a job.
const PRIORITY_LIVE: i32 = 10;

/// Why an outlet ends before its job does.
#[derive(Debug, thiserror::Error)]
enum OutletError {
    #[error("the stream broke")]
    Write(#[from] WriteError),
    #[error("the connection broke")]
    Connection(#[from] quinn::ConnectionError),
    #[error("reading the content")]
    Store(#[from] StoreError),
    #[error("the reader has ended")]
    Reader(#[from] tokio::task::JoinError),
}

/// Sends `peer` what the engine chooses until the job or the link is over.
pub(crate) async fn run(job: Arc<Job>, link: Arc<Link>, wake: Arc<Notify>) {
    let result = serve(&job, &link, &wake).await;
    job.outlet_ended(link.peer(), &wake);
    match result {
        Ok(()) => {}
        Err(OutletError::Store(error)) => job.fail(chain(&error)),
        Err(OutletError::Write(WriteError::Stopped(_))) => job.stopped_by(link.peer()),
        Err(error) => {
            tracing::debug!(job = %job.id(), peer = %link.peer(), error = chain(&error), "outlet");
        }
    }
}

async fn serve(job: &Arc<Job>, link: &Arc<Link>, wake: &Notify) -> Result<(), OutletError> {
    let mut stream: Option<SendStream> = None;
    let mut writer = RecordWriter::new();
    let mut turn = None;
    loop {
        let window = link.connection().stats().path.cwnd;
        let bytes = window.clamp(BATCH_MIN, BATCH_MAX).min(job.capped(BATCH_TIME));
        let batch = job.next_batch(link.peer(), bytes);
        if batch.is_empty() {
            turn = None;
            tokio::select! {
                biased;
                () = job.over().cancelled() => {
                    if let Some(mut stream) = stream {
                        // A stream that the peer has stopped already needs no reset.
                        stream.reset(VarInt::from_u32(Code::NoJob.number())).ok();
                    }
                    return Ok(());
                }
                () = wake.notified() => continue,
                error = stopped(stream.as_ref()) => return Err(error.into()),
            }
        }
        let out = match &mut stream {
            Some(out) => out,
            None => {
                let out = tokio::select! {
                    biased;
                    () = job.over().cancelled() => return Ok(()),
                    out = link.connection().open_uni() => out?,
                };
                // A stream that has just been opened has a priority to set.
                out.set_priority(stream_priority(job.object())).ok();
                stream.insert(out)
            }
        };
        let payload: u64 = batch.iter().map(chunk_bytes).sum();
        let (framed, back) = lay_out(job, batch, writer, &mut turn).await?;
        writer = back;
        tokio::select! {
            biased;
            () = job.over().cancelled() => {
                out.reset(VarInt::from_u32(Code::NoJob.number())).ok();
                return Ok(());
            }
            written = write_in_turns(job, link, out, &mut turn, framed) => written?,
        }
        if payload > 0 {
            link.content().sent(payload);
        }
    }
}

/// Waits until the peer has stopped the stream, or is gone: a stream that is not reset then keeps
/// its place among those that the peer allows. Without a stream for ever.
async fn stopped(stream: Option<&SendStream>) -> WriteError {
    if let Some(stream) = stream {
        match stream.stopped().await {
            Ok(Some(code)) => return WriteError::Stopped(code),
            Err(StoppedError::ConnectionLost(why)) => return WriteError::ConnectionLost(why),
            Ok(None) | Err(StoppedError::ZeroRttRejected) => {}
        }
    }
    pending().await
}

/// Writes `bytes` in pieces, each when it is this job's turn on the uplink and on the connection.
///
/// A job keeps its `turn` on the connection as long as it has more to send, unless another one is
/// before it: else a piece of somebody else's would slip in between each two of its own. Files
/// wait for the uplink first, and give up that turn if they have to: who waits there holds up
/// nobody on the connection. A live stream waits for the connection first. quinn wakes the writer
/// that came last when there is room on a connection, and so lets one of three or more that always
/// have something to write starve; that is why jobs take turns. What a turn waits for is room in
/// the connection's send window, not for its own stream: job streams are always read.
async fn write_in_turns(
    job: &Job,
    link: &Link,
    out: &mut SendStream,
    turn: &mut Option<Turn>,
    mut bytes: Bytes,
) -> Result<(), WriteError> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(TURN));
        if let Some(at) = job.pace(piece.len() as u64) {
            *turn = None;
            tokio::time::sleep_until(at).await;
        }
        let claim = job.claim(piece.len() as u64);
        match claim.kind {
            Kind::Files => {
                uplink_or_give_up(job, claim, turn).await;
                *turn = Some(link.turn(claim, turn.take()).await);
                out.write_chunk(piece).await?;
            }
            Kind::Live => {
                *turn = Some(link.turn(claim, turn.take()).await);
                job.access().turn(claim).await;
                out.write_chunk(piece).await?;
            }
        }
    }
    Ok(())
}

/// Waits for the turn on the uplink; without the one on the connection, if it is not at once.
async fn uplink_or_give_up(job: &Job, claim: Claim, turn: &mut Option<Turn>) {
    let uplink = job.access().turn(claim);
    tokio::pin!(uplink);
    tokio::select! {
        biased;
        () = &mut uplink => {}
        () = ready(()) => {
            *turn = None;
            uplink.await;
        }
    }
}

/// Live streams before all files on a connection, whatever else is in quinn's hands already.
fn stream_priority(object: &JobObject) -> i32 {
    let live = match object.kind {
        Kind::Files => 0,
        Kind::Live => PRIORITY_LIVE,
    };
    live + i32::from(object.priority)
}

fn chunk_bytes((next, len): &(Next, u32)) -> u64 {
    match next {
        Next::Page(_) | Next::PageInPlace(_) => 0,
        Next::Chunk(_) => u64::from(*len),
    }
}

/// Reads the records of a batch and lays them out as the next bytes of the stream. Whoever waits
/// for the disk gives its `turn` on the connection back: only what can be sent holds up others.
async fn lay_out(
    job: &Arc<Job>,
    batch: Vec<(Next, u32)>,
    mut writer: RecordWriter,
    turn: &mut Option<Turn>,
) -> Result<(Bytes, RecordWriter), OutletError> {
    let job = Arc::clone(job);
    let in_memory = batch.iter().all(|(next, _)| match next {
        Next::Page(_) | Next::PageInPlace(_) => matches!(job.keeping(), Keeping::Memory(_)),
        Next::Chunk(chunk) => job.in_memory(*chunk).is_some(),
    });
    let read = move || {
        let bytes: usize = batch.iter().map(|(_, len)| *len as usize).sum();
        let mut framed = Vec::with_capacity(bytes + bytes / 64 + 256);
        if writer.offset() == 0 {
            writer.put(RecordKind::Job, 0, &job.id().0, &mut framed);
        }
        for (next, _) in batch {
            match next {
                // What is not here any more is left out. It has become void since it was chosen,
                // or a publisher is asked for what was durable at the base, and is lost there.
                Next::Page(index) | Next::PageInPlace(index) => match job.read_page(index) {
                    Ok(page) => {
                        let kind = match next {
                            _ if job.sends_drafts() => RecordKind::Draft,
                            Next::PageInPlace(_) => RecordKind::PageInPlace,
                            Next::Page(_) | Next::Chunk(_) => RecordKind::Page,
                        };
                        writer.put(kind, u64::from(index), &page.to_record(), &mut framed);
                    }
                    Err(StoreError::NoPage(_)) => {}
                    Err(error) => return Err(error),
                },
                Next::Chunk(chunk) => match job.read_chunk(chunk) {
                    Ok(payload) => writer.put(RecordKind::Chunk, chunk, &payload, &mut framed),
                    Err(StoreError::NoChunk(_)) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok::<_, StoreError>((Bytes::from(framed), writer))
    };
    if in_memory {
        return Ok(read()?);
    }
    *turn = None;
    Ok(tokio::task::spawn_blocking(read).await??)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::job::tests::on_disk;
    use crate::turns::LinkTurns;

    #[test]
    fn a_slow_disk_holds_up_no_other_job_of_the_connection() {
        let folder = tempfile::tempdir().unwrap();
        let job = on_disk(folder.path());
        // The one thread that may read is busy until this end is dropped.
        let (busy, until) = mpsc::sync_channel::<()>(0);
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        runtime.unwrap().block_on(async {
            let disk = tokio::task::spawn_blocking(move || until.recv());
            let turns = Arc::new(LinkTurns::default());
            let mut turn = Some(turns.turn(job.claim(1), None).await);
            let batch = vec![(Next::Page(0), 100)];
            let reads = lay_out(&job, batch, RecordWriter::new(), &mut turn);
            tokio::pin!(reads);
            tokio::select! {
                biased;
                _ = &mut reads => panic!("it does not wait for the disk"),
                () = ready(()) => {}
            }
            tokio::select! {
                biased;
                _ = turns.turn(job.claim(1), None) => {}
                () = ready(()) => panic!("the other job is held up"),
            }
            drop(busy);
            disk.await.unwrap().unwrap_err();
            reads.await.unwrap();
        });
    }
}
