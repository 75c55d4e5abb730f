"""Ctrl-C at any moment: the command ends within two seconds, with a message and no traceback.

    python reliability/interrupts.py                    each command 15 times, some minutes

Each command is started and gets SIGINT after a random time, while its modules are imported, while
it works and while it ends. It must end soon with exit code 130, or 0 where it was done already;
what it prints must hold no traceback; no partial or temporary file may be left, and what a training
leaves must load. The first moments are spared, in which Python starts and imports NumPy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import perf_counter, sleep
from typing import Annotated

import numpy as np
import typer

from fastcnn.layers import Dense, Flatten
from fastcnn.models.sequential import Sequential, load_model

SECONDS = 2.0


def commands(folder: Path) -> dict[str, tuple[list[str], float]]:
    """Commands by name, each with how long it may run before it is interrupted."""
    from PIL import Image

    digit = np.zeros((28, 28), np.uint8)
    digit[6:22, 12:16] = 255
    Image.fromarray(digit).save(folder / "one.png")
    Sequential([Flatten(), Dense(10)], (28, 28, 1), seed=0).save(folder / "linear.safetensors")
    train = ["train", "--net", "small", "--epochs", "40", "--save", str(folder / "net.safetensors")]
    picture = [str(folder / "one.png")] * 400
    return {
        "train": (train, 9.0),
        "compare": (["compare", "--json", str(folder / "report.json")], 5.0),
        "predict": (["predict", str(folder / "linear.safetensors"), *picture], 3.0),
        "evaluate": (["evaluate", str(folder / "linear.safetensors")], 3.0),
        "bench": (["bench", "--html", str(folder / "report.html")], 20.0),
        "demo": (["demo"], 6.0),
        "info": (["info"], 1.0),
    }


def interrupted(arguments: list[str], after: float, limit: float) -> tuple[int, float, str]:
    """Exit code, seconds from the interrupt to the end, and all that the command printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fastcnn", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    sleep(after)
    start = perf_counter()
    process.send_signal(signal.SIGINT)
    try:
        told, _ = process.communicate(timeout=limit + 30)
    except subprocess.TimeoutExpired:
        process.kill()
        told, _ = process.communicate()
    return process.returncode, perf_counter() - start, told


def starting() -> float:
    """Seconds until the command is there to hear an interrupt, generously."""
    start = perf_counter()
    subprocess.run([sys.executable, "-c", "import fastcnn"], check=True)
    return 1.5 * (perf_counter() - start)


def complaints(
    folder: Path, name: str, result: tuple[int, float, str], limit: float
) -> Iterator[str]:
    """What is wrong with how the command ended."""
    code, seconds, told = result
    # Python ends itself by the signal where it came in a string that was run; shells tell 130 too.
    code = 130 if code == -signal.SIGINT else code
    done = code == 0 and name != "train"
    if code != 130 and not done:
        yield f"exit code {code}"
    if seconds > limit:
        yield f"took {seconds:.1f} s to end"
    if "Traceback" in told or "Exception ignored" in told or "Error" in told:
        yield "printed a traceback"
    if code == 130 and "interrupted" not in told and "stopping" not in told:
        yield "did not say that it was interrupted"
    left = [path.name for path in folder.iterdir() if path.suffix == ".tmp"]
    if left:
        yield f"left {left}"
    for path in folder.glob("net*.safetensors"):
        load_model(path)
        path.unlink()
    for report in folder.glob("report.*"):
        if not done:
            yield f"left {report.name}"
        report.unlink()


def main(
    times: Annotated[int, typer.Option(help="How often each command.")] = 15,
    command: Annotated[list[str] | None, typer.Option(help="These commands only.")] = None,
    limit: Annotated[float, typer.Option(help="Seconds that a command has to end.")] = SECONDS,
    seed: Annotated[int, typer.Option(help="Another seed, other moments.")] = 0,
) -> None:
    """Interrupt commands."""
    # What a shell starts in the background has Ctrl-C ignored, and so would have all commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chance, failed = Random(seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, (arguments, longest) in commands(folder).items():
            if command and what not in command:
                continue
            slowest = 0.0
            for number in range(times):
                after = starting() + longest * (number + chance.random()) / times
                result = interrupted(arguments, after, limit)
                slowest = max(slowest, result[1])
                for wrong in complaints(folder, what, result, limit):
                    failed += 1
                    print(f"{what} after {after:.2f} s: {wrong}\n{result[2][-1500:]}", flush=True)
            print(f"{what}: ended within {slowest:.1f} s at the latest", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
