//! PostgreSQL's own way to TLS: the proxy asks for it, and tells its clients that there is none.

use super::*;
use gaiola_model::proxy::StartTls;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
const CANCEL: [u8; 16] = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2];
const STARTUP: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0site\0\0";

impl Site {
    fn local_port(&self, bind: SocketAddr, server: SocketAddr) -> ProxyConfig {
        let mut backend = backend("primary", vec![server_of(server)]);
        backend.servers[0].tls = Some(ServerTls {
            starttls: Some(StartTls::Postgres),
            ..self.to_servers()
        });
        backend.timeouts.queue = Duration::from_millis(300);
        backend.timeouts.connect = LONG;
        tcp(bind, backend, Refusal::Postgres)
    }

    /// Answers the request for TLS with this; after `S` it gives back what comes over TLS.
    fn stand_in(&self, answer: &'static [u8]) -> SocketAddr {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(self.authority.roots());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let (chain, key) = self.authority.read(&self.certificate);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let config = Arc::clone(&config);
                std::thread::spawn(move || echo(stream.unwrap(), answer, config));
            }
        });
        address
    }
}

fn server_of(address: SocketAddr) -> gaiola_model::proxy::Server {
    server("db1", address)
}

fn echo(mut stream: TcpStream, answer: &[u8], config: Arc<ServerConfig>) {
    let mut request = [0; 8];
    if stream.read_exact(&mut request).is_err() {
        return;
    }
    assert_eq!(request, SSL_REQUEST);
    stream.write_all(answer).unwrap();
    if answer != b"S" {
        // Until the proxy is gone.
        let _ = stream.read(&mut request);
        return;
    }
    let connection = rustls::ServerConnection::new(config).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        stream.write_all(&bytes[..count]).unwrap();
        stream.flush().unwrap();
    }
}

#[test]
fn a_client_is_told_that_there_is_no_encryption_however_its_bytes_come() {
    let site = Site::new();
    let bind = free_address();
    let _proxy = Proxy::serving(&site.local_port(bind, site.stand_in(b"S")));
    // Nothing, one or both kinds of requests first; at once, or byte by byte.
    for requests in [&[][..], &[SSL_REQUEST], &[GSS_REQUEST, SSL_REQUEST]] {
        for piece in [1, 3, 1000] {
            let mut client = Client::connect(bind);
            for request in requests {
                for bytes in request.chunks(piece) {
                    client.stream.write_all(bytes).unwrap();
                }
                assert_eq!(client.exactly(1), b"N");
            }
            for bytes in STARTUP.chunks(piece) {
                client.stream.write_all(bytes).unwrap();
            }
            assert_eq!(client.exactly(STARTUP.len()), STARTUP);
            client.stream.write_all(b"query").unwrap();
            assert_eq!(client.exactly(5), b"query");
        }
    }
    // A request to cancel, and what is no PostgreSQL, reach the server as they are.
    for other in [&CANCEL[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut client = Client::connect(bind);
        client.stream.write_all(other).unwrap();
        assert_eq!(client.exactly(other.len()), other);
    }
    // So does a third request for encryption: the server will refuse it.
    let mut client = Client::connect(bind);
    client.stream.write_all(&[SSL_REQUEST; 3].concat()).unwrap();
    assert_eq!(client.exactly(10), [b"NN", &SSL_REQUEST[..]].concat());
}

#[test]
fn a_server_without_tls_gets_no_session() {
    let site = Site::new();
    for (answer, words) in [
        (&b"N"[..], "offers no TLS"),
        (b"E\0\0\0\x08", "not PostgreSQL's"),
        // What is sent before TLS is not the server's word.
        (b"Sinjected: an answer", "TLS"),
    ] {
        let bind = free_address();
        let proxy = Proxy::serving(&site.local_port(bind, site.stand_in(answer)));
        let mut client = Client::connect(bind);
        client.stream.write_all(STARTUP).unwrap();
        let told = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(told.contains("\0C57P03\0"), "{told:?}");
        let line = proxy.log_lines(1).remove(0);
        let reason = line["reason"].as_str().unwrap().to_owned();
        let expected = words != "TLS" && reason.contains(words);
        assert!(expected || words == "TLS" && !reason.is_empty(), "{reason}");
    }
}

#[test]
fn a_client_that_does_not_finish_its_request_is_closed() {
    let site = Site::new();
    let bind = free_address();
    let mut config = site.local_port(bind, site.stand_in(b"S"));
    config.frontends[0].timeouts.request_head = Duration::from_millis(200);
    let proxy = Proxy::serving(&config);
    for (sent, cause) in [(&SSL_REQUEST[..5], "cR"), (&STARTUP[..9], "cR")] {
        let mut client = Client::connect(bind);
        client.stream.write_all(sent).unwrap();
        assert_eq!(client.rest(), b"", "{cause}");
    }
    let lines = proxy.log_lines(2);
    assert!(lines.iter().all(|line| line["server"] == "-"), "{lines:?}");
}

#[test]
fn postgresql_itself_knows_the_session_as_one_with_a_certificate() {
    let Some(database) = Database::start() else {
        return gaiola_os::skip::skipped("postgres::encrypted", "there is no PostgreSQL here");
    };
    let bind = free_address();
    let _proxy = Proxy::serving(&database.site.local_port(bind, database.address));
    let query = "select ssl, version like 'TLS%', client_dn is not null from pg_stat_ssl where pid = pg_backend_pid()";
    // libpq asks for encryption itself, unless it is told not to.
    for mode in ["prefer", "disable"] {
        let said = database.psql(bind, mode, query);
        assert_eq!(said, Ok("t|t|t".into()), "{mode}");
    }
    // The server takes nobody without a certificate, nor in plain text.
    for mode in ["require", "disable"] {
        let said = database.psql(database.address, mode, query);
        let why = said.unwrap_err();
        assert!(
            why.contains("certificate") || why.contains("no encryption"),
            "{why}"
        );
    }
    // A running query is cancelled through the proxy.
    let cancelled = database.psql(
        bind,
        "prefer",
        "set statement_timeout = 100; select pg_sleep(20)",
    );
    assert!(cancelled.unwrap_err().contains("statement timeout"));
    let interrupted = database.interrupted(bind);
    assert!(interrupted.contains("user request"), "{interrupted}");
}

/// As in a site sessions begin with SCRAM, for which a server behind TLS offers channel binding.
const PASSWORD: &str = "a password";

/// A PostgreSQL of its own that accepts only clients with a certificate of the site.
struct Database {
    site: Site,
    address: SocketAddr,
    bin: PathBuf,
    postmaster: Child,
    _directory: tempfile::TempDir,
}

impl Database {
    fn start() -> Option<Self> {
        let installed = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let newest = installed.flatten().map(|entry| entry.path()).max()?;
        let bin = newest.join("bin");
        let site = Site::new();
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let [ca, own] = ["ca.pem", "own.pem"].map(|name| directory.path().join(name));
        std::fs::copy(site.ca(), &ca).unwrap();
        std::fs::copy(&site.certificate, &own).unwrap();
        let password = directory.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        for path in [directory.path(), &ca, &own, &password] {
            let owner = owner();
            if let Some((user, group)) = owner {
                std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
            }
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&own, mode).unwrap();
        let made = as_owner(&bin.join("initdb"))
            .args(["--auth=scram-sha-256", "--username=shop", "--no-sync"])
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let hba = "hostssl all all 127.0.0.0/8 scram-sha-256 clientcert=verify-ca\n";
        std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let address = free_address();
        let postmaster = as_owner(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(settings(address, directory.path(), &ca, &own))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("PostgreSQL listens", || TcpStream::connect(address).is_ok());
        Some(Self {
            site,
            address,
            bin,
            postmaster,
            _directory: directory,
        })
    }

    fn client(&self, address: SocketAddr, mode: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        let target = format!(
            "host={} port={} user=shop dbname=postgres sslmode={mode} gssencmode=disable connect_timeout=20",
            address.ip(),
            address.port()
        );
        psql.args(["-X", "-A", "-t", "-q", "-d", &target]);
        psql.env("HOME", "/nonexistent");
        psql.env("PGPASSWORD", PASSWORD);
        psql
    }

    fn psql(&self, address: SocketAddr, mode: &str, query: &str) -> Result<String, String> {
        // It may still be starting.
        for _ in 0..200 {
            let ran = self
                .client(address, mode)
                .args(["-c", query])
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&ran.stderr).into_owned();
            if ran.status.success() {
                return Ok(String::from_utf8_lossy(&ran.stdout).trim().into());
            }
            if !error.contains("starting up") && !error.contains("57P03") {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL does not start");
    }

    /// What psql says whose query is interrupted: it opens another connection for a request to cancel.
    fn interrupted(&self, address: SocketAddr) -> String {
        let running = self
            .client(address, "prefer")
            .args(["-c", "select pg_sleep(20)"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let is_running =
            "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
        eventually("the query runs", || {
            self.psql(address, "prefer", is_running) == Ok("1".into())
        });
        let pid = rustix::process::Pid::from_child(&running);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = running.wait_with_output().unwrap();
        String::from_utf8_lossy(&ended.stderr).into_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Without waiting for sessions.
        let pid = rustix::process::Pid::from_child(&self.postmaster);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.postmaster.wait();
    }
}

fn settings(address: SocketAddr, sockets: &Path, ca: &Path, own: &Path) -> Vec<String> {
    let all = [
        format!("listen_addresses={}", address.ip()),
        format!("port={}", address.port()),
        format!("unix_socket_directories={}", sockets.display()),
        "fsync=off".into(),
        "ssl=on".into(),
        format!("ssl_ca_file={}", ca.display()),
        format!("ssl_cert_file={}", own.display()),
        format!("ssl_key_file={}", own.display()),
    ];
    all.into_iter().flat_map(|one| ["-c".into(), one]).collect()
}

/// PostgreSQL does not run as root.
fn owner() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let found = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(found.unwrap_or((65534, 65534)))
}

fn as_owner(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}
