//! Where a timeline left the one before it, from PostgreSQL's own file.

use std::fs;
use std::path::Path;

/// The last line of the history file of `timeline` below a data directory, as `2 at 0/50000A0`; `None` on the first timeline,
/// which has none, and where it cannot be read.
pub(super) fn read(data: &Path, timeline: u64) -> Option<String> {
    let path = data.join(format!("pg_wal/{timeline:08X}.history"));
    last(&fs::read_to_string(path).ok()?)
}

/// Each line is the parent's timeline, the place of the switch and a reason, with tabs between.
fn last(text: &str) -> Option<String> {
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    let mut words = line.split_whitespace();
    let (parent, place) = (words.next()?, words.next()?);
    let is_place = place.contains('/') && parent.parse::<u64>().is_ok();
    is_place.then(|| format!("{parent} at {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_switch_is_found() {
        let text = "1\t0/40000A0\tno recovery target specified\n\n2\t0/50000A0\tno recovery target specified\n";
        assert_eq!(last(text).unwrap(), "2 at 0/50000A0");
        assert_eq!(last(""), None);
        assert_eq!(last("half a li"), None);
    }

    #[test]
    fn the_file_is_named_in_hexadecimal() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pg_wal")).unwrap();
        fs::write(dir.path().join("pg_wal/0000001A.history"), "25\t1/2\tx\n").unwrap();
        assert_eq!(read(dir.path(), 26).unwrap(), "25 at 1/2");
        assert_eq!(read(dir.path(), 1), None);
    }
}
