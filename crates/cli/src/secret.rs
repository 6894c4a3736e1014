//! `gaiola secret`: the operator's secrets, by name. A value is read from standard input or a prompt, and never shown.

mod prompt;

use crate::args::{Global, SecretCommand, SiteFile};
use crate::change::change;
use crate::connect::{Ping, Place, SiteClient, place};
use crate::file;
use crate::operator;
use crate::output::{Exit, second_of};
use crate::pending::{self, Pending, known};
use anyhow::{Context as _, anyhow, bail};
use gaiola_agent::engine::Secret;
use gaiola_agent::state::State;
use gaiola_control::api::{Change, NewSecret, NewSecrets, SecretInfo};
use gaiola_control::change::check_secret;
use gaiola_model::secret::{SecretName, referred};
use gaiola_model::{Config, SiteName};
use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Read as _};

/// The longest value that is read; the site says what it takes.
const LONGEST: u64 = 64 << 10;

/// `gaiola secret`.
pub(crate) fn secret(global: &Global, command: &SecretCommand) -> anyhow::Result<Exit> {
    match command {
        SecretCommand::Set { of, name } => set(global, of, name),
        SecretCommand::List { of } => list(global, of),
        SecretCommand::Unset { of, name } => unset(global, of, name),
    }
}

fn set(global: &Global, of: &SiteFile, name: &SecretName) -> anyhow::Result<Exit> {
    let place = place(global, &of.file)?;
    let value = value(name)?;
    check_secret(name, &value).map_err(|why| anyhow!(why))?;
    let Some(client) = founded(&place)? else {
        Pending::add(&place.site, name, value)?;
        if !global.quiet {
            eprint_line!(
                "{} is not up: {name} is kept here, and set by the next: gaiola up",
                place.site
            );
        }
        return Ok(Exit::Ok);
    };
    let new = NewSecret { value, since: None };
    let new = NewSecrets {
        values: [(name.clone(), new)].into(),
        by: operator::name(),
    };
    let exit = change(global, &client, Change::SetSecrets(new))?;
    pending::settle(&client)?;
    Ok(exit)
}

fn unset(global: &Global, of: &SiteFile, name: &SecretName) -> anyhow::Result<Exit> {
    let place = place(global, &of.file)?;
    let waited = Pending::of(&place.site)?.forget(|waits, _| waits == name)?;
    let Some(client) = founded(&place)? else {
        return match waited {
            true => Ok(Exit::Ok),
            false => bail!("{} is not up, and {name} does not wait here", place.site),
        };
    };
    let held = known(&client)?.secrets;
    let is_held = held.is_none_or(|held| held.iter().any(|info| info.name == *name));
    match waited && !is_held {
        true => Ok(Exit::Ok),
        false => change(global, &client, Change::UnsetSecret(name.clone())),
    }
}

fn list(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let place = place(global, &of.file)?;
    let pending: Vec<SecretName> = Pending::of(&place.site)?.names().cloned().collect();
    let held = match founded(&place)? {
        Some(client) => {
            (known(&client)?.secrets).context("the site's store has not answered yet; try again")?
        }
        None if pending.is_empty() => bail!(
            "the site {} is not up, and no secret waits here for its next `up`",
            place.site
        ),
        None => Vec::new(),
    };
    if global.json {
        let all = serde_json::json!({ "secrets": held, "pending": pending });
        print_line!("{all:#}");
        return Ok(Exit::Ok);
    }
    held.iter()
        .for_each(|info| print_line!("{}", in_words(info)));
    for name in &pending {
        print_line!("{:<24} waits here for the next: gaiola up", name.as_str());
    }
    if held.is_empty() && pending.is_empty() && !global.quiet {
        eprint_line!("there are no secrets; set one with: gaiola secret set NAME");
    }
    Ok(Exit::Ok)
}

fn in_words(info: &SecretInfo) -> String {
    let SecretInfo { name, set, by, .. } = info;
    let second = second_of(set);
    let used = match info.used_by.as_slice() {
        [] => "used by nothing".to_string(),
        names => format!("used by {}", names.join(", ")),
    };
    format!("{:<24} set {second} by {by}, {used}", name.as_str())
}

/// The site, if it is up and may have secrets: one whose first `up` failed before it had servers keeps none.
fn founded(place: &Place) -> anyhow::Result<Option<SiteClient>> {
    let Some(client) = SiteClient::at(place)?.filter(SiteClient::is_running) else {
        return Ok(None);
    };
    let is_founded = known(&client)?.founded;
    Ok(is_founded.then_some(client))
}

/// The value: what is written to standard input, without one line feed at its end, or what is typed.
fn value(name: &SecretName) -> anyhow::Result<Secret> {
    let text = if io::stdin().is_terminal() {
        prompt::hidden(&format!("the value of {name} (it is not shown):"))?
    } else {
        let mut text = Vec::new();
        let read = io::stdin().take(LONGEST + 1).read_to_end(&mut text);
        read.context("cannot read the value from standard input")?;
        if text.len() as u64 > LONGEST {
            bail!("the value is longer than {LONGEST} bytes");
        }
        String::from_utf8(text)
            .ok()
            .context("the value is not UTF-8: encode it, for example with base64")?
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(Secret::from(text.to_string()))
}

/// Reads the file again, with the secrets that there are, if it refers to any. What cannot be known is said.
///
/// # Errors
/// Where it refers to one that is not there.
pub(crate) fn checked(global: &Global, of: &SiteFile, config: Config) -> anyhow::Result<Config> {
    if referred(config.app_env().values()).is_empty() {
        return Ok(config);
    }
    match there_are(global, of, &config.site) {
        Ok(Some(secrets)) => file::read_with(&of.file, &secrets),
        Ok(None) => Ok(config),
        Err(error) => {
            if !global.quiet {
                eprint_line!("whether the secrets are there was not checked: {error:#}");
            }
            Ok(config)
        }
    }
}

/// The secrets that the site has or that wait for it; `None`: it is down, and what it has is not known.
fn there_are(
    global: &Global,
    of: &SiteFile,
    site: &SiteName,
) -> anyhow::Result<Option<BTreeSet<SecretName>>> {
    let mut all: BTreeSet<SecretName> = Pending::of(site)?.names().cloned().collect();
    let place = place(global, &of.file)?;
    let client = SiteClient::at(&place)?;
    match client.as_ref().map(|client| (client, client.ping())) {
        Some((client, Some(Ping::Up))) => {
            let known = known(client)?;
            let is_known = !known.founded || known.secrets.is_some();
            all.extend(known.secrets.into_iter().flatten().map(|info| info.name));
            Ok(is_known.then_some(all))
        }
        Some(_) => Ok(None),
        None if place.machines.is_none() && State::of(site).placement().exists() => Ok(None),
        None => Ok(Some(all)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_listed_without_its_value() {
        let info = SecretInfo {
            name: "TOKEN".parse().unwrap(),
            set: "2026-01-02T03:04:05.678Z".into(),
            by: "ann@laptop".into(),
            used_by: vec!["API_TOKEN".into()],
        };
        let words =
            "TOKEN                    set 2026-01-02T03:04:05Z by ann@laptop, used by API_TOKEN";
        assert_eq!(in_words(&info), words);
    }
}
