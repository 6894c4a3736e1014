"""The raw numbers of a run as a table and a chart."""

import json, statistics
from dataclasses import replace
from html import escape

from .measure import judged, opponent
from .rows import ROWS
from .verdict import judge

UNITS = {"cpu_us": "CPU µs", "p99_ms": "p99 ms", "bytes": "bytes", "megabytes": "MB"}
GOOD, BAD, PLAIN, INK, FAINT = "#2e7d5b", "#b5483a", "#6b7785", "#1f2933", "#d5dae0"


def load(folder):
    """(row, raw) of each measured row, in the order of ROWS."""
    raws = [json.loads(file.read_text()) for file in folder.glob("*.json") if file.name != "run.json"]
    rank = {row.name: number for number, row in enumerate(ROWS)}
    known = [(ROWS[rank[raw["row"]]], raw) for raw in raws if raw["row"] in rank]
    return sorted(known, key=lambda pair: (rank[pair[0].name], pair[1]["threads"], pair[1]["logs"]))


def verdict(row, raw):
    """None if it was not measured. A limit applies to the row's own number of threads."""
    first, second = "gaiola", opponent(row)
    if not raw["rounds"] or judged(row) & set(raw["unmeasured"]):
        return None
    ratios = [figures[first][row.measure] / figures[second][row.measure] for figures in raw["rounds"]]
    found = judge(ratios, row.limit if raw["threads"] == row.threads else None)
    if row.most:
        return replace(found, word=judge([figures[first][row.measure] for figures in raw["rounds"]], row.most).word)
    return found


def reason(row, raw):
    reasons = [f"{name}: {why}" for name, why in raw["unmeasured"].items() if name in judged(row)]
    return "; ".join(reasons) or "interrupted"


def title(row, raw):
    threads = "" if raw["threads"] == row.threads else f", {raw['threads']} threads"
    many = f", {median(raw, 'gaiola', 'requests')} of them" if row.measure == "bytes" and raw["rounds"] else ""
    return f"{row.name}{many}{threads}{', logs' if raw['logs'] == 'on' else ''}"


def table(folder):
    """Markdown: the verdicts, then every figure's median."""
    run = json.loads((folder / "run.json").read_text())
    pairs = load(folder)
    lines = [
        f"{run['versions']}, {run['machine']}; {run['rounds']} rounds of {run['seconds']} s; {run['date']}.",
        "",
        "The ratio is the median of the rounds' ratios of Gaiola to HAProxy (or to itself, if the row says so), with its 95 % interval.",
        "",
        "*Floor* only copies bytes, without parsing: one receive and one send for each message.",
        "",
        "| row | figure | Gaiola | HAProxy | nginx | floor | ratio (95 %) | limit | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for row, raw in pairs:
        found = verdict(row, raw)
        own = [median(raw, name, row.measure) for name in ("gaiola", "haproxy", "nginx", "floor")]
        small = f", against {median(raw, 'gaiola small', row.measure)} with 2 and 1" if row.against else ""
        limit = f"{row.limit:.2f}" if row.limit and raw["threads"] == row.threads else f"{row.most:g} {UNITS[row.measure]}" if row.most else ""
        ratio, word = (ratio_text(found), found.word + remarks(raw)) if found else ("", f"not yet: {cell(reason(row, raw))}")
        lines.append(f"| {title(row, raw)}{small} | {UNITS[row.measure]} | {' | '.join(own)} | {ratio} | {limit} | {word} |")
    lines += [
        "",
        "Medians of the rounds. *busy* is the whole machine's run time, including origin and load; latencies are measured by the load.",
        "",
        "| row | proxy | CPU µs (user + system) | busy µs | requests/s | p50 ms | p99 ms | p99.9 ms |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row, raw in pairs:
        for name in participants(raw) if not row.most else []:
            of = lambda key: median(raw, name, key)
            cost = f"{of('cpu_us')} ({of('user_us')} + {of('system_us')})"
            times = " | ".join(of(key) for key in ("p50_ms", "p99_ms", "p999_ms"))
            lines.append(f"| {title(row, raw)} | {name} | {cost} | {of('busy_us')} | {of('requests_per_second')} | {times} |")
    others = [f"- {title(row, raw)}: {name}: {why}" for row, raw in pairs for name, why in raw["unmeasured"].items() if name not in judged(row)]
    if others:
        lines += ["", "Not measured:", "", *others]
    return "\n".join(lines) + "\n"


def remarks(raw):
    """Reservations about a row: failed requests, missing log lines."""
    said = ""
    for name in participants(raw):
        rounds = [figures[name] for figures in raw["rounds"] if name in figures]
        requests = sum(figures.get("load_requests", figures["requests"]) for figures in rounds)
        failed = sum(figures["failed"] for figures in rounds)
        if failed > requests / 1000:
            said += f"; {name}: {100 * failed / requests:.1f} % failed"
        lines = sum(figures.get("lines", 0) for figures in rounds)
        if raw["logs"] == "on" and raw["line_each"] and lines < 0.99 * requests:
            said += f"; {name}: {100 * (1 - lines / requests):.0f} % not logged"
    return said


def participants(raw):
    return list(dict.fromkeys(name for figures in raw["rounds"] for name in figures))


def median(raw, name, key):
    values = [figures[name][key] for figures in raw["rounds"] if name in figures and key in figures[name]]
    if not values:
        return "-"
    value = statistics.median(values)
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_text(found):
    return f"{found.median:.2f}" + (f" ({found.low:.2f}-{found.high:.2f})" if found.low is not None else "")


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def chart(folder):
    """SVG: for each row a bar with the ratio to HAProxy, its interval and its limit; a dot for nginx."""
    run = json.loads((folder / "run.json").read_text())
    pairs = load(folder)
    left, wide, step, top = 230, 430, 24, 74
    full, tall = left + wide + 230, top + step * len(pairs) + 44
    most = 1.5
    x = lambda ratio: left + wide * min(ratio, most) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full} {tall}" width="{full}" height="{tall}" font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{full}" height="{tall}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="16" font-weight="bold">What a request costs in Gaiola, where HAProxy\'s cost is 1</text>',
        f'<text x="16" y="46" fill="{PLAIN}">Median of {run["rounds"]} paired rounds, with its 95 % interval; black mark: at most; ring: nginx. {escape(run["machine"])}</text>',
    ]
    bottom = top + step * len(pairs)
    for number in range(0, 7):
        ratio = number * 0.25
        parts.append(f'<line x1="{x(ratio):.1f}" y1="{top - 6}" x2="{x(ratio):.1f}" y2="{bottom}" stroke="{PLAIN if ratio == 1 else FAINT}"/>')
        parts.append(f'<text x="{x(ratio):.1f}" y="{bottom + 18}" text-anchor="middle" fill="{PLAIN}">{ratio:.2f}</text>')
    for number, (row, raw) in enumerate(pairs):
        parts += bar(row, raw, top + step * number, step, left, wide, x, most)
    parts.append(f'<text x="{left}" y="{bottom + 36}" fill="{PLAIN}">less is better; p99 and memory likewise; servers and routes: against itself with 2 and 1</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def bar(row, raw, y, step, left, wide, x, most):
    middle, high = y + step / 2, step - 9
    yield f'<text x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(title(row, raw))}</text>'
    found = verdict(row, raw)
    if not found:
        yield f'<text x="{left + 8}" y="{middle + 4:.1f}" fill="{PLAIN}" font-style="italic">{escape(short("not yet: " + reason(row, raw)))}</text>'
        return
    colour = {"met": GOOD, "missed": BAD}.get(found.word.split(",")[0], PLAIN)
    yield f'<rect x="{left}" y="{middle - high / 2:.1f}" width="{x(found.median) - left:.1f}" height="{high}" fill="{colour}" fill-opacity="0.75"/>'
    if found.low is not None:
        low, end = x(found.low), x(found.high)
        yield f'<path d="M{low:.1f} {middle - 4:.1f}v8M{low:.1f} {middle:.1f}H{end:.1f}M{end:.1f} {middle - 4:.1f}v8" stroke="{INK}" fill="none"/>'
    limit = row.most / statistics.median(figures[opponent(row)][row.measure] for figures in raw["rounds"]) if row.most else row.limit
    if limit and raw["threads"] == row.threads:
        yield f'<rect x="{x(limit) - 1.5:.1f}" y="{y + 1}" width="3" height="{step - 2}" fill="#000000"/>'
    nginx = nginx_ratio(row, raw)
    if nginx and nginx <= most:
        yield f'<circle cx="{x(nginx):.1f}" cy="{middle:.1f}" r="4" fill="#ffffff" stroke="{INK}" stroke-width="1.5"/>'
    beyond = " →" if found.median > most else ""
    yield f'<text x="{left + wide + 12}" y="{middle + 4:.1f}">{ratio_text(found)}{beyond}  <tspan fill="{colour}">{found.word}</tspan></text>'


def nginx_ratio(row, raw):
    both = [figures for figures in raw["rounds"] if "nginx" in figures and "haproxy" in figures]
    return statistics.median(figures["nginx"][row.measure] / figures["haproxy"][row.measure] for figures in both) if both else None


def short(text):
    return text if len(text) <= 95 else text[:94] + "…"
