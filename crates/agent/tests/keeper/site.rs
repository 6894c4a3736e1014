//! Servers with a keeper each, on one bridge: the smallest site that a VIP can move in.

use gaiola_agent::keeper::vip::{VipArgs, run};
use gaiola_agent::relay::RelayThread;
use gaiola_model::keeper::{KeeperConfig, KeeperState, KeeperUdp, KeeperVip, VipRole};
use gaiola_model::vrrp::{Priority, Vrid};
use gaiola_os::netlink::{Lifetime, Netlink};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));

/// The same over IPv6.
pub(crate) const WIDE_VIP: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd0a, 0x4d, 0, 0, 0, 0, 0, 0x100));

/// For any state that is waited for: an hour on a machine that is not stuck.
const LIMIT: Duration = Duration::from_secs(30);

const ROLE: &str = "GAIOLA_TEST_ROLE";
const DIRECTORY: &str = "GAIOLA_TEST_DIRECTORY";
const NAME: &str = "GAIOLA_TEST_NAME";

/// This program again, as one of the processes of a server.
#[test]
fn process_of_a_server() {
    let text = |name| std::env::var(name).unwrap_or_default();
    match text(ROLE).as_str() {
        "keeper" => run(VipArgs {
            directory: PathBuf::from(text(DIRECTORY)),
            realtime: true,
        })
        .unwrap(),
        "relay" => relay(text(NAME).parse().unwrap()),
        "server" => answer_with_name(&text(NAME)),
        _ => {}
    }
}

/// Where the keeper or the relay of the server with this address receives.
fn socket(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 9181)
}

/// Relays between lb1 and lb2.
fn relay(own: IpAddr) {
    let keepers = [1, 2].map(|n| socket(IpAddr::V4(Ipv4Addr::new(10, 77, 1, n))));
    let mut thread = RelayThread::start(socket(own)).unwrap();
    thread.serve(keepers.to_vec());
    loop {
        std::thread::park();
    }
}

/// Answers every client of port 80 with the server it has reached, on whatever address.
fn answer_with_name(name: &str) {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap();
    for stream in listener.incoming() {
        let _ = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
    }
}

/// A bridge, and the servers on it. This process stands on the bridge as 10.77.0.1: the clients' router.
pub(crate) struct Site {
    pub(crate) net: Netlink,
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut net = Netlink::open().unwrap();
        net.create_bridge("br0").unwrap();
        net.set_up("br0").unwrap();
        let own = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
        net.add_address("br0", own, 16, Lifetime::Forever).unwrap();
        let wide = "fd0a:4d::1".parse().unwrap();
        net.add_address("br0", wide, 64, Lifetime::Forever).unwrap();
        Self {
            net,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// A server with the address 10.77.1.`number`, that serves and has no keeper yet.
    pub(crate) fn server(&mut self, number: u8) -> Server {
        let name = format!("lb{number}");
        let directory = self.directory.path().join(&name);
        std::fs::create_dir_all(&directory).unwrap();
        let this = std::env::current_exe().unwrap();
        let process = Command::new("unshare")
            .args(["--net", "--"])
            .arg(this)
            .args([
                "--exact",
                "site::process_of_a_server",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, "server")
            .env(NAME, &name)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server {
            address: IpAddr::V4(Ipv4Addr::new(10, 77, 1, number)),
            port: format!("port{number}"),
            directory,
            process,
            keeper: None,
            relay: None,
            worker: None,
        };
        server.wait_for_namespace();
        self.net
            .create_veth_to_pid(&server.port, "eth0", server.process.id())
            .unwrap();
        self.net.set_master(&server.port, "br0").unwrap();
        self.net.set_up(&server.port).unwrap();
        let address = format!("{}/16", server.address);
        let wide = format!("fd0a:4d::1:{number}/64");
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &address, "dev", "eth0"],
            &["address", "add", &wide, "dev", "eth0", "nodad"],
            &["link", "set", "eth0", "up"],
        ] {
            let done = server.inside("ip").args(arguments).status().unwrap();
            assert!(done.success(), "ip {arguments:?}");
        }
        server
    }
}

/// One balancer.
pub(crate) struct Server {
    pub(crate) address: IpAddr,
    /// Its port of the bridge.
    pub(crate) port: String,
    pub(crate) directory: PathBuf,
    process: Child,
    keeper: Option<Child>,
    relay: Option<Child>,
    worker: Option<Arc<AtomicBool>>,
}

impl Server {
    /// A command in this server's network.
    pub(crate) fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.process.id()))
            .arg("--")
            .arg(program);
        command
    }

    /// The usual configuration: one VIP with this priority.
    pub(crate) fn config(&self, priority: u8) -> KeeperConfig {
        KeeperConfig {
            schema: gaiola_model::schema::SCHEMA,
            interface: "eth0".into(),
            address: self.address,
            key: None,
            interval_ms: 100,
            vips: vec![KeeperVip {
                vip: VIP,
                vrid: Vrid::new(1).unwrap(),
                prefix: 32,
                priority: Priority(priority),
                preempt: false,
                yields: 0,
                holds_back: false,
            }],
            maintenance: false,
            udp: None,
        }
    }

    /// The same with an IPv6 VIP.
    pub(crate) fn wide(config: KeeperConfig) -> KeeperConfig {
        let vips = config.vips.into_iter().map(|vip| KeeperVip {
            vip: WIDE_VIP,
            prefix: 128,
            ..vip
        });
        KeeperConfig {
            vips: vips.collect(),
            ..config
        }
    }

    /// The configuration of one of two balancers with a key and these relays.
    pub(crate) fn sealed_config(&self, priority: u8, relays: &[&Self]) -> KeeperConfig {
        let balancers = [1, 2].map(|n| IpAddr::V4(Ipv4Addr::new(10, 77, 1, n)));
        let others = balancers.into_iter().filter(|it| *it != self.address);
        KeeperConfig {
            key: Some("0f1e2d3c4b5a69788796a5b4c3d2e1f0".into()),
            udp: Some(KeeperUdp {
                port: 9181,
                balancers: others.map(socket).collect(),
                has_heir: true,
                relays: relays.iter().map(|relay| socket(relay.address)).collect(),
                unicast: false,
            }),
            ..self.config(priority)
        }
    }

    /// A process that relays on this server.
    pub(crate) fn start_relay(&mut self) {
        let mut relay = self.process("relay");
        relay.env(NAME, self.address.to_string());
        self.relay = Some(relay.spawn().unwrap());
    }

    /// It is killed; the server's kernel stays.
    pub(crate) fn kill_relay(&mut self) {
        let mut relay = self.relay.take().expect("a relay was started");
        relay.kill().unwrap();
        relay.wait().unwrap();
    }

    pub(crate) fn configure(&self, config: &KeeperConfig) {
        let new = self.directory.join("new");
        std::fs::write(&new, serde_json::to_string(config).unwrap()).unwrap();
        std::fs::rename(new, self.directory.join("keeper.json")).unwrap();
    }

    pub(crate) fn start_keeper(&mut self) {
        let mut keeper = self.process("keeper");
        keeper.env(DIRECTORY, &self.directory);
        self.keeper = Some(keeper.spawn().unwrap());
    }

    /// This program in this server's network, in a role.
    fn process(&self, role: &str) -> Command {
        let mut process = self.inside("env");
        process
            // Inherited by every thread of the test harness, so that the keeper's thread alone gets it.
            .arg("--block-signal=TERM")
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "site::process_of_a_server",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, role)
            .stdout(Stdio::null());
        process
    }

    /// A keeper with the usual configuration, and a worker that beats.
    pub(crate) fn join(&mut self, config: &KeeperConfig) {
        self.configure(config);
        self.start_keeper();
        self.start_worker();
    }

    /// Beats as a proxy's only worker, connecting again when the keeper went away.
    pub(crate) fn start_worker(&mut self) {
        let lives = Arc::new(AtomicBool::new(true));
        self.worker = Some(lives.clone());
        let socket = self.directory.join("keeper.sock");
        std::thread::spawn(move || {
            while lives.load(Ordering::Relaxed) {
                beat(&socket, &lives);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
    }

    /// The proxy is gone: its connection closes.
    pub(crate) fn stop_worker(&mut self) {
        if let Some(lives) = self.worker.take() {
            lives.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn keeper(&mut self) -> &mut Child {
        self.keeper.as_mut().expect("a keeper was started")
    }

    pub(crate) fn signal(&mut self, signal: &str) {
        let pid = self.keeper().id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// What the keeper reports; `None` before its first report.
    pub(crate) fn state(&self) -> Option<KeeperState> {
        let text = std::fs::read(self.directory.join("keeper-state.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Its role for its only VIP.
    pub(crate) fn role(&self) -> Option<VipRole> {
        Some(self.state()?.vips.values().next()?.state)
    }

    pub(crate) fn wait_for_role(&self, role: VipRole) {
        wait(&format!("{} to be {role:?}", self.address), || {
            self.role() == Some(role)
        });
    }

    /// Whether the kernel has the VIP on this server's interface.
    pub(crate) fn has_vip(&self) -> bool {
        self.has_vip_with(32)
    }

    /// What the kernel says of the IPv6 VIP; empty if it does not have it.
    pub(crate) fn wide_vip(&self) -> String {
        let listed = self
            .inside("ip")
            .args(["-6", "-o", "address", "show", "dev", "eth0"])
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout);
        let mut lines = listed.lines();
        let line = lines.find(|line| line.contains(&format!("{WIDE_VIP}/128")));
        line.unwrap_or_default().to_owned()
    }

    /// The same, with a prefix of this length.
    pub(crate) fn has_vip_with(&self, prefix: u8) -> bool {
        let listed = self
            .inside("ip")
            .args(["-4", "-o", "address", "show", "dev", "eth0"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&listed.stdout).contains(&format!("{VIP}/{prefix}"))
    }

    fn wait_for_namespace(&self) {
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let pid = self.process.id().to_string();
        wait("a network namespace", || {
            network(&pid).is_some() && network(&pid) != network("self")
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_worker();
        let others = self.keeper.iter_mut().chain(&mut self.relay);
        for child in others.chain([&mut self.process]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until something is so.
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begin.elapsed()
}

fn beat(socket: &Path, lives: &AtomicBool) {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return;
    };
    if stream.write_all(b"worker 0 of 1\n").is_err() {
        return;
    }
    while lives.load(Ordering::Relaxed) && stream.write_all(b".").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
}
