//! HAProxy's words and their equivalents in this file, for hints.

/// Its keyword, condition, option or algorithm, and the equivalent here. Words with the same meaning in both are listed
/// for lines in the syntax of `haproxy.cfg`.
pub(super) const WORDS: &[(&str, &str)] = &[
    // Sections.
    (
        "global",
        "keys at the top of the file: workers, access_log, control",
    ),
    ("defaults", "[timeouts]"),
    ("frontend", "[frontend.NAME]"),
    ("backend", "[backend.NAME]"),
    ("listen", "[frontend.NAME] and [backend.NAME]"),
    ("userlist", "[users.NAME]"),
    ("peers", "[peers]"),
    ("peer", "`others` of [peers]"),
    (
        "resolvers",
        "not needed: names are looked up when the file is read",
    ),
    (
        "nameserver",
        "not needed: names are looked up when the file is read",
    ),
    // The process.
    ("nbthread", "`workers` at the top of the file"),
    (
        "hard-stop-after",
        "`hard_stop_after` at the top of the file",
    ),
    (
        "expose-fd",
        "not needed: a new process always gets the sockets of the old one",
    ),
    (
        "master-worker",
        "not needed: HUP starts a new process where one is needed",
    ),
    (
        "mworker-max-reloads",
        "not needed: at most four old processes finish at a time",
    ),
    ("log", "`access_log` at the top of the file"),
    (
        "option httplog",
        "access_log = { to = \"...\", format = \"httplog\" }",
    ),
    (
        "option tcplog",
        "access_log = { to = \"...\", format = \"httplog\" }",
    ),
    (
        "stats",
        "`admin` at the top of the file for metrics, and `gaiola proxy ctl` for people",
    ),
    ("stats socket", "`control` at the top of the file"),
    // Timeouts.
    ("timeout client", "`client` of [timeouts]"),
    ("timeout connect", "`connect` of [timeouts]"),
    ("timeout server", "`server` of [timeouts]"),
    ("timeout queue", "`queue` of [timeouts]"),
    ("timeout tunnel", "`tunnel` of [timeouts]"),
    ("timeout check", "`timeout` of [backend.NAME.check]"),
    ("timeout http-request", "`http_request` of [timeouts]"),
    ("timeout http-keep-alive", "`http_keep_alive` of [timeouts]"),
    ("timeout", "a key of [timeouts]"),
    ("tcp-ut", "`tcp_user` of [timeouts]"),
    ("pool-purge-delay", "`pool` of [timeouts]"),
    // Frontends.
    ("bind", "bind = \"ADDRESS:PORT\" of [frontend.NAME]"),
    ("mode", "mode = \"http\" or \"tcp\" of [frontend.NAME]"),
    ("default_backend", "`backend` of [frontend.NAME]"),
    (
        "use_backend",
        "[[frontend.NAME.route]] with its conditions and `backend`",
    ),
    (
        "acl",
        "a condition of [[frontend.NAME.route]]: host, path, method, header, query, source",
    ),
    ("errorfile", "`error_pages` of [frontend.NAME]"),
    (
        "accept-proxy",
        "`accept_proxy` of [frontend.NAME]: the networks that send the header",
    ),
    ("crt", "`certificates` of tls = { ... } at a bind"),
    ("crt-list", "`certificates` of tls = { ... } at a bind"),
    ("ssl", "tls = { ... } at a bind, tls = true at a server"),
    ("ssl-min-ver", "`min_version` of tls = { ... } at a bind"),
    ("compression", "`compress` of [frontend.NAME]"),
    (
        "option forwardfor",
        "not needed: X-Forwarded-For is sent to every server",
    ),
    // Conditions.
    ("path_beg", "`path` of a route, which takes whole segments"),
    ("path_dir", "`path_regex` of a route"),
    ("path_end", "`path_regex` of a route, such as \"[.]php$\""),
    ("path_sub", "`path_regex` of a route"),
    ("path_reg", "`path_regex` of a route"),
    ("hdr", "`header` of a route, or `host`"),
    ("hdr(host)", "`host` of a route"),
    ("hdr_dom", "`host` of a route, such as \"*.example.com\""),
    ("req.hdr", "`header` of a route"),
    ("src", "`source` of a route"),
    ("url_param", "`query` of a route"),
    ("urlp", "`query` of a route"),
    ("req.ssl_sni", "[[frontend.NAME.sni]]"),
    ("req_ssl_sni", "[[frontend.NAME.sni]]"),
    // Rules.
    (
        "http-request",
        "a [[frontend.NAME.rule]], or a `rule` of a route",
    ),
    (
        "http-response",
        "a [[frontend.NAME.rule]], or a `rule` of a route",
    ),
    (
        "tcp-request",
        "`connection_limit` of [frontend.NAME], or [[frontend.NAME.sni]]",
    ),
    ("redirect", "the rule { redirect = \"...\" }"),
    (
        "stick-table",
        "[limit.NAME] for counts, [backend.NAME.sticky] to stay at a server",
    ),
    ("stick", "[backend.NAME.sticky]"),
    ("track-sc0", "the rule { limit = \"NAME\" }"),
    (
        "rate-limit",
        "[limit.NAME], and the rule { limit = \"NAME\" }",
    ),
    // Backends.
    (
        "server",
        "a line NAME = \"ADDRESS:PORT\" of [backend.NAME.server]",
    ),
    ("default-server", "said at each server"),
    ("balance", "`balance` of [backend.NAME]"),
    ("roundrobin", "balance = \"roundrobin\" of [backend.NAME]"),
    ("static-rr", "balance = \"roundrobin\" of [backend.NAME]"),
    ("leastconn", "balance = \"leastconn\" of [backend.NAME]"),
    ("source", "balance = \"hash\" of [backend.NAME]"),
    (
        "uri",
        "balance = \"hash\" of [backend.NAME], with hash = { on = \"uri\" }",
    ),
    ("hash-type", "not needed: balance = \"hash\" is consistent"),
    ("hash-balance-factor", "`bound` of hash = { ... }"),
    ("cookie", "[backend.NAME.sticky]"),
    ("dynamic-cookie-key", "`key` of [backend.NAME.sticky]"),
    ("maxidle", "`max_idle` of [backend.NAME.sticky]"),
    ("maxlife", "`max_life` of [backend.NAME.sticky]"),
    ("fullconn", "`maxconn` of each server"),
    ("minconn", "`maxconn` of each server"),
    ("maxqueue", "`queue_size` of [backend.NAME]"),
    ("option allbackups", "`all_spares` of [backend.NAME]"),
    (
        "option redispatch",
        "not needed: what may be sent again goes to another server",
    ),
    (
        "retries",
        "not needed: what may be sent again is sent again",
    ),
    ("on-marked-down", "`on_marked_down` of [backend.NAME]"),
    ("slowstart", "`slow_start` of [backend.NAME]"),
    // Servers and their checks.
    ("backup", "`spare` of a server"),
    (
        "ca-file",
        "`ca` of a server's tls = { ... }, or `client_ca` of a bind's",
    ),
    ("verifyhost", "`host` of a server's tls = { ... }"),
    ("send-proxy", "send_proxy = \"v1\" of a server"),
    ("send-proxy-v2", "send_proxy = \"v2\" of a server"),
    (
        "option httpchk",
        "`check` of [backend.NAME], such as \"/up\"",
    ),
    ("httpchk", "`check` of [backend.NAME], such as \"/up\""),
    (
        "http-check",
        "`check` of [backend.NAME], with `path`, `host`, `headers` and `status`",
    ),
    (
        "unique-id-header",
        "`return_request_id` of [frontend.NAME]; servers get X-Request-ID anyway",
    ),
    (
        "observe",
        "ejection = { observe = \"layer7\" } of [backend.NAME]",
    ),
    (
        "error-limit",
        "ejection = { error_limit = 10 } of [backend.NAME]",
    ),
    ("option tcp-check", "check = \"tcp\" of [backend.NAME]"),
    ("option ssl-hello-chk", "check = \"tls\" of [backend.NAME]"),
    (
        "option pgsql-check",
        "check = { kind = \"postgres\", user = \"NAME\" } of [backend.NAME]",
    ),
    (
        "option",
        "said by keys of the frontend or backend; docs/proxy.md has a table of them",
    ),
    ("inter", "`interval` of [backend.NAME.check]"),
    ("fastinter", "`fast_interval` of [backend.NAME.check]"),
    (
        "downinter",
        "`interval` of [backend.NAME.check], whether the server is up or down",
    ),
];
