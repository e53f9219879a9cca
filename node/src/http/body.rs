//! The bytes of an object on their way to a reader, one buffer at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::HttpBody;
use bytes::Bytes;
use http_body::Frame;
use shared_io::store::{ObjectFile, StoreError};
use shared_io::telemetry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use super::answer::Extent;

/// Bytes that are read at a time. The next are read when these have been handed to the system,
/// so a slow reader holds so many, and no more.
pub(super) const BUFFER_LEN: u32 = 64 * 1024;

/// Why bytes cannot go on: the connection is cut, so that nobody takes this for the end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
    /// Reading has panicked.
    #[error("reading has ended")]
    Reading(#[from] tokio::task::JoinError),
}

/// What reads an object.
#[derive(Debug)]
pub(super) struct Reader {
    file: Arc<ObjectFile>,
    changes: watch::Receiver<u64>,
    at: u64,
    end: Option<u64>,
    /// Taken by the buffer that is on its way.
    buffer: Arc<Semaphore>,
    stop: CancellationToken,
    _reader: OwnedSemaphorePermit,
}

/// The body of an answer.
///
/// It must be written as it comes: who keeps its buffers gets no further ones.
pub(super) struct ObjectBody {
    next: ReusableBoxFuture<'static, (Reader, Option<Result<Bytes, BodyError>>)>,
    has_ended: bool,
}

/// A buffer; the next one may be read when it is gone.
struct Buffer {
    bytes: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What can be read at a position.
enum Step {
    Piece(Bytes),
    /// Nothing yet.
    Later,
    End,
}

impl Reader {
    /// Reads `extent` of `file` until `stop`.
    pub(super) fn new(
        file: ObjectFile,
        extent: Extent,
        (reader, stop): (OwnedSemaphorePermit, CancellationToken),
    ) -> Self {
        let changes = file.store().changes();
        let (at, end) = (extent.start, extent.end);
        let (file, buffer) = (Arc::new(file), Arc::new(Semaphore::new(1)));
        Self { file, changes, at, end, buffer, stop, _reader: reader }
    }

    /// The body that this reads.
    pub(super) fn into_body(self) -> ObjectBody {
        ObjectBody { next: ReusableBoxFuture::new(self.step()), has_ended: false }
    }

    async fn step(mut self) -> (Self, Option<Result<Bytes, BodyError>>) {
        let next = self.next().await.transpose();
        (self, next)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let stop = self.stop.clone();
        let place = Arc::clone(&self.buffer).acquire_owned();
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(BodyError::Stopped),
            // It is never closed.
            place = place => place.ok(),
        };
        loop {
            self.changes.borrow_and_update();
            let (file, at, end) = (Arc::clone(&self.file), self.at, self.end);
            let step = tokio::task::spawn_blocking(move || read(&file, at, end)).await??;
            match step {
                Step::End => return Ok(None),
                Step::Piece(bytes) => {
                    self.at += bytes.len() as u64;
                    telemetry::http_content_sent(bytes.len() as u64);
                    return Ok(Some(Bytes::from_owner(Buffer { bytes, _place: place })));
                }
                Step::Later => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(BodyError::Stopped),
                // The file keeps the sender.
                _changed = self.changes.changed() => {}
            }
        }
    }
}

fn read(file: &ObjectFile, at: u64, end: Option<u64>) -> Result<Step, StoreError> {
    let (shown, is_all) = file.shown()?;
    let until = end.map_or(shown, |end| end.min(shown));
    if at < until {
        let len = u32::try_from(until - at).unwrap_or(BUFFER_LEN).min(BUFFER_LEN);
        return file.read(at, len).map(Step::Piece);
    }
    let has_ended = is_all || end.is_some_and(|end| at >= end);
    Ok(if has_ended { Step::End } else { Step::Later })
}

impl HttpBody for ObjectBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let (reader, next) = ready!(self.next.poll(cx));
        match next {
            Some(Ok(bytes)) => {
                self.next.set(reader.step());
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => {
                self.has_ended = true;
                tracing::debug!(%error, "an answer is cut off");
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.has_ended = true;
                Poll::Ready(None)
            }
        }
    }
}
