"""Progress bars, which appear only on terminals."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from fastcnn.core.settings import can_start_threads

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def shows_bars(console: Console) -> bool:
    """Whether progress bars can be drawn on a console.

    It must be a terminal, and Rich must be able to start the thread that draws.

    >>> from io import StringIO
    >>> from rich.console import Console
    >>> shows_bars(Console(file=StringIO()))
    False
    """
    return console.is_terminal and can_start_threads()


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
