"""Objects of a user's own that misbehave, between layers whose arrays are guarded.

``guarded.py`` runs this after the nets. Arrays that the compiled layers before and behind a user's
layer make lie against inaccessible pages, and so do the user's results, where they are arrays. What
the user's object returns is then taken as it should be, or refused: a kernel that reads or writes
by a result of another shape or dtype would end the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from unittest.mock import patch

import numpy as np
from guarded import Border, guarded, guarded_copy
from misbehaving import CHANGES, RIGHT, Descent, Distance, Scale

from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import arrays as seam
from fastcnn.layers import Conv2D, Dense, Flatten, Layer, MaxPool2D, Residual

SHAPE = (5, 6, 3)
BORDERS: tuple[Border, ...] = ("first", "last")
REFUSED = TypeError, ValueError, FloatingPointError


def layers(one: Layer) -> Iterator[list[Layer]]:
    """A user's layer before, between and behind layers that are compiled together, and in one."""
    yield [one, Conv2D(4, (2, 3), activation="relu"), MaxPool2D(), Flatten(), Dense(3)]
    yield [Conv2D(4, 2, activation="relu"), one, Conv2D(3, 2), Flatten(), Dense(3)]
    yield [Conv2D(3, 2), Residual([one, Conv2D(3, 1)], activation="relu"), Flatten(), Dense(3)]
    yield [Conv2D(3, 2), Flatten(), one, Dense(3)]
    yield [Conv2D(3, 2), Flatten(), Dense(3), one]


def run_user_code(dtypes: tuple[str, ...], share: int = 1) -> int:
    """Each object in each place with one of ``share`` results; how many calls were made."""
    count = 0
    for dtype in dtypes:
        rng = np.random.default_rng(0)
        x = rng.integers(-2, 3, (7, *SHAPE)).astype(dtype)
        y = rng.integers(-2, 3, (7, 3)).astype(dtype)
        for border in BORDERS:
            guarded_data = guarded_copy(x, border), guarded_copy(y, border)
            with (
                patch.object(seam, "allocate", lambda s, d, b=border: guarded(s, d, b)),
                patch.dict(CHANGES, {k: _fenced(v, border) for k, v in CHANGES.items()}),
            ):
                for change in islice(CHANGES, 0, None, share):
                    print(f"{change} of a user's object, {dtype}, {border}", flush=True)
                    for call in _calls(change, dtype):
                        refused = _refused(call, guarded_data)
                        assert not (refused and change in RIGHT), f"{change}: {refused}"
                        count += 1
    return count


def _fenced(change: Callable[[Array], Any], border: Border) -> Callable[[Array], Any]:
    """The change, with its result between inaccessible pages where it is an array."""

    def changed(array: Array) -> Any:
        result = change(array)
        plain = isinstance(result, np.ndarray) and result.dtype.kind in "fiubc"
        if not (plain and result.flags.c_contiguous and result.dtype.itemsize <= 8):
            return result
        fenced = guarded(result.shape, result.dtype, border)
        fenced[...] = result
        return fenced

    return changed


Call = Callable[[Array, Array], object]


def _calls(change: str, dtype: Any) -> Iterator[Call]:
    def model(stack: list[Layer], loss: Distance) -> Sequential:
        built = Sequential(stack, SHAPE, seed=0, dtype=dtype)
        built.loss = loss
        return built

    def trained(one: Sequential, **more: Any) -> Call:
        return lambda x, y: one.train_on_batch(x, y, **more)

    def asked(one: Sequential) -> Call:
        return lambda x, y: one.predict(x)

    for method in ("output", "dx", "dw"):
        for stack in layers(Scale(method, change)):
            yield trained(model(stack, Distance()))
            yield asked(model(stack, Distance()))
    stack = next(layers(Scale()))
    for method in ("targets", "values", "gradient", "predictions"):
        yield trained(model(stack, Distance(method, change)))
        yield asked(model(stack, Distance(method, change)))
    yield trained(model(stack, Distance()), optimizer=Descent(0.1, change))
    augmented = model(stack, Distance())
    yield lambda x, y: augmented.fit(
        x, y, batch_size=3, augment=lambda images, rng: CHANGES[change](images), verbose=0
    )


def _refused(call: Callable[[Array, Array], object], given: tuple[Array, Array]) -> str:
    """What the error says, if there is one."""
    try:
        with np.errstate(all="ignore"):
            call(*given)
    except REFUSED as error:
        return str(error) or "an error without a message"
    return ""
