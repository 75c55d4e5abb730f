"""Pictures of a layer: its filters, its feature maps, and the article's Sobel filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastcnn.article.examples import HORIZONTAL_SOBEL, VERTICAL_SOBEL, filter_image
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.models.inspection import LayerChoice
from fastcnn.models.model import Model
from fastcnn.nn.layers import Layer
from fastcnn.plots import canvas
from fastcnn.plots.samples import checked_model, image_layer, layer_title, one_sample, pictures_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastcnn.plots.canvas import AnyFigure

_MATRIX = 64  # rows and columns of a matrix of weights at most
_CELL, _ROWS = 0.42, 12  # inches of a filter in a table, and rows of a table at most
_BARS = 100  # numbers of a vector that are drawn as bars


def feature_maps(
    model: Model,
    x: Any,
    layer: LayerChoice | None = None,
    figure: AnyFigure | None = None,
    *,
    most: int = 63,
    width: float = canvas.WIDTH,
) -> AnyFigure:
    """What a layer computes of one image: the image, and a panel for each channel.

    All maps have one scale of colours. Of more than ``most`` channels it shows those that vary
    most, and the title says so. Features without pixels, as those of a dense layer, are bars.
    ``model.activations(x, layer)`` gives the arrays.

    Args:
        model: a built model.
        x: one sample, with or without an axis for the batch; for several inputs a list or a dict.
        layer: as for :meth:`fastcnn.Model.activations`; None takes the first convolution, or the
            first layer of a net without one.
        figure: where to draw; None makes a figure.
        most: the largest number of maps.
        width: of a new figure, in inches.

    Returns:
        The figure.

    Raises:
        TypeError, ValueError: a wrong argument.
        ImportError: Matplotlib is not installed.

    Example:
        >>> from fastcnn import Sequential, plots
        >>> from fastcnn.nn.layers import Conv2D
        >>> model = Sequential([Conv2D(4, 3)], (9, 8, 1), seed=0)
        >>> figure = plots.feature_maps(model, np.eye(9, 8), "conv2d")
        >>> [ax.get_title() for ax in figure.axes[:5]]
        ['input', '0', '1', '2', '3']
    """
    checked_model(model)
    most = count("most", most)
    sample = one_sample(model, x)
    choice = image_layer(model, None)[0] if layer is None else layer
    wide = canvas.width_of(figure, width)
    (maps,) = model.activations(sample, [choice])
    title = layer_title(model, choice)
    if maps.ndim == 2:
        return _bars(maps[0], title, figure, wide)
    maps = maps[0]
    channels, hint = _most_varied(maps, most)
    panels = pictures_of(model, sample)
    total = len(panels) + len(channels)
    columns = canvas.columns_for(wide, canvas.PANEL, total)
    height = wide / columns * (-(-total // columns)) * _stretch(maps.shape) * 1.12 + 0.6
    target = canvas.figure_of(figure, wide, min(height, 60.0))
    axes = canvas.grid(target, total, columns)
    for ax, (name, picture) in zip(axes, panels, strict=False):
        canvas.draw_pixels(ax, picture, name)
    shown = [maps[..., channel] for channel in channels]
    scale = canvas.scale_of(shown)
    image = None
    for ax, channel, values in zip(axes[len(panels) :], channels, shown, strict=True):
        image = canvas.show(ax, values, str(channel), **scale)
    assert image is not None
    canvas.colour_bar(target, image, axes)
    canvas.headline(target, f"{title}: {maps.shape[0]}×{maps.shape[1]}, {hint}", wide)
    return target


def _stretch(shape: tuple[int, ...]) -> float:
    """Height over width of a panel, between a third and three."""
    return min(3.0, max(1 / 3, shape[0] / shape[1]))


def _most_varied(maps: canvas.Floats, most: int) -> tuple[list[int], str]:
    """The channels that are shown, and words for the title."""
    total = maps.shape[-1]
    if total <= most:
        return list(range(total)), f"{total} channel{'s' if total > 1 else ''}"
    spread = np.nan_to_num(np.ptp(maps.reshape(-1, total), axis=0), nan=0.0)
    best = np.argsort(-spread, kind="stable")[:most]
    return sorted(best.tolist()), f"the {most} of {total} channels that vary most"


def _bars(values: canvas.Floats, title: str, figure: AnyFigure | None, width: float) -> AnyFigure:
    """A vector as bars, or as a line where it is long."""
    target = canvas.figure_of(figure, width, 2.8)
    ax = target.add_subplot()
    places = np.arange(len(values))
    if len(values) <= _BARS:
        ax.bar(places, values, color=canvas.BLUE)
    else:
        ax.plot(places, values, color=canvas.BLUE, linewidth=0.8)
    ax.axhline(0, color=canvas.SOFT, linewidth=0.8)
    canvas.lines(ax, f"{title}: {len(values)} features", "feature", "value")
    return target


def filters(
    model: Model | Layer,
    layer: LayerChoice | None = None,
    figure: AnyFigure | None = None,
    *,
    most: int = 64,
    width: float = canvas.WIDTH,
) -> AnyFigure:
    """The weights of a layer, in one scale of colours with white at 0.

    Filters on one channel are shown as they are, and filters on three channels as colours.
    Other filters are a table: a column for each filter, a row for each input channel. Weights
    without pixels, of 1×1 filters and of dense layers, are one matrix. Of more than ``most``
    filters, or than fit, it shows those with the largest weights, and the title says so.

    Args:
        model: a built model, or a built layer.
        layer: of the model, as for :meth:`fastcnn.Model.activations`; None takes the first
            convolution, or the first layer with weights of a net without one.
        figure: where to draw; None makes a figure.
        most: the largest number of filters.
        width: of a new figure, in inches.

    Returns:
        The figure.

    Raises:
        TypeError, ValueError: a wrong argument; a layer without weights.
        ImportError: Matplotlib is not installed.

    Example:
        >>> from fastcnn import Sequential, plots
        >>> from fastcnn.nn.layers import Conv2D
        >>> model = Sequential([Conv2D(4, 3)], (9, 8, 1), seed=0)
        >>> len(plots.filters(model).axes)  # four filters, and the scale of colours
        5
    """
    most = count("most", most)
    owner, title = _layer_with_weights(model, layer)
    wide = canvas.width_of(figure, width)
    name, weights = _weights(owner)
    if weights.ndim == 2 or weights.shape[:2] == (1, 1):
        return _matrix(weights.reshape(weights.shape[-2:]), title, figure, wide)
    size = f"{title}: {weights.shape[0]}×{weights.shape[1]}"
    if name != "w":
        size += f", {name}"
    if weights.shape[2] == 3:
        return _colours(weights, size, figure, wide, most)
    if weights.shape[2] == 1:
        return _grey(weights[:, :, 0], size, figure, wide, most)
    return _table(weights, size, figure, wide, most)


def _layer_with_weights(model: Any, layer: LayerChoice | None) -> tuple[Layer, str]:
    if isinstance(model, Layer):
        if layer is not None:
            raise ValueError("layer must be None where the first argument is a layer itself")
        return model, model.name
    checked_model(model)
    choice: LayerChoice
    if layer is None:
        with_weights = [one for one in model.layers if any(a.ndim > 1 for a in _arrays(one))]
        if not with_weights:
            raise ValueError("model must have a layer with weights, got one without any")
        images = [one for one in with_weights if any(a.ndim == 4 for a in _arrays(one))]
        choice = (images or with_weights)[0]
    else:
        choice = layer
    owner, title = layer_title(model, choice, with_layer=True)
    return owner, title


def _arrays(layer: Layer) -> list[Any]:
    return list(layer.parameters.values())


def _weights(layer: Layer) -> tuple[str, canvas.Floats]:
    """The first array of a layer that has rows and columns, and its name."""
    for name, array in layer.parameters.items():
        if array.ndim in (2, 4):
            return name, np.array(array)
    raise ValueError(
        f"layer must have weights, such as those of a convolution, got {quoted(layer)}, which has "
        f"{', '.join(layer.parameters) or 'none'}"
    )


def _largest(weights: canvas.Floats, most: int, what: str) -> tuple[list[int], str]:
    """The numbers of the largest slices along the last axis, in order, and words for them."""
    total = weights.shape[-1]
    if total <= most:
        return list(range(total)), f"{total} {what}{'s' if total != 1 else ''}"
    sizes = np.square(np.nan_to_num(weights.astype(np.float64))).reshape(-1, total).sum(axis=0)
    best = sorted(np.argsort(-sizes, kind="stable")[:most].tolist())
    return best, f"the {most} of {total} {what}s with the largest weights"


def _symmetric(weights: canvas.Floats) -> dict[str, Any]:
    finite = np.abs(weights[np.isfinite(weights)])
    most = float(finite.max()) if finite.size else 0.0
    return {"cmap": canvas.BOTH_SIGNS, "vmin": -(most or 1.0), "vmax": most or 1.0}


def _grey(
    weights: canvas.Floats, size: str, figure: AnyFigure | None, width: float, most: int
) -> AnyFigure:
    chosen, hint = _largest(weights, most, "filter")
    columns = canvas.columns_for(width, canvas.PANEL, len(chosen))
    rows = -(-len(chosen) // columns)
    height = width / columns * rows * _stretch(weights.shape) + 0.7
    target = canvas.figure_of(figure, width, min(height, 60.0))
    axes = canvas.grid(target, len(chosen), columns)
    scale = _symmetric(weights)
    for ax, index in zip(axes, chosen, strict=True):
        image = canvas.show(ax, weights[..., index], str(index), **scale)
    canvas.colour_bar(target, image, axes)
    canvas.headline(target, f"{size}, {hint}", width)
    return target


def _colours(
    weights: canvas.Floats, size: str, figure: AnyFigure | None, width: float, most: int
) -> AnyFigure:
    """Filters on red, green and blue: grey stands for 0."""
    chosen, hint = _largest(weights, most, "filter")
    columns = canvas.columns_for(width, canvas.PANEL, len(chosen))
    rows = -(-len(chosen) // columns)
    height = width / columns * rows * _stretch(weights.shape) + 0.7
    target = canvas.figure_of(figure, width, min(height, 60.0))
    half = _symmetric(weights)["vmax"]
    for ax, index in zip(canvas.grid(target, len(chosen), columns), chosen, strict=True):
        picture = np.nan_to_num(np.clip(0.5 + weights[..., index] / (2 * half), 0, 1), nan=0.5)
        canvas.show(ax, picture, str(index))
    canvas.headline(target, f"{size} on red, green and blue (grey is 0), {hint}", width)
    return target


def _table(
    weights: canvas.Floats, size: str, figure: AnyFigure | None, width: float, most: int
) -> AnyFigure:
    """A column for each filter and a row for each input channel, as one picture."""
    most = min(most, max(1, int(width / _CELL)))
    columns, filters_hint = _largest(weights, most, "filter")
    rows, channels_hint = _largest(
        weights[..., columns].transpose(0, 1, 3, 2), _ROWS, "input channel"
    )
    kh, kw = weights.shape[:2]
    table = np.full((len(rows) * (kh + 1) - 1, len(columns) * (kw + 1) - 1), np.nan)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            top, left = i * (kh + 1), j * (kw + 1)
            table[top : top + kh, left : left + kw] = weights[:, :, row, column]
    height = 0.92 * width * table.shape[0] / table.shape[1] + 1.0
    target = canvas.figure_of(figure, width, min(max(height, 2.0), 60.0))
    ax = target.add_subplot()
    image = canvas.show(ax, table, **_symmetric(weights))
    for side_line in ax.spines.values():
        side_line.set_visible(False)
    for numbers, side, put in ((columns, kw, ax.set_xticks), (rows, kh, ax.set_yticks)):
        places = [i * (side + 1) + (side - 1) / 2 for i in range(len(numbers))]
        put(places, list(map(str, numbers)))
    _label(ax, "filter", "input channel")
    canvas.colour_bar(target, image, [ax])
    canvas.headline(target, f"{size}, {filters_hint}, {channels_hint}", width)
    return target


def _label(ax: Axes, x: str, y: str) -> None:
    ax.tick_params(labelsize=canvas.SMALL, colors=canvas.INK, length=0)
    ax.set_xlabel(x, fontsize=canvas.TEXT, color=canvas.INK)
    ax.set_ylabel(y, fontsize=canvas.TEXT, color=canvas.INK)


def _matrix(
    weights: canvas.Floats, title: str, figure: AnyFigure | None, width: float
) -> AnyFigure:
    """Weights (inputs, outputs) as one matrix, a row for each output."""
    outputs, words = _largest(weights, _MATRIX, "output")
    inputs, more = _largest(weights.T, 4 * _MATRIX, "input")
    matrix = weights[np.ix_(inputs, outputs)].T
    height = min(8.0, max(2.2, 0.85 * width * matrix.shape[0] / matrix.shape[1] + 1.1))
    target = canvas.figure_of(figure, width, height)
    ax = target.add_subplot()
    image = ax.imshow(matrix, aspect="auto", interpolation="nearest", **_symmetric(weights))
    _number_ticks(ax, inputs, outputs)
    _label(ax, "input", "output")
    canvas.colour_bar(target, image, [ax])
    canvas.headline(target, f"{title}: {words}, {more}", width)
    return target


def _number_ticks(ax: Axes, inputs: list[int], outputs: list[int]) -> None:
    """Some of the numbers along both sides, so that they do not overlap."""
    for numbers, most, put in ((inputs, 10, ax.set_xticks), (outputs, 12, ax.set_yticks)):
        step = -(-len(numbers) // most)
        put(range(0, len(numbers), step), [str(n) for n in numbers[::step]])


def sobel(
    image: Any = None, figure: AnyFigure | None = None, *, width: float = canvas.WIDTH
) -> AnyFigure:
    """The article's first example: the two Sobel filters on a digit, and the edges they find.

    Args:
        image: (H, W) or (H, W, 1), of at least 3×3 pixels; None takes the first test digit of
            MNIST.
        figure: where to draw; None makes a figure.
        width: of a new figure, in inches.

    Returns:
        The figure: image, both filters, both results, and the strength of the edges.

    Raises:
        TypeError, ValueError: a wrong argument.
        DatasetError: without an image, MNIST is missing.
        ImportError: Matplotlib is not installed.

    Example:
        >>> from fastcnn import plots
        >>> [ax.get_title() for ax in plots.sobel(np.eye(6)).axes]
        ['image', 'vertical edges', 'result', 'strength', 'horizontal edges', 'result']
    """
    wide = canvas.width_of(figure, width)
    if image is None:
        from fastcnn.data.datasets import load_mnist

        image = load_mnist()[1][0][0]
    picture = canvas.pixels(image, "image")
    if picture.ndim != 2 or min(picture.shape) < 3:
        raise ValueError(
            f"image must have one channel and at least 3×3 pixels, got {np.shape(image)}"
        )
    target = canvas.figure_of(figure, wide, wide * 0.7 * _stretch(picture.shape) + 0.4)
    axes = canvas.grid(target, 6, 3)
    canvas.draw_pixels(axes[0], picture[..., np.newaxis], "image")
    filters = VERTICAL_SOBEL, HORIZONTAL_SOBEL
    results = [filter_image(picture, numbers, engine="naive") for numbers in filters]
    scale = _symmetric(np.array(results))
    for (filter_ax, result_ax), numbers, title, result in zip(
        (axes[1:3], axes[4:6]), filters,
        ("vertical edges", "horizontal edges"), results, strict=True,
    ):  # fmt: skip
        _draw_numbers(filter_ax, numbers, title)
        canvas.show(result_ax, result, "result", **scale)
    strength = np.hypot(*results)
    canvas.show(axes[3], strength, "strength", **canvas.scale_of([strength]))
    for ax in axes:
        ax.title.set_fontsize(canvas.TEXT)
    return target


def _draw_numbers(ax: Axes, values: canvas.Floats, title: str) -> None:
    """A small filter with its numbers in it."""
    canvas.show(ax, values, title, cmap=canvas.BOTH_SIGNS, vmin=-3, vmax=3)
    for (row, column), value in np.ndenumerate(values):
        ax.text(
            column, row, f"{value:g}".replace("-", "−"), ha="center", va="center",
            fontsize=canvas.TITLE, color=canvas.ON_COLOUR,
        )  # fmt: skip
