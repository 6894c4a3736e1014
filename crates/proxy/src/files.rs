//! Static files from directories, which answer requests as backends do.
//!
//! A path is decoded and then resolved by the kernel beneath the directory (`openat2`): neither `..`, nor an encoding
//! of it, nor a symbolic link leads outside. Names that begin with a dot are not served, except `.well-known`. What
//! cannot be opened counts as missing: the request goes to the next directory, and finally to the backend.
//!
//! The ETag is strong, made of size and modification time in nanoseconds: files of a release never change in place.
//! Files are read through the page cache; one that is not cached blocks the worker while the disk is read.

mod answer;
mod range;

pub(super) use answer::FileResponse;

use gaiola_model::http::{FieldName, Method, RequestHead};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The parts of a request that matter for files.
pub(super) struct FileRequest<'a> {
    head: &'a RequestHead,
    buffer: &'a [u8],
    path: &'a [u8],
    /// Relative to the directory, decoded and without empty segments; `None`: no file can have such a name.
    name: Option<Vec<u8>>,
}

/// A file, or a directory requested without its trailing slash.
pub(super) enum Found {
    /// A regular file.
    File(File),
    /// The requested directory has an index.
    Directory,
}

/// An open regular file.
pub(super) struct File {
    fd: OwnedFd,
    size: u64,
    /// Seconds and nanoseconds since the epoch.
    changed: (u64, u64),
    content_type: &'static str,
    is_text: bool,
}

impl<'a> FileRequest<'a> {
    /// The file that the request `head` at the start of `buffer` names; `rewritten`, if not empty, replaces its path.
    pub(super) fn new(head: &'a RequestHead, buffer: &'a [u8], rewritten: &'a [u8]) -> Self {
        let path = match rewritten {
            b"" => head.path(buffer),
            rewritten => rewritten,
        };
        Self {
            head,
            buffer,
            path,
            name: name(path),
        }
    }

    fn field(&self, name: FieldName) -> Option<&'a str> {
        let value = self.head.field(name, self.buffer)?;
        std::str::from_utf8(value).ok()
    }

    fn is_head(&self) -> bool {
        self.head.method == Method::Head
    }

    fn wants_directory(&self) -> bool {
        self.path.ends_with(b"/")
    }
}

/// The path without its first slash, percent-decoded, with `index.html` for a directory.
fn name(path: &[u8]) -> Option<Vec<u8>> {
    let decoded = decode(path.strip_prefix(b"/")?)?;
    let mut name = Vec::with_capacity(decoded.len() + 16);
    for segment in decoded
        .split(|&byte| byte == b'/')
        .filter(|segment| !segment.is_empty())
    {
        if segment.starts_with(b".") && segment != b".well-known" {
            return None;
        }
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(segment);
    }
    if path.ends_with(b"/") {
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(b"index.html");
    }
    Some(name)
}

/// Percent-decodes once; `None` if the text is malformed, or contains a NUL.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        };
        if byte == 0 {
            return None;
        }
        decoded.push(byte);
    }
    Some(decoded)
}

/// The file from the first of these directories that has it.
pub(super) fn find(roots: &[PathBuf], request: &FileRequest<'_>) -> Option<Found> {
    let name = request.name.as_deref()?;
    roots
        .iter()
        .find_map(|root| match find_in(root, name, request) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => {
                let name = String::from_utf8_lossy(name);
                tracing::debug!(%error, root = %root.display(), %name, "cannot serve a file");
                None
            }
        })
}

fn find_in(root: &Path, name: &[u8], request: &FileRequest<'_>) -> Result<Option<Found>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty())?;
    let fd = open_beneath(&root, name)?;
    let stat = fstat(&fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let number = |number: i64| u64::try_from(number).unwrap_or(0);
            let (content_type, is_text) = content_type(name);
            Ok(Some(Found::File(File {
                fd,
                size: number(stat.st_size),
                changed: (
                    number(stat.st_mtime),
                    number(i64::from_ne_bytes(stat.st_mtime_nsec.to_ne_bytes())),
                ),
                content_type,
                is_text,
            })))
        }
        FileType::Directory if !request.wants_directory() => {
            let index = [name, b"/index.html"].concat();
            open_beneath(&root, &index)?;
            Ok(Some(Found::Directory))
        }
        _ => Ok(None),
    }
}

fn open_beneath(root: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    // Without NONBLOCK, opening a FIFO would block the worker.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(root, name, flags, Mode::empty(), resolve)
}

/// By file extension; text is UTF-8.
fn content_type(name: &[u8]) -> (&'static str, bool) {
    let name = String::from_utf8_lossy(name);
    let guessed = mime_guess::from_path(&*name).first_raw();
    let guessed = guessed.unwrap_or("application/octet-stream");
    let is_text = guessed.starts_with("text/")
        || matches!(guessed, "application/javascript" | "application/json");
    (guessed, is_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn request(path: &str) -> Option<Vec<u8>> {
        name(path.as_bytes())
    }

    #[test]
    fn names_are_decoded_once_and_never_lead_upwards() {
        assert_eq!(request("/a%20b.txt").unwrap(), b"a b.txt");
        assert_eq!(request("//a//b/").unwrap(), b"a/b/index.html");
        assert_eq!(request("/").unwrap(), b"index.html");
        assert_eq!(request("/%252e%252e/x").unwrap(), b"%2e%2e/x");
        for path in [
            "/../x",
            "/a/../x",
            "/%2e%2e/x",
            "/a%2f..%2fx",
            "/a%00",
            "/%zz",
            "/%2",
            "/.git/x",
            "*",
        ] {
            assert_eq!(request(path), None, "{path}");
        }
        assert_eq!(request("/.well-known/x").unwrap(), b".well-known/x");
    }

    fn find_file(root: &Path, path: &str) -> Option<Found> {
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut head = RequestHead::default();
        let limits = gaiola_wire::http1::Limits::default();
        gaiola_wire::http1::parse_request(text.as_bytes(), &mut head, &limits).unwrap();
        find(
            &[root.into()],
            &FileRequest::new(&head, text.as_bytes(), b""),
        )
    }

    #[test]
    fn links_serve_what_lies_beneath_and_nothing_outside() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(directory.path().join("secret"), "secret").unwrap();
        fs::write(root.join("page.html"), "page").unwrap();
        fs::write(root.join("sub/index.html"), "index").unwrap();
        symlink("page.html", root.join("inside")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink(directory.path().join("secret"), root.join("absolute")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        let is_file = |path| matches!(find_file(&root, path), Some(Found::File(_)));
        assert!(is_file("/page.html"));
        assert!(is_file("/inside"));
        assert!(is_file("/sub/"));
        assert!(matches!(find_file(&root, "/sub"), Some(Found::Directory)));
        for path in [
            "/outside",
            "/absolute",
            "/slash/etc/passwd",
            "/page.html/",
            "/page.html/x",
            "/no",
        ] {
            assert!(find_file(&root, path).is_none(), "{path}");
        }
    }

    #[test]
    fn types_follow_endings() {
        assert_eq!(content_type(b"a/b.css"), ("text/css", true));
        assert_eq!(content_type(b"b.png"), ("image/png", false));
        assert_eq!(content_type(b"b"), ("application/octet-stream", false));
    }
}
