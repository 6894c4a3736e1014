//! Response heads.

use super::error::{BadField, BadResponse};
use super::fields::{self, Coding, Summary};
use super::request::{BadVersion, version};
use super::{Limits, Progress, scan};
use gaiola_model::http::{Framing, Method, ResponseHead, Span, Version};

/// Parses the response to a request of this method at the beginning of `bytes` into `head`, which is cleared first.
///
/// As with requests the result depends on the bytes alone, not on how they arrived.
///
/// # Errors
/// The first fault in the bytes; the connection cannot be read further.
pub fn parse_response(
    bytes: &[u8],
    asked: Method,
    head: &mut ResponseHead,
    limits: &Limits,
) -> Result<Progress, BadResponse> {
    head.clear();
    let window = &bytes[..bytes.len().min(limits.head)];
    match whole(window, asked, head, limits)? {
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
    asked: Method,
    head: &mut ResponseHead,
    limits: &Limits,
) -> Result<Option<usize>, BadResponse> {
    let Some(fields_start) = status_line(bytes, head)? else {
        return Ok(None);
    };
    let mut summary = Summary::default();
    let Some(end) = fields::parse(bytes, fields_start, &mut head.fields, &mut summary, limits)?
    else {
        return Ok(None);
    };
    conclude(asked, head, &summary)?;
    Ok(Some(end))
}

/// Parses `VERSION SP STATUS SP REASON CRLF`, where ` REASON` is optional, and returns the offset after it.
fn status_line(bytes: &[u8], head: &mut ResponseHead) -> Result<Option<usize>, BadResponse> {
    let Some((version, at)) = version(bytes, 0).map_err(of_response)? else {
        return Ok(None);
    };
    head.version = version;
    let Some(status) = status(&bytes[at..])? else {
        return Ok(None);
    };
    head.status = status;
    let at = at + 4;
    let (start, end) = match bytes.get(at) {
        Some(b' ') => (at + 1, at + 1 + scan::value(&bytes[at + 1..])),
        _ => (at, at),
    };
    head.reason = Span::new(start, end);
    fields::line_end(bytes, end).map_err(|_| BadResponse::StatusLine)
}

const fn of_response(wrong: BadVersion) -> BadResponse {
    match wrong {
        BadVersion::Malformed => BadResponse::StatusLine,
        BadVersion::NotServed => BadResponse::Version,
    }
}

/// Parses a space and three digits from 100 to 599.
fn status(text: &[u8]) -> Result<Option<u16>, BadResponse> {
    let text = &text[..text.len().min(4)];
    let fits = |(place, byte): (usize, &u8)| match place {
        0 => *byte == b' ',
        1 => (b'1'..=b'5').contains(byte),
        _ => byte.is_ascii_digit(),
    };
    if !text.iter().enumerate().all(fits) {
        return Err(BadResponse::StatusLine);
    }
    Ok(match text {
        [_, digits @ ..] if digits.len() == 3 => Some(
            digits
                .iter()
                .fold(0, |status, digit| status * 10 + u16::from(digit - b'0')),
        ),
        _ => None,
    })
}

/// Derives what follows from all fields together (RFC 9112, section 6.3).
fn conclude(asked: Method, head: &mut ResponseHead, summary: &Summary) -> Result<(), BadResponse> {
    let chunked = match summary.transfer_encoding {
        None => false,
        Some(Coding::Chunked) if head.version == Version::Http11 => true,
        Some(_) => return Err(BadResponse::TransferEncoding),
    };
    let bodiless = asked == Method::Head || matches!(head.status, 100..=199 | 204 | 304);
    head.framing = match summary.length {
        _ if bodiless => Framing::None,
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    head.upgrade = head.status == 101;
    head.keep_alive = summary.keep_alive(head.version) && head.framing != Framing::UntilClose;
    Ok(())
}

#[cfg(test)]
mod tests;
