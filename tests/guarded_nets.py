"""Whole nets on arrays laid against inaccessible memory, held against the specification.

``guarded.py`` runs this after the single kernels. Inputs, outputs, parameters and gradients lie
against inaccessible pages. So does each place in the scratch of a slice, where slices are equal,
each place in the arena of a prediction, and each entry that is made of the weights. Between one
parameter and the next there is no room for a page: there lie numbers that show in the results, and
are looked for afterwards.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
from guarded import CHANNELS, Border, forbid, guarded, guarded_copy

from fastcnn import Input, Model, Sequential
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import arrays as seam
from fastcnn.engine.numba.runtime import turns
from fastcnn.engine.numba.runtime.program import ITEM, Operand
from fastcnn.layers import (
    ELU,
    GELU,
    LRN,
    Add,
    Average,
    AvgPool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthToSpace,
    DepthwiseConv2D,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Layer,
    LayerNorm,
    MaxPool2D,
    MinPool2D,
    Multiply,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Resize,
    SeparableConv2D,
    Softmax,
    Softplus,
    Swish,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.losses import BinaryCrossEntropy, CrossEntropy, Loss
from fastcnn.models import weights
from fastcnn.models.execution import (
    Executor,
    prediction,
    prepared,
    programs,
    slices,
    step_list,
    turn_list,
)

PAGE = mmap.PAGESIZE
BATCHES = (1, 3, 16, 9)
"""One slice; slices of one sample, and of two; a last slice that is smaller."""
_BETWEEN = 1e30  # between parameters, and between their gradients


class Branches(list[Layer]):
    """Layers of which the first three see the input, each alone; the others what is made of these.

    The first two are added, and the sum passes a ReLU. The third is laid beside the sum, and all is
    multiplied by its mean, as in squeeze-and-excitation, and averaged with it.
    """

    def model(self, shape: tuple[int, ...], dtype: str, engine: str | None) -> Model:
        """The model, new."""
        x = Input(shape)
        first, second, third, *rest = self
        total = ReLU()(Add()([first(x), second(x)]))
        y = Concatenate()([total, third(x), total])
        gate = Reshape((1, 1, -1))(GlobalAvgPool2D()(y))
        y = Average()([Multiply()([y, gate]), gate])
        for layer in rest:
            y = layer(y)
        return Model(x, y, seed=0, dtype=dtype, engine=engine)  # type: ignore[arg-type]


def _model(
    shape: tuple[int, ...], layers: list[Layer], dtype: str, engine: str | None = None
) -> Model:
    if isinstance(layers, Branches):
        return layers.model(shape, dtype, engine)
    return Sequential(layers, shape, seed=0, dtype=dtype, engine=engine)  # type: ignore[arg-type]


_PLAIN = GroupNorm, LRN, LayerNorm, PReLU
"""Layers of plain loops, which only nets have that are here for them."""


def nets(share: int = 1, tiled: bool = False) -> Iterator[tuple[tuple[int, ...], list[Layer]]]:
    """Input shapes and layers, with each number of channels in each place.

    With ``tiled`` without the nets that are here for layers of plain loops.
    """
    for shape, layers in _all_nets(share):
        if not (tiled and any(isinstance(one, _PLAIN) for one in layers)):
            yield shape, layers


def _all_nets(share: int) -> Iterator[tuple[tuple[int, ...], list[Layer]]]:
    paddings: tuple[Any, ...] = ("same", "valid", ((1, 2), (0, 3)), (1, 0))
    pools = (MaxPool2D, MinPool2D, AvgPool2D)
    for k, c in enumerate(CHANNELS[::share]):
        other, third = (CHANNELS[(m * k + 2) % len(CHANNELS)] for m in (5, 7))
        images = 5 + k % 3, 6 + k % 4
        yield (
            (*images, 1 + k % 4),
            [
                Conv2D(c, (2 + k % 2, 3), padding=paddings[k % 4], activation="relu"),
                pools[k % 3]((2, 1 + k % 2), padding="same"),
                Conv2D(other, (2, 2), (1 + k % 2, 1 + k % 3), padding=paddings[(k + 1) % 4]),
                ReLU(),
                Flatten(),
                Dense(third, activation="relu", use_bias=k % 2 > 0),
                Dense(3 + k % 5),
            ],
        )
        yield (
            (*images, c),
            [
                Tanh(),
                DepthwiseConv2D(
                    (3, 2), padding="same", dilation=1 + k % 2, depth_multiplier=1 + k % 2
                ),
                pools[(k + 1) % 3](2, strides=(1, 2)),
                BatchNorm(),
                Conv2D(1 + k % 2, 1, strides=1 + k % 2, use_bias=False),
                (GlobalAvgPool2D, GlobalMaxPool2D)[k % 2](),
                Flatten(),
                Dense(other),
            ],
        )
        groups = 2 + k % 2
        grouped = [  # more input than output channels in a group
            ReLU(),
            Conv2D(groups * other, (1, 2), groups=groups),
            ReLU(),
            Conv2D(groups, (3, 2), (2, 3), "same", groups=groups),
            Flatten(),
            Dense(2, use_bias=False),
        ]
        yield (*images, groups * c), grouped
        yield (2, 1 + k % 3, c), [BatchNorm(), Flatten(), Dense(third), ReLU(), Dense(other)]
        norms = [GroupNorm(c), LRN(1 + k % 4, 0.5), LayerNorm((-2, -1)), Flatten(), Dense(other)]
        yield (3, 2 + k % 3, c), norms
        filters = Conv2D(c, (2, 3), 1 + k % 2, padding=paddings[k % 4], activation="relu")
        wide = (5 + k % 4, (2 + k % 3) * (27 + k) // 2, 1 + k % 3)
        yield wide, [filters, ReLU(), MaxPool2D(), Flatten(), Dense(2 + k % 17)]
        thirds = [MaxPool2D(2, 1, "same"), AvgPool2D(3, 1, "same"), Conv2D(other, 1)]
        thirds += [ReLU(), Conv2D(third, (1, 2)), Flatten(), Dense(2)]
        yield (3, 2 + k % 3, c), Branches(thirds)
        if k % 3 == 1:  # activations by formulas, each with an odd number of numbers
            smooth = [ELU(), Swish(), GELU(), Softplus(), GELU(approximate=True)]
            mixed = [Conv2D(c, (2, 1)), PReLU(), HardSwish(), HardSigmoid(), *smooth, ReLU(0.5)]
            yield (
                (3, 3 + k % 2, 1 + k % 2),
                [*mixed, Flatten(), Dense(third), PReLU(), Softmax(), Dense(3)],
            )
        if k % 3 == 2:  # layers that resize images or move their numbers
            shaping = [
                SeparableConv2D(4 * (1 + k % 2), (2, 3), 1, "same", 1, 1 + k % 2, "relu"),
                DepthToSpace(2, ("DCR", "CRD")[k % 2]),
                Cropping2D(((0, 1), (1, 0))),
                ZeroPadding2D(((1, 0), (0, 2))),
                Conv2DTranspose(other, (2, 3), (1 + k % 2, 2), ("same", "valid")[k % 2]),
                ReLU(),
                (UpSampling2D((1, 2)), Resize(7, 5))[k % 2],
                Permute((3, 1, 2)),
                Reshape((other, -1)),
                Flatten(),
                Dense(2 + k % 4),
            ]
            yield (2 + k % 2, 3, c), shaping
        if k % 3 == 0:  # rows longer than a stretch of a sum
            yield (23, 61, 3), [LayerNorm((-3, -2, -1)), GlobalAvgPool2D(), Dense(1 + c)]
        if k % 3 == 0:  # weights that are passed over once for the batch
            large = 100_000 // (99 * c) + k
            yield (9, 11, c), [BatchNorm(), Flatten(), Dense(large, activation="relu"), Dense(3)]


def run_nets(dtypes: tuple[str, ...], share: int = 1, tiled: bool = False) -> int:
    """Run the nets in this process; how many there were."""
    count = 0
    for shape, layers in nets(share, tiled):
        for dtype in dtypes:
            for batch in BATCHES:
                print(f"{layers} on {batch} x {shape}, {dtype}", flush=True)
                _run(shape, layers, dtype, batch)
            count += 1
    return count


def _run(shape: tuple[int, ...], layers: list[Layer], dtype: str, batch: int) -> None:
    rng = np.random.default_rng(batch)
    as_bytes = isinstance(layers[0], Conv2D)
    x = rng.integers(0, 256, (batch, *shape)).astype(np.uint8 if as_bytes else dtype)
    labels = rng.integers(0, 2, batch)
    if not as_bytes:
        x /= 128
    reference = _model(shape, layers, dtype, "im2col")
    values = [w + rng.uniform(0, 0.1, w.shape) for w in reference.get_weights()]
    reference.set_weights(values)
    rows = rng.dirichlet(np.ones(reference.output_shape or ()), batch).astype(dtype)
    weights = rng.random(batch).astype(dtype)
    expected = [reference._forward_batch(x), reference.predict(x)]
    for loss, targets, of_samples in _trainings(labels, rows, weights):
        expected += _of_training(reference._gradients(x, targets, loss, rng, of_samples))

    largest = max(abs(b).max(initial=0) for b in expected)
    borders: tuple[Border, ...] = "first", "last"
    for border in borders:
        result = _guarded(shape, layers, dtype, values, (x, labels, rows, weights), border)
        for a, b in zip(result, expected, strict=True):
            near = max(abs(b).max(), largest / 100) * (2e-4 if dtype == "float32" else 1e-11)
            np.testing.assert_allclose(a, b, rtol=0, atol=near, err_msg=border)


def _guarded(
    shape: tuple[int, ...],
    layers: list[Layer],
    dtype: str,
    values: list[Array],
    data: tuple[Array, ...],
    border: Border,
) -> list[Array]:
    fences, rng, entries = _Fences(border), np.random.default_rng(0), _Entries(border)
    with (
        patch.object(seam, "allocate", entries.allocate),
        patch.object(prepared, "whole_lines", lambda size: size),
        patch.object(prepared, "_entries_with_places", entries.with_places),
        patch.object(prepared.Prepared, "_make_version", entries.make_version),
        patch.object(weights, "_aligned", lambda size, dtype: _filled(size, dtype, border)),
        patch.object(step_list.StepList, "room", fences.room),
        patch.object(step_list.Shared, "origins", fences.origins),
        patch.object(programs, "Slice", fences.slice_),
        patch.object(programs, "BatchPrograms", fences.programs),
        patch.object(turn_list, "whole_lines", lambda size: size),
        patch.object(turn_list, "place_rooms", fences.place_rooms),
        patch.object(turn_list.TurnList, "finish", fences.finish),
        patch.object(prediction, "take_turns", fences.take_turns),
        patch.object(step_list, "CACHE_LINE", PAGE),
        patch.object(slices, "CACHE_LINE", PAGE),
    ):
        model = _model(shape, layers, dtype)
        model.set_weights(values)
        images, *others = (guarded_copy(array, border) for array in data)
        executor = Executor(model._graph, model._weights, model._known_shapes())
        results = []
        for y in (*(executor.forward([images]) or [None]), executor.probabilities(images)):
            assert y is not None, "single operations must decide"
            results.append(y)
        for loss, targets, of_samples in _trainings(*others):
            figures = executor.gradients([images], targets, loss, rng, of_samples)
            assert figures is not None, "single operations must decide"
            results += _of_training((*figures[:2], model._weights.gradients))
    for flat, parts in (
        (model._weights.parameters, [a for one in model.layers for a in one.parameters.values()]),
        (model._weights.gradient, [a for d in model._weights.gradients for a in d.values()]),
    ):
        for part in parts:
            part[...] = _BETWEEN
        assert (flat == flat.dtype.type(_BETWEEN)).all(), "something was written between parameters"
    return results


def _trainings(labels: Array, rows: Array, weights: Array) -> list[tuple[Loss, Array, Any]]:
    """Losses that programs end in, on both kinds of targets, and one that they do not."""
    binary = BinaryCrossEntropy()
    return [(CrossEntropy(), labels, None), (CrossEntropy(), rows, weights), (binary, rows, None)]


def _of_training(found: tuple[float, float, list[dict[str, Array]]]) -> list[Array]:
    total, correct, gradients = found
    arrays = [a.copy() for one in gradients for a in one.values()]
    return [np.array([total]), np.array([correct]), *arrays]


def _filled(size: int, dtype: Any, border: Border) -> Array:
    array = guarded((size,), dtype, border)
    array[...] = _BETWEEN
    return array


class _Entries:
    """Forbidden pages between the entries that are made of the weights."""

    def __init__(self, border: Border) -> None:
        self._border: Border = border
        self._next: list[prepared._Entry] | None = None  # entries that get memory next
        make_version = prepared.Prepared._make_version

        def make_between_pages(
            of: prepared.Prepared, key: Any, entries: list[prepared._Entry], filters: Any
        ) -> prepared.Version:
            self._next = entries
            return make_version(of, key, entries, filters)

        self.make_version = make_between_pages

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory between forbidden pages; that of entries has some between them too."""
        if self._next is None or np.dtype(dtype) != np.uint8:
            return guarded(shape, dtype, self._border)
        ends = [end for *_, end in self._apart(self._next)]
        self._next = None
        array = guarded((max(ends, default=0),), dtype, self._border)
        for end in ends:
            forbid(array.ctypes.data + end - PAGE)
        return array

    def with_places(
        self, entries: list[prepared._Entry]
    ) -> Iterator[tuple[prepared._Entry, Operand]]:
        """The entries with their places, each in pages of its own."""
        for entry, at, _ in self._apart(entries.copy()):
            yield entry, Operand(turns.PREPARED, at)

    def _apart(self, entries: list[prepared._Entry]) -> Iterator[tuple[prepared._Entry, int, int]]:
        """Each entry, where it lies, and where the page behind its own ends."""
        at = 0
        for entry in entries:
            room = max(1, math.ceil(entry.size / PAGE)) * PAGE
            yield entry, at if self._border == "first" else at + room - entry.size, at + room + PAGE
            at += room + PAGE


class _Fences:
    """Pages between the places of scratch; those of slices are forbidden where all agree.

    The places of a prediction's arena share no memory, so that a page lies between any two.
    """

    def __init__(self, border: Border) -> None:
        self._border, self._latest = border, list[slices.Slice]()
        self._turns: dict[int, tuple[turns.Turns, list[int]]] = {}
        fences, finish, take_turns = self, turn_list.TurnList.finish, turns.take_turns

        def place_rooms(rooms: list[Any]) -> tuple[list[int], int]:
            places, at, fences.__dict__["between"] = [], 0, []
            for room in rooms:
                pages = max(1, math.ceil(room.size / PAGE)) * PAGE
                places.append(at + (0 if fences._border == "first" else pages - room.size))
                at += pages + PAGE
                fences.__dict__["between"].append(at - PAGE)
            return places, at

        def finish_with_fences(to: turn_list.TurnList) -> tuple[turns.Turns, int]:
            program, size = finish(to)
            self._turns[id(program.steps)] = program, self.__dict__["between"]
            return program, size

        def take_with_fences(program: turns.Turns, bases: Array) -> None:
            for at in self._turns[id(program.steps)][1]:
                forbid(int(bases[turns.ARENA]) + at)
            take_turns(program, bases)

        self.place_rooms, self.finish = place_rooms, finish_with_fences
        self.take_turns = take_with_fences

        def origins(shared: step_list.Shared, count: int) -> tuple[dict[int, int], int]:
            result, at, shared.__dict__["fences"] = {}, shared.__dict__["_transposed_size"], []
            for base, by_sample in shared.arrays.values():
                size = count * by_sample
                pages = max(1, math.ceil(size / PAGE)) * PAGE
                result[base] = at + (0 if fences._border == "first" else pages - size)
                at += pages + PAGE
                shared.__dict__["fences"].append(at - PAGE)
            return result, at

        def room(slice_: step_list.StepList, count: int) -> Operand:
            size = count * slice_.itemsize
            pages = max(1, math.ceil(size / PAGE)) * PAGE
            at = slice_.size + (0 if fences._border == "first" else pages - size)
            slice_.size += pages + PAGE
            slice_.__dict__.setdefault("fences", []).append(slice_.size - PAGE)
            return Operand(ITEM, at)

        class Slice(slices.Slice):
            def __init__(self, *given: Any, **more: Any) -> None:
                super().__init__(*given, **more)
                fences._latest = [*fences._latest[-1:], self]

        class BatchPrograms(programs.BatchPrograms):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                whole, rest = fences._latest
                self._fences = whole.__dict__["fences"] if whole.n == rest.n else []
                self._workspace, self._shared = whole.size, whole.shared.__dict__["fences"]

            def scratch(self) -> programs.Scratch:
                result = super().scratch()
                for at in self._shared:
                    forbid(result.address + at)
                for item in range(self.forward.items):
                    first = result.address + self.forward.shared_bytes + item * self._workspace
                    for at in self._fences:
                        forbid(first + at)
                return result

        self.room, self.origins = room, origins
        self.slice_, self.programs = Slice, BatchPrograms
