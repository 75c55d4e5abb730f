"""What a model with several inputs knows of the samples of its training: a record for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fastcnn.core.json_arrays import JsonObject
from fastcnn.data.pixel_scaling import CENTRED, Scaling
from fastcnn.data.scaling import Kind, KnownSamples, known_from
from fastcnn.data.several import Several


class Knowledge(Protocol):
    """What a model knows of the samples of its training: a record, or one for each input.

    The methods are those of :class:`KnownSamples`. ``data`` is an array of samples, or a
    :class:`Several` where there are several inputs.
    """

    scaling: Scaling

    @property
    def kind(self) -> Kind | tuple[Kind | None, ...] | None: ...

    def glance(self, name: str, data: Any, least: int = ..., /, *, closer: bool = ...) -> None: ...

    def check(self, name: str, data: Any, /) -> None: ...

    def check_training(self, name: str, data: Any, normalised: bool = ..., /) -> None: ...

    def learn(self, data: Any, /) -> None: ...

    def is_routine(self, data: Any, /) -> bool: ...

    def learn_batch(self, data: Any, normalises: Callable[[], bool], /) -> None: ...

    def warn_once(self, rule: str, message: str) -> None: ...

    def is_known(self, rule: str) -> None: ...

    def as_dict(self) -> object: ...


class KnownInputs:
    """A :class:`KnownSamples` for each input, with the same methods.

    Attributes:
        of_each: one for each input.
    """

    def __init__(self, of_each: list[KnownSamples]) -> None:
        self.of_each = of_each

    @property
    def kind(self) -> tuple[Kind | None, ...]:
        """For each input "uint8", "floats", or None before a training."""
        return tuple(one.kind for one in self.of_each)

    @property
    def scaling(self) -> Scaling:
        """Of bytes, which is the same for all inputs."""
        return self.of_each[0].scaling

    @scaling.setter
    def scaling(self, value: Scaling) -> None:
        for one in self.of_each:
            one.scaling = value

    def glance(self, name: str, data: Several, *_: object, **more: bool) -> None:
        """:meth:`KnownSamples.glance` of each input."""
        for i, (one, part) in enumerate(zip(self.of_each, data.parts, strict=True)):
            one.glance(f"{name}[{i}]", part, **more)

    def check(self, name: str, data: Several) -> None:
        """:meth:`KnownSamples.check` of each input."""
        for i, (one, part) in enumerate(zip(self.of_each, data.parts, strict=True)):
            one.check(f"{name}[{i}]", part)

    def check_training(self, name: str, data: Several, normalised: bool = False) -> None:
        """:meth:`KnownSamples.check_training` of each input."""
        for i, (one, part) in enumerate(zip(self.of_each, data.parts, strict=True)):
            one.check_training(f"{name}[{i}]", part, normalised)

    def learn(self, data: Several) -> None:
        """:meth:`KnownSamples.learn` of each input."""
        for one, part in zip(self.of_each, data.parts, strict=True):
            one.learn(part)

    def is_routine(self, data: Several) -> bool:
        """False, because steps of several inputs are examined each time."""
        return False

    def learn_batch(self, data: Several, normalises: Callable[[], bool]) -> None:
        """:meth:`KnownSamples.learn_batch` of each input."""
        for one, part in zip(self.of_each, data.parts, strict=True):
            one.learn_batch(part, normalises)

    def warn_once(self, rule: str, message: str) -> None:
        """Warn, unless this rule has warned before."""
        self.of_each[0].warn_once(rule, message)

    def is_known(self, rule: str) -> None:
        """Never warn by this rule."""
        self.of_each[0].is_known(rule)

    def as_dict(self) -> list[JsonObject | None]:
        """The records as JSON values."""
        return [one.as_dict() for one in self.of_each]


def knowledge(inputs: int) -> Knowledge:
    """The knowledge of a new model with so many inputs."""
    if inputs == 1:
        return KnownSamples()
    return KnownInputs([KnownSamples() for _ in range(inputs)])


def knowledge_from(kind: Any, record: Any, inputs: int, scaling: Scaling = CENTRED) -> Knowledge:
    """The knowledge from a model file; ``ValueError`` for impossible values."""
    if inputs == 1:
        return known_from(kind, record, scaling)
    kinds, records = ([None] * inputs if one is None else one for one in (kind, record))
    if not all(isinstance(one, list | tuple) and len(one) == inputs for one in (kinds, records)):
        raise ValueError(f"the samples of {inputs} inputs must be known for each, got {kind!r}")
    return KnownInputs(
        [known_from(one, of_one, scaling) for one, of_one in zip(kinds, records, strict=True)]
    )
