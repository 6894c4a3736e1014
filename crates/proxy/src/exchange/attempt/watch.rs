//! Watches the server of an attempt, which an interrupt may end.

use super::{Outcome, Stage};
use crate::io::Tcp;
use crate::serving::{Interrupt, Interrupted, Server};
use gaiola_core::retry::Failure;
use gaiola_core::termination::Phase;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Whether the server's kernel has stopped acknowledging on a connection.
type Dying = Pin<Box<dyn Future<Output = bool>>>;

/// What interrupts an attempt.
pub(super) struct Watch<'a> {
    pub(super) server: &'a Server,
    pub(super) interrupted: Interrupted<'a>,
    /// The connection to the server, if it is TCP.
    pub(super) carrier: Option<&'a Tcp>,
    /// Whether the request may be sent to another server.
    pub(super) repeatable: bool,
    /// Whether the server's sessions end when it is marked down.
    pub(super) shut_down: bool,
    pub(super) dying: Option<Dying>,
}

impl Watch<'_> {
    /// Ready with the outcome once the attempt is interrupted.
    ///
    /// A server that was marked down may be busy with this very request, and sending it elsewhere would overload the
    /// next one. Only a dead server will never answer: a request that may be retried does not wait for it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stage: &Stage) -> Poll<Outcome> {
        let may_move = self.repeatable && !stage.is_answered();
        while let Poll::Ready(why) = Pin::new(&mut self.interrupted).poll(cx) {
            if self.shut_down || why == Interrupt::Ended {
                return Poll::Ready(interrupt(stage, why));
            }
            if let (Interrupt::Lost, true, Some(carrier)) = (why, may_move, self.carrier) {
                let carrier = carrier.clone();
                self.dying = Some(Box::pin(async move { carrier.is_dead().await }));
            }
            self.interrupted = self.server.interrupted();
        }
        let is_dead = self.dying.as_mut().map(|dying| dying.as_mut().poll(cx));
        if let Some(Poll::Ready(is_dead)) = is_dead {
            self.dying = None;
            if is_dead && may_move {
                return Poll::Ready(interrupt(stage, Interrupt::Lost));
            }
        }
        Poll::Pending
    }
}

/// How an interrupted attempt ends.
fn interrupt(stage: &Stage, why: Interrupt) -> Outcome {
    if stage.is_answered() {
        return Outcome::broken(why.cause(Phase::Data));
    }
    let cause = why.cause(Phase::Response);
    let failure = Failure::Closed { stale: false };
    Outcome::Failed(failure, cause, cause.words().into())
}
