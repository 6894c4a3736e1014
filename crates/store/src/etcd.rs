//! The members themselves: which etcd is installed, how a member is started, and how one member grows into three.

mod program;

pub use program::{Program, ProgramError, Version, find};

use crate::MemberInfo;
use gaiola_core::{members, topology};
use gaiola_model::inventory::{Location, Ports};
use gaiola_model::{Placement, ServerName};
use gaiola_net::client::Target;
use gaiola_net::pki;
use std::ffi::OsString;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Database size at which etcd rejects writes and raises NOSPACE: 1 GiB.
const QUOTA: u64 = 1 << 30;

/// A member: its name and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdMember {
    /// Unique; the name of its server.
    pub name: String,
    /// Its server's address, which its certificate names.
    pub address: IpAddr,
    /// Default [`Ports::store_client`].
    pub client_port: u16,
    /// Default [`Ports::store_peer`].
    pub peer_port: u16,
}

impl EtcdMember {
    /// The member on the server `name` at `address`, with the default ports.
    pub fn new(name: impl Into<String>, address: IpAddr) -> Self {
        Self {
            name: name.into(),
            address,
            client_port: Ports::DEFAULT.store_client,
            peer_port: Ports::DEFAULT.store_peer,
        }
    }

    /// The member on this server of the placement; `None`: the placement does not have it.
    pub fn on(placement: &Placement, server: ServerName) -> Option<Self> {
        let location = topology::location(placement, server)?;
        Some(Self::at(server, location))
    }

    /// The member on this server, with this address.
    pub fn at(server: ServerName, location: &Location) -> Self {
        Self {
            client_port: location.ports.store_client,
            peer_port: location.ports.store_peer,
            ..Self::new(server.to_string(), location.address)
        }
    }

    /// Where clients reach it.
    pub fn client_url(&self) -> String {
        format!(
            "https://{}",
            SocketAddr::new(self.address, self.client_port)
        )
    }

    /// Where its peers reach it.
    pub fn peer_url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.address, self.peer_port))
    }

    /// Where [`super::Store`] reaches it.
    pub fn target(&self) -> Target {
        Target::tls(SocketAddr::new(self.address, self.client_port))
    }
}

/// The client addresses of the members that the placement names.
pub fn endpoints(placement: &Placement) -> Vec<Target> {
    let servers = placement.store.iter();
    let members = servers.filter_map(|server| EtcdMember::on(placement, *server));
    members.map(|member| member.target()).collect()
}

/// The members as decisions see them: each on that of these servers whose peer address it has.
pub fn located(infos: &[MemberInfo], servers: &[EtcdMember]) -> Vec<members::StoreMember> {
    let server_of = |info: &MemberInfo| {
        let mut servers = servers.iter();
        let found = servers.find(|member| info.peer_urls.contains(&member.peer_url()))?;
        found.name.parse().ok()
    };
    let locate = |info: &MemberInfo| members::StoreMember {
        id: info.id,
        server: server_of(info),
        is_started: !info.name.is_empty(),
        is_learner: info.learner,
    };
    infos.iter().map(locate).collect()
}

/// How a member joins its cluster. Ignored by etcd once it has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// These members, including this one, found a new store together.
    Bootstrap(Vec<EtcdMember>),
    /// It was added to these members, this one included (see [`super::Store::member_add_learner`]).
    Existing(Vec<EtcdMember>),
}

/// Everything needed to start a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The member.
    pub member: EtcdMember,
    /// Its data directory; mode 0700, owned by the user it runs as.
    pub data: PathBuf,
    /// The directory of its `ca.pem`, `cert.pem` and `key.pem`, readable by the user it runs as.
    pub pki: PathBuf,
    /// Random, new for each bootstrap, the same for all members: the cluster id derives from it.
    pub token: String,
    /// How it joins its cluster.
    pub join: Join,
}

/// A command to start; it inherits nothing of the caller's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; no secret among them.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

/// The command of a member. It stays in the foreground, logs to stderr, and exits cleanly on SIGTERM.
pub fn command(program: &Program, launch: &Launch) -> Command {
    let (state, members) = match &launch.join {
        Join::Bootstrap(members) => ("new", members),
        Join::Existing(members) => ("existing", members),
    };
    let member = &launch.member;
    let (client, peer) = (member.client_url(), member.peer_url());
    let mut args = Args(Vec::new());
    args.flag("name", &member.name);
    args.path("data-dir", &launch.data);
    args.flag("listen-client-urls", &client);
    args.flag("advertise-client-urls", &client);
    args.flag("listen-peer-urls", &peer);
    args.flag("initial-advertise-peer-urls", &peer);
    args.flag("initial-cluster", &initial_cluster(members));
    args.flag("initial-cluster-state", state);
    args.flag("initial-cluster-token", &launch.token);
    for side in ["", "peer-"] {
        args.path(&format!("{side}trusted-ca-file"), &launch.pki.join(pki::CA));
        args.path(&format!("{side}cert-file"), &launch.pki.join(pki::CERT));
        args.path(&format!("{side}key-file"), &launch.pki.join(pki::KEY));
        args.flag(&format!("{side}client-cert-auth"), "true");
    }
    args.flag("heartbeat-interval", "100");
    args.flag("election-timeout", "1000");
    args.flag("auto-compaction-mode", "periodic");
    args.flag("auto-compaction-retention", "1h");
    args.flag("quota-backend-bytes", &QUOTA.to_string());
    // The default of 100,000 keeps that many entries in memory before 3.6.
    args.flag("snapshot-count", "10000");
    args.flag("strict-reconfig-check", "true");
    args.flag("logger", "zap");
    args.flag("log-level", "warn");
    args.flag("log-outputs", "stderr");
    Command {
        program: program.path.clone(),
        args: args.0,
        env: environment(program),
    }
}

/// Why a member ended, from the end of its log; the lines after it are a stack trace of no use to an operator.
pub fn last_words(log: &str) -> Option<String> {
    let lines = log
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let bad = |line: &serde_json::Value| {
        matches!(line["level"].as_str(), Some("error" | "fatal" | "panic"))
    };
    let line = lines.into_iter().find(bad)?;
    let part = |name: &str| line[name].as_str().filter(|text| !text.is_empty());
    let parts: Vec<&str> = [part("msg"), part("error")].into_iter().flatten().collect();
    Some(parts.join(": "))
}

struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, name: &str, value: &str) {
        self.0.push(format!("--{name}={value}").into());
    }

    fn path(&mut self, name: &str, path: &Path) {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(path);
        self.0.push(flag);
    }
}

fn initial_cluster(members: &[EtcdMember]) -> String {
    let mut text = String::new();
    for member in members {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{}={}", member.name, member.peer_url());
    }
    text
}

/// One thread runs Go code at a time, which is plenty for a site's few writes: with more, an idle member spends most of
/// its time waking threads that find nothing to do. etcd 3.4 starts on no other architecture than amd64 unless configured to.
fn environment(program: &Program) -> Vec<(OsString, OsString)> {
    let mut environment = vec![("GOMAXPROCS".into(), "1".into())];
    if cfg!(target_arch = "aarch64") && program.version < Version::new(3, 5, 0) {
        environment.push(("ETCD_UNSUPPORTED_ARCH".into(), "arm64".into()));
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_member_are_its_own_and_not_its_stack() {
        let log = concat!(
            r#"{"level":"warn","msg":"failed to preallocate","error":"no space left on device"}"#,
            "\n",
            r#"{"level":"panic","msg":"failed to create WAL","error":"no space left on device"}"#,
            "\npanic: failed to create WAL\n\tgo.etcd.io/etcd/main.go:28 +0x17\n",
        );
        let words = last_words(log).unwrap();
        assert_eq!(words, "failed to create WAL: no space left on device");
        assert_eq!(last_words("go.etcd.io/etcd/main.go:28 +0x17\n"), None);
    }

    #[test]
    fn a_command_names_the_servers_own_address_and_no_secret() {
        let members = [1, 2].map(|n| EtcdMember::new(format!("app{n}"), [10, 77, 3, n].into()));
        let program = Program {
            path: "/usr/bin/etcd".into(),
            version: Version::new(3, 4, 23),
        };
        let launch = Launch {
            member: members[1].clone(),
            data: "/s/etcd".into(),
            pki: "/s/pki".into(),
            token: "t1".into(),
            join: Join::Bootstrap(members.into()),
        };
        let command = command(&program, &launch);
        let args: Vec<_> = command
            .args
            .iter()
            .map(|arg| arg.to_str().unwrap())
            .collect();
        for wanted in [
            "--name=app2",
            "--listen-client-urls=https://10.77.3.2:2379",
            "--initial-cluster=app1=https://10.77.3.1:2380,app2=https://10.77.3.2:2380",
            "--initial-cluster-state=new",
            "--peer-key-file=/s/pki/key.pem",
            "--peer-client-cert-auth=true",
            "--client-cert-auth=true",
        ] {
            assert!(args.contains(&wanted), "{wanted}");
        }
    }
}
