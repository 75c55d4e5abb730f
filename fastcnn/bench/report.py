"""What a run of the suite found, ready for JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastcnn.core.files import write_whole
from fastcnn.core.quoting import shortened
from fastcnn.core.reading import read_text

FORMAT = 1
OURS = ("fastcnn", "numba")
"""Runners that are fastcnn at its best: a net through ``Sequential``, an operation's kernels."""
ALONE = ("fastcnn, 1 thread", "numba, 1 thread")
"""The same on one thread."""


@dataclass(frozen=True)
class Figure:
    """One runner in one contest.

    Attributes:
        name, family: of the runner.
        seconds: the least time of the whole work.
        middle: the median, likewise.
        spread: how far the second and third least turns lay above the least.
        turns: how many there were.
        core: seconds of the calling thread on a core.
        core_spread: as ``spread``, of those.
        share: the part of the work that was run; ``seconds`` are those of all of it, at its pace.
    """

    name: str
    family: str
    seconds: float
    middle: float
    spread: float
    turns: int
    core: float
    core_spread: float
    share: float = 1.0


@dataclass(frozen=True)
class Absent:
    """Who did not take part in a contest, and why; ``wrong`` if for a wrong result."""

    name: str
    reason: str
    wrong: bool = False


@dataclass(frozen=True)
class Entry:
    """One contest.

    Attributes:
        name: "conv2d/article 3×3, batch 1".
        group: the operation, "net_predict" or "net_train".
        problem: the name without the batch, by which batch sizes belong together.
        batch: samples.
        flops: multiply-adds times 2.
        bytes: read and written, each array once.
        figures: the runners, in the order of the contest.
        absent: who did not take part.
        probe: seconds on a core of the probe that ran in the same rounds.
        probe_spread: of that.
        probe_kind: what it does, "multiply-adds" or "copy".
    """

    name: str
    group: str
    problem: str
    batch: int
    flops: int
    bytes: int
    figures: tuple[Figure, ...]
    absent: tuple[Absent, ...] = ()
    probe: float = 0.0
    probe_spread: float = 0.0
    probe_kind: str = "multiply-adds"

    def figure(self, *names: str) -> Figure | None:
        """The first runner of one of these names."""
        return next((f for f in self.figures if f.name in names), None)

    @property
    def ours(self) -> Figure | None:
        """fastcnn at its best; None where its result was wrong."""
        return self.figure(*OURS)

    @property
    def peers(self) -> tuple[Figure, ...]:
        """Runners of other libraries, the fastest first."""
        others = (f for f in self.figures if f.family != "fastcnn")
        return tuple(sorted(others, key=lambda f: f.seconds))

    @property
    def best_peer(self) -> Figure | None:
        """The fastest of the other libraries."""
        return self.peers[0] if self.peers else None

    @property
    def best(self) -> Figure:
        """The fastest of all."""
        return min(self.figures, key=lambda f: f.seconds)

    def times(self, other: Figure | None) -> float | None:
        """How many times as fast as another runner fastcnn is, or None."""
        if other is None or self.ours is None:
            return None
        return other.seconds / self.ours.seconds

    def gflops(self, figure: Figure) -> float:
        """Billions of operations a second."""
        return self.flops / figure.seconds / 1e9

    def gbytes(self, figure: Figure) -> float:
        """Billions of bytes a second."""
        return self.bytes / figure.seconds / 1e9


@dataclass(frozen=True)
class Cost:
    """One figure that is no contest: sizes, imports, first calls. ``unit``: "s" or "MB"."""

    name: str
    family: str
    value: float
    unit: str


@dataclass(frozen=True)
class Report:
    """A run of the suite."""

    machine: dict[str, Any]
    threads: int
    when: str
    seconds: float
    quick: bool
    peak: dict[str, Any]
    quiet: float
    entries: tuple[Entry, ...]
    costs: tuple[Cost, ...] = ()
    notes: tuple[str, ...] = ()
    format: int = field(default=FORMAT)

    @cached_property
    def top(self) -> float:
        """Measured peak in GFLOP/s, float32, on all threads of this run."""
        return float(self.peak["flops"]["float32"][str(self.threads)])

    @cached_property
    def bandwidth(self) -> float:
        """Measured GB/s of a copy, on all threads of this run."""
        return float(self.peak["copy"][str(self.threads)])

    @property
    def is_quiet(self) -> bool:
        """Whether all threads together reached what one alone promises."""
        return self.quiet >= QUIET

    @property
    def wrong(self) -> tuple[tuple[Entry, Absent], ...]:
        """fastcnn's runners that were refused for a wrong result."""
        ours = ("im2col", "naive", *OURS, *ALONE)
        return tuple((e, a) for e in self.entries for a in e.absent if a.wrong and a.name in ours)

    def limit(self, entry: Entry) -> str:
        """What bounds a contest, by the measured peaks: "compute" or "memory"."""
        compute = entry.flops / self.top
        return "compute" if compute >= entry.bytes / self.bandwidth else "memory"

    def share(self, entry: Entry, figure: Figure) -> float:
        """The part of its limit that a runner reached; over 1 where caches beat the memory."""
        if self.limit(entry) == "compute":
            return entry.gflops(figure) / self.top
        return entry.gbytes(figure) / self.bandwidth

    def losses(self) -> list[Entry]:
        """Contests that a peer won, the worst first."""
        lost = [e for e in self.entries if (t := e.times(e.best_peer)) is not None and t < 1]
        return sorted(lost, key=lambda e: e.times(e.best_peer) or 0)

    def mean_times(self, *names: str) -> float | None:
        """Geometric mean of how many times as fast as these runners fastcnn is."""
        return geometric_mean(
            ratio for e in self.entries if (ratio := e.times(e.figure(*names))) is not None
        )

    def mean_times_best_peer(self) -> float | None:
        """Geometric mean of how many times as fast as the best peer fastcnn is."""
        return geometric_mean(
            ratio for e in self.entries if (ratio := e.times(e.best_peer)) is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """The report of :meth:`to_dict`.

        Raises ``ValueError`` for anything else.
        """
        try:
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']} is not {FORMAT}, which is known here")
            entries = tuple(
                Entry(
                    **{
                        **entry,
                        "figures": tuple(Figure(**f) for f in entry["figures"]),
                        "absent": tuple(Absent(**a) for a in entry["absent"]),
                    }
                )
                for entry in values["entries"]
            )
            costs = tuple(Cost(**cost) for cost in values["costs"])
            notes = tuple(values["notes"])
            return cls(**{**values, "entries": entries, "costs": costs, "notes": notes})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no report of fastcnn bench: {error!r}") from None

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report in a file. Raises ``ValueError`` naming the file, or ``OSError``."""
        try:
            return cls.from_dict(json.loads(read_text(path)))
        except (ValueError, RecursionError) as error:  # JSON's errors are such, too
            raise ValueError(f"{path}: {shortened(str(error))}") from None

    def write(self, path: Path) -> None:
        """Write JSON. Raises ``OSError`` as :func:`fastcnn.core.files.write_whole`."""
        write_whole(path, (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode())


QUIET = 0.85


def geometric_mean(values: Iterable[float]) -> float | None:
    """The geometric mean, or None of nothing.

    >>> geometric_mean([2.0, 8.0]), geometric_mean([])
    (4.0, None)
    """
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None
