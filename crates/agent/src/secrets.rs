//! Hides secrets, and values that a command sets in the environment, from what is quoted to others.

use std::cmp::Reverse;

/// Replaces a hidden value.
const HIDDEN: &str = "***";
/// A value of fewer characters is hidden only as a word of its own: it may be a part of any other.
const SHORT: usize = 3;

/// What is hidden of a process's output.
#[derive(Clone, Copy, Default)]
pub(super) struct Hidden<'a> {
    /// Its command: the values that it sets, as `PASSWORD='two words' bin/migrate` does, neither as the shell reads them nor as written.
    pub command: &'a str,
    /// The secrets in its environment.
    pub secrets: &'a [String],
}

impl Hidden<'_> {
    /// `text` without them. Call it before text is cut: a part of a value is not recognized.
    pub(super) fn from(self, text: &str) -> String {
        let values = self.values();
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let before = &text[..text.len() - rest.len()];
            let found = values.iter().find(|value| stands(value, before, rest));
            let length = found.map_or(next.len_utf8(), String::len);
            shown.push_str(if found.is_some() {
                HIDDEN
            } else {
                &rest[..length]
            });
            rest = &rest[length..];
        }
        shown
    }

    /// The longest first. A secret of several lines is hidden line by line too: a program may write one of them alone.
    fn values(self) -> Vec<String> {
        let lines = self.secrets.iter().flat_map(|secret| secret.lines());
        let mut values = set_by(self.command);
        values.extend(self.secrets.iter().cloned());
        values.extend(lines.map(str::to_string));
        values.retain(|value| !value.is_empty());
        values.sort_by_key(|value| Reverse(value.len()));
        values
    }
}

/// Whether `rest` begins with a value.
fn stands(value: &str, before: &str, rest: &str) -> bool {
    let joins = |next: char| next.is_alphanumeric() || next == '_';
    let is_whole = |after: &str| !before.ends_with(joins) && !after.starts_with(joins);
    let is_long = value.chars().nth(SHORT - 1).is_some();
    rest.strip_prefix(value)
        .is_some_and(|after| is_long || is_whole(after))
}

/// Values of all words of the form `NAME=value`, in any position, since `export` and `env` set some too.
fn set_by(command: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut commands = vec![command.to_string()];
    while let Some(command) = commands.pop() {
        for word in words(&command) {
            if let Some((name, written)) = word.written.split_once('=').filter(is_assignment) {
                values.push(written.to_string());
                values.extend(
                    word.read
                        .strip_prefix(&format!("{name}="))
                        .map(str::to_string),
                );
            }
            // A quoted word may itself be a command: sh -c 'PASSWORD=... bin/migrate'.
            if word.read.len() < word.written.len() {
                commands.push(word.read);
            }
        }
    }
    values
}

fn is_assignment((name, _): &(&str, &str)) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_part)
}

/// A word of a shell command.
#[derive(Default)]
struct Word {
    /// With its quotes,
    written: String,
    /// and without them.
    read: String,
}

/// The words of a shell command (POSIX, section 2.2, Quoting). An unterminated quote extends to the command's end.
fn words(command: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word = Word::default();
    let mut quote = None;
    let mut rest = command.chars();
    while let Some(next) = rest.next() {
        if quote.is_none() && " \t\n;&|()<>`".contains(next) {
            words.push(std::mem::take(&mut word));
            continue;
        }
        word.written.push(next);
        match (quote, next) {
            (None, '\'' | '"') => quote = Some(next),
            (Some(open), _) if open == next => quote = None,
            (None | Some('"'), '\\') => {
                let escaped = rest.next();
                word.written.extend(escaped);
                word.read.extend(unescaped(escaped, quote.is_some()));
            }
            _ => word.read.push(next),
        }
    }
    words.push(word);
    words
}

/// What a backslash and a character mean; in double quotes most backslashes stay.
fn unescaped(escaped: Option<char>, quoted: bool) -> impl Iterator<Item = char> {
    let stays = quoted && !escaped.is_some_and(|next| "$`\"\\\n".contains(next));
    let backslash = stays.then_some('\\');
    backslash
        .into_iter()
        .chain(escaped.filter(|&next| next != '\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hide(command: &str, text: &str) -> String {
        let secrets = &[];
        Hidden { command, secrets }.from(text)
    }

    #[test]
    fn a_secret_of_the_environment_is_hidden_whole_and_line_by_line() {
        let secrets = ["s3cret", "-----BEGIN-----\nMIIEvg\n-----END-----"].map(String::from);
        let command = "PW=other bin/app";
        let hidden = Hidden {
            command,
            secrets: &secrets,
        };
        let text = "s3cret, other: MIIEvg of -----BEGIN-----\nMIIEvg\n-----END-----";
        assert_eq!(hidden.from(text), "***, ***: *** of ***");
    }

    #[test]
    fn a_value_is_hidden_however_it_is_quoted() {
        for (command, value) in [
            ("PW=s3cret bin/migrate", "s3cret"),
            ("PW='two words' bin/migrate", "two words"),
            ("PW=\"two words\" bin/migrate", "two words"),
            (r"PW=two\ words bin/migrate", "two words"),
            (r#"PW="a\"b\$c\d" bin/migrate"#, r#"a"b$c\d"#),
            (r"PW='a\b' bin/migrate", r"a\b"),
            ("PW=one' 'two\" \"three bin/migrate", "one two three"),
            ("PW='it'\\''s here' bin/migrate", "it's here"),
            ("PW='two\nlines' bin/migrate", "two\nlines"),
            ("PW=folded\\\nvalue bin/migrate", "foldedvalue"),
            ("PW='never ends", "never ends"),
            ("PW=größe bin/migrate", "größe"),
            ("A=1 B=\"$(cat 'a b')\" PW=s3cret bin/migrate", "s3cret"),
            ("A=$(cat a) PW=s3cret bin/migrate", "s3cret"),
            ("cd db && PW=s3cret bin/migrate", "s3cret"),
            ("export PW=s3cret; bin/migrate", "s3cret"),
            ("env PW='two words' bin/migrate", "two words"),
            ("sh -c 'PW=\"two words\" bin/migrate'", "two words"),
        ] {
            let text = format!("psql: {value} is wrong");
            assert_eq!(hide(command, &text), "psql: *** is wrong", "{command}");
        }
    }

    #[test]
    fn a_shell_that_repeats_the_command_shows_no_value_either() {
        let command = r"PW=two\ words bin/migrate (";
        let text = format!("sh: line 1: `{command}'");
        assert_eq!(hide(command, &text), "sh: line 1: `PW=*** bin/migrate ('");
    }

    #[test]
    fn a_short_value_is_hidden_where_it_is_a_word() {
        let command = "PIN=7 PW=ab bin/migrate";
        let text = "cabs: 7 of 17: 'ab' is wrong, 7";
        let shown = "cabs: *** of 17: '***' is wrong, ***";
        assert_eq!(hide(command, text), shown);
    }

    #[test]
    fn of_two_values_of_which_one_begins_the_other_nothing_is_left() {
        let command = "A=hush B=hush-hush STAR='*' bin/migrate";
        let text = "hush-hush, hush and *";
        assert_eq!(hide(command, text), "***, *** and ***");
    }

    #[test]
    fn what_sets_nothing_hides_nothing() {
        let text = "exited at latest: a=b, 'x'";
        for command in [
            "",
            "bin/migrate --to=latest",
            "A= bin/migrate",
            "=x",
            "'",
            "A=\\",
        ] {
            assert_eq!(hide(command, text), text, "{command}");
        }
    }
}
