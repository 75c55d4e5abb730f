"""Kernels on arrays laid against inaccessible memory, held against the specification.

    python tests/guarded.py           the whole matrix, for this processor
    python tests/guarded.py --all     also for the narrower instruction sets that it has

Every array that a kernel sees, arguments, results and scratch alike, has pages of its own between
two that must not be touched. In one run it begins right after the first of these, in another it
ends right before the last; an access beyond it ends the process with SIGSEGV. New memory holds
NaN, so that a number read before it is written shows in the results.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from inspect import signature
from itertools import chain, islice, product
from pathlib import Path
from pkgutil import walk_packages
from typing import Annotated, Any, Literal

import numpy as np
import typer
from limits import run
from processes import environment, instruction_sets

import fastcnn
from fastcnn.bench.multiply_add import CHAIN, multiply_add
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import conv_geometry, pool_geometry, transposed_geometry
from fastcnn.core.resizing import resize_geometry
from fastcnn.core.settings import forget_choices
from fastcnn.data.augmentation import blend_numpy, cut_out_numpy
from fastcnn.engine import numba as kernels
from fastcnn.engine.numba.contraction import chooser
from fastcnn.engine.numba.contraction.column_sums import add_to_totals, round_totals
from fastcnn.engine.numba.conv import direct, winograd, winograd_plan
from fastcnn.engine.numba.elementwise import activations
from fastcnn.engine.numba.elementwise import augmentation as kernels_of_augmentation
from fastcnn.engine.numba.runtime import arrays as seam
from fastcnn.engine.numba.runtime import jobs, kernel_cache, threads
from fastcnn.engine.numba.runtime.calls import OFFER
from fastcnn.engine.numba.runtime.instruction_sets import host_registers
from fastcnn.engine.numba.runtime.jobs import SLOT
from fastcnn.engine.registry import replaced
from fastcnn.proof.bounds import bounds
from fastcnn.proof.check import EXACT_MODES, REFERENCE, call
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import ARTICLE_NET, DTYPES, Case, Problem, cases

Border = Literal["first", "last"]
"""Which number of an array has inaccessible memory for a neighbour."""

CHANNELS = (*range(1, 11), 15, 16, 17, 31, 32, 33, 34, 65)
WIDTHS = (*range(1, 18), 27, 28, 29)
KERNELS = ((3, 3), (1, 1), (2, 3), (1, 2), (3, 1))
STRIDES = ((1, 1), (2, 1), (1, 1), (1, 2), (3, 2), (2, 3))
PADDINGS = ("same", "valid", ((1, 2), (0, 3)), (0, 1))
DILATIONS = ((1, 1), (1, 1), (2, 1), (1, 1), (1, 2))
BATCHES = (1, 2, 3, 5, 6, 7, 13, 14, 15)
NETS_SHARE = 3
"""Of the nets one of so many; their kernels are those that the cases go over."""

TILED = ("conv2d", "winograd", "max_pool2d", "min_pool2d", "avg_pool2d", "dense")
TILED += ("permute", "depth_to_space", "space_to_depth", "resize2d")
"""How the names of the operations begin whose kernels depend on the vector registers.

The kernels of other operations are plain loops, which are the same for each instruction set. They
run for the host's alone.
"""

_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_ACCESS = 0


def guarded(shape: tuple[int, ...], dtype: Any, border: Border) -> Array:
    """A new array between inaccessible pages, with one of its ends at the border."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = max(1, math.ceil(size / mmap.PAGESIZE)) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + 2 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (address, address + mmap.PAGESIZE + room):
        forbid(page)
    offset = mmap.PAGESIZE + (0 if border == "first" else room - size)
    array: Array = np.ndarray(shape, dtype, memory, offset)  # keeps the memory alive
    if array.dtype.kind == "f":
        array[...] = np.nan
    elif array.dtype == np.uint8:
        array[...] = 255  # NaN to those who take it for floats
    return array


def forbid(address: int) -> None:
    """Whoever touches the page of memory at ``address`` from now on ends the process."""
    if _LIBC.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), _NO_ACCESS):
        raise OSError(ctypes.get_errno(), "mprotect failed")


def guarded_copy(array: Array, border: Border) -> Array:
    """A read-only copy of ``array`` between inaccessible pages."""
    copy = guarded(array.shape, array.dtype, border)
    copy[...] = array
    copy.setflags(write=False)
    return copy


def matrix(dtypes: Sequence[str] = DTYPES, share: int = 1, tiled: bool = False) -> Iterator[Case]:
    """The cases, or one of ``share`` for each operation: the project's own, then remainders.

    With ``tiled`` only the operations whose kernels depend on the registers.
    """
    ours = dict.fromkeys(case.problem for case in cases() if case.problem.op != ARTICLE_NET)
    by_op: dict[str, list[Problem]] = {}
    others = (_layers, _winograds, _poolings, _dense, _elements, _merges, _transposed_layers)
    for problem in chain(ours, *(some() for some in (*others, _rearrangements, _norms))):
        by_op.setdefault(problem.op, []).append(problem)
    for op, problems in by_op.items():
        if tiled and not op.startswith(TILED):
            continue
        for problem in islice(problems, 0, None, share):
            for dtype in (name for name in dtypes if name in problem.dtypes):
                yield Case(problem, dtype, problem.modes[0])


def _layers() -> Iterator[Problem]:
    """Convolutions with each number of channels on rows of each width."""
    for k, (ic, width) in enumerate(product(CHANNELS, WIDTHS)):
        oc = CHANNELS[7 * k % len(CHANNELS)]
        kernel, stride, dilation = KERNELS[k % 5], STRIDES[k % 6], DILATIONS[k // 3 % 5]
        parameters = {"stride": stride, "dilation": dilation, "padding": PADDINGS[k % 4]}
        x = (1 + k % 3, 2 + k // 4 % 4, width)
        yield from _layer(f"{ic}-to-{oc}-on-{width}", (*x, ic), (*kernel, ic, oc), parameters)
        if ic > 1 and k % 2:
            times = 1 + (k % 7 == 1)
            depthwise = {**parameters, "groups": ic}
            w = (*kernel, 1, ic * times)
            yield from _layer(f"depthwise-{ic}-on-{width}", (*x, ic), w, depthwise)
        if ic < 32 and k % 3 == 0:
            groups = 2 + k % 2
            w = (*kernel, ic, groups * oc)
            grouped = {**parameters, "groups": groups}
            yield from _layer(f"{groups}-groups-on-{width}", (*x, groups * ic), w, grouped)

    # Pixels a multiple of 2 KiB apart are laid out with gaps between them.
    for k, oc in enumerate((3, 17, 33)):
        x, w = (2, 3, 4 + k, 512), (1 + k, 2, 512, oc)
        parameters = {"stride": (1, 1 + k), "dilation": (1, 1), "padding": PADDINGS[k]}
        yield from _layer(f"512-to-{oc}", x, w, parameters)


def _winograds() -> Iterator[Problem]:
    """Squares whole and cut off, with each number of channels."""
    for k, (ic, width) in enumerate(product(CHANNELS, (1, 2, 3, 4, 5, 6, 9, 17))):
        oc, side = CHANNELS[5 * k % len(CHANNELS)], 5 if k % 9 == 4 else 3
        x, w = (1 + k % 3, 1 + k // 3 % 9, width, ic), (side, side, ic, oc)
        arguments = {"padding": PADDINGS[k % 3], "dilation": (1, 1)}
        forward, backward = _layer(f"{ic}-on-{width}", x, w, arguments)
        for op, more, names in (
            ("winograd", {}, "xwb"),
            ("winograd_dx", {"x_shape": x}, ("dy", "w")),
            ("winograd_dw", {"kernel_size": w[:2]}, ("dy", "x")),
        ):
            problem = forward if op == "winograd" else backward
            yield replace(
                problem,
                op=op,
                arrays={name: problem.arrays[name] for name in names},
                parameters=dict(problem.parameters) | more,
                modes=("float",),
                dtypes=("float32",),
            )
        other_way = _transposed(f"{ic}-on-{width}", forward.geometry.output_shape, w, padding=1)
        yield replace(other_way, op="winograd_transpose", modes=("float",), dtypes=("float32",))


def _transposed(label: str, x: tuple[int, ...], w: tuple[int, ...], **parameters: Any) -> Problem:
    """A transposed convolution; on small images without padding, which would leave no pixel."""
    if min(x[1:3]) < 3:
        parameters["padding"] = 0
    g = transposed_geometry(x, w, **parameters)
    relu = {"activation": "relu"} if x[2] % 2 else {}
    arrays = {"x": x, "w": w, "b": (g.ic,)}
    return Problem("conv2d_transpose", label, arrays, parameters | relu, g)


def _transposed_layers() -> Iterator[Problem]:
    """Transposed convolutions with each number of channels on rows of each width."""
    for k, (oc, width) in enumerate(product(CHANNELS, WIDTHS[::4])):
        ic, kernel, stride = CHANNELS[5 * k % len(CHANNELS)], KERNELS[k % 5], STRIDES[k % 6]
        parameters = {"stride": stride, "dilation": DILATIONS[k // 3 % 5], "padding": k % 2}
        x, label = (1 + k % 3, 1 + k // 4 % 4, width), f"{ic}-to-{oc}-on-{width}"
        yield _transposed(label, (*x, ic), (*kernel, oc, ic), **parameters)
        if oc > 1 and k % 2:
            depthwise = parameters | {"groups": oc}
            yield _transposed(f"depthwise-{label}", (*x, oc), (*kernel, 1, oc), **depthwise)


def _rearrangements() -> Iterator[Problem]:
    """Axes in another order, with planes and runs of each size, and images in another size."""
    for k, (c, width) in enumerate(product(CHANNELS, WIDTHS[::3])):
        x, label = (1 + k % 3, 1 + k % 4, width, c), f"{c}-on-{width}-{k % 4}"
        order = ((3, 1, 2), (2, 3, 1), (2, 1, 3), (3, 2, 1), (1, 3, 2))[k % 5]
        yield Problem("permute", label, {"x": x}, {"order": order})
        block = {"block": 2 + k % 2, "order": ("DCR", "CRD")[k // 2 % 2]}
        deep = (*x[:3], c * (2 + k % 2) ** 2)
        yield Problem("depth_to_space", label, {"x": deep}, block)
        size = 1 + k * 3 % 7, (2 * width, 1 + width // 2, width + 3)[k % 3]
        method = ("bilinear", "nearest")[k // 3 % 2]
        coordinates = ("half_pixel", "align_corners", "asymmetric")[k // 2 % 3]
        how = {"method": method, "coordinates": coordinates, "rounding": "round_prefer_floor"}
        g = resize_geometry(x, size, *how.values())
        label, dy = f"{label}-to-{size[0]}x{size[1]}", {"dy": g.output_shape}
        yield Problem("resize2d", label, {"x": x}, {"size": size} | how, g, ("float",))
        backward = {"x_shape": x} | how
        yield Problem("resize2d_backward", label, dy, backward, g, ("float",))
    for k, (rows, columns) in enumerate(product((63, 64, 65, 127, 130, 1400), (2, 3, 5, 66, 129))):
        x, order = ((1, rows, columns), (1, columns, rows))[k % 2], {"order": (2, 1)}
        yield Problem("permute", f"plane-{rows}x{columns}", {"x": x}, order)


def _layer(
    label: str, x: tuple[int, ...], w: tuple[int, ...], parameters: dict[str, Any]
) -> Iterator[Problem]:
    reach = [(k - 1) * d + 1 for k, d in zip(w, parameters["dilation"], strict=False)]
    if reach[0] > x[1] or reach[1] > x[2]:  # no output without padding
        parameters = parameters | {"padding": "same"}
    g = conv_geometry(x, w, **parameters)
    label = f"{label}-by-{w[0]}x{w[1]}"
    relu = {"activation": "relu"} if x[2] % 2 else {}
    yield Problem("conv2d", label, {"x": x, "w": w, "b": w[3:]}, parameters | relu, g)
    yield Problem("conv2d_backward", label, {"dy": g.output_shape, "x": x, "w": w}, parameters, g)


def _poolings() -> Iterator[Problem]:
    sizes, strides = ((2, 2), (3, 3), (2, 3), (3, 1)), ((2, 2), (1, 2), (2, 1), (3, 3), (1, 1))
    for k, (channels, width) in enumerate(product(CHANNELS, WIDTHS)):
        x = (1 + k % 2, 3 + k % 3, width, channels)
        padding = ((1, 0), (0, 1)) if k % 3 else "same"
        parameters = {"size": sizes[k % 4], "stride": strides[k % 5], "padding": padding}
        if parameters["size"][1] == 1 or width == 1:
            parameters["padding"] = "same"
        g = pool_geometry(x, **parameters)
        kind = ("max", "avg", "min", "max")[k // 4 % 4]
        label = f"{channels}-on-{width}"
        modes = ("exact",) if kind == "avg" else ("special",)
        yield Problem(f"{kind}_pool2d", label, {"x": x}, parameters, g, modes)
        dy = {"dy": g.output_shape, "x": x}
        yield Problem(f"{kind}_pool2d_backward", label, dy, parameters, g, modes)
    # Gradients that may be written past the cache, in more than one block of rows.
    for channels, (size, padding) in product((16, 64, 128), ((2, 0), (3, 1), (3, (0, 1)))):
        x = (2, 34 + size // 3, 5 + channels // 64, channels)
        parameters = {"size": size, "stride": 2, "padding": padding}
        g = pool_geometry(x, **parameters)
        dy, label = {"dy": g.output_shape, "x": x}, f"whole-tiles-{size}-{channels}-{padding}"
        yield Problem("max_pool2d_backward", label, dy, parameters, g, ("special",))


def _dense() -> Iterator[Problem]:
    for k, (outputs, n) in enumerate(product(CHANNELS, BATCHES)):
        inputs = CHANNELS[5 * k % len(CHANNELS)]
        if k % 3 == 0:  # vectors hold several rows of weights, if the outputs are few
            inputs += 256
        label = f"{n}x{inputs}-to-{outputs}"
        layer = {"x": (n, inputs), "w": (inputs, outputs)}
        relu = {"activation": "relu"} if k % 2 else {}
        yield Problem("dense", label, layer | {"b": (outputs,)}, relu)
        yield Problem("dense_backward", label, {"dy": (n, outputs)} | layer)
    for n, outputs in product((1, 2, 3, 7, 130), (67, 131, 520)):
        inputs = 600_000 // (4 * outputs) + n  # read in pieces
        layer = {"x": (n, inputs), "w": (inputs, outputs)}
        yield Problem("dense", f"{n}x{inputs}-to-{outputs}", layer | {"b": (outputs,)})


def _elements() -> Iterator[Problem]:
    for classes in CHANNELS:
        rows, label = (1 + classes % 3, classes), f"{classes}"
        for op in ("softmax", "log_softmax"):
            yield Problem(op, label, {"x": rows}, modes=("float",))
            yield Problem(f"{op}_backward", label, {"dy": rows, "x": rows}, modes=("float",))
        yield Problem("relu", label, {"x": (classes,)}, modes=("special",))
        yield Problem("relu_backward", label, {"dy": (classes,), "x": (classes,)})
    # One kind after the other: taking turns, one in an even number would be of one kind alone.
    for kind, classes in product(("", "-soft"), CHANNELS):
        logits = 1 + classes % 3, classes
        scores = {"logits": logits, "labels": logits if kind else logits[:1]}
        for op in ("cross_entropy", "cross_entropy_backward"):
            label = f"{classes}{kind}"
            yield Problem(op, label, scores, {"reduction": "none"}, modes=("float",))


def _merges() -> Iterator[Problem]:
    """Merged arrays, with each number of channels in each kind of row."""
    for k, c in enumerate(CHANNELS):
        n, h, w = 1 + k % 2, 1 + k % 3, 2 + k % 5
        both = (n, h, w, c)
        for label, a, b in (
            ("equal", both, both),
            ("channels", both, (n, 1, 1, c)),
            ("pixels", (n, h, w, 1), both),
            ("columns", (n, 1, w, 1), both),
            ("outer", (n, h, w, 1), (n, 1, 1, c)),
        ):
            op = ("add", "subtract", "multiply", "maximum")[k % 4]
            shapes = {"a": a, "b": b}
            yield Problem(op, f"{label}-{c}", shapes)
            dy = {"dy": both}
            if op in ("multiply", "maximum"):
                yield Problem(f"{op}_backward", f"{label}-{c}", dy | shapes)
            else:
                parameters = {"a_shape": a, "b_shape": b}
                yield Problem(f"{op}_backward", f"{label}-{c}", dy, parameters)
        sizes = c, CHANNELS[(5 * k + 3) % len(CHANNELS)], 1 + k % 3
        shapes = {name: (n, h, w, size) for name, size in zip("abc", sizes, strict=True)}
        yield Problem("concatenate", f"{c}", shapes)
        joined = {"dy": (n, h, w, sum(sizes))}
        yield Problem("concatenate_backward", f"{c}", joined, {"sizes": sizes})


def _norms() -> Iterator[Problem]:
    """Normalisation of rows, groups and windows, with each number of channels."""
    for k, c in enumerate(CHANNELS):
        x, label = (1 + k % 3, 1 + k % 5, 3 + k % 4, c), f"{c}"
        groups = next(g for g in (3, 2, 5, 11, 7, 1) if c % g == 0)
        both, scale = {"dy": x, "x": x}, {"gamma": (c,)}
        epsilon, modes = {"epsilon": 0.01}, ("float",)
        for op, arguments in (
            ("layer_norm", epsilon),
            ("group_norm", {"groups": groups} | epsilon),
        ):
            yield Problem(op, label, {"x": x, "gamma": (c,), "beta": (c,)}, arguments, modes=modes)
            yield Problem(f"{op}_backward", label, both | scale, arguments, modes=modes)
        window = {"size": 1 + k % 7, "alpha": 0.5, "beta": (0.75, 0.6)[k // 2 % 2]}
        yield Problem("local_response_norm", label, {"x": x}, window, modes=modes)
        yield Problem("local_response_norm_backward", label, both, window, modes=modes)


def run_here(chosen: Iterable[Case], tiled: bool = False) -> int:
    """Run the cases in this process, each name printed before it; how many there were.

    Without ``tiled``, also the loops behind the tiles.
    """
    fastcnn.set_num_threads(1)
    factories = tile_factories()
    loops = ("conv2d", "conv2d_input_gradient", "conv2d_filter_gradient", "conv2d_transpose")
    count = 0
    for case in chosen:
        kernels_with_tiles = _requests(factories)
        values = make_arrays(case, 0)
        expected = call(case.problem, values, REFERENCE)
        allowed = (
            [np.zeros(y.shape) for y in expected]
            if case.mode in EXACT_MODES
            else bounds(case.problem, values, expected)
        )
        for border in ("first", "last"):
            _use_memory(border)
            inputs = {name: guarded_copy(array, border) for name, array in values.items()}
            print(f"{case.name} with its {border} number at the border", flush=True)
            _compare(case, call(case.problem, inputs, "numba"), expected, allowed)
            if not tiled and case.problem.op in ("conv2d", "conv2d_backward", "conv2d_transpose"):
                # The registry has the loops behind the tiles.
                with ExitStack() as stack:
                    for op in loops:
                        stack.enter_context(replaced(op, "numba", getattr(kernels, op)))
                    _compare(case, call(case.problem, inputs, "numba"), expected, allowed)
            if case.problem.op == "conv2d":
                with _filters_packed():
                    _compare(case, call(case.problem, inputs, "numba"), expected, allowed)
            g = case.problem.geometry
            if case.problem.op == "winograd" and g is not None and min(g.oh, g.ow) > 1:
                x, w, *b = inputs.values()
                relu = case.problem.parameters.get("activation")
                y = winograd.conv2d_pooled(x, w, b[0] if b else None, relu, g)
                _compare(case, [y], [_pooled(expected[0])], [_pooled(allowed[0])])
                y, _ = winograd.conv2d_pooled_with_indices(x, w, b[0] if b else None, relu, g)
                _compare(case, [y], [_pooled(expected[0])], [_pooled(allowed[0])])
        if not case.problem.op.startswith(TILED):
            assert _requests(factories) == kernels_with_tiles, f"{case.name} has kernels with tiles"
        count += 1
    return count


def run_what_is_no_case(dtypes: Sequence[str]) -> None:
    """Kernels that no operation calls by itself."""
    _share_as_threads_do()
    _move_images(dtypes)
    _probe_the_hardware(dtypes)
    _add_up_stretches(dtypes)


def tile_factories() -> dict[str, Any]:
    """The functions that make kernels from the sides of a tile, by name."""
    return {
        name: value
        for name, value in _kernels_and_factories().items()
        if hasattr(value, "cache_info") and "lanes" in signature(value).parameters
    }


def _requests(factories: Mapping[str, Any]) -> int:
    """How often these factories were asked for a kernel."""
    return sum(sum(factory.cache_info()[:2]) for factory in factories.values())


def _pooled(y: Array) -> Array:
    """The largest of each 2×2 pixels; NaN, where there is one."""
    n, h, w, c = y.shape
    squares = y[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
    largest: Array = squares.max(axis=(2, 4))
    return largest


@contextmanager
def _filters_packed() -> Iterator[None]:
    """Let the filters be packed that are otherwise taken as they are."""
    rule, blocks = chooser.packing_pays, chooser.PACKED_BLOCKS
    chooser.packing_pays, chooser.PACKED_BLOCKS = lambda rows, w_bytes, tile: True, 1
    direct.forward_decision.cache_clear()
    try:
        yield
    finally:
        chooser.packing_pays, chooser.PACKED_BLOCKS = rule, blocks
        direct.forward_decision.cache_clear()


def _use_memory(border: Border) -> None:
    # Plans keep scratch.
    for plan in (winograd_plan.forward_plan, winograd_plan.input_gradient_plan):
        plan.cache_clear()
    seam.allocate = lambda shape, dtype: guarded(shape, dtype, border)
    forget_choices()


def _compare(
    case: Case, found: Sequence[Array], expected: Sequence[Array], allowed: Sequence[Array]
) -> None:
    for a, b, bound in zip(found, expected, allowed, strict=True):
        assert a.shape == b.shape, case.name
        assert a.dtype == b.dtype, case.name
        with np.errstate(invalid="ignore"):
            agree = (a == b) | (np.isnan(a) & np.isnan(b)) | (abs(a - b) <= bound)
        assert agree.all(), f"{case.name}: {a[~agree][:5]}, not {b[~agree][:5]}"


def _share_as_threads_do() -> None:
    """What only threads run, on the board that they share; nobody comes but whoever calls."""
    for border in ("first", "last"):
        board = guarded((2 * SLOT,), np.int64, border)
        board[...] = 0
        threads._serve(board, SLOT, 2)
        assert not board.any()
        board[jobs.WANTED], board[OFFER] = 2, threads.offer_address()
        seen = guarded((5,), np.float32, border)
        seen[...] = -1
        activations.relu_kernel(board, 4, 0, 5, seen, seen)
        assert not seen.any()
        assert board[jobs.NUMBER] == 1
        (own, others), nothing_left = board.reshape(2, SLOT)[:, jobs.DONE], 1 << jobs.COUNT
        assert (own, others) == (nothing_left + 4, 0)  # tasks, all of the first job
        assert (board.reshape(2, SLOT)[:, jobs.LEFT] == nothing_left).all()
        assert not board[jobs.BUSY]
        seen[...] = -1
        board[SLOT + jobs.LEFT] += nothing_left  # another job of which nothing is left
        threads._serve(board, SLOT, 2)
        assert (seen == -1).all()
        # A job in which the worker has no part: its caller would not count what it did.
        board[SLOT + jobs.LEFT], board[jobs.LEFT] = 3 * nothing_left, 4 * nothing_left + 1
        threads._serve(board, SLOT, 2)
        assert board[jobs.LEFT] == 4 * nothing_left + 1


def _probe_the_hardware(dtypes: Sequence[str]) -> None:
    """The kernel that measures the peak."""
    for border, dtype, size in product(("first", "last"), dtypes, CHANNELS):
        x = guarded((size,), dtype, border)
        x[...] = 1
        multiply_add(x, x.dtype.type(2), x.dtype.type(0), 2)
        assert (x == 2 ** (2 * CHAIN)).all()


def _add_up_stretches(dtypes: Sequence[str]) -> None:
    """What sums up the stretches of a long sum: too long for the specification to go over it."""
    for border, dtype, size in product(("first", "last"), dtypes, CHANNELS):
        values = guarded_copy(np.arange(size).astype(dtype), border)
        totals, sums = guarded((size,), np.float64, border), guarded((size,), dtype, border)
        for more in (False, True, True):
            threads.parallel_for(add_to_totals, size, size, values, totals, more)
        threads.parallel_for(round_totals, size, size, totals.reshape(1, -1), sums)
        np.testing.assert_array_equal(sums, 3 * values)


def _move_images(dtypes: Sequence[str]) -> None:
    """The kernels of augmentation, with windows and maps that reach beyond the images."""
    rng = np.random.default_rng(0)
    sides = product((1, 2, 3, 4, 17), (1, 2, 5, 16, 17), ("uint8", *dtypes))
    for channels, width, dtype in sides:
        images = rng.integers(0, 256, (9, 6, width, channels)).astype(dtype)
        places, flips = rng.integers(-9, 10, (9, 2)), rng.random(9) < 0.5
        maps = rng.uniform(-1, 1, (9, 2, 3)) * [1, 1, 5] + [0, 0, 3]
        maps[:3] = [[1, 0, 0], [0, 1, 0]]  # as they are
        maps[3:6] = [[1, 0, 0], [0, -1, width - 1]]  # mirrored
        maps = np.rint(maps * 65536).astype(np.int64)
        for border, size in product(("first", "last"), ((6, width), (4, 11))):
            print(f"augmentation of {images.shape}, {dtype}, {border}", flush=True)
            _use_memory(border)
            operands = [guarded_copy(array, border) for array in (images, places, flips, maps)]
            cut = kernels_of_augmentation.cut_out(operands[0], size, operands[1], operands[2], 6)
            np.testing.assert_array_equal(cut, cut_out_numpy(images, size, places, flips, 6))
            mixed = kernels_of_augmentation.blend(operands[0], size, operands[3], 6)
            reference = blend_numpy(images, size, maps, 6)
            if dtype == "uint8":
                np.testing.assert_array_equal(mixed, reference)
            else:
                tolerance = 256 * 64 * np.finfo(dtype).eps
                np.testing.assert_allclose(mixed, reference, rtol=0, atol=tolerance)


def compiled() -> dict[str, Any]:
    """All kernels of the package by name: what Numba compiled on its own, not into another."""
    return {
        name: value
        for name, value in _kernels_and_factories().items()
        if isinstance(getattr(value, "_cache", None), kernel_cache.KernelCache)
    }


def _kernels_and_factories() -> dict[str, Any]:
    """What the modules of the compiled engine define as kernels, or as functions that make them."""
    result = {}
    for module in walk_packages(kernels.__path__, "fastcnn.engine.numba."):
        for key, value in vars(import_module(module.name)).items():
            function = getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)
            if getattr(function, "__module__", None) == module.name:
                result[f"{module.name}.{key}"] = value
    return result


def run_apart(isa: str, dtypes: Sequence[str] = DTYPES, share: int = 1, tiled: bool = False) -> str:
    """The matrix in a process that compiles for ``isa``: the last line that it prints.

    ``AssertionError`` if it fails.
    """
    here = [sys.executable, str(Path(__file__).resolve()), "--here", f"--share={share}"]
    done = run(
        [*here, *[f"--dtype={dtype}" for dtype in dtypes], *["--tiled"] * tiled],
        env=environment(**instruction_sets()[isa]),
        stderr=subprocess.STDOUT,
    )
    report = done.stdout.strip()
    assert done.returncode == 0, f"{isa}: exit {done.returncode}\n{report[-3000:]}"
    return report.rpartition("\n")[2]


def main(
    every: Annotated[bool, typer.Option("--all", help="Also for narrower sets.")] = False,
    here: Annotated[bool, typer.Option("--here", help="In this process.")] = False,
    dtype: Annotated[list[str] | None, typer.Option(help="float32 and float64 if none.")] = None,
    share: Annotated[int, typer.Option(help="One problem of so many.")] = 1,
    tiled: Annotated[bool, typer.Option("--tiled", help="Only kernels with tiles.")] = False,
) -> None:
    """Run all kernels on arrays that lie against inaccessible memory."""
    dtypes = dtype or DTYPES
    if here:
        from guarded_descent import run_optimizers  # which need what is defined here
        from guarded_nets import run_nets
        from guarded_user_code import run_user_code

        count = run_here(matrix(dtypes, share, tiled), tiled)
        several = run_nets(tuple(dtypes), NETS_SHARE * min(share, 3), tiled)
        if not tiled:
            run_what_is_no_case(dtypes)
            run_optimizers(tuple(dtypes))
            run_user_code(tuple(dtypes), share)
            idle = [name for name, kernel in compiled().items() if not kernel.signatures]
            assert not idle, f"kernels that no case ran: {', '.join(idle)}"
        print(f"{host_registers().isa}: {count} cases and {several} nets without a fault")
        return
    for isa in instruction_sets() if every else list(instruction_sets())[:1]:
        print(run_apart(isa, dtypes, share))


if __name__ == "__main__":
    typer.run(main)
