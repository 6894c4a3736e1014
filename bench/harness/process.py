"""Processes that a measurement starts, and the kernel's figures of them."""

import contextlib, os, resource, shlex, shutil, signal, socket, subprocess, time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2  # combined with a pid: the CPU clock of its threads (clock_getcpuclockid)


class NotMeasured(Exception):
    """The reason for a missing figure."""


class Process:
    """A process group of these commands, pinned to `cpus`; its output goes to `FOLDER/said`."""

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
        with contextlib.suppress(ProcessLookupError):  # it has exited already
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(10)
        while any(fields[0] != "Z" for fields in self.stats().values()):  # nginx's workers listen until they have exited
            time.sleep(0.01)

    def wait_for(self, port):
        """Waits until the port is listened on."""
        self.wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), f"port {port}")

    def wait_until(self, attempt, what):
        """Repeats `attempt` until it raises no `OSError`."""
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
        """The group's run time in seconds, which is exact, and its ticks in user and system mode, which only give the parts."""
        stats = self.stats()
        try:
            ran = sum(time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED) for pid in stats)
        except OSError:
            raise NotMeasured(f"it ended: {self.last_words()}") from None
        return ran, *(sum(int(fields[number]) for fields in stats.values()) for number in (11, 12))

    def resident(self):
        """Resident memory of the whole group, in bytes."""
        return sum(int(fields[21]) for fields in self.stats().values()) * os.sysconf("SC_PAGE_SIZE")

    def stats(self):
        """For each process of the group, the fields of /proc/PID/stat after the name."""
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
    """The machine's busy and stolen seconds since boot."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq) / TICK, steal / TICK


def most_files():
    """How many connections a process can have, with descriptors left for other files."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2000


def find(tool):
    """The path of a program, also in the sbin directories."""
    path = shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise NotMeasured(f"{tool} is not installed")
    return path
