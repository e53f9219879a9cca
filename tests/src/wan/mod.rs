//! A wide-area network in memory, in virtual time, under the real quinn and rustls.
//!
//! [`run`] gives a scenario a [`Wan`]: it adds hosts, describes the links between them in words
//! ([`LinkSpec`]) and opens QUIC endpoints on them. Time is tokio's paused clock: it moves only
//! when nothing is left to do, so minutes of waiting cost no time, and a test of minutes on a bad
//! link costs what its packets cost.
//!
//! **Same seed, same packets.** Links, connection ids, keys and quinn's own randomness are drawn
//! from the seed; what stays random (TLS nonces and key shares) never changes a packet's length.
//! [`Wan::trace`] hashes time, ends and length of every packet sent, to prove it. What a scenario
//! has to keep for this: one seed, no threads, no real time, and `tokio::select!` only `biased`.
//!
//! The clock moves in steps of 1 ms (tokio's timers), so a packet is handed over up to 1 ms after
//! the link has delivered it; rates and queues are exact all the same.

mod endpoint;
mod identity;
mod network;
mod socket;

use std::{
    collections::BTreeMap,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet, time::Instant};

use self::network::{HostId, Network};
use crate::link::{LinkCounters, LinkSpec};

pub use endpoint::{Host, Randomness};
pub use identity::{Authority, IdentityError};
pub use network::{Drops, Trace};
pub use socket::WanSocket;

/// Most hosts in one network: the addresses `10.77.0.1` to `10.77.255.254`.
pub const MAX_HOSTS: usize = 254 * 256;

/// Longest run, in virtual time: a scenario that waits for what never comes ends here at once,
/// since nothing else is left to do.
pub const MAX_RUN: Duration = Duration::from_secs(24 * 3600);

/// Why a network cannot be set up as asked, or a run did not end.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    /// The runtime did not start.
    #[error("cannot start the virtual-time runtime: {0}")]
    Runtime(#[source] std::io::Error),
    /// The scenario did not return within [`MAX_RUN`].
    #[error("the scenario did not end within {} h of virtual time", MAX_RUN.as_secs() / 3600)]
    Endless,
    /// A host of that name is there already.
    #[error("host `{0}` is there already; hosts have unique names")]
    HostExists(String),
    /// No more hosts.
    #[error("no room for host `{0}`: a network has at most {MAX_HOSTS} hosts")]
    TooManyHosts(String),
    /// A socket is bound to that address already.
    #[error("{0} is in use; drop its endpoint first or use another port")]
    AddressInUse(SocketAddr),
    /// Port 0, which would make a run depend on what was bound before.
    #[error("host `{0}` was asked to bind port 0; give a port")]
    PortZero(String),
    /// The certificates of the hosts.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// quinn refused the endpoint.
    #[error("cannot open a quinn endpoint on {at}: {source}")]
    Endpoint {
        /// Its address.
        at: SocketAddr,
        /// What quinn says.
        source: std::io::Error,
    },
}

/// Runs `scenario` in a network of its own, in virtual time that starts at zero.
///
/// Endpoints that still live when the scenario returns end without a word, as in a crash.
///
/// # Errors
/// [`WanError::Runtime`] if tokio's runtime does not start, [`WanError::Endless`] if the scenario
/// waits for something that does not happen.
pub fn run<T, F, Fut>(seed: u64, scenario: F) -> Result<T, WanError>
where
    F: FnOnce(Wan) -> Fut,
    Fut: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(WanError::Runtime)?;
    runtime.block_on(async {
        let wan = Wan::new(seed);
        let mut carrier = JoinSet::new();
        carrier.spawn(wan.clone().carry());
        let ended = tokio::time::timeout(MAX_RUN, scenario(wan)).await;
        ended.map_err(|_elapsed| WanError::Endless)
    })
}

/// A network; clones are the same network.
#[derive(Clone, Debug)]
pub struct Wan {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    start: Instant,
    /// Told when a packet is due before all others.
    earlier: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    network: Network,
    names: BTreeMap<String, HostId>,
    binds: u64,
}

impl Wan {
    fn new(seed: u64) -> Self {
        let state = State { network: Network::new(seed), names: BTreeMap::new(), binds: 0 };
        let shared = Shared {
            seed,
            start: Instant::now(),
            earlier: Notify::new(),
            state: Mutex::new(state),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Adds a host. Its address follows from the order in which hosts are added.
    ///
    /// # Errors
    /// A name that is taken, or more than [`MAX_HOSTS`] hosts.
    pub fn host(&self, name: &str) -> Result<Host, WanError> {
        let mut state = self.lock();
        if state.names.contains_key(name) {
            return Err(WanError::HostExists(name.to_owned()));
        }
        let count = state.names.len();
        let (Ok(high), Ok(low)) = (u8::try_from(count / 254), u8::try_from(count % 254 + 1)) else {
            return Err(WanError::TooManyHosts(name.to_owned()));
        };
        let id = HostId(Ipv4Addr::new(10, 77, high, low));
        state.names.insert(name.to_owned(), id);
        drop(state);
        Ok(Host::new(self.clone(), name, id))
    }

    /// Joins two hosts by one path each way, or changes the paths that join them. Hosts without a
    /// path do not reach each other. A packet passes the sender's uplink, the path and the
    /// receiver's downlink ([`crate::link::topology`]); access links are without limit until they
    /// are described.
    pub fn link(&self, a: &Host, b: &Host, spec: &LinkSpec) {
        self.link_one_way(a, b, spec);
        self.link_one_way(b, a, spec);
    }

    /// Sets or changes the path from one host to another; the way back stays as it is.
    pub fn link_one_way(&self, from: &Host, to: &Host, spec: &LinkSpec) {
        self.lock().network.set_path(from.id(), to.id(), spec);
    }

    /// Sets or changes what all that a host sends passes first.
    pub fn uplink(&self, host: &Host, spec: &LinkSpec) {
        self.lock().network.set_uplink(host.id(), spec);
    }

    /// Sets or changes what all that a host receives passes last.
    pub fn downlink(&self, host: &Host, spec: &LinkSpec) {
        self.lock().network.set_downlink(host.id(), spec);
    }

    /// What a host's uplink has done, if it was described.
    #[must_use]
    pub fn uplink_counters(&self, host: &Host) -> Option<LinkCounters> {
        self.lock().network.uplink_counters(host.id())
    }

    /// Has a host stand still, as if its processes were stopped: it neither reads nor sends, and
    /// what arrives waits in its sockets as long as there is room. Its timers go on.
    pub fn freeze(&self, host: &Host) {
        self.lock().network.freeze(host.id());
    }

    /// Has a host go on that stood still.
    pub fn thaw(&self, host: &Host) {
        let woken = self.lock().network.thaw(host.id());
        woken.into_iter().for_each(std::task::Waker::wake);
    }

    /// What the path from one host to another has done, if there is one.
    #[must_use]
    pub fn link_counters(&self, from: &Host, to: &Host) -> Option<LinkCounters> {
        self.lock().network.path_counters(from.id(), to.id())
    }

    /// Number, bytes and hash of all packets sent so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.lock().network.trace()
    }

    /// Packets that were dropped outside of links.
    #[must_use]
    pub fn drops(&self) -> Drops {
        self.lock().network.drops()
    }

    /// Virtual time since the start of the run.
    #[must_use]
    pub fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.shared.start)
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state whole between packets; the test fails by itself.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other bind of this run has had.
    fn next_bind(&self) -> u64 {
        let mut state = self.lock();
        state.binds += 1;
        state.binds
    }

    /// Hands packets over when they are due, for as long as the run lasts.
    async fn carry(self) {
        loop {
            let arrived = self.lock().network.deliver(self.now());
            for waker in arrived.woken {
                waker.wake();
            }
            let earlier = self.shared.earlier.notified();
            match arrived.next {
                None => earlier.await,
                Some(due) => {
                    let at = self.shared.start + due;
                    tokio::select! {
                        biased;
                        () = earlier => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }
}
