//! The servers on a response's path.

use axum::http::HeaderMap;
use axum::http::header::VIA;
use serde::Serialize;

/// The path of one request, as far as this process knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ServedBy {
    /// The load balancer, from the request's `Via`.
    pub(crate) balancer: Option<String>,
    /// The web server, from the request's `Via`.
    pub(crate) web: Option<String>,
    /// This process.
    pub(crate) app: Option<String>,
    /// The release that this process was started from.
    pub(crate) release: Option<String>,
    /// The database server that answered.
    pub(crate) database: Option<String>,
}

impl ServedBy {
    /// Reads the hops out of `Via` (RFC 9110, section 7.6.3), such as `1.1 lb1, 1.1 web1`. If a
    /// tier is named twice, the nearest server counts.
    pub(crate) fn read_via(&mut self, headers: &HeaderMap) {
        let fields = headers
            .get_all(VIA)
            .iter()
            .filter_map(|field| field.to_str().ok());
        for hop in fields.flat_map(|field| field.split(',')) {
            let Some(name) = hop.split_whitespace().nth(1) else {
                continue;
            };
            if is_server(name, "lb") {
                self.balancer = Some(name.into());
            } else if is_server(name, "web") {
                self.web = Some(name.into());
            }
        }
    }
}

fn is_server(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|number| {
        (1..=5).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(fields: &[&'static str]) -> ServedBy {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(VIA, field.parse().unwrap());
        }
        let mut way = ServedBy::default();
        way.read_via(&headers);
        way
    }

    #[test]
    fn the_hops_are_found_in_one_field_or_in_two() {
        for way in [
            via(&["1.1 lb2, 1.1 web1"]),
            via(&["1.1 lb2", "1.1 web1 (gaiola)"]),
        ] {
            assert_eq!(way.balancer.as_deref(), Some("lb2"));
            assert_eq!(way.web.as_deref(), Some("web1"));
        }
    }

    #[test]
    fn a_name_that_is_not_one_of_ours_is_passed_over() {
        assert_eq!(
            via(&["1.1 lb<script>, 1.1 webber, 1.1, ,"]),
            ServedBy::default()
        );
    }
}
