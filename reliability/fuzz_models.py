"""Random models: predictions and a training against the same model on the specification.

    python reliability/fuzz_models.py --cases 5000        some minutes
    python reliability/fuzz_models.py --seed 3 --first 47 --cases 1      one case again

A case is a stack of layers with any parameters that fit, drawn from its number and the seed alone,
and a few samples. However the model is run (layer by layer, or compiled as a whole), its
predictions, its losses and its weights after two steps must be those of the specification: to the
last bit where all numbers are small integers, else within rounding. Predictions must also have the
same bits for other sizes of the batch, one thread and several threads at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from fuzz_calls import Dice, RandomDice

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import threads
from fastcnn.layers import (
    ELU,
    GELU,
    LRN,
    AvgPool2D,
    BatchNorm,
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
    MaxPool2D,
    MinPool2D,
    Permute,
    PReLU,
    ReLU,
    Residual,
    Resize,
    SeparableConv2D,
    Sigmoid,
    Softmax,
    Softplus,
    Swish,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.losses import MeanSquaredError
from fastcnn.models.sequential import Sequential
from fastcnn.nn.layers import infer_stack, layer_from_dict, to_dict
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
        self.x = np.asarray(draw((count, *self.shape)), self.dtype)
        self.y = np.asarray(draw((count, outputs)), self.dtype)
        self.weights = [
            np.asarray(draw(array.shape), self.dtype) if self.exact else array
            for array in self.model("naive").get_weights()
        ]

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
                 DepthToSpace(dice.integer(1, 2), dice.choice(["DCR", "CRD"])), Permute((3, 1, 2))]
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

    def model(self, engine: str | None) -> Sequential:
        """The model, new, on an engine; with the same weights each time."""
        layers = [layer_from_dict(one) for one in self.layers]
        model = Sequential(layers, self.shape, seed=5, dtype=self.dtype, engine=engine)
        model.loss = MeanSquaredError()  # predictions are the outputs as they are
        if hasattr(self, "weights"):
            model.set_weights(self.weights)
        return model

    def __str__(self) -> str:
        return f"{self.model('naive')!r} on {self.x.shape} {self.dtype}, exact: {self.exact}"


def complaints(case: Case) -> Iterator[str]:
    """What is wrong with the model as it is run by default and on each engine."""
    reference = case.model("naive")
    wanted = reference.predict(case.x)
    losses = [_step(reference, case) for _ in range(2)]
    after = reference.get_weights()
    for engine in (None, *fastcnn.engines()[:-1]):
        model = case.model(engine)
        found = model.predict(case.x)
        yield from _compared(f"{engine}: the predictions", [found], [wanted], case)
        ones = [model.predict(case.x[k : k + 1]) for k in range(len(case.x))]
        if engine != "im2col" and np.concatenate(ones).tobytes() != found.tobytes():
            yield f"{engine}: one sample by itself has other bits"
        with ThreadPoolExecutor(3) as pool:
            many = list(pool.map(lambda _, m=model: m.predict(case.x).tobytes(), range(3)))
        if many != [found.tobytes()] * 3:
            yield f"{engine}: several threads give other bits"
        told = [_step(model, case) for _ in range(2)]
        yield from _compared(f"{engine}: the losses", [np.array(told)], [np.array(losses)], case)
        yield from _compared(f"{engine}: the weights", model.get_weights(), after, case)


def _step(model: Sequential, case: Case) -> float:
    # The outputs' count and the batch are powers of two, and so is the rate: integers stay exact.
    return model.train_on_batch(case.x, case.y, SGD(2.0**-6), MeanSquaredError())[0]


def _compared(what: str, found: list[Array], wanted: list[Array], case: Case) -> Iterator[str]:
    # After a first step numbers are no integers any more, but have few digits yet.
    for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if case.exact and what.endswith("predictions"):
            if not np.array_equal(a, b):
                yield f"{what} {place} are not the same to the last bit"
            continue
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        if a.shape != b.shape or not (np.abs(a - b) <= TOLERANCE[case.dtype] * scale).all():
            yield f"{what} {place} differ by {np.abs(a - b).max()} of {scale}"


def run(case: Case) -> list[str]:
    """The complaints about one case, on threads even where it is small."""
    fastcnn.set_num_threads(2)
    threads.SMALL, small = 1, threads.SMALL
    try:
        return list(complaints(case))
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
        case = Case(RandomDice(seed, number))
        wrong = run(case)
        if wrong:
            failed += 1
            print(f"--seed {seed} --first {number}: {case}", *wrong[:4], sep="\n    ", flush=True)
        number += 1
    seconds = perf_counter() - start
    print(f"{number - first} models from {first} of seed {seed}, {seconds:.0f} s: {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
