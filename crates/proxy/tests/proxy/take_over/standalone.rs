//! A proxy with its own file: what only a new process can change is changed by one, and the pid that was started stays.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn file(bind: SocketAddr, server: SocketAddr, more: &str) -> String {
    format!(
        "control = 'proxy.sock'\naccess_log = 'access.log'\n{more}\n\
         [frontend.www]\nbind = '{bind}'\nbackend = 'app'\n[backend.app.server]\ns = '{server}'\n"
    )
}

fn serving(text: &str) -> Proxy {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("proxy.toml"), text).unwrap();
    Proxy::start_in(directory)
}

fn reload(proxy: &Proxy, text: &str) {
    std::fs::write(proxy.file("proxy.toml"), text).unwrap();
    proxy.signal(Signal::HUP);
}

fn threads(pid: u32) -> usize {
    let all = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = all.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("worker-")).count()
}

fn another_serves(proxy: &Proxy, pid: u32) -> u32 {
    eventually("another process serves", || serving_pid(proxy) != pid);
    serving_pid(proxy)
}

#[test]
fn what_only_a_new_process_can_change_is_changed_by_one_without_losing_a_request() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let admins = [free_address(), free_address()];
    let with = |workers, admin| {
        let more = format!("workers = {workers}\nadmin = '{admin}'");
        file(bind, origin.address, &more)
    };
    let mut proxy = serving(&with(1, admins[0]));
    let main = proxy.child.id();
    assert_eq!((serving_pid(&proxy), threads(main)), (main, 1));
    let load = Load::start(bind, 4, 4);
    let mut pid = main;
    for (workers, admin) in [(3, admins[0]), (2, admins[1]), (4, admins[1])] {
        load.more(50);
        reload(&proxy, &with(workers, admin));
        pid = another_serves(&proxy, pid);
        assert_eq!(threads(pid), workers);
        proxy.admin = admin;
        assert_eq!(proxy.admin("/readyz").status, 200);
    }
    load.more(100);
    // What was started is still there, and is the one to signal.
    assert!(proxy.child.try_wait().unwrap().is_none());
    let access = proxy.file("access.log");
    let log = TempLog::default();
    reload(
        &proxy,
        &with(2, admins[1]).replace("'access.log'", &format!("'{}'", log.path().display())),
    );
    another_serves(&proxy, pid);
    load.more(100);
    assert_eq!(load.failures(), [""; 0]);
    eventually("the other log has lines", || log.lines() > 0);
    assert!(access.exists());
    proxy.signal(Signal::TERM);
    assert!(proxy.child.wait().unwrap().success());
    assert!(TcpStream::connect(bind).is_err(), "nothing is left");
    assert!(!proxy.file("proxy.sock").exists());
}

struct TempLog(tempfile::TempDir);

impl Default for TempLog {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl TempLog {
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("other.log")
    }

    fn lines(&self) -> usize {
        std::fs::read_to_string(self.path())
            .unwrap_or_default()
            .lines()
            .count()
    }
}

#[test]
fn a_control_socket_that_moves_leaves_no_file_behind() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let text = file(bind, origin.address, "");
    let mut proxy = serving(&text);
    let (old, new) = (proxy.file("proxy.sock"), proxy.file("other.sock"));
    reload(&proxy, &text.replace("'proxy.sock'", "'other.sock'"));
    eventually("the other socket answers", || {
        UnixStream::connect(&new).is_ok()
    });
    eventually("the first is gone", || !old.exists());
    let mode = std::fs::metadata(&new).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Client::connect(bind).get("/").status, 200);
    proxy.signal(Signal::TERM);
    assert!(proxy.child.wait().unwrap().success());
    assert!(!new.exists());
}

#[test]
fn a_new_process_that_fails_leaves_everything_as_it_was() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let own = format!("admin = '{}'", free_address());
    let text = file(bind, origin.address, &own);
    let mut proxy = serving(&text);
    proxy.admin = own.split('\'').nth(1).unwrap().parse().unwrap();
    let main = proxy.child.id();
    let load = Load::start(bind, 4, 4);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("admin = '{}'", taken.local_addr().unwrap());
    reload(&proxy, &file(bind, origin.address, &other));
    let failed = "gaiola_config_reloads_total{result=\"failed\"} 1";
    eventually("the failure is counted", || {
        let metrics = proxy.admin("/metrics");
        metrics.text().lines().any(|line| line == failed)
    });
    load.more(100);
    assert_eq!(serving_pid(&proxy), main);
    // A file that is good again is served by the same process.
    reload(&proxy, &text);
    eventually("it was read again", || proxy.report().revision.0 == 1);
    assert_eq!(serving_pid(&proxy), main);
    assert_eq!(load.failures(), [""; 0]);
}

#[test]
fn nothing_is_left_when_the_process_that_was_started_is_killed() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut proxy = serving(&file(bind, origin.address, ""));
    let main = proxy.child.id();
    proxy.signal(Signal::USR2);
    let first = another_serves(&proxy, main);
    proxy.signal(Signal::USR2);
    let second = another_serves(&proxy, first);
    let is_gone = |pid| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    eventually("no process between them is left", || is_gone(first));
    assert_eq!(Client::connect(bind).get("/").status, 200);
    proxy.child.kill().unwrap();
    proxy.child.wait().unwrap();
    eventually("nothing listens", || TcpStream::connect(bind).is_err());
    eventually("nothing is left", || is_gone(second));
}

#[test]
fn usr2_starts_a_new_process_and_web_sockets_outlive_it_within_the_limit_of_the_file() {
    let (origin, bind) = (echo(), free_address());
    let mut proxy = serving(&file(bind, origin.address, "take_over_limit = '1500ms'"));
    let main = proxy.child.id();
    let mut client = upgraded(bind);
    let asked = Instant::now();
    proxy.signal(Signal::USR2);
    another_serves(&proxy, main);
    echoes(&mut client, "still there");
    assert!(client.is_closed());
    assert!(asked.elapsed() >= Duration::from_millis(1500));
    let mut other = upgraded(bind);
    echoes(&mut other, "new");
    drop(other);
    // Signals to the process that was started reach the one that serves.
    let before = proxy.report().revision.0;
    proxy.signal(Signal::HUP);
    eventually("the file was read again", || {
        proxy.report().revision.0 > before
    });
    proxy.signal(Signal::TERM);
    assert!(proxy.child.wait().unwrap().success());
    assert!(TcpStream::connect(bind).is_err(), "nothing is left");
}

#[test]
fn the_process_that_was_started_ends_when_the_one_that_serves_is_killed() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut proxy = serving(&file(bind, origin.address, ""));
    let main = proxy.child.id();
    proxy.signal(Signal::USR2);
    let first = another_serves(&proxy, main);
    proxy.signal(Signal::USR2);
    let second = another_serves(&proxy, first);
    assert_eq!(Client::connect(bind).get("/").status, 200);
    gaiola_os::process::signal(second, Signal::KILL);
    // Whoever has started it starts it again.
    assert!(!proxy.child.wait().unwrap().success());
    assert!(TcpStream::connect(bind).is_err());
}
