//! A drill's clients in other networks: between the servers, and on a harmed server.

use super::lab::visit;
use super::{FaultInjector, Ground};
use anyhow::Context as _;
use gaiola_agent::engine::{Secrets, find_tools};
use gaiola_agent::state::read_document;
use gaiola_control::api::Access;
use gaiola_control::drill::witness::{Seat, Witness};
use gaiola_control::drill::{Acknowledged, Course, Database, Record, Route};
use gaiola_core::drill::{Contents, Holding, Target, Writes, compare};
use gaiola_model::inventory::Location;
use gaiola_model::status::Status;
use gaiola_model::{ServerName, Tier};
use gaiola_net::client::Request;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

/// A place on this computer.
fn here(command: Command) -> Seat {
    Seat {
        command,
        is_elsewhere: false,
    }
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
            let (seat, from) = self.outside().await?;
            let started = Witness::of_vips(seat, doors, from, course, record);
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

    /// Where a client reaches each VIP, and the addresses that it has there.
    async fn outside(&self) -> anyhow::Result<(Seat, Vec<IpAddr>)> {
        if let Ground::Machines(_) = self.ground {
            // Like all clients of a drill on machines.
            let mut command = Command::new("/proc/self/exe");
            command.arg("visit");
            return Ok((here(command), Vec::new()));
        }
        let outside: Access = self.ask(Request::get("/network")).await?;
        let own = [outside.client, outside.wide_client];
        Ok((here(visit(&outside)?), own.into_iter().flatten().collect()))
    }

    /// A client's place on a server that will be harmed.
    async fn seat_on(&self, server: ServerName, location: &Location) -> anyhow::Result<Seat> {
        match &self.ground {
            Ground::Lab(_) => {
                let access = self.ask(Request::get(format!("/servers/{server}"))).await?;
                Ok(here(visit(&access)?))
            }
            Ground::Machines(machines) => Ok(Seat {
                command: machines.visit(&location.host).await?,
                is_elsewhere: true,
            }),
        }
    }

    /// A client on a server that will be harmed, if there is something to write to.
    async fn inside(
        &self,
        server: ServerName,
        status: &Status,
        course: &Course,
        record: &Record,
    ) -> anyhow::Result<Option<Witness>> {
        match server.tier {
            Tier::App if course.drill.write.is_some() => {
                let location = location(status, server)?;
                let mut door = location.socket(location.ports.instance(1));
                if matches!(&self.ground, Ground::Machines(machines) if machines.encrypted) {
                    door.set_ip(Ipv4Addr::LOCALHOST.into());
                }
                let seat = self.seat_on(server, location).await?;
                let started = Witness::at_instance(seat, server, door, course, record);
                started.map(Some).context(NO_CLIENT)
            }
            Tier::Database if status.primary == Some(server) => {
                let location = location(status, server)?;
                let database = self.database(location).await?;
                database.prepare(self.route(location).await?).await?;
                let seat = self.seat_on(server, location).await?;
                let started = Witness::at_database(seat, server, database, record);
                started.map(Some).context(NO_CLIENT)
            }
            _ => Ok(None),
        }
    }

    /// How a member of the database is asked: in the lab by a command in the servers' network, which reaches every server that is
    /// not cut off; otherwise on its own machine.
    async fn route(&self, location: &Location) -> anyhow::Result<Route> {
        if let Ground::Machines(machines) = &self.ground {
            return Ok(Route::Elsewhere(machines.query(&location.host).await?));
        }
        let mut command = visit(&self.ask(Request::get("/network")).await?)?;
        command.arg("--");
        Ok(Route::Command(command))
    }

    async fn database(&self, location: &Location) -> anyhow::Result<Database> {
        let (psql, password) = match &self.ground {
            Ground::Lab(_) => {
                let secrets: Secrets = read_document(&self.client.state.secrets())
                    .context("cannot read the database's passwords")?;
                let psql = find_tools()?.postgres_bin.join("psql");
                (psql, secrets.site.reveal().into())
            }
            Ground::Machines(machines) => {
                let access = machines.database(&location.host).await?;
                (access.psql.clone(), access.password.clone())
            }
        };
        Ok(Database {
            psql,
            address: location.socket(location.ports.postgres),
            name: self.client.site.sql(),
            password,
        })
    }

    pub(super) async fn look_up_in_the_database(
        &self,
        writes: &[Acknowledged],
    ) -> anyhow::Result<Writes> {
        if writes.is_empty() {
            return Ok(Writes::default());
        }
        let status: Status = self.ask(Request::get("/status")).await?;
        let primary = status.primary.context("the database has no primary")?;
        let location = location(&status, primary)?;
        let database = self.database(location).await?;
        Ok(database.look_up(self.route(location).await?, writes).await)
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
        let location = location(&status, primary)?;
        let database = self.database(location).await?;
        database.clean_up(self.route(location).await?).await?;
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
        let location = location(status, server)?;
        let database = self.database(location).await?;
        let route = self.route(location).await?;
        let holding = database.holding(route, server).await;
        holding.with_context(|| server.to_string())
    }
}
