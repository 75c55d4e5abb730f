"""README and ARCHITECTURE say what is true: examples run, names exist, commands are complete."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest

from fastcnn.core.operations import OPERATIONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text("utf-8")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_examples_of_the_readme() -> None:
    examples = blocks(README, "python")
    assert examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    shared: dict[str, object] = {}  # a block may use what an earlier one made
    for i, block in enumerate(examples):
        test = doctest.DocTestParser().get_doctest(block, shared, f"README {i}", "README.md", 0)
        assert test.examples, "a python block without >>> shows nothing"
        report: list[str] = []
        failed = runner.run(test, out=report.append, clear_globs=False).failed
        shared = test.globs
        assert not failed, "".join(report)


@pytest.mark.parametrize("page", ["own-images", "training", "distributed"])
def test_examples_of_the_page(page: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    path = str(ROOT / "docs" / f"{page}.md")
    result = doctest.testfile(path, module_relative=False, optionflags=flags)
    assert result.attempted
    assert not result.failed


def test_readme_has_one_line_to_see_it_run_and_one_to_test_it() -> None:
    lines = [line for block in blocks(README, "bash") for line in block.splitlines()]
    install = "python3 -m venv .venv && .venv/bin/pip install -q "
    assert [line for line in lines if line.startswith(install)] == [
        f"{install}. && .venv/bin/fastcnn demo",
        f'{install}-e ".[test]" && .venv/bin/python -m pytest -n auto',
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_the_page_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    files = re.findall(r"`((?:fastcnn|tests|reliability|docs|benchmarks|\.ci)/[\w./]*)`", text)
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert [name for name in sorted(set(files)) if not (ROOT / name).exists()] == []
    assert [link for link in sorted(set(links)) if not (page.parent / link).exists()] == []


def test_every_long_run_is_listed_and_every_command_exists() -> None:
    commands = re.findall(r"^\| .* \| `python ([\w/.]+)(.*?)` \|", RELIABILITY, re.MULTILINE)
    runs = {f"reliability/{path.name}" for path in (ROOT / "reliability").glob("*.py")}
    assert {script for script, _ in commands} == runs | {"tests/guarded.py"}
    for script, options in commands:
        text = (ROOT / script).read_text("utf-8")
        for option in re.findall(r"--(\w+)", options):
            assert f"    {option}: " in text or f'"--{option}"' in text, (script, option)


def test_house_names_all_rooms_and_files_that_exist() -> None:
    house = re.search(r"## The house\n(.*?)\n`engine/registry.py`", ARCHITECTURE, re.DOTALL)
    assert house
    package = ROOT / "fastcnn"
    lines = re.findall(r"^    (\S+)  ", house[1], re.MULTILINE)
    assert [line for line in lines if not (package / line.rstrip("/")).exists()] == []
    rooms = {f"{init.parent.relative_to(package)}/" for init in package.glob("*/**/__init__.py")}
    inner = {"bench/peers/", "nn/layers/"}  # rooms inside of a room
    assert rooms - inner - {*lines} == set()
    runtime = package / "engine" / "numba" / "runtime"
    listed = re.findall(
        r"^    (\S+\.py)  ", (runtime / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(listed) == sorted(path.name for path in runtime.glob("[!_]*.py"))


def test_engine_contract_is_that_of_the_declarations() -> None:
    (contract,) = blocks(ARCHITECTURE, "")
    written = re.findall(r"^(\w+\(.*?\) -> (?:\w+|\(.*?\)))(?: {2,}.*)?$", contract, re.MULTILINE)
    assert written == [operation.signature for operation in OPERATIONS.values()]


STORY = (ROOT / "docs" / "from-naive-to-peak.md").read_text("utf-8")


def test_code_of_the_story_is_the_code_that_runs() -> None:
    shown = re.findall(r"^`(\S+)`\n\n```python\n(.*?)^```$", STORY, re.MULTILINE | re.DOTALL)
    assert len(shown) == len(blocks(STORY, "python")) > 6
    for path, code in shown:
        assert code in (ROOT / path).read_text("utf-8"), f"{path} does not hold\n{code}"


def test_figures_of_the_story_are_those_that_were_measured() -> None:
    measured = json.loads((ROOT / "docs" / "from-naive-to-peak.json").read_text("utf-8"))
    assert f"{measured['peak_gflops']:.0f} GFLOP/s at most" in STORY
    for number, step in enumerate(measured["steps"], 1):
        row = (
            f"| {number} {step['name']} | {step['seconds'] * 1e6:,.0f} | {step['gflops']:.3g} "
            f"| {step['share_of_peak']:.1%} | {step['worst_error']:.0e} |"
        )
        assert row.replace("%", " %") in STORY
    assert (ROOT / "docs" / "from-naive-to-peak.png").stat().st_size > 10_000


def test_files_that_the_story_names_exist() -> None:
    for path in re.findall(r"\b(?:fastcnn|benchmarks)/\S+\.py\b", STORY):
        assert (ROOT / path).exists(), path
