"""Every script of examples/ runs, says something, and is listed."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import python

FOLDER = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_runs(path: Path) -> None:
    # Each net is used for a few batch sizes, so kernels for all sizes are not worth their time.
    assert python(str(path)).stdout.strip()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_is_in_cells_after_its_docstring(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith('"""')
    assert text.count("\n# %% ") >= 3


def test_the_page_lists_every_script() -> None:
    page = (FOLDER / "README.md").read_text("utf-8")
    assert SCRIPTS
    for path in SCRIPTS:
        assert f"| `{path.name}` |" in page, path.name
