//! HTTP/1.x with a client: requests one after another.

mod head;
mod idle;

use crate::check::in_words;
use crate::client::Client;
use crate::clock::Instant;
use crate::counters::Unasked;
use crate::exchange::{Downstream, Exchange, Next, Private, Record, Request, reply};
use crate::io::{self, Timer};
use crate::worker::Worker;
use gaiola_core::termination::Cause;
use gaiola_model::proxy::ClientTimeouts;
use std::borrow::Cow;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// A client's connection.
pub(super) struct Connection {
    worker: Rc<Worker>,
    client: Box<Client>,
    /// Timers for what the client does, and for what the server does.
    client_timer: Timer,
    server_timer: Timer,
    /// Number of requests so far.
    served: u64,
    /// Idle connections to servers that are reserved for this client.
    private: Private,
}

impl Connection {
    /// A connection on which nothing was requested yet.
    pub(super) fn new(worker: &Rc<Worker>, client: Box<Client>) -> Self {
        Self {
            worker: Rc::clone(worker),
            client,
            client_timer: Timer::default(),
            server_timer: Timer::default(),
            served: 0,
            private: Private::default(),
        }
    }

    /// Serves it until it ends.
    pub(super) async fn serve(&mut self) {
        let mut received = self.client.early.take();
        loop {
            let next = match self.next_request(received.take()).await {
                Ok(request) => self.exchange(request).await,
                Err(next) => next,
            };
            self.served += 1;
            match next {
                Next::Request(buffer) => {
                    received = Some(buffer).filter(|buffer| !buffer.is_empty());
                }
                next => return self.close(next).await,
            }
        }
    }

    /// Carries out one request. The future is large; a connection should hold memory for it only during a request.
    fn exchange(&mut self, request: Request) -> Pin<Box<impl Future<Output = Next>>> {
        let Self {
            worker,
            client,
            client_timer,
            server_timer,
            private,
            ..
        } = self;
        let downstream = Downstream {
            stream: &mut client.stream,
            timer: client_timer,
            origin: &client.origin,
            private,
        };
        // Made outside of the future, which would hold the request a second time.
        let mut exchange = Exchange::new(worker, downstream, server_timer, request);
        Box::pin(async move { exchange.run().await })
    }

    async fn close(&mut self, next: Next) {
        let stream = &mut self.client.stream;
        match next {
            Next::Finished if io::is_quiet(stream, true) => stream.end(),
            Next::Request(_) | Next::Close | Next::Finished => {
                Box::pin(io::close_gently(stream)).await;
            }
            Next::Abort => {}
            Next::Left => stream.end(),
        }
    }

    /// Answers a request whose head could not be read. Boxed, so that connections reserve no memory for it.
    fn refuse(
        &mut self,
        begun: Instant,
        cause: Cause,
        why: impl Into<Cow<'static, str>>,
    ) -> Pin<Box<impl Future<Output = Next>>> {
        let mut record = Record::new(&self.worker, begun);
        record.fail_for(cause, why);
        let mut downstream = Downstream {
            stream: &mut self.client.stream,
            timer: &mut self.client_timer,
            origin: &self.client.origin,
            private: &self.private,
        };
        let worker = &self.worker;
        Box::pin(async move { reply::refuse(worker, &mut downstream, &mut record).await })
    }

    /// Counts and logs a connection that never sent a request.
    fn log_silent(&self, limit: Duration) {
        if self.served == 0 {
            let reason = format!("nothing came within {} ms", limit.as_millis());
            let origin = &self.client.origin;
            self.worker.close_unasked(origin, Unasked::Silent, &reason);
        }
    }

    /// Logs why a connection broke between two requests, unless the client simply left.
    fn log_broken(&self, error: std::io::Error) {
        if !matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
        ) {
            let origin = &self.client.origin;
            let reason = in_words(error);
            self.worker
                .log_closed(origin.address, &origin.bind, &reason);
        }
    }

    /// Whether its frontend has come to accept nothing but TLS, and it speaks none.
    fn is_too_plain(&self) -> bool {
        if self.client.stream.tls().is_some() {
            return false;
        }
        let serving = self.worker.serving();
        let bind = serving.frontend(&self.client.origin.bind);
        let tls = bind.and_then(|(_, bind)| bind.tls.as_ref());
        tls.is_some_and(|tls| !tls.optional)
    }

    /// Timeouts for the client, and the size limit of a head; `None`: no frontend listens here any more.
    fn terms(&self) -> Option<(ClientTimeouts, usize)> {
        let serving = self.worker.serving();
        let (frontend, _) = serving.frontend(&self.client.origin.bind)?;
        let (frontend, config) = serving.of(frontend);
        Some((config.timeouts.clone(), frontend.guide.largest_head))
    }
}
