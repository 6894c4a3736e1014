//! What a `Procfile` says of the site's processes.

/// The processes of a `Procfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Procfile {
    /// The command of `web`, which serves requests.
    pub(super) web: Option<String>,
    /// The command of `release`.
    pub(super) release: Option<String>,
    /// The names and commands of all others.
    pub(super) others: Vec<(String, String)>,
}

impl Procfile {
    /// Reads lines of `NAME: COMMAND`. Lines of another form are skipped, as other programs do; of two with one name the first counts.
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for (name, command) in text.lines().filter_map(process) {
            match name {
                "web" => found.web = found.web.or(Some(command.to_owned())),
                "release" => found.release = found.release.or(Some(command.to_owned())),
                other if found.others.iter().all(|(known, _)| known != other) => {
                    found.others.push((other.to_owned(), command.to_owned()));
                }
                _ => {}
            }
        }
        found
    }
}

fn process(line: &str) -> Option<(&str, &str)> {
    let (name, command) = line.split_once(':')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let (name, command) = (name.trim(), command.trim());
    let is_process = !name.is_empty() && name.chars().all(is_plain) && !command.is_empty();
    is_process.then_some((name, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_web_and_release_are_found() {
        let text = "# processes\nrelease: bin/rails db:migrate\r\nweb:  bin/serve --url http://$HOST:$PORT  \n\
                    worker: bin/work\nweb: other\nnot a process\n: x\nempty:\n#clock: x\nworker: twice\n";
        let found = Procfile::parse(text);
        assert_eq!(
            found.web.as_deref(),
            Some("bin/serve --url http://$HOST:$PORT")
        );
        assert_eq!(found.release.as_deref(), Some("bin/rails db:migrate"));
        let worker = ("worker".to_string(), "bin/work".to_string());
        assert_eq!(found.others, [worker]);
        assert_eq!(Procfile::parse(""), Procfile::default());
    }
}
