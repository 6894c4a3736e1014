"""What is measured, with its limit: one entry per row."""

from dataclasses import dataclass

from .load import Handshakes, Idle, Keys, Steady, Wrk
from .proxies import Site


@dataclass(frozen=True)
class Row:
    """One comparison: Gaiola against HAProxy, or against itself with another site."""

    name: str
    load: object
    site: Site = Site()
    limit: float | None = None  # of the median ratio
    most: float | None = None  # limit of Gaiola's own figure, independent of the others
    against: Site | None = None  # compare with Gaiola with this site instead of HAProxy
    threads: int = 1
    measure: str = "cpu_us"
    floor: bool = False  # whether the program that only copies bytes can do the same work
    rounds: int | None = None  # fewer, if the figure hardly varies and takes long to measure
    logs: tuple = ("off", "on")


SMALL, PAGE, BULK = "/100", "/16k", "/1m"

ROWS = [
    Row("64 keep-alive", Wrk(64, SMALL), limit=0.85, floor=True),
    Row("1000 keep-alive", Wrk(1000, SMALL), limit=0.75, floor=True),
    Row("16 KiB", Wrk(64, PAGE), limit=0.80, floor=True),
    Row("1 MiB", Wrk(16, BULK), Site(splice=True), limit=0.80),
    Row("connection per request", Wrk(64, SMALL, close=True), limit=0.95),
    Row("TLS keep-alive", Wrk(64, SMALL), Site(tls="ecdsa"), limit=0.80),
    Row("TLS 16 KiB", Wrk(64, PAGE), Site(tls="ecdsa"), limit=0.60),
    Row("TLS new, ECDSA", Handshakes(8, SMALL), Site(tls="ecdsa"), limit=0.60),
    Row("TLS new, RSA", Handshakes(8, SMALL), Site(tls="rsa"), limit=0.85),
    Row("TCP small", Wrk(64, SMALL), Site(mode="tcp"), limit=0.95, floor=True),
    Row("TCP 1 MiB", Wrk(16, BULK), Site(mode="tcp", splice=True), limit=0.80),
    Row("2 threads, 1000 keep-alive", Wrk(1000, SMALL), limit=0.75, threads=2),
    Row(
        "2000 servers, 1000 routes",
        Wrk(64, SMALL),
        Site(servers=2000, routes=1000, check_seconds=10),
        against=Site(check_seconds=10),
        limit=1.10,
    ),
    Row("p99 at 8000/s", Steady(8000, 64, SMALL), limit=1.0, measure="p99_ms"),
    Row("idle connection", Idle(50_000, SMALL), Site(maxconn=50_100), most=2048, measure="bytes", rounds=1, logs=("off",)),
    Row("idle connection, TLS", Idle(50_000, SMALL), Site(maxconn=50_100, tls="ecdsa"), most=10_240, measure="bytes", rounds=1, logs=("off",)),
    Row("100,000 limited clients", Keys(100_000, SMALL), Site(keys=100_000), most=16, measure="megabytes", rounds=1, logs=("off",)),
]
