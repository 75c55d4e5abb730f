"""Pictures of what a prediction, or a channel, depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.models.inspection import LayerChoice
from fastcnn.models.model import Model
from fastcnn.models.probing import (
    image_input,
    occlusion_map,
    preferred_image,
    strongest_responses,
)
from fastcnn.plots import canvas
from fastcnn.plots.samples import checked_model, layer_title, one_sample, pictures_of

if TYPE_CHECKING:
    from fastcnn.plots.canvas import AnyFigure


def saliency(
    model: Model,
    x: Any,
    output: Any = None,
    figure: AnyFigure | None = None,
    *,
    width: float = canvas.WIDTH,
) -> AnyFigure:
    """The pixels that a score depends on: the size of its gradient, pixel by pixel.

    ``model.input_gradient(x, output)`` gives the gradient. Of several channels the largest size
    counts. A net with several inputs has a row for each input that is an image.

    Args:
        model: a built model that takes an image.
        x: one sample, with or without an axis for the batch; for several inputs a list or a dict.
        output: as for :meth:`fastcnn.Model.input_gradient`; None takes the most probable class of
            a net with one output.
        figure: where to draw; None makes a figure.
        width: of a new figure, in inches.

    Returns:
        The figure: the image, the gradient's size, and both on top of each other.

    Raises:
        TypeError, ValueError: a wrong argument; a net without images.
        ImportError: Matplotlib is not installed.

    Source: K. Simonyan et al., "Deep Inside Convolutional Networks", arXiv:1312.6034.
    """
    checked_model(model)
    sample = one_sample(model, x)
    panels = pictures_of(model, sample)
    if not panels:
        raise ValueError(f"model must take images, this one takes {model.input_shape}")
    wide = canvas.width_of(figure, width)
    if output is None:
        output = predicted_class(model, sample)
        title = f"what output {model.class_name(output)} depends on"
    else:
        title = f"what output {quoted(output)} depends on"
    gradients = model.input_gradient(sample, output)
    parts = gradients if isinstance(gradients, list) else [gradients]
    sizes = [np.abs(part[0]).max(axis=2) for part in parts if part.ndim == 4]
    rows, shape = len(panels), panels[0][1].shape
    height = rows * wide / 3 * min(2.0, shape[0] / shape[1]) + 0.5
    target = canvas.figure_of(figure, wide, min(height, 40.0))
    axes = canvas.grid(target, 3 * rows, 3)
    for row, ((name, picture), size) in enumerate(zip(panels, sizes, strict=True)):
        three = axes[3 * row : 3 * row + 3]
        canvas.draw_pixels(three[0], picture, name)
        low: dict[str, Any] = {
            "cmap": canvas.ONE_SIGN,
            "vmin": 0.0,
            "vmax": float(np.nanmax(size)) or 1.0,
        }
        image = canvas.show(three[1], size, "|gradient|", **low)
        canvas.draw_pixels(three[2], picture, "both")
        strength = size / low["vmax"]
        three[2].imshow(size, alpha=np.clip(strength, 0, 1) * 0.85, **low)
        canvas.colour_bar(target, image, three)
    canvas.headline(target, title, wide)
    return target


def predicted_class(model: Model, sample: Any) -> int:
    """The number of the greatest prediction for one sample.

    Raises ``ValueError`` for several outputs, and for maps.
    """
    shape: Any = model.output_shape
    if len(model._graph.outputs) > 1:
        raise ValueError(
            "output must say for each output what counts, as for model.input_gradient, because the "
            "model has several, got None"
        )
    if len(shape) != 1:
        raise ValueError(
            f"output must be a gradient of the shape {(1, *shape)}, because the model predicts "
            "maps, got None"
        )
    return int(model.predict(sample)[0].argmax())


def occlusion(
    model: Model,
    x: Any,
    output: int | None = None,
    figure: AnyFigure | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    fill: float | None = None,
    width: float = canvas.WIDTH,
) -> AnyFigure:
    """How far a prediction falls where a part of the image is covered.

    :func:`fastcnn.plots.occlusion_map` gives the array, and says what the arguments do.

    Args:
        model: a built model of one image, which predicts a vector.
        x: one image, with or without an axis for the batch.
        output: the number of the prediction; None takes the greatest.
        figure: where to draw; None makes a figure.
        size, stride, fill: of the rectangle that covers, as for ``occlusion_map``.
        width: of a new figure, in inches.

    Returns:
        The figure: the image, the fall, and both on top of each other.

    Raises:
        TypeError, ValueError: a wrong argument.
        ImportError: Matplotlib is not installed.
    """
    checked_model(model)
    image_input(model)
    sample = one_sample(model, x)
    wide = canvas.width_of(figure, width)
    number = predicted_class(model, sample) if output is None else output
    fall = occlusion_map(model, sample[0], number, size, stride, fill)
    shape = sample.shape[1:]
    target = canvas.figure_of(
        figure, wide, min(40.0, wide / 3 * min(2.0, shape[0] / shape[1]) + 0.5)
    )
    axes = canvas.grid(target, 3, 3)
    canvas.draw_pixels(axes[0], sample[0], "input")
    most = float(np.abs(fall).max()) or 1.0
    scale: dict[str, Any] = {"cmap": canvas.BOTH_SIGNS + "_r", "vmin": -most, "vmax": most}
    image = canvas.show(axes[1], fall, "fall of the prediction", **scale)
    canvas.draw_pixels(axes[2], sample[0], "both")
    axes[2].imshow(fall, alpha=np.abs(fall) / most * 0.8, **scale)
    canvas.colour_bar(target, image, axes)
    canvas.headline(
        target, f"output {model.class_name(number)} where a part of the input is covered", wide
    )
    return target


def responses(
    model: Model,
    x: Any,
    layer: LayerChoice,
    channel: int,
    figure: AnyFigure | None = None,
    *,
    most: int = 8,
    width: float = canvas.WIDTH,
) -> AnyFigure:
    """The images of a set that a channel responds to most; a frame shows where.

    :func:`fastcnn.plots.strongest_responses` gives the numbers. The last panel is the image of
    :func:`fastcnn.plots.preferred_image`, which gradient ascent finds.

    Args:
        model: a built model of one image.
        x: images (N, H, W, C) or (N, H, W), or those of :func:`fastcnn.load_images`.
        layer: as for :meth:`fastcnn.Model.activations`; not inside of another layer.
        channel: the number of the channel, or of the feature.
        figure: where to draw; None makes a figure.
        most: the largest number of images.
        width: of a new figure, in inches.

    Returns:
        The figure.

    Raises:
        TypeError, ValueError: a wrong argument.
        ImportError: Matplotlib is not installed.
    """
    checked_model(model)
    wide = canvas.width_of(figure, width)
    title = layer_title(model, layer)
    strongest = strongest_responses(model, x, layer, channel, most)
    if not strongest:
        raise ValueError("x must hold at least one image, got none")
    images = model._samples("x", x)[np.array([one.sample for one in strongest])]
    total = len(strongest) + 1
    columns = canvas.columns_for(wide, 1.4, total)
    shape = images.shape[1:]
    stretch = min(3.0, max(1 / 3, shape[0] / shape[1]))
    height = wide / columns * -(-total // columns) * stretch * 1.15 + 0.5
    target = canvas.figure_of(figure, wide, min(height, 60.0))
    axes = canvas.grid(target, total, columns)
    for ax, image, one in zip(axes, images, strongest, strict=False):
        canvas.draw_pixels(ax, image, f"no. {one.sample}: {one.value:.3g}")
        if one.box is not None:
            _frame(ax, one.box)
    canvas.draw_pixels(axes[-1], preferred_image(model, layer, channel), "by gradient ascent")
    canvas.headline(target, f"channel {channel} of {title}", wide)
    return target


def _frame(ax: Any, box: tuple[int, int, int, int]) -> None:
    from matplotlib.patches import Rectangle

    top, bottom, left, right = box
    for colour, line in (("black", 3.2), (canvas.AMBER, 1.8)):
        ax.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour,
                linewidth=line,
            )
        )  # fmt: skip


def preferred_images(
    model: Model,
    layer: LayerChoice,
    channels: Sequence[int] | None = None,
    figure: AnyFigure | None = None,
    *,
    most: int = 16,
    steps: int = 64,
    width: float = canvas.WIDTH,
) -> AnyFigure:
    """For each channel of a layer an image that it responds to, found by gradient ascent.

    :func:`fastcnn.plots.preferred_image` gives one of the images, and says how it is found.

    Args:
        model: a built model of one image.
        layer: as for :meth:`fastcnn.Model.activations`; not inside of another layer.
        channels: the numbers of the channels; None takes the first ``most``, and the title says so.
        figure: where to draw; None makes a figure.
        most: the largest number of images, where ``channels`` is None.
        steps: of the gradient ascent.
        width: of a new figure, in inches.

    Returns:
        The figure.

    Raises:
        TypeError, ValueError: a wrong argument.
        ImportError: Matplotlib is not installed.
    """
    checked_model(model)
    height_of_image, width_of_image, _ = image_input(model)
    most = count("most", most)
    wide = canvas.width_of(figure, width)
    title = layer_title(model, layer)
    total = model._graph.infer(model._known_shapes())[model._point(layer).value][-1]
    hint = f"{total} channel{'s' if total != 1 else ''}"
    if channels is None:
        channels = range(min(total, most))
        if total > most:
            hint = f"the first {most} of {total} channels"
    else:
        channels = [count("channels", one, least=0) for one in channels]
        hint = f"{len(channels)} of {total} channels"
    if not channels:
        raise ValueError("channels must be at least one, got none")
    images = [preferred_image(model, layer, channel, steps) for channel in channels]
    columns = canvas.columns_for(wide, canvas.PANEL, len(images))
    stretch = min(3.0, max(1 / 3, height_of_image / width_of_image))
    rows = -(-len(images) // columns)
    target = canvas.figure_of(figure, wide, min(60.0, wide / columns * rows * stretch * 1.15 + 0.5))
    axes = canvas.grid(target, len(images), columns)
    for ax, channel, image in zip(axes, channels, images, strict=True):
        canvas.draw_pixels(ax, image, str(channel))
    canvas.headline(target, f"what {title} responds to, {hint}", wide)
    return target
