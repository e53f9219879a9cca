//! What ends a command from outside: a signal, or its own time.

use std::io::Read;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

/// Why a command must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGINT or SIGTERM.
    Interrupted,
    /// `--timeout` is over.
    TimedOut,
}

/// Waits for signals and for the command's own time.
#[derive(Debug)]
pub(crate) struct Stopper {
    interrupt: Signal,
    terminate: Signal,
    timeout: Option<Pin<Box<Sleep>>>,
    stdin: CancellationToken,
}

impl Stopper {
    /// Starts to listen, and the time to run.
    ///
    /// # Errors
    /// [`Failure`] if the system does not let the process hear signals.
    pub(crate) fn new(timeout: Option<Duration>) -> Result<Self, Failure> {
        let hear = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot hear signals: {error}")))
        };
        Ok(Self {
            interrupt: hear(SignalKind::interrupt())?,
            terminate: hear(SignalKind::terminate())?,
            timeout: timeout.map(|time| Box::pin(sleep(time))),
            stdin: CancellationToken::new(),
        })
    }

    /// From now on the end of standard input ends the command too: it then ends with the
    /// process that holds the other end of the pipe, however that one ends.
    ///
    /// # Errors
    /// [`Failure`] if the system gives no thread to read with.
    pub(crate) fn end_with_stdin(&self) -> Result<(), Failure> {
        let ended = self.stdin.clone();
        let read = move || {
            let mut byte = [0];
            while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
            ended.cancel();
        };
        // Reading a pipe cannot be interrupted: the thread ends with the process.
        let thread = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
        let failed = |error| Failure::failed(format!("cannot watch standard input: {error}"));
        thread.map(drop).map_err(failed)
    }

    /// Waits until the command must end. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> Stop {
        let over = async {
            match &mut self.timeout {
                Some(sleep) => sleep.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Stop::Interrupted,
            _ = self.terminate.recv() => Stop::Interrupted,
            () = self.stdin.cancelled() => Stop::Interrupted,
            () = over => Stop::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_ends_the_command_and_nothing_else_does() {
        let mut stopper = Stopper::new(Some(Duration::from_secs(60))).unwrap();
        let early = tokio::time::timeout(Duration::from_secs(59), stopper.wait()).await;
        assert!(early.is_err());
        assert_eq!(stopper.wait().await, Stop::TimedOut);
        let mut endless = Stopper::new(None).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1 << 30), endless.wait()).await.is_err());
    }
}
