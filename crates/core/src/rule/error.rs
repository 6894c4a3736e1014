//! Mistakes in rules.

use super::foreign::Foreign;
use super::{BODY_LIMIT, template};
use crate::route::RegexError;

/// A mistake in one rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A limit that is not configured.
    #[error("there is no limit {0}")]
    UnknownLimit(String),
    /// A redirect whose status is not one of a redirect.
    #[error("{0} is not a redirect status; use 301, 302, 303, 307 or 308")]
    RedirectStatus(u16),
    /// A realm that cannot be quoted in a header field.
    #[error("the realm {0:?} is not visible ASCII with spaces, without `\"` and `\\`")]
    Realm(String),
    /// A user name that Basic authentication cannot carry.
    #[error("{0:?} is not a user name: it is empty, or has a colon or a control character")]
    UserName(String),
    /// A user name that occurs twice.
    #[error("the user {0} is listed twice")]
    DuplicateUser(String),
    /// A status that no final response has.
    #[error("{0} is not the status of a final response; use 200 to 599")]
    AnswerStatus(u16),
    /// A body in a response that has none.
    #[error("a response with status {0} cannot have a body")]
    AnswerBody(u16),
    /// A body of this many bytes.
    #[error("the body of a fixed answer has {0} bytes; at most {BODY_LIMIT} are allowed")]
    BodyTooLong(usize),
    /// A text that is not a content type.
    #[error("{0:?} is not a content type")]
    ContentType(String),
    /// A text that is not the name of a header field.
    #[error("{0:?} is not the name of a header field")]
    FieldName(String),
    /// A text that is not the value of a header field.
    #[error("{0:?} is not the value of a header field: visible ASCII, spaces and tabs between")]
    FieldValue(String),
    /// `Host` as a header field.
    #[error("`Host` is not set as a header field; use the rule `host`")]
    HostField,
    /// A field about framing, the connection or the hops.
    #[error("`{0}` cannot be changed by a rule: it is about the connection, and the proxy sets it")]
    HopField(String),
    /// A path that is not absolute.
    #[error("the path {0:?} does not begin with a slash")]
    RelativePath(String),
    /// A text that would end a path.
    #[error("{0:?} is not a path: it has a space, `?`, `#` or a character beyond ASCII")]
    Path(String),
    /// A redirect target beyond visible ASCII.
    #[error("{0:?} is not a URL: it has characters beyond visible ASCII")]
    Url(String),
    /// A redirect target that is neither a path nor a URL.
    #[error("{0:?} is neither a path nor a URL with its scheme")]
    Target(String),
    /// A text that is not a host.
    #[error("{0:?} is not a host")]
    Host(String),
    /// A brace that is not closed, or not opened.
    #[error("{0:?} has an unmatched brace; a literal brace is written twice")]
    UnmatchedBrace(String),
    /// A variable that does not exist.
    #[error(
        "{text:?} has an unknown variable {name:?}; the variables are {}",
        template::names()
    )]
    UnknownVariable {
        /// The whole text.
        text: String,
        /// The variable.
        name: String,
    },
    /// An invalid regular expression.
    #[error(transparent)]
    Regex(#[from] RegexError),
    /// Another program's syntax, which would be sent literally.
    #[error("{text:?}: {found}")]
    Foreign {
        /// The whole text.
        text: String,
        /// What was found in it.
        found: Foreign,
    },
}
