//! Mistakes in routes.

/// A mistake in a route's conditions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A text that is not a host.
    #[error(
        "{0:?} is not a host: write a name such as `example.com` or `*.example.com`, or an address, without a port"
    )]
    Host(String),
    /// A path that is not absolute.
    #[error("the path {0:?} does not begin with a slash")]
    RelativePath(String),
    /// A text that is not a method.
    #[error("{0:?} is not a method")]
    Method(String),
    /// A text that is not the name of a header field.
    #[error("{0:?} is not the name of a header field")]
    FieldName(String),
    /// A text that is not the name of a cookie.
    #[error("{0:?} is not the name of a cookie")]
    CookieName(String),
    /// A mistake in a regular expression.
    #[error(transparent)]
    Regex(#[from] RegexError),
}

/// A mistake in a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// It is not valid, or would need too much memory.
    #[error("the regular expression {pattern:?} is not valid: {why}")]
    Invalid {
        /// The expression.
        pattern: String,
        /// The parser's reason.
        why: String,
    },
    /// No path can match it.
    #[error("no path matches the regular expression {pattern:?}: {why}")]
    Unmatchable {
        /// The expression.
        pattern: String,
        /// Why, and what to write instead.
        why: &'static str,
    },
}
