"""What is compiled, how often, and what becomes of it in later processes."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from numba.core.registry import cpu_target
from processes import SOURCE, python

from fastcnn.engine.numba.runtime import code_key, compile_turn, inlining, jit, kernel_cache
from fastcnn.engine.numba.runtime.compile_turn import CompileTurn

SPECIALISATIONS = 400
"""Upper bound of what the whole matrix of problems compiles, both dtypes together.

Some two hundred are for activations by formulas, merged arrays, and images that are resized or
rearranged, which have two or more kernels for each dtype. Some twenty are for sums in stretches and
for targets that are probabilities.
"""

COUNTS = """
import gc
from numba.core.dispatcher import Dispatcher
from fastcnn.engine.numba.runtime.kernel_cache import KernelCache

def counts():
    "Specialisations, and how many of them came from the cache and were compiled."
    found = [o for o in gc.get_objects() if isinstance(o, Dispatcher)]
    found = [o for o in found if isinstance(o._cache, KernelCache)]
    hits = sum(sum(kernel.stats.cache_hits.values()) for kernel in found)
    misses = sum(sum(kernel.stats.cache_misses.values()) for kernel in found)
    return sum(len(kernel.signatures) for kernel in found), hits, misses
"""

MATRIX = (
    COUNTS
    + """
import numpy as np
from fastcnn.proof.check import call
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import ARTICLE_NET, cases

def of_every_kind(array):
    yield array.copy()
    yield np.asfortranarray(array)
    yield np.repeat(array, 2, axis=0)[::2]
    yield array[::-1][::-1] if array.ndim else array
    yield array.astype(array.dtype.newbyteorder())

seen = set()
for case in cases():
    if case.problem.op != ARTICLE_NET and (case.problem, case.dtype) not in seen:
        seen.add((case.problem, case.dtype))
        call(case.problem, make_arrays(case, 0), "numba")
print(*counts())
for case in cases(quick=True):
    if case.mode == case.problem.modes[0] and case.problem.op != ARTICLE_NET:
        kinds = {name: of_every_kind(array) for name, array in make_arrays(case, 0).items()}
        for arrays in zip(*kinds.values(), strict=True):
            call(case.problem, dict(zip(kinds, arrays, strict=True)), "numba")
print(*counts())
"""
)


def matrix() -> list[list[int]]:
    lines = python("-c", MATRIX).stdout.splitlines()
    return [[int(number) for number in line.split()] for line in lines]


def test_specialisations_are_few_and_compiled_once_for_all_processes() -> None:
    (once, hits, misses), with_other_layouts = matrix()
    assert 20 < once == hits + misses
    assert once <= SPECIALISATIONS
    # Read-only, Fortran-ordered, strided, reversed and byte-swapped arrays compile nothing new.
    assert with_other_layouts == [once, hits, misses]
    if misses:  # all of it is in the cache now
        (again, hits, misses), _ = matrix()
        assert (again, hits, misses) == (once, once, 0)


# The cache's life, on a copy of the package and a few kernels.

SMALL = (
    COUNTS
    + """
import numpy as np
import fastcnn

x = np.arange(12, dtype=np.float32).reshape(3, 4)
y = fastcnn.zero_pad2d(x.reshape(1, 3, 4, 1), ((0, 1), (2, 0)), engine="numba")
np.testing.assert_array_equal(y[0, :3, 2:, 0], x)
np.testing.assert_array_equal(fastcnn.relu(x - 5, engine="numba"), np.maximum(x - 5, 0))
print(*counts())
"""
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that has compiled nothing yet; the folder that holds it."""
    shutil.copytree(
        SOURCE / "fastcnn",
        tmp_path / "fastcnn",
        ignore=shutil.ignore_patterns("__pycache__", "mnist"),
    )
    return tmp_path


def small(package: Path, folder: str = "", **environment: str) -> list[int]:
    """Specialisations, hits and misses of a new process; an empty folder means the package's."""
    done = python("-c", SMALL, source=package, NUMBA_CACHE_DIR=folder, **environment)
    assert done.stderr == ""
    return [int(number) for number in done.stdout.split()]


def entries(package: Path) -> list[Path]:
    """Numba's files: an index for each kernel, and the compiled code of each specialisation."""
    return [path for path in package.rglob("*") if path.suffix in (".nbi", ".nbc")]


def test_cache_serves_until_a_helper_is_edited_or_it_breaks(package: Path, tmp_path: Path) -> None:
    number, hits, misses = small(package)
    assert (hits, misses) == (0, number)
    assert number > 1
    assert small(package) == [number, number, 0]

    # The kernels that run here stand in other files than this one.
    helper = package / "fastcnn" / "engine" / "numba" / "tiles" / "products.py"
    helper.write_text(helper.read_text("utf-8") + "\n# edited\n", "utf-8")
    assert small(package) == [number, 0, number]

    for path, share in zip(entries(package), cycle((0, 0.5)), strict=False):
        contents = path.read_bytes()
        path.write_bytes(contents[: int(len(contents) * share)])
    assert small(package) == [number, 0, number]
    assert small(package) == [number, number, 0]

    # A folder of the user's choice comes first.
    elsewhere = tmp_path / "elsewhere"
    before = len(entries(package / "fastcnn"))
    assert small(package, folder=str(elsewhere)) == [number, 0, number]
    assert len(entries(elsewhere)) >= number
    assert len(entries(package / "fastcnn")) == before


def test_of_processes_that_start_together_one_compiles(package: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = [*pool.map(lambda _: small(package), range(3))]
    numbers, hits, misses = zip(*results, strict=True)
    assert len(set(numbers)) == 1
    assert sum(misses) == numbers[0]
    assert sum(hits) == 2 * numbers[0]
    assert not [*package.rglob("*.lock")]


def test_a_turn_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.setattr(compile_turn, "PATIENCE", 0.2)
    monkeypatch.setattr(compile_turn, "sleep", pauses := Mock())
    mine, theirs = CompileTurn(), CompileTurn()
    mine.take(tmp_path / "kernel.nbc")
    theirs.take(tmp_path / "another.nbc")
    assert not pauses.called
    theirs.take(tmp_path / "kernel.nbc")  # as if this process had been halted
    assert pauses.called
    theirs.give()
    mine.give()
    pauses.reset_mock()

    # The turn is given as soon as the kernel is written, or another is wanted.
    mine.take(tmp_path / "kernel.nbc")
    mine.take(tmp_path / "another.nbc")
    theirs.take(tmp_path / "kernel.nbc")
    assert not pauses.called
    mine.give()
    theirs.give()
    assert [*tmp_path.iterdir()] == []
    mine.take(tmp_path / "no folder" / "kernel.nbc")
    mine.give()


def test_kernels_run_where_nothing_can_be_written(package: Path) -> None:
    """As in a read-only installation of a user without a home: a file bars each folder."""
    (package / "fastcnn" / "__pycache__").write_bytes(b"")
    nowhere = str(package / "fastcnn" / "version.py" / "folder")
    assert small(package, nowhere, XDG_CACHE_HOME=nowhere, HOME=nowhere) == [0, 0, 0]  # of ours
    assert entries(package) == []


STAMP = """
from pathlib import Path
from typing import Any
from fastcnn.engine.numba.runtime import code_key

def stamp():
    code_key.source_stamp.cache_clear()
    return code_key.source_stamp()

before = stamp()
assert stamp() == before
inside = code_key.PACKAGE.glob("engine/numba/**/*.py")
core = [code_key.PACKAGE / "core" / f"{name}.py" for name in ("geometry", "hardware", "long_sums")]
for path in [*inside, *core]:
    text = path.read_bytes()
    path.write_bytes(text + b"# edited")
    assert stamp() != before, path
    path.write_bytes(text)
    assert stamp() == before, path
(code_key.PACKAGE / "models" / "nets.py").write_bytes(b"")
assert stamp() == before, "what no kernel reads compiles nothing anew"
"""


def test_every_file_that_kernels_are_made_of_is_in_the_stamp(package: Path) -> None:
    python("-c", STAMP, source=package)


PROBE = """
from fastcnn.bench.multiply_add import CHAIN
from fastcnn.engine.numba.runtime.jit import compiled

@compiled
def probe(x):
    return x + CHAIN
"""
OUTSIDE = """
from fastcnn.bench.multiply_add import multiply_add
from fastcnn.engine.numba.runtime import code_key
from fastcnn.probe import probe
from numba.core.registry import cpu_target

def keys():
    code_key._module_stamp.cache_clear()
    target = cpu_target.target_context.codegen()
    return [code_key.code_key(one.py_func, (), (), target) for one in (multiply_add, probe)]

def changed(path):
    before = keys()
    path.write_bytes(path.read_bytes() + b"# edited")
    return [one != other for one, other in zip(before, keys())]

assert keys() == keys()
assert changed(code_key.PACKAGE / "bench" / "multiply_add.py") == [True, True]
assert changed(code_key.PACKAGE / "probe.py") == [False, True]
assert changed(code_key.PACKAGE / "models" / "nets.py") == [False, False]
"""


def test_the_key_of_a_kernel_outside_of_the_engine_follows_its_file_and_its_imports(
    package: Path,
) -> None:
    (package / "fastcnn" / "probe.py").write_text(PROBE, "utf-8")
    python("-c", OUTSIDE, source=package)


def test_a_function_whose_module_cannot_be_read_is_known_by_its_code() -> None:
    target, keys = cpu_target.target_context.codegen(), set()
    for term in (1, 2):
        scope: dict[str, Any] = {"__name__": "typed_in"}
        exec(f"def f(x): return x + {term}", scope)
        keys.add(code_key.code_key(scope["f"], (), (), target))
    assert len(keys) == 2


def test_what_is_compiled_into_a_kernel_has_no_machine_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_cache, "cache_folders", lambda: kernel_cache.Folders((), None))

    @inlining.device
    def twice(x: int) -> int:
        return 2 * x

    @jit.compiled
    def fourfold(x: int) -> int:
        return twice(twice(x))

    assert fourfold(3) == 12
    (whole,), (part,) = fourfold.overloads.values(), twice.overloads.values()
    engine = whole.library._codegen._engine
    assert engine.is_symbol_defined(whole.fndesc.llvm_func_name)
    assert not engine.is_symbol_defined(part.fndesc.llvm_func_name)
