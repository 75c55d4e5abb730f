"""Random models: predictions and a training against the same model on the specification.

    python reliability/fuzz_models.py --cases 5000        some minutes
    python reliability/fuzz_models.py --seed 3 --first 47 --cases 1      one case again

Each number has two cases, drawn from it and the seed alone, with a few samples: a stack of layers
with any parameters that fit, and a graph of them, with branches, merges, shared layers, several
inputs and outputs. However the model is run (layer by layer, or compiled as a whole), its
predictions, its losses, its gradients and its weights after two steps must be those of the
specification: to the last bit where all numbers are small integers, else within rounding.
Predictions must also have the same bits for other sizes of the batch, for batches that run in
parts, for one to three threads, and from several threads at once. Predictions between the steps of
a training must be those of a new model with the same weights.

Where ReLU or a maximum chooses between numbers that differ only by rounding, either choice is
right. A difference of gradients, losses or weights counts only if the specification itself has none
as large when its samples are moved by some roundings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from time import perf_counter
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer
from fuzz_calls import Dice, RandomDice

import fastcnn
from fastcnn import Input, Model
from fastcnn.core.arguments import Array
from fastcnn.data.several import Several
from fastcnn.engine.numba.runtime import threads
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
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Layer,
    LayerNorm,
    LeakyReLU,
    Maximum,
    MaxPool2D,
    MinPool2D,
    Multiply,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    SeparableConv2D,
    Sigmoid,
    Softmax,
    Softplus,
    Subtract,
    Swish,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.losses import MeanSquaredError
from fastcnn.models.execution import prediction
from fastcnn.models.sequential import Sequential
from fastcnn.nn.layers import Tensor, infer_stack, layer_from_dict, to_dict
from fastcnn.optimizers import SGD

TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
"""Of the largest number: roundings of a few layers and two steps."""


class Case:
    """A model without an engine yet, samples, and whether its numbers are small integers."""

    def __init__(self, dice: Dice) -> None:
        self.exact = dice.integer(0, 2) == 0
        self.dtype: Any = (
            "float64" if self.exact else dice.choice(["float32", "float32", "float64"])
        )
        width = dice.choice([dice.integer(1, 11), dice.integer(12, 34)])
        shape = (dice.integer(1, 12), width, dice.integer(1, 5))
        self.shape: tuple[int, ...] = shape if dice.integer(0, 7) else (dice.integer(1, 30),)
        self.layers: list[dict[str, Any]] = []
        here: tuple[int, ...] = self.shape
        for _ in range(dice.integer(1, 6)):
            layer = self._layer(dice, here)
            try:
                *_, after = infer_stack([layer], here)
            except ValueError:
                continue  # it does not fit here
            if np.prod(after) < 4000:
                self.layers.append(to_dict(layer))
                here = after
        outputs = dice.choice([1, 2, 4])
        if len(here) == 3:
            self.layers.append(to_dict(Flatten()))
        self.layers.append(to_dict(Dense(outputs)))
        # One sample by itself may be 0 but for rounding behind BatchNorm and an average of it all,
        # and rounding then decides what ReLU lets through.
        coupled = any(one["class"] == "BatchNorm" for one in self.layers)
        count = dice.choice([2, 4, 8] if coupled else [1, 2, 4, 8])
        rng = np.random.default_rng(dice.integer(0, 2**32 - 1))
        draw = self._integers if self.exact else rng.standard_normal
        self.rng = rng
        self.x: Any = np.asarray(draw((count, *self.shape)), self.dtype)
        self.y: Any = np.asarray(draw((count, outputs)), self.dtype)
        self.weights = [
            np.asarray(draw(array.shape), self.dtype) if self.exact else array
            for array in self.model("naive").get_weights()
        ]

    @property
    def trains_exactly(self) -> bool:
        """Whether gradients and steps have few digits too: means are over powers of two."""
        sizes = [prod(one.shape) for one in _listed(self.y)]
        return self.exact and all(size & (size - 1) == 0 for size in sizes)

    def _integers(self, shape: tuple[int, ...]) -> Array:
        return self.rng.integers(-1, 2, shape)

    def _layer(self, dice: Dice, here: tuple[int, ...]) -> Layer:
        def small() -> tuple[int, int]:
            return dice.integer(1, 3), dice.integer(1, 3)

        activation: Any = dice.choice([None, "relu"])
        padding: Any = dice.choice(["valid", "same", 1, ((0, 1), (2, 0))])
        kind = dice.integer(0, 18)
        if len(here) == 1 or kind == 0:
            if len(here) == 1 and kind > 7:
                return dice.choice([ReLU(), Dropout(0.5)])
            return Dense(dice.integer(1, 20), activation=activation)
        if kind < 5:
            groups = dice.choice([g for g in (1, 1, 2, 3, 5) if here[2] % g == 0])
            return Conv2D(
                groups * dice.integer(1, 7), small(), dice.choice([1, small()]), padding,
                dice.choice([1, 1, 2]),
                groups, activation, bool(dice.integer(0, 1)),
            )  # fmt: skip
        if kind == 5:
            return DepthwiseConv2D(small(), small(), padding, depth_multiplier=dice.integer(1, 2))
        if kind < 8:
            pool: Any = dice.choice([MaxPool2D, MaxPool2D, MinPool2D])
            if dice.integer(0, 1):
                return pool()
            return pool(small(), dice.choice([None, small()]), dice.choice(["valid", "same"]))
        if kind == 8:
            return ZeroPadding2D(((dice.integer(0, 2), 1), (0, dice.integer(0, 2))))
        if kind == 9:
            same = [Conv2D(here[2], small(), padding="same", activation=activation)]
            return Residual(same, activation=activation)
        if kind == 10:
            return dice.choice([ReLU(), LeakyReLU(0.5), Flatten(), GlobalMaxPool2D()])
        if kind > 15:
            nearest, smooth = UpSampling2D(small()), Resize(dice.integer(1, 9), dice.integer(1, 9))
            return dice.choice(
                [Conv2DTranspose(dice.integer(1, 7), small(), small(), activation=activation),
                 SeparableConv2D(dice.integer(1, 7), small(), padding=padding),
                 nearest if self.exact else smooth, Cropping2D(((0, 1), (1, 0))),
                 DepthToSpace(dice.integer(1, 2), dice.choice(["DCR", "CRD"])), Permute((3, 1, 2)),
                 Reshape((here[1], -1, here[0]))]
            )  # fmt: skip
        if self.exact:  # what follows rounds
            return ReLU()
        return dice.choice(
            [BatchNorm(), AvgPool2D(small(), padding="same"), Tanh(), Sigmoid(), Softmax(),
             GlobalAvgPool2D(), Dropout(0.5), ReLU(2.0), PReLU(), ELU(), HardSigmoid(), HardSwish(),
             Swish(), GELU(), GELU(approximate=True), Softplus(), LRN(3, 0.5),
             LayerNorm(epsilon=0.1), LayerNorm((-3, -2, -1), 0.1), GroupNorm(1, 0.1),
             GroupNorm(here[2], 0.1)]
        )  # fmt: skip

    def model(self, engine: str | None) -> Model:
        """The model, new, on an engine; with the same weights each time."""
        layers = [layer_from_dict(one) for one in self.layers]
        model = Sequential(layers, self.shape, seed=5, dtype=self.dtype, engine=engine)
        model.loss = MeanSquaredError()  # predictions are the outputs as they are
        if hasattr(self, "weights"):
            model.set_weights(self.weights)
        return model

    def __str__(self) -> str:
        return f"{self.model('naive')!r} on {self.x.shape} {self.dtype}, exact: {self.exact}"


class GraphCase(Case):
    """A graph, samples for each input, and targets for each output."""

    def __init__(self, dice: Dice) -> None:
        self.exact = dice.integer(0, 2) == 0
        self.dtype = "float64" if self.exact else dice.choice(["float32", "float32", "float64"])
        self.rng = np.random.default_rng(dice.integer(0, 2**32 - 1))
        shape = dice.integer(2, 9), dice.choice([dice.integer(2, 9), 33]), dice.integer(1, 5)
        inputs = [Input(shape) for _ in range(dice.integer(1, 3))]
        if dice.integer(0, 3) == 0:
            inputs.append(Input((dice.integer(1, 9),)))
        values, layers = list(inputs), list[Layer]()
        for _ in range(dice.integer(3, 12)):
            tensor = self._called(dice, values, layers)
            if tensor is not None and np.prod(tensor.shape) < 3000:
                values.append(tensor)
        ends = list[Tensor]()
        for _ in range(dice.integer(1, 3)):
            tensor = dice.choice(values[-4:])
            flat = Flatten()(tensor) if len(tensor.shape) > 1 else tensor
            ends.append(Dense(dice.choice([1, 2, 4]))(flat))
        if dice.integer(0, 3) == 0 and values[-1].layer is not None:
            ends.append(values[-1])  # an output in the middle
        needed = _ancestors(ends)
        self._form = [one for one in inputs if one in needed], ends
        count = dice.choice([2, 4, 8])
        draw: Any = self._integers if self.exact else self.rng.standard_normal
        self.x = [np.asarray(draw((count, *one.shape)), self.dtype) for one in self._form[0]]
        self.y = [np.asarray(draw((count, *one.shape)), self.dtype) for one in ends]
        self.weights = [
            np.asarray(draw(array.shape), self.dtype) if self.exact else array
            for array in self.model("naive").get_weights()
        ]

    def _called(self, dice: Dice, values: list[Tensor], layers: list[Layer]) -> Tensor | None:
        """The result of another call, or None if what was drawn does not fit."""
        kind, here = dice.integer(0, 9), dice.choice(values[-5:])
        if kind < 4:
            return self._merged(dice, values, here)
        if kind == 4 and layers:  # a layer that was called before
            layer = dice.choice(layers)
            first = layer._outputs[0].inputs[0].shape
            if _specs(layer, first) != _specs(layer, here.shape):
                return None
            return layer(here)
        layer = self._layer(dice, here.shape)
        try:
            result = layer(here)
        except ValueError:
            return None
        layers.append(layer)
        return result

    def _merged(self, dice: Dice, values: list[Tensor], here: Tensor) -> Tensor:
        kinds: Any = [Add, Add, Subtract, Maximum, Concatenate, Concatenate]
        if not self.exact:  # products grow, and means round
            kinds += [Multiply, Average]
        layer = dice.choice(kinds)()
        if isinstance(layer, Concatenate):
            fitting = [one for one in values if one.shape[:-1] == here.shape[:-1]]
        else:  # equal, or repeated along some axes, such as the gate of a channel
            fitting = [
                one
                for one in values
                if len(one.shape) == len(here.shape)
                and all(a in (b, 1) for a, b in zip(one.shape, here.shape, strict=True))
            ]
        others = [dice.choice(fitting) for _ in range(dice.integer(1, 2))]
        result: Tensor = layer([here, *others] if dice.integer(0, 1) else [*others, here])
        return result

    def model(self, engine: str | None) -> Model:
        """The model, new, on an engine; with the same weights each time."""
        model = Model(*self._form, seed=5, dtype=self.dtype, engine=engine)
        model.loss = "mse"  # type: ignore[assignment]  # predictions are the outputs as they are
        if hasattr(self, "weights"):
            model.set_weights(self.weights)
        return model

    def __str__(self) -> str:
        shapes = ", ".join(str(one.shape) for one in self.x)
        drawing = self.model("naive").draw()
        return f"on {shapes} {self.dtype}, exact: {self.exact}\n{drawing}\n"


def _specs(layer: Layer, shape: tuple[int, ...]) -> Any:
    """What arrays the layer needs for this input; None where the input does not fit."""
    try:
        layer.infer(shape)
        return layer.parameter_specs(shape), layer.state_specs(shape)
    except ValueError:
        return None


def _ancestors(tensors: list[Tensor]) -> set[Tensor]:
    """The tensors and all that they come from."""
    needed, waiting = set[Tensor](), list(tensors)
    while waiting:
        tensor = waiting.pop()
        if tensor not in needed:
            needed.add(tensor)
            waiting += tensor.inputs
    return needed


def _listed(arrays: Any) -> list[Array]:
    return arrays if isinstance(arrays, list) else [arrays]


def _given(arrays: Any) -> Any:
    """What models take: an array, or a list of several."""
    return arrays[0] if isinstance(arrays, list) and len(arrays) == 1 else arrays


def _sample(arrays: Any, k: int) -> Any:
    """One sample of each array."""
    return [one[k : k + 1] for one in arrays] if isinstance(arrays, list) else arrays[k : k + 1]


def _bits(arrays: Any) -> list[bytes]:
    return [one.tobytes() for one in _listed(arrays)]


def complaints(case: Case) -> Iterator[str]:
    """What is wrong with the model as it is run by default and on each engine."""
    reference, x = case.model("naive"), _given(case.x)
    expected = _listed(reference.predict(x))
    slopes = _gradients(reference, case)
    losses = [_step(reference, case) for _ in range(2)]
    after = reference.get_weights()
    for engine in (None, *fastcnn.engines()[:-1]):
        model = case.model(engine)
        result = _listed(model.predict(x))
        yield from _compared(f"{engine}: the predictions", result, expected, case)
        ones = [_listed(model.predict(_sample(x, k))) for k in range(len(result[0]))]
        joined = [np.concatenate(parts) for parts in zip(*ones, strict=True)]
        if engine != "im2col" and _bits(joined) != _bits(result):
            yield f"{engine}: one sample by itself has other bits"
        with ThreadPoolExecutor(3) as pool:
            many = list(pool.map(lambda _, m=model: _bits(m.predict(x)), range(3)))
        if many != [_bits(result)] * 3:
            yield f"{engine}: several threads give other bits"
        yield from _same_bits(engine, model, x, _bits(result))
        yield from _compared(f"{engine}: the gradients", _gradients(model, case), slopes, case)
        told = []
        for _ in range(2):
            told.append(_step(model, case))
            fresh = case.model(engine)
            fresh.set_weights(model.get_weights())
            if _bits(model.predict(x)) != _bits(fresh.predict(x)):
                yield f"{engine}: a prediction after a step has other bits than a new model's"
        yield from _compared(f"{engine}: the losses", [np.array(told)], [np.array(losses)], case)
        yield from _compared(f"{engine}: the weights", model.get_weights(), after, case)


def _same_bits(engine: str | None, model: Model, x: Any, bits: list[bytes]) -> Iterator[str]:
    """What is wrong with predictions on other numbers of threads, and in parts of a batch."""
    for count in (1, 3):
        fastcnn.set_num_threads(count)
        if _bits(model.predict(x)) != bits:
            yield f"{engine}: {count} threads give other bits"
    fastcnn.set_num_threads(2)
    with patch.object(prediction, "_ARENA", 1):  # each sample is a part
        if _bits(model.predict(x)) != bits:
            yield f"{engine}: a batch in parts gives other bits"


def _gradients(model: Model, case: Case) -> list[Array]:
    """The gradients of all parameters in a training, and those of the inputs in prediction."""
    goal: Any = model._goal(MeanSquaredError())
    x, y = _given(case.x), _given(case.y)
    count = len(_listed(x)[0])
    targets = goal.targets(y, count, model._outputs(goal), model.dtype)
    images = Several(tuple(x)) if isinstance(x, list) else x
    before = model.get_weights()
    result = model._gradients(images, targets, goal, np.random.default_rng(3))[2]
    gradients = [array.copy() for one in result for array in one.values()]
    model.set_weights(before)  # and so the running statistics
    return [*gradients, *_listed(model.input_gradient(x, y))]


def _step(model: Model, case: Case) -> float:
    # The outputs' count and the batch are powers of two, and so is the rate: integers stay exact.
    loss = MeanSquaredError()
    return model.train_on_batch(_given(case.x), _given(case.y), SGD(2.0**-6), loss)[0]


def _compared(what: str, found: list[Array], wanted: list[Array], case: Case) -> Iterator[str]:
    # After a first step numbers are no integers any more, but have few digits yet.
    least = 1.0
    if what.endswith("gradients"):
        least = 1e-2 * max((float(np.abs(one).max(initial=0)) for one in wanted), default=1.0)
    for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if case.exact and what.endswith("predictions"):
            if not np.array_equal(a, b):
                yield f"{what} {place} are not the same to the last bit"
            continue
        scale = max(least, float(np.abs(b).max(initial=0)))
        if a.shape != b.shape or not (np.abs(a - b) <= TOLERANCE[case.dtype] * scale).all():
            yield f"{what} {place} differ by {np.abs(a - b).max()} of {scale}"


def unclear(case: Case) -> bool:
    """Whether the specification's own results differ as much if samples move by roundings."""
    roundings, plain = 64 * float(np.finfo(case.dtype).eps), case.x
    rng, results = np.random.default_rng(0), []
    try:
        for sign in (0, 1, -1):
            moved = [
                np.asarray(one * (1 + sign * roundings * rng.standard_normal(one.shape)), one.dtype)
                for one in _listed(plain)
            ]
            case.x = moved if isinstance(plain, list) else moved[0]
            model = case.model("naive")
            gradients = _gradients(model, case)
            losses = [np.array([_step(model, case) for _ in range(2)])]
            results.append((gradients, [*losses, *model.get_weights()]))
    finally:
        case.x = plain
    (slopes, after), *others = results
    return any(
        [*_compared("the gradients", one, slopes, case), *_compared("the rest", rest, after, case)]
        for one, rest in others
    )


def run(case: Case) -> list[str]:
    """The complaints about one case, on threads even where it is small."""
    fastcnn.set_num_threads(2)
    threads.SMALL, small = 1, threads.SMALL
    try:
        wrong = list(complaints(case))
        # Predictions make no choices that rounding could decide otherwise, and bits are bits.
        choices = [one for one in wrong if "bits" not in one and "predictions" not in one]
        if choices and not case.trains_exactly and unclear(case):
            wrong = [one for one in wrong if one not in choices]
        return wrong
    except FloatingPointError:  # it grows beyond all bounds, on the specification too
        return []
    finally:
        threads.SMALL = small


def main(
    cases: Annotated[int, typer.Option(help="How many.")] = 5000,
    seed: Annotated[int, typer.Option(help="Another seed, other cases.")] = 0,
    first: Annotated[int, typer.Option(help="Number of the first case.")] = 0,
    seconds: Annotated[float, typer.Option(help="Stop after so long; go on with --first.")] = 1e9,
) -> None:
    """Hold random models against the specification."""
    start, failed, number = perf_counter(), 0, first
    while number < first + cases and perf_counter() - start < seconds and failed < 25:
        for kind in (Case, GraphCase):
            case = kind(RandomDice(seed, number))
            wrong = run(case)
            if wrong:
                failed += 1
                name = f"--seed {seed} --first {number}"
                print(f"{name}: {case}", *wrong[:4], sep="\n    ", flush=True)
        number += 1
    seconds = perf_counter() - start
    print(
        f"{number - first} stacks and as many graphs from {first} of seed {seed}, {seconds:.0f} s: "
        f"{failed} failed"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
