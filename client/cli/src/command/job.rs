//! `job ls`, `show`, `watch`, `cancel` and `rm`.

use shared::view::{JobView, KindView};
use shared::wire::request::{JobRef, Reply, Request};

use crate::args::{Contact, JobArgs, JobCommand};
use crate::exit::{Exit, Failure};
use crate::feeders::{feeders, percent};
use crate::follow::Follower;
use crate::json::{Done, Jobs};
use crate::output::{self, TextTable};
use crate::session;
use crate::stop::Stopper;
use crate::units::{show_rate, show_size};

/// Runs `job`.
///
/// # Errors
/// [`Failure`] if the base is not reached or refuses, or with what went wrong with a job
/// that is watched.
pub(crate) fn run(args: JobArgs) -> Result<Exit, Failure> {
    let JobArgs { command, contact, json } = args;
    let (request, done) = match command {
        JobCommand::Watch { job } => return watch(&contact, job, json),
        JobCommand::Ls => (Request::Jobs, String::new()),
        JobCommand::Show { job } => (Request::Job(job), String::new()),
        JobCommand::Cancel { job } => {
            let done = format!("job {job} is cancelled");
            (Request::Cancel(job), done)
        }
        JobCommand::Rm { job } => {
            let done = format!("job {job} is removed");
            (Request::Remove(job), done)
        }
    };
    match session::ask(&contact, request)? {
        Reply::Jobs(jobs) if json => output::json(&Jobs::new(&jobs))?,
        Reply::Jobs(jobs) => list(&jobs).print()?,
        Reply::Job(view) if json => output::json(&*view)?,
        Reply::Job(view) => show(&view)?,
        Reply::Done if json => output::json(&Done::new())?,
        Reply::Done => output::line(&done)?,
        _ => return Err(session::unexpected()),
    }
    Ok(Exit::Done)
}

fn watch(contact: &Contact, job: JobRef, json: bool) -> Result<Exit, Failure> {
    let options = session::options(contact)?;
    session::block_on(async {
        let mut stopper = Stopper::new(None)?;
        let client = session::connect(options, &mut stopper).await?;
        let mut watch = client.watch(job).await?;
        let mut follower = Follower::new(json, output::bars_wanted(false));
        let exit = loop {
            let event = tokio::select! {
                biased;
                stop = stopper.wait() => {
                    follower.quiet();
                    return Err(session::stopped(stop));
                }
                event = watch.next() => event?,
            };
            let Some(event) = event else {
                return Err(session::unexpected());
            };
            match follower.event(&event) {
                Ok(None) => {}
                Ok(Some(exit)) => break Ok(exit),
                Err(failure) => break Err(failure),
            }
        };
        client.close().await;
        exit
    })
}

fn list(jobs: &[JobView]) -> TextTable<6> {
    let mut table = TextTable::new(["ID", "NAME", "KIND", "STATE", "SIZE", "CREATED"]);
    for job in jobs {
        table.row([
            job.id.clone(),
            job.name.clone(),
            kind(job.kind).to_owned(),
            job.state.as_str().to_owned(),
            job.size.map(show_size).unwrap_or_default(),
            job.created_at.clone(),
        ]);
    }
    table
}

fn show(view: &JobView) -> Result<(), Failure> {
    facts(view).try_for_each(|(key, value)| output::line(&format!("{key:<9} {value}")))?;
    output::line("")?;
    nodes(view).print()
}

/// What is known of a job, without its nodes.
fn facts(view: &JobView) -> impl Iterator<Item = (&'static str, String)> {
    let size = view.size.map_or_else(|| "unknown".to_owned(), show_size);
    let facts = [
        ("id", Some(view.id.clone())),
        ("name", Some(view.name.clone())),
        ("kind", Some(kind(view.kind).to_owned())),
        ("state", Some(view.state.as_str().to_owned())),
        ("reason", view.reason.clone()),
        ("size", Some(size)),
        ("at base", Some(show_size(view.bytes))),
        ("digest", view.digest.clone()),
        ("created", Some(view.created_at.clone())),
        ("deadline", view.deadline.clone()),
        ("closed", view.closed_at.clone()),
    ];
    facts.into_iter().filter_map(|(key, value)| Some((key, output::plain(&value?))))
}

fn nodes(view: &JobView) -> TextTable<6> {
    let mut table = TextTable::new(["NODE", "STATE", "HAS", "RATE", "FROM", "REASON"]);
    for node in &view.nodes {
        table.row([
            node.name.clone(),
            node.state.as_str().to_owned(),
            has(node.bytes, view.size),
            show_rate(node.rate_bps),
            feeders(node),
            node.reason.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// How much is there, and which part of all.
fn has(bytes: u64, size: Option<u64>) -> String {
    match size {
        Some(size) if size > 0 => format!("{} {:>3} %", show_size(bytes), percent(bytes, size)),
        Some(_) | None => show_size(bytes),
    }
}

const fn kind(kind: KindView) -> &'static str {
    match kind {
        KindView::Files => "files",
        KindView::Live => "live",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::view;

    #[test]
    fn a_job_is_shown_with_its_nodes() {
        let lines: Vec<String> = list(&[view()]).lines().collect();
        assert_eq!(
            lines,
            ["ID  NAME  KIND   STATE    SIZE  CREATED", "id  j     files  partial  5 B   t0"]
        );
        let lines: Vec<String> = nodes(&view()).lines().collect();
        assert_eq!(
            lines,
            [
                "NODE  STATE        HAS        RATE      FROM        REASON",
                "n1    complete     5 B 100 %  80 bit/s  base 100 %  -",
                "n2    unreachable  5 B 100 %  80 bit/s  base 100 %  no answer for 8 s"
            ]
        );
        let keys: Vec<&str> = facts(&view()).map(|(key, _)| key).collect();
        let expected = [
            "id", "name", "kind", "state", "reason", "size", "at base", "digest", "created",
            "deadline",
        ];
        assert_eq!(keys, expected);
    }
}
