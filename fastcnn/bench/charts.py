"""Charts of a report as SVG, each 400 units wide, so that its text is legible on a phone.

Colours are CSS classes. A page defines them in its style sheet. :func:`standalone` adds
:data:`STYLE` to a chart in a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from fastcnn.bench.report import ALONE, NOISY, Entry, Figure, Report, geometric_mean
from fastcnn.bench.text import duration, times

WIDTH = 400
_BAR, _MOST_SHARE = 180.0, 2.0  # units of a bar's full length, and the share at the scale's end
_DOT, _LEVEL = 3.2, 6.6  # radius of a dot, and the distance of dots above each other
_OURS = ("fastcnn", "fastcnn")
_LEAST_FLOPS = 1000  # of a point on the roofline; smaller problems show what a call costs
STYLE = """
svg{--ink:#1c2430;--soft:#5b6675;--line:#d5dbe3;--paper:#fff;--fastcnn:#1d5fd1;--im2col:#0d9488;
--naive:#8a94a3;--PyTorch:#d9580b;--ONNX:#7c3aed;--OpenVINO:#a16207;--LiteRT:#0e7490;--JAX:#c2277b;--SciPy:#4d7c0f}
@media(prefers-color-scheme:dark){svg{--ink:#e6eaf0;--soft:#9aa5b4;--line:#343d4a;--paper:#12161c;
--fastcnn:#6ea3ff;--im2col:#2dd4bf;--naive:#94a0b0;--PyTorch:#ff9248;--ONNX:#b197fc;
--OpenVINO:#fde047;--LiteRT:#67e8f9;--JAX:#f472b6;--SciPy:#a3d053}}
"""
CHART_STYLE = """
svg{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;background:var(--paper)}
svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line);fill:none}
svg .roof{stroke:var(--ink);fill:none;stroke-width:1.5}
svg .small{font-size:9.5px}
svg .mark{stroke:var(--ink);fill:none;stroke-width:1;stroke-dasharray:2 2}
""" + "".join(
    f"svg .{name}{{fill:var(--{name});stroke:var(--{name})}}"
    for name in (
        "fastcnn",
        "im2col",
        "naive",
        "PyTorch",
        "ONNX",
        "OpenVINO",
        "LiteRT",
        "JAX",
        "SciPy",
    )
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
    entries = [e for e in report.entries if e.flops >= _LEAST_FLOPS and e.ours is not None]
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
    corner = x(roof[1][0]) - 8
    parts.append(_text(corner, y(report.top) + 4, f"peak {report.top:.0f} GFLOP/s", "end"))
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
    legend, bottom = _legend([_OURS, *_families(entries)], 290)
    return _svg("Roofline", bottom + 10, [*parts, legend])


def standing(report: Report) -> str:
    """Where fastcnn stands: a dot for each contest, by kind, on one axis of ratios.

    A ratio is fastcnn's speed ÷ the best peer's. Left of the line at 1 a peer is faster, and the
    dot has this peer's colour. A dot is hollow where a figure's noise exceeds ``NOISY``.
    """
    rows = list[tuple[str, list[_Dot]]]()
    faster = dict[str, str]()
    for kind, entries in report.kinds.items():
        dots = list[_Dot]()
        for entry in entries:
            peer, ratio = entry.best_peer, entry.times(entry.best_peer)
            if peer is None or ratio is None:
                continue
            css = "fastcnn" if ratio >= 1 else colour(peer)
            if ratio < 1:
                faster[peer.family] = css
            title = f"{entry.name}: {times(ratio)} times {peer.name}"
            dots.append(_Dot(ratio, css, title, entry.is_doubtful))
        if dots:
            rows.append((kind, dots))
    if not rows:
        return ""
    names = [("faster:", ""), _OURS, *sorted(faster.items())]
    if any(dot.is_hollow for _, dots in rows for dot in dots):
        names.append((f"hollow: noise over {NOISY:.0%}", ""))
    axis = "fastcnn's speed ÷ the best peer's; at the right the geometric means"
    return _swarms("Where fastcnn stands", rows, axis, names, has_even=True)


def limits(report: Report, entries: Sequence[Entry]) -> str:
    """One bar for each runner of each contest: the share of its limit that it reaches.

    All charts of a report have one scale, with a line at 100 %. Bars beyond its end have a point.
    """
    shares = [report.share(e, f) for e in report.entries for f in _figures(e)]
    full = min(max([1.0, *shares]), _MOST_SHARE)
    rows, top = list[str](), 26.0
    mark = _BAR / full
    for entry in entries:
        rows.append(_text(0, top, entry.name.removeprefix(f"{entry.group}/")))
        first = top + 3
        for figure in _figures(entry):
            top += 13
            share = report.share(entry, figure)
            method = f", {entry.method}" if entry.method and figure is entry.ours else ""
            label = f"{share:.0%}, {duration(figure.seconds)}: {figure.name}{method}"
            length = max(1.5, _BAR * min(share, full) / full)
            rows.append(_bar(top - 8, length, colour(figure), has_point=share > full))
            rows.append(_text(_BAR + 14, top, label, css="soft"))
        rows.append(_vertical("mark", mark, first, top + 3))
        top += 22
    return _svg("Share of the limit", top - 8, [_text(mark, 10, "limit, 100%", "middle"), *rows])


def speedups(report: Report) -> str:
    """Speed of im2col and of fastcnn as a multiple of the naive engine's, by kind."""
    rows = list[tuple[str, list[_Dot]]]()
    for kind, entries in report.kinds.items():
        dots = list[_Dot]()
        for entry in entries:
            naive = entry.figure("naive")
            for figure in (entry.figure("im2col"), entry.ours):
                if naive is not None and figure is not None:
                    ratio = naive.seconds / figure.seconds
                    title = f"{entry.name}: {figure.name} {times(ratio)} times naive"
                    is_ours = figure is entry.ours
                    dots.append(_Dot(ratio, colour(figure), title, counts=is_ours))
        if dots:
            rows.append((kind, dots))
    if not rows:
        return ""
    names = [("im2col", "im2col"), _OURS]
    axis = "speed ÷ naive's; at the right fastcnn's geometric means"
    return _swarms("Speed-ups over the naive engine", rows, axis, names)


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
    legend, bottom = _legend([_OURS, *families], top + 6)
    return _svg("Scaling over the batch", bottom + 8, [*parts, legend])


def threads(report: Report) -> str:
    """Speed of fastcnn on all threads as a multiple of its speed on one thread, by kind."""
    rows = list[tuple[str, list[_Dot]]]()
    for kind, entries in report.kinds.items() if report.threads > 1 else ():
        dots = list[_Dot]()
        for entry in entries:
            one, all_ = entry.figure(ALONE), entry.ours
            if one is not None and all_ is not None:
                ratio = one.seconds / all_.seconds
                dots.append(_Dot(ratio, "fastcnn", f"{entry.name}: {ratio:.2f} times one thread"))
        if dots:
            rows.append((kind, dots))
    if not rows:
        return ""
    axis = f"speed of {report.threads} threads ÷ that of one; at the right the geometric means"
    return _swarms("Scaling over threads", rows, axis, [], has_even=True, most=report.threads)


class _Dot(NamedTuple):
    """A contest on an axis of ratios; ``counts`` says whether the row's mean takes it."""

    ratio: float
    css: str
    title: str
    is_hollow: bool = False
    counts: bool = True


def _swarms(
    title: str,
    rows: Sequence[tuple[str, Sequence[_Dot]]],
    axis: str,
    names: Sequence[tuple[str, str]],
    has_even: bool = False,
    most: float = 1.0,
) -> str:
    """Rows of dots on one logarithmic axis, each row with a tick at its geometric mean.

    Args:
        title: what a screen reader says.
        rows: the name of each row, and its dots.
        axis: the label of the axis.
        names: the legend.
        has_even: whether the ratio of 1 has a line of its own.
        most: a ratio up to which the axis reaches at least.
    """
    ratios = [dot.ratio for _, dots in rows for dot in dots]
    left, right, top = 150.0, WIDTH - 42.0, 8.0
    x = _Log(min([1.0, *ratios]) / 1.15, max([1.0, most, *ratios]) * 1.15, left, right)
    parts, y = list[str](), top
    for name, dots in rows:
        levels = _levels([x(dot.ratio) for dot in dots])
        height = max(22.0, (max(levels) - min(levels)) * _LEVEL + 12)
        middle = y + height / 2 + (max(levels) + min(levels)) / 2 * _LEVEL
        mean = geometric_mean(dot.ratio for dot in dots if dot.counts)
        parts.append(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, middle + 4, name, "end", "small"))
        for dot, level in zip(dots, levels, strict=True):
            parts.append(_dot(x(dot.ratio), middle - level * _LEVEL, dot))
        if mean is not None:
            parts.append(_vertical("mark", x(mean), y + 2, y + height - 2))
            parts.append(_text(WIDTH, middle + 4, f"{times(mean)} ×", "end"))
        y += height
    grid = [_axis(x, y, top, "")]
    if has_even:
        grid.append(_vertical("roof", x(1.0), top, y))
    parts.append(_text(WIDTH, y + 27, axis, "end", "soft"))
    if not names:
        return _svg(title, y + 34, [*grid, *parts])
    legend, bottom = _legend(names, y + 46)
    return _svg(title, bottom + 8, [*grid, *parts, legend])


def _levels(places: Sequence[float]) -> list[int]:
    """For each dot of a row its level, so that dots side by side do not cover each other."""
    levels, last = [0] * len(places), dict[int, float]()
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        tries = [0, 1, -1, 2, -2, 3, -3]
        free = [level for level in tries if places[i] - last.get(level, -math.inf) >= 2 * _DOT]
        levels[i] = free[0] if free else min(tries, key=lambda level: last[level])
        last[levels[i]] = places[i]
    return levels


def _dot(x: float, y: float, dot: _Dot) -> str:
    hollow = ' fill-opacity="0" stroke-width="1.4"' if dot.is_hollow else ""
    return (
        f'<circle class="{dot.css}" cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}"{hollow}>'
        f"<title>{escape(dot.title)}</title></circle>"
    )


def _families(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    """The libraries that are the best peer of an entry, with their CSS classes."""
    return sorted({(f.family, colour(f)) for e in entries if (f := e.best_peer)})


def _figures(entry: Entry) -> list[Figure]:
    """fastcnn, im2col and the best figure of each peer, the fastest first."""
    best: dict[str, Figure] = {}
    for figure in sorted(entry.figures, key=lambda f: f.seconds):
        if figure.name in (ALONE, "naive"):  # STRICT keeps its bar, of a direct sum
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


def _bar(y: float, length: float, css: str, has_point: bool) -> str:
    point = ""
    if has_point:
        x = length + 1
        ends = f"{x:.1f},{y:.1f} {x + 7:.1f},{y + 4.5:.1f} {x:.1f},{y + 9:.1f}"
        point = f'<polygon class="{css}" points="{ends}"/>'
    return f'<rect class="{css}" x="0" y="{y:.1f}" width="{length:.1f}" height="9" rx="2"/>{point}'


def _vertical(css: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{css}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'


def _legend(names: Sequence[tuple[str, str]], y: float) -> tuple[str, float]:
    """Names with dots of their classes, in as many lines as they need; and the last line's y."""
    parts, x = [], 0.0
    for name, css in names:
        width = (13 if css else 0) + 6.5 * len(name)
        if x and x + width > WIDTH:
            x, y = 0.0, y + 16
        if css:
            parts.append(f'<circle class="{css}" cx="{x + 5:.1f}" cy="{y - 4:.1f}" r="4"/>')
        parts.append(_text(x + (13 if css else 0), y, name))
        x += width + 9
    return "".join(parts), y


def _svg(title: str, height: float, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
