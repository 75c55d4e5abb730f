"""Whether ``fastcnn bench --compare`` finds what became slower, and nothing else.

    python benchmarks/planted_slowdowns.py [--times 10] [--seconds 0.6]

Each time, a few problems are timed in three processes: twice as they are, and once with one kernel
made to take 1.5 times as long. The two runs of the
same code must compare as the same, and the slow kernel, and no other, must be found slower. Exit
code 1 unless that is so every time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fastcnn.bench import Report, compare

OPS = ("conv2d", "max_pool2d", "dense")
PLANTED = "conv2d"

RUN = """
import sys, time
from pathlib import Path
from fastcnn.engine.registry import replaced
from fastcnn.bench import bench
path, planted, seconds, *ops = sys.argv[1:]

def run():
    bench(ops=ops, peer=[], seconds=float(seconds)).write(Path(path))

def slower(fast):
    def kernel(*arguments):
        start = time.thread_time()
        result = fast(*arguments)
        spent = time.thread_time() - start
        while time.thread_time() < start + 1.5 * spent:
            pass
        return result
    return kernel

if planted:
    from fastcnn.engine.numba.conv import direct
    with replaced(planted, "numba", slower(getattr(direct, planted))):
        run()
else:
    run()
"""


def timed(path: Path, seconds: float, planted: str = "") -> Report:
    """A run of the suite in a process of its own."""
    command = [sys.executable, "-c", RUN, str(path), planted, str(seconds), *OPS]
    subprocess.run(command, check=True)
    return Report.read(path)


def trial(folder: Path, seconds: float) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What came out slower with the same code; with the planted kernel; and what should."""
    before = timed(folder / "before.json", seconds)
    again = timed(folder / "again.json", seconds)
    slow = timed(folder / "slow.json", seconds, PLANTED)
    should = [entry.name for entry in before.entries if entry.group == PLANTED]
    return (
        {change.name: f"{change.ratio:.2f}" for change in compare(before, again).slower},
        {change.name: f"{change.ratio:.2f}" for change in compare(before, slow).slower},
        should,
    )


def main(
    times: Annotated[int, typer.Option(min=1, help="Trials.")] = 10,
    seconds: Annotated[float, typer.Option(min=0.05, help="Of timing for each problem.")] = 0.6,
) -> None:
    """Run the trials and print what came of each."""
    result = passed = 0
    for number in range(1, times + 1):
        with tempfile.TemporaryDirectory() as folder:
            same, slow, should = trial(Path(folder), seconds)
        result += list(slow) == should
        passed += not same
        print(f"{number}: same code slower: {same or 'nothing'}; planted: {slow or 'nothing'}")
    print(f"planted slowdown found {result} of {times} times")
    print(f"two runs of the same code passed {passed} of {times} times")
    sys.exit(not result == passed == times)


if __name__ == "__main__":
    typer.run(main)
