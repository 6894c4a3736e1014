//! One table of the file, read key by key; each value is returned with its position.

mod wrong;

pub(crate) use wrong::checked;

use super::mistake::{Mistakes, shown};
use super::value::Wrong;
use super::words::Words;
use std::ops::{Range, RangeInclusive};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wrong::{described, string_hint, understood_hint, written, wrong_type};

/// A value and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// An element of a list of strings and tables.
pub(crate) enum Element<'a> {
    Text(At<String>),
    Table(Section<'a>),
}

/// One table of a file.
pub(crate) struct Section<'a> {
    words: &'static Words,
    /// Its kind, as in `words`: `backend`.
    kind: &'static str,
    /// Its full name: `backend.app`.
    name: String,
    /// Position of its name.
    span: Range<usize>,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// The whole file. Its unknown keys are reported.
    pub(crate) fn root(
        table: &'a DeTable<'a>,
        words: &'static Words,
        mistakes: &mut Mistakes<'_>,
    ) -> Self {
        let root = Self {
            words,
            kind: "",
            name: String::new(),
            span: 0..0,
            table,
        };
        root.report_unknown_keys(mistakes);
        root
    }

    /// The table `key`, which is a section of this kind. Its unknown keys are reported.
    pub(crate) fn table(
        &self,
        key: &str,
        kind: &'static str,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Self> {
        let (written, value) = self.table.get_key_value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(self.inner(key, kind, written.span(), table, mistakes)),
            other => {
                let hint = format!("write it as [{}] with its keys below", self.name_of(key));
                wrong_type(key, &value.span(), other, "a table", hint, mistakes);
                None
            }
        }
    }

    /// The tables `[[key]]`, each a section of this kind.
    pub(crate) fn tables(
        &self,
        key: &str,
        kind: &'static str,
        mistakes: &mut Mistakes<'_>,
    ) -> Vec<Self> {
        let Some(value) = self.table.get(key) else {
            return Vec::new();
        };
        let hint = || {
            format!(
                "write each as [[{}]] with its keys below",
                self.name_of(key)
            )
        };
        let DeValue::Array(elements) = value.get_ref() else {
            let (span, value) = (value.span(), value.get_ref());
            wrong_type(key, &span, value, "a list of tables", hint(), mistakes);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for element in elements.iter() {
            match element.get_ref() {
                DeValue::Table(table) => {
                    sections.push(self.inner(key, kind, element.span(), table, mistakes));
                }
                other => {
                    let what = format!("`{key}` holds {}, but must hold tables", described(other));
                    mistakes.add(&element.span(), what, hint());
                }
            }
        }
        sections
    }

    /// Strings and tables of this kind, in a list or a single one; empty if the key is absent.
    pub(crate) fn elements(
        &self,
        key: &str,
        kind: &'static str,
        example: &str,
        mistakes: &mut Mistakes<'_>,
    ) -> Vec<Element<'a>> {
        let Some(value) = self.table.get(key) else {
            return Vec::new();
        };
        let hint = || format!("write it as {key} = {example}, or [{example}]");
        let elements = match value.get_ref() {
            DeValue::Array(elements) => &elements[..],
            _ => std::slice::from_ref(value),
        };
        if elements.is_empty() {
            mistakes.add(&value.span(), format!("`{key}` is empty"), hint());
        }
        self.understood(elements, (key, kind), hint, mistakes)
    }

    /// As [`Self::elements`], in a list only, which may be empty.
    pub(crate) fn listed(
        &self,
        key: &str,
        kind: &'static str,
        example: &str,
        mistakes: &mut Mistakes<'_>,
    ) -> Vec<Element<'a>> {
        let Some(value) = self.table.get(key) else {
            return Vec::new();
        };
        let hint = || format!("write it as {key} = [{example}]");
        match value.get_ref() {
            DeValue::Array(elements) => self.understood(elements, (key, kind), hint, mistakes),
            other => {
                wrong_type(key, &value.span(), other, "a list", hint(), mistakes);
                Vec::new()
            }
        }
    }

    /// These elements of `key`; those of another type are reported and skipped.
    fn understood(
        &self,
        elements: &'a [Spanned<DeValue<'a>>],
        (key, kind): (&str, &'static str),
        hint: impl Fn() -> String,
        mistakes: &mut Mistakes<'_>,
    ) -> Vec<Element<'a>> {
        let mut understood = Vec::new();
        for element in elements {
            let span = element.span();
            understood.extend(match element.get_ref() {
                DeValue::String(text) => Some(Element::Text(At {
                    value: text.to_string(),
                    span,
                })),
                DeValue::Table(table) => {
                    let section = self.inner(key, kind, span, table, mistakes);
                    Some(Element::Table(section))
                }
                other => {
                    wrong_type(key, &span, other, "a string or a table", hint(), mistakes);
                    None
                }
            });
        }
        understood
    }

    fn inner(
        &self,
        key: &str,
        kind: &'static str,
        span: Range<usize>,
        table: &'a DeTable<'a>,
        mistakes: &mut Mistakes<'_>,
    ) -> Self {
        let section = Self {
            words: self.words,
            kind,
            name: self.name_of(key),
            span,
            table,
        };
        section.report_unknown_keys(mistakes);
        section
    }

    fn name_of(&self, key: &str) -> String {
        match &*self.name {
            "" => key.to_owned(),
            name => format!("{name}.{key}"),
        }
    }

    /// Its keys, in the order of the file.
    pub(crate) fn entries(&self) -> Vec<At<&'a str>> {
        let keys = self.table.keys().map(|key| At {
            value: key.get_ref().as_ref(),
            span: key.span(),
        });
        let mut entries: Vec<_> = keys.collect();
        entries.sort_by_key(|entry| entry.span.start);
        entries
    }

    /// Whether `key` is a table rather than a plain value.
    pub(crate) fn has_table(&self, key: &str) -> bool {
        let value = self.table.get(key);
        value.is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)))
    }

    /// The number of elements of `key`, if it is a list.
    pub(crate) fn length(&self, key: &str) -> Option<usize> {
        match self.table.get(key)?.get_ref() {
            DeValue::Array(elements) => Some(elements.len()),
            _ => None,
        }
    }

    /// Position of the value of `key`, if present.
    pub(crate) fn value_span(&self, key: &str) -> Option<Range<usize>> {
        self.table.get(key).map(|value| value.span())
    }

    /// Whether `key` is a string.
    pub(crate) fn has_text(&self, key: &str) -> bool {
        let value = self.table.get(key);
        value.is_some_and(|value| matches!(value.get_ref(), DeValue::String(_)))
    }

    /// The value of `key`, if it is `true` or `false`.
    pub(crate) fn truth(&self, key: &str) -> Option<bool> {
        match self.table.get(key)?.get_ref() {
            DeValue::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }

    /// Position of `key`, if present.
    pub(crate) fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    /// A string, or a list of them; empty if the key is absent.
    pub(crate) fn one_or_more(
        &self,
        key: &str,
        example: &str,
        mistakes: &mut Mistakes<'_>,
    ) -> Vec<At<String>> {
        let value = self.table.get(key).map(|value| value.get_ref());
        match value {
            None => Vec::new(),
            Some(DeValue::Array(_)) => self
                .strings(key, &format!("[{example}]"), mistakes)
                .map_or_else(Vec::new, |list| list.value),
            Some(_) => self
                .string_like(key, example, mistakes)
                .into_iter()
                .collect(),
        }
    }

    /// Position of its name.
    pub(crate) fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// Its full name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(crate) fn string(&self, key: &str, mistakes: &mut Mistakes<'_>) -> Option<At<String>> {
        self.string_or(key, |value| string_hint(key, value), mistakes)
    }

    /// A string, with an `example` for the hint.
    pub(crate) fn string_like(
        &self,
        key: &str,
        example: &str,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<At<String>> {
        self.string_or(key, |_| format!("write it as {key} = {example}"), mistakes)
    }

    /// A string that `check` will parse later. If the value has another type, the hint proposes one that `check`
    /// accepts.
    pub(crate) fn string_for<T>(
        &self,
        key: &str,
        check: impl Fn(&str) -> Result<T, Wrong>,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<At<String>> {
        self.string_or(key, |value| understood_hint(key, value, check), mistakes)
    }

    fn string_or(
        &self,
        key: &str,
        hint: impl FnOnce(&DeValue<'_>) -> String,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<At<String>> {
        let value = self.table.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At {
                value: text.to_string(),
                span: value.span(),
            }),
            other => {
                let hint = hint(other);
                wrong_type(key, &value.span(), other, "a string", hint, mistakes);
                None
            }
        }
    }

    /// A required string; `example` is shown if it is missing.
    pub(crate) fn required(
        &self,
        key: &str,
        example: &str,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<At<String>> {
        self.need(key, example, mistakes);
        self.string(key, mistakes)
    }

    /// Reports a missing required key, with an `example` of it.
    pub(crate) fn need(&self, key: &str, example: &str, mistakes: &mut Mistakes<'_>) {
        if !self.has(key) {
            let what = format!("[{}] has no `{key}`", self.name);
            mistakes.missing(&self.span, what, format!("add {key} = {example}"));
        }
    }

    /// A list of strings; elements of another type are reported and skipped.
    pub(crate) fn strings(
        &self,
        key: &str,
        example: &str,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<At<Vec<At<String>>>> {
        let value = self.table.get(key)?;
        let hint = || format!("write it as {key} = {example}");
        let DeValue::Array(elements) = value.get_ref() else {
            wrong_type(
                key,
                &value.span(),
                value.get_ref(),
                "a list",
                hint(),
                mistakes,
            );
            return None;
        };
        if elements.is_empty() {
            mistakes.add(&value.span(), format!("`{key}` is empty"), hint());
        }
        let mut strings = Vec::new();
        for element in elements.iter() {
            match element.get_ref() {
                DeValue::String(text) => strings.push(At {
                    value: text.to_string(),
                    span: element.span(),
                }),
                other => {
                    let what = format!("`{key}` holds {}, but must hold strings", described(other));
                    mistakes.add(&element.span(), what, hint());
                }
            }
        }
        Some(At {
            value: strings,
            span: value.span(),
        })
    }

    /// A whole number within `range`, or `None` if it is absent or wrong.
    pub(crate) fn number<T>(
        &self,
        key: &str,
        range: RangeInclusive<T>,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
    {
        let value = self.table.get(key)?;
        let (least, most) = (*range.start(), *range.end());
        let DeValue::Integer(integer) = value.get_ref() else {
            let hint = format!("write a number from {least} to {most}, without quotes");
            wrong_type(
                key,
                &value.span(),
                value.get_ref(),
                "a whole number",
                hint,
                mistakes,
            );
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number));
        if number.is_none() {
            let what = format!("`{key}` is {}", integer.as_str());
            let hint = format!("it is from {least} to {most}");
            mistakes.add(&value.span(), what, hint);
        }
        number
    }

    /// A number within `range`, with a fraction or without, or `None` if it is absent or wrong.
    pub(crate) fn fraction(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<f64> {
        let value = self.table.get(key)?;
        let (least, most) = (*range.start(), *range.end());
        let number = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            other => {
                let hint = format!("write a number from {least} to {most}, without quotes");
                wrong_type(key, &value.span(), other, "a number", hint, mistakes);
                return None;
            }
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let what = format!("`{key}` is {}", written(value.get_ref()));
            let hint = format!("it is from {least} to {most}");
            mistakes.add(&value.span(), what, hint);
        }
        number
    }

    /// A string, a number, or `true` or `false`, as text.
    pub(crate) fn plain(&self, key: &str, mistakes: &mut Mistakes<'_>) -> Option<String> {
        let value = self.table.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            DeValue::Boolean(truth) => Some(truth.to_string()),
            other => {
                let hint = format!("write it as {key} = \"...\"");
                wrong_type(key, &value.span(), other, "a string", hint, mistakes);
                None
            }
        }
    }

    pub(crate) fn boolean(&self, key: &str, mistakes: &mut Mistakes<'_>) -> Option<bool> {
        let value = self.table.get(key)?;
        if let DeValue::Boolean(boolean) = value.get_ref() {
            return Some(*boolean);
        }
        let hint = "write true or false, without quotes".into();
        wrong_type(
            key,
            &value.span(),
            value.get_ref(),
            "true or false",
            hint,
            mistakes,
        );
        None
    }

    /// Reports every key that is unknown in this section.
    fn report_unknown_keys(&self, mistakes: &mut Mistakes<'_>) {
        let Some(known) = self.words.keys_of(self.kind) else {
            return;
        };
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let what = match &*self.name {
                    "" => format!("unknown key {}", shown(name)),
                    section => format!("unknown key {} in [{section}]", shown(name)),
                };
                let hint = self.words.unknown(name, self.kind, known);
                mistakes.add(&key.span(), what, hint);
            }
        }
    }
}

/// The string `key` parsed by `check`; `None` if it is absent or wrong.
pub(crate) fn text<T>(
    section: &Section<'_>,
    key: &str,
    check: impl Fn(&str) -> Result<T, Wrong>,
    mistakes: &mut Mistakes<'_>,
) -> Option<T> {
    let written = section.string_for(key, &check, mistakes)?;
    checked(key, &written, check, mistakes)
}
