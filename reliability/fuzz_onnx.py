"""Damaged and hostile ONNX files: a model or an OnnxFileError, in bounded time.

    python reliability/fuzz_onnx.py
    python reliability/fuzz_onnx.py --rounds 20000 --seed 1

Files of small nets, with flipped bits, bytes and whole stretches replaced, or cut off; and with the
names, attributes, shapes and numbers of their nodes replaced by others, as whoever means harm
would. Each is loaded by load_onnx. It becomes a model, or is refused. A model then predicts two
samples, or says why it cannot.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from onnx import helper, numpy_helper

import fastcnn
from fastcnn.exchange.onnx_reading import OPERATORS

SECONDS = 20.0
"""A file may take so long at most."""
MOST_NUMBERS = 1 << 20
"""Numbers of the largest sample that is predicted."""
NUMBERS = (0, 1, -1, 2, 7, -(2**31), 2**31, 2**40, 2**62)
NAMES = ("x", "y", "c", "r", "w", "", "none")


def seed_model() -> Any:
    """A small net with many kinds of attributes."""
    w = np.ones((4, 2, 3, 3), np.float32)
    constants = {"w": w, "v": np.ones((64, 3), np.float32), "s": np.array([0, -1])}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "s"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", 1, ["N", 2, 8, 8])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def complaint(path: Path) -> str | None:
    """What is wrong with how a file is read; None if nothing is."""
    start = perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = fastcnn.load_onnx(path)
    except fastcnn.OnnxFileError:
        model = None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    seconds = perf_counter() - start
    if seconds > SECONDS:
        return f"{seconds:.0f} s"
    if model is not None and prod(model.input_shape) <= MOST_NUMBERS:
        try:
            model.predict(np.zeros((2, *model.input_shape), np.float32))
        except (ValueError, TypeError):  # the file takes other samples or another batch
            pass
        except Exception as error:
            return f"in predict: {type(error).__name__}: {error}"
    return None


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with some bytes changed, or cut off."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(len(result))), int(rng.integers(3))
        if kind == 0:
            result[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            result[at : at + 8] = rng.integers(0, 256, len(result[at : at + 8]), np.uint8).tobytes()
        else:
            del result[max(1, at) :]
    return bytes(result)


def confused(rng: np.random.Generator) -> bytes:
    """The net with parts of what it says replaced."""
    model = seed_model()
    for _ in range(int(rng.integers(1, 3))):
        node = model.graph.node[int(rng.integers(len(model.graph.node)))]
        kind = int(rng.integers(6))
        if kind == 0 and node.input:
            node.input[int(rng.integers(len(node.input)))] = str(rng.choice(NAMES))
        elif kind == 1:
            node.output[0] = str(rng.choice(NAMES))
        elif kind == 2:
            others = sorted(OPERATORS)
            node.op_type = str(rng.choice(others))
        elif kind == 3 and node.attribute:
            attribute = node.attribute[int(rng.integers(len(node.attribute)))]
            attribute.ints[:] = [int(rng.choice(NUMBERS)) for _ in attribute.ints]
            attribute.i = int(rng.choice(NUMBERS))
        elif kind == 4:
            tensor = model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
            tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice(NUMBERS))
        else:
            dims = model.graph.input[0].type.tensor_type.shape.dim
            dims[int(rng.integers(len(dims)))].dim_value = int(rng.choice(NUMBERS))
    data: bytes = model.SerializeToString()
    return data


def failures(rounds: int, seed: int, folder: Path) -> Iterator[str]:
    """Each file that is not read as it should be, and what is wrong."""
    path, whole = folder / "net.onnx", seed_model().SerializeToString()
    for number in range(rounds):
        rng = np.random.default_rng([seed, number])
        path.write_bytes(confused(rng) if number % 2 else damaged(whole, rng))
        if wrong := complaint(path):
            yield f"round {number} (seed {seed}): {wrong}"


def main(
    rounds: Annotated[int, typer.Option(help="Of damage.")] = 5000,
    seed: Annotated[int, typer.Option(help="Another seed, other damage.")] = 0,
) -> None:
    """Read damaged and hostile ONNX files."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for line in failures(rounds, seed, Path(folder)):
            failed += 1
            if failed < 30:
                print(line, flush=True)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
