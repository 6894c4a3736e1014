//! The differences between Gaiola and HAProxy, with reasons.

mod list;

use super::record::{self, Transcripts};
use list::DIFFERENCES;
use std::fmt::Write;

/// Errors of the list: conversations that differ without a reason, or have a reason and do not differ.
pub(crate) fn mistakes(haproxy: &Transcripts, gaiola: &Transcripts) -> Vec<String> {
    let listed: Vec<&str> = DIFFERENCES
        .iter()
        .flat_map(|difference| difference.conversations)
        .copied()
        .collect();
    let differing = record::differing(haproxy, gaiola).into_iter();
    let mut mistakes: Vec<_> = differing
        .filter(|(name, _)| !listed.contains(&&**name))
        .map(|(_, how)| how)
        .collect();
    for name in &listed {
        match (haproxy.get(*name), gaiola.get(*name)) {
            (_, None) => mistakes.push(format!(
                "{name}: listed as different, and there is no such conversation"
            )),
            (Some(one), Some(other)) if one == other => {
                mistakes.push(format!("{name}: listed as different, and both do the same"));
            }
            _ => {}
        }
        if listed.iter().filter(|other| other == &name).count() > 1 {
            mistakes.push(format!("{name}: listed twice"));
        }
    }
    mistakes
}

/// What Gaiola did in the conversations that are listed.
pub(crate) fn listed(gaiola: &Transcripts) -> Transcripts {
    let names = DIFFERENCES
        .iter()
        .flat_map(|difference| difference.conversations);
    let listed = names.filter_map(|name| gaiola.get_key_value(*name));
    listed
        .map(|(name, lines)| (name.clone(), lines.clone()))
        .collect()
}

/// The list for users of HAProxy.
pub(crate) fn document(haproxy: &Transcripts, gaiola: &Transcripts) -> String {
    let mut text = format!(
        "# Differences from HAProxy\n\n\
         The same {} conversations go through HAProxy {} and through Gaiola with equivalent configurations\n\
         (`crates/proxy/tests/oracle`). In {} of them client or servers see a difference. They are listed here with reasons; the exact\n\
         observations are in `haproxy.txt` and `gaiola.txt` there. The tests generate this page, and fail if it is outdated. They do not\n\
         compare the bodies of the proxies' own responses, `Date`, `Via` and `X-Request-ID`, the case and the order of field names, and\n\
         how a body is divided into chunks.\n",
        gaiola.len(),
        record::version(),
        listed(gaiola).len(),
    );
    for difference in DIFFERENCES {
        let _ = writeln!(text, "\n## {}\n\n{}\n", difference.what, difference.why);
        for name in difference.conversations {
            let (one, other) = contrast(&haproxy[*name], &gaiola[*name]);
            let _ = writeln!(text, "- {name}: HAProxy {one}, Gaiola {other}");
        }
    }
    text
}

/// What the client saw in either; where that is the same, what is only in one of them.
fn contrast(one: &[String], other: &[String]) -> (String, String) {
    let (of_one, of_other) = (outcome(one), outcome(other));
    if of_one != of_other {
        return (of_one, of_other);
    }
    let only = |these: &[String], those: &[String]| {
        let only: Vec<_> = these.iter().filter(|line| !those.contains(line)).collect();
        match only[..] {
            [] => "nothing more".to_owned(),
            [first, ..] => format!("`{}`", first.trim()),
        }
    };
    (only(one, other), only(other, one))
}

/// What the client saw, in words.
fn outcome(lines: &[String]) -> String {
    let of_client = lines.iter().take_while(|line| !line.starts_with("server "));
    let words =
        of_client.filter(|line| !line.starts_with([' ', '"']) || line.contains("broken off"));
    let words = words.map(|line| match line.strip_prefix("HTTP/1.") {
        Some(status) => status.get(2..5).unwrap_or_default(),
        None => line.split(',').next().unwrap_or_default().trim(),
    });
    words.collect::<Vec<_>>().join(", ")
}
