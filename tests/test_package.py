"""What an installed fastcnn carries besides its modules."""

from __future__ import annotations

from importlib import metadata, resources

import pytest

import fastcnn

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
