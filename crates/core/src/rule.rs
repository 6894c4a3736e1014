//! Applies a route's rules to a request.

mod edit;
mod error;
mod foreign;
mod rewrite;
mod template;

pub use error::RuleError;
pub use foreign::Foreign;
pub use template::Values;

use crate::forward::Edit;
use crate::route::normal;
use edit::Edits;
use gaiola_model::http::TargetForm;
use gaiola_model::proxy::{BasicAuth, Fixed, Limit, Route, Rule};
use rewrite::Rewrite;
use std::sync::Arc;
use template::Template;

/// Largest body of a fixed answer.
const BODY_LIMIT: usize = 64 * 1024;

/// Longest path a rewrite may produce, and longest target of a redirect.
const TARGET_LIMIT: usize = 8 * 1024;

/// A route's compiled rules. Each thread should use its own clone, as with [`crate::route::Table`].
#[derive(Clone, Default)]
pub struct Rules {
    /// Those of the rules that may answer or change the path, in order.
    pub actions: Vec<Action>,
    host: Option<Template>,
    request: Edits,
    response: Edits,
}

/// What a rule does that may answer the request or change its path.
#[derive(Clone)]
pub enum Action {
    /// 403.
    Deny,
    /// 401 unless a valid user name and password are sent.
    Auth(Arc<BasicAuth>),
    /// 429 when the configuration's limit with this index is reached.
    Limit(usize),
    /// A redirect.
    Redirect(Redirect),
    /// A fixed answer.
    Return(Arc<Fixed>),
    /// A new path.
    Rewrite(Rewriting),
}

/// The target of a redirect.
#[derive(Clone)]
pub struct Redirect {
    /// The answer's status.
    pub status: u16,
    to: Template,
    to_https: bool,
}

/// How the path is changed.
#[derive(Clone)]
pub struct Rewriting(Rewrite);

/// The results of the rules for one request. Reused, so its memory stays allocated.
#[derive(Clone, Debug, Default)]
pub struct Rewritten {
    /// Path to send instead of the request's; empty: unchanged.
    pub path: Vec<u8>,
    /// `Host` to send; empty: the client's.
    pub host: Vec<u8>,
    request: Vec<u8>,
    response: Vec<u8>,
    scratch: Vec<u8>,
}

/// A path or target produced by rules is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target that a rule makes is longer than {TARGET_LIMIT} bytes")]
pub struct TooLong;

impl Rules {
    /// Compiles the route's rules; they refer to `limits` by name.
    ///
    /// # Errors
    /// Every mistake in them. Password hashes are not checked.
    pub fn new(route: &Route, limits: &[Limit]) -> Result<Self, Vec<RuleError>> {
        let mut rules = Self::default();
        let mut mistakes = Vec::new();
        for rule in &route.rules {
            if let Err(mistake) = rules.add(rule, limits) {
                mistakes.push(mistake);
            }
        }
        if mistakes.is_empty() {
            Ok(rules)
        } else {
            Err(mistakes)
        }
    }

    fn add(&mut self, rule: &Rule, limits: &[Limit]) -> Result<(), RuleError> {
        let action = match rule {
            Rule::Deny => Action::Deny,
            Rule::Auth(auth) => Action::Auth(users(auth)?),
            Rule::Limit(name) => {
                let index = limits.iter().position(|limit| limit.name == *name);
                Action::Limit(index.ok_or_else(|| RuleError::UnknownLimit(name.clone()))?)
            }
            Rule::Redirect { status, to } => {
                Action::Redirect(Redirect::new(*status, to, rule.is_to_https())?)
            }
            Rule::Return(fixed) => Action::Return(fixed_answer(fixed)?),
            Rule::Rewrite(rewrite) => Action::Rewrite(Rewriting(Rewrite::new(rewrite)?)),
            Rule::Host(host) => {
                self.host = Some(Template::host(host)?);
                return Ok(());
            }
            Rule::RequestHeader(edit) => return self.request.add(edit, edit::Direction::Request),
            Rule::ResponseHeader(edit) => {
                return self.response.add(edit, edit::Direction::Response);
            }
            Rule::Hsts(value) => return self.response.set_hsts(value),
        };
        self.actions.push(action);
        Ok(())
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
            && self.host.is_none()
            && self.request.is_empty()
            && self.response.is_empty()
    }

    /// Evaluates the header rules into `out`.
    pub fn say(&self, known: &Values<'_>, out: &mut Rewritten) {
        let Rewritten {
            path,
            host,
            request,
            response,
            ..
        } = out;
        host.clear();
        request.clear();
        response.clear();
        if let Some(template) = &self.host {
            template.write(known, path, host);
        }
        self.request.write(known, path, request);
        self.response.write(known, path, response);
    }

    /// How the request's fields are changed, once [`Self::say`] has been called.
    pub fn request_edit<'a>(&'a self, made: &'a Rewritten) -> Edit<'a> {
        Edit {
            removed: self.request.removed(),
            added: &made.request,
        }
    }

    /// How the fields of every answer are changed, once [`Self::say`] has been called.
    pub fn response_edit<'a>(&'a self, made: &'a Rewritten) -> Edit<'a> {
        Edit {
            removed: self.response.removed(),
            added: &made.response,
        }
    }
}

impl Redirect {
    fn new(status: u16, to: &str, to_https: bool) -> Result<Self, RuleError> {
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Err(RuleError::RedirectStatus(status));
        }
        let to = Template::target(to)?;
        Ok(Self {
            status,
            to,
            to_https,
        })
    }

    /// Whether the request skips this redirect because it is already at the target and would loop.
    pub fn is_there(&self, known: &Values<'_>) -> bool {
        self.to_https && known.https
    }

    /// The redirect's target. A target that begins with one slash stays on the same host, whatever the path is: leading
    /// slashes, which a browser would read as `//host` and for which it also takes backslashes, are reduced to one.
    ///
    /// # Errors
    /// It is too long.
    pub fn to<'a>(&self, known: &Values<'_>, made: &'a mut Rewritten) -> Result<&'a [u8], TooLong> {
        let Rewritten { path, scratch, .. } = made;
        scratch.clear();
        self.to.write(known, path, scratch);
        let is_slash = |byte: &&u8| matches!(byte, b'/' | b'\\');
        let slashes = scratch.iter().take_while(is_slash).count();
        let mut spare = 0;
        if slashes > 0 && !self.to.begins_with_host() {
            spare = slashes - 1;
            scratch[spare] = b'/';
        }
        match &scratch[spare..] {
            target if target.len() > TARGET_LIMIT => Err(TooLong),
            target => Ok(target),
        }
    }
}

impl Rewriting {
    /// Changes the path to send.
    ///
    /// # Errors
    /// It becomes too long.
    pub fn apply(&self, known: &Values<'_>, made: &mut Rewritten) -> Result<(), TooLong> {
        if known.head.form == TargetForm::Asterisk {
            return Ok(());
        }
        let Rewritten { path, scratch, .. } = made;
        let asked: &[u8] = if path.is_empty() {
            known.head.path(known.buffer)
        } else {
            path
        };
        // Tried on the path as sent first, then on its normal form.
        let changed = self.0.apply(asked).or_else(|| {
            let plain = normal(asked, scratch);
            (plain != asked).then(|| self.0.apply(&rewrite::encode(plain)))?
        });
        match changed {
            Some(changed) if changed.len() > TARGET_LIMIT => Err(TooLong),
            Some(changed) => {
                *path = changed;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn users(auth: &BasicAuth) -> Result<Arc<BasicAuth>, RuleError> {
    let is_plain = |byte: u8| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
    if !auth.realm.bytes().all(is_plain) {
        return Err(RuleError::Realm(auth.realm.clone()));
    }
    for (index, user) in auth.users.iter().enumerate() {
        let name = &user.name;
        if name.is_empty() || name.contains(|letter: char| letter == ':' || letter.is_control()) {
            return Err(RuleError::UserName(name.clone()));
        }
        if auth.users[..index].iter().any(|other| other.name == *name) {
            return Err(RuleError::DuplicateUser(name.clone()));
        }
    }
    Ok(Arc::new(auth.clone()))
}

fn fixed_answer(fixed: &Fixed) -> Result<Arc<Fixed>, RuleError> {
    let Fixed {
        status,
        content_type,
        body,
        needs: _,
    } = fixed;
    if !(200..=599).contains(status) {
        return Err(RuleError::AnswerStatus(*status));
    }
    if matches!(status, 204 | 304) && !body.is_empty() {
        return Err(RuleError::AnswerBody(*status));
    }
    if body.len() > BODY_LIMIT {
        return Err(RuleError::BodyTooLong(body.len()));
    }
    if !template::is_field_value(content_type) {
        return Err(RuleError::ContentType(content_type.clone()));
    }
    Ok(Arc::new(fixed.clone()))
}

#[cfg(test)]
mod tests;
