//! An HTTP proxy for the machines' apt: packages of the mirrors that this host installs from, and nothing else. It keeps them. For their
//! pip it is a mirror with the packages that the prepared image was built from.

use super::network::{APT_CACHE_PORT, OPERATOR};
use super::programs::Tried as _;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::NamedTempFile;

/// The longest that connecting, each read and each write may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The longest head that is read.
const LONGEST_HEAD: u64 = 64 * 1024;
/// Fields of a request that go on to the mirror.
const FORWARDED: [&str; 4] = ["if-modified-since", "if-range", "range", "user-agent"];

/// Where pip finds packages.
pub(crate) const WHEELS: &str = "/wheels/";

struct Cache {
    /// The mirrors' hosts.
    hosts: Vec<String>,
    /// Where packages are kept.
    folder: PathBuf,
}

/// Starts the proxy: it listens in the network namespace of a process, and fetches from ours.
pub(crate) fn serve(pid: u32, mirrors: &[String], folder: PathBuf) -> io::Result<()> {
    let bind = move || {
        gaiola_os::namespace::join_network(pid, false)?;
        TcpListener::bind((OPERATOR, APT_CACHE_PORT))
    };
    // The thread enters the namespace and ends; the socket stays in it, and we stay out.
    let listener = std::thread::spawn(bind)
        .join()
        .expect("nothing in it panics");
    let listener = listener.tried("listen for the machines' apt")?;
    fs::create_dir_all(&folder).tried(format!("create {}", folder.display()))?;
    let hosts = mirrors
        .iter()
        .filter_map(|mirror| Some(split(mirror)?.0.to_string()));
    let cache = Arc::new(Cache {
        hosts: hosts.collect(),
        folder,
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let cache = Arc::clone(&cache);
            // Where a transfer breaks off apt reports it, and tries again.
            std::thread::spawn(move || _ = cache.converse(&stream));
        }
    });
    Ok(())
}

/// Host and path of `http://HOST/PATH`.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let slash = rest.find('/')?;
    let (host, path) = rest.split_at(slash);
    let is_plain = !path.contains("/../") && !path.contains("//");
    is_plain.then_some((host, path))
}

impl Cache {
    /// One connection of apt's, request after request.
    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let (mut reader, mut writer) = (BufReader::new(stream), stream);
        while let Some(head) = read_head(&mut reader)? {
            let target = head[0]
                .strip_prefix("GET ")
                .and_then(|rest| rest.split(' ').next());
            if let Some(name) = target.and_then(|target| target.strip_prefix(WHEELS)) {
                self.answer_pip(name, &mut writer)?;
                continue;
            }
            let target = target.and_then(split);
            let goes_on = match target {
                Some((host, path)) if self.hosts.iter().any(|known| known == host) => {
                    self.answer(host, path, &head, &mut writer)?
                }
                _ => {
                    writer.write_all(
                        b"HTTP/1.1 403 not a mirror of Debian\r\ncontent-length: 0\r\n\r\n",
                    )?;
                    true
                }
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// What pip asks for: the list of the packages that the prepared image was built from, or one of them.
    fn answer_pip(&self, name: &str, client: &mut impl Write) -> io::Result<()> {
        let folder = self.folder.join("wheels");
        let body = if name.is_empty() {
            let names = fs::read_dir(&folder)?
                .flatten()
                .map(|file| file.file_name());
            let names = names.map(|name| name.to_string_lossy().into_owned());
            let links = names.map(|name| format!("<a href=\"{name}\">{name}</a>\n"));
            Some(links.collect::<String>().into_bytes())
        } else {
            let is_plain = !name.contains('/');
            is_plain.then(|| fs::read(folder.join(name)).ok()).flatten()
        };
        let status = if body.is_some() {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let kind = if name.is_empty() {
            "text/html"
        } else {
            "application/octet-stream"
        };
        let body = body.unwrap_or_default();
        let length = body.len();
        write!(
            client,
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        )?;
        client.write_all(&body)
    }

    /// Answers a request; `false`: the end of the body is the end of the connection.
    fn answer(
        &self,
        host: &str,
        path: &str,
        head: &[String],
        client: &mut impl Write,
    ) -> io::Result<bool> {
        let kept = path
            .ends_with(".deb")
            .then(|| self.folder.join(host).join(&path[1..]));
        if let Some(mut file) = kept.as_ref().and_then(|kept| File::open(kept).ok()) {
            let length = file.metadata()?.len();
            write!(
                client,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
            )?;
            io::copy(&mut file, client)?;
            return Ok(true);
        }
        let mut mirror = BufReader::new(request(host, path, head)?);
        let answer = read_head(&mut mirror)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = answer[0].split(' ').nth(1).unwrap_or_default();
        let length = match status {
            "204" | "304" => Some(0),
            _ => field(&answer, "content-length").and_then(|length| length.parse().ok()),
        };
        for line in answer.iter().filter(|line| name(line) != "connection") {
            write!(client, "{line}\r\n")?;
        }
        let connection = if length.is_none() {
            "close"
        } else {
            "keep-alive"
        };
        write!(client, "connection: {connection}\r\n\r\n")?;
        match (kept, length) {
            (Some(kept), Some(length)) if status == "200" => {
                keep(&mut mirror.take(length), length, client, &kept)?;
            }
            (_, Some(length)) => _ = io::copy(&mut mirror.take(length), client)?,
            (_, None) => _ = io::copy(&mut mirror, client)?,
        }
        Ok(length.is_some())
    }
}

/// Asks the mirror, over a connection of its own.
fn request(host: &str, path: &str, head: &[String]) -> io::Result<TcpStream> {
    let address = if host.contains(':') {
        host.to_string()
    } else {
        format!("{host}:80")
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                let forwarded = head.iter().filter(|line| FORWARDED.contains(&&*name(line)));
                let fields: String = forwarded.map(|line| format!("{line}\r\n")).collect();
                write!(
                    stream,
                    "GET {path} HTTP/1.1\r\nhost: {host}\r\n{fields}connection: close\r\n\r\n"
                )?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Copies a package to the client and into the cache, where it appears once it is whole.
fn keep(
    package: &mut impl Read,
    length: u64,
    client: &mut impl Write,
    kept: &Path,
) -> io::Result<()> {
    let folder = kept.parent().unwrap_or(kept);
    fs::create_dir_all(folder)?;
    let mut copy = NamedTempFile::new_in(folder)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut copied = 0;
    loop {
        let count = package.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        client.write_all(&buffer[..count])?;
        copy.write_all(&buffer[..count])?;
        copied += count as u64;
    }
    if copied != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    copy.persist(kept).map(drop).map_err(|error| error.error)
}

/// The lines of a head; `None` where the connection ended before one.
fn read_head(reader: &mut impl io::BufRead) -> io::Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    let mut limited = reader.take(LONGEST_HEAD);
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line)? == 0 {
            return if lines.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        match line.trim_end() {
            "" if lines.is_empty() => {}
            "" => return Ok(Some(lines)),
            line => lines.push(line.to_string()),
        }
    }
}

/// The name of a field, in lower case.
fn name(line: &str) -> String {
    line.split(':')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

fn field<'a>(head: &'a [String], wanted: &str) -> Option<&'a str> {
    let line = head[1..].iter().find(|line| name(line) == wanted)?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mirror that answers every request with `answer`; how often it was asked is counted.
    fn mirror(answer: &'static str) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                read_head(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (host, asked)
    }

    /// What apt receives for these requests, over one connection.
    fn converse(cache: Cache, requests: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut apt = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        apt.write_all(requests.as_bytes()).unwrap();
        apt.shutdown(std::net::Shutdown::Write).unwrap();
        let served = std::thread::spawn(move || _ = cache.converse(&stream));
        let mut received = String::new();
        apt.read_to_string(&mut received).unwrap();
        served.join().unwrap();
        received
    }

    #[test]
    fn a_package_is_fetched_once_and_lists_each_time() {
        let (host, asked) =
            mirror("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache {
            hosts: vec![host.clone()],
            folder: folder.path().into(),
        };
        let package =
            format!("GET http://{host}/debian/pool/a.deb HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let list = format!("GET http://{host}/debian/InRelease HTTP/1.1\r\n\r\n");
        let received = converse(cache, &format!("{package}{package}{list}{list}"));
        assert_eq!(received.matches("abc").count(), 4, "{received}");
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
        let kept = folder.path().join(&host).join("debian/pool/a.deb");
        assert_eq!(fs::read(kept).unwrap(), b"abc");
    }

    #[test]
    fn a_package_that_breaks_off_is_not_kept() {
        let (host, _) = mirror("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache {
            hosts: vec![host.clone()],
            folder: folder.path().into(),
        };
        converse(cache, &format!("GET http://{host}/a.deb HTTP/1.1\r\n\r\n"));
        let left = fs::read_dir(folder.path().join(&host)).unwrap().count();
        assert_eq!(left, 0);
    }

    #[test]
    fn pip_finds_what_is_kept_for_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("wheels")).unwrap();
        fs::write(folder.path().join("wheels/a-1.whl"), "abc").unwrap();
        let cache = Cache {
            hosts: Vec::new(),
            folder: folder.path().into(),
        };
        let get = |what: &str| format!("GET /wheels/{what} HTTP/1.1\r\nHost: a\r\n\r\n");
        let requests = [get(""), get("a-1.whl"), get("../x"), get("b.whl")].concat();
        let received = converse(cache, &requests);
        assert!(received.contains("<a href=\"a-1.whl\">"), "{received}");
        assert_eq!(received.matches("abc").count(), 1, "{received}");
        assert_eq!(received.matches(" 404 ").count(), 2, "{received}");
    }

    #[test]
    fn only_the_mirrors_are_reached() {
        let cache = Cache {
            hosts: vec!["m.example".into()],
            folder: "/nonexistent".into(),
        };
        let requests = "GET http://other.example/a.deb HTTP/1.1\r\n\r\nGET http://m.example/../../a.deb HTTP/1.1\r\n\r\n\
                        CONNECT m.example:443 HTTP/1.1\r\n\r\n";
        let received = converse(cache, requests);
        assert_eq!(received.matches("HTTP/1.1 403 ").count(), 3, "{received}");
    }
}
