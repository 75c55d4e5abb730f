"""A file of compiled code is used if it is whole and of these sources, else it counts as none."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.misc.appdirs import AppDirs

from fastcnn.kernels import jit


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    return tmp_path


def adding(number: float) -> Any:
    """A new dispatcher, as a new process has one, of a function that is closed over a number."""

    def add(x: Any) -> Any:
        return x[0] + number

    return jit.compiled(add)


def added(number: float, dtype: str = "float32") -> tuple[float, int]:
    """What the function gives for 1, and how many specialisations came from the cache."""
    function = adding(number)
    result = float(function(np.ones(1, dtype)))
    return result, sum(function.stats.cache_hits.values())


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_each_specialisation_and_each_constant_has_a_file_of_its_own(folder: Path) -> None:
    # In one index two processes that start together would take the same place in it.
    calls = [(n, dtype) for n in (1.0, 2.0) for dtype in ("float32", "float64", "int64")]
    assert [added(*call) for call in calls] == [(2.0, 0)] * 3 + [(3.0, 0)] * 3
    assert len(files(folder)) == 6
    assert [added(*call) for call in calls] == [(2.0, 1)] * 3 + [(3.0, 1)] * 3


def test_no_damage_is_believed(folder: Path) -> None:
    added(1.0)
    (path,) = files(folder)
    whole = path.read_bytes()
    places = {0, 31, 32, 63, 64, len(whole) - 1, *range(0, len(whole), len(whole) // 40)}
    damaged = [whole[:place] for place in places]
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        damaged.append(bytes(spoilt))
    damaged += [whole + b"\0", whole * 2, b"\x80\x04." + whole]
    function = adding(1.0)
    assert float(function(np.ones(1, "float32"))) == 2.0
    (signature,) = function.signatures
    for contents in damaged:
        path.write_bytes(contents)
        assert function._cache.load_overload(signature, function.targetctx) is None
    assert added(1.0) == (2.0, 0)  # it was written anew
    assert path.read_bytes()[:32] == whole[:32]
    assert added(1.0) == (2.0, 1)


def test_code_of_other_sources_and_versions_is_compiled_anew_in_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(1.0)
    for name, other in [
        ("source_stamp", lambda: "edited"),
        ("numba", type("Other", (), {"__version__": "0.1", "njit": jit.numba.njit})),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(jit, name, other)
            assert added(1.0) == (2.0, 0)
            assert added(1.0) == (2.0, 1)
        assert added(1.0) == (2.0, 0)
    assert len(files(folder)) == 1  # each takes the other's place: the folder does not grow


def test_code_for_another_processor_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = adding(1.0)
    function(np.ones(1))
    codegen = type(function.targetctx.codegen())
    triple, _, features = function.targetctx.codegen().magic_tuple()
    monkeypatch.setattr(codegen, "magic_tuple", lambda self: (triple, "another", features))
    assert added(1.0, "float64") == (2.0, 0)
    assert len(files(folder)) == 2


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failing", ["replace", "fdopen"])
def test_a_full_disk_costs_time_alone(
    failing: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, _full)
        assert added(1.0) == (2.0, 0)
        assert files(folder) == []
    assert added(1.0) == (2.0, 0)
    assert added(1.0) == (2.0, 1)


def test_a_folder_that_is_gone_costs_time_alone(folder: Path) -> None:
    function = adding(1.0)
    folder.rmdir()
    assert float(function(np.ones(1))) == 2.0


def test_flush_removes_the_functions_own_files(folder: Path) -> None:
    added(1.0)
    (folder / "other-0.nbc").write_bytes(b"")
    adding(1.0)._cache.flush()
    assert [path.name for path in files(folder)] == ["other-0.nbc"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path | None]:
    """What is chosen where the package cannot be written to and the user's folder is this."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__pycache__").write_bytes(b"")  # bars the package's own folder
    monkeypatch.setattr(jit, "_PACKAGE", tmp_path)
    monkeypatch.setattr(jit.config, "CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)

    def chosen(of_user: str) -> Path | None:
        monkeypatch.setattr(AppDirs, "user_cache_dir", of_user)
        return jit.cache_folder.__wrapped__()

    return chosen


def test_without_a_home_no_folder_of_the_name_tilde_is_made(
    places: Callable[[str], Path | None], tmp_path: Path
) -> None:
    assert places(str(tmp_path / "home" / ".cache")) == tmp_path / "home" / ".cache"
    before = files(tmp_path)
    assert places("~/.cache/fastcnn") is None
    assert files(tmp_path) == before
