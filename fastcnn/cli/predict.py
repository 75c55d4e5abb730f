"""``fastcnn predict``: the classes of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcnn.cli.evaluate import Model
from fastcnn.cli.options import AsJson
from fastcnn.cli.outcomes import BAD_ARGUMENT, plain_errors, report
from fastcnn.cli.reading import (
    BgrOption,
    LayoutOption,
    NamesOption,
    ScalingOption,
    SizeOption,
    reading_of,
)
from fastcnn.core.quoting import shortened

if TYPE_CHECKING:
    from fastcnn.cli.picture_net import PictureNet

_NAME = 20  # characters of a class's name in the table
_MOST_BARS = 32  # of more classes the _BEST most probable are shown
_BEST = 10
_BAR = 30  # characters of a probability of 1


def predict(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Pictures of any size, or a folder of them."),
    ],
    scaling: ScalingOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    bgr: BgrOption = False,
    classes: NamesOption = None,
    as_json: AsJson = False,
) -> None:
    """Predict the classes of pictures, such as digits.

    A picture is prepared like the model's training pictures: MNIST's digits are cropped and
    centred, clothes that fill the picture are not. Light on dark and dark on light are the same
    to a model that knows its background. The output shows each step of the preparation, and
    the probability of each class. Pictures that cannot be read are reported, and the others are
    still read. The exit code is then 2. Of a single folder each picture has one line.

    An ONNX file of another program needs --scaling, because it does not say how bytes become the
    floats that its net takes.
    """
    with plain_errors():
        from fastcnn.cli.characters import terminal_width
        from fastcnn.cli.compiling import compile_kernels
        from fastcnn.cli.picture_net import PictureNet

        net = PictureNet(model, reading_of(scaling, size, layout, bgr, classes))
        compile_kernels(net.model, training=False)
        predictions, failed = [], False
        for path in _files(images):
            try:
                predictions.append(prediction(net, path))
            except (ValueError, OSError) as error:
                failed = True
                report(error)
                continue
            if not as_json:
                briefly = len(images) == 1 and images[0].is_dir()
                lines = prediction_lines(predictions[-1], terminal_width())
                for line in lines[:1] if briefly else [*lines, ""]:
                    typer.echo(line)
        if as_json:
            from json import dumps

            entries = [{k: v for k, v in one.items() if k != "pixels"} for one in predictions]
            typer.echo(dumps(entries, indent=2))
    if failed:
        raise typer.Exit(BAD_ARGUMENT)


def _files(paths: list[Path]) -> Iterator[Path]:
    """The files among the paths, and all pictures in the folders among them and in those inside."""
    from fastcnn.data.pictures import ENDINGS

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = [
            one
            for one in sorted(path.rglob("*"))
            if one.suffix.lower() in ENDINGS and one.is_file() and one.name[0] != "."
        ]
        if not files:
            raise ValueError(f"the folder {path} holds no pictures ({', '.join(ENDINGS)})")
        yield from files


def prediction(net: PictureNet, path: Path) -> dict[str, Any]:
    """The classes of a picture, the steps of its preparation, and its pixels (H, W, C)."""
    import numpy as np

    from fastcnn.data.pictures import prepare

    model = net.model
    prepared = prepare(path, net.shape, model.preparation)
    (probabilities,) = net.outputs(prepared.pixels[None])
    steps = [*prepared.steps]
    is_lone = len(probabilities) == 1  # the probability of the second of two classes
    if probabilities.min() < 0 or probabilities.max() > 1:
        from fastcnn.ops import softmax

        if is_lone:
            probabilities = np.array([0, probabilities[0]], probabilities.dtype)
        probabilities = softmax(probabilities[None])[0]
        steps.append("the model gives scores; the probabilities are their softmax")
    elif is_lone:
        probabilities = np.array([1 - probabilities[0], probabilities[0]])
    if model.preparation is None:
        how = "one of MNIST's digits" if net.shape[2] == 1 else "a photograph"
        steps.append(f"in doubt: the model does not say how to prepare a picture; taken as {how}")
    if model.trained_on is None:
        steps.append("in doubt: the model does not say whether it was trained on bytes")
    best = int(probabilities.argmax())
    names = {} if model.classes is None else {"names": list(model.classes)}
    return {
        "file": str(path),
        "class": best,
        "name": model.class_name(best),
        **names,
        "probabilities": [float(p) for p in probabilities],
        "steps": steps,
        "pixels": prepared.pixels,
    }


def prediction_lines(one: dict[str, Any], width: int) -> list[str]:
    """A prediction for a terminal of this width: the class, the steps, the picture and bars."""
    from fastcnn.cli.characters import shaded, wrapped

    probabilities = one["probabilities"]
    lines = [f"{one['file']}: {one['name']} ({probabilities[one['class']]:.2%})"]
    for step in one["steps"]:
        lines += wrapped(step, width)
    names = one.get("names") or [str(i) for i in range(len(probabilities))]
    classes = list(range(len(probabilities)))
    if len(classes) > _MOST_BARS:
        classes = sorted(classes, key=lambda i: float(-probabilities[i]))[:_BEST]
    labels = [shortened(names[i], _NAME) for i in classes]
    space = max(3, *map(len, labels))
    # A bar needs some characters beside the picture.
    pixels = shaded(one["pixels"].mean(axis=2), max(8, width - space - 22), 0, 255)
    room = min(_BAR, max(4, width - len(pixels[0]) - space - 13))
    bars = [
        f"{label:>{space}} {probability:>8.2%} {'█' * round(room * probability)}".rstrip()
        for label, probability in zip(labels, (probabilities[i] for i in classes), strict=True)
    ]
    rows = max(len(pixels), len(bars))
    top = (rows - len(bars)) // 2
    for i in range(rows):
        row = pixels[i] if i < len(pixels) else ""
        bar = bars[i - top] if top <= i < top + len(bars) else ""
        lines.append(f"  {row:<{len(pixels[0])}} {bar}".rstrip())
    return lines
