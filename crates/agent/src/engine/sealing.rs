//! The key that opens the operator's secrets, on an application server.

use super::Secrets;
use crate::state::{read_document, read_json, write_json};
use gaiola_net::seal::SealingKey;
use std::io;
use std::path::Path;

/// Its file in a server's directory, where that has no passwords of the database to derive it from.
const FILE: &str = "sealing-key.json";

/// The key of the server with this directory; `None`: it has none yet.
pub fn key_of(folder: &Path) -> Option<SealingKey> {
    let passwords = read_document::<Secrets>(&folder.join("secrets.json"));
    let derived = passwords.ok().map(|passwords| passwords.sealing_key());
    let kept = || SealingKey::from_hex(&read_json::<String>(&folder.join(FILE)).ok()?);
    derived.or_else(kept)
}

/// Keeps the key for the server with this directory, mode 0600.
///
/// # Errors
/// Where it cannot be written.
pub fn keep_key(folder: &Path, key: &SealingKey) -> io::Result<()> {
    write_json(&folder.join(FILE), &key.to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::write_document;
    use gaiola_model::schema::SCHEMA;

    #[test]
    fn a_server_with_the_passwords_has_the_key_and_another_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(key_of(folder.path()), None);
        let passwords = Secrets::generate().unwrap();
        let key = passwords.sealing_key();
        keep_key(folder.path(), &key).unwrap();
        assert_eq!(key_of(folder.path()), Some(key.clone()));
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        write_document(&folder.path().join("secrets.json"), &passwords, SCHEMA).unwrap();
        assert_eq!(key_of(folder.path()), Some(key));
    }
}
