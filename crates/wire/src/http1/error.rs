//! Why a head is rejected, in words for the log, and with which status.

/// A request that is answered with [`Self::status`], after which its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRequest {
    /// The first line is not `METHOD SP TARGET SP VERSION CRLF`.
    #[error("the request line is malformed")]
    RequestLine,
    /// The method is too long, or CONNECT.
    #[error("the method is not supported")]
    Method,
    /// The target has an invalid byte, or a form that its method does not allow.
    #[error("the request target is malformed")]
    Target,
    /// The target is longer than the limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// A version of HTTP other than 1.0 and 1.1.
    #[error("the HTTP version is not supported")]
    Version,
    /// A field's line is malformed.
    #[error(transparent)]
    Field(#[from] BadField),
    /// An HTTP/1.1 request without `Host`.
    #[error("the Host field is missing")]
    NoHost,
    /// More than one `Host`.
    #[error("there is more than one Host field")]
    SeveralHosts,
    /// `Host` is not a host and an optional port.
    #[error("the Host field is malformed")]
    Host,
    /// `Transfer-Encoding` names a coding other than `chunked`.
    #[error("the transfer coding is not supported")]
    TransferCoding,
    /// `Transfer-Encoding` is not exactly one final `chunked`, or was sent with HTTP/1.0.
    #[error("the Transfer-Encoding field is malformed")]
    TransferEncoding,
}

impl BadRequest {
    /// The status sent to the client.
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Field(BadField::HeadTooLong | BadField::TooMany) => 431,
            Self::Method | Self::TransferCoding => 501,
            Self::Version => 505,
            Self::RequestLine
            | Self::Target
            | Self::Field(_)
            | Self::NoHost
            | Self::SeveralHosts
            | Self::Host
            | Self::TransferEncoding => 400,
        }
    }
}

/// A response that is not forwarded; the client receives 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadResponse {
    /// The first line is not `VERSION SP STATUS SP REASON CRLF`.
    #[error("the status line is malformed")]
    StatusLine,
    /// A version of HTTP other than 1.0 and 1.1.
    #[error("the response's HTTP version is not supported")]
    Version,
    /// A field's line is malformed.
    #[error(transparent)]
    Field(#[from] BadField),
    /// `Transfer-Encoding` is not exactly one final `chunked`, or was sent with HTTP/1.0.
    #[error("the response's Transfer-Encoding field is malformed")]
    TransferEncoding,
}

/// A field's line, or all of them together, are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadField {
    /// The head is longer than the limit.
    #[error("the head is too long")]
    HeadTooLong,
    /// There are more fields than the limit.
    #[error("there are too many header fields")]
    TooMany,
    /// A line begins with white space.
    #[error("a header field's line is folded")]
    Folded,
    /// White space between a field's name and its colon.
    #[error("there is white space before a header field's colon")]
    SpaceBeforeColon,
    /// A name is empty or has an invalid byte.
    #[error("a header field's name is malformed")]
    Name,
    /// A value has a control byte.
    #[error("a header field has a control byte")]
    Control,
    /// A line ends without a carriage return.
    #[error("a line ends with a bare line feed")]
    BareLf,
    /// A carriage return without a line feed.
    #[error("a line has a bare carriage return")]
    BareCr,
    /// `Content-Length` is not a number of 63 bits.
    #[error("the Content-Length field is malformed")]
    ContentLength,
    /// More than one `Content-Length`.
    #[error("there is more than one Content-Length field")]
    SeveralLengths,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both Content-Length and Transfer-Encoding are given")]
    BothLengths,
}
