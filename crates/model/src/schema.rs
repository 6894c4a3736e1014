//! The number of the schema of everything that is stored or sent between processes.
//!
//! A program reads its own schema and the ones before it, and rejects newer ones. All documents of a site are written in one
//! schema, [`Placement::schema`](crate::Placement::schema), which the conductor raises only when every agent, keeper and
//! proxy and the provider of the servers read the next one: while programs are replaced server by server, the older ones still
//! read what the newer ones write.

/// The newest schema that this program reads. 1: version 0.1, which wrote no number. With the feature `next-schema` a program calls
/// itself one newer than it is, so that tests can mix programs of two versions.
pub const SCHEMA: u64 = if cfg!(feature = "next-schema") { 3 } else { 2 };

/// The schema of a document that has no number.
pub const fn unnumbered() -> u64 {
    1
}
