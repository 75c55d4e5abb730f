"""The report for a terminal: tables with bars, in which the best of each contest is marked."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastcnn.bench.history import Comparison, Verdict
from fastcnn.bench.report import ALONE, NOISY, OURS, Entry, Figure, Report
from fastcnn.core.tables import fitted_table, lines_of

BAR = 12
DOUBT = " ?"
"""Marks a ratio if the noise of one of its figures exceeds :data:`fastcnn.bench.report.NOISY`."""
NOTES = (
    "★          the fastest; bars show speeds, and its bar is full",
    "×          fastcnn's speed as a multiple of this runner's",
    "GFLOP/s    of the multiply-adds that the problem needs, without padding",
    'of limit   GFLOP/s as a share of the measured peak; with "m", bytes as a share of a copy\'s '
    "bandwidth, over 100% if the arrays stay in caches",
    "W          Winograd's algorithm, which needs fewer multiply-adds than are counted, so it may "
    "pass 100%",
    "noise      distance of the second and third least turns from the least",
)
_HEADINGS = ("", "", "time", "×", "GFLOP/s", "of limit", "noise")
_SPARE = (1, 6, 5)
"""Columns of a contest that a narrow terminal leaves out: the bar, the noise, the limit."""


def show(console: Console, report: Report) -> None:
    """Print a report."""
    machine = report.machine
    console.print(
        f"fastcnn {machine['fastcnn']} on {machine['processor']}, {machine['isa'] or 'no compiler'}"
        f", {threads_of(report)}; peak {report.top:.0f} GFLOP/s, copy "
        f"{report.bandwidth:.1f} GB/s",
        highlight=False,
    )
    for entry in report.entries:
        console.print(contest_table(report, entry, console.width))
        for absent in entry.absent:
            style = "bold red" if absent.wrong else "dim"
            console.print(
                Text(
                    f"  {absent.name} {'REFUSED' if absent.wrong else 'left out'}: ", style
                ).append(absent.reason)
            )
    for note in NOTES:
        for line in lines_of(note, console.width, 11):
            console.print(line, style="dim", markup=False, highlight=False)
    if report.costs:
        console.print(cost_table(report, console.width))
    for line in summary(report):
        console.print(line, markup=False, highlight=False, style="bold")
    for note in notes(report):
        console.print(note, markup=False, highlight=False, style="yellow")


def contest_table(report: Report, entry: Entry, width: int) -> Table:
    """One contest, the fastest first, in columns that fit a width."""
    table = Table(
        title=entry.name, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    fastest, figures = entry.best, sorted(entry.figures, key=lambda f: f.seconds)
    cells = [_HEADINGS, *(_cells(report, entry, figure) for figure in figures)]
    columns, (headings, *rows) = fitted_table(cells, width - 1, [0], _SPARE, gap=1, least=24)
    for column, heading in zip(columns, headings, strict=True):
        is_left = column < 2
        table.add_column(
            heading, justify="left" if is_left else "right", no_wrap=True,
            width=BAR if column == 1 else None,
        )  # fmt: skip
    for figure, row in zip(figures, rows, strict=True):
        style = "bold green" if figure is fastest else ("bold" if figure is entry.ours else "")
        table.add_row(*map(Text, row), style=style)
    return table


def _cells(report: Report, entry: Entry, figure: Figure) -> tuple[str, ...]:
    """The row of a figure, in the order of the headings."""
    ratio, limit = entry.times(figure), f"{report.share(entry, figure):.0%}"
    if report.limit(entry) == "memory":
        limit = f"m {limit}"
    if entry.method == "winograd" and figure.name in (OURS, ALONE):
        limit = f"W {limit}"
    mark = "★ " if figure is entry.best else "  "
    return (
        mark + figure.name + ("*" if figure.share < 1 else ""),
        bar(entry.best, figure),
        duration(figure.seconds),
        "" if ratio is None or figure is entry.ours else times(ratio),
        f"{entry.gflops(figure):.1f}" if entry.flops else "",
        limit,
        noise(figure),
    )


def noise(figure: Figure) -> str:
    """A figure's spread, or "once" if it has one turn."""
    if figure.turns == 1:
        return "once"
    return f"{figure.spread:.0%}" if figure.spread < 1 else ">100%"


def bar(fastest: Figure, figure: Figure) -> str:
    """Speed as a bar; the bar of the fastest has full length."""
    return "█" * max(1, round(BAR * fastest.seconds / figure.seconds))


def cost_table(report: Report, width: int) -> Table:
    """The figures that are no contests, in columns that fit a width."""
    table = Table(title="Before the first result", title_justify="left", box=None)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    cells = [(cost.name, cost.family, amount(cost.value, cost.unit)) for cost in report.costs]
    for row in fitted_table(cells, width - 2, [0], gap=2).rows:
        table.add_row(*map(Text, row))
    return table


def amount(value: float, unit: str) -> str:
    """A cost with its unit.

    >>> amount(1234.5, "MB"), amount(0.0123, "s")
    ('1,234 MB', '12.30 ms')
    """
    return duration(value) if unit == "s" else f"{value:,.0f} {unit}"


def summary(report: Report) -> list[str]:
    """The run in a few sentences, beginning with the contests that fastcnn lost."""
    lines = []
    for entry, absent in report.wrong:
        lines.append(f"REFUSED: {absent.name} on {entry.name}: {absent.reason}")
    for strict in (False, True):
        against, losses = report.against_peers(strict), report.losses(strict)
        mathematics = " in strict mathematics" if strict else ""
        if against:
            lines.append(
                f"A peer is faster in {len(losses)} of {len(against)} contests{mathematics}."
            )
        for entry in losses:
            peer, ratio = entry.best_peer, entry.times(entry.best_peer, strict)
            assert peer is not None
            assert ratio is not None
            if strict and entry.strict is entry.ours:
                continue  # the same figure as above
            doubt = DOUBT if entry.is_doubtful else ""
            lines.append(f"  {entry.name}: {peer.name} is {times(1 / ratio)} times as fast{doubt}")
    for what, mean in (
        ("the naive engine", report.mean_times("naive")),
        ("the im2col engine", report.mean_times("im2col")),
        ("the best peer", report.mean_times_best_peer()),
        ("the best peer, in strict mathematics,", report.mean_times_best_peer(strict=True)),
    ):
        if mean is not None:
            lines.append(f"fastcnn's speed is {times(mean)} times that of {what} (geometric mean).")
    return lines


def notes(report: Report) -> list[str]:
    """Notes that a reader needs to judge the figures."""
    sentences = list(report.notes)
    if not report.is_quiet:
        sentences.append(
            f"This machine was busy: {report.threads} threads reached {report.quiet:.0%} of "
            f"{report.threads} times the speed of one. Figures of several threads do not count."
        )
    if doubtful := [e.name for e in report.entries if e.best_peer and e.is_doubtful]:
        sentences.append(
            f"? marks ratios that are doubtful, because the noise of fastcnn or of the best peer "
            f"exceeds {NOISY:.0%}: {'; '.join(doubtful)}."
        )
    if any(f.share < 1 for e in report.entries for f in e.figures):
        sentences.append("* ran on a part of the batch; its time is scaled to the whole batch.")
    return sentences


def comparison_table(comparison: Comparison, width: int) -> Table:
    """The changes, beginning with the largest slowdown, in columns that fit a width."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    styles: dict[Any, str] = {
        Verdict.slower: "bold red",
        Verdict.faster: "green",
        Verdict.unclear: "yellow",
    }
    changes = sorted(comparison.changes, key=lambda c: -c.ratio)
    cells = [
        ("on one thread, in units of the probe", "before", "after", "÷", "tolerance", ""),
        *(
            (
                change.name,
                f"{change.before:.3g}",
                f"{change.after:.3g}",
                f"{change.ratio:.2f}",
                f"{change.tolerance:.0%}",
                change.verdict.value,
            )
            for change in changes
        ),
    ]
    headings, *rows = fitted_table(cells, width - 1, [0], [4], gap=1, least=24).rows
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for change, row in zip(changes, rows, strict=True):
        table.add_row(*map(Text, row), style=styles.get(change.verdict, ""))
    return table


_PACKAGES = {
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ai_edge_litert": "LiteRT",
    "jax": "JAX",
    "scipy": "SciPy",
    "numpy": "NumPy",
    "numba": "Numba",
}


def versions_of(report: Report) -> str:
    """The versions of the libraries that took part, of NumPy and of Numba, as text."""
    families = {figure.family for entry in report.entries for figure in entry.figures}
    packages = report.machine["packages"]
    return ", ".join(
        f"{name} {packages[package]}"
        for package, name in _PACKAGES.items()
        if packages.get(package) and name in {*families, "NumPy", "Numba"}
    )


def threads_of(report: Report) -> str:
    """The number of threads as text, such as "2 threads"."""
    return f"{report.threads} thread{'s' if report.threads > 1 else ''}"


def duration(seconds: float) -> str:
    """Seconds to four digits, with a unit.

    >>> duration(12.34e-6), duration(0.0123), duration(2.5)
    ('12.3 µs', '12.30 ms', '2.50 s')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def times(ratio: float) -> str:
    """A ratio to three digits.

    >>> times(0.4567), times(12.345), times(12345.6)
    ('0.46', '12.3', '12,346')
    """
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"
