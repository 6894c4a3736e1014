//! Answers that the proxy gives by itself: errors, what a rule responds with, files.

use super::reply::{self, Reply};
use super::{End, Exchange, Next, Routed, rules};
use crate::files;
use crate::io::Fault;
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::{FieldName, Method};
use std::cell::Cell;
use std::ops::Range;

impl Exchange<'_> {
    /// Answers with the status of what the record says went wrong.
    pub(super) async fn answer_error(&mut self, routed: &Routed<'_>) -> End {
        let reply = Reply::of(self.record.cause);
        self.answer(routed, reply).await
    }

    /// Sends a rule's response.
    pub(super) async fn answer_by_rule(
        &mut self,
        routed: &Routed<'_>,
        answer: &rules::RuleResponse,
    ) -> End {
        let fixed = answer.fixed.as_ref();
        let fixed = fixed.filter(|fixed| fixed.status < 400 || !fixed.body.is_empty());
        let reply = Reply {
            fields: &answer.fields,
            body: fixed.map(|fixed| (&*fixed.content_type, fixed.body.as_bytes())),
            ..Reply::new(answer.status)
        };
        self.answer(routed, reply).await
    }

    /// Answers OPTIONS or TRACE as the final recipient (RFC 9110, section 7.6.2). A traced head is reduced to its
    /// request line, Host and Via: other fields may hold secrets.
    pub(super) async fn answer_here(&mut self, routed: &Routed<'_>) -> End {
        let (head, buffer) = self.request.head();
        let mut traced = Vec::new();
        if head.method == Method::Trace {
            traced.extend_from_slice(&buffer[..head.target.end as usize]);
            traced.extend_from_slice(b" HTTP/1.1\r\n");
            let fields = head.fields.iter();
            let traceable = [FieldName::Host, FieldName::Via];
            for field in fields.filter(|field| traceable.contains(&field.known)) {
                traced.extend_from_slice(field.line().of(buffer));
            }
            traced.extend_from_slice(b"\r\n");
        }
        let reply = Reply {
            body: Some(("message/http", &traced)),
            ..Reply::new(if traced.is_empty() { 204 } else { 200 })
        };
        self.answer(routed, reply).await
    }

    /// Sends a file. `rest`: what follows the request, if the connection is kept.
    pub(super) async fn answer_with_file(
        &mut self,
        mut answer: files::FileResponse<'_>,
        rest: Option<Range<usize>>,
    ) -> End {
        self.record.status = answer.status;
        self.request.give_up_head();
        let limit = reply::time_to_write(self.worker, self.downstream.origin);
        let date = self.worker.date();
        let (stream, timer) = (&mut *self.downstream.stream, &mut *self.downstream.timer);
        let count = Cell::new(0);
        let sent = answer.send(stream, timer, limit, &date, &count).await;
        self.record.bytes += count.get();
        self.record.head_bytes += answer.head_len();
        if let Err(fault) = sent {
            let cause = match fault {
                Fault::Deadline => Cause::ClientTimedOut(Phase::Data),
                Fault::Closed | Fault::Os(_) => Cause::ClientLeft(Phase::Data),
            };
            let why = format!("the file could not be sent: {fault}");
            self.record.fail_for(cause, why);
            return End::Abort;
        }
        rest.map_or(End::Close, End::Request)
    }

    /// Answers a request that no frontend serves any more.
    pub(super) async fn refuse(&mut self) -> Next {
        reply::refuse(self.worker, &mut self.downstream, &mut self.record).await
    }

    async fn answer(&mut self, routed: &Routed<'_>, reply: Reply<'_>) -> End {
        self.request.give_up_head();
        let rest = self.request.rest();
        let keep_alive = routed.keep_alive && rest.is_some();
        let heads = &self.request.heads;
        let reply = Reply {
            is_head: heads.request.method == Method::Head,
            keep_alive,
            edit: routed.response_edit(&heads.rewritten),
            ..reply
        };
        let (downstream, record) = (&mut self.downstream, &mut self.record);
        let written = reply::send(self.worker, downstream, record, &reply).await;
        match (written, rest) {
            (false, _) => End::Abort,
            (true, Some(rest)) if keep_alive => End::Request(rest),
            (true, _) => End::Close,
        }
    }
}
