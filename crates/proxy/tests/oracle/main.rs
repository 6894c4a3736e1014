//! HAProxy as the oracle: scripted conversations go through HAProxy and through Gaiola, each set up alike by its own file, and
//! what client and servers saw is compared.
//!
//! What HAProxy did is kept in `haproxy.txt`, so that Gaiola is held to it where no HAProxy is installed. Wanted
//! differences are listed with their reasons in `differences.rs`; what Gaiola does then is kept in `gaiola.txt`, and
//! `docs/decisions/haproxy-differences.md` is made of all that. `UPDATE=1` rewrites the three files, and a person reads
//! the diff. `CONVERSATION=name` shows single conversations.

mod cases;
mod client;
mod conversation;
mod differences;
mod message;
mod peer;
mod play;
mod proxies;
mod record;
mod setup;
mod stage;
mod tls;

use conversation::Conversation;
use proxies::{Gaiola, Haproxy};
use record::Transcripts;
use std::collections::{BTreeMap, BTreeSet};

/// So often HAProxy is asked again where it does not do what was recorded.
const ASKED_AGAIN: usize = 3;

/// The proxy itself: the tests start this binary once more with this test alone.
#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn proxy_process() {
    proxies::run_gaiola();
}

#[test]
fn conversations_have_names_of_their_own() {
    let mut count = BTreeMap::new();
    for conversation in cases::all() {
        *count.entry(conversation.name).or_insert(0) += 1;
    }
    count.retain(|_, count| *count > 1);
    assert_eq!(count, BTreeMap::new());
}

#[test]
fn gaiola_does_what_haproxy_did() {
    let conversations = chosen();
    let gaiola = play::all(&conversations, Gaiola::start);
    if shows(&gaiola) {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        // nextest may run both tests at once: the one that has HAProxy's answers writes all files.
        return;
    }
    let haproxy = record::of_haproxy();
    let mut mistakes = differences::mistakes(&haproxy, &gaiola);
    let listed = differences::listed(&gaiola);
    let otherwise = record::differing(&record::of_gaiola(), &listed);
    mistakes.extend(otherwise.into_iter().map(|(_, how)| how));
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    let document = differences::document(&haproxy, &gaiola);
    assert_eq!(
        record::document(),
        document,
        "docs/decisions/haproxy-differences.md is not what was seen: UPDATE=1 rewrites it"
    );
}

#[test]
fn haproxy_does_what_was_recorded() {
    let Some(version) = Haproxy::version() else {
        gaiola_os::skip::skipped(
            "haproxy_does_what_was_recorded",
            "no haproxy here: `scripts/setup test` installs it",
        );
        return;
    };
    let conversations = chosen();
    let haproxy = play::all(&conversations, Haproxy::start);
    if shows(&haproxy) {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        let gaiola = play::all(&conversations, Gaiola::start);
        record::write(&version, &haproxy, &differences::listed(&gaiola));
        record::write_document(&differences::document(&haproxy, &gaiola));
        return;
    }
    let differing = ever_differing(&record::of_haproxy(), &haproxy, conversations);
    if version == record::version() {
        assert!(differing.is_empty(), "{}", differing.join("\n"));
    } else if !differing.is_empty() {
        println!(
            "NOT COMPARED: HAProxy {version} does otherwise than {}, which haproxy.txt records:\n{}",
            record::version(),
            differing.join("\n")
        );
    }
}

/// How HAProxy differs from what was recorded, whenever it is asked: where two of its timers or two packets race, it
/// does now this, now that.
fn ever_differing(
    recorded: &Transcripts,
    seen: &Transcripts,
    mut conversations: Vec<Conversation>,
) -> Vec<String> {
    let mut differing = record::differing(recorded, seen);
    for _ in 0..ASKED_AGAIN {
        if differing.is_empty() {
            break;
        }
        let names: BTreeSet<_> = differing.into_iter().map(|(name, _)| name).collect();
        conversations.retain(|conversation| names.contains(&conversation.name));
        differing = record::differing(recorded, &play::all(&conversations, Haproxy::start));
    }
    differing.into_iter().map(|(_, how)| how).collect()
}

/// All conversations, or those that are asked for.
fn chosen() -> Vec<Conversation> {
    let mut all = cases::all();
    if let Ok(wanted) = std::env::var("CONVERSATION") {
        all.retain(|conversation| conversation.name.contains(&wanted));
    }
    all
}

/// Prints what was seen, where single conversations were asked for.
fn shows(seen: &Transcripts) -> bool {
    let is_asked = std::env::var_os("CONVERSATION").is_some();
    if is_asked {
        println!("{}", record::render(seen));
    }
    is_asked
}
