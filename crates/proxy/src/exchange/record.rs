//! What is recorded about a request while it is served, for the access log and the metrics.

use crate::client::Origin;
use crate::clock::Instant;
use crate::log::{ClientAt, Entry, Leg, Subject};
use crate::serving::{ServedBy, WorkerConfig};
use crate::sessions::Tracker;
use crate::worker::Worker;
use gaiola_core::forward;
use gaiola_core::termination::{Cause, CookieState};
use gaiola_model::http::RequestHead;
use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// Longest request id: what `core::forward` lets pass.
const ID_LIMIT: usize = 128;

/// The record of one request.
pub(crate) struct Record {
    pub(super) begun: Instant,
    /// Timings until the head was complete, and on the way to a server and back.
    pub(super) head: Leg,
    pub(super) queue: Leg,
    pub(super) connect: Leg,
    pub(super) response: Leg,
    /// Where it is on its way to a server, and its position in the queue.
    pub(super) tracker: Tracker,
    /// Client address, once known: the sender's, or the one a trusted sender names.
    pub(super) client: Option<IpAddr>,
    /// Status sent; 0: none.
    pub(crate) status: u16,
    /// Bytes that were sent to the client.
    pub(super) bytes: u64,
    /// Of these, the bytes of heads.
    pub(super) head_bytes: u64,
    /// Bytes of the request's body forwarded.
    pub(super) body_bytes: u64,
    pub(super) retries: u32,
    /// Whether one of them went to another server.
    pub(super) redispatched: bool,
    pub(super) cookie: CookieState,
    pub(super) cause: Cause,
    pub(super) served_by: ServedBy,
    /// Whether rate limits have counted it.
    pub(super) counted: bool,
    /// What went wrong.
    pub(super) reason: Cow<'static, str>,
    id: [u8; ID_LIMIT],
    id_len: usize,
}

impl Record {
    /// A request that has just begun, with a generated id.
    pub(crate) fn new(worker: &Worker, begun: Instant) -> Self {
        let mut id = [0; ID_LIMIT];
        let made = worker.make_id();
        id[..made.len()].copy_from_slice(&made);
        Self {
            begun,
            head: Leg::default(),
            queue: Leg::default(),
            connect: Leg::default(),
            response: Leg::default(),
            tracker: Tracker::default(),
            client: None,
            status: 0,
            bytes: 0,
            head_bytes: 0,
            body_bytes: 0,
            retries: 0,
            redispatched: false,
            cookie: CookieState::default(),
            cause: Cause::Completed,
            served_by: ServedBy::Nowhere,
            counted: false,
            reason: Cow::Borrowed(""),
            id,
            id_len: made.len(),
        }
    }

    /// Adopts the id from a trusted sender.
    pub(super) fn adopt_id(&mut self, head: &RequestHead, buffer: &[u8], trusted: bool) {
        if let Some(id) = forward::request_id(head, buffer, trusted) {
            self.id[..id.len()].copy_from_slice(id);
            self.id_len = id.len();
        }
    }

    /// Records what went wrong.
    pub(crate) fn fail(&mut self, cause: Cause) {
        self.fail_for(cause, cause.words());
    }

    /// As [`Self::fail`], with the reason in other words than the cause's own.
    pub(crate) fn fail_for(&mut self, cause: Cause, reason: impl Into<Cow<'static, str>>) {
        self.cause = cause;
        self.reason = reason.into();
    }

    /// The request's id.
    pub(super) fn id(&self) -> &[u8] {
        &self.id[..self.id_len]
    }

    /// Counts the request, and logs it. `from`: its client, and whether that used TLS. `head` is its head with the
    /// buffer that begins with it, if it could be read.
    pub(crate) fn finish(
        &self,
        worker: &Rc<Worker>,
        from: (&Origin, bool),
        serving: &WorkerConfig,
        head: Option<(&RequestHead, &[u8])>,
    ) {
        let (origin, _) = from;
        let Some((index, _)) = serving.frontend(&origin.bind) else {
            return worker.log_closed(origin.address, &origin.bind, &self.reason);
        };
        let (frontend, _) = serving.of(index);
        let total = self.begun.elapsed();
        let series = frontend.series(self.served_by);
        series.record(self.status, total);
        let head_len = head.map_or(0, |(head, _)| head.len as u64);
        series.record_bytes(head_len + self.body_bytes, self.bytes);
        if self.cause != Cause::Completed && !self.reason.is_empty() {
            let id = String::from_utf8_lossy(self.id());
            let client = self.client.unwrap_or(origin.address);
            worker.log_failed((client, &origin.bind), self.status, &id, &self.reason);
        }
        if worker.logs() {
            self.log(worker, from, (serving, index), head, total);
        }
    }

    fn log(
        &self,
        worker: &Rc<Worker>,
        (origin, tls): (&Origin, bool),
        (serving, frontend): (&WorkerConfig, usize),
        head: Option<(&RequestHead, &[u8])>,
        total: Duration,
    ) {
        let (_, config) = serving.of(frontend);
        let (backend, server) = serving.names(self.served_by);
        let named = self.client.filter(|client| *client != origin.address);
        let text = |bytes| String::from_utf8_lossy(bytes);
        let (method, path) = match head {
            // Queries often contain secrets.
            Some((head, buffer)) => (text(head.method_name.of(buffer)), text(head.path(buffer))),
            None => (Cow::Borrowed(""), Cow::Borrowed("")),
        };
        worker.log(&Entry {
            request_id: &text(self.id()),
            client: match named {
                Some(named) => ClientAt::Tcp((named, origin.port).into()),
                None => origin.logged(config),
            },
            sender: named.map(|_| origin.address),
            frontend: &config.name,
            backend,
            server,
            method: &method,
            path: &path,
            status: self.status,
            bytes: self.bytes,
            queue_ms: self.queue,
            connect_ms: self.connect,
            response_ms: self.response,
            total_ms: Leg::of(total),
            retries: self.retries,
            reason: &self.reason,
            subject: head.map_or(Subject::Unreadable, |(head, buffer)| {
                Subject::Request(head, buffer)
            }),
            head: self.head,
            head_bytes: self.head_bytes,
            tls,
            cause: self.cause,
            cookie: self.cookie,
            load: worker.load(serving, frontend, self.served_by),
            redispatched: self.redispatched,
            ahead: self.tracker.ahead(),
        });
    }
}
