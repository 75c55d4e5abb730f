"""How long the second thread takes to reach the idle core, after another library's threads had it.

    pip install "fastcnn[peers]"
    python benchmarks/waking.py

A library computes on two threads for 100 ms. Then fastcnn does, call after call. The script prints
how long it takes until calls have the speed of two threads and keep it, as the median and the
longest of many turns. It tries three ways. "none": as it is. "moment": before the first call the
worker is bound to the core on which the caller does not run, and freed at once. "calls": the worker
is bound so during each call. docs/benchmark-method.md has the answer.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Annotated, NamedTuple

import numpy as np
import typer

import fastcnn

SPELL = 0.1  # seconds of the other library, and the longest time that is looked at
FAST = 1.25  # a call has the speed of two threads if it takes less than so many times as long
IN_A_ROW = 3
WAYS = ("none", "moment", "calls")
_libc = ctypes.CDLL(None)


class Turn(NamedTuple):
    """Seconds until calls are fast, and seconds that all calls took longer than fast ones."""

    until_fast: float
    lost: float


def layer() -> Callable[[], object]:
    """A convolution of about a millisecond on two threads."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 56, 56, 64), np.float32)
    w = rng.standard_normal((3, 3, 64, 64), np.float32)
    return lambda: fastcnn.conv2d(x, w, padding=1, algorithm="direct")


def libraries() -> dict[str, Callable[[], object]]:
    """A call of each library that is installed, on two threads of its own."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal((512, 512), np.float32)
    calls: dict[str, Callable[[], object]] = {
        "nothing, asleep": partial(time.sleep, 1e-3),
        "NumPy's BLAS": lambda: a @ a,
    }
    try:
        import torch
    except ImportError:
        return calls
    torch.set_num_threads(2)
    x, w = torch.randn(1, 64, 56, 56), torch.randn(64, 64, 3, 3)
    calls["PyTorch"] = lambda: torch.nn.functional.conv2d(x, w, padding=1)
    try:
        import onnx
        import onnxruntime
        from onnx import helper, numpy_helper
    except ImportError:
        return calls
    value = partial(helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "net",
        [value("x", shape=list(x.shape))],
        [value("y", shape=list(x.shape))],
        [numpy_helper.from_array(w.numpy(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {"x": x.numpy()}
    calls["ONNX Runtime"] = lambda: session.run(None, feeds)
    return calls


def bind(cores: set[int]) -> None:
    """Let fastcnn's workers run on these cores alone."""
    for thread in threading.enumerate():
        if thread.name.startswith("fastcnn-") and thread.native_id is not None:
            os.sched_setaffinity(thread.native_id, cores)


def hint(cores: set[int]) -> None:
    """Bind fastcnn's workers to the cores on which the caller does not run, and free them."""
    bind(cores - {_libc.sched_getcpu()})
    bind(cores)


def for_a_spell(call: Callable[[], object]) -> list[tuple[float, float]]:
    """The end and the length of each call of a spell."""
    start = before = time.perf_counter()
    results = list[tuple[float, float]]()
    while before - start < SPELL:
        call()
        now = time.perf_counter()
        results.append((now - start, now - before))
        before = now
    return results


def turn(call: Callable[[], object], fast: float, cores: set[int], way: str) -> Turn:
    """fastcnn's calls after another library's."""

    def bound_call() -> None:
        bind(cores - {_libc.sched_getcpu()})
        call()
        bind(cores)

    if way == "moment":
        hint(cores)
    calls = for_a_spell(bound_call if way == "calls" else call)
    is_fast = [seconds <= FAST * fast for _, seconds in calls]
    for i in range(len(calls) - IN_A_ROW):
        if all(is_fast[i : i + IN_A_ROW]):
            until = calls[i][0] - calls[i][1]
            break
    else:
        until = SPELL
    return Turn(until, sum(max(0.0, seconds - fast) for _, seconds in calls))


def main(turns: Annotated[int, typer.Option(min=2, help="For each library.")] = 20) -> None:
    """Print the times."""
    cores = os.sched_getaffinity(0)
    if len(cores) != 2:
        raise SystemExit(f"this experiment is of two cores, got {len(cores)}")
    fastcnn.set_num_threads(2)
    call = layer()
    fast = min(seconds for _ in range(5) for _, seconds in for_a_spell(call))
    fastcnn.set_num_threads(1)
    slow = min(seconds for _, seconds in for_a_spell(call))
    fastcnn.set_num_threads(2)
    start = time.perf_counter()
    for _ in range(1000):
        hint(cores)
    cost = (time.perf_counter() - start) / 1000
    print(f"a call: {fast * 1e3:.2f} ms on two threads, {slow * 1e3:.2f} ms on one")
    print(f"the hint itself: {cost * 1e6:.1f} µs")
    print("after              hint    until fast, median  longest   lost, median")
    for name, other in libraries().items():
        results: dict[str, list[Turn]] = {way: [] for way in WAYS}
        for _ in range(turns):
            for way, mine in results.items():
                for_a_spell(other)
                mine.append(turn(call, fast, cores, way))
        for way, mine in results.items():
            until = [one.until_fast * 1e3 for one in mine]
            lost = median(one.lost for one in mine) * 1e3
            print(
                f"{name:18} {way:6}  {median(until):12.1f} ms {max(until):11.1f} ms {lost:11.1f} ms"
            )


if __name__ == "__main__":
    typer.run(main)
