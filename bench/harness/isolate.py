"""A separate network and PID namespace, so that nothing is left behind in any case."""

import contextlib, ctypes, os, resource, signal, subprocess, sys, tempfile
from pathlib import Path

from .process import find

INSIDE = "GAIOLA_BENCH_INSIDE"
PR_SET_PDEATHSIG = 1
FILES = 120_000


def inside():
    """The directory for temporary files; None outside."""
    return Path(os.environ[INSIDE]) if INSIDE in os.environ else None


def run_inside():
    """Runs this program again inside, and returns its exit status. When either process ends, the kernel kills everything inside."""
    allow_files()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # logs must not wait for a disk
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="gaiola-bench.", dir=memory) as place:
        command = [find("unshare"), *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv]
        running = subprocess.Popen(command, env={**os.environ, INSIDE: place}, preexec_fn=die_with_parent)
        try:
            return running.wait()
        except KeyboardInterrupt:
            return 130
        finally:
            running.kill()
            running.wait()


def allow_files():
    """Raises the limit of open files to what both ends of 50,000 connections need, or as far as is allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for files in (max(FILES, most), most):
        with contextlib.suppress(ValueError):  # only root may exceed `most`
            return resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare():
    """Sets up the loopback device, and enough ports for 60,000 connections per second in TIME_WAIT."""
    subprocess.run([find("ip"), "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("12000 65535")
