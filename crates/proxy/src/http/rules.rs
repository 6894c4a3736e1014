//! Applies a route's rules to a request.

use super::record::Record;
use super::request::Request;
use super::scratch::Parts;
use super::{Connection, Pending};
use crate::auth::Verdict;
use crate::limits::{Held, Limiter};
use crate::log::Ending;
use crate::rules::LIMITS;
use gaiola_core::route::Asked;
use gaiola_core::rule::{Action, Redirect, Rewritten, Rules, TooLong, Values};
use gaiola_model::http::Framing;
use gaiola_model::proxy::{BasicAuth, Fixed, Most};
use std::borrow::Cow;
use std::sync::Arc;

/// What a rule responds with, in place of a server.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Lines of its head.
    pub(super) fields: String,
    pub(super) fixed: Option<Arc<Fixed>>,
    /// Termination state and reason.
    pub(super) ending: Ending,
    pub(super) reason: Cow<'static, str>,
}

impl Answer {
    fn new(status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            fields: String::new(),
            fixed: None,
            ending: *b"PR",
            reason: reason.into(),
        }
    }
}

impl From<TooLong> for Answer {
    fn from(error: TooLong) -> Self {
        Self::new(414, error.to_string())
    }
}

/// Checks the request against its route's limits and applies the rules until one answers. Changes to the request end up
/// in its heads; `held` collects what counts as in flight with it.
pub(super) async fn pass(
    connection: &Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &mut Record,
    held: &mut Vec<Held>,
) -> Result<(), Answer> {
    if let Some(rules) = request.rules {
        go_through(rules, connection, pending, request, record, held).await?;
        record.counted = true;
    }
    let (head, allowance) = (&pending.heads.request, request.allowance);
    let most = allowance.head.map_or(LIMITS.head, |most| most as usize);
    if head.len > most {
        let reason = format!("its head has {} bytes, {most} are allowed", head.len);
        return Err(Answer::new(431, reason));
    }
    match (head.framing, allowance.body) {
        (Framing::Length(length), Some(most)) if length > most => {
            let reason = format!("its body has {length} bytes, {most} are allowed");
            Err(Answer::new(413, reason))
        }
        _ => Ok(()),
    }
}

async fn go_through(
    rules: &Rules,
    connection: &Connection,
    pending: &mut Pending,
    request: &Request<'_>,
    record: &Record,
    held: &mut Vec<Held>,
) -> Result<(), Answer> {
    let Parts {
        request: head,
        rewritten,
        scratch,
        ..
    } = &mut *pending.heads;
    let known = Values {
        head,
        buffer: pending.text.of(&pending.buffer, head.len),
        client: request.client,
        local: connection.client.local,
        https: request.https,
        request_id: record.id(),
        server: &request.serving.config().server,
    };
    rewritten.path.clear();
    rules.say(&known, rewritten);
    for action in &rules.actions {
        match action {
            Action::Deny => return Err(Answer::new(403, "denied by a rule")),
            Action::Auth(auth) => authenticate(auth, connection, &known).await?,
            Action::Limit(index) => {
                let limiter = request.serving.limit(*index);
                if !(record.counted && matches!(limiter.limit.most, Most::Rate { .. })) {
                    held.extend(take(limiter, &known, scratch)?);
                }
            }
            Action::Redirect(redirect) if redirect.is_there(&known) => {}
            Action::Redirect(redirect) => return Err(elsewhere(redirect, &known, rewritten)?),
            Action::Return(fixed) => {
                let mut answer = Answer::new(fixed.status, "answered by a rule");
                answer.fixed = Some(Arc::clone(fixed));
                answer.ending = *b"LR";
                return Err(answer);
            }
            Action::Rewrite(rewriting) => rewriting.apply(&known, rewritten)?,
        }
    }
    if !rewritten.path.is_empty() {
        rules.say(&known, rewritten);
    }
    Ok(())
}

async fn authenticate(
    auth: &BasicAuth,
    connection: &Connection,
    known: &Values<'_>,
) -> Result<(), Answer> {
    let mut fields = known.head.fields.iter();
    let field = fields.find(|field| {
        let name = field.name.of(known.buffer);
        name.eq_ignore_ascii_case(b"authorization")
    });
    let field = field.map(|field| field.value.of(known.buffer));
    match connection.worker.verifier.verify(auth, field).await {
        Verdict::Right => Ok(()),
        Verdict::Wrong(why) => {
            let mut answer = Answer::new(401, format!("no entry: {why}"));
            let realm = &auth.realm;
            answer.fields =
                format!("WWW-Authenticate: Basic realm=\"{realm}\", charset=\"UTF-8\"\r\n");
            Err(answer)
        }
        Verdict::Busy => Err(Answer::new(503, "too many passwords are being compared")),
    }
}

fn take(
    limiter: &Arc<Limiter>,
    known: &Values<'_>,
    scratch: &mut Vec<u8>,
) -> Result<Option<Held>, Answer> {
    let asked = Asked {
        head: known.head,
        buffer: known.buffer,
        client: known.client,
    };
    let key = limiter.key(&asked, scratch);
    limiter.take(key).map_err(|wait| {
        let mut answer = Answer::new(429, limiter.reason());
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.fields = format!("Retry-After: {seconds}\r\n");
        answer
    })
}

fn elsewhere(
    redirect: &Redirect,
    known: &Values<'_>,
    rewritten: &mut Rewritten,
) -> Result<Answer, TooLong> {
    let to = redirect.to(known, rewritten)?;
    let mut answer = Answer::new(redirect.status, "redirected by a rule");
    answer.ending = *b"LR";
    answer.fields = format!("Location: {}\r\n", String::from_utf8_lossy(to));
    Ok(answer)
}
