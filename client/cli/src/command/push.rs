//! `push`: of files and directories, or of standard input as a live object.

use std::time::Duration;

use client::tree::Plan;
use client::{Client, Push, PushError};
use shared::job::{Dimensions, JobObject, Kind, Selector};
use shared::view::{Event, EventBody};

use crate::args::PushArgs;
use crate::exit::{Exit, Failure};
use crate::follow::Follower;
use crate::output;
use crate::pipe;
use crate::session;
use crate::stop::{Stop, Stopper};
use crate::units::whole_seconds;

/// How long the base gets to close a job whose source has failed, before the command ends
/// without the `closed` event.
const CLOSING: Duration = Duration::from_secs(5);

/// Runs `push`.
///
/// # Errors
/// [`Failure`] if a path is refused, the base is not reached or refuses, the job does not
/// become complete, or the command must end before that.
pub(crate) fn run(args: PushArgs) -> Result<Exit, Failure> {
    let is_pipe = matches!(args.paths.as_slice(), [only] if only.as_os_str() == "-");
    if args.live && !is_pipe {
        let text = "--live pushes standard input: distributary push --live -";
        return Err(Failure::usage(text.to_owned()));
    }
    args.contact.base()?;
    args.contact.identity()?;
    let source = Source::of(&args)?;
    let mut options = session::options(&args.contact)?;
    options.memory = args.memory;
    session::block_on(async {
        let mut stopper = Stopper::new(args.timeout)?;
        if args.until_stdin_closes && !args.live {
            stopper.end_with_stdin()?;
        }
        let client = session::connect(options, &mut stopper).await?;
        let push = tokio::select! {
            biased;
            stop = stopper.wait() => return Err(session::stopped(stop)),
            push = source.push(&args, &client) => push?,
        };
        follow(&args, client, push, stopper).await
    })
}

/// What is pushed.
enum Source {
    Files(Plan),
    /// Standard input, as one live object.
    Pipe,
}

impl Source {
    /// Looks at the source before anything is sent.
    fn of(args: &PushArgs) -> Result<Self, Failure> {
        if args.live {
            return Ok(Self::Pipe);
        }
        Ok(Self::Files(client::tree::plan(&args.paths, args.allow_case)?))
    }

    async fn push(self, args: &PushArgs, client: &Client) -> Result<Push, Failure> {
        match self {
            Self::Files(plan) => {
                let dimensions = dimensions(args, Kind::Files, Some(plan.size()));
                Ok(client.push(plan, dimensions).await?)
            }
            Self::Pipe => {
                let dimensions = dimensions(args, Kind::Live, None);
                let (writer, push) = client.push_live(&args.object, dimensions).await?;
                pipe::start(writer)?;
                Ok(push)
            }
        }
    }
}

fn dimensions(args: &PushArgs, kind: Kind, size: Option<u64>) -> Dimensions {
    let to = if args.to.is_empty() { vec![Selector::All] } else { args.to.clone() };
    Dimensions {
        kind,
        name: args.name.clone(),
        to,
        size,
        deadline_s: args.deadline.map(whole_seconds),
        quorum: args.quorum,
        priority: args.priority,
        rate_bps: args.rate,
        keep: args.keep.0,
        grace_s: whole_seconds(args.grace),
    }
}

/// Says what happens until the job is closed or the command must end.
async fn follow(
    args: &PushArgs,
    client: Client,
    mut push: Push,
    mut stopper: Stopper,
) -> Result<Exit, Failure> {
    let mut follower = Follower::new(args.json, output::bars_wanted(args.no_progress));
    announce(args, push.created(), &mut follower)?;
    let ended = if args.detach {
        tokio::select! {
            biased;
            stop = stopper.wait() => Err(Ended::Stopped(stop)),
            stored = push.stored() => stored.map(|()| Exit::Done).map_err(Ended::Push),
        }
    } else {
        until_closed(&mut push, &mut follower, &mut stopper).await
    };
    let ended = match ended {
        Err(Ended::Push(error @ PushError::Source(_))) => {
            tell_closing(&mut push, &mut follower).await;
            Err(Ended::Push(error))
        }
        ended => ended,
    };
    follower.quiet();
    if let Err(Ended::Stopped(stop)) = ended {
        return Err(left_behind(args, push.created(), stop));
    }
    // The base learns how it ended before the connection goes.
    drop(push);
    client.close().await;
    match ended {
        Ok(exit) => Ok(exit),
        Err(Ended::Push(error)) => Err(error.into()),
        Err(Ended::Failed(failure)) => Err(failure),
        Err(Ended::Stopped(stop)) => Err(session::stopped(stop)),
    }
}

/// Why following ended without success.
enum Ended {
    Push(PushError),
    Failed(Failure),
    Stopped(Stop),
}

async fn until_closed(
    push: &mut Push,
    follower: &mut Follower,
    stopper: &mut Stopper,
) -> Result<Exit, Ended> {
    loop {
        let event = tokio::select! {
            biased;
            stop = stopper.wait() => return Err(Ended::Stopped(stop)),
            event = push.next() => event.map_err(Ended::Push)?,
        };
        let Some(event) = event else {
            return Err(Ended::Failed(session::unexpected()));
        };
        if matches!(event.body, EventBody::Created) {
            // It was announced from the job object, which comes first.
            continue;
        }
        if let Some(exit) = follower.event(&event).map_err(Ended::Failed)? {
            return Ok(exit);
        }
    }
}

/// The first line: the job's id, or the `created` event.
fn announce(args: &PushArgs, job: &JobObject, follower: &mut Follower) -> Result<(), Failure> {
    if !args.json {
        return output::line(&job.id.to_string());
    }
    let at = i64::try_from(job.created_at_ms).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::MAX).to_string();
    follower.event(&Event { job: job.id.to_string(), at, body: EventBody::Created }).map(drop)
}

/// Passes on the events until the base has closed the job that the client has given up.
async fn tell_closing(push: &mut Push, follower: &mut Follower) {
    let telling = async {
        while let Ok(Some(event)) = push.next().await {
            if !matches!(event.body, EventBody::Created) && follower.event(&event) != Ok(None) {
                return;
            }
        }
    };
    // The error that is reported says more than the lack of a last event.
    let _ = tokio::time::timeout(CLOSING, telling).await;
}

/// What to do about a job that goes on without the command.
fn left_behind(args: &PushArgs, job: &JobObject, stop: Stop) -> Failure {
    let contact = contact_flags(args);
    let (id, name, grace) = (job.id, &job.name, whole_seconds(args.grace));
    let from = if args.live { ", and the pipe from its first byte again" } else { "" };
    let (exit, why) = match stop {
        Stop::Interrupted => (Exit::Interrupted, "interrupted"),
        Stop::TimedOut => (Exit::Timeout, "the time of --timeout is over"),
    };
    let text = format!(
        "{why}; job {id} stays open\n\
         to see whether the base has everything: distributary job show {id}{contact}\n\
         to follow it: distributary job watch {id}{contact}\n\
         to go on if it has not, within {grace} s: the same push with --name {name}{from}\n\
         to give it up: distributary job cancel {id}{contact}"
    );
    Failure::new(exit, text)
}

fn contact_flags(args: &PushArgs) -> String {
    let base = args.contact.base().unwrap_or_default();
    let identity = args.contact.identity().map(|dir| dir.display().to_string());
    format!(" --base {} --identity {}", quoted(base), quoted(&identity.unwrap_or_default()))
}

/// `text` as a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,[]".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shared::id::JobId;
    use shared::job::{Keep, Quorum, ServerList};

    use super::*;
    use crate::args::{Cli, Command};

    fn args(flags: &[&str]) -> PushArgs {
        let arguments = ["distributary", "push", "x"].iter().chain(flags);
        match Cli::parse_from(arguments).command {
            Command::Push(push) => push,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_dimensions() {
        let plain = dimensions(&args(&[]), Kind::Files, Some(7));
        let expected = Dimensions {
            kind: Kind::Files,
            name: None,
            to: vec![Selector::All],
            size: Some(7),
            deadline_s: None,
            quorum: Quorum::All,
            priority: 5,
            rate_bps: None,
            keep: Keep::Forever,
            grace_s: 300,
        };
        assert_eq!(plain, expected);
        let flags = [
            "--name",
            "j",
            "--to",
            "a,b",
            "--to",
            "k=v",
            "--deadline",
            "1500ms",
            "--quorum",
            "50%",
            "--priority",
            "0",
            "--rate",
            "1Mbit",
            "--keep",
            "1d",
            "--grace",
            "1m",
        ];
        let expected = Dimensions {
            name: Some("j".parse().unwrap()),
            to: vec!["a,b".parse().unwrap(), "k=v".parse().unwrap()],
            deadline_s: Some(2),
            quorum: Quorum::Percent(50),
            priority: 0,
            rate_bps: Some(1_000_000),
            keep: Keep::Seconds(86400),
            grace_s: 60,
            ..expected
        };
        assert_eq!(dimensions(&args(&flags), Kind::Files, Some(7)), expected);
    }

    #[test]
    fn only_standard_input_is_pushed_live() {
        let failure = run(args(&["--live"])).unwrap_err();
        assert_eq!((failure.exit, failure.text.contains("push --live -")), (Exit::Usage, true));
    }

    #[test]
    fn missing_flags_are_a_wrong_command_line() {
        assert_eq!(run(args(&[])).unwrap_err().exit, Exit::Usage);
        assert_eq!(run(args(&["--base", "b:1"])).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn who_stops_a_push_is_told_how_to_go_on() {
        let job = JobObject {
            id: JobId([1; 16]),
            name: "j".parse().unwrap(),
            tenant: "t".parse().unwrap(),
            kind: Kind::Files,
            size: None,
            created_at_ms: 0,
            deadline_s: None,
            stripes: 1,
            chunk_max: 16384,
            priority: 5,
            rate_bps: None,
            keep: Keep::Forever,
            page_key: [0; 32],
            servers: 0,
            servers_hash: ServerList::new(Vec::new()).hash(),
        };
        let args = args(&["--base", "b:1", "--identity", "my id"]);
        let failure = left_behind(&args, &job, Stop::Interrupted);
        assert_eq!(failure.exit, Exit::Interrupted);
        let watch = format!("distributary job watch {} --base b:1 --identity 'my id'", job.id);
        assert!(failure.text.contains(&watch), "{failure}");
        assert_eq!(left_behind(&args, &job, Stop::TimedOut).exit, Exit::Timeout);
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a/b-1.2:3"), "a/b-1.2:3");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
