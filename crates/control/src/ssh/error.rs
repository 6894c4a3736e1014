//! Why a machine could not be used, with the remedy.

use gaiola_model::inventory::Host;
use std::fmt;
use std::time::Duration;

/// What was tried on which machine, why it failed, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshError {
    /// The machine.
    pub host: Host,
    /// What was tried; completes "cannot".
    pub step: String,
    /// Why it failed.
    pub problem: Problem,
}

/// Why a command on a machine failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No connection.
    Unreachable(String),
    /// The machine accepts none of the operator's keys.
    RefusedKey(String),
    /// Its host key is another one than the one that is known: the command that forgets that one, as `ssh` prints it.
    HostKeyChanged(String),
    /// Its host key is not known, and the operator's configuration accepts no new ones.
    HostKeyUnknown,
    /// The user is not root, and `sudo` does not make him so without a password.
    NotRoot(String),
    /// The command ended with another code than 0; `None`: a signal ended it.
    Failed {
        /// The exit code.
        code: Option<i32>,
        /// The last lines that it wrote.
        said: String,
    },
    /// It took too long.
    Timeout(Duration),
    /// `ssh` could not be run.
    NoSsh(String),
}

impl std::error::Error for SshError {}

impl fmt::Display for SshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            step,
            problem,
        } = self;
        write!(f, "{host}: cannot {step}: {problem}; {}", self.remedy())
    }
}

impl SshError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        let host = &self.host;
        match &self.problem {
            Problem::Unreachable(_) => {
                format!("see that the machine is on, and that this works: ssh {host}")
            }
            Problem::RefusedKey(_) => format!(
                "add the key to the agent (ssh-add) or name it in ~/.ssh/config, and see that this works: ssh {host}"
            ),
            Problem::HostKeyChanged(forget) => format!(
                "if the machine was installed anew: {forget}; otherwise another machine may answer in its place"
            ),
            Problem::HostKeyUnknown => {
                format!("log in once and compare the key: ssh {host}")
            }
            Problem::NotRoot(_) => format!(
                "let the user become root without a password (/etc/sudoers.d/gaiola: USER ALL=(ALL) NOPASSWD: ALL), \
                 or name root@{}",
                host.0.rsplit('@').next().unwrap_or_default()
            ),
            Problem::Failed { said, .. } if is_out_of_space(said) => {
                format!("make room on {host}, then run the same command again")
            }
            Problem::Failed { .. } => "the same command goes on where it stopped".into(),
            Problem::Timeout(_) => {
                format!("see what the machine does (ssh {host}), then run the same command again")
            }
            Problem::NoSsh(_) => "install the package openssh-client".into(),
        }
    }
}

/// Whether a program complained of a full disk, or `apt-get` of one that would be.
fn is_out_of_space(said: &str) -> bool {
    ["No space left on device", "have enough free space"]
        .iter()
        .any(|words| said.contains(words))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(said) => write!(f, "it is not reached by ssh ({said})"),
            Self::RefusedKey(said) => write!(f, "it accepts none of the keys ({said})"),
            Self::HostKeyChanged(_) => f.write_str("its host key is not the one that is known"),
            Self::HostKeyUnknown => f.write_str(
                "its host key is not known, and the configuration of ssh accepts no new ones",
            ),
            Self::NotRoot(said) => write!(f, "the user cannot become root ({said})"),
            Self::Failed {
                code: Some(code),
                said,
            } if said.is_empty() => {
                write!(f, "the command ended with {code}")
            }
            Self::Failed { said, .. } if said.is_empty() => {
                f.write_str("a signal ended the command")
            }
            Self::Failed { said, .. } => f.write_str(said),
            Self::Timeout(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Self::NoSsh(why) => write!(f, "cannot run ssh ({why})"),
        }
    }
}

/// What `ssh` itself ends with.
const OF_SSH: i32 = 255;

impl Problem {
    /// What a connection of `ssh` ended by, where it was not the command on the machine.
    pub fn of(code: Option<i32>, errors: &str) -> Option<Self> {
        let says = |words: &str| errors.contains(words);
        let line = |words: &str| {
            let found = errors.lines().find(|line| line.contains(words));
            found.unwrap_or_default().trim().to_string()
        };
        if code != Some(OF_SSH) {
            return None;
        }
        if says("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            let forget = Some(line("ssh-keygen -f")).filter(|line| !line.is_empty());
            let forget = forget.unwrap_or_else(|| "ssh-keygen -R NAME".into());
            Some(Self::HostKeyChanged(forget))
        } else if says("Host key verification failed") {
            Some(Self::HostKeyUnknown)
        } else if says("Permission denied (") {
            Some(Self::RefusedKey(line("Permission denied (")))
        } else if says("Too many authentication failures") {
            Some(Self::RefusedKey(line("Too many authentication failures")))
        } else {
            let last = errors.lines().rev().find(|line| !line.trim().is_empty());
            Some(Self::Unreachable(
                last.unwrap_or("the connection ended").trim().into(),
            ))
        }
    }

    /// The machine's shell answered with something else than was asked for.
    pub(super) fn no_shell() -> Self {
        Self::Failed {
            code: Some(0),
            said: "the user's shell runs no commands".into(),
        }
    }

    /// Whether an answer did not come in time.
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// Whether the machine was reached, and another key, or a passphrase, may help.
    pub const fn is_refused_key(&self) -> bool {
        matches!(self, Self::RefusedKey(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As OpenSSH 9.2 writes it.
    const CHANGED: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Offending ED25519 key in /home/ana/.ssh/known_hosts:1
  remove with:
  ssh-keygen -f \"/home/ana/.ssh/known_hosts\" -R \"10.0.0.1\"
Host key for 10.0.0.1 has changed and you have requested strict checking.
Host key verification failed.
";

    fn of_ssh(errors: &str) -> Problem {
        Problem::of(Some(255), errors).unwrap()
    }

    #[test]
    fn messages_of_openssh_are_understood() {
        let forget = "ssh-keygen -f \"/home/ana/.ssh/known_hosts\" -R \"10.0.0.1\"";
        assert_eq!(of_ssh(CHANGED), Problem::HostKeyChanged(forget.into()));
        let unknown = "No ED25519 host key is known for m1 and you have requested strict checking.\nHost key verification failed.\n";
        assert_eq!(of_ssh(unknown), Problem::HostKeyUnknown);
        let refused = "deploy@10.0.0.1: Permission denied (publickey,password).";
        assert_eq!(of_ssh(refused), Problem::RefusedKey(refused.into()));
        let many = "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\nDisconnected from 10.0.0.1 port 22\n";
        assert!(of_ssh(many).is_refused_key());
        for line in [
            "ssh: Could not resolve hostname web-z: Name or service not known",
            "ssh: connect to host 10.0.0.9 port 22: Connection refused",
            "ssh: connect to host 10.0.0.9 port 22: Connection timed out",
            "kex_exchange_identification: Connection closed by remote host",
            "Timeout, server 10.0.0.9 not responding.",
        ] {
            assert_eq!(of_ssh(line), Problem::Unreachable(line.into()));
        }
        assert_eq!(
            of_ssh(""),
            Problem::Unreachable("the connection ended".into())
        );
    }

    #[test]
    fn what_a_command_ended_with_is_not_said_of_the_connection() {
        let refused = "cat: /etc/x: Permission denied (os error 13)";
        assert_eq!(Problem::of(Some(1), refused), None);
        assert_eq!(Problem::of(None, ""), None);
    }

    #[test]
    fn an_error_says_machine_step_reason_and_remedy() {
        let error = SshError {
            host: Host("deploy@web-b".into()),
            step: "log in".into(),
            problem: Problem::NotRoot("sudo: a password is required".into()),
        };
        let words = error.to_string();
        assert!(words.starts_with("deploy@web-b: cannot log in: the user cannot become root (sudo: a password is required); "));
        assert!(words.ends_with("or name root@web-b"), "{words}");
    }

    #[test]
    fn a_full_disk_wants_room() {
        let failed = |said: &str| SshError {
            host: Host("web-b".into()),
            step: "write /opt/gaiola/1/gaiola".into(),
            problem: Problem::Failed {
                code: Some(1),
                said: said.into(),
            },
        };
        let full = failed("cat: write error: No space left on device").to_string();
        assert!(full.ends_with("; make room on web-b, then run the same command again"));
        let other = failed("cat: write error: Input/output error").to_string();
        assert!(other.ends_with("; the same command goes on where it stopped"));
    }
}
