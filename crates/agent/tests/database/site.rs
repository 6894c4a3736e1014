//! A site's store and two database servers.

use crate::sql::Psql;
use crate::{KEEPER, world};
use gaiola_agent::engine::{
    Api, EngineState, KeeperReport, Owner, Secrets, Settings, TargetState, find_tools, install,
};
use gaiola_model::ServerName;
use gaiola_model::inventory::Location;
use gaiola_model::placement::{DatabaseRole, ObservedDatabase};
use gaiola_net::client::{Client, Target};
use gaiola_net::pki::{self, Authority};
use gaiola_store::{self as store, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

/// Longer than anything here may take on a busy machine; nothing is measured by it.
const LIMIT: Duration = Duration::from_secs(90);
const ETCD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

pub(crate) struct Site {
    pub(crate) api: Api,
    pub(crate) psql: Psql,
    store: Store,
    servers: BTreeMap<ServerName, Server>,
    etcd: Child,
    _dir: TempDir,
}

struct Server {
    settings: Settings,
    keeper: Option<Child>,
}

impl Site {
    /// Starts everything on empty disks.
    pub(crate) fn start() -> Self {
        let dir = TempDir::with_prefix("gaiola-").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let authority = Authority::create_or_load(&dir.path().join("ca")).unwrap();
        let pki = |name: &str, address: Ipv4Addr| {
            // PostgreSQL's user passes through here, so not as closed as the keys' own directory.
            let server = dir.path().join(name);
            fs::create_dir_all(&server).unwrap();
            let directory = server.join("pki");
            authority
                .issue(name, &[address.into()], &directory)
                .unwrap();
            directory
        };
        let etcd = start_etcd(&pki("lb1", ETCD), &dir.path().join("lb1"));
        let tls = pki::client_config(&pki("lb1", ETCD)).unwrap();
        let secrets = Secrets::generate().unwrap();
        let tools = find_tools().unwrap();
        let mut servers = BTreeMap::new();
        for (number, last) in [(1, 21), (2, 22)] {
            let server = ServerName::new(gaiola_model::Tier::Database, number);
            let address = Ipv4Addr::new(127, 0, 0, last);
            let settings = Settings {
                schema: gaiola_model::schema::SCHEMA,
                site: "guest-book".parse().unwrap(),
                server,
                location: Location::at(address.into()),
                networks: vec!["127.0.0.0/8".parse().unwrap()],
                encrypted: false,
                etcd: vec![(ETCD, 2379).into()],
                pki: pki(&server.to_string(), address),
                state: dir.path().join(server.to_string()),
                run: dir.path().join(server.to_string()).join("run"),
                strict: false,
                disk: 1 << 30,
                owner: owner(),
                tools: tools.clone(),
                secrets: secrets.clone(),
                clones: 0,
                forked: false,
            };
            install(&settings, TargetState::Run).unwrap();
            servers.insert(
                server,
                Server {
                    settings,
                    keeper: None,
                },
            );
        }
        let names: Vec<_> = servers.keys().copied().collect();
        let member = Target::tls((ETCD, 2379).into());
        let store = Store::new(store::Settings::new(vec![member], Some(tls.clone())));
        let api = Api::new(Client::new(Some(tls)));
        let psql = Psql::new(&servers[&names[0]].settings, dir.path());
        let mut site = Self {
            api,
            psql,
            store,
            servers,
            etcd,
            _dir: dir,
        };
        names.into_iter().for_each(|name| site.start_keeper(name));
        site
    }

    pub(crate) fn settings(&self, name: ServerName) -> &Settings {
        &self.servers[&name].settings
    }

    /// Where Patroni listens.
    pub(crate) fn address(&self, name: ServerName) -> SocketAddr {
        self.settings(name).api()
    }

    pub(crate) fn other(&self, name: ServerName) -> ServerName {
        *self.servers.keys().find(|other| **other != name).unwrap()
    }

    pub(crate) async fn observe(&self) -> BTreeMap<ServerName, ObservedDatabase> {
        let members = self
            .servers
            .keys()
            .map(|name| (*name, self.address(*name)))
            .collect();
        self.api.observe(&members).await
    }

    /// Waits for a primary with a synchronous standby that streams, on one timeline.
    pub(crate) async fn healthy(&self) {
        let start = Instant::now();
        loop {
            let seen = self.observe().await;
            let roles: Vec<_> = seen
                .values()
                .map(|member| (member.role, member.state.as_str()))
                .collect();
            let timelines: Vec<_> = seen.values().map(|member| member.timeline).collect();
            if roles.contains(&(DatabaseRole::Primary, "running"))
                && roles.contains(&(DatabaseRole::SyncStandby, "streaming"))
                && timelines[0] == timelines[1]
            {
                return;
            }
            assert!(
                start.elapsed() < LIMIT,
                "not healthy: {seen:?}; {}",
                self.logs()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn primary(&self) -> ServerName {
        let seen = self.observe().await;
        let mut primaries = seen
            .iter()
            .filter(|(_, member)| member.role == DatabaseRole::Primary);
        let (name, _) = primaries
            .next()
            .unwrap_or_else(|| panic!("no primary: {seen:?}"));
        assert!(primaries.next().is_none(), "two primaries: {seen:?}");
        *name
    }

    pub(crate) fn sql(&self, at: ServerName, sql: &str) -> String {
        let host = self.settings(at).location.address.to_string();
        let output = self.psql.command(&host, "any", sql).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().into()
    }

    pub(crate) fn start_keeper(&mut self, name: ServerName) {
        let server = self.servers.get_mut(&name).unwrap();
        let log = File::create(server.settings.state.join("keeper.log")).unwrap();
        let keeper = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keeper_process", "--nocapture"])
            .env(KEEPER, &server.settings.run)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        server.keeper = Some(keeper);
    }

    pub(crate) fn kill_keeper(&mut self, name: ServerName) {
        let mut keeper = self.servers.get_mut(&name).unwrap().keeper.take().unwrap();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
    }

    /// PostgreSQL's first process: the one whose parent is not PostgreSQL.
    pub(crate) fn postmaster(&self, name: ServerName) -> u32 {
        let all = world::inside(&self.settings(name).data());
        let first = all
            .iter()
            .find(|pid| world::parent(**pid).is_none_or(|parent| !all.contains(&parent)));
        *first.unwrap()
    }

    pub(crate) fn kill_postgres(&self, name: ServerName) {
        world::kill(self.postmaster(name));
    }

    /// Patroni itself: the child of the namespace's pid 1, which is a child of the keeper.
    pub(crate) fn patroni(&self, name: ServerName) -> u32 {
        let keeper = self.servers[&name].keeper.as_ref().unwrap().id();
        let all = world::inside(&self.settings(name).private());
        let grandchild = |pid: &&u32| {
            let init = world::parent(**pid);
            init.and_then(world::parent) == Some(keeper)
        };
        *all.iter().find(grandchild).unwrap()
    }

    /// Waits until a keeper has ended Patroni and PostgreSQL for this reason.
    pub(crate) async fn ended_because(&self, name: ServerName, reason: &str) {
        let start = Instant::now();
        let is_reported = || {
            self.report(name)
                .last_end
                .is_some_and(|end| end.contains(reason))
        };
        while !is_reported() {
            assert!(start.elapsed() < LIMIT, "{reason}: {}", self.logs());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Writes another name into the leader key, as it stands there after a promotion elsewhere.
    pub(crate) async fn give_leadership_to(&self, who: &str) {
        let key = self.leader_key();
        self.store.put(&key, who, None).await.unwrap();
    }

    pub(crate) async fn take_leadership_back(&self) {
        let key = self.leader_key();
        let held = self.store.get(&key).await.unwrap().unwrap();
        self.store.delete_if(&key, held.modified).await.unwrap();
    }

    fn leader_key(&self) -> String {
        self.servers
            .values()
            .next()
            .unwrap()
            .settings
            .leadership()
            .key
    }

    /// Has a standby's data set aside and waits until that is done; returns where it is.
    pub(crate) async fn clone_anew(&mut self, name: ServerName) -> PathBuf {
        let server = self.servers.get_mut(&name).unwrap();
        server.settings.clones += 1;
        let clones = server.settings.clones;
        let order = install(&server.settings, TargetState::Run).unwrap().order;
        let start = Instant::now();
        while self.report(name).clones < clones {
            assert!(start.elapsed() < LIMIT, "{}", self.logs());
            sleep(Duration::from_millis(20)).await;
        }
        order.data.with_file_name(format!("{}1", order.aside()))
    }

    /// Waits until all members hold the same rows.
    pub(crate) async fn same_contents(&self) {
        let start = Instant::now();
        loop {
            let sums = self.servers.keys().map(|name| {
                self.sql(
                    *name,
                    "SELECT count(*), md5(string_agg(id::text, ',' ORDER BY id)) FROM entries",
                )
            });
            let sums: BTreeSet<String> = sums.collect();
            if sums.len() == 1 {
                return;
            }
            assert!(start.elapsed() < LIMIT, "{sums:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn kill_patroni(&self, name: ServerName) {
        world::kill(self.patroni(name));
        let start = Instant::now();
        while self.report(name).restarts == 0 {
            assert!(start.elapsed() < LIMIT);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until neither Patroni nor PostgreSQL has a process left.
    pub(crate) async fn all_gone(&self, name: ServerName) {
        let start = Instant::now();
        let settings = self.settings(name);
        while !world::inside(&settings.data()).is_empty()
            || !world::inside(&settings.private()).is_empty()
        {
            assert!(start.elapsed() < LIMIT);
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn order(&self, name: ServerName, wanted: TargetState) {
        assert!(install(self.settings(name), wanted).unwrap().changed);
    }

    /// What is left when a standby goes away just after it was named: a name that Patroni does not take back.
    pub(crate) fn wait_for_ghost(&self, primary: ServerName) {
        let settings = self.settings(primary);
        let path = settings.data().join("postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + "synchronous_standby_names = 'ghost'\n").unwrap();
        let status = Command::new(settings.tools.postgres_bin.join("psql"))
            .args([
                "-X",
                "-q",
                "-w",
                "-U",
                "postgres",
                "-c",
                "SELECT pg_reload_conf()",
                "-h",
            ])
            .arg(settings.private())
            .env("PGPASSFILE", settings.private().join("pgpass"))
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        // It takes PostgreSQL a moment to read it; until then commits go on.
        while self.sql(primary, "SHOW synchronous_standby_names") != "ghost" {}
    }

    pub(crate) fn report(&self, name: ServerName) -> KeeperReport {
        KeeperReport::read(&self.settings(name).run)
            .unwrap()
            .unwrap()
    }

    /// No password is on a command line, in an environment or in a log.
    pub(crate) fn no_secret_shown(&self) {
        let mut shown = world::command_lines();
        shown.push(self.logs());
        let secrets = &self.servers.values().next().unwrap().settings.secrets;
        for secret in [
            &secrets.superuser,
            &secrets.replication,
            &secrets.rewind,
            &secrets.site,
        ] {
            assert!(!shown.iter().any(|text| text.contains(secret.reveal())));
        }
    }

    /// Ends every keeper by SIGTERM, standbys first, as an agent would.
    pub(crate) async fn stop(mut self) {
        let primary = self.primary().await;
        for name in [self.other(primary), primary] {
            let mut keeper = self.servers.get_mut(&name).unwrap().keeper.take().unwrap();
            let pid = rustix::process::Pid::from_child(&keeper);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            assert!(keeper.wait().unwrap().success());
            assert_eq!(self.report(name).state, EngineState::Stopped);
            assert!(world::inside(&self.settings(name).data()).is_empty());
        }
        self.etcd.kill().unwrap();
        self.etcd.wait().unwrap();
    }

    fn logs(&self) -> String {
        let read = |settings: &Settings| {
            ["log/patroni.log", "log/postgres.log", "keeper.log"]
                .map(|log| fs::read_to_string(settings.state.join(log)).unwrap_or_default())
                .concat()
        };
        self.servers
            .values()
            .map(|server| read(&server.settings))
            .collect()
    }
}

fn start_etcd(pki: &Path, dir: &Path) -> Child {
    let file = |name: &str| pki.join(name).display().to_string();
    let (client, peer) = (
        format!("https://{ETCD}:2379"),
        format!("https://{ETCD}:2380"),
    );
    Command::new("etcd")
        .args(["--name", "lb1", "--data-dir"])
        .arg(dir.join("etcd"))
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("lb1={peer}")])
        .args([
            "--cert-file",
            &file("cert.pem"),
            "--key-file",
            &file("key.pem"),
        ])
        .args(["--trusted-ca-file", &file("ca.pem"), "--client-cert-auth"])
        .args([
            "--peer-cert-file",
            &file("cert.pem"),
            "--peer-key-file",
            &file("key.pem"),
        ])
        .args([
            "--peer-trusted-ca-file",
            &file("ca.pem"),
            "--peer-client-cert-auth",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(dir.join("etcd.log")).unwrap())
        .spawn()
        .unwrap()
}

/// As root PostgreSQL's own user, or nobody where there is none.
fn owner() -> Option<Owner> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let found = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some(Owner {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    });
    Some(found.unwrap_or(Owner {
        uid: 65534,
        gid: 65534,
    }))
}
