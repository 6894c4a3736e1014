use super::*;
use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use tempfile::TempDir;

mod sending;

/// A site's directory beside its releases; both go with it.
struct Directory {
    root: TempDir,
}

impl Directory {
    /// A small site with a page and a program.
    fn new() -> Self {
        let dir = Self {
            root: tempfile::tempdir().unwrap(),
        };
        dir.write("gaiola.toml", "site = 'a'");
        dir.write("public/index.html", "hello");
        dir.write("bin/run", "#!/bin/sh\n");
        dir.set_mode("bin/run", 0o750);
        dir
    }

    fn site(&self) -> PathBuf {
        self.root.path().join("site")
    }

    fn releases(&self) -> PathBuf {
        self.root.path().join("state/releases")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.site().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.site().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn try_scan(&self) -> Result<Scan, ReleaseError> {
        let (directory, file) = (self.site(), self.site().join("gaiola.toml"));
        let source = Source {
            directory: &directory,
            file: &file,
            apart: &[],
        };
        scan(source, &self.releases(), &mut |_| {})
    }

    fn scan(&self) -> Scan {
        self.try_scan().unwrap()
    }

    fn try_make(&self, last: Option<&Release>) -> Result<Made, ReleaseError> {
        send(&self.try_scan()?, &self.releases(), last)
    }

    fn make(&self, last: Option<&Release>) -> Made {
        self.try_make(last).unwrap()
    }

    /// Every path below a directory, sorted.
    fn listed(directory: &Path) -> Vec<String> {
        let mut paths = Vec::new();
        let mut open = vec![directory.to_path_buf()];
        while let Some(next) = open.pop() {
            for entry in fs::read_dir(&next).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                paths.push(path.strip_prefix(directory).unwrap().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    open.push(path);
                }
            }
        }
        paths.sort();
        paths
    }
}

/// The archive of what was scanned.
fn packed(scan: &Scan) -> Vec<u8> {
    let mut archive = Vec::new();
    scan.pack(&mut archive, &mut |_| {}).unwrap();
    archive
}

/// Both sides: what the site does not have is sent, and numbered.
fn send(scan: &Scan, releases: &Path, last: Option<&Release>) -> Result<Made, ReleaseError> {
    if !has(releases, &scan.digest, last) {
        let archive = packed(scan);
        receive(&archive[..], releases, &scan.digest)?.hold()?;
    }
    number(releases, &scan.digest, last, highest(last))
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove_all(&self.releases());
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_release_is_a_read_only_copy_that_everyone_may_read() {
    let dir = Directory::new();
    dir.write("settings.ini", "x");
    dir.set_mode("settings.ini", 0o640);
    let made = dir.make(None);
    assert_eq!(made.release.number, ReleaseNumber(1));
    assert_eq!(made.path, dir.releases().join("1"));
    assert!(made.new);
    assert_eq!(
        Directory::listed(&made.path),
        [
            "bin",
            "bin/run",
            "public",
            "public/index.html",
            "settings.ini"
        ]
    );
    assert_eq!(mode(&made.path), 0o555);
    assert_eq!(mode(&made.path.join("bin/run")), 0o555);
    assert_eq!(mode(&made.path.join("public")), 0o555);
    assert_eq!(mode(&made.path.join("settings.ini")), 0o444);
    assert_eq!(
        fs::read_to_string(made.path.join("public/index.html")).unwrap(),
        "hello"
    );
}

#[test]
fn a_new_release_is_made_only_where_contents_changed() {
    let dir = Directory::new();
    let first = dir.make(None).release;
    dir.write("public/index.html", "hello");
    dir.write("gaiola.toml", "site = 'a' # with more servers");
    dir.set_mode("public/index.html", 0o640);
    let again = dir.make(Some(&first));
    assert_eq!((again.release, again.new), (first.clone(), false));
    assert_eq!(
        Directory::listed(&dir.releases()).len(),
        7,
        ".lock, .digest-1, 1 and its four"
    );

    for change in [
        (|dir: &Directory| dir.write("public/index.html", "hullo")) as fn(&Directory),
        |dir| dir.set_mode("public/index.html", 0o755),
        |dir| symlink("index.html", dir.site().join("public/home.html")).unwrap(),
        |dir| fs::create_dir(dir.site().join("empty")).unwrap(),
        |dir| fs::rename(dir.site().join("empty"), dir.site().join("emptied")).unwrap(),
    ] {
        let before = dir.make(None).release;
        change(&dir);
        let after = dir.make(Some(&before));
        assert!(after.new);
        assert_ne!(after.release.digest, before.digest);
        assert_eq!(after.release.number.0, before.number.0 + 1);
    }
}

#[test]
fn what_is_no_part_of_the_site_is_left_out() {
    let dir = Directory::new();
    for path in [
        ".git/HEAD",
        "module/.git",
        ".hg/x",
        ".env",
        "target/debug/big",
        "target/keep",
        "log/a.log",
        "a/.gitignore",
        "a/built",
        "a/deep/note.tmp",
    ] {
        dir.write(path, "x");
    }
    dir.write("a/.gitignore", "built\n");
    dir.write(".gaiolaignore", "/target/*\n!/target/keep\n*.log\n");
    dir.write("a/.gaiolaignore", "deep/*.tmp\n");
    let _socket = UnixListener::bind(dir.site().join("socket")).unwrap();
    assert_eq!(
        Directory::listed(&dir.make(None).path),
        [
            ".env",
            "a",
            "a/.gitignore",
            "a/built",
            "a/deep",
            "bin",
            "bin/run",
            "log",
            "module",
            "public",
            "public/index.html",
            "target",
            "target/keep",
        ]
    );
}

#[test]
fn a_pattern_that_cannot_be_read_is_an_error() {
    let dir = Directory::new();
    dir.write(".gaiolaignore", "ok\n[z-a]\n");
    let error = dir.try_make(None).unwrap_err();
    let why = error.source().unwrap().to_string();
    assert!(why.contains(".gaiolaignore"), "{why}");
}

#[test]
fn a_link_is_kept_where_it_stays_inside() {
    let dir = Directory::new();
    let at = |path: &str| dir.site().join(path);
    symlink("../public/index.html", at("bin/page")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    let made = dir.make(None);
    let copied = made.path.join("bin/page");
    assert_eq!(
        fs::read_link(&copied).unwrap(),
        Path::new("../public/index.html")
    );
    assert_eq!(fs::read_to_string(&copied).unwrap(), "hello");
    assert!(!Directory::listed(&made.path).contains(&"dangling".to_owned()));

    symlink("..", at("bin/up")).unwrap();
    for (name, target) in [
        ("absolute", "/etc/passwd"),
        ("outside", "../state"),
        ("by-another", "bin/up/../state/releases"),
        ("to-itself-by-name", at("public").to_str().unwrap()),
    ] {
        symlink(target, at(name)).unwrap();
        let error = dir.try_make(None).unwrap_err();
        assert!(
            matches!(error, ReleaseError::LinkOutside { .. }),
            "{name}: {error}"
        );
        fs::remove_file(at(name)).unwrap();
    }
    assert!(dir.make(None).new);
}

#[test]
fn a_state_directory_within_the_site_is_no_part_of_it() {
    let dir = Directory::new();
    let (directory, file) = (dir.site(), PathBuf::from("gaiola.toml"));
    let source = Source {
        directory: &directory,
        file: &file,
        apart: &[],
    };
    dir.write("state/servers/db1/pg", "x");
    let releases = directory.join("state/releases");
    fs::create_dir(&releases).unwrap();
    let scanned = || scan(source, &releases, &mut |_| {}).unwrap();
    let made = send(&scanned(), &releases, None).unwrap();
    let again = send(&scanned(), &releases, Some(&made.release)).unwrap();
    assert!(!again.new);
    assert!(!made.path.join("state").exists());
    copy::remove(&releases, made.release.number).unwrap();

    let beside = directory.join("releases");
    fs::create_dir(&beside).unwrap();
    let error = scan(source, &beside, &mut |_| {}).unwrap_err();
    assert!(matches!(error, ReleaseError::StateIsSite(_)), "{error}");
}

#[test]
fn what_a_crash_left_is_removed_and_a_lost_copy_made_again() {
    let dir = Directory::new();
    let first = dir.make(None);
    fs::create_dir_all(dir.releases().join(".new/half/made")).unwrap();
    fs::rename(&first.path, dir.releases().join(".old")).unwrap();
    let again = dir.make(Some(&first.release));
    assert_eq!((&again.release, again.new), (&first.release, true));
    prune(&dir.releases(), &[]).unwrap();
    assert_eq!(copy::names(&dir.releases()).unwrap(), ["1"]);
}

#[test]
fn numbers_go_on_where_the_store_was_lost() {
    let dir = Directory::new();
    dir.make(None);
    dir.write("public/index.html", "2");
    dir.make(None);
    assert_eq!(dir.make(None).release.number, ReleaseNumber(3));
    let last = Release {
        number: ReleaseNumber(9),
        digest: "of another time".into(),
    };
    assert_eq!(dir.make(Some(&last)).release.number, ReleaseNumber(10));
}

#[test]
fn the_newest_five_and_those_in_use_stay() {
    let dir = Directory::new();
    for _ in 0..8 {
        dir.make(None);
    }
    let removed = prune(&dir.releases(), &[ReleaseNumber(2)]).unwrap();
    assert_eq!(removed, [ReleaseNumber(1), ReleaseNumber(3)]);
    let left = numbers(&dir.releases()).unwrap();
    assert_eq!(left, [2, 4, 5, 6, 7, 8].map(ReleaseNumber));
    assert_eq!(prune(&dir.releases(), &[ReleaseNumber(2)]).unwrap(), []);
}

#[test]
fn two_are_not_made_at_once() {
    let dir = Directory::new();
    dir.make(None);
    let held = lock(&dir.releases()).unwrap();
    assert!(matches!(dir.try_make(None), Err(ReleaseError::Busy(_))));
    drop(held);
    assert!(dir.try_make(None).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = Directory::new();
    let site = dir.site().join("absent");
    let source = Source {
        directory: &site,
        file: &site.join("gaiola.toml"),
        apart: &[],
    };
    let error = scan(source, &dir.releases(), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot find {}", site.display()));
}

#[test]
fn progress_ends_with_all_that_there_is() {
    let dir = Directory::new();
    let (directory, file) = (dir.site(), dir.site().join("gaiola.toml"));
    let source = Source {
        directory: &directory,
        file: &file,
        apart: &[],
    };
    let mut reported = Vec::new();
    let scan = scan(source, &dir.releases(), &mut |progress| {
        reported.push(progress)
    })
    .unwrap();
    scan.pack(&mut Vec::new(), &mut |progress| reported.push(progress))
        .unwrap();
    for phase in [Phase::Reading, Phase::Sending] {
        let last = reported
            .iter()
            .rfind(|progress| progress.phase == phase)
            .unwrap();
        assert_eq!((last.files, last.bytes), (last.of_files, last.of_bytes));
        assert_eq!((last.of_files, last.of_bytes), (2, 15));
    }
}

#[test]
fn many_files_are_copied_too() {
    let dir = Directory::new();
    for number in 0..600 {
        dir.write(&format!("public/{number}"), "x");
    }
    assert_eq!(Directory::listed(&dir.make(None).path).len(), 604);
}

/// Set where this test runs itself again on a disk of its own.
const SMALL_DISK: &str = "GAIOLA_TEST_SMALL_DISK";

#[test]
fn a_full_disk_is_reported_and_nothing_half_made_stays() {
    let name = "release::tests::a_full_disk_is_reported_and_nothing_half_made_stays";
    let Some(disk) = std::env::var_os(SMALL_DISK).map(PathBuf::from) else {
        let disk = tempfile::tempdir().unwrap();
        let output = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-ec"])
            .arg(format!(
                "mount -t tmpfs -o size=512k none \"${SMALL_DISK}\"; exec \"$@\""
            ))
            .arg("sh")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(SMALL_DISK, disk.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{failed}"
        );
        return;
    };
    let dir = Directory::new();
    dir.write("public/big", &"x".repeat(1 << 20));
    let releases = disk.join("releases");
    let error = send(&dir.scan(), &releases, None).unwrap_err();
    assert!(matches!(error, ReleaseError::DiskFull { .. }), "{error}");
    assert!(copy::names(&releases).unwrap().is_empty());

    dir.write("public/big", "small");
    assert!(send(&dir.scan(), &releases, None).is_ok());
}

#[test]
fn the_time_of_a_file_is_kept() {
    let dir = Directory::new();
    let page = dir.site().join("public/index.html");
    let then = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 7_000);
    let file = fs::File::options().write(true).open(&page).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(then))
        .unwrap();
    dir.set_mode("public/index.html", 0o444);
    let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let first = dir.make(None);
    assert_eq!(time(&first.path.join("public/index.html")), then);
    dir.write("public/other.html", "new");
    let second = dir.make(Some(&first.release));
    assert!(second.new);
    assert_eq!(time(&second.path.join("public/index.html")), then);
}

#[test]
fn what_only_its_owner_may_use_is_left_out_and_named() {
    let dir = Directory::new();
    dir.write("config/master.key", "secret");
    dir.set_mode("config/master.key", 0o400);
    dir.write("keys/a.pem", "secret");
    dir.set_mode("keys", 0o700);
    dir.write("ignored/b.pem", "secret");
    dir.set_mode("ignored/b.pem", 0o600);
    dir.write(".gaiolaignore", "ignored\n");
    let made = dir.make(None);
    let private = dir.scan().private;
    assert_eq!(private, [Path::new("config/master.key"), Path::new("keys")]);
    for path in ["config/master.key", "keys"] {
        assert!(!made.path.join(path).exists(), "{path}");
    }
    assert!(!dir.make(Some(&made.release)).new);
    let words = left_out_in_words(&private).unwrap();
    assert!(words.contains("config/master.key (and 1 more)"), "{words}");
    dir.set_mode("bin", 0o700);
    let private = dir.scan().private;
    let why = private_program(&private, "bin/run --port 1").unwrap();
    assert!(why.contains("chmod -R go+rX bin"), "{why}");
    assert_eq!(private_program(&private, "python3 -m x"), None);
}

#[test]
fn a_look_tells_what_up_would_say_and_writes_nothing() {
    let dir = Directory::new();
    let seen = dir.scan();
    assert!(!dir.releases().exists());
    assert_eq!(dir.make(None).release.digest, seen.digest.as_str());
    assert_eq!(dir.scan().digest, seen.digest);

    dir.write("venv/pyvenv.cfg", "home = /usr/bin");
    dir.write("venv/bin/tool", "");
    symlink("/bin/sh", dir.site().join("venv/bin/python3")).unwrap();
    let why = dir.try_scan().unwrap_err().to_string();
    assert!(why.contains("venv --copies"), "{why}");
    fs::remove_file(dir.site().join("venv/bin/python3")).unwrap();
    symlink("/bin/sh", dir.site().join("venv/bin/sh")).unwrap();
    let why = dir.try_scan().unwrap_err().to_string();
    assert!(why.contains("put there what it leads to"), "{why}");
}

fn highest(last: Option<&Release>) -> ReleaseNumber {
    last.map_or(ReleaseNumber(0), |last| last.number)
}
