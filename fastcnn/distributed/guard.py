"""A guard beside a process of a group: it names a process that ends without a word.

A launcher may end all processes of a job as soon as one of them is killed, before another one can
say what happened. So each process starts a small program in a session of its own, which a launcher
does not end. A pipe leads from the process to its guard. The pipe closes when the process dies, for
whatever reason. If the process has not said before that it ends, the guard prints the message.

A launcher that ends a job kills the other processes too. Therefore the first guard of a machine
that has something to say takes a name that all guards of the job share (an abstract socket of
Linux), and the others stay silent. A process that prints a reason of its own lets its guard take
the name.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

_ENDS, _SPEAKS = b".", b"!"

_PROGRAM = """
import os, socket, sys, time

message, name, ends, speaks = sys.argv[1:]
said = b""
while some := os.read(0, 64):
    said = some[-1:]
    if said == speaks.encode():
        break
if said != ends.encode():
    own = socket.socket(socket.AF_UNIX)
    try:
        if sys.platform == "linux":
            own.bind("\\0" + name)
    except OSError:
        sys.exit()
    if said != speaks.encode():
        os.write(2, message.encode() + b"\\n")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    time.sleep(10)
"""


class Guard:
    """The guard of this process, which it starts.

    Args:
        message: what it prints if this process dies.
        job: a name of the job, which all its processes share.
    """

    def __init__(self, message: str, job: str) -> None:
        words = message, f"fastcnn-{job}", _ENDS.decode(), _SPEAKS.decode()
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):  # the watch of the other processes remains
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def leave(self) -> None:
        """This process ends well."""
        self._say(_ENDS)

    def let_speak(self) -> None:
        """This process prints why the job ends, and guards of this machine say nothing."""
        self._say(_SPEAKS)

    def _say(self, word: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError, ValueError):
                self._process.stdin.write(word)
                self._process.stdin.flush()
