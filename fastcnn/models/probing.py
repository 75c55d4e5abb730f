"""What moves a net: covered parts of an image, and images that one channel responds to.

All of it runs a model as it is, in prediction, and leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import above_zero, count, generator
from fastcnn.models.described import only_input
from fastcnn.models.input_gradients import graph_to, through
from fastcnn.models.inputs import batch
from fastcnn.models.inspection import LayerChoice
from fastcnn.models.model import Model
from fastcnn.nn.layers import Shape

_PATCHES = 256  # covered images that run together


class Response(NamedTuple):
    """Where a channel responds strongly.

    Attributes:
        sample: the number of the image.
        value: the channel's value.
        position: (row, column) in the feature map; empty for a feature without pixels.
        box: (top, bottom, left, right) of the pixels that the value depends on, without the ends;
            None where it depends on none, as behind a ReLU that gives 0.
    """

    sample: int
    value: float
    position: tuple[int, ...]
    box: tuple[int, int, int, int] | None


def image_input(model: Model) -> tuple[int, int, int]:
    """The shape of the only input, which must be an image; ``ValueError`` for others."""
    shape = only_input(model)
    if len(shape) != 3:
        raise ValueError(f"model must take images (H, W, C), this one takes {shape}")
    return shape[0], shape[1], shape[2]


def occlusion_map(
    model: Model,
    x: Array,
    output: int,
    size: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    fill: float | None = None,
) -> Array:
    """How much a prediction falls where a part of the image is covered.

    A rectangle moves over the image. Each pixel gets the mean, over the rectangles that cover it,
    of the prediction for the whole image less that for the covered one.

    Args:
        model: a built model of one image, which predicts a vector.
        x: an image (H, W, C).
        output: the number of the prediction, such as a class.
        size: sides of the rectangle in pixels; None takes a quarter of the image's sides.
        stride: steps of the rectangle; None takes a quarter of its sides.
        fill: the number that covers; None takes the mean of each channel.

    Returns:
        (H, W) float64.

    Raises:
        TypeError, ValueError: a wrong argument.

    Source: M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks",
    arXiv:1311.2901.

    >>> from fastcnn import Sequential
    >>> from fastcnn.nn.layers import Dense, Flatten
    >>> model = Sequential([Flatten(), Dense(2, kernel_initializer="zeros")], (6, 5, 1))
    >>> float(np.abs(occlusion_map(model, np.eye(6, 5)[..., None], 1)).max())
    0.0
    """
    h, w, _ = shape = image_input(model)
    if np.shape(x) != shape:
        raise ValueError(f"x must be an image of the shape {shape}, got {np.shape(x)}")
    x = np.asarray(x)
    outputs = _outputs(model)
    number = _below("output", output, outputs)
    sides = _sides("size", size, (max(1, h // 4), max(1, w // 4)), (h, w))
    steps = _sides("stride", stride, (max(1, sides[0] // 4), max(1, sides[1] // 4)), (h, w))
    cover = x.mean(axis=(0, 1)) if fill is None else np.asarray(_number("fill", fill))
    if x.dtype.kind in "iu":
        info = np.iinfo(x.dtype)
        cover = np.rint(cover).clip(info.min, info.max)
    boxes = [
        (slice(top, top + sides[0]), slice(left, left + sides[1]))
        for top in _starts(h, sides[0], steps[0])
        for left in _starts(w, sides[1], steps[1])
    ]
    uncovered = float(model.predict(x[np.newaxis])[0, number])
    total, covered = np.zeros((h, w)), np.zeros((h, w))
    for first in range(0, len(boxes), _PATCHES):
        boxes_of_part = boxes[first : first + _PATCHES]
        images = np.repeat(x[np.newaxis], len(boxes_of_part), axis=0)
        for image, box in zip(images, boxes_of_part, strict=True):
            image[box] = cover
        for box, value in zip(boxes_of_part, model.predict(images)[:, number], strict=True):
            total[box] += uncovered - float(value)
            covered[box] += 1
    return total / covered


def _starts(length: int, side: int, step: int) -> list[int]:
    """Where the rectangle stands along an axis; the last one ends with the image."""
    return sorted({*range(0, length - side + 1, step), length - side})


def strongest_responses(
    model: Model, x: Any, layer: LayerChoice, channel: int, most: int = 8, batch_size: int = 256
) -> list[Response]:
    """The images of a set that a channel responds to most, and where in each of them.

    Each image counts once, by its strongest pixel of the feature map. The box of a response holds
    all pixels with a gradient, so it is at most the receptive field.

    Args:
        model: a built model of one image.
        x: images (N, H, W, C) or (N, H, W).
        layer: as for :meth:`fastcnn.Model.activations`; not inside of another layer.
        channel: the number of the channel, or of the feature.
        most: how many images.
        batch_size: images that run together; it does not change the result.

    Raises:
        TypeError, ValueError: a wrong argument.

    >>> from fastcnn import Sequential
    >>> from fastcnn.nn.layers import Conv2D
    >>> model = Sequential([Conv2D(1, 3, kernel_initializer="ones")], (5, 6, 1))
    >>> images = np.zeros((3, 5, 6))
    >>> images[2, 1:4, 3:6] = 1
    >>> strongest_responses(model, images, 0, 0, most=1)
    [Response(sample=2, value=9.0, position=(1, 3), box=(1, 4, 3, 6))]
    """
    image_input(model)
    images: Array = model._samples("x", x)
    size, most = count("batch_size", batch_size), count("most", most)
    values, places = list[float](), list[int]()
    shape: Shape = ()
    for first in range(0, len(images), size):
        maps = model.activations(images[first : first + size], layer)
        shape = maps.shape[1:]
        number = _below("channel", channel, shape[-1])
        flat = maps.reshape(len(maps), -1, shape[-1])[..., number]
        flat = np.where(np.isnan(flat), -np.inf, flat)
        at = flat.argmax(axis=1)
        places += at.tolist()
        values += flat[np.arange(len(flat)), at].tolist()
    order = np.argsort(-np.array(values), kind="stable")[:most].tolist()
    results = []
    for sample in order:
        row, column = divmod(places[sample], shape[1]) if len(shape) == 3 else (0, 0)
        position = (row, column) if len(shape) == 3 else ()
        dy = np.zeros((1, *shape), model.dtype)
        dy[(0, *position, channel)] = 1
        gradient = _gradient(
            model, layer, batch(images[sample : sample + 1], model.dtype, model.scaling), dy
        )
        results.append(Response(sample, values[sample], position, _box(gradient[0])))
    return results


def _box(gradient: Array) -> tuple[int, int, int, int] | None:
    marks = (np.nan_to_num(gradient, nan=1.0) != 0).any(axis=2)
    rows, columns = np.flatnonzero(marks.any(axis=1)), np.flatnonzero(marks.any(axis=0))
    if not len(rows):
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _gradient(model: Model, layer: LayerChoice, x: Array, dy: Array) -> Array:
    """The gradient at an input (1, H, W, C), of what ``dy`` weighs at a layer."""
    graph = _graph_to_layer(model, layer)
    return through(graph, [x], [dy], model.engine)[0]


def _graph_to_layer(model: Model, layer: LayerChoice) -> Any:
    point = model._point(layer)
    if point.path:
        raise ValueError(
            f"layer must be no layer inside of another one, because only the outer one has a "
            f"gradient of its own, got {quoted(layer)}"
        )
    if point.value < model._graph.inputs:
        raise ValueError("layer must be a layer, got an input")
    end = graph_to(model, "scores")
    if end is not model._graph and point.value == model._graph.outputs[0]:
        return end  # scores grow with the image; a softmax of them does not
    return model._graph.to_outputs([point.value])


def preferred_image(
    model: Model,
    layer: LayerChoice,
    channel: int,
    steps: int = 64,
    step_size: float | None = None,
    bounds: tuple[float, float] | None = None,
    seed: int | None = 0,
) -> Array:
    """An image that a channel responds to strongly, found by gradient ascent from faint noise.

    Each step moves the image along the gradient of the channel's mean, divided by its norm, and
    keeps it within ``bounds``. The image is shifted by a random pixel before each step, which
    avoids patterns that fit one position alone. A last softmax or sigmoid is left out.

    Args:
        model: a built model of one image.
        layer: as for :meth:`fastcnn.Model.activations`; not inside of another layer.
        channel: the number of the channel, or of the feature.
        steps: how many steps.
        step_size: the length of a step, in root mean squares of a pixel; None takes a fortieth of
            the range of ``bounds``.
        bounds: the least and the greatest number of a pixel, as the layers take it; None takes
            those that bytes become by ``model.scaling``.
        seed: of the noise and the shifts; None for a random one.

    Returns:
        (H, W, C) of the model's dtype.

    Raises:
        TypeError, ValueError: a wrong argument.

    Source: D. Erhan, Y. Bengio, A. Courville, P. Vincent, "Visualizing Higher-Layer Features of a
    Deep Network", 2009.

    >>> from fastcnn import Sequential
    >>> from fastcnn.nn.layers import Conv2D
    >>> model = Sequential([Conv2D(1, 3, kernel_initializer="ones")], (5, 6, 1))
    >>> float(preferred_image(model, 0, 0).min())
    0.5
    """
    shape = image_input(model)
    steps = count("steps", steps)
    scaling = model.scaling
    low, high = (scaling.low, scaling.high) if bounds is None else _bounds(bounds)
    size = above_zero("step_size", step_size) or (high - low) / 40
    rng = generator("seed", seed)
    graph = _graph_to_layer(model, layer)
    inside = graph.infer([shape])[graph.outputs[0]]
    number = _below("channel", channel, inside[-1])
    dy = np.zeros((1, *inside), model.dtype)
    dy[..., number] = 1 / max(1, int(np.prod(inside[:-1])))
    middle = (low + high) / 2
    noise = rng.standard_normal((1, *shape)) * (high - low) * 0.02
    x = (middle + noise).clip(low, high).astype(model.dtype)
    reach = min(2, *(side - 1 for side in shape[:2])) if len(inside) == 3 else 0
    for _ in range(steps):
        shift = rng.integers(-reach, reach + 1, 2) if reach > 0 else (0, 0)
        moved = np.ascontiguousarray(np.roll(x, shift, (1, 2)))
        gradient = np.roll(
            through(graph, [moved], [dy], model.engine)[0], np.negative(shift), (1, 2)
        )
        norm = float(np.sqrt(np.square(gradient, dtype=np.float64).mean()))
        if norm > 0 and np.isfinite(norm):
            x = (x + gradient * (size / norm)).clip(low, high).astype(model.dtype)
        else:  # behind a ReLU that is closed: other noise may open it
            x = (x + rng.standard_normal(x.shape) * size).clip(low, high).astype(model.dtype)
    result: Array = x[0]
    return result


def _outputs(model: Model) -> int:
    shape: Any = model.output_shape
    if len(shape) != 1:
        raise ValueError(f"model must predict a vector, this one predicts {shape}")
    return int(shape[0])


def _below(name: str, value: object, end: int) -> int:
    number = count(name, value, least=0)
    if number >= end:
        raise ValueError(f"{name} must be from 0 to {end - 1}, got {quoted(value)}")
    return number


def _sides(name: str, value: Any, default: tuple[int, int], most: Sequence[int]) -> tuple[int, int]:
    if value is None:
        return default
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be an integer or a pair, got {quoted(value)}")
    sides = count(name, pair[0]), count(name, pair[1])
    if sides[0] > most[0] or sides[1] > most[1]:
        raise ValueError(
            f"{name} must be at most the image's sides, {tuple(most)}, got {quoted(value)}"
        )
    return sides


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number or None, got {quoted(value)}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {quoted(value)}")
    return float(value)


def _bounds(bounds: object) -> tuple[float, float]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"bounds must be two numbers, got {quoted(bounds)}")
    low, high = _number("bounds", bounds[0]), _number("bounds", bounds[1])
    if not low < high:
        raise ValueError(f"bounds must be the smaller number and the greater, got {quoted(bounds)}")
    return low, high
