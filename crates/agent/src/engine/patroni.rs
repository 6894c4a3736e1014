//! Patroni's configuration, and with it PostgreSQL's. `docs/database.md` says why each setting is what it is.

use super::{Leadership, Owner, Secrets, Tools};
use gaiola_model::inventory::Location;
use gaiola_model::{ServerName, SiteName};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Key prefix of Patroni's keys in the store. The site's name follows.
const NAMESPACE: &str = "/patroni/";
/// Bytes a standby may be behind and still be promoted. With synchronous replication no acknowledged write is among
/// them; 0 could rule out a good standby permanently.
const MAXIMUM_LAG_ON_FAILOVER: u64 = 1 << 20;

/// The most WAL that PostgreSQL keeps, between two checkpoints and for a standby that is away. Less where a [`WAL_SHARE`]th of
/// the disk is less.
const MOST_WAL: u64 = 1 << 30;
const MOST_WAL_FOR_STANDBYS: u64 = 2 << 30;
/// The least WAL it keeps: four segments.
const LEAST_WAL: u64 = 64 << 20;
const WAL_SHARE: u64 = 4;

/// What a database server's files are generated from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The schema of the site's documents.
    pub schema: u64,
    /// The site.
    pub site: SiteName,
    /// The server.
    pub server: ServerName,
    /// Its address and ports; PostgreSQL and Patroni listen there and nowhere else.
    pub location: Location,
    /// The networks whose addresses may log in.
    pub networks: Vec<IpNet>,
    /// Whether the site's own role must come over TLS, with a certificate of the site.
    pub encrypted: bool,
    /// The store's members, each with its client port.
    pub etcd: Vec<SocketAddr>,
    /// The server's `ca.pem`, `cert.pem` and `key.pem`.
    pub pki: PathBuf,
    /// The server's persistent directory: data goes into `postgres/`, logs into `log/` below it.
    pub state: PathBuf,
    /// The server's volatile directory, such as `/run/gaiola`. Short: a Unix socket's path below it must fit into 107 bytes.
    pub run: PathBuf,
    /// With `true` writes block when no synchronous standby is left.
    pub strict: bool,
    /// The size of the file system that the data is on, in bytes.
    pub disk: u64,
    /// User that Patroni and PostgreSQL run as; `None`: the current one.
    pub owner: Option<Owner>,
    /// The programs.
    pub tools: Tools,
    /// The passwords.
    pub secrets: Secrets,
    /// How often the data directory was ordered to be set aside and the primary cloned.
    pub clones: u64,
    /// Whether the last time because it had forked.
    pub forked: bool,
}

impl Settings {
    /// PostgreSQL's data directory.
    pub fn data(&self) -> PathBuf {
        self.state.join("postgres").join("data")
    }

    /// Where the logs go.
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The directory of configuration, keys, passwords and PostgreSQL's Unix socket; only the owner may enter it.
    pub fn private(&self) -> PathBuf {
        self.run.join("database")
    }

    /// Where Patroni stores the leader.
    pub fn leadership(&self) -> Leadership {
        Leadership {
            store: self.etcd.clone(),
            key: format!("{NAMESPACE}{}/leader", self.site),
            me: self.server.to_string(),
        }
    }

    /// Where Patroni's REST API listens.
    pub fn api(&self) -> SocketAddr {
        self.location.socket(self.location.ports.patroni)
    }

    /// The configuration that all members share: the first member puts it into the store, where Patroni keeps it. Change it
    /// later with `Api::configure`.
    pub fn shared(&self) -> Value {
        json!({
            "ttl": 20,
            "loop_wait": 3,
            "retry_timeout": 5,
            "primary_start_timeout": 30,
            "maximum_lag_on_failover": MAXIMUM_LAG_ON_FAILOVER,
            "check_timeline": true,
            "synchronous_mode": true,
            "synchronous_mode_strict": self.strict,
            "failsafe_mode": true,
            "postgresql": {
                "use_pg_rewind": true,
                "use_slots": true,
                "parameters": shared_parameters(),
            },
        })
    }

    /// The whole configuration as JSON, which is YAML too. It holds passwords.
    pub fn render(&self) -> String {
        let psql = quoted(&self.tools.postgres_bin.join("psql"));
        let site = quoted(&self.private().join("site.sql"));
        let config = json!({
            "scope": self.site.as_str(),
            "namespace": NAMESPACE,
            "name": self.server.to_string(),
            // The keeper bounds the file's size; see keeper::database.
            "log": { "level": "INFO", "dir": self.log(), "file_size": 0, "file_num": 0 },
            "restapi": self.restapi(),
            "ctl": {
                "insecure": false,
                "cacert": self.ca(),
                "certfile": self.cert(),
                "keyfile": self.key(),
            },
            "etcd3": {
                "hosts": self.etcd.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "protocol": "https",
                "cacert": self.ca(),
                "cert": self.cert(),
                "key": self.key(),
            },
            "bootstrap": {
                "dcs": self.shared(),
                "initdb": [
                    "data-checksums",
                    { "encoding": "UTF8" },
                    { "locale": "C.UTF-8" },
                    { "auth": "scram-sha-256" },
                ],
                // Patroni appends the connection string as the last argument; the password goes by PGPASSFILE.
                "post_bootstrap": format!("{psql} -X -q -v ON_ERROR_STOP=1 -f {site}"),
            },
            "postgresql": self.postgresql(),
        });
        serde_json::to_string_pretty(&config).expect("JSON of strings and numbers")
    }

    fn restapi(&self) -> Value {
        let address = self.api().to_string();
        json!({
            "listen": address,
            "connect_address": address,
            "certfile": self.cert(),
            "keyfile": self.key(),
            "cafile": self.ca(),
            "verify_client": "required",
        })
    }

    fn postgresql(&self) -> Value {
        let address = self
            .location
            .socket(self.location.ports.postgres)
            .to_string();
        json!({
            "listen": address,
            "connect_address": address,
            "data_dir": self.data(),
            "bin_dir": self.tools.postgres_bin,
            "pgpass": self.private().join("pgpass.patroni"),
            "use_unix_socket": true,
            "authentication": {
                "superuser": self.login("postgres", self.secrets.superuser.reveal()),
                "replication": self.login("replicator", self.secrets.replication.reveal()),
                "rewind": self.login("rewinder", self.secrets.rewind.reveal()),
            },
            "basebackup": [{ "checkpoint": "fast" }],
            // Signals the keeper that a role has changed; see keeper::database.
            "callbacks": { "on_role_change": "/bin/sh -c 'kill -USR1 1'" },
            "parameters": {
                "unix_socket_directories": self.private(),
                "ssl": "on",
                "ssl_ca_file": self.ca(),
                "ssl_cert_file": self.cert(),
                "ssl_key_file": self.key(),
                // Patroni sets cluster_name to the site's name, so this setting names the server that answers.
                "gaiola.server": self.server.to_string(),
                // Set here rather than for all members, whose disks may differ.
                "max_wal_size": self.wal(MOST_WAL),
                "max_slot_wal_keep_size": self.wal(MOST_WAL_FOR_STANDBYS),
            },
            "pg_hba": self.who_may_log_in(),
        })
    }

    /// A share of the disk for WAL, in PostgreSQL's notation.
    fn wal(&self, most: u64) -> String {
        let bytes = (self.disk / WAL_SHARE).clamp(LEAST_WAL, most);
        format!("{}MB", bytes >> 20)
    }

    /// A role that members log in with, and how its connections verify the server.
    fn login(&self, role: &str, password: &str) -> Value {
        json!({
            "username": role,
            "password": password,
            "sslmode": "verify-ca",
            "sslrootcert": self.ca(),
        })
    }

    /// `pg_hba.conf`. TLS is required among members; for the site's own role it is optional, or required with a certificate of the
    /// site where the tiers speak TLS with each other, except on this very machine.
    fn who_may_log_in(&self) -> Vec<String> {
        let role = self.site.sql();
        let (kind, certificate) = match self.encrypted {
            true => ("hostssl", " clientcert=verify-ca"),
            false => ("host", ""),
        };
        let mut lines = vec!["local all all scram-sha-256".into()];
        if self.encrypted {
            let own = IpNet::from(self.location.address);
            lines.push(format!("host \"{role}\" \"{role}\" {own} scram-sha-256"));
        }
        for network in &self.networks {
            lines.extend([
                format!("hostssl replication replicator {network} scram-sha-256"),
                format!("hostssl all postgres,rewinder {network} scram-sha-256"),
                format!("{kind} \"{role}\" \"{role}\" {network} scram-sha-256{certificate}"),
            ]);
        }
        lines
    }

    fn ca(&self) -> PathBuf {
        self.private().join(gaiola_net::pki::CA)
    }

    fn cert(&self) -> PathBuf {
        self.private().join(gaiola_net::pki::CERT)
    }

    fn key(&self) -> PathBuf {
        self.private().join(gaiola_net::pki::KEY)
    }
}

/// Parameters that must, or should, be the same on every member.
fn shared_parameters() -> Value {
    json!({
        "wal_level": "replica",
        "hot_standby": "on",
        "wal_log_hints": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "password_encryption": "scram-sha-256",
        "shared_buffers": "64MB",
        "max_connections": 200,
        "max_wal_senders": 10,
        "max_replication_slots": 10,
        "hot_standby_feedback": "on",
        "wal_sender_timeout": "4s",
        "wal_receiver_timeout": "4s",
        "wal_receiver_status_interval": "1s",
        "wal_retrieve_retry_interval": "500ms",
        "tcp_user_timeout": "5s",
        "tcp_keepalives_idle": "5s",
        "tcp_keepalives_interval": "1s",
        "tcp_keepalives_count": 3,
        // PostgreSQL cancels the statement of a client that has disconnected, such as a release command that was stopped. Since
        // version 14; Patroni leaves out parameters that a PostgreSQL does not know.
        "client_connection_check_interval": "1s",
        "log_line_prefix": "%m [%p] %q%u@%d ",
    })
}

/// A path as one word for Patroni, which splits the command as a shell would.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::engine) fn settings() -> Settings {
        Settings {
            schema: gaiola_model::schema::SCHEMA,
            site: "guest-book".parse().unwrap(),
            server: "db2".parse().unwrap(),
            location: Location::at([10, 77, 4, 2].into()),
            networks: vec!["10.77.0.0/16".parse().unwrap()],
            encrypted: false,
            etcd: vec!["10.77.1.1:2379".parse().unwrap()],
            pki: "/state/pki".into(),
            state: "/state".into(),
            run: "/run/gaiola".into(),
            strict: false,
            disk: 100 << 30,
            owner: None,
            tools: Tools {
                postgres_bin: "/usr/lib/postgresql/15/bin".into(),
                postgres_version: 15,
                patroni: "/usr/bin/patroni".into(),
                patroni_version: (4, 1, 5),
            },
            secrets: Secrets::generate().unwrap(),
            clones: 0,
            forked: false,
        }
    }

    fn rendered(settings: &Settings) -> Value {
        serde_json::from_str(&settings.render()).unwrap()
    }

    #[test]
    fn everything_listens_at_the_servers_own_address_alone() {
        let config = rendered(&settings());
        assert_eq!(config["postgresql"]["listen"], "10.77.4.2:5432");
        assert_eq!(config["restapi"]["listen"], "10.77.4.2:8008");
        let text = config.to_string();
        assert!(
            !text.contains("127.0.0.1") && !text.contains("0.0.0.0:"),
            "{text}"
        );
    }

    #[test]
    fn nobody_logs_in_without_a_password_or_from_elsewhere() {
        for line in settings().who_may_log_in() {
            assert!(line.ends_with(" scram-sha-256"), "{line}");
            assert!(
                line.starts_with("local ") || line.contains(" 10.77.0.0/16 "),
                "{line}"
            );
        }
    }

    #[test]
    fn where_the_tiers_speak_tls_the_site_logs_in_with_a_certificate() {
        let mut encrypted = settings();
        encrypted.encrypted = true;
        let lines = encrypted.who_may_log_in();
        let plain: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with("host "))
            .collect();
        assert_eq!(plain.len(), 1, "{lines:?}");
        assert!(
            plain[0].ends_with(" 10.77.4.2/32 scram-sha-256"),
            "{plain:?}"
        );
        let own = lines.last().unwrap();
        assert!(
            own.starts_with("hostssl ")
                && own.ends_with(" 10.77.0.0/16 scram-sha-256 clientcert=verify-ca"),
            "{own}"
        );
    }

    #[test]
    fn servers_of_other_ports_and_of_ipv6_are_written_as_postgresql_and_patroni_read_them() {
        let mut other = settings();
        other.location = Location::at("2001:db8::2".parse().unwrap());
        other.location.ports.postgres = 5434;
        other.networks = vec!["2001:db8::/64".parse().unwrap()];
        let config = rendered(&other);
        assert_eq!(config["postgresql"]["listen"], "[2001:db8::2]:5434");
        assert_eq!(config["restapi"]["connect_address"], "[2001:db8::2]:8008");
        let logins = other.who_may_log_in();
        assert_eq!(
            logins[1],
            "hostssl replication replicator 2001:db8::/64 scram-sha-256"
        );
    }

    #[test]
    fn what_protects_acknowledged_writes_is_on() {
        let shared = settings().shared();
        assert_eq!(shared["synchronous_mode"], true);
        assert_eq!(shared["synchronous_mode_strict"], false);
        assert_eq!(shared["failsafe_mode"], true);
        assert_eq!(shared["check_timeline"], true);
        assert!(shared["maximum_lag_on_failover"].as_u64().unwrap() >= 1 << 20);
        // Patroni requires the TTL to outlast one loop and two retries.
        let span = |key: &str| shared[key].as_u64().unwrap();
        assert!(span("loop_wait") + 2 * span("retry_timeout") <= span("ttl"));
        for key in ["fsync", "full_page_writes", "synchronous_commit"] {
            assert_eq!(shared["postgresql"]["parameters"][key], "on", "{key}");
        }
        let strict = Settings {
            strict: true,
            ..settings()
        };
        assert_eq!(strict.shared()["synchronous_mode_strict"], true);
    }

    #[test]
    fn what_is_kept_of_the_log_of_writes_never_fills_a_disk() {
        let kept = |disk: u64| {
            let config = rendered(&Settings { disk, ..settings() });
            let local = &config["postgresql"]["parameters"];
            let kept = ["max_wal_size", "max_slot_wal_keep_size"].map(|key| local[key].clone());
            // This server's file overrides whatever the store has.
            let shared = &config["bootstrap"]["dcs"]["postgresql"]["parameters"];
            assert_eq!(shared["max_slot_wal_keep_size"], Value::Null);
            kept.map(|size| size.as_str().unwrap().to_string())
        };
        assert_eq!(kept(512 << 20), ["128MB", "128MB"]);
        assert_eq!(kept((2 << 30) - 12_345), ["511MB", "511MB"]);
        assert_eq!(kept(6 << 30), ["1024MB", "1536MB"]);
        assert_eq!(kept(1 << 50), ["1024MB", "2048MB"]);
        assert_eq!(kept(100 << 20), ["64MB", "64MB"]);
    }

    #[test]
    fn the_rest_api_and_the_store_are_behind_mutual_tls() {
        let config = rendered(&settings());
        assert_eq!(config["restapi"]["verify_client"], "required");
        assert_eq!(config["etcd3"]["protocol"], "https");
        assert_eq!(config["etcd3"]["hosts"][0], "10.77.1.1:2379");
        for section in ["restapi", "etcd3", "ctl"] {
            assert!(
                config[section]
                    .to_string()
                    .contains("/run/gaiola/database/key.pem")
            );
        }
    }

    #[test]
    fn the_command_line_of_bootstrap_holds_no_password() {
        let settings = settings();
        let config = rendered(&settings);
        let command = config["bootstrap"]["post_bootstrap"].as_str().unwrap();
        assert_eq!(
            command,
            "'/usr/lib/postgresql/15/bin/psql' -X -q -v ON_ERROR_STOP=1 -f '/run/gaiola/database/site.sql'"
        );
        assert!(
            !config["bootstrap"]
                .to_string()
                .contains(settings.secrets.site.reveal())
        );
    }

    #[test]
    fn a_path_with_a_quote_stays_one_word() {
        assert_eq!(quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
    }
}
