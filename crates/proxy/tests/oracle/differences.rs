//! Where Gaiola does otherwise than HAProxy, and why it should.

use super::record::{self, Transcripts};
use std::fmt::Write;

/// What Gaiola does, why, and the conversations in which it shows.
struct Difference {
    what: &'static str,
    why: &'static str,
    conversations: &'static [&'static str],
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "A line ends with CR LF",
        why: "Where one reader takes a bare line feed for the end of a line and the next one does not, they see two different messages: that is how requests are smuggled. RFC 9112 leaves the choice, and nothing in use needs the lenient one.",
        conversations: &[
            "bad request: a bare line feed as blank line",
            "bad request: a bare line feed as line end",
            "bad request: a bare line feed at the very end",
            "bad request: a bare line feed behind a chunk",
            "bad request: a bare line feed behind a chunk size",
            "bad request: a bare line feed behind the last chunk",
            "bad request: a bare line feed behind the request line",
            "bad request: a bare line feed first",
            "bad request: a chunk extension with a bare line feed",
            "bad request: lines that end with bare line feeds",
            "odd response: a bare line feed",
            "odd response: a bare line feed behind a chunk size",
            "odd response: lines that end with bare line feeds",
        ],
    },
    Difference {
        what: "A length is said once, as a plain number",
        why: "A message that says its length twice, in a list, or with something beside the number was made by something broken or someone hostile. RFC 9112, section 6.3, lets such a message be refused, even where both numbers are the same.",
        conversations: &[
            "bad request: a list of the same length",
            "bad request: the same length twice",
            "bad request: a length of a hundred digits",
            "bad request: a space behind a chunk size",
            "odd response: a list of the same length",
            "odd response: the same length twice",
            "odd response: spaces behind a chunk size",
        ],
    },
    Difference {
        what: "A length that no number holds is refused",
        why: "HAProxy takes 2^64 for 0 and sends it on, so that the body becomes the next request. Gaiola's lengths have 63 bits, for the sake of servers with signed numbers.",
        conversations: &["bad request: a length of 2^64"],
    },
    Difference {
        what: "Control bytes are refused",
        why: "RFC 9110, section 5.5, calls them dangerous and lets them be refused. A server or a log that ends a text at a NUL would see another one.",
        conversations: &[
            "bad request: a NUL in a value",
            "bad request: a control byte in a value",
            "bad request: a DEL in a value",
            "bad request: a chunk extension with a NUL",
            "bad request: a trailer with a NUL",
            "bad request: a Host with a control byte",
            "odd response: a NUL in a value",
            "odd response: a control byte in a value",
            "odd response: a control byte in the reason",
        ],
    },
    Difference {
        what: "Folded lines are refused",
        why: "RFC 9112, section 5.2, leaves the choice between refusing and unfolding. Unfolding changes the message, and no client has folded lines for years.",
        conversations: &[
            "bad request: a folded line",
            "bad request: a line folded with a tab",
            "bad request: a folded trailer",
            "odd response: a folded line",
        ],
    },
    Difference {
        what: "Trailers are bounded by their bytes",
        why: "HAProxy counts them as it counts fields; Gaiola keeps none, and lets 8 KB pass.",
        conversations: &["bad request: 150 trailers"],
    },
    Difference {
        what: "The first line has one form",
        why: "Single spaces, and a target in one of the forms of RFC 9112, section 3.2; one empty line before it is passed over, not several. HAProxy sends on what a server may read in another way.",
        conversations: &[
            "bad request: a tab for a space",
            "bad request: two spaces before the target",
            "bad request: two spaces before the version",
            "bad request: two empty lines first",
            "bad request: an asterisk for GET",
            "bad request: an absolute target with a user",
            "bad request: an absolute target without a host",
            "bad request: the target of another scheme",
            "odd response: an empty line first",
            "odd response: two spaces before the status",
        ],
    },
    Difference {
        what: "CONNECT is not served",
        why: "It requests a tunnel to any host, which a proxy for known servers cannot offer (RFC 9110, section 9.3.6: 501).",
        conversations: &["bad request: CONNECT"],
    },
    Difference {
        what: "Only HTTP/1.0 and 1.1 are spoken",
        why: "There is no other version that looks like them. HAProxy sends such messages on as 1.1, and 0.9 as it is.",
        conversations: &[
            "bad request: version 0.9",
            "bad request: version 1.2",
            "bad request: version 2.0",
            "odd response: version 0.9",
            "odd response: version 1.2",
            "odd response: version 2.0",
        ],
    },
    Difference {
        what: "A status has three digits, from 100 to 599",
        why: "RFC 9110, section 15, calls all others invalid. Clients make of them what they like; HAProxy takes one below 100 for an interim response and waits for another.",
        conversations: &[
            "odd response: a status of 600",
            "odd response: a status of 999",
            "odd response: a status below 100",
            "odd response: a status of four digits",
        ],
    },
    Difference {
        what: "Host occurs once and is a host with an optional port",
        why: "RFC 9112, section 3.2, demands 400 for the missing and the doubled one. For the others: what routes, caches and servers decide by must not be read in two ways.",
        conversations: &[
            "bad request: no Host",
            "bad request: an empty Host",
            "bad request: a Host of 300 letters",
            "bad request: a Host of brackets without an address",
            "bad request: a Host of two words",
            "bad request: a Host with a backslash",
            "bad request: a Host with a comma",
            "bad request: a Host with a fragment",
            "bad request: a Host with a path",
            "bad request: a Host with a port beyond 16 bits",
            "bad request: a Host with a port of letters",
            "bad request: a Host with a question mark",
            "bad request: a Host with a user",
            "bad request: a Host with two ports",
            "bad request: the same Host twice",
        ],
    },
    Difference {
        what: "What is too large is called so",
        why: "HAProxy says 400 to whatever does not fit into its buffer. A target may have 8 KB, a method 24 letters.",
        conversations: &[
            "bad request: 150 fields",
            "bad request: a field's name of 20 KB",
            "bad request: a head of 20 KB in 90 fields",
            "bad request: a head of 20 KB in one field",
            "bad request: a target of 10 KB",
            "bad request: a target of 20 KB",
            "bad request: a method of 40 letters",
        ],
    },
    Difference {
        what: "HTTP/1.0 knows no transfer codings",
        why: "A reader of that version does not look at the field, so that it sees another body. RFC 9112, section 6.1: the framing is faulty.",
        conversations: &[
            "bad request: chunked with HTTP/1.0",
            "odd response: chunked with HTTP/1.0",
        ],
    },
    Difference {
        what: "Transfer codings that are not served are 501, and the connection is closed",
        why: "As RFC 9112, section 6.1, has it. What follows on the connection is the body that was not read.",
        conversations: &[
            "bad request: gzip, then chunked",
            "bad request: identity, then chunked",
        ],
    },
    Difference {
        what: "A body is looked at when it is sent on",
        why: "The server's connection is chosen before that, and closed again without a request when the body turns out to be malformed. The client gets 400 from both.",
        conversations: &[
            "bad request: a bare carriage return behind a chunk size",
            "bad request: a chunk extension with a bare carriage return",
            "bad request: a chunk size beyond 64 bits",
            "bad request: a chunk size of 2^63",
            "bad request: a chunk size of two words",
            "bad request: a chunk size that is no number",
            "bad request: a chunk size with 0x",
            "bad request: a chunk size with a comma",
            "bad request: a chunk size with a plus",
            "bad request: a negative chunk size",
            "bad request: a space before a chunk size",
            "bad request: a trailer without a colon",
            "bad request: an empty chunk size",
            "bad request: more data than the chunk size",
            "bad request: no line end behind a chunk",
        ],
    },
    Difference {
        what: "No field resembles one of framing",
        why: "Servers that turn names into variables (CGI and its successors) do not distinguish `_` from `-`.",
        conversations: &[
            "bad request: an underscore in Content_Length",
            "bad request: an underscore in Transfer_Encoding",
        ],
    },
    Difference {
        what: "Each side gets our own version",
        why: "RFC 9110, section 2.5: an intermediary sends its own version. So the connections to servers are kept whatever clients speak, and `Host` is always said; what a client of HTTP/1.0 may not ask for (100-continue, Upgrade) is left out.",
        conversations: &[
            "HTTP/1.0 with a Host",
            "HTTP/1.0 with a body",
            "HTTP/1.0 without a Host",
            "edits of the request: another Host where there was none",
            "expect: with HTTP/1.0",
            "odd response: version 1.0",
            "response: of HTTP/1.0 until the end",
            "reuse: HTTP/1.0 after HTTP/1.1",
            "reuse: HTTP/1.0 closes",
            "reuse: HTTP/1.0 keeps the connection where asked",
            "reuse: HTTP/1.0, and a body without a length",
            "reuse: the server answers with HTTP/1.0",
            "reuse: the server answers with HTTP/1.0 and keeps the connection",
            "upgrade: with HTTP/1.0",
        ],
    },
    Difference {
        what: "A client of HTTP/1.0 gets what it can read",
        why: "No chunks and no interim responses (RFC 9110, section 15.2, and RFC 9112, section 6.1). HAProxy sends both.",
        conversations: &[
            "response: chunked with trailers, to HTTP/1.0",
            "response: chunked, to HTTP/1.0",
            "response: chunked, to HTTP/1.0 that would keep the connection",
            "response: interim, to HTTP/1.0",
        ],
    },
    Difference {
        what: "A target in absolute form is turned into host and path",
        why: "RFC 9112, section 3.2.2: its host counts, and `Host` is passed over. Servers get the form that all of them know. HAProxy refuses some of them and sends others on.",
        conversations: &[
            "edits of the request: another Host for an absolute target",
            "target: absolute, in capitals",
            "target: absolute, of another host",
            "target: absolute, of https",
            "target: absolute, of the same host",
            "target: absolute, with a port",
            "target: absolute, with a query and no path",
            "target: absolute, without a path",
            "target: absolute, without a path, for OPTIONS",
        ],
    },
    Difference {
        what: "What concerns one hop ends there",
        why: "RFC 9110, section 7.6.1: `Connection`, what it names, and `Keep-Alive`, `Proxy-*`, `TE`, and `Upgrade` where nothing is upgraded, are not sent on. Fields that framing, sessions and trust depend on stay, whatever `Connection` names. `Proxy` would become a variable that some servers believe.",
        conversations: &[
            "request fields: Connection names Authorization",
            "request fields: Connection names Content-Length",
            "request fields: Connection names Cookie",
            "request fields: Connection names Host",
            "request fields: Connection names X-Forwarded-For",
            "request fields: Connection names a field that is not there",
            "request fields: Keep-Alive",
            "request fields: Proxy",
            "request fields: Proxy-Authorization",
            "request fields: Proxy-Connection",
            "request fields: TE",
            "request fields: Upgrade to HTTP/2",
            "request fields: Upgrade without Connection",
            "request fields: a field that Connection names",
            "response fields: Connection names Set-Cookie",
            "edits of the response: Connection names what is set",
            "response fields: Connection: keep-alive",
            "response fields: Proxy-Authenticate",
            "response fields: Proxy-Connection",
            "response fields: Upgrade",
            "response fields: a field that Connection names",
            "reuse: the client closes among other options",
            "upgrade: without Connection",
        ],
    },
    Difference {
        what: "Chunk extensions pass",
        why: "Chunks are sent on as they came, so that no byte of a body is touched. Both proxies bound their length.",
        conversations: &["chunk extensions", "odd response: a chunk extension"],
    },
    Difference {
        what: "A response that begins before its request has ended closes the client's connection",
        why: "The response says so, before it is known whether the rest of the request will come. HAProxy keeps the connection and waits for the rest without a limit.",
        conversations: &[
            "early response: the client never sends the rest",
            "early response: the client sends the rest",
            "early response: the server closes",
            "early response: to a chunked request",
            "early response: within a response the request goes on",
            "expect: the server refuses",
            "expect: the server refuses and would keep the connection",
            "reuse: not after a response that came early",
        ],
    },
    Difference {
        what: "Nobody waits for 100 without a body",
        why: "RFC 9110, section 10.1.1: the expectation is for requests with content.",
        conversations: &["expect: without a body"],
    },
    Difference {
        what: "A server that fails after an interim response has not answered",
        why: "The request is sent again where it may be. HAProxy says 500.",
        conversations: &["retries: the first server breaks off after an interim response"],
    },
    Difference {
        what: "A spare server takes over at once",
        why: "Gaiola leaves a server out that refuses connections, checked or not, and a request's last attempt goes to a spare. HAProxy uses a `backup` only once checks have marked the others down.",
        conversations: &["retries: a spare server takes over"],
    },
    Difference {
        what: "A body that is no longer held closes the connection",
        why: "Of 200 KB a part is gone when the server hangs up, and the rest may still be on its way; the next response could not be distinguished from it.",
        conversations: &["retries: the first server hangs up on a PUT of 200 KB"],
    },
    Difference {
        what: "A client gets an error when its request failed",
        why: "HAProxy closes without a word when a connection was used before, so that the client may try again. Gaiola tries again itself, and then says 502.",
        conversations: &[
            "retries: a connection that was closed meanwhile, and a server that hangs up then",
        ],
    },
    Difference {
        what: "Weights are spread smoothly",
        why: "Of three requests two go to the heavier server in both, in another order.",
        conversations: &["reuse: two servers by weight"],
    },
    Difference {
        what: "Rules see the path that servers will",
        why: "It is compared decoded, without parameters such as `;x=1`, with dots and doubled slashes resolved, and the query's parameters are decoded: no spelling of a path passes by a rule. Where servers read it in several ways (`..;`) that lead to different routes, it is denied. In HAProxy `normalize-uri` and `url_dec` do this, where somebody thought of them.",
        conversations: &[
            "rules: a denied path behind a parameter alone",
            "rules: a denied path behind dots",
            "rules: a denied path behind dots with a parameter",
            "rules: a denied path behind two slashes",
            "rules: a denied path with a parameter",
            "rules: a parameter that is denied, percent-encoded",
        ],
    },
    Difference {
        what: "A field is left out in every spelling",
        why: "CGI, WSGI and PHP read `X_Set` and `X-Set` as one: a client's field would be read beside the one that a rule sets, or instead of the one that it removes.",
        conversations: &["edits of the request: spelled with underscores"],
    },
    Difference {
        what: "A request that goes round is ended",
        why: "One whose `Via` names this very proxy five times is answered 508. HAProxy says nothing in `Via` and sends it round until something is full.",
        conversations: &["request fields: Via, from itself again and again"],
    },
    Difference {
        what: "The challenge names its character set",
        why: "RFC 7617, section 2.1: so that browsers send names and passwords beyond ASCII as UTF-8.",
        conversations: &["rules: a wrong password", "rules: no password"],
    },
    Difference {
        what: "A cookie's value may be in quotes",
        why: "RFC 6265, section 4.1.1.",
        conversations: &["sticky: a name in quotes"],
    },
    Difference {
        what: "`nocache` speaks whenever the cookie is set",
        why: "HAProxy leaves `Cache-Control` out where it does not expect a cache to keep the response.",
        conversations: &["sticky: nocache, a new client"],
    },
    Difference {
        what: "A malformed PROXY header is refused",
        why: "HAProxy reads an address of 256 and a port of 100000 as other numbers.",
        conversations: &[
            "PROXY: version 1, a port too large",
            "PROXY: version 1, no address",
        ],
    },
    Difference {
        what: "A PROXY header may come in pieces",
        why: "TCP promises nothing else. HAProxy closes.",
        conversations: &["PROXY: version 2 in pieces"],
    },
    Difference {
        what: "A connection without its PROXY header is closed in order",
        why: "What came is read first, so that the end is no reset.",
        conversations: &[
            "PROXY: none",
            "PROXY: version 1 without an end",
            "PROXY: version 1, an address too few",
            "PROXY: version 1, ended by a line feed",
            "PROXY: version 2 of another version",
            "PROXY: version 2 that is too short",
        ],
    },
    Difference {
        what: "A reset within what ends with its connection is passed on, and nothing else resets",
        why: "HAProxy passes a server's reset on as an end in good order, and so an end of TLS without `close_notify`, so that the client takes a part for the whole (RFC 8446, section 6.1); and it resets servers where clients are merely silent. To a client with TLS it is passed on as an end without `close_notify`.",
        conversations: &[
            "TLS to servers: a response until a reset",
            "TLS to servers: a response until the end without close_notify",
            "TLS to servers: bytes, the server ends without close_notify",
            "TLS: a response that breaks off",
            "TLS: a response until the end, which is a reset",
            "TLS: bytes, the client ends without close_notify",
            "TLS: bytes, the server resets",
            "broken response: a body that ends with a reset",
            "bytes: the server resets",
            "upgrade: the server resets",
            "timeouts: a tunnel that idles",
        ],
    },
    Difference {
        what: "Servers' connections are closed, not reset, when clients leave",
        why: "The server notices either way: the framing shows that a body is incomplete.",
        conversations: &[
            "TLS: a reset within a body",
            "TLS: an end without close_notify within a body",
            "TLS: close_notify within a body",
            "the client resets within its body",
            "reuse: not after a response that the client left",
            "timeouts: the client leaves while the server thinks",
        ],
    },
    Difference {
        what: "Who closes within a request has gone",
        why: "It gets no response, and the rest is not forwarded. HAProxy answers 400 (with `option abortonclose`, which means the same as in Gaiola; without it, HAProxy continues with a complete request).",
        conversations: &[
            "TLS: an end without close_notify behind a request",
            "TLS: an end without close_notify within a head",
            "TLS: close_notify behind a request",
            "TLS: close_notify within a head",
            "the client sends no more after its request",
            "the client sends no more within its body",
            "the client sends no more within its head",
        ],
    },
    Difference {
        what: "The slow side gets an error",
        why: "HAProxy blames the server (504, once its own time is over) when a client does not send its body.",
        conversations: &[
            "timeouts: a body that does not come",
            "timeouts: a body that does not end",
            "timeouts: a chunked body that does not end",
        ],
    },
    Difference {
        what: "WebSocket is the server's business",
        why: "HAProxy looks at the key of a WebSocket; Gaiola passes every protocol on, and the server answers for its own.",
        conversations: &["upgrade: WebSocket without a key"],
    },
    Difference {
        what: "A tunnel has two directions",
        why: "HAProxy ends both with one of them (`option abortonclose`).",
        conversations: &["upgrade: the server sends no more"],
    },
    Difference {
        what: "A client that speaks none of the offered protocols is refused",
        why: "RFC 7301, section 3.2, demands the alert `no_application_protocol`. HAProxy continues as if the client had named no protocol.",
        conversations: &["TLS: ALPN of something unknown"],
    },
    Difference {
        what: "The alerts of TLS have other names",
        why: "They are those of rustls, HAProxy's are those of OpenSSL. Both close the connection. What is no TLS at all is answered with an alert too.",
        conversations: &[
            "TLS: a certificate is required, none, version 1.2",
            "TLS: a plain request",
            "TLS: garbage",
            "TLS: version 1.1",
        ],
    },
    Difference {
        what: "A certificate for another name is a failed connection like any other",
        why: "The server is tried again, and another one where there is one. HAProxy does so if the certificate's issuer is unknown or it has expired, and gives up at once here.",
        conversations: &["TLS to servers: a certificate for another name"],
    },
    Difference {
        what: "A request with a body may ask for another protocol",
        why: "HAProxy says 502 and keeps the connections open.",
        conversations: &["upgrade: with a body"],
    },
];

/// What is not as it is listed: conversations that differ without a reason, or have a reason and do not differ.
pub(crate) fn mistakes(haproxy: &Transcripts, gaiola: &Transcripts) -> Vec<String> {
    let listed: Vec<&str> = DIFFERENCES
        .iter()
        .flat_map(|difference| difference.conversations)
        .copied()
        .collect();
    let differing = record::differing(haproxy, gaiola).into_iter();
    let mut mistakes: Vec<_> = differing
        .filter(|(name, _)| !listed.contains(&&**name))
        .map(|(_, how)| how)
        .collect();
    for name in &listed {
        match (haproxy.get(*name), gaiola.get(*name)) {
            (_, None) => mistakes.push(format!(
                "{name}: listed as different, and there is no such conversation"
            )),
            (Some(one), Some(other)) if one == other => {
                mistakes.push(format!("{name}: listed as different, and both do the same"));
            }
            _ => {}
        }
        if listed.iter().filter(|other| other == &name).count() > 1 {
            mistakes.push(format!("{name}: listed twice"));
        }
    }
    mistakes
}

/// What Gaiola did in the conversations that are listed.
pub(crate) fn listed(gaiola: &Transcripts) -> Transcripts {
    let names = DIFFERENCES
        .iter()
        .flat_map(|difference| difference.conversations);
    let listed = names.filter_map(|name| gaiola.get_key_value(*name));
    listed
        .map(|(name, lines)| (name.clone(), lines.clone()))
        .collect()
}

/// The list for those who come from HAProxy.
pub(crate) fn document(haproxy: &Transcripts, gaiola: &Transcripts) -> String {
    let mut text = format!(
        "# Where Gaiola does otherwise than HAProxy\n\n\
         The same {} conversations go through HAProxy {} and through Gaiola, set up alike (`crates/proxy/tests/oracle`). In {} of them\n\
         client or servers see something else. Here they are, each with the reason; the exact observations are in `haproxy.txt` and\n\
         `gaiola.txt` there. The tests make this page, and fail when it is not what they see. Not compared is what is a matter of taste: the\n\
         words of answers that a proxy makes itself, `Date`, `Via` and `X-Request-ID`, the case and the order of field names, and how a\n\
         body is cut into chunks.\n",
        gaiola.len(),
        record::version(),
        listed(gaiola).len(),
    );
    for difference in DIFFERENCES {
        let _ = writeln!(text, "\n## {}\n\n{}\n", difference.what, difference.why);
        for name in difference.conversations {
            let (one, other) = told_apart(&haproxy[*name], &gaiola[*name]);
            let _ = writeln!(text, "- {name}: HAProxy {one}, Gaiola {other}");
        }
    }
    text
}

/// What the client saw in either; where that is the same, what is only in one of them.
fn told_apart(one: &[String], other: &[String]) -> (String, String) {
    let (of_one, of_other) = (outcome(one), outcome(other));
    if of_one != of_other {
        return (of_one, of_other);
    }
    let only = |these: &[String], those: &[String]| {
        let only: Vec<_> = these.iter().filter(|line| !those.contains(line)).collect();
        match only[..] {
            [] => "nothing more".to_owned(),
            [first, ..] => format!("`{}`", first.trim()),
        }
    };
    (only(one, other), only(other, one))
}

/// What the client saw, in words.
fn outcome(lines: &[String]) -> String {
    let of_client = lines.iter().take_while(|line| !line.starts_with("server "));
    let words =
        of_client.filter(|line| !line.starts_with([' ', '"']) || line.contains("broken off"));
    let words = words.map(|line| match line.strip_prefix("HTTP/1.") {
        Some(status) => status.get(2..5).unwrap_or_default(),
        None => line.split(',').next().unwrap_or_default().trim(),
    });
    words.collect::<Vec<_>>().join(", ")
}
