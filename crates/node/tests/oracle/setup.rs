//! How both proxies are set up for a conversation: HAProxy's lines, and what says the same to Gaiola.

use gaiola_model::proxy::{Backend, Frontend, Limit, Route, Rule};
use std::time::Duration;

/// One setup in both languages.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// Bytes rather than HTTP.
    pub(crate) tcp: bool,
    /// HAProxy's words behind `bind`.
    pub(crate) bind: &'static str,
    /// HAProxy's lines in the frontend, and in the backend.
    pub(crate) frontend: &'static str,
    pub(crate) backend: &'static str,
    /// HAProxy's words behind the first server, and behind each further one.
    pub(crate) servers: [&'static str; 2],
    /// The same for Gaiola.
    pub(crate) gaiola: fn(&mut Parts),
}

/// What Gaiola's side of a setup may change.
pub(crate) struct Parts {
    pub(crate) frontend: Frontend,
    pub(crate) backend: Backend,
    /// The last one takes all that no other does.
    pub(crate) routes: Vec<Route>,
    pub(crate) limits: Vec<Limit>,
}

impl Parts {
    /// Rules of the route for all.
    pub(crate) fn rules(&mut self, rules: impl Into<Vec<Rule>>) {
        self.routes.last_mut().expect("there is one").rules = rules.into();
    }

    /// A route before the others, to the same backend.
    pub(crate) fn route(&mut self, set: impl FnOnce(&mut Route)) {
        let mut route = Route::to(&*self.backend.name);
        set(&mut route);
        let last = self.routes.len() - 1;
        self.routes.insert(last, route);
    }
}

/// The one wait of a setup that is short.
pub(crate) const SHORT: Duration = Duration::from_millis(400);

impl Setup {
    /// Nothing but the servers.
    pub(crate) const fn plain() -> Self {
        Self {
            tcp: false,
            bind: "",
            frontend: "",
            backend: "",
            servers: ["", ""],
            gaiola: |_| {},
        }
    }
}
