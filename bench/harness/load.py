"""Loads for a proxy. Each has `run(target, seconds, meter)`, which ends the meter's span and returns figures, and `quick()`, which
returns it for a smoke test. `failed` counts unexpected responses and broken connections; `requests` is omitted if the origin's count
is used.
"""

import contextlib, json, os, signal, subprocess, sys, time
from dataclasses import dataclass, replace
from pathlib import Path

from .client import Client, client_context
from .process import NotMeasured, find, most_files

CONNECTING_SECONDS = 0.3  # in which wrk connects; not measured
WRK_REPORT = """
done = function(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.timeout + e.status
  io.write(string.format('{"load_requests": %d, "failed": %d, "p50_ms": %f, "p90_ms": %f, "p99_ms": %f, "p999_ms": %f, "max_ms": %f}',
    summary.requests, failed, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3))
end
"""


class Load:
    """What all loads have in common."""

    fresh = False  # whether each round needs a newly started proxy

    def quick(self):
        return self


@dataclass(frozen=True)
class Wrk(Load):
    """Connections that each send the next request after the previous response; with `close`, on a new connection."""

    connections: int
    path: str
    close: bool = False

    def run(self, target, seconds, meter):
        script = target.place / "report.lua"
        script.write_text(WRK_REPORT)
        close = ["-H", "Connection: close"] if self.close else []
        command = ["wrk", f"-t{target.threads}", f"-c{self.connections}", "-d1h", "-s", script, *close, target.url(self.path)]
        with spawned(target.load_cpus, command) as wrk:
            time.sleep(CONNECTING_SECONDS)
            meter.begin()
            time.sleep(seconds)
            meter.end()
            wrk.send_signal(signal.SIGINT)
            text = finish(wrk, seconds)
        return json.loads(text[text.rindex('{"load_requests"') :])


@dataclass(frozen=True)
class Handshakes(Load):
    """Clients that each open one TLS connection after another, without resumption, with one request each (`handshakes.py`)."""

    clients: int
    path: str

    def run(self, target, seconds, meter):
        with spawned(target.load_cpus, python("handshakes", target.port, self.path, self.clients, seconds)) as clients:
            text = finish(clients, seconds)
        meter.end()
        return {**json.loads(text), "seconds": seconds}


@dataclass(frozen=True)
class Steady(Load):
    """Requests at a fixed rate, regardless of response times; latency counts from when each was due (`steady.py`)."""

    rate: int
    connections: int
    path: str

    def run(self, target, seconds, meter):
        with spawned(target.load_cpus, python("steady", target.port, self.path, self.rate, self.connections, seconds)) as client:
            text = finish(client, seconds)
        meter.end()
        return {**json.loads(text), "seconds": seconds}


@dataclass(frozen=True)
class Idle(Load):
    """Keep-alive connections that stay open after one request each: what one adds to the proxy's resident memory (`idle.py`)."""

    connections: int
    path: str
    fresh = True  # a proxy may keep memory that it has used once

    def quick(self):
        return replace(self, connections=500)

    def run(self, target, seconds, meter):
        kind = "tls" if target.site.tls else "plain"
        with holding(target, self.path, [100], kind):
            pass  # one-time allocations do not belong to a connection
        time.sleep(1)
        before = target.process.resident()
        holders = -(-self.connections // most_files())
        counts = [(self.connections + number) // holders for number in range(holders)]
        with holding(target, self.path, counts, kind) as end:
            time.sleep(1)
            bytes_each = (target.process.resident() - before) / self.connections
            lost = end()
        meter.end()
        if lost:
            raise NotMeasured(f"{lost} of {self.connections} idle connections were closed")
        return {"requests": self.connections, "failed": 0, "bytes": bytes_each}


@dataclass(frozen=True)
class Keys(Load):
    """One request from each of many rate-limited clients: the growth of the proxy's resident memory. It must then track each client."""

    count: int
    path: str
    fresh = True

    def quick(self):
        return replace(self, count=2000)

    def run(self, target, seconds, meter):
        client = Client(target.port)
        for _ in range(100):
            client.get(self.path)
        before = target.process.resident()
        allowed = [number for number in range(self.count) if self.ask(client, number) == 200]
        time.sleep(1)
        grown = target.process.resident() - before
        sample = range(0, self.count, 97)
        forgotten = [number for number in sample if self.ask(client, number) != 429]
        client.close()
        meter.end()
        if len(allowed) < self.count or forgotten:
            raise NotMeasured(f"of {self.count} first requests {len(allowed)} were answered 200, of {len(sample)} second ones {len(sample) - len(forgotten)} 429")
        return {"requests": self.count, "failed": 0, "megabytes": grown / 1e6}

    def ask(self, client, number):
        status, _, _ = client.get(self.path, f"X-Forwarded-For: 10.{number >> 16}.{number >> 8 & 255}.{number & 255}\r\n")
        return status


@contextlib.contextmanager
def holding(target, path, counts, kind):
    """Opens idle connections, in one process per count. Yields a function that ends them and returns how many the proxy had closed."""
    everywhere = ",".join(map(str, os.sched_getaffinity(0)))  # CPU time is not measured here, and TLS takes long
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(spawned(everywhere, python("idle", target.port, path, count, kind))) for count in counts]
        for holder, count in zip(holders, counts):
            if (line := holder.stdout.readline()) != f"{count}\n":
                raise NotMeasured(f"connections could not be opened: {line}{holder.stdout.read()}".strip()[-200:])
        yield lambda: sum(int(finish(holder, 60, "\n")) for holder in holders)


def percentiles(latencies):
    """Of latencies in seconds."""
    ordered = sorted(latencies)
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1}
    return {name: ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3 for name, share in shares.items()}


def python(module, *arguments):
    return [sys.executable, "-B", "-m", f"harness.{module}", *arguments]


@contextlib.contextmanager
def spawned(cpus, command):
    """A process that ends with the block, if not before."""
    pinned = ["taskset", "-c", cpus, find(command[0]), *map(str, command[1:])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(pinned, **pipes, text=True, cwd=Path(__file__).parent.parent)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process, seconds, said=None):
    """Its output, once it has exited."""
    try:
        text, _ = process.communicate(said, timeout=seconds + 30)
    except subprocess.TimeoutExpired:
        raise NotMeasured("the load did not end") from None
    if process.returncode != 0:
        raise NotMeasured(f"the load ended with {process.returncode}: {text.strip()[-200:]}")
    return text
