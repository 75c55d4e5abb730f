"""Proof that the engines agree: every operation of every engine against the specification.

:func:`compare` runs the matrix of :mod:`fastcnn.comparison.problems` on the data of
:mod:`fastcnn.comparison.data`, and judges by the derived bounds of
:mod:`fastcnn.comparison.bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from fastcnn.comparison.check import REFERENCE, Result, check, reference_of
from fastcnn.comparison.problems import Case, case_named, cases, operations
from fastcnn.comparison.report import Report, Row
from fastcnn.engines import engines as available_engines
from fastcnn.engines import use_engine

__all__ = ["Report", "Result", "Row", "compare"]

Progress = Callable[[int, int, str], None]


def compare(
    ops: Sequence[str] | None = None,
    engines: Sequence[str] | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    case: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Hold the engines against the specification, over a matrix of problems and on real digits.

    Args:
        ops: names of public functions, or "article_net" for the article's net on MNIST digits;
            None for all.
        engines: names of engines other than "naive", which is the specification; None for all
            that can run here.
        quick: a part of the matrix, in a few seconds.
        seed: of the random data.
        case: the name of one case, to run it alone, whatever ``ops`` and ``quick`` say.
        progress: called as ``progress(done, total, name)`` before each case and after the last.

    Returns:
        A :class:`Report`: ``ok``, ``rows``, ``failures``, ``to_dict()``; printed, a table.

    Raises:
        TypeError, ValueError: an unknown operation, engine or case, or a seed that is no
            non-negative integer.
        ImportError: an engine that is not installed.

    Example:
        >>> import fastcnn
        >>> report = fastcnn.compare(["relu"], ["im2col"], quick=True)
        >>> report.ok, report.rows[0].op, report.rows[0].worst_absolute
        (True, 'relu', 0.0)

    Source of the bounds: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd
    edition, SIAM 2002, chapter 3.
    """
    start = perf_counter()
    chosen = _chosen_cases(ops, quick, case)
    names = _chosen_engines(engines)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    results: list[Result] = []
    for done, one in enumerate(chosen):
        if progress:
            progress(done, len(chosen), one.name)
        reference = reference_of(one, seed)
        results += [check(reference, engine) for engine in names if one.problem.runs_on(engine)]
    if progress:
        progress(len(chosen), len(chosen), "")
    return Report(tuple(results), seed, quick, perf_counter() - start)


def _chosen_cases(ops: Sequence[str] | None, quick: bool, case: str | None) -> tuple[Case, ...]:
    if case is not None:
        return (case_named(case),)
    if isinstance(ops, str):
        raise TypeError(f"ops must be a list of names, got the string {ops!r}")
    for op in ops or ():
        if op not in operations():
            raise ValueError(f"op must be one of {', '.join(operations())}, got {op!r}")
    return cases(ops, quick)


def _chosen_engines(engines: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(engines, str):
        raise TypeError(f"engines must be a list of names, got the string {engines!r}")
    others = tuple(name for name in available_engines() if name != REFERENCE)
    for name in engines or ():
        if name == REFERENCE:
            raise ValueError(
                f"engine {REFERENCE!r} is the specification, which the others are compared with; "
                f"engine must be one of {', '.join(others)}"
            )
        with use_engine(name):  # raises for a name that cannot run here
            pass
    return others if engines is None else tuple(dict.fromkeys(engines))
