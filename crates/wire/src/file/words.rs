//! The vocabulary of a file, and hints for unknown words.

use gaiola_model::Tier;

/// Every key of a file, by section; the root's name is empty.
pub(crate) type Keys = &'static [(&'static str, &'static [&'static str])];

/// The known keys, and other programs' words for them.
pub(crate) struct Words {
    pub(crate) keys: Keys,
    /// Another program's words, in its spelling and without redundant blanks, each with its equivalent here.
    pub(crate) foreign: &'static [(&'static str, &'static str)],
    /// That program.
    pub(crate) from: &'static str,
    /// Keys that belong in another file.
    pub(crate) elsewhere: Option<Elsewhere>,
}

/// Keys of another file that a user might look for in this one.
pub(crate) struct Elsewhere {
    pub(crate) keys: Keys,
    /// The sections where a user might look for them.
    pub(crate) kinds: &'static [&'static str],
    /// The hint for them.
    pub(crate) answer: &'static str,
    /// A description of that file.
    pub(crate) file: &'static str,
}

impl Words {
    /// The keys of this kind of section, which may be one of the other file's; `None`: the user chooses the keys.
    pub(super) fn keys_of(&self, kind: &str) -> Option<&'static [&'static str]> {
        let others = self.elsewhere.iter().flat_map(|other| other.keys);
        let found = self
            .keys
            .iter()
            .chain(others)
            .find(|(name, _)| *name == kind);
        found.map(|(_, keys)| *keys)
    }

    /// A hint for an unknown key: what was probably meant.
    pub(super) fn unknown(&self, key: &str, kind: &str, known: &[&str]) -> String {
        let places: Vec<_> = self
            .keys
            .iter()
            .filter(|(name, keys)| *name != kind && keys.contains(&key))
            .map(|(name, _)| *name)
            .collect();
        let spelled = key.to_ascii_lowercase().replace('-', "_");
        if known.contains(&&*spelled) {
            return format!("did you mean `{spelled}`?");
        }
        if let Some(hint) = self.foreign(key).filter(|_| places.is_empty()) {
            return hint;
        }
        if let Some(meant) = closest(key, known) {
            return format!("did you mean `{meant}`?");
        }
        if let Some(hint) = self.elsewhere(&spelled, kind).filter(|_| places.is_empty()) {
            return hint;
        }
        let tier = key.parse::<Tier>().ok();
        if let Some(tier) = tier.filter(|tier| known.contains(&tier.section())) {
            return format!("did you mean `{tier}`?");
        }
        match &*places {
            [] => format!("known here: {}", known.join(", ")),
            ["", ..] => format!("`{key}` belongs at the top of the file, before every [section]"),
            places => format!("`{key}` belongs in [{}]", places.join("] or [")),
        }
    }

    /// Where a key belongs, if not here.
    fn elsewhere(&self, key: &str, kind: &str) -> Option<String> {
        let Elsewhere {
            keys,
            kinds,
            answer,
            file,
        } = self.elsewhere.as_ref()?;
        let all = keys.iter().filter(|(_, keys)| keys.contains(&key));
        let places: Vec<_> = all
            .map(|(section, _)| match *section {
                "" => "the top".to_owned(),
                section => format!("[{section}]"),
            })
            .collect();
        let is_there = kinds.contains(&kind) && !places.is_empty();
        is_there.then(|| format!("{answer}: it belongs in {} of {file}", places.join(" or ")))
    }

    /// The equivalent of another program's word.
    pub(crate) fn foreign(&self, word: &str) -> Option<String> {
        let one = |word: &str| word.to_ascii_lowercase().replace(['-', ' '], "_");
        let word = one(word);
        let found = self.foreign.iter().find(|(known, _)| one(known) == word);
        found.map(|(known, here)| format!("{}'s `{known}` is {here}", self.from))
    }

    /// The equivalent of a line that is not TOML, by the words that another program would start it with. A section or
    /// `KEY = ...` is meant to be TOML.
    pub(crate) fn foreign_line(&self, line: &str) -> Option<String> {
        let line = line.trim_start();
        let key = line.split_once('=').map(|(key, _)| key.trim_end());
        let is_key = key.is_some_and(|key| !key.contains(char::is_whitespace));
        if is_key || line.starts_with('[') {
            return None;
        }
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        let first = words.first()?;
        self.foreign(&words.join(" "))
            .or_else(|| self.foreign(first))
    }
}

/// The closest known word that differs in at most a third of its letters: what was probably meant.
///
/// ```
/// assert_eq!(gaiola_wire::closest("maxcon", &["bind", "maxconn"]), Some("maxconn"));
/// ```
pub fn closest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 40;
    if key.len() > LONGEST {
        return None;
    }
    let key = key.to_lowercase();
    let underscored = key.replace('-', "_");
    let distance = |candidate| {
        let of = |key| strsim::damerau_levenshtein(key, candidate);
        of(&key).min(of(&underscored))
    };
    known
        .iter()
        .map(|candidate| (distance(candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}
