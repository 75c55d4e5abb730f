"""The pages about other libraries' files: their Python blocks run, in order, in an empty folder."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import fastcnn

DOCS = Path(__file__).parent.parent / "docs"
PAGES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx",),
    "onnx-export": ("onnx",),
    "from-pytorch": (),
}
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


def test_the_table_of_operators_tells_each_and_its_first_version() -> None:
    defs = pytest.importorskip("onnx", reason="onnx tells the versions").defs
    from fastcnn.exchange.onnx_reading import FIRST_OPSET, OPERATORS

    known = [one for one in defs.get_all_schemas_with_history() if one.domain == ""]
    first = {
        name: max(FIRST_OPSET, min(one.since_version for one in known if one.name == name))
        for name in OPERATORS
    }
    ended = {one.name: one.since_version for one in known if one.deprecated}
    text = (DOCS / "onnx.md").read_text("utf-8").split("## Operators")[1]
    rows = [row.split("|") for row in re.findall(r"^\| .*\|$", text, re.MULTILINE)[2:]]
    listed: dict[str, int] = {}
    for _, _, names, versions, _ in rows:
        named = dict(re.findall(r"([A-Z]\w+) (\d+)", versions))
        operators = re.findall(r"\b[A-Z]\w+", names)
        assert set(named) <= set(operators)
        assert versions.split(";")[0].strip() == str(FIRST_OPSET)
        listed |= {name: int(named.get(name, FIRST_OPSET)) for name in operators}
        for name in operators:
            assert (f"{name} 7 to {ended.get(name, 0) - 1}" in versions) == (name in ended)
    assert listed == first
