"""Pictures of predictions: which classes are confused, and which pictures are surely wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.models.described import only_input
from fastcnn.models.model import Model
from fastcnn.plots import canvas
from fastcnn.plots.samples import checked_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastcnn.plots.canvas import AnyFigure

_WITH_NUMBERS = 20  # classes of a matrix whose cells have numbers
_MOST_CLASSES = 2000
_TICKS = 25
_SHOWN = 3  # classes beside a picture


def confusion_matrix(
    labels: ArrayLike,
    predictions: ArrayLike,
    ax: Axes | None = None,
    *,
    names: Sequence[str] | None = None,
    width: float = canvas.WIDTH,
) -> Axes:
    """Which class is predicted for which: a row for each true class, in numbers of samples.

    Right predictions are blue, by their share of the row. Wrong ones are orange, by their share of
    the most frequent mistake, so that few mistakes can be seen beside many right predictions.

    Args:
        labels: the true classes, integers (N,).
        predictions: the predicted classes, integers (N,), such as of ``model.predict_classes(x)``.
        ax: where to draw; None makes a figure.
        names: of the classes; None takes their numbers.
        width: of a new figure, in inches.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: a wrong argument.
        ImportError: Matplotlib is not installed.

    Example:
        >>> from fastcnn import plots
        >>> ax = plots.confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], width=4)
        >>> [text.get_text() for text in ax.texts]
        ['1', '1', '2']
    """
    canvas.checked_axes(ax)
    wide = canvas.checked_width(width)
    counts, titles = _counts(labels, predictions, names)
    total = len(counts)
    if ax is None:
        ax = canvas.axes_of(None, wide, wide * 0.88)
    else:
        wide = ax.get_window_extent().width / ax.figure.dpi
    right = np.eye(total, dtype=bool)
    rows = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(rows, 1)
    worst = max(1, int(np.where(right, 0, counts).max(initial=0)))
    scales = (("Blues", share, ~right), ("Oranges", counts / worst, right))
    for colours, values, hidden in scales:
        masked = np.ma.masked_array(values, hidden | (counts == 0))
        ax.imshow(masked, cmap=colours, vmin=0, vmax=1.25, interpolation="nearest")
    if total <= _WITH_NUMBERS:
        size = min(canvas.TITLE, max(4.5, 72 * 0.8 * wide / total / 4))
        for (i, j), value in np.ndenumerate(counts):
            if value:
                dark = share[i, j] > 0.6 if i == j else counts[i, j] / worst > 0.7
                ax.text(
                    j, i, f"{value:,}", ha="center", va="center", fontsize=size,
                    color="white" if dark else canvas.ON_COLOUR,
                )  # fmt: skip
    step = -(-total // _TICKS)
    longest = max(map(len, titles))
    ax.set_xticks(range(0, total, step), titles[::step], rotation=90 if longest > 3 else 0)
    ax.set_yticks(range(0, total, step), titles[::step])
    ax.tick_params(labelsize=canvas.SMALL, colors=canvas.INK, length=0)
    ax.set_xlabel("predicted", fontsize=canvas.TEXT, color=canvas.INK)
    ax.set_ylabel("true", fontsize=canvas.TEXT, color=canvas.INK)
    for side in ax.spines.values():
        side.set_color(canvas.SOFT)
    hits, samples = int(counts.trace()), int(counts.sum())
    ax.set_title(
        f"{hits:,} of {samples:,} right ({hits / samples:.2%})", fontsize=canvas.TITLE,
        color=canvas.INK, loc="left",
    )  # fmt: skip
    return ax


def _counts(
    labels: ArrayLike, predictions: ArrayLike, names: Sequence[str] | None
) -> tuple[NDArray[np.int64], list[str]]:
    true, predicted = _classes("labels", labels), _classes("predictions", predictions)
    if len(true) != len(predicted):
        raise ValueError(
            f"predictions must be as many as labels, {len(true)}, got {len(predicted)}"
        )
    if not len(true):
        raise ValueError("labels must be at least one, got none")
    total = int(max(true.max(), predicted.max())) + 1
    titles = class_names(names, total)
    total = max(total, len(titles))
    if total > _MOST_CLASSES:
        raise ValueError(f"labels must be below {_MOST_CLASSES}, got {total - 1}")
    cells = np.bincount(true * total + predicted, minlength=total * total)
    return cells.reshape(total, total), titles


def _classes(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise ValueError(
            f"{name} must be class numbers, integers (N,), got {array.dtype} of shape {array.shape}"
        )
    if array.size and array.min() < 0:
        raise ValueError(f"{name} must be at least 0, got {array.min()}")
    return array.astype(np.int64)


def class_names(names: Sequence[str] | None, total: int) -> list[str]:
    """A name for each of ``total`` classes; ``ValueError`` for fewer."""
    if names is None:
        return [str(i) for i in range(total)]
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be a list of texts, got {quoted(names)}")
    if len(names) < total:
        raise ValueError(f"names must name {total} classes, got {len(names)}")
    return list(names)


def mistakes(
    model: Model,
    x: Any,
    y: ArrayLike,
    figure: AnyFigure | None = None,
    *,
    most: int = 9,
    names: Sequence[str] | None = None,
    width: float = canvas.WIDTH,
) -> AnyFigure:
    """The pictures that are most surely wrong, each with its most probable classes.

    Args:
        model: a built model of one image, which predicts probabilities of classes.
        x: images as for ``model.predict``, also of :func:`fastcnn.load_images`.
        y: their true classes, integers (N,).
        figure: where to draw; None makes a figure.
        most: the largest number of pictures.
        names: of the classes; None takes ``model.classes``, or their numbers.
        width: of a new figure, in inches.

    Returns:
        The figure: for each picture the picture, and bars of its probabilities.

    Raises:
        TypeError, ValueError: a wrong argument.
        ImportError: Matplotlib is not installed.
    """
    checked_model(model)
    if len(only_input(model)) != 3:
        raise ValueError(f"model must take images, this one takes {model.input_shape}")
    most = count("most", most)
    wide = canvas.width_of(figure, width)
    labels = _classes("y", y)
    predicted = model.predict(x)
    if predicted.ndim != 2 or predicted.shape[1] < 2:
        raise ValueError(f"model must predict classes, this one predicts {model.output_shape}")
    if len(labels) != len(predicted):
        raise ValueError(f"y must have {len(predicted)} classes, got {len(labels)}")
    names = model.classes if names is None else names
    titles = class_names(names, int(max(predicted.shape[1], labels.max(initial=0) + 1)))
    wrong = np.flatnonzero(predicted.argmax(axis=1) != labels)
    order = wrong[np.argsort(-predicted[wrong].max(axis=1), kind="stable")][:most]
    total = len(order)
    if not total:
        target = canvas.figure_of(figure, wide, 1.2)
        ax = target.add_subplot()
        ax.set_axis_off()
        text = f"none of {len(labels):,} pictures is wrong" if len(labels) else "no pictures"
        ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=canvas.TEXT, color=canvas.INK)
        return target
    columns = canvas.columns_for(wide, 1.9, total)
    rows = -(-total // columns)
    target = canvas.figure_of(figure, wide, min(60.0, 1.6 * rows + 0.5))
    spec = target.add_gridspec(rows, 2 * columns, width_ratios=[1, 1.1] * columns)
    images = model._samples("x", x)[order]
    for at, k in enumerate(order):
        row, column = divmod(at, columns)
        ax = target.add_subplot(spec[row, 2 * column])
        guess = titles[int(predicted[k].argmax())]
        canvas.draw_pixels(ax, images[at], f"no. {k}: {titles[labels[k]]}\nread as {guess}")
        _bars(target.add_subplot(spec[row, 2 * column + 1]), predicted[k], int(labels[k]), titles)
    canvas.headline(
        target, f"most surely wrong: {total} of {len(wrong):,} mistakes in {len(labels):,}", wide
    )
    return target


def _bars(ax: Axes, probabilities: canvas.Floats, label: int, names: Sequence[str]) -> None:
    """The most probable classes, and the true one, as bars with numbers."""
    best = np.argsort(-probabilities, kind="stable")[:_SHOWN].tolist()
    if label < len(probabilities) and label not in best:
        best[-1] = label
    values = [float(np.nan_to_num(probabilities[one])) for one in best]
    colours = [canvas.BLUE if one == label else canvas.ORANGE for one in best]
    ax.barh(range(len(best)), values, color=colours, height=0.45)
    for place, (one, value) in enumerate(zip(best, values, strict=True)):
        ax.text(
            0.0, place - 0.3, f"{names[one][:14]}: {value:.1%}", fontsize=canvas.SMALL - 1,
            color=canvas.INK, va="bottom",
        )  # fmt: skip
    ax.set_xlim(0, max(1.0, *values))
    ax.set_ylim(len(best) - 0.6, -0.95)
    ax.set_axis_off()
