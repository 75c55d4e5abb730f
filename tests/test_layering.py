"""The house: arrows point down only, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import limits
import pytest

import fastcnn

ROOT = Path(fastcnn.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# From the roof to the ground. A part is a file or a folder of fastcnn; "fastcnn" itself is the
# public names of its __init__. A part imports from floors below its own, and from no neighbour.
HOUSE: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("demo", "benchmark"),
    ("comparison", "training", "classifier", "plots"),
    ("model",),
    ("epochs",),
    ("progress",),
    ("executor",),
    ("callbacks", "summary", "nets", "weights", "sample_weights", "inputs", "input_gradients"),
    ("article_training", "datasets"),
    (
        "article",
        "picture_folders",
        "checkpoint",
        "augmentation",
        "scaling",
        "machine",
        "terminal",
    ),
    ("array_files", "pictures"),
    ("preparation", "drawings", "whole_files"),
    ("losses", "optimizers", "json_arrays"),
    ("layers", "schedules"),
    ("fastcnn",),
    ("ops",),
    ("engines", "layout", "attributes", "user_code"),
    ("naive", "im2col", "kernels"),
    ("class_labels", "on_demand", "stratified"),
    ("arguments", "settings", "scalars", "registry", "files", "reading", "policy"),
    ("metadata_routing",),
    ("geometry", "capacity", "long_sums", "minimal_filtering", "float_errors", "undisturbed"),
    ("quoting", "version"),
)
FLOOR = {part: len(HOUSE) - floor for floor, parts in enumerate(HOUSE) for part in parts}
ENGINES = ("naive", "im2col", "kernels")
WRITES_LLVM = ("llvmlite.ir", "numba.extending", "numba.core.cgutils", "numba.core.extending")
COMPILERS = ("instruction_sets", "code_key", "pipeline", "kernel_cache", "simd", "calls")
"""Modules of the compiled engine that use LLVM's library itself."""


def dotted(path: Path) -> str:
    """The module's name, such as "fastcnn.kernels.simd"."""
    parts = ("fastcnn", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(module: str) -> str:
    """The part of the house that a module belongs to."""
    names = module.split(".")
    return names[1] if len(names) > 1 else names[0]


def imports(source: str) -> set[str]:
    """Dotted names that a module imports, anywhere but under ``if TYPE_CHECKING``.

    ``from a import b`` counts as "a.b", whether b is a module or not.
    """
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found


def parts_imported(source: str) -> set[str]:
    """Parts of the house that a module imports from."""
    parts: set[str] = set()
    for name in imports(source):
        first, _, rest = name.partition(".")
        if first == "fastcnn":
            named = rest.split(".")[0]
            # "from fastcnn import conv2d" reaches for a public name, "… import ops" for a part.
            parts.add(named if named in FLOOR else "fastcnn")
    return parts


def violations(path: Path) -> Iterator[str]:
    here = part(dotted(path))
    for there in parts_imported(path.read_text("utf-8")) - {here}:
        if FLOOR[there] >= FLOOR[here]:
            yield f"{dotted(path)} imports {there}"


def test_every_part_has_its_floor() -> None:
    assert {part(dotted(path)) for path in MODULES} <= set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_arrows_point_down(path: Path) -> None:
    assert list(violations(path)) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_knows_another(engine: str) -> None:
    others = set(ENGINES) - {engine}
    files = list((ROOT / engine).glob("*.py"))
    assert files
    for path in files:
        assert parts_imported(path.read_text("utf-8")) & others == set(), path


def test_what_engines_share_is_geometry_argument_types_memory_and_the_length_of_sums() -> None:
    for engine in ("naive", "im2col"):
        for path in (ROOT / engine).glob("*.py"):
            shared = parts_imported(path.read_text("utf-8")) - {engine}
            assert shared <= {"geometry", "arguments", "capacity", "long_sums"}, path


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_libraries_stay_in_their_places(path: Path) -> None:
    here = dotted(path)
    names = imports(path.read_text("utf-8"))
    first = {name.split(".")[0] for name in names}
    if part(here) != "kernels":
        assert "numba" not in first
    if here == "fastcnn.kernels.instruction_sets":
        names -= {"llvmlite.binding"}  # it asks for the processor, and writes no LLVM
    if here not in ("fastcnn.kernels.simd", "fastcnn.kernels.calls"):
        assert [name for name in names if name.startswith(WRITES_LLVM)] == []
    if here not in [f"fastcnn.kernels.{name}" for name in COMPILERS]:
        assert "llvmlite" not in first
    if here != "fastcnn.datasets":
        assert "mnist" not in first
    if FLOOR[part(here)] <= FLOOR["fastcnn"]:
        assert first & {"typer", "rich", "matplotlib", "urllib", "mnist"} == set()


def test_the_check_sees_what_it_should() -> None:
    source = """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from fastcnn.cli import main
        import fastcnn.naive.dense
        from fastcnn import conv2d, engines
        def later():
            import numba.core as core
    """
    source = "\n".join(line[8:] for line in source.splitlines())
    assert parts_imported(source) == {"naive", "engines", "fastcnn"}
    assert "numba.core" in imports(source)


def run(code: str) -> str:
    done = limits.run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_leaves_heavy_modules_out() -> None:
    loaded = run(
        "import sys, fastcnn; fastcnn.engines(); "
        "print(*({'numba', 'llvmlite', 'typer', 'rich', 'mnist', 'urllib.request', 'matplotlib',"
        " 'fastcnn.kernels', 'fastcnn.naive', 'fastcnn.im2col'} & set(sys.modules)))"
    )
    assert loaded == ""


WITHOUT_NUMBA = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np
import fastcnn

x, w = np.ones((1, 4, 5, 2), np.float32), np.ones((3, 2, 2, 3), np.float32)
"""


def test_without_numba_the_other_engines_serve() -> None:
    out = run(
        WITHOUT_NUMBA
        + """
assert fastcnn.engines() == ("im2col", "naive"), fastcnn.engines()
y = fastcnn.conv2d(x, w)
assert y.shape == (1, 2, 4, 3) and (y == 12).all(), y
fastcnn.conv2d_backward(y, x, w)
fastcnn.max_pool2d(y, 2)
told = str(fastcnn.explain("conv2d", x, w))
assert told.startswith("conv2d: im2col.conv2d"), told
assert "not numba.direct: Numba is not installed" in told, told
"""
    )
    assert out == ""


def test_without_numba_its_engine_says_so() -> None:
    out = run(
        WITHOUT_NUMBA
        + """
try:
    fastcnn.conv2d(x, w, engine="numba")
except ImportError as error:
    print(error)
try:
    with fastcnn.use_engine("numba"):
        print("entered")
except ImportError as error:
    print(error)
"""
    )
    line = "engine 'numba' cannot run here: Numba is not installed (pip install numba)"
    assert out.splitlines() == [line, line]
