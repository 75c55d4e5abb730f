"""The ``fastcnn`` command, also as ``python -m fastcnn``; and Ctrl-C at any moment of it.

The first Ctrl-C stops what is under way, wherever that is: also while modules are imported, and
while kernels are compiled, which an exception alone may not end. What has not ended soon is left.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from threading import Timer
from types import FrameType
from typing import Any

INTERRUPTED = 130
PATIENCE = 1.5
"""Seconds that what is under way has to end by itself."""


def main() -> None:
    """The console script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _unraisable
    try:
        from fastcnn.cli import main as command_line

        command_line()
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        # Python's own end takes down what is loaded, which lasts seconds with PyTorch.
        with suppress(OSError):
            sys.stdout.flush()
        _leave()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended, and takes no time any more


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, lambda number, frame: _leave())
    # The line and the cursor may be those of a progress bar.
    start = "\r\033[K\033[?25h" if os.isatty(2) else ""
    os.write(2, f"{start}fastcnn: interrupted\n".encode())
    timer = Timer(PATIENCE, _leave)
    timer.daemon = True
    with suppress(RuntimeError):  # where no thread can be started, nothing is left after PATIENCE
        timer.start()
    raise KeyboardInterrupt


def _leave() -> None:
    os._exit(INTERRUPTED)


def _unraisable(error: Any) -> None:
    """Say nothing of an interrupt where none can be raised, as in a call from compiled code."""
    if error.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(error)


if __name__ == "__main__":
    main()
