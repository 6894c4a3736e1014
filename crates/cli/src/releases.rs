//! `gaiola deploy`, `gaiola rollback` and `gaiola releases`.

use crate::args::{Global, Rollback, SiteFile};
use crate::change::{self, change, refuse};
use crate::connect::SiteClient;
use crate::deploy::Local;
use crate::output::{Exit, second_of};
use crate::{file, secret};
use gaiola_control::api::{Change, KnownRelease};
use gaiola_model::placement::ReleaseNumber;

/// `gaiola deploy`.
pub(crate) fn deploy(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let config = secret::checked(global, of, file::read(&of.file)?)?;
    let client = SiteClient::find(global, &of.file)?;
    match Local::read(global, config, of) {
        Ok(local) => change::deploy(global, &client, local),
        Err(error) => refuse(global, &error),
    }
}

/// `gaiola rollback`.
pub(crate) fn roll_back(global: &Global, rollback: &Rollback) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &rollback.of.file)?;
    let asked = Change::Rollback {
        to: rollback.release.map(ReleaseNumber),
        yes: global.yes,
    };
    change(global, &client, asked)
}

/// `gaiola releases`.
pub(crate) fn list(global: &Global, of: &SiteFile) -> anyhow::Result<Exit> {
    let client = SiteClient::find(global, &of.file)?;
    let known: Vec<KnownRelease> = client.get("/releases")?;
    if global.json {
        print_line!("{}", serde_json::to_string_pretty(&known)?);
        return Ok(Exit::Ok);
    }
    for release in &known {
        print_line!("{}", in_words(release));
    }
    if known.is_empty() && !global.quiet {
        eprint_line!("nothing is known of the site's releases yet; `gaiola up` notes the next one");
    }
    Ok(Exit::Ok)
}

fn in_words(known: &KnownRelease) -> String {
    let mark = if known.serves && known.is_desired {
        '*'
    } else {
        ' '
    };
    let (second, by) = (second_of(&known.at), &known.by);
    let number = known.release.to_string();
    let back = (known.back_from).map_or_else(String::new, |from| format!("back from {from}, "));
    format!(
        "{mark} {number:>4}  {second:<20}  {by:<20}  {back}{}",
        known.state
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_a_line() {
        let known = KnownRelease {
            release: ReleaseNumber(3),
            digest: "a".into(),
            at: "2026-01-02T03:04:05.678Z".into(),
            by: "root@laptop".into(),
            back_from: Some(ReleaseNumber(4)),
            is_desired: true,
            serves: true,
            end: None,
            state: "came up in 2.0 s, requests 10, failed 0".into(),
        };
        assert_eq!(
            in_words(&known),
            "*    3  2026-01-02T03:04:05Z  root@laptop           back from 4, came up in 2.0 s, requests 10, failed 0"
        );
        assert_eq!(second_of(""), "-");
    }
}
