//! The files of a state directory: read whole, and written whole or not at all.

use gaiola_wire::document::{self, DocumentError};
use serde::Serialize;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Reads a document: a JSON file with the number of its schema.
///
/// # Errors
/// Where it cannot be read, is not of this type, or was written by a newer program.
pub fn read_document<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(document::decode(&fs::read(path)?)?)
}

/// Writes a document in the schema of the site's placement, like [`write_json`].
///
/// # Errors
/// Where it cannot be written; the old one stays.
pub fn write_document<T: Serialize>(path: &Path, value: &T, schema: u64) -> io::Result<()> {
    write_whole(path, &document::encode(value, schema)?)
}

/// As [`write_document`]; what the file has that `T` does not know is kept.
///
/// # Errors
/// Where it cannot be written, or a newer program wrote the file; the old one stays.
pub fn write_document_over<T>(path: &Path, value: &T, schema: u64) -> io::Result<()>
where
    T: Serialize + serde::de::DeserializeOwned,
{
    let over = fs::read(path).map(|before| document::encode_over(value, &before, schema));
    let text = match over {
        Ok(Err(newer @ DocumentError::Newer(_))) => return Err(newer.into()),
        Ok(Ok(text)) => text,
        // There is none, or it is no document.
        Ok(Err(DocumentError::Json(_))) | Err(_) => document::encode(value, schema)?,
    };
    write_whole(path, &text)
}

/// Reads a file in the form of a message, a document that is no struct, and the schema it is in.
///
/// # Errors
/// As [`read_document`].
pub fn read_message<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<(T, u64)> {
    Ok(document::decode_message(&fs::read(path)?)?)
}

/// Writes a file in the form of a message, in this schema.
///
/// # Errors
/// Where it cannot be written; the old one stays.
pub fn write_message<T: Serialize>(path: &Path, body: &T, schema: u64) -> io::Result<()> {
    write_whole(path, &document::encode_message(body, schema)?)
}

/// Reads a JSON file.
///
/// # Errors
/// Where it cannot be read, or is not of this type.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
}

/// Writes a JSON file, mode 0600, whole or not at all: a crash leaves the old one.
///
/// # Errors
/// Where it cannot be written, such as on a full disk; the old one stays.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_whole(path, &serde_json::to_vec(value)?)
}

pub(super) fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::schema::SCHEMA;
    use serde_json::{Value, json};

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value.json");
        write_json(&path, &1).unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(write_json(&path, &2).is_err());
        assert_eq!(read_json::<u8>(&path).unwrap(), 1);
    }

    #[test]
    fn what_a_file_has_beyond_what_is_known_of_it_is_kept_unless_it_is_too_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keeper.json");
        fs::write(&path, "half a docum").unwrap();
        let config = gaiola_model::keeper::KeeperConfig {
            schema: SCHEMA,
            interface: "eth0".into(),
            address: [10, 77, 1, 1].into(),
            key: None,
            interval_ms: 100,
            vips: Vec::new(),
            maintenance: false,
            udp: None,
        };
        write_document_over(&path, &config, SCHEMA).unwrap();
        let mut json: Value = read_json(&path).unwrap();
        json["motto"] = "open late".into();
        write_json(&path, &json).unwrap();
        let changed = gaiola_model::keeper::KeeperConfig {
            maintenance: true,
            ..config
        };
        write_document_over(&path, &changed, SCHEMA).unwrap();
        let kept: Value = read_json(&path).unwrap();
        assert_eq!(
            (&kept["motto"], &kept["maintenance"]),
            (&json["motto"], &true.into())
        );
        let newer = json!({ "schema": SCHEMA + 1, "lines": 1 });
        write_json(&path, &newer).unwrap();
        assert!(write_document_over(&path, &changed, SCHEMA).is_err());
        assert_eq!(read_json::<Value>(&path).unwrap(), newer);
    }
}
