//! Request heads.

use super::error::{BadField, BadRequest};
use super::fields::{self, Coding, Summary};
use super::{Limits, Progress, scan, target};
use gaiola_model::http::{Framing, Method, RequestHead, Span, TargetForm, Version};

/// Longest method that is forwarded.
const METHOD_LIMIT: usize = 24;

/// Parses the request at the beginning of `bytes` into `head`, which is cleared first.
///
/// The result depends on the bytes alone, not on how they arrived: parsing again with more of them gives the same
/// result as parsing all of them at once.
///
/// # Errors
/// The first fault in the bytes; the connection cannot be read further.
pub fn parse_request(
    bytes: &[u8],
    head: &mut RequestHead,
    limits: &Limits,
) -> Result<Progress, BadRequest> {
    head.clear();
    let window = &bytes[..bytes.len().min(limits.head)];
    match whole(window, head, limits)? {
        Some(len) => {
            head.len = len;
            Ok(Progress::Done)
        }
        None if bytes.len() >= limits.head => Err(BadField::HeadTooLong.into()),
        None => Ok(Progress::Partial),
    }
}

/// Parses a head and returns its length; `None` if it is incomplete.
fn whole(
    bytes: &[u8],
    head: &mut RequestHead,
    limits: &Limits,
) -> Result<Option<usize>, BadRequest> {
    let Some(start) = leading_line(bytes)? else {
        return Ok(None);
    };
    let Some(fields_start) = request_line(bytes, start, head, limits)? else {
        return Ok(None);
    };
    let mut summary = Summary::default();
    let Some(end) = fields::parse(bytes, fields_start, &mut head.fields, &mut summary, limits)?
    else {
        return Ok(None);
    };
    conclude(bytes, head, &summary)?;
    Ok(Some(end))
}

/// Skips one empty line, which some clients send after a body (RFC 9112, section 2.2).
fn leading_line(bytes: &[u8]) -> Result<Option<usize>, BadRequest> {
    match bytes {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\r' | b'\n', ..] => Err(BadRequest::RequestLine),
        _ => Ok(Some(0)),
    }
}

/// Parses `METHOD SP TARGET SP VERSION CRLF` and returns the offset after it.
fn request_line(
    bytes: &[u8],
    start: usize,
    head: &mut RequestHead,
    limits: &Limits,
) -> Result<Option<usize>, BadRequest> {
    let method_end = start + scan::token(&bytes[start..]);
    if method_end - start > METHOD_LIMIT {
        return Err(BadRequest::Method);
    }
    match bytes.get(method_end) {
        None => return Ok(None),
        Some(b' ') if method_end > start => {}
        Some(_) => return Err(BadRequest::RequestLine),
    }
    head.method_name = Span::new(start, method_end);
    head.method = Method::of(head.method_name.of(bytes));
    if head.method_name.of(bytes) == b"CONNECT" {
        return Err(BadRequest::Method);
    }

    let target_start = method_end + 1;
    let target_end = target_start + scan::visible(&bytes[target_start..]);
    if target_end - target_start > limits.target {
        return Err(BadRequest::TargetTooLong);
    }
    match bytes.get(target_end) {
        None => return Ok(None),
        Some(b' ') if target_end > target_start => {}
        Some(b' ' | b'\r' | b'\n') => return Err(BadRequest::RequestLine),
        Some(_) => return Err(BadRequest::Target),
    }
    if !target::parse(Span::new(target_start, target_end), bytes, head) {
        return Err(BadRequest::Target);
    }
    let Some((version, version_end)) =
        version(bytes, target_end + 1).map_err(|wrong| wrong.of_request())?
    else {
        return Ok(None);
    };
    head.version = version;
    fields::line_end(bytes, version_end).map_err(|_| BadRequest::RequestLine)
}

/// Why a version is rejected.
#[derive(Clone, Copy)]
pub(super) enum BadVersion {
    /// It is not an HTTP version.
    Malformed,
    /// It is a version that is not served.
    NotServed,
}

impl BadVersion {
    const fn of_request(self) -> BadRequest {
        match self {
            Self::Malformed => BadRequest::RequestLine,
            Self::NotServed => BadRequest::Version,
        }
    }
}

/// Parses `HTTP/1.0` or `HTTP/1.1` at `at` and returns the offset after it.
pub(super) fn version(bytes: &[u8], at: usize) -> Result<Option<(Version, usize)>, BadVersion> {
    const NAME: &[u8] = b"HTTP/";
    let text = &bytes[at..bytes.len().min(at + 8)];
    let name = &text[..text.len().min(NAME.len())];
    if !NAME.starts_with(name) {
        return Err(BadVersion::Malformed);
    }
    match &text[name.len()..] {
        b"1.1" => Ok(Some((Version::Http11, at + 8))),
        b"1.0" => Ok(Some((Version::Http10, at + 8))),
        [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(BadVersion::NotServed)
        }
        [] => Ok(None),
        [major] if major.is_ascii_digit() => Ok(None),
        [major, b'.'] if major.is_ascii_digit() => Ok(None),
        _ => Err(BadVersion::Malformed),
    }
}

/// Derives what follows from all fields together.
fn conclude(bytes: &[u8], head: &mut RequestHead, summary: &Summary) -> Result<(), BadRequest> {
    if summary.several_hosts {
        return Err(BadRequest::SeveralHosts);
    }
    match summary.host {
        Some(host) if !target::is_host(host.of(bytes)) => return Err(BadRequest::Host),
        None if head.version == Version::Http11 => return Err(BadRequest::NoHost),
        Some(_) | None => {}
    }
    if head.form != TargetForm::Absolute {
        head.host = summary.host;
    }
    head.framing = match (summary.transfer_encoding, summary.length) {
        (None, None) => Framing::None,
        (None, Some(length)) => Framing::Length(length),
        (Some(Coding::Chunked), _) if head.version == Version::Http11 => Framing::Chunked,
        (Some(Coding::Other), _) if head.version == Version::Http11 => {
            return Err(BadRequest::TransferCoding);
        }
        (Some(_), _) => return Err(BadRequest::TransferEncoding),
    };
    let current = head.version == Version::Http11;
    head.keep_alive = summary.keep_alive(head.version);
    head.expects_continue = current && summary.expects_continue && !head.framing.is_empty();
    head.upgrade = current && summary.upgrade();
    Ok(())
}

#[cfg(test)]
mod tests;
