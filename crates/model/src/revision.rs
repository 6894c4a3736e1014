//! The number that orders a store's changes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The store's revision at which a document was last changed. It orders all changes of one store incarnation.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Whether it stands for a revision that was not known when the document was written: its own.
    pub fn is_unknown(&self) -> bool {
        *self == Self(0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
