"""Charts of a report as SVG, each 400 units wide, so that its text is legible on a phone.

Colours are CSS classes. A page defines them in its style sheet. :func:`standalone` adds
:data:`STYLE` to a chart in a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from fastcnn.bench.report import ALONE, Entry, Figure, Report
from fastcnn.bench.text import duration, times

WIDTH = 400
_OURS = ("fastcnn", "fastcnn")
STYLE = """
svg{--ink:#1c2430;--soft:#5b6675;--line:#d5dbe3;--paper:#fff;--fastcnn:#1d5fd1;--im2col:#0d9488;
--naive:#8a94a3;--PyTorch:#d9580b;--ONNX:#7c3aed;--OpenVINO:#a16207;--JAX:#c2277b;--SciPy:#4d7c0f}
@media(prefers-color-scheme:dark){svg{--ink:#e6eaf0;--soft:#9aa5b4;--line:#343d4a;--paper:#12161c;
--fastcnn:#6ea3ff;--im2col:#2dd4bf;--naive:#94a0b0;--PyTorch:#ff9248;--ONNX:#b197fc;
--OpenVINO:#fde047;--JAX:#f472b6;--SciPy:#a3d053}}
"""
CHART_STYLE = """
svg{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;background:var(--paper)}
svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line);fill:none}
svg .roof{stroke:var(--ink);fill:none;stroke-width:1.5}
""" + "".join(
    f"svg .{name}{{fill:var(--{name});stroke:var(--{name})}}"
    for name in ("fastcnn", "im2col", "naive", "PyTorch", "ONNX", "OpenVINO", "JAX", "SciPy")
)


def colour(figure: Figure) -> str:
    """The CSS class of a runner's colour."""
    if figure.family == "fastcnn":
        return figure.name if figure.name in ("im2col", "naive") else "fastcnn"
    return figure.family.split()[0]


def standalone(chart: str) -> str:
    """The contents of a file that holds only this chart."""
    return chart.replace(">", f"><style>{STYLE}{CHART_STYLE}</style>", 1) + "\n"


def roofline(report: Report) -> str:
    """GFLOP/s over operations per byte: the machine's roof, fastcnn, and the best peer."""
    entries = [e for e in report.entries if e.flops and e.ours is not None]
    if not entries:
        return ""
    points = [(e.flops / e.bytes, e) for e in entries]
    speeds = [e.gflops(f) for e in entries for f in (e.ours, e.best_peer) if f is not None]
    x = _Log(min(p for p, _ in points) / 1.5, max(p for p, _ in points) * 1.5, 42, 392)
    y = _Log(min([*speeds, report.top / 10]) / 1.4, max([*speeds, report.top]) * 1.6, 250, 12)
    parts = [_axis(x, 250, 12, "operations for each byte"), _axis_y(y, 42, 392, "GFLOP/s")]
    knee = report.top / report.bandwidth
    left, right = x.low, x.high
    roof = [(left, left * report.bandwidth), (min(max(knee, left), right), report.top)]
    roof = [(a, min(max(b, y.low), report.top)) for a, b in roof]
    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in [*roof, (right, report.top)])
    parts.append(f'<polyline class="roof" points="{line}"/>')
    parts.append(_text(390, y(report.top) - 5, f"peak {report.top:.0f} GFLOP/s", "end"))
    for intensity, entry in points:
        for figure in (entry.best_peer, entry.ours):
            if figure is None:
                continue
            at = f'cx="{x(intensity):.1f}" cy="{y(entry.gflops(figure)):.1f}"'
            tooltip = f"{entry.name}: {figure.name} {entry.gflops(figure):.1f} GFLOP/s"
            kind = colour(figure)
            hollow = "" if figure is entry.ours else ' fill-opacity="0" stroke-width="1.4"'
            title = f"<title>{escape(tooltip)}</title>"
            parts.append(f'<circle class="{kind}" {at} r="3.6"{hollow}>{title}</circle>')
    return _svg("Roofline", 300, [*parts, _legend([_OURS, *_families(entries)], 290)])


def limits(report: Report, entries: Sequence[Entry]) -> str:
    """One bar for each runner of each contest: the share of its limit that it reaches."""
    rows: list[str] = []
    top = 14.0
    for entry in entries:
        shown = _figures(entry)
        longest = max(report.share(entry, f) for f in shown)
        full = max(1.0, longest)
        rows.append(_text(0, top, entry.name.removeprefix(f"{entry.group}/")))
        for figure in shown:
            top += 13
            share = report.share(entry, figure)
            label = f"{figure.name} {share:.0%}, {duration(figure.seconds)}"
            rows.append(_bar(top - 8, 190 * share / full, colour(figure), label))
        top += 22
    return _svg("Share of the limit", top - 8, rows)


def speedups(entries: Sequence[Entry]) -> str:
    """Speed of the other engines and of peers as a multiple of the naive engine's."""
    rows: list[str] = []
    top = 14.0
    shown = [e for e in entries if e.figure("naive") is not None and e.ours is not None]
    if not shown:
        return ""
    ratios = [f.seconds / e.ours.seconds for e in shown for f in e.figures if e.ours]
    scale = _Log(1, max(10.0, *ratios), 0, 300)
    for entry in shown:
        naive = entry.figure("naive")
        assert naive is not None
        rows.append(_text(0, top, entry.name))
        for name in ("im2col", "ours"):
            figure = entry.ours if name == "ours" else entry.figure("im2col")
            if figure is None:
                continue
            top += 13
            ratio = naive.seconds / figure.seconds
            label = f"{times(ratio)} ×"
            rows.append(_bar(top - 8, scale(max(ratio, 1.02)), colour(figure), label))
        top += 22
    rows.append(_text(0, top, "naive = 1; lengths are logarithms", css="soft"))
    rows.append(_legend([("im2col", "im2col"), ("numba", "fastcnn")], top + 18))
    return _svg("Speed-ups over the naive engine", top + 26, rows)


def batches(report: Report, group: str) -> str:
    """Samples per second over the batch, for each problem of a group with several batches."""
    problems: dict[str, list[Entry]] = {}
    for entry in report.entries:
        if entry.group == group and entry.ours is not None:
            problems.setdefault(entry.problem, []).append(entry)
    problems = {name: each for name, each in problems.items() if len(each) > 1}
    if not problems:
        return ""
    parts: list[str] = []
    top = 0.0
    for name, each in problems.items():
        speeds = [e.batch / f.seconds for e in each for f in (e.ours, e.best_peer) if f]
        x = _Log(min(e.batch for e in each), max(e.batch for e in each), 46, 385)
        y = _Log(min(speeds) / 1.3, max(speeds) * 1.3, top + 130, top + 26)
        parts.append(_text(0, top + 14, f"{name}: samples a second"))
        parts.append(_axis(x, top + 130, top + 26, "", marks=sorted({e.batch for e in each})))
        parts.append(_axis_y(y, 46, 385, ""))
        for which in ("peer", "ours"):
            line = [
                (e.batch, e.batch / f.seconds, f)
                for e in sorted(each, key=lambda e: e.batch)
                if (f := e.ours if which == "ours" else e.best_peer) is not None
            ]
            path = " ".join(f"{x(b):.1f},{y(s):.1f}" for b, s, _ in line)
            style = "fastcnn" if which == "ours" else "naive"
            parts.append(
                f'<polyline class="{style}" style="fill:none" stroke-width="1.6" points="{path}"/>'
            )
            for batch, speed, figure in line:
                title = f"{figure.name}, batch {batch}: {speed:,.0f} a second"
                parts.append(
                    f'<circle class="{colour(figure)}" cx="{x(batch):.1f}" cy="{y(speed):.1f}" '
                    f'r="3.4"><title>{escape(title)}</title></circle>'
                )
        top += 158
    families = _families([entry for each in problems.values() for entry in each])
    parts.append(_legend([_OURS, *families], top + 6))
    return _svg("Scaling over the batch", top + 14, parts)


def threads(report: Report) -> str:
    """Speed of fastcnn on all threads as a multiple of its speed on one thread."""
    rows: list[str] = []
    top = 14.0
    for entry in report.entries:
        one, all_ = entry.figure(*ALONE), entry.ours
        if one is None or all_ is None or report.threads == 1:
            continue
        ratio = one.seconds / all_.seconds
        rows.append(_text(0, top, entry.name))
        label = f"{ratio:.2f} ×"
        length = 300 * min(1.0, ratio / report.threads)
        rows.append(_bar(top + 5, length, "fastcnn", label))
        top += 32
    if not rows:
        return ""
    rows.append(
        _text(
            0,
            top,
            f"{report.threads} threads over one; full length is ×{report.threads}",
            css="soft",
        )
    )
    return _svg("Scaling over threads", top + 10, rows)


def _families(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    """The libraries that are the best peer of an entry, with their CSS classes."""
    return sorted({(f.family, colour(f)) for e in entries if (f := e.best_peer)})


def _figures(entry: Entry) -> list[Figure]:
    """fastcnn, im2col and the best figure of each peer, the fastest first."""
    best: dict[str, Figure] = {}
    for figure in sorted(entry.figures, key=lambda f: f.seconds):
        if figure.name in (*ALONE, "naive"):
            continue
        best.setdefault(figure.name if figure.family == "fastcnn" else figure.family, figure)
    return list(best.values())


class _Log:
    """A logarithmic scale from values to units."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def marks(self) -> list[float]:
        """Powers of ten; if the range is small, also their multiples by 2 and 5."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if self.high / self.low < 300 else (1,)
        ticks = [step * 10.0**power for power in powers for step in steps]
        return [mark for mark in ticks if self.low <= mark <= self.high]


def _axis(
    x: _Log, bottom: float, top: float, label: str, marks: Iterable[float] | None = None
) -> str:
    parts = []
    for mark in x.marks() if marks is None else marks:
        at = f"{x(mark):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
        parts.append(_text(x(mark), bottom + 13, _short(mark), "middle", "soft"))
    if label:
        parts.append(_text(x.end, bottom + 26, label, "end", "soft"))
    return "".join(parts)


def _axis_y(y: _Log, left: float, right: float, label: str) -> str:
    parts = []
    for mark in y.marks():
        at = f"{y(mark):.1f}"
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(_text(left - 4, y(mark) + 4, _short(mark), "end", "soft"))
    if label:
        parts.append(_text(left + 4, y.end + 10, label, "start", "soft"))
    return "".join(parts)


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _text(x: float, y: float, words: str, anchor: str = "start", css: str = "") -> str:
    more = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def _bar(y: float, length: float, css: str, label: str) -> str:
    drawn = max(2.0, length)
    return f'<rect class="{css}" x="0" y="{y:.1f}" width="{drawn:.1f}" height="9" rx="2"/>' + _text(
        drawn + 5, y + 8.5, label, css="soft"
    )


def _legend(names: Sequence[tuple[str, str]], y: float) -> str:
    parts, x = [], 0.0
    for name, css in names:
        parts.append(f'<circle class="{css}" cx="{x + 5:.1f}" cy="{y - 4:.1f}" r="4"/>')
        parts.append(_text(x + 13, y, name))
        x += 24 + 6.4 * len(name)
    return "".join(parts)


def _svg(title: str, height: float, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
