//! `gaiola upgrade`: exchanges the program of a site's machines for this one, one machine at a time.

use super::exchange::Exchange;
use super::{Plan, Rolling, RunningSite, Work, agree, no_turn};
use crate::args::{Global, SiteFile};
use crate::change::refuse;
use crate::connect::place;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::api::schema::may_upgrade;
use gaiola_core::roll::{Purpose, turns};
use gaiola_model::schema::SCHEMA;
use gaiola_model::status::Status;

/// `gaiola upgrade`.
pub(crate) fn upgrade(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let mut site = RunningSite::find(global, &place(global, &of.file)?)?;
    if site.machines.is_none() {
        bail!("a lab is exchanged as a whole: gaiola down, then gaiola up");
    }
    let schema = site.client.schema().context("the site does not answer")?;
    if let Err(mismatch) = may_upgrade(schema, SCHEMA) {
        return refuse(global, &mismatch.into());
    }
    site.client.speak(schema);
    let status: Status = site.client.get("/status")?;
    let spare = site.spare(&status);
    let turns = match turns(&status, true, &spare, &[], Purpose::Upgrade) {
        Ok(turns) => turns,
        Err(why) => return Ok(no_turn(&why)),
    };
    let mut exchange = Exchange::new(site.client.site.clone(), schema)?;
    let turns = exchange.left(turns)?;
    if turns.is_empty() {
        if !global.quiet {
            eprint_line!("every machine runs gaiola {}", exchange.version());
        }
        return Ok(Exit::Ok);
    }
    agree(global, &turns)?;
    let plan = Plan {
        doing: "gaiola upgrade",
        again: "gaiola upgrade".into(),
        then: None,
        turns,
        status,
    };
    let work = Work::Exchange(exchange);
    let exit = Rolling::start(global, site, plan)?.run(&work)?;
    if let (Exit::Ok, Work::Exchange(exchange)) = (exit, &work) {
        // The site has been upgraded all the same.
        if let Err(error) = exchange.forget() {
            eprint_line!("gaiola: cannot remove older versions: {error:#}");
        }
    }
    Ok(exit)
}
