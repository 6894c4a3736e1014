//! Standard error and standard output that take nothing: a closed pipe, one that nobody reads, a full disk.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _, pipe};
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

    /// Has a long line logged, which tells of a file that cannot be read again.
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
    for (name, stderr) in [("closed", closed_pipe()), ("full", full_disk())] {
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
fn how_much_is_missing_is_told_once_the_log_is_read() {
    let (read, write) = pipe().unwrap();
    let proxy = Proxy::start("read", write.into());
    fill(&proxy);
    let mut lines = BufReader::new(read).lines();
    let told = lines.find(|line| line.as_ref().unwrap().contains("lines are missing here"));
    assert!(told.is_some());
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
        &["init", nowhere],
        &["agent", "--boot", nowhere],
        &["status", "--site", "some"],
        &["proxy", "-f", nowhere],
        &["check", "-f", nowhere],
    ] {
        for stderr in [closed_pipe(), full_disk()] {
            assert_eq!(end(arguments, stderr, &state.0), Some(1), "{arguments:?}");
        }
        let (read, mut write) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&write, true).unwrap();
        while write.write(&[b'\n'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&write, false).unwrap();
        assert_eq!(
            end(arguments, write.into(), &state.0),
            Some(1),
            "{arguments:?}"
        );
        drop(read);
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
    let told = String::from_utf8(full.stderr).unwrap();
    assert!(
        full.status.code() == Some(1) && told.contains("No space left"),
        "{told}"
    );
}

#[test]
fn all_that_keeps_a_proxy_from_starting_is_told_at_once() {
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
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in [
        "nowhere/access.log",
        "nowhere/proxy.sock",
        &taken.to_string(),
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
}
