//! The two proxies, each one process that serves all conversations: every one has a frontend and a backend of its own.

use super::peer::LONG;
use super::setup::Setup;
use super::tls;
use gaiola_proxy::{read_file, serve_file};
use std::fmt::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The environment variable that names a proxy process' directory.
const DIRECTORY: &str = "GAIOLA_TEST_ORACLE_DIRECTORY";

/// Gaiola's file, in that directory.
const FILE: &str = "proxy.toml";

/// What a conversation's frontend and backend are to be.
pub(crate) struct Site<'a> {
    pub(crate) bind: SocketAddr,
    pub(crate) setup: &'a Setup,
    pub(crate) servers: Vec<SocketAddr>,
}

/// Loopback addresses that nobody else uses, so that no port is taken.
#[derive(Clone, Copy)]
pub(crate) struct Place([u8; 3]);

impl Place {
    /// One that has not been used by this process.
    pub(crate) fn new() -> Self {
        static USED: AtomicU8 = AtomicU8::new(0);
        let number = USED.fetch_add(1, Ordering::Relaxed) + 1;
        let pid = std::process::id().to_be_bytes();
        Self([64 + pid[2] % 128, pid[3], number])
    }

    /// Where a frontend listens.
    pub(crate) fn bind(self, index: u16) -> SocketAddr {
        let [a, b, c] = self.0;
        SocketAddr::from(([127, a, b, c], 20_000 + index))
    }

    /// Where nobody listens.
    pub(crate) fn nobody(self) -> SocketAddr {
        SocketAddr::new(self.bind(0).ip(), 1)
    }
}

/// HAProxy, which ends with this value.
pub(crate) struct Haproxy {
    _process: Process,
    _directory: tempfile::TempDir,
}

impl Haproxy {
    /// Its version as its package has it, where it is installed: releases with mended faults do otherwise than others.
    pub(crate) fn version() -> Option<String> {
        let output = command().arg("-v").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text
            .split(' ')
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        Some(version.to_owned())
    }

    pub(crate) fn start(sites: &[Site<'_>]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, haproxy_cfg(sites)).unwrap();
        tls::write_certificates(directory.path());
        let child = command()
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let haproxy = Self {
            _process: Process(child),
            _directory: directory,
        };
        wait_for(sites);
        haproxy
    }
}

/// Debian has it where only root's PATH leads.
fn command() -> Command {
    let sbin = Path::new("/usr/sbin/haproxy");
    Command::new(if sbin.exists() {
        sbin
    } else {
        Path::new("haproxy")
    })
}

fn haproxy_cfg(sites: &[Site<'_>]) -> String {
    let mut text = String::from(
        "global
    nbthread 1
    maxconn 2000
    log 127.0.0.1:9 local0 emerg
defaults
    timeout client 20s
    timeout http-request 20s
    timeout http-keep-alive 20s
    timeout connect 20s
    timeout server 20s
    timeout queue 20s
    timeout tunnel 20s
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
    http-reuse always
    option disable-h2-upgrade
    option abortonclose
    option http-ignore-probes
",
    );
    for (index, site) in sites.iter().enumerate() {
        let setup = site.setup;
        let (mode, front, back) = if setup.tcp {
            ("tcp", "", "")
        } else {
            ("http", HAPROXY_FRONTEND, HAPROXY_BACKEND)
        };
        write!(
            text,
            "frontend f{index}
    mode {mode}
    bind {} {}
    {front}
    {}
    default_backend b{index}
backend b{index}
    mode {mode}
    {back}
    {}
",
            site.bind, setup.bind, setup.frontend, setup.backend
        )
        .unwrap();
        for (index, server) in site.servers.iter().enumerate() {
            let (number, words) = (index + 1, setup.servers[index.min(1)]);
            writeln!(text, "    server s{number} {server} {words}").unwrap();
        }
    }
    text
}

/// What Gaiola says of the way, said by HAProxy; claims of clients about it are not believed.
const HAPROXY_FRONTEND: &str = "http-request del-header x-forwarded- -m beg
    http-request del-header x_forwarded_ -m beg
    http-request del-header x-real-ip
    http-request del-header forwarded
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Host %[req.hdr(host)] if { req.hdr(host) -m found }";

/// A request that may have been carried out and is not idempotent is not sent twice.
const HAPROXY_BACKEND: &str =
    "http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE TRACE }";

/// Gaiola, which ends with this value.
pub(crate) struct Gaiola {
    _process: Process,
    _directory: tempfile::TempDir,
}

impl Gaiola {
    pub(crate) fn start(sites: &[Site<'_>]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), proxy_toml(sites)).unwrap();
        tls::write_certificates(directory.path());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "proxy_process", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let gaiola = Self {
            _process: Process(child),
            _directory: directory,
        };
        wait_for(sites);
        gaiola
    }
}

/// Serves, in the process that was started for it.
pub(crate) fn run_gaiola() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let path = Path::new(&directory).join(FILE);
    match read_file(&path) {
        Ok(file) => serve_file(&path, file).unwrap(),
        Err(mistakes) => panic!("{mistakes}"),
    }
}

fn proxy_toml(sites: &[Site<'_>]) -> String {
    let mut text = String::from(
        "name = 'lb1'
workers = 1
[timeouts]
http_request = '20s'
http_keep_alive = '20s'
client = '20s'
tunnel = '20s'
connect = '20s'
server = '20s'
queue = '20s'
tcp_user = '20s'
pool = '20s'
",
    );
    for (index, site) in sites.iter().enumerate() {
        let (toml, name) = (site.setup.gaiola, format!("b{index}"));
        let mode = if site.setup.tcp { "tcp" } else { "http" };
        let mut section = format!(
            "[frontend.f{index}]
mode = '{mode}'
bind = {{ {} }}
backend = 'BACKEND'
{}
[backend.BACKEND]
{}
[backend.BACKEND.server]
",
            keys(site.bind, toml.bind),
            toml.frontend,
            toml.backend
        );
        for (index, server) in site.servers.iter().enumerate() {
            let keys = keys(*server, toml.servers[index.min(1)]);
            writeln!(section, "s{} = {{ {keys} }}", index + 1).unwrap();
        }
        section.push_str(toml.sections);
        writeln!(text, "{}", section.replace("BACKEND", &name)).unwrap();
    }
    text
}

/// The keys of a table that begins with its address.
fn keys(address: SocketAddr, further: &str) -> String {
    match further {
        "" => format!("address = '{address}'"),
        _ => format!("address = '{address}', {further}"),
    }
}

/// Waits until all of them are listened on.
fn wait_for(sites: &[Site<'_>]) {
    let start = Instant::now();
    while let Some(last) = sites.last()
        && let Err(error) = TcpStream::connect(last.bind)
    {
        assert!(start.elapsed() < LONG, "the proxy does not listen: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that is killed with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
