"""Constants of an ONNX graph folded, and patterns of its nodes joined.

Exporters write some formulas with many nodes: an activation, a layer normalisation, a bias behind a
product of matrices, and numbers for each channel behind a convolution. A pattern is joined where no
other node takes the values between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import isclose, sqrt

import numpy as np

from fastcnn.exchange.onnx_functions import FUNCTIONS, Array, OnnxFileError, OnnxNode
from fastcnn.exchange.onnx_functions.nodes import Attribute, uses_of
from fastcnn.exchange.onnx_reading import OnnxGraph

MOST_FOLDED = 1 << 26
"""Bytes of a result that is folded before shapes are known."""
_CONVOLUTIONS = {"Conv": 0, "ConvTranspose": 1}
"""The axis of the filters that has the output channels; of a ConvTranspose those of a group."""
_OF_IMAGES = {"Conv", "ConvTranspose", "BatchNormalization", "GlobalAveragePool"}
"""Operators whose results have axes, whatever their inputs are."""


def folded(graph: OnnxGraph) -> OnnxGraph:
    """The graph with fewer nodes, which computes the same."""
    work = _Work(graph)
    work.fold_constants()
    for pattern in PATTERNS:
        for key in list(work.nodes):
            if key in work.nodes:
                # A node that lacks an input fits no pattern, and the trace reports it.
                with suppress(IndexError, OnnxFileError):
                    pattern(work, work.nodes[key])
    return work.finished()


class _Work:
    """A graph under change: its nodes by their first outputs, and who takes each value."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph, self.constants = graph, dict(graph.constants)
        self.nodes: dict[str, OnnxNode] = {}
        self.makers: dict[str, OnnxNode] = {}
        self.users: dict[str, list[str]] = defaultdict(list)
        for i, node in enumerate(graph.nodes):
            key = node.outputs[0] or f":{i}"
            self.nodes[key] = node if node.outputs[0] else _named(node, key)
        for node in self.nodes.values():
            self._enter(node)
        self.ends = {one.name for one in graph.outputs}

    def _enter(self, node: OnnxNode) -> None:
        for name in filter(None, node.outputs):
            self.makers[name] = node
        for name in filter(None, node.inputs):
            self.users[name].append(node.outputs[0])

    def fold_constants(self) -> None:
        """Compute the nodes whose inputs are known."""
        for key, node in list(self.nodes.items()):
            if not all(not name or name in self.constants for name in node.inputs):
                continue
            if node.operator in ("Dropout", "If") or not node.inputs:
                continue
            arrays = [self.constants[name] if name else None for name in node.inputs]
            if node.operator in ("ConstantOfShape", "Expand", "Range", "Tile", "Pad", "Resize"):
                continue  # what could be large waits for the trace, which checks sizes
            try:
                with np.errstate(all="ignore"):
                    results = FUNCTIONS[node.operator](node, *arrays)
            except (
                ArithmeticError,
                AttributeError,
                LookupError,
                MemoryError,
                TypeError,
                ValueError,
            ):
                continue  # the trace reports it, with the node
            several = results if isinstance(results, tuple) else (results,)
            if len(several) < len(node.outputs) or sum(one.nbytes for one in several) > MOST_FOLDED:
                continue
            for name, array in zip(node.outputs, several, strict=False):
                if name:
                    self.constants[name] = np.asarray(array)
            self._remove(key)

    def _remove(self, key: str) -> None:
        node = self.nodes.pop(key)
        for name in filter(None, node.inputs):
            self.users[name].remove(key)
        for name in filter(None, node.outputs):
            self.makers.pop(name, None)

    def only_user(self, name: str) -> OnnxNode | None:
        """The only node that takes a value, if the value is no output."""
        users = self.users[name]
        return self.nodes[users[0]] if len(users) == 1 and name not in self.ends else None

    def number(self, name: str) -> float | None:
        """The only number of a constant, in any shape that adds no axis."""
        array = self.constants.get(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def with_number(self, node: OnnxNode | None, operator: str) -> tuple[str, float] | None:
        """The value and the number of a node such as ``Add(x, 3)``, whose number may be first."""
        if node is None or node.operator != operator or len(node.inputs) != 2:
            return None
        a, b = node.inputs
        for value, other in ((a, b), (b, a)):
            number = self.number(other)
            if (
                number is not None
                and self.constants[other].ndim < 2
                and value not in self.constants
            ):
                if operator in ("Div", "Sub", "Pow") and value is b:
                    return None
                return value, number
        return None

    def replace(
        self,
        last: OnnxNode,
        removed: Sequence[OnnxNode],
        operator: str,
        inputs: Sequence[str],
        attributes: dict[str, Attribute],
    ) -> None:
        """Put one node in the place of ``last`` and ``removed``.

        Nothing is replaced if another node takes a result of ``removed``, or the file returns it.
        """
        key = last.outputs[0]
        inside = {key, *(node.outputs[0] for node in removed)}
        for name in (name for node in removed for name in node.outputs):
            if name in self.ends or not inside.issuperset(self.users[name]):
                return
        for node in removed:
            if node.outputs[0] in self.nodes:
                self._remove(node.outputs[0])
        order = list(self.nodes)
        self._remove(key)
        new = OnnxNode(operator, last.name, tuple(inputs), (key,), attributes, last.opset)
        self.nodes = {
            k: new if k == key else self.nodes[k] for k in order if k == key or k in self.nodes
        }
        self._enter(new)

    def pass_over(self, node: OnnxNode, x: str) -> None:
        """Take a node away whose only output is its input ``x``, and no output of the graph."""
        (output,) = node.outputs
        for key in set(self.users[output]):
            user = self.nodes[key]
            inputs = tuple(x if name == output else name for name in user.inputs)
            self.users[x] += [key] * user.inputs.count(output)
            self.nodes[key] = new = replace(user, inputs=inputs)
            self.makers.update((name, new) for name in new.outputs if name)
        self.users[output] = []
        self._remove(output)

    def constant(self, label: str, array: Array) -> str:
        """The name of a new constant."""
        name = label
        while name in self.constants or name in self.makers:
            name += "'"
        self.constants[name] = array
        return name

    def finished(self) -> OnnxGraph:
        """The graph, without the nodes and the constants that nothing takes."""
        needed_values = set(self.ends)
        nodes = []
        for node in reversed(list(self.nodes.values())):
            if needed_values.intersection(node.outputs):
                needed_values.update(uses_of([node]))
                nodes.append(node)
        constants = {name: array for name, array in self.constants.items() if name in needed_values}
        return replace(self.graph, constants=constants, nodes=nodes[::-1])


def _named(node: OnnxNode, key: str) -> OnnxNode:
    return replace(node, outputs=(key, *node.outputs[1:]))


def _near(a: float | None, b: float) -> bool:
    return a is not None and isclose(a, b, rel_tol=2e-4)


def _times_one(work: _Work, node: OnnxNode) -> None:
    """``x * 1`` and ``x / 1``, which exporters write for a factor of an activation."""
    scaled = work.with_number(node, node.operator) if node.operator in ("Mul", "Div") else None
    if scaled is None or scaled[1] != 1 or node.outputs[0] in work.ends:
        return
    factor = next(work.constants[name] for name in node.inputs if name != scaled[0])
    if factor.ndim == 0 or _has_axes(work, scaled[0]):  # otherwise it may add an axis
        work.pass_over(node, scaled[0])


def _has_axes(work: _Work, name: str) -> bool:
    """Whether a value is known not to be a single number without axes."""
    node = work.makers.get(name)
    if node is None:
        return any(one.name == name and bool(one.shape) for one in work.graph.inputs)
    if node.operator in _OF_IMAGES:
        return True
    constants = [work.constants[one] for one in node.inputs if one in work.constants]
    return node.operator in ("Add", "Sub", "Mul", "Div") and any(one.ndim for one in constants)


def _clipped_to_six(work: _Work, node: OnnxNode | None) -> bool:
    """Whether a node clips to numbers from 0 to 6."""
    if node is None or node.operator != "Clip":
        return False
    if node.opset < 11:
        return node.attributes.get("min") == 0 and node.attributes.get("max") == 6
    bounds = [work.number(name) for name in node.inputs[1:]]
    return bounds == [0, 6]


def _hard_sigmoid(work: _Work, node: OnnxNode) -> None:
    """``clip(x + 3, 0, 6) / 6``, and with x times it in between the HardSwish of x."""
    moved = work.with_number(node, "Add")
    clip = work.only_user(node.outputs[0]) if moved is not None else None
    if moved is None or clip is None or moved[1] != 3 or not _clipped_to_six(work, clip):
        return
    x, (after,) = moved[0], [work.only_user(clip.outputs[0])]
    share = _by_six(work, after)
    if after is not None and share is not None:
        attributes: dict[str, Attribute] = {"alpha": 1 / 6, "beta": 0.5}
        work.replace(after, [node, clip], "HardSigmoid", [x], attributes)
        return
    if after is not None and after.operator == "Mul" and x in after.inputs:
        last = work.only_user(after.outputs[0])
        if last is not None and _by_six(work, last) is not None:
            work.replace(last, [node, clip, after], "HardSwish", [x], {})


def _by_six(work: _Work, node: OnnxNode | None) -> str | None:
    """The value that a node divides by 6."""
    quotient, product = work.with_number(node, "Div"), work.with_number(node, "Mul")
    if quotient is not None and quotient[1] == 6:
        return quotient[0]
    return product[0] if product is not None and _near(product[1], 1 / 6) else None


def _gates(work: _Work, node: OnnxNode) -> None:
    """``x * sigmoid(x)`` and ``x * hard_sigmoid(x)``."""
    if node.operator not in ("Sigmoid", "HardSigmoid"):
        return
    product, x = work.only_user(node.outputs[0]), node.inputs[0]
    if (
        product is None
        or product.operator != "Mul"
        or sorted(product.inputs) != sorted((x, node.outputs[0]))
    ):
        return
    if node.operator == "Sigmoid":
        work.replace(product, [node], "Swish", [x], {})
    elif _near(node.number("alpha", 0.2), 1 / 6) and node.number("beta", 0.5) == 0.5:
        work.replace(product, [node], "HardSwish", [x], {})


def _gelu(work: _Work, node: OnnxNode) -> None:
    """``x * (1 + erf(x / √2)) / 2``, whose factors may come in any order."""
    if node.operator != "Erf":
        return
    scaled = work.makers.get(node.inputs[0])
    quotient, product = work.with_number(scaled, "Div"), work.with_number(scaled, "Mul")
    if quotient is not None and _near(quotient[1], sqrt(2)):
        x = quotient[0]
    elif product is not None and _near(product[1], sqrt(0.5)):
        x = product[0]
    else:
        return
    plus = work.only_user(node.outputs[0])
    added = work.with_number(plus, "Add")
    if plus is None or scaled is None or added is None or added[1] != 1:
        return
    gone, last, number, takes_x = [scaled, node, plus], plus, 1.0, False
    while not (takes_x and _near(number, 0.5)):
        after = work.only_user(last.outputs[0])
        if after is None or after.operator not in ("Mul", "Div") or len(gone) > 6:
            return
        factors = [name for name in after.inputs if name != last.outputs[0]]
        if len(factors) != 1:
            return
        factor = work.number(factors[0])
        half = work.makers.get(factors[0])
        inner = work.with_number(half, "Mul")
        if factor is not None and not (after.operator == "Div" and after.inputs[0] == factors[0]):
            number = number / factor if after.operator == "Div" else number * factor
        elif factors[0] == x and after.operator == "Mul":
            takes_x = True
        elif half is not None and inner is not None and inner[0] == x and after.operator == "Mul":
            if work.only_user(factors[0]) is None:
                return
            takes_x, number = True, number * inner[1]
            gone.append(half)
        else:
            return
        gone.append(after)
        last = after
    work.replace(last, gone[:-1], "Gelu", [x], {"approximate": "none"})


def _layer_norm(work: _Work, node: OnnxNode) -> None:
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta`` over one axis."""
    axis = _only_axis(work, node)
    if axis is None or node.operator != "ReduceMean":
        return
    x, users = node.inputs[0], work.users[node.outputs[0]]
    if not users:
        return
    differences = [work.nodes[key] for key in users]
    if any(one.operator != "Sub" or one.inputs != (x, node.outputs[0]) for one in differences):
        return
    quotient, chain = None, list[OnnxNode]()
    for difference in differences:
        for key in work.users[difference.outputs[0]]:
            user = work.nodes[key]
            if user.operator in ("Pow", "Mul"):
                chain = _deviation(work, user, axis)
            elif user.operator == "Div":
                quotient = user
    if quotient is None or not chain or quotient.inputs[1] != chain[-1].outputs[0]:
        return
    if work.only_user(chain[-1].outputs[0]) is None:
        return
    epsilon = work.with_number(chain[2], "Add")
    scale = work.only_user(quotient.outputs[0])
    gamma = _vector(work, scale, "Mul", quotient.outputs[0])
    if epsilon is None or scale is None or gamma is None:
        return
    shift = work.only_user(scale.outputs[0])
    beta = _vector(work, shift, "Add", scale.outputs[0])
    if shift is None or beta is None:
        return
    gone = [node, *differences, *chain, quotient, scale]
    attributes: dict[str, Attribute] = {"axis": axis, "epsilon": epsilon[1], "only": 1}
    work.replace(shift, gone, "LayerNormalization", [x, gamma, beta], attributes)


def _only_axis(work: _Work, node: OnnxNode) -> int | None:
    if node.operator != "ReduceMean" or not node.integer("keepdims", 1):
        return None
    axes = node.integers("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] in work.constants:
        axes = [int(one) for one in work.constants[node.inputs[1]].reshape(-1)]
    return axes[0] if axes is not None and len(axes) == 1 else None


def _deviation(work: _Work, square: OnnxNode, axis: int) -> list[OnnxNode]:
    """The nodes from the square to the root of a variance; none if they are something else."""
    squared = work.with_number(square, "Pow")
    if not (squared is not None and squared[1] == 2) and not (
        square.operator == "Mul" and square.inputs[0] == square.inputs[1]
    ):
        return []
    mean = work.only_user(square.outputs[0])
    if mean is None or _only_axis(work, mean) != axis:
        return []
    plus = work.only_user(mean.outputs[0])
    root = work.only_user(plus.outputs[0]) if plus is not None else None
    if plus is None or root is None or root.operator != "Sqrt":
        return []
    return [square, mean, plus, root]


def _vector(work: _Work, node: OnnxNode | None, operator: str, value: str) -> str | None:
    """The constant vector that a node multiplies or adds to a value."""
    if node is None or node.operator != operator or value not in node.inputs:
        return None
    vectors = [name for name in node.inputs if name != value]
    array = work.constants.get(vectors[0]) if len(vectors) == 1 else None
    return vectors[0] if array is not None and array.ndim == 1 and array.size > 1 else None


def _matmul_bias(work: _Work, node: OnnxNode) -> None:
    """A bias behind a product with a constant matrix."""
    if node.operator != "MatMul" or len(node.inputs) != 2:
        return
    w = work.constants.get(node.inputs[1])
    plus = work.only_user(node.outputs[0])
    if w is None or w.ndim != 2 or plus is None or plus.operator != "Add":
        return
    addends = [name for name in plus.inputs if name != node.outputs[0]]
    bias = work.constants.get(addends[0]) if len(addends) == 1 else None
    if bias is not None and bias.shape == (w.shape[1],) and bias.dtype == w.dtype:
        work.replace(plus, [node], "MatMulBias", [*node.inputs, addends[0]], {})


def _channels(array: Array, rank: int, count: int) -> Array | None:
    """A constant as a number for each channel, axis 1 of ``rank``; None if it is something else."""
    if array.ndim > rank or array.dtype.kind != "f":
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if array.size != 1 and (shape[1] != count or array.size != count):
        return None
    return np.broadcast_to(array.reshape(-1), (count,)).astype(np.float64)


def _scaled_filters(work: _Work, node: OnnxNode) -> None:
    """Numbers for each channel that are multiplied or added behind a convolution or batch norm."""
    while node.operator in (*_CONVOLUTIONS, "BatchNormalization"):
        after = work.only_user(node.outputs[0])
        if after is None or after.operator not in ("Mul", "Add", "Sub", "Div"):
            return
        operands = [name for name in after.inputs if name != node.outputs[0]]
        array = work.constants.get(operands[0]) if len(operands) == 1 else None
        w = work.constants.get(node.inputs[1])
        if (
            array is None
            or w is None
            or (after.operator == "Div" and after.inputs[0] == operands[0])
        ):
            return
        is_norm = node.operator == "BatchNormalization"
        if is_norm and len(node.outputs) > 1:
            return
        rank = max(array.ndim, 2) if is_norm else w.ndim
        oc = w.shape[0]
        if node.operator == "ConvTranspose":
            oc = w.shape[1] * node.integer("group", 1)
        numbers = _channels(array, rank, oc)
        if numbers is None or (is_norm and array.ndim not in (0, 4) and array.size > 1):
            return
        scale, shift = np.ones(oc), np.zeros(oc)
        if after.operator == "Mul":
            scale = numbers
        elif after.operator == "Div":
            scale = 1 / numbers if np.all(numbers) else np.full(oc, np.nan)
        elif after.operator == "Add":
            shift = numbers
        elif after.inputs[0] == node.outputs[0]:
            shift = -numbers
        else:
            scale, shift = -scale, numbers
        inputs = _with_scale(work, node, w, scale, shift)
        if inputs is None:
            return
        work.replace(after, [node], node.operator, inputs, node.attributes)
        node = work.nodes[after.outputs[0]]


def _with_scale(
    work: _Work, node: OnnxNode, w: Array, scale: Array, shift: Array
) -> list[str] | None:
    """The inputs of a node whose output is scaled and moved."""
    if node.operator == "BatchNormalization":
        bias = work.constants.get(node.inputs[2])
        if bias is None or bias.shape != w.shape:
            return None
        new, moved = w * scale, bias * scale + shift
        statistics = list(node.inputs[3:])
    else:
        name = node.inputs[2] if len(node.inputs) > 2 else ""
        bias = work.constants.get(name) if name else np.zeros(len(scale), w.dtype)
        if bias is None or bias.shape != scale.shape:
            return None
        if node.operator == "Conv":
            new = w * scale.reshape(-1, *[1] * (w.ndim - 1))
        else:
            groups = node.integer("group", 1)
            parts = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
            new = (parts * scale.reshape(groups, 1, -1, *[1] * (w.ndim - 2))).reshape(w.shape)
        moved, statistics = bias * scale + shift, []
    if not (np.isfinite(new).all() and np.isfinite(moved).all()):
        return None
    label = node.outputs[0]
    names = [
        work.constant(f"{label}:w", new.astype(w.dtype)),
        work.constant(f"{label}:b", moved.astype(w.dtype)),
    ]
    return [node.inputs[0], *names, *statistics]


def _scale_and_shift(work: _Work, node: OnnxNode) -> None:
    """A number that is multiplied and one that is added, in one node."""
    product = work.with_number(node, "Mul")
    after = work.only_user(node.outputs[0])
    total = work.with_number(after, "Add")
    if product is None or after is None or total is None:
        return
    factor = next(name for name in node.inputs if name != product[0])
    offset = next(name for name in after.inputs if name != node.outputs[0])
    if work.constants[factor].dtype == np.float32 and work.constants[offset].dtype == np.float32:
        work.replace(after, [node], "ScaleShift", [product[0], factor, offset], {})


def _padded(work: _Work, node: OnnxNode) -> None:
    """Zeros around images before a convolution, as its padding."""
    if node.operator != "Pad" or node.text("mode", "constant") != "constant":
        return
    after = work.only_user(node.outputs[0])
    if after is None or after.operator != "Conv" or after.inputs[0] != node.outputs[0]:
        return
    if after.text("auto_pad", "NOTSET") != "NOTSET" or len(node.inputs) > 3:
        return
    pads = node.integers("pads")
    if node.opset >= 11:
        array = work.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        pads = None if array is None else [int(one) for one in array.reshape(-1)]
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    value = node.number("value", 0.0) if node.opset < 11 else work.number(name) if name else 0.0
    if pads is None or value != 0 or len(pads) < 6 or len(pads) % 2 or min(pads) < 0:
        return
    rank = len(pads) // 2
    if any(pads[:2]) or any(pads[rank : rank + 2]):
        return
    outside = pads[2:rank] + pads[rank + 2 :]
    inside = after.integers("pads") or [0] * len(outside)
    if len(inside) != len(outside):
        return
    attributes = {**after.attributes, "pads": [a + b for a, b in zip(inside, outside, strict=True)]}
    work.replace(after, [node], "Conv", [node.inputs[0], *after.inputs[1:]], attributes)


PATTERNS: tuple[Callable[[_Work, OnnxNode], None], ...] = (
    _times_one, _hard_sigmoid, _gates, _gelu, _layer_norm, _matmul_bias, _scaled_filters,
    _scale_and_shift, _padded,
)  # fmt: skip
"""What is joined, one pattern after the other over all nodes."""
