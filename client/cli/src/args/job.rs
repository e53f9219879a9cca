//! `job ls`, `show`, `watch`, `cancel` and `rm`.

use clap::{Args, Subcommand};
use shared::wire::request::JobRef;

use super::Contact;

/// See, follow and end jobs.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    pub(crate) command: JobCommand,

    #[command(flatten)]
    pub(crate) contact: Contact,

    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do with jobs. JOB is an id or a name.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List the jobs.
    Ls,
    /// Show one job and where each node stands.
    Show {
        /// Id or name.
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// Follow a job until it is closed; the exit code is that of a push.
    Watch {
        /// Id or name.
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// Cancel a job; nodes drop what they have of it.
    Cancel {
        /// Id or name.
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// Remove a job and its content everywhere.
    Rm {
        /// Id or name.
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
}
