"""Compiled kernels give the same bits for any number of threads, batch and place in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.settings import forget_choices
from fastcnn.engine.numba.conv import winograd_plan
from fastcnn.engine.numba.runtime import arrays as kernel_arrays
from fastcnn.engine.numba.runtime import instruction_sets
from fastcnn.models.nets import article
from fastcnn.models.sequential import Sequential
from fastcnn.nn.optimizers import SGD
from fastcnn.proof.check import call
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import Case, cases

FLOATS = [case for case in cases() if case.mode in ("float", "shifted", "digits")]
BY_SAMPLE = {"x", "dy", "logits", "labels", "mask", "a"}
"""Arrays whose first axis is the batch; so it is of all arrays beside a."""

ONE_RESULT_PER_SAMPLE = (
    "conv2d",
    "conv2d_input_gradient",
    "max_pool2d",
    "max_pool2d_backward",
    "min_pool2d",
    "min_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "dense",
    "leaky_relu",
    "leaky_relu_backward",
    "tanh",
    "tanh_backward",
    "sigmoid",
    "sigmoid_backward",
    "dropout",
    "zero_pad2d",
    "zero_pad2d_backward",
    "batch_norm_inference",
    "softmax",
    "softmax_backward",
    "log_softmax",
    "log_softmax_backward",
    "add",
    "add_backward",
    "subtract",
    "subtract_backward",
    "multiply",
    "multiply_backward",
    "maximum",
    "maximum_backward",
    "concatenate",
    "concatenate_backward",
    "clipped_relu",
    "clipped_relu_backward",
    "elu",
    "elu_backward",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_swish",
    "hard_swish_backward",
    "swish",
    "swish_backward",
    "gelu",
    "gelu_backward",
    "softplus",
    "softplus_backward",
    "prelu",
    "conv2d_transpose",
    "crop2d",
    "crop2d_backward",
    "permute",
    "permute_backward",
    "depth_to_space",
    "space_to_depth",
    "resize2d",
    "resize2d_backward",
    "layer_norm",
    "group_norm",
    "local_response_norm",
    "local_response_norm_backward",
)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = fastcnn.get_num_threads()
    yield
    fastcnn.set_num_threads(before)


def bits(arrays: tuple[Array, ...]) -> list[bytes]:
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("op", sorted({case.problem.op for case in FLOATS}))
def test_number_of_threads_changes_no_bit(op: str) -> None:
    for case in FLOATS:
        if case.problem.op == op:
            arrays = make_arrays(case, 0)
            results = []
            for count in (1, 2, 3):
                fastcnn.set_num_threads(count)
                results.append(bits(call(case.problem, arrays, "numba")))
            assert results[0] == results[1] == results[2], case.name


class Shelf:
    """Memory in which arrays lie one behind the other, so many bytes apart."""

    memory = np.zeros(64 << 20, np.uint8)

    def __init__(self, gap: int) -> None:
        self.first, self.gap = 0, gap

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        first = -(-self.first // 8) * 8
        self.first = first + size + self.gap
        assert self.first <= self.memory.size
        return self.memory[first : first + size].view(dtype).reshape(shape)

    def copy(self, array: Array) -> Array:
        new = self.empty(array.shape, array.dtype)
        new[...] = array
        return new


@pytest.mark.parametrize("op", sorted({case.problem.op for case in FLOATS}))
def test_where_arrays_lie_changes_no_bit(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that the compiler made two of, one for arrays too near each other for vectors."""
    for case in FLOATS:
        if case.problem.op != op:
            continue
        arrays = make_arrays(case, 0)
        results = []
        for gap in (0, 4096):
            for reverse in (False, True):
                shelf = Shelf(gap)
                names = list(arrays)[::-1] if reverse else list(arrays)
                near = {name: shelf.copy(arrays[name]) for name in names}
                monkeypatch.setattr(kernel_arrays, "allocate", shelf.empty)
                _forget_scratch()
                results.append(bits(call(case.problem, near, "numba")))
                monkeypatch.undo()
                _forget_scratch()
        assert all(one == results[0] for one in results), case.name


def _forget_scratch() -> None:
    """What plans and bound calls keep of it lies on a shelf that is used again."""
    forget_choices()
    for plan in (winograd_plan.forward_plan, winograd_plan.input_gradient_plan):
        plan.cache_clear()
    for choice in instruction_sets._choices:
        # A dense layer's gradients; tables of sources and of axes.
        if choice.__name__ in ("_by_blocks", "resampling", "permutation"):
            choice.cache_clear()


def large(op: str, dtype: str) -> tuple[dict[str, Array], dict[str, object]]:
    """Arrays that are worth several threads."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((9, 33, 31, 17)), rng.standard_normal((3, 2, 17, 33))
    dy = rng.standard_normal((9, 17, 32, 33))
    arrays = {"x": x, "w": w, "dy": dy, "b": rng.standard_normal(33)}
    used = {
        "conv2d": ("x", "w", "b"),
        "conv2d_backward": ("dy", "x", "w"),
        "max_pool2d": ("x",),
        "max_pool2d_backward": ("dy", "x"),
        "avg_pool2d_backward": ("dy", "x"),
    }[op]
    chosen = {name: arrays[name].astype(dtype) for name in used}
    if "pool" in op:
        parameters: dict[str, object] = {"size": (3, 2), "stride": (2, 1), "padding": 1}
        if "dy" in chosen:
            chosen["dy"] = rng.standard_normal((9, 17, 32, 17)).astype(dtype)
    else:
        parameters = {"stride": (2, 1), "padding": 1}
    return chosen, parameters


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "op", ["conv2d", "conv2d_backward", "max_pool2d", "max_pool2d_backward", "avg_pool2d_backward"]
)
def test_number_of_threads_changes_no_bit_of_large_problems(op: str, dtype: str) -> None:
    arrays, parameters = large(op, dtype)
    result = []
    for count in (1, 2, 3, 7):
        fastcnn.set_num_threads(count)
        results = getattr(fastcnn, op)(**arrays, **parameters, engine="numba")
        result.append(bits(results if isinstance(results, tuple) else (results,)))
    assert all(one == result[0] for one in result)


def one_sample(case: Case, arrays: dict[str, Array], k: int, copies: int) -> tuple[Array, ...]:
    """The problem on sample ``k`` alone, as a batch of so many copies of it."""
    by_sample = BY_SAMPLE | ({*arrays} if "a" in arrays else set())
    chosen = {
        name: np.repeat(array[k : k + 1], copies, axis=0) if name in by_sample else array
        for name, array in arrays.items()
    }
    parameters = dict(case.problem.parameters)
    for name in parameters.keys() & {"x_shape", "a_shape", "b_shape"}:
        parameters[name] = (copies, *parameters[name][1:])
    return call(replace(case.problem, parameters=parameters), chosen, "numba")


@pytest.mark.parametrize("op", ONE_RESULT_PER_SAMPLE)
def test_batch_size_and_place_in_the_batch_change_no_bit(op: str) -> None:
    number = 0
    for case in FLOATS:
        shapes = case.problem.arrays
        batch = shapes.get("x", shapes.get("a", shapes.get("dy", (0,))))
        if case.problem.op != op or len(batch) < 2 or batch[0] < 2:
            continue
        if case.problem.parameters.get("axis") == 0:  # it joins samples
            continue
        arrays = make_arrays(case, 0)
        whole = call(case.problem, arrays, "numba")
        for k in range(min(batch[0], 5)):
            results = one_sample(case, arrays, k, 1), one_sample(case, arrays, k, 3)
            for together, alone, three in zip(whole, *results, strict=True):
                assert alone[0].tobytes() == together[k].tobytes(), case.name
                assert three[2].tobytes() == together[k].tobytes(), case.name
        number += 1
    assert number > 3


def test_training_gives_the_same_weights_for_any_number_of_threads() -> None:
    (images, labels), _ = fastcnn.load_mnist()
    results = []
    for count in (1, 2, 3):
        fastcnn.set_num_threads(count)
        model = Sequential(article(), (28, 28, 1), seed=0, engine="numba")
        descent = SGD(0.03, momentum=0.9)
        for start in range(0, 160, 32):
            some = slice(start, start + 32)
            model.train_on_batch(images[some], labels[some], descent)
        results.append(bits(tuple(model.get_weights())))
    assert results[0] == results[1] == results[2]
