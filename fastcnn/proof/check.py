"""The check of one case: an engine's results against the specification's.

Everything runs through the public functions, like a user's calls. On exact and special data the
values must be equal, with NaN at the same positions. On other data each element must lie within its
derived bound. The bound itself must lie within :data:`~fastcnn.proof.bounds.SIGNAL` of the largest
value, because a large bound would prove nothing. Shape, dtype and layout must be right, and the
result must be a new array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.settings import use_math
from fastcnn.proof.article_net import article_net, article_net_bounds
from fastcnn.proof.bounds import SIGNAL, bounds
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import ARTICLE_NET, WINOGRAD, Case, Problem

REFERENCE = "naive"
"""The engine that is the specification."""

EXACT_MODES = ("exact", "special")

_OUTPUTS = {
    "conv2d_backward": ("dx", "dw", "db"),
    "conv2d_transpose_backward": ("dx", "dw", "db"),
    "dense_backward": ("dx", "dw", "db"),
    "batch_norm": ("y", "mean", "variance"),
    **dict.fromkeys(
        ("batch_norm_backward", "layer_norm_backward", "group_norm_backward"),
        ("dx", "dgamma", "dbeta"),
    ),
    **dict.fromkeys(
        ("add_backward", "subtract_backward", "multiply_backward", "maximum_backward"),
        ("da", "db"),
    ),
    "prelu_backward": ("dx", "dslope"),
    ARTICLE_NET: ("scores", "losses", "dfilters", "dweights", "dbias"),
}


@dataclass(frozen=True, eq=False)
class Reference:
    """The specification's results for a case, their bounds, and the time of the run."""

    case: Case
    seed: int
    arrays: dict[str, Array]
    outputs: tuple[Array, ...]
    bounds: tuple[Array, ...]
    seconds: float


class CheckedCase(Protocol):
    """A case as results show it: its row in the table, and its name on the command line."""

    @property
    def op(self) -> str:
        """The operation, or the net."""

    @property
    def name(self) -> str:
        """The name, which no other case has."""


@dataclass(frozen=True)
class Result:
    """The result of the check of one case on one engine.

    ``worst_relative`` is the worst absolute error as a share of the reference's largest value.
    ``bound`` is the bound at the worst absolute error. ``share`` is the largest error as a share of
    its own bound. ``problem`` says what is wrong, or is None.
    """

    case: CheckedCase
    engine: str
    seed: int
    worst_absolute: float
    worst_relative: float
    bound: float
    share: float
    seconds: float
    reference_seconds: float
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether the engine agrees with the specification."""
        return self.problem is None

    @property
    def command(self) -> str:
        """The command line that runs only this check."""
        return (
            f"fastcnn compare --case '{self.case.name}' --engine {self.engine} --seed {self.seed}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "case": self.case.name,
            "op": self.case.op,
            "engine": self.engine,
            "ok": self.ok,
            "problem": self.problem,
            "worst_absolute": finite(self.worst_absolute),
            "worst_relative": finite(self.worst_relative),
            "bound": self.bound,
            "share_of_bound": finite(self.share),
            "seconds": self.seconds,
            "reference_seconds": self.reference_seconds,
            "command": self.command,
        }


def finite(value: float) -> float | None:
    """The value, or None for infinity, which JSON does not have."""
    return value if np.isfinite(value) else None


def call(problem: Problem, arrays: dict[str, Array], engine: str | None) -> tuple[Array, ...]:
    """The results of the problem's public function on these arrays, as a tuple of arrays."""
    parameters = dict(problem.parameters)
    if problem.op in WINOGRAD and engine != REFERENCE:
        parameters["algorithm"] = "winograd"
    function = article_net if problem.op == ARTICLE_NET else getattr(ops, problem.function)
    arguments: dict[str, Any] = dict(arrays)
    if problem.op == "concatenate":
        arguments = {"arrays": [arrays[name] for name in problem.arrays]}
    with use_math("strict"):  # problems of other algorithms name them
        results = function(**arguments, **parameters, engine=engine)
    if not isinstance(results, tuple):
        results = (results,)
    return tuple(map(np.asarray, results))


def reference_of(case: Case, seed: int) -> Reference:
    """Run the specification on a case, and compute the bounds."""
    arrays = make_arrays(case, seed)
    outputs, seconds = _timed(lambda: call(case.problem, arrays, REFERENCE), repeats=1)
    if case.mode in EXACT_MODES:
        allowed = tuple(np.zeros(y.shape) for y in outputs)
    elif case.problem.op == ARTICLE_NET:
        allowed = tuple(article_net_bounds(**arrays))
    else:
        allowed = bounds(case.problem, arrays, outputs)
    return Reference(case, seed, arrays, outputs, allowed, seconds)


def check(reference: Reference, engine: str) -> Result:
    """Run an engine on the case of ``reference`` and compare.

    >>> from fastcnn.proof.problems import case_named
    >>> check(reference_of(case_named("relu/3x17/float32/exact"), seed=0), "im2col").ok
    True
    """
    case, seconds = reference.case, 0.0

    def run() -> tuple[Array, ...]:
        nonlocal seconds
        call(case.problem, reference.arrays, engine)  # not timed, because it may compile
        outputs, seconds = _timed(lambda: call(case.problem, reference.arrays, engine), repeats=3)
        return outputs

    count = len(reference.outputs)
    names = _OUTPUTS.get(case.problem.op, [f"result {k}" for k in range(count)])
    worst = judge(run, names, reference.outputs, reference.bounds, reference.arrays)
    return Result(
        case,
        engine,
        reference.seed,
        worst.absolute,
        worst.relative,
        worst.bound,
        worst.share,
        seconds,
        reference.seconds,
        worst.problem,
    )


def judge(
    run: Callable[[], tuple[Array, ...]],
    names: Sequence[str],
    expected: Sequence[Array],
    bounds: Sequence[Array],
    arrays: dict[str, Array],
) -> Worst:
    """Compare the results of ``run`` with the expected ones; ``arrays`` are its inputs."""
    worst = Worst()
    try:
        outputs = run()
    except Exception as error:  # the report shows any error of an engine
        worst.problem = f"raises {type(error).__name__}: {error}"
        return worst
    for name, y, reference, bound in zip(names, outputs, expected, bounds, strict=True):
        problem = _form(y, reference, arrays) or _vague(reference, bound)
        if y.shape == reference.shape:
            problem = problem or _values(y, reference, bound)
            worst.add(y, reference, bound)
        if problem:
            worst.problem = f"{name}: {problem}" if len(names) > 1 else problem
            break
    return worst


class Worst:
    """The largest errors so far, over the outputs of one case, and the first problem."""

    absolute = relative = bound = share = 0.0
    problem: str | None = None

    def add(self, y: Array, expected: Array, bound: Array) -> None:
        error = _errors(y, expected)
        if not error.size:
            return
        at = np.unravel_index(error.argmax(), error.shape)
        self.share = max(self.share, float(_shares(error, bound).max()))
        scale = _largest(expected)
        if scale > 0:
            self.relative = max(self.relative, float(error[at]) / scale)
        if error[at] >= self.absolute:
            self.absolute, self.bound = float(error[at]), float(bound[at])


def _errors(y: Array, expected: Array) -> Array:
    """|y − expected| in float64. Equal infinities or two NaNs give 0, unequal ones infinity."""
    a, b = y.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(error), np.inf, error)


def _shares(error: Array, bound: Array) -> Array:
    share: Array = np.divide(error, bound, out=np.where(error > 0, np.inf, 0.0), where=bound > 0)
    return share


def _largest(expected: Array) -> float:
    finite = np.abs(expected[np.isfinite(expected)])
    return float(finite.max()) if finite.size else 0.0


def _form(y: Array, expected: Array, arrays: dict[str, Array]) -> str | None:
    if y.shape != expected.shape:
        return f"has the shape {y.shape}, expected {expected.shape}"
    if y.dtype != expected.dtype:
        return f"has the dtype {y.dtype}, expected {expected.dtype}"
    if not y.flags.c_contiguous:
        return "is not C-contiguous"
    shared = [name for name, array in arrays.items() if np.may_share_memory(y, array)]
    return f"is not a new array: it shares memory with {shared[0]}" if shared else None


def _vague(expected: Array, bound: Array) -> str | None:
    """Why the bound would prove nothing, or None. A reference of zeros has no signal to compare
    with the bound, so any bound counts."""
    largest = _largest(expected)
    if largest > 0 and bound.max() >= SIGNAL * largest:
        return f"the bound {bound.max():.1e} is no smaller than {SIGNAL} of {largest:.1e}"
    return None


def _values(y: Array, expected: Array, bound: Array) -> str | None:
    error = _errors(y, expected)
    wrong = error > bound
    if not wrong.any():
        return None
    at = np.unravel_index(np.where(wrong, error, -1).argmax(), error.shape)
    place = tuple(map(int, at))
    allowed = f"within {bound[at]:.1e}" if bound[at] > 0 else "exactly"
    return (
        f"{int(wrong.sum())} of {wrong.size} elements disagree, the worst at {place}: "
        f"{y[at]!s}, expected {expected[at]!s} {allowed}"
    )


def _timed(run: Callable[[], tuple[Array, ...]], repeats: int) -> tuple[tuple[Array, ...], float]:
    """The result, and the shortest time of up to 1 + ``repeats`` runs within about 20 ms."""
    best, spent, done = float("inf"), 0.0, 0
    while done == 0 or (done <= repeats and spent < 0.02):
        start = perf_counter()
        result = run()
        seconds = perf_counter() - start
        best, spent, done = min(best, seconds), spent + seconds, done + 1
    return result, best
