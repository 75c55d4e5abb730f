"""Error messages are short and ready at once, whatever a value is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from limits import computing
from tiny import net, stripes
from valid_calls import RIGHT

import fastcnn
from fastcnn.core.quoting import MOST, quoted, shortened
from fastcnn.layers import Dense, Flatten, Layer, Residual
from fastcnn.nn import losses, optimizers, schedules
from fastcnn.train import callbacks


class Unspeakable:
    """An object whose ``repr`` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Chatty:
    def __repr__(self) -> str:
        return "chatty " * 1_000_000


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] * 12
    return value


HUGE: dict[str, Any] = {
    "text": "x" * 3_000_000,
    "bytes": b"x" * 3_000_000,
    "list": [1] * 1_000_000,
    "tuple": ("y",) * 300_000,
    "dict": dict.fromkeys(range(300_000), "value"),
    "nested": nested(5),
    "deep": [nested(3)] * 300,
    "integer": 10**5000,
    "negative": -(10**5000),
    "pair": (10**5000, 1),
    "array": np.zeros(1_000_000),
    "unspeakable": Unspeakable(),
    "chatty": Chatty(),
    "layer": Residual([Flatten() for _ in range(5000)]),
}


@pytest.mark.parametrize("name", HUGE)
def test_any_value_is_quoted_shortly_and_at_once(name: str) -> None:
    with computing(seconds=0.5):
        text = quoted(HUGE[name])
    assert 0 < len(text) <= MOST


def test_what_is_short_is_quoted_as_it_is() -> None:
    for value in ("a", 3, -2.5, None, True, [1, "b"], (1, (2, 3)), {"k": [1]}, b"\xff", Dense(3)):
        assert quoted(value) == repr(value)
    assert quoted([Unspeakable()]) == "[an object of Unspeakable]"
    assert shortened("x" * MOST) == "x" * MOST
    assert len(shortened("x" * (MOST + 1))) == MOST


def constructors() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Each constructor with arguments that it takes."""
    right: dict[str, dict[str, Any]] = {
        "Conv2D": {"filters": 2, "kernel_size": 2}, "DepthwiseConv2D": {"kernel_size": 2},
        "Dense": {"units": 2}, "Residual": {"layers": [Dense(3)]}, "Dropout": {"rate": 0.5},
        "ZeroPadding2D": {"padding": 1}, "Constant": {"rate": 1}, "Step": {"rate": 1, "every": 2},
        "Conv2DTranspose": {"filters": 2, "kernel_size": 2}, "Reshape": {"target_shape": (2, 3)},
        "SeparableConv2D": {"filters": 2, "kernel_size": 2}, "Permute": {"dims": (2, 1)},
        "Resize": {"height": 2, "width": 3}, "DepthToSpace": {"block_size": 2},
        "Cosine": {"rate": 1}, "OneCycle": {"rate": 1}, "ModelCheckpoint": {"path": "m"},
        "CSVLog": {"path": "m"}, "LearningRateSchedule": {"schedule": abs},
        "Sequential": {"layers": [Dense(3)]}, "CNNClassifier": {}, "Augment": {},
    }  # fmt: skip
    classes: list[type] = [
        *(c for c in Layer.registry.values() if c.__module__.startswith("fastcnn.")),
        *(c for room in (losses, optimizers, schedules, callbacks) for c in vars(room).values()
          if inspect.isclass(c) and c.__module__ == room.__name__ and c.__name__[0] != "_"
          and not issubclass(c, Exception)),
        fastcnn.Sequential, fastcnn.Augment,
    ]  # fmt: skip
    for one in classes:
        yield one.__name__, one, right.get(one.__name__, {})


CONSTRUCTORS = {name: (make, right) for name, make, right in constructors()}


def is_short(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Whether the value is taken, or refused with a short message."""
    message = ""
    with computing(seconds=5), suppress(OSError):  # of the system, which names the whole path
        try:
            function(**arguments)
        except (ValueError, TypeError, MemoryError) as error:
            message = str(error)
    assert len(message) < 2000, message[:1000]  # several values, and what would do
    assert "integer string conversion" not in message


@pytest.mark.parametrize("value", HUGE)
def test_constructors_refuse_with_short_messages(value: str) -> None:
    for make, right in CONSTRUCTORS.values():
        for name in inspect.signature(make).parameters:
            if name not in ("args", "kwargs", "self"):
                is_short(make, right | {name: HUGE[value]})


@pytest.mark.parametrize("value", HUGE)
def test_functions_refuse_with_short_messages(value: str) -> None:
    for name, right in RIGHT.items():
        function = getattr(fastcnn, name)
        for parameter in inspect.signature(function).parameters:
            if not isinstance(right.get(parameter), np.ndarray):
                is_short(function, right | {parameter: HUGE[value]})


@pytest.mark.parametrize("value", HUGE)
def test_training_refuses_with_short_messages(value: str) -> None:
    x, y = stripes(4)
    model = fastcnn.Sequential(net(), (9, 8))
    right = {"x": x, "y": y, "verbose": 0}
    for name in inspect.signature(model.fit).parameters:
        if name != "epochs":  # so many are taken, one after the other
            is_short(model.fit, right | {name: HUGE[value]})
    for method in (model.predict, model.evaluate, model.train_on_batch, model.save):
        names = inspect.signature(method).parameters
        rest = {name: argument for name, argument in right.items() if name in names}
        for name in names:
            is_short(method, rest | {name: HUGE[value]})
