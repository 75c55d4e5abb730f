"""What .ci/run checks after the tests, two checks at a time.

The package as users install it, on every other Python that is here; the cache of compiled kernels
that the tests filled (``.ci/check_cache.py``); the linter, the formatter and the type checker.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
"""The versions of Python to look for."""


class Check(NamedTuple):
    """Commands that must succeed one after the other, in a folder."""

    name: str
    folder: Path
    commands: Sequence[Sequence[str | Path]]

    def passes(self) -> bool:
        """Run the commands until one fails, and show its output; else show the last line."""
        environment = dict(os.environ)
        if self.folder != ROOT:  # an installed package finds its modules and its cache by itself
            for name in ("PYTHONPATH", "NUMBA_CACHE_DIR"):
                environment.pop(name, None)
            # One short training needs few of the batch sizes for which it would compile ahead.
            environment["FASTCNN_COMPILE_AHEAD"] = "0"
        start, output = perf_counter(), ""
        for command in self.commands:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            output += f"$ {' '.join(map(str, command))}\n{done.stdout}"
            if done.returncode:
                print(f"{output}{self.name}: FAILED, exit code {done.returncode}", flush=True)
                return False
        last = output.rstrip().rpartition("\n")[2]
        print(f"{self.name}: passed in {perf_counter() - start:.0f} s; {last}", flush=True)
        return True


def main() -> int:
    """Run every check; 1 if one fails."""
    others = {version: path for version in VERSIONS if version != OWN and (path := python(version))}
    print(
        f"The tests ran on Python {OWN}. Also here: {', '.join(others) or 'no other'}", flush=True
    )
    with TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        build = (BIN / "pip", "wheel", "--no-deps", "--wheel-dir", folder, ".")
        if not Check("the wheel", ROOT, [build]).passes():
            return 1
        (wheel,) = folder.glob("*.whl")
        checks = [installed(wheel, one, path) for one, path in others.items()]
        checks.append(documentation(wheel))
        checks.append(Check("compiled kernels", ROOT, [(sys.executable, ".ci/check_cache.py")]))
        lint, form = (BIN / "ruff", "check", "."), (BIN / "ruff", "format", "--check", ".")
        checks.append(Check("style and types", ROOT, [lint, form, (BIN / "mypy",)]))
        return 0 if all([*pool.map(Check.passes, checks)]) else 1


def python(version: str) -> Path | None:
    """A Python of this version that starts and can make environments: on the path, or pyenv's."""
    on_path = which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    paths = [Path(on_path)] if on_path else []
    paths += sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    asks = f"import ensurepip, sys; assert {version!r} == '%d.%d' % sys.version_info[:2]"
    for path in paths:
        if subprocess.run([path, "-c", asks], capture_output=True, check=False).returncode == 0:
            return path
    return None


def installed(wheel: Path, version: str, path: Path) -> Check:
    """The wheel in a fresh environment of this Python, outside the clone: the article, a comparison
    of the engines, and a short training."""
    folder = wheel.parent / version
    folder.mkdir()
    fastcnn = folder / "env" / "bin" / "fastcnn"
    commands = [
        (path, "-m", "venv", "env"),
        (folder / "env" / "bin" / "pip", "install", "-q", "--no-compile", wheel),
        (fastcnn, "demo"),
        (fastcnn, "compare", "--quick"),
        (fastcnn, "train", "--net", "article", "--epochs", "1"),
    ]
    return Check(f"Python {version}", folder, commands)


def documentation(wheel: Path) -> Check:
    """The documentation site, built from the wheel's docstrings; warnings are errors."""
    python, site = wheel.parent / "docs" / "bin" / "python", wheel.parent / "site"
    commands = [
        (sys.executable, "-m", "venv", wheel.parent / "docs"),
        (python, "-m", "pip", "install", "-q", "--no-compile", f"{wheel}[docs]"),
        (
            python,
            "-P",
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            ROOT / "docs",
            site,
        ),
    ]
    return Check("documentation", wheel.parent, commands)


if __name__ == "__main__":
    sys.exit(main())
