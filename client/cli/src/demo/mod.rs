//! `demo`: a base, nodes and a client on this machine, and a comparison that trusts none of
//! them.
//!
//! Every role is a process of its own that runs this executable. Their standard inputs are
//! pipes held by the demo, and they end when their pipe closes: so they end with the demo
//! also when it is killed.

mod compare;
mod fleet;
mod folder;
mod live;
mod source;
mod spread;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use shared::view::{JobNodeView, JobView};

use crate::args::DemoArgs;
use crate::exit::{Exit, Failure};
use crate::feeders::{feeders, givers};
use crate::output;
use crate::session::block_on;
use crate::stop::{Stop, Stopper};

use compare::Comparison;
use fleet::Fleet;
use folder::WorkFolder;
use live::Glimpse;
use spread::Spread;

/// Runs the demo.
pub(crate) fn run(args: DemoArgs) -> Result<Exit, Failure> {
    block_on(demonstrate(args))
}

async fn demonstrate(args: DemoArgs) -> Result<Exit, Failure> {
    let mut stopper = Stopper::new(None)?;
    let folder = WorkFolder::make(args.keep.as_deref())?;
    let told = !args.json;
    tokio::select! {
        biased;
        stop = stopper.wait() => match stop {
            Stop::Interrupted | Stop::TimedOut => Ok(Exit::Interrupted),
        },
        done = show(&args, &folder, told) => done,
    }
}

async fn show(args: &DemoArgs, folder: &WorkFolder, told: bool) -> Result<Exit, Failure> {
    let source = source::prepare(args, folder, args.nodes).await?;
    let say = |text: String| {
        if told {
            output::note(&text);
        }
    };
    say(format!("starting a base and {} nodes in {}", args.nodes, folder.path().display()));
    let mut fleet = Fleet::start(folder, args.nodes).await?;
    let mut spread = Spread::start(&fleet, &source.pushed, args.json)?;
    let nodes = fleet.job_roots();
    let stdin = spread.take_stdin();
    let pushing = async {
        match (&source.pushed, stdin) {
            (Pushed::Live { duration, kept }, Some(stdin)) => {
                tokio::try_join!(spread.finish(), live::write(stdin, kept, *duration, &nodes))
            }
            (_, stdin) => {
                let closed = spread.finish().await;
                // The push ends when its standard input closes.
                drop(stdin);
                Ok((closed?, Vec::new()))
            }
        }
    };
    let (closed, glimpses) = tokio::select! {
        biased;
        ended = fleet.first_to_end() => return Err(Failure::failed(ended)),
        pushed = pushing => pushed?,
    };
    let grew = tell_glimpses(&glimpses, &say);
    let copies = fleet.base_copies(closed.size.unwrap_or(source.size)).await?;
    say("comparing every node's files with the source".to_owned());
    let comparisons = compare::all(&source, &fleet.job_folders(&closed.id)).await?;
    let ok =
        grew && comparisons.values().all(Comparison::is_equal) && comparisons.len() == fleet.len();
    let result = Outcome { ok, closed, copies, comparisons, seconds: spread.seconds() };
    fleet.stop().await;
    result.tell(args.json, &spread)?;
    Ok(if result.ok { Exit::Done } else { Exit::Failed })
}

/// Says what the nodes showed while the stream grew; whether all of it was right.
fn tell_glimpses(glimpses: &[Glimpse], say: &impl Fn(String)) -> bool {
    for Glimpse { node, shown, pushed } in glimpses {
        say(match shown {
            Ok(shown) => format!("half way, {node} showed {shown} of {pushed} bytes"),
            Err(wrong) => format!("half way, {node} was WRONG: {wrong}"),
        });
    }
    glimpses.iter().all(|glimpse| glimpse.shown.is_ok())
}

struct Outcome {
    ok: bool,
    closed: JobView,
    copies: f64,
    comparisons: BTreeMap<String, Comparison>,
    seconds: f64,
}

impl Outcome {
    fn tell(&self, json: bool, spread: &Spread) -> Result<(), Failure> {
        let bytes = self.closed.size.unwrap_or(0);
        if json {
            let nodes: Vec<_> = self.rows(spread).map(|row| row.json()).collect();
            return output::json(&serde_json::json!({
                "v": 1,
                "ok": self.ok,
                "bytes": bytes,
                "seconds": self.seconds,
                "base_copies": self.copies,
                "nodes": nodes,
            }));
        }
        for row in self.rows(spread) {
            output::line(&row.line())?;
        }
        output::line("")?;
        givers(&self.closed).print()?;
        output::line("")?;
        let verdict = if self.ok { "all equal" } else { "NOT all equal" };
        output::line(&format!(
            "{verdict}: {bytes} bytes at {} nodes in {:.1} s; the base sent {:.2} copies; digest {}",
            self.comparisons.len(),
            self.seconds,
            self.copies,
            self.closed.digest.as_deref().unwrap_or("unknown"),
        ))
    }

    fn rows<'a>(&'a self, spread: &'a Spread) -> impl Iterator<Item = Row<'a>> {
        self.closed.nodes.iter().map(|node| Row {
            node,
            comparison: self.comparisons.get(&node.name),
            seconds: spread.completed_after(&node.name),
        })
    }
}

struct Row<'a> {
    node: &'a JobNodeView,
    comparison: Option<&'a Comparison>,
    seconds: Option<f64>,
}

impl Row<'_> {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.node.name,
            "equal": self.comparison.is_some_and(Comparison::is_equal),
            "seconds": self.seconds,
            "upstreams": self.node.upstreams,
            "sources": self.node.sources,
        })
    }

    fn line(&self) -> String {
        let equal = match self.comparison {
            Some(Comparison::Equal { digest }) => format!("equal {digest}"),
            Some(Comparison::Different { what }) => format!("DIFFERENT: {what}"),
            None => "not compared".to_owned(),
        };
        let seconds = self.seconds.map_or("never".to_owned(), |seconds| format!("{seconds:.1} s"));
        format!("{:12} {seconds:>8}  from {}  {equal}", self.node.name, feeders(self.node))
    }
}

/// What is pushed, and what the nodes must have afterwards.
struct Source {
    pushed: Pushed,
    /// Content bytes.
    size: u64,
    /// Every object: its name and where its source is.
    objects: BTreeMap<String, compare::Object>,
}

/// What `push` is told to push.
enum Pushed {
    Files(Vec<PathBuf>),
    Live {
        duration: Duration,
        /// Where a copy of the stream is.
        kept: PathBuf,
    },
}

impl Pushed {
    /// The arguments of `push`.
    fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Files(paths) => {
                let flags = ["--allow-case", "--until-stdin-closes", "--"].map(OsString::from);
                flags.into_iter().chain(paths.iter().map(OsString::from)).collect()
            }
            Self::Live { .. } => ["--live", "--object", live::NAME, "-"].map(OsString::from).into(),
        }
    }
}
