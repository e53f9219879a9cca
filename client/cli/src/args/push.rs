//! `push`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use shared::budget::Budget;
use shared::id::Name;
use shared::job::{Keep, Quorum, Selector};

use crate::units;

use super::Contact;

/// Push files and directories to nodes.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Files and directories, named as `cp -r PATH... files/` would; `DIR/` is its content
    /// alone.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) contact: Contact,

    /// End when standard input ends: the push ends with the process that holds its pipe.
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,

    /// The job's name; made up by the base if absent.
    #[arg(long, value_parser = job_name)]
    pub(crate) name: Option<Name>,

    /// Which nodes: all, NAME,NAME (each of them) or KEY=VALUE,KEY=VALUE (with all of these
    /// labels). May be repeated; the options add up. [default: all]
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) to: Vec<Selector>,

    /// When the job is closed at the latest. [default: the longer of 10m and four times the
    /// expected time]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(crate) deadline: Option<Duration>,

    /// How many nodes must have it: all, a number, or a percentage.
    #[arg(long, value_name = "all|N|N%", default_value = "all")]
    pub(crate) quorum: Quorum,

    /// 0 to 9; higher goes first.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) priority: u8,

    /// The most that the job may use of each uplink, per second.
    #[arg(long, value_parser = units::rate)]
    pub(crate) rate: Option<u64>,

    /// How long nodes keep it.
    #[arg(long, value_name = "TIME|forever", default_value = "forever")]
    pub(crate) keep: Retention,

    /// For how long the publisher may be gone before the job fails.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = units::time)]
    pub(crate) grace: Duration,

    /// Give up waiting after this time; the job goes on.
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(crate) timeout: Option<Duration>,

    /// How much memory the push may use; bounds on what waits are parts of it.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = units::memory)]
    pub(crate) memory: Budget,

    /// Allow names that differ only in case.
    #[arg(long)]
    pub(crate) allow_case: bool,

    /// Return as soon as the base has all content durable, instead of waiting for the nodes.
    #[arg(long)]
    pub(crate) detach: bool,

    /// Push standard input (PATH is -) as one live object.
    #[arg(long)]
    pub(crate) live: bool,

    /// The name of the live object.
    #[arg(long, value_name = "NAME", default_value = "stream", requires = "live")]
    pub(crate) object: String,

    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,

    /// Show no progress bars.
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// How long nodes keep a job: a time, or `forever`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention(pub(crate) Keep);

impl FromStr for Retention {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self(Keep::Forever));
        }
        let time = units::time(text).map_err(|error| format!("{error}, or forever"))?;
        Ok(Self(Keep::Seconds(units::whole_seconds(time))))
    }
}

fn job_name(text: &str) -> Result<Name, String> {
    match Name::new(text) {
        Ok(name) if name.is_reserved() => Err(format!("the name {name} is taken; choose another")),
        Ok(name) => Ok(name),
        Err(error) => Err(error.to_string()),
    }
}
