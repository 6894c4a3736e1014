//! The cookies of a request, as offsets into its `Cookie` fields (RFC 6265, section 4.2).

use gaiola_model::http::{Field, FieldName, RequestHead, Span};

/// The first cookie of this name.
///
/// ```
/// use gaiola_core::cookie;
/// use gaiola_model::http::RequestHead;
///
/// assert_eq!(cookie::find(&RequestHead::default(), b"", "id"), None);
/// ```
pub fn find<'a>(head: &RequestHead, buffer: &'a [u8], name: &str) -> Option<&'a [u8]> {
    values(head, buffer, name).next()
}

/// The values of all cookies with this name.
pub(crate) fn values<'a>(
    head: &RequestHead,
    buffer: &'a [u8],
    name: &str,
) -> impl Iterator<Item = &'a [u8]> {
    fields(head)
        .flat_map(|field| pairs(field.value, buffer))
        .filter_map(move |pair| value_of(pair.of(buffer), name))
}

/// The parts of a `Cookie` field's line that remain without the cookies of this name; none if no other cookie remains.
pub(crate) fn without<'a>(
    field: &Field,
    buffer: &'a [u8],
    name: &'a str,
) -> impl Iterator<Item = Span> + 'a {
    let (line, value) = (field.line(), field.value);
    let others =
        move || pairs(value, buffer).filter(move |pair| value_of(pair.of(buffer), name).is_none());
    let last = others().last();
    let before = last.map(|_| Span {
        start: line.start,
        end: value.start,
    });
    let behind = last.map(|_| Span {
        start: value.end,
        end: line.end,
    });
    let kept = others().map(move |pair| Span {
        start: pair.start,
        // Includes the semicolon that separates it from the next one.
        end: if Some(pair) == last {
            pair.end
        } else {
            behind_divider(pair, value, buffer)
        },
    });
    before.into_iter().chain(kept).chain(behind)
}

/// Whether a `Set-Cookie` field's value sets the cookie of this name.
pub(crate) fn is_set(value: &[u8], name: &str) -> bool {
    value_of(value.trim_ascii_start(), name).is_some()
}

/// The fields that carry cookies.
fn fields(head: &RequestHead) -> impl Iterator<Item = &Field> {
    head.fields
        .iter()
        .filter(|field| field.known == FieldName::Cookie)
}

/// Each `name=value` of a field's value, without surrounding white space; empty ones are skipped.
fn pairs(value: Span, buffer: &[u8]) -> impl Iterator<Item = Span> {
    let mut start = value.start as usize;
    let pieces = value.of(buffer).split(|&byte| byte == b';');
    let pairs = pieces.map(move |piece| {
        let begin = start + piece.len() - piece.trim_ascii_start().len();
        start += piece.len() + 1;
        Span::new(begin, begin + piece.trim_ascii().len())
    });
    pairs.filter(|pair| !pair.is_empty())
}

/// Where the next pair begins.
fn behind_divider(pair: Span, value: Span, buffer: &[u8]) -> u32 {
    let rest = Span {
        start: pair.end,
        end: value.end,
    };
    let divider = rest
        .of(buffer)
        .iter()
        .take_while(|byte| matches!(byte, b';' | b' ' | b'\t'))
        .count();
    Span::new(pair.end as usize, pair.end as usize + divider).end
}

/// The value of a `name=value` pair with this name, without quotes.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = pair.strip_prefix(name.as_bytes())?.trim_ascii_start();
    let value = value.strip_prefix(b"=")?.trim_ascii_start();
    Some(match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(value: &str) -> String {
        let line = format!("Cookie: {value}\r\n");
        let field = Field {
            known: FieldName::Cookie,
            name: Span::new(0, 6),
            value: Span::new(8, 8 + value.len()),
            line_end: u32::try_from(line.len()).unwrap(),
        };
        let pieces = without(&field, line.as_bytes(), "id");
        let text: Vec<u8> = pieces
            .flat_map(|piece| piece.of(line.as_bytes()).to_vec())
            .collect();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_cookie_is_cut_out_of_its_line() {
        assert_eq!(left("a=b"), "Cookie: a=b\r\n");
        assert_eq!(left("a=b; id=1"), "Cookie: a=b\r\n");
        assert_eq!(left("id=1; a=b"), "Cookie: a=b\r\n");
        assert_eq!(left("a=b; id=1;c=d ; id=2"), "Cookie: a=b; c=d\r\n");
        assert_eq!(left("xid=1; id2=3;id"), "Cookie: xid=1; id2=3;id\r\n");
    }

    #[test]
    fn nothing_is_left_of_a_line_without_another() {
        assert_eq!(left("id=1"), "");
        assert_eq!(left("id=1; ;id=2;"), "");
    }
}
