//! What the command line and `gaiola machine` on a machine exchange while a machine is made part of a site: one JSON document on
//! standard input, one line of JSON on standard output.
//!
//! | command | reads | prints |
//! | --- | --- | --- |
//! | `gaiola machine prepare` | [`MachineSetup`] | [`Prepared`] |
//! | `gaiola machine authority SITE` | nothing | [`Authority`] |
//! | `gaiola machine sign SITE` | [`SigningRequest`] | [`Signed`] |
//! | `gaiola machine accept SITE` | [`Signed`] | nothing |
//!
//! And what a drill asks of it:
//!
//! | command | reads | prints |
//! | --- | --- | --- |
//! | `gaiola machine harm SITE` | `core::drill::MachineHarm` | nothing |
//! | `gaiola machine undo SITE` | nothing | nothing |
//! | `gaiola machine harmed` | nothing | the target in force, or null |
//! | `gaiola machine database SITE` | nothing | [`DatabaseAccess`] |
//! | `gaiola machine query` | `control::drill::Query` | what psql printed |
//!
//! Keys never leave the machine that made them: requests and certificates are carried.

use gaiola_model::SiteName;
use gaiola_model::inventory::Host;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// A machine's part in a site, as the command line hands it over; `/var/lib/gaiola/SITE/machine.json` keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSetup {
    /// The site.
    pub site: SiteName,
    /// The machine's own name in the site's file.
    pub host: Host,
    /// The address that the other machines use.
    pub address: IpAddr,
    /// All machines of the site, this one and the spare ones included.
    pub machines: Vec<MachineAddress>,
}

/// A machine of a site, and where the others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineAddress {
    /// Its name in the site's file.
    pub host: Host,
    /// Its address.
    pub address: IpAddr,
}

/// The answer of `gaiola machine prepare`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// PEM of a certificate request; `None`: the machine holds a certificate of the site that is valid for its name and address.
    pub request: Option<String>,
}

/// The answer of `gaiola machine authority`: the authority that the machine made or already held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// PEM of the authority's certificate.
    pub certificate: String,
}

/// What `gaiola machine sign` is asked to sign: the certificate is named `machine HOST` and valid for the address, whatever the
/// request says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningRequest {
    /// The machine's name in the site's file.
    pub host: Host,
    /// Its address.
    pub address: IpAddr,
    /// PEM of its certificate request.
    pub request: String,
}

/// A signed certificate: the answer of `gaiola machine sign`, and what `gaiola machine accept` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// PEM of the authority's certificate.
    pub authority: String,
    /// PEM of the machine's certificate.
    pub certificate: String,
}

/// The answer of `gaiola machine database`: how a client on the machine of a database server enters the site's database.
#[derive(Clone, Serialize, Deserialize)]
pub struct DatabaseAccess {
    /// The program.
    pub psql: PathBuf,
    /// The password of the site's own role.
    pub password: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_the_fields_of_the_plan() {
        let setup: MachineSetup = serde_json::from_str(
            r#"{"site":"shop","host":"deploy@web-b","address":"10.0.0.22",
                "machines":[{"host":"deploy@web-b","address":"10.0.0.22"}]}"#,
        )
        .unwrap();
        assert_eq!(setup.machines[0].host, setup.host);
        let none = serde_json::to_string(&Prepared { request: None }).unwrap();
        assert_eq!(none, r#"{"request":null}"#);
    }
}
