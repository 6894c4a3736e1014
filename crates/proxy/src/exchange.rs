//! One request, from its complete head to the end of its response: rules, the choice of a server, attempts.

mod answer;
mod attempt;
mod body;
mod downstream;
mod forward;
mod large;
mod private;
mod record;
pub(super) mod reply;
mod request;
mod rules;
mod scratch;

pub(super) use downstream::Downstream;
pub(super) use private::Private;
pub(super) use record::Record;
pub(super) use request::Request;
pub(super) use scratch::{Heads, trim};

use super::files;
use super::io::{Buffer, Timer};
use super::log::Leg;
use super::serving::{ServedBy, WorkerConfig};
use super::sessions::Tracker;
use super::worker::Worker;
use gaiola_core::compression;
use gaiola_core::encoding::Accepted;
use gaiola_core::forward as message;
use gaiola_core::route::RouteInput;
use gaiola_core::rule::{Rewritten, Rules};
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::{FieldName, Framing, Method, RequestHead};
use gaiola_model::proxy::{Admission, Allowance, Compression, Mode, Route};
use scratch::Parts;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;

/// A request, what has become of it so far, and where its response goes.
pub(super) struct Exchange<'c> {
    worker: &'c Rc<Worker>,
    downstream: Downstream<'c>,
    /// Timer for what the server does.
    server_timer: &'c mut Timer,
    request: Request,
    record: Record,
}

/// What follows an exchange on its client's connection.
pub(super) enum Next {
    /// Another request, whose first bytes are in this buffer.
    Request(Buffer),
    /// It closes once the client has received what was written.
    Close,
    /// As `Close`, but the client has announced that it sends nothing more.
    Finished,
    /// It closes at once, so that the client notices that something is missing.
    Abort,
    /// The client left before a response began: it closes at once, with nothing missing.
    Left,
}

/// As [`Next`], before the request is given up.
enum End {
    /// The next request's bytes are this range of the buffer.
    Request(Range<usize>),
    Close,
    Abort,
    /// Nothing has been done yet: start over with the new configuration.
    Again,
}

/// What is known of a request once its route is.
struct Routed<'a> {
    serving: &'a WorkerConfig,
    /// The frontend's index.
    frontend: usize,
    /// Client address, for conditions, rules and limits.
    client: IpAddr,
    /// Whether the sender is trusted about earlier hops.
    trusted: bool,
    /// Whether the client used HTTPS, as far as is known.
    https: bool,
    /// Whether the connection may be kept alive, as far as client and proxy are concerned.
    keep_alive: bool,
    /// The rules of its route, if any.
    rules: Option<&'a Rules>,
    /// The limits its route sets for it.
    allowance: &'a Allowance,
    /// How its route has responses compressed.
    compress: Option<&'a Compression>,
    /// The client, as far as compression depends on it.
    reader: compression::Client,
}

/// The index of a request's route, or the status and the reason why it has none.
type Found = Result<usize, (u16, String)>;

impl<'a> Routed<'a> {
    /// How rules change the fields of every response.
    fn response_edit(&self, made: &'a Rewritten) -> message::Edit<'a> {
        self.rules
            .map(|rules| rules.response_edit(made))
            .unwrap_or_default()
    }
}

impl<'c> Exchange<'c> {
    /// An exchange that has not begun.
    pub(super) fn new(
        worker: &'c Rc<Worker>,
        downstream: Downstream<'c>,
        server_timer: &'c mut Timer,
        request: Request,
    ) -> Self {
        let mut record = Record::new(worker, request.begun);
        record.head = Leg::of(request.took);
        record.tracker = Tracker::of(&downstream.origin.activity);
        Self {
            worker,
            downstream,
            server_timer,
            request,
            record,
        }
    }

    /// Answers the request. One that waits for a server while the configuration changes moves to the new one. Called
    /// once; by value, the future would hold `self` twice.
    pub(super) async fn run(&mut self) -> Next {
        let activity = &self.downstream.origin.activity;
        activity.begin(self.request.begun);
        self.worker.budget.borrow_mut().deposit();
        loop {
            let serving = self.worker.serving();
            let Some(end) = self.route(&serving).await else {
                self.record.fail(Cause::NothingServed);
                activity.rest();
                return Box::pin(self.refuse()).await;
            };
            if matches!(end, End::Again) {
                // It was one of the former configuration.
                self.record.served_by = ServedBy::Nowhere;
                continue;
            }
            let from = (self.downstream.origin, self.downstream.is_tls());
            let head = Some(self.request.head());
            self.record.finish(self.worker, from, &serving, head);
            activity.rest();
            return self.next(end);
        }
    }

    /// What follows on the connection.
    fn next(&mut self, end: End) -> Next {
        let head = &self.request.heads.request;
        let is_last = !head.keep_alive && head.framing == Framing::None;
        match end {
            End::Request(rest) => Next::Request(self.request.take_rest(rest)),
            End::Close if is_last => Next::Finished,
            End::Close | End::Again => Next::Close,
            End::Abort if self.record.bytes == 0 => Next::Left,
            End::Abort => Next::Abort,
        }
    }

    /// Finds the request's route and follows it; `None` if the frontend is gone.
    async fn route(&mut self, serving: &WorkerConfig) -> Option<End> {
        let (frontend, _) = serving.frontend(&self.downstream.origin.bind)?;
        let Mode::Http { routes, .. } = &serving.of(frontend).1.mode else {
            return None;
        };
        let none = Allowance::default();
        let (routed, found) = self.find(serving, frontend, &none)?;
        self.record.client = Some(routed.client);
        let (head, text) = self.request.head();
        self.record.adopt_id(head, text, routed.trusted);
        if message::is_loop(head, text, &serving.config().server) {
            let why = "forwarding loop: own name repeated in Via";
            self.record.fail_for(rejected(508), why);
            return Some(self.answer_error(&routed).await);
        }
        Some(match found {
            Ok(index) => self.follow(&routed, (index, &routes[index])).await,
            Err((status, why)) => {
                self.record.fail_for(rejected(status), why);
                self.answer_error(&routed).await
            }
        })
    }

    /// Finds the request's route; `None` if the frontend serves no HTTP any more.
    fn find<'a>(
        &mut self,
        serving: &'a WorkerConfig,
        frontend: usize,
        none: &'a Allowance,
    ) -> Option<(Routed<'a>, Found)> {
        let (served, config) = serving.of(frontend);
        let Mode::Http { routes, trusted } = &config.mode else {
            return None;
        };
        let (guide, origin) = (&served.guide, self.downstream.origin);
        let Parts {
            request: head,
            scratch,
            ..
        } = &mut *self.request.heads;
        let text = self.request.text.of(&self.request.buffer, head.len);
        let asked = RouteInput {
            head,
            buffer: text,
            client: message::client(head, text, origin.address, trusted),
        };
        let found = match guide.table.find(&asked, scratch) {
            Ok(Some(index)) => Ok(index),
            Ok(None) => Err((404, "no route matches".into())),
            Err(ambiguous) => Err((403, ambiguous.to_string())),
        };
        let route = found.as_ref().ok().copied();
        let compress = route.and_then(|index| routes[index].compress.as_ref());
        let is_trusted = trusted.iter().any(|net| net.contains(&origin.address));
        let routed = Routed {
            serving,
            frontend,
            client: asked.client,
            trusted: is_trusted,
            https: message::is_https(head, text, self.downstream.is_tls(), is_trusted),
            keep_alive: head.keep_alive && self.worker.admission(origin.local) == Admission::Accept,
            rules: route
                .map(|index| &guide.rules[index])
                .filter(|rules| !rules.is_empty()),
            allowance: route.map_or(none, |index| &routes[index].allowance),
            compress,
            reader: compression::Client {
                method: head.method,
                version: head.version,
                accepted: compress.map_or_else(Accepted::default, |_| accepted(head, text)),
            },
        };
        Some((routed, found))
    }

    async fn follow(&mut self, routed: &Routed<'_>, (index, route): (usize, &Route)) -> End {
        // Allocates with a limit only.
        let mut in_flight = Vec::new();
        if let Err(answer) = rules::pass(self, routed, &mut in_flight).await {
            self.record.fail_for(answer.cause, answer.reason.clone());
            return self.answer_by_rule(routed, &answer).await;
        }
        let (head, text) = self.request.head();
        if message::max_forwards(head, text) == Some(0) {
            let why = "its Max-Forwards lets it go no further";
            self.record.fail_for(Cause::Answered, why);
            return self.answer_here(routed).await;
        }
        if !route.files.is_empty() && matches!(head.method, Method::Get | Method::Head) {
            let path = match routed.rules {
                Some(_) => &self.request.heads.rewritten.path,
                None => &b""[..],
            };
            let asked = files::FileRequest::new(head, text, path);
            let search = files::Search {
                roots: &route.files,
                options: &route.file_options,
            };
            if let Some(found) = search.find(&asked) {
                self.record.served_by = ServedBy::Files;
                self.record.cause = Cause::Answered;
                let rest = self.request.rest();
                let reply = files::Reply {
                    hop: &routed.serving.config().server,
                    keep_alive: routed.keep_alive && rest.is_some(),
                    edit: routed.response_edit(&self.request.heads.rewritten),
                    compress: routed.compress.map(|policy| files::Compress {
                        policy,
                        client: routed.reader,
                        memory: &self.worker.compressing,
                    }),
                };
                let rest = rest.filter(|_| reply.keep_alive);
                let answer = found.answer(&asked, &self.worker.tags, &reply).await;
                return self.answer_with_file(answer, rest).await;
            }
        }
        self.forward(routed, index).await
    }
}

/// What the client accepts.
fn accepted(head: &RequestHead, text: &[u8]) -> Accepted {
    let fields = head.fields.iter();
    let values = fields.filter(|field| field.known == FieldName::AcceptEncoding);
    Accepted::of(values.filter_map(|field| std::str::from_utf8(field.value.of(text)).ok()))
}

/// The request itself is not acceptable.
const fn rejected(status: u16) -> Cause {
    Cause::Rejected {
        phase: Phase::Request,
        status,
    }
}
