//! The logs of a server's processes: searched for reasons, and kept from filling the disk.

use super::secrets::Hidden;
use gaiola_core::cause;
use gaiola_store::etcd;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// A log that grows past this is cut.
const LARGEST: u64 = 8 * 1024 * 1024;
/// Bytes kept of it, in a file with `.1` appended to its name.
const KEPT: u64 = 4 * 1024 * 1024;
/// Interval between two checks of their sizes.
const INTERVAL: Duration = Duration::from_secs(10);
/// How much of a log's end is searched for a reason: enough for a stack of some hundred frames.
const SEARCHED: u64 = 16 * 1024;

/// What the heading of a run begins with, in a log that several runs of one cron write.
pub(super) const HEADING: &str = "==> cron ";

/// The logs in one directory.
pub(super) struct Keeper {
    folder: PathBuf,
    next: Instant,
    trouble: Option<String>,
}

impl Keeper {
    /// The logs in `folder`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            next: Instant::now(),
            trouble: None,
        }
    }

    /// Cuts logs that have grown too long, at intervals.
    pub(super) fn tick(&mut self) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + INTERVAL;
        self.trouble = cut_all(&self.folder).err().map(|error| {
            format!(
                "cannot bound the logs in {}: {error}",
                self.folder.display()
            )
        });
    }

    /// Why logs could not be bounded, such as a full disk.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// The line that gives the reason why a process ended, as `: LINE` without secrets; empty without
    /// output.
    pub(super) fn cause(&self, process: &str, hidden: Hidden<'_>) -> String {
        let text = self.tail(process, hidden);
        if let Some(words) = etcd::last_words(&text).filter(|_| process == "etcd") {
            return format!(": {words}");
        }
        cause::of(&text)
            .map(|line| format!(": {line}"))
            .unwrap_or_default()
    }

    /// The last lines that a process wrote, as `: LINES`, preceded by the one that gives the reason if that is further up;
    /// empty without output. Secrets are hidden. In a log that several runs write, only what comes after a run's heading is its own.
    pub(super) fn end(&self, process: &str, heading: Option<&str>, hidden: Hidden<'_>) -> String {
        let text = self.tail(process, hidden);
        let text = heading.map_or(&*text, |heading| after(heading, &text));
        let mut lines: Vec<&str> = text
            .lines()
            .rev()
            .filter(|line| !line.trim().is_empty())
            .take(5)
            .collect();
        lines.reverse();
        let cause = cause::of(text).unwrap_or_default();
        if !cause.is_empty() && !lines.iter().any(|line| cause.starts_with(line.trim())) {
            lines.insert(0, &cause);
        }
        if lines.is_empty() {
            String::new()
        } else {
            format!(": {}", lines.join(" | "))
        }
    }

    /// The end of a log. Secrets are hidden before anything is cut out of it, since a part of one would not be recognized.
    fn tail(&self, process: &str, hidden: Hidden<'_>) -> String {
        let file = self.folder.join(format!("{process}.log"));
        let text = read_tail(&file, SEARCHED).unwrap_or_default();
        hidden.from(&text)
    }
}

/// What a run wrote: what comes after its heading, or all of it if it wrote so much that no heading is left.
fn after<'a>(heading: &str, text: &'a str) -> &'a str {
    let begins = |line: &str| line.starts_with(HEADING);
    match text.rsplit_once(&format!("{heading}\n")) {
        Some((_, own)) => own,
        None if text.lines().any(begins) => "",
        None => text,
    }
}

/// The last whole lines of a file.
fn read_tail(path: &Path, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = match start {
        0 => &*text,
        _ => text.split_once('\n').map_or("", |(_, whole)| whole),
    };
    Ok(whole.to_string())
}

fn cut_all(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "log")
            && entry.metadata()?.len() > LARGEST
        {
            cut(&entry.path())?;
        }
    }
    Ok(())
}

/// Copies the end of a log to another file and truncates it. Writers append, and so continue at its start.
fn cut(path: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new().read(true).write(true).open(path)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(KEPT)))?;
    let mut kept = File::create(path.with_extension("log.1"))?;
    io::copy(&mut (&mut log).take(KEPT), &mut kept)?;
    log.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_log_that_grew_too_long_keeps_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app1.1.log");
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let line = [b'x'; 1023];
        for _ in 0..LARGEST / 1024 + 1 {
            writer.write_all(&line).unwrap();
            writer.write_all(b"\n").unwrap();
        }
        cut_all(folder.path()).unwrap();
        writer.write_all(b"after\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
        assert_eq!(
            std::fs::metadata(path.with_extension("log.1"))
                .unwrap()
                .len(),
            KEPT
        );
    }

    #[test]
    fn the_reason_is_the_line_that_says_why() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("app1.1.log"), "one\nno such table\n\n").unwrap();
        let keeper = Keeper::new(folder.path().into());
        assert_eq!(keeper.cause("app1.1", Hidden::default()), ": no such table");
        assert_eq!(keeper.cause("app1.2", Hidden::default()), "");
        let steps = "    at step (/app.js:1:1)\n".repeat(200);
        let tail = format!("Error: no database\n{steps}\nNode.js v20.20.2\n");
        std::fs::write(folder.path().join("release-1-1.log"), tail).unwrap();
        assert_eq!(
            keeper.cause("release-1-1", Hidden::default()),
            ": Error: no database"
        );
        let end = keeper.end("release-1-1", None, Hidden::default());
        assert!(end.starts_with(": Error: no database | ") && end.ends_with("| Node.js v20.20.2"));
    }

    #[test]
    fn a_secret_is_hidden_before_the_reason_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(folder.path().into());
        let hidden = Hidden {
            command: "PW='two secret words' bin/migrate",
            secrets: &[],
        };
        let logged = |before: usize| {
            let text = format!("Error: {}two secret words\n", "x".repeat(before));
            std::fs::write(folder.path().join("app1.1.log"), text).unwrap();
            [
                keeper.cause("app1.1", hidden),
                keeper.end("app1.1", None, hidden),
            ]
        };
        // At one of these lengths the reason's last character falls inside the secret.
        for before in 270..300 {
            for shown in logged(before) {
                assert!(shown.starts_with(": Error: x"), "{shown}");
                assert!(!shown.contains("tw") && !shown.contains("words"), "{shown}");
            }
        }
    }

    #[test]
    fn no_line_is_quoted_whose_beginning_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("app1.1.log");
        let most = usize::try_from(SEARCHED).unwrap();
        let lines = format!("\n{}\n", "x".repeat(most - 10));
        std::fs::write(&log, format!("two secret words{lines}")).unwrap();
        let text = read_tail(&log, SEARCHED).unwrap();
        assert!(text.bytes().all(|byte| byte == b'x' || byte == b'\n'));
        std::fs::write(&log, "two\nlines\n").unwrap();
        assert_eq!(read_tail(&log, SEARCHED).unwrap(), "two\nlines\n");
    }

    #[test]
    fn a_run_that_shares_its_log_is_quoted_from_its_heading_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("cron-clean.log");
        let keeper = Keeper::new(folder.path().into());
        let end = |heading| keeper.end("cron-clean", Some(heading), Hidden::default());
        let [first, second] = ["==> cron clean, due 1", "==> cron clean, due 2"];
        std::fs::write(&log, format!("{first}\nold password\n")).unwrap();
        assert_eq!((&*end(first), &*end(second)), (": old password", ""));
        std::fs::write(&log, format!("{first}\nold\n{second}\nnew\n")).unwrap();
        assert_eq!(end(second), ": new");
        let most = usize::try_from(SEARCHED).unwrap();
        std::fs::write(
            &log,
            format!("{second}\n{}", "all of it\n".repeat(most / 9)),
        )
        .unwrap();
        assert!(end(second).contains("all of it"));
    }
}
