//! Header fields that rules set, add and remove.

use super::RuleError;
use super::template::{Template, Values};
use crate::forward::speaks_of_the_hop;
use crate::route::is_token;
use gaiola_model::proxy::HeaderEdit;

const HSTS: &str = "Strict-Transport-Security";

/// Whose fields are changed: the request's or the response's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// All changes of one direction, reduced to the fields to remove and the lines to add.
#[derive(Clone, Debug, Default)]
pub(super) struct Edits {
    /// Names in lower case.
    removed: Vec<Box<[u8]>>,
    added: Vec<(String, Template)>,
    /// `Strict-Transport-Security` for clients that use HTTPS.
    hsts: Option<Template>,
}

impl Edits {
    /// Adds a change.
    pub(super) fn add(&mut self, edit: &HeaderEdit, direction: Direction) -> Result<(), RuleError> {
        match edit {
            HeaderEdit::Set { name, value } => {
                self.remove(check(name, direction)?, direction);
                self.added.push((name.clone(), Template::value(value)?));
            }
            HeaderEdit::Add { name, value } => {
                let name = check(name, direction)?;
                self.added.push((name.into(), Template::value(value)?));
            }
            HeaderEdit::Remove { name } => self.remove(check(name, direction)?, direction),
        }
        Ok(())
    }

    /// Sends the field only to clients that use HTTPS, and replaces the server's.
    pub(super) fn set_hsts(&mut self, value: &str) -> Result<(), RuleError> {
        self.remove(HSTS, Direction::Response);
        self.hsts = Some(Template::value(value)?);
        Ok(())
    }

    fn remove(&mut self, name: &str, direction: Direction) {
        let name = compared(name, direction);
        self.added
            .retain(|(other, _)| compared(other, direction) != name);
        if name.eq_ignore_ascii_case(HSTS) {
            self.hsts = None;
        }
        self.removed.push(name.into_bytes().into_boxed_slice());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.hsts.is_none()
    }

    pub(super) fn removed(&self) -> &[Box<[u8]>] {
        &self.removed
    }

    /// Appends the lines to add.
    pub(super) fn write(&self, known: &Values<'_>, path: &[u8], out: &mut Vec<u8>) {
        let hsts = self.hsts.iter().filter(|_| known.https);
        let hsts = hsts.map(|value| (HSTS, value));
        let added = self.added.iter().map(|(name, value)| (&**name, value));
        for (name, value) in added.chain(hsts) {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            value.write(known, path, out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The form in which names to remove are compared: servers that turn names into variables treat `_` and `-` alike;
/// browsers do not.
fn compared(name: &str, direction: Direction) -> String {
    let name = name.to_ascii_lowercase();
    match direction {
        Direction::Request => name.replace('_', "-"),
        Direction::Response => name,
    }
}

/// Rules may not set fields about framing, the connection or the hops: two readers of one message could then understand
/// it differently.
fn check(name: &str, direction: Direction) -> Result<&str, RuleError> {
    if !is_token(name) {
        return Err(RuleError::FieldName(name.into()));
    }
    if name.eq_ignore_ascii_case("host") && direction == Direction::Request {
        return Err(RuleError::HostField);
    }
    if speaks_of_the_hop(name.as_bytes()) {
        return Err(RuleError::HopField(name.into()));
    }
    Ok(name)
}
