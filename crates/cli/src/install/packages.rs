//! The distribution's packages that a machine needs, by role, with their own services masked.

use gaiola_control::ssh::{Script, Ssh, SshError, quote};
use gaiola_model::inventory::Host;
use gaiola_model::{Config, Tier};
use std::time::Duration;

/// apt may have to wait for another apt, and for a slow mirror.
const LIMIT: Duration = Duration::from_secs(1200);
const SCRIPT: &str = include_str!("packages.sh");
/// What is installed with pip where the distribution's Patroni is too old, as `scripts/setup` does.
const PATRONI: [&str; 2] = [
    include_str!("../../../../scripts/patroni/build.txt"),
    include_str!("../../../../scripts/patroni/requirements.txt"),
];

/// The script for one machine. A spare machine gets what every role needs.
pub(super) fn script(config: &Config, host: &Host) -> String {
    let machines = config.machines.iter();
    let servers = machines.flat_map(|machines| &machines.servers);
    let here = servers.filter(|(_, machine)| machine.host() == *host);
    let tiers: Vec<Tier> = here.map(|(name, _)| name.tier).collect();
    let is_database = tiers.contains(&Tier::Database) || tiers.is_empty();
    let role = if is_database && config.database.is_some() {
        "database"
    } else {
        "other"
    };
    let [build, requirements] = PATRONI.map(quote);
    format!("role={role} build={build} requirements={requirements}\n{SCRIPT}")
}

/// Installs what is missing, and returns it in words; empty: nothing was.
pub(super) async fn install(ssh: &Ssh, script: &str) -> Result<String, SshError> {
    // By standard input: the script is longer than a word of a command line may be.
    let script = Script::new("install packages", "exec sh -s")
        .input(script.to_string())
        .within(LIMIT);
    let printed = ssh.run(&script).await?;
    let installed = printed
        .lines()
        .filter_map(|line| line.strip_prefix("installed "));
    Ok(installed.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::{App, Database, Machine, Machines};
    use std::process::Command;

    fn role(config: &Config, host: &str) -> String {
        let script = script(config, &Host(host.into()));
        script.split(' ').next().unwrap().into()
    }

    #[test]
    fn database_servers_and_spare_machines_get_the_database() {
        let mut config = Config::new("shop".parse().unwrap(), App::new("run"));
        let servers = [("app1", "a"), ("db1", "b")];
        let servers = servers.map(|(name, host)| (name.parse().unwrap(), Machine::new(host)));
        config.machines = Some(Machines {
            servers: servers.into(),
            spare: vec![Machine::new("c")],
            power: None,
        });
        assert_eq!(role(&config, "c"), "role=other");
        config.database = Some(Database::default());
        assert_eq!(role(&config, "a"), "role=other");
        assert_eq!(role(&config, "b"), "role=database");
        assert_eq!(role(&config, "c"), "role=database");
    }

    #[test]
    fn the_script_is_one_that_a_plain_shell_reads() {
        let config = Config::new("shop".parse().unwrap(), App::new("run"));
        let script = script(&config, &Host("a".into()));
        let checked = Command::new("sh")
            .args(["-n", "-c", &script])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }
}
