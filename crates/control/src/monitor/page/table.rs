//! A table with a row for each server, by tier: the drawing in words and numbers.

use super::words;
use crate::traffic::{Figures, Load};
use gaiola_core::status::workers_in_words;
use gaiola_model::Tier;
use gaiola_model::status::{InstanceStatus, ServerStatus, Status};
use maud::{Markup, html};

/// Tiers, their servers and their instances.
pub(super) fn section(status: &Status, figures: &Figures) -> Markup {
    html! {
        section aria-labelledby="servers" {
            h2 #servers { "Servers" }
            @if status.servers.is_empty() { p.none { "Not known yet." } } @else {
                table.servers {
                    thead { tr {
                        @for name in ["server", "state", "address", "holds"] { th scope="col" { (name) } }
                        @for name in ["requests/s", "errors/s", "p99"] { th.number scope="col" { (name) } }
                    } }
                    @for tier in Tier::ALL {
                        @let servers: Vec<_> = status.servers.iter().filter(|server| server.tier == tier).collect();
                        @if !servers.is_empty() { (body(tier, &servers, figures)) }
                    }
                }
            }
        }
    }
}

fn body(tier: Tier, servers: &[&ServerStatus], figures: &Figures) -> Markup {
    html! {
        tbody {
            tr.tier { th colspan="7" scope="rowgroup" { (tier) } }
            @for server in servers {
                (row(server, figures.servers.get(&server.name).copied()))
                @if !server.instances.is_empty() {
                    tr.instances { td colspan="7" { ul aria-label=(format!("instances on {}", server.name)) {
                        @for instance in &server.instances { (box_of(instance, figures.instances.get(&instance.name).copied())) }
                    } } }
                }
            }
        }
    }
}

fn row(server: &ServerStatus, load: Option<Load>) -> Markup {
    let state = server.state.in_words();
    html! {
        tr.server {
            th scope="row" { (server.name) }
            td.state data-name="state" { span class={ "mark " (state) } { span.shape aria-hidden="true" { (words::shape(server.state)) } " " (state) }
                @if !server.reason.is_empty() { " " span.why { (server.reason) } } }
            td data-name="address" { (server.location.address) }
            td data-name="holds" { (holds(server)) }
            td.number data-name="requests/s" { (words::rate(load.map(|load| load.requests))) }
            td class={ "number " (words::error_class(load)) } data-name="errors/s" { (words::rate(load.map(|load| load.errors))) }
            td.number data-name="p99" { (words::duration(load.and_then(|load| load.p99))) }
        }
    }
}

/// What would have to move if this server died: VIPs, the primary, a store member.
fn holds(server: &ServerStatus) -> String {
    let vips =
        (!server.vips.is_empty()).then(|| format!("VIP {}", words::list(server.vips.iter())));
    let database = server.database.as_ref().map(words::database);
    let store = server.store_member.then(|| "store".to_string());
    let workers = &server.workers;
    let workers = (!workers.is_empty()).then(|| workers_in_words(workers));
    [vips, database, workers, store]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" · ")
}

fn box_of(instance: &InstanceStatus, load: Option<Load>) -> Markup {
    let (state, shape, class) = words::instance(instance);
    html! {
        li class={ "mark " (class) } {
            b { (instance.name) } " " span.shape aria-hidden="true" { (shape) } " " (state)
            " · release " (instance.release)
            @if let Some(load) = load.filter(|_| instance.state.is_some()) {
                " · " (words::rate(Some(load.requests))) "/s"
                " · " span class=(words::error_class(Some(load))) { (words::rate(Some(load.errors))) " errors/s" }
                " · p99 " (words::duration(load.p99))
            }
            @if instance.restarts > 0 { " · restarted " (instance.restarts) "×" }
            @if !instance.reason.is_empty() { " " span.why { (instance.reason) } }
        }
    }
}
