//! Request heads in buffers of the largest kind. A worker has few of those, so each is returned once its head has been
//! sent and cannot be needed again, however long the response takes.

use crate::io::Buffer;
use crate::log;
use crate::rules::LIMITS;
use gaiola_model::http::{Field, RequestHead, Span};
use std::cell::RefCell;
use std::rc::Rc;

/// Where the text of a request's head is.
pub(super) enum Text {
    /// At the beginning of the request's buffer.
    Front,
    /// In a buffer of the largest kind; the request's own buffer begins after it.
    Large(Rc<Buffer>),
    /// Released, except for what the log needs. The head refers to this text; `None` once it has become the request's
    /// own.
    Digest(Option<Box<RequestHead>>, Vec<u8>),
}

impl Text {
    /// The text that the request's head refers to, `len` bytes if it is in the request's buffer.
    pub(super) fn of<'a>(&'a self, buffer: &'a Buffer, len: usize) -> &'a [u8] {
        match self {
            Self::Front => buffer.front(len),
            Self::Large(text) => text.filled(),
            Self::Digest(_, text) => text,
        }
    }

    /// The head's buffer, if it is of the largest kind.
    pub(super) fn large(&self) -> Option<Rc<Buffer>> {
        match self {
            Self::Large(text) => Some(Rc::clone(text)),
            Self::Front | Self::Digest(..) => None,
        }
    }
}

/// Releases a buffer of the largest kind: the head in it is no longer needed.
pub(super) fn give_up(text: &RefCell<Text>, head: &RequestHead) {
    let large = text.borrow().large();
    if let Some(large) = large {
        let (head, rest) = digest(head, large.filled());
        text.replace(Text::Digest(Some(Box::new(head)), rest));
    }
}

/// The parts of a head that the log needs, limited to the usual size of a head: what exceeds it is cut off.
fn digest(head: &RequestHead, text: &[u8]) -> (RequestHead, Vec<u8>) {
    let mut rest = Vec::new();
    let mut keep = |span: Span| {
        let start = rest.len();
        let room = LIMITS.head - start;
        rest.extend_from_slice(&span.of(text)[..span.len().min(room)]);
        Span::new(start, rest.len())
    };
    let target = keep(head.target);
    let method_name = keep(head.method_name);
    let logged = |field: &&Field| {
        let name = field.name.of(text);
        log::FIELDS
            .iter()
            .any(|logged| name.eq_ignore_ascii_case(logged))
    };
    let fields = head.fields.iter().filter(logged).map(|field| {
        let (name, value) = (keep(field.name), keep(field.value));
        Field {
            name,
            value,
            line_end: value.end,
            ..*field
        }
    });
    let fields = fields.collect();
    let path = if head.path.is_empty() {
        Span::default()
    } else {
        let start = (head.path.start - head.target.start) as usize;
        Span::new(start, (start + head.path.len()).min(target.len()))
    };
    let head = RequestHead {
        method_name,
        target,
        path,
        query: Span::default(),
        host: None,
        fields,
        ..*head
    };
    (head, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_wire::http1::{Limits, Progress, parse_request};

    #[test]
    fn of_a_head_that_was_given_up_the_log_still_has_what_it_needs() {
        let long = "x".repeat(40_000);
        for (target, path) in [
            ("/a/b?c", "/a/b"),
            ("http://a", "/"),
            ("http://a/b?c", "/b"),
        ] {
            let text = format!(
                "GET {target} HTTP/1.1\r\nHost: a\r\nX: {long}\r\nreferer: r\r\nUser-Agent: {long}\r\n\r\n"
            );
            let mut head = RequestHead::default();
            let limits = Limits {
                head: 100_000,
                ..LIMITS
            };
            let parsed = parse_request(text.as_bytes(), &mut head, &limits);
            assert_eq!(parsed, Ok(Progress::Done));
            let (logged, rest) = digest(&head, text.as_bytes());
            assert_eq!(logged.method_name.of(&rest), b"GET");
            assert_eq!(logged.target.of(&rest), target.as_bytes());
            assert_eq!(logged.path(&rest), path.as_bytes());
            assert_eq!((logged.len, logged.version), (head.len, head.version));
            assert_eq!(logged.fields[0].value.of(&rest), b"r");
            assert!(!logged.fields[1].value.is_empty());
            assert_eq!(rest.len(), LIMITS.head);
        }
    }
}
