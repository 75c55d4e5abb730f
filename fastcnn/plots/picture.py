"""``Picture``: a figure that a notebook shows once."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that a notebook shows once, also as the last expression of a cell.

    A notebook shows what the last expression returns, and at the end of the cell each figure that
    pyplot knows. A picture leaves pyplot when it is shown, so the end of the cell does not show it
    again.
    """

    def _ipython_display_(self) -> None:
        if "inline" in matplotlib.get_backend():
            from matplotlib import pyplot

            pyplot.close(self)
        raise NotImplementedError  # IPython then shows it as any other figure
