//! Plays `scenarios/vrrp*.txt`: balancers of one VIP on a network that loses nothing and takes a millisecond.
//!
//! A scenario is a line of routers with their priorities, then what happens and when, then what the routers did, which
//! `UPDATE=1` rewrites. What an Active router does over and over (advertise, refresh, announce) is left out.

#[path = "vrrp/play.rs"]
mod play;

use std::path::Path;

#[test]
fn scenarios_end_as_they_are_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut played = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("vrrp") || !name.ends_with(".txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (script, expected) = text.split_once("\n---\n").unwrap_or((&text, ""));
        let transcript = play::play(script);
        if std::env::var_os("UPDATE").is_some() {
            let whole = format!("{}\n---\n{transcript}", script.trim_end());
            std::fs::write(&path, whole).unwrap();
        } else {
            assert_eq!(transcript, expected, "{name}");
        }
        played += 1;
    }
    assert!(played > 0);
}
