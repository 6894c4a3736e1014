//! Real etcd members on loopback addresses, ended by their own process ids.

use gaiola_net::pki::{self, Authority};
use gaiola_store::etcd::{self, EtcdMember, Join, Launch, Program};
use gaiola_store::{Settings, Store, StoreError};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Far more than anything here takes; a hang ends as a failure that says where.
const LONG: Duration = Duration::from_secs(50);

/// The installed etcd; without one the test says that it was left out.
pub(crate) fn installed(test: &str) -> Option<Program> {
    match etcd::find() {
        Ok(program) => Some(program),
        Err(error) => {
            gaiola_os::skip::skipped(test, &error.to_string());
            None
        }
    }
}

/// Members and the authority that they trust.
pub(crate) struct Cluster {
    dir: TempDir,
    authority: Authority,
    program: Program,
    pub(crate) token: String,
    pub(crate) members: Vec<EtcdMember>,
    running: Vec<Option<Child>>,
}

impl Cluster {
    /// `count` members that have not been started.
    pub(crate) fn new(program: Program, count: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create_or_load(&dir.path().join("ca")).unwrap();
        authority
            .issue("client", &[], &dir.path().join("client"))
            .unwrap();
        let mut cluster = Self {
            dir,
            authority,
            program,
            token: "first".into(),
            members: Vec::new(),
            running: Vec::new(),
        };
        (0..count).for_each(|n| cluster.add(n));
        cluster
    }

    /// `count` members that were started together and have a leader.
    pub(crate) async fn start(program: Program, count: u8) -> (Self, Store) {
        let mut cluster = Self::new(program, count);
        let members = cluster.members.clone();
        for index in 0..members.len() {
            cluster.run(index, Join::Bootstrap(members.clone()));
        }
        let store = cluster.store();
        eventually(|| store.revision()).await;
        (cluster, store)
    }

    /// One more member, which is not started.
    pub(crate) fn add(&mut self, n: u8) {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 31 + n));
        // Both are bound at once, so that they differ.
        let free = [0, 1].map(|_| TcpListener::bind((address, 0)).unwrap());
        let [client_port, peer_port] = free.map(|socket| socket.local_addr().unwrap().port());
        let name = format!("app{}", n + 1);
        self.authority
            .issue(&name, &[address], &self.dir.path().join(&name))
            .unwrap();
        self.members.push(EtcdMember {
            client_port,
            peer_port,
            ..EtcdMember::new(name, address)
        });
        self.running.push(None);
    }

    /// A client's view of the members that run.
    pub(crate) fn store(&self) -> Store {
        Store::new(self.settings())
    }

    pub(crate) fn settings(&self) -> Settings {
        let tls = pki::client_config(&self.dir.path().join("client")).unwrap();
        let running = self.members.iter().zip(&self.running);
        let endpoints = running
            .filter(|(_, child)| child.is_some())
            .map(|(member, _)| member.target());
        Settings::new(endpoints.collect(), Some(tls))
    }

    /// The member that `store` asks first.
    pub(crate) fn first_asked(&self, store: &Store) -> usize {
        let first = &store.endpoints()[0];
        self.members
            .iter()
            .position(|member| member.target() == *first)
            .unwrap()
    }

    pub(crate) fn run(&mut self, index: usize, join: Join) {
        let member = self.members[index].clone();
        let launch = Launch {
            data: self.data(index),
            pki: self.dir.path().join(&member.name),
            token: self.token.clone(),
            member,
            join,
        };
        let command = etcd::command(&self.program, &launch);
        let log = File::create(launch.data.with_extension("log")).unwrap();
        let child = Command::new(command.program)
            .args(command.args)
            .env_clear()
            .envs(command.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        assert!(self.running[index].replace(child).is_none());
    }

    pub(crate) fn kill(&mut self, index: usize) {
        let mut child = self.running[index].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn wipe(&self, index: usize) {
        std::fs::remove_dir_all(self.data(index)).unwrap();
    }

    pub(crate) fn pause(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    pub(crate) fn resume(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        let child = self.running[index].as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    fn data(&self, index: usize) -> PathBuf {
        self.dir
            .path()
            .join(format!("{}-data", self.members[index].name))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for mut child in self.running.drain(..).flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Tries until it succeeds.
pub(crate) async fn eventually<T, F>(mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut last = None;
    let trying = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(LONG, trying).await {
        Ok(value) => value,
        Err(_) => panic!("still failing: {last:?}"),
    }
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}
