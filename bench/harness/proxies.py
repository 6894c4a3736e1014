"""The three proxies and the origin behind them, each with the same features enabled: timeouts, health checks (nginx has none), request
ids, X-Forwarded-For, metrics, and optionally an access log. Each must prove these before it is measured."""

import json, os, ssl, subprocess, time, urllib.request
from dataclasses import dataclass
from pathlib import Path

from .client import Client, client_context
from .process import NotMeasured, Process, find, most_files

ORIGIN_PORT, ORIGIN_STATUS_PORT = 9001, 9002
FILES = {"100": 100, "16k": 16 << 10, "1m": 1 << 20}
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")  # a separate package in Debian
IDLE_SECONDS = 600  # of keep-alive connections; HAProxy applies `timeout client` to them too


@dataclass(frozen=True)
class Site:
    """The configuration that all proxies get."""

    mode: str = "http"  # or "tcp"
    tls: str = ""  # the kind of certificate: "ecdsa" or "rsa"
    servers: int = 2
    routes: int = 1  # the last one takes every path
    splice: bool = False  # for HAProxy; Gaiola decides by itself
    maxconn: int = 4096  # of all processes
    keys: int = 0  # clients in X-Forwarded-For; each may send one request per hour (nginx: per minute)
    check_seconds: float = 0.5

    def addresses(self):
        """127.1.0.1, 127.1.0.2 and so on; the origin listens on all of them."""
        return [f"127.1.{number // 250}.{number % 250 + 1}:{ORIGIN_PORT}" for number in range(self.servers)]

    def prefixes(self):
        return [f"/part{number}/" for number in range(self.routes - 1)] + ["/"]


@dataclass(frozen=True)
class Setting:
    """Where and how a row is measured."""

    place: Path  # a temporary directory
    gaiola: Path
    threads: int
    logs: bool
    proxy_cpus: str
    load_cpus: str


class Proxy:
    """A running proxy. `text` is its configuration; it listens on `port` and `admin`. It is one process, or, if the limit of open files
    is too low for its connections, several processes that share the port."""

    port = admin = 0
    suffix = "conf"  # of its stored configuration's name

    def __init__(self, name, setting, site):
        self.name, self.setting, self.site = name, setting, site
        self.count = -(-site.maxconn // most_files())
        self.maxconn = site.maxconn if self.count == 1 else most_files() + 1000  # the kernel does not distribute them evenly
        self.place, self.threads, self.load_cpus = setting.place, setting.threads, setting.load_cpus
        self.folder = setting.place / name.replace(" ", "-")
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o777)  # nginx's workers may run as another user
        self.log = self.folder / "access.log"
        self.log.touch()
        self.log.chmod(0o666)
        self.text = self.configuration()
        self.process = self.start()
        try:
            self.wait_until_it_serves()
            self.facts = self.prove()
        except NotMeasured:
            self.stop()
            raise
        except ssl.SSLError as error:
            self.stop()
            raise NotMeasured(f"it takes no TLS as it is configured here ({error.reason or error})") from None
        except OSError as error:
            said = self.process.last_words()
            self.stop()
            raise NotMeasured(f"no answer as asked for: {error}; it said: {said}") from None

    def stop(self):
        self.process.stop()

    def checks(self):
        """Health checks per second that the origin answers."""
        return self.site.servers / self.site.check_seconds if self.site.mode == "http" else 0

    def url(self, path):
        return f"{'https' if self.site.tls else 'http'}://127.0.0.1:{self.port}{path}"

    def wait_until_it_serves(self):
        self.process.wait_for(self.admin)
        self.process.wait_for(self.port)

    def take_log(self):
        """Returns the number of logged lines and empties the log."""
        lines = 0
        for log in self.folder.glob("access.log*"):
            with open(log, "rb") as file:
                while block := file.read(1 << 20):
                    lines += block.count(b"\n")
            os.truncate(log, 0)
        return lines

    def prove(self):
        """Checks every feature once, so that no proxy is compared with one that does less. Returns what was negotiated."""
        client = Client(self.port, client_context() if self.site.tls else None)
        facts = {"tls": [client.tls.version(), client.tls.cipher()[0]]} if self.site.tls else {}
        for path, size in FILES.items():
            status, _, body = client.get(f"/{path}")
            if status != 200 or len(body) != size:
                raise NotMeasured(f"/{path} was answered {status} with {len(body)} bytes")
        if self.site.mode == "http":
            _, _, seen = client.get("/seen")
            forwarded, request_id = seen.decode().split("|")
            if forwarded != "127.0.0.1" or len(request_id) < 16:
                raise NotMeasured(f"the origin saw X-Forwarded-For {forwarded!r} and X-Request-ID {request_id!r}")
        client.close()
        self.metrics()
        if self.setting.logs:
            self.wait_for_log()
        return facts

    def metrics(self):
        if not fetched(self.admin, "/metrics"):
            raise NotMeasured("it serves no metrics")

    def wait_for_log(self):
        deadline = time.monotonic() + 5
        while not self.log.stat().st_size:
            if time.monotonic() > deadline:
                raise NotMeasured("it has logged nothing")
            time.sleep(0.05)
        self.take_log()


class Gaiola(Proxy):
    port, admin = 8001, 8101
    suffix = "toml"

    def start(self):
        commands = []
        for number, admin in enumerate(self.admins()):
            config = self.folder / (f"proxy{number}.toml" if number else "proxy.toml")
            config.write_text(self.text.replace(quoted(f"127.0.0.1:{self.admin}"), quoted(f"127.0.0.1:{admin}"), 1))
            commands.append([self.setting.gaiola, "proxy", "-f", config])
        return Process(self.setting.proxy_cpus, commands, self.folder)

    def admins(self):
        """The ports of the processes' metrics, in which alone their files differ."""
        return [self.admin + 10 * number for number in range(self.count)]

    def configuration(self):
        site = self.site
        log = f"access_log = {quoted(self.log)}\n" if self.setting.logs else ""
        trust = 'trust = "127.0.0.0/8"\n' if site.keys else ""
        tls = f", tls = {{ certificates = {quoted(certificate(self.place, site.tls))} }}" if site.tls else ""
        routes = "".join(f"""
[[frontend.front.route]]
path = {quoted(prefix)}
backend = "origin"
""" for prefix in site.prefixes()[:-1])
        limit = f"""
[[frontend.front.route]]
header = {{ X-Forwarded-For = true }}
rule = [{{ limit = "keys" }}]
backend = "origin"

[limit.keys]
by = "source"
rate = "1/h"
keys = {site.keys}
""" if site.keys else ""
        kind = 'path = "/100"' if site.mode == "http" else 'kind = "tcp"'
        servers = "\n".join(f"s{number} = {quoted(address)}" for number, address in enumerate(site.addresses()))
        return f"""name = "bench"
workers = {self.threads}
admin = "127.0.0.1:{self.admin}"
{log}
[timeouts]
http_request = "10s"
http_keep_alive = "{IDLE_SECONDS}s"
client = "30s"
tunnel = "1h"
connect = "500ms"
server = "30s"
queue = "5s"
tcp_user = "1s"
pool = "30s"

[frontend.front]
mode = {quoted(site.mode)}
bind = [{{ address = "127.0.0.1:{self.port}"{tls} }}]
maxconn = {self.maxconn}
{trust}backend = "origin"
{routes}{limit}
[backend.origin]
balance = "roundrobin"
on_marked_down = "close-pooled"
queue_size = 1024
queue_when_down = false

[backend.origin.check]
{kind}
interval = "{round(site.check_seconds * 1000)}ms"
fast_interval = "200ms"
connect = "500ms"
timeout = "1s"
rise = 2
fall = 2

[backend.origin.server]
{servers}
"""

    def wait_until_it_serves(self):
        for admin in self.admins():
            self.process.wait_until(lambda: fetched(admin, "/readyz"), f"port {admin} is not ready")


class HAProxy(Proxy):
    port, admin = 8002, 8102

    def start(self):
        config = self.folder / "haproxy.cfg"
        config.write_text(self.text)
        # One `writev` per line to a file costs HAProxy less than a datagram to a log server, whose cost would have to be included.
        with open(self.log, "a") as log:
            return Process(self.setting.proxy_cpus, [["haproxy", "-db", "-f", config]] * self.count, self.folder, stdout=log)

    def configuration(self):
        site, http = self.site, self.site.mode == "http"
        logs = {
            (False, True): "", (False, False): "",
            (True, True): 'log global\n  log-format "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r %ID"',
            (True, False): "log global\n  option tcplog",
        }[(self.setting.logs, http)]
        of_http = "option forwardfor\n  http-reuse always\n  unique-id-format %[uuid()]\n  unique-id-header X-Request-ID" if http else ""
        tls = f"ssl crt {certificate(self.place, site.tls)}" if site.tls else ""
        check = "option httpchk GET /100" if http else ""
        of_server = f"check inter {round(site.check_seconds * 1000)} {'pool-purge-delay 30s' if http else ''}"
        servers = "\n".join(f"  server s{number} {address} {of_server}" for number, address in enumerate(site.addresses()))
        limit = f"""stick-table type ip size {site.keys} expire 1h store http_req_rate(1h)
  http-request track-sc0 hdr_ip(X-Forwarded-For)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1 }}"""
        routes = self.folder / "routes.map"
        routes.write_text("".join(f"{prefix} origin\n" for prefix in site.prefixes()))
        route = f"use_backend %[path,map_beg({routes},origin)]" if site.routes > 1 else "default_backend origin"
        return f"""global
  nbthread {self.threads}
  maxconn {self.maxconn}
  no strict-limits
  tune.pool-high-fd-ratio 95
  tune.pool-low-fd-ratio 90
  {"tune.pipesize 1048576" if site.splice else ""}
  {"log stdout format raw daemon" if self.setting.logs else ""}
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode {site.mode}
  timeout connect 500ms
  timeout client {IDLE_SECONDS}s
  timeout server 30s
  timeout queue 5s
  timeout http-request 10s
  timeout http-keep-alive {IDLE_SECONDS}s
  timeout tunnel 1h
  {"option splice-request" if site.splice else ""}
  {"option splice-response" if site.splice else ""}
  {of_http}
frontend front
  bind 127.0.0.1:{self.port} {tls}
  {logs}
  {limit if site.keys else ""}
  {route}
backend origin
  {check}
{servers}
frontend metrics
  mode http
  bind 127.0.0.1:{self.admin}
  http-request use-service prometheus-exporter if {{ path /metrics }}
"""


class Nginx(Proxy):
    port, admin = 8003, 8103

    def checks(self):
        return 0

    def start(self):
        return start_nginx(self.folder, self.setting.proxy_cpus, self.text)

    def configuration(self):
        site = self.site
        workers = max(self.threads, self.count)
        servers = " ".join(f"server {address};" for address in site.addresses())
        listen = f"listen 127.0.0.1:{self.port} reuseport backlog=4096"
        metrics = f"server {{ listen 127.0.0.1:{self.admin}; location /metrics {{ stub_status; access_log off; }} }}"
        log = f"access_log {self.log} bench buffer=64k flush=200ms;" if self.setting.logs else "access_log off;"
        if site.mode == "tcp":
            return nginx_text(self.folder, workers, self.maxconn, metrics, f"""
stream {{
  log_format bench '$remote_addr [$time_local] $status $bytes_sent $bytes_received $session_time $upstream_addr';
  {log}
  upstream origin {{ {servers} }}
  server {{ {listen}; proxy_connect_timeout 500ms; proxy_timeout 1h; proxy_buffer_size 64k; proxy_pass origin; }}
}}""")
        tls = f"ssl_certificate {(pem := certificate(self.place, site.tls))}; ssl_certificate_key {pem}; ssl_protocols TLSv1.2 TLSv1.3;" if site.tls else ""
        locations = "\n    ".join(f"location {prefix} {{ proxy_pass http://origin; }}" for prefix in site.prefixes())
        limits = "limit_req_zone $http_x_forwarded_for zone=keys:32m rate=1r/m; limit_req zone=keys; limit_req_status 429;" if site.keys else ""
        return nginx_text(self.folder, workers, self.maxconn, f"""
  log_format bench '$remote_addr [$time_iso8601] "$request" $status $bytes_sent $request_time $upstream_addr $upstream_connect_time $upstream_response_time $request_id';
  {log}
  {limits}
  upstream origin {{ {servers} keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    {listen} {"ssl" if tls else ""}; {tls}
    client_header_timeout 10s; proxy_connect_timeout 500ms; proxy_read_timeout 30s; proxy_send_timeout 30s;
    proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Request-ID $request_id;
    proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_max_temp_file_size 0;
    {locations}
  }}
  {metrics}""")


class Floor(Proxy):
    """Only copies bytes: the system calls that every proxy needs."""

    port = admin = 8005

    def checks(self):
        return 0

    def configuration(self):
        return " ".join([str(self.port), *self.site.addresses()])

    def start(self):
        relay = self.setting.gaiola.parent / "examples" / "relay"
        if not relay.exists():
            raise NotMeasured("it is not built: cargo build --release -p gaiola-proxy --example relay")
        return Process(self.setting.proxy_cpus, [[relay, *self.text.split()]], self.folder)

    def prove(self):
        status, _, body = Client(self.port).get("/16k")
        if status != 200 or len(body) != FILES["16k"]:
            raise NotMeasured(f"/16k was answered {status} with {len(body)} bytes")
        return {}


PROXIES = {"gaiola": Gaiola, "haproxy": HAProxy, "nginx": Nginx, "floor": Floor}


class Origin:
    """nginx with files of fixed sizes; `/seen` returns the client address and request id that it received."""

    def __init__(self, setting):
        folder, files = setting.place / "origin", setting.place / "files"
        for made in (folder, files):
            made.mkdir(exist_ok=True)
        for name, size in FILES.items():
            (files / name).write_bytes(b"x" * size)
        self.text = nginx_text(folder, setting.threads, 16384, f"""
  access_log off;
  server {{
    listen {ORIGIN_PORT} reuseport backlog=4096; root {files}; open_file_cache max=10;
    location = /seen {{ return 200 "$http_x_forwarded_for|$http_x_request_id"; }}
  }}
  server {{ listen 127.0.0.1:{ORIGIN_STATUS_PORT}; location / {{ stub_status; }} }}""")
        self.process = start_nginx(folder, setting.load_cpus, self.text)
        self.process.wait_for(ORIGIN_PORT)
        self.status = Client(ORIGIN_STATUS_PORT)

    def requests(self):
        """The number of requests answered so far, including checks."""
        _, _, body = self.status.get("/")
        return int(body.split()[9])


def nginx_text(folder, workers, connections, http, more=""):
    temporary = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    load = f"load_module {NGINX_STREAM};" if NGINX_STREAM.exists() else ""
    return f"""{load} daemon off; worker_processes {workers}; pid {folder}/pid; error_log {folder}/said; user {"root" if os.geteuid() == 0 else "nobody"};
events {{ worker_connections {connections * 2 + 1000}; }}
http {{
  {temporary}
  keepalive_requests 1000000000; keepalive_timeout {IDLE_SECONDS}s; sendfile on;
  {http}
}}{more}
"""


def start_nginx(folder, cpus, text):
    config = folder / "nginx.conf"
    config.write_text(text)
    return Process(cpus, [["nginx", "-c", config, "-p", folder]], folder)


def certificate(place, kind):
    """The path of a self-signed certificate of this kind, with its key, created on first use."""
    pem = place / f"{kind}.pem"
    if not pem.exists():
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if kind == "ecdsa" else ["-newkey", "rsa:2048"]
        names = ["-subj", "/CN=bench.example", "-addext", "subjectAltName=DNS:bench.example", "-days", "30"]
        made = place / f"{kind}.key"
        subprocess.run([find("openssl"), "req", "-x509", "-nodes", *key, *names, "-keyout", made, "-out", pem], check=True, capture_output=True)
        pem.write_bytes(pem.read_bytes() + made.read_bytes())
    return str(pem)


def fetched(port, path):
    """The body, if the status is 200."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        if answer.status != 200:
            raise OSError(f"{path} was answered {answer.status}")
        return answer.read()


def quoted(value):
    """A TOML string: TOML has all of JSON's escapes."""
    return json.dumps(str(value))
