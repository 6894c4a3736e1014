//! What is derived from a request before its first attempt: where it is to go, and the head to send.

use super::Target;
use crate::clock::seconds;
use crate::exchange::{Exchange, Routed};
use crate::serving::{Backend, Want};
use gaiola_core::cookie;
use gaiola_core::forward::{self, Hop};
use gaiola_core::sticky::Jar;
use gaiola_core::termination::{CookieState, Received, Sent};
use gaiola_model::proxy::Address;
use std::rc::Rc;

impl Exchange<'_> {
    /// What the choice of a server depends on.
    pub(super) fn target<'a>(
        &mut self,
        routed: &Routed<'_>,
        backend: &'a Rc<Backend>,
        index: usize,
    ) -> Target<'a> {
        let (head, buffer) = self.request.head();
        let jar = backend.jar.as_ref();
        let found = jar.and_then(|jar| jar.find(head, buffer, seconds()));
        if let Some(jar) = jar {
            self.record.cookie = CookieState {
                received: match found {
                    Some(_) => Received::Valid,
                    None if cookie::find(head, buffer, jar.name()).is_some() => Received::Invalid,
                    None => Received::Absent,
                },
                sent: Sent::Nothing,
            };
        }
        let want = Want {
            key: backend.key(routed.client, Some((head, buffer))),
            sticky: match found {
                Some(found) => Some(found.server),
                None => self.downstream.private.preferred(backend.servers()),
            },
            last: false,
        };
        Target {
            backend,
            index,
            want,
            found,
        }
    }

    /// Adds a cookie that names this server to the response, unless the client has it, and the request's id, if responses of this
    /// frontend have it.
    pub(super) fn set_lines(&mut self, routed: &Routed<'_>, target: &Target<'_>, server: usize) {
        self.set_cookie(target, server);
        let (_, frontend) = routed.serving.of(routed.frontend);
        if frontend.return_request_id {
            let lines = &mut self.request.heads.lines;
            for part in [&b"X-Request-ID: "[..], self.record.id(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
    }

    fn set_cookie(&mut self, target: &Target<'_>, server: usize) {
        let lines = &mut self.request.heads.lines;
        lines.clear();
        let (backend, found) = (target.backend, target.found);
        // A client that reached a spare only because others just failed is not kept there.
        let stays =
            backend.servers()[server].is_usable() || found.is_some_and(|it| it.server == server);
        if let Some(jar) = backend.jar.as_ref().filter(|_| stays) {
            jar.set(server, found, seconds(), lines);
            let received = self.record.cookie.received;
            let (received, sent) = match found {
                _ if lines.is_empty() => (received, Sent::Nothing),
                Some(found) if found.server == server => (Received::Valid, Sent::Updated),
                Some(_) => (Received::Down, Sent::Inserted),
                None => (received, Sent::Inserted),
            };
            self.record.cookie = CookieState { received, sent };
        }
    }

    /// Writes the head to send to the server.
    pub(super) fn prepare(&mut self, routed: &Routed<'_>, backend: &Backend) {
        let (request, origin) = (&mut self.request, self.downstream.origin);
        let heads = &mut *request.heads;
        let default_host = match (heads.request.host, &*origin.bind) {
            (Some(_), _) => String::new(),
            (None, Address::Tcp(bind)) => bind.to_string(),
            (None, Address::Unix(_)) => "localhost".into(),
        };
        let rewritten = &heads.rewritten;
        let (path, host, edit) = match routed.rules {
            Some(rules) => (
                &*rewritten.path,
                &*rewritten.host,
                rules.request_edit(rewritten),
            ),
            None => Default::default(),
        };
        let hop = Hop {
            client: origin.address,
            trusted: routed.trusted,
            tls: self.downstream.is_tls(),
            server: &routed.serving.config().server,
            request_id: self.record.id(),
            default_host: &default_host,
            path,
            host,
            edit,
            hidden_cookie: backend.jar.as_ref().and_then(Jar::hidden),
        };
        forward::request(
            &heads.request,
            request.text.of(&request.buffer, heads.request.len),
            &hop,
            &mut heads.onward,
        );
    }
}
