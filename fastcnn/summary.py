"""A model as a table: layer, output shape, parameters, MFLOP for one sample."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from fastcnn.layers import Layer, Shape, infer_stack

HEADINGS = ("layer", "output shape", "parameters", "MFLOP")


class Row(NamedTuple):
    """One layer."""

    layer: str
    output: str
    parameters: int
    mflop: float

    def cells(self) -> tuple[str, str, str, str]:
        """The row as it is shown."""
        work = f"{self.mflop:.3f}" if self.mflop else ""
        count = f"{self.parameters:,}" if self.parameters else ""
        return self.layer, self.output, count, work


def rows(layers: Sequence[Layer], input_shape: Shape) -> list[Row]:
    """One row for each layer, and the sum of all."""
    shapes = infer_stack(layers, input_shape)
    found = [
        Row(repr(layer), str(output), layer.size, layer.flops(shape) / 1e6)
        for layer, shape, output in zip(layers, shapes, shapes[1:], strict=False)
    ]
    total = sum(row.parameters for row in found), sum(row.mflop for row in found)
    return [*found, Row("total", "", *total)]


def text(table: Sequence[Row]) -> str:
    """The table in plain characters.

    >>> from fastcnn.layers import Flatten
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
