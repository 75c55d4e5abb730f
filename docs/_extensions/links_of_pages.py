"""After a build of HTML, a warning for each internal link that leads nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from os.path import normpath
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging


class _Page(HTMLParser):
    """The links of a page, and the names that a link may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names = set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id" and value:
                self.names.add(value)
            elif key in ("href", "src") and value:
                self.links.append(value)


def dead_links(folder: Path) -> list[tuple[str, str]]:
    """Pages of a folder with their internal links to no file, or to no place in a page."""
    pages = {path: _Page(path.read_text("utf-8")) for path in sorted(folder.rglob("*.html"))}
    result = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = Path(normpath(path.parent / unquote(parts.path))) if parts.path else path
            names = pages[target].names if target in pages else {""}
            is_place = not parts.fragment or unquote(parts.fragment) in names
            if not target.exists() or not is_place:
                result.append((str(path.relative_to(folder)), link))
    return result


def _warn(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.name == "html":
        for page, link in dead_links(Path(app.outdir)):
            logging.getLogger(__name__).warning("%s: the link %s leads nowhere", page, link)


def setup(app: Sphinx) -> dict[str, Any]:
    """Check the links when a build is finished."""
    app.connect("build-finished", _warn)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
