//! How a command ends: the exit codes that scripts rely on, and what is said beside them.

use std::process::ExitCode;

use shared::view::{JobState, JobView};
use shared::wire::request::{Refusal, RefusalKind};

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; of a push: the quorum has it.
    Done = 0,
    /// It cannot be done, failed, or was cancelled.
    Failed = 1,
    /// The command line does not parse.
    Usage = 2,
    /// Closed as partial: the quorum was not reached by the deadline.
    Partial = 3,
    /// The command's own `--timeout`; the job goes on.
    Timeout = 4,
    /// Identity, role or quota refused, by either side.
    Refused = 5,
    /// Nobody was reached.
    Unreachable = 6,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of a command that saw a job close.
    pub(crate) const fn of_job(view: &JobView) -> Self {
        match view.state {
            JobState::Complete => Self::Done,
            JobState::Partial => Self::Partial,
            JobState::Failed | JobState::Cancelled => Self::Failed,
            // A job that is open has not gone wrong; nothing closes in these states.
            JobState::Receiving | JobState::Distributing => Self::Failed,
        }
    }
}

/// Why a command ends without its result: the code, and the text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Failure {
    /// Ends with `exit` and says `text`.
    pub(crate) fn new(exit: Exit, text: impl ToString) -> Self {
        Self { exit, text: text.to_string() }
    }

    /// It cannot be done.
    pub(crate) fn failed(text: impl ToString) -> Self {
        Self::new(Exit::Failed, text)
    }

    /// The command line does not parse.
    pub(crate) fn usage(text: impl ToString) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// Says on standard error what is wrong.
    pub(crate) fn report(&self) -> Exit {
        crate::output::complain(&self.text);
        self.exit
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.kind {
            RefusalKind::Cannot | RefusalKind::NotOpen => Exit::Failed,
            RefusalKind::Rights => Exit::Refused,
        };
        Self::new(exit, refusal.text)
    }
}

impl From<certs::IdentityError> for Failure {
    fn from(error: certs::IdentityError) -> Self {
        Self::new(if error.is_refusal() { Exit::Refused } else { Exit::Failed }, error)
    }
}

impl From<certs::AuthorityError> for Failure {
    fn from(error: certs::AuthorityError) -> Self {
        Self::failed(error)
    }
}

impl From<client::tree::TreeError> for Failure {
    fn from(error: client::tree::TreeError) -> Self {
        Self::failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::view;

    #[test]
    fn codes_are_those_that_were_promised() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Partial, 3),
            (Exit::Timeout, 4),
            (Exit::Refused, 5),
            (Exit::Unreachable, 6),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code, "{exit:?}");
        }
    }

    #[test]
    fn a_closed_job_decides_the_code() {
        let exit = |state| Exit::of_job(&JobView { state, ..view() });
        assert_eq!(exit(JobState::Complete), Exit::Done);
        assert_eq!(exit(JobState::Partial), Exit::Partial);
        assert_eq!(exit(JobState::Failed), Exit::Failed);
        assert_eq!(exit(JobState::Cancelled), Exit::Failed);
    }

    #[test]
    fn a_refusal_says_whether_it_is_about_rights() {
        let exit = |kind| Failure::from(Refusal { kind, text: String::new() }).exit;
        assert_eq!(exit(RefusalKind::Cannot), Exit::Failed);
        assert_eq!(exit(RefusalKind::Rights), Exit::Refused);
    }
}
