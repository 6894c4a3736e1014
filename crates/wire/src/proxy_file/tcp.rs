//! Settings of a backend that only HTTP has, while a TCP frontend sends to it.

use super::Reader;
use crate::file::{At, Section};
use gaiola_model::proxy::{Algorithm, Backend, Frontend, HashKey, Mode};

/// A setting that only applies to HTTP requests.
pub(super) struct OnlyHttp {
    backend: String,
    key: At<&'static str>,
}

impl Reader<'_, '_, '_> {
    /// Records which keys of a backend apply only to HTTP.
    pub(super) fn note_only_http(&mut self, backend: &Backend, section: &Section<'_>) {
        let by_request = match &backend.algorithm {
            Algorithm::Hash { key, .. } => *key != HashKey::Source,
            Algorithm::RoundRobin | Algorithm::LeastConn | Algorithm::Random | Algorithm::First => {
                false
            }
        };
        for (key, is_so) in [
            ("hash", by_request),
            ("sticky", backend.sticky.is_some()),
            ("slow_ejection", backend.slow_ejection.is_some()),
        ] {
            let span = section.key_span(key).filter(|_| is_so);
            self.only_http.extend(span.map(|span| OnlyHttp {
                backend: backend.name.clone(),
                key: At { value: key, span },
            }));
        }
    }

    /// Reports those of them that a TCP frontend reaches.
    pub(super) fn tell_only_http(&mut self, frontends: &[Frontend], backends: &[Backend]) {
        let tcp: Vec<_> = frontends
            .iter()
            .map(|frontend| (frontend, reached(frontend, backends)))
            .collect();
        for OnlyHttp { backend, key } in std::mem::take(&mut self.only_http) {
            let mut frontends = tcp.iter();
            let found = frontends.find(|(_, reached)| reached.contains(&&*backend));
            if let Some((frontend, _)) = found {
                let what = match key.value {
                    "hash" => "`hash` on a request has no meaning in TCP".to_owned(),
                    key => format!("`{key}` has no meaning in TCP"),
                };
                let name = &frontend.name;
                let hint = format!(
                    "[frontend.{name}] is mode = \"tcp\" and sends here: take it out, or give that frontend another backend"
                );
                self.mistakes.add(&key.span, what, hint);
            }
        }
    }
}

/// The backends that a frontend sends to without HTTP, including their fallbacks.
fn reached<'a>(frontend: &'a Frontend, backends: &'a [Backend]) -> Vec<&'a str> {
    let Mode::Tcp { backend, sni, .. } = &frontend.mode else {
        return Vec::new();
    };
    let named = sni.iter().map(|route| &*route.backend);
    let mut reached: Vec<_> = std::iter::once(&**backend).chain(named).collect();
    let mut looked_at = 0;
    while let Some(name) = reached.get(looked_at) {
        looked_at += 1;
        let backend = backends.iter().find(|backend| backend.name == *name);
        let fallback = backend.and_then(|backend| backend.fallback.as_deref());
        reached.extend(fallback.filter(|fallback| !reached.contains(fallback)));
    }
    reached
}
