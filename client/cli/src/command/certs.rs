//! `certs init` and `certs issue`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use certs::{Authority, Request};
use shared::label;
use shared_io::clock::Clock;

use crate::args::{CertsArgs, CertsCommand, IssueArgs};
use crate::exit::{Exit, Failure};
use crate::output;

/// Runs `certs`.
///
/// # Errors
/// [`Failure`] if a folder or the request is not as it must be.
pub(crate) fn run(args: CertsArgs) -> Result<Exit, Failure> {
    match args.command {
        CertsCommand::Init { dir } => {
            let authority = Authority::init(&dir, Clock::wall())?;
            let until = date(authority.not_after());
            output::line(&format!("authority in {}, valid until {until}", dir.display()))?;
        }
        CertsCommand::Issue(issue) => self::issue(issue)?,
    }
    Ok(Exit::Done)
}

fn issue(args: IssueArgs) -> Result<(), Failure> {
    let IssueArgs { dir, role, name, label, host, valid_for, out } = args;
    let mut labels = BTreeMap::new();
    for pair in label {
        label::insert(&mut labels, pair).map_err(Failure::failed)?;
    }
    let request = Request { role, name, labels, hosts: host, valid_for };
    let issued = Authority::open(&dir)?.issue(&request, Clock::wall())?;
    issued.write(&out)?;
    let (Request { role, name, .. }, until) = (request, date(issued.not_after()));
    output::line(&format!("identity of {role} {name} in {}, valid until {until}", out.display()))
}

fn date(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .map_or_else(|_far_away| "the far future".to_owned(), |at| at.to_string())
}
