//! Arguments of the commands that Gaiola runs itself: processes of a site, and what is done on a machine.

use clap::Subcommand;
use gaiola_model::{ServerName, SiteName};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments of a connection to a site's control socket.
#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// The site.
    pub(crate) name: SiteName,
}

/// Arguments of the lab process.
#[derive(Debug, clap::Args)]
pub(crate) struct Lab {
    /// The site.
    pub(crate) name: SiteName,
    /// The site's address.
    #[arg(long)]
    pub(crate) front_door: SocketAddr,
    /// The status page's address.
    #[arg(long)]
    pub(crate) page: SocketAddr,
}

/// What is done on a machine, as root. Documents are one line of JSON each, on standard input and output.
#[derive(Debug, Subcommand)]
pub(crate) enum Machine {
    /// Run the servers that are placed on this machine, and answer operators and other machines.
    Run(OfSite),
    /// Keep this machine's part in a site and make its key; print a request where it needs a certificate.
    Prepare,
    /// Make the site's authority and secrets here, unless they are; print the authority's certificate.
    Authority(OfSite),
    /// Sign the certificate of a machine.
    Sign(OfSite),
    /// Keep the certificate that was signed for this machine.
    Accept(OfSite),
    /// Write the units of the site's processes.
    Units(OfSite),
    /// Begin a server's boot, unless one lasts: before its agent and keeper start.
    Boot(OfServer),
    /// Do a drill's harm to this machine; it is undone by a timer at the latest.
    Harm(OfSite),
    /// Undo the harm of a drill.
    Undo(OfSite),
    /// Print the harm of a drill that is in force.
    Harmed,
    /// Print how a client on this machine enters the site's database.
    Database(OfSite),
    /// Ask the site's database one query of a drill.
    Query,
}

/// Arguments of a one-off command, on its server.
#[derive(Debug, clap::Args)]
pub(crate) struct OneOff {
    /// The site.
    pub(crate) site: SiteName,
    /// The application server.
    pub(crate) server: ServerName,
    /// The command and its arguments.
    #[arg(last = true)]
    pub(crate) command: Vec<OsString>,
}

/// The site that something on a machine is done for.
#[derive(Debug, clap::Args)]
pub(crate) struct OfSite {
    /// The site.
    pub(crate) name: SiteName,
}

/// The server that something on a machine is done for.
#[derive(Debug, clap::Args)]
pub(crate) struct OfServer {
    /// The site.
    pub(crate) name: SiteName,
    /// The server.
    pub(crate) of: ServerName,
}

/// Arguments of a client of a drill.
#[derive(Debug, clap::Args)]
pub(crate) struct Visit {
    /// The process whose network is entered; without one, this process's own.
    pub(crate) pid: Option<u32>,
    /// Whether it is in a user namespace.
    #[arg(long)]
    pub(crate) rootless: bool,
    /// A command to run there; without one, the task that standard input names.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// Arguments of pid 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Pid1 {
    /// The server's directory.
    pub(crate) folder: PathBuf,
}

/// Arguments of a process that pid 1 starts.
#[derive(Debug, clap::Args)]
pub(crate) struct Booted {
    /// The server's directory.
    #[arg(long)]
    pub(crate) boot: PathBuf,
}

/// Arguments of a keeper.
#[derive(Debug, clap::Args)]
pub(crate) struct Keeper {
    /// Which one.
    pub(crate) kind: KeeperKind,
    /// The server's directory.
    #[arg(long)]
    pub(crate) boot: PathBuf,
}

/// The kinds of keeper.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum KeeperKind {
    /// The VIPs of a balancer.
    Vip,
    /// PostgreSQL of a database server.
    Database,
    /// What a server of this tier has.
    Tier,
}
