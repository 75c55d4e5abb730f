"""Proof that the engines agree: every operation of every engine against the specification.

:func:`compare` runs the problems of :mod:`fastcnn.proof.problems` on the data of
:mod:`fastcnn.proof.data`, or the nets of :mod:`fastcnn.proof.models`. Results must lie within the
derived bounds of :mod:`fastcnn.proof.bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from fastcnn.engine.registry import engines as available_engines
from fastcnn.engine.registry import use_engine
from fastcnn.proof.check import REFERENCE, Result, check, reference_of
from fastcnn.proof.models import (
    EXECUTOR,
    NETS,
    ModelCase,
    check_model,
    model_cases,
    model_reference_of,
)
from fastcnn.proof.problems import Case, case_named, cases, operations
from fastcnn.proof.report import Report, Row

__all__ = ["Report", "Result", "Row", "compare"]

Progress = Callable[[int, int, str], None]


def compare(
    ops: Sequence[str] | None = None,
    engines: Sequence[str] | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    case: str | None = None,
    models: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Compare the engines with the specification, on a matrix of problems and on real digits.

    Args:
        ops: names of public functions, or "article_net" for the article's net on MNIST digits. With
            ``models``, names of nets such as "lenet5". None for all.
        engines: names of engines other than "naive", which is the specification. With ``models``
            engines run layer by layer, and "executor" names the compiled programs that models use
            by default. None for all that can run here.
        quick: run a part of the matrix, in a few seconds. With ``models``, run float32 only.
        seed: the seed of the random data.
        case: the name of one case, to run only this one, regardless of ``ops``, ``quick`` and
            ``models``.
        models: compare whole nets instead of single operations: outputs, loss and all gradients.
        progress: called as ``progress(done, total, name)`` before each case and after the last.

    Returns:
        A :class:`Report` with ``ok``, ``rows``, ``failures`` and ``to_dict()``; it prints as a
        table.

    Raises:
        TypeError, ValueError: an unknown operation, engine or case, or a seed that is not an
            integer of at least 0.
        ImportError: an engine is not installed.

    Example:
        >>> import fastcnn
        >>> report = fastcnn.compare(["relu"], ["im2col"], quick=True)
        >>> report.ok, report.rows[0].op, report.rows[0].worst_absolute
        (True, 'relu', 0.0)

    Source of the bounds: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd
    edition, SIAM 2002, chapter 3.
    """
    start = perf_counter()
    cases = _chosen_cases(ops, quick, case, models)
    names = _chosen_engines(engines, bool(cases) and isinstance(cases[0], ModelCase))
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    results: list[Result] = []
    for done, one in enumerate(cases):
        if progress:
            progress(done, len(cases), one.name)
        if isinstance(one, ModelCase):
            of_model = model_reference_of(one, seed)
            results += [check_model(of_model, engine) for engine in names]
        else:
            reference, able = reference_of(one, seed), one.problem.runs_on
            results += [check(reference, engine) for engine in names if able(engine)]
    if progress:
        progress(len(cases), len(cases), "")
    return Report(tuple(results), seed, quick, perf_counter() - start)


def _chosen_cases(
    ops: Sequence[str] | None, quick: bool, case: str | None, models: bool
) -> Sequence[Case | ModelCase]:
    if case is not None:
        of_model = [one for one in model_cases() if one.name == case]
        return tuple(of_model) or (case_named(case),)
    if isinstance(ops, str):
        raise TypeError(f"ops must be a list of names, got the string {ops!r}")
    names = tuple(NETS) if models else operations()
    for op in ops or ():
        if op not in names:
            raise ValueError(f"op must be one of {', '.join(names)}, got {op!r}")
    if models:
        return tuple(
            one
            for one in model_cases()
            if one.op in (ops or names) and not (quick and one.dtype == "float64")
        )
    return cases(ops, quick)


def _chosen_engines(engines: Sequence[str] | None, models: bool) -> tuple[str, ...]:
    if isinstance(engines, str):
        raise TypeError(f"engines must be a list of names, got the string {engines!r}")
    names = tuple(name for name in available_engines() if name != REFERENCE)
    if models and "numba" in names:
        names = EXECUTOR, *names
    for name in engines or ():
        if name == REFERENCE:
            raise ValueError(
                f"engine {REFERENCE!r} is the specification, which the others are compared with; "
                f"engine must be one of {', '.join(names)}"
            )
        if name not in names or name != EXECUTOR:
            with use_engine(name):  # raises for a name that cannot run here
                pass
    return names if engines is None else tuple(dict.fromkeys(engines))
