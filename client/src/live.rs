//! Writing a live object: what is written is cut every 20 ms or 64 KiB, and kept until it is
//! durable at the base.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shared::id::PeerId;
use shared::limit;
use shared_io::content::Window;
use shared_io::job::Job;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::PollSender;

use crate::cut::{CutPage, LiveCutter};
use crate::feed::{self, FeedError, Waited};
use crate::replay::{Replay, other_size};
use crate::resume::Begun;
use crate::session::Standing;

/// What was written waits at most so long until it is cut and sent.
pub const FLUSH_EVERY: Duration = Duration::from_millis(20);
/// Orders that wait for the feeder, each with at most 64 KiB.
const ORDERS_MAX: usize = 8;

/// Writes a live object.
///
/// A write waits while as much as the push may keep is not durable at the base yet: with the
/// usual memory 24 MiB over all pushes of the process, which is what a lost connection may take
/// to come back. Dropping the writer without
/// [`Self::finish`] does not end the object: only its publisher says where it ends.
#[derive(Debug)]
pub struct LiveWriter {
    orders: PollSender<Order>,
}

#[derive(Debug)]
enum Order {
    Write(Bytes),
    Cut { sync: bool },
    Finish,
}

/// The push of the object has ended: its job is closed, or the client was.
fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the push of this object has ended")
}

impl LiveWriter {
    /// Marks where a reader may start, such as a key frame: behind what was written so far.
    /// What was written goes out at once.
    ///
    /// # Errors
    /// `BrokenPipe` if the push has ended.
    ///
    /// # Cancellation
    /// Safe: the mark is either made or not.
    pub async fn mark_sync(&mut self) -> io::Result<()> {
        self.order(Order::Cut { sync: true }).await
    }

    /// Says that the object has ended here. Wait for [`crate::Push::stored`] or the events of the
    /// push before the client is closed.
    ///
    /// # Errors
    /// `BrokenPipe` if the push has ended before.
    pub async fn finish(mut self) -> io::Result<()> {
        self.order(Order::Finish).await
    }

    async fn order(&mut self, order: Order) -> io::Result<()> {
        std::future::poll_fn(|cx| self.orders.poll_reserve(cx)).await.map_err(|_closed| ended())?;
        self.orders.send_item(order).map_err(|_closed| ended())
    }

    fn poll_order(&mut self, cx: &mut Context<'_>, order: Order) -> Poll<io::Result<()>> {
        if ready!(self.orders.poll_reserve(cx)).is_err() {
            return Poll::Ready(Err(ended()));
        }
        Poll::Ready(self.orders.send_item(order).map_err(|_closed| ended()))
    }
}

impl AsyncWrite for LiveWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let most = limit::LIVE_CHUNK_LEN_MAX as usize;
        let piece = buf.get(..buf.len().min(most)).unwrap_or(buf);
        if ready!(self.orders.poll_reserve(cx)).is_err() {
            return Poll::Ready(Err(ended()));
        }
        let order = Order::Write(Bytes::copy_from_slice(piece));
        Poll::Ready(self.orders.send_item(order).map(|()| piece.len()).map_err(|_closed| ended()))
    }

    /// Has what was written cut at once, instead of within [`FLUSH_EVERY`].
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_order(cx, Order::Cut { sync: false })
    }

    /// Ends the object, as [`LiveWriter::finish`] does.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_order(cx, Order::Finish))?;
        self.orders.close();
        Poll::Ready(Ok(()))
    }
}

/// Cuts and publishes what a [`LiveWriter`] writes.
#[derive(Debug)]
pub(crate) struct LiveFeed {
    standing: Arc<Standing>,
    job: Arc<Job>,
    window: Arc<Window>,
    cutter: LiveCutter,
    orders: mpsc::Receiver<Order>,
    /// What the base has of the object, if it was begun before.
    begun: Option<Begun>,
    /// What was written and not taken up while the object is compared with what was begun.
    given: BytesMut,
    /// When what waits in the cutter is to be cut.
    cut_at: Option<Instant>,
}

impl LiveFeed {
    /// A feed, and the writer that it follows.
    pub(crate) fn new(
        standing: Arc<Standing>,
        job: Arc<Job>,
        window: Arc<Window>,
        cutter: LiveCutter,
        begun: Option<Begun>,
    ) -> (Self, LiveWriter) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let given = BytesMut::new();
        let feed = Self { standing, job, window, cutter, orders, begun, given, cut_at: None };
        (feed, LiveWriter { orders: PollSender::new(sender) })
    }

    /// Feeds the job until the object has ended and everything is durable at the base.
    pub(crate) async fn run(mut self) -> Result<(), FeedError> {
        if let Some(begun) = self.begun.take() {
            self.go_on(begun).await?;
        }
        if !self.cutter.has_ended() {
            self.follow_writer().await?;
            let last = self.cutter.finish()?;
            self.publish(last)?;
        }
        while feed::stored(&self.standing, &self.job, &self.window).await? == Waited::Behind {
            self.warn_of_loss();
        }
        Ok(())
    }

    /// Waits for room in the window, also while the base has lost what only its nodes can give
    /// it back: what was written is gone here.
    async fn room(&self) -> Result<(), FeedError> {
        while feed::room(&self.standing, &self.job, &self.window).await? == Waited::Behind {
            self.warn_of_loss();
        }
        Ok(())
    }

    fn warn_of_loss(&self) {
        let job = self.job.id();
        tracing::warn!(%job, "the base has lost what it had stored and waits for its nodes");
    }

    /// Compares what the base has with what is written, which begins with the first byte again.
    async fn go_on(&mut self, mut begun: Begun) -> Result<(), FeedError> {
        while let Some(page) = begun.next().await? {
            self.room().await?;
            let mut replay = Replay::new(page, &self.cutter, self.cutter.name())?;
            while !replay.take(&mut self.given, self.cutter.name())? {
                if !self.more_is_given().await? {
                    return Err(other_size(self.cutter.name()).into());
                }
            }
            let (page, chunks) = replay.into_parts();
            let page = self.cutter.take_up(page, chunks)?;
            self.publish(page)?;
        }
        if self.cutter.has_ended() && (!self.given.is_empty() || self.more_is_given().await?) {
            return Err(other_size(self.cutter.name()).into());
        }
        let given = std::mem::take(&mut self.given);
        self.write(&given)
    }

    /// Waits until more is written; false if the writer has finished.
    async fn more_is_given(&mut self) -> Result<bool, FeedError> {
        loop {
            match self.next_order().await? {
                Some(Order::Write(bytes)) => {
                    self.given.extend_from_slice(&bytes);
                    return Ok(true);
                }
                // Where it was cut, and what was marked, was said when it was written first.
                Some(Order::Cut { .. }) | None => {}
                Some(Order::Finish) => return Ok(false),
            }
        }
    }

    /// Cuts and publishes what is written until the writer has finished.
    async fn follow_writer(&mut self) -> Result<(), FeedError> {
        if !self.cutter.has_begun() {
            // The object can be seen before its first byte.
            self.cut()?;
        }
        loop {
            self.room().await?;
            match self.next_order().await? {
                None => self.cut()?,
                Some(Order::Write(bytes)) => self.write(&bytes)?,
                Some(Order::Cut { sync }) => {
                    if sync {
                        self.cutter.mark_sync();
                    }
                    if self.cutter.has_news() {
                        self.cut()?;
                    }
                }
                Some(Order::Finish) => return Ok(()),
            }
        }
    }

    /// The next order, or none if it is time to cut.
    async fn next_order(&mut self) -> Result<Option<Order>, FeedError> {
        let orders = &mut self.orders;
        let cut_at = self.cut_at;
        let next = async {
            match cut_at {
                Some(at) => timeout_at(at, orders.recv()).await.map(Some).unwrap_or(None),
                None => Some(orders.recv().await),
            }
        };
        tokio::select! {
            biased;
            () = self.job.over().cancelled() => Err(FeedError::Stopped),
            next = next => match next {
                None => Ok(None),
                Some(Some(order)) => Ok(Some(order)),
                Some(None) => Err(FeedError::Stopped),
            },
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), FeedError> {
        while !bytes.is_empty() {
            let taken = self.cutter.write(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.cutter.is_full() {
                self.cut()?;
            }
        }
        if !self.cutter.is_empty() && self.cut_at.is_none() {
            self.cut_at = Some(Instant::now() + FLUSH_EVERY);
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), FeedError> {
        self.cut_at = None;
        let page = self.cutter.cut()?;
        self.publish(page)?;
        let durable = self.job.with_relay(|relay| relay.durable_at(&PeerId::Base)).unwrap_or(0);
        if self.cutter.may_cut_anew().is_some_and(|needed| durable >= needed) {
            let page = self.cutter.cut_anew()?;
            self.publish(page)?;
        }
        Ok(())
    }

    fn publish(&self, cut: CutPage) -> Result<(), FeedError> {
        let CutPage { page, page_decoded, summary, chunks } = cut;
        Ok(self.job.publish((&page, &Arc::new(page_decoded)), &summary, chunks)?)
    }
}
