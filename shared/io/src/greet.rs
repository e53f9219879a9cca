//! Greeting: who is there, and on what terms, before anything else is said.

use std::time::Duration;

use certs::peer::{self, IdentifyError, PeerIdentity};
use quinn::{Connection, ConnectionError, Endpoint, ReadError, VarInt, WriteError};
use rustls::pki_types::CertificateDer;
use shared::id::Role;
use shared::limit;
use shared::wire::code::Code;
use shared::wire::codec::{self, DecodeError};
use shared::wire::frame::{FrameReader, put_frame};
use shared::wire::message::{self, Checked, FrameType, Hello, Welcome};

use crate::link::ControlStream;

/// How long the greeting may take after the handshake.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);

/// Why two peers do not come together.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// Nothing answers at the address.
    #[error("nobody answers")]
    Unreachable(#[source] ConnectionError),
    /// The peer refuses this identity, or this side refuses the peer's.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] ConnectionError),
    /// The peer does not speak as it should.
    #[error("the peer does not greet as it should: {0}")]
    Malformed(String),
    /// The address cannot be dialled.
    #[error("cannot dial: {0}")]
    Dial(#[from] quinn::ConnectError),
}

impl From<DecodeError> for GreetError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<ConnectionError> for GreetError {
    /// TLS alerts and a close as refused are refusals; silence is an unreachable peer.
    fn from(error: ConnectionError) -> Self {
        match &error {
            ConnectionError::ApplicationClosed(close)
                if Code::from_number(close.error_code.into_inner()) == Some(Code::Refused) =>
            {
                Self::Refused(String::from_utf8_lossy(&close.reason).into_owned())
            }
            ConnectionError::ConnectionClosed(close) if is_tls_alert(close.error_code) => {
                Self::Refused(describe_alert(close.error_code, &close.reason))
            }
            ConnectionError::TransportError(local) if is_tls_alert(local.code) => {
                Self::Refused(format!("the peer's certificate: {}", local.reason))
            }
            ConnectionError::VersionMismatch => Self::Refused("another QUIC version".to_owned()),
            ConnectionError::TimedOut => Self::Unreachable(error),
            ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::ApplicationClosed(_)
            | ConnectionError::Reset
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => Self::Broken(error),
        }
    }
}

/// TLS alerts are the transport error codes 0x100 to 0x1ff (RFC 9001, section 4.8).
fn is_tls_alert(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

fn describe_alert(code: quinn::TransportErrorCode, reason: &[u8]) -> String {
    let alert = u8::try_from(u64::from(code) & 0xff).unwrap_or_default();
    match certs::tls::identity_alert(alert) {
        Some(text) => text.to_owned(),
        None => format!("TLS alert {alert}: {}", String::from_utf8_lossy(reason)),
    }
}

/// A peer that has been greeted.
#[derive(Debug)]
pub struct Greeted<G> {
    /// The connection.
    pub connection: Connection,
    /// The control stream.
    pub control: ControlStream,
    /// What the peer's certificate says.
    pub identity: PeerIdentity,
    /// What the peer said.
    pub greeting: G,
}

/// Dials a peer of `role`, says `hello`, and waits to be welcomed.
///
/// # Errors
/// [`GreetError`] if nobody answers or either side refuses.
pub async fn dial(
    endpoint: &Endpoint,
    addr: std::net::SocketAddr,
    role: Role,
    hello: &Hello,
) -> Result<Greeted<Welcome>, GreetError> {
    let connection = endpoint.connect(addr, certs::tls::server_name(role))?.await?;
    let identity = identify(&connection)?;
    if identity.role != role {
        let text = format!("the peer is a {}, not a {role}", identity.role);
        return Err(refuse(&connection, text));
    }
    let greeting = async {
        let (mut send, recv) = connection.open_bi().await?;
        let mut frame = Vec::new();
        put_frame(&mut frame, FrameType::Hello as u8, &codec::encode(hello));
        send.write_chunk(frame.into()).await.map_err(write_error)?;
        let mut control = ControlStream { send, recv, frames: FrameReader::new() };
        let welcome: Welcome = read_greeting(&mut control, FrameType::Welcome).await?;
        Ok((control, welcome))
    };
    let (control, greeting) = patiently(&connection, greeting).await?;
    Ok(Greeted { connection, control, identity, greeting })
}

/// Accepts a peer: waits for its greeting. [`welcome`] answers it.
///
/// # Errors
/// [`GreetError`] if the peer shows no identity or does not greet.
pub async fn accept(incoming: quinn::Incoming) -> Result<Greeted<Hello>, GreetError> {
    let connection = incoming.await?;
    let identity = identify(&connection)?;
    let greeting = async {
        let (send, recv) = connection.accept_bi().await?;
        let mut control = ControlStream { send, recv, frames: FrameReader::new() };
        let hello: Hello = read_greeting(&mut control, FrameType::Hello).await?;
        Ok((control, hello))
    };
    let (control, greeting) = patiently(&connection, greeting).await?;
    Ok(Greeted { connection, control, identity, greeting })
}

/// Answers a greeting.
///
/// # Errors
/// [`GreetError::Broken`] if the peer is gone.
pub async fn welcome(control: &mut ControlStream, welcome: &Welcome) -> Result<(), GreetError> {
    let mut frame = Vec::new();
    put_frame(&mut frame, FrameType::Welcome as u8, &codec::encode(welcome));
    control.send.write_chunk(frame.into()).await.map_err(write_error)
}

/// Closes a connection because its peer is refused; `text` reaches it.
pub fn refuse(connection: &Connection, text: String) -> GreetError {
    crate::telemetry::refused();
    connection.close(VarInt::from_u32(Code::Refused.number()), text.as_bytes());
    GreetError::Refused(text)
}

async fn patiently<T>(
    connection: &Connection,
    greeting: impl Future<Output = Result<T, GreetError>>,
) -> Result<T, GreetError> {
    let late = || format!("no greeting within {} s", GREETING_PATIENCE.as_secs());
    let done = tokio::time::timeout(GREETING_PATIENCE, greeting).await;
    let done = done.unwrap_or_else(|_elapsed| Err(GreetError::Malformed(late())));
    if let Err(GreetError::Malformed(text)) = &done {
        connection.close(VarInt::from_u32(Code::Malformed.number()), text.as_bytes());
    }
    done
}

fn identify(connection: &Connection) -> Result<PeerIdentity, GreetError> {
    let chain = connection.peer_identity().and_then(|any| any.downcast().ok());
    let chain: Box<Vec<CertificateDer<'static>>> =
        chain.ok_or_else(|| refuse(connection, IdentifyError::NoCertificate.to_string()))?;
    peer::identify(&chain).map_err(|error| refuse(connection, error.to_string()))
}

async fn read_greeting<T: Checked>(
    control: &mut ControlStream,
    kind: FrameType,
) -> Result<T, GreetError> {
    loop {
        if let Some(frame) = control.frames.next(limit::FRAME_LEN_MAX)? {
            if frame.kind != kind as u8 {
                let found = frame.kind;
                return Err(GreetError::Malformed(format!("frame of type {found} comes first")));
            }
            return Ok(message::decode(&frame.body)?);
        }
        match control.recv.read_chunk(limit::FRAME_LEN_MAX, true).await {
            Ok(Some(chunk)) => control.frames.push(&chunk.bytes),
            Ok(None) => return Err(GreetError::Malformed("the stream ended".to_owned())),
            Err(ReadError::ConnectionLost(error)) => return Err(error.into()),
            Err(error) => return Err(GreetError::Malformed(error.to_string())),
        }
    }
}

fn write_error(error: WriteError) -> GreetError {
    match error {
        WriteError::ConnectionLost(error) => error.into(),
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            GreetError::Malformed(error.to_string())
        }
    }
}
