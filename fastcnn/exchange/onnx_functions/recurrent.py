"""ONNX's recurrent operators: RNN, GRU and LSTM.

Sizes: T steps, N samples, I inputs, H units, D directions, G gates. The gates' rows of ``w``
(G * H, I) and ``r`` (G * H, H) lie in the order that ONNX gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastcnn.exchange.onnx_functions.nodes import Array, OnnxNode, function_of

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_FORMULAS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: np.asarray(0.5 * (1 + np.tanh(0.5 * x))),
    "tanh": lambda x: np.asarray(np.tanh(x)),
    "relu": lambda x: np.asarray(np.maximum(x, 0)),
}


@dataclass(frozen=True)
class _Direction:
    """The weights of one direction, and the formulas of its gates."""

    node: OnnxNode
    units: int
    r: Array
    bias: Array
    peepholes: Array
    formulas: list[Callable[[Array], Array]]

    def part(self, array: Array, gate: int) -> Array:
        """The part of a gate, along the last axis."""
        return array[..., gate * self.units : (gate + 1) * self.units]

    def limited(self, x: Array) -> Array:
        """The input of a formula, within the node's bounds."""
        bound = self.node.number("clip", 0.0)
        return np.asarray(x.clip(-bound, bound)) if bound > 0 else x

    def rnn(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """The next state, from the product of a step's input with the weights (N, H)."""
        return self.formulas[0](self.limited(x + h @ self.r.T + self.bias)), c

    def gru(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """The next state, from the product of a step's input with the weights (N, 3 * H)."""
        f, g = self.formulas[:2]
        inner = h @ self.r[: 2 * self.units].T + self.bias[: 2 * self.units]
        both = f(self.limited(x[:, : 2 * self.units] + inner))
        z, reset = self.part(both, 0), self.part(both, 1)
        r, b = self.r[2 * self.units :].T, self.bias[2 * self.units :]
        inner = reset * (h @ r + b) if self._resets_late else (reset * h) @ r + b
        new = g(self.limited(self.part(x, 2) + inner))
        return (1 - z) * new + z * h, c

    @property
    def _resets_late(self) -> bool:
        return bool(self.node.integer("linear_before_reset", 0))

    def lstm(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """The next state and cell, from the product of a step's input with the weights."""
        f, g, last = self.formulas
        x, p = x + h @ self.r.T + self.bias, self.peepholes
        enter = f(self.limited(self.part(x, 0) + self.part(p, 0) * c))
        forget = f(self.limited(self.part(x, 2) + self.part(p, 2) * c))
        if self.node.integer("input_forget", 0):
            forget = 1 - enter
        c = forget * c + enter * g(self.limited(self.part(x, 3)))
        leave = f(self.limited(self.part(x, 1) + self.part(p, 1) * c))
        return leave * last(c), c


@function_of("RNN", "GRU", "LSTM")
def recurrent(
    node: OnnxNode,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    peepholes: Array | None = None,
) -> tuple[Array, ...]:
    """The states of all steps (T, D, N, H), the last ones (D, N, H), and the last cells.

    ``x`` is (T, N, I), ``w`` (D, G * H, I), ``r`` (D, G * H, H), ``b`` (D, 2 * G * H), ``lengths``
    (N,), ``h`` and ``c`` (D, N, H) or (D, 1, H), ``peepholes`` (D, 3 * H). With ``layout=1`` the
    batch is the first axis of ``x``, of ``h``, of ``c`` and of the results.
    """
    gates, first = GATES[node.operator], bool(node.integer("layout", 0))
    if first:
        x = x.swapaxes(0, 1) if x.ndim == 3 else x
        h, c = (None if one is None else one.swapaxes(0, 1) for one in (h, c))
    directions = _directions(node)
    if x.ndim != 3 or w.ndim != 3 or r.ndim != 3:
        raise node.error(f"x, w and r must have three axes, got {x.shape}, {w.shape}, {r.shape}")
    (steps, n, size), d, units = x.shape, len(directions), r.shape[-1]
    kind = x.dtype
    bias = np.zeros((d, 2 * gates * units), kind) if b is None else b
    edges = np.zeros((d, 3 * units), kind) if peepholes is None else peepholes
    start = [np.zeros((d, n, units), kind) if one is None else one for one in (h, c)]
    needed = [(w, (d, gates * units, size)), (r, (d, gates * units, units)),
              (bias, (d, 2 * gates * units)), (edges, (d, 3 * units))]  # fmt: skip
    needed += [(one, (d, n if one.shape[1:2] != (1,) else 1, units)) for one in start]
    for array, shape in needed:
        if array.shape != shape:
            raise node.error(f"an input must have the shape {shape}, got {array.shape}")
    if lengths is not None and (
        lengths.shape != (n,) or lengths.dtype.kind not in "iu" or (lengths > steps).any()
    ):
        raise node.error(f"sequence_lens must be {n} integers up to {steps}")
    states = np.zeros((steps, d, n, units), kind)
    ends = np.zeros((2, d, n, units), kind)
    for i, backwards in enumerate(directions):
        own, rest = bias[i, : gates * units], bias[i, gates * units :]
        formulas = _formulas(node, i)
        one = _Direction(node, units, r[i], rest, edges[i], formulas)
        inputs = x @ w[i].T + own
        state = (
            np.array(np.broadcast_to(start[0][i], (n, units))),
            np.array(np.broadcast_to(start[1][i], (n, units))),
        )
        step = {"RNN": one.rnn, "GRU": one.gru, "LSTM": one.lstm}[node.operator]
        for t in reversed(range(steps)) if backwards else range(steps):
            new = step(inputs[t], *state)
            if lengths is None:
                state = new
                states[t, i] = new[0]
            else:
                runs = (t < lengths)[:, None]
                state = np.where(runs, new[0], state[0]), np.where(runs, new[1], state[1])
                states[t, i] = np.where(runs, new[0], 0)
        ends[0, i], ends[1, i] = state
    if first:
        states, ends = states.transpose(2, 0, 1, 3), ends.swapaxes(1, 2)
    results = states, ends[0], ends[1]
    return results if node.operator == "LSTM" else results[:2]


def _directions(node: OnnxNode) -> list[bool]:
    """For each direction whether it goes backwards."""
    choices = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    return choices[node.text("direction", "forward", tuple(choices))]


def _formulas(node: OnnxNode, direction: int) -> list[Callable[[Array], Array]]:
    """The formulas of one direction's gates."""
    defaults = _DEFAULTS[node.operator]
    names = node.attributes.get("activations") or list(defaults) * len(_directions(node))
    if not isinstance(names, list) or len(names) != len(defaults) * len(_directions(node)):
        raise node.wrong("activations", f"{len(defaults)} names for each direction", names)
    chosen = [str(one).lower() for one in names[direction * len(defaults) :][: len(defaults)]]
    for name in chosen:
        if name not in _FORMULAS:
            raise node.wrong("activations", "Sigmoid, Tanh or Relu", names)
    return [_FORMULAS[name] for name in chosen]
