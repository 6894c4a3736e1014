//! A proxy, servers behind it, and a client before it.

mod origin;

pub(crate) use origin::*;

use gaiola_model::Revision;
use gaiola_model::proxy::{
    Admission, Backend, Bind, Check, CheckKind, ControlReply, ControlRequest, Frontend, Mode,
    ProxyConfig, ProxyReport, Refusal, Route, Server,
};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

/// The environment variable that names a proxy process' directory.
pub(crate) const DIRECTORY: &str = "GAIOLA_TEST_PROXY_DIRECTORY";

/// Nothing that works takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A port that nothing listens on now.
/// On an address that no other test process uses, so that nobody takes the port before the proxy does.
pub(crate) fn free_address() -> SocketAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    TcpListener::bind((Ipv4Addr::new(127, 64 + a, b, c), 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A port of every IPv4 address. Nobody but a proxy, which shares its ports, gets it as long as this is kept.
pub(crate) struct WildPort(OwnedFd);

impl WildPort {
    pub(crate) fn reserve() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseport(&socket, true).unwrap();
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        Self(socket)
    }

    pub(crate) fn number(&self) -> u16 {
        let address = SocketAddr::try_from(getsockname(&self.0).unwrap());
        address.unwrap().port()
    }
}

/// Polls until it is so; fails after [`LONG`].
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A proxy process, which ends with this value.
pub(crate) struct Proxy {
    pub(crate) child: Child,
    pub(crate) admin: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
}

impl Proxy {
    /// Starts a proxy without a configuration.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Starts a proxy in a directory that may hold `keeper.sock` and `config.json`, or `proxy.toml`.
    pub(crate) fn start_in(directory: tempfile::TempDir) -> Self {
        let admin = free_address();
        std::fs::write(directory.path().join("admin"), admin.to_string()).unwrap();
        let child = spawn_in(&directory);
        let proxy = Self {
            child,
            admin,
            directory,
        };
        eventually("the control socket is there", || {
            UnixStream::connect(proxy.file("proxy.sock")).is_ok()
        });
        // It answers once what it was started with is in force.
        proxy.report();
        proxy
    }

    /// Starts another process in the same directory, which takes over.
    pub(crate) fn spawn(&self) -> Child {
        spawn_in(&self.directory)
    }

    /// A proxy that serves this.
    pub(crate) fn serving(config: &ProxyConfig) -> Self {
        let proxy = Self::start();
        proxy.configure(config);
        proxy
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn ask(&self, request: &ControlRequest) -> ControlReply {
        let mut stream = UnixStream::connect(self.file("proxy.sock")).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        stream.write_all(&line).unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap()
    }

    pub(crate) fn configure(&self, config: &ProxyConfig) {
        let reply = self.ask(&ControlRequest::Configure(Box::new(config.clone())));
        assert_eq!(reply, ControlReply::Configured(config.revision));
    }

    pub(crate) fn report(&self) -> ProxyReport {
        match self.ask(&ControlRequest::Report) {
            ControlReply::Report(report) => report,
            other => panic!("{other:?}"),
        }
    }

    /// How many connections to the address are left.
    pub(crate) fn admit(&self, address: IpAddr, admission: Admission, wait: Duration) -> u64 {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap();
        match self.ask(&ControlRequest::Admit {
            address,
            admission,
            wait_ms,
        }) {
            ControlReply::Admitted { connections } => connections,
            other => panic!("{other:?}"),
        }
    }

    /// What the admin port answers.
    pub(crate) fn admin(&self, path: &str) -> Response {
        let mut client = Client::connect(self.admin);
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n"));
        client.response()
    }

    /// The access log's lines, once there are `count`.
    pub(crate) fn log_lines(&self, count: usize) -> Vec<serde_json::Value> {
        let read = || std::fs::read_to_string(self.file("access.log")).unwrap();
        eventually("the log has its lines", || read().lines().count() >= count);
        read()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

fn spawn_in(directory: &tempfile::TempDir) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "proxy_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn server(name: &str, address: SocketAddr) -> Server {
    Server::new(name, address)
}

pub(crate) fn backend(name: &str, servers: Vec<Server>) -> Backend {
    Backend::new(name, servers)
}

/// A check that asks often, believes each answer, and waits long for it.
pub(crate) fn patient_check(kind: CheckKind) -> Check {
    Check {
        kind,
        port: None,
        host: None,
        headers: std::collections::BTreeMap::new(),
        status: Vec::new(),
        interval: Duration::from_millis(50),
        fast_interval: Duration::from_millis(20),
        connect: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        rise: 1,
        fall: 1,
    }
}

pub(crate) fn http_frontend(bind: SocketAddr, backend: &str) -> Frontend {
    let mode = Mode::Http {
        routes: vec![Route::to(backend)],
        trusted: Vec::new(),
    };
    Frontend {
        maxconn: 1000,
        ..Frontend::new("site", vec![Bind::new(bind)], mode)
    }
}

pub(crate) fn tcp_frontend(bind: SocketAddr, backend: &str, refusal: Refusal) -> Frontend {
    Frontend {
        mode: Mode::Tcp {
            backend: backend.into(),
            refusal,
            sni: Vec::new(),
        },
        ..http_frontend(bind, backend)
    }
}

/// One HTTP frontend on `bind`, one backend `app` with these servers named `s1`, `s2`, ...
pub(crate) fn config(bind: SocketAddr, servers: &[SocketAddr]) -> ProxyConfig {
    let named =
        |(index, address): (usize, &SocketAddr)| server(&format!("s{}", index + 1), *address);
    ProxyConfig {
        revision: Revision(1),
        server: "lb1".into(),
        frontends: vec![http_frontend(bind, "app")],
        backends: vec![backend(
            "app",
            servers.iter().enumerate().map(named).collect(),
        )],
        ..ProxyConfig::default()
    }
}

/// A client's connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) reader: BufReader<TcpStream>,
}

/// A response as a client reads it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect_timeout(&address, LONG).unwrap())
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Sends a GET and reads its response.
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: site\r\n\r\n"));
        self.response()
    }

    /// A status line and fields.
    pub(crate) fn head(&mut self) -> Response {
        let first = self.line();
        let status = first
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("not a status line: {first:?}"));
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some((name, value)) => fields.push((name.into(), value.into())),
                None => break,
            }
        }
        Response {
            status: status.parse().unwrap(),
            fields,
            body: Vec::new(),
        }
    }

    /// A whole response to anything but HEAD.
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head();
        let is_chunked = response.field("Transfer-Encoding").is_some();
        let length = response
            .field("Content-Length")
            .map(|length| length.parse().unwrap());
        response.body = match (is_chunked, length) {
            _ if matches!(response.status, 100..200 | 204 | 304) => Vec::new(),
            (true, None) => self.chunks(),
            (false, Some(length)) => self.exactly(length),
            (false, None) => self.rest(),
            (true, Some(_)) => panic!("both lengths: {response:?}"),
        };
        response
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            body.extend(self.exactly(size));
            assert_eq!(self.line(), "");
            if size == 0 {
                return body;
            }
        }
    }

    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to the connection's end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end_matches("\r\n").to_owned()
    }

    /// Whether the other side has closed, with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.reader.fill_buf(), Ok([]) | Err(_))
    }
}
