"""Rounds: proxies are measured in turn, forwards and backwards; the kernel's counters are read before and after each."""

import sys, time

from .process import NotMeasured, busy
from .proxies import PROXIES, Origin

WARM_UP_SECONDS = 1
UNJUDGED_EVERY = 5  # rounds: proxies outside the ratio take part in the first of these


def measure(row, load, setting, names, rounds, seconds, folder):
    """One row's raw numbers, as they are stored. Configurations go to `folder`."""
    origin = None
    contenders = {}
    found = {"unmeasured": {}, "facts": {}, "rounds": []}
    try:
        origin = Origin(setting)
        keep(folder, "origin", origin.text)
        fresh = load.fresh
        makers = contenders_of(row, names)
        for name, make in makers.items():
            attempt(found, name, lambda: contenders.setdefault(name, make(setting)))
            if name in contenders:
                found["facts"][name] = contenders[name].facts
                keep(folder, name, contenders[name].text, contenders[name].suffix)
                if fresh:
                    contenders.pop(name).stop()
        origin.checks = sum(proxy.checks() for proxy in contenders.values())
        able = [name for name in makers if name not in found["unmeasured"]]
        if judged(row) - set(able):
            return found  # without a ratio the row is not measured
        for number in range(0 if not fresh else 1, rounds + 1):
            whole = number == 0 or number % UNJUDGED_EVERY == 1 or rounds < UNJUDGED_EVERY
            order = [name for name in able if name not in found["unmeasured"] and (whole or name in judged(row))]
            figures = {}
            for name in order if number % 2 else reversed(order):
                if fresh:
                    attempt(found, name, lambda: contenders.setdefault(name, makers[name](setting)))
                if name in contenders:
                    span = min(WARM_UP_SECONDS, seconds) if number == 0 else seconds
                    attempt(found, name, lambda: figures.setdefault(name, turn(contenders[name], load, span, origin)))
                    if fresh or name in found["unmeasured"]:
                        contenders.pop(name).stop()
            if number > 0:  # the first one is the warm-up
                found["rounds"].append(figures)
                progress(row, number, rounds, figures)
            if judged(row) & set(found["unmeasured"]):
                return found
        return found
    except NotMeasured as reason:
        raise SystemExit(f"bench: the origin: {reason}") from None
    finally:
        for process in [*contenders.values(), *([origin.process] if origin else [])]:
            process.stop()


def contenders_of(row, names):
    """The contenders by name, each with its setting."""
    makers = {name: (lambda setting, name=name: PROXIES[name](name, setting, row.site)) for name in PROXIES if name in names}
    if not row.floor:
        makers.pop("floor", None)
    if row.against:
        makers.pop("nginx", None)
        makers["gaiola small"] = lambda setting: SmallGaiola("gaiola small", setting, row.against)
    return makers


class SmallGaiola(PROXIES["gaiola"]):
    """Gaiola compared with itself."""

    port, admin = 8004, 8104


def judged(row):
    """The two contenders of the ratio: the first divided by the second."""
    return {"gaiola", opponent(row)}


def opponent(row):
    return "gaiola small" if row.against else "haproxy"


def attempt(found, name, action):
    try:
        action()
    except NotMeasured as reason:
        found["unmeasured"][name] = str(reason)
        print(f"bench: {name} is not measured: {reason}", file=sys.stderr)


class Meter:
    """Counts of the kernel and the origin while a load runs: from creation, or from `begin`, to `end`."""

    def __init__(self, proxy, origin):
        self.proxy, self.origin = proxy, origin
        self.begin()

    def begin(self):
        self.before = self.read()

    def end(self):
        self.after = self.read()

    def read(self):
        return time.monotonic(), *self.proxy.process.cpu(), *busy(), self.origin.requests()

    def figures(self):
        """`origin_requests` are those of `seconds`, without checks; the others are in seconds too."""
        seconds, cpu, user, system, machine, stolen, requests = (after - before for after, before in zip(self.after, self.before))
        share = user / (user + system or 1)
        return {
            "seconds": seconds, "cpu": cpu, "user": cpu * share, "system": cpu * (1 - share), "busy": machine, "stolen_seconds": stolen, "origin_requests": round(requests - seconds * self.origin.checks),
        }


def turn(proxy, load, seconds, origin):
    """The figures of one contender in one round."""
    meter = Meter(proxy, origin)
    load_figures = load.run(proxy, seconds, meter)
    figures = {**meter.figures(), **load_figures}
    requests = figures["requests"] = figures.get("requests", figures["origin_requests"])
    if requests == 0:
        raise NotMeasured("no request was answered")
    for time_spent in ("cpu", "user", "system", "busy"):
        figures[f"{time_spent}_us"] = figures.pop(time_spent) * 1e6 / requests
    figures["requests_per_second"] = requests / figures["seconds"]
    if proxy.setting.logs:
        time.sleep(0.25)  # for lines still being logged
        figures["lines"] = proxy.take_log()
    return figures


def keep(folder, name, text, suffix="conf"):
    """Replaces an earlier run's files of this name."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.replace(" ", "-")
    for earlier in folder.glob(f"{stem}.*"):
        earlier.unlink()
    (folder / f"{stem}.{suffix}").write_text(text + "\n")


def progress(row, number, rounds, figures):
    words = "  ".join(f"{name} {values[row.measure]:.2f}" for name, values in figures.items() if row.measure in values)
    print(f"  round {number}/{rounds}: {words} {row.measure}", file=sys.stderr, flush=True)
