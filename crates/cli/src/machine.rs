//! `gaiola machine`: the site's process on a machine, and the steps by which a machine becomes part of a site.

use crate::args::Machine;
use crate::output::{self, Exit};
use crate::processes::log;
use anyhow::Context as _;
use gaiola_agent::engine::{Secrets, find_tools};
use gaiola_agent::state::{State, read_document};
use gaiola_control::api::machine::DatabaseAccess;
use gaiola_control::drill::Query;
use gaiola_control::process::machine::{self, setup};
use gaiola_control::provider::machine::{boot, harm};
use gaiola_model::SiteName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read as _};

/// The largest document that is read.
const LARGEST: u64 = 1 << 20;

pub(crate) fn machine(command: &Machine) -> anyhow::Result<Exit> {
    match command {
        Machine::Run(of) => {
            log();
            machine::run(&of.name)?;
        }
        Machine::Prepare => print(&setup::prepare(&document()?)?)?,
        Machine::Authority(of) => print(&setup::authority(&of.name)?)?,
        Machine::Sign(of) => print(&setup::sign(&of.name, &document()?)?)?,
        Machine::Accept(of) => setup::accept(&of.name, &document()?)?,
        Machine::Units(of) => setup::units(&of.name)?,
        Machine::Boot(of) => boot::begin(&State::of(&of.name), of.of)
            .with_context(|| format!("cannot begin a boot of {}", of.of))?,
        Machine::Harm(of) => {
            let harm = document()?;
            crate::runtime::runtime()?.block_on(harm::begin(&of.name, harm))?;
        }
        Machine::Undo(_) => harm::undo()?,
        Machine::Harmed => print(&harm::in_force())?,
        Machine::Database(of) => print(&database(&of.name)?)?,
        Machine::Query => {
            let query: Query = document()?;
            output::print(&crate::runtime::runtime()?.block_on(query.ask())?);
        }
    }
    Ok(Exit::Ok)
}

/// How a client on this machine enters the site's database.
fn database(site: &SiteName) -> anyhow::Result<DatabaseAccess> {
    let secrets = passwords(&State::of(site)).context("cannot read the database's passwords")?;
    Ok(DatabaseAccess {
        psql: find_tools()?.postgres_bin.join("psql"),
        password: secrets.site.reveal().into(),
    })
}

/// The database's passwords: the site's own copy, which is on the machines with a member of the store, or that of a server here.
fn passwords(state: &State) -> io::Result<Secrets> {
    let own = read_document(&state.secrets());
    if !matches!(&own, Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return own;
    }
    let Ok(servers) = std::fs::read_dir(state.servers()) else {
        return own;
    };
    let copies = servers.flatten().map(|it| it.path().join("secrets.json"));
    let copy = copies.into_iter().find(|copy| copy.exists());
    copy.map_or(own, |copy| read_document(&copy))
}

/// The document on standard input.
fn document<T: DeserializeOwned>() -> anyhow::Result<T> {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST).read_to_end(&mut text);
    read.context("cannot read standard input")?;
    serde_json::from_slice(&text).context("standard input is not the document that is expected")
}

fn print(document: &impl Serialize) -> anyhow::Result<()> {
    print_line!("{}", serde_json::to_string(document)?);
    Ok(())
}
