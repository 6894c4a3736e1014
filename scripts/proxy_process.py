"""Runs `gaiola proxy -f FILE` and observes it from outside: its port, metrics, memory and descriptors."""

import json, os, signal, socket, subprocess, time, urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 20


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def binary():
    """The binary under test: GAIOLA, or the one that `scripts/build` has built."""
    wanted = os.environ.get("GAIOLA")
    built = [ROOT / "target" / profile / "gaiola" for profile in ("release", "debug")]
    for path in [Path(wanted)] if wanted else sorted(built, key=lambda p: -p.stat().st_mtime if p.exists() else 0):
        if path.exists():
            return path
    raise SystemExit("there is no gaiola; scripts/build debug makes one, or GAIOLA names it")


def certificate(directory):
    """Creates a certificate for this machine, `site.pem`, and its key."""
    made = Path(directory) / "site.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", f"{made}.key", "-out", made], check=True, capture_output=True)
    return made


def until(what, is_so, limit=DEADLINE):
    """Polls until the condition holds; fails after a generous deadline."""
    end = time.monotonic() + limit
    while not (found := is_so()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.02)
    return found


class Proxy:
    """A proxy that runs until `stop`. `text` is its file, without `admin`, `control` and `access_log`."""

    def __init__(self, directory, text):
        self.directory = Path(directory)
        self.admin = free_port()
        self.file = self.directory / "proxy.toml"
        self.log = self.directory / "access.log"
        self.errors = self.directory / "stderr.log"
        self.write(text)
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen([binary(), "proxy", "-f", self.file], stderr=errors, stdout=errors)
        until("the proxy is ready", self.is_ready)

    def write(self, text):
        head = f"admin = '127.0.0.1:{self.admin}'\ncontrol = 'proxy.sock'\naccess_log = 'access.log'\n"
        whole = self.file.with_suffix(".new")
        whole.write_text(head + text)
        whole.replace(self.file)

    def is_ready(self):
        if self.process.poll() is not None:
            raise SystemExit(f"the proxy ended: {self.errors.read_text()}")
        try:
            return self.ask("/readyz")
        except OSError:
            return None

    def ask(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=DEADLINE) as answer:
            return answer.read().decode()

    def metrics(self):
        """All samples by name with labels, as written in the text."""
        lines = (line.rsplit(" ", 1) for line in self.ask("/metrics").splitlines() if line[:1] not in ("#", ""))
        return {name: float(value) for name, value in lines}

    def total(self, name, containing=""):
        """The sum of all samples of a metric whose labels contain this."""
        return sum(value for key, value in self.metrics().items() if key.split("{")[0] == name and containing in key)

    def control(self, request):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(DEADLINE)
            stream.connect(str(self.directory / "proxy.sock"))
            stream.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(stream.makefile().readline())

    def ctl(self, *order):
        """The exit code and the output of `gaiola proxy ctl` for an order."""
        words = [binary(), "proxy", "ctl", "--socket", self.directory / "proxy.sock", *order]
        done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE)
        return done.returncode, done.stdout + done.stderr

    def reload(self, text):
        self.write(text)
        self.process.send_signal(signal.SIGHUP)

    def resident(self):
        """MiB of memory in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def descriptors(self, kind=""):
        """The number of open descriptors, of this kind (`socket`, `pipe`) or of all."""
        count = 0
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            try:
                count += os.readlink(f"/proc/{self.process.pid}/fd/{name}").startswith(kind)
            except FileNotFoundError:
                pass  # closed meanwhile
        return count

    def stop(self):
        """Stops it gracefully; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return f"killed, for it did not end within {DEADLINE} s"
