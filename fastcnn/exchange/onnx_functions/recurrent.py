"""ONNX's recurrent operators: RNN, GRU and LSTM, and their gradients.

Sizes: T steps, N samples, I inputs, H units, D directions, G gates. The gates' rows of ``w``
(G * H, I) and ``r`` (G * H, H) lie in the order that ONNX gives them.

Source of the gradients: P. Werbos, "Backpropagation through time", 1990. A step's gates are
computed again on the way back, from the states before it, which are all that the way forward keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastcnn.exchange.onnx_functions.nodes import Array, OnnxNode, function_of, summed_to

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


class _Formula(NamedTuple):
    """An activation: its value for an input, and its slope for a value."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


_FORMULAS = {
    "sigmoid": _Formula(lambda x: 0.5 * np.tanh(0.5 * x) + 0.5, lambda y: y * (1 - y)),
    "tanh": _Formula(np.tanh, lambda y: 1 - y * y),
    "relu": _Formula(lambda x: np.maximum(x, 0), lambda y: y > 0),
}


class _Sums(NamedTuple):
    """Sums over the steps of one direction: the gradients of what all steps use."""

    r: Array
    bias: Array
    peepholes: Array


State = tuple[Array, Array]
"""The state and the cell of all samples, (N, H) each; only an LSTM uses the cell."""


@dataclass(frozen=True)
class _Direction:
    """The weights of one direction, and the formulas of its gates.

    A step takes the product of its input with the weights, ``x`` (N, G * H), and a state. The
    gradient of a step takes these and the gradient of the next state. It returns the gradients of
    ``x`` and of the state, and adds to the sums.
    """

    node: OnnxNode
    units: int
    r: Array
    bias: Array
    peepholes: Array
    formulas: list[_Formula]

    @cached_property
    def bound(self) -> float:
        """The largest input of a formula, or 0 where the node sets none."""
        return self.node.number("clip", 0.0)

    @cached_property
    def has_peepholes(self) -> bool:
        """Whether gates of an LSTM see the cell."""
        return bool(self.peepholes.any())

    def part(self, array: Array, gate: int) -> Array:
        """The part of a gate, along the last axis."""
        return array[..., gate * self.units : (gate + 1) * self.units]

    def gate(self, formula: int, x: Array) -> Array:
        """The value of a formula, whose input stays within the node's bounds."""
        bound = self.bound
        return self.formulas[formula].value(x.clip(-bound, bound) if bound > 0 else x)

    def slope(self, formula: int, x: Array, y: Array) -> Array:
        """The slope of :meth:`gate` for an input and its value."""
        bound, slope = self.bound, self.formulas[formula].slope(y)
        return np.asarray(slope * (np.abs(x) <= bound) if bound > 0 else slope)

    def step(self, x: Array, state: State) -> State:
        """The next state."""
        return {"RNN": self.rnn, "GRU": self.gru, "LSTM": self.lstm}[self.node.operator](x, *state)

    def step_back(self, x: Array, state: State, d_next: State, sums: _Sums) -> tuple[Array, State]:
        """The gradients of ``x`` and of the state from that of the next state."""
        backward = {"RNN": self.rnn_back, "GRU": self.gru_back, "LSTM": self.lstm_back}
        return backward[self.node.operator](x, state, d_next, sums)

    def rnn(self, x: Array, h: Array, c: Array) -> State:
        return self.gate(0, x + h @ self.r.T + self.bias), c

    def rnn_back(self, x: Array, state: State, d_next: State, sums: _Sums) -> tuple[Array, State]:
        h, _ = state
        inner = x + h @ self.r.T + self.bias
        dx = d_next[0] * self.slope(0, inner, self.gate(0, inner))
        return dx, (self._through_products(dx, h, sums), d_next[1])

    def _gru_gates(self, x: Array, h: Array) -> tuple[Array, Array, Array, Array]:
        """The inputs and values of the two gates, and the input and value of the new state."""
        both = 2 * self.units
        inner = x[:, :both] + h @ self.r[:both].T + self.bias[:both]
        gates = self.gate(0, inner)
        reset, r, b = self.part(gates, 1), self.r[both:].T, self.bias[both:]
        new = self.part(x, 2) + (reset * (h @ r + b) if self._resets_late else (reset * h) @ r + b)
        return inner, gates, new, self.gate(1, new)

    def gru(self, x: Array, h: Array, c: Array) -> State:
        _, gates, _, new = self._gru_gates(x, h)
        z = self.part(gates, 0)
        return (1 - z) * new + z * h, c

    def gru_back(self, x: Array, state: State, d_next: State, sums: _Sums) -> tuple[Array, State]:
        (h, _), (dy, dc), both = state, d_next, 2 * self.units
        inner, gates, inner_new, new = self._gru_gates(x, h)
        z, reset, r = self.part(gates, 0), self.part(gates, 1), self.r[both:]
        d_new = dy * (1 - z) * self.slope(1, inner_new, new)
        if self._resets_late:
            d_reset, d_product, factor = d_new * (h @ r.T + self.bias[both:]), d_new * reset, h
            dh = d_product @ r
        else:
            d_product, factor = d_new, reset * h
            d_reset, dh = (d_new @ r) * h, (d_new @ r) * reset
        sums.r[both:] += d_product.T @ factor
        sums.bias[both:] += d_product.sum(0)
        d_gates = np.concatenate([dy * (h - new), d_reset], 1) * self.slope(0, inner, gates)
        sums.r[:both] += d_gates.T @ h
        sums.bias[:both] += d_gates.sum(0)
        dh = dh + dy * z + d_gates @ self.r[:both]
        return np.concatenate([d_gates, d_new], 1), (dh, dc)

    @property
    def _resets_late(self) -> bool:
        return bool(self.node.integer("linear_before_reset", 0))

    def _lstm_gates(self, x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """The inputs and the values of the gates side by side, (N, 4 * H) each, and the next cell.

        The gates are those that let in, let out and keep, and the new cell.
        """
        inner, gates, p = x + h @ self.r.T + self.bias, np.empty_like(x), self.peepholes
        if self.has_peepholes:
            for gate in (0, 2):
                self.part(inner, gate)[...] += self.part(p, gate) * c
        old = 3 * self.units  # the first three gates have one formula
        gates[:, :old] = self.gate(0, inner[:, :old])
        gates[:, old:] = self.gate(1, inner[:, old:])
        enter = self.part(gates, 0)
        if self._shares_gate:
            self.part(gates, 2)[...] = 1 - enter
        c = self.part(gates, 2) * c + enter * gates[:, old:]
        if self.has_peepholes:  # the gate that lets out sees the next cell
            self.part(inner, 1)[...] += self.part(p, 1) * c
            self.part(gates, 1)[...] = self.gate(0, self.part(inner, 1))
        return inner, gates, c

    @property
    def _shares_gate(self) -> bool:
        return bool(self.node.integer("input_forget", 0))

    def lstm(self, x: Array, h: Array, c: Array) -> State:
        _, gates, c = self._lstm_gates(x, h, c)
        return self.part(gates, 1) * self.formulas[2].value(c), c

    def lstm_back(self, x: Array, state: State, d_next: State, sums: _Sums) -> tuple[Array, State]:
        (h, c), (dy, dc), p = state, d_next, self.peepholes
        inputs, values, c_next = self._lstm_gates(x, h, c)
        inner, (enter, leave, keep, new) = (
            [self.part(one, gate) for gate in range(4)] for one in (inputs, values)
        )
        shown = self.formulas[2].value(c_next)
        d_leave = dy * shown * self.slope(0, inner[1], leave)
        dc = dc + dy * leave * self.formulas[2].slope(shown) + d_leave * self.part(p, 1)
        d_enter, d_keep = dc * new, dc * c
        if self._shares_gate:
            d_enter, d_keep = d_enter - d_keep, np.zeros_like(d_keep)
        d_enter = d_enter * self.slope(0, inner[0], enter)
        d_keep = d_keep * self.slope(0, inner[2], keep)
        dx = np.concatenate(
            [d_enter, d_leave, d_keep, dc * enter * self.slope(1, inner[3], new)], 1
        )
        for gate, gradient, cell in ((0, d_enter, c), (1, d_leave, c_next), (2, d_keep, c)):
            self.part(sums.peepholes, gate)[...] += (gradient * cell).sum(0)
        dc = dc * keep + d_enter * self.part(p, 0) + d_keep * self.part(p, 2)
        return dx, (self._through_products(dx, h, sums), dc)

    def _through_products(self, dx: Array, h: Array, sums: _Sums) -> Array:
        """The gradient of ``h`` behind ``h @ r.T + bias``."""
        sums.r[...] += dx.T @ h
        sums.bias[...] += dx.sum(0)
        return np.asarray(dx @ self.r)


@dataclass(frozen=True)
class _Recurrence:
    """A call of an operator with checked inputs, the steps as their first axis.

    Attributes:
        x: (T, N, I).
        w, r, bias, peepholes: of each direction; zeros where the call leaves them out.
        start: the states and the cells before the first step, (D, N, H) each.
        lengths: (N, 1), the steps of each sample; None where they are all.
        directions: for each direction whether it goes backwards.
    """

    node: OnnxNode
    x: Array
    w: Array
    r: Array
    bias: Array
    peepholes: Array
    start: State
    lengths: Array | None
    directions: list[bool]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the states of all steps, (T, D, N, H)."""
        return len(self.x), len(self.directions), self.x.shape[1], self.r.shape[-1]

    def parts(self) -> Iterator[tuple[int, _Direction, Array, Sequence[int]]]:
        """Each direction with its number, its products of inputs and weights, and its steps."""
        rows = self.w.shape[1]
        for i, backwards in enumerate(self.directions):
            one = _Direction(
                self.node, self.r.shape[-1], self.r[i], self.bias[i, rows:], self.peepholes[i],
                _formulas(self.node, i),
            )  # fmt: skip
            # One product for all steps reads the weights once.
            products = self.x.reshape(-1, self.x.shape[2]) @ self.w[i].T + self.bias[i, :rows]
            of_steps, steps = products.reshape(*self.x.shape[:2], rows), range(len(self.x))
            yield i, one, of_steps, steps[::-1] if backwards else steps

    def runs(self, t: int) -> Array:
        """(N, 1): whether each sample has step ``t``."""
        return np.ones((self.x.shape[1], 1), bool) if self.lengths is None else t < self.lengths

    def states(self, i: int, one: _Direction, x: Array, steps: Sequence[int]) -> list[State]:
        """The states before each step of a direction, and after the last."""
        result = [(self.start[0][i], self.start[1][i])]
        for t in steps:
            h, c = result[-1]
            new_h, new_c = one.step(x[t], (h, c))
            if self.lengths is not None:
                runs = self.runs(t)
                new_h, new_c = np.where(runs, new_h, h), np.where(runs, new_c, c)
            result.append((new_h, new_c))
        return result


@function_of("RNN", "GRU", "LSTM")
def recurrent(node: OnnxNode, *inputs: Array | None) -> tuple[Array, ...]:
    """The states of all steps (T, D, N, H), the last ones (D, N, H), and the last cells.

    The inputs are ``x`` (T, N, I), ``w`` (D, G * H, I), ``r`` (D, G * H, H), ``b``
    (D, 2 * G * H), ``lengths`` (N,), the first states and cells (D, N, H) or (D, 1, H), and
    ``peepholes`` (D, 3 * H). With ``layout=1`` the batch is the first axis of ``x``, of the states
    and of the cells.
    """
    call = _recurrence(node, inputs)
    every, ends = np.zeros(call.shape, call.x.dtype), np.zeros((2, *call.shape[1:]), call.x.dtype)
    for i, one, x, steps in call.parts():
        states = call.states(i, one, x, steps)
        for t, (h, _) in zip(steps, states[1:], strict=True):
            every[t, i] = h if call.lengths is None else np.where(call.runs(t), h, 0)
        ends[0, i], ends[1, i] = states[-1]
    if node.integer("layout", 0):
        every, ends = every.transpose(2, 0, 1, 3), ends.swapaxes(1, 2)
    results = every, ends[0], ends[1]
    return results if node.operator == "LSTM" else results[:2]


def recurrent_gradients(
    node: OnnxNode, dy: Array, output: int, inputs: Sequence[Array | None]
) -> list[Array | None]:
    """The gradients of the inputs of :func:`recurrent` from that of one of its outputs."""
    call = _recurrence(node, inputs)
    first = bool(node.integer("layout", 0))
    if first:
        dy = dy.transpose(1, 2, 0, 3) if output == 0 else dy.swapaxes(0, 1)
    dx, kind = np.zeros_like(call.x), call.x.dtype
    dw, dr, db, dp = (np.zeros_like(a) for a in (call.w, call.r, call.bias, call.peepholes))
    d_start = np.zeros((2, *call.shape[1:]), kind)
    rows = call.w.shape[1]
    for i, one, x, steps in call.parts():
        sums = _Sums(dr[i], db[i, rows:], dp[i])
        states = call.states(i, one, x, steps)
        zeros = np.zeros(call.shape[2:], kind)
        dh, dc = (dy[i] if output == which else zeros for which in (1, 2))
        for t, state in zip(reversed(steps), states[-2::-1], strict=True):
            runs = call.runs(t)
            d_shown = dh + dy[t, i] if output == 0 else dh
            d_next = np.where(runs, d_shown, 0), np.where(runs, dc, 0)
            d_products, (before_h, before_c) = one.step_back(x[t], state, d_next, sums)
            dx[t] += d_products @ call.w[i]
            dw[i] += d_products.T @ call.x[t]
            db[i, :rows] += d_products.sum(0)
            dh, dc = np.where(runs, before_h, dh), np.where(runs, before_c, dc)
        d_start[0, i], d_start[1, i] = dh, dc
    if first:
        dx, d_start = dx.swapaxes(0, 1), d_start.swapaxes(1, 2)
    results = [dx, dw, dr, db, None, d_start[0], d_start[1], dp]
    return [
        None if gradient is None or array is None else summed_to(array.shape, gradient)
        for gradient, array in zip(results, inputs, strict=False)
    ]


def _recurrence(node: OnnxNode, inputs: Sequence[Array | None]) -> _Recurrence:
    """The call of an operator, with its inputs checked."""
    if not 3 <= len(inputs) <= 8 or any(one is None for one in inputs[:3]):
        raise node.error("it must have x, w and r, and up to five inputs more")
    padded: list[Array | None] = [*inputs, *[None] * (8 - len(inputs))]
    x, w, r, b, lengths, h, c, peepholes = padded
    gates, first = GATES[node.operator], bool(node.integer("layout", 0))
    directions = _directions(node)
    if x is None or w is None or r is None or not x.ndim == w.ndim == r.ndim == 3:
        shapes = ", ".join(str(None if one is None else one.shape) for one in (x, w, r))
        raise node.error(f"x, w and r must have three axes, got {shapes}")
    if first:
        x = x.swapaxes(0, 1)
        h, c = (one if one is None or one.ndim < 2 else one.swapaxes(0, 1) for one in (h, c))
    (steps, n, size), d, units = x.shape, len(directions), r.shape[-1]
    bias = np.zeros((d, 2 * gates * units), x.dtype) if b is None else b
    edges = np.zeros((d, 3 * units), x.dtype) if peepholes is None else peepholes
    start = [np.zeros((d, n, units), x.dtype) if one is None else one for one in (h, c)]
    expected = [(w, (d, gates * units, size)), (r, (d, gates * units, units)),
              (bias, (d, 2 * gates * units)), (edges, (d, 3 * units))]  # fmt: skip
    expected += [(one, (d, n if one.shape[1:2] != (1,) else 1, units)) for one in start]
    for array, shape in expected:
        if array.shape != shape:
            raise node.error(f"an input must have the shape {shape}, got {array.shape}")
    if lengths is not None and (
        lengths.shape != (n,)
        or lengths.dtype.kind not in "iu"
        or (lengths > steps).any()
        or (lengths < 0).any()
    ):
        raise node.error(f"sequence_lens must be {n} integers from 0 to {steps}")
    states, cells = (np.array(np.broadcast_to(one, (d, n, units))) for one in start)
    column = None if lengths is None else lengths[:, None]
    return _Recurrence(node, x, w, r, bias, edges, (states, cells), column, directions)


def _directions(node: OnnxNode) -> list[bool]:
    """For each direction whether it goes backwards."""
    choices = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    return choices[node.text("direction", "forward", tuple(choices))]


def _formulas(node: OnnxNode, direction: int) -> list[_Formula]:
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
