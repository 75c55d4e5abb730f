"""A model as a table: layer, output shape, parameters, MFLOP for one sample."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from fastcnn.nn.layers import Layer, Shape, infer_stack

HEADINGS = ("layer", "output shape", "parameters", "MFLOP")


class Row(NamedTuple):
    """One layer."""

    layer: str
    output: str
    parameters: int
    mflop: float
    frozen: int = 0

    def cells(self) -> tuple[str, str, str, str]:
        """The row as it is shown."""
        work = f"{self.mflop:.3f}" if self.mflop else ""
        count = f"{self.parameters:,}" if self.parameters else ""
        if self.frozen == self.parameters > 0:
            count = f"frozen {count}"
        elif self.frozen:
            count = f"frozen {self.frozen:,} of {count}"
        return self.layer, self.output, count, work


def rows(layers: Sequence[Layer], input_shape: Shape) -> list[Row]:
    """One row for each layer, with how much of it is frozen, and the sum of all.

    >>> from fastcnn import Sequential
    >>> from fastcnn.nn.layers import Dense
    >>> model = Sequential([Dense(4), Dense(2)], (3,))
    >>> model.layers[0].trainable = False
    >>> print(text(rows(model.layers, (3,))))
    layer     output shape          parameters  MFLOP
    Dense(4)  (4,)                   frozen 16  0.000
    Dense(2)  (2,)                          10  0.000
    total                      frozen 16 of 26  0.000
    """
    shapes = infer_stack(layers, input_shape)
    table = [
        Row(repr(layer), str(output), _count(layer), layer.flops(shape) / 1e6, _frozen(layer))
        for layer, shape, output in zip(layers, shapes, shapes[1:], strict=False)
    ]
    parameters = sum(row.parameters for row in table)
    frozen = sum(row.frozen for row in table)
    return [*table, Row("total", "", parameters, sum(row.mflop for row in table), frozen)]


def _count(layer: Layer) -> int:
    """How many parameters a layer has; its attribute ``size`` may be an argument of its own."""
    return sum(array.size for array in layer.parameters.values())


def _frozen(layer: Layer) -> int:
    trained = layer.trained_names()
    return sum(array.size for name, array in layer.parameters.items() if name not in trained)


def text(table: Sequence[Row]) -> str:
    """The table in plain characters.

    >>> from fastcnn.nn.layers import Flatten
    >>> print(text(rows([Flatten()], (2, 3, 1))))
    layer      output shape  parameters  MFLOP
    Flatten()  (6,)
    total
    """
    cells = [HEADINGS, *(row.cells() for row in table)]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    lines = []
    for a, b, c, d in cells:
        line = f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def as_html(table: Sequence[Row]) -> str:
    """The table for a notebook."""
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    lines = [f"<tr>{head}</tr>"]
    for row in table:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells())
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def show(table: Sequence[Row]) -> None:
    """Print the table: drawn with Rich in a terminal, in plain characters elsewhere."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        print(text(table))
        return
    drawn = Table()
    for i, heading in enumerate(HEADINGS):
        drawn.add_column(heading, justify="left" if i < 2 else "right")
    for i, row in enumerate(table):
        drawn.add_row(*map(Text, row.cells()), end_section=i == len(table) - 2)
    console.print(drawn)
