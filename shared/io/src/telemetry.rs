//! The names of all metrics in one table, and their rendering.

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use shared::id::Role;

const SENT: &str = "distributary_content_bytes_sent_total";
const RECEIVED: &str = "distributary_content_bytes_received_total";
const DUPLICATE: &str = "distributary_duplicate_bytes_total";
const HASH_FAILURES: &str = "distributary_hash_failures_total";
const CONNECTIONS: &str = "distributary_connections";
const REFUSED: &str = "distributary_refused_total";
const HTTP_SENT: &str = "distributary_http_content_bytes_sent_total";
const JOBS: &str = "distributary_jobs";
const UPLINK: &str = "distributary_uplink_bits_per_second";
const UPLINK_USED: &str = "distributary_uplink_used_bits_per_second";
const BUILD: &str = "distributary_build_info";

/// Installs the process's recorder; what it returns renders Prometheus' text format.
///
/// # Errors
/// [`BuildError`] if the process has a recorder already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    describe();
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    counter!(DUPLICATE).increment(0);
    for role in Role::ALL {
        counter!(SENT, "peer_role" => role.as_str()).increment(0);
        counter!(RECEIVED, "peer_role" => role.as_str()).increment(0);
    }
    Ok(handle)
}

fn describe() {
    metrics::describe_counter!(SENT, "Content bytes sent, by the peer's role");
    metrics::describe_counter!(RECEIVED, "Content bytes received and kept, by the peer's role");
    metrics::describe_counter!(HTTP_SENT, "Bytes of objects handed to readers over HTTP");
    metrics::describe_counter!(DUPLICATE, "Content bytes received that were held already");
    metrics::describe_counter!(HASH_FAILURES, "Chunks and pages that did not verify");
    metrics::describe_counter!(REFUSED, "Connections refused");
    metrics::describe_gauge!(CONNECTIONS, "Connections, by the peer's role");
    metrics::describe_gauge!(JOBS, "Jobs, by state");
    metrics::describe_gauge!(UPLINK, "What the uplink carries as measured, or as it was set");
    metrics::describe_gauge!(UPLINK_USED, "What connections sent and got acknowledged");
    metrics::describe_gauge!(BUILD, "Always 1; the label tells the version");
}

/// Counts content bytes that were handed to the transport.
pub fn content_sent(peer: Role, bytes: u64) {
    counter!(SENT, "peer_role" => peer.as_str()).increment(bytes);
}

/// Counts content bytes that arrived, verified, and were kept.
pub fn content_received(peer: Role, bytes: u64) {
    counter!(RECEIVED, "peer_role" => peer.as_str()).increment(bytes);
}

/// Counts bytes of objects that were handed to a reader over HTTP.
pub fn http_content_sent(bytes: u64) {
    counter!(HTTP_SENT).increment(bytes);
}

/// Counts content bytes that arrived a second time.
pub fn duplicate(bytes: u64) {
    counter!(DUPLICATE).increment(bytes);
}

/// Counts a chunk or page that did not verify.
pub fn hash_failure() {
    counter!(HASH_FAILURES).increment(1);
}

/// Counts a refused connection.
pub fn refused() {
    counter!(REFUSED).increment(1);
}

/// Counts a connection in or out.
pub fn connections(peer: Role, change: i32) {
    gauge!(CONNECTIONS, "peer_role" => peer.as_str()).increment(f64::from(change));
}

/// Sets what the uplink carries, if that is known, and what of it is used.
pub fn uplink(carries_bps: Option<u64>, used_bps: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let set = |name, bps: u64| gauge!(name).set(bps as f64);
    set(UPLINK_USED, used_bps);
    if let Some(bps) = carries_bps {
        set(UPLINK, bps);
    }
}

/// Sets how many jobs are in a state.
pub fn jobs(state: &'static str, count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    gauge!(JOBS, "state" => state).set(f64::from(count));
}
