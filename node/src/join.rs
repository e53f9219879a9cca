//! Joining the base, and joining it again.

use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;
use shared::id::{PeerId, Role};
use shared::limit;
use shared::wire::codec;
use shared::wire::message::{FrameType, Reconcile};
use shared_io::clock::Clock;
use shared_io::data_folder::random;
use shared_io::greet::{self, GreetError, Greeted};
use shared_io::link::{Conduct, Link, chain};
use shared_io::neighbours::look_up;
use tokio_util::sync::CancellationToken;

use crate::NodeError;
use crate::member::Member;

/// First and longest pause between two tries; each is drawn from the upper half.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Stays joined to the base until `stop`.
///
/// # Errors
/// [`NodeError::Refused`] if the base refuses this node before it was ever welcomed.
pub(crate) async fn keep_joined(
    member: &Arc<Member>,
    endpoint: &Endpoint,
    stop: &CancellationToken,
) -> Result<(), NodeError> {
    let mut pause = PAUSE_MIN;
    let mut welcomed = false;
    loop {
        let joined = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            joined = join(member, endpoint) => joined,
        };
        match joined {
            Ok(running) => {
                welcomed = true;
                pause = PAUSE_MIN;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    why = running => tracing::warn!(%why, "the connection to the base is gone"),
                }
            }
            Err(error @ GreetError::Refused(_)) if !welcomed => {
                let base = member.config().base.clone();
                return Err(NodeError::Refused { base, source: error });
            }
            Err(error) => {
                let base = &member.config().base;
                tracing::warn!(%base, error = chain(&error), "the base cannot be reached");
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(jittered(pause)) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Joins once; the future that it returns runs the link to its end.
async fn join(
    member: &Arc<Member>,
    endpoint: &Endpoint,
) -> Result<impl Future<Output = String> + use<>, GreetError> {
    let addr = look_up(&member.config().base, endpoint).await?;
    let (state, hello) = (member.state(), member.hello());
    let Greeted { connection, control, identity, greeting } =
        greet::dial(endpoint, addr, Role::Base, &hello).await?;
    if greeting.epoch < state.epoch {
        let text = format!("the base's epoch {} is over: {} was seen", greeting.epoch, state.epoch);
        return Err(greet::refuse(&connection, text));
    }
    let welcomed = member.welcomed(&greeting, identity.public_key);
    welcomed.map_err(|error| GreetError::Malformed(error.to_string()))?;
    tracing::info!(base = %addr, epoch = greeting.epoch, incarnation = greeting.incarnation, "joined");
    let clock: Clock = member.clock();
    let beat = Some(member.free_space());
    let (link, queues) =
        Link::new(PeerId::Base, identity, connection, clock, greeting.incarnation, beat);
    send_reconcile(member, &link);
    let conduct = Arc::clone(member) as Arc<dyn Conduct>;
    Ok(link.run(control, queues, conduct))
}

/// Names every job that is here; the base answers with what to do about each.
fn send_reconcile(member: &Member, link: &Link) {
    let jobs: Vec<_> = member.relays().all().iter().map(|job| job.id()).collect();
    let mut batches = jobs.chunks(limit::JOBS_OPEN_MAX).peekable();
    loop {
        let batch = batches.next().unwrap_or_default();
        let more = batches.peek().is_some();
        let reconcile = Reconcile { jobs: batch.to_vec(), more };
        link.send_frame(FrameType::Reconcile, &codec::encode(&reconcile));
        if !more {
            return;
        }
    }
}

fn jittered(pause: Duration) -> Duration {
    // Without randomness the pause is the full one.
    let [byte] = random::<1>().unwrap_or([255]);
    pause / 2 + pause / 2 * u32::from(byte) / 255
}
