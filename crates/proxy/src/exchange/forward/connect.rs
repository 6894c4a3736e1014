//! A connection to the chosen server.

use super::{Failed, note_failure};
use crate::check;
use crate::clock::Instant;
use crate::exchange::Exchange;
use crate::io::{Fault, Stream};
use crate::serving::{Backend, Permit, Server};
use gaiola_core::retry::Failure;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::Method;
use std::rc::Rc;
use std::time::Duration;

/// A connection to a server.
pub(super) struct ServerConnection {
    pub(super) permit: Permit,
    pub(super) stream: Stream,
    /// Whether it has served a request before.
    pub(super) reused: bool,
    /// Whether it holds the client's state.
    pub(super) bound: bool,
}

impl Exchange<'_> {
    /// An idle connection to the server unless it must be `fresh`, or a new one. `None`: the client has left.
    pub(super) async fn connect(
        &mut self,
        backend: &Backend,
        permit: Permit,
        fresh: bool,
    ) -> Option<Result<ServerConnection, Failed>> {
        let timeouts = &backend.config.timeouts;
        let method = self.request.heads.request.method;
        let idle = (!fresh).then(|| self.idle_to(&permit.server, method, timeouts.pooled));
        if let Some((stream, bound)) = idle.flatten() {
            self.record.connect.done = true;
            return Some(Ok(ServerConnection {
                permit,
                stream,
                reused: true,
                bound,
            }));
        }
        let began = Instant::now();
        let carried = self.downstream.carried();
        // Most requests find an idle connection, and reserve no memory for this.
        let connecting = Box::pin(permit.server.connect(carried, timeouts.user));
        let timed = self.server_timer.within(timeouts.connect, connecting);
        let buffer = &mut self.request.buffer;
        let connected = self
            .downstream
            .while_it_stays(buffer, Box::pin(timed))
            .await;
        self.record.connect.span += began.elapsed();
        let connected = connected?;
        self.record.connect.done = connected.is_ok();
        Some(match connected {
            Ok(stream) => Ok(ServerConnection {
                permit,
                stream,
                reused: false,
                bound: false,
            }),
            Err(fault) => Err(self.not_connected(&permit, fault, timeouts.connect)),
        })
    }

    fn not_connected(&self, permit: &Permit, fault: Fault, limit: Duration) -> Failed {
        let server = &permit.server;
        let (cause, symptom, reason) = match fault {
            Fault::Os(error) => {
                let cause = Cause::ServerFailed(Phase::Connect);
                (cause, check::symptom(&error), check::in_words(error))
            }
            Fault::Deadline | Fault::Closed => {
                let words = format!("no connection within {} ms", limit.as_millis());
                let cause = Cause::ServerTimedOut(Phase::Connect);
                (cause, server.late_to_connect(), words)
            }
        };
        note_failure(self.worker, permit, symptom, &reason);
        Failed {
            failure: Failure::Connect,
            cause,
            reason: format!("{}: {reason}", server.member.name),
            server: permit.index,
            sent: 0,
            body_held: true,
        }
    }

    /// An idle connection to the server that may carry this client's request, and whether it holds the client's state.
    fn idle_to(
        &self,
        server: &Rc<Server>,
        method: Method,
        longest: Duration,
    ) -> Option<(Stream, bool)> {
        let private = self.downstream.private.take(server, method, longest);
        private.or_else(|| {
            let pooled = (!server.announces_client).then(|| server.take_pooled(method, longest));
            pooled.flatten().map(|stream| (stream, false))
        })
    }
}
