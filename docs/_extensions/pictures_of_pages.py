"""The directive ``picture`` shows the figure that a page's own Python blocks draw.

    ```{picture} sobel
    The caption.
    ```

The build runs the Python blocks of the page above the directive, in an empty folder, and saves what
they call ``figure``. So a reader who runs the blocks sees the same picture.
"""

from __future__ import annotations

import re
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = "_pictures"
"""The folder of the pictures, among the sources because Sphinx looks for them there."""
_FENCE = re.compile(r"^```(python|\{picture\} \w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Run:
    """A page. Its blocks run one after the other, and each picture is saved when it is drawn.

    Attributes:
        names: the global names of the blocks.
        done: how many fences of the page are done.
    """

    names: dict[str, Any] = field(default_factory=dict)
    done: int = 0


_runs = dict[str, Run]()


def figure_of(page: Path, picture: str) -> Any:
    """The figure that the blocks above a picture of a page draw."""
    fences = _FENCE.findall(page.read_text("utf-8"))
    end = [kind for kind, _ in fences].index(f"{{picture}} {picture}")
    run = _runs.get(str(page))
    if run is None or run.done > end:
        run = _runs[str(page)] = Run()
    with TemporaryDirectory() as folder, chdir(folder), redirect_stdout(StringIO()):
        for kind, code in fences[run.done : end]:
            if kind == "python":
                exec(compile(code, page.name, "exec"), run.names)
    run.done = end + 1
    return run.names.pop("figure")


class Picture(SphinxDirective):
    """A figure with a caption, which is also the picture's description."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from matplotlib import pyplot

        figure = figure_of(Path(self.env.doc2path(self.env.docname)), self.arguments[0])
        path = Path(self.env.srcdir) / FOLDER / f"{self.arguments[0]}.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight")
        pyplot.close("all")
        caption = " ".join(self.content)
        image = nodes.image(uri=f"/{FOLDER}/{path.name}", alt=caption, width="100%")
        return [nodes.figure("", image, nodes.caption("", caption))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Enter the directive."""
    import matplotlib as mpl

    mpl.use("Agg")
    app.add_directive("picture", Picture)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
