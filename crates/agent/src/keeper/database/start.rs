//! Starts Patroni, once no process of an earlier life is left.

use super::logs::Logs;
use super::running::Running;
use crate::engine::KeeperDatabase;
use gaiola_os::pidns::{Command, Namespace};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};
use tokio::time::sleep;

/// Timeout for the processes of a killed keeper to end; the kernel is ending them already.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(10);

/// Patroni could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("cannot {doing} {path}: {source}")]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot make a namespace for Patroni: {0}")]
    Namespace(io::Error),
    #[error("processes of an earlier run are still in {path}: {pids:?}")]
    Leftover { path: PathBuf, pids: Vec<u32> },
}

pub(super) async fn start(order: &KeeperDatabase) -> Result<Running, StartError> {
    let directory = order.directory();
    gone(directory).await?;
    gone(&order.data).await?;
    forget_postmaster(order, directory)?;
    if let Err(error) = extend_patroni(&order.extension()) {
        tracing::warn!(%error, "Patroni will not follow the store's members when it is told to reload");
    }
    let (logs, output) =
        Logs::open(&order.log, order.owner).map_err(|source| StartError::File {
            doing: "write logs in",
            path: order.log.clone(),
            source,
        })?;
    let command = Command {
        program: text(order.patroni.as_os_str().as_bytes()),
        args: vec![text(b"patroni"), text(order.config.as_os_str().as_bytes())],
        env: environment(order),
        dir: text(directory.as_os_str().as_bytes()),
        output,
        owner: order.owner.map(|owner| (owner.uid, owner.gid)),
    };
    let namespace = Namespace::spawn(&command).map_err(StartError::Namespace)?;
    Running::new(namespace, logs, order).map_err(StartError::Namespace)
}

/// Inherits nothing, so that none of the keeper's environment reaches Patroni. Patroni's temporary files, one of which
/// holds a password for a moment, stay in the private directory.
fn environment(order: &KeeperDatabase) -> Vec<CString> {
    let directory = order.directory().display();
    let extension = order.extension();
    [
        "PATH=/usr/local/bin:/usr/bin:/bin".to_string(),
        "LANG=C.UTF-8".into(),
        "PYTHONDONTWRITEBYTECODE=1".into(),
        "PYTHONUNBUFFERED=1".into(),
        format!("PYTHONPATH={}", extension.display()),
        format!("HOME={directory}"),
        format!("TMPDIR={directory}"),
    ]
    .map(|variable| text(variable.as_bytes()))
    .into()
}

/// Writes the module that has Patroni follow the store's members when it is told to reload.
fn extend_patroni(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let (path, new) = (folder.join("sitecustomize.py"), folder.join(".new"));
    fs::write(&new, include_str!("python/sitecustomize.py"))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    fs::rename(new, path)
}

/// Waits until no process has this working directory: PostgreSQL's have their data directory, Patroni that of its
/// configuration. This also catches two keepers of one data directory, and a PostgreSQL that was started by hand.
async fn gone(directory: &Path) -> Result<(), StartError> {
    let deadline = Instant::now() + LEFTOVER_LIMIT;
    loop {
        let pids = inside(directory);
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(StartError::Leftover {
                path: directory.into(),
                pids,
            });
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn inside(directory: &Path) -> Vec<u32> {
    let identity = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    let Some(wanted) = identity(directory) else {
        return Vec::new();
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| identity(Path::new(&format!("/proc/{pid}/cwd"))) == Some(wanted))
        .collect()
}

/// Removes the files by which a new PostgreSQL detects a running one. The old one is gone, and its pid may well be reused in
/// the new namespace, where pids are small; PostgreSQL would then refuse to start.
fn forget_postmaster(order: &KeeperDatabase, directory: &Path) -> Result<(), StartError> {
    let socket = format!(".s.PGSQL.{}.lock", order.port);
    for path in [order.data.join("postmaster.pid"), directory.join(socket)] {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StartError::File {
                    doing: "remove",
                    path,
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Paths and variables never contain a NUL byte.
fn text(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no zero byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the Patroni that this machine has.
    #[test]
    fn patroni_takes_new_addresses_of_the_store_when_it_is_told_to_reload() {
        const RELOAD: &str = "\
import patroni.dcs.etcd as etcd
import patroni.dcs.etcd3
class Client(etcd.AbstractEtcdClientWithFailover):
    def __init__(self):
        self._config = {'protocol': 'https', 'hosts': ['https://10.0.0.1:2379']}
        self._machines_cache_updated = 5
    def __del__(self): pass
    _prepare_get_members = _get_members = _prepare_request = None
Client.__abstractmethods__ = frozenset()
client = Client()
client.reload_config({'hosts': ['10.0.0.1:2379']})
assert client._machines_cache_updated == 5
client.reload_config({'hosts': ['10.0.0.2:2381', '10.0.0.1:2379']})
assert client._config['hosts'] == ['https://10.0.0.2:2381', 'https://10.0.0.1:2379']
assert client._machines_cache_updated == 0
";
        let tools = match crate::engine::find_tools() {
            Ok(tools) => tools,
            Err(error) => {
                let test = "Patroni takes new addresses of the store";
                return gaiola_os::skip::skipped(test, &error.to_string());
            }
        };
        let program = fs::read_to_string(&tools.patroni).unwrap();
        let python = program
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("#!"));
        let dir = tempfile::tempdir().unwrap();
        extend_patroni(dir.path()).unwrap();
        let ran = std::process::Command::new(python.unwrap().trim())
            .args(["-c", RELOAD])
            .env("PYTHONPATH", dir.path())
            .output()
            .unwrap();
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    }

    #[tokio::test]
    async fn a_process_in_the_directory_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("0.2")
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        assert_eq!(inside(dir.path()), [child.id()]);
        // A zombie has no working directory any more, so the test need not wait for it.
        gone(dir.path()).await.unwrap();
        assert!(child.wait().unwrap().success());
    }
}
