//! What base and node tell their operators over HTTP: health, readiness, metrics.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::serve::ListenerExt;
use metrics_exporter_prometheus::PrometheusHandle;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long answers that are under way may take when a role stops.
const FINISH: Duration = Duration::from_secs(2);
/// A reader that takes nothing for so long is gone; one that pauses for longer asks again for the
/// rest.
const STALLED: Duration = Duration::from_secs(120);

/// Whether a role serves, and if not, why.
pub trait Readiness: Send + Sync + 'static {
    /// Called for each `/readyz`.
    ///
    /// # Errors
    /// What is missing, for people.
    fn ready(&self) -> Result<(), String>;
    /// Brings gauges up to date; called for each `/metrics`.
    fn refresh(&self) {}
    /// Series that the recorder does not hold, as Prometheus' text format has them; asked for
    /// each `/metrics`.
    fn series(&self) -> String {
        String::new()
    }
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
    let text = metrics.render() + &readiness.series();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Serves until `stop`; what is under way then is finished if its reader takes it within
/// [`FINISH`].
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let listener = listener.tap_io(drop_stalled);
    let served =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(FINISH).await;
    };
    tokio::select! {
        biased;
        ended = served.into_future() => if let Err(error) = ended {
            tracing::error!(%error, "HTTP has ended");
        },
        () = late => tracing::debug!("readers over HTTP are left behind"),
    }
}

/// Has the system end a connection whose peer takes nothing for [`STALLED`].
fn drop_stalled(stream: &mut TcpStream) {
    if let Err(error) = SockRef::from(&*stream).set_tcp_user_timeout(Some(STALLED)) {
        tracing::debug!(%error, "a reader that takes nothing is not cut off");
    }
}
