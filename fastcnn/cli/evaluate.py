"""``fastcnn evaluate``: test a model on the test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcnn.cli.options import AsJson, Data
from fastcnn.cli.outcomes import plain_errors
from fastcnn.cli.reading import (
    BgrOption,
    LayoutOption,
    NamesOption,
    Reading,
    ScalingOption,
    SizeOption,
    reading_of,
)

if TYPE_CHECKING:
    from fastcnn.cli.picture_net import PictureNet
    from fastcnn.data.image_sets import Color, ImageSet

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A file that `fastcnn train` or model.save wrote.")
]


def evaluate(
    model: Model,
    data: Data = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="All pictures of a folder, which has one for each class."
        ),
    ] = None,
    scaling: ScalingOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    bgr: BgrOption = False,
    classes: NamesOption = None,
    as_json: AsJson = False,
) -> None:
    """Test a saved model on a data set's test images, or on your own pictures.

    The output shows the loss, the accuracy, and for each class the number of recognised images
    and the most frequent wrong prediction. An ONNX file of another program needs --scaling, and has
    no loss.
    """
    with plain_errors():
        reading = reading_of(scaling, size, layout, bgr, classes)
        result = _evaluation(model, reading, data, images)
        if as_json:
            from json import dumps

            typer.echo(dumps(result, indent=2))
            return
        for line in _lines(result):
            typer.echo(line)


def _lines(result: dict[str, Any]) -> list[str]:
    """The result for the terminal, or for a file."""
    from fastcnn.core.quoting import shortened
    from fastcnn.core.tables import lines_of
    from fastcnn.core.terminal import columns_of_output

    columns = columns_of_output()
    loss = f", loss {result['loss']:.4f}" if "loss" in result else ""
    lines = lines_of(
        f"test accuracy {result['accuracy']:.2%}{loss}: "
        f"{result['correct']:,} of {result['images']:,} images are right", columns, 2,
    )  # fmt: skip
    most = 1000 if columns is None else 20
    names = {one["class"]: shortened(one["name"], most) for one in result["classes"]}
    width = max(map(len, names.values()), default=0)
    for one in result["classes"]:
        mistaken = one["most_mistaken_for"]
        name = names[one["class"]]
        line = f"  {name:<{width}}: {one['correct']:>5,} of {one['images']:>5,}"
        if mistaken is not None:
            line += f"   most mistaken for {names.get(mistaken, mistaken)}"
        lines += lines_of(line, columns, 4)
    return lines


def _evaluation(
    path: Path, reading: Reading, data: Path | None, pictures: Path | None
) -> dict[str, Any]:
    import numpy as np

    from fastcnn.cli.compiling import compile_kernels
    from fastcnn.cli.models import is_onnx, open_model
    from fastcnn.cli.picture_net import PictureNet
    from fastcnn.data.datasets import default_folder, form_of, load_dataset
    from fastcnn.models.described import only_input

    if pictures is not None and data is not None:
        raise ValueError("--images and --data cannot be given together")
    net = PictureNet(path, reading) if is_onnx(path) or pictures is not None else None
    model = open_model(path, reading) if net is None else net.model
    compile_kernels(model, training=False)
    shape = only_input(model)
    if net is not None and pictures is not None:
        images, labels = _pictures(net, pictures)
    else:
        folder = default_folder() if data is None else data
        # Pictures are scaled like the pictures of the training.
        size = shape[:2] if len(shape) == 3 and form_of(folder) == "pictures" else None
        images, labels = load_dataset(folder, size, model.classes).test
        image_shape = (*images.shape[1:], 1)[:3]
        if net is not None and image_shape != net.shape:
            raise ValueError(
                f"MODEL takes pictures of shape {net.shape}, and the data set has images of shape "
                f"{image_shape}; --data names another one, --images a folder of pictures of any "
                f"size"
            )
    if net is not None and is_onnx(path):
        # Without a loss, because the file does not say whether its outputs are probabilities.
        guesses = net.classes_of(images)
        result = {"accuracy": float((guesses == labels).mean())}
    else:
        guesses = model.predict_classes(images)
        if model._loss().counts:
            result = model.evaluate(images, labels)
        else:  # a loss of numbers, which class numbers do not fit
            result = {"accuracy": float((guesses == labels).mean())}
    classes = []
    for label in np.unique(labels):
        guessed = guesses[labels == label]
        mistakes = guessed[guessed != label]
        classes.append(
            {
                "class": int(label),
                "name": model.class_name(int(label)),
                "images": len(guessed),
                "correct": len(guessed) - len(mistakes),
                "most_mistaken_for": int(np.bincount(mistakes).argmax()) if len(mistakes) else None,
            }
        )
    return {
        "model": str(path),
        "images": len(images),
        "correct": int((guesses == labels).sum()),
        **result,
        "classes": classes,
    }


def _pictures(net: PictureNet, folder: Path) -> ImageSet:
    """All pictures of a folder, as the model takes them, and their labels."""
    from fastcnn.data.image_sets import load_images

    height, width, channels = net.shape
    color: Color = "gray" if channels == 1 else "rgb"
    images = load_images(folder, (height, width), color, classes=net.model.classes)
    if net.model.classes is None and len(images.classes) != net.units:
        raise ValueError(
            f"--classes must be given, because MODEL has {net.units} classes without names, and "
            f"{folder} has {len(images.classes)} folders, whose classes it cannot tell"
        )
    return images
