//! A site under test, with its own directory, file, state and ports: brought up, queried, broken, brought down.

mod programs;

pub use programs::Programs;

use crate::load::{self, Figures};
use crate::probe::Probed;
use crate::processes::{Process, family, processes};
use crate::{Answer, Who, binaries, http};
use gaiola_control::api::schema;
use gaiola_model::config::Drill;
use gaiola_model::keeper::{KeeperState, VipRole};
use gaiola_model::schema::SCHEMA;
use gaiola_net::client::{Client, HeaderName, HeaderValue, Request, Target};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Timeout of a command.
const COMMAND_LIMIT: Duration = Duration::from_secs(100);

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; 128 and more: a signal.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// # Panics
    /// If it ended with another code, or did not print all of `words`.
    #[track_caller]
    pub fn expect(self, code: i32, words: &[&str]) -> Self {
        let all = words
            .iter()
            .all(|word| self.stderr.contains(word) || self.stdout.contains(word));
        assert!(
            self.code == code && all,
            "expected {code} and {words:?}, got {self:#?}"
        );
        self
    }
}

/// A site.
pub struct Site {
    base: TempDir,
    name: String,
    who: Who,
    binary: PathBuf,
    door: SocketAddr,
    page: SocketAddr,
}

impl Site {
    /// A site of that name that is not up yet. `{run}` in the file is replaced by the command of the tests' own site.
    pub fn new(who: Who, name: &str, file: &str) -> Self {
        let base = TempDir::with_prefix(format!("gaiola-{name}-")).expect("a temporary directory");
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        for folder in ["site", "state", "switches", "bin", "home"] {
            fs::create_dir(base.path().join(folder)).expect("an empty directory");
            who.own(&base.path().join(folder));
        }
        let binary = base.path().join("bin/gaiola");
        fs::copy(binaries::gaiola(), &binary).expect("the binary is copied");
        fs::copy(binaries::site(), base.path().join("bin/site")).expect("the site is copied");
        let site = Self {
            who,
            name: name.into(),
            binary,
            door: free_port(),
            page: free_port(),
            base,
        };
        site.write("gaiola.toml", &format!("site = \"{name}\"\n{file}"));
        site
    }

    /// A site of only an application tier, with these numbers of servers and instances.
    pub fn app(who: Who, name: &str, servers: u16, instances: u16) -> Self {
        Self::new(
            who,
            name,
            &format!(
                "[app]\nservers = {servers}\ninstances = {instances}\ngrace = \"1s\"\nrun = \"{{run}}\"\n"
            ),
        )
    }

    /// Writes a file of the site, as an editor would.
    pub fn write(&self, name: &str, text: &str) {
        let run = format!(
            "exec {} {}",
            self.base.path().join("bin/site").display(),
            self.switches().display()
        );
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a directory"))
            .expect("it can be made");
        fs::write(path, text.replace("{run}", &run)).expect("the site's files can be written");
    }

    /// Gives the site the guest book, as `bin/guestbook` and `public`.
    pub fn put_guest_book(&self) {
        put_guest_book(&self.folder());
    }

    /// Replaces text in the site's file.
    pub fn edit(&self, from: &str, to: &str) {
        let text =
            fs::read_to_string(self.folder().join("gaiola.toml")).expect("the file is there");
        assert!(text.contains(from), "{from:?} is not in the file");
        self.write("gaiola.toml", &text.replace(from, to));
    }

    /// Makes the site's instances (`all`, or one by its name) misbehave; empty: none.
    pub fn switch(&self, instance: &str, words: &str) {
        fs::write(self.switches().join(instance), words).expect("the switches can be written");
    }

    /// The site's directory.
    pub fn folder(&self) -> PathBuf {
        self.base.path().join("site")
    }

    /// The directory of everything that belongs to this site.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The site's state directory.
    pub fn state(&self) -> PathBuf {
        self.base.path().join("state").join(&self.name)
    }

    fn switches(&self) -> PathBuf {
        self.base.path().join("switches")
    }

    /// Its front door's address.
    pub fn door(&self) -> SocketAddr {
        self.door
    }

    /// Its status page's address.
    pub fn page(&self) -> SocketAddr {
        self.page
    }

    /// `gaiola ARGS` as a command to be started, in the site's directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.who.command(&self.binary);
        command
            .args(args)
            .args(self.doors(args))
            .current_dir(self.folder());
        command
            .env("GAIOLA_STATE", self.base.path().join("state"))
            .env("HOME", self.base.path().join("home"));
        command.stdin(Stdio::null());
        command
    }

    fn doors(&self, args: &[&str]) -> Vec<String> {
        let chosen = args.contains(&"--front-door") || args.contains(&"--page");
        match args.first() {
            Some(&"up") if !chosen => vec![
                format!("--front-door={}", self.door),
                format!("--page={}", self.page),
            ],
            _ => Vec::new(),
        }
    }

    /// Starts `gaiola ARGS` without waiting for its end.
    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gaiola starts")
    }

    /// Runs `gaiola ARGS` to its end.
    #[track_caller]
    pub fn gaiola(&self, args: &[&str]) -> Ran {
        run(self.command(args), COMMAND_LIMIT)
    }

    /// The same, with this on its standard input.
    pub fn gaiola_given(&self, given: &str, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        command.stdin(input(given));
        run(command, COMMAND_LIMIT)
    }

    /// Runs `gaiola ARGS` in a new mount namespace, which `prepare` (a shell command, run by root) has changed.
    #[track_caller]
    pub fn prepared(&self, prepare: &str, args: &[&str]) -> Ran {
        let inner = self.command(args);
        let mut command = Command::new("unshare");
        command.args([
            "-m",
            "--propagation=private",
            "--",
            "sh",
            "-c",
            &format!("{prepare} && exec \"$0\" \"$@\""),
        ]);
        command.arg(inner.get_program()).args(inner.get_args());
        run(like(command, &inner), COMMAND_LIMIT)
    }

    /// Runs a command in the lab's mount namespace.
    #[track_caller]
    pub fn beside_the_lab(&self, command: &[&str]) -> Ran {
        let inner = self.command(&[]);
        let mut entered = Command::new("nsenter");
        entered.args([
            format!("--mount=/proc/{}/ns/mnt", self.lab().pid),
            format!("--wd={}", self.folder().display()),
            "--".into(),
        ]);
        entered.args(command);
        run(like(entered, &inner), COMMAND_LIMIT)
    }

    /// `gaiola up -d`, which must succeed.
    #[track_caller]
    pub fn up(&self) -> Ran {
        self.gaiola(&["up", "-d"]).expect(0, &[])
    }

    /// `gaiola down`, which must succeed.
    #[track_caller]
    pub fn down(&self) -> Ran {
        self.gaiola(&["down"]).expect(0, &[])
    }

    /// The exit code of `gaiola status`, and its JSON.
    pub fn status(&self) -> (i32, Value) {
        let ran = self.gaiola(&["status", "--json"]);
        (
            ran.code,
            serde_json::from_str(&ran.stdout).unwrap_or_default(),
        )
    }

    /// Whether `gaiola status` reports the site as healthy.
    pub fn is_healthy(&self) -> bool {
        self.status().0 == 0
    }

    /// Requests a path from the site.
    ///
    /// # Errors
    /// If there is no complete response.
    pub fn get(&self, path: &str) -> io::Result<Answer> {
        http::get(self.door, path)
    }

    /// Does `work` while `rate` requests per second are sent.
    pub fn under_load<T>(&self, rate: u32, work: impl FnOnce() -> T) -> (T, Figures) {
        let drill = Drill {
            rate: Some(rate),
            ..Drill::default()
        };
        load::under_load(self.door, drill, work)
    }

    /// Does `work` under the load of `drill`: pages, reads and writes.
    pub fn under<T>(&self, drill: Drill, work: impl FnOnce() -> T) -> (T, Figures) {
        load::under_load(self.door, drill, work)
    }

    /// Does `work` while a client on a server probes each of these VIPs separately. Its connections have the timeout
    /// `limit`; an unanswered SYN is retransmitted after one second and after three.
    #[track_caller]
    pub fn probed<T>(
        &self,
        from: &str,
        vips: &[&str],
        limit: Duration,
        work: impl FnOnce() -> T,
    ) -> (T, BTreeMap<String, Probed>) {
        let stop = self.base.path().join("switches/stop-probing");
        let program = self.base.path().join("bin/site");
        let (program, file) = (program.to_string_lossy(), stop.to_string_lossy());
        let limit = limit.as_millis().to_string();
        let mut args = vec!["exec", from, "--", &*program, "probe", &*file, &limit];
        args.extend(vips);
        let probe = self.start(&args);
        let done = work();
        fs::write(&stop, "").expect("the switches can be written");
        let ran = ended(probe).expect(0, &[]);
        let results: serde_json::Map<String, Value> =
            serde_json::from_str(&ran.stdout).expect("it prints JSON");
        let probed = results
            .into_iter()
            .map(|(vip, result)| (vip, Probed::read(&result)))
            .collect();
        (done, probed)
    }

    /// For each VIP that a balancer's keeper holds, since when, in milliseconds since 1970.
    pub fn keeper(&self, balancer: &str) -> BTreeMap<IpAddr, u64> {
        let ran = self.gaiola(&[
            "exec",
            balancer,
            "--",
            "cat",
            "/run/gaiola/keeper-state.json",
        ]);
        let state: KeeperState = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let held = |(vip, it): (IpAddr, gaiola_model::keeper::VipState)| {
            (it.state == VipRole::Active).then_some((vip, it.since_ms))
        };
        state.vips.into_iter().filter_map(held).collect()
    }

    /// Whether a balancer's keeper holds a VIP.
    pub fn holds(&self, balancer: &str, vip: &str) -> bool {
        let vip: IpAddr = vip.parse().expect("an address");
        self.keeper(balancer).contains_key(&vip)
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// If it does not hold within the limit.
    #[track_caller]
    pub fn wait_for(&self, what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "after {limit:?} still not: {what}; status: {:?}",
                self.status()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Every process of this site.
    pub fn processes(&self) -> Vec<Process> {
        let of_ours = |process: &Process| {
            process.is_about(&self.base.path().join("state"))
                || process
                    .args
                    .first()
                    .is_some_and(|arg| *arg == self.binary.to_string_lossy())
        };
        processes().into_iter().filter(of_ours).collect()
    }

    /// The lab's process.
    #[track_caller]
    pub fn lab(&self) -> Process {
        let is_lab = |process: &Process| process.args.get(1).is_some_and(|arg| arg == "lab");
        self.processes()
            .into_iter()
            .find(is_lab)
            .expect("the lab runs")
    }

    /// Pid 1 of a server, if it is on.
    pub fn server(&self, name: &str) -> Option<Process> {
        let folder = self.state().join("servers").join(name);
        let folder = folder.to_string_lossy();
        let is_first = |process: &Process| {
            process.args.get(1).is_some_and(|arg| arg == "pid1")
                && process.args.get(2).is_some_and(|arg| *arg == folder)
        };
        processes().into_iter().find(is_first)
    }

    /// Processes on a server: `agent`, `keeper`, `proxy`, `etcd`, or an instance such as `app1.2`.
    pub fn on(&self, server: &str, name: &str) -> Option<Process> {
        let first = self.server(server)?;
        family(&processes(), first.pid)
            .into_iter()
            .find(|process| is_called(process, name))
    }

    /// As [`on`](Self::on), for a process that must run.
    #[track_caller]
    pub fn process(&self, server: &str, name: &str) -> Process {
        self.on(server, name)
            .unwrap_or_else(|| panic!("{name} does not run on {server}"))
    }

    /// Requests a harm from the site, such as `{"cut_power":"app1"}`.
    #[track_caller]
    pub fn harm(&self, harm: &Value) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let (client, target) = (
            Client::new(None),
            Target::Unix(self.state().join("control.sock")),
        );
        let schema = HeaderName::from_static(schema::HEADER);
        let request = Request::post("/harm", harm.to_string().into_bytes())
            .header(schema, HeaderValue::from(SCHEMA));
        let answer = runtime.block_on(client.request(&target, &request, Duration::from_secs(10)));
        let answer = answer.expect("the site answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Kills every process of this site, all at once.
    pub fn kill_everything(&self) {
        let all = self.processes();
        all.iter().for_each(Process::kill);
        self.wait_for_nothing();
    }

    /// Waits until no process of this site is left.
    #[track_caller]
    pub fn wait_for_nothing(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.processes().is_empty() {
            assert!(
                Instant::now() < deadline,
                "still there: {:#?}",
                self.processes()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines of every log, for a failed test.
    fn show_logs(&self) {
        // A lab may have another file system there.
        let processes = self.processes().into_iter();
        let lab = processes.filter(|process| process.args.get(1).is_some_and(|arg| arg == "lab"));
        let root = lab.map(|lab| PathBuf::from(format!("/proc/{}/root", lab.pid)));
        let root = root.into_iter().next().unwrap_or_else(|| "/".into());
        let state = root.join(self.state().strip_prefix("/").expect("it is absolute"));
        let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
        let servers = entries(state.join("servers"));
        let logs = servers.flat_map(|server| entries(server.path().join("log")));
        let logs = logs.map(|log| log.path());
        for log in [state.join("lab.log")].into_iter().chain(logs) {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}", log.display());
            lines[lines.len().saturating_sub(25)..]
                .iter()
                .for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        if self.state().join("control.sock").exists() {
            let _ = finish(self.start(&["down"]), Duration::from_secs(40));
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && !self.processes().is_empty() {
            self.processes().iter().for_each(Process::kill);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Copies the guest book and its pages to a site's directory.
pub(crate) fn put_guest_book(folder: &Path) {
    let public = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/guestbook/public");
    for part in ["bin", "public"] {
        fs::create_dir_all(folder.join(part)).expect("a folder is made");
    }
    for file in fs::read_dir(public).expect("the guest book has pages") {
        let file = file.expect("its folder is read");
        let copy = folder.join("public").join(file.file_name());
        fs::copy(file.path(), copy).expect("a page is copied");
    }
    let program = folder.join("bin/guestbook");
    fs::copy(binaries::guest_book(), program).expect("the guest book is copied");
}

/// Copies the environment and directory of one command to another.
fn like(mut command: Command, other: &Command) -> Command {
    command.envs(
        other
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command
        .current_dir(other.get_current_dir().expect("it has one"))
        .stdin(Stdio::null());
    command
}

fn is_called(process: &Process, name: &str) -> bool {
    let arg = |index: usize| process.args.get(index).map_or("", String::as_str);
    let program = Path::new(arg(0)).file_name();
    let is = |name: &str| program.is_some_and(|program| program == name);
    match name {
        "agent" | "keeper" | "proxy" => (is("exe") || is("gaiola")) && arg(1) == name,
        "etcd" | "postgres" => is(name),
        instance => process
            .env("INSTANCE")
            .is_some_and(|named| named == instance),
    }
}

/// Runs a command to its end, and kills it if it takes longer than `limit`.
#[track_caller]
/// A standard input that holds this.
pub(crate) fn input(text: &str) -> Stdio {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it is ours");
    file.rewind().expect("it is a file");
    file.into()
}

pub(crate) fn run(mut command: Command, limit: Duration) -> Ran {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    finish(child, limit)
        .unwrap_or_else(|ran| panic!("{command:?} took longer than {limit:?}: {ran:#?}"))
}

/// Waits for a child; `Err`: it had to be killed.
fn finish(child: Child, limit: Duration) -> Result<Ran, Ran> {
    let pid = child.id();
    let (ended, waits) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = ended.send(());
        output
    });
    let late = waits.recv_timeout(limit).is_err();
    if late {
        gaiola_os::process::signal(pid, rustix::process::Signal::KILL);
    }
    let output = reader
        .join()
        .expect("it is only read")
        .expect("it can be waited for");
    let code = output.status.code().unwrap_or_else(|| {
        128 + std::os::unix::process::ExitStatusExt::signal(&output.status).unwrap_or(0)
    });
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ran = Ran {
        code,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    if late { Err(ran) } else { Ok(ran) }
}

/// A port below the kernel's ephemeral ports, so that no other process takes it before it is used.
fn free_port() -> SocketAddr {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(61);
    loop {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let port = 20_000 + u16::try_from(offset).expect("it is below 12,000");
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Waits for a command that was started with [`Site::start`].
#[track_caller]
pub fn ended(child: Child) -> Ran {
    finish(child, COMMAND_LIMIT)
        .unwrap_or_else(|ran| panic!("it took longer than {COMMAND_LIMIT:?}: {ran:#?}"))
}
