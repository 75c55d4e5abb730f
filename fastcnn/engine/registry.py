"""The registry, which chooses the implementation for each problem, and says why.

Each operation of :mod:`fastcnn.core.operations` has an ordered list of implementations, the fastest
first and the specification last. A call uses the first one that serves its problem. A call that
names an engine uses the first one of this engine, and never one of another engine. A call that
names an algorithm uses the first one of this algorithm. :func:`fastcnn.explain` prints the choice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from math import prod
from threading import main_thread
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastcnn.core.broadcasting import merged_shape
from fastcnn.core.capacity import affordable
from fastcnn.core.float_errors import unreported
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.core.operations import OPERATIONS
from fastcnn.core.quoting import quoted
from fastcnn.core.resizing import ResizeGeometry
from fastcnn.core.settings import checked_math, forget_choices, get_math, here
from fastcnn.core.undisturbed import undisturbed_import
from fastcnn.engine import policy

Geometry: TypeAlias = ConvGeometry | PoolGeometry | ResizeGeometry | tuple[int, ...]
"""The sizes of a problem.

What a tuple holds depends on the operation: of dense layers, (N, inputs, outputs); of zero_pad2d,
the image's shape and the margins, and of its gradient dy's shape and the margins; of add and its
like, the shape of a and then that of b; of concatenate, the result's shape; of its gradient, dy's;
of all others, the shape of x as the engine gets it. :func:`_result_shape` must know each form.
"""


class Problem(NamedTuple):
    """A call without its arrays. The choice of an implementation depends on nothing else."""

    op: str
    geometry: Geometry
    dtype: np.dtype[np.generic]
    algorithm: str = "auto"
    math: str = "fast"


ALGORITHMS = ("auto", "direct", "winograd", "im2col")


def _serves_all(problem: Problem) -> str | None:
    return None


class Implementation(NamedTuple):
    """One way to compute one operation.

    ``refuses`` returns why the implementation does not serve the problem, or ``None`` if it does.
    ``reason`` says why the implementation has its place in the list. An implementation whose
    ``algorithm`` is None serves a call that names any algorithm. ``stand_in`` is a function from
    :func:`replaced`, which is used instead of an import. ``chooser`` names the module whose
    ``explanation`` says which kernels serve a problem, where the implementation chooses among some.
    """

    engine: str
    name: str
    module: str
    function: str
    reason: str
    refuses: Callable[[Problem], str | None] = _serves_all
    algorithm: str | None = "direct"
    stand_in: Callable[..., Any] | None = None
    chooser: str | None = None

    def kernels(self, problem: Problem) -> Iterator[str]:
        """Lines that say which kernels serve the problem, and why."""
        if self.chooser is not None:
            explanation = imported(self.chooser).explanation
            yield from explanation(problem.op, problem.geometry, problem.dtype.itemsize)

    def load(self) -> Callable[..., Any]:
        """The function itself. Its module is imported on first use.

        Functions in NumPy run under :data:`fastcnn.core.float_errors.unreported`.
        """
        if self.stand_in is not None:
            return self.stand_in
        function: Callable[..., Any] = getattr(imported(self.module), self.function)
        return function if self.engine == "numba" else unreported(function)


# Name of an engine: its package, and the reason of its general implementation. Fastest first.
_ENGINES = {
    "numba": ("fastcnn.engine.numba", "compiled loops over every parameter, parallel"),
    "im2col": ("fastcnn.engine.im2col", "stride tricks and matrix multiplication"),
    "naive": ("fastcnn.engine.naive", "the specification, in Python loops"),
}

_replaced: list[str] = []  # operations with a function from replaced()


def _not_for_winograd(problem: Problem) -> str | None:
    """Why Winograd's filtering does not serve; with "auto", also why it is slower or refused."""
    g = problem.geometry
    assert isinstance(g, ConvGeometry)
    cannot = policy.winograd_cannot(g)
    if cannot is None and problem.dtype.itemsize > 4:
        cannot = "it is made for float32, because its rounding would waste the digits of float64"
    if cannot or problem.algorithm != "auto":
        return cannot
    if problem.math == "strict":
        return "math is strict: its rounding is not that of a direct sum"
    if problem.op == "conv2d_filter_gradient":
        share = policy.winograd_gradient_costs(g)
    else:
        share = policy.winograd_costs(g if problem.op == "conv2d" else g.turned)
    return None if share < 1 else f"it would take about {share:.2f} times as long as direct"


def _registry() -> dict[str, list[Implementation]]:
    registry = {
        op: [
            Implementation(engine, f"{engine}.{op}", package, op, reason)
            for engine, (package, reason) in _ENGINES.items()
        ]
        for op in OPERATIONS
    }
    for op in (name for name in OPERATIONS if "_pool2d" in name):
        compiled = registry[op][0]
        registry[op][0] = compiled._replace(chooser="fastcnn.engine.numba.pool.chooser")
    for op in (name for name, operation in OPERATIONS.items() if operation.by_algorithm):
        reason = "register tiles over computed offsets, at the speed of multiply-add"
        module = "fastcnn.engine.numba.conv.direct"
        direct = Implementation("numba", "numba.direct", module, op, reason, chooser=module)
        loops, im2col, naive = registry[op]
        loops, im2col = loops._replace(name="numba.loops"), im2col._replace(algorithm="im2col")
        registry[op] = [direct, loops, im2col, naive]
        file = "winograd_gradient" if op == "conv2d_filter_gradient" else "winograd"
        winograd = Implementation(
            "numba",
            "numba.winograd",
            f"fastcnn.engine.numba.conv.{file}",
            op,
            "Winograd's minimal filtering, a quarter to a half of the products on register tiles",
            _not_for_winograd,
            "winograd",
            chooser=f"fastcnn.engine.numba.conv.{file}",
        )
        registry[op].insert(0, winograd)
    for op, file in (("dense", "chooser"), ("dense_backward", "backward")):
        compiled = registry[op][0]
        registry[op][0] = compiled._replace(chooser=f"fastcnn.engine.numba.dense.{file}")
    return registry


REGISTRY = _registry()


def engines() -> tuple[str, ...]:
    """Names of the engines that can run here, fastest first.

    >>> engines()[-1]
    'naive'
    """
    return tuple(name for name in _ENGINES if _missing(name) is None)


@contextmanager
def use_engine(name: str) -> Iterator[None]:
    """Within this context, calls without ``engine=`` use the named engine, and no other.

    The setting belongs to the current thread (or asynchronous task) alone. Raises ``ValueError``
    for an unknown name and ``ImportError`` for an engine that is not installed.

    >>> import numpy as np, fastcnn
    >>> with fastcnn.use_engine("naive"):
    ...     fastcnn.relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    _check(name)
    token = here.set(here.get()._replace(engine=name))
    try:
        yield
    finally:
        here.reset(token)


@contextmanager
def replaced(op: str, engine: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within this context, ``function`` is the engine's only implementation of the operation.

    It holds for all threads. Tests plant faults with it, and experiments try kernels.

    >>> import numpy as np, fastcnn
    >>> with replaced("relu", "naive", lambda x: x + 1):
    ...     fastcnn.relu(np.array([1.0]), engine="naive")
    array([2.])
    """
    _check(engine)
    if op not in REGISTRY:
        raise ValueError(f"op must be one of {', '.join(OPERATIONS)}, got {quoted(op)}")
    before = REGISTRY[op]
    name, reason = f"{engine}.{op}", "put in its place"
    stand_in = Implementation(engine, name, "", op, reason, algorithm=None, stand_in=function)
    of_other_engines = [i for i in before if i.engine != engine]
    position = next(k for k, i in enumerate(before) if i.engine == engine)
    REGISTRY[op] = [*of_other_engines[:position], stand_in, *of_other_engines[position:]]
    _replaced.append(op)
    _forget()
    try:
        yield
    finally:
        REGISTRY[op] = before
        _replaced.remove(op)
        _forget()


def _forget() -> None:
    _select.cache_clear()
    forget_choices()


def whole_nets_refused(engine: str | None) -> str | None:
    """Why nets run operation by operation, and not as compiled programs; None if they may."""
    if engine is not None or here.get().engine is not None:
        return f"the engine {engine or here.get().engine!r} was asked for"
    if _replaced:
        return f"{_replaced[-1]} is replaced"
    # Every step of a training comes here, so an imported Numba skips the slower check.
    return None if sys.modules.get("numba") is not None else _missing("numba")


class Explanation(NamedTuple):
    """The implementation that serves a call, and why the earlier ones in the list do not."""

    problem: Problem
    chosen: Implementation
    passed_over: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.problem.op}: {self.chosen.name}, {self.chosen.reason}"]
        lines += [f"  not {name}: {why}" for name, why in self.passed_over]
        lines += [f"  {line}" for line in self.chosen.kernels(self.problem)]
        geometry = self.problem.geometry
        if isinstance(geometry, ConvGeometry | PoolGeometry | ResizeGeometry):
            sides = [geometry.input_shape, geometry.output_shape]
            if self.problem.op == "conv2d_transpose":
                sides.reverse()
            shapes = f"{sides[0]} -> {sides[1]}"
        else:
            shapes = str(geometry)
        lines.append(f"  problem: {shapes}, {self.problem.dtype.name}")
        if OPERATIONS[self.problem.op].by_algorithm:
            chosen = f"{self.problem.algorithm}, math {self.problem.math}"
            lines.append(f"  algorithm: {chosen}")
        if isinstance(geometry, ConvGeometry):
            lines.append(f"  work: {geometry.flops / 1e6:.3g} MFLOP, padding not counted")
        return "\n".join(lines)


class Explained(BaseException):
    """Ends a call in :func:`recorded` before it computes; it never leaves that function."""


def recorded(call: Callable[[], object]) -> list[Explanation]:
    """Explanations of the operations in ``call``, which are not run. Errors of arguments pass."""
    explanations: list[Explanation] = []
    token = here.set(here.get()._replace(recorder=explanations))
    try:
        call()
    except Explained:
        pass
    finally:
        here.reset(token)
    return explanations


def choose(
    op: str,
    geometry: Geometry,
    dtype: np.dtype[np.generic],
    engine: str | None,
    algorithm: str = "auto",
    math: str | None = None,
) -> Callable[..., Any]:
    """The function that serves this problem.

    Its arguments are the operation's arrays, C-contiguous and of one dtype, then the geometry.
    ``math`` is "fast", "strict", or None for the result of :func:`fastcnn.get_math`.
    """
    current = here.get()
    name = current.engine if engine is None else engine
    if name is not None and not isinstance(name, str):
        _check(name)  # raises the error before the cache, which could not hash the value
    checked_algorithm(algorithm)
    chosen_math = get_math() if math is None else checked_math("math", math)
    explanation, function = _select(Problem(op, geometry, dtype, algorithm, chosen_math), name)
    if current.recorder is None:
        return function
    current.recorder.append(explanation)
    return _explained


def bind(
    op: str,
    geometry: Geometry,
    dtype: np.dtype[np.generic],
    *parameters: object,
    how: tuple[Any, ...],
) -> Callable[..., Any]:
    """The function of the operation's arrays alone that serves this problem.

    ``parameters`` are the arguments of the engine's function between its arrays and the geometry.
    ``how`` holds the engine, and perhaps the algorithm and the math, as :func:`choose` takes them.
    Arrays that a caller leaves out are None. An engine's function may have an attribute ``bind``: a
    function of the geometry, the dtype and the parameters that returns the function of the arrays,
    and does all work that does not need them.
    """
    function = choose(op, geometry, dtype, *how)
    of_engine: Callable[..., Callable[..., Any]] | None = getattr(function, "bind", None)
    if of_engine is not None:
        return of_engine(geometry, dtype, *parameters)
    names = OPERATIONS[op].parameters
    last = (*parameters, geometry) if names[-1] == "g" else parameters
    count = len(names) - len(last)
    return lambda *arrays: function(*arrays, *(None,) * (count - len(arrays)), *last)


def implementation(
    op: str, geometry: Geometry, dtype: np.dtype[np.generic], algorithm: str
) -> Implementation:
    """The implementation for this problem if no engine is named, under the current ``math``."""
    return _select(Problem(op, geometry, dtype, algorithm, get_math()), None)[0].chosen


imported = cache(undisturbed_import)


def _explained(*arguments: object) -> Any:
    raise Explained


@lru_cache(maxsize=4096)
def _select(problem: Problem, engine: str | None) -> tuple[Explanation, Callable[..., Any]]:
    if engine is not None:
        _check(engine)
    affordable(f"the result of {problem.op}", _result_shape(problem), problem.dtype)
    passed_over: list[tuple[str, str]] = []
    for candidate in REGISTRY[problem.op]:
        if engine is not None and candidate.engine != engine:
            why: str | None = f"the engine {engine!r} was asked for"
        elif problem.algorithm != "auto" and candidate.algorithm not in (None, problem.algorithm):
            why = f"the algorithm {problem.algorithm!r} was asked for"
        else:
            why = _missing(candidate.engine) or candidate.refuses(problem)
        if why is None:
            return Explanation(problem, candidate, tuple(passed_over)), candidate.load()
        passed_over.append((candidate.name, why))
    why = "; ".join(f"{name}: {why}" for name, why in passed_over)
    expected = 'algorithm must be "auto" or one that serves this problem'
    raise ValueError(f"{expected}, got {quoted(problem.algorithm)}: {why}")


def checked_engine(name: str | None) -> str | None:
    """``name`` if it names an engine that can run here, or is None; otherwise an error.

    >>> checked_engine("naive")
    'naive'
    """
    if name is not None:
        _check(name)
    return name


def checked_algorithm(name: object) -> Any:
    """``name`` if it names an algorithm, or is "auto"; otherwise an error.

    >>> checked_algorithm("direct")
    'direct'
    """
    if isinstance(name, str) and name in ALGORITHMS:
        return name
    known = ", ".join(f'"{one}"' for one in ALGORITHMS)
    error = ValueError if isinstance(name, str) else TypeError
    raise error(f"algorithm must be one of {known}, got {quoted(name)}")


def _result_shape(problem: Problem) -> tuple[int, ...]:
    """Shape of the result, or of the largest of several results."""
    op, g, backward = problem.op, problem.geometry, problem.op.endswith("_backward")
    if isinstance(g, ConvGeometry):
        shapes = {
            "conv2d": g.output_shape,
            "conv2d_input_gradient": g.input_shape,
            "conv2d_transpose": g.input_shape,
            "conv2d_filter_gradient": g.filter_shape,
        }
        return shapes.get(op, (g.oc,))
    if isinstance(g, PoolGeometry | ResizeGeometry):
        return g.input_shape if backward else g.output_shape
    if op in ("dense", "dense_backward"):
        n, inputs, outputs = g
        return max((n, inputs), (inputs, outputs), key=prod) if backward else (n, outputs)
    if op.startswith("zero_pad2d"):
        n, h, w, c, top, bottom, left, right = g
        return (n, h, w, c) if backward else (n, h + top + bottom, w + left + right, c)
    if op.removesuffix("_backward") in ("add", "subtract", "multiply", "maximum"):
        return merged_shape(g[: len(g) // 2], g[len(g) // 2 :])
    return g


def _check(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"engine must be one of {', '.join(_ENGINES)}, or None, got {quoted(name)}")
    if name not in _ENGINES:
        raise ValueError(
            f"engine must be one of {', '.join(_ENGINES)}, or None, got {quoted(name)}"
        )
    missing = _missing(name)
    if missing:
        raise ImportError(f"engine {quoted(name)} cannot run here: {missing}")


def _missing(engine: str) -> str | None:
    """Why an engine cannot run here and now, or None if it can."""
    if engine == "numba" and engine not in sys.modules and not main_thread().is_alive():
        return _not_installed(engine) or _not_importable(engine)
    return _not_installed(engine)


def _not_importable(package: str) -> str | None:
    """Why a package cannot be imported while Python ends, or None if it can.

    At that time, modules that register a function for Python's end raise an error.
    """
    try:
        import_module(package)
    except (ImportError, RuntimeError) as error:
        return f"{package} cannot be imported while Python ends: {error}"
    return None


@cache
def _not_installed(engine: str) -> str | None:
    if engine != "numba" or (_installed("numba") and _installed("llvmlite")):
        return None
    if sys.platform == "emscripten":
        return "Numba does not run on Pyodide; the engines im2col and naive do"
    return "Numba is not installed (pip install numba)"


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # an import hook hides the package
        return False
