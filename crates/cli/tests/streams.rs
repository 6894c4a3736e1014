//! Standard error and standard output that take nothing: a closed pipe, one that nobody reads, a full disk.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, Read as _, Write as _, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < until, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn gaiola(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaiola"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn closed_pipe() -> Stdio {
    pipe().unwrap().1.into()
}

fn full_disk() -> Stdio {
    let full = File::options().write(true).open("/dev/full");
    full.unwrap().into()
}

/// A terminal that has hung up: what shows it is gone.
fn hung_up() -> Stdio {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let shows = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&shows).unwrap();
    unlockpt(&shows).unwrap();
    let name = ptsname(&shows, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    drop(shows);
    assert!(
        File::from(terminal.try_clone().unwrap())
            .write(b"x")
            .is_err()
    );
    terminal.into()
}

/// A directory of one test.
struct Directory(PathBuf);

impl Directory {
    fn make(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `gaiola proxy -f`.
struct Proxy {
    child: Child,
    bind: SocketAddr,
    admin: SocketAddr,
    directory: Directory,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    fn start(name: &str, stderr: Stdio) -> Self {
        let (bind, admin) = (free_address(), free_address());
        let directory = Directory::make(name);
        let file = directory.file("proxy.toml");
        let text = format!(
            "admin = '{admin}'\nworkers = 1\n[frontend.www]\nbind = '{bind}'\nbackend = 'app'\n\
             [backend.app.server]\ns = '127.0.0.1:1'\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = gaiola(&["proxy", "-f", file.to_str().unwrap()]);
        let child = command.stderr(stderr).spawn().unwrap();
        let proxy = Self {
            child,
            bind,
            admin,
            directory,
        };
        eventually("the proxy is ready", || {
            ask(admin, "GET /readyz HTTP/1.0\r\n\r\n").contains(" 200 ")
        });
        proxy
    }

    fn is_served(&self) -> bool {
        ask(
            self.bind,
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .contains(" 503 ")
    }

    fn dropped(&self) -> u64 {
        let metrics = ask(self.admin, "GET /metrics HTTP/1.0\r\n\r\n");
        let mut lines = metrics.lines();
        let count = lines.find_map(|line| line.strip_prefix("gaiola_messages_dropped_total "));
        count.unwrap().parse().unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Has a long line logged, which names a file that cannot be read again.
    fn log_much(&self) {
        let file = self.directory.file("proxy.toml");
        let mistakes: String = (0..1000).map(|n| format!("mistake{n} = 1\n")).collect();
        std::fs::write(file, mistakes).unwrap();
        self.signal(rustix::process::Signal::HUP);
    }
}

/// What is answered until the connection ends.
fn ask(address: SocketAddr, text: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

#[test]
fn a_log_that_cannot_be_written_ends_no_proxy() {
    for (name, stderr) in [
        ("closed", closed_pipe()),
        ("full", full_disk()),
        ("hungup", hung_up()),
    ] {
        let mut proxy = Proxy::start(name, stderr);
        assert!(ask(proxy.bind, "BAD\r\n\r\n").contains(" 400 "));
        assert!(proxy.is_served());
        eventually("lines are counted", || proxy.dropped() > 0);
        proxy.signal(rustix::process::Signal::TERM);
        assert_eq!(proxy.child.wait().unwrap().code(), Some(0));
    }
}

fn fill(proxy: &Proxy) {
    eventually("there is no room any more", || {
        proxy.log_much();
        assert!(proxy.is_served());
        proxy.dropped() > 0
    });
}

#[test]
fn a_log_that_nobody_reads_holds_no_proxy_up() {
    let (read, write) = pipe().unwrap();
    let mut proxy = Proxy::start("unread", write.into());
    fill(&proxy);
    proxy.signal(rustix::process::Signal::TERM);
    // Who does not read is not waited for.
    eventually("the proxy has ended", || {
        proxy.child.try_wait().unwrap().is_some()
    });
    drop(read);
}

#[test]
fn how_much_is_missing_is_reported_once_the_log_is_read() {
    let (read, write) = pipe().unwrap();
    let proxy = Proxy::start("read", write.into());
    fill(&proxy);
    let mut lines = BufReader::new(read).lines();
    let reported = lines.find(|line| line.as_ref().unwrap().contains("lines are missing here"));
    assert!(reported.is_some());
}

/// How a command ends whose standard error is this.
fn end(arguments: &[&str], stderr: Stdio, state: &Path) -> Option<i32> {
    let mut command = gaiola(arguments);
    let command = command.env("GAIOLA_STATE", state);
    let status = command.stdout(Stdio::null()).stderr(stderr).status();
    status.unwrap().code()
}

#[test]
fn every_process_ends_with_its_own_code_whatever_takes_its_words() {
    let state = Directory::make("state");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let nowhere = state.file("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    for arguments in [
        &["lab", "some", "--front-door", &taken, "--page", &taken][..],
        &["pid1", nowhere],
        &["agent", "--boot", nowhere],
        &["status", "--site", "some"],
        &["proxy", "-f", nowhere],
        &["check", "-f", nowhere],
    ] {
        for stderr in [closed_pipe(), full_disk(), hung_up()] {
            assert_eq!(end(arguments, stderr, &state.0), Some(1), "{arguments:?}");
        }
        let (_read, write) = full_pipe();
        assert_eq!(end(arguments, write, &state.0), Some(1), "{arguments:?}");
    }
}

/// A pipe that nobody reads and that has no room, and its end for reading.
fn full_pipe() -> (PipeReader, Stdio) {
    let (read, mut write) = pipe().unwrap();
    rustix::io::ioctl_fionbio(&write, true).unwrap();
    while write.write(&[b'\n'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&write, false).unwrap();
    (read, write.into())
}

/// What the keeper's server is switched on with.
const BOOT: &str = r#"{"schema":2,"site":"site","server":"lb1","number":1,"address":"127.0.0.1","interface":"lo",
    "prefix_length":8,"directories":{"state":"/run/gaiola","releases":"/run/gaiola","certificates":"/run/gaiola",
    "run":"/run/gaiola"},"store_token":"","database_user":null,"site_user":null,"keeper_key":null,"path":"/usr/bin:/bin",
    "disk":null}"#;

/// `gaiola keeper`, with a `/run` of its own.
struct Keeper(Child);

impl Keeper {
    fn start(kind: &str, stderr: Stdio) -> Self {
        let script = "mount -t tmpfs none /run && mkdir /run/gaiola && \
                      printf %s \"$2\" >/run/gaiola/boot.json && touch /run/gaiola/its-own && \
                      exec \"$0\" keeper \"$1\" --boot /run/gaiola";
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script]);
        command.args([env!("CARGO_BIN_EXE_gaiola"), kind, BOOT]);
        let command = command.stdin(Stdio::null()).env("GAIOLA_LOG", "debug");
        let keeper = Self(command.stderr(stderr).spawn().unwrap());
        eventually("it has a directory of its own", || {
            keeper.file("its-own").exists()
        });
        keeper
    }

    fn file(&self, name: &str) -> PathBuf {
        format!("/proc/{}/root/run/gaiola/{name}", self.0.id()).into()
    }

    /// Gives an order.
    fn write(&self, name: &str, text: &str) {
        let new = self.file("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file(name)).unwrap();
    }

    fn wait_for(&self, name: &str, words: &str) {
        eventually(&format!("{words} in {name}"), || {
            let text = std::fs::read_to_string(self.file(name));
            text.is_ok_and(|text| text.contains(words))
        });
    }

    /// Ends it, which it is to do by itself.
    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut status = None;
        eventually("the keeper has ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All that standard error can be and take nothing, and what keeps it so.
fn dead_ends() -> Vec<(Option<PipeReader>, Stdio)> {
    let (read, full) = full_pipe();
    vec![
        (None, closed_pipe()),
        (None, full_disk()),
        (None, hung_up()),
        (Some(read), full),
    ]
}

#[test]
fn a_vip_keeper_goes_on_whatever_takes_its_words() {
    for (_read, stderr) in dead_ends() {
        let keeper = Keeper::start("vip", stderr);
        keeper.wait_for("keeper-state.json", "{");
        // It warns of this,
        keeper.write("keeper.json", "no json");
        keeper.wait_for("keeper-state.json", "expected ident");
        // and goes on.
        keeper.write("keeper.json", "{}");
        keeper.wait_for("keeper-state.json", "missing field");
        keeper.end();
    }
}

#[test]
fn a_database_keeper_goes_on_whatever_takes_its_words() {
    let files = Directory::make("keeper");
    for (_read, stderr) in dead_ends() {
        let keeper = Keeper::start("database", stderr);
        let path = |name: &str| files.file(name);
        for generation in 1..=2 {
            let order = serde_json::json!({
                "generation": generation,
                "wanted": "run",
                "patroni": path("no-patroni"),
                "config": path("no-directory/patroni.yml"),
                "psql": path("no-psql"),
                "api": "127.0.0.1:1",
                "pki": path("no-pki"),
                "owner": null,
                "data": path("no-data"),
                "log": "/dev/null/log",
            });
            // It warns that this cannot be started,
            keeper.write("database.json", &order.to_string());
            // and goes on.
            let report = format!("\"generation\":{generation}");
            keeper.wait_for("database-keeper.json", &report);
            keeper.wait_for("database-keeper.json", "failed");
        }
        keeper.end();
    }
}

#[test]
fn whoever_closes_standard_output_has_read_enough_and_a_full_disk_is_a_failure() {
    let site = Directory::make("site");
    let file = site.file("gaiola.toml");
    std::fs::write(&file, "site = 'a'\n[app]\nrun = 'a'\n").unwrap();
    let check = |stdout: Stdio| {
        let mut command = gaiola(&["check", "-f", file.to_str().unwrap()]);
        command
            .stdout(stdout)
            .stderr(Stdio::piped())
            .output()
            .unwrap()
    };
    let closed = check(closed_pipe());
    assert_eq!((closed.status.code(), &*closed.stderr), (Some(0), &b""[..]));
    let full = check(full_disk());
    let reported = String::from_utf8(full.stderr).unwrap();
    assert!(
        full.status.code() == Some(1) && reported.contains("No space left"),
        "{reported}"
    );
}

#[test]
fn all_that_keeps_a_proxy_from_starting_is_reported_at_once() {
    let directory = Directory::make("doors");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let file = directory.file("proxy.toml");
    let text = format!(
        "admin = '{taken}'\ncontrol = 'nowhere/proxy.sock'\naccess_log = 'nowhere/access.log'\n\
         [frontend.www]\nbind = '{}'\nbackend = 'app'\n[backend.app.server]\ns = '127.0.0.1:1'\n",
        free_address()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = gaiola(&["proxy", "-f", file.to_str().unwrap()]);
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let reported = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reported}");
    for part in [
        "nowhere/access.log",
        "nowhere/proxy.sock",
        &taken.to_string(),
    ] {
        assert!(reported.contains(part), "{part} in {reported}");
    }
}
