"""A model as a table: layer, output shape, parameters, MFLOP for one sample."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fastcnn.core.tables import fitted_table
from fastcnn.models.graph import Graph
from fastcnn.nn.layers import Layer, Shape, repr_of_structure

_NUMBERS = ("parameters", "MFLOP")


class Row(NamedTuple):
    """One layer."""

    layer: str
    output: str
    parameters: int
    mflop: float
    frozen: int = 0
    name: str | None = None
    inputs: str = ""

    def cells(self) -> tuple[str, ...]:
        """The row as it is shown; with a name and inputs in the table of a graph."""
        work = f"{self.mflop:.3f}" if self.mflop else ""
        count = f"{self.parameters:,}" if self.parameters else ""
        if self.frozen == self.parameters > 0:
            count = f"frozen {count}"
        elif self.frozen:
            count = f"frozen {self.frozen:,} of {count}"
        if self.name is None:
            return self.layer, self.output, count, work
        return self.name, self.layer, self.inputs, self.output, count, work


def rows(graph: Graph, input_shapes: Sequence[Shape], inputs: Sequence[str]) -> list[Row]:
    """One row for each call of a layer, with how much of it is frozen, and the sum of all.

    If the layers are not in a row, each row has the name of its layer and the names of its inputs.
    Parameters of a shared layer count once, in the row of its first call.

    >>> from fastcnn import Sequential
    >>> from fastcnn.nn.layers import Dense
    >>> model = Sequential([Dense(4), Dense(2)], (3,))
    >>> model.layers[0].trainable = False
    >>> model.summary()
    layer     output shape          parameters  MFLOP
    Dense(4)  (4,)                   frozen 16  0.000
    Dense(2)  (2,)                          10  0.000
    total                      frozen 16 of 26  0.000
    """
    shapes, names = graph.infer(input_shapes), value_names(graph, inputs)
    table, called = list[Row](), set[int]()
    for node in graph.nodes:
        layer, input_shape = node.layer, node.input_among(shapes)
        row = Row(
            repr_of_structure(layer, named=True), str(shapes[node.output]), _count(layer),
            layer.flops(input_shape) / 1e6, _frozen(layer),
        )  # fmt: skip
        if id(layer) in called:
            row = row._replace(parameters=0, frozen=0)
        if not graph.is_chain:
            taken_names = ", ".join(names[value] for value in node.inputs)
            row = row._replace(
                layer=repr_of_structure(layer), name=names[node.output], inputs=taken_names
            )
        called.add(id(layer))
        table.append(row)
    parameters, frozen = (sum(getattr(row, k) for row in table) for k in ("parameters", "frozen"))
    mflop = sum(row.mflop for row in table)
    total = Row("total", "", parameters, mflop, frozen)
    if not graph.is_chain:
        total = Row("", "", parameters, mflop, frozen, "total")
    return [*table, total]


def value_names(graph: Graph, inputs: Sequence[str]) -> list[str]:
    """A name for each value: those of inputs and layers, with the call of a shared layer."""
    names, calls = list(inputs), Counter[int]()
    shared = Counter(id(node.layer) for node in graph.nodes)
    for node in graph.nodes:
        calls[id(node.layer)] += 1
        call = f", call {calls[id(node.layer)]}" if shared[id(node.layer)] > 1 else ""
        names.append(node.layer.name + call)
    return names


def _count(layer: Layer) -> int:
    """How many parameters a layer has; its attribute ``size`` may be an argument of its own."""
    return sum(array.size for array in layer.parameters.values())


def _frozen(layer: Layer) -> int:
    trained = layer.trained_names()
    return sum(array.size for name, array in layer.parameters.items() if name not in trained)


def headings(table: Sequence[Row]) -> tuple[str, ...]:
    """The headings of the columns."""
    graph = () if table[0].name is None else ("name",)
    return (*graph, "layer", *(("input",) if graph else ()), "output shape", *_NUMBERS)


def text(table: Sequence[Row], width: int | None = None) -> str:
    """The table in plain characters; texts are shortened where ``width`` is too small."""
    heads, cells = fitted(table, width, gap=2)
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = []
    for line in (heads, *cells):
        parts = [
            cell.rjust(size) if head in _NUMBERS else cell.ljust(size)
            for head, cell, size in zip(heads, line, widths, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def fitted(table: Sequence[Row], width: int | None, gap: int) -> tuple[list[str], list[list[str]]]:
    """The headings and the cells of the table, in columns that fit a width."""
    heads = headings(table)
    texts = [i for i, heading in enumerate(heads) if heading in ("name", "layer", "input")]
    spare = [i for i, heading in enumerate(heads) if heading == "input"]
    cells = [heads, *(row.cells() for row in table)]
    rows = fitted_table(cells, width, texts, spare, gap).rows
    return rows[0], rows[1:]


def as_html(table: Sequence[Row]) -> str:
    """The table for a notebook."""
    head = "".join(f"<th>{heading}</th>" for heading in headings(table))
    lines = [f"<tr>{head}</tr>"]
    for row in table:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells())
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def show(table: Sequence[Row]) -> None:
    """Print the table: with lines in a terminal that has room, in plain characters elsewhere."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        print(text(table))
        return
    room = console.width - 4  # without the lines and blanks around the table
    heads, rows = fitted(table, room, gap=3)
    sizes = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    if sum(sizes) + 3 * (len(sizes) - 1) > room:
        print(text(table, console.width))
        return
    picture = Table()
    for heading in heads:
        right = heading in _NUMBERS
        picture.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for i, row in enumerate(rows):
        picture.add_row(*map(Text, row), end_section=i == len(table) - 2)
    console.print(picture)
