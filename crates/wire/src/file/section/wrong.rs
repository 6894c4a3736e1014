//! Values of another type than their key needs, and what to write instead.

use super::At;
use crate::file::mistake::{Mistakes, shown};
use crate::file::value::Wrong;
use std::ops::Range;
use toml::de::DeValue;

pub(crate) fn checked<T>(
    key: &str,
    written: &At<String>,
    check: impl Fn(&str) -> Result<T, Wrong>,
    mistakes: &mut Mistakes<'_>,
) -> Option<T> {
    match check(&written.value) {
        Ok(value) => Some(value),
        Err((what, hint)) => {
            let what = format!("`{key}` {} {what}", shown(&written.value));
            mistakes.add(&written.span, what, hint);
            None
        }
    }
}

pub(super) fn wrong_type(
    key: &str,
    span: &Range<usize>,
    value: &DeValue<'_>,
    wanted: &str,
    hint: String,
    mistakes: &mut Mistakes<'_>,
) {
    let what = format!("`{key}` is {}, but must be {wanted}", described(value));
    mistakes.add(span, what, hint);
}

pub(super) fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A plain value as written; for others, their type.
pub(super) fn written(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(integer) => integer.as_str().to_owned(),
        DeValue::Float(float) => float.as_str().to_owned(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        other => described(other).to_owned(),
    }
}

/// What to write instead of a value so that `check` accepts it.
pub(super) fn understood_hint<T>(
    key: &str,
    value: &DeValue<'_>,
    check: impl Fn(&str) -> Result<T, Wrong>,
) -> String {
    let plain = match value {
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => written(value),
        _ => return string_hint(key, value),
    };
    let Err((_, hint)) = check(&plain) else {
        return string_hint(key, value);
    };
    let port = format!(":{plain}");
    if check(&port).is_ok() {
        return format!("write it as {key} = \"{port}\"");
    }
    // Some of HAProxy's plain numbers are milliseconds and some are seconds: the hint does not guess which was meant.
    let units = ["ms", "s", "d", "B"].map(|unit| format!("{plain}{unit}"));
    let units = units.iter().filter(|with_unit| check(with_unit).is_ok());
    let units: Vec<_> = units.map(|with_unit| format!("\"{with_unit}\"")).collect();
    if units.is_empty() {
        hint
    } else {
        format!("write it with its unit: {key} = {}", units.join(" or "))
    }
}

pub(super) fn string_hint(key: &str, value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
            format!("write it in quotes: {key} = \"{}\"", written(value))
        }
        _ => format!("write one value in quotes: {key} = \"...\""),
    }
}
