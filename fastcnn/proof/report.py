"""The report of a comparison: a row for each operation and engine, and each failing case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastcnn.proof.check import Result, finite


@dataclass(frozen=True)
class Row:
    """One operation on one engine, over all its cases.

    ``speed_up`` is the specification's time over the engine's, each summed over the cases.
    ``bound`` is the bound at the worst absolute error.
    """

    op: str
    engine: str
    cases: int
    failed: int
    worst_absolute: float
    worst_relative: float
    bound: float
    share: float
    speed_up: float

    @property
    def ok(self) -> bool:
        """Whether all cases agree."""
        return self.failed == 0

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {
            "op": self.op,
            "engine": self.engine,
            "cases": self.cases,
            "failed": self.failed,
            "ok": self.ok,
            "worst_absolute": finite(self.worst_absolute),
            "worst_relative": finite(self.worst_relative),
            "bound": self.bound,
            "share_of_bound": finite(self.share),
            "speed_up": self.speed_up,
        }

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of :data:`COLUMNS`."""
        return (
            self.op,
            self.engine,
            str(self.cases),
            _number(self.worst_absolute),
            _number(self.worst_relative),
            _number(self.bound),
            f"{self.share:.0%}" if self.share <= 1 else "over",
            "agrees" if self.ok else f"{self.failed} fail",
            f"{self.speed_up:.1f}×" if self.speed_up < 10 else f"{self.speed_up:,.0f}×",
        )


COLUMNS = ("op", "engine", "cases", "abs err", "rel err", "bound", "used", "verdict", "gain")
SPARE = ("bound", "abs err", "cases")
"""Columns that a narrow terminal leaves out, the least important first."""

NOTES = {
    "abs err": "the worst error",
    "rel err": "the worst error as a share of the largest value",
    "bound": "what rounding may do there",
    "used": "the largest share of a bound",
    "gain": "speed-up over the naive engine, on these small problems",
}


@dataclass(frozen=True)
class Report:
    """All results of a comparison. It prints as a table."""

    results: tuple[Result, ...]
    seed: int
    quick: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every engine agrees with the specification in every case."""
        return not self.failures

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results that disagree."""
        return tuple(result for result in self.results if not result.ok)

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row for each operation and engine, in the order of the runs."""
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            groups.setdefault((result.case.op, result.engine), []).append(result)
        return tuple(_row(op, engine, results) for (op, engine), results in groups.items())

    @property
    def summary(self) -> str:
        """One sentence: how many checks, and whether all agree."""
        agreeing, count = len(self.results) - len(self.failures), len(self.results)
        return f"{agreeing} of {count} checks agree with the specification ({self.seconds:.1f} s)."

    @property
    def reproductions(self) -> tuple[str, ...]:
        """One line for each failing case: the command that reproduces it, and what is wrong."""
        return tuple(f"{result.command}  # {result.problem}" for result in self.failures)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "ok": self.ok,
            "seed": self.seed,
            "quick": self.quick,
            "seconds": self.seconds,
            "rows": [row.to_dict() for row in self.rows],
            "cases": [result.to_dict() for result in self.results],
        }

    def __str__(self) -> str:
        table = [COLUMNS, *(row.cells for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            for cells in table
        ]
        return "\n".join([*lines, self.summary, *self.reproductions])


def _row(op: str, engine: str, results: list[Result]) -> Row:
    worst = max(results, key=lambda result: result.worst_absolute)
    seconds = sum(result.seconds for result in results)
    return Row(
        op,
        engine,
        len(results),
        sum(not result.ok for result in results),
        worst.worst_absolute,
        max(result.worst_relative for result in results),
        worst.bound,
        max(result.share for result in results),
        sum(r.reference_seconds for r in results if r.seconds) / seconds if seconds else 0.0,
    )


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"
