"""``fastcnn export``: a model as a page to draw on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.evaluate import Model
from fastcnn.cli.options import AsJson, check_output
from fastcnn.cli.outcomes import plain_errors
from fastcnn.cli.reading import LayoutOption, Reading, ScalingOption, SizeOption, reading_of


class Weights(StrEnum):
    """The numbers of the weights on the page."""

    float64 = "float64"
    float32 = "float32"
    float16 = "float16"


def export(
    model: Model,
    html: Annotated[
        Path,
        typer.Option("--html", metavar="FILE", help="The HTML file to write.", show_default=False),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...", help="A name for each class. Default: the model's own."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A data set whose test pictures the page offers, one of each class. Default: the "
            "bundled MNIST for a model of its digits, else none.",
        ),
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="Default: the model's dtype. float16 makes the file smaller, and changes results "
            "by about 0.1 %."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the page.")] = None,
    scaling: ScalingOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    as_json: AsJson = False,
) -> None:
    """Export a saved model as an HTML page on which one draws.

    The page is one file that needs no server. The model runs in it, and shows its probabilities and
    the feature maps of each layer while one draws. Pictures that are dropped on it are prepared as
    `fastcnn predict` prepares them. An ONNX file of another program needs --scaling, unless it
    takes bytes.
    """
    with plain_errors():
        check_output("--html", html)
        net = _opened(model, reading_of(scaling, size, layout))
        facts = _exported(net, model, html, classes, data, weights and weights.value, title)
        if as_json:
            from json import dumps

            typer.echo(dumps(facts, indent=2))
            return
        shape = "×".join(map(str, facts["input"]))
        typer.echo(
            f"{facts['file']}: {facts['bytes']:,} bytes, {facts['layers']} layers, input {shape}, "
            f"{len(facts['classes'])} classes, {facts['samples']} samples"
        )
        typer.echo("Open it in a browser, and draw.")


def _opened(path: Path, reading: Reading) -> Any:
    """The model; the page gives it red, green, blue."""
    from fastcnn.cli.picture_net import PictureNet

    net = PictureNet(path, reading)
    if net.is_bgr:
        raise ValueError("MODEL must take red, green, blue, because the page does, and takes BGR")
    return net.model


def _exported(
    net: Any,
    source: Path,
    path: Path,
    classes: str | None,
    data: Path | None,
    weights: Any,
    title: str | None,
) -> dict[str, Any]:
    from fastcnn.core.files import write_whole
    from fastcnn.exchange.html_export import described, page_of

    names = None if classes is None else [name.strip() for name in classes.split(",")]
    samples = None
    if data is not None:
        samples, names_of_set = _samples(data, net)
        names = names or names_of_set
    description = described(net, samples, names, weights)
    write_whole(path, page_of(description, title or source.stem).encode("utf-8"))
    return {
        "model": str(source),
        "file": str(path),
        "bytes": path.stat().st_size,
        "layers": len(description["layers"]),
        "input": description["input"],
        "classes": description["classes"],
        "samples": description["samples"]["count"] if description["samples"]["shown"] else 0,
    }


def _samples(folder: Path, net: Any) -> tuple[Any, list[str] | None]:
    """The first test picture of each class, and the classes' names where the data set has some."""
    import numpy as np

    from fastcnn.data.datasets import form_of, load_dataset
    from fastcnn.models.described import picture_shape

    size = picture_shape(net)[:2] if form_of(folder) == "pictures" else None
    dataset = load_dataset(folder, size)
    images, labels = dataset.test
    _, first = np.unique(labels, return_index=True)
    return images[first], None if net.classes else list(dataset.names) or None
