//! The text of the file.

use super::draft::Draft;
use super::placement::{Placement, Reason};
use gaiola_model::Tier;
use std::fmt::Write as _;

/// A list that would make a longer line has one element per line.
const WIDTH: usize = 100;

/// The whole file.
pub(super) fn write(draft: &Draft) -> String {
    let mut out = format!(
        "# What the site is. `gaiola check` reports mistakes, `gaiola up` brings it up, or applies what changed.\n\
         # Every key: docs/file.md of Gaiola.\n\n\
         site = {}\n\n",
        quoted(&draft.site)
    );
    comment(
        &mut out,
        &where_it_is(draft.placement.as_ref(), draft.database),
    );
    out.push('\n');
    balancer(&mut out, draft);
    web(&mut out, draft);
    app(&mut out, draft);
    workers(&mut out, draft);
    database(&mut out, draft);
    spare(&mut out, draft);
    out
}

/// What the operator should know of the machines, or of the lab.
fn where_it_is(placement: Option<&Placement>, database: bool) -> String {
    let Some(placement) = placement else {
        return "`servers` says how many: `gaiola up` runs them all on this computer, in a lab.\n\
                For machines it says which, in every tier: servers = [\"web-a\", \"web-b\"]. A machine may be in several."
            .into();
    };
    let why = match (placement.reason, placement.count()) {
        (Reason::Names, _) => "Each machine has the tier that its name says.",
        (Reason::Number, 1) => "The machine has every tier.",
        (Reason::Number, 2 | 3) => "Every machine has every tier.",
        (Reason::Number, _) => {
            "The machines have their tiers in the order in which they were named: at least two for each tier."
        }
    };
    let survives = survives(placement, database);
    format!(
        "{why} {survives}\nTo move a tier to other machines, change their names here and run `gaiola up`."
    )
}

/// What the loss of a machine means.
fn survives(placement: &Placement, database: bool) -> &'static str {
    let alone = Tier::ALL
        .into_iter()
        .any(|tier| placement.of_tier(tier).len() == 1);
    match (placement.count(), alone) {
        (1, _) => "If it is lost, so is the site: with three machines any one may be.",
        (_, true) => "A tier on one machine only is lost with it: name two for each.",
        (2, _) if database => {
            "Gaiola's store has room on one of them only: without that one nothing can\n\
             be changed, and no standby becomes the primary. With three machines any one may be lost."
        }
        (2, _) => {
            "Gaiola's store has room on one of them only: without that one nothing can\n\
             be changed. With three machines any one may be lost."
        }
        _ => "Any one of them may be lost.",
    }
}

fn balancer(out: &mut String, draft: &Draft) {
    section(
        out,
        draft,
        Tier::Balancer,
        "Accepts the clients' connections.",
    );
    if draft.placement.is_some() {
        if draft.vips.is_empty() {
            comment(
                out,
                "No virtual addresses: clients connect to the balancers' own, and nobody answers at one that is lost.\n\
                 Where the network lets an address move, name some that no host has, and another balancer takes them\n\
                 over: vips = [\"203.0.113.100/24\"]",
            );
        } else {
            comment(
                out,
                "The addresses that clients use. If a balancer is lost, another one takes over its address.",
            );
        }
        list(out, "vips", &draft.vips);
    }
    comment(
        out,
        "For HTTPS, a file with certificate, chain and key: tls = \"certificates/example.org.pem\"",
    );
    out.push('\n');
}

fn web(out: &mut String, draft: &Draft) {
    let Some(root) = &draft.root else {
        comment(
            out,
            "There was no directory of public files (public, static, dist). With one, add a tier that serves it:\n\
             [web]",
        );
        let example = match draft.placement {
            Some(_) => "servers = [\"web-a\", \"web-b\"]",
            None => "servers = 2",
        };
        comment(out, &format!("{example}\nroot = \"public\""));
        out.push('\n');
        return;
    };
    section(
        out,
        draft,
        Tier::Web,
        "Serves the files of a directory below this file's own, and forwards every other request.",
    );
    let _ = writeln!(out, "root = {}\n", quoted(root));
}

fn app(out: &mut String, draft: &Draft) {
    section(
        out,
        draft,
        Tier::App,
        "Runs the site's own processes, from a copy of this file's directory.",
    );
    comment(out, "How many processes on each server:");
    out.push_str("instances = 1\n");
    let database = if draft.database {
        " DATABASE_URL leads to the primary."
    } else {
        ""
    };
    comment(
        out,
        &format!("The command of one, for `sh -c`. It must listen on $PORT, at $HOST.{database}"),
    );
    let _ = writeln!(out, "run = {}", quoted(&draft.run));
    match &draft.release {
        Some(release) => {
            comment(
                out,
                "Runs once for each release, before any process of it is started:",
            );
            let _ = writeln!(out, "release = {}", quoted(release));
        }
        None => comment(
            out,
            "A command that runs once for each release, such as migrations: release = \"bin/migrate\"",
        ),
    }
    comment(out, "The path that answers 200 once a process can serve:");
    out.push_str("health = \"/up\"\n");
    if !draft.left_out.is_empty() {
        let names = draft.left_out.join(", ");
        comment(
            out,
            &format!("Not run by Gaiola, but in the Procfile: {names}."),
        );
    }
    out.push('\n');
}

fn workers(out: &mut String, draft: &Draft) {
    for (number, (kind, run)) in draft.workers.iter().enumerate() {
        if number == 0 {
            comment(
                out,
                "Processes that no request is sent to, on every application server; servers = 1 for one that may run on one alone.",
            );
        }
        let _ = writeln!(out, "[worker.{kind}]\nrun = {}\n", quoted(run));
    }
}

fn database(out: &mut String, draft: &Draft) {
    if draft.database {
        section(
            out,
            draft,
            Tier::Database,
            "PostgreSQL: one primary; the others follow it, and one takes its place if it is lost.",
        );
    }
}

fn spare(out: &mut String, draft: &Draft) {
    let Some(placement) = &draft.placement else {
        return;
    };
    if placement.spare.is_empty() {
        return;
    }
    out.push_str("\n[machines]\n");
    comment(
        out,
        "Prepared, and without a server: `gaiola scale` takes from here.",
    );
    list(out, "spare", &placement.spare);
}

/// The head of a tier's section, and its servers.
fn section(out: &mut String, draft: &Draft, tier: Tier, what: &str) {
    let _ = writeln!(out, "[{tier}]");
    comment(out, what);
    match &draft.placement {
        Some(placement) => list(out, "servers", placement.of_tier(tier)),
        None => out.push_str("servers = 2\n"),
    }
}

fn comment(out: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "# {line}");
    }
}

fn list(out: &mut String, key: &str, values: &[String]) {
    let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    let line = format!("{key} = [{}]", values.join(", "));
    if line.len() <= WIDTH {
        let _ = writeln!(out, "{line}");
        return;
    }
    let lines: String = values
        .iter()
        .map(|value| format!("    {value},\n"))
        .collect();
    let _ = writeln!(out, "{key} = [\n{lines}]");
}

/// A string of TOML. A literal one where that saves escapes.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() && c != '\'';
    if text.contains(['"', '\\']) && text.chars().all(is_plain) {
        return format!("'{text}'");
    }
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
