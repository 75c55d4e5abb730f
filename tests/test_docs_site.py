"""The documentation site: blocks run and draw its pictures, and the reference is complete."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from digits import write_digits
from typer.testing import CliRunner

import fastcnn
from fastcnn.cli import app

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [
    "first-steps",
    "drawing-page",
    *(f"tutorial/{path.stem}" for path in sorted((DOCS / "tutorial").glob("*.md"))),
    *(f"howto/{path.stem}" for path in sorted((DOCS / "howto").glob("*.md"))),
    "explanation/numerics",
]
ELSEWHERE = {
    "distributed",
    "training",
    "pictures",
    "onnx",
    "onnx-export",
    "from-pytorch",
    "own-images",
    "from-naive-to-peak",
}
"""Pages whose Python blocks other tests run or compare."""
BLOCK = re.compile(r"^```(python|bash|sh|\{picture\} \w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REFERENCE = "\n".join(path.read_text("utf-8") for path in sorted((DOCS / "reference").glob("*.md")))
DOCUMENTED = r"^\.\. auto(?:function|class|exception):: (?:fastcnn\.)?(?:exchange\.)?(\w+)$"
MODULES = [
    f"fastcnn.{path.stem}"
    for path in sorted(Path(fastcnn.__file__).parent.glob("[!_]*.py"))
    if path.stem != "version"
]
"""Modules that only name what users import."""


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text("utf-8")


WITH_BLOCKS = [page for page in PAGES if re.search("^```(python|bash)$", text_of(page), re.M)]


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "figure =" in text_of(page):
        pytest.importorskip("matplotlib", reason="the page draws").use("Agg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few").mkdir()
    names: dict[str, Any] = {"__name__": page}
    threads = fastcnn.get_num_threads()
    for language, code in BLOCK.findall(text_of(page)):
        if language == "python":
            exec(compile(code, f"docs/{page}.md", "exec"), names)
        elif language == "bash":
            environment = {"FASTCNN_DATA_DIR": write_digits(tmp_path / "few")}
            for line in code.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(line)
                assert program == "fastcnn", f"{line!r} is no command of fastcnn: use a block of sh"
                done = CliRunner().invoke(app, arguments, env=environment)
                assert done.exit_code == 0, f"{line}: {done.output[-2000:]}"
        elif language != "sh":  # the site shows the figure that the blocks above have drawn
            from matplotlib import pyplot

            assert names.pop("figure").axes, language
            pyplot.close("all")
    fastcnn.set_num_threads(threads)


def test_every_page_with_code_is_tested() -> None:
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    with_code = {page for page in pages if "```python" in text_of(page)}
    assert with_code <= {*PAGES, *ELSEWHERE}
    assert with_code >= ELSEWHERE


def test_blocks_that_do_not_run_install_or_need_data_of_others() -> None:
    for page in PAGES:
        for language, code in BLOCK.findall(text_of(page)):
            if language == "sh":
                assert re.search(r"\bpip install\b|--data fashion", code), (page, code)


def test_the_reference_has_all_public_names() -> None:
    documented = set(re.findall(DOCUMENTED, REFERENCE, re.MULTILINE))
    of_modules = {
        name
        for module in re.findall(r"^\.\. automodule:: (\S+)$", REFERENCE, re.MULTILINE)
        for name in getattr(import_module(module), "__all__", ())
    }
    names = {
        name
        for name in fastcnn.__all__
        if name != "__version__" and not isinstance(getattr(fastcnn, name), ModuleType)
    }
    assert names - documented - of_modules == set()
    assert documented - {*fastcnn.__all__} == {"save_html"}


@pytest.mark.parametrize("module", [*MODULES, "fastcnn.article"])
def test_the_reference_has_all_public_modules(module: str) -> None:
    assert f".. automodule:: {module}\n" in REFERENCE


def test_the_page_of_the_command_line_has_all_commands() -> None:
    listed = re.findall(r"^\| `fastcnn (\w+)", text_of("reference/command-line"), re.MULTILINE)
    assert sorted(listed) == sorted(str(command.name) for command in app.registered_commands)
