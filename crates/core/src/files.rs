//! How files are served: which other names are tried for a missing one, and what `Cache-Control` a file gets.

use gaiola_model::proxy::{FileOptions, FilePattern};

/// A fingerprint has at least as many digits.
const FINGERPRINT: usize = 8;

/// The path of a name in [`FileOptions::tries`], for a request of this decoded path.
///
/// ```
/// use gaiola_core::files::tried;
///
/// assert_eq!(tried("{path}.html", b"/about/"), b"/about.html");
/// assert_eq!(tried("/index.html", b"/about"), b"/index.html");
/// ```
pub fn tried(name: &str, path: &[u8]) -> Vec<u8> {
    let bare = path.iter().rposition(|&byte| byte != b'/');
    let path = &path[..bare.map_or(0, |last| last + 1)];
    let mut parts = name.split(FileOptions::PATH);
    let mut written = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        written.extend_from_slice(path);
        written.extend_from_slice(part.as_bytes());
    }
    written
}

/// The `Cache-Control` of the file with this path below its directory, without a slash at its beginning.
///
/// ```
/// use gaiola_core::files::cache_control;
/// use gaiola_model::proxy::{CacheControl, FileOptions, FilePattern};
///
/// let html = CacheControl { files: FilePattern::Name("*.html".into()), value: "no-cache".into() };
/// let options = FileOptions { cache_control: vec![html], ..FileOptions::default() };
/// assert_eq!(cache_control(&options, b"docs/index.html"), Some("no-cache"));
/// assert_eq!(cache_control(&options, b"app.css"), None);
/// ```
pub fn cache_control<'a>(options: &'a FileOptions, path: &[u8]) -> Option<&'a str> {
    let fits = |pattern: &FilePattern| match pattern {
        FilePattern::Fingerprinted => is_fingerprinted(last_segment(path)),
        FilePattern::Name(pattern) => match pattern.strip_prefix('/') {
            Some(whole) => matches(whole.as_bytes(), path),
            None => matches(pattern.as_bytes(), last_segment(path)),
        },
    };
    let rules = &mut options.cache_control.iter();
    rules
        .find(|rule| fits(&rule.files))
        .map(|rule| &*rule.value)
}

/// Whether a file's name contains a fingerprint: between `.`, `-` and `_`, and before the last `.`, at least 8 hexadecimal
/// digits of one case, letters and digits among them. Dates and plain numbers are none.
fn is_fingerprinted(name: &[u8]) -> bool {
    let end = name.iter().rposition(|&byte| byte == b'.');
    let stem = &name[..end.unwrap_or(name.len())];
    // The first part is the name itself.
    stem.split(|byte| b".-_".contains(byte))
        .skip(1)
        .any(is_fingerprint)
}

fn is_fingerprint(part: &[u8]) -> bool {
    let has = |kind: fn(&u8) -> bool| part.iter().any(kind);
    part.len() >= FINGERPRINT
        && part.iter().all(u8::is_ascii_hexdigit)
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_lowercase) != has(u8::is_ascii_uppercase)
}

fn last_segment(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// Whether a text fits a pattern with `*` for any characters. Each `*` takes as few as possible, and is tried again only
/// until the next one, so that time is at most the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(&byte) if byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((place, taken)) = star else {
                    return false;
                };
                star = Some((place, taken + 1));
                (at, from) = (place + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::CacheControl;

    #[test]
    fn a_star_takes_any_characters() {
        let fits = |pattern: &str, text: &str| matches(pattern.as_bytes(), text.as_bytes());
        for (pattern, text) in [
            ("*", ""),
            ("*", "a/b"),
            ("*.js", "app.js"),
            ("*.js", "a.js.js"),
            ("a*b*c", "aXbbXc"),
            ("assets/*", "assets/a/b.css"),
            ("a**", "a"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("*.js", "app.jsx"), ("a*c", "ab"), ("a", "A")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn fingerprints_are_hexadecimal_with_letters_and_digits() {
        for name in [
            "app.3f2a9c1b.js",
            "base-27e20196a850.css",
            "application_0123456789abcdef0123456789abcdef.css.map",
            "app.3F2A9C1B.js",
            "app.3f2a9c1b.min.js",
        ] {
            assert!(is_fingerprinted(name.as_bytes()), "{name}");
        }
        for name in [
            "app.js",
            "photo-20240101.jpg",
            "app.3f2a9c1.js",
            "3f2a9c1b.js",
            "app.deadbeef.js",
            "report.3f2a9c1b",
            "",
        ] {
            assert!(!is_fingerprinted(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn the_first_pattern_that_fits_decides() {
        let rule = |files, value: &str| CacheControl {
            files,
            value: value.into(),
        };
        let name = |pattern: &str| FilePattern::Name(pattern.into());
        let options = FileOptions {
            cache_control: vec![
                rule(FilePattern::Fingerprinted, "immutable"),
                rule(name("/docs/*"), "max-age=60"),
                rule(name("*.html"), "no-cache"),
            ],
            ..FileOptions::default()
        };
        let of = |path: &str| cache_control(&options, path.as_bytes());
        assert_eq!(of("js/app.3f2a9c1b.js"), Some("immutable"));
        assert_eq!(of("docs/index.html"), Some("max-age=60"));
        assert_eq!(of("old/docs/index.html"), Some("no-cache"));
        assert_eq!(of("docs.css"), None);
    }

    #[test]
    fn the_root_has_no_name_of_its_own() {
        assert_eq!(tried("{path}.html", b"/"), b".html");
        assert_eq!(
            tried("/pages{path}/index.html", b"/a//"),
            b"/pages/a/index.html"
        );
    }
}
