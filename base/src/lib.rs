//! The base: makes jobs, receives their content, feeds nodes, and accounts for every node.

mod accept;
mod asked;
mod http;
mod hub;
pub mod jobs;
pub mod ledger;
mod probe;
mod resume;
mod views;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certs::{Identity, IdentityError};
use metrics_exporter_prometheus::PrometheusHandle;
use shared::budget::Budget;
use shared::id::Role;
use shared::wire::code::Code;
use shared_io::access::Access;
use shared_io::clock::Clock;
use shared_io::data_folder::{DataFolder, DataFolderError};
use shared_io::health;
use shared_io::store::StoreError;
use shared_io::transport::{self, Congestion, Terms, TransportError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use hub::Hub;
use jobs::Jobs;
use ledger::{Ledger, LedgerError};

/// How long peers get to acknowledge what was said last.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a base is told when it starts.
#[derive(Debug)]
pub struct Config {
    /// Who it is; its key signs job objects and pages.
    pub identity: Identity,
    /// Where everything that it writes goes.
    pub data: PathBuf,
    /// Where nodes and clients reach it (UDP).
    pub listen: SocketAddr,
    /// Where it answers HTTP.
    pub http: SocketAddr,
    /// Bits per second that it may send; measured if absent.
    pub uplink_bps: Option<u64>,
    /// The congestion controller.
    pub congestion: Congestion,
    /// How much memory it may use.
    pub memory: Budget,
}

/// Why a base cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The identity is not a base's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataFolderError),
    /// The ledger cannot be opened, or not be written any more.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The content store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The UDP endpoint.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The HTTP listener.
    #[error(transparent)]
    Http(#[from] health::HttpError),
}

impl BaseError {
    /// Whether the identity is refused.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Identity(error) => error.is_refusal(),
            Self::Transport(TransportError::Tls(error)) => error.is_refusal(),
            Self::Data(_)
            | Self::Ledger(_)
            | Self::Store(_)
            | Self::Transport(_)
            | Self::Http(_) => false,
        }
    }
}

/// Runs a base until `stop` is cancelled.
///
/// # Errors
/// [`BaseError`] if it cannot start, or if its ledger cannot be written or content not be made
/// durable any more.
///
/// # Cancellation
/// Cancel `stop` instead of dropping the future: what was told last is then acknowledged.
pub async fn run(
    config: Config,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> Result<(), BaseError> {
    config.identity.require(&[Role::Base])?;
    let folder = DataFolder::open(&config.data)?;
    let reset_key = folder.reset_key()?;
    let clock = Clock::start();
    let access = Arc::new(Access::new(clock, config.uplink_bps, None));
    let terms =
        Terms { congestion: config.congestion, budget: config.memory, access: Arc::clone(&access) };
    let server = transport::server_config(&config.identity, &terms)?;
    let endpoint = transport::open_endpoint(config.listen, Some(server), &reset_key, &access)?;
    let listener = health::listen(config.http).await?;
    let listen = endpoint.local_addr().unwrap_or(config.listen);
    let http = listener.local_addr().unwrap_or(config.http);

    let opened = Ledger::open(&folder, Clock::wall_ms()).await?;
    let tasks = TaskTracker::new();
    let hub = Hub::new(&folder, &config.identity, (clock, &terms), tasks.clone())?;
    let clocks: jobs::Clock = Arc::new(move || (clock.now(), Clock::wall_ms()));
    let key = Arc::clone(config.identity.signing_key());
    let jobs = Jobs::start(opened, key, clocks, Arc::clone(&hub) as Arc<dyn jobs::Session>);
    let jobs = hub.attach(jobs)?;
    // Nobody is to be told of less than what is here.
    hub.account_for_changes().await;

    tasks.spawn(access.watch(stop.clone()));
    tasks.spawn(Arc::clone(&hub).account(stop.clone()));
    tasks.spawn(Arc::clone(&hub).watch_silence(stop.clone()));
    tasks.spawn(Arc::clone(&hub).watch_uplinks(stop.clone()));
    tasks.spawn(Arc::clone(hub.relays()).tick(stop.clone()));
    let accepting = accept::run(Arc::clone(&hub), endpoint.clone(), tasks.clone(), stop.clone());
    tasks.spawn(accepting);
    let router = http::router(Arc::clone(&hub), metrics);
    let http_stop = stop.child_token();
    tasks.spawn(health::serve(listener, router, http_stop.clone()));
    folder.ready(listen, http)?;
    tracing::info!(%listen, %http, epoch = jobs.epoch(), "base is serving");

    let result = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        error = jobs.failed() => Err(BaseError::Ledger(error)),
        error = hub.flusher_panicked() => Err(BaseError::Store(error)),
    };
    stop.cancel();
    let flushed = hub.farewell(Code::Stopping, FAREWELL).await;
    jobs.close().await;
    endpoint.close(Code::Stopping.number().into(), b"the base stops");
    tasks.close();
    tasks.wait().await;
    endpoint.wait_idle().await;
    result.and(flushed.map_err(BaseError::Store))
}
