//! Sets aside a data directory that a standby cannot follow with: it may be the only other copy until the site is whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Renames `data` to a new name beside it, which begins with `prefix`; nothing is ever removed.
pub(super) async fn set_aside(data: PathBuf, prefix: &'static str) -> io::Result<()> {
    let moved = tokio::task::spawn_blocking(move || {
        if !data.exists() {
            return Ok(());
        }
        let parent = data.parent().unwrap_or(Path::new("/"));
        let mut names = (1..).map(|number| parent.join(format!("{prefix}{number}")));
        let free = names
            .find(|name| !name.exists())
            .expect("numbers do not end");
        fs::rename(&data, free)?;
        fs::File::open(parent)?.sync_all()
    });
    moved.await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_copy_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        for content in ["first", "second"] {
            fs::create_dir(&data).unwrap();
            fs::write(data.join("PG_VERSION"), content).unwrap();
            set_aside(data.clone(), "data.aside.").await.unwrap();
            assert!(!data.exists());
        }
        set_aside(data, "data.aside.").await.unwrap();
        for (number, content) in [(1, "first"), (2, "second")] {
            let kept = dir.path().join(format!("data.aside.{number}/PG_VERSION"));
            assert_eq!(fs::read_to_string(kept).unwrap(), content);
        }
    }
}
