"""Processes that a measurement starts, and what the kernel says of them."""

import contextlib, os, resource, shlex, shutil, signal, socket, subprocess, time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2  # with a process' number, the clock of the time that its threads ran (clock_getcpuclockid)


class NotMeasured(Exception):
    """Why a figure is missing, in words."""


class Process:
    """A process group of these commands, pinned to `cpus`; what it says goes to `FOLDER/said`."""

    def __init__(self, cpus, commands, folder, stdout=None):
        self.said = folder / "said"
        commands = [[find(str(command[0])), *map(str, command[1:])] for command in commands]
        together = ["sh", "-c", "".join(f"{shlex.join(command)} & " for command in commands) + "wait"]
        with open(self.said, "a") as said:
            self.popen = subprocess.Popen(
                ["taskset", "-c", cpus, *(commands[0] if len(commands) == 1 else together)],
                stdin=subprocess.DEVNULL, stdout=stdout or said, stderr=said, start_new_session=True,
            )

    def stop(self):
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(10)
        while any(fields[0] != "Z" for fields in self.stats().values()):  # a worker of nginx still listens until it is gone
            time.sleep(0.01)

    def wait_for(self, port):
        """Until the port is listened on."""
        self.wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), f"port {port}")

    def wait_until(self, attempt, what):
        """Until `attempt` raises no `OSError`."""
        deadline = time.monotonic() + 20
        while True:
            if self.popen.poll() is not None:
                raise NotMeasured(f"it ended: {self.last_words()}")
            try:
                return attempt()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise NotMeasured(f"{what}: {error}; it said: {self.last_words()}") from None
                time.sleep(0.05)

    def last_words(self):
        lines = self.said.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"

    def cpu(self):
        """Seconds that the whole group ran, and its ticks in user and in system mode: the one is exact, the others tell its parts."""
        stats = self.stats()
        try:
            ran = sum(time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED) for pid in stats)
        except OSError:
            raise NotMeasured(f"it ended: {self.last_words()}") from None
        return ran, *(sum(int(fields[number]) for fields in stats.values()) for number in (11, 12))

    def resident(self):
        """Bytes of the whole group that are in memory."""
        return sum(int(fields[21]) for fields in self.stats().values()) * os.sysconf("SC_PAGE_SIZE")

    def stats(self):
        """By process of the group, the fields of /proc/PID/stat after the name."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.popen.pid:
                found[int(stat.parent.name)] = fields
        return found


def busy():
    """Seconds that the whole machine was busy, and that were stolen from it, since it started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq) / TICK, steal / TICK


def most_files():
    """How many connections a process may have, with some to spare for what else it opens."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2000


def find(tool):
    """The path of a program; those of the administrator are found too."""
    path = shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise NotMeasured(f"{tool} is not installed")
    return path
