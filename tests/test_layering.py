"""The house: arrows point down only, and heavy libraries stay where they belong.

One arrow points up, for annotations alone: a hook of a callback takes a ``Sequential``, because
with a protocol in its place mypy would refuse a user's hook that takes ``fastcnn.Sequential``, and
with a type variable it would refuse a user's class that derives from a plain ``Callback``.
"""

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

BLAS = {"dot", "inner", "matmul", "tensordot", "vdot", "linalg"}
SMALL_PRODUCTS = {
    "data/augmentation.py", "data/drawings.py", "data/preparation.py", "estimator/regressor.py",
}  # fmt: skip
"""Modules with products of small matrices, outside of training steps and predictions."""

PUBLIC = (
    "augmentation", "callbacks", "datasets", "layers", "losses", "metrics", "nets", "optimizers",
    "pictures", "schedules",
)  # fmt: skip
"""Modules that only name what users import; nothing of fastcnn imports from them."""

# From the roof to the ground. A room is a folder of fastcnn; "fastcnn" itself is the public names
# of its __init__. A room imports from floors below its own, and from no neighbour.
HOUSE: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("recipes",),
    ("bench", "estimator", "exchange", "plots", *PUBLIC),
    ("proof",),
    ("models",),
    ("train",),
    ("nn", "data", "article", "distributed"),
    ("fastcnn",),
    ("ops",),
    ("engine.machine",),
    ("engine.registry",),
    ("engine.naive", "engine.im2col", "engine.numba"),
    ("engine.policy",),
    ("core",),
    ("version",),
)
FLOOR = {part: len(HOUSE) - floor for floor, parts in enumerate(HOUSE) for part in parts}

COMPILED_ENGINE: tuple[tuple[str, ...], ...] = (
    ("conv",),
    ("dense", "pool", "elementwise"),
    ("contraction",),
    ("tiles",),
    ("runtime",),
)
"""The rooms of the compiled engine, from the roof to the ground, under its ``__init__``."""
ROOM_FLOOR = {
    room: len(COMPILED_ENGINE) - floor
    for floor, rooms in enumerate(COMPILED_ENGINE)
    for room in rooms
} | {"": len(COMPILED_ENGINE) + 1}
ROOMS = sorted((ROOT / "engine" / "numba").rglob("*.py"))
ENGINES = ("engine.naive", "engine.im2col", "engine.numba")
WRITES_LLVM = ("llvmlite.ir", "numba.extending", "numba.core.cgutils", "numba.core.extending")
WRITERS = ("types", "intrinsics", "atomics", "floats", "runs", "calls")
"""Modules of the compiled engine's runtime that write LLVM, as its tiles do, or name its types."""
COMPILERS = ("instruction_sets", "code_key", "pipeline", "kernel_cache")
"""Modules of the compiled engine's runtime that use LLVM's library itself, and write no LLVM."""


def dotted(path: Path) -> str:
    """The module's name, such as "fastcnn.engine.numba.tiles.products"."""
    parts = ("fastcnn", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(module: str) -> str:
    """The part of the house that a module belongs to: a room, or a room of the engines."""
    names = module.split(".")
    if names[1:2] == ["engine"] and len(names) > 2:
        return f"engine.{names[2]}"
    return names[1] if len(names) > 1 else names[0]


def imports(source: str, *, for_types: bool = False) -> set[str]:
    """Dotted names that a module imports, anywhere but under ``if TYPE_CHECKING``.

    With ``for_types`` these count too. ``from a import b`` counts as "a.b", whether b is a module
    or not.
    """
    result: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += [*node.body, *node.orelse] if for_types else node.orelse
            continue
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            result |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return result


def parts_imported(source: str, *, for_types: bool = False) -> set[str]:
    """Parts of the house that a module imports from."""
    parts: set[str] = set()
    for name in imports(source, for_types=for_types):
        first = name.partition(".")[0]
        if first == "fastcnn":
            named = part(name)
            # "from fastcnn import conv2d" reaches for a public name, "… import ops" for a part.
            parts.add(named if named in FLOOR else "fastcnn")
    return parts


def violations(path: Path, *, for_types: bool = False) -> Iterator[str]:
    here = part(dotted(path))
    if here == "engine":
        return  # its __init__ holds no code
    for there in parts_imported(path.read_text("utf-8"), for_types=for_types) - {here}:
        if FLOOR[there] >= FLOOR[here]:
            yield f"{dotted(path)} imports {there}"


def test_every_part_has_its_floor() -> None:
    assert {part(dotted(path)) for path in MODULES} <= {*FLOOR, "engine"}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_arrows_point_down(path: Path) -> None:
    assert list(violations(path)) == []


def room(module: str) -> str:
    """The room of the compiled engine that a module belongs to; "" for its ``__init__``."""
    return module.split(".")[3] if module.count(".") > 2 else ""


def climbs(module: str, source: str) -> Iterator[str]:
    """The imports that lead from a module of the compiled engine up, or to a neighbouring room."""
    here = room(module)
    for name in sorted(imports(source, for_types=True)):
        there = room(name)
        inside = part(name) == "engine.numba" and there != here
        if inside and ROOM_FLOOR.get(there, ROOM_FLOOR[""]) >= ROOM_FLOOR[here]:
            yield f"{module} imports {name}"


@pytest.mark.parametrize("path", ROOMS, ids=dotted)
def test_arrows_point_down_inside_of_the_compiled_engine(path: Path) -> None:
    assert list(climbs(dotted(path), path.read_text("utf-8"))) == []


def test_the_check_of_rooms_sees_what_it_should() -> None:
    engine = "fastcnn.engine.numba"
    for here, there, allowed in (
        ("conv.direct", "pool.chooser", True), ("conv.direct", "conv.depthwise", True),
        ("dense.forward", "contraction.packing", True), ("dense.forward", "pool.chooser", False),
        ("tiles.rows", "contraction.packing", False), ("runtime.jit", "tiles.rows", False),
    ):  # fmt: skip
        for source in (
            f"from {engine}.{there} import name",
            f"def later():\n    import {engine}.{there}",
            f"if TYPE_CHECKING:\n    from {engine}.{there} import name",
        ):
            assert (list(climbs(f"{engine}.{here}", source)) == []) == allowed, (here, source)
    assert list(climbs(f"{engine}.runtime.jit", f"import {engine}"))
    assert list(climbs(f"{engine}.runtime.jit", "from fastcnn.engine import numba"))
    assert list(climbs(f"{engine}.conv.direct", f"from {engine} import conv2d"))


def test_one_arrow_points_up_for_annotations() -> None:
    inner = [path for path in MODULES if part(dotted(path)) != "fastcnn"]
    climbs = [one for path in inner for one in violations(path, for_types=True)]
    hooks = ["fastcnn.train.averaging", "fastcnn.train.callbacks"]
    assert climbs == [f"{module} imports models" for module in hooks]


@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_knows_another(engine: str) -> None:
    others = set(ENGINES) - {engine}
    files = list((ROOT / engine.replace(".", "/")).rglob("*.py"))
    assert files
    for path in files:
        assert parts_imported(path.read_text("utf-8")) & others == set(), path


def test_what_engines_share_is_geometry_argument_types_memory_and_the_length_of_sums() -> None:
    """The fast engines also share a polynomial, which the specification does not know."""
    of_all = {
        f"fastcnn.core.{name}"
        for name in ("geometry", "broadcasting", "resizing", "arguments", "capacity", "long_sums")
    }
    for engine, polynomials in (("naive", set[str]()), ("im2col", {"fastcnn.core.normal_tail"})):
        allowed = of_all | polynomials
        for path in (ROOT / "engine" / engine).glob("*.py"):
            for name in imports(path.read_text("utf-8")):
                module = name.rpartition(".")[0]
                own = module.startswith(f"fastcnn.engine.{engine}") or name.startswith(
                    f"fastcnn.engine.{engine}"
                )
                assert own or not name.startswith("fastcnn") or {module, name} & allowed, (
                    path,
                    name,
                )


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_libraries_stay_in_their_places(path: Path) -> None:
    here = dotted(path)
    names = imports(path.read_text("utf-8"))
    first = {name.split(".")[0] for name in names}
    compiled = here.startswith("fastcnn.engine.numba")
    writes = here.startswith("fastcnn.engine.numba.tiles") or here in [
        f"fastcnn.engine.numba.runtime.{name}" for name in WRITERS
    ]
    if not compiled:
        assert "numba" not in first
    if here.endswith(".runtime.instruction_sets"):
        names -= {"llvmlite.binding"}  # it asks for the processor, and writes no LLVM
    if not writes:
        assert [name for name in names if name.startswith(WRITES_LLVM)] == []
    if not writes and here not in [f"fastcnn.engine.numba.runtime.{name}" for name in COMPILERS]:
        assert "llvmlite" not in first
    if here != "fastcnn.data.datasets":
        assert "mnist" not in first
    if part(here) != "plots":
        assert "matplotlib" not in first
    if here != "fastcnn.engine" and FLOOR[part(here)] <= FLOOR["fastcnn"]:
        assert first & {"typer", "rich", "matplotlib", "urllib", "mnist"} == set()


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_public_modules_are_for_users_alone(path: Path) -> None:
    assert parts_imported(path.read_text("utf-8")) & {*PUBLIC} == set()


def test_the_check_sees_what_it_should() -> None:
    source = """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from fastcnn.cli import main
        import fastcnn.engine.naive.dense
        from fastcnn import conv2d, nn
        def later():
            import numba.core as core
    """
    source = "\n".join(line[8:] for line in source.splitlines())
    assert parts_imported(source) == {"engine.naive", "nn", "fastcnn"}
    assert "numba.core" in imports(source)


def run(code: str) -> str:
    done = limits.run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_leaves_heavy_modules_out() -> None:
    loaded = run(
        "import sys, fastcnn; fastcnn.engines(); "
        "print(*({'numba', 'llvmlite', 'typer', 'rich', 'mnist', 'urllib.request', 'matplotlib',"
        " 'fastcnn.engine.numba', 'fastcnn.engine.naive', 'fastcnn.engine.im2col'}"
        " & set(sys.modules)))"
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


@pytest.mark.parametrize(
    "room", ["core", "data", "distributed", "estimator", "models", "nn", "train"]
)
def test_blas_is_not_called_between_compiled_kernels(room: str) -> None:
    """A thread of NumPy's BLAS looks for work for some 30 ms, on the core of a compiled worker."""
    for path in sorted((ROOT / room).rglob("*.py")):
        if path.relative_to(ROOT).as_posix() in SMALL_PRODUCTS:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
            is_product |= isinstance(node, ast.Attribute) and node.attr in BLAS
            assert not is_product, f"{path}, line {getattr(node, 'lineno', 0)}"
