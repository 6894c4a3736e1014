//! Answers of the worker's own.

use super::record::Record;
use super::{After, Connection};
use crate::io;
use gaiola_core::forward::Edit;
use std::cell::Cell;
use std::fmt::Write;

/// The words of a status.
pub(super) const fn words(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "(Unused)",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ if status < 300 => "Success",
        _ if status < 400 => "Redirection",
        _ => "Error",
    }
}

/// An answer of our own.
#[derive(Clone, Copy)]
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    /// Further lines of its head.
    pub(super) fields: &'a str,
    /// Type and bytes of its body; `None`: the frontend's page for the status, or else a line of text.
    pub(super) body: Option<(&'a str, &'a [u8])>,
    /// How rules change its fields.
    pub(super) edit: Edit<'a>,
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
}

impl Reply<'_> {
    /// An answer with this status and nothing else to say, after which the connection is closed.
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            fields: "",
            body: None,
            edit: Edit::default(),
            is_head: false,
            keep_alive: false,
        }
    }
}

/// Answers. Whether it was written.
pub(super) async fn say(
    connection: &mut Connection,
    record: &mut Record,
    reply: &Reply<'_>,
) -> bool {
    let status = reply.status;
    record.status = status;
    let serving = connection.worker.serving();
    let line = format!("{status} {}\n", words(status));
    let (content_type, body) = match (reply.body, serving.page(&connection.client.bind, status)) {
        (Some(body), _) => body,
        (None, Some(page)) => (&*page.content_type, &*page.body),
        (None, None) => ("text/plain; charset=utf-8", line.as_bytes()),
    };
    let date = connection.worker.date();
    let mut head = format!(
        "HTTP/1.1 {status} {}\r\nDate: {}\r\n{}",
        words(status),
        String::from_utf8_lossy(&date),
        reply.fields,
    );
    if !matches!(status, 204 | 304) {
        write!(
            head,
            "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
            body.len()
        )
        .expect("writing to memory");
    }
    if status == 503 {
        head.push_str("Retry-After: 1\r\n");
    }
    reply.edit.apply(&mut head);
    if !reply.keep_alive {
        head.push_str("Connection: close\r\n");
    }
    write!(
        head,
        "X-Request-ID: {}\r\n\r\n",
        String::from_utf8_lossy(record.id())
    )
    .expect("writing to memory");
    let body = if reply.is_head { &[] } else { body };
    let pieces = [head.as_bytes(), body].into_iter();
    let limit = connection.write_limit();
    let count = Cell::new(0);
    let written = io::write_pieces(&mut connection.client.stream, pieces, &count);
    let written = connection.client_timer.within(limit, written).await;
    record.bytes += count.get();
    record.head_bytes += head.len() as u64;
    written.is_ok()
}

/// Answers a request whose head could not be read, as its record says, after which the connection is closed.
pub(super) async fn refuse(connection: &mut Connection, mut record: Record, status: u16) -> After {
    let written = say(connection, &mut record, &Reply::new(status)).await;
    let serving = connection.worker.serving();
    record.finish(connection, &serving, None);
    if written { After::Close } else { After::Abort }
}

/// Counts a request whose client left before its head was there.
pub(super) fn left(connection: &Connection, mut record: Record) {
    record.status = 499;
    record.fail(*b"CR", "the client left within its request's head");
    let serving = connection.worker.serving();
    record.finish(connection, &serving, None);
}
