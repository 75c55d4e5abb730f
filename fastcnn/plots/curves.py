"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcnn.core.quoting import quoted
from fastcnn.plots import canvas
from fastcnn.train.progress import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastcnn.plots.canvas import AnyFigure

_STYLES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))
_MOST_MARKS = 30  # epochs whose points are marked
_COLUMNS = 2
_NO_CURVES = ("learning_rate", "seconds")
_NARROW = 6.0  # inches; panels of narrower figures stand below each other


def history(
    history: History | Mapping[str, Sequence[float]],
    figure: AnyFigure | None = None,
    *,
    width: float = canvas.WIDTH,
) -> AnyFigure:
    """Learning curves: losses, accuracies where there are any, and metrics, epoch by epoch.

    Figures that are not finite are left out, and the title counts them.

    Args:
        history: the result of ``fit``, or a dict of lists by name, such as ``history.history``.
        figure: where to draw; None makes a figure.
        width: of a new figure, in inches.

    Returns:
        The figure, with a panel for losses, one for accuracies, and one for each metric. Names that
        begin with ``val_`` are curves of the validation.

    Raises:
        TypeError, ValueError: a wrong argument, or a history without an epoch.
        ImportError: Matplotlib is not installed.

    Example:
        >>> from fastcnn import plots
        >>> losses = {"loss": [0.9, 0.4], "val_loss": [0.8, 0.5]}
        >>> [ax.get_title(loc="left") for ax in plots.history(losses).axes]
        ['loss']
    """
    figures = _checked(history)
    wide = canvas.width_of(figure, width)
    groups = _groups(figures)
    if not groups:
        raise ValueError(
            f"history must have a loss, an accuracy or a metric, got {quoted(list(figures))}"
        )
    columns = 1 if wide < _NARROW else min(len(groups), _COLUMNS)
    rows = -(-len(groups) // columns)
    target = canvas.figure_of(figure, wide, 2.6 * rows + 0.6)
    axes = canvas.grid(target, len(groups), columns)
    for ax, (kind, names) in zip(axes, groups.items(), strict=True):
        _draw(ax, kind, {name: figures[name] for name in names})
    return target


def _groups(figures: Mapping[str, object]) -> dict[str, list[str]]:
    """The names of the curves in each panel, by its title."""
    groups: dict[str, list[str]] = {"loss": [], "accuracy": []}
    for name in figures:
        metric = name.removeprefix("val_")
        kind = next((kind for kind in ("loss", "accuracy") if name.endswith(kind)), metric)
        if kind not in _NO_CURVES:
            groups.setdefault(kind, []).append(name)
    return {kind: names for kind, names in groups.items() if names}


def _checked(history: Any) -> dict[str, list[float]]:
    figures = history.history if isinstance(history, History) else history
    if not isinstance(figures, Mapping):
        raise TypeError(f"history must be a History or a dict of lists, got {quoted(history)}")
    result = {}
    for name, values in figures.items():
        try:
            numbers = np.asarray(values, np.float64)
        except (TypeError, ValueError):
            numbers = np.empty((0, 0))
        if not isinstance(name, str) or numbers.ndim != 1:
            raise ValueError(
                f"history must have a list of numbers for each name, got {quoted(values)} for "
                f"{quoted(name)}"
            )
        result[name] = numbers.tolist()
    if not any(result.values()):
        raise ValueError("history must have at least one epoch, got none")
    return result


def _draw(ax: Axes, kind: str, figures: dict[str, list[float]]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    missing = epochs = 0
    for i, (name, values) in enumerate(figures.items()):
        numbers = np.array(values)
        missing += int((~np.isfinite(numbers)).sum())
        epochs = max(epochs, len(numbers))
        numbers[~np.isfinite(numbers)] = np.nan
        mark, dash = _STYLES[i % len(_STYLES)]
        ax.plot(
            np.arange(1, len(numbers) + 1), numbers, dash, label=name, linewidth=1.8,
            color=canvas.PALETTE[i % len(canvas.PALETTE)], markersize=4,
            marker=mark if len(numbers) <= _MOST_MARKS else None,
        )  # fmt: skip
    title = kind if not missing else f"{kind} ({missing} not finite, left out)"
    canvas.lines(ax, title, "epoch", "")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    ax.set_xlim(0.5 if epochs == 1 else 0.8, epochs + (0.5 if epochs == 1 else 0.2))
    if kind == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    names = {kind: "training", f"val_{kind}": "validation"}
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(
        handles, [names.get(label, label) for label in labels], fontsize=canvas.SMALL,
        frameon=False, labelcolor=canvas.INK,
    )  # fmt: skip
    if missing == sum(map(len, figures.values())):
        ax.text(
            0.5, 0.5, "no finite figure", transform=ax.transAxes, ha="center", va="center",
            fontsize=canvas.TEXT, color=canvas.SOFT,
        )  # fmt: skip
