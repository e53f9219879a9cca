//! One end of a flow: an endpoint with at most one connection, and its application, which sends
//! without end or reads whatever has arrived, in any order.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use quinn::{EndpointConfig, ServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, StreamEvent,
    StreamId, Transmit,
};

/// Most datagrams in one send, as many as quinn puts together.
const MAX_DATAGRAMS: usize = 10;
const PIECE: usize = 64 << 10;

/// What a peer does with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Sends,
    Reads,
}

pub(super) struct Peer {
    address: SocketAddr,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    part: Part,
    stream: Option<StreamId>,
    piece: Bytes,
    pub(super) read: u64,
    pub(super) died: Option<String>,
}

impl Peer {
    pub(super) fn new(
        address: SocketAddr,
        part: Part,
        config: EndpointConfig,
        server: Option<ServerConfig>,
    ) -> Self {
        let endpoint = Endpoint::new(Arc::new(config), server.map(Arc::new), true, None);
        Self {
            address,
            endpoint,
            connection: None,
            part,
            stream: None,
            piece: Bytes::from(vec![7; PIECE]),
            read: 0,
            died: None,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref().map(|(_, connection)| connection)
    }

    pub(super) fn dial(
        &mut self,
        now: Instant,
        config: ClientConfig,
        to: (SocketAddr, &str),
    ) -> Result<(), quinn::ConnectError> {
        self.connection = Some(self.endpoint.connect(now, config, to.0, to.1)?);
        Ok(())
    }

    /// Takes a datagram; what the endpoint answers by itself is dropped, as a lost packet would be.
    pub(super) fn receive(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) {
        let mut buffer = Vec::new();
        let ip = Some(Ipv4Addr::UNSPECIFIED.into());
        let event = self.endpoint.handle(now, from, ip, None, BytesMut::from(payload), &mut buffer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((own, connection)) = &mut self.connection
                    && *own == handle
                {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut buffer, None);
                self.connection = accepted.ok().or(self.connection.take());
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    pub(super) fn next_timer(&mut self) -> Option<Instant> {
        self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout())
    }

    pub(super) fn time_passed(&mut self, now: Instant) {
        if let Some((_, connection)) = &mut self.connection
            && connection.poll_timeout().is_some_and(|due| due <= now)
        {
            connection.handle_timeout(now);
        }
    }

    /// Lets the application go on and hands over every datagram that may be sent.
    pub(super) fn go_on(&mut self, now: Instant, mut send: impl FnMut(SocketAddr, &[u8])) {
        let Some((handle, mut connection)) = self.connection.take() else {
            return;
        };
        let mut buffer = Vec::new();
        loop {
            self.settle(handle, &mut connection);
            self.use_stream(&mut connection);
            buffer.clear();
            let Some(transmit) = connection.poll_transmit(now, MAX_DATAGRAMS, &mut buffer) else {
                break;
            };
            for datagram in datagrams(&transmit, &buffer) {
                send(transmit.destination, datagram);
            }
        }
        self.settle(handle, &mut connection);
        self.connection = Some((handle, connection));
    }

    fn settle(&mut self, handle: ConnectionHandle, connection: &mut Connection) {
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected if self.part == Part::Sends => {
                    self.stream = connection.streams().open(Dir::Uni);
                }
                Event::Stream(StreamEvent::Opened { dir }) => {
                    self.stream = connection.streams().accept(dir).or(self.stream);
                }
                Event::ConnectionLost { reason } => self.died = Some(reason.to_string()),
                _ => {}
            }
        }
    }

    fn use_stream(&mut self, connection: &mut Connection) {
        let Some(id) = self.stream else {
            return;
        };
        match self.part {
            Part::Sends => {
                let mut stream = connection.send_stream(id);
                while stream.write_chunks(&mut [self.piece.clone()]).is_ok_and(|w| w.bytes > 0) {}
            }
            Part::Reads => {
                let mut stream = connection.recv_stream(id);
                if let Ok(mut chunks) = stream.read(false) {
                    while let Ok(Some(chunk)) = chunks.next(PIECE) {
                        self.read += u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX);
                    }
                    let _ = chunks.finalize();
                }
            }
        }
    }
}

fn datagrams<'a>(transmit: &Transmit, buffer: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let contents = buffer.get(..transmit.size).unwrap_or_default();
    contents.chunks(transmit.segment_size.unwrap_or(transmit.size).max(1))
}
