//! The file's variables for the site's processes, with the operator's secrets in their places.

use crate::engine::key_of;
use crate::state::Boot;
use gaiola_model::Placement;
use gaiola_model::placement::Environment;
use gaiola_model::secret::{self, Piece, SecretName};
use gaiola_net::seal::SealError;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The environments of a placement, by their numbers.
#[derive(Default)]
pub(super) struct Environments(BTreeMap<u64, Result<Opened, EnvironmentError>>);

/// An environment as processes get it. It is not printable.
struct Opened {
    variables: Vec<(OsString, OsString)>,
    /// The values of its secrets.
    secrets: Vec<String>,
}

/// Why an environment cannot be given to a process.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// This server has no key yet.
    #[error(
        "this server has no key for the site's secrets yet; it gets one from a machine that keeps the site's passwords"
    )]
    NoKey,
    /// The site has no such secret.
    #[error("the secret {0} is not there; set it with: gaiola secret set {0}")]
    Missing(SecretName),
    /// It is not what was sealed.
    #[error("the secret {0} cannot be read: {1}; set it again with: gaiola secret set {0}")]
    Sealed(SecretName, SealError),
}

impl Environments {
    /// Those that a placement holds.
    pub(super) fn open(boot: &Boot, placement: &Placement) -> Self {
        let key = key_of(boot.folder());
        let all = placement.environments.iter();
        let opened = all.map(|(number, environment)| {
            let opened = open(environment, |name| {
                let sealed = environment.secrets.get(name);
                let sealed = sealed.ok_or_else(|| EnvironmentError::Missing(name.clone()))?;
                let key = key.as_ref().ok_or(EnvironmentError::NoKey)?;
                let value = key.open(&name.sealed_under(&boot.site), &sealed.0);
                value.map_err(|error| EnvironmentError::Sealed(name.clone(), error))
            });
            (*number, opened)
        });
        Self(opened.collect())
    }

    /// The variables of a process with this environment.
    pub(super) fn variables(&self, number: u64) -> impl Iterator<Item = (OsString, OsString)> {
        let opened = self.opened(number).into_iter();
        opened.flat_map(|opened| opened.variables.iter().cloned())
    }

    /// The values that are hidden where the output of a process with this environment is quoted.
    pub(super) fn secrets(&self, number: u64) -> &[String] {
        self.opened(number).map_or(&[], |opened| &opened.secrets)
    }

    /// Whether a process may have this environment; 0 is none of the file's.
    pub(super) fn is_open(&self, number: u64) -> bool {
        number == 0 || self.opened(number).is_some()
    }

    /// Whether some are closed for the want of a key, which may come.
    pub(super) fn lack_a_key(&self) -> bool {
        let lacks = |opened: &Result<_, _>| matches!(opened, Err(EnvironmentError::NoKey));
        self.0.values().any(lacks)
    }

    /// Why one is not given to processes.
    pub(super) fn why_closed(&self, number: u64) -> Option<&EnvironmentError> {
        self.0.get(&number)?.as_ref().err()
    }

    fn opened(&self, number: u64) -> Option<&Opened> {
        self.0.get(&number)?.as_ref().ok()
    }
}

fn open(
    environment: &Environment,
    mut value_of: impl FnMut(&SecretName) -> Result<String, EnvironmentError>,
) -> Result<Opened, EnvironmentError> {
    let mut opened = Opened {
        variables: Vec::new(),
        secrets: Vec::new(),
    };
    for (name, value) in &environment.variables {
        // The file was checked: what is no reference is text.
        let pieces = secret::pieces(value).unwrap_or_else(|_| vec![Piece::Text(value)]);
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Secret(name) => {
                    let value = value_of(&name)?;
                    text.push_str(&value);
                    opened.secrets.push(value);
                }
            }
        }
        opened.variables.push((name.into(), text.into()));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_takes_the_place_of_its_reference() {
        let variables = [("URL", "redis://:{secret.PW}@db"), ("TZ", "UTC")];
        let environment = Environment {
            variables: variables
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            ..Environment::default()
        };
        let opened = open(&environment, |_| Ok("s3cret".into()));
        let opened = opened.unwrap_or_else(|error| panic!("{error}"));
        let expected = [("TZ", "UTC"), ("URL", "redis://:s3cret@db")];
        assert_eq!(
            opened.variables,
            expected.map(|(name, value)| (name.into(), value.into()))
        );
        assert_eq!(opened.secrets, ["s3cret"]);
        let missing = open(&environment, |name| {
            Err(EnvironmentError::Missing(name.clone()))
        });
        let why = missing.err().map(|error| error.to_string());
        let expected = "the secret PW is not there; set it with: gaiola secret set PW";
        assert_eq!(why.as_deref(), Some(expected));
    }
}
