"""Progress bars, which appear only on terminals."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from fastcnn.core.settings import can_start_threads

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


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
    if not console.is_terminal:
        return "  ".join(parts)
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if lines[-1] and len(longer) > console.width:
            lines.append(f"  {part}")
        else:
            lines[-1] = longer
    return "\n".join(lines)


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
