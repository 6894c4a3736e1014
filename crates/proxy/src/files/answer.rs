//! The response for a file.

use super::range::{self, Range};
use super::{File, FileRequest, Found, Tags};
use crate::compress::{Compressor, Memory};
use crate::io::{self, Buffer, Fault, Stream, Timer};
use gaiola_core::compression::{Client, Contents, Decision, decide_for, is_no_transform};
use gaiola_core::forward::Edit;
use gaiola_core::precondition::{Conditions, Validators, Verdict, evaluate};
use gaiola_model::http::{Coding, FieldName};
use gaiola_model::proxy::Compression;
use std::cell::Cell;
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

const MEMORY: &str = "writing to memory";
const VARY: &str = "Vary: Accept-Encoding\r\n";

/// A response, ready to send.
pub(crate) struct FileResponse<'a> {
    /// Its status.
    pub(crate) status: u16,
    /// Its head without the date and the blank line.
    head: String,
    body: Option<(&'a OwnedFd, std::ops::Range<u64>)>,
    compressor: Option<Compressor>,
}

/// How files are compressed.
#[derive(Clone, Copy)]
pub(crate) struct Compress<'a> {
    /// What the route says.
    pub(crate) policy: &'a Compression,
    /// Who asks.
    pub(crate) client: Client,
    /// The memory of this worker's compressors.
    pub(crate) memory: &'a Rc<Memory>,
}

/// What a response depends on besides the request and the file.
pub(crate) struct Reply<'a> {
    /// This proxy's name.
    pub(crate) hop: &'a str,
    /// Whether the connection is kept.
    pub(crate) keep_alive: bool,
    /// What rules change.
    pub(crate) edit: Edit<'a>,
    /// How the file is compressed, if the route says so.
    pub(crate) compress: Option<Compress<'a>>,
}

impl Found<'_> {
    /// The response to the request.
    pub(crate) async fn answer(
        &self,
        request: &FileRequest<'_>,
        tags: &Rc<Tags>,
        reply: &Reply<'_>,
    ) -> FileResponse<'_> {
        let mut answer = match self {
            Self::File(file) => {
                let etag = Tags::of(tags, file).await;
                let compress = reply.compress.as_ref();
                let compress = compress.filter(|_| !reply.edit.speaks_of(b"content-encoding"));
                file.answer(request, etag.as_deref(), compress)
            }
            Self::Directory => redirect(request),
            Self::Missing(page) => page.not_found(request),
            Self::Failed => failed(),
        };
        let varies = answer.head.contains(VARY);
        reply.edit.apply(&mut answer.head);
        if varies && !answer.head.contains(VARY) {
            answer.head.push_str(VARY);
        }
        if !reply.keep_alive {
            answer.head.push_str("Connection: close\r\n");
        }
        write!(answer.head, "Via: 1.1 {}\r\n", reply.hop).expect(MEMORY);
        answer
    }
}

/// The system could not open it now: that says nothing of whether it is there.
fn failed<'a>() -> FileResponse<'a> {
    FileResponse {
        status: 503,
        head: "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n".into(),
        body: None,
        compressor: None,
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
        compressor: None,
    }
}

impl File<'_> {
    fn answer(
        &self,
        request: &FileRequest<'_>,
        etag: Option<&str>,
        compress: Option<&Compress<'_>>,
    ) -> FileResponse<'_> {
        let current = Validators {
            etag,
            modified: self.version.modified.0,
        };
        let decision = self.compression(compress);
        let varies = self.varies || decision.varies;
        match evaluate(&request.conditions(), current) {
            // As the whole response would have it.
            Verdict::NotModified => {
                let etag = etag.map(|etag| match decision.coding {
                    Some(_) => format!("W/{etag}"),
                    None => etag.to_owned(),
                });
                self.short(304, "Not Modified", &self.about(etag.as_deref(), varies))
            }
            Verdict::Failed => self.short(412, "Precondition Failed", "Content-Length: 0\r\n"),
            Verdict::Proceed => {
                let range = match decision.coding {
                    // What the client has a part of may be compressed: a date does not tell.
                    Some(_) if request.date(FieldName::IfRange).is_some() => Range::Whole,
                    _ => wanted(request, current, self.version.size),
                };
                let coding = decision.coding.filter(|_| range == Range::Whole);
                let begin = |compress: &Compress<'_>| {
                    let Compress { policy, memory, .. } = compress;
                    Some((coding?, Compressor::new(policy, coding?, memory)?))
                };
                match compress.and_then(begin) {
                    Some((coding, compressor)) => self.compressed(etag, coding, compressor),
                    None => self.contents(request, range, etag, varies),
                }
            }
        }
    }

    /// Whether the whole file is compressed on its way.
    fn compression(&self, compress: Option<&Compress<'_>>) -> Decision {
        let is_fixed = self.coding.is_some()
            || (self.cache_control).is_some_and(|value| is_no_transform(value.as_bytes()));
        let Some(compress) = compress.filter(|_| !is_fixed) else {
            return Decision::default();
        };
        let contents = Contents {
            status: 200,
            content_type: Some(self.content_type.as_bytes()),
            length: Some(self.version.size),
        };
        decide_for(compress.policy, compress.client, contents)
    }

    fn short(&self, status: u16, words: &str, fields: &str) -> FileResponse<'_> {
        FileResponse {
            status,
            head: format!("HTTP/1.1 {status} {words}\r\n{fields}"),
            body: None,
            compressor: None,
        }
    }

    /// The fields that a 200 and a 304 share.
    fn about(&self, etag: Option<&str>, varies: bool) -> String {
        let mut fields = String::new();
        if let Some(etag) = etag {
            write!(fields, "ETag: {etag}\r\n").expect(MEMORY);
        }
        let modified = UNIX_EPOCH + Duration::from_secs(self.version.modified.0);
        let modified = httpdate::fmt_http_date(modified);
        write!(fields, "Last-Modified: {modified}\r\n").expect(MEMORY);
        if let Some(value) = self.cache_control {
            write!(fields, "Cache-Control: {value}\r\n").expect(MEMORY);
        }
        if varies {
            fields.push_str(VARY);
        }
        fields
    }

    fn contents(
        &self,
        request: &FileRequest<'_>,
        range: Range,
        etag: Option<&str>,
        varies: bool,
    ) -> FileResponse<'_> {
        let size = self.version.size;
        let (status, words, range) = match range {
            Range::Outside => {
                let fields = format!("Content-Range: bytes */{size}\r\nContent-Length: 0\r\n");
                return self.short(416, "Range Not Satisfiable", &fields);
            }
            Range::Whole => (200, "OK", 0..size),
            Range::Part { start, end } => (206, "Partial Content", start..end + 1),
        };
        let (framing, about) = (self.framing(&range), self.about(etag, varies));
        let mut fields = format!("{framing}{about}Accept-Ranges: bytes\r\n");
        if status == 206 {
            let (first, last) = (range.start, range.end - 1);
            write!(fields, "Content-Range: bytes {first}-{last}/{size}\r\n").expect(MEMORY);
        }
        FileResponse {
            body: self.body(request, range),
            ..self.short(status, words, &fields)
        }
    }

    /// The whole file, compressed on its way. Its bytes are others than those of the strong tag.
    fn compressed(
        &self,
        etag: Option<&str>,
        coding: Coding,
        compressor: Compressor,
    ) -> FileResponse<'_> {
        let etag = etag.map(|etag| format!("W/{etag}"));
        let fields = format!(
            "{}Content-Encoding: {}\r\nTransfer-Encoding: chunked\r\n{}",
            self.content_type_line(),
            coding.token(),
            self.about(etag.as_deref(), true),
        );
        FileResponse {
            body: Some((&self.fd, 0..self.version.size)),
            compressor: Some(compressor),
            ..self.short(200, "OK", &fields)
        }
    }

    /// This file as the page for one that is missing. Conditions and ranges are those of the missing one.
    fn not_found(&self, request: &FileRequest<'_>) -> FileResponse<'_> {
        let whole = 0..self.version.size;
        let vary = if self.varies { VARY } else { "" };
        FileResponse {
            body: self.body(request, whole.clone()),
            ..self.short(404, "Not Found", &(self.framing(&whole) + vary))
        }
    }

    fn framing(&self, range: &std::ops::Range<u64>) -> String {
        let len = range.end - range.start;
        let mut fields = format!("{}Content-Length: {len}\r\n", self.content_type_line());
        if let Some(coding) = self.coding {
            write!(fields, "Content-Encoding: {}\r\n", coding.token()).expect(MEMORY);
        }
        fields
    }

    fn content_type_line(&self) -> String {
        let charset = if self.is_text { "; charset=utf-8" } else { "" };
        format!("Content-Type: {}{charset}\r\n", self.content_type)
    }

    fn body(
        &self,
        request: &FileRequest<'_>,
        range: std::ops::Range<u64>,
    ) -> Option<(&OwnedFd, std::ops::Range<u64>)> {
        (!request.is_head() && !range.is_empty()).then_some((&self.fd, range))
    }
}

impl<'a> FileRequest<'a> {
    fn conditions(&self) -> Conditions<'a> {
        Conditions {
            if_match: self.fields(FieldName::IfMatch).collect(),
            if_unmodified_since: self.date(FieldName::IfUnmodifiedSince),
            if_none_match: self.fields(FieldName::IfNoneMatch).collect(),
            if_modified_since: self.date(FieldName::IfModifiedSince),
        }
    }

    /// A date, in seconds since the epoch.
    fn date(&self, name: FieldName) -> Option<u64> {
        let date = httpdate::parse_http_date(self.field(name)?).ok()?;
        Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
    }
}

/// The range to send. With `If-Range`, only if the file is still the version that the client has a part of.
fn wanted(request: &FileRequest<'_>, current: Validators<'_>, size: u64) -> Range {
    let range = request.field(FieldName::Range);
    let Some(range) = range.filter(|_| !request.is_head()) else {
        return Range::Whole;
    };
    let is_same = request.field(FieldName::IfRange).is_none_or(|condition| {
        Some(condition) == current.etag
            || request.date(FieldName::IfRange) == Some(current.modified)
    });
    if is_same {
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
        &mut self,
        stream: &mut Stream,
        timer: &mut Timer,
        limit: Duration,
        date: &[u8],
        count: &Cell<u64>,
    ) -> Result<(), Fault> {
        if let Some(compressor) = self.compressor.take() {
            let out = (stream, timer, limit);
            return Box::pin(self.send_compressed(compressor, out, date, count)).await;
        }
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

    /// Sends it compressed, in chunks.
    async fn send_compressed(
        &self,
        mut compressor: Compressor,
        (stream, timer, limit): (&mut Stream, &mut Timer, Duration),
        date: &[u8],
        count: &Cell<u64>,
    ) -> Result<(), Fault> {
        let head = [self.head.as_bytes(), b"Date: ", date, b"\r\n\r\n"];
        compressor.set_head(head.into_iter());
        let (file, mut rest) = self.body.clone().expect("a compressed file has a body");
        loop {
            let mut buffer = Buffer::take();
            let read = io::read_file(file, &rest, &mut buffer)?;
            if read == 0 && !rest.is_empty() {
                // It has become shorter.
                return Err(Fault::Closed);
            }
            rest.start += read as u64;
            compressor.write(buffer.filled())?;
            drop(buffer);
            if rest.is_empty() {
                compressor.finish()?;
            } else {
                // Compressing takes a while: the worker has others to serve.
                tokio::task::yield_now().await;
                if !compressor.is_full() {
                    continue;
                }
            }
            let written = io::write_pieces(stream, compressor.chunk().into_iter(), count);
            timer.within(limit, written).await?;
            compressor.written();
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tag::Version;
    use gaiola_model::http::RequestHead;

    const ETAG: &str = "\"v1\"";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    /// A file of ten bytes.
    fn file() -> File<'static> {
        let mut temporary = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut temporary, b"0123456789").unwrap();
        let fd: OwnedFd = temporary.reopen().unwrap().into();
        let mut version = Version::of(&rustix::fs::fstat(&fd).unwrap());
        version.modified = (784_111_777, 5);
        File::new(fd, version, b"a.txt", Some("no-cache"))
    }

    /// What `answer` makes of a request with these fields.
    fn with(
        fields: &str,
        answer: impl for<'a> Fn(&'a File<'a>, &FileRequest<'_>) -> FileResponse<'a>,
    ) -> (u16, String, u64) {
        let text = format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        let limits = gaiola_wire::http1::Limits::default();
        gaiola_wire::http1::parse_request(text.as_bytes(), &mut head, &limits).unwrap();
        let (file, request) = (file(), FileRequest::new(&head, text.as_bytes(), b""));
        let answer = answer(&file, &request);
        let len = answer.body.map_or(0, |(_, range)| range.end - range.start);
        (answer.status, answer.head, len)
    }

    fn answer(fields: &str) -> (u16, String, u64) {
        with(fields, |file, request| {
            file.answer(request, Some(ETAG), None)
        })
    }

    #[test]
    fn a_file_that_is_not_the_one_wanted_is_not_sent() {
        for fields in [
            "If-Match: \"x\"\r\n",
            "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
        ] {
            let (status, head, len) = answer(fields);
            assert_eq!((status, len), (412, 0), "{fields}");
            assert!(head.contains("Content-Length: 0\r\n"));
        }
        assert_eq!(answer(&format!("If-Match: {ETAG}\r\n")).0, 200);
        assert_eq!(answer("If-Match: *\r\n").0, 200);
        assert_eq!(answer(&format!("If-Unmodified-Since: {DATE}\r\n")).0, 200);
        assert_eq!(answer("If-Unmodified-Since: yesterday\r\n").0, 200);
    }

    #[test]
    fn a_page_for_missing_files_has_no_conditions_and_no_validators() {
        let fields = "If-None-Match: *\r\nRange: bytes=0-1\r\n";
        let (status, head, len) = with(fields, |file, request| file.not_found(request));
        assert_eq!((status, len), (404, 10));
        assert!(!head.contains("ETag") && !head.contains("Cache-Control"));
    }

    #[test]
    fn a_file_comes_whole_with_its_validators() {
        let (status, head, len) = answer("");
        assert_eq!((status, len), (200, 10));
        assert!(head.contains(&format!("ETag: {ETAG}\r\n")), "{head}");
        assert!(head.contains(&format!("Last-Modified: {DATE}\r\n")));
        assert!(head.contains("Content-Type: text/plain; charset=utf-8\r\n"));
        assert!(head.contains("Cache-Control: no-cache\r\n"));
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
