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
    turns: Mutex<Turns>,
    segments: usize,
}

#[derive(Debug)]
struct Turns {
    pacer: Pacer,
    /// Turns that have begun and were not used yet.
    begun: usize,
}

impl Shaped {
    /// Sends over `inner` at most `rate_bps` bits per second.
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, clock: Clock, rate_bps: u64) -> Self {
        let bytes = u128::from(rate_bps) * TRANSMIT_TIME.as_micros() / 8_000_000;
        let packets = usize::try_from(bytes / u128::from(TURN_BYTES)).unwrap_or(usize::MAX);
        let segments = packets.clamp(1, inner.max_transmit_segments());
        let turns = Turns { pacer: Pacer::new(rate_bps), begun: 0 };
        Self { inner, clock, turns: Mutex::new(turns), segments }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut turns = self.turns();
        // The endpoint answers strangers without asking for a turn: that is charged afterwards.
        let taken = if turns.begun > 0 { TURN_BYTES } else { 0 };
        turns.begun = turns.begun.saturating_sub(1);
        turns.pacer.settle(taken, used);
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
            let begins = this.socket.turns().pacer.take(now, TURN_BYTES);
            Turn { begins, wait: None }
        });
        if now < turn.begins {
            let begins = clock.instant(turn.begins);
            let wait = turn.wait.get_or_insert_with(|| Box::pin(sleep_until(begins)));
            ready!(wait.as_mut().poll(cx));
        }
        ready!(this.inner.as_mut().poll_writable(cx))?;
        this.turn = None;
        this.socket.turns().begun += 1;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    /// Counts bytes and is always writable.
    #[derive(Debug, Default)]
    struct Counting(AtomicU64);

    impl AsyncUdpSocket for Counting {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Always)
        }
        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            self.0.fetch_add(wire_bytes(transmit), Ordering::Relaxed);
            Ok(())
        }
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok((Ipv4Addr::LOCALHOST, 1).into())
        }
        fn max_transmit_segments(&self) -> usize {
            10
        }
    }

    #[derive(Debug)]
    struct Always;

    impl UdpPoller for Always {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn transmit(contents: &[u8]) -> Transmit<'_> {
        Transmit {
            destination: (Ipv4Addr::LOCALHOST, 2).into(),
            ecn: None,
            contents,
            segment_size: Some(1_452),
            src_ip: None,
        }
    }

    /// Sends transmits of `len` bytes for `time`; how many bytes went.
    async fn connection(socket: Arc<Shaped>, len: usize, time: Duration) -> u64 {
        let contents = vec![0; len];
        let mut poller = Arc::clone(&socket).create_io_poller();
        let sending = async {
            let mut sent = 0;
            let end = tokio::time::Instant::now() + time;
            while tokio::time::Instant::now() < end {
                std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
                socket.try_send(&transmit(&contents)).unwrap();
                sent += wire_bytes(&transmit(&contents));
                tokio::task::yield_now().await;
            }
            sent
        };
        sending.await
    }

    #[tokio::test(start_paused = true)]
    async fn all_connections_together_keep_the_rate_and_each_has_its_turns() {
        const RATE: u64 = 20_000_000;
        let counting = Arc::new(Counting::default());
        let inner = Arc::clone(&counting) as Arc<dyn AsyncUdpSocket>;
        let socket = Arc::new(Shaped::new(inner, Clock::start(), RATE));
        assert_eq!(socket.max_transmit_segments(), 3, "2 ms of the rate");
        let time = Duration::from_secs(10);
        let run = |len| connection(Arc::clone(&socket), len, time);
        let (a, b, small) = tokio::join!(run(3 * 1_452), run(3 * 1_452), run(50));
        let all = a + b + small;
        assert_eq!(all, counting.0.load(Ordering::Relaxed));
        let rate = all * 8 / 10;
        assert!(rate.abs_diff(RATE) < RATE / 50, "{rate} bit/s");
        assert!(a.abs_diff(b) < a / 10, "{a} and {b} bytes");
        assert!(small > 50 * 1_000, "{small} bytes of small packets");
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_no_turn_is_charged_all_the_same() {
        let inner = Arc::new(Counting::default()) as Arc<dyn AsyncUdpSocket>;
        let socket = Arc::new(Shaped::new(inner, Clock::start(), 8_000_000));
        let contents = vec![0; 1_000];
        for _ in 0..1_000 {
            socket.try_send(&transmit(&contents)).unwrap();
        }
        let start = tokio::time::Instant::now();
        let mut poller = Arc::clone(&socket).create_io_poller();
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        let waited = start.elapsed().as_millis();
        assert!((1_000..1_060).contains(&waited), "{waited} ms for 1,028,000 bytes");
    }
}
