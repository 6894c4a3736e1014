//! The response for a file.

use super::range::{self, Range};
use super::{File, FileRequest, Found};
use crate::io::{self, Buffer, Fault, Stream, Timer};
use gaiola_core::forward::Edit;
use gaiola_model::http::FieldName;
use std::cell::Cell;
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A response, ready to send.
pub(crate) struct FileResponse<'a> {
    /// Its status.
    pub(crate) status: u16,
    /// Its head without the date and the blank line.
    head: String,
    body: Option<(&'a OwnedFd, std::ops::Range<u64>)>,
}

impl Found {
    /// The response to the request; `hop` is this proxy's name, `edit` what rules change.
    pub(crate) fn answer(
        &self,
        request: &FileRequest<'_>,
        hop: &str,
        keep_alive: bool,
        edit: &Edit<'_>,
    ) -> FileResponse<'_> {
        let mut answer = match self {
            Self::File(file) => file.answer(request),
            Self::Directory => redirect(request),
        };
        edit.apply(&mut answer.head);
        if !keep_alive {
            answer.head.push_str("Connection: close\r\n");
        }
        write!(answer.head, "Via: 1.1 {hop}\r\n").expect("writing to memory");
        answer
    }
}

/// Redirects to the same path with a trailing slash.
fn redirect<'a>(request: &FileRequest<'_>) -> FileResponse<'a> {
    let text = |bytes| String::from_utf8_lossy(bytes);
    let path = text(request.head.path(request.buffer));
    let query = text(request.head.query.of(request.buffer));
    // Two slashes at the start would name another host; browsers treat backslashes as slashes.
    let path = path.trim_start_matches(['/', '\\']);
    let location = format!("Location: /{path}/{query}\r\nContent-Length: 0\r\n");
    FileResponse {
        status: 301,
        head: format!("HTTP/1.1 301 Moved Permanently\r\n{location}"),
        body: None,
    }
}

impl File {
    fn answer(&self, request: &FileRequest<'_>) -> FileResponse<'_> {
        let (seconds, nanos) = self.changed;
        let etag = format!("\"{seconds:x}.{nanos:x}-{:x}\"", self.size);
        let changed = UNIX_EPOCH + Duration::from_secs(seconds);
        let validators = format!(
            "ETag: {etag}\r\nLast-Modified: {}\r\n",
            httpdate::fmt_http_date(changed)
        );
        if is_fresh(request, &etag, changed) {
            return FileResponse {
                status: 304,
                head: format!("HTTP/1.1 304 Not Modified\r\n{validators}"),
                body: None,
            };
        }
        let size = self.size;
        let (status, range) = match wanted(request, &etag, changed, size) {
            Range::Outside => return outside(size),
            Range::Whole => (200, 0..size),
            Range::Part { start, end } => (206, start..end + 1),
        };
        let charset = if self.is_text { "; charset=utf-8" } else { "" };
        let words = if status == 206 {
            "Partial Content"
        } else {
            "OK"
        };
        let mut head = format!(
            "HTTP/1.1 {status} {words}\r\nContent-Type: {}{charset}\r\nContent-Length: {}\r\n{validators}Accept-Ranges: bytes\r\n",
            self.content_type,
            range.end - range.start,
        );
        if status == 206 {
            write!(
                head,
                "Content-Range: bytes {}-{}/{size}\r\n",
                range.start,
                range.end - 1
            )
            .expect("writing to memory");
        }
        FileResponse {
            status,
            head,
            body: (!request.is_head() && !range.is_empty()).then_some((&self.fd, range)),
        }
    }
}

fn outside<'a>(size: u64) -> FileResponse<'a> {
    FileResponse {
        status: 416,
        head: format!(
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n"
        ),
        body: None,
    }
}

/// Whether the client already has this version of the file (RFC 9110, section 13.2.2).
fn is_fresh(request: &FileRequest<'_>, etag: &str, changed: SystemTime) -> bool {
    if let Some(tags) = request.field(FieldName::IfNoneMatch) {
        let weak = |tag: &str| tag.trim().strip_prefix("W/").unwrap_or(tag.trim()) == etag;
        return tags.trim() == "*" || tags.split(',').any(weak);
    }
    let since = request.field(FieldName::IfModifiedSince);
    since
        .and_then(|since| httpdate::parse_http_date(since).ok())
        .is_some_and(|since| changed <= since)
}

/// The range to send. With `If-Range`, only if the file is still the version that the client has a part of.
fn wanted(request: &FileRequest<'_>, etag: &str, changed: SystemTime, size: u64) -> Range {
    let Some(range) = request
        .field(FieldName::Range)
        .filter(|_| !request.is_head())
    else {
        return Range::Whole;
    };
    let same = request.field(FieldName::IfRange).is_none_or(|condition| {
        condition == etag || httpdate::parse_http_date(condition).is_ok_and(|date| date == changed)
    });
    if same {
        range::parse(range, size)
    } else {
        Range::Whole
    }
}

impl FileResponse<'_> {
    /// Length of the head in bytes.
    pub(crate) fn head_len(&self) -> u64 {
        const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        (self.head.len() + DATE.len()) as u64
    }

    /// Sends it. No wait for the client exceeds `limit`; bytes sent are added to `count` as it proceeds.
    pub(crate) async fn send(
        &self,
        stream: &mut Stream,
        timer: &mut Timer,
        limit: Duration,
        date: &[u8],
        count: &Cell<u64>,
    ) -> Result<(), Fault> {
        let mut buffer = Buffer::take();
        let mut rest = None;
        if let Some((file, range)) = &self.body {
            let read = io::read_file(file, range, &mut buffer)?;
            rest = Some((file, range.start + read as u64..range.end));
        }
        let head = [
            self.head.as_bytes(),
            b"Date: ",
            date,
            b"\r\n\r\n",
            buffer.filled(),
        ];
        let written = io::write_pieces(stream, head.into_iter(), count);
        timer.within(limit, written).await?;
        drop(buffer);
        if let Some((file, mut rest)) = rest {
            while !rest.is_empty() {
                let sent = {
                    let sending = pin!(io::send_file(stream, file, &rest));
                    timer.within(limit, sending).await?
                };
                count.set(count.get() + sent);
                rest.start += sent;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::http::RequestHead;

    fn answer(fields: &str) -> (u16, String, u64) {
        let mut temporary = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut temporary, b"0123456789").unwrap();
        let file = File {
            fd: temporary.reopen().unwrap().into(),
            size: 10,
            changed: (784_111_777, 5),
            content_type: "text/plain",
            is_text: true,
        };
        let text = format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        let limits = gaiola_wire::http1::Limits::default();
        gaiola_wire::http1::parse_request(text.as_bytes(), &mut head, &limits).unwrap();
        let request = FileRequest::new(&head, text.as_bytes(), b"");
        let answer = file.answer(&request);
        let len = answer.body.map_or(0, |(_, range)| range.end - range.start);
        (answer.status, answer.head, len)
    }

    const ETAG: &str = "\"2ebc98a1.5-a\"";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn a_file_comes_whole_with_its_validators() {
        let (status, head, len) = answer("");
        assert_eq!((status, len), (200, 10));
        assert!(head.contains(&format!("ETag: {ETAG}\r\n")), "{head}");
        assert!(head.contains(&format!("Last-Modified: {DATE}\r\n")));
        assert!(head.contains("Content-Type: text/plain; charset=utf-8\r\n"));
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        for fields in [
            format!("If-None-Match: \"x\", W/{ETAG}\r\n"),
            "If-None-Match: *\r\n".into(),
            format!("If-Modified-Since: {DATE}\r\n"),
        ] {
            assert_eq!(answer(&fields).0, 304, "{fields}");
        }
        // The tag counts, the date does not.
        let both = format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {DATE}\r\n");
        assert_eq!(answer(&both).0, 200);
    }

    #[test]
    fn a_part_is_sent_as_long_as_the_file_is_the_same() {
        let (status, head, len) = answer("Range: bytes=2-4\r\n");
        assert_eq!((status, len), (206, 3));
        assert!(head.contains("Content-Range: bytes 2-4/10\r\n"));
        assert_eq!(
            answer(&format!("Range: bytes=2-4\r\nIf-Range: {ETAG}\r\n")).0,
            206
        );
        assert_eq!(
            answer(&format!("Range: bytes=2-4\r\nIf-Range: {DATE}\r\n")).0,
            206
        );
        assert_eq!(answer("Range: bytes=2-4\r\nIf-Range: \"x\"\r\n").0, 200);
        let (status, head, _) = answer("Range: bytes=10-\r\n");
        assert_eq!(status, 416);
        assert!(head.contains("Content-Range: bytes */10\r\n"));
    }
}
