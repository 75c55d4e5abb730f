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
        from fastcnn.cli.compiling import compile_kernels
        from fastcnn.cli.models import open_model

        net = open_model(model)
        compile_kernels(net, training=False)
        predictions, failed = [], False
        for path in _files(images):
            try:
                predictions.append(_prediction(net, path))
            except (ValueError, OSError) as error:
                failed = True
                report(error)
                continue
            if not as_json:
                _show(predictions[-1], briefly=len(images) == 1 and images[0].is_dir())
        if as_json:
            from json import dumps

            entries = [{k: v for k, v in one.items() if k != "drawing"} for one in predictions]
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


def _prediction(net: Any, path: Path) -> dict[str, Any]:
    from fastcnn.data.pictures import drawing, prepare
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
        "drawing": drawing(prepared.pixels.mean(axis=2)),
    }


def _show(one: dict[str, Any], briefly: bool) -> None:
    """Print a prediction: ``briefly`` in one line, else with its steps and the picture."""
    probabilities = one["probabilities"]
    typer.echo(f"{one['file']}: {one['name']} ({probabilities[one['class']]:.2%})")
    if briefly:
        return
    for step in one["steps"]:
        typer.echo(f"  {step}")
    labels = [
        shortened(name, _NAME) for name in one.get("names", map(str, range(len(probabilities))))
    ]
    space = max(3, *map(len, labels))
    bars = [
        f"{label:>{space}} {probability:>8.2%} {'█' * round(_BAR * probability)}".rstrip()
        for label, probability in zip(labels, probabilities, strict=True)
    ]
    rows = max(len(one["drawing"]), len(bars))
    top = (rows - len(bars)) // 2
    width = max(map(len, one["drawing"]))
    for i in range(rows):
        pixels = one["drawing"][i] if i < len(one["drawing"]) else ""
        bar = bars[i - top] if top <= i < top + len(bars) else ""
        typer.echo(f"  {pixels:<{width}} {bar}".rstrip())
    typer.echo("")
