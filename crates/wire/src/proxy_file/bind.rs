//! A frontend's listening addresses: `bind`, with their protocols.

use super::{CA_HINT, Part, Reader, value};
use crate::file::{At, Element, Section, checked, text};
use gaiola_model::proxy::{Address, Bind, ClientCertificates, Tls};
use ipnet::IpNet;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

impl Reader<'_, '_, '_> {
    /// Each element of `bind` is an address, or a table with an address and more.
    pub(super) fn binds(&mut self, section: &Section<'_>, is_http: bool) -> Vec<Bind> {
        let senders = self.networks(section, "accept_proxy");
        section.need("bind", "\"0.0.0.0:80\"", self.mistakes);
        let kind = "frontend.NAME.bind";
        let elements = section.elements("bind", kind, "\":80\"", self.mistakes);
        let binds = elements.iter().filter_map(|element| match element {
            Element::Text(written) => Some(Bind {
                proxy_protocol_from: senders.clone(),
                ..Bind::new(self.bind_address("bind", written)?)
            }),
            Element::Table(section) => self.bind(section, &senders, is_http),
        });
        binds.collect()
    }

    fn bind(&mut self, section: &Section<'_>, senders: &[IpNet], is_http: bool) -> Option<Bind> {
        section.need("address", "\":443\"", self.mistakes);
        let written = section.string_for("address", value::listen, self.mistakes);
        let address = written.and_then(|written| self.bind_address("address", &written));
        let senders = if section.has("accept_proxy") {
            self.networks(section, "accept_proxy")
        } else {
            senders.to_vec()
        };
        let permissions = text(section, "permissions", value::permissions, self.mistakes);
        let tls = section.table("tls", "frontend.NAME.bind.tls", self.mistakes);
        let tls = tls.map(|tls| self.tls(&tls, is_http));
        match address {
            Some(Address::Tcp(_)) => {
                self.has_no_meaning(section, "permissions", "only a Unix socket has permissions");
            }
            Some(Address::Unix(_)) => {
                self.has_no_meaning(section, "tls", "TLS is served on TCP only");
            }
            None => {}
        }
        Some(Bind {
            proxy_protocol_from: senders,
            permissions,
            tls,
            ..Bind::new(address?)
        })
    }

    /// An address without another listener.
    fn bind_address(&mut self, key: &str, written: &At<String>) -> Option<Address> {
        let address = checked(key, written, value::listen, self.mistakes)?;
        if !self.bound.insert(address.clone()) {
            let what = format!("{address} is bound twice");
            self.mistakes
                .add(&written.span, what, "leave one of them out");
        }
        Some(address)
    }

    /// The metrics address; no frontend may use it too.
    pub(super) fn admin(&mut self, root: &Section<'_>) -> Option<SocketAddr> {
        let written = root.string_for("admin", value::bind, self.mistakes)?;
        let admin = checked("admin", &written, value::bind, self.mistakes)?;
        let mut bound = self.bound.iter();
        let same = bound.find(|bind| bind.tcp().is_some_and(|bind| overlap(bind, admin)));
        if let Some(bind) = same {
            let what = format!("`admin` is {admin}, and a frontend listens on {bind}");
            let hint = "give it a port of its own";
            self.mistakes.add(&written.span, what, hint);
        }
        Some(admin)
    }

    /// The control socket; no frontend may use it too.
    pub(super) fn control(&mut self, root: &Section<'_>) -> Option<PathBuf> {
        let control = self.path_at(root, "control")?;
        if self.bound.contains(&Address::Unix(control.value.clone())) {
            let path = control.value.display();
            let what = format!("`control` is {path}, and a frontend listens there");
            let hint = "give it a socket of its own";
            self.mistakes.add(&control.span, what, hint);
        }
        Some(control.value)
    }

    fn tls(&mut self, section: &Section<'_>, is_http: bool) -> Tls {
        section.need("certificates", "\"site.pem\"", self.mistakes);
        let min_version = text(section, "min_version", value::tls_version, self.mistakes);
        let protocol = if is_http {
            value::http_protocol
        } else {
            value::protocol
        };
        let alpn = section.one_or_more("alpn", "\"http/1.1\"", self.mistakes);
        let alpn = alpn
            .iter()
            .filter_map(|element| checked("alpn", element, protocol, self.mistakes))
            .collect();
        Tls {
            min_version: min_version.unwrap_or_default(),
            client: self.client_certificates(section),
            alpn,
            ..Tls::new(self.certificates(section))
        }
    }

    fn certificates(&mut self, section: &Section<'_>) -> Vec<PathBuf> {
        let key = "certificates";
        let mut paths = Vec::new();
        for element in section.one_or_more(key, "\"site.pem\"", self.mistakes) {
            if let Some(path) = self.path_of(key, &element) {
                let hint = "name a PEM file with a certificate, its chain and its key, or a folder of such files";
                self.ask(&path.span, Part::Certificates(&path.value), hint);
                paths.push(path.value);
            }
        }
        paths
    }

    pub(super) fn client_certificates(
        &mut self,
        section: &Section<'_>,
    ) -> Option<ClientCertificates> {
        let ca = self.path_at(section, "client_ca");
        if let Some(ca) = &ca {
            self.ask(&ca.span, Part::ClientCas(&ca.value), CA_HINT);
        }
        let key = "client_certificate";
        let required = text(section, key, value::is_required, self.mistakes);
        if !section.has("client_ca") {
            self.has_no_meaning(section, key, "it needs client_ca = \"FILE\"");
        }
        Some(ClientCertificates {
            ca: ca?.value,
            pem: None,
            required: required.unwrap_or(true),
        })
    }
}

/// Whether the system rejects one while the other is bound. A frontend's `[::]` covers only IPv6, the admin port's IPv4
/// too.
fn overlap(bind: SocketAddr, admin: SocketAddr) -> bool {
    let any = bind.ip().is_unspecified() || admin.ip().is_unspecified();
    let wide = any && bind.is_ipv4() == admin.is_ipv4();
    let widest = admin.ip() == Ipv6Addr::UNSPECIFIED;
    bind.port() == admin.port() && (bind.ip() == admin.ip() || wide || widest)
}
