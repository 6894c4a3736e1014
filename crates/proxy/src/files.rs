//! Static files from directories, which answer requests as backends do.
//!
//! A path is decoded and then resolved by the kernel beneath the directory (`openat2`): neither `..`, nor an encoding
//! of it, nor a symbolic link leads outside. Names that begin with a dot are not served, except `.well-known`. What
//! cannot be opened counts as missing: the request goes to the next directory, and finally to the backend.
//!
//! Where no file has the request's name, those of the route's `try` follow, then its page for missing files.
//! Files are read through the page cache; one that is not cached blocks the worker while the disk is read.

mod answer;
mod range;
mod tag;

pub(super) use answer::{Compress, FileResponse, Reply};
pub(super) use tag::Tags;

use gaiola_core::encoding::Accepted;
use gaiola_core::files;
use gaiola_model::http::{Coding, FieldName, Method, RequestHead};
use gaiola_model::proxy::FileOptions;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tag::Version;

/// Seconds by which a compressed file may be older than its file and still be made of it: a checkout writes files in
/// any order.
const CHECKOUT: u64 = 2;

/// The parts of a request that matter for files.
pub(super) struct FileRequest<'a> {
    head: &'a RequestHead,
    buffer: &'a [u8],
    /// The path, decoded; `None`: it is malformed.
    decoded: Option<Vec<u8>>,
    accepted: Accepted,
}

/// Where files are searched, and how.
pub(super) struct Search<'a> {
    /// The directories, in order.
    pub(super) roots: &'a [PathBuf],
    /// What is served for a missing file, and how all are.
    pub(super) options: &'a FileOptions,
}

/// A file, or a directory requested without its trailing slash.
pub(super) enum Found<'a> {
    /// A regular file.
    File(File<'a>),
    /// The requested directory has an index.
    Directory,
    /// There is no such file, but a page that says so.
    Missing(File<'a>),
    /// The system has no descriptor or memory left, or its disk fails.
    Failed,
}

/// An open regular file.
pub(super) struct File<'a> {
    fd: OwnedFd,
    version: Version,
    content_type: &'static str,
    is_text: bool,
    /// How the contents are compressed.
    coding: Option<Coding>,
    /// Whether clients that accept other codings may get another file.
    varies: bool,
    cache_control: Option<&'a str>,
}

impl<'a> FileRequest<'a> {
    /// The file that the request `head` at the start of `buffer` names; `rewritten`, if not empty, replaces its path.
    pub(super) fn new(head: &'a RequestHead, buffer: &'a [u8], rewritten: &'a [u8]) -> Self {
        let path = match rewritten {
            b"" => head.path(buffer),
            rewritten => rewritten,
        };
        let mut request = Self {
            head,
            buffer,
            decoded: decode(path),
            accepted: Accepted::default(),
        };
        request.accepted = Accepted::of(request.fields(FieldName::AcceptEncoding));
        request
    }

    fn field(&self, name: FieldName) -> Option<&'a str> {
        let value = self.head.field(name, self.buffer)?;
        std::str::from_utf8(value).ok()
    }

    /// The values of every field of this name.
    fn fields(&self, name: FieldName) -> impl Iterator<Item = &'a str> {
        let fields = self.head.fields.iter();
        fields
            .filter(move |field| field.known == name)
            .filter_map(|field| std::str::from_utf8(field.value.of(self.buffer)).ok())
    }

    fn is_head(&self) -> bool {
        self.head.method == Method::Head
    }
}

/// The name below a directory of the file for a decoded path: without its first slash and empty segments, with
/// `index.html` for a directory. `None`: no file has such a name.
fn name(path: &[u8]) -> Option<Vec<u8>> {
    let below = path.strip_prefix(b"/")?;
    let mut name = Vec::with_capacity(below.len() + 16);
    let segments = below.split(|&byte| byte == b'/');
    for segment in segments.filter(|segment| !segment.is_empty()) {
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

impl<'a> Search<'a> {
    /// What answers the request; `None`: the backend, if there is one.
    pub(super) fn find(&self, request: &FileRequest<'_>) -> Option<Found<'a>> {
        if let Some(path) = &request.decoded
            && let Some(own) = name(path)
        {
            let found = self.first(&own, request);
            // With its slash it already has the name of its index.
            let is_loop = path.ends_with(b"/") && matches!(found, Some(Found::Directory));
            let found = found.filter(|_| !is_loop);
            let tries = || self.options.tries.iter();
            let other = || tries().find_map(|other| self.file(&files::tried(other, path), request));
            if let Some(found) = found.or_else(|| other().map(Found::File)) {
                return Some(found);
            }
        }
        let page = self.options.not_found.as_ref()?;
        self.file(page.as_bytes(), request).map(Found::Missing)
    }

    /// The file at this decoded path.
    fn file(&self, path: &[u8], request: &FileRequest<'_>) -> Option<File<'a>> {
        match self.first(&name(path)?, request)? {
            Found::File(file) => Some(file),
            Found::Directory | Found::Missing(_) | Found::Failed => None,
        }
    }

    /// What the first of the directories has that has anything of this name.
    fn first(&self, name: &[u8], request: &FileRequest<'_>) -> Option<Found<'a>> {
        let mut roots = self.roots.iter();
        roots.find_map(|root| match self.find_in(root, name, request) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            // Nothing else is asked then: a page that says that it is missing would be kept.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO | Errno::AGAIN)
                if self.options.ends_the_search() =>
            {
                Some(Found::Failed)
            }
            Err(error) => {
                let name = String::from_utf8_lossy(name);
                tracing::debug!(%error, root = %root.display(), %name, "cannot serve a file");
                None
            }
        })
    }

    fn find_in(
        &self,
        root: &Path,
        name: &[u8],
        request: &FileRequest<'_>,
    ) -> Result<Option<Found<'a>>, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, flags, Mode::empty())?;
        let fd = open_beneath(&root, name)?;
        let stat = fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let cache_control = files::cache_control(self.options, name);
                let mut file = File::new(fd, Version::of(&stat), name, cache_control);
                if self.options.precompressed {
                    file.precompressed(&root, name, request.accepted);
                }
                Ok(Some(Found::File(file)))
            }
            FileType::Directory => {
                let index = [name, b"/index.html"].concat();
                open_beneath(&root, &index)?;
                Ok(Some(Found::Directory))
            }
            _ => Ok(None),
        }
    }
}

impl<'a> File<'a> {
    /// This version of an open file of this name below its directory.
    fn new(fd: OwnedFd, version: Version, name: &[u8], cache_control: Option<&'a str>) -> Self {
        let (content_type, is_text) = content_type(name);
        Self {
            fd,
            version,
            content_type,
            is_text,
            coding: None,
            varies: false,
            cache_control,
        }
    }

    /// Replaces it by the file beside it that is compressed as the client likes best, if there is one.
    fn precompressed(&mut self, root: &OwnedFd, name: &[u8], accepted: Accepted) {
        self.varies = true;
        let of = |coding: &Coding| {
            let name = [name, coding.extension().as_bytes()].concat();
            let fd = open_beneath(root, &name).ok()?;
            let stat = fstat(&fd).ok()?;
            let version = Version::of(&stat);
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            let is_current = version.modified.0 + CHECKOUT >= self.version.modified.0;
            (is_file && is_current).then_some((fd, version))
        };
        let found = accepted
            .ranked()
            .find_map(|coding| Some((coding, of(&coding)?)));
        if let Some((coding, (fd, version))) = found {
            (self.fd, self.version, self.coding) = (fd, version, Some(coding));
        }
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
    use std::io::Read;
    use std::os::unix::fs::symlink;

    fn request(path: &str) -> Option<Vec<u8>> {
        name(&decode(path.as_bytes())?)
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

    fn find_with(root: &Path, path: &str, options: &FileOptions) -> Option<String> {
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut head = RequestHead::default();
        let limits = gaiola_wire::http1::Limits::default();
        gaiola_wire::http1::parse_request(text.as_bytes(), &mut head, &limits).unwrap();
        let roots = &[root.into()];
        let request = FileRequest::new(&head, text.as_bytes(), b"");
        let contents = |file: File<'_>| {
            let mut contents = String::new();
            fs::File::from(file.fd)
                .read_to_string(&mut contents)
                .unwrap();
            contents
        };
        Some(match (Search { roots, options }).find(&request)? {
            Found::File(file) => contents(file),
            Found::Directory => "directory".into(),
            Found::Failed => "failed".into(),
            Found::Missing(page) => format!("404 {}", contents(page)),
        })
    }

    fn find_file(root: &Path, path: &str) -> Option<String> {
        find_with(root, path, &FileOptions::default())
    }

    #[test]
    fn a_missing_file_has_other_names_and_then_a_page() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("blog")).unwrap();
        for name in [
            "index.html",
            "about.html",
            "404.html",
            "blog/one.html",
            ".secret.html",
        ] {
            fs::write(root.join(name), name).unwrap();
        }
        let options = |tries: &[&str], not_found: Option<&str>| FileOptions {
            tries: tries.iter().map(|name| (*name).into()).collect(),
            not_found: not_found.map(Into::into),
            ..FileOptions::default()
        };
        let clean = options(&["{path}.html"], Some("/404.html"));
        let of = |path, options| find_with(root, path, options);
        assert_eq!(of("/about", &clean).unwrap(), "about.html");
        assert_eq!(of("/blog/one/", &clean).unwrap(), "blog/one.html");
        assert_eq!(of("/blog%2fone", &clean).unwrap(), "blog/one.html");
        assert_eq!(of("/", &clean).unwrap(), "index.html");
        for missing in [
            "/no",
            "/blog",
            "/.secret",
            "/%zz",
            "/../about",
            "/%2e%2e/about",
        ] {
            assert_eq!(of(missing, &clean).unwrap(), "404 404.html", "{missing}");
        }
        let single = options(&["/index.html"], None);
        assert_eq!(of("/inbox/7", &single).unwrap(), "index.html");
        assert_eq!(of("/.git/config", &single), None);
        assert_eq!(of("/no", &options(&["/no.html"], Some("/none.html"))), None);
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
        let found = |path| find_file(&root, path).unwrap();
        assert_eq!(found("/page.html"), "page");
        assert_eq!(found("/inside"), "page");
        assert_eq!(found("/sub/"), "index");
        assert_eq!(found("/sub"), "directory");
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
