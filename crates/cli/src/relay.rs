//! `gaiola connect`: standard input and output as a connection to a site's control socket, for a command line elsewhere.

use crate::args::Connect;
use crate::output::Exit;
use anyhow::Context as _;
use gaiola_agent::state::State;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The exit code where no process of the site answers here.
pub(crate) const NOT_UP: u8 = 69;

/// Copies both ways until the site closes the connection.
pub(crate) fn connect(args: &Connect) -> anyhow::Result<Exit> {
    let path = State::of(&args.name).control_socket();
    let socket = match UnixStream::connect(&path) {
        Ok(socket) => socket,
        Err(error) => {
            eprint_line!("{}", why(&args.name, &path, &error));
            return Ok(Exit::Other(NOT_UP));
        }
    };
    // Bytes go out as they come: standard output by way of `io` waits for the end of a line.
    let input = file(io::stdin().as_fd())?;
    let output = file(io::stdout().as_fd())?;
    relay(socket, input, output).context("the connection broke")?;
    Ok(Exit::Ok)
}

fn file(of: impl AsFd) -> io::Result<File> {
    of.as_fd().try_clone_to_owned().map(File::from)
}

fn why(site: &gaiola_model::SiteName, path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "there is no site {site} here ({} does not exist)",
                path.display()
            )
        }
        io::ErrorKind::ConnectionRefused => {
            format!("the process of {site} does not run here; see: systemctl status gaiola-machine")
        }
        _ => format!("cannot connect to {}: {error}", path.display()),
    }
}

/// The end of the input closes one direction only: what the site still answers is copied.
fn relay(socket: UnixStream, mut input: File, mut output: File) -> io::Result<()> {
    let mut to_site = socket.try_clone()?;
    std::thread::spawn(move || {
        // Where the site reads no more, its answer says why.
        let _ = copy(&mut input, &mut to_site);
        let _ = to_site.shutdown(Shutdown::Write);
    });
    let mut from_site = socket;
    copy(&mut from_site, &mut output)
}

/// Each piece as it comes. `io::copy` splices, and the kernel keeps what it has until the socket has more.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&piece[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_after_the_end_of_the_input_and_before_it() {
        let (site, here) = UnixStream::pair().unwrap();
        let (input, mut asking) = io::pipe().unwrap();
        let (mut answered, output) = io::pipe().unwrap();
        let input = File::from(std::os::fd::OwnedFd::from(input));
        let output = File::from(std::os::fd::OwnedFd::from(output));
        let relaying = std::thread::spawn(move || relay(here, input, output));
        let mut site = site;
        asking.write_all(b"ask").unwrap();
        let mut asked = [0; 3];
        site.read_exact(&mut asked).unwrap();
        site.write_all(b"no line end").unwrap();
        let mut answer = [0; 11];
        answered.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"no line end");
        drop(asking);
        assert_eq!(site.read(&mut asked).unwrap(), 0, "half closed");
        site.write_all(b"end").unwrap();
        drop(site);
        let mut rest = String::new();
        answered.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "end");
        relaying.join().unwrap().unwrap();
    }

    #[test]
    fn it_is_said_whether_a_site_is_not_there_or_does_not_run() {
        let (site, path) = ("shop".parse().unwrap(), Path::new("/x"));
        let words = |kind| why(&site, path, &io::Error::from(kind));
        assert!(words(io::ErrorKind::NotFound).starts_with("there is no site shop here"));
        assert!(
            words(io::ErrorKind::ConnectionRefused).ends_with("systemctl status gaiola-machine")
        );
    }
}
