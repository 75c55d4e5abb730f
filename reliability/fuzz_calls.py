"""Random calls of the public functions: every algorithm of every engine against the specification.

    python reliability/fuzz_calls.py --cases 100000            about ten minutes on two cores
    python reliability/fuzz_calls.py --seed 3 --first 4711 --cases 1      one case again

A case is one call, drawn from its number and the seed alone: geometry (empty and one-element sides
among it), parameters, the dtype and memory layout of each array, and what its numbers are: small
integers, normal numbers, NaN and infinities, or huge and denormal ones. Some calls are wrong.

- A call that the specification refuses, all refuse in the same words, ValueError or TypeError;
- results have the right shape and dtype, are C-contiguous, and share no memory with an argument;
- integers agree to the last bit, also around NaN and infinity, other numbers within their bound;
- no argument is written to.

The kernels run on one to three threads, however small the call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
import typer

import fastcnn
from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.broadcasting import merged_shape
from fastcnn.core.geometry import conv_geometry, pool_geometry, transposed_geometry
from fastcnn.core.operations import DECLARED, Composite
from fastcnn.core.resizing import COORDINATES, ROUNDINGS, resize_geometry
from fastcnn.core.settings import forget_choices
from fastcnn.engine import registry
from fastcnn.engine.numba.runtime import threads
from fastcnn.engine.registry import REGISTRY, choose
from fastcnn.engine.registry import Problem as Choice
from fastcnn.proof.bounds import bounds, sum_lengths
from fastcnn.proof.problems import Problem

T = TypeVar("T")


class Dice(Protocol):
    """Where a case's chances come from: NumPy here, Hypothesis in the test suite."""

    def integer(self, least: int, most: int) -> int: ...

    def choice(self, options: Sequence[T]) -> T: ...


class RandomDice:
    """The chances of case ``number`` of a seed."""

    def __init__(self, seed: int, number: int) -> None:
        self.rng = np.random.default_rng([seed, number])

    def integer(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))

    def choice(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]


@dataclass
class Call:
    """A call as it is made (``given``) and as the specification sees it (``plain``)."""

    op: str
    mode: str
    given: dict[str, Any]
    plain: dict[str, Any]
    parameters: dict[str, Any]
    geometry: Any = None
    layouts: dict[str, str] = field(default_factory=dict)
    refused: bool = False

    def __str__(self) -> str:
        arrays = [
            f"{name}={np.shape(array)} {getattr(array, 'dtype', 'list')} {self.layouts[name]}"
            for name, array in self.given.items()
        ]
        return f"{self.op}({', '.join(arrays)}, {self.parameters}) on {self.mode} numbers"


# --- numbers and how they lie in memory -----------------------------------------------------------

DTYPES = ("float32",) * 6 + ("float64",) * 4 + (
    "float16", "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
)  # fmt: skip
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -2.0, 3.0)
LAYOUTS = (
    "plain", "plain", "read-only", "fortran", "strided", "reversed", "broadcast", "unaligned",
    "overlapping", "swapped", "list",
)  # fmt: skip


def numbers(dice: Dice, shape: tuple[int, ...], mode: str, dtype: str) -> Array:
    """Numbers of a mode in a dtype; integers where the dtype holds no others."""
    rng = np.random.default_rng(dice.integer(0, 2**32 - 1))
    kind = np.dtype(dtype)
    if mode == "exact" or kind.kind in "iub" or dtype == "float16":
        least = 0 if kind.kind in "ub" else -3
        return rng.integers(least, 2 if kind.kind == "b" else 4, shape).astype(kind)
    if mode == "special":
        drawn = rng.choice(SPECIAL, size=shape)
        calm = rng.random(shape) < rng.choice([0.0, 0.5, 0.95])
        return np.where(calm, rng.integers(-3, 4, shape), drawn).astype(kind)
    drawn = rng.standard_normal(shape)
    if mode == "extreme":
        top = 36.0 if dtype == "float32" else 300.0
        drawn = drawn * 10.0 ** rng.choice([-top - 8, -top, 0.0, top / 2, top], size=shape)
    return drawn.astype(kind)


def laid_out(dice: Dice, array: Array, layout: str) -> Any:
    """``array`` in another layout; "broadcast" and "overlapping" repeat some of its numbers."""
    if layout == "read-only":
        array.setflags(write=False)
        return array
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "swapped":
        return array.astype(array.dtype.newbyteorder())
    if layout == "list" and array.size and array.dtype.itemsize == 8 and array.dtype.kind != "u":
        return array.tolist()
    if layout == "unaligned":
        memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
        view = memory.view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    if array.ndim == 0 or array.size == 0:
        return array
    axis = dice.integer(0, array.ndim - 1)
    every: list[Any] = [slice(None)] * array.ndim
    if layout == "strided":
        every[axis] = slice(None, None, 2)
        return np.repeat(array, 2, axis=axis)[tuple(every)]
    if layout == "reversed":
        every[axis] = slice(None, None, -1)
        return np.ascontiguousarray(array[tuple(every)])[tuple(every)]
    if layout == "broadcast":
        return np.broadcast_to(np.take(array, [0], axis=axis), array.shape)
    if layout == "overlapping":
        flat = np.resize(array.reshape(-1), sum(array.shape) + 1)
        strides = tuple(array.itemsize for _ in array.shape)
        return np.lib.stride_tricks.as_strided(flat, array.shape, strides, writeable=False)
    return array


# --- which call -----------------------------------------------------------------------------------


def side(dice: Dice, most: int) -> int:
    """A side's length: sometimes 0, often 1, seldom beyond a register."""
    kind = dice.integer(0, 39)
    if kind == 0:
        return 0
    if kind == 1:
        return dice.integer(1, 4 * most)
    return 1 if kind < 8 else dice.integer(1, most)


def step(dice: Dice) -> Any:
    """A stride, dilation or window: an int or a pair, sometimes no good."""
    if dice.integer(0, 60) == 0:
        return dice.choice([0, -1, 1.0, True, "1", (1, 1, 1), None, (2, 0), 10**30])
    if dice.integer(0, 1):
        return dice.choice([1, 1, 1, 2, 3])
    return dice.integer(1, 3), dice.integer(1, 3)


def margin(dice: Dice) -> Any:
    """A padding in any of its forms."""
    kind = dice.integer(0, 24)
    if kind == 0:
        return dice.choice([-1, "Same", None, (1, 1, 1, 1), 0.5, ((0, 0), (0, -2))])
    if kind < 6:
        return "valid"
    if kind < 12:
        return "same"
    if kind < 16:
        return dice.integer(0, 3)
    if kind < 20:
        return dice.integer(0, 3), dice.integer(0, 3)
    return tuple((dice.integer(0, 4), dice.integer(0, 4)) for _ in range(2))


def _convolution(dice: Dice) -> tuple[dict[str, Any], dict[str, Any], Any]:
    groups = dice.choice([1, 1, 1, 2, 3, 5])
    inputs, outputs = max(side(dice, 5), 1), max(side(dice, 9), 1)
    if dice.integer(0, 3) == 0:  # depthwise
        groups, inputs = side(dice, 17), 1
        outputs = dice.choice([1, 1, 2])
    x = (dice.integer(0, 3), side(dice, 8), side(dice, 9), groups * inputs)
    w = (side(dice, 4), side(dice, 3), inputs, groups * outputs)
    parameters = {
        "stride": step(dice), "padding": margin(dice), "dilation": step(dice), "groups": groups
    }  # fmt: skip
    if dice.integer(0, 80) == 0:
        parameters["groups"] = dice.choice([0, -1, 2.0, None, 7])
    return {"x": x, "w": w, "b": (w[3],)}, parameters, conv_geometry


def _transposed(dice: Dice, op: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    shapes, parameters, _ = _convolution(dice)
    w = shapes["w"]
    x = (*shapes["x"][:3], w[3])
    parameters["output_padding"] = dice.choice(
        [None, None, None, None, 0, 0, (1, 0), (0, 1), (2, 1), -1]
    )
    try:
        g = transposed_geometry(x, w, **parameters)
    except (ValueError, TypeError):
        g = None
    if op.endswith("_backward"):
        return {"dy": g.input_shape if g else x, "x": x, "w": w}, parameters, g
    shapes = {"x": x, "w": w, "b": (g.ic if g else 1,)}
    if dice.integer(0, 2) == 0:
        del shapes["b"]
    return shapes, parameters | {"activation": dice.choice([None, None, "relu"])}, g


def _resized(dice: Dice, op: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    x = (dice.integer(0, 3), side(dice, 8), side(dice, 9), side(dice, 9))
    size = max(side(dice, 9), 1), max(side(dice, 8), 1)
    names = {
        "method": dice.choice(["nearest", "bilinear"]),
        "coordinates": dice.choice(COORDINATES),
        "rounding": dice.choice(ROUNDINGS),
    }
    g = resize_geometry(x, size, *names.values()) if min(x[1:]) else None
    if op.endswith("_backward"):
        return {"dy": (x[0], *size, x[3])}, {"x_shape": x} | names, g
    chosen = size if dice.integer(0, 3) else step(dice)
    return {"x": x}, {"size": chosen} | names, g if chosen == size else None


def _rearranged(dice: Dice, op: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    if op.startswith("permute"):
        shape = tuple(side(dice, 6) for _ in range(dice.integer(1, 5)))
        order, rest = [], list(range(1, len(shape)))
        while rest:
            order.append(rest.pop(dice.integer(0, len(rest) - 1)))
        if dice.integer(0, 40) == 0:
            order = dice.choice([[], [0], [1, 1], [1.0], None, [*order, len(shape)]])
        return {"dy" if op.endswith("_backward") else "x": shape}, {"order": order}, None
    block = dice.integer(1, 3)
    n, h, w, c = dice.integer(0, 2), *(side(dice, 5) for _ in range(3))
    parameters = {"block": block, "order": dice.choice([*["DCR", "CRD"] * 4, "RCD"])}
    if op == "depth_to_space":
        c *= block**2
    else:
        h, w = h * block, w * block
    return {"x": (n, h, w, c + (dice.integer(0, 20) == 0))}, parameters, None


OTHER_SHAPES: dict[str, Callable[[Dice, str], tuple[dict[str, Any], dict[str, Any], Any]]] = {
    **dict.fromkeys(("conv2d_transpose", "conv2d_transpose_backward"), _transposed),
    **dict.fromkeys(("resize2d", "resize2d_backward"), _resized),
    **dict.fromkeys(
        ("permute", "permute_backward", "depth_to_space", "space_to_depth"), _rearranged
    ),
}
"""What draws the shapes of functions whose kinds no other functions have."""


def _shapes(dice: Dice, op: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Shapes of the arrays, parameters, and the geometry where it can be had."""
    if op in OTHER_SHAPES:
        return OTHER_SHAPES[op](dice, op)
    if op.startswith("conv2d") and op != "conv2d_bias_gradient":
        shapes, parameters, make = _convolution(dice)
        try:
            g = make(shapes["x"], shapes["w"], **parameters)
        except (ValueError, TypeError):
            g = None
        dy = g.output_shape if g else (1, 2, 3, 4)
        if op == "conv2d":
            if dice.integer(0, 2) == 0:
                del shapes["b"]
            return shapes, parameters | {"activation": dice.choice([None, None, "relu"])}, g
        shapes = {"dy": dy, **shapes}
        del shapes["b"]
        if op == "conv2d_input_gradient":
            parameters["x_shape"] = shapes.pop("x")
        if op == "conv2d_filter_gradient":
            parameters["kernel_size"] = shapes.pop("w")[:2]
        return shapes, parameters, g
    if "pool2d" in op:
        x = (dice.integer(0, 3), side(dice, 8), side(dice, 9), side(dice, 9))
        stride = None if dice.integer(0, 2) == 0 else step(dice)
        parameters = {"size": step(dice), "stride": stride, "padding": margin(dice)}
        try:
            g = pool_geometry(x, parameters["size"], stride=stride, padding=parameters["padding"])
        except (ValueError, TypeError):
            g = None
        if op.endswith("_backward"):
            return {"dy": g.output_shape if g else x, "x": x}, parameters, g
        return {"x": x}, parameters, g
    if op.startswith("dense"):
        n, i, o = dice.integer(0, 9), side(dice, 17), side(dice, 17)
        shapes = {"x": (n, i), "w": (i, o)}
        if op == "dense_backward":
            return {"dy": (n, o), **shapes}, {}, None
        if dice.integer(0, 2):
            shapes["b"] = (o,)
        return shapes, {"activation": dice.choice([None, "relu"])}, None
    if op.startswith("batch_norm"):
        x = tuple(side(dice, 5) for _ in range(dice.integer(1, 4)))
        channels = dict.fromkeys(("gamma", "beta", "mean", "variance"), x[-1:])
        used = {
            "batch_norm": ("x", "gamma", "beta"),
            "batch_norm_inference": ("x", "gamma", "beta", "mean", "variance"),
            "batch_norm_backward": ("dy", "x", "gamma", "mean", "variance"),
        }[op]
        every = {"x": x, "dy": x, **channels}
        return {name: every[name] for name in used}, {"epsilon": dice.choice([1e-3, 1e-5])}, None
    if op.removesuffix("_backward") in MERGES:
        a = tuple(side(dice, 7) for _ in range(dice.integer(2, 5)))
        b = tuple(1 if axis and dice.integer(0, 2) == 0 else n for axis, n in enumerate(a))
        if dice.integer(0, 30) == 0:
            b = tuple(side(dice, 7) for _ in a)
        if dice.integer(0, 2) == 0:
            a = tuple(1 if axis and dice.integer(0, 2) == 0 else n for axis, n in enumerate(a))
        try:
            dy = merged_shape(a, b)
        except ValueError:
            dy = a
        if op in ("add_backward", "subtract_backward"):
            return {"dy": dy}, {"a_shape": a, "b_shape": b}, None
        return {**({"dy": dy} if op.endswith("_backward") else {}), "a": a, "b": b}, {}, None
    if op.removesuffix("_backward") in ("layer_norm", "group_norm", "local_response_norm"):
        x = tuple(side(dice, 6) for _ in range(dice.integer(2 - (dice.integer(0, 30) == 0), 4)))
        row = x[-dice.integer(1, 2) :] if op.startswith("layer_norm") else x[-1:]
        arrays = {"dy": x} if op.endswith("_backward") else {}
        if op.startswith("local_response_norm"):
            window = {"size": dice.choice([1, 2, 3, 5, 9]), "alpha": dice.choice([1e-4, 0.5, 0])}
            window |= {"beta": dice.choice([0.75, 0.5, 1]), "bias": dice.choice([1, 0.5])}
            return arrays | {"x": x}, window, None
        arrays |= {"x": x, "gamma": row}
        if not op.endswith("_backward"):
            arrays["beta"] = row
        parameters = {"epsilon": dice.choice([1e-3, 1e-5])}
        if op.startswith("group_norm"):
            divisors = [groups for groups in range(1, x[-1] + 1) if x[-1] % groups == 0]
            parameters["groups"] = dice.choice([*divisors * 9, x[-1] + 1])
        return arrays, parameters, None
    if op.startswith("concatenate"):
        shape = [side(dice, 5) for _ in range(dice.integer(1, 4))]
        axis = dice.integer(-len(shape), len(shape) - (dice.integer(0, 20) > 0))
        sizes = tuple(side(dice, 9) for _ in range(dice.integer(1, 6)))
        names, place = "abcdef", min(axis, len(shape) - 1)
        if op == "concatenate_backward":
            shape[place] = sum(sizes) + (dice.integer(0, 20) == 0)
            return {"dy": tuple(shape)}, {"sizes": sizes, "axis": axis}, None
        shapes = {}
        for name, size in zip(names, sizes, strict=False):
            shape[place] = size
            shapes[name] = tuple(shape)
        return shapes, {"axis": axis}, None
    if op.startswith("cross_entropy"):
        n, c = dice.integer(0, 4), side(dice, 9)
        n_and_pixels = (n, *(side(dice, 4) for _ in range(dice.integer(0, 2))))
        reduction = dice.choice(["mean", "sum", "none"])
        arrays = {"logits": (*n_and_pixels, c), "labels": n_and_pixels}
        return arrays, {"reduction": reduction}, None
    images = op == "conv2d_bias_gradient" or op.startswith(("zero_pad2d", "crop2d"))
    x = tuple(side(dice, 6) for _ in range(4 if images else dice.integer(0, 4)))
    parameters = {}
    if op.startswith("zero_pad2d"):
        parameters["padding"] = margin(dice)
    if op.startswith("crop2d"):
        parameters["cropping"] = margin(dice)
    if op.startswith("leaky"):
        parameters["slope"] = dice.choice([0.01, 0.25, 0, 1])
    if op.startswith("clipped_relu"):
        parameters["top"] = dice.choice([0.7, 2, 6, 0])
    if op.startswith("elu"):
        parameters["alpha"] = dice.choice([0.3, 1, 0])
    if op.startswith("hard_sigmoid"):
        parameters["slope"], parameters["offset"] = dice.choice([0.2, 1 / 6]), dice.choice([0.5, 0])
    if op.startswith("gelu"):
        parameters["approximate"] = dice.choice([False, True])
    if op.startswith("prelu"):
        arrays = {"x": x, "slope": x[-1:]}
        return ({"dy": x} if op == "prelu_backward" else {}) | arrays, {}, None
    if op == "conv2d_bias_gradient":
        g = conv_geometry(x, (1, 1, x[3], x[3])) if min(x[1:]) else None
        return {"dy": x}, parameters, g
    if op == "dropout":
        return {"x": x, "mask": x}, {"rate": dice.choice([0, 0.25, 0.9])}, None
    named = ["dy"] if op in ("zero_pad2d_backward", "crop2d_backward") else ["x"]
    if op.endswith("_backward") and "pad" not in op and "crop" not in op:
        named = ["dy", "x"]
    return dict.fromkeys(named, x), parameters, None


MERGES = ("add", "subtract", "multiply", "maximum")
FEW_ROUNDINGS = (
    "softmax",
    "tanh",
    "sigmoid",
    "norm",
    "cross_entropy",
    "swish",
    "gelu",
    "plus",
)


def rounds_a_few_times(op: str) -> bool:
    """Whether the function rounds a few times, which engines do in different ways."""
    return op.startswith("elu") or any(name in op for name in FEW_ROUNDINGS)


def drawn(dice: Dice, among: Sequence[str] = ops.EXPLAINABLE) -> Call:
    """A call."""
    op = dice.choice(among)
    shapes, parameters, g = _shapes(dice, op)
    modes = ["float", "special"] if rounds_a_few_times(op) else [
        "exact", "exact", "float", "special", "extreme"
    ]  # fmt: skip
    call = Call(op, dice.choice(modes), {}, {}, parameters, g)
    for name, shape in shapes.items():
        if name == "labels":
            given = np.arange(prod(shape)).reshape(shape) * 7 % max(shapes["logits"][-1], 1)
        elif name == "mask":
            given = numbers(dice, shape, "exact", "bool")
        else:
            given = numbers(dice, shape, call.mode, dice.choice(DTYPES))
        if name == "variance":
            given = abs(given.astype("float64")).astype(given.dtype)
        layout = dice.choice(LAYOUTS)
        call.given[name], call.layouts[name] = laid_out(dice, given, layout), layout
    floats = [np.asarray(a) for n, a in call.given.items() if n not in ("labels", "mask")]
    dtype = np.result_type(np.float32, *(array.dtype.newbyteorder("=") for array in floats))
    for name, array in call.given.items():
        keep = name in ("labels", "mask")
        call.plain[name] = np.array(array, None if keep else dtype, order="C")
    return call


# --- and what comes of it -------------------------------------------------------------------------

Outcome = tuple[Array, ...] | Exception


def outcome(call: Call, arrays: dict[str, Any], engine: str) -> Outcome:
    """The results, or the error that is raised."""
    try:
        named = {"arrays": [*arrays.values()]} if call.op == "concatenate" else arrays
        result = getattr(ops, call.op)(**named, **call.parameters, engine=engine)
    except Exception as error:
        return error
    return tuple(map(np.asarray, result if isinstance(result, tuple) else (result,)))


def algorithms(op: str, engine: str) -> int:
    """How many implementations the engine has of a function's operations, at most."""
    (declared,) = (one for one in DECLARED if one.name == op)
    names = declared.parts if isinstance(declared, Composite) else (op,)
    return max(sum(i.engine == engine for i in REGISTRY[name]) for name in names)


def _insisting(place: int) -> Callable[..., Any]:
    """``engines.choose``, but of the engine's implementations that serve the one at ``place``."""

    def insist(
        op: str, geometry: Any, dtype: Any, engine: str, *more: object
    ) -> Callable[..., Any]:
        problem = Choice(op, geometry, dtype, math="strict")
        serving = [i for i in REGISTRY[op] if i.engine == engine and i.refuses(problem) is None]
        return serving[min(place, len(serving) - 1)].load()

    return insist


def complaints(call: Call) -> Iterator[str]:
    """What is wrong with the call, in words. Sums are direct: Winograd's have bounds of their own,
    which ``fastcnn compare`` holds."""
    with fastcnn.use_math("strict"):
        yield from _complaints(call)


def _complaints(call: Call) -> Iterator[str]:
    before = {name: _bytes(array) for name, array in call.given.items()}
    reference = outcome(call, call.plain, "naive")
    call.refused = isinstance(reference, Exception)
    allowed = None if isinstance(reference, Exception) else _allowed(call, reference)
    if isinstance(reference, Exception) and not isinstance(reference, ValueError | TypeError):
        yield f"the specification raises {reference!r}"
    for engine in fastcnn.engines():
        for place in range(algorithms(call.op, engine)):
            registry.choose = _insisting(place) if place else choose
            forget_choices()
            try:
                result = outcome(call, call.given, engine)
            finally:
                registry.choose = choose
                forget_choices()
            for complaint in _differences(call, result, reference, allowed):
                yield f"{engine}, algorithm {place}: {complaint}"
    for name, array in call.given.items():
        if _bytes(array) != before[name]:
            yield f"{name} was written to"


def _bytes(array: Any) -> bytes:
    return array.tobytes() if isinstance(array, np.ndarray) else repr(array).encode()


def _allowed(call: Call, reference: tuple[Array, ...]) -> tuple[Array, ...]:
    """How far each number may be from the specification's; NaN where they must be equal, infinity
    where a sum may overflow in one order and not in another."""
    inexact = rounds_a_few_times(call.op) or any(
        name in call.op for name in ("avg", "dropout", "leaky", "prelu", "resize")
    )
    if call.mode in ("exact", "special") and not inexact:
        return tuple(np.full(y.shape, np.nan) for y in reference)
    shapes = {name: array.shape for name, array in call.plain.items()}
    problem = Problem(call.op, "drawn", shapes, call.parameters, call.geometry)
    dtype = reference[0].dtype
    result, info = bounds(problem, call.plain, reference), np.finfo(dtype)
    if call.mode == "special":
        # Sums over what is not finite have no bound; an exponential of -inf is 0 and leaves the
        # row's other numbers with a few roundings.
        calm = rounds_a_few_times(call.op)
        least = [
            256 * float(info.eps) * np.maximum(1, abs(y)) if calm else np.nan for y in reference
        ]
        if call.op == "group_norm_backward":
            # An infinite gamma times each term is NaN more often than it is times their sum.
            least = [
                np.where(np.isfinite(y), few, np.inf)
                for y, few in zip(reference, least, strict=True)
            ]
        return tuple(
            np.where(np.isfinite(bound), bound, few)
            for bound, few in zip(result, least, strict=True)
        )
    if call.mode != "extreme":
        return result
    sums = call.geometry or any(name in call.op for name in ("dense", "prelu"))
    sums = sums or call.op.removesuffix("_backward") in MERGES
    terms = max(sum_lengths(problem), default=1) if sums else 1
    below = 4 * (terms + 4) * float(info.smallest_subnormal)
    unit = float(info.eps)
    # A bound is at least a roundoff of the sum of the absolute values: that tells of overflow.
    return tuple(
        np.where(bound < unit * float(info.max) / 8, bound + below, np.inf) for bound in result
    )


def _differences(
    call: Call, found: Outcome, reference: Outcome, allowed: tuple[Array, ...] | None
) -> Iterator[str]:
    if isinstance(found, Exception) or isinstance(reference, Exception):
        if repr(found) != repr(reference):
            yield f"gives {str(found)[:300]!r} ({type(found).__name__}), not {reference!r:.300}"
        return
    assert allowed is not None
    for place, (y, expected, bound) in enumerate(zip(found, reference, allowed, strict=True)):
        if (y.shape, y.dtype) != (expected.shape, expected.dtype):
            yield f"result {place} is {y.shape} {y.dtype}, not {expected.shape} {expected.dtype}"
            continue
        if not y.flags.c_contiguous or not y.flags.aligned:
            yield f"result {place} is not C-contiguous"
        arrays = [a for a in call.given.values() if isinstance(a, np.ndarray)]
        if any(np.may_share_memory(y, array) for array in arrays):
            yield f"result {place} shares memory with an argument"
        a, b = y.astype(np.float64), expected.astype(np.float64)
        good = (a == b) | (np.isnan(a) & np.isnan(b)) | (abs(a - b) <= bound) | np.isposinf(bound)
        if not good.all():
            at = tuple(map(int, np.argwhere(~good)[0]))
            yield (
                f"result {place} differs at {(~good).sum()} of {good.size} places, at {at}: "
                f"{y[at]!r}, not {expected[at]!r} within {bound[at]!r}"
            )


def run(call: Call) -> list[str]:
    """The complaints about one call, on threads whose number follows from it."""
    fastcnn.set_num_threads(1 + sum(map(np.size, call.given.values())) % 3)
    threads.SMALL, small = 1, threads.SMALL
    try:
        with np.errstate(all="ignore"):
            return list(complaints(call))
    finally:
        threads.SMALL = small


def main(
    cases: Annotated[int, typer.Option(help="How many.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Another seed, other cases.")] = 0,
    first: Annotated[int, typer.Option(help="Number of the first case.")] = 0,
    seconds: Annotated[float, typer.Option(help="Stop after so long; go on with --first.")] = 1e9,
    op: Annotated[list[str] | None, typer.Option(help="These functions only.")] = None,
) -> None:
    """Hold random calls against the specification."""
    start, failed, refused, number = perf_counter(), 0, 0, first
    while number < first + cases and perf_counter() - start < seconds and failed < 25:
        call = drawn(RandomDice(seed, number), op or ops.EXPLAINABLE)
        wrong = run(call)
        if wrong:
            failed += 1
            print(f"--seed {seed} --first {number}: {call}", *wrong[:4], sep="\n    ", flush=True)
        refused += call.refused
        number += 1
        if number % 5000 == 0:
            print(f"{number - first} cases, {perf_counter() - start:.0f} s", flush=True)
    print(
        f"{number - first} cases from {first} of seed {seed} in {perf_counter() - start:.0f} s, "
        f"{refused} of them wrong calls: {failed} failed"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
