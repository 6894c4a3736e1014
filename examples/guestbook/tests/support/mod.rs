//! A real PostgreSQL, the built site, and a small HTTP client.

// Each test file uses a part.
#![allow(dead_code)]

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Timeout of every wait in a test.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Reports that the current test is skipped: on standard error, and in the file that `GAIOLA_SKIPPED` names, where
/// `scripts/test` counts it.
///
/// # Panics
/// If that file cannot be written: the skipped test would go unnoticed.
fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("guestbook");
    eprintln!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("GAIOLA_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
        written.expect("the file of skipped tests can be written");
    }
}

/// This test's own PostgreSQL. Dropping it stops it and removes its files.
pub struct Postgres {
    programs: PathBuf,
    user: Option<(u32, u32)>,
    directory: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Starts an empty one. `None` if PostgreSQL is not installed, which is reported.
    pub async fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            skipped("PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/initdb)");
            return None;
        };
        let user = unprivileged();
        let directory = tempfile::tempdir().unwrap();
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut postgres = Self {
            programs,
            user,
            directory,
            port,
            server: None,
        };
        let initialised = postgres
            .command("initdb")
            .args([
                "-D",
                &postgres.data(),
                "-U",
                "guestbook",
                "-A",
                "trust",
                "-E",
                "UTF8",
            ])
            .args(["--locale=C", "--no-sync"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(initialised.success(), "initdb failed");
        postgres.run().await;
        Some(postgres)
    }

    /// Starts the server and waits until it answers.
    pub async fn run(&mut self) {
        let server = self
            .command("postgres")
            .args(["-D", &self.data(), "-p", &self.port.to_string()])
            .args(["-k", self.directory.path().to_str().unwrap()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(server);
        self.client().await;
    }

    /// Stops the server as a crash would: no checkpoint, all sessions aborted.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            signal(&server, Signal::QUIT);
            server.wait().unwrap();
        }
    }

    /// The value of DATABASE_URL.
    pub fn url(&self) -> String {
        format!("postgres://guestbook@127.0.0.1:{}/postgres", self.port)
    }

    /// A session over the Unix socket, as soon as it is possible.
    pub async fn client(&self) -> Client {
        let directory = self.directory.path().display();
        let address = format!(
            "host={directory} port={} user=guestbook dbname=postgres",
            self.port
        );
        let opened = tokio::time::timeout(DEADLINE, async {
            loop {
                if let Ok((client, connection)) = tokio_postgres::connect(&address, NoTls).await {
                    tokio::spawn(connection);
                    return client;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        opened.await.expect("PostgreSQL starts")
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.directory.path());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<_> = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|programs| programs.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

/// PostgreSQL refuses to run as root: as root the tests run it as the user `postgres`.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let fields: Vec<&str> = users
        .lines()
        .find(|line| line.starts_with("postgres:"))?
        .split(':')
        .collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// Sends a signal to one of this test's processes.
pub fn signal(child: &Child, which: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, which).unwrap();
}

/// The site's command, run from its directory.
pub fn guestbook() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestbook"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    for name in [
        "DATABASE_URL",
        "DATABASE_REPLICA_URL",
        "INSTANCE",
        "RELEASE",
        "HOST",
        "GUESTBOOK_RATE",
    ] {
        command.env_remove(name);
    }
    command.env("PORT", "0");
    command
}

/// A running instance. Dropping it kills it.
pub struct Instance {
    pub process: Child,
    pub address: SocketAddr,
}

impl Instance {
    /// Starts one and waits until it listens.
    pub fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse();
        Self {
            process,
            address: address.unwrap_or_else(|_| panic!("it said {line:?}")),
        }
    }

    /// One request on a new connection; with `body` it is a POST.
    pub async fn ask(&self, path: &str, body: Option<&str>) -> (StatusCode, Value) {
        tokio::time::timeout(DEADLINE, ask(self.address, path, body))
            .await
            .expect("an answer in time")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The response's status, and its body as JSON or else as a string.
pub async fn ask(address: SocketAddr, path: &str, body: Option<&str>) -> (StatusCode, Value) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(path)
        .header("host", "guestbook.example")
        .header("via", "1.1 lb2, 1.1 web1")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.unwrap_or_default().to_string())))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or_else(|_| text()),
    )
}
