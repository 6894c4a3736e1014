//! Compression of responses on their way to the client.

use crate::http::Coding;
use serde::{Deserialize, Serialize};

/// How responses are compressed.
///
/// ```
/// use gaiola_model::content::Compression;
///
/// let default = Compression::default();
/// assert!(default.has_type("text/html") && !default.has_type("image/png"));
/// assert!(!default.has_type("text/event-stream"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compression {
    /// The codings, each with its level; of those that a client likes best, the first is used.
    pub codings: Vec<(Coding, u8)>,
    /// The types of what is compressed, in lower case and without parameters. `*` stands for any characters.
    pub types: Vec<String>,
    /// Shorter responses are left as they are, if their length is known.
    pub min_size: u64,
}

/// Server-sent events.
const EVENTS: &str = "text/event-stream";

/// Types of text, and of formats that are not compressed themselves.
const TYPES: [&str; 13] = [
    "text/*",
    "application/javascript",
    "application/x-javascript",
    "application/json",
    "application/*+json",
    "application/x-ndjson",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "image/svg+xml",
    "image/x-icon",
    "font/otf",
    "font/ttf",
];

impl Compression {
    /// The level of a coding where none is written: one that costs little for what it saves.
    pub const fn default_level(coding: Coding) -> u8 {
        match coding {
            Coding::Brotli => 5,
            Coding::Zstd => 3,
            Coding::Gzip => 5,
        }
    }

    /// Whether responses of this type are compressed. It is in lower case and without parameters.
    /// A stream of events is only if it is named: it may last for hours, and holds its compressor as long.
    pub fn has_type(&self, content_type: &str) -> bool {
        if content_type == EVENTS {
            return self.types.iter().any(|listed| listed == EVENTS);
        }
        self.types
            .iter()
            .any(|listed| match listed.split_once('*') {
                None => listed == content_type,
                Some((start, end)) => {
                    let rest = content_type.strip_prefix(start);
                    rest.is_some_and(|rest| rest.ends_with(end))
                }
            })
    }

    /// The level of a coding.
    pub fn level(&self, coding: Coding) -> u8 {
        let written = self.codings.iter().find(|(known, _)| *known == coding);
        written.map_or(Self::default_level(coding), |(_, level)| *level)
    }
}

impl Default for Compression {
    /// All codings, the cheapest first, for responses of text from 1 KiB on.
    fn default() -> Self {
        let codings = [Coding::Zstd, Coding::Gzip, Coding::Brotli];
        Self {
            codings: codings
                .map(|coding| (coding, Self::default_level(coding)))
                .to_vec(),
            types: TYPES.map(Into::into).to_vec(),
            min_size: 1024,
        }
    }
}
