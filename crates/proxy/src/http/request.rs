//! One request: which route it takes, and what follows on the connection.

use super::body::Body;
use super::record::Record;
use super::reply::{self, Reply};
use super::scratch::Parts;
use super::{After, Connection, Pending, exchange, rules};
use crate::files;
use crate::io::Fault;
use crate::log::Leg;
use crate::serving::{Place, Serving};
use crate::sessions::Way;
use gaiola_core::forward::{self, Edit};
use gaiola_core::route::Asked;
use gaiola_core::rule::{Rewritten, Rules};
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::{FieldName, Framing, Method};
use gaiola_model::proxy::{Admission, Allowance, Mode, Route};
use std::net::IpAddr;
use std::time::Duration;

/// What is known of a request before it is processed.
pub(super) struct Request<'a> {
    pub(super) serving: &'a Serving,
    /// The frontend's index.
    pub(super) frontend: usize,
    /// Client address, for conditions, rules and limits.
    pub(super) client: IpAddr,
    /// Whether the sender is trusted about earlier hops.
    pub(super) trusted: bool,
    /// Whether the client used HTTPS, as far as is known.
    pub(super) https: bool,
    /// Whether the connection may be kept alive, as far as client and proxy are concerned.
    pub(super) keep_alive: bool,
    /// The rules of its route, if any.
    pub(super) rules: Option<&'a Rules>,
    /// The limits its route sets for it.
    pub(super) allowance: &'a Allowance,
}

impl<'a> Request<'a> {
    /// How rules change the fields of every response.
    pub(super) fn response_edit(&self, made: &'a Rewritten) -> Edit<'a> {
        self.rules
            .map(|rules| rules.response_edit(made))
            .unwrap_or_default()
    }
}

impl Connection {
    /// How long a client may stall when it should take bytes.
    pub(super) fn write_limit(&self) -> Duration {
        self.timeouts().unwrap_or_default().idle
    }
}

/// Answers one request. One that waits for a server while the configuration changes moves to the new one.
pub(super) async fn answer(connection: &mut Connection, mut pending: Pending) -> After {
    let mut record = Record::new(&connection.worker, pending.begun);
    record.head = Leg::of(pending.took);
    record.way = Way::of(&connection.client.session);
    connection.client.session.begin(pending.begun);
    connection.worker.budget.borrow_mut().deposit();
    loop {
        let serving = connection.worker.serving();
        let Some(then) = route(connection, &mut pending, &serving, &mut record).await else {
            record.fail(Cause::NothingServed);
            connection.client.session.rest();
            return Box::pin(reply::refuse(connection, record)).await;
        };
        if matches!(then, Then::Again) {
            record.place = Place::Nowhere; // it was one of the former configuration
            continue;
        }
        record.finish(connection, &serving, Some(pending.head()));
        let head = &pending.heads.request;
        connection.client.session.rest();
        let is_last = !head.keep_alive && head.framing == Framing::None;
        return match then {
            Then::Request(rest) => {
                pending.buffer.keep(rest);
                pending.buffer.compact();
                After::Request(pending.buffer)
            }
            Then::Close if is_last => After::Finished,
            Then::Close | Then::Again => After::Close,
            Then::Abort if record.bytes == 0 => After::Left,
            Then::Abort => After::Abort,
        };
    }
}

/// Finds the request's route and follows it; `None` if the frontend is gone.
async fn route(
    connection: &mut Connection,
    pending: &mut Pending,
    serving: &Serving,
    record: &mut Record,
) -> Option<Then> {
    let (frontend, _) = serving.frontend(&connection.client.bind)?;
    let Mode::Http { routes, trusted } = &serving.of(frontend).1.mode else {
        return None;
    };
    let sender = connection.client.address;
    let guide = &serving.of(frontend).0.guide;
    let Parts {
        request: head,
        scratch,
        ..
    } = &mut *pending.heads;
    let text = pending.text.of(&pending.buffer, head.len);
    let asked = Asked {
        head,
        buffer: text,
        client: forward::client(head, text, sender, trusted),
    };
    let (found, ambiguous) = match guide.table.find(&asked, scratch) {
        Ok(found) => (found, None),
        Err(ambiguous) => (None, Some(ambiguous)),
    };
    let none = Allowance::default();
    let is_trusted = trusted.iter().any(|trusted| trusted.contains(&sender));
    let request = Request {
        serving,
        frontend,
        client: asked.client,
        trusted: is_trusted,
        https: forward::is_https(
            head,
            asked.buffer,
            connection.client.stream.tls().is_some(),
            is_trusted,
        ),
        keep_alive: head.keep_alive
            && connection.worker.admission(connection.client.local) == Admission::Accept,
        rules: found
            .map(|index| &guide.rules[index])
            .filter(|rules| !rules.is_empty()),
        allowance: found.map_or(&none, |index| &routes[index].allowance),
    };
    record.adopt_id(head, text, request.trusted);
    record.client = Some(request.client);
    if forward::is_loop(head, text, &serving.config().server) {
        record.fail_for(
            rejected(508),
            "it goes round: `Via` has our own name again and again",
        );
        return Some(own(connection, pending, &request, record).await);
    }
    Some(match found {
        Some(index) => {
            let route = (index, &routes[index]);
            follow(connection, pending, &request, record, route).await
        }
        None => {
            let (status, why) = match ambiguous {
                Some(why) => (403, why.to_string()),
                None => (404, "no route matches".into()),
            };
            record.fail_for(rejected(status), why);
            own(connection, pending, &request, record).await
        }
    })
}

/// As [`After`], with the next request's bytes as a range of the buffer.
pub(super) enum Then {
    Request(std::ops::Range<usize>),
    Close,
    Abort,
    /// Nothing has been done yet: start over with the new configuration.
    Again,
}

async fn follow(
    connection: &mut Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &mut Record,
    (index, route): (usize, &Route),
) -> Then {
    let mut held = Vec::new(); // allocates with a limit only
    if let Err(answer) = rules::pass(connection, pending, request, record, &mut held).await {
        record.fail_for(answer.cause, answer.reason.clone());
        return answer_with(connection, pending, request, record, &answer).await;
    }
    let (head, text) = pending.head();
    if forward::max_forwards(head, text) == Some(0) {
        record.fail_for(Cause::Answered, "its Max-Forwards lets it go no further");
        return end_here(connection, pending, request, record).await;
    }
    if !route.files.is_empty() && matches!(head.method, Method::Get | Method::Head) {
        let made = &pending.heads.rewritten;
        let path = request.rules.map_or(&b""[..], |_| &made.path);
        let asked = files::Asked::new(head, text, path);
        if let Some(found) = files::find(&route.files, &asked) {
            record.place = Place::Files;
            record.cause = Cause::Answered;
            let rest = rest_of(pending);
            let keep_alive = request.keep_alive && rest.is_some();
            let hop = &request.serving.config().server;
            let edit = request.response_edit(made);
            let answer = found.answer(&asked, hop, keep_alive, &edit);
            record.status = answer.status;
            pending.give_up_head();
            let limit = connection.write_limit();
            let date = connection.worker.date();
            let (stream, timer) = (&mut connection.client.stream, &mut connection.client_timer);
            let count = std::cell::Cell::new(0);
            let sent = answer.send(stream, timer, limit, &date, &count).await;
            record.bytes += count.get();
            record.head_bytes += answer.head_len();
            if let Err(fault) = sent {
                let cause = match fault {
                    Fault::Deadline => Cause::ClientTimedOut(Phase::Data),
                    Fault::Closed | Fault::Os(_) => Cause::ClientLeft(Phase::Data),
                };
                record.fail_for(cause, format!("the file could not be sent: {fault}"));
                return Then::Abort;
            }
            return match rest {
                Some(rest) if keep_alive => Then::Request(rest),
                Some(_) | None => Then::Close,
            };
        }
    }
    exchange::forward(connection, pending, request, record, index).await
}

/// Sends a rule's response.
async fn answer_with(
    connection: &mut Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &mut Record,
    answer: &rules::Answer,
) -> Then {
    let fixed = answer.fixed.as_ref();
    let fixed = fixed.filter(|fixed| fixed.status < 400 || !fixed.body.is_empty());
    let reply = Reply {
        fields: &answer.fields,
        body: fixed.map(|fixed| (&*fixed.content_type, fixed.body.as_bytes())),
        ..Reply::new(answer.status)
    };
    tell(connection, pending, request, record, reply).await
}

/// Answers OPTIONS or TRACE as the final recipient (RFC 9110, section 7.6.2). A traced head is reduced to its request
/// line, Host and Via: other fields may hold secrets.
async fn end_here(
    connection: &mut Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &mut Record,
) -> Then {
    let (head, buffer) = pending.head();
    let mut traced = Vec::new();
    if head.method == Method::Trace {
        traced.extend_from_slice(&buffer[..head.target.end as usize]);
        traced.extend_from_slice(b" HTTP/1.1\r\n");
        let fields = head.fields.iter();
        for field in fields.filter(|field| matches!(field.known, FieldName::Host | FieldName::Via))
        {
            traced.extend_from_slice(field.line().of(buffer));
        }
        traced.extend_from_slice(b"\r\n");
    }
    let reply = Reply {
        body: Some(("message/http", &traced)),
        ..Reply::new(if traced.is_empty() { 204 } else { 200 })
    };
    tell(connection, pending, request, record, reply).await
}

/// Answers with the status of what the record says went wrong.
pub(super) async fn own(
    connection: &mut Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &mut Record,
) -> Then {
    let reply = Reply::of(record.cause);
    tell(connection, pending, request, record, reply).await
}

/// The request itself is not acceptable.
const fn rejected(status: u16) -> Cause {
    Cause::Rejected {
        phase: Phase::Request,
        status,
    }
}

async fn tell(
    connection: &mut Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &mut Record,
    reply: Reply<'_>,
) -> Then {
    pending.give_up_head();
    let rest = rest_of(pending);
    let keep_alive = request.keep_alive && rest.is_some();
    let reply = Reply {
        is_head: pending.heads.request.method == Method::Head,
        keep_alive,
        edit: request.response_edit(&pending.heads.rewritten),
        ..reply
    };
    let written = reply::say(connection, record, &reply).await;
    match (written, rest) {
        (false, _) => Then::Abort,
        (true, Some(rest)) if keep_alive => Then::Request(rest),
        (true, _) => Then::Close,
    }
}

/// Range of what follows a request whose body is unread, if all of the body has arrived.
fn rest_of(pending: &Pending) -> Option<std::ops::Range<usize>> {
    let base = pending.base();
    let behind = &pending.buffer.filled()[base..];
    let mut body = Body::new(pending.heads.request.framing);
    let taken = body.take(behind).ok()?;
    body.is_done().then(|| base + taken..base + behind.len())
}
