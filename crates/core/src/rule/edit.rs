//! Header fields that rules set, add and leave out.

use super::template::{Known, Template};
use crate::forward::speaks_of_the_hop;
use crate::route::is_token;
use gaiola_model::proxy::HeaderEdit;

const HSTS: &str = "Strict-Transport-Security";

/// Whose fields are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// All changes of one direction, reduced to what is left out of what came and what is added to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Edits {
    /// Names in small letters.
    removed: Vec<Box<[u8]>>,
    added: Vec<(String, Template)>,
    /// What is said as `Strict-Transport-Security` to a client that came by HTTPS.
    hsts: Option<Template>,
}

impl Edits {
    /// Makes a further change.
    pub(super) fn add(&mut self, edit: &HeaderEdit, direction: Direction) -> Result<(), String> {
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

    /// Has the field said to those alone who came by HTTPS, in the place of what a server says.
    pub(super) fn set_hsts(&mut self, value: &str) -> Result<(), String> {
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

    /// Appends the lines that are added.
    pub(super) fn write(&self, known: &Known<'_>, path: &[u8], out: &mut Vec<u8>) {
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

/// A name as fields are left out by it: servers that turn names into variables do not tell `_` from `-`; browsers do.
fn compared(name: &str, direction: Direction) -> String {
    let name = name.to_ascii_lowercase();
    match direction {
        Direction::Request => name.replace('_', "-"),
        Direction::Response => name,
    }
}

/// Framing, the connection, and who was on the way are never a rule's to say: two readers of one message could
/// understand it differently.
fn check(name: &str, direction: Direction) -> Result<&str, String> {
    if !is_token(name) {
        return Err(format!("{name:?} is no header field's name"));
    }
    if name.eq_ignore_ascii_case("host") && direction == Direction::Request {
        return Err("`Host` is not changed as a header field: there is a rule of its own".into());
    }
    if speaks_of_the_hop(name.as_bytes()) {
        return Err(format!(
            "`{name}` is no rule's to change: it is about the connection, and the proxy says it itself"
        ));
    }
    Ok(name)
}
