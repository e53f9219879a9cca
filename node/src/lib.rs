//! A node: joins a base, receives the jobs that it is assigned, stores and reports them.

mod http;
mod join;
mod member;
mod state;

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
use shared_io::greet::GreetError;
use shared_io::health;
use shared_io::link::Conduct;
use shared_io::neighbours;
use shared_io::store::StoreError;
use shared_io::transport::{self, Congestion, Terms, TransportError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use member::Member;

/// How long the peers get to acknowledge what was said last.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a node is told when it starts.
#[derive(Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// Where everything that it writes goes.
    pub data: PathBuf,
    /// The base, as `HOST:PORT`; looked up anew for every try.
    pub base: String,
    /// Where it listens (UDP).
    pub listen: SocketAddr,
    /// Where others reach it, if that differs from what the base sees.
    pub advertise: Option<String>,
    /// Where it answers HTTP.
    pub http: SocketAddr,
    /// Bits per second that it may send; measured if absent.
    pub uplink_bps: Option<u64>,
    /// Bits per second that it may receive; measured if absent.
    pub downlink_bps: Option<u64>,
    /// The congestion controller.
    pub congestion: Congestion,
    /// How much memory it may use.
    pub memory: Budget,
}

/// Why a node cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The identity is not a node's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataFolderError),
    /// What the data folder says about this node cannot be read.
    #[error("{0} is damaged; move the data folder away to start as a new node")]
    State(String),
    /// The content store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The UDP endpoint.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The HTTP listener.
    #[error(transparent)]
    Http(#[from] health::HttpError),
    /// The base refuses this node, or this node the base.
    #[error("base {base}: {source}")]
    Refused {
        /// The base as configured.
        base: String,
        /// Why.
        source: GreetError,
    },
}

impl NodeError {
    /// Whether an identity was refused, by either side.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Identity(error) => error.is_refusal(),
            Self::Transport(TransportError::Tls(error)) => error.is_refusal(),
            Self::Refused { .. } => true,
            Self::Data(_)
            | Self::State(_)
            | Self::Store(_)
            | Self::Transport(_)
            | Self::Http(_) => false,
        }
    }
}

/// Runs a node until `stop` is cancelled.
///
/// # Errors
/// [`NodeError`] if it cannot start, if the base refuses it before it was ever welcomed, or if
/// content cannot be made durable any more. A base that is away is not an error.
///
/// # Cancellation
/// Cancel `stop` instead of dropping the future: what was reported last is then acknowledged
/// and what was received is durable.
pub async fn run(
    config: Config,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> Result<(), NodeError> {
    config.identity.require(&[Role::Node])?;
    let folder = DataFolder::open(&config.data)?;
    let reset_key = folder.reset_key()?;
    let clock = Clock::start();
    let access = Arc::new(Access::new(clock, config.uplink_bps, config.downlink_bps));
    let terms =
        Terms { congestion: config.congestion, budget: config.memory, access: Arc::clone(&access) };
    let server = transport::server_config(&config.identity, &terms)?;
    let mut endpoint = transport::open_endpoint(config.listen, Some(server), &reset_key, &access)?;
    let dialling = transport::client_config(&config.identity, &terms)?;
    endpoint.set_default_client_config(dialling);
    let listener = health::listen(config.http).await?;
    let listen = endpoint.local_addr().unwrap_or(config.listen);
    let http = listener.local_addr().unwrap_or(config.http);
    let tasks = TaskTracker::new();
    let http_stop = stop.child_token();
    let member = Member::start(config, folder, (clock, &terms), tasks.clone())?;
    tasks.spawn(access.watch(http_stop.clone()));
    tasks.spawn(Arc::clone(member.relays()).tick(http_stop.clone()));
    let introducing = Arc::clone(&member);
    tasks.spawn(neighbours::run(
        Arc::clone(member.neighbours()),
        endpoint.clone(),
        move || introducing.introduction(),
        Arc::clone(&member) as Arc<dyn Conduct>,
        clock,
        http_stop.clone(),
    ));
    let router = health::router(Arc::clone(&member) as Arc<dyn health::Readiness>, metrics)
        .merge(http::router(Arc::clone(member.relays()), http_stop.clone()));
    tasks.spawn(health::serve(listener, router, http_stop.clone()));
    member.folder().ready(listen, http)?;
    tracing::info!(%listen, %http, "node is serving");
    let result = tokio::select! {
        biased;
        error = member.flusher_panicked() => Err(NodeError::Store(error)),
        result = join::keep_joined(&member, &endpoint, &stop) => result,
    };
    if let Some(link) = member.base_link() {
        link.farewell(Code::Stopping, FAREWELL).await;
    }
    http_stop.cancel();
    let flushed = member.stop().await;
    endpoint.close(Code::Stopping.number().into(), b"the node stops");
    tasks.close();
    tasks.wait().await;
    endpoint.wait_idle().await;
    result.and(flushed.map_err(NodeError::Store))
}
