//! A drawing of the site: tiers side by side, their servers, and between them the paths of requests.

use super::words;
use crate::traffic::{Figures, Load};
use gaiola_model::placement::DatabaseRole;
use gaiola_model::status::{InstanceStatus, ServerState, ServerStatus, Status};
use gaiola_model::{ServerName, Tier};
use maud::{Markup, html};
use std::collections::BTreeMap;

const WIDTH: f64 = 1200.0;
/// Space for the clients on the left.
const CLIENTS: f64 = 70.0;
/// A server's box.
const BOX: (f64, f64) = (186.0, 74.0);
/// Distance between boxes.
const STEP: f64 = 92.0;
/// Characters that fit into a line of a box.
const LINE: usize = 26;
/// The tiers' names.
const TOP: f64 = 46.0;

/// The picture; empty while no server is known.
pub(super) fn section(status: &Status, figures: &Figures) -> Markup {
    let map = Map::of(status, figures);
    html! {
        @if !status.servers.is_empty() {
            section.map aria-labelledby="map" {
                h2.unseen #map { "The infrastructure" }
                svg viewBox=(format!("0 0 {WIDTH} {}", map.height)) role="img" aria-label=(map.in_words()) {
                    @for (index, tier) in map.tiers.iter().enumerate() { (map.head(index, *tier)) }
                    (map.ways())
                    (map.clients())
                    @for server in &status.servers { (map.node(server)) }
                }
            }
        }
    }
}

struct Map<'a> {
    status: &'a Status,
    figures: &'a Figures,
    tiers: Vec<Tier>,
    places: BTreeMap<ServerName, (f64, f64)>,
    height: f64,
    /// Requests per second on the busiest path.
    most: f64,
}

/// The kinds of paths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A path of requests, whose rate is known.
    Counted,
    /// A path of sessions, whose rate is unknown.
    Sessions,
    /// Replication from the primary to a standby.
    Replication,
}

impl<'a> Map<'a> {
    fn of(status: &'a Status, figures: &'a Figures) -> Self {
        let has = |tier: &Tier| status.servers.iter().any(|server| server.tier == *tier);
        let tiers: Vec<Tier> = Tier::ALL.into_iter().filter(has).collect();
        let rows = tiers
            .iter()
            .map(|tier| of_tier(status, *tier).count())
            .max()
            .unwrap_or(0);
        let mut places = BTreeMap::new();
        for (column, tier) in tiers.iter().enumerate() {
            let shift = number(rows - of_tier(status, *tier).count()) / 2.0 * STEP;
            for (row, server) in of_tier(status, *tier).enumerate() {
                places.insert(
                    server.name,
                    (
                        left_of(column, tiers.len()),
                        TOP + shift + number(row) * STEP,
                    ),
                );
            }
        }
        let loads = figures.ways.values().chain(&figures.site);
        let most = loads.map(|load| load.requests).fold(1.0, f64::max);
        Self {
            status,
            figures,
            tiers,
            places,
            height: TOP + number(rows) * STEP,
            most,
        }
    }

    fn in_words(&self) -> String {
        let tier = |tier: &Tier| {
            let serving = of_tier(self.status, *tier)
                .filter(|server| server.state.serves())
                .count();
            format!(
                "{serving} of {} {tier} servers serve",
                of_tier(self.status, *tier).count()
            )
        };
        format!(
            "Clients, then {}. The table of servers says the same.",
            words::list(self.tiers.iter().map(tier))
        )
    }

    fn head(&self, column: usize, tier: Tier) -> Markup {
        let middle = left_of(column, self.tiers.len()) + BOX.0 / 2.0;
        let serving = of_tier(self.status, tier)
            .filter(|server| server.state.serves())
            .count();
        let all = of_tier(self.status, tier).count();
        let gap = middle - BOX.0 / 2.0 - gap(self.tiers.len()) / 2.0;
        let into = self.load_of(column, tier);
        html! {
            text.head x=(middle) y="18" text-anchor="middle" { (tier) tspan.dim dx="8" { (serving) "/" (all) } }
            @if let Some(load) = into {
                text.flow-words x=(gap) y="14" text-anchor="middle" { (words::rate(Some(load.requests))) "/s" }
                @if load.errors >= 0.05 { text.flow-words.bad x=(gap) y="30" text-anchor="middle" { "▲ " (words::rate(Some(load.errors))) " errors/s" } }
            }
        }
    }

    /// The paths into a tier.
    fn load_of(&self, column: usize, tier: Tier) -> Option<Load> {
        if column == 0 {
            return self.figures.site;
        }
        let ways = self
            .figures
            .ways
            .iter()
            .filter(|((from, to), _)| to.tier == tier && from.tier != tier);
        ways.map(|(_, load)| *load).reduce(|sum, load| Load {
            requests: sum.requests + load.requests,
            errors: sum.errors + load.errors,
            p99: None,
        })
    }

    fn clients(&self) -> Markup {
        let middle = self.middle();
        html! {
            g.clients {
                circle cx="30" cy=(middle - 8.0) r="9" {}
                path d=(format!("M12 {y} a18 18 0 0 1 36 0 z", y = middle + 22.0)) {}
                text x="30" y=(middle + 40.0) text-anchor="middle" { "clients" }
            }
        }
    }

    fn middle(&self) -> f64 {
        (TOP + self.height - (STEP - BOX.1)) / 2.0
    }

    fn ways(&self) -> Markup {
        let first = self.tiers.first().copied();
        let doors = self
            .status
            .servers
            .iter()
            .filter(|server| Some(server.tier) == first && takes_requests(server));
        let from_clients = (56.0, self.middle());
        html! {
            g.ways {
                @for server in doors { (self.way(from_clients, self.left(server.name), self.figures.servers.get(&server.name), Way::Counted)) }
                @for from in &self.status.servers {
                    @for to in &self.status.servers {
                        @if let Some(way) = self.kind(from, to) {
                            @if way == Way::Replication { (self.replication(from.name, to.name)) }
                            @else { (self.way(self.right(from.name), self.left(to.name), self.figures.ways.get(&(from.name, to.name)), way)) }
                        }
                    }
                }
            }
        }
    }

    /// The path between two servers, if there is one.
    fn kind(&self, from: &ServerStatus, to: &ServerStatus) -> Option<Way> {
        let column = |tier| self.tiers.iter().position(|known| *known == tier);
        let role = |server: &ServerStatus| server.database.as_ref().map(|database| database.role);
        let is_there = takes_requests(from) && takes_requests(to);
        if from.tier == Tier::Database {
            let follows = matches!(
                role(to),
                Some(DatabaseRole::SyncStandby | DatabaseRole::Standby)
            ) && role(from) == Some(DatabaseRole::Primary);
            return (is_there && follows).then_some(Way::Replication);
        }
        let busy = self
            .figures
            .ways
            .get(&(from.name, to.name))
            .is_some_and(|load| load.requests >= 0.05);
        if busy {
            return Some(Way::Counted);
        }
        let next = column(from.tier).map(|column| column + 1) == column(to.tier);
        let way = if to.tier == Tier::Database {
            Way::Sessions
        } else {
            Way::Counted
        };
        (next && is_there).then_some(way)
    }

    fn way(
        &self,
        (x, y): (f64, f64),
        (to_x, to_y): (f64, f64),
        load: Option<&Load>,
        way: Way,
    ) -> Markup {
        let bend = (to_x - x) / 2.0;
        let path = format!(
            "M{x} {y} C{} {y} {} {to_y} {to_x} {to_y}",
            x + bend,
            to_x - bend
        );
        let errors = load.is_some_and(|load| load.errors >= 0.05);
        let requests = load.map_or(0.0, |load| load.requests);
        let thick = 1.5 + 7.0 * (requests / self.most).clamp(0.0, 1.0);
        let class = match way {
            _ if errors => "way bad",
            Way::Sessions | Way::Replication => "way sessions",
            Way::Counted if requests < 0.05 => "way idle",
            Way::Counted => "way",
        };
        html! {
            path class=(class) d=(path) stroke-width=(format!("{thick:.1}")) {
                @if let Some(load) = load { title { (words::rate(Some(load.requests))) " requests/s, " (words::rate(Some(load.errors))) " errors/s, p99 " (words::duration(load.p99)) } }
            }
        }
    }

    fn replication(&self, from: ServerName, to: ServerName) -> Markup {
        let ((x, y), (_, to_y)) = (self.right(from), self.right(to));
        html! {
            path.way.replication d=(format!("M{x} {y} C{bend} {y} {bend} {to_y} {x} {to_y}", bend = x + 34.0)) stroke-width="1.5" { title { (to) " follows " (from) } }
        }
    }

    fn left(&self, server: ServerName) -> (f64, f64) {
        let (x, y) = self.places[&server];
        (x, y + BOX.1 / 2.0)
    }

    fn right(&self, server: ServerName) -> (f64, f64) {
        let (x, y) = self.left(server);
        (x + BOX.0, y)
    }

    fn node(&self, server: &ServerStatus) -> Markup {
        let (x, y) = self.places[&server.name];
        let load = self.figures.servers.get(&server.name).copied();
        let (word, shape) = (server.state.in_words(), words::shape(server.state));
        html! {
            g class=(format!("node {word}")) transform=(format!("translate({x} {y})")) {
                rect width=(BOX.0) height=(BOX.1) rx="8" {}
                text.name x="12" y="24" { (server.name) }
                text.mark x=(BOX.0 - 12.0) y="24" text-anchor="end" { (shape) " " (word) }
                text x="12" y="44" { (short(server)) }
                @if let Some(load) = load {
                    text.dim x="12" y="63" { (words::rate(Some(load.requests))) "/s"
                        @if load.errors >= 0.05 { tspan.bad dx="6" { "▲ " (words::rate(Some(load.errors))) " errors/s" } }
                        @if load.p99.is_some() { tspan dx="6" { "p99 " (words::duration(load.p99)) } } }
                } @else if let Some(database) = &server.database {
                    text.dim x="12" y="63" { (database_line(database)) }
                }
                @for (index, instance) in server.instances.iter().enumerate().take(8) { (instance_box(index, instance)) }
            }
        }
    }
}

/// The most important thing about a server.
fn short(server: &ServerStatus) -> String {
    match (server.tier, server.vips.as_slice(), &server.database) {
        (Tier::Balancer, [], _) => "no VIP".into(),
        (Tier::Balancer, [vip], _) => format!("VIP {vip}"),
        (Tier::Balancer, [vip, rest @ ..], _) => format!("VIP {vip} +{}", rest.len()),
        (Tier::Database, _, Some(database)) => database.role.in_words().into(),
        (Tier::App, ..) => String::new(),
        _ => server.location.address.to_string(),
    }
}

fn database_line(database: &gaiola_model::placement::ObservedDatabase) -> String {
    // Before it runs there is no timeline, and the reason why it does not run matters more.
    if database.timeline == 0 {
        return database.state.chars().take(LINE).collect();
    }
    let lag = database
        .lag_bytes
        .filter(|_| database.role != DatabaseRole::Primary);
    let lag = lag
        .map(|lag| format!("{} behind · ", words::bytes(lag)))
        .unwrap_or_default();
    format!("{lag}timeline {}", database.timeline)
}

fn instance_box(index: usize, instance: &InstanceStatus) -> Markup {
    let (word, shape, class) = words::instance(instance);
    let x = 12.0 + number(index) * 20.0;
    html! {
        g class=(format!("instance {class}")) {
            rect x=(x) y="32" width="16" height="16" rx="3" { title { (word) } }
            text x=(x + 8.0) y="44" text-anchor="middle" { (shape) }
        }
    }
}

fn of_tier(status: &Status, tier: Tier) -> impl Iterator<Item = &ServerStatus> {
    status
        .servers
        .iter()
        .filter(move |server| server.tier == tier)
}

const fn takes_requests(server: &ServerStatus) -> bool {
    matches!(
        server.state,
        ServerState::Serving | ServerState::Busy | ServerState::Degraded | ServerState::Draining
    )
}

/// The space between two columns.
fn gap(columns: usize) -> f64 {
    let columns = number(columns.max(1));
    // Space on the right for the curve of replication.
    ((WIDTH - 36.0 - CLIENTS - columns * BOX.0) / columns).min(150.0)
}

fn left_of(column: usize, columns: usize) -> f64 {
    CLIENTS + gap(columns) + number(column) * (BOX.0 + gap(columns))
}

#[expect(clippy::cast_precision_loss, reason = "a few servers")]
fn number(count: usize) -> f64 {
    count as f64
}
