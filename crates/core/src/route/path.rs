//! Normal form of paths for comparison.

/// The path as a server may interpret it, so that no spelling of it evades a rule: parameters (`;x=1`, RFC 3986,
/// section 3.3) are removed, it is percent-decoded once, a backslash is a slash, empty segments are removed, `.` and
/// `..` resolved. Written to `scratch` unless it already has that form.
///
/// ```
/// use gaiola_core::route::normal;
///
/// let mut scratch = Vec::new();
/// assert_eq!(normal(b"/a/b", &mut scratch), b"/a/b");
/// assert_eq!(normal(b"//x/../%61%2Fb/.", &mut scratch), b"/a/b/");
/// assert_eq!(normal(b"/x/..;/a;b=1/c", &mut scratch), b"/a/c");
/// assert_eq!(normal(b"/../..", &mut scratch), b"/");
/// assert_eq!(normal(b"", &mut scratch), b"/");
/// ```
pub fn normal<'a>(path: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    match path.first() {
        None => return b"/",
        Some(b'/') if !is_normal(path) => {}
        Some(_) => return path,
    }
    scratch.clear();
    let segments = path.split(|&byte| byte == b'/').skip(1);
    let bytes = segments.flat_map(|segment| std::iter::once(b'/').chain(decode(bare(segment))));
    resolve(servlet(bytes), scratch);
    scratch
}

/// What servers that know no parameters, or resolve them in another order, may read instead of the normal path, if that
/// differs in more than a parameter left in its place.
///
/// `/a/..;/b` is `/b` to one and lies below `/a` to the other: no rule can be right for both.
pub(super) fn other_readings(path: &[u8], normal: &[u8]) -> Vec<Vec<u8>> {
    if path.first() != Some(&b'/') || !decode(path).any(|byte| matches!(byte, b';' | b'\\')) {
        return Vec::new();
    }
    let mut late = Vec::new();
    resolve(servlet(decode(path)), &mut late);
    let mut literal = Vec::new();
    resolve(decode(path), &mut literal);
    let mut others = vec![late, without_parameters(&literal)];
    others.retain(|other| other != normal);
    others
}

/// A segment without its parameters.
fn bare(segment: &[u8]) -> &[u8] {
    let end = segment.iter().position(|&byte| byte == b';');
    &segment[..end.unwrap_or(segment.len())]
}

/// Each segment without its parameters; segments that are then empty are removed.
fn without_parameters(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    for segment in path.split(|&byte| byte == b'/').map(bare) {
        if plain.last() != Some(&b'/') {
            plain.push(b'/');
        }
        plain.extend_from_slice(segment);
    }
    plain
}

/// How a reader sees it that takes a backslash for a slash and drops everything from a semicolon up to the next slash.
fn servlet(bytes: impl Iterator<Item = u8>) -> impl Iterator<Item = u8> {
    let mut is_parameter = false;
    bytes.filter_map(move |byte| {
        let byte = if byte == b'\\' { b'/' } else { byte };
        is_parameter = byte != b'/' && (is_parameter || byte == b';');
        (!is_parameter).then_some(byte)
    })
}

/// Appends the path without empty segments, `.` and `..`.
fn resolve(bytes: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    for byte in bytes {
        if byte == b'/' {
            end_segment(out);
        }
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
    end_segment(out);
}

fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|&byte| {
        let is_mark = matches!(byte, b'%' | b';' | b'\\');
        let is_resolved = before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        !is_mark && !is_resolved
    })
}

/// Resolves a last segment of `.` or `..`; the result then ends with a slash.
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

/// Percent-decodes; malformed escapes stay unchanged.
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
