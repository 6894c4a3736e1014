//! Deadlines.

use super::Fault;
use crate::clock::Instant;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// One deadline at a time, for one connection. Moving the deadline later costs nothing: a timer that fires too early is
/// armed again.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Timer {
    /// Waits for `work`, for at most `limit`.
    pub(crate) fn within<T, E: Into<Fault>>(
        &mut self,
        limit: Duration,
        mut work: impl Future<Output = Result<T, E>> + Unpin,
    ) -> impl Future<Output = Result<T, Fault>> + Unpin {
        let mut deadline = None;
        poll_fn(move |cx| {
            if let Poll::Ready(done) = Pin::new(&mut work).poll(cx) {
                return Poll::Ready(done.map_err(Into::into));
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
            match self.poll_until(cx, deadline) {
                Poll::Ready(()) => Poll::Ready(Err(Fault::Deadline)),
                Poll::Pending => Poll::Pending,
            }
        })
    }

    /// Ready from `deadline` on.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
