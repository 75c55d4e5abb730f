"""Two runs of the suite, before and after a change: what became slower, beyond noise.

Runs cannot take turns with each other, and the machine may be busier in one of them. So what is
compared is what other work disturbs least: fastcnn on one thread, by its time on a core, divided by
the time of a probe that ran in the same rounds. The probe is made of multiply-adds; where arrays
that no cache of a core holds are the limit, it copies as many bytes. Both are the least of many
samples. What several threads gain is not compared, and a slowdown of what memory limits is found
only where it is large.

The tolerance of an entry is that of its probe in :data:`TOLERANCES`, for memory is shared with
whatever else runs; or more where the least turns of its figures or probes were not met again: then
:data:`SAFETY` times the sum of their spreads. Where that exceeds :data:`TELLING`, the entry is said
to tell nothing, in place of a verdict.
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
"""Where ``--save`` keeps reports, in the folder that the command runs in."""


class Verdict(StrEnum):
    """What became of an entry."""

    slower = "slower"
    faster = "faster"
    same = "same"
    unclear = "too noisy to tell"


@dataclass(frozen=True)
class Change:
    """One entry in both runs: ``ratio`` of its calibrated times, after by before."""

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
    """Every entry that both runs have, and the names of those that one of them lacks."""

    changes: tuple[Change, ...]
    missing: tuple[str, ...]

    @property
    def slower(self) -> tuple[Change, ...]:
        """What became slower beyond noise."""
        return tuple(c for c in self.changes if c.verdict is Verdict.slower)

    @property
    def mean(self) -> float | None:
        """Geometric mean of the ratios of what tells something."""
        telling = (c.ratio for c in self.changes if c.verdict is not Verdict.unclear)
        return geometric_mean(telling)


def compare(before: Report, after: Report) -> Comparison:
    """Compare two runs.

    Raises ``ValueError`` where they have nothing in common.
    """
    changes = tuple(_changes(before, after))
    if not changes:
        raise ValueError("the two reports have no entry in common that both have timed")
    compared = {change.name for change in changes}
    names = dict.fromkeys(e.name for report in (before, after) for e in report.entries)
    return Comparison(changes, tuple(name for name in names if name not in compared))


def _changes(before: Report, after: Report) -> Iterator[Change]:
    earlier = {entry.name: entry for entry in before.entries}
    for entry in after.entries:
        other = earlier.get(entry.name)
        if other is None or other.probe_kind != entry.probe_kind:
            continue
        old, new = _calibrated(other), _calibrated(entry)
        if old is None or new is None:
            continue
        (a, a_spread), (b, b_spread) = old, new
        tolerance = max(TOLERANCES[entry.probe_kind], SAFETY * (a_spread + b_spread))
        yield Change(entry.name, a, b, b / a, tolerance)


def _calibrated(entry: Entry) -> tuple[float, float] | None:
    """Time in units of the probe's, and the spread of both together."""
    figure = entry.figure(*ALONE)
    if figure is None or not entry.probe:
        return None
    return figure.core / entry.probe, figure.core_spread + entry.probe_spread


def place(name: str) -> Path:
    """The file of a saved report: a path as it is, a name in :data:`FOLDER`.

    >>> place("before").as_posix(), place("some/report.json").as_posix()
    ('.fastcnn-bench/before.json', 'some/report.json')
    """
    if name.endswith(".json") or Path(name).parent != Path("."):
        return Path(name)
    return FOLDER / f"{name}.json"
