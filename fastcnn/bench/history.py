"""Comparison of two runs of the suite, before and after a change.

Two runs cannot take turns with each other, and the machine may be busier in one of them. Therefore
the figures are compared that other work disturbs least: fastcnn's time on a core, on one thread,
divided by the time of a probe that ran in the same rounds. The probe computes multiply-adds. If a
contest is limited by memory, the probe copies as many bytes instead. Both times are the least of
many samples. The gain of several threads is not compared. In contests that memory limits, only a
large slowdown is found.

The tolerance of an entry is that of its probe in :data:`TOLERANCES`. Copies have a larger one,
because all programs share the memory. The tolerance is at least :data:`SAFETY` times the sum of the
spreads of figures and probes. If it exceeds :data:`TELLING`, the entry gets no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fastcnn.bench.report import ALONE, Entry, Report, geometric_mean

TOLERANCES = {"multiply-adds": 0.15, "copy": 0.6}
SAFETY = 3.0
TELLING = 0.7
FOLDER = Path(".fastcnn-bench")
"""The folder of ``--save``, inside of the current folder."""


class Verdict(StrEnum):
    """The verdict on an entry."""

    slower = "slower"
    faster = "faster"
    same = "same"
    unclear = "too noisy to tell"


@dataclass(frozen=True)
class Change:
    """An entry of both runs. ``ratio`` is its calibrated time after, divided by the one before."""

    name: str
    before: float
    after: float
    ratio: float
    tolerance: float

    @property
    def verdict(self) -> Verdict:
        """Slower, faster, the same within the tolerance, or too noisy to tell."""
        if self.tolerance > TELLING:
            return Verdict.unclear
        if self.ratio > 1 + self.tolerance:
            return Verdict.slower
        if self.ratio < 1 / (1 + self.tolerance):
            return Verdict.faster
        return Verdict.same


@dataclass(frozen=True)
class Comparison:
    """All entries that both runs have, and the names of entries that only one run has."""

    changes: tuple[Change, ...]
    missing: tuple[str, ...]

    @property
    def slower(self) -> tuple[Change, ...]:
        """The entries that became slower, beyond noise."""
        return tuple(c for c in self.changes if c.verdict is Verdict.slower)

    @property
    def mean(self) -> float | None:
        """Geometric mean of the ratios, without the entries that are too noisy."""
        telling = (c.ratio for c in self.changes if c.verdict is not Verdict.unclear)
        return geometric_mean(telling)


def compare(before: Report, after: Report) -> Comparison:
    """Compare two runs.

    Raises ``ValueError`` if they have no entry in common.
    """
    changes = tuple(_changes(before, after))
    if not changes:
        raise ValueError("the two reports have no entry in common that both have timed")
    common = {change.name for change in changes}
    names = dict.fromkeys(e.name for report in (before, after) for e in report.entries)
    return Comparison(changes, tuple(name for name in names if name not in common))


def _changes(before: Report, after: Report) -> Iterator[Change]:
    earlier = {entry.name: entry for entry in before.entries}
    for entry in after.entries:
        earlier_entry = earlier.get(entry.name)
        if earlier_entry is None or earlier_entry.probe_kind != entry.probe_kind:
            continue
        old, new = _calibrated(earlier_entry), _calibrated(entry)
        if old is None or new is None:
            continue
        (a, a_spread), (b, b_spread) = old, new
        tolerance = max(TOLERANCES[entry.probe_kind], SAFETY * (a_spread + b_spread))
        yield Change(entry.name, a, b, b / a, tolerance)


def _calibrated(entry: Entry) -> tuple[float, float] | None:
    """The time in units of the probe's time, and the sum of both spreads; None without a figure."""
    figure = entry.figure(ALONE)
    if figure is None or not entry.probe:
        return None
    return figure.core / entry.probe, figure.core_spread + entry.probe_spread


def place(name: str) -> Path:
    """The file of a saved report: the path itself, or for a name a file in :data:`FOLDER`.

    >>> place("before").as_posix(), place("some/report.json").as_posix()
    ('.fastcnn-bench/before.json', 'some/report.json')
    """
    if name.endswith(".json") or Path(name).parent != Path("."):
        return Path(name)
    return FOLDER / f"{name}.json"
