//! `base`, `node` and `demo`.

use certs::Identity;
use shared_io::clock::Clock;
use shared_io::link::chain;
use shared_io::telemetry;
use tokio_util::sync::CancellationToken;

use crate::args::{BaseArgs, DemoArgs, NodeArgs};
use crate::exit::{Exit, Failure};
use crate::session::block_on;
use crate::stop::Stopper;

/// Runs a base until a signal ends it.
///
/// # Errors
/// [`Failure`] if it cannot start or go on.
pub(crate) fn base(args: BaseArgs) -> Result<Exit, Failure> {
    let config = base::Config {
        identity: Identity::load(&args.identity, Clock::wall())?,
        data: args.data,
        listen: args.listen,
        http: args.http,
        uplink_bps: args.uplink,
        congestion: args.service.congestion,
        memory: args.service.memory,
    };
    let metrics = telemetry::install().map_err(Failure::failed)?;
    block_on(until_stopped(args.service.until_stdin_closes, async |stop| {
        base::run(config, metrics, stop)
            .await
            .map_err(|error| Failure::new(refused_or_failed(error.is_refusal()), chain(&error)))
    }))
}

/// Runs a node until a signal ends it.
///
/// # Errors
/// [`Failure`] if it cannot start or go on.
pub(crate) fn node(args: NodeArgs) -> Result<Exit, Failure> {
    let config = node::Config {
        identity: Identity::load(&args.identity, Clock::wall())?,
        data: args.data,
        base: args.base,
        listen: args.listen,
        advertise: args.advertise,
        http: args.http,
        uplink_bps: args.uplink,
        downlink_bps: args.downlink,
        congestion: args.service.congestion,
        memory: args.service.memory,
    };
    let metrics = telemetry::install().map_err(Failure::failed)?;
    block_on(until_stopped(args.service.until_stdin_closes, async |stop| {
        node::run(config, metrics, stop)
            .await
            .map_err(|error| Failure::new(refused_or_failed(error.is_refusal()), chain(&error)))
    }))
}

/// Runs a base, nodes and a push on this machine.
///
/// # Errors
/// [`Failure`] if anything of it fails.
pub(crate) fn demo(args: DemoArgs) -> Result<Exit, Failure> {
    crate::demo::run(args)
}

const fn refused_or_failed(refused: bool) -> Exit {
    if refused { Exit::Refused } else { Exit::Failed }
}

/// Runs a service; a signal, or the end of standard input if asked for, stops it cleanly.
async fn until_stopped(
    until_stdin_closes: bool,
    service: impl AsyncFnOnce(CancellationToken) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let stop = CancellationToken::new();
    let mut stopper = Stopper::new(None)?;
    if until_stdin_closes {
        stopper.end_with_stdin()?;
    }
    let told = stop.clone();
    let running = service(stop);
    let mut running = std::pin::pin!(running);
    tokio::select! {
        biased;
        ended = &mut running => return ended.map(|()| Exit::Done),
        _ = stopper.wait() => told.cancel(),
    }
    running.await.map(|()| Exit::Done)
}
