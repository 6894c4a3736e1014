//! The command lines of `ssh`.

use gaiola_model::inventory::Host;
use gaiola_wire::hex;
use sha2::{Digest as _, Sha256};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Options of every connection. The operator's own configuration comes after them.
///
/// A configuration's forwardings, remote command and terminal are for the operator's own sessions. Warnings about new host keys and
/// a machine's banner are no answers: errors alone are logged.
const OPTIONS: [&str; 12] = [
    "ControlMaster=auto",
    "ControlPersist=60",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "LogLevel=ERROR",
    "EscapeChar=none",
];

/// Whether `ssh` may ask the operator for a passphrase, a password or a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prompts {
    Never,
    Allowed,
}

/// What the operator's configuration says of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) host_name: String,
    pub(super) port: u16,
    /// Whether it says by itself what to do with host keys that are not known.
    decides_on_host_keys: bool,
}

impl Resolved {
    /// Parses the output of `ssh -G`.
    pub(super) fn parse(printed: &str, host: &Host) -> Self {
        let value = |key: &str| {
            let mut lines = printed.lines().filter_map(|line| line.split_once(' '));
            lines.find_map(|(found, value)| (found == key).then_some(value.trim()))
        };
        // The default is `ask`, and nobody can be asked.
        let checking = value("stricthostkeychecking").unwrap_or("ask");
        Self {
            host_name: value("hostname").unwrap_or(&host.0).to_string(),
            port: value("port")
                .and_then(|port| port.parse().ok())
                .unwrap_or(22),
            decides_on_host_keys: checking != "ask",
        }
    }
}

/// The program `ssh`, and what all its command lines share.
#[derive(Debug)]
pub(super) struct Program {
    /// `ssh`, and arguments before all others.
    pub(super) command: Vec<OsString>,
    /// Where the masters' sockets are.
    pub(super) folder: PathBuf,
    /// A configuration instead of the operator's.
    pub(super) config: Option<PathBuf>,
}

impl Program {
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = self.command.clone();
        if let Some(config) = &self.config {
            arguments.extend([OsString::from("-F"), config.into()]);
        }
        arguments
    }

    /// Prints what the configuration says of a machine.
    pub(super) fn resolve(&self, host: &Host) -> Vec<OsString> {
        let mut arguments = self.arguments();
        arguments.extend(["-G", "--", &host.0].map(OsString::from));
        arguments
    }

    /// Ends a machine's master.
    pub(super) fn end_master(&self, host: &Host) -> Vec<OsString> {
        let mut arguments = self.arguments();
        arguments.extend(["-O", "exit"].map(OsString::from));
        arguments.push(self.control_path());
        arguments.extend(["--", &host.0].map(OsString::from));
        arguments
    }

    /// A command line for the shell of a machine's user, over the master, which is opened where there is none.
    pub(super) fn connect(
        &self,
        host: &Host,
        resolved: &Resolved,
        prompts: Prompts,
        remote: &str,
    ) -> Vec<OsString> {
        let mut arguments = self.arguments();
        arguments.extend([OsString::from("-T"), self.control_path()]);
        let batch = match prompts {
            Prompts::Never => "BatchMode=yes",
            Prompts::Allowed => "BatchMode=no",
        };
        let new_keys = "StrictHostKeyChecking=accept-new";
        let new_keys = (!resolved.decides_on_host_keys).then_some(new_keys);
        for option in OPTIONS.into_iter().chain([batch]).chain(new_keys) {
            arguments.push(format!("-o{option}").into());
        }
        arguments.extend(["--", &host.0, remote].map(OsString::from));
        arguments
    }

    /// `%C` stands for the addresses, the port and the user that a name leads to; two configurations of one user are told apart too.
    fn control_path(&self) -> OsString {
        let config = self.config.as_deref().unwrap_or(Path::new(""));
        let which = hex::encode(&Sha256::digest(config.as_os_str().as_bytes())[..4]);
        let mut option = OsString::from("-oControlPath=");
        option.push(self.folder.join(format!("{which}-%C")));
        option
    }
}

/// A terminal on the machine instead of none.
pub(super) fn ask_for_terminal(arguments: &mut [OsString]) {
    for argument in arguments.iter_mut() {
        if argument.as_os_str() == OsStr::new("-T") {
            *argument = "-t".into();
            return;
        }
    }
}

/// One word of a shell's command line.
pub fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host(name.into())
    }

    fn program(config: Option<&str>) -> Program {
        Program {
            command: vec!["ssh".into()],
            folder: "/run/user/1000000/gaiola-long".into(),
            config: config.map(PathBuf::from),
        }
    }

    fn connecting(printed: &str, prompts: Prompts) -> Vec<String> {
        let resolved = Resolved::parse(printed, &host("web-a"));
        let arguments = program(None).connect(&host("web-a"), &resolved, prompts, "true");
        let words = arguments.iter().map(|word| word.to_str().unwrap().into());
        words.collect()
    }

    #[test]
    fn nobody_is_asked_unless_it_is_allowed() {
        let never = connecting("", Prompts::Never);
        assert!(never.contains(&"-oBatchMode=yes".into()), "{never:?}");
        let allowed = connecting("", Prompts::Allowed);
        assert!(allowed.contains(&"-oBatchMode=no".into()), "{allowed:?}");
    }

    #[test]
    fn new_host_keys_are_accepted_unless_the_operator_decided_otherwise() {
        let accepts = |printed: &str| {
            let arguments = connecting(printed, Prompts::Never);
            arguments.contains(&"-oStrictHostKeyChecking=accept-new".into())
        };
        assert!(accepts("stricthostkeychecking ask\n") && accepts(""));
        assert!(!accepts("port 22\nstricthostkeychecking true\n"));
    }

    #[test]
    fn the_configuration_says_where_a_machine_is() {
        let printed = "user deploy\nhostname 10.0.0.22\nport 2222\n";
        let resolved = Resolved::parse(printed, &host("web-b"));
        assert_eq!(
            (resolved.host_name.as_str(), resolved.port),
            ("10.0.0.22", 2222)
        );
        let unknown = Resolved::parse("", &host("web-b"));
        assert_eq!((unknown.host_name.as_str(), unknown.port), ("web-b", 22));
    }

    #[test]
    fn the_path_of_a_socket_fits_and_differs_with_the_configuration() {
        let path = program(None).control_path();
        // `ssh` writes 40 digits for %C, and a dot and 16 letters behind the name while it makes the socket.
        let longest = path.len() - "-oControlPath=".len() - "%C".len() + 40 + 17;
        assert!(longest < 104, "{longest}");
        assert_ne!(path, program(Some("a")).control_path());
    }

    #[test]
    fn a_machine_that_looks_like_an_option_is_none() {
        let hostile = host("-oProxyCommand=x");
        for arguments in [
            program(None).resolve(&hostile),
            program(None).end_master(&hostile),
        ] {
            assert_eq!(arguments[arguments.len() - 2], "--", "{arguments:?}");
        }
        let words = connecting("", Prompts::Never);
        assert_eq!(words[words.len() - 3..], ["--", "web-a", "true"]);
    }

    #[test]
    fn words_reach_the_shell_as_they_are() {
        assert_eq!(
            quote("/opt/gaiola/current/gaiola"),
            "/opt/gaiola/current/gaiola"
        );
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quote(""), "''");
    }
}
