//! Requests and replies: one bidirectional stream each.

use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use shared::id::Role;
use shared::limit;
use shared::wire::code::Code;
use shared::wire::codec::{self, DecodeError};
use shared::wire::frame::{FrameReader, put_frame};
use shared::wire::message::{self, FrameType};
use shared::wire::request::{Refusal, RefusalKind, Reply, Request};
use shared::wire::rights;
use std::time::Duration;

/// How long a peer may take to send a request on a stream that it has opened.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// Why a request cannot be read, or its reply cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The bytes are no request, or no reply.
    #[error("malformed request or reply: {0}")]
    Malformed(#[from] DecodeError),
    /// A frame of another type.
    #[error("frame of type {0} where a request or reply was due")]
    Frame(u8),
    /// The peer's role may not request this.
    #[error("a {0} may not request this")]
    Forbidden(Role),
    /// The stream ended early.
    #[error("the stream ended before the request or reply was whole")]
    Ended,
    /// Nothing came in time.
    #[error("no request came within {} s", REQUEST_PATIENCE.as_secs())]
    Patience,
    /// The connection or the stream broke while reading.
    #[error("reading: {0}")]
    Read(#[from] ReadError),
    /// The connection or the stream broke while writing.
    #[error("writing: {0}")]
    Write(#[from] WriteError),
    /// The connection broke.
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
}

impl RequestError {
    /// The code with which a connection is closed for it.
    pub const fn code(&self) -> Code {
        match self {
            Self::Forbidden(_) => Code::Refused,
            Self::Malformed(_) | Self::Frame(_) | Self::Ended | Self::Patience => Code::Malformed,
            Self::Read(_) | Self::Write(_) | Self::Connection(_) => Code::Done,
        }
    }
}

/// Reads the request of a stream and checks that the peer's role may make it.
///
/// # Errors
/// [`RequestError`] if there is none or it is not allowed.
pub async fn read_request(mut recv: RecvStream, sender: Role) -> Result<Request, RequestError> {
    let read = read_frame(&mut recv, FrameType::Request, limit::FRAME_LEN_MAX);
    let body = match tokio::time::timeout(REQUEST_PATIENCE, read).await {
        Ok(read) => read?.ok_or(RequestError::Ended)?,
        Err(_elapsed) => return Err(RequestError::Patience),
    };
    let request: Request = message::decode(&body)?;
    if rights::may_request(sender, &request) {
        Ok(request)
    } else {
        Err(RequestError::Forbidden(sender))
    }
}

async fn read_frame(
    recv: &mut RecvStream,
    kind: FrameType,
    limit: usize,
) -> Result<Option<bytes::Bytes>, RequestError> {
    let mut frames = FrameReader::new();
    loop {
        if let Some(frame) = frames.next(limit)? {
            let right = frame.kind == kind as u8;
            return if right { Ok(Some(frame.body)) } else { Err(RequestError::Frame(frame.kind)) };
        }
        match recv.read_chunk(limit::FRAME_LEN_MAX, true).await? {
            Some(chunk) => frames.push(&chunk.bytes),
            None if frames.is_empty() => return Ok(None),
            None => return Err(RequestError::Ended),
        }
    }
}

/// The answering side of a request.
#[derive(Debug)]
pub struct Replies {
    send: SendStream,
}

impl Replies {
    /// Replies on `send`.
    pub const fn new(send: SendStream) -> Self {
        Self { send }
    }

    /// Sends a reply; more may follow.
    ///
    /// # Errors
    /// [`WriteError`] if the asker is gone.
    pub async fn send(&mut self, reply: &Reply) -> Result<(), WriteError> {
        let mut frame = Vec::new();
        put_frame(&mut frame, FrameType::Reply as u8, &codec::encode(reply));
        self.send.write_chunk(frame.into()).await
    }

    /// Sends the last reply.
    ///
    /// # Errors
    /// [`WriteError`] if the asker is gone.
    pub async fn finish(mut self, reply: &Reply) -> Result<(), WriteError> {
        self.send(reply).await?;
        self.end();
        Ok(())
    }

    /// Refuses.
    ///
    /// # Errors
    /// [`WriteError`] if the asker is gone.
    pub async fn refuse(self, kind: RefusalKind, text: String) -> Result<(), WriteError> {
        self.finish(&Reply::Refused(Refusal { kind, text })).await
    }

    /// Ends the replies.
    pub fn end(&mut self) {
        if self.send.finish().is_err() {
            tracing::debug!("the asker has stopped listening");
        }
    }

    /// Resolves when the asker has stopped listening.
    pub async fn abandoned(&mut self) {
        if let Err(error) = self.send.stopped().await {
            tracing::debug!(%error, "the asker is gone");
        }
    }
}

/// The asking side of a request.
#[derive(Debug)]
pub struct Asked {
    recv: RecvStream,
    frames: FrameReader,
}

/// Sends a request.
///
/// # Errors
/// [`RequestError`] if the connection breaks.
pub async fn ask(connection: &quinn::Connection, request: &Request) -> Result<Asked, RequestError> {
    let (mut send, recv) = connection.open_bi().await?;
    let mut frame = Vec::new();
    put_frame(&mut frame, FrameType::Request as u8, &codec::encode(request));
    send.write_chunk(frame.into()).await?;
    if send.finish().is_err() {
        tracing::debug!("the base does not read the request");
    }
    Ok(Asked { recv, frames: FrameReader::new() })
}

impl Asked {
    /// The next reply; `None` when there are no more.
    ///
    /// # Errors
    /// [`RequestError`] if the connection breaks or the reply is malformed.
    ///
    /// # Cancellation
    /// Safe: what has arrived is kept for the next call.
    pub async fn next(&mut self) -> Result<Option<Reply>, RequestError> {
        loop {
            if let Some(frame) = self.frames.next(limit::LIST_FRAME_LEN_MAX)? {
                if frame.kind != FrameType::Reply as u8 {
                    return Err(RequestError::Frame(frame.kind));
                }
                return Ok(Some(message::decode(&frame.body)?));
            }
            match self.recv.read_chunk(limit::FRAME_LEN_MAX, true).await? {
                Some(chunk) => self.frames.push(&chunk.bytes),
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(RequestError::Ended),
            }
        }
    }

    /// Stops listening.
    pub fn stop(mut self) {
        if self.recv.stop(VarInt::from_u32(Code::Done.number())).is_err() {
            tracing::debug!("the replies had ended");
        }
    }
}
