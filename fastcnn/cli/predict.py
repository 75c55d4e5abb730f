"""``fastcnn predict``: the classes of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.evaluate import Model
from fastcnn.cli.models import takes_floats
from fastcnn.cli.options import AsJson
from fastcnn.cli.outcomes import BAD_ARGUMENT, plain_errors, report
from fastcnn.core.quoting import shortened

_NAME = 20  # characters of a class's name in the table
_BAR = 30  # characters of a probability of 1


def predict(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Pictures of any size, or a folder of them."),
    ],
    as_json: AsJson = False,
) -> None:
    """Predict the classes of pictures, such as digits.

    A picture is prepared like the model's training pictures: MNIST's digits are cropped and
    centred, clothes that fill the picture are not. Light on dark and dark on light are the same
    to a model that knows its background. The output shows each step of the preparation, and
    the probability of each class. Pictures that cannot be read are reported, and the others are
    still read. The exit code is then 2. Of a single folder each picture has one line.
    """
    with plain_errors():
        from fastcnn.cli.characters import terminal_width
        from fastcnn.cli.compiling import compile_kernels
        from fastcnn.cli.models import open_model

        net = open_model(model)
        compile_kernels(net, training=False)
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


def prediction(net: Any, path: Path) -> dict[str, Any]:
    """The classes of a picture, the steps of its preparation, and its pixels (H, W, C)."""
    from fastcnn.data.pictures import prepare
    from fastcnn.models.described import picture_shape

    prepared = prepare(path, picture_shape(net), net.preparation)
    try:
        (probabilities,) = net.predict(prepared.pixels[None])
    except TypeError:  # of an ONNX file
        raise takes_floats() from None
    steps = [*prepared.steps]
    if probabilities.min() < 0 or probabilities.max() > 1:
        from fastcnn.ops import softmax

        probabilities = softmax(probabilities[None])[0]
        steps.append("the model gives scores; the probabilities are their softmax")
    if net.preparation is None:
        how = "one of MNIST's digits" if net.input_shape[2] == 1 else "a photograph"
        steps.append(f"in doubt: the model does not say how to prepare a picture; taken as {how}")
    if net.trained_on is None:
        steps.append("in doubt: the model does not say whether it was trained on bytes")
    best = int(probabilities.argmax())
    names = {} if net.classes is None else {"names": list(net.classes)}
    return {
        "file": str(path),
        "class": best,
        "name": net.class_name(best),
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
    labels = [
        shortened(name, _NAME) for name in one.get("names", map(str, range(len(probabilities))))
    ]
    space = max(3, *map(len, labels))
    # A bar needs some characters beside the picture.
    pixels = shaded(one["pixels"].mean(axis=2), max(8, width - space - 22), 0, 255)
    room = min(_BAR, max(4, width - len(pixels[0]) - space - 13))
    bars = [
        f"{label:>{space}} {probability:>8.2%} {'█' * round(room * probability)}".rstrip()
        for label, probability in zip(labels, probabilities, strict=True)
    ]
    rows = max(len(pixels), len(bars))
    top = (rows - len(bars)) // 2
    for i in range(rows):
        row = pixels[i] if i < len(pixels) else ""
        bar = bars[i - top] if top <= i < top + len(bars) else ""
        lines.append(f"  {row:<{len(pixels[0])}} {bar}".rstrip())
    return lines
