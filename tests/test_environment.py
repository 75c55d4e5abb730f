"""Python started in other ways: without sources, without checks, without streams or a home."""

from __future__ import annotations

import ast
import compileall
import os
import py_compile
import shutil
import sys
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourcelessFileLoader
from pathlib import Path
from typing import Any

import pytest
from limits import run
from processes import SOURCE, environment, python

from fastcnn.engine.numba.runtime import code_key, kernel_cache

PACKAGE = SOURCE / "fastcnn"
# Other processes write into __pycache__ meanwhile, and remove files there.
LEFT_OUT = shutil.ignore_patterns("mnist", "__pycache__")
CALL = """
import os
import py_compile
import numpy as np, fastcnn
from fastcnn.engine.numba.elementwise import activations
y = fastcnn.relu(np.arange(-50, 50, dtype=np.float32))
print(y.sum(), sum(activations.relu_kernel.stats.cache_hits.values()))
"""


def without_sources(folder: Path) -> None:
    """A copy of the package with nothing but compiled files."""
    shutil.copytree(PACKAGE, folder / "fastcnn", ignore=LEFT_OUT)
    assert compileall.compile_dir(folder, quiet=1, legacy=True)
    for path in list(folder.rglob("*.py")):
        path.unlink()


def in_a_zip(folder: Path) -> None:
    """The package in ``app.zip`` alone."""
    with zipfile.ZipFile(folder / "app.zip", "w") as file:
        for path in PACKAGE.rglob("*.py"):
            file.write(path, path.relative_to(SOURCE))


@pytest.mark.parametrize(
    ("deploy", "name"), [(without_sources, "."), (in_a_zip, "app.zip")], ids=["pyc", "zip"]
)
def test_without_source_files_kernels_run_and_are_kept(
    deploy: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    deploy(tmp_path)
    seen = [
        run(
            [sys.executable, "-P", "-c", CALL],
            env={
                **os.environ,
                "PYTHONPATH": str(tmp_path / name),
                "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            },
            cwd=tmp_path, check=True,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert seen == ["1225.0 0\n", "1225.0 1\n"]


def stamp_of(folder: Path) -> str:
    """The stamp that the package in this folder has, told by a process."""
    code = "from fastcnn.engine.numba.runtime.code_key import source_stamp; print(source_stamp())"
    done = run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder, check=True,
    )  # fmt: skip
    return str(done.stdout).strip()


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("engine/numba/runtime/threads.py", ("_LOOKS = 20_000", "_LOOKS = 20_001")),
        ("core/hardware.py", ("CACHE_LINE = 64", "CACHE_LINE = 128")),
    ],
)
def test_without_source_files_other_code_has_another_stamp(
    file: str, edit: tuple[str, str], tmp_path: Path
) -> None:
    stamps = []
    for i, replaced in enumerate([("", ""), edit, ("", "")]):
        folder = tmp_path / str(i)
        shutil.copytree(PACKAGE, folder / "fastcnn", ignore=LEFT_OUT)
        edited = folder / "fastcnn" / file
        edited.write_text(edited.read_text("utf-8").replace(*replaced), "utf-8")
        assert compileall.compile_dir(folder, quiet=1, legacy=True, force=True)
        for path in list(folder.rglob("*.py")):
            path.unlink()
        stamps.append(stamp_of(folder))
    assert stamps[0] == stamps[2] != stamps[1]
    assert "None" not in stamps


def test_a_compiled_file_that_python_does_not_compare_with_its_source_decides(
    tmp_path: Path,
) -> None:
    """As a distribution may ship: an edit of the source does not change what runs."""
    shutil.copytree(PACKAGE, tmp_path / "fastcnn", ignore=LEFT_OUT)
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    assert compileall.compile_dir(tmp_path, quiet=1, force=True, invalidation_mode=unchecked)
    before = stamp_of(tmp_path)
    edited = tmp_path / "fastcnn" / "engine" / "numba" / "runtime" / "threads.py"
    edited.write_text(edited.read_text("utf-8").replace("20_000", "20_001"), "utf-8")
    assert stamp_of(tmp_path) == before
    assert compileall.compile_dir(tmp_path, quiet=1, force=True, invalidation_mode=unchecked)
    assert stamp_of(tmp_path) != before


def test_where_neither_source_nor_code_can_be_read_no_kernel_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Nothing(SourcelessFileLoader):
        def get_code(self, fullname: str) -> Any:
            return None

    monkeypatch.setattr(
        code_key, "find_spec", lambda name: ModuleSpec(name, Nothing(name, ""), is_package=True)
    )
    assert code_key.source_stamp.__wrapped__() is None
    monkeypatch.setattr(code_key, "source_stamp", lambda: None)
    monkeypatch.setattr(kernel_cache, "source_stamp", lambda: None)
    assert kernel_cache.cache_folders.__wrapped__() == kernel_cache.Folders((), None)
    assert code_key._PROCESS in code_key.version_stamp()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = True"),
        ("x = 0.0", "x = -0.0"),
        ("x = 1", "x = 1.0"),
        ("def f(a, b): return a", "def f(a, b): return b"),
        ("def f(a): return a", "def f(b): return b"),
        ("def f(a, /): return a", "def f(a): return a"),
        ("f = lambda: (1, 2)", "f = lambda: (1, (2,))"),
        ("x in {1, 2}", "x in {1, 3}"),
        ("try: f()\nexcept A: g()", "try: f()\nexcept B: g()"),
    ],
)
def test_code_that_differs_has_other_contents(one: str, other: str) -> None:
    contents = [repr(code_key.code_contents(compile(s, "a.py", "exec"))) for s in (one, other)]
    assert contents[0] != contents[1]
    again = compile("\n\n" + one, "b.py", "exec")  # the same elsewhere
    assert repr(code_key.code_contents(again)) == contents[0]


NETS = """
import sys
import numpy as np, fastcnn
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D
x = np.random.default_rng(0).random((20, 9, 8, 1), np.float32)
y = np.arange(20) % 3
model = fastcnn.Sequential([Conv2D(4, 3), MaxPool2D(), Flatten(), Dense(3)], (9, 8, 1), seed=0)
model.fit(x, y, verbose=0)
for wrong in (lambda: fastcnn.conv2d(x, x[:3]), lambda: model.fit(x, y + 9, verbose=0),
              lambda: fastcnn.set_num_threads(0)):
    try:
        wrong()
    except ValueError:
        continue
    raise SystemExit("no error")
open(sys.argv[1], "w").write(str(float(model.predict(x).sum())))
"""


@pytest.mark.parametrize(
    "options",
    [("-O",), ("-OO",), ("-W", "error"), ("-I",), ("-E",), ("-P",), ("-B",), ("-X", "dev")],
    ids=" ".join,
)
def test_python_with_other_options_trains_and_checks(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    # -I and -E leave out PYTHONPATH.
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{NETS}"
    path_of_sum = tmp_path / "sum"
    python(*options, "-c", code, str(path_of_sum))
    assert float(path_of_sum.read_text()) == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize("streams", ["sys.stderr = None", "sys.stdout = None", "os.close(2)"])
def test_without_a_standard_stream_kernels_are_compiled(streams: str, tmp_path: Path) -> None:
    code = (
        f"import os, sys, time\n{streams}\n"
        "from fastcnn.engine.numba.runtime import compile_notice\n"
        "compile_notice.AFTER = 0.0\nimport numpy as np, fastcnn\n"
        "y = fastcnn.relu(np.ones(9, np.float32))\ntime.sleep(0.1)\n"
        "open(sys.argv[1], 'w').write(str(y.sum()))"
    )
    python("-c", code, str(tmp_path / "sum"), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert (tmp_path / "sum").read_text() == "9.0"


def test_without_a_home_and_with_a_package_that_is_read_only_kernels_run(tmp_path: Path) -> None:
    without_home = {
        k: v for k, v in environment(SOURCE).items() if k not in ("HOME", "NUMBA_CACHE_DIR")
    }
    code = (
        "from pathlib import Path\n"
        "from fastcnn.engine.numba.runtime import code_key, kernel_cache\n"
        "import pwd; pwd.getpwuid = None\n"
        f"kernel_cache.PACKAGE = Path({str(tmp_path / 'nowhere')!r})\n" + CALL
    )
    done = run(
        [sys.executable, "-c", code],
        env={**without_home, "HOME": str(tmp_path / "file" / "home"), "XDG_CACHE_HOME": ""},
        cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.startswith("1225.0"), done.stderr
    assert not (tmp_path / "nowhere").exists()


FULL = """
import resource, sys
import numpy as np, fastcnn
x = np.arange(-50, 50, dtype=np.float32)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # bytes of each file: as on a full disk
print(fastcnn.relu(x).sum())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit on this system")
def test_where_files_cannot_grow_kernels_run_and_nothing_is_left(tmp_path: Path) -> None:
    shown = python("-c", FULL, NUMBA_CACHE_DIR=str(tmp_path)).stdout
    assert shown == "1225.0\n"
    assert list((tmp_path / "fastcnn").iterdir()) == []


def test_two_versions_that_take_turns_on_one_folder_each_run_their_own_code(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom fastcnn.engine.numba.runtime import code_key\n"
        "code_key.FORMAT = int(sys.argv[1])\n" + CALL
    )
    for version in ("3", "4", "3", "4"):
        shown = python("-c", code, version, NUMBA_CACHE_DIR=str(tmp_path)).stdout
        assert shown == "1225.0 0\n"
    assert python("-c", code, "4", NUMBA_CACHE_DIR=str(tmp_path)).stdout == "1225.0 1\n"


def test_no_check_rests_on_an_assertion() -> None:
    """``python -O`` leaves assertions out. Those here only tell the type checker what is known."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assert):
                test = ast.unparse(node.test)
                assert test.endswith("is not None") or test.startswith("isinstance("), (path, test)


def test_docstrings_are_not_read_by_the_code() -> None:
    # These two add what docstrings share.
    completing = PACKAGE / "ops/declaration.py", PACKAGE / "nn/layers/base.py"
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            reads = isinstance(node, ast.Attribute) and node.attr == "__doc__"
            assert not reads or path in completing, path
            assert not (isinstance(node, ast.Attribute) and node.attr == "getdoc"), path
