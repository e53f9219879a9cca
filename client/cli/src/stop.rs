//! What ends a command from outside: a signal, or its own time.

use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Sleep, sleep};

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
        })
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
        assert!(
            tokio::time::timeout(Duration::from_secs(1 << 30), endless.wait())
                .await
                .is_err()
        );
    }
}
