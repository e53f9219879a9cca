//! Reaching the base through the SDK, and what its errors mean for the exit code.

use std::error::Error;

use client::{AskError, Client, ConnectError, ConnectOptions, PushError};
use quinn::{ConnectionError, ReadError, WriteError};
use shared::id::Role;
use shared::wire::code::Code;
use shared::wire::request::{Reply, Request};
use shared_io::request::RequestError;

use crate::args::Contact;
use crate::exit::{Exit, Failure};
use crate::stop::{Stop, Stopper};

/// Threads for the disk and for hashing: more would not be faster, and each keeps memory.
const BLOCKING_THREADS_MAX: usize = 4;

/// Runs `work` on a runtime of its own.
///
/// # Errors
/// [`Failure`] if there is no runtime to be had, or that of `work`.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?
        .block_on(work)
}

/// What connecting takes, checked before anything is sent.
///
/// # Errors
/// [`Failure`] if a flag is missing or the identity cannot be used.
pub(crate) fn options(contact: &Contact) -> Result<ConnectOptions, Failure> {
    let options = ConnectOptions::load(contact.base()?, contact.identity()?)?;
    options.identity.require(&[Role::Client, Role::Operator])?;
    Ok(options)
}

/// Connects, unless the command must end before.
///
/// # Errors
/// [`Failure`] if the base refuses, is not reached, or the command must end.
pub(crate) async fn connect(
    options: ConnectOptions,
    stopper: &mut Stopper,
) -> Result<Client, Failure> {
    tokio::select! {
        biased;
        stop = stopper.wait() => Err(stopped(stop)),
        connected = Client::connect(options) => Ok(connected?),
    }
}

/// Asks the base one question and closes the connection.
///
/// # Errors
/// [`Failure`] if a flag is missing, the base is not reached, or it refuses.
pub(crate) fn ask(contact: &Contact, request: Request) -> Result<Reply, Failure> {
    let options = options(contact)?;
    block_on(async {
        let mut stopper = Stopper::new(None)?;
        let client = connect(options, &mut stopper).await?;
        let reply = tokio::select! {
            biased;
            stop = stopper.wait() => return Err(stopped(stop)),
            reply = client.request(request) => reply,
        };
        client.close().await;
        Ok(reply?)
    })
}

/// The end of a command that has nothing to leave behind.
pub(crate) fn stopped(stop: Stop) -> Failure {
    match stop {
        Stop::Interrupted => Failure::new(Exit::Interrupted, "interrupted"),
        Stop::TimedOut => Failure::new(Exit::Timeout, "the time of --timeout is over"),
    }
}

/// A reply of a kind that does not answer the question.
pub(crate) fn unexpected() -> Failure {
    AskError::Answer.into()
}

/// The peer's words, if it closed the connection because the role may not ask this.
fn refusal_in(error: &RequestError) -> Option<String> {
    let (RequestError::Read(ReadError::ConnectionLost(lost))
    | RequestError::Write(WriteError::ConnectionLost(lost))
    | RequestError::Connection(lost)) = error
    else {
        return None;
    };
    match lost {
        ConnectionError::ApplicationClosed(close)
            if close.error_code.into_inner() == u64::from(Code::Refused.number()) =>
        {
            Some(String::from_utf8_lossy(&close.reason).into_owned())
        }
        _ => None,
    }
}

/// An error with its causes, each once.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let exit = if error.is_refusal() {
            Exit::Refused
        } else if error.is_unreachable() {
            Exit::Unreachable
        } else {
            Exit::Failed
        };
        Self::new(exit, with_causes(&error))
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(refusal) => refusal.into(),
            AskError::Broken(ref broken) => match refusal_in(broken) {
                Some(reason) => {
                    let text = format!("the base refuses: {reason}; use an identity that may");
                    Self::new(Exit::Refused, text)
                }
                None => Self::new(Exit::Unreachable, with_causes(&error)),
            },
            AskError::Answer => Self::failed(with_causes(&error)),
        }
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Ask(error) => error.into(),
            PushError::Source(_)
            | PushError::Name(_)
            | PushError::Object(_)
            | PushError::Differs { .. }
            | PushError::System(_)
            | PushError::Feed(_) => Self::failed(with_causes(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::wire::request::{Refusal, RefusalKind};
    use shared_io::clock::Clock;

    use super::*;

    #[test]
    fn errors_of_the_sdk_have_their_codes() {
        let refusal = |kind| AskError::Refused(Refusal { kind, text: "no".to_owned() });
        let exit = |error: AskError| Failure::from(PushError::Ask(error)).exit;
        assert_eq!(exit(refusal(RefusalKind::Cannot)), Exit::Failed);
        assert_eq!(exit(refusal(RefusalKind::Rights)), Exit::Refused);
        let closed = |code: Code| {
            let reason = b"a client may not request this".as_slice().into();
            let error_code = code.number().into();
            let close = quinn::ApplicationClose { error_code, reason };
            let lost = ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close));
            Failure::from(AskError::Broken(RequestError::Read(lost)))
        };
        let refused = closed(Code::Refused);
        assert_eq!(
            (refused.exit, refused.text.contains("a client may not")),
            (Exit::Refused, true)
        );
        assert_eq!(closed(Code::Stopping).exit, Exit::Unreachable);
        let path = "x".into();
        let source = PushError::Source(client::cut::CutError::Changed { path });
        let failure = Failure::from(source);
        assert_eq!((failure.exit, failure.text.contains("\"x\"")), (Exit::Failed, true));
        assert_eq!(stopped(Stop::TimedOut).exit, Exit::Timeout);
        assert_eq!(stopped(Stop::Interrupted).exit, Exit::Interrupted);
    }

    #[test]
    fn a_foreign_identity_is_refused_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let authority = certs::Authority::init(&dir.path().join("pki"), Clock::wall()).unwrap();
        let request = certs::Request {
            role: Role::Node,
            name: "n".parse().unwrap(),
            labels: std::collections::BTreeMap::new(),
            hosts: Vec::new(),
            valid_for: Duration::from_secs(60),
        };
        let out = dir.path().join("n");
        authority.issue(&request, Clock::wall()).unwrap().write(&out).unwrap();
        let identity = certs::Identity::load(&out, Clock::wall()).unwrap();
        let error = identity.require(&[Role::Client]).unwrap_err();
        assert_eq!(Failure::from(error).exit, Exit::Refused);
    }
}
