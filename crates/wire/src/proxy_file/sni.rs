//! `[[frontend.NAME.sni]]`: backends by TLS server name.

use super::{Part, Reader, Reference, value};
use crate::file::{Section, checked};
use gaiola_model::proxy::SniRoute;
use std::collections::BTreeSet;

impl Reader<'_, '_, '_> {
    pub(super) fn sni(
        &mut self,
        section: &Section<'_>,
        references: &mut Vec<Reference>,
    ) -> Vec<SniRoute> {
        let mut seen = BTreeSet::new();
        let mut routes = Vec::new();
        for route in section.tables("sni", "frontend.NAME.sni", self.mistakes) {
            route.need("names", "[\"www.example.org\"]", self.mistakes);
            route.need("backend", "\"NAME\"", self.mistakes);
            let names = self.server_names(&route, &mut seen, &routes);
            let backend = self.backend_name(&route, "backend");
            routes.extend(backend.as_ref().map(|backend| SniRoute {
                names,
                backend: backend.value.clone(),
            }));
            references.extend(backend);
        }
        routes
    }

    fn server_names(
        &mut self,
        route: &Section<'_>,
        seen: &mut BTreeSet<String>,
        before: &[SniRoute],
    ) -> Vec<String> {
        let written = route.one_or_more("names", "\"www.example.org\"", self.mistakes);
        let mut names = Vec::new();
        for element in &written {
            let name = checked("names", element, value::server_name, self.mistakes);
            names.extend(name.inspect(|name| {
                if !seen.insert(name.clone()) {
                    let what = format!("the name {name:?} is listed twice");
                    let hint = "leave one of them out: the first one wins";
                    self.mistakes.add(&element.span, what, hint);
                } else {
                    let hint = "move its [[...sni]] before that one, or leave it out";
                    self.ask(&element.span, Part::NameBehind(before, name), hint);
                }
            }));
        }
        names
    }
}
