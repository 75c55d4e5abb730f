"""Pictures as SVG inside of an HTML page."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from io import StringIO
from typing import Any

from fastcnn.plots import canvas


def svg(draw: Callable[[], Any], title: str) -> str:
    """A picture as an SVG element, whose ink is the colour of the text around it."""
    import matplotlib as mpl

    ink: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
        canvas.INK,
    )
    with mpl.rc_context({**ink, "svg.fonttype": "path", "svg.hashsalt": title}):
        with canvas.detached_figures():
            figure: Any = draw()
        target = StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(canvas.INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
