"""The console on which commands print their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastcnn.core.terminal import columns_of_output, with_width

if TYPE_CHECKING:
    from rich.console import Console

_WIDEST = 120  # columns that hold the tables of all commands as a whole


def console_of_output() -> Console:
    """A console on the standard output, on which a file or a pipe has room for whole names."""
    from rich.console import Console

    console = with_width(Console(highlight=False))
    if columns_of_output() is None:
        console.width = max(console.width, _WIDEST)
    return console
