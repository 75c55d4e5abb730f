"""The pages about other libraries' files: their Python blocks run, in order, in an empty folder."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import fastcnn

DOCS = Path(__file__).parent.parent / "docs"
PAGES: dict[str, tuple[str, ...]] = {"onnx-export": ("onnx",), "from-pytorch": ()}
"""The pages, with the packages that all of their blocks need."""
BLOCK = re.compile(r"^(?:<!-- needs (\w+) -->\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in PAGES[page]:
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text("utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python") > 0
    threads = fastcnn.get_num_threads()
    names: dict[str, Any] = {"__name__": page}
    skipped = set[str]()
    for package, code in blocks:
        if package and find_spec(package) is None:
            skipped.add(package)
            continue
        exec(compile(code, f"docs/{page}.md", "exec"), names)
    fastcnn.set_num_threads(threads)
    if skipped:
        pytest.skip(f"some blocks need {', '.join(sorted(skipped))}, which is not installed")
