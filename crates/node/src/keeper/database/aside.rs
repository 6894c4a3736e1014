//! Keeps a data directory that a standby cannot go on with: it may be the only other copy until the site is whole.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Renames `data` to `aside`. Where something was set aside before, that is kept, being older, and `data`, which came from a
/// clone that did not help, is removed.
pub(super) async fn set_aside(data: PathBuf, aside: PathBuf) -> io::Result<()> {
    let moved = tokio::task::spawn_blocking(move || {
        match (data.exists(), aside.exists()) {
            (false, _) => Ok(()),
            (true, true) => fs::remove_dir_all(&data),
            (true, false) => fs::rename(&data, &aside),
        }?;
        match data.parent() {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    });
    moved.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_copy_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (data, aside) = (dir.path().join("data"), dir.path().join("data.aside"));
        for content in ["first", "second"] {
            fs::create_dir(&data).unwrap();
            fs::write(data.join("PG_VERSION"), content).unwrap();
            set_aside(data.clone(), aside.clone()).await.unwrap();
            assert!(!data.exists());
            assert_eq!(
                fs::read_to_string(aside.join("PG_VERSION")).unwrap(),
                "first"
            );
        }
        set_aside(data, aside).await.unwrap();
    }
}
