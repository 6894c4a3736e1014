//! Changes that an operator makes at run time.

use super::Supervisor;
use super::error::{OperateError, WorkerError};
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{Server, ServerOrder};
use gaiola_wire::closest;

impl Supervisor {
    /// Changes one server, until the next configuration.
    pub(super) async fn set_server(
        &self,
        backend: &str,
        server: &str,
        order: ServerOrder,
    ) -> Result<(), OperateError> {
        let _changing = self.changing.lock().await;
        let mut config = self.orders().config.as_deref().cloned();
        let config = config.as_mut().ok_or(OperateError::NothingServed)?;
        let found = find(config, backend, server)?;
        match order {
            ServerOrder::Weight(weight) => found.weight = weight,
            ServerOrder::State(admin) => found.admin = admin,
            ServerOrder::EndSessions => {
                return Ok(self.end_sessions(backend, server).await?);
            }
        }
        tracing::info!(backend, server, ?order, "changed by an operator");
        Ok(self.change_servers(std::mem::take(config)).await?)
    }

    async fn end_sessions(&self, backend: &str, server: &str) -> Result<(), WorkerError> {
        for watched in self.backends.borrow().iter().flat_map(|all| &all.members) {
            let member = &watched.member;
            if member.backend == backend && member.name == server {
                member.end_sessions();
            }
        }
        tracing::info!(backend, server, "sessions ended by an operator");
        let seq = self.publish(|_| {});
        self.applied(seq).await
    }

    /// Clears the counts of a limit.
    pub(super) fn clear_limit(&self, name: &str, key: Option<&str>) -> Result<(), OperateError> {
        let orders = self.orders();
        let limits = orders.limits.iter();
        match limits.clone().find(|limiter| limiter.limit.name == name) {
            Some(limiter) => Ok(limiter.clear(key)?),
            None => Err(unknown(
                "limit",
                name,
                limits.map(|limiter| &*limiter.limit.name),
            )),
        }
    }
}

fn find<'c>(
    config: &'c mut ProxyConfig,
    backend: &str,
    server: &str,
) -> Result<&'c mut Server, OperateError> {
    let backends = config.backends.iter();
    let Some(index) = backends.clone().position(|known| known.name == backend) else {
        let names = backends.map(|known| &*known.name);
        return Err(unknown("backend", backend, names));
    };
    let servers = &mut config.backends[index].servers;
    match servers.iter().position(|known| known.name == server) {
        Some(index) => Ok(&mut servers[index]),
        None => {
            let what = format!("server in {backend} named");
            let names = servers.iter().map(|known| &*known.name);
            Err(unknown(&what, server, names))
        }
    }
}

/// The error for an unknown name, with the known ones.
fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> OperateError {
    /// Most names listed.
    const MOST: usize = 20;
    let known: Vec<_> = known.collect();
    let there_are = match (closest(name, &known), &known[..]) {
        (Some(meant), _) => format!("did you mean {meant}?"),
        (None, []) => "there is none at all".into(),
        (None, known) if known.len() <= MOST => format!("there is {}", known.join(", ")),
        (None, known) => format!(
            "there are {}: {}, ...",
            known.len(),
            known[..MOST].join(", ")
        ),
    };
    OperateError::Unknown {
        what: what.into(),
        name: name.into(),
        there_are,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::Backend;

    #[test]
    fn an_unknown_name_is_reported_with_the_known_ones() {
        let server = |name: &str| Server::new(name, ([127, 0, 0, 1], 80));
        let mut config = ProxyConfig {
            backends: vec![Backend::new("app", vec![server("app-1"), server("web")])],
            ..ProxyConfig::default()
        };
        let mut said = |backend, server| match find(&mut config, backend, server) {
            Ok(found) => found.name.clone(),
            Err(error) => error.to_string(),
        };
        assert_eq!(said("app", "web"), "web");
        assert_eq!(
            said("apps", "web"),
            "there is no backend apps; did you mean app?"
        );
        assert_eq!(
            said("app", "ap-1"),
            "there is no server in app named ap-1; did you mean app-1?"
        );
        assert_eq!(
            said("app", "other"),
            "there is no server in app named other; there is app-1, web"
        );
        let none = unknown("limit", "l", [].into_iter());
        assert_eq!(
            none.to_string(),
            "there is no limit l; there is none at all"
        );
    }
}
