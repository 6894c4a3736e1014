//! Commands on machines, by the system's `ssh`: the operator's configuration, agent, jump hosts, known hosts and hardware keys
//! count as they are.
//!
//! One connection per machine, the *master*, is opened once and carries every command; it stays for a minute after the last one.
//! The variable `GAIOLA_SSH_CONFIG` names a configuration file for `ssh -F`.

mod arguments;
mod error;
mod output;
mod upload;

pub use arguments::quote;
pub use error::{Problem, SshError};
pub use upload::{Contents, Upload};

use arguments::{Program, Prompts, Resolved};
use gaiola_model::inventory::Host;
use output::{Ended, collect};
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{Mutex, OnceCell, Semaphore};

/// Masters that open at the same time: sshd rejects more (`MaxStartups`), also at a jump host that all of them use.
const OPENING: usize = 8;
/// Until a machine has let the operator in, without questions.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);
/// The same with a passphrase, a password or a touch of a key.
const PROMPT_LIMIT: Duration = Duration::from_secs(180);
/// Names an `ssh` configuration.
const CONFIG: &str = "GAIOLA_SSH_CONFIG";
/// Prints the user's id, and fails where that user cannot become root.
const LOG_IN: &str = "id -u; [ \"$(id -u)\" = 0 ] || sudo -n true";

/// What the connections to all machines share.
#[derive(Debug)]
pub struct Multiplexer {
    program: Program,
    /// Whether somebody can be asked.
    terminal: bool,
    opening: Semaphore,
    prompting: Mutex<()>,
}

impl Multiplexer {
    /// A multiplexer with a private directory for the masters' sockets.
    ///
    /// # Errors
    /// Where that directory cannot be made, or is another user's.
    pub fn new() -> io::Result<Arc<Self>> {
        let program = Program {
            command: vec!["ssh".into()],
            folder: private_folder()?,
            config: std::env::var_os(CONFIG).map(PathBuf::from),
        };
        Ok(Self::of(program, io::stdin().is_terminal()))
    }

    fn of(program: Program, terminal: bool) -> Arc<Self> {
        Arc::new(Self {
            program,
            terminal,
            opening: Semaphore::new(OPENING),
            prompting: Mutex::new(()),
        })
    }
}

/// A short path: with the name of a socket that `ssh` makes in it, it must stay below 104 bytes.
fn private_folder() -> io::Result<PathBuf> {
    const LONGEST: usize = 30;
    let own = rustix::process::geteuid().as_raw();
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(|run| Path::new(&run).join("gaiola"));
    let is_short = |path: &PathBuf| path.as_os_str().len() <= LONGEST && path.is_absolute();
    let folder = run
        .filter(is_short)
        .filter(|folder| make_private(folder, own).is_ok());
    folder.map_or_else(
        || {
            let folder = PathBuf::from(format!("/tmp/gaiola-{own}"));
            make_private(&folder, own).map(|()| folder)
        },
        Ok,
    )
}

fn make_private(folder: &Path, own: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == own && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let why = format!(
        "{} is not a private directory of this user",
        folder.display()
    );
    Err(io::Error::other(why))
}

/// How root's commands are run on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    /// The user is root.
    Root,
    /// By `sudo`, without a password.
    Sudo,
}

/// One machine. Clones share its connection.
#[derive(Clone, Debug)]
pub struct Ssh(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    host: Host,
    multiplexer: Arc<Multiplexer>,
    resolved: OnceCell<Resolved>,
    login: OnceCell<Login>,
}

/// A script for a machine's shell.
#[derive(Clone, Debug)]
pub struct Script {
    step: String,
    text: String,
    input: Contents,
    limit: Duration,
}

impl Script {
    /// A script that may take a minute. `step` completes "cannot".
    pub fn new(step: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            step: step.into(),
            text: text.into(),
            input: Contents::default(),
            limit: Duration::from_secs(60),
        }
    }

    /// The same with this on its standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Contents>) -> Self {
        self.input = input.into();
        self
    }

    /// The same with another limit.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl Ssh {
    /// A machine by the name that `ssh` takes. Nothing is opened.
    pub fn new(multiplexer: &Arc<Multiplexer>, host: Host) -> Self {
        Self(Arc::new(Shared {
            host,
            multiplexer: Arc::clone(multiplexer),
            resolved: OnceCell::new(),
            login: OnceCell::new(),
        }))
    }

    /// The machine's name.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// The name or address that the operator's configuration has for the machine, and the port of its sshd.
    ///
    /// # Errors
    /// Where `ssh` rejects its configuration.
    pub async fn resolve(&self) -> Result<(String, u16), SshError> {
        let resolved = self.resolved().await?;
        Ok((resolved.host_name.clone(), resolved.port))
    }

    async fn resolved(&self) -> Result<&Resolved, SshError> {
        let ask = || async {
            let step = "read the configuration of ssh";
            let arguments = self.0.multiplexer.program.resolve(&self.0.host);
            let ended = collect(command(&arguments), &[], LOGIN_LIMIT).await;
            let ended = ended.and_then(Ended::succeeded);
            let ended = ended.map_err(|problem| self.error(step, problem))?;
            Ok(Resolved::parse(&ended.text(), &self.0.host))
        };
        self.0.resolved.get_or_try_init(ask).await
    }

    /// Opens the master, and finds how root's commands are run.
    ///
    /// # Errors
    /// Where the machine cannot be entered, or the user cannot become root.
    pub async fn open(&self) -> Result<(), SshError> {
        self.login().await.map(drop)
    }

    async fn login(&self) -> Result<Login, SshError> {
        let log_in = || self.log_in();
        self.0.login.get_or_try_init(log_in).await.copied()
    }

    async fn log_in(&self) -> Result<Login, SshError> {
        let multiplexer = &self.0.multiplexer;
        let permit = multiplexer.opening.acquire().await;
        let mut login = self.try_login(Prompts::Never).await;
        if matches!(&login, Err(error) if error.problem.is_timeout()) {
            // A master may have outlived its machine.
            self.end_master().await;
            login = self.try_login(Prompts::Never).await;
        }
        drop(permit);
        match login {
            Err(error) if multiplexer.terminal && error.problem.is_refused_key() => {
                let _alone = multiplexer.prompting.lock().await;
                self.try_login(Prompts::Allowed).await
            }
            login => login,
        }
    }

    async fn try_login(&self, prompts: Prompts) -> Result<Login, SshError> {
        let limit = match prompts {
            Prompts::Never => LOGIN_LIMIT,
            Prompts::Allowed => PROMPT_LIMIT,
        };
        let arguments = self.arguments(prompts, &in_shell(LOG_IN)).await?;
        let ended = collect(command(&arguments), &[], limit).await;
        let login = ended.and_then(|ended| match (ended.text().trim(), ended.code) {
            ("0", _) => Ok(Login::Root),
            ("", _) => ended.succeeded().and(Err(Problem::no_shell())),
            (_, Some(0)) => Ok(Login::Sudo),
            _ => Err(Problem::NotRoot(ended.last_lines())),
        });
        login.map_err(|problem| self.error("log in", problem))
    }

    /// Ends the connection, which may have outlived its machine: the next order opens one.
    pub async fn disconnect(&self) {
        self.end_master().await;
    }

    async fn end_master(&self) {
        let order = self.0.multiplexer.program.end_master(&self.0.host);
        let _ = collect(command(&order), &[], LOGIN_LIMIT).await;
    }

    /// Runs a script as root with `sh`, and returns what it printed.
    ///
    /// # Errors
    /// Where it does not end with 0 within its limit.
    pub async fn run(&self, script: &Script) -> Result<String, SshError> {
        let arguments = self.arguments_as_root(&in_shell(&script.text)).await?;
        let ended = collect(command(&arguments), script.input.bytes(), script.limit).await;
        let ended = ended.and_then(Ended::succeeded);
        let ended = ended.map_err(|problem| self.error(&script.step, problem))?;
        Ok(ended.text())
    }

    /// A process on this side whose standard input and output are those of `remote`, a command line of the machine's shell that is
    /// run as root. The master is open then.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn arguments_as_root(&self, remote: &str) -> Result<Vec<OsString>, SshError> {
        let remote = self.as_root(remote).await?;
        self.arguments(Prompts::Never, &remote).await
    }

    /// The same with the operator's terminal, where there is one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn with_terminal(&self, remote: &str) -> Result<Vec<OsString>, SshError> {
        let remote = self.as_root(remote).await?;
        let mut arguments = self.arguments(Prompts::Never, &remote).await?;
        if self.0.multiplexer.terminal {
            arguments::ask_for_terminal(&mut arguments);
        }
        Ok(arguments)
    }

    async fn as_root(&self, remote: &str) -> Result<String, SshError> {
        Ok(match self.login().await? {
            Login::Root => remote.to_string(),
            Login::Sudo => format!("sudo -n {remote}"),
        })
    }

    async fn arguments(&self, prompts: Prompts, remote: &str) -> Result<Vec<OsString>, SshError> {
        let resolved = self.resolved().await?;
        let program = &self.0.multiplexer.program;
        Ok(program.connect(&self.0.host, resolved, prompts, remote))
    }

    fn error(&self, step: &str, problem: Problem) -> SshError {
        SshError {
            host: self.0.host.clone(),
            step: step.into(),
            problem,
        }
    }
}

/// A command line that runs a script whatever the user's own shell is.
fn in_shell(script: &str) -> String {
    format!("sh -c {}", quote(script))
}

/// The process of these arguments, the first of which is its program.
fn command(arguments: &[OsString]) -> Command {
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_sockets_is_of_this_user_alone() {
        let parent = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        let folder = parent.path().join("gaiola");
        make_private(&folder, own).unwrap();
        make_private(&folder, own).unwrap();
        assert!(make_private(&folder, own + 1).is_err());
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&folder, open).unwrap();
        assert!(make_private(&folder, own).is_err());
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        assert!(make_private(&link, own).is_err());
    }

    /// A machine that is this one: `ssh` runs the command here, as a user who is not root.
    fn here(folder: &Path, ssh: &str) -> Ssh {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            let runnable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, runnable).unwrap();
            path
        };
        write("id", "#!/bin/sh\necho 1000\n");
        write("sudo", "#!/bin/sh\nshift\nexec \"$@\"\n");
        let ssh = write("ssh", ssh);
        let program = Program {
            command: vec!["sh".into(), ssh.into()],
            folder: folder.into(),
            config: None,
        };
        Ssh::new(&Multiplexer::of(program, false), Host("m1".into()))
    }

    const RUNS: &str = "PATH=${0%/*}:$PATH; export PATH; for last; do :; done
        case $1 in -G) echo 'hostname 10.0.0.9'; echo 'port 2222' ;; *) exec sh -c \"$last\" ;; esac\n";

    fn wait<T>(doing: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(doing)
    }

    #[test]
    fn scripts_run_by_sudo_and_files_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let ssh = here(folder.path(), RUNS);
        wait(async {
            assert_eq!(ssh.resolve().await.unwrap(), ("10.0.0.9".into(), 2222));
            let script = Script::new("greet", "read -r name; echo \"it's $name\"");
            let printed = ssh.run(&script.input("m1\n".to_string())).await;
            assert_eq!(printed.unwrap(), "it's m1\n");
            let path = folder.path().join("sent/file");
            let file = Upload::new(vec![7; 300_000], path.to_str().unwrap(), 0o600);
            assert!(ssh.upload(&file).await.unwrap());
            assert!(!ssh.upload(&file).await.unwrap(), "it is there");
            assert_eq!(std::fs::read(&path).unwrap(), [7; 300_000]);
            let failed = ssh.run(&Script::new("fail", "echo why >&2; exit 4")).await;
            let failed = failed.unwrap_err().to_string();
            assert!(failed.starts_with("m1: cannot fail: why; "), "{failed}");
        });
    }

    #[test]
    fn a_machine_is_left_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let silent = "echo 'ssh: connect to host m1 port 22: No route to host' >&2; exit 255";
        let error = wait(here(folder.path(), silent).resolve()).unwrap_err();
        assert!(matches!(error.problem, Problem::Unreachable(_)), "{error}");
        let asks = "PATH=${0%/*}:$PATH; case $1 in -G) ;; *) echo 1000; echo 'sudo: a password is required' >&2; exit 1 ;; esac";
        let error = wait(here(folder.path(), asks).open()).unwrap_err();
        let why = "sudo: a password is required".to_string();
        assert_eq!(error.problem, Problem::NotRoot(why));
    }
}
