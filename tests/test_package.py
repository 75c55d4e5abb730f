"""What an installed fastcnn carries besides its modules."""

from __future__ import annotations

import tomllib
from importlib import metadata, resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import fastcnn

ROOT = Path(__file__).parent.parent
DATA = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def test_version_is_that_of_the_distribution() -> None:
    assert metadata.version("fastcnn") == fastcnn.__version__


@pytest.mark.parametrize("name", ["py.typed", *(f"data/mnist/{name}" for name in DATA)])
def test_package_files(name: str) -> None:
    assert resources.files("fastcnn").joinpath(name).is_file()


def test_data_carries_its_attribution() -> None:
    text = resources.files("fastcnn").joinpath("data/mnist/LICENSE.md").read_text("utf-8")
    for part in ("Yann LeCun", "Corinna", "Burges", "CC BY-SA 3.0"):
        assert part in text


def test_command_is_installed() -> None:
    (command,) = (
        entry for entry in metadata.entry_points(group="console_scripts") if entry.name == "fastcnn"
    )
    assert command.value == "fastcnn.__main__:main"


def test_public_names_all_arrive() -> None:
    assert [name for name in fastcnn.__all__ if not hasattr(fastcnn, name)] == []


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def requirements() -> list[Requirement]:
    """What the package needs, and what its tests need."""
    return [
        Requirement(line)
        for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"])
    ]


def test_classifiers_name_the_versions_of_python_from_the_lowest_that_is_promised() -> None:
    (lowest,) = SpecifierSet(PROJECT["requires-python"])
    assert lowest.operator == ">="
    prefix = "Programming Language :: Python :: 3."
    minors = [
        int(classifier.removeprefix(prefix))
        for classifier in PROJECT["classifiers"]
        if classifier.startswith(prefix)
    ]
    first = Version(lowest.version).minor
    assert minors == [*range(first, first + len(minors))]
    assert minors


def test_the_lowest_versions_are_those_that_are_promised() -> None:
    text = (ROOT / "tests" / "lowest-versions.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    lowest = {name: Version(version) for name, version in (line.split("==") for line in lines)}
    del lowest["llvmlite"]  # of Numba's own requirements
    promised = {}
    for requirement in requirements():
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        promised[requirement.name] = Version(bound.version)
    assert lowest == promised


def test_numba_is_left_out_where_there_is_none() -> None:
    markers = {r.name: r.marker for r in requirements() if r.marker is not None}
    assert list(markers) == ["numba", "mpi4py", "mpich"]  # those of MPI are of tests alone
    assert not markers["numba"].evaluate({"sys_platform": "emscripten"})
    for system in ("linux", "darwin", "win32"):
        assert markers["numba"].evaluate({"sys_platform": system})
