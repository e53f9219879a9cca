//! Finding the base and being welcomed by it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use certs::{Identity, IdentityError};
use quinn::Endpoint;
use shared::budget::Budget;
use shared::id::Role;
use shared::wire::message::{Hello, Welcome};
use shared_io::clock::Clock;
use shared_io::data_folder::{DataFolderError, random};
use shared_io::greet::{self, GreetError, Greeted};
use shared_io::transport::{self, Congestion, Terms, TransportError};

/// First pause between two tries, and how far it grows.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long first contact is tried by default.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How to reach the base.
#[derive(Debug)]
pub struct ConnectOptions {
    /// The base as `HOST:PORT`; looked up anew for every try.
    pub base: String,
    /// Who is asking: a client's or an operator's identity.
    pub identity: Identity,
    /// How long to try before giving up; [`PATIENCE`] as a rule.
    pub patience: Duration,
    /// The congestion controller.
    pub congestion: Congestion,
    /// How much memory the client may use.
    pub memory: Budget,
}

impl ConnectOptions {
    /// What is usual, with the identity in the folder `identity`.
    ///
    /// # Errors
    /// [`IdentityError`] if the identity cannot be used: it names the file and the next step.
    pub fn load(base: impl Into<String>, identity: &Path) -> Result<Self, IdentityError> {
        let identity = Identity::load(identity, Clock::wall())?;
        let (base, congestion) = (base.into(), Congestion::default());
        let memory = Budget::default();
        Ok(Self { base, identity, patience: PATIENCE, congestion, memory })
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The identity is not a client's or operator's, or cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The endpoint cannot be opened.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The system gives no randomness.
    #[error(transparent)]
    System(#[from] DataFolderError),
    /// The base refuses the identity, or its own is refused.
    #[error("base {base}: {source}")]
    Refused {
        /// The base as configured.
        base: String,
        /// Why.
        source: GreetError,
    },
    /// Nobody was reached in time.
    #[error("base {base} was not reached within {} s; check --base and that it runs", patience.as_secs())]
    Unreachable {
        /// The base as configured.
        base: String,
        /// How long it was tried.
        patience: Duration,
        /// What the last try met.
        source: GreetError,
    },
}

impl ConnectError {
    /// Whether an identity was refused, by either side.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Identity(error) => error.is_refusal(),
            Self::Transport(TransportError::Tls(error)) => error.is_refusal(),
            Self::Refused { .. } => true,
            Self::Transport(_) | Self::System(_) | Self::Unreachable { .. } => false,
        }
    }

    /// Whether nobody was reached.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// An endpoint that only dials.
pub(crate) async fn open_endpoint(
    options: &ConnectOptions,
    terms: &Terms,
) -> Result<Endpoint, ConnectError> {
    options.identity.require(&[Role::Client, Role::Operator])?;
    // A socket of the family that the base's name has, if it can be looked up at all.
    let first = tokio::net::lookup_host(&options.base).await.ok().and_then(|mut all| all.next());
    let any: SocketAddr = match first {
        Some(SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        Some(SocketAddr::V4(_)) | None => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let mut endpoint = transport::open_endpoint(any, None, &random()?, &terms.access)?;
    let config = transport::client_config(&options.identity, terms)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// Tries to reach the base until it answers, refuses, or `patience` is over.
pub(crate) async fn reach(
    endpoint: &Endpoint,
    base: &str,
    patience: Duration,
) -> Result<Greeted<Welcome>, ConnectError> {
    let mut last = GreetError::Malformed("no try was made".to_owned());
    let trying = async {
        let mut pause = PAUSE_MIN;
        loop {
            match try_once(endpoint, base).await {
                Ok(greeted) => return Ok(greeted),
                Err(error @ GreetError::Refused(_)) => return Err(error),
                Err(error) => last = error,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    match tokio::time::timeout(patience, trying).await {
        Ok(Ok(greeted)) => Ok(greeted),
        Ok(Err(source)) => Err(ConnectError::Refused { base: base.to_owned(), source }),
        Err(_elapsed) => {
            Err(ConnectError::Unreachable { base: base.to_owned(), patience, source: last })
        }
    }
}

async fn try_once(endpoint: &Endpoint, base: &str) -> Result<Greeted<Welcome>, GreetError> {
    let local = endpoint.local_addr().ok();
    let found = tokio::net::lookup_host(base).await;
    let found =
        found.map_err(|error| GreetError::Malformed(format!("looking up {base}: {error}")))?;
    let same_family =
        |addr: &SocketAddr| local.is_none_or(|local| local.is_ipv4() == addr.is_ipv4());
    let addr = found.into_iter().find(same_family);
    let addr =
        addr.ok_or_else(|| GreetError::Malformed(format!("{base} has no usable address")))?;
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: [0; 16],
        boot: 0,
        incarnation: 0,
        advertise: None,
    };
    greet::dial(endpoint, addr, Role::Base, &hello).await
}
