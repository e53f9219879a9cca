//! Traffic for scenarios: endpoints with the product's transport settings, a sender that always
//! has more, a reader that takes what comes.

use std::sync::Arc;

use bytes::Bytes;
use distributary_tests::{
    link::LinkSpec,
    wan::{Authority, Host, Wan},
};
use quinn::{Connection, Endpoint, RecvStream, TransportConfig, congestion};
use shared_io::transport::{Congestion, Terms, transport_config};
use tokio::task::JoinSet;

pub(crate) const PORT: u16 = 4433;
pub(crate) const MIB: u32 = 1 << 20;

/// quinn's own stream window: 12.5 MB/s over 100 ms.
pub(crate) const QUINN_WINDOW: u32 = 1_250_000;
/// The product's stream window.
pub(crate) const PRODUCT_WINDOW: u32 = shared_io::transport::STREAM_WINDOW;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    /// The product's default.
    Product,
    Cubic,
    /// A window of 64 MiB, whatever is lost: the worst sender there can be.
    Flood,
}

/// The product's transport settings with another stream window and congestion controller. The
/// limits of the connection grow with a stream window that is larger than the product's.
pub(crate) fn transport(stream_window: u32, controller: Controller) -> Arc<TransportConfig> {
    let congestion =
        if controller == Controller::Cubic { Congestion::Cubic } else { Congestion::Shallow };
    let mut config = transport_config(&Terms { congestion, ..Terms::default() });
    config.stream_receive_window(stream_window.into());
    if stream_window > PRODUCT_WINDOW {
        config.receive_window((2 * stream_window).into()).send_window(u64::from(2 * stream_window));
    }
    if controller == Controller::Flood {
        config.congestion_controller_factory(Arc::new(Flood));
    }
    Arc::new(config)
}

pub(crate) fn product_transport() -> Arc<TransportConfig> {
    transport(PRODUCT_WINDOW, Controller::Product)
}

pub(crate) fn spec(text: &str) -> LinkSpec {
    text.parse().unwrap()
}

/// Two hosts that are joined, and a connection between them.
pub(crate) struct Pair {
    pub(crate) wan: Wan,
    pub(crate) hosts: [Host; 2],
    pub(crate) dialler: Connection,
    pub(crate) acceptor: Connection,
    /// Endpoints close their connections when they go.
    pub(crate) endpoints: [Endpoint; 2],
}

/// Joins `a` and `b` by `link` and connects them, `a` dialling.
pub(crate) async fn connect(wan: Wan, link: &LinkSpec, config: Arc<TransportConfig>) -> Pair {
    let authority = Authority::new(wan.seed()).unwrap();
    let hosts = [wan.host("a").unwrap(), wan.host("b").unwrap()];
    wan.link(&hosts[0], &hosts[1], link);
    let endpoints =
        hosts.each_ref().map(|host| host.endpoint(PORT, &authority, Arc::clone(&config)).unwrap());
    let (dialler, acceptor) = dial(&endpoints[0], &endpoints[1], &hosts[1]).await;
    Pair { wan, hosts, dialler, acceptor, endpoints }
}

/// Connects two endpoints; both ends of the connection.
pub(crate) async fn dial(from: &Endpoint, to: &Endpoint, host: &Host) -> (Connection, Connection) {
    let connecting = from.connect((host.ip(), PORT).into(), host.name()).unwrap();
    let (dialled, accepted) =
        tokio::join!(biased; connecting, async { to.accept().await.unwrap().await });
    (dialled.unwrap(), accepted.unwrap())
}

/// Opens a stream and writes to it until the other side stops it or the connection ends.
pub(crate) async fn send_without_end(connection: Connection) {
    let piece = Bytes::from(vec![7_u8; 64 << 10]);
    let mut stream = connection.open_uni().await.unwrap();
    while stream.write_chunk(piece.clone()).await.is_ok() {}
}

/// Starts [`send_without_end`] from the dialler and accepts its stream at the other end.
pub(crate) async fn stream(pair: &Pair) -> (RecvStream, JoinSet<()>) {
    let mut sender = JoinSet::new();
    sender.spawn(send_without_end(pair.dialler.clone()));
    (pair.acceptor.accept_uni().await.unwrap(), sender)
}

/// Reads whatever has arrived, in any order, until `enough(bytes read)`. The bytes read.
pub(crate) async fn read_until(
    stream: &mut RecvStream,
    ordered: bool,
    mut enough: impl FnMut(u64) -> bool,
) -> Result<u64, quinn::ReadError> {
    let mut bytes = 0;
    while !enough(bytes) {
        match stream.read_chunk(64 << 10, ordered).await? {
            Some(chunk) => bytes += chunk.bytes.len() as u64,
            None => break,
        }
    }
    Ok(bytes)
}

/// A controller whose window never changes.
#[derive(Clone, Debug)]
struct Flood;

impl congestion::ControllerFactory for Flood {
    fn build(self: Arc<Self>, _: std::time::Instant, _: u16) -> Box<dyn congestion::Controller> {
        Box::new(Self)
    }
}

impl congestion::Controller for Flood {
    fn on_congestion_event(
        &mut self,
        _: std::time::Instant,
        _: std::time::Instant,
        _: bool,
        _: u64,
    ) {
    }

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        64 << 20
    }

    fn clone_box(&self) -> Box<dyn congestion::Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        64 << 20
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}
