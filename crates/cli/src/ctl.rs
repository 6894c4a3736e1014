//! `gaiola proxy ctl`: queries a proxy over its control socket and changes its servers, in HAProxy's terms.

mod tables;

use crate::args::{CTL_HELP, Ctl, Global};
use crate::output::{self, Exit};
use anyhow::{Context as _, anyhow, bail};
use gaiola_model::proxy::{Admin, ControlReply, ControlRequest, ProxyStat, ServerOrder};
use gaiola_model::schema::SCHEMA;
use gaiola_wire::document::{decode_message, encode_message};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The connection ended before the response.
const CLOSED: &str = "the proxy closed the connection without a response; is it stopping?";

/// The response cannot be decoded.
const UNREADABLE: &str = "cannot decode the proxy's response; is it another version?";

/// The response belongs to another kind of request.
const OTHER_KIND: &str = "unexpected response from the proxy; is it another version?";

/// Timeout of a response: a worker may take five seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// `gaiola proxy ctl`.
pub(crate) fn ctl(global: &Global, ctl: &Ctl) -> anyhow::Result<Exit> {
    // The order may also be one quoted argument, as for HAProxy's socket.
    let words = ctl.order.iter().flat_map(|word| word.split_whitespace());
    let words: Vec<&str> = words.collect();
    let command = match parse(&words) {
        Ok(command) => command,
        Err(wrong) => {
            eprint_line!("gaiola: {wrong}\n\n{CTL_HELP}");
            return Ok(Exit::Usage);
        }
    };
    let limit = global.timeout.min(ANSWER_LIMIT);
    match command {
        CtlCommand::Change(request) => match ask(&ctl.socket, &request, limit)? {
            ControlReply::Done if global.json => print_line!("{}", serde_json::json!({})),
            ControlReply::Done => {}
            _ => bail!("{OTHER_KIND}"),
        },
        CtlCommand::Sessions => match ask(&ctl.socket, &ControlRequest::Sessions, limit)? {
            ControlReply::Sessions(stat) if global.json => {
                print_line!("{}", serde_json::to_string_pretty(&stat)?);
            }
            ControlReply::Sessions(stat) => output::print(&tables::sessions(&stat)),
            other => bail!("the proxy answered {other:?}"),
        },
        CtlCommand::Show(what) => match ask(&ctl.socket, &ControlRequest::Stat, limit)? {
            ControlReply::Stat(stat) if global.json => print_line!("{}", what.json(&stat)?),
            ControlReply::Stat(stat) => output::print(&what.table(&stat)),
            _ => bail!("{OTHER_KIND}"),
        },
    }
    Ok(Exit::Ok)
}

/// A parsed order.
#[derive(Debug, PartialEq, Eq)]
enum CtlCommand {
    Show(Show),
    Sessions,
    Change(ControlRequest),
}

/// What `show` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Servers,
    Stat,
    Limits,
}

impl Show {
    fn table(self, stat: &ProxyStat) -> String {
        match self {
            Self::Servers => tables::servers(stat),
            Self::Stat => tables::stat(stat),
            Self::Limits => tables::limits(stat),
        }
    }

    fn json(self, stat: &ProxyStat) -> serde_json::Result<String> {
        match self {
            Self::Servers => serde_json::to_string_pretty(&stat.servers),
            Self::Stat => serde_json::to_string_pretty(stat),
            Self::Limits => serde_json::to_string_pretty(&stat.limits),
        }
    }
}

fn parse(words: &[&str]) -> anyhow::Result<CtlCommand> {
    let state = |at, admin| server(at, ServerOrder::State(admin));
    match *words {
        ["show", "servers"] | ["show", "servers", "state"] => Ok(CtlCommand::Show(Show::Servers)),
        ["show", "stat"] => Ok(CtlCommand::Show(Show::Stat)),
        ["show", "sessions" | "sess"] => Ok(CtlCommand::Sessions),
        ["show", "limits"] => Ok(CtlCommand::Show(Show::Limits)),
        ["set", "weight", at, n] | ["set", "server", at, "weight", n] => {
            let weight = n.parse().ok().filter(|weight| *weight <= 256);
            let weight =
                weight.with_context(|| format!("{n:?} is not a weight: write 0 to 256"))?;
            server(at, ServerOrder::Weight(weight))
        }
        ["drain", at] | ["set", "server", at, "state", "drain"] => state(at, Admin::Drain),
        ["ready", at] | ["enable", "server", at] | ["set", "server", at, "state", "ready"] => {
            state(at, Admin::Ready)
        }
        ["maint", at] | ["disable", "server", at] | ["set", "server", at, "state", "maint"] => {
            state(at, Admin::Maint)
        }
        ["shutdown", "sessions", "server", at] => server(at, ServerOrder::EndSessions),
        ["clear", "limit", name, ref key @ ..] if key.len() <= 1 => {
            Ok(CtlCommand::Change(ControlRequest::ClearLimit {
                name: name.into(),
                key: key.first().map(|key| (*key).to_owned()),
            }))
        }
        _ => bail!(unknown(words)),
    }
}

/// The syntax of the orders that begin with these words.
const FORMS: [(&[&str], &str); 11] = [
    (&["show"], "show servers, stat, sessions or limits"),
    (
        &["set", "weight"],
        "set weight BACKEND/SERVER N, with N from 0 to 256",
    ),
    (
        &["set", "server"],
        "set server BACKEND/SERVER state ready, drain or maint, or set server BACKEND/SERVER weight N",
    ),
    (
        &["set"],
        "set weight BACKEND/SERVER N, or set server BACKEND/SERVER state ready, drain or maint",
    ),
    (&["drain"], "drain BACKEND/SERVER, one at a time"),
    (&["ready"], "ready BACKEND/SERVER, one at a time"),
    (&["maint"], "maint BACKEND/SERVER, one at a time"),
    (
        &["shutdown"],
        "shutdown sessions server BACKEND/SERVER; it closes all sessions of a server, not a single one",
    ),
    (&["clear"], "clear limit NAME, or clear limit NAME KEY"),
    (
        &["enable"],
        "enable server BACKEND/SERVER; only servers can be enabled at run time",
    ),
    (
        &["disable"],
        "disable server BACKEND/SERVER; only servers can be disabled at run time",
    ),
];

fn server(at: &str, order: ServerOrder) -> anyhow::Result<CtlCommand> {
    let Some((backend, server)) = at.split_once('/') else {
        bail!("{at:?} is not a server; write BACKEND/SERVER, such as app/app1");
    };
    Ok(CtlCommand::Change(ControlRequest::SetServer {
        backend: backend.into(),
        server: server.into(),
        order,
    }))
}

fn unknown(words: &[&str]) -> String {
    const FIRST: [&str; 9] = [
        "show", "set", "drain", "ready", "maint", "shutdown", "clear", "enable", "disable",
    ];
    const SHOWN: [&str; 4] = ["servers", "stat", "sessions", "limits"];
    let (known, word) = match *words {
        ["show", what, ..] => (&SHOWN[..], what),
        [first, ..] => (&FIRST[..], first),
        [] => (&FIRST[..], ""),
    };
    let form = FORMS.iter().find(|(begin, _)| words.starts_with(begin));
    let advice = match (gaiola_wire::closest(word, known), form) {
        (Some(meant), _) if meant != word => format!("did you mean `{meant}`?"),
        (_, Some((_, form))) => format!("write {form}"),
        (_, None) => format!("an order begins with {}", FIRST.join(", ")),
    };
    format!("`{}` is not an order; {advice}", words.join(" "))
}

/// Sends a request to the proxy; a refusal is an error.
fn ask(socket: &Path, request: &ControlRequest, limit: Duration) -> anyhow::Result<ControlReply> {
    let why = || format!("cannot query the proxy at {}", socket.display());
    let stream = UnixStream::connect(socket).map_err(|error| anyhow!(not_connected(error)));
    let asked = stream.and_then(|stream| exchange(stream, request, limit));
    match asked.with_context(why)? {
        ControlReply::Refused(reason) => bail!("{reason}"),
        reply => Ok(reply),
    }
}

fn exchange(
    mut stream: UnixStream,
    request: &ControlRequest,
    limit: Duration,
) -> anyhow::Result<ControlReply> {
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut line = encode_message(request, SCHEMA)?;
    line.push(b'\n');
    let mut reply = String::new();
    let read = stream
        .write_all(&line)
        .and_then(|()| BufReader::new(stream).read_line(&mut reply))
        .map_err(|error| anyhow!(not_answered(error, limit)))?;
    if read == 0 {
        bail!(CLOSED);
    }
    let (reply, _) = decode_message(reply.as_bytes()).context(UNREADABLE)?;
    Ok(reply)
}

/// Why the connection failed, and what to check.
fn not_connected(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "no such socket; is the proxy running, and is this the `control` of its file?".into()
        }
        io::ErrorKind::ConnectionRefused => "nobody listens there; is the proxy running?".into(),
        io::ErrorKind::PermissionDenied => "permission denied: run as the proxy's user".into(),
        _ => error.to_string(),
    }
}

/// Why a listening proxy did not respond.
fn not_answered(error: io::Error, limit: Duration) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no response within {limit:?}")
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CLOSED.into(),
        io::ErrorKind::InvalidData => UNREADABLE.into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::thread;

    fn read(text: &str) -> anyhow::Result<CtlCommand> {
        parse(&text.split(' ').collect::<Vec<_>>())
    }

    fn change(order: ServerOrder) -> CtlCommand {
        server("app/app1", order).unwrap()
    }

    #[test]
    fn haproxys_words_and_ours_say_the_same() {
        for (text, order) in [
            ("drain app/app1", ServerOrder::State(Admin::Drain)),
            (
                "set server app/app1 state drain",
                ServerOrder::State(Admin::Drain),
            ),
            ("ready app/app1", ServerOrder::State(Admin::Ready)),
            ("enable server app/app1", ServerOrder::State(Admin::Ready)),
            ("disable server app/app1", ServerOrder::State(Admin::Maint)),
            ("set weight app/app1 256", ServerOrder::Weight(256)),
            ("set server app/app1 weight 0", ServerOrder::Weight(0)),
            (
                "shutdown sessions server app/app1",
                ServerOrder::EndSessions,
            ),
        ] {
            assert_eq!(read(text).unwrap(), change(order), "{text}");
        }
        assert_eq!(read("show stat").unwrap(), CtlCommand::Show(Show::Stat));
        let cleared = |key: Option<&str>| {
            CtlCommand::Change(ControlRequest::ClearLimit {
                name: "login".into(),
                key: key.map(str::to_owned),
            })
        };
        assert_eq!(read("clear limit login").unwrap(), cleared(None));
        assert_eq!(
            read("clear limit login 192.0.2.1").unwrap(),
            cleared(Some("192.0.2.1"))
        );
    }

    #[test]
    fn what_is_wrong_is_reported() {
        for (text, words) in [
            ("show server", "did you mean `servers`?"),
            ("shwo stat", "did you mean `show`?"),
            ("set weight app/app1 257", "0 to 256"),
            ("drain app1", "BACKEND/SERVER"),
            (
                "set server app/app1 state down",
                "is not an order; write set server BACKEND/SERVER state ready, drain or maint",
            ),
            ("set maxconn 5", "write set weight BACKEND/SERVER N"),
            (
                "clear limit a b c",
                "is not an order; write clear limit NAME",
            ),
            (
                "shutdown session 5",
                "write shutdown sessions server BACKEND/SERVER",
            ),
            ("disable frontend www", "only servers can be disabled"),
            ("drain a/b c/d", "one at a time"),
            ("show", "write show servers, stat, sessions or limits"),
            ("foo bar", "an order begins with show, set, drain"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn why_there_is_no_answer_is_reported() {
        let why = |serve: fn(UnixStream)| {
            let (stream, served) = UnixStream::pair().unwrap();
            let limit = Duration::from_millis(200);
            let asked = thread::scope(|scope| {
                scope.spawn(|| serve(served));
                exchange(stream, &ControlRequest::Stat, limit)
            });
            asked.unwrap_err().to_string()
        };
        let silent = |mut stream: UnixStream| {
            stream.read_to_end(&mut Vec::new()).unwrap();
        };
        assert_eq!(why(silent), "no response within 200ms");
        let closed = |stream: UnixStream| {
            BufReader::new(stream)
                .read_line(&mut String::new())
                .unwrap();
        };
        assert_eq!(why(closed), CLOSED);
        // Unread bytes turn the close into a reset.
        let reset = |mut stream: UnixStream| stream.read_exact(&mut [0]).unwrap();
        assert_eq!(why(reset), CLOSED);
        let unreadable = |mut stream: UnixStream| {
            stream.write_all(b"\xff\n").unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        };
        assert_eq!(why(unreadable), UNREADABLE);
    }
}
