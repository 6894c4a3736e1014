//! An agent's order on its disk: the placement that it has taken last.

use super::files::write_whole;
use gaiola_core::conduct::OrderId;
use gaiola_model::placement::{Placement, Revision};
use gaiola_wire::document;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use std::{fs, io};

/// A placement and its revision in the store; 0 before it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The store's revision.
    pub revision: Revision,
    /// The placement.
    pub placement: Placement,
}

impl Order {
    /// Writes it, in the schema of its placement. What a newer program has added to the placement is kept: by its text in the store
    /// at this revision, or else by the file, where that holds this very order.
    ///
    /// # Errors
    /// Where it cannot be written; the old one stays.
    pub fn save(&self, path: &Path, stored: Option<&[u8]>) -> io::Result<()> {
        let before = match stored {
            Some(placement) => self.around(placement).ok(),
            None => self.same_in(path),
        };
        let schema = self.placement.schema;
        let text = match before {
            Some(before) => document::encode_over(self, &before, schema)?,
            None => document::encode(self, schema)?,
        };
        write_whole(path, &text)
    }

    /// An order of this revision with a placement as it is in the store.
    fn around(&self, placement: &[u8]) -> serde_json::Result<Vec<u8>> {
        let placement: Value = serde_json::from_slice(placement)?;
        let schema = self.placement.schema;
        serde_json::to_vec(
            &json!({ "schema": schema, "revision": self.revision, "placement": placement }),
        )
    }

    /// The text of a file that holds this order, with what this program does not know.
    fn same_in(&self, path: &Path) -> Option<Vec<u8>> {
        let text = fs::read(path).ok()?;
        let held: Self = document::decode(&text).ok()?;
        (held.id() == self.id()).then_some(text)
    }

    /// Whether a holder of this order takes `newer`: orders that are older or of another site are rejected.
    pub fn yields_to(&self, newer: &Self) -> bool {
        self.id().yields_to(&newer.id())
    }

    fn id(&self) -> OrderId<'_> {
        OrderId {
            incarnation: &self.placement.incarnation,
            revision: self.revision,
        }
    }

    /// Whether `given` may overwrite this one: it may not where it is an older one of the same site.
    pub fn is_replaced_by(&self, given: &Self) -> bool {
        !given.yields_to(self)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use gaiola_model::Inventory;
    use gaiola_model::config::{App, Config};
    use gaiola_model::placement::{Desired, Release, ReleaseNumber};

    pub(crate) fn order(incarnation: &str, revision: u64) -> Order {
        let config = Config::new("site".parse().unwrap(), App::new("run"));
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::numbered(&config, [10, 77]);
        let desired = Desired::first(config, release, inventory);
        Order {
            revision: Revision(revision),
            placement: gaiola_core::rollout::first(&desired, incarnation.into()),
        }
    }

    #[test]
    fn an_order_is_not_written_over_by_an_older_one_of_the_same_site() {
        let held = order("a", 7);
        assert!(held.is_replaced_by(&order("a", 8)));
        assert!(!held.is_replaced_by(&order("a", 6)));
        assert!(held.is_replaced_by(&order("b", 6)));
    }

    #[test]
    fn what_a_newer_program_has_added_to_a_placement_is_kept_with_the_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("placement.json");
        let read = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
        let stored = |motto: &str| {
            let mut placement = serde_json::to_value(order("a", 7).placement).unwrap();
            placement["motto"] = motto.into();
            serde_json::to_vec(&placement).unwrap()
        };
        order("a", 7).save(&path, Some(&stored("early"))).unwrap();
        assert_eq!(read()["placement"]["motto"], "early");
        order("a", 7).save(&path, None).unwrap();
        assert_eq!(read()["placement"]["motto"], "early", "the same order");
        order("a", 8).save(&path, Some(&stored("late"))).unwrap();
        assert_eq!(read()["placement"]["motto"], "late");
        order("a", 9).save(&path, None).unwrap();
        let of_another = &read()["placement"]["motto"];
        assert!(
            of_another.is_null(),
            "{of_another} is of an older placement"
        );
        let held: Order = document::decode(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(held, order("a", 9));
    }
}
