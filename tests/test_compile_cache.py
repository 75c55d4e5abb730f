"""A file of compiled code is used if it is whole and of these sources, else it counts as none."""

from __future__ import annotations

import ast
import errno
import json
import os
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.errors import TypingError
from numba.misc.appdirs import AppDirs
from processes import SOURCE, python

from fastcnn.engine.numba.runtime import code_key, compile_notice, jit, kernel_cache, pipeline


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folders = kernel_cache.Folders((tmp_path,), tmp_path)
    monkeypatch.setattr(kernel_cache, "cache_folders", lambda: folders)
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


def test_after_an_error_another_process_may_compile(folder: Path) -> None:
    @jit.compiled
    def wrong(x: Any) -> Any:
        return x.nonsense

    with pytest.raises(TypingError):
        wrong(np.ones(1))
    assert files(folder) == []  # no lock is left
    assert not compile_notice.notice._running


def test_a_kernel_runs_if_an_interrupt_came_as_llvm_handed_over_its_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = property(lambda library: None, lambda library, code: None)
    monkeypatch.setattr(pipeline.KernelLibrary, "_compiled_object", lost, raising=False)
    assert added(1.0) == (2.0, 0)
    assert files(folder) == []


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
        ("numba", type("Other", (), {"__version__": "0.1"})),
        ("FORMAT", 1),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(code_key, name, other)
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


# --- symbols --------------------------------------------------------------------------------------

VARIANTS = """
import os, sys
import numpy as np
from fastcnn.engine.numba.runtime import jit

def adding(number, flags):
    def add(x):
        return x[0] + number
    return getattr(jit, flags)(add)

for names in sys.argv[1:]:  # each in a process that has compiled nothing before
    child = os.fork()
    if not child:
        for name in names.split():
            number, flags, dtype = name.split(",")
            assert adding(float(number), flags)(np.ones(1, dtype)) == 1 + float(number)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, names
"""
NAMES = [
    "1,compiled,float32",
    "2,compiled,float32",
    "1,fused_multiply_add,float32",
    "1,compiled,float64",
]


def variants(folder: Path, *names: str, seed: str) -> None:
    """Processes that compile functions in this order, or take them from the folder."""
    python("-c", VARIANTS, *names, NUMBA_CACHE_DIR=str(folder), PYTHONHASHSEED=seed)


def test_each_variant_has_the_same_symbols_in_every_process_and_no_other_has_them(
    tmp_path: Path,
) -> None:
    apart, together = tmp_path / "apart", tmp_path / "together"
    variants(apart, *NAMES, seed="0")  # each is the first function that its process compiles
    orders = [" ".join(NAMES), " ".join(NAMES[::-1])]
    variants(together, orders[1], seed="2")
    files_apart, files_together = (
        {path.name: kernel_cache.symbols_in(path) for path in files(folder / "fastcnn")}
        for folder in (apart, together)
    )
    assert len(files_apart) == len(NAMES)
    assert files_apart == files_together
    assert kernel_cache.shared_symbols(apart / "fastcnn") == {}
    variants(apart, *orders, seed="random")  # each finds its own code beside the others


KEYS = """
import json, random, sys
from importlib import import_module
from choices import INSTRUCTION_SETS, ROWS
from fastcnn.engine.numba.runtime.code_key import code_key
from fastcnn.engine.numba.runtime.instruction_sets import choosing_for
from numba.core.registry import cpu_target

makers = [
    (isa, row.problem, size) for isa in INSTRUCTION_SETS for row in ROWS.values() for size in (4, 8)
]
for module, name, sides in (  # those that no row of the table chooses
    ("contraction.packing", "_pack_steps", 2), ("dense.large", "_add_splits", 2),
    ("contraction.column_sums", "_split_sums", 1),
    ("pool.gradient", "_argmax_gradient", 2), ("pool.average", "_average_gradient", 2),
):
    factory = getattr(import_module(f"fastcnn.engine.numba.{module}"), name)
    for lanes in (4, 8, 16):
        for vectors in (1, 2):
            literals = (vectors, lanes)[-sides:]
            makers.append(("avx2", lambda size, f=factory, l=literals: f(*l), 4))
for module, name, choices in (  # and those with other sides
    ("activations", "activation_kernel", [("gelu", False), ("swish", True)]),
    ("activations", "gradient_kernel", [("gelu",), ("swish",)]),
    ("concatenation", "_copied_runs", [(True,), (False,)]),
    ("group_norm", "_group_moments", [(True,), (False,)]),
    ("merging", "_merged_numbers", [("add", None), ("maximum", "a")]),
    ("merging", "_gradient_numbers", [("add",), ("multiply",)]),
    ("merging", "_merged_rows", [("add", True, False, None), ("multiply", True, True, "b")]),
    ("prelu", "prelu_kernel", [(False,), (True,)]),
    ("steps", "scale_channels", [(False,), (True,)]),
    ("steps", "scale_and_shift", [(False,), (True,)]),
    ("merging", "_gradient_rows", [("times_other", False), ("where_first_wins", True)]),
    ("merging", "_row_sums", [("itself",), ("times_other",)]),
    ("merging", "_row_totals", [("times_other", True), ("negative", False)]),
    ("rearranging", "_runs", [(1, 4), (2, 8)]), ("rearranging", "_squares", [(4,), (8,)]),
    ("rearranging", "_apart", [(2,), (3,)]), ("rearranging", "_together", [(2,), (3,)]),
    ("resizing", "_resample", [(1, 4, 2), (2, 8, 2)]), ("resizing", "_nearest", [(1, 4), (2, 8)]),
    ("response_norm", "response_rows", [(True,), (False,)]),
    ("response_norm", "_response_gradient_rows", [(True,), (False,)]),
):
    factory = getattr(import_module(f"fastcnn.engine.numba.elementwise.{module}"), name)
    for literals in choices:
        makers.append(("avx2", lambda size, f=factory, l=literals: f(*l), 4))
for module, name, literals in (
    ("conv.depthwise", "_depthwise", (6, 8, 3, False, True)),
    ("contraction.contraction", "_contraction", (6, 2, 8, False, False, False, True)),
):
    factory = getattr(import_module(f"fastcnn.engine.numba.{module}"), name)
    makers.append(("avx2", lambda size, f=factory, l=literals: f(*l), 4))
from fastcnn.engine.numba.contraction.lines import Lines, _lines_fused
makers.append(("avx2", lambda size: _lines_fused(Lines(1, 6), 2, 8, False), 4))
random.Random(sys.argv[1]).shuffle(makers)
target, keys = cpu_target.target_context.codegen(), {}
for isa, make, size in makers:
    with choosing_for(isa):
        kernel = make(size)
    if kernel is not None and hasattr(kernel, "recipe"):
        module, name, literals = kernel.recipe
        recipe = f"{module.split('.')[-1]}.{name} {literals}"
        keys[recipe] = code_key(kernel.py_func, (), kernel.targetoptions["fastmath"], target)
print(json.dumps(keys, sort_keys=True))
"""


def test_the_key_of_each_factorys_kernels_is_the_same_in_every_process_and_its_own() -> None:
    tests = str(Path(__file__).parent)
    results = [
        python("-c", KEYS, order, PYTHONHASHSEED=seed, PYTHONPATH=tests).stdout
        for order, seed in (("one", "0"), ("other", "1"), ("third", "random"))
    ]
    assert len(set(results)) == 1
    keys = json.loads(results[0])
    assert len(set(keys.values())) == len(keys) > 80
    factories = {
        f"{path.stem}.{node.name}"
        for path in (SOURCE / "fastcnn" / "engine" / "numba").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "kernel_factory" for d in node.decorator_list)
    }
    assert {recipe.split()[0] for recipe in keys} == factories


def test_code_with_a_symbol_of_other_code_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(1.0)
    (path,) = files(folder)
    assert added(1.0) == (2.0, 1)
    for i in range(len(kernel_cache.symbols_in(path))):
        with monkeypatch.context() as patch:
            symbol = kernel_cache.symbols_in(path)[i]
            patch.setitem(kernel_cache._contents, symbol, b"of other code")
            assert added(1.0) == (2.0, 0)


def test_a_folder_with_two_files_of_one_symbol_is_noticed(folder: Path) -> None:
    added(1.0)
    (path,) = files(folder)
    contents = path.read_bytes()
    symbols = kernel_cache.symbols_in(path)
    packed = pickle.dumps((symbols, b"of other code"))
    (folder / "other.nbc").write_bytes(contents[:32] + sha256(packed).digest() + packed)
    assert kernel_cache.shared_symbols(folder).keys() == set(symbols)


def test_symbols_are_read_of_code_whose_module_is_not_here(folder: Path) -> None:
    (folder / "theirs.nbc").write_bytes(bytes(64) + pickle.dumps((["s"], b"code")) + b"cmodule\nf")
    assert kernel_cache.symbols_in(folder / "theirs.nbc") == ["s"]
    assert kernel_cache.shared_symbols(folder) == {}


def test_a_function_closed_over_an_object_without_a_text_is_refused() -> None:
    class Thing:
        pass

    with pytest.raises(TypeError, match=r"values that their text determines, got <.*Thing"):
        code_key.constants(adding(Thing()).py_func)


def test_flush_removes_the_functions_own_files(folder: Path) -> None:
    added(1.0)
    (folder / "other-0.nbc").write_bytes(b"")
    adding(1.0)._cache.flush()
    assert [path.name for path in files(folder)] == ["other-0.nbc"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path | None]:
    """What is chosen where the package cannot be written to and the user's folder is this."""
    (tmp_path / "__pycache__").write_bytes(b"")  # bars the package's own folder
    monkeypatch.setattr(kernel_cache, "PACKAGE", tmp_path)
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)

    def chosen(of_user: str) -> Path | None:
        monkeypatch.setattr(AppDirs, "user_cache_dir", of_user)
        return kernel_cache.cache_folders.__wrapped__().write

    return chosen


def test_without_a_home_no_folder_of_the_name_tilde_is_made(
    places: Callable[[str], Path | None], tmp_path: Path
) -> None:
    assert places(str(tmp_path / "home" / ".cache")) == tmp_path / "home" / ".cache"
    before = files(tmp_path)
    assert places("~/.cache/fastcnn") is None
    assert files(tmp_path) == before
