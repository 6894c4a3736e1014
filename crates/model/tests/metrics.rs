//! The tables in `docs/metrics.md` are made from [`gaiola_model::metric`]. `UPDATE=1` rewrites them.

use gaiola_model::metric::{AGENT, About, PROCESS, PROXY, SITE};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Each heading of the document that a table follows, and the families in it.
const TABLES: [(&str, [&[&About]; 2]); 3] = [
    ("## Metrics of a proxy", [PROXY, PROCESS]),
    ("## Metrics of an agent", [AGENT, PROCESS]),
    ("## Metrics of the status page", [SITE, &[]]),
];

fn table<'a>(families: impl Iterator<Item = &'a &'a About>) -> String {
    let mut table = String::from("| name | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
    for About {
        name,
        kind,
        help,
        labels,
        ..
    } in families
    {
        let labels = labels.join(", ");
        let meaning = help.strip_suffix('.').unwrap_or(help);
        let space = if labels.is_empty() { "" } else { " " };
        writeln!(table, "| `{name}` | {kind} |{space}{labels} | {meaning} |").unwrap();
    }
    table
}

/// The document with the table that follows this heading replaced.
fn replaced(document: &str, heading: &str, table: &str) -> String {
    let at = document
        .find(&format!("{heading}\n"))
        .unwrap_or_else(|| panic!("no {heading}"));
    let begin = at + document[at..].find("| name |").unwrap();
    let end = begin + document[begin..].find("\n\n").unwrap() + 1;
    format!("{}{table}{}", &document[..begin], &document[end..])
}

#[test]
fn the_documentation_lists_every_family() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let document = std::fs::read_to_string(&file).unwrap();
    let mut wanted = document.clone();
    for (heading, families) in TABLES {
        wanted = replaced(&wanted, heading, &table(families.into_iter().flatten()));
    }
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(file, wanted).unwrap();
    }
    assert_eq!(
        document, wanted,
        "docs/metrics.md lists other families: UPDATE=1 rewrites it"
    );
}
