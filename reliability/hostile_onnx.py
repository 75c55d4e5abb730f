"""ONNX files made to cost much: each is read or refused, and the time and memory are printed.

    python reliability/hostile_onnx.py

A million nodes, a cycle, graphs inside of graphs, shapes of 10²⁴ numbers, repetitions of
repetitions, and external data behind paths, links, folders and pipes. Each file is read in a
process of its own, on Linux. A file fails if it takes more than 60 s of computing or 1.5 GiB of
memory, or raises something else than an OnnxFileError.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time

import numpy as np
import typer
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import fastcnn

SECONDS, MEBIBYTES = 60.0, 1536


def write(
    path: Path, nodes: Sequence[NodeProto], tensors: Sequence[TensorProto] = (), output: str = "y"
) -> Path:
    """A file of these nodes and constants."""

    def value(name: str, shape: list[str | int] | None) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, "net", [value("x", ["N", 3])], [value(output, None)], list(tensors)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    return path


def row(operator: str, count: int, *constants: str) -> list[NodeProto]:
    """So many nodes of an operator, each of which takes the output of the one before."""
    names = ["x", *(f"v{i}" for i in range(count - 1)), "y"]
    return [
        helper.make_node(operator, [names[i], *constants], [names[i + 1]]) for i in range(count)
    ]


def files(folder: Path) -> Iterator[Path]:
    """The hostile files, one after the other."""
    for count in (1_000_000, 200_000, 10_000):
        yield write(folder / f"{count}_nodes.onnx", row("Relu", count))
    cycle = row("Relu", 1000)
    cycle[0].input[0] = "v500"
    yield write(folder / "cycle.onnx", cycle)
    inner = [helper.make_node("Identity", ["x"], ["z"])]
    for _ in range(22):
        result = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
        graph = helper.make_graph(inner, "inside", [], [result])
        inner = [helper.make_node("If", ["c"], ["z"], then_branch=graph)]
    yield write(folder / "graphs_in_graphs.onnx", inner, output="z")
    product = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    yield write(
        folder / "huge_tensor.onnx", product,
        [TensorProto(name="w", data_type=1, dims=[1 << 40, 1 << 40])],
    )  # fmt: skip
    sizes = numpy_helper.from_array(np.array([1 << 20, 1 << 20, 1 << 10]), "s")
    fill = [helper.make_node("ConstantOfShape", ["s"], ["k"]),
            helper.make_node("Add", ["x", "k"], ["y"])]  # fmt: skip
    yield write(folder / "huge_constant.onnx", fill, [sizes])
    times = numpy_helper.from_array(np.array([1, 64]), "s")
    yield write(folder / "repetitions.onnx", row("Tile", 30, "s"), [times])
    os.symlink("/etc/passwd", folder / "link")
    os.mkfifo(folder / "pipe")
    for name, location in (
        ("above", "../secret"), ("absolute", "/etc/passwd"), ("link", "link"), ("folder", "."),
        ("pipe", "pipe"),
    ):  # fmt: skip
        tensor = TensorProto(name="w", data_type=1, dims=[3, 4], data_location=1)
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location
        yield write(folder / f"external_{name}.onnx", product, [tensor])


def peak() -> int:
    """The largest memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) >> 10


def read(path: str) -> None:
    """Read a file in this process; print what it takes."""
    before, start, outcome = peak(), process_time(), "read"
    try:
        fastcnn.load_onnx(path)
    except fastcnn.OnnxFileError as error:
        outcome = f"refused: {str(error).removeprefix(repr(path) + ': ')[:120]}"
    seconds, growth = process_time() - start, peak() - before
    print(f"{seconds:.2f} s, {growth} MiB, {outcome}")
    sys.exit(seconds > SECONDS or growth > MEBIBYTES)


def main() -> None:
    """Read each file in a process of its own."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in files(Path(folder)):
            command = [sys.executable, __file__, str(path)]
            done = subprocess.run(command, capture_output=True, text=True)
            failed += done.returncode != 0
            print(f"{path.stem}: {done.stdout.strip() or done.stderr[-300:]}", flush=True)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        read(sys.argv[1])
    else:
        typer.run(main)
