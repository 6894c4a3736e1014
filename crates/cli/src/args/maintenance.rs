//! The arguments of `maintenance`.

use super::SiteFile;
use clap::{Subcommand, value_parser};
use gaiola_model::placement::Maintenance;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;

const LONGEST_WAIT: i64 = Maintenance::LONGEST_WAIT as i64;

/// The commands of `maintenance`.
#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Answer requests with 503. Those that are being answered, and open WebSockets, go on.
    On {
        /// The site's file.
        #[command(flatten)]
        of: SiteFile,
        /// The page that clients get, a text file of 64 KiB at most [default: the site's page for 503].
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
        /// Serve the clients in this network, or at this address, as ever; repeat it for more.
        #[arg(long, value_name = "NETWORK", value_parser = network)]
        allow: Vec<IpNet>,
        /// When clients should try again, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u32).range(1..=LONGEST_WAIT))]
        retry_after: u32,
    },
    /// Serve clients again.
    Off {
        /// The site's file.
        #[command(flatten)]
        of: SiteFile,
    },
}

/// Reads a network, or one address.
fn network(text: &str) -> Result<IpNet, NetworkError> {
    let address = |_| text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(address);
    network.map_err(|_| NetworkError)
}

/// Why it is none.
#[derive(Debug, thiserror::Error)]
#[error("it is not a network: write it as 10.0.0.0/8 or 192.0.2.7")]
struct NetworkError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_network_too() {
        let read = |text: &str| network(text).map(|network| network.to_string()).ok();
        assert_eq!(read("10.0.0.0/8").unwrap(), "10.0.0.0/8");
        assert_eq!(read("192.0.2.7").unwrap(), "192.0.2.7/32");
        assert_eq!(read("fd00::1").unwrap(), "fd00::1/128");
        assert_eq!((read("10.0.0.0/33"), read("office")), (None, None));
    }
}
