//! The two templates of `[drill] write`: the body to post, and the path that reads it back.

/// Why a path cannot be made from an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace of the template is not closed.
    #[error("{0:?} has an unmatched brace")]
    UnmatchedBrace(String),
    /// The answer does not have a field that the template needs.
    #[error("the answer has no field {0:?}")]
    NoField(String),
}

/// The body of a write: `{id}` becomes a unique id.
pub fn fill_body(template: &str, id: &str) -> String {
    template.replace("{id}", id)
}

/// The path that reads a write back: each `{FIELD}` becomes that field of the write's answer, escaped for a path.
///
/// ```
/// use gaiola_core::drill::{TemplateError, fill_path};
///
/// let field = |name: &str| (name == "id").then(|| "a b".to_string());
/// assert_eq!(fill_path("/entries/{id}", field), Ok("/entries/a%20b".into()));
/// assert_eq!(fill_path("/entries/{key}", field), Err(TemplateError::NoField("key".into())));
/// ```
pub fn fill_path(
    template: &str,
    field: impl Fn(&str) -> Option<String>,
) -> Result<String, TemplateError> {
    let mut path = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(TemplateError::UnmatchedBrace(template.into()));
        };
        let value = field(name).ok_or_else(|| TemplateError::NoField(name.into()))?;
        path.push_str(before);
        escape(&value, &mut path);
        rest = after;
    }
    path.push_str(rest);
    Ok(path)
}

/// Keeps RFC 3986's unreserved characters, so that no value can leave its place in the path.
fn escape(value: &str, path: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                path.push(char::from(byte))
            }
            b'.' if value != "." && value != ".." => path.push('.'),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_be_json() {
        assert_eq!(
            fill_body(r#"{"text":"{id}"}"#, "r1-7"),
            r#"{"text":"r1-7"}"#
        );
    }

    #[test]
    fn a_value_cannot_leave_its_place() {
        let path = |value: &str| fill_path("/e/{id}?x={id}", |_| Some(value.into())).unwrap();
        assert_eq!(path("7"), "/e/7?x=7");
        assert_eq!(path("../a?b#c"), "/e/..%2Fa%3Fb%23c?x=..%2Fa%3Fb%23c");
        assert_eq!(path(".."), "/e/%2E%2E?x=%2E%2E");
    }

    #[test]
    fn an_open_brace_is_named() {
        let error = fill_path("/e/{id", |_| None).unwrap_err();
        assert_eq!(error, TemplateError::UnmatchedBrace("/e/{id".into()));
    }
}
