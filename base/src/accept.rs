//! Accepting peers: greeting them, judging them, running their links.

use std::sync::Arc;

use quinn::{Endpoint, Incoming};
use shared::id::{PeerId, Role};
use shared::limit;
use shared::wire::message::{Hello, Welcome};
use shared_io::greet::{self, GreetError, Greeted};
use shared_io::link::{Conduct, Link, chain};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hub::Hub;

/// Connections above which an address must prove itself before any work is done for it.
const RETRY_ABOVE: usize = 256;

/// Accepts peers until `stop`.
pub(crate) async fn run(
    hub: Arc<Hub>,
    endpoint: Endpoint,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let open = endpoint.open_connections();
        if open >= limit::BASE_PEERS_MAX {
            tracing::warn!(open, "a connection is refused: too many are open");
            incoming.refuse();
        } else if open >= RETRY_ABOVE && !incoming.remote_address_validated() {
            if incoming.retry().is_err() {
                tracing::debug!("a connection cannot be asked to prove its address");
            }
        } else {
            tasks.spawn(serve(Arc::clone(&hub), incoming));
        }
    }
}

async fn serve(hub: Arc<Hub>, incoming: Incoming) {
    let from = incoming.remote_address();
    if let Err(error) = greet_and_run(hub, incoming).await {
        tracing::info!(%from, error = chain(&error), "a peer was not admitted");
    }
}

async fn greet_and_run(hub: Arc<Hub>, incoming: Incoming) -> Result<(), GreetError> {
    let greeted = greet::accept(incoming).await?;
    match greeted.identity.role {
        Role::Node => run_node(hub, greeted).await,
        Role::Client | Role::Operator => run_client(hub, greeted).await,
        Role::Base => {
            let text = "a base gives another base no commands".to_owned();
            Err(greet::refuse(&greeted.connection, text))
        }
    }
}

async fn run_node(hub: Arc<Hub>, greeted: Greeted<Hello>) -> Result<(), GreetError> {
    let Greeted { connection, mut control, identity, greeting } = greeted;
    let (name, addr) = (identity.name.clone(), connection.remote_address());
    let admitted = hub.admit(&identity, &greeting).await;
    let admission = admitted.map_err(|text| greet::refuse(&connection, text))?;
    let epoch = hub.epoch();
    let welcome = Welcome { version: version(), epoch, incarnation: admission.incarnation };
    greet::welcome(&mut control, &welcome).await?;
    let peer = PeerId::Node(name.clone());
    let (link, queues) =
        Link::new(peer, identity, connection, hub.clock(), epoch, Some(hub.free_space()));
    hub.node_comes(&link, &greeting, admission);
    tracing::info!(node = %name, %addr, incarnation = admission.incarnation, "node joined");
    let why = link.run(control, queues, Arc::clone(&hub) as Arc<dyn Conduct>).await;
    tracing::info!(node = %name, %why, "node left");
    Ok(())
}

async fn run_client(hub: Arc<Hub>, greeted: Greeted<Hello>) -> Result<(), GreetError> {
    let Greeted { connection, mut control, identity, .. } = greeted;
    let epoch = hub.epoch();
    let welcome = Welcome { version: version(), epoch, incarnation: 0 };
    greet::welcome(&mut control, &welcome).await?;
    let peer = PeerId::Client(identity.name.clone(), hub.next_client());
    let (link, queues) = Link::new(peer, identity, connection, hub.clock(), epoch, None);
    let why = link.clone().run(control, queues, Arc::clone(&hub) as Arc<dyn Conduct>).await;
    tracing::debug!(client = %link.peer(), %why, "client left");
    Ok(())
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
