"""Python processes of their own, for what depends on the environment at start, or may crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastcnn

SOURCE = Path(fastcnn.__file__).resolve().parent.parent
"""The folder that holds the package under test."""


def environment(source: Path = SOURCE, **more: str) -> dict[str, str]:
    """This process's, with the package in ``source`` to be imported first, and these variables."""
    path = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def python(
    *arguments: str, source: Path = SOURCE, check: bool = True, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python *arguments`` on the package in ``source`` with these environment variables.

    With ``check`` the process must succeed.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(source, **more),
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done
