//! The conversations, by what they are about.

mod bad_requests;
mod bad_responses;
mod framing;
mod headers;
mod retries;
mod reuse;
mod rules;
mod sticky;
mod streams;
mod timeouts;
mod tls;
mod tls_servers;
mod upgrades;

use super::conversation::Conversation;

pub(crate) fn all() -> Vec<Conversation> {
    [
        framing::all(),
        reuse::all(),
        headers::all(),
        retries::all(),
        timeouts::all(),
        upgrades::all(),
        sticky::all(),
        rules::all(),
        streams::all(),
        tls::all(),
        tls_servers::all(),
        bad_requests::all(),
        bad_responses::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
