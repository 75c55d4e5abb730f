"""Training on pictures that do not fit into the memory: speed beside memory, and the peak.

    python benchmarks/larger_than_memory.py make FOLDER --gigabytes 10
    python benchmarks/larger_than_memory.py epoch FOLDER
    python benchmarks/larger_than_memory.py epoch FOLDER --size 224 --cache OTHER-FOLDER
    python benchmarks/larger_than_memory.py speed FOLDER --net resnet

``make`` writes JPEG files, like photographs: smooth shapes under noise, about 0.6 MB each at
1600×1200 pixels. As encoding takes longer than writing, there are 48 different pictures, and each
file has a comment of its own, so that no two files are equal. Classes are folders.

``epoch`` trains one epoch over all files with ``lazy=True``, and prints the largest resident memory
of the process. With ``--cache`` it reads from a cache in that folder, which the first run makes.

``speed`` trains on some images in turn: read while the training runs, from a cache
(``load_images(cache=…)``), and from memory. It prints images a second, the median ratios to memory,
and how long reading alone takes with the same threads. ``--epochs`` makes the turns of a small net
long enough to measure.

Nets: "small" has one convolution; "resnet" is ResNet-18 at the size of the images.
"""

from __future__ import annotations

import io
import resource
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import numpy as np
import typer

import fastcnn
from fastcnn.layers import Conv2D, Dense, GlobalAvgPool2D, MaxPool2D

CLASSES, DIFFERENT = 4, 48
app = typer.Typer(add_completion=False)
Folder = Annotated[Path, typer.Argument(help="The folder of the pictures.")]
Net = Annotated[str, typer.Option(help="small or resnet.")]
Size = Annotated[int, typer.Option(min=8, help="The side of the images.")]


def photograph(seed: int, width: int) -> bytes:
    """A picture of 4:3 as the bytes of a JPEG file."""
    from PIL import Image

    rng, height = np.random.default_rng(seed), width * 3 // 4
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth, np.int16) + rng.normal(0, 9, (height, width, 1)).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


def numbered(picture: bytes, number: int) -> bytes:
    """The file with its number in a comment."""
    text = f"{number:012d}".encode()
    return picture[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + picture[2:]


@app.command()
def make(
    folder: Folder,
    gigabytes: Annotated[float, typer.Option(min=0.001, help="Size of the set.")] = 10.0,
    width: Annotated[int, typer.Option(min=32, help="Width of the pictures.")] = 1600,
) -> None:
    """Write the pictures."""
    pictures = [photograph(seed, width) for seed in range(DIFFERENT)]
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    written = number = 0
    while written < gigabytes * 1e9:
        file = numbered(pictures[number % DIFFERENT], number)
        (folder / f"class{number % CLASSES}" / f"{number:06d}.jpg").write_bytes(file)
        written, number = written + len(file), number + 1
    print(f"{number:,} files, {written / 1e9:.2f} GB")


def net_of(name: str, size: int) -> fastcnn.Sequential:
    """The net of this name for images of this side."""
    if name == "resnet":
        return fastcnn.nets.resnet18(CLASSES, (size, size, 3))
    layers = [Conv2D(16, 3, activation="relu"), MaxPool2D(), GlobalAvgPool2D(), Dense(CLASSES)]
    return fastcnn.Sequential(layers, (size, size, 3), seed=0)


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@app.command()
def epoch(
    folder: Folder,
    net: Net = "small",
    size: Size = 64,
    batch: Annotated[int, typer.Option(min=1, help="Samples to a batch.")] = 32,
    cache: Annotated[Path | None, typer.Option(help="The folder of a cache.")] = None,
) -> None:
    """Train one epoch, and print the largest resident memory."""
    begin = perf_counter()
    has_cache = cache is not None
    images = fastcnn.load_images(folder, size, lazy=True, check=has_cache, cache=cache)
    total = sum(Path(file).stat().st_size for file in images.files)
    if cache is not None:
        written = sum(file.stat().st_size for file in cache.iterdir())
        seconds = perf_counter() - begin
        print(f"cache: {written:,} bytes, opened after {seconds:.1f} s, {peak() / 1e6:.0f} MB")
    model = net_of(net, size)
    begin = perf_counter()
    model.fit(images, batch_size=batch, optimizer="adam", seed=0, verbose=0)
    seconds = perf_counter() - begin
    print(
        f"{len(images):,} files of {total / 1e9:.2f} GB in {seconds:.0f} s, "
        f"{len(images) / seconds:.0f} images/s; peak {peak() / 1e6:.0f} MB"
    )


@app.command()
def speed(
    folder: Folder,
    net: Net = "resnet",
    size: Size = 96,
    images: Annotated[int, typer.Option(min=64, help="Images to a turn.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Samples to a batch.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a turn, but of files one.")] = 1,
) -> None:
    """Train in turn on images from files and from memory."""
    whole = fastcnn.load_images(folder, size, lazy=True, check=False)
    rows = np.linspace(0, len(whole) - 1, images).astype(int)
    lazy = whole.subset(rows)
    with TemporaryDirectory() as cache:
        cached = fastcnn.load_images(folder, size, lazy=True, cache=cache).subset(rows)
        _speed(net, size, batch, rounds, epochs, lazy, cached)


def _speed(
    net: str,
    size: int,
    batch: int,
    rounds: int,
    epochs: int,
    lazy: fastcnn.ImageSet,
    cached: fastcnn.ImageSet,
) -> None:
    """Train in turns, and print the speeds."""
    begin = perf_counter()
    pixels = lazy.images[:]
    reading = perf_counter() - begin
    in_memory = fastcnn.ImageSet(pixels, lazy.labels, lazy.classes, lazy.files)
    model = net_of(net, size)
    sources = {"memory": in_memory, "cache": cached, "files": lazy}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(rounds + 1):
        for name, source in sources.items():
            each = 1 if name == "files" else epochs
            begin = perf_counter()
            model.fit(source, epochs=each, batch_size=batch, optimizer="adam", seed=0, verbose=0)
            if number:  # the first turn compiles
                seconds[name].append((perf_counter() - begin) / each)
    print(f"{net} at {size}×{size}; reading alone {len(lazy) / reading:.0f} images/s")
    for name, times in seconds.items():
        ratio = median(a / b for a, b in zip(seconds["memory"], times, strict=True))
        print(f"  from {name}: {len(lazy) / min(times):,.0f} images/s, {ratio:.2f} of memory")


if __name__ == "__main__":
    app()
