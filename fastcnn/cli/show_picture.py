"""``fastcnn show MODEL IMAGE``: how a model sees a picture, in characters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import typer

from fastcnn.cli.characters import shaded, strip, terminal_width
from fastcnn.cli.predict import prediction, prediction_lines
from fastcnn.core.arguments import Array
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import shortened

if TYPE_CHECKING:
    from fastcnn.cli.picture_net import PictureNet
    from fastcnn.models.model import Model

_MAP = 18  # columns of a feature map at most
_LINES = 2  # lines of a vector at most


class _Layer(NamedTuple):
    """What a layer makes of the picture: (H, W, channels) or (features,)."""

    name: str
    values: Array


def show_picture(net: PictureNet, path: Path, as_json: bool) -> None:
    """Print the picture, its preparation, the probabilities, and what each layer makes of it."""
    from fastcnn.cli.compiling import compile_kernels

    compile_kernels(net.model, training=False)
    one = prediction(net, path)
    layers = _layers(net.model, net.batch_of(one["pixels"]))
    if as_json:
        from json import dumps

        entry = {key: value for key, value in one.items() if key != "pixels"}
        typer.echo(dumps({**entry, "layers": [_facts(layer) for layer in layers]}, indent=2))
        return
    width = terminal_width()
    for line in (*prediction_lines(one, width), ""):
        typer.echo(line)
    for layer in layers:
        for line in _lines(layer, width):
            typer.echo(line)


def _layers(model: Model, images: Array) -> list[_Layer]:
    """The results of all layers, but for those that only change the shape of the one before."""
    from fastcnn.models.summary import value_names

    graph = model._graph
    calls = [node for node in graph.nodes if type(node.layer).__name__ not in _WITHOUT_NEWS]
    names = value_names(graph, model._input_names())
    named = [names[node.output] for node in calls]
    arrays = model.activations(images, named) if named else []
    return [_Layer(name, array[0]) for name, array in zip(named, arrays, strict=True)]


_WITHOUT_NEWS = ("Dropout", "Flatten", "Reshape", "Permute")


def _facts(layer: _Layer) -> JsonObject:
    values = layer.values
    return {
        "name": layer.name,
        "shape": list(values.shape),
        "least": float(values.min()),
        "mean": float(values.mean(dtype=np.float64)),
        "greatest": float(values.max()),
    }


def _lines(layer: _Layer, width: int) -> list[str]:
    values = np.asarray(layer.values, np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    shape = "×".join(map(str, values.shape))
    head = f"{shortened(layer.name, width - 30)}  {shape}  {low:.3g} to {high:.3g}"
    if values.ndim == 1:
        bars = strip(values, width - 2, low, high)
        limit = "" if len(bars) <= _LINES else "  (the first ones)"
        return [head + limit, *(f"  {bar}".rstrip() for bar in bars[:_LINES]), ""]
    return [*_head_of_maps(head, values, width), *_maps(values, width, low, high), ""]


def _columns_of_map(values: Array) -> int:
    factor = -(-values.shape[1] // _MAP)
    return int(-(-values.shape[1] // factor))


def _shown(values: Array, width: int) -> list[int]:
    """The channels that vary most, as many as fit in a line, in order."""
    most = max(1, (width - 2) // (_columns_of_map(values) + 2))
    ranges = np.nan_to_num(np.ptp(values.reshape(-1, values.shape[2]), axis=0))
    return sorted(np.argsort(-ranges, kind="stable")[:most].tolist())


def _head_of_maps(head: str, values: Array, width: int) -> list[str]:
    count, total = len(_shown(values, width)), values.shape[2]
    if count == total:
        return [head]
    return [head, f"  the {count} of {total} channels that vary most:"]


def _maps(values: Array, width: int, low: float, high: float) -> list[str]:
    """Some channels beside each other, each under its number."""
    channels = _shown(values, width)
    columns = _columns_of_map(values)
    maps = [shaded(values[..., channel], _MAP, low, high) for channel in channels]
    space = max(columns, max(len(str(channel)) for channel in channels))
    lines = ["  ".join(f"{channel:<{space}}" for channel in channels)]
    for parts in zip(*maps, strict=True):
        lines.append("  ".join(f"{part:<{space}}" for part in parts))
    return [f"  {line}".rstrip() for line in lines]
