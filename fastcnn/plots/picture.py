"""``Picture``: a figure that a notebook shows once."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that shows itself once in a notebook, also as the last expression of a cell.

    Notebooks show each figure of pyplot at the end of its cell, and then what the last expression
    returns: of a plain figure, the same picture once more.
    """

    def _ipython_display_(self) -> None:
        from matplotlib import pyplot

        number = getattr(self, "number", None)
        if "inline" not in matplotlib.get_backend() or not pyplot.fignum_exists(number or -1):
            raise NotImplementedError  # IPython then shows it as any other figure
