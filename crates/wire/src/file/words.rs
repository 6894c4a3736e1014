//! The words of a file, and what is said of those that are none.

use gaiola_model::Tier;

/// Every key of a file, by the section that it stands in; the root's name is empty.
pub(crate) type Keys = &'static [(&'static str, &'static [&'static str])];

/// What may be written, and what others write.
pub(crate) struct Words {
    pub(crate) keys: Keys,
    /// Words of another program, in its spelling and without the blanks that only part them, each with what it is here.
    pub(crate) foreign: &'static [(&'static str, &'static str)],
    /// Whose words those are.
    pub(crate) from: &'static str,
    /// What can be said elsewhere only.
    pub(crate) elsewhere: Option<Elsewhere>,
}

/// Keys of another file that somebody would look for in this one.
pub(crate) struct Elsewhere {
    pub(crate) keys: Keys,
    /// The sections in which they are looked for.
    pub(crate) kinds: &'static [&'static str],
    /// What is said of them here.
    pub(crate) answer: &'static str,
    /// What that file is.
    pub(crate) file: &'static str,
}

impl Words {
    /// The keys of this kind of section; `None`: keys are names of the user's own.
    pub(super) fn keys_of(&self, kind: &str) -> Option<&'static [&'static str]> {
        let found = self.keys.iter().find(|(name, _)| *name == kind);
        found.map(|(_, keys)| *keys)
    }

    /// What an unknown key may have been meant to be.
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
            ["", ..] => format!("`{key}` stands at the top of the file, before every [section]"),
            places => format!("`{key}` belongs in [{}]", places.join("] or [")),
        }
    }

    /// Where a key can be said, if not here.
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
        is_there.then(|| format!("{answer}: it stands in {} of {file}", places.join(" or ")))
    }

    /// What another program's word is here.
    pub(crate) fn foreign(&self, word: &str) -> Option<String> {
        let one = |word: &str| word.to_ascii_lowercase().replace(['-', ' '], "_");
        let word = one(word);
        let found = self.foreign.iter().find(|(known, _)| one(known) == word);
        found.map(|(known, here)| format!("{}'s `{known}` is {here}", self.from))
    }

    /// What a line that is not TOML is here, by the words that another program would begin it with. One that is a section or
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

/// The known word that is at most a third of its letters away: what was probably meant.
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
