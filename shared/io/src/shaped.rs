//! A UDP socket that sends no faster than an uplink is meant to: `--uplink`.
//!
//! Whole IP packets count, whatever is in them: content, acknowledgements, what is sent again.
//! A connection whose turn has not come is held back as by a full socket, so nothing queues up
//! here but one transmit of each, and no congestion controller takes it for the path's end.

use std::future::Future as _;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use shared::pacer::Pacer;
use shared::time::Time;
use tokio::time::{Sleep, sleep_until};

use crate::clock::Clock;

/// A turn is taken for one packet of a usual path. What a transmit has beyond it is charged to
/// the turns behind: connections that send little do not wait longer for those that send much.
const TURN_BYTES: u64 = 1_500;
/// A transmit takes no longer than this: the others wait for it.
const TRANSMIT_TIME: Duration = Duration::from_millis(2);
/// Headers of IP and UDP.
const HEADERS_V4: u64 = 28;
const HEADERS_V6: u64 = 48;

#[derive(Debug)]
pub(crate) struct Shaped {
    inner: Arc<dyn AsyncUdpSocket>,
    clock: Clock,
    pacer: Mutex<Pacer>,
    segments: usize,
}

impl Shaped {
    /// Sends over `inner` at most `rate_bps` bits per second.
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, clock: Clock, rate_bps: u64) -> Self {
        let bytes = u128::from(rate_bps) * TRANSMIT_TIME.as_micros() / 8_000_000;
        let packets = usize::try_from(bytes / u128::from(TURN_BYTES)).unwrap_or(usize::MAX);
        let segments = packets.clamp(1, inner.max_transmit_segments());
        Self { inner, clock, pacer: Mutex::new(Pacer::new(rate_bps)), segments }
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer> {
        self.pacer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of the IP packets that a transmit becomes.
fn wire_bytes(transmit: &Transmit<'_>) -> u64 {
    let len = transmit.contents.len();
    let packets = transmit.segment_size.map_or(1, |size| len.div_ceil(size.max(1)));
    let v6 =
        matches!(transmit.destination, SocketAddr::V6(to) if to.ip().to_ipv4_mapped().is_none());
    let headers = if v6 { HEADERS_V6 } else { HEADERS_V4 };
    len as u64 + packets as u64 * headers
}

impl AsyncUdpSocket for Shaped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let inner = Arc::clone(&self.inner).create_io_poller();
        Box::pin(ShapedPoller { socket: self, inner, turn: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.inner.try_send(transmit);
        let used = if sent.is_ok() { wire_bytes(transmit) } else { 0 };
        self.pacer().settle(TURN_BYTES, used);
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.segments
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// One connection's wait for its turn.
#[derive(Debug)]
struct ShapedPoller {
    socket: Arc<Shaped>,
    inner: Pin<Box<dyn UdpPoller>>,
    /// The turn that was taken and not used.
    turn: Option<Turn>,
}

#[derive(Debug)]
struct Turn {
    begins: Time,
    wait: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for ShapedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let clock = this.socket.clock;
        let now = clock.now();
        let turn = this.turn.get_or_insert_with(|| {
            let begins = this.socket.pacer().take(now, TURN_BYTES);
            Turn { begins, wait: None }
        });
        if now < turn.begins {
            let begins = clock.instant(turn.begins);
            let wait = turn.wait.get_or_insert_with(|| Box::pin(sleep_until(begins)));
            ready!(wait.as_mut().poll(cx));
        }
        ready!(this.inner.as_mut().poll_writable(cx))?;
        this.turn = None;
        Poll::Ready(Ok(()))
    }
}
