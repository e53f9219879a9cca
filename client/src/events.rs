//! The events of a job as a [`Stream`], for those who combine streams.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use shared::view::Event;
use tokio_util::sync::ReusableBoxFuture;

use crate::push::{Push, PushError};
use crate::session::AskError;
use crate::watch::Watch;

type Next<S, E> = (S, Result<Option<Event>, E>);

/// The events of a job: `Created` first, `Closed` last. An error ends the stream.
///
/// Made by [`Watch::events`] and [`Push::events`]; dropping it drops what it was made of.
pub struct Events<S, E> {
    next: ReusableBoxFuture<'static, Next<S, E>>,
    again: fn(S, &mut ReusableBoxFuture<'static, Next<S, E>>),
    has_ended: bool,
}

impl Watch {
    /// The events that [`Self::next`] gives, as a stream.
    pub fn events(self) -> Events<Self, AskError> {
        async fn next(mut watch: Watch) -> Next<Watch, AskError> {
            let event = watch.next().await;
            (watch, event)
        }
        Events {
            next: ReusableBoxFuture::new(next(self)),
            again: |watch, future| future.set(next(watch)),
            has_ended: false,
        }
    }
}

impl Push {
    /// The events that [`Self::next`] gives, as a stream. Dropping it stops the feeding and leaves
    /// the job.
    pub fn events(self) -> Events<Self, PushError> {
        async fn next(mut push: Push) -> Next<Push, PushError> {
            let event = push.next().await;
            (push, event)
        }
        Events {
            next: ReusableBoxFuture::new(next(self)),
            again: |push, future| future.set(next(push)),
            has_ended: false,
        }
    }
}

impl<S, E> Stream for Events<S, E> {
    type Item = Result<Event, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let (source, next) = ready!(self.next.poll(cx));
        if let Ok(Some(event)) = next {
            let this = &mut *self;
            (this.again)(source, &mut this.next);
            return Poll::Ready(Some(Ok(event)));
        }
        self.has_ended = true;
        Poll::Ready(next.transpose())
    }
}

impl<S, E> fmt::Debug for Events<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}
