//! Where Gaiola does otherwise than HAProxy, and why it should.

mod list;

use super::record::{self, Transcripts};
use list::DIFFERENCES;
use std::fmt::Write;

/// What is not as it is listed: conversations that differ without a reason, or have a reason and do not differ.
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

/// The list for those who come from HAProxy.
pub(crate) fn document(haproxy: &Transcripts, gaiola: &Transcripts) -> String {
    let mut text = format!(
        "# Where Gaiola does otherwise than HAProxy\n\n\
         The same {} conversations go through HAProxy {} and through Gaiola, set up alike (`crates/proxy/tests/oracle`). In {} of them\n\
         client or servers see something else. Here they are, each with the reason; the exact observations are in `haproxy.txt` and\n\
         `gaiola.txt` there. The tests make this page, and fail when it is not what they see. Not compared is what is a matter of taste: the\n\
         words of answers that a proxy makes itself, `Date`, `Via` and `X-Request-ID`, the case and the order of field names, and how a\n\
         body is cut into chunks.\n",
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
