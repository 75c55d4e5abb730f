"""A node of an ONNX graph, and the table of the functions that compute it with NumPy.

These are types of our own: nothing here needs the ``onnx`` package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from fastcnn.core.quoting import quoted

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
"""An array of any dtype that a file may declare."""
Attribute: TypeAlias = int | float | str | list[int] | list[float] | list[str]
Function: TypeAlias = Callable[..., Array | tuple[Array, ...]]
"""Takes a node and an array for each of its inputs, None for one that is left out; returns the
output, or a tuple of the outputs."""


class OnnxFileError(ValueError):
    """An ONNX file that cannot be read, or that asks for something which fastcnn does not do."""


@dataclass(frozen=True)
class OnnxNode:
    """A call of an ONNX operator.

    Attributes:
        operator: its name, such as "Conv".
        name: the node's own name, perhaps empty.
        inputs: the names of the values that it takes; "" for an input that is left out.
        outputs: the names of the values that it makes; "" for an output that nobody takes.
        attributes: by name, as numbers, text, and lists of these.
        opset: the version of the operators' meaning.
        branches: of an If, the branch for true and the one for false.
    """

    operator: str
    name: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("y",)
    attributes: dict[str, Attribute] = field(default_factory=dict)
    opset: int = 17
    branches: tuple[Branch, ...] = ()

    def __str__(self) -> str:
        label = self.name or (self.outputs[0] if self.outputs else "")
        return f"node {quoted(label)} ({self.operator})"

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise self.wrong(name, "an integer", value)
        return value

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int | float):
            raise self.wrong(name, "a number", value)
        return float(value)

    def text(self, name: str, default: str, choices: Sequence[str] = ()) -> str:
        """An attribute that is text, one of ``choices`` if there are any."""
        value = self.attributes.get(name, default)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self.wrong(name, "one of " + ", ".join(choices) if choices else "text", value)
        return value

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is a list of integers; None if it is not there."""
        value = self.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, int) for one in value):
            raise self.wrong(name, "a list of integers", value)
        return [int(one) for one in value]

    def numbers(self, name: str) -> list[float] | None:
        """An attribute that is a list of numbers; None if it is not there."""
        value = self.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or any(isinstance(one, str) for one in value):
            raise self.wrong(name, "a list of numbers", value)
        return [float(one) for one in value]

    def wrong(self, name: str, needed: str, value: object) -> OnnxFileError:
        """The error for an attribute of a wrong type or value."""
        return OnnxFileError(f"{name} of {self} must be {needed}, got {quoted(value)}")

    def error(self, reason: str) -> OnnxFileError:
        """An error that names the node."""
        return OnnxFileError(f"{self}: {reason}")


@dataclass(frozen=True)
class Branch:
    """The nodes of one branch of an If, whose names differ from all others of the file.

    Attributes:
        arguments: names that stand for the inputs of the If, but for its condition.
        nodes: in an order in which they can run.
        outputs: the names of the values that become the outputs of the If.
    """

    arguments: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    outputs: tuple[str, ...]


def with_branches(nodes: Iterable[OnnxNode]) -> Iterator[OnnxNode]:
    """The nodes, and those of all branches in them."""
    for node in nodes:
        yield node
        for branch in node.branches:
            yield from with_branches(branch.nodes)


def uses_of(nodes: Iterable[OnnxNode]) -> Counter[str]:
    """How often the nodes, and those of their branches, take each value."""
    uses = Counter[str]()
    for node in with_branches(nodes):
        uses.update(node.inputs)
        for branch in node.branches:
            uses.update(branch.outputs)
    return uses


FUNCTIONS: dict[str, Function] = {}
"""The function of each operator."""


def function_of(*operators: str) -> Callable[[Function], Function]:
    """Enter a function into :data:`FUNCTIONS`."""

    def enter(function: Function) -> Function:
        for operator in operators:
            FUNCTIONS[operator] = function
        return function

    return enter


def as_axis(node: OnnxNode, axis: int, rank: int, *, or_end: bool = False) -> int:
    """An axis from 0 on; ``or_end`` allows the place behind the last one too."""
    last = rank if or_end else rank - 1
    result = axis + rank if axis < 0 else axis
    if not 0 <= result <= last:
        raise node.error(f"axis must be from {-rank} to {last}, got {axis}")
    return result


def as_axes(node: OnnxNode, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes from 0 on, each of them once."""
    result = tuple(as_axis(node, int(axis), rank) for axis in axes)
    if len(set(result)) < len(result):
        raise node.error(f"axes must be different, got {quoted(list(axes))}")
    return result


def listed(node: OnnxNode, name: str, array: Array | None) -> list[int] | None:
    """The integers of an input, such as axes; None if it is left out."""
    if array is None:
        return None
    if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > 1024:
        raise node.error(
            f"{name} must be a list of integers, got {array.dtype} of shape {array.shape}"
        )
    return [int(one) for one in array.reshape(-1)]


def summed_to(shape: tuple[int, ...], gradient: Array) -> Array:
    """A gradient summed over the axes along which the input was repeated."""
    extra = gradient.ndim - len(shape)
    axes = (*range(extra), *(i + extra for i, side in enumerate(shape) if side == 1))
    return np.asarray(gradient.sum(axes, keepdims=True)).reshape(shape)
