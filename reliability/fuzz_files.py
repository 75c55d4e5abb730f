"""Damaged and hostile files: the one documented error for each kind, in bounded memory and time.

    python reliability/fuzz_files.py                      some minutes
    python reliability/fuzz_files.py --kind model --rounds 20000

Models, checkpoints, weights of PyTorch (safetensors, and a zip file with a pickle, whole and in an
archive with right checksums), data sets (IDX, plain and gzip, and .npz), PNG and JPEG pictures:
truncated at every length; with flipped bits, bytes and whole stretches replaced; with numbers in
headers made huge. Models and checkpoints also with any part of what they say replaced by nonsense,
signed with the right checksum, as whoever means harm would. A file is read, or it is refused with
the error of its kind: ModelFileError, DatasetError, PictureError.
"""

from __future__ import annotations

import gzip
import json
import resource
import struct
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated, Any

import numpy as np
import typer
from safetensors.numpy import save

import fastcnn
from fastcnn.data.datasets import DatasetError
from fastcnn.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, Residual
from fastcnn.models.sequential import Sequential, load_model
from fastcnn.optimizers import Adam
from fastcnn.pictures import PictureError, prepare
from fastcnn.schedules import OneCycle
from fastcnn.train import checkpoint
from fastcnn.train.checkpoint import ModelFileError

SECONDS = 10.0  # of computing for one file
MEGABYTES = 400  # that all files together may add to the largest size of the process

LAYER = '{"class": "Flatten", "config": {}}'
"""A layer in as few characters as may be."""

NONSENSE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3.5, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -1e308,
    float("nan"), float("inf"), "", "x", "Dense", "../../etc/passwd", "\0", "é" * 1000, [], [1],
    [[]], [None] * 3, [1] * 1000, {}, {"class": "Dense"}, {"class": "Dense", "config": {}},
)  # fmt: skip


Errors = type[Exception] | tuple[type[Exception], ...]


class Kind:
    """A kind of file: how it is read, and the error that it is refused with."""

    def __init__(self, read: Callable[[Path], object], error: Errors, name: str) -> None:
        self.read, self.error, self.name = read, error, name


def read_model(path: Path) -> None:
    """Load, and use what code of others was given: the generator."""
    model = load_model(path)
    model.rng.random(700)
    repr(model)


def _read_data(path: Path) -> None:
    fastcnn.load_mnist(path.parent)


def _read_pictures(path: Path) -> None:
    fastcnn.load_pictures(path.parent.parent)


def trained() -> Sequential:
    """A small model with all kinds of state, trained a little."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 6, 5), dtype=np.uint8), rng.integers(3, size=20)
    layers = [
        Conv2D(3, (3, 2)),
        Residual([Conv2D(3, 1), BatchNorm()]),
        Flatten(),
        Dropout(0.2),
        Dense(3),
    ]
    model = Sequential(layers, seed=0)
    model.fit(x, y, 1, 8, Adam(OneCycle(0.01)), verbose=0)
    return model


def _idx(array: Any) -> bytes:
    return struct.pack(f">2x2B{array.ndim}I", 8, array.ndim, *array.shape) + array.tobytes()


def files(folder: Path) -> dict[str, tuple[Kind, Path]]:
    """A whole file of each kind."""
    rng = np.random.default_rng(0)
    result: dict[str, tuple[Kind, Path]] = {}
    model = trained()
    for name in ("model", "checkpoint"):
        path = folder / f"{name}.safetensors"
        (model.save if name == "model" else model.save_checkpoint)(path)
        result[name] = Kind(read_model, ModelFileError, name), path
    for name, ending in (("idx", ""), ("gzip", ".gz")):
        place = folder / name
        place.mkdir()
        for part in ("train", "t10k"):
            images = rng.integers(0, 256, (4, 5, 6), dtype=np.uint8)
            labels = rng.integers(0, 10, 4, dtype=np.uint8)
            for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
                contents = _idx(array)
                contents = gzip.compress(contents) if ending else contents
                (place / f"{part}-{kind}-ubyte{ending}").write_bytes(contents)
        for part in ("images-idx3", "labels-idx1"):
            path = place / f"train-{part}-ubyte{ending}"
            result[f"{name}-{part[:6]}"] = Kind(_read_data, DatasetError, name), path
    result |= _weights(folder)
    path = folder / "arrays.npz"
    names = "x_train", "y_train", "x_test", "y_test"
    arrays = dict(zip(names, (images, labels, images, labels), strict=True))
    np.savez_compressed(path, **arrays)
    result["npz"] = Kind(fastcnn.load_mnist, DatasetError, "npz"), path
    try:
        from PIL import Image
    except ImportError:
        return result
    pixels = np.kron(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    for name in ("png", "jpeg"):
        path, memory = folder / f"picture.{name}", BytesIO()
        Image.fromarray(pixels).save(memory, name)
        path.write_bytes(memory.getvalue())
        result[name] = Kind(prepare, PictureError, name), path
    path, memory = folder / "progressive.jpeg", BytesIO()
    Image.fromarray(pixels).save(memory, "jpeg", progressive=True)
    path.write_bytes(memory.getvalue())
    result["progressive"] = Kind(prepare, PictureError, "jpeg"), path
    path = folder / "pictures" / "one" / "picture.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(pixels).save(path)
    result["pictures"] = Kind(_read_pictures, (PictureError, DatasetError), "png"), path
    return result


_PICKLE = (
    b"\x80\x02ccollections\nOrderedDict\nq\x00)R(X\x09\x00\x00\x00fc.weightctorch._utils\n"
    b"_rebuild_tensor_v2\nq\x01((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK\x0ctQK\x02(K\x02K\x05t(K\x05K\x01t\x89h\x00)RtRX\x07\x00\x00\x00fc.bias"
    b"h\x01((X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x001X\x03\x00\x00\x00cpuM\x03\x00tQ"
    b"J\x00\x00\x00\x00K\x03\x85K\x01\x85\x89h\x00)RtRu}X\x09\x00\x00\x00_metadata]sb."
)
"""The pickle of a state dictionary with two tensors, as PyTorch writes it."""


def _archive(path: Path, described: bytes) -> None:
    """What PyTorch writes of a state dictionary, with this pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", described)
        file.writestr("net/byteorder", b"little")
        file.writestr("net/data/0", np.arange(12, dtype=np.float32).tobytes())
        file.writestr("net/data/1", np.arange(3, dtype=np.float16).tobytes())


def _read_pickle(path: Path) -> None:
    """Read the weights of a pickle in a whole archive, whose checksums are right."""
    archive = path.with_suffix(".pt")
    _archive(archive, path.read_bytes())
    fastcnn.read_weights(archive)


def _weights(folder: Path) -> dict[str, tuple[Kind, Path]]:
    """Files of weights, and the pickle of one."""
    errors = (ModelFileError,)  # in a tuple, because they are no models
    archive, described = folder / "state.pt", folder / "described"
    _archive(archive, _PICKLE)
    described.write_bytes(_PICKLE)
    arrays = {"fc.weight": np.ones((2, 5), np.float32), "fc.bias": np.zeros(2, np.float16)}
    path = folder / "weights.safetensors"
    path.write_bytes(save(arrays))
    return {
        "weights": (Kind(fastcnn.read_weights, errors, "weights"), path),
        "torch": (Kind(fastcnn.read_weights, errors, "torch"), archive),
        "pickle": (Kind(_read_pickle, errors, "pickle"), described),
    }


def spoilt(whole: bytes, rng: np.random.Generator) -> bytes:
    """The contents with something wrong."""
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data)))
        kind = int(rng.integers(7))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.integers(256))
        elif kind == 2:
            data[at : at + 8] = struct.pack("<Q", int(rng.choice([0, 2**31, 2**63 - 1, 10**12])))
        elif kind == 3:
            data[at : at + 4] = struct.pack(">I", int(rng.choice([0, 2**31, 2**32 - 1, 10**6])))
        elif kind == 4:
            del data[at : at + int(rng.integers(1, 30))]
        elif kind == 5:
            data[at:at] = rng.bytes(int(rng.integers(1, 30)))
        else:
            data[at : at + 20] = rng.bytes(20)
        if not data:
            break
    return bytes(data)


def confused(told: Any, rng: np.random.Generator) -> Any:
    """What JSON says, with one of its parts replaced, removed or doubled."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    told = json.loads(json.dumps(told))
    walk(told)
    node, key = places[int(rng.integers(len(places)))]
    kind = int(rng.integers(8))
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, list):
        node.insert(key, node[key])
    elif kind == 2:
        other, name = places[int(rng.integers(len(places)))]
        node[key] = json.loads(json.dumps(other[name]))
    else:
        node[key] = NONSENSE[int(rng.integers(len(NONSENSE)))]
    return told


def huge(path: Path, size: int) -> Iterator[str]:
    """Model files whose header says very much, in ``size`` characters; the name of each."""
    path.unlink(missing_ok=True)
    Sequential([Dense(2)], (3,)).save(path)
    file = checkpoint.read(path)
    arrays = file.arrays()
    told = json.dumps({**file.model, "more": "HERE"})
    layers = json.dumps({**file.model, "layers": "HERE"})
    for name, text in [
        ("lists", told.replace('"HERE"', "[" + "[]," * (size // 3) + "0]")),
        ("depth", told.replace('"HERE"', "[" * size)),
        ("digits", told.replace('"HERE"', "9" * size)),
        ("strings", told.replace('"HERE"', '"' + "x" * size + '"')),
        ("layers", layers.replace('"HERE"', f"[{LAYER}{f',{LAYER}' * (size // len(LAYER))}]")),
    ]:
        metadata = {
            "format": checkpoint.FORMAT,
            "version": str(checkpoint.VERSION),
            "model": text,
            "sha256": checkpoint._digest(text, arrays, arrays.__getitem__),
        }
        path.write_bytes(save(arrays, metadata))
        yield name


def complaint(kind: Kind, path: Path) -> str | None:
    """Read a file; what was not as it should be."""
    start = process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(path)
    except kind.error as error:
        if path.name not in str(error) and kind.error is not DatasetError:
            return f"the message does not name the file: {error}"
    except Exception as error:
        return f"raises {error!r:.300}, not {kind.error}"
    seconds = process_time() - start
    return f"took {seconds:.1f} s" if seconds > SECONDS else None


def damages(
    kind: Kind, path: Path, rounds: int, seed: int, truncate: bool = True
) -> Iterator[tuple[str, str]]:
    """Every truncation, random damage, and nonsense that is signed: what went wrong, and where."""
    whole = path.read_bytes()
    try:
        for size in range(len(whole) if truncate else 0):
            path.write_bytes(whole[:size])
            if wrong := complaint(kind, path):
                yield f"the first {size} bytes", wrong
        for number in range(rounds):
            path.write_bytes(spoilt(whole, np.random.default_rng([seed, number])))
            if wrong := complaint(kind, path):
                yield f"damage {number}", wrong
        if kind.error is ModelFileError:
            path.write_bytes(whole)
            file = checkpoint.read(path)
            arrays = file.arrays()
            for number in range(rounds):
                rng = np.random.default_rng([seed, 1, number])
                checkpoint.write(path, confused(file.model, rng), arrays)
                if wrong := complaint(kind, path):
                    yield f"nonsense {number}", wrong
    finally:
        path.write_bytes(whole)


def main(
    rounds: Annotated[int, typer.Option(help="Of damage to each file.")] = 3000,
    seed: Annotated[int, typer.Option(help="Another seed, other damage.")] = 0,
    kind: Annotated[list[str] | None, typer.Option(help="These kinds only.")] = None,
) -> None:
    """Read damaged and hostile files."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (one, path) in files(Path(folder)).items():
            if kind and name not in kind:
                continue
            start, before = perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for what, wrong in damages(one, path, rounds, seed):
                failed += 1
                if failed < 30:
                    print(f"{name}, {what} (seed {seed}): {wrong}", flush=True)
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            print(f"{name}: {perf_counter() - start:.0f} s, {more} MiB more", flush=True)
            if more > MEGABYTES:
                failed += 1
                print(f"{name}: that is too much")
        if not kind or "huge" in kind:
            path = Path(folder) / "huge"
            one = Kind(read_model, ModelFileError, "huge")
            for size in (12 << 20, 40 << 20):
                for name in huge(path, size):
                    start, wrong = perf_counter(), complaint(one, path)
                    print(f"{size >> 20} MiB of {name}: {perf_counter() - start:.1f} s", flush=True)
                    if wrong:
                        failed += 1
                        print(f"    {wrong}", flush=True)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
