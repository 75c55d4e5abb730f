"""Lines and progress bars on terminals, in files and in notebooks."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from fastcnn.core.settings import can_start_threads

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def with_width(console: Console) -> Console:
    """The console itself, as wide as its terminal.

    Rich takes 80 columns for each terminal that cannot move its cursor, so its own are asked for.
    """
    if console.is_dumb_terminal:
        console.size = shutil.get_terminal_size()
    return console


def shows_bars(console: Console) -> bool:
    """Whether progress bars can be drawn on a console.

    It must be a terminal that can move its cursor, and Rich must be able to start the thread that
    draws.

    >>> from io import StringIO
    >>> from rich.console import Console
    >>> shows_bars(Console(file=StringIO()))
    False
    """
    return console.is_terminal and not console.is_dumb_terminal and can_start_threads()


def fitted(parts: Sequence[str], console: Console) -> str:
    """Parts of a line, which a terminal breaks between them alone; a file gets one line.

    >>> from io import StringIO
    >>> from rich.console import Console
    >>> narrow = Console(file=StringIO(), width=20, force_terminal=True)
    >>> print(fitted(["epoch 1/3", "loss 0.2301", "accuracy 93.16%"], narrow))
    epoch 1/3
      loss 0.2301
      accuracy 93.16%
    >>> fitted(["epoch 1/3", "loss 0.2301"], Console(file=StringIO(), width=20))
    'epoch 1/3  loss 0.2301'
    """
    return broken(parts, console.width if console.is_terminal else None)


def broken(parts: Sequence[str], width: int | None) -> str:
    """Parts of a line, broken between them where it is wider than ``width`` columns."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if width is not None and lines[-1] and len(longer) > width:
            lines.append(f"  {part}")
        else:
            lines[-1] = longer
    return "\n".join(lines)


def columns_of_output() -> int | None:
    """Columns of the terminal that the standard output is, or of ``COLUMNS``; else None."""
    is_known = _output_is_terminal() or "COLUMNS" in os.environ
    return shutil.get_terminal_size().columns if is_known else None


def output_rewinds() -> bool:
    """Whether the standard output is a terminal on which a line can be written over."""
    return _output_is_terminal() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def output_is_notebook() -> bool:
    """Whether what is printed appears in a cell of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    names = type(shell).__name__, type(shell).__module__
    return names[0] == "ZMQInteractiveShell" or names[1].startswith("google.colab")


def _output_is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # a replaced or a closed output
        return False


class NotebookLines:
    """Lines in the output of a notebook's cell, of which the last one may be replaced."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._passing = ""
        self._handle: Any = None

    def add(self, text: str) -> None:
        """Show a line that stays."""
        self._lines.append(text)
        self._passing = ""
        self._show()

    def pass_by(self, text: str) -> None:
        """Show a last line until another one takes its place; an empty text shows none."""
        if text != self._passing:
            self._passing = text
            self._show()

    def _show(self) -> None:
        from IPython.display import display

        lines = [*self._lines, self._passing] if self._passing else self._lines
        data = {"text/plain": "\n".join(lines)}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def display(bar: Progress) -> AbstractContextManager[object]:
    """A context that shows the bar, if the console can show bars.

    Otherwise the bar is not started, because Rich before 14.3 prints an empty line for a disabled
    bar.

    >>> from io import StringIO
    >>> from rich.console import Console
    >>> from rich.progress import Progress
    >>> bar = Progress(console=Console(file=StringIO()))
    >>> with display(bar):
    ...     task = bar.add_task("", total=2)
    ...     bar.update(task, completed=1)
    >>> bar.console.file.getvalue()
    ''
    """
    return bar if shows_bars(bar.console) else nullcontext()
