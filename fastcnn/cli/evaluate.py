"""``fastcnn evaluate``: test a model on the test images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.models import takes_floats
from fastcnn.cli.options import AsJson, Data
from fastcnn.cli.outcomes import plain_errors

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
    as_json: AsJson = False,
) -> None:
    """Test a saved model on a data set's test images, or on your own pictures.

    The output shows the loss, the accuracy, and for each class the number of recognised images
    and the most frequent wrong prediction.
    """
    with plain_errors():
        result = _evaluation(model, data, images)
        if as_json:
            from json import dumps

            typer.echo(dumps(result, indent=2))
            return
        loss = f", loss {result['loss']:.4f}" if "loss" in result else ""
        typer.echo(
            f"test accuracy {result['accuracy']:.2%}{loss}: "
            f"{result['correct']:,} of {result['images']:,} images are right"
        )
        width = max((len(one["name"]) for one in result["classes"]), default=0)
        names = {one["class"]: one["name"] for one in result["classes"]}
        for one in result["classes"]:
            mistaken = one["most_mistaken_for"]
            line = f"  {one['name']:<{width}}: {one['correct']:>5,} of {one['images']:>5,}"
            also = (
                "" if mistaken is None else f"   most mistaken for {names.get(mistaken, mistaken)}"
            )
            typer.echo(line + also)


def _evaluation(path: Path, data: Path | None, pictures: Path | None) -> dict[str, Any]:
    import numpy as np

    from fastcnn.cli.compiling import compile_kernels
    from fastcnn.cli.models import is_onnx, open_model
    from fastcnn.data.datasets import default_folder, form_of, load_dataset
    from fastcnn.models.described import only_input

    model = open_model(path)
    compile_kernels(model, training=False)
    shape = only_input(model)
    if pictures is not None:
        if data is not None:
            raise ValueError("--images and --data cannot be given together")
        images, labels = _pictures(model, pictures, shape)
    else:
        folder = default_folder() if data is None else data
        # Pictures are scaled like the pictures of the training.
        size = shape[:2] if len(shape) == 3 and form_of(folder) == "pictures" else None
        images, labels = load_dataset(folder, size, model.classes).test
    if is_onnx(path):
        # Without a loss, because the file does not say whether its outputs are probabilities.
        guesses = _guesses(model, images)
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
        wrong = guessed[guessed != label]
        classes.append(
            {
                "class": int(label),
                "name": model.class_name(int(label)),
                "images": len(guessed),
                "correct": len(guessed) - len(wrong),
                "most_mistaken_for": int(np.bincount(wrong).argmax()) if len(wrong) else None,
            }
        )
    return {
        "model": str(path),
        "images": len(images),
        "correct": int((guesses == labels).sum()),
        **result,
        "classes": classes,
    }


def _pictures(model: Any, folder: Path, shape: tuple[int, ...]) -> Any:
    """All pictures of a folder, as the model takes them, and their labels."""
    from fastcnn.data.image_sets import load_images

    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ValueError(f"MODEL must take pictures of one or three channels, it takes {shape}")
    color: Any = "gray" if shape[2] == 1 else "rgb"
    return load_images(folder, (shape[0], shape[1]), color, classes=model.classes)


def _guesses(model: Any, images: Any) -> Any:
    """The classes that the model of an ONNX file predicts for bytes."""
    pixels = images[..., None] if images.ndim == 3 else images
    try:
        return model.predict_classes(pixels)
    except TypeError:
        raise takes_floats() from None
