//! A drill's clients in other networks: between the servers, and on a harmed server.

use super::FaultInjector;
use anyhow::{Context as _, bail};
use gaiola_agent::engine::{Secrets, find_tools};
use gaiola_agent::state::read_document;
use gaiola_control::api::{Access, Enter};
use gaiola_control::drill::witness::Witness;
use gaiola_control::drill::{Acknowledged, Course, Database, Record};
use gaiola_core::drill::{Contents, Holding, Target, Writes, compare};
use gaiola_model::inventory::Location;
use gaiola_model::status::Status;
use gaiola_model::{ServerName, Tier};
use gaiola_net::client::Request;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Timeout until all members hold the same data: a standby may still have to replay acknowledged writes.
const SAME_WITHIN: Duration = Duration::from_secs(20);
/// A client's process cannot be started.
const NO_CLIENT: &str = "cannot start a client";
/// Interval of comparisons.
const PAUSE: Duration = Duration::from_millis(500);

/// One open door of each VIP.
pub(super) fn doors_of_vips(status: &Status) -> Vec<SocketAddr> {
    let vips = status.vips.iter();
    let door = |vip: &gaiola_model::status::VipStatus| {
        let mut doors = status.doors.iter().copied();
        doors.find(|door| door.ip() == vip.address)
    };
    vips.filter_map(door).collect()
}

/// A command that runs this program in the network of a process; the caller appends arguments.
fn visit(access: &Access) -> anyhow::Result<Command> {
    let enter = access.enter.as_ref().context("it is off")?;
    let Enter::Namespaces { pid, user } = enter else {
        bail!("{}", super::IN_THE_LAB);
    };
    let mut command = Command::new("/proc/self/exe");
    command.args(["visit", &pid.to_string()]);
    if *user {
        command.arg("--rootless");
    }
    Ok(command)
}

fn location(status: &Status, server: ServerName) -> anyhow::Result<&Location> {
    let mut servers = status.servers.iter();
    let found = servers.find(|it| it.name == server);
    let found = found.map(|it| &it.location);
    found.with_context(|| format!("{server} does not exist any more"))
}

impl FaultInjector<'_> {
    pub(super) async fn send_witnesses(
        &self,
        target: &Target,
        course: &Course,
        record: &Record,
    ) -> anyhow::Result<Vec<Witness>> {
        let status: Status = self.ask(Request::get("/status")).await?;
        let mut sent = Vec::new();
        let doors = doors_of_vips(&status);
        if !doors.is_empty() {
            let outside: Access = self.ask(Request::get("/network")).await?;
            let command = visit(&outside)?;
            let started = Witness::of_vips(command, doors, outside.client, course, record);
            sent.push(started.context(NO_CLIENT)?);
        }
        if !target.is_held() {
            return Ok(sent);
        }
        for server in target.servers() {
            sent.extend(self.inside(server, &status, course, record).await?);
        }
        Ok(sent)
    }

    /// A client on a server that will be harmed, if there is something to write to.
    async fn inside(
        &self,
        server: ServerName,
        status: &Status,
        course: &Course,
        record: &Record,
    ) -> anyhow::Result<Option<Witness>> {
        let handle = || self.ask(Request::get(format!("/servers/{server}")));
        match server.tier {
            Tier::App if course.drill.write.is_some() => {
                let location = location(status, server)?;
                let door = location.socket(location.ports.instance(1));
                let command = visit(&handle().await?)?;
                let started = Witness::at_instance(command, server, door, course, record);
                started.map(Some).context(NO_CLIENT)
            }
            Tier::Database if status.primary == Some(server) => {
                let database = self.database(status, server)?;
                database.prepare(self.beside_the_servers().await?).await?;
                let command = visit(&handle().await?)?;
                let started = Witness::at_database(command, server, database, record);
                started.map(Some).context(NO_CLIENT)
            }
            _ => Ok(None),
        }
    }

    /// A command in the servers' network, which reaches every server that is not cut off.
    async fn beside_the_servers(&self) -> anyhow::Result<Command> {
        let mut command = visit(&self.ask(Request::get("/network")).await?)?;
        command.arg("--");
        Ok(command)
    }

    fn database(&self, status: &Status, server: ServerName) -> anyhow::Result<Database> {
        let location = location(status, server)?;
        let secrets: Secrets = read_document(&self.client.state.secrets())
            .context("cannot read the database's passwords")?;
        let tools = find_tools()?;
        Ok(Database {
            psql: tools.postgres_bin.join("psql"),
            address: location.socket(location.ports.postgres),
            name: self.client.site.sql(),
            password: secrets.site.reveal().into(),
        })
    }

    async fn primary(&self) -> anyhow::Result<Database> {
        let status: Status = self.ask(Request::get("/status")).await?;
        let primary = status.primary.context("the database has no primary")?;
        self.database(&status, primary)
    }

    pub(super) async fn look_up_in_the_database(
        &self,
        writes: &[Acknowledged],
    ) -> anyhow::Result<Writes> {
        if writes.is_empty() {
            return Ok(Writes::default());
        }
        let primary = self.primary().await?;
        let found = primary
            .look_up(self.beside_the_servers().await?, writes)
            .await;
        Ok(found)
    }

    /// Compares all members until they hold the same data, or differ while nobody writes.
    pub(super) async fn compare_members(&self) -> anyhow::Result<Contents> {
        let status: Status = self.ask(Request::get("/status")).await?;
        let servers = status.servers.iter();
        let members = servers.filter(|server| server.tier == Tier::Database);
        let Some(primary) = status.primary else {
            return Ok(Contents::NotAsked);
        };
        let standbys = members.map(|server| server.name);
        let standbys: Vec<ServerName> = standbys.filter(|server| *server != primary).collect();
        let ends = Instant::now() + SAME_WITHIN;
        let compared = loop {
            let compared = self.compare_once(&status, primary, &standbys).await?;
            if matches!(compared, Contents::Same { .. }) || Instant::now() > ends {
                break compared;
            }
            tokio::time::sleep(PAUSE).await;
        };
        let database = self.database(&status, primary)?;
        database.clean_up(self.beside_the_servers().await?).await?;
        Ok(compared)
    }

    async fn compare_once(
        &self,
        status: &Status,
        primary: ServerName,
        standbys: &[ServerName],
    ) -> anyhow::Result<Contents> {
        let mut holdings = vec![self.holding(status, primary).await?];
        for standby in standbys {
            holdings.push(self.holding(status, *standby).await?);
        }
        let compared = compare(&holdings);
        let changes = matches!(compared, Contents::Different(_))
            && self.holding(status, primary).await? != holdings[0];
        Ok(if changes {
            Contents::Unknown("other clients keep writing".into())
        } else {
            compared
        })
    }

    async fn holding(&self, status: &Status, server: ServerName) -> anyhow::Result<Holding> {
        let database = self.database(status, server)?;
        let enter = self.beside_the_servers().await?;
        let holding = database.holding(enter, server).await;
        holding.with_context(|| server.to_string())
    }
}
