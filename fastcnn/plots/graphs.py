"""The graph of a model as boxes and arrows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastcnn.models.model import Model
from fastcnn.models.summary import value_names
from fastcnn.nn.layers import Layer, repr_of_structure
from fastcnn.plots import canvas
from fastcnn.plots.graph_layout import Layout, Place, layout
from fastcnn.plots.samples import checked_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOX, _WIDEST = 2.5, 4.5  # inches of a box, and of one with a long text where there is room
_GAP, _LANE = 0.3, 0.35  # inches between boxes, and of a passing line
_LEVEL, _HEIGHT = 0.72, 0.48  # inches from level to level, and of a box
_MOST_LEVELS = 800
_LETTER = 0.068  # inches of a letter at 9 points

_KINDS = (
    (("Conv", "Separable"), canvas.BLUE),
    (("Pool", "Resize", "UpSampling"), canvas.GREEN),
    (("Dense",), canvas.ORANGE),
    (("Add", "Subtract", "Multiply", "Average", "Maximum", "Concatenate", "Residual"),
     canvas.PURPLE),
)  # fmt: skip


def graph(model: Model, ax: Axes | None = None, *, width: float = canvas.WIDTH) -> Axes:
    """The layers of a model as boxes, and its values as arrows, from top to bottom.

    Each box has the layer, its name and the shape of its result. Convolutions are blue, poolings
    and resizings green, dense layers orange, what joins values purple, and other layers grey.

    Args:
        model: a built model.
        ax: where to draw; None makes a figure, as high as the net is deep.
        width: of a new figure, in inches; boxes and letters shrink where branches need more, and
            boxes become wider for long texts where branches leave room.

    Returns:
        The axes. The texts of its boxes are ``ax.texts``.

    Raises:
        TypeError, ValueError: a wrong argument; a net of more than 800 levels.
        ImportError: Matplotlib is not installed.

    Example:
        >>> from fastcnn import Sequential, plots
        >>> from fastcnn.nn.layers import Dense
        >>> model = Sequential([Dense(4), Dense(2)], (3,))
        >>> [text.get_text().split()[0] for text in plots.graph(model).texts]
        ['input_0', 'Dense(4)', 'Dense(2)']
    """
    checked_model(model)
    canvas.checked_axes(ax)
    wide = canvas.checked_width(width)
    net = model._graph
    values: list[tuple[int, ...]] = [()] * net.inputs
    values += [node.inputs for node in net.nodes]
    texts = _texts(model)
    room = wide if ax is None else ax.get_window_extent().width / ax.figure.dpi
    places, side = _places(values, texts, room)
    deep = len(places.levels)
    if deep > _MOST_LEVELS:
        raise ValueError(
            f"model must have at most {_MOST_LEVELS} layers in a row, got {deep}; draw a part, "
            "such as fastcnn.Model(model.inputs, layer.output)"
        )
    span = places.right - places.left
    shrink = min(1.0, room / span)
    if ax is None:
        ax = canvas.axes_of(None, wide, max(1.0, deep * _LEVEL * shrink + 0.1))
    else:
        tall = ax.get_window_extent().height / ax.figure.dpi
        shrink = min(1.0, room / span, tall / (deep * _LEVEL))
    margin = max(0.0, room / shrink - span) / 2
    ax.set_xlim(places.left - margin, places.right + margin)
    ax.set_ylim(deep * _LEVEL - _LEVEL / 2, -_LEVEL / 2)
    ax.set_axis_off()
    _lines(ax, places, shrink)
    for place in sorted(
        (one for level in places.levels for one in level if one.value is not None),
        key=lambda one: one.value or 0,
    ):
        assert place.value is not None
        layer = None if place.value < net.inputs else net.nodes[place.value - net.inputs].layer
        _box(ax, place, side, texts[place.value], _colour(layer), shrink)
    return ax


def _texts(model: Model) -> list[tuple[str, str]]:
    """The two lines of the box of each value: the layer, and the value's name with its shape."""
    net = model._graph
    names, shapes = value_names(net, model._input_names()), net.infer(model._known_shapes())
    result = [(names[value], str(shapes[value])) for value in range(net.inputs)]
    for value, node in enumerate(net.nodes, net.inputs):
        output = "  → output" if value in net.outputs and len(net.outputs) > 1 else ""
        result.append((repr_of_structure(node.layer), f"{names[value]}  {shapes[value]}{output}"))
    return result


def _places(
    values: Sequence[Sequence[int]], texts: Sequence[tuple[str, str]], room: float
) -> tuple[Layout, float]:
    """The places of the boxes, and the width of a box: for whole texts where the room suffices."""
    longest = max(len(line) for lines in texts for line in lines) * _LETTER + 0.12
    most = min(max(_BOX, longest), _WIDEST)
    for side in (most, (most + _BOX) / 2):
        places = layout(values, side + _GAP, _LANE)
        if places.right - places.left <= room:
            return places, side
    return layout(values, _BOX + _GAP, _LANE), _BOX


def _colour(layer: Layer | None) -> str:
    if layer is None:
        return canvas.INK
    name = type(layer).__name__
    for parts, colour in _KINDS:
        if any(part in name for part in parts):
            return colour
    return canvas.SOFT


def _box(
    ax: Axes, place: Place, side: float, texts: tuple[str, str], colour: str, shrink: float
) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch

    y = place.level * _LEVEL
    ax.add_patch(
        FancyBboxPatch(
            (place.x - side / 2, y - _HEIGHT / 2), side, _HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.06", facecolor=to_rgba(colour, 0.14),
            edgecolor=colour, linewidth=1.1 * shrink, zorder=2,
        )
    )  # fmt: skip
    letters = int((side - 0.12) / _LETTER + 1e-6)
    lines = [text if len(text) <= letters else text[: letters - 1] + "…" for text in texts]
    ax.text(
        place.x, y, "\n".join(lines), ha="center", va="center", linespacing=1.25,
        fontsize=canvas.SMALL * shrink, color=canvas.INK, zorder=3,
    )  # fmt: skip


def _lines(ax: Axes, places: Layout, shrink: float) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    for level in places.levels:
        for upper in level:
            for lower in upper.below:
                top = upper.level * _LEVEL + (_HEIGHT / 2 if upper.value is not None else 0)
                end = lower.level * _LEVEL - (_HEIGHT / 2 if lower.value is not None else 0)
                # Between two levels the line bends; beside boxes it is straight.
                start = upper.level * _LEVEL + _HEIGHT / 2
                stop = lower.level * _LEVEL - _HEIGHT / 2
                middle = (start + stop) / 2
                path = Path(
                    [(upper.x, top), (upper.x, start), (upper.x, middle), (lower.x, middle),
                     (lower.x, stop), (lower.x, end)],
                    [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO],
                )  # fmt: skip
                ax.add_patch(
                    PathPatch(path, facecolor="none", edgecolor=canvas.SOFT, linewidth=1.1 * shrink)
                )
                if lower.value is not None:
                    ax.plot(
                        lower.x, end - 0.035, "v", color=canvas.SOFT, markersize=4.5 * shrink,
                        markeredgewidth=0,
                    )  # fmt: skip
