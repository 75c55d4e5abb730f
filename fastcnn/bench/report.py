"""The report of a run of the suite, and its conversion to JSON and back."""

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
OURS, ALONE, STRICT = "fastcnn", "fastcnn, 1 thread", "fastcnn, strict"
"""Names of fastcnn's runners: on all threads of the run, on one, and in strict mathematics."""
ENGINE_OF = dict.fromkeys((OURS, ALONE, STRICT), "numba")
"""The engine of these runners. Runners of other engines have the engine's name."""
_EARLIER_NAMES = {"numba": OURS, "numba, 1 thread": ALONE}
"""Names in files of earlier versions."""
NOISY = 0.2
"""A spread above this makes a ratio doubtful."""
KINDS = {
    "net_predict": "nets, inference",
    "net_train": "nets, training step",
    "net_standard": "standard nets, inference",
    "net_of_file": "models of files, inference",
    "conv2d": "convolution",
    "conv2d_input_gradient": "gradient of the images",
    "conv2d_filter_gradient": "gradient of the filters",
    "max_pool2d": "max-pooling",
    "max_pool2d_backward": "gradient of max-pooling",
    "avg_pool2d": "average pooling",
    "avg_pool2d_backward": "gradient of average pooling",
    "dense": "dense",
    "dense_backward": "gradients of dense",
    "relu": "ReLU",
    "relu_backward": "gradient of ReLU",
    "add": "sum",
    "softmax": "softmax",
}
"""Groups of contests with the words for them, in the order of a report."""


@dataclass(frozen=True)
class Figure:
    """One runner in one contest.

    Attributes:
        name, family: the runner's name and family.
        seconds: the least time of the whole work.
        middle: the median time of the whole work.
        spread: distance of the second and third least turns from the least, as a share of it.
        turns: number of turns.
        core: the least time of the calling thread on a core.
        core_spread: the spread of the times on a core.
        share: the share of the work that was run. All times are scaled to the whole work.
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
    """A runner that did not take part in a contest, and the reason.

    ``wrong`` says that its result was wrong.
    """

    name: str
    reason: str
    wrong: bool = False


@dataclass(frozen=True)
class Entry:
    """One contest.

    Attributes:
        name: the contest's name, such as "conv2d/article 3×3, batch 1".
        group: the operation, "net_predict", "net_train", "net_standard" or
            "net_of_file".
        problem: the name without the batch, which is equal for all batch sizes of a problem.
        batch: number of samples.
        flops: multiply-adds times 2.
        bytes: bytes read and written, each array once.
        figures: the runners' figures, in the order of the contest.
        absent: runners that did not take part.
        probe: seconds on a core of the probe that ran in the same rounds.
        probe_spread: the spread of these seconds.
        probe_kind: the work of the probe, "multiply-adds" or "copy".
        method: the algorithm of fastcnn's fastest runner, "winograd" or "direct"; empty for other
            work than a convolution, and in files of earlier versions.
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
    method: str = ""

    def figure(self, *names: str) -> Figure | None:
        """The figure of the first runner with one of these names, or None."""
        return next((f for f in self.figures if f.name in names), None)

    @property
    def ours(self) -> Figure | None:
        """The figure of fastcnn's fastest runner; None if its result was wrong."""
        return self.figure(OURS)

    @property
    def strict(self) -> Figure | None:
        """fastcnn's figure under ``math="strict"``.

        It is that of :attr:`ours` where both mathematics choose the same algorithm. None if the
        result was wrong, or in files of earlier versions, which lack it.
        """
        strict = self.figure(STRICT)
        may_differ = self.method == "winograd" or self.group.startswith("net_")
        unknown = self.group.startswith("conv2d") and not self.method
        return strict if strict is not None or may_differ or unknown else self.ours

    @property
    def peers(self) -> tuple[Figure, ...]:
        """Figures of other libraries, the fastest first."""
        peers = (f for f in self.figures if f.family != "fastcnn")
        return tuple(sorted(peers, key=lambda f: f.seconds))

    @property
    def best_peer(self) -> Figure | None:
        """The fastest figure of other libraries, or None."""
        return self.peers[0] if self.peers else None

    @property
    def best(self) -> Figure:
        """The fastest of all figures."""
        return min(self.figures, key=lambda f: f.seconds)

    @property
    def noise(self) -> float:
        """The larger noise of the best peer and of fastcnn."""
        both = (self.best_peer, self.ours)
        return max((figure.spread for figure in both if figure is not None), default=0.0)

    @property
    def is_doubtful(self) -> bool:
        """Whether the noise of the best peer, or of fastcnn, exceeds :data:`NOISY`."""
        return self.noise > NOISY

    def times(self, other: Figure | None, strict: bool = False) -> float | None:
        """fastcnn's speed as a multiple of another runner's, or None.

        ``strict`` says whether the speed is that of strict mathematics.
        """
        ours = self.strict if strict else self.ours
        if other is None or ours is None:
            return None
        return other.seconds / ours.seconds

    def gflops(self, figure: Figure) -> float:
        """Billions of operations per second."""
        return self.flops / figure.seconds / 1e9

    def gbytes(self, figure: Figure) -> float:
        """Billions of bytes per second."""
        return self.bytes / figure.seconds / 1e9


@dataclass(frozen=True)
class Cost:
    """A figure without a contest: a size, an import, a first call. ``unit`` is "s" or "MB"."""

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
        """Whether all threads together reached :data:`QUIET` of the sum of their single speeds."""
        return self.quiet >= QUIET

    @property
    def wrong(self) -> tuple[tuple[Entry, Absent], ...]:
        """fastcnn's runners that were refused because of a wrong result."""
        ours = ("im2col", "naive", OURS, ALONE, STRICT)
        return tuple((e, a) for e in self.entries for a in e.absent if a.wrong and a.name in ours)

    @property
    def kinds(self) -> dict[str, list[Entry]]:
        """The contests by the words of their kind, in the order of :data:`KINDS`."""
        groups = [*KINDS, *(e.group for e in self.entries if e.group not in KINDS)]
        kinds = {
            KINDS.get(group, group): [e for e in self.entries if e.group == group]
            for group in groups
        }
        return {name: entries for name, entries in kinds.items() if entries}

    def limit(self, entry: Entry) -> str:
        """The limit of a contest by the measured peaks, "compute" or "memory"."""
        compute = entry.flops / self.top
        return "compute" if compute >= entry.bytes / self.bandwidth else "memory"

    def share(self, entry: Entry, figure: Figure) -> float:
        """The share of its limit that a runner reached; above 1 if its arrays stay in caches."""
        if self.limit(entry) == "compute":
            return entry.gflops(figure) / self.top
        return entry.gbytes(figure) / self.bandwidth

    def against_peers(self, strict: bool = False) -> list[Entry]:
        """Contests of fastcnn and a peer; ``strict`` as for :meth:`Entry.times`."""
        return [e for e in self.entries if e.times(e.best_peer, strict) is not None]

    def losses(self, strict: bool = False) -> list[Entry]:
        """Contests that a peer won, the worst first."""
        lost = [e for e in self.entries if (e.times(e.best_peer, strict) or 1) < 1]
        return sorted(lost, key=lambda e: e.times(e.best_peer, strict) or 0)

    def mean_times(self, *names: str) -> float | None:
        """Geometric mean of fastcnn's speed as a multiple of these runners' speed."""
        return geometric_mean(
            ratio for e in self.entries if (ratio := e.times(e.figure(*names))) is not None
        )

    def mean_times_best_peer(self, strict: bool = False) -> float | None:
        """Geometric mean of fastcnn's speed as a multiple of the best peer's."""
        return geometric_mean(
            ratio for e in self.entries if (ratio := e.times(e.best_peer, strict)) is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """The report from a result of :meth:`to_dict`.

        Raises ``ValueError`` for anything else.
        """
        try:
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']} is not {FORMAT}, which is known here")
            entries = tuple(
                Entry(
                    **{
                        **entry,
                        "figures": tuple(Figure(**_renamed(f)) for f in entry["figures"]),
                        "absent": tuple(Absent(**_renamed(a)) for a in entry["absent"]),
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
        """The report in a file. Raises ``OSError``, or a ``ValueError`` that names the file."""
        try:
            return cls.from_dict(json.loads(read_text(path)))
        except (ValueError, RecursionError) as error:  # JSON's errors are ValueErrors too
            raise ValueError(f"{path}: {shortened(str(error))}") from None

    def write(self, path: Path) -> None:
        """Write JSON. Raises the ``OSError`` of :func:`fastcnn.core.files.write_whole`."""
        write_whole(path, (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode())


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the name that the runner has in this version."""
    return {**values, "name": _EARLIER_NAMES.get(values["name"], values["name"])}


QUIET = 0.85
"""Least :attr:`Report.quiet` of a run on a machine without other work."""


def geometric_mean(values: Iterable[float]) -> float | None:
    """The geometric mean; None if there are no values.

    >>> geometric_mean([2.0, 8.0]), geometric_mean([])
    (4.0, None)
    """
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None
