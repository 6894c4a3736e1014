//! Documents: JSON with the number of its schema.
//!
//! A process reads its own schema and the ones before. It rejects a newer one, which it might misread, and names the program
//! that is too old. What a newer program of the same schema has added is kept when a document is written back.

use gaiola_model::schema::{SCHEMA, unnumbered};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const FIELD: &str = "schema";
const BODY: &str = "body";

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// A newer program wrote it.
    #[error(
        "it has schema {0}, which a newer gaiola wrote; this gaiola ({version}) reads up to schema {SCHEMA}: upgrade it on this server",
        version = env!("CARGO_PKG_VERSION")
    )]
    Newer(u64),
    /// It is not the expected JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl From<DocumentError> for std::io::Error {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Json(error) => error.into(),
            newer @ DocumentError::Newer(_) => Self::new(std::io::ErrorKind::Unsupported, newer),
        }
    }
}

/// A struct as JSON with the number of the schema it is written in; anything else as it is.
///
/// # Errors
/// If it has no form in JSON.
pub fn encode(value: &impl Serialize, schema: u64) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&numbered(serde_json::to_value(value)?, schema))
}

/// Reads a document.
///
/// # Errors
/// If a newer program wrote it, or it is something else.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, DocumentError> {
    let json: Value = serde_json::from_slice(text)?;
    readable(&json)?;
    Ok(serde_json::from_value(json)?)
}

/// The number of a document's or message's schema, if this program reads it.
fn readable(json: &Value) -> Result<u64, DocumentError> {
    let schema = match json.get(FIELD) {
        None => unnumbered(),
        Some(number) => number.as_u64().ok_or_else(|| {
            let why = format!("its schema is {number}, which is no number of one");
            DocumentError::Json(serde::de::Error::custom(why))
        })?,
    };
    if schema > SCHEMA {
        return Err(DocumentError::Newer(schema));
    }
    Ok(schema)
}

/// As [`encode`], with what `before` has that `T` does not know.
///
/// # Errors
/// If `before` cannot be read.
pub fn encode_over<T>(value: &T, before: &[u8], schema: u64) -> Result<Vec<u8>, DocumentError>
where
    T: Serialize + DeserializeOwned,
{
    let known = serde_json::to_value(decode::<T>(before)?)?;
    let before: Value = serde_json::from_slice(before)?;
    let mut new = serde_json::to_value(value)?;
    keep_unknown(&mut new, &before, &known);
    Ok(serde_json::to_vec(&numbered(new, schema))?)
}

/// A message as JSON: `{"schema": 2, "body": ...}`; in schema 1 the body alone.
///
/// # Errors
/// If it has no form in JSON.
pub fn encode_message(body: &impl Serialize, schema: u64) -> Result<Vec<u8>, serde_json::Error> {
    match schema {
        ..=1 => serde_json::to_vec(body),
        _ => serde_json::to_vec(&serde_json::json!({ FIELD: schema, BODY: body })),
    }
}

/// Reads a message, and the schema it is in: an answer is written in the same.
///
/// # Errors
/// If a newer program wrote it, or it is something else.
pub fn decode_message<T: DeserializeOwned>(text: &[u8]) -> Result<(T, u64), DocumentError> {
    let mut json: Value = serde_json::from_slice(text)?;
    let schema = readable(&json)?;
    let body = json.get(FIELD).is_some().then(|| json.get_mut(BODY));
    match body.flatten().map(Value::take) {
        Some(body) => Ok((serde_json::from_value(body)?, schema)),
        None => Ok((serde_json::from_value(json)?, unnumbered())),
    }
}

fn numbered(mut json: Value, schema: u64) -> Value {
    if let Value::Object(fields) = &mut json {
        fields.insert(FIELD.into(), schema.into());
    }
    json
}

/// Adds to `new` what `before` has and its type, by which `known` was written again, does not know. Only objects that are still
/// there keep it.
fn keep_unknown(new: &mut Value, before: &Value, known: &Value) {
    let (Value::Object(new), Value::Object(before), Value::Object(known)) = (new, before, known)
    else {
        return;
    };
    for (name, value) in before {
        match (new.get_mut(name), known.get(name)) {
            (Some(new), Some(known)) => keep_unknown(new, value, known),
            (None, None) if !value.is_null() => drop(new.insert(name.clone(), value.clone())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Site {
        name: String,
        servers: BTreeMap<String, Server>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    }

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Server {
        phase: String,
    }

    fn site() -> Site {
        let server = Server {
            phase: "serve".into(),
        };
        Site {
            name: "shop".into(),
            servers: [("lb1".into(), server.clone()), ("lb2".into(), server)].into(),
            failed: None,
        }
    }

    fn text(json: Value) -> Vec<u8> {
        serde_json::to_vec(&json).unwrap()
    }

    #[test]
    fn a_document_carries_its_schema_and_those_before_are_read() {
        let encoded = encode(&site(), SCHEMA).unwrap();
        let json: Value = serde_json::from_slice(&encoded).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(decode::<Site>(&encoded).unwrap(), site());
        let of_0_1 = serde_json::to_vec(&site()).unwrap();
        assert_eq!(decode::<Site>(&of_0_1).unwrap(), site());
        assert_eq!(encode(&7, SCHEMA).unwrap(), b"7");
        assert_eq!(decode::<u64>(b"7").unwrap(), 7);
    }

    #[test]
    fn a_schema_that_is_no_number_is_not_taken_for_none() {
        for schema in [json!("3"), json!(2.5), json!(-1), json!(null)] {
            let text = text(json!({ "schema": schema, "name": "shop", "servers": {} }));
            assert!(decode::<Site>(&text).is_err(), "{schema}");
        }
    }

    #[test]
    fn a_newer_schema_is_rejected_with_the_program_that_is_too_old() {
        let newer = text(json!({ "schema": SCHEMA + 1, "name": "shop" }));
        let error = decode::<Site>(&newer).unwrap_err().to_string();
        assert!(error.contains("schema 3"), "{error}");
        assert!(error.contains("upgrade it on this server"), "{error}");
        assert!(encode_over(&site(), &newer, SCHEMA).is_err());
    }

    #[test]
    fn a_message_is_read_in_every_schema_up_to_ours() {
        for schema in 1..=SCHEMA {
            let text = encode_message(&"report", schema).unwrap();
            assert_eq!(
                decode_message(&text).unwrap(),
                ("report".to_string(), schema)
            );
        }
        assert_eq!(encode_message(&"report", 1).unwrap(), b"\"report\"");
        let newer = encode_message(&"report", SCHEMA + 1).unwrap();
        let error = decode_message::<String>(&newer).unwrap_err();
        assert!(matches!(error, DocumentError::Newer(schema) if schema == SCHEMA + 1));
    }

    #[test]
    fn what_is_not_known_is_kept_where_its_place_still_exists() {
        let before = text(json!({
            "schema": SCHEMA,
            "name": "shop",
            "motto": "open late",
            "servers": {
                "lb1": { "phase": "serve", "host": "m1" },
                "lb9": { "phase": "drain", "host": "m9" },
            },
        }));
        let new: Value =
            serde_json::from_slice(&encode_over(&site(), &before, SCHEMA).unwrap()).unwrap();
        let expected = json!({
            "schema": SCHEMA,
            "name": "shop",
            "motto": "open late",
            "servers": {
                "lb1": { "phase": "serve", "host": "m1" },
                "lb2": { "phase": "serve" },
            },
        });
        assert_eq!(new, expected);
    }

    #[test]
    fn what_is_known_and_taken_away_does_not_come_back() {
        let failed = Site {
            failed: Some("exit status 1".into()),
            ..site()
        };
        let before = encode(&failed, SCHEMA).unwrap();
        let new = encode_over(&site(), &before, SCHEMA).unwrap();
        assert_eq!(decode::<Site>(&new).unwrap(), site());
    }
}
