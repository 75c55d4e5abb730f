"""Tables of single layers beside PyTorch, and whether fastcnn's promises for them are kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from fastcnn.bench import Report, bench
from fastcnn.bench.problems import Conv, conv_problems
from fastcnn.bench.report import Entry, geometric_mean
from fastcnn.bench.text import duration, notes
from fastcnn.proof.problems import Problem


class Section(NamedTuple):
    """Problems of one table, and what is promised of them.

    Attributes:
        title: of the table.
        problems: what is timed.
        mean: least geometric mean of the ratios PyTorch's time ÷ fastcnn's time.
        least: least of these ratios.
        share: least geometric mean of the shares of the measured peak.
    """

    title: str
    problems: tuple[Problem, ...]
    mean: float
    least: float = 0.0
    share: float = 0.0


def convolution(op: str, label: str, *sides: int, n: int = 1, groups: int = 1) -> Problem:
    """A convolution of square images, by the numbers of a table of layers.

    Args:
        op: "conv2d", "conv2d_input_gradient" or "conv2d_filter_gradient".
        label: what the layer belongs to.
        sides: input channels, side of the image, output channels, side of the filter, stride and
            padding.
        n: batch size.
        groups: of channels.
    """
    ic, side, oc, k, stride, padding = sides
    name = f"{label} {side}×{side}×{ic}→{oc} {k}×{k} /{stride}"
    layer = Conv(name, (side, side, ic), oc, k, (n,), stride, padding, groups, (op,))
    return next(iter(conv_problems(layer)))


def run(sections: Sequence[Section], seconds: float, threads: int, json_file: Path | None) -> int:
    """Time the sections, print their tables and what came of the promises.

    Returns:
        The exit code: 0, 1 where a promise is missed, 2 where other work kept the machine busy.
    """
    report = bench(
        quick=False,
        problems=[problem for section in sections for problem in section.problems],
        peer=["torch"],
        threads=threads,
        seconds=seconds,
        progress=lambda done, total, name: print(f"{done}/{total} {name}", file=sys.stderr),
    )
    console = Console()
    console.width = max(console.width, 120)
    machine = report.machine
    console.print(
        f"fastcnn {machine['fastcnn']} beside PyTorch {machine['packages']['torch']}, {threads} "
        f"threads, float32; measured peak {report.top:.0f} GFLOP/s",
        highlight=False,
    )
    entries, all_kept = iter(report.entries), True
    for section in sections:
        timed = [next(entries) for _ in section.problems]
        console.print(table(section.title, timed, report))
        for text, kept in verdicts(section, timed, report):
            console.print(f"  {text}: {'kept' if kept else 'missed'}", highlight=False)
            all_kept = all_kept and kept
    for entry, absent in report.wrong:
        console.print(f"{absent.name} on {entry.name}: {absent.reason}", style="bold red")
    for note in notes(report):
        console.print(note, style="yellow")
    if json_file is not None:
        report.write(json_file)
    return 2 if not report.is_quiet else int(not all_kept or bool(report.wrong))


def table(title: str, entries: Sequence[Entry], report: Report) -> Table:
    """A row for each problem: both times, their ratio, and shares of the peak."""
    result = Table(title=title)
    for heading in ("problem", "fastcnn", "PyTorch", "its layout", "ratio", "GFLOP/s", "of limit"):
        left = heading in ("problem", "its layout")
        result.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for entry in entries:
        ours, rival, ratio = entry.ours, entry.best_peer, entry.times(entry.best_peer)
        if ours is None or rival is None or ratio is None:
            result.add_row(entry.name, "; ".join(absent.reason for absent in entry.absent))
            continue
        result.add_row(
            entry.name,
            duration(ours.seconds),
            duration(rival.seconds),
            rival.name.removeprefix("PyTorch "),
            f"{ratio:.2f}",
            f"{entry.gflops(ours):.0f}" if entry.flops else "",
            f"{report.share(entry, ours):.0%}",
        )
    return result


def verdicts(section: Section, entries: Sequence[Entry], report: Report) -> list[tuple[str, bool]]:
    """What was promised, what came of it, and whether it was kept."""
    ratios = [entry.times(entry.best_peer) or 0.0 for entry in entries]
    if not all(ratios):
        return [("a problem has no result to compare", False)]
    figures = [("geometric mean of the ratios", geometric_mean(ratios), section.mean)]
    if section.least:
        figures.append(("least ratio", min(ratios), section.least))
    if section.share:
        shares = [report.share(entry, entry.ours) for entry in entries if entry.ours]
        figures.append(("geometric mean of the shares", geometric_mean(shares), section.share))
    return [
        (f"{name} {value:.2f}, promised {promised:.2f}", value >= promised)
        for name, value, promised in figures
        if value is not None
    ]
