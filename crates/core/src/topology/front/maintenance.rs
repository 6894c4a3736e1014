//! A balancer's routes during maintenance: clients that are allowed have them, and all others get 503.

use gaiola_model::placement::Maintenance;
use gaiola_model::proxy::{Fixed, HeaderEdit, Route, Rule};
use ipnet::IpNet;

const STATUS: u16 = 503;

/// The routes for clients that are allowed, and what all others get.
pub(super) fn refusing(routes: Vec<Route>, maintenance: &Maintenance) -> Vec<Route> {
    let allowed = routes.into_iter();
    let allowed = allowed.filter_map(|route| for_allowed(route, &maintenance.allow));
    allowed.chain([refused(maintenance)]).collect()
}

/// A route for the clients of these networks among its own; `None`: it has none of them.
fn for_allowed(mut route: Route, allow: &[IpNet]) -> Option<Route> {
    let sources = match route.when.sources.as_slice() {
        [] => allow.to_vec(),
        own => common(own, allow),
    };
    route.when.sources = sources;
    // Without networks a route would be everybody's.
    (!route.when.sources.is_empty()).then_some(route)
}

/// The networks that are in both lists. Of two that overlap one contains the other.
fn common(one: &[IpNet], other: &[IpNet]) -> Vec<IpNet> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    let both = pairs.filter_map(|(a, b)| match (a.contains(&b), b.contains(&a)) {
        (true, _) => Some(b),
        (_, true) => Some(a),
        (false, false) => None,
    });
    both.collect()
}

fn refused(maintenance: &Maintenance) -> Route {
    let page = maintenance.page.clone();
    let (content_type, body) = page.map_or_else(
        || ("text/plain; charset=utf-8".into(), String::new()),
        |page| (page.content_type, page.body),
    );
    let answer = Rule::Return(Fixed {
        status: STATUS,
        content_type,
        body,
        needs: None,
    });
    Route {
        rules: vec![
            set("Retry-After", maintenance.retry_after.to_string()),
            // A cache would show the page for longer than it is true.
            set("Cache-Control", "no-store".into()),
            answer,
        ],
        ..Route::default()
    }
}

fn set(name: &str, value: String) -> Rule {
    Rule::ResponseHeader(HeaderEdit::Set {
        name: name.into(),
        value,
    })
}
