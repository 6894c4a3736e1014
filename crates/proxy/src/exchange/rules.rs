//! Applies a route's rules to a request.

use super::scratch::Parts;
use super::{Exchange, Routed};
use crate::auth::Verified;
use crate::limits::{InFlightGuard, Limiter};
use crate::rules::LIMITS;
use crate::worker::Worker;
use gaiola_core::route::RouteInput;
use gaiola_core::rule::{Action, Redirect, Rewritten, Rules, TooLong, Values};
use gaiola_core::termination::{Cause, Phase};
use gaiola_model::http::Framing;
use gaiola_model::proxy::{BasicAuth, Fixed, Most};
use std::borrow::Cow;
use std::sync::Arc;

/// What a rule responds with, in place of a server.
pub(super) struct RuleResponse {
    pub(super) status: u16,
    /// Lines of its head.
    pub(super) fields: String,
    pub(super) fixed: Option<Arc<Fixed>>,
    pub(super) cause: Cause,
    pub(super) reason: Cow<'static, str>,
}

impl RuleResponse {
    fn new(status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            fields: String::new(),
            fixed: None,
            cause: Cause::Rejected {
                phase: Phase::Request,
                status,
            },
            reason: reason.into(),
        }
    }
}

impl From<TooLong> for RuleResponse {
    fn from(error: TooLong) -> Self {
        Self::new(414, error.to_string())
    }
}

/// Checks the request against its route's limits and applies the rules until one answers. Changes to the request end up
/// in its heads; `in_flight` collects what counts as in flight with it.
pub(super) async fn pass(
    exchange: &mut Exchange<'_>,
    routed: &Routed<'_>,
    in_flight: &mut Vec<InFlightGuard>,
) -> Result<(), RuleResponse> {
    if let Some(rules) = routed.rules {
        go_through(rules, exchange, routed, in_flight).await?;
        exchange.record.counted = true;
    }
    let (head, allowance) = (&exchange.request.heads.request, routed.allowance);
    let most = allowance.head.map_or(LIMITS.head, |most| most as usize);
    if head.len > most {
        let reason = format!("its head has {} bytes, {most} are allowed", head.len);
        return Err(RuleResponse::new(431, reason));
    }
    match (head.framing, allowance.body) {
        (Framing::Length(length), Some(most)) if length > most => {
            let reason = format!("its body has {length} bytes, {most} are allowed");
            Err(RuleResponse::new(413, reason))
        }
        _ => Ok(()),
    }
}

async fn go_through(
    rules: &Rules,
    exchange: &mut Exchange<'_>,
    routed: &Routed<'_>,
    in_flight: &mut Vec<InFlightGuard>,
) -> Result<(), RuleResponse> {
    let (worker, record) = (exchange.worker, &exchange.record);
    let request = &mut exchange.request;
    let Parts {
        request: head,
        rewritten,
        scratch,
        ..
    } = &mut *request.heads;
    let known = Values {
        head,
        buffer: request.text.of(&request.buffer, head.len),
        client: routed.client,
        local: exchange.downstream.origin.local,
        https: routed.https,
        request_id: record.id(),
        server: &routed.serving.config().server,
    };
    rewritten.path.clear();
    rules.say(&known, rewritten);
    for action in &rules.actions {
        match action {
            Action::Deny => return Err(RuleResponse::new(403, "denied by a rule")),
            Action::Auth(auth) => authenticate(auth, worker, &known).await?,
            Action::Limit(index) => {
                let limiter = routed.serving.limit(*index);
                if !(record.counted && matches!(limiter.limit.most, Most::Rate { .. })) {
                    in_flight.extend(take(limiter, &known, scratch)?);
                }
            }
            Action::Redirect(redirect) if redirect.is_there(&known) => {}
            Action::Redirect(redirect) => return Err(elsewhere(redirect, &known, rewritten)?),
            Action::Return(fixed) => {
                if let Some(needed) = &fixed.needs
                    && !routed.serving.is_up(needed)
                {
                    return Err(RuleResponse::new(
                        503,
                        format!("no server of {needed} is up"),
                    ));
                }
                let mut answer = RuleResponse::new(fixed.status, "answered by a rule");
                answer.fixed = Some(Arc::clone(fixed));
                answer.cause = Cause::Answered;
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
    worker: &Worker,
    known: &Values<'_>,
) -> Result<(), RuleResponse> {
    let mut fields = known.head.fields.iter();
    let field = fields.find(|field| {
        let name = field.name.of(known.buffer);
        name.eq_ignore_ascii_case(b"authorization")
    });
    let field = field.map(|field| field.value.of(known.buffer));
    match worker.verifier.verify(auth, field).await {
        Verified::Right => Ok(()),
        Verified::Wrong(why) => {
            let mut answer = RuleResponse::new(401, format!("no entry: {why}"));
            let realm = &auth.realm;
            answer.fields =
                format!("WWW-Authenticate: Basic realm=\"{realm}\", charset=\"UTF-8\"\r\n");
            Err(answer)
        }
        Verified::Busy => Err(RuleResponse::new(
            503,
            "too many passwords are being compared",
        )),
    }
}

fn take(
    limiter: &Arc<Limiter>,
    known: &Values<'_>,
    scratch: &mut Vec<u8>,
) -> Result<Option<InFlightGuard>, RuleResponse> {
    let asked = RouteInput {
        head: known.head,
        buffer: known.buffer,
        client: known.client,
    };
    let key = limiter.key(&asked, scratch);
    limiter.take(key).map_err(|wait| {
        let mut answer = RuleResponse::new(429, limiter.reason());
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.fields = format!("Retry-After: {seconds}\r\n");
        answer
    })
}

fn elsewhere(
    redirect: &Redirect,
    known: &Values<'_>,
    rewritten: &mut Rewritten,
) -> Result<RuleResponse, TooLong> {
    let to = redirect.to(known, rewritten)?;
    let mut answer = RuleResponse::new(redirect.status, "redirected by a rule");
    answer.cause = Cause::Answered;
    answer.fields = format!("Location: {}\r\n", String::from_utf8_lossy(to));
    Ok(answer)
}
