//! Lays out the files of a database server: directories, configuration, keys and passwords, accessible to their owner only.

use super::{KeeperDatabase, Owner, Settings, TargetState};
use gaiola_net::pki::{CA, CERT, KEY};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket.
const MAX_SOCKET_PATH: usize = 107;

/// What [`install`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The order now in force.
    pub order: KeeperDatabase,
    /// Whether anything differs from before.
    pub changed: bool,
}

/// A database server could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or directory.
    #[error("cannot {doing} {path}")]
    File {
        /// The attempted operation.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// PostgreSQL's user cannot reach its data.
    #[error(
        "user {uid} may not enter {path}, below which PostgreSQL's data is; allow it: chmod a+x {path}"
    )]
    Closed {
        /// The directory.
        path: PathBuf,
        /// The user.
        uid: u32,
    },
    /// PostgreSQL refuses to run as root.
    #[error("PostgreSQL does not run as root; name another user")]
    Root,
    /// The run directory's path is too long for a socket.
    #[error(
        "{path} is too long for a Unix socket: it has {length} bytes of at most {MAX_SOCKET_PATH}"
    )]
    SocketPath {
        /// The socket.
        path: PathBuf,
        /// The length of its path.
        length: usize,
    },
}

/// Writes the server's files from `settings` and orders its keeper to run or stop; the order's generation rises when
/// anything differs from before. Idempotent.
///
/// The keeper reads the order from `database.json` in the run directory.
pub fn install(settings: &Settings, wanted: TargetState) -> Result<Installed, InstallError> {
    check(settings)?;
    let owner = settings.owner;
    let postgres = settings.state.join("postgres");
    if let Some(owner) = owner {
        reachable(&settings.state, owner)?;
        reachable(&settings.run, owner)?;
    }
    directory(&postgres, 0o700, owner)?;
    directory(&settings.log(), 0o755, None)?;
    let private = settings.private();
    directory(&private, 0o700, owner)?;

    let mut changed = false;
    for name in [CA, CERT, KEY] {
        let text = read(&settings.pki.join(name))?;
        changed |= put(&private.join(name), &text, owner)?;
    }
    let files = [
        ("patroni.yml", settings.render()),
        ("site.sql", settings.site_sql()),
        ("pgpass", settings.pgpass()),
    ];
    for (name, text) in files {
        changed |= put(&private.join(name), text.as_bytes(), owner)?;
    }
    order(settings, wanted, changed)
}

/// Writes the order if it or a file it refers to has changed.
fn order(
    settings: &Settings,
    wanted: TargetState,
    changed: bool,
) -> Result<Installed, InstallError> {
    let path = settings.run.join(KeeperDatabase::FILE);
    let before = KeeperDatabase::read(&settings.run).ok().flatten();
    let generation = before.as_ref().map_or(0, |order| order.generation);
    let mut order = KeeperDatabase {
        schema: settings.schema,
        generation,
        wanted,
        patroni: settings.tools.patroni.clone(),
        config: settings.private().join("patroni.yml"),
        psql: settings.tools.postgres_bin.join("psql"),
        api: settings.api(),
        pki: settings.pki.clone(),
        owner: settings.owner,
        data: settings.data(),
        port: settings.location.ports.postgres,
        log: settings.log(),
        leadership: Some(settings.leadership()),
        clones: settings.clones,
        forked: settings.forked,
    };
    if !changed && before.as_ref() == Some(&order) {
        return Ok(Installed {
            order,
            changed: false,
        });
    }
    order.generation += 1;
    let text = serde_json::to_vec_pretty(&order).expect("JSON of strings and numbers");
    put(&path, &text, None)?;
    Ok(Installed {
        order,
        changed: true,
    })
}

fn check(settings: &Settings) -> Result<(), InstallError> {
    let socket = settings.private().join(format!(
        ".s.PGSQL.{}.lock",
        settings.location.ports.postgres
    ));
    let length = socket.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(InstallError::SocketPath {
            path: socket,
            length,
        });
    }
    let root = match settings.owner {
        Some(owner) => owner.uid == 0,
        None => rustix::process::geteuid().is_root(),
    };
    if root {
        Err(InstallError::Root)
    } else {
        Ok(())
    }
}

/// Whether the owner may pass through every directory from the root to `dir`. Directories that do not exist yet pass.
fn reachable(dir: &Path, owner: Owner) -> Result<(), InstallError> {
    for path in dir.ancestors() {
        let Ok(found) = fs::metadata(path) else {
            continue;
        };
        let passes = match () {
            () if found.uid() == owner.uid => found.mode() & 0o100,
            () if found.gid() == owner.gid => found.mode() & 0o010,
            () => found.mode() & 0o001,
        };
        if passes == 0 {
            return Err(InstallError::Closed {
                path: path.into(),
                uid: owner.uid,
            });
        }
    }
    Ok(())
}

fn directory(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), InstallError> {
    let failed = failed("make", path);
    DirBuilder::new()
        .recursive(true)
        .mode(if owner.is_some() { 0o755 } else { mode })
        .create(path)
        .map_err(&failed)?;
    if let Some(owner) = owner {
        chown(path, Some(owner.uid), Some(owner.gid)).map_err(&failed)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(&failed)
}

/// Replaces a file with a whole new one of mode 0600; returns whether it differs.
pub(crate) fn put(path: &Path, text: &[u8], owner: Option<Owner>) -> Result<bool, InstallError> {
    if fs::read(path).is_ok_and(|before| before == text) {
        return Ok(false);
    }
    let fresh = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text)?;
        if let Some(owner) = owner {
            chown(&fresh, Some(owner.uid), Some(owner.gid))?;
        }
        fs::rename(&fresh, path)
    };
    write().map_err(failed("write", path))?;
    Ok(true)
}

fn read(path: &Path) -> Result<Vec<u8>, InstallError> {
    fs::read(path).map_err(failed("read", path))
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> InstallError {
    let path = path.to_path_buf();
    move |source| InstallError::File {
        doing,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::super::patroni::tests::settings;
    use super::*;

    /// A server in a directory of its own; as root, its files belong to user 1.
    fn server() -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let pki = dir.path().join("pki");
        let authority = gaiola_net::pki::Authority::create_or_load(&dir.path().join("ca")).unwrap();
        authority.issue("db2", &[], &pki).unwrap();
        let root = rustix::process::geteuid().is_root();
        let settings = Settings {
            pki,
            state: dir.path().join("state"),
            run: dir.path().join("run"),
            owner: root.then_some(Owner { uid: 1, gid: 1 }),
            ..settings()
        };
        (dir, settings)
    }

    #[test]
    fn every_file_is_for_its_owner_only() {
        let (_dir, settings) = server();
        install(&settings, TargetState::Run).unwrap();
        let private = settings.private();
        assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o700);
        let names: Vec<_> = fs::read_dir(&private).unwrap().flatten().collect();
        assert_eq!(names.len(), 6);
        for file in names {
            let found = file.metadata().unwrap();
            assert_eq!(found.mode() & 0o777, 0o600, "{:?}", file.path());
            assert!(found.uid() != 0, "{:?}", file.path());
        }
    }

    #[test]
    fn the_generation_rises_only_with_a_change() {
        let (_dir, settings) = server();
        let first = install(&settings, TargetState::Run).unwrap();
        assert_eq!((first.order.generation, first.changed), (1, true));
        let again = install(&settings, TargetState::Run).unwrap();
        assert_eq!((again.order, again.changed), (first.order, false));

        let strict = Settings {
            strict: true,
            ..settings
        };
        assert_eq!(
            install(&strict, TargetState::Run).unwrap().order.generation,
            2
        );
        let stop = install(&strict, TargetState::Stop).unwrap();
        assert_eq!(stop.order.generation, 3);
        assert_eq!(KeeperDatabase::read(&strict.run).unwrap(), Some(stop.order));
    }

    #[test]
    fn a_closed_directory_on_the_way_is_named() {
        let (dir, settings) = server();
        let closed = dir.path().join("closed");
        directory(&closed, 0o700, None).unwrap();
        let owner = Owner {
            uid: 54321,
            gid: 54321,
        };
        let error = reachable(&closed.join("state"), owner).unwrap_err();
        assert!(
            matches!(&error, InstallError::Closed { path, .. } if *path == closed),
            "{error}"
        );
        drop(settings);
    }

    #[test]
    fn root_and_long_paths_are_refused_before_anything_is_written() {
        let (dir, settings) = server();
        let root = Settings {
            owner: Some(Owner { uid: 0, gid: 0 }),
            ..settings.clone()
        };
        assert!(matches!(
            install(&root, TargetState::Run),
            Err(InstallError::Root)
        ));
        let long = Settings {
            run: dir.path().join("x".repeat(90)),
            ..settings
        };
        assert!(matches!(
            install(&long, TargetState::Run),
            Err(InstallError::SocketPath { .. })
        ));
        assert!(!long.run.exists());
    }
}
