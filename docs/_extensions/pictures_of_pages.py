"""The directive ``picture``: a function of ``tutorial/pictures.py`` draws it during the build.

    ```{picture} sobel
    The caption.
    ```

The function returns a figure of matplotlib. A picture is made once in a build.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = "_pictures"
"""The folder of the pictures, among the sources because Sphinx looks for them there."""
_made = set[Path]()


class Picture(SphinxDirective):
    """A figure with a caption, which is also the picture's description."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        import pictures

        name = self.arguments[0]
        path = Path(self.env.srcdir) / FOLDER / f"{name}.png"
        if path not in _made:
            _made.add(path)
            path.parent.mkdir(exist_ok=True)
            figure = getattr(pictures, name)()
            figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight")
        caption = " ".join(self.content)
        image = nodes.image(uri=f"/{FOLDER}/{path.name}", alt=caption, width="100%")
        return [nodes.figure("", image, nodes.caption("", caption))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Enter the directive."""
    app.add_directive("picture", Picture)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
