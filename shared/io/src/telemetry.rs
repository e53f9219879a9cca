//! The names of all metrics in one table, and their rendering.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use metrics::{Counter, counter, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use shared::id::{JobId, PeerId, Role};
use shared::relay::SwitchReason;

const SENT: &str = "distributary_content_bytes_sent_total";
const RECEIVED: &str = "distributary_content_bytes_received_total";
const PEER_SENT: &str = "distributary_peer_content_bytes_sent_total";
const PEER_RECEIVED: &str = "distributary_peer_content_bytes_received_total";
const BASE_COPIES: &str = "distributary_job_base_copies";
const DUPLICATE: &str = "distributary_duplicate_bytes_total";
const HASH_FAILURES: &str = "distributary_hash_failures_total";
const CONNECTIONS: &str = "distributary_connections";
const REFUSED: &str = "distributary_refused_total";
const HTTP_SENT: &str = "distributary_http_content_bytes_sent_total";
const OFFERS_SENT: &str = "distributary_offers_sent_total";
const OFFERS_RECEIVED: &str = "distributary_offers_received_total";
const STRIPES_GIVEN: &str = "distributary_stripes_given_total";
const STRIPES_CLOSED: &str = "distributary_stripes_closed_total";
const SWITCHES: &str = "distributary_upstream_switches_total";
const TRIALS: &str = "distributary_upstream_trials_total";
const JOBS: &str = "distributary_jobs";
const UPLINK: &str = "distributary_uplink_bits_per_second";
const UPLINK_USED: &str = "distributary_uplink_used_bits_per_second";
const BUILD: &str = "distributary_build_info";

/// Peers that have series of their own; the recorder forgets none. The bytes of further ones are
/// counted under [`OTHERS`].
const PEER_LABELS_MAX: usize = 1_024;
/// No name of a peer.
const OTHERS: &str = "(others)";

/// Installs the process's recorder; what it returns renders Prometheus' text format.
///
/// # Errors
/// [`BuildError`] if the process has a recorder already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    describe();
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    counter!(DUPLICATE).increment(0);
    let of_roles = [SENT, RECEIVED, OFFERS_SENT, OFFERS_RECEIVED, STRIPES_GIVEN, STRIPES_CLOSED];
    for (name, role) in of_roles.into_iter().flat_map(|name| Role::ALL.map(|role| (name, role))) {
        counter!(name, "peer_role" => role.as_str()).increment(0);
    }
    for reason in SwitchReason::ALL {
        counter!(SWITCHES, "reason" => reason.as_str()).increment(0);
    }
    for is_faster in [true, false] {
        counter!(TRIALS, "result" => result_of(is_faster)).increment(0);
    }
    Ok(handle)
}

fn describe() {
    metrics::describe_counter!(SENT, "Content bytes sent, by the peer's role");
    metrics::describe_counter!(RECEIVED, "Content bytes received and kept, by the peer's role");
    metrics::describe_counter!(PEER_SENT, "Content bytes sent, by the peer");
    metrics::describe_counter!(PEER_RECEIVED, "Content bytes received and kept, by the peer");
    metrics::describe_counter!(HTTP_SENT, "Bytes of objects handed to readers over HTTP");
    metrics::describe_counter!(DUPLICATE, "Content bytes received that were held already");
    metrics::describe_counter!(HASH_FAILURES, "Chunks and pages that did not verify");
    metrics::describe_counter!(OFFERS_SENT, "Offers to receivers, by the receiver's role");
    metrics::describe_counter!(OFFERS_RECEIVED, "Offers of sources, by the source's role");
    metrics::describe_counter!(STRIPES_GIVEN, "Stripes that receivers have subscribed to here");
    metrics::describe_counter!(STRIPES_CLOSED, "Stripes that receivers shall have from others");
    metrics::describe_counter!(TRIALS, "Other sources of a stripe that were tried, by the result");
    metrics::describe_counter!(SWITCHES, "Changes of the source of a stripe, by the reason");
    metrics::describe_counter!(REFUSED, "Connections refused");
    metrics::describe_gauge!(CONNECTIONS, "Connections, by the peer's role");
    metrics::describe_gauge!(JOBS, "Jobs, by state");
    metrics::describe_gauge!(UPLINK, "What the uplink carries as measured, or as it was set");
    metrics::describe_gauge!(UPLINK_USED, "What connections sent and got acknowledged");
    metrics::describe_gauge!(BUILD, "Always 1; the label tells the version");
}

/// The counters of content that goes to and comes from one peer.
#[derive(Debug)]
pub(crate) struct PeerContent {
    sent: [Counter; 2],
    received: [Counter; 2],
}

impl PeerContent {
    /// The counters of a peer with this role; those of its role, too.
    pub(crate) fn of(peer: &PeerId, role: Role) -> Self {
        let label = peer_label(peer);
        let role = role.as_str();
        let counters = |of_role, of_peer| {
            let of_peer = counter!(of_peer, "peer_role" => role, "peer" => label.clone());
            [counter!(of_role, "peer_role" => role), of_peer]
        };
        Self { sent: counters(SENT, PEER_SENT), received: counters(RECEIVED, PEER_RECEIVED) }
    }

    /// Counts content bytes that were handed to the transport.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.iter().for_each(|counter| counter.increment(bytes));
    }

    /// Counts content bytes that arrived, verified, and were kept.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.iter().for_each(|counter| counter.increment(bytes));
    }
}

/// The peer's name, without the number of a client's connection.
fn peer_label(peer: &PeerId) -> String {
    static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let name = match peer {
        PeerId::Base => "base",
        PeerId::Node(name) | PeerId::Client(name, _) => name.as_str(),
    };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if !known.contains(name) {
        if known.len() >= PEER_LABELS_MAX {
            return OTHERS.to_owned();
        }
        known.insert(name.to_owned());
    }
    name.to_owned()
}

/// What of each job has left the base, in copies of what is known of it, as Prometheus' text
/// format has it. It is written here because the recorder would forget no job.
pub fn base_copies(copies: impl IntoIterator<Item = (JobId, f64)>) -> String {
    let mut text = format!(
        "# HELP {BASE_COPIES} Content bytes sent by the base of an open job, over those it has\n\
         # TYPE {BASE_COPIES} gauge\n"
    );
    for (job, copies) in copies {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{BASE_COPIES}{{job=\"{job}\"}} {copies:.3}");
    }
    text
}

/// Counts bytes of objects that were handed to a reader over HTTP.
pub fn http_content_sent(bytes: u64) {
    counter!(HTTP_SENT).increment(bytes);
}

/// Counts content bytes that arrived a second time.
pub fn duplicate(bytes: u64) {
    counter!(DUPLICATE).increment(bytes);
}

/// Counts an offer to a receiver.
pub fn offer_sent(peer: Role) {
    counter!(OFFERS_SENT, "peer_role" => peer.as_str()).increment(1);
}

/// Counts an offer of a source.
pub fn offer_received(peer: Role) {
    counter!(OFFERS_RECEIVED, "peer_role" => peer.as_str()).increment(1);
}

/// Counts a stripe that a receiver has subscribed to.
pub fn stripe_given(peer: Role) {
    counter!(STRIPES_GIVEN, "peer_role" => peer.as_str()).increment(1);
}

/// Counts a stripe that a receiver shall have from another source.
pub fn stripe_closed(peer: Role) {
    counter!(STRIPES_CLOSED, "peer_role" => peer.as_str()).increment(1);
}

/// Counts a trial of another source of a stripe.
pub fn tried(is_faster: bool) {
    counter!(TRIALS, "result" => result_of(is_faster)).increment(1);
}

const fn result_of(is_faster: bool) -> &'static str {
    if is_faster { "faster" } else { "slower" }
}

/// Counts a stripe that is fed by another source than before.
pub fn switched(reason: SwitchReason) {
    counter!(SWITCHES, "reason" => reason.as_str()).increment(1);
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
