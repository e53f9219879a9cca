//! The UDP socket that quinn sees.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::{Wan, network::Packet};

/// Most datagrams in one send, as many as quinn ever puts together.
const MAX_SEGMENTS: usize = 10;

/// A socket bound to an address of a [`Wan`]. Dropping it frees the address; what is in its inbox
/// or still under way to it is lost.
#[derive(Debug)]
pub struct WanSocket {
    wan: Wan,
    address: SocketAddr,
}

impl WanSocket {
    /// A socket at `address`, or `None` if another one has it.
    pub(super) fn bind(wan: Wan, address: SocketAddr) -> Option<Arc<Self>> {
        let free = wan.lock().network.bind(address);
        free.then(|| Arc::new(Self { wan, address }))
    }
}

impl Drop for WanSocket {
    fn drop(&mut self) {
        self.wan.lock().network.unbind(self.address);
    }
}

impl AsyncUdpSocket for WanSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.wan.lock().network.is_frozen(self.address) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let now = self.wan.now();
        let mut rest = Bytes::copy_from_slice(transmit.contents);
        let segment = transmit.segment_size.unwrap_or(rest.len()).max(1);
        let mut is_next = false;
        let mut state = self.wan.lock();
        while !rest.is_empty() {
            let payload = rest.split_to(segment.min(rest.len()));
            let packet =
                Packet { from: self.address, to: transmit.destination, ecn: transmit.ecn, payload };
            is_next |= state.network.send(now, packet);
        }
        drop(state);
        if is_next {
            self.wan.shared.earlier.notify_one();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.wan.lock();
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(packet) = state.network.receive(self.address, cx.waker()) else {
                break;
            };
            *meta = fill(buf, &packet, self.address);
            count += 1;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Copies a packet into a buffer, cut at the buffer's end as the kernel would.
fn fill(buf: &mut [u8], packet: &Packet, at: SocketAddr) -> RecvMeta {
    let len = buf.len().min(packet.payload.len());
    if let (Some(target), Some(source)) = (buf.get_mut(..len), packet.payload.get(..len)) {
        target.copy_from_slice(source);
    }
    RecvMeta { addr: packet.from, len, stride: len, ecn: packet.ecn, dst_ip: Some(at.ip()) }
}

/// Links drop, sockets never block, unless their host stands still.
#[derive(Debug)]
struct Writable(Arc<WanSocket>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let WanSocket { wan, address } = self.0.as_ref();
        match wan.lock().network.may_send(*address, cx.waker()) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}
