"""A graph as text: a line for each input and each call of a layer, and lines that join them.

A value runs down in a lane of its own to each call that takes it. ``├─╮`` is a value that several
calls take, ``├─╯`` are the inputs of a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastcnn.core.tables import cut
from fastcnn.models.graph import Graph
from fastcnn.models.summary import value_names
from fastcnn.nn.layers import Shape, repr_of_structure

_LEAST = 8  # characters of a shortened layer


class _Line(NamedTuple):
    """A line of the drawing, and its text: a name, a layer, and the shape of its result."""

    drawing: str
    name: str = ""
    layer: str = ""
    shape: str = ""


class _Lanes:
    """The lanes of the drawing.

    Attributes:
        lines: the lines so far.
    """

    def __init__(self) -> None:
        self._ends: list[int | None] = []  # of each lane the value that it leads to, or None
        self.lines: list[_Line] = []

    def draw(self, mark: str, inputs: Sequence[int], users: Sequence[int], text: _Line) -> None:
        """Draw a call: the lanes of edges ``taken`` end there, and those to ``users`` begin."""
        lanes = sorted(i for i, end in enumerate(self._ends) if end in inputs)
        if not lanes:
            lanes = [self._free(0)]
        first, *others = lanes
        if others:
            self._cross(first, others, "┴╯")
        for lane in others:
            self._ends[lane] = None
        self._ends[first] = -1  # the mark's own
        marks = [mark if i == first else self._rest(i) for i in range(len(self._ends))]
        self.lines.append(text._replace(drawing=" ".join(marks)))
        self._ends[first] = users[0] if users else None
        if len(users) > 1:
            new = []
            for user in users[1:]:
                lane = self._free(first + 1)
                self._ends[lane] = user
                new.append(lane)
            self._cross(first, new, "┬╮")
        while self._ends and self._ends[-1] is None:
            self._ends.pop()

    def _free(self, start: int) -> int:
        """The first free lane from ``start`` on."""
        for lane in range(start, len(self._ends)):
            if self._ends[lane] is None:
                return lane
        self._ends.append(None)
        return len(self._ends) - 1

    def _rest(self, lane: int) -> str:
        return " " if self._ends[lane] is None else "│"

    def _cross(self, first: int, others: Sequence[int], turns: str) -> None:
        """A line from lane ``first`` to the right, with turns at the other lanes."""
        last, drawing = max(others), ""
        for lane in range(len(self._ends)):
            if lane == first:
                drawing += "├─"
            elif first < lane < last:
                between = "─" if self._ends[lane] is None else "┼"
                drawing += (turns[0] if lane in others else between) + "─"
            elif lane == last:
                drawing += turns[1] + " "
            else:
                drawing += self._rest(lane) + " "
        self.lines.append(_Line(drawing.rstrip()))


def drawing(
    graph: Graph, input_shapes: Sequence[Shape], inputs: Sequence[str], columns: int | None = None
) -> str:
    """The drawing of a graph whose layers have names; see :meth:`fastcnn.Model.draw`.

    Layers are shortened where ``columns`` characters are too few for a line.
    """
    shapes, names, lanes = graph.infer(input_shapes), value_names(graph, inputs), _Lanes()
    users: dict[int, list[int]] = {}
    edges = list[list[int]]()
    for node in graph.nodes:  # each use of a value is an edge with a number of its own
        edges.append([])
        for value in node.inputs:
            number = sum(map(len, users.values()))
            users.setdefault(value, []).append(number)
            edges[-1].append(number)
    for value, name in enumerate(inputs):
        line = _Line("", name, shape=str(shapes[value]))
        lanes.draw("○", (), users.get(value, []), line)
    for node, numbers in zip(graph.nodes, edges, strict=True):
        output = "  → output" if len(graph.outputs) > 1 and node.output in graph.outputs else ""
        shape = f"{shapes[node.output]}{output}"
        line = _Line("", names[node.output], repr_of_structure(node.layer), shape)
        lanes.draw("●", numbers, users.get(node.output, []), line)
    width = max(len(line.drawing) for line in lanes.lines)
    of_name = max(len(line.name) for line in lanes.lines)
    return "\n".join(
        _text(f"{line.drawing:<{width}}  {line.name:<{of_name}}", line, columns)
        for line in lanes.lines
    )


def _text(start: str, line: _Line, columns: int | None) -> str:
    """A line with its layer, which is shortened for a line of ``columns`` characters."""
    layer = line.layer
    if columns is not None:
        layer = cut(layer, max(_LEAST, columns - len(start) - len(line.shape) - 4))
    return "  ".join(part for part in (start, layer, line.shape) if part).rstrip()
