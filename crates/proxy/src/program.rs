//! The program that this process runs, and the one that is in its place now.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The program's file, and whether it has been replaced since this process was started.
pub(super) fn program() -> io::Result<(PathBuf, bool)> {
    const OWN: &str = "/proc/self/exe";
    const DELETED: &str = " (deleted)";
    let path = std::fs::read_link(OWN)?;
    let text = path.to_string_lossy();
    let path = text
        .strip_suffix(DELETED)
        .map_or(path.clone(), PathBuf::from);
    let running = std::fs::metadata(OWN)?;
    match std::fs::metadata(&path) {
        Ok(file) => {
            let is_same = (file.dev(), file.ino()) == (running.dev(), running.ino());
            Ok((path, !is_same))
        }
        Err(_) => Ok((OWN.into(), false)),
    }
}

/// Whether another program is in the place of this one.
pub(super) fn is_replaced() -> bool {
    program().is_ok_and(|(_, is_replaced)| is_replaced)
}
