//! What both providers do for a server: its directory, what is kept for good, and which of its boots are over.

use gaiola_agent::engine::Secrets;
use gaiola_agent::state::{State, read_document, read_json, write_document, write_json};
use gaiola_model::placement::BootNumber;
use gaiola_model::{ServerName, SiteName};
use gaiola_os::process::User;
use gaiola_store::Store;
use gaiola_store::view::Keys;
use gaiola_wire::hex;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// PATH of everything that runs on a server: nothing is taken from the operator's environment.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Between two attempts to write to the store.
const AGAIN: Duration = Duration::from_secs(1);

/// Why something that is made once cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The system refused.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be drawn.
    #[error("the kernel gives no random numbers")]
    Random(#[from] getrandom::Error),
}

pub(super) fn make_folder(path: &Path, mode: u32, owner: Option<User>) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    owner.map_or(Ok(()), |user| {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
    })
}

/// Removes a directory on a thread of its own: a database's data may be many files, and this one serves.
pub(super) async fn remove(folder: PathBuf) -> io::Result<()> {
    let removing = tokio::task::spawn_blocking(move || fs::remove_dir_all(folder));
    removing.await?
}

/// The database's passwords: made once, in this schema, kept for good.
///
/// # Errors
/// Where they cannot be made, read or written.
pub fn secrets(state: &State, schema: u64) -> Result<Secrets, KeptError> {
    let path = state.secrets();
    kept(&path, read_document(&path), || {
        let made = Secrets::generate()?;
        Ok((write_document(&path, &made, schema), made))
    })
}

/// The secret that seals the keepers' advertisements, in hexadecimal: made once, kept for good.
///
/// # Errors
/// Where it cannot be made, read or written.
pub fn keeper_key(state: &State) -> Result<String, KeptError> {
    let path = state.keeper_key();
    kept(&path, read_json(&path), || {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        let made = hex::encode(&bytes);
        Ok((write_json(&path, &made), made))
    })
}

/// What was read, or what `make` makes and writes where nothing was kept yet.
fn kept<T>(
    path: &Path,
    read: io::Result<T>,
    make: impl FnOnce() -> Result<(io::Result<()>, T), getrandom::Error>,
) -> Result<T, KeptError> {
    let failed = |source| KeptError::Io {
        path: path.into(),
        source,
    };
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (written, made) = make()?;
            written.map_err(failed)?;
            Ok(made)
        }
        found => found.map_err(failed),
    }
}

/// A number above `last`, and above those that an earlier process gave: the time, in milliseconds.
pub(super) fn boot_number(last: BootNumber) -> BootNumber {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |span| {
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
    });
    BootNumber(now.max(last.0 + 1))
}

/// Stores which boots are over: nothing of them runs any more. Failed writes are repeated.
pub(super) async fn store_over(
    site: &SiteName,
    mut over: watch::Receiver<BTreeMap<ServerName, BootNumber>>,
    store: Store,
) {
    let (keys, mut stored) = (Keys::of(site), BTreeMap::new());
    loop {
        let wanted = over.borrow_and_update().clone();
        for (server, boot) in wanted {
            if stored.get(&server) == Some(&boot) {
                continue;
            }
            match store.put_json(&keys.over(server), &boot, None).await {
                Ok(_) => _ = stored.insert(server, boot),
                Err(error) => {
                    let error = gaiola_os::chain(&error);
                    tracing::warn!(%server, error, "cannot store that a boot is over");
                }
            }
        }
        let all = over.borrow().clone() == stored;
        tokio::select! {
            changed = over.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if !all => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_had_is_removed_while_the_provider_serves() {
        let folder = tempfile::tempdir().unwrap();
        let server = folder.path().join("db1");
        fs::create_dir_all(server.join("postgres/data")).unwrap();
        let meanwhile = || assert!(server.join("postgres/data").exists());
        gaiola_os::slow_disk::carry_out(remove(server.clone()), meanwhile).unwrap();
        assert!(!server.exists());
    }
}
