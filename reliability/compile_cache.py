"""The cache of compiled kernels in bad places: right results always, at worst compiled anew.

    python reliability/compile_cache.py           ten to fifteen minutes on two cores

On copies of the package that have compiled nothing yet: twenty processes that start at once; files
damaged at many places; other instruction sets and edited helpers on one folder; a full disk (a
small tmpfs where it can be mounted, else a limit on the size of files), a read-only installation
without a home.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

import fastcnn

SOURCE = Path(fastcnn.__file__).resolve().parent.parent
WORK = """
import random, sys
import numpy as np
import fastcnn

# A few functions in both dtypes, in another order in each process.
rng = np.random.default_rng(0)
x, w = rng.integers(-4, 5, (5, 7)), rng.integers(-4, 5, (7, 33))
calls = []
for dtype in (np.float32, np.float64):
    a, b = x.astype(dtype), w.astype(dtype)
    calls += [
        (lambda a=a, b=b: fastcnn.dense(a, b, engine="numba"), a @ b),
        (lambda a=a: fastcnn.relu(a, engine="numba"), np.maximum(a, 0)),
        (lambda a=a: fastcnn.leaky_relu(a, 0.5, engine="numba"), np.where(a > 0, a, a / 2)),
    ]
random.Random(int(sys.argv[1])).shuffle(calls)
for call, expected in calls:
    np.testing.assert_array_equal(call(), expected)
print("right")
"""


def start(package: Path, seed: int = 0, **more: Any) -> subprocess.Popen[str]:
    """A process that computes with the package in this folder."""
    environment = dict(os.environ, PYTHONPATH=str(package), PYTHONDONTWRITEBYTECODE="1")
    environment["FASTCNN_COMPILE_NOTICE"] = "0"  # nothing else may be printed
    environment.pop("NUMBA_CACHE_DIR", None)  # the copy keeps its kernels beside itself
    environment |= more.pop("environment", {})
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=package,
        **more,
    )


def finish(process: subprocess.Popen[str], what: str) -> None:
    """Wait for it; it must have computed rightly, and said nothing else."""
    out, err = process.communicate()
    if (process.returncode, out, err) != (0, "right\n", ""):
        sys.exit(f"{what}: exit {process.returncode}\n{out}{err[-3000:]}")


def computes(package: Path, what: str, seed: int = 0, **more: Any) -> float:
    """A process computes rightly; the seconds that it took."""
    begin = perf_counter()
    finish(start(package, seed, **more), what)
    return perf_counter() - begin


@contextmanager
def package() -> Iterator[Path]:
    """A folder with a copy of the package that has compiled nothing yet."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        ignored = shutil.ignore_patterns("__pycache__", "mnist")
        shutil.copytree(SOURCE / "fastcnn", place / "fastcnn", ignore=ignored)
        yield place


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nbc"))


def at_once(count: int) -> str:
    with package() as place:
        for process in [start(place, seed) for seed in range(count)]:
            finish(process, "processes at once")
        number = len(entries(place))
        leftovers = [path.name for path in place.rglob("*.tmp")]
        if leftovers:
            sys.exit(f"processes at once left {leftovers}")
        computes(place, "after processes at once")
        if len(entries(place)) != number:
            sys.exit("processes at once: not all of it was in the cache")
    return f"{count} processes at once on an empty cache"


def damaged(count: int) -> str:
    chance = random.Random(0)
    with package() as place:
        computes(place, "compiling")
        whole = {path: path.read_bytes() for path in entries(place)}
        if not whole:
            sys.exit("damage: no file was written")
        for number in range(count):
            for path, contents in whole.items():
                spoilt = bytearray(contents)
                at = chance.randrange(len(spoilt))
                kind = number % 4
                if kind == 0:
                    del spoilt[at:]
                elif kind == 1:
                    spoilt[at : at + 64] = os.urandom(64)
                elif kind == 2:
                    spoilt = bytearray(os.urandom(len(spoilt)))
                else:
                    spoilt[at] ^= 1 << chance.randrange(8)
                path.write_bytes(spoilt)
            computes(place, f"damage {number}")
            if {p: p.read_bytes()[:32] for p in entries(place)} != {
                p: contents[:32] for p, contents in whole.items()
            }:
                sys.exit(f"damage {number}: not all of it was written anew")
    return f"{len(whole)} files damaged {count} times"


def others() -> str:
    with package() as place:
        cold = computes(place, "compiling")
        for name in ("haswell", "x86-64"):
            environment = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
            computes(place, name, environment=environment)
        warm = computes(place, "after other instruction sets")
        engine = place / "fastcnn" / "engine" / "numba"
        for helper in ("tiles/products", "contraction/contraction", "elementwise/activations"):
            path = engine / f"{helper}.py"
            path.write_text(path.read_text("utf-8") + "\n# edited\n", "utf-8")
            computes(place, f"after an edit in {helper}")
        # An edit that changes results must show, whatever lies in the cache.
        path = engine / "elementwise" / "activations.py"
        text = path.read_text("utf-8")
        path.write_text(text.replace("else slope * value\n", "else slope * value - 1\n"), "utf-8")
        if path.read_text("utf-8") == text:
            sys.exit("the edit of the helper found nothing to edit")
        process = start(place)
        process.communicate()
        if process.returncode == 0:
            sys.exit("a kernel that was edited to be wrong still gives the old results")
        path.write_text(text, "utf-8")
        computes(place, "after the edit was taken back")
    return f"three instruction sets and edits on one folder ({cold:.1f} s cold, {warm:.1f} s warm)"


def full_disk() -> str:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    with package() as place, tempfile.TemporaryDirectory() as disk:
        environment = {"NUMBA_CACHE_DIR": disk}
        mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True
        ).returncode
        try:
            more: dict[str, Any] = {} if mounted else {"preexec_fn": limited}
            for _ in range(2):
                computes(place, "full disk", environment=environment, **more)
            left = [str(path) for path in Path(disk).rglob("*.tmp")]
            if left:
                sys.exit(f"full disk: left {left}")
        finally:
            if mounted:
                subprocess.run(["umount", disk], check=True)
    return f"a full disk ({'tmpfs of 64 KiB' if mounted else 'limited files'})"


def read_only() -> str:
    with package() as place, tempfile.TemporaryDirectory() as disk, ExitStack() as stack:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
            return "a read-only installation: not tried, since nothing can be mounted here"
        stack.callback(subprocess.run, ["umount", disk], check=True)
        shutil.copytree(place / "fastcnn", Path(disk) / "fastcnn")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for home in ("/proc/nonexistent", "/dev/null"):
            computes(Path(disk), f"home {home}", environment={"HOME": home, "XDG_CACHE_HOME": ""})
    return "a read-only installation without a home"


def main(
    processes: Annotated[int, typer.Option(help="To start at once.")] = 20,
    damages: Annotated[int, typer.Option(help="Rounds of damage to every file.")] = 8,
) -> None:
    """Put the cache of compiled kernels into bad places."""
    begin = perf_counter()
    for run in (
        lambda: at_once(processes), others, full_disk, read_only, lambda: damaged(damages)
    ):  # fmt: skip
        print(run(), f"{perf_counter() - begin:.0f} s", sep=": right, ", flush=True)


if __name__ == "__main__":
    typer.run(main)
