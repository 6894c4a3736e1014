//! Paths as they are compared.

/// The path as a server may understand it, so that no spelling of it passes by a rule: percent-decoded once, empty
/// segments left out, `.` and `..` resolved. It is written to `scratch` unless it is that already.
///
/// ```
/// use gaiola_core::route::normal;
///
/// let mut scratch = Vec::new();
/// assert_eq!(normal(b"/a/b", &mut scratch), b"/a/b");
/// assert_eq!(normal(b"//x/../%61%2Fb/.", &mut scratch), b"/a/b/");
/// assert_eq!(normal(b"/../..", &mut scratch), b"/");
/// ```
pub fn normal<'a>(path: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if is_normal(path) || path.first() != Some(&b'/') {
        return path;
    }
    scratch.clear();
    for byte in decode(path) {
        if byte == b'/' {
            end_segment(scratch);
        }
        if byte != b'/' || scratch.last() != Some(&b'/') {
            scratch.push(byte);
        }
    }
    end_segment(scratch);
    scratch
}

fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|&byte| {
        let plain = byte != b'%' && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
        plain
    })
}

/// Resolves the last segment when it is `.` or `..`; what is left ends with a slash then.
fn end_segment(path: &mut Vec<u8>) {
    let start = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    match &path[start..] {
        b"/." => path.truncate(start + 1),
        b"/.." => {
            let parent = path[..start].iter().rposition(|&byte| byte == b'/');
            path.truncate(parent.unwrap_or(0) + 1);
        }
        _ => {}
    }
}

/// Percent-decodes; what is malformed stays as it is.
pub(super) fn decode(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, behind) = rest.split_first()?;
        let escaped = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                hex(*high).zip(hex(*low)).map(|digits| (digits, behind))
            }
            _ => None,
        };
        match escaped {
            Some(((high, low), behind)) => {
                rest = behind;
                Some(high << 4 | low)
            }
            None => {
                rest = behind;
                Some(first)
            }
        }
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
