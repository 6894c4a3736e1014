//! Listening on a Unix socket, whose file lives as long as the listener.

use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A socket's file, removed when this is dropped, unless another socket has replaced it.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
    /// Whether this process removes it.
    own: AtomicBool,
}

impl SocketFile {
    /// The file of a socket that another process has made.
    ///
    /// # Errors
    /// The system's error, unless there is no such file: then nobody can connect through it.
    pub(super) fn of_another(path: &Path) -> io::Result<Self> {
        let inode = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            found => found?.ino(),
        };
        Ok(Self {
            path: path.into(),
            inode,
            own: AtomicBool::new(false),
        })
    }

    /// Sets whether this process removes it.
    pub(super) fn own(&self, own: bool) {
        self.own.store(own, Ordering::Relaxed);
    }

    /// Sets the permissions of the file; `None`: those of a newly created one. A file that another socket has put in
    /// its place is left alone.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn permit(&self, permissions: Option<u32>) -> io::Result<()> {
        let permissions = match permissions {
            Some(permissions) => permissions,
            None => 0o777 & !umask()?,
        };
        let file = match fs::symlink_metadata(&self.path) {
            // The file has been removed: nobody can connect through it, and that must not hold up the rest of a
            // configuration.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if file.ino() != self.inode || file.permissions().mode() & 0o777 == permissions {
            return Ok(());
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(permissions))
    }
}

/// The process' umask. The system call that reads it also changes it, for other threads too.
fn umask() -> io::Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mut lines = status.lines();
    let umask = lines.find_map(|line| line.strip_prefix("Umask:"));
    umask
        .and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no umask"))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = self.own.load(Ordering::Relaxed);
        if is_ours && fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            // If it cannot be removed, the next listener replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a socket at this path. A stale file of a dead process is replaced.
///
/// # Errors
/// The system's error; `AddrInUse` if a living process answers on it or the file is no socket.
pub(super) fn listen(path: &Path, permissions: Option<u32>) -> io::Result<(Socket, SocketFile)> {
    if let Ok(file) = fs::symlink_metadata(path)
        && (!file.file_type().is_socket() || UnixStream::connect(path).is_ok())
    {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    // Clients find either the old socket or the new one with its permissions, never something in between.
    let mut fresh = OsString::from(path);
    fresh.push(".new");
    let _ = fs::remove_file(&fresh);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&fresh)?)?;
    let placed = place(&socket, fresh.as_ref(), path, permissions);
    if placed.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    Ok((socket, placed?))
}

fn place(
    socket: &Socket,
    fresh: &Path,
    path: &Path,
    permissions: Option<u32>,
) -> io::Result<SocketFile> {
    if let Some(permissions) = permissions {
        fs::set_permissions(fresh, fs::Permissions::from_mode(permissions))?;
    }
    socket.listen(super::BACKLOG)?;
    let inode = fs::symlink_metadata(fresh)?.ino();
    fs::rename(fresh, path)?;
    Ok(SocketFile {
        path: path.into(),
        inode,
        own: AtomicBool::new(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_a_living_one_and_a_file_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (_socket, file) = listen(&path, Some(0o640)).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        UnixStream::connect(&path).unwrap();
        for (permissions, expected) in [(Some(0o606), 0o606), (None, 0o777 & !umask().unwrap())] {
            file.permit(permissions).unwrap();
            let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected);
        }
        let error = listen(&path, None).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(file);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(listen(&path, None).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
