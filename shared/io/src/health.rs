//! What base and node tell their operators over HTTP: health, readiness, metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether a role serves, and if not, why.
pub trait Readiness: Send + Sync + 'static {
    /// Called for each `/readyz`.
    ///
    /// # Errors
    /// What is missing, for people.
    fn ready(&self) -> Result<(), String>;
    /// Brings gauges up to date; called for each `/metrics`.
    fn refresh(&self) {}
}

/// Why the HTTP listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} (TCP); choose another address or port with --http")]
pub struct HttpError {
    addr: SocketAddr,
    source: std::io::Error,
}

/// Opens the HTTP listener.
///
/// # Errors
/// [`HttpError`] if the address cannot be used.
pub async fn listen(addr: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(addr).await.map_err(|source| HttpError { addr, source })
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(readiness: Arc<dyn Readiness>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state((readiness, metrics))
}

type Shared = (Arc<dyn Readiness>, PrometheusHandle);

async fn readyz(State((readiness, _)): State<Shared>) -> (StatusCode, String) {
    match readiness.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
}

async fn render(
    State((readiness, metrics)): State<Shared>,
) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    readiness.refresh();
    metrics.run_upkeep();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}

/// Serves until `stop`; what is under way then is finished.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "HTTP has ended");
    }
}
