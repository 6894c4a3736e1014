//! What was seen, as text: what HAProxy did is kept in `haproxy.txt`, and in `gaiola.txt` what Gaiola did otherwise.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// By the conversation's name.
pub(crate) type Transcripts = BTreeMap<String, Vec<String>>;

const HEADING: &str = "HAProxy ";

/// What HAProxy did when it was last recorded.
pub(crate) fn of_haproxy() -> Transcripts {
    parse(&kept("haproxy.txt"))
}

/// What Gaiola did where that is something else.
pub(crate) fn of_gaiola() -> Transcripts {
    parse(&kept("gaiola.txt"))
}

fn parse(text: &str) -> Transcripts {
    let mut transcripts = Transcripts::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(new) = line.strip_prefix("# ") {
            new.clone_into(&mut name);
            transcripts.insert(name.clone(), Vec::new());
        } else if let Some(lines) = transcripts.get_mut(&name)
            && !line.is_empty()
        {
            lines.push(line.to_owned());
        }
    }
    transcripts
}

/// The HAProxy that it was.
pub(crate) fn version() -> String {
    let kept = kept("haproxy.txt");
    let first = kept.lines().next().unwrap_or_default();
    first.trim_start_matches(HEADING).to_owned()
}

pub(crate) fn write(version: &str, haproxy: &Transcripts, gaiola: &Transcripts) {
    let text = format!("{HEADING}{version}\n\n{}", render(haproxy));
    std::fs::write(file("haproxy.txt"), text).unwrap();
    std::fs::write(file("gaiola.txt"), render(gaiola)).unwrap();
}

pub(crate) fn render(transcripts: &Transcripts) -> String {
    let mut text = String::new();
    for (name, lines) in transcripts {
        writeln!(text, "# {name}\n{}\n", lines.join("\n")).unwrap();
    }
    text
}

/// The conversations whose transcripts differ, with how they do.
pub(crate) fn differing(recorded: &Transcripts, seen: &Transcripts) -> Vec<(String, String)> {
    let mut differing = Vec::new();
    for (name, lines) in seen {
        let how = match recorded.get(name) {
            None => "not recorded yet; UPDATE=1 does".to_owned(),
            Some(recorded) if recorded != lines => format!(
                "\n--- recorded\n{}\n--- seen\n{}\n",
                recorded.join("\n"),
                lines.join("\n")
            ),
            Some(_) => continue,
        };
        differing.push((name.clone(), format!("{name}: {how}")));
    }
    differing
}

/// The list of differences as it stands in the documentation.
pub(crate) fn document() -> String {
    std::fs::read_to_string(document_file()).unwrap_or_default()
}

pub(crate) fn write_document(text: &str) {
    std::fs::write(document_file(), text).unwrap();
}

fn kept(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_default()
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/oracle")
        .join(name)
}

fn document_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/decisions/haproxy-differences.md")
}
