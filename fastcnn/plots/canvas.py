"""Figures, colours and panels that all pictures share.

Colours are those of Okabe and Ito, which readers with any form of colour blindness can tell apart;
lines also differ by their dashes. Numbers of one sign are shown in ``cividis``, whose brightness
grows evenly, and numbers of both signs in ``PuOr``, with white at 0.

Matplotlib is imported with the first picture. Without a figure from the caller, a picture makes one
with pyplot, so that notebooks and ``pyplot.show()`` show it.

Source of the palette: M. Okabe, K. Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.quoting import quoted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

    AnyFigure = Figure | SubFigure

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, YELLOW = "#56B4E9", "#E69F00", "#F0E442"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER)
INK, SOFT = "#1d2433", "#6b7480"
"""Of text and lines, and of what should stand back."""
ON_COLOUR = "#1d2432"
"""Of text on a light colour, also where the ink of a picture is that of a dark page."""

ONE_SIGN, BOTH_SIGNS = "cividis", "PuOr"

WIDTH = 8.0
"""Inches of a figure that no caller made: 800 pixels at 100 to an inch."""
PANEL = 0.95
"""Inches of the narrowest panel of a grid."""
SMALL, TEXT, TITLE = 8, 9, 11
"""Sizes of letters in points."""

Floats = NDArray[np.floating[Any]]

_detached: ContextVar[bool] = ContextVar("_detached", default=False)


@contextmanager
def detached_figures() -> Iterator[None]:
    """Within this context new figures are unknown to pyplot, so that no window needs to exist."""
    token = _detached.set(True)
    try:
        yield
    finally:
        _detached.reset(token)


def checked_width(width: object) -> float:
    """The width of a new figure in inches; ``ValueError`` or ``TypeError`` for another."""
    if isinstance(width, bool) or not isinstance(width, int | float | np.number):
        raise TypeError(f"width must be a number of inches, got {quoted(width)}")
    if not (isfinite(width) and 2 <= width <= 50):
        raise ValueError(f"width must be from 2 to 50 inches, got {quoted(width)}")
    return float(width)


def require_matplotlib() -> None:
    """Raise the ``ImportError`` that says how to install Matplotlib, where it is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'pictures need Matplotlib, which cannot be imported ({error}): pip install "fastcnn'
            f'[plots]"'
        ) from error


def checked_figure(figure: Any) -> None:
    """Raise ``TypeError`` for anything but None and a figure."""
    require_matplotlib()
    from matplotlib.figure import FigureBase

    if figure is not None and not isinstance(figure, FigureBase):
        raise TypeError(f"figure must be a Matplotlib figure or None, got {quoted(figure)}")


def checked_axes(ax: Any) -> None:
    """Raise ``TypeError`` for anything but None and axes."""
    require_matplotlib()
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(f"ax must be Matplotlib axes or None, got {quoted(ax)}")


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, whose panels keep clear of each other."""
    require_matplotlib()
    from fastcnn.plots.picture import Picture

    size: dict[str, Any] = {"figsize": (width, height), "dpi": 100, "layout": "constrained"}
    if _detached.get():
        return Picture(**size)
    from matplotlib import pyplot

    return pyplot.figure(FigureClass=Picture, **size)


def figure_of(figure: AnyFigure | None, width: float, height: float) -> AnyFigure:
    """The caller's figure, or a new one of this size."""
    return new_figure(width, height) if figure is None else figure


def width_of(figure: AnyFigure | None, width: float) -> float:
    """The width in inches of the caller's figure, or of a new one."""
    checked_figure(figure)
    if figure is None:
        return checked_width(width)
    return float(figure.bbox.width / figure.dpi)


def axes_of(ax: Axes | None, width: float, height: float) -> Axes:
    """The caller's axes, or those of a new figure."""
    return new_figure(width, height).add_subplot() if ax is None else ax


def columns_for(width: float, panel: float, count: int) -> int:
    """The number of columns for ``count`` panels of at least ``panel`` inches, evenly filled.

    >>> columns_for(8, 1, 16), columns_for(8, 1, 9), columns_for(8, 1, 3), columns_for(0.5, 1, 3)
    (8, 5, 3, 1)
    """
    most = max(1, int(width / panel))
    return ceil(count / ceil(count / most))


def grid(figure: AnyFigure, count: int, columns: int) -> list[Axes]:
    """Axes for ``count`` panels, row by row."""
    rows = ceil(count / columns)
    spec = figure.add_gridspec(rows, columns)
    return [figure.add_subplot(spec[i // columns, i % columns]) for i in range(count)]


def plain(ax: Axes, title: str = "", size: float = SMALL) -> None:
    """Take the ticks away, leave a thin frame, and set the title."""
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_color(SOFT)
        side.set_linewidth(0.5)
    if title:
        ax.set_title(title, fontsize=size, color=INK, pad=3)


def lines(ax: Axes, title: str, x: str, y: str) -> None:
    """The style of axes with numbers: labels, a light grid, no frame at the top and the right."""
    ax.set_title(title, fontsize=TITLE, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)
    ax.tick_params(labelsize=SMALL, colors=INK)
    ax.grid(color=SOFT, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    for name, side in ax.spines.items():
        side.set_visible(name in ("left", "bottom"))
        side.set_color(SOFT)


def limits(arrays: Sequence[Floats]) -> tuple[float, float]:
    """The least and the greatest finite number, apart from each other, also for constant arrays.

    >>> limits([np.array([1.0, np.nan]), np.array([3.0])]), limits([np.full(3, 2.0)])
    ((1.0, 3.0), (1.5, 2.5))
    """
    finite = [array[np.isfinite(array)] for array in map(np.asarray, arrays)]
    finite = [array for array in finite if array.size]
    if not finite:
        return 0.0, 1.0
    low = min(float(array.min()) for array in finite)
    high = max(float(array.max()) for array in finite)
    if high - low > 1e-7 * max(abs(low), abs(high)):
        return low, high
    half = max(0.5, abs(low) * 1e-3)
    return low - half, high + half


def scale_of(arrays: Sequence[Floats]) -> dict[str, Any]:
    """The colours of arrays that are compared, as arguments of ``imshow``."""
    finite = [array[np.isfinite(array)] for array in map(np.asarray, arrays)]
    low = min((float(array.min()) for array in finite if array.size), default=0.0)
    high = max((float(array.max()) for array in finite if array.size), default=0.0)
    if low < 0 < high:
        most = max(-low, high)
        return {"cmap": BOTH_SIGNS, "vmin": -most, "vmax": most}
    low, high = limits(arrays)
    return {"cmap": ONE_SIGN, "vmin": low, "vmax": high}


def show(ax: Axes, image: Any, title: str = "", **scale: Any) -> AxesImage:
    """An image (H, W) or (H, W, 3) without ticks."""
    plain(ax, title)
    return ax.imshow(image, interpolation="nearest", **scale)


def colour_bar(figure: AnyFigure, drawn: AxesImage, axes: Sequence[Axes], label: str = "") -> None:
    """The scale of colours beside the panels."""
    bar: Any = figure.colorbar(drawn, ax=list(axes), shrink=0.8, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    bar.outline.set_visible(False)
    if label:
        bar.set_label(label, fontsize=SMALL, color=INK)


def headline(figure: AnyFigure, title: str, width: float) -> None:
    """The title of a figure, in lines that fit its width."""
    from textwrap import wrap

    letters = max(20, int(width * 11.5))
    text = "\n".join(line for part in title.split("\n") for line in wrap(part, letters))
    figure.suptitle(text, fontsize=TITLE, color=INK)


def pixels(image: Any, name: str = "x") -> NDArray[Any]:
    """A sample (H, W, C) as ``imshow`` takes it: (H, W) grey, or (H, W, 3) from 0 to 1.

    Bytes keep their scale. Other numbers are scaled to their own range, so pictures that were
    scaled in another way look right too. Of other numbers of channels it is the mean.

    >>> pixels(np.array([[[0], [255]]], np.uint8))
    array([[0., 1.]])
    >>> pixels(np.full((2, 2, 1), 7.0)).max()
    np.float64(0.5)
    """
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] != 3:
        array = array.mean(axis=2) if array.shape[2] != 1 else array[..., 0]
    if array.ndim not in (2, 3) or array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be an image, got {array.dtype} of shape {array.shape}")
    if np.asarray(image).dtype == np.uint8:
        return np.asarray(array / 255, np.float64)
    numbers = array.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    numbers = (numbers - low) / (high - low) if high > low else np.full_like(numbers, 0.5)
    return np.nan_to_num(numbers, nan=0.0, posinf=1.0, neginf=0.0)


def draw_pixels(ax: Axes, image: Any, title: str = "") -> AxesImage:
    """A sample (H, W, C) as a picture."""
    array = pixels(image)
    scale: dict[str, Any] = {} if array.ndim == 3 else {"cmap": "gray", "vmin": 0.0, "vmax": 1.0}
    return show(ax, array, title, **scale)
