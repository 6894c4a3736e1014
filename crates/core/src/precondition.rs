//! Conditional requests for a file, in the order of RFC 9110, section 13.2.2.

/// The condition fields of a request. Dates that cannot be read are left out, as if they were not there.
#[derive(Clone, Debug, Default)]
pub struct Conditions<'a> {
    /// The values of `If-Match`, one for each line.
    pub if_match: Vec<&'a str>,
    /// `If-Unmodified-Since`, in seconds since the epoch.
    pub if_unmodified_since: Option<u64>,
    /// The values of `If-None-Match`, one for each line.
    pub if_none_match: Vec<&'a str>,
    /// `If-Modified-Since`, in seconds since the epoch.
    pub if_modified_since: Option<u64>,
}

/// What identifies a version of a representation.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// Its strong entity tag with its quotes, if it is known.
    pub etag: Option<&'a str>,
    /// When it was last modified, in seconds since the epoch.
    pub modified: u64,
}

/// How a GET or HEAD is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As one without conditions.
    Proceed,
    /// 304: the client has this version.
    NotModified,
    /// 412: it is not the version that the client wants.
    Failed,
}

/// How a GET or HEAD of a representation that exists is answered.
///
/// ```
/// use gaiola_core::precondition::{Conditions, Validators, Verdict, evaluate};
///
/// let current = Validators { etag: Some("\"v2\""), modified: 100 };
/// let has = Conditions { if_none_match: vec!["\"v1\", W/\"v2\""], ..Conditions::default() };
/// assert_eq!(evaluate(&has, current), Verdict::NotModified);
/// let wants = Conditions { if_match: vec!["\"v1\""], ..Conditions::default() };
/// assert_eq!(evaluate(&wants, current), Verdict::Failed);
/// ```
pub fn evaluate(asked: &Conditions<'_>, current: Validators<'_>) -> Verdict {
    let wanted = match (&asked.if_match[..], asked.if_unmodified_since) {
        ([], None) => true,
        ([], Some(since)) => current.modified <= since,
        (tags, _) => lists(tags, current.etag, Comparison::Strong),
    };
    if !wanted {
        return Verdict::Failed;
    }
    let has = match (&asked.if_none_match[..], asked.if_modified_since) {
        ([], None) => false,
        ([], Some(since)) => current.modified <= since,
        (tags, _) => lists(tags, current.etag, Comparison::Weak),
    };
    if has {
        Verdict::NotModified
    } else {
        Verdict::Proceed
    }
}

/// How two entity tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether one of these lists names this tag, or any version.
fn lists(values: &[&str], etag: Option<&str>, comparison: Comparison) -> bool {
    values.iter().any(|value| {
        let mut tags = Tags(value);
        value.trim() == "*"
            || tags.any(|(tag, is_weak)| {
                Some(tag) == etag && !(is_weak && comparison == Comparison::Strong)
            })
    })
}

/// The tags of a list, and whether each is weak. It ends where the list cannot be read.
struct Tags<'a>(&'a str);

impl<'a> Iterator for Tags<'a> {
    type Item = (&'a str, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_start_matches([' ', '\t', ',']);
        let (rest, is_weak) = match rest.strip_prefix("W/") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let end = rest.strip_prefix('"')?.find('"')? + 2;
        self.0 = &rest[end..];
        Some((&rest[..end], is_weak))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: Validators<'_> = Validators {
        etag: Some("\"a,b\""),
        modified: 100,
    };

    fn verdict(set: impl FnOnce(&mut Conditions<'_>)) -> Verdict {
        let mut asked = Conditions::default();
        set(&mut asked);
        evaluate(&asked, CURRENT)
    }

    #[test]
    fn a_client_that_wants_another_version_gets_none() {
        let with = |tags| verdict(|asked| asked.if_match = vec![tags]);
        assert_eq!(with("\"x\", \"a,b\""), Verdict::Proceed);
        assert_eq!(with("*"), Verdict::Proceed);
        assert_eq!(with("\"x\""), Verdict::Failed);
        assert_eq!(with("\"a\",\"b\""), Verdict::Failed);
        // A weak tag never identifies the bytes.
        assert_eq!(with("W/\"a,b\""), Verdict::Failed);
        assert_eq!(with("nonsense"), Verdict::Failed);
        let since = |at| verdict(|asked| asked.if_unmodified_since = Some(at));
        assert_eq!(since(100), Verdict::Proceed);
        assert_eq!(since(99), Verdict::Failed);
    }

    #[test]
    fn a_client_that_has_the_version_gets_it_not_again() {
        let with = |tags| verdict(|asked| asked.if_none_match = vec!["\"x\"", tags]);
        assert_eq!(with("W/\"a,b\""), Verdict::NotModified);
        assert_eq!(with("\"a,b\""), Verdict::NotModified);
        assert_eq!(with("*"), Verdict::NotModified);
        assert_eq!(with("\"y\""), Verdict::Proceed);
        let since = |at| verdict(|asked| asked.if_modified_since = Some(at));
        assert_eq!(since(100), Verdict::NotModified);
        assert_eq!(since(99), Verdict::Proceed);
    }

    #[test]
    fn a_tag_comes_before_a_date_and_wanting_before_having() {
        let order = verdict(|asked| {
            asked.if_match = vec!["\"a,b\""];
            asked.if_unmodified_since = Some(0);
        });
        assert_eq!(order, Verdict::Proceed);
        let order = verdict(|asked| {
            asked.if_none_match = vec!["\"x\""];
            asked.if_modified_since = Some(100);
        });
        assert_eq!(order, Verdict::Proceed);
        let order = verdict(|asked| {
            asked.if_match = vec!["\"x\""];
            asked.if_none_match = vec!["\"a,b\""];
        });
        assert_eq!(order, Verdict::Failed);
    }

    #[test]
    fn a_tag_that_is_not_known_yet_is_none_of_the_clients() {
        let unknown = Validators {
            etag: None,
            modified: 100,
        };
        let has = Conditions {
            if_none_match: vec!["\"a,b\""],
            ..Conditions::default()
        };
        assert_eq!(evaluate(&has, unknown), Verdict::Proceed);
    }
}
