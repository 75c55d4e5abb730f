"""Which kernel serves a problem on which instruction set: the same answer on every host.

The table is in ``choices.py``; nothing here is compiled.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import choices
import pytest
from choices import ITEMSIZES, ROWS, differences
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcnn
from fastcnn.core.geometry import ConvGeometry, conv_geometry, pool_geometry
from fastcnn.engine.numba.contraction import chooser
from fastcnn.engine.numba.contraction.contraction import Plan, Tile
from fastcnn.engine.numba.contraction.lines import Lines
from fastcnn.engine.numba.conv import direct, winograd_plan
from fastcnn.engine.numba.pool import chooser as pooling
from fastcnn.engine.numba.runtime.instruction_sets import (
    INSTRUCTION_SETS,
    Choice,
    choice_of,
    choosing_for,
    host_registers,
    registers,
)


@pytest.mark.parametrize("name", ROWS)
def test_choices_are_those_of_the_table(name: str) -> None:
    assert list(differences({name: ROWS[name]})) == []


@pytest.mark.parametrize("isa", choices.INSTRUCTION_SETS)
def test_a_wrong_expectation_about_an_instruction_set_shows_on_every_host(isa: str) -> None:
    for name, row in ROWS.items():
        for place, dtype in enumerate(ITEMSIZES):
            expected = list(getattr(row, isa))
            right, expected[place] = expected[place], "another kernel 1×1×1"
            wrong = row._replace(**{isa: tuple(expected)})
            message = f"{name}, {isa}, {dtype}: {right}, not another kernel 1×1×1"
            assert list(differences({name: wrong})) == [message]


def test_the_table_tells_instruction_sets_apart() -> None:
    """Each pair of them differs in some row, and each kernel that has a choice is there."""
    for one in choices.INSTRUCTION_SETS:
        for other in choices.INSTRUCTION_SETS:
            same = all(getattr(row, one) == getattr(row, other) for row in ROWS.values())
            assert same == (one == other)
    pairs = (pair for row in ROWS.values() for pair in row[1:])
    names = {choice.split(" ")[0] for pair in pairs for choice in pair}
    assert names >= {
        "average_rows", "column_sums", "contraction", "depthwise", "extreme_gradient_rows",
        "extreme_rows", "few_steps", "winograd_gradient", "lines", "lines_pooled", "none", "packed",
        "products", "transpose_taps", "few_samples", "winograd",
    }  # fmt: skip


def test_every_instruction_set_of_the_table_is_known() -> None:
    assert [*choices.INSTRUCTION_SETS, "baseline"] == list(INSTRUCTION_SETS)
    for isa, each in INSTRUCTION_SETS.items():
        assert each.isa == isa
        assert each.tile_rows * each.tile_vectors + each.tile_vectors + 1 <= each.number


# Facts that hold for every problem.

ISAS = st.sampled_from(list(INSTRUCTION_SETS))
SIZES = st.sampled_from(list(ITEMSIZES.values()))
SIDES = st.integers(1, 40)
CHANNELS = st.one_of(st.integers(1, 12), st.integers(1, 140))
# One channel and rows of three and five taps, which have tiles of their own, are drawn often.
INPUTS = st.one_of(st.just(1), CHANNELS)
TAPS = st.sampled_from([1, 2, 3, 3, 4, 5, 5])


@st.composite
def convolutions(draw: st.DrawFn) -> ConvGeometry:
    """Any that has an output."""
    groups = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
    depthwise = groups == 1 and draw(st.integers(1, 4)) == 1
    ic = groups * draw(INPUTS)
    oc, groups = (ic, ic) if depthwise else (groups * draw(CHANNELS), groups)
    kh, kw = draw(TAPS), draw(TAPS)
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    reach = [(k - 1) * dilation + 1 for k in (kh, kw)]
    padding = draw(st.sampled_from(["valid", "same", 1]))
    h, w = draw(SIDES), draw(SIDES)
    if padding != "same":
        h, w = max(h, reach[0]), max(w, reach[1])
    x, filters = (draw(st.integers(1, 9)), h, w, ic), (kh, kw, ic // groups, oc)
    return conv_geometry(
        x, filters, stride=stride, dilation=dilation, padding=padding, groups=groups
    )


def pooled_plan(g: ConvGeometry, itemsize: int) -> Plan | None:
    """The plan with 2×2 max-pooling, where there is a window at all."""
    pooled = direct.pooled_plan(g, itemsize) if min(g.oh, g.ow) >= 2 else None
    return pooled and pooled[1]


def kernels_of_convolution(g: ConvGeometry, itemsize: int) -> Iterator[Any]:
    """Of all directions and ways."""
    yield direct.forward_plan(g, itemsize)[1].function
    yield direct.filter_sum_plan(g, itemsize)[1].function
    for phase in direct.input_gradient_plan(g, itemsize).phases:
        yield phase.function
    if (pooled := pooled_plan(g, itemsize)) is not None:
        yield pooled.function
    yield direct.forward_decision(g, itemsize, packable=True)[1].plan.function
    if g.groups == 1 and g.kh == g.kw in (3, 5) and (g.stride_h, g.dilation_h) == (1, 1):
        yield winograd_plan.forward_plan(g, itemsize).kernel


def needed(choice: Choice) -> int:
    """Registers for the sums of a tile and for what a step adds to them."""
    sides = choice.literals
    lines = sides.get("lines", Lines(1, sides.get("rows", 1)))
    rows, vectors = lines.lines * lines.length, sides.get("vectors", 1)
    if choice.name == "few_samples":  # a square of weights
        return rows + int(sides["lanes"])
    if choice.name == "products" and rows == 1:
        return 0  # memory is the limit: rows are read in long pieces, whatever sums are stored
    if choice.name in ("packed", "products") or rows == 1:  # one vector of weights at a time
        return rows * vectors + 2
    return rows * vectors + vectors * max(1, lines.taps) + 1


def assert_fits(kernel: Any, itemsize: int) -> None:
    choice, host = choice_of(kernel), registers()
    lanes = choice.literals["lanes"]
    assert lanes & (lanes - 1) == 0, choice
    assert lanes >= 2, choice
    assert lanes * itemsize <= host.vector_bytes, choice
    assert needed(choice) <= host.number, f"{choice} takes {needed(choice)} registers"


@settings(max_examples=300, deadline=None)
@given(ISAS, SIZES, convolutions())
def test_sums_and_operands_of_convolutions_fit_the_registers(
    isa: str, itemsize: int, g: ConvGeometry
) -> None:
    with choosing_for(isa):
        for kernel in kernels_of_convolution(g, itemsize):
            assert_fits(kernel, itemsize)


@settings(max_examples=150, deadline=None)
@given(ISAS, SIZES, st.integers(1, 200), st.integers(1, 5000), st.integers(1, 1200))
def test_sums_and_operands_of_dense_layers_fit_the_registers(
    isa: str, itemsize: int, n: int, inputs: int, outputs: int
) -> None:
    with choosing_for(isa):
        for problem in (choices.dense, choices.dense_dx, choices.dense_dw):
            assert_fits(problem(n, inputs, outputs)(itemsize), itemsize)


@settings(max_examples=50, deadline=None)
@given(ISAS, SIZES, CHANNELS, st.integers(1, 3), st.sampled_from(["max", "min", "average"]))
def test_sums_and_operands_of_poolings_fit_the_registers(
    isa: str, itemsize: int, channels: int, size: int, kind: str
) -> None:
    x = (2, 9, 11, channels)
    with choosing_for(isa):
        for problem in (choices.pool, choices.pool_dx):
            assert_fits(problem(kind, x, size, stride=2)(itemsize), itemsize)
        if size == 2 and itemsize == 4:
            g = pool_geometry(x, size, stride=2)
            assert_fits(pooling.argmax_gradient_kernel(g, itemsize)[0], itemsize)


def rows_of_tiles(lines: Lines, rows: int) -> list[range]:
    """The rows of each tile of a line, as the kernels cut it."""
    count = lines.tiles_of_line(rows)
    if not lines.mixed:
        starts = (min(tile * lines.length, rows - lines.length) for tile in range(count))
        return [range(start, start + lines.length) for start in starts]
    short = (count * lines.length - rows) // 2
    sizes = [lines.length] * (count - short) + [lines.length - 2] * short
    return [range(sum(sizes[:tile]), sum(sizes[: tile + 1])) for tile in range(count)]


@settings(max_examples=300, deadline=None)
@given(ISAS, SIZES, convolutions())
def test_lines_cover_each_row_and_items_each_tile(isa: str, itemsize: int, g: ConvGeometry) -> None:
    with choosing_for(isa):
        plans = [direct.forward_plan(g, itemsize)[1], direct.filter_sum_plan(g, itemsize)[1]]
        if (pooled := pooled_plan(g, itemsize)) is not None:
            plans.append(pooled)
    for plan in plans:
        choice, numbers = choice_of(plan.function), plan.numbers[0]
        assert plan.items >= 1
        if choice.name not in ("contraction", "lines", "lines_pooled"):
            continue
        sides, extents = choice.literals, numbers["rows"]
        lines_of_rows, rows_c = int(extents["a"] * extents["b"]), int(extents["c"])
        if "lines" in sides:
            lines = sides["lines"]
            tiles = rows_of_tiles(lines, rows_c)
            assert sorted({row for tile in tiles for row in tile}) == list(range(rows_c))
            # A tile that others cover would be work for nothing.
            assert all(a.start < b.start for a, b in pairwise(tiles))
            assert lines_of_rows % lines.lines == 0
            if choice.name == "lines_pooled":
                assert all(tile.start % 2 == 0 for tile in tiles)
            of_tile = lines.lines * lines.length
        else:
            of_tile = sides["rows"]
        rows = lines_of_rows * rows_c
        columns = int(numbers["columns"]["total"])
        numbers_in_all = int(numbers["groups"]["total"]) * rows * columns
        width = sides["vectors"] * sides["lanes"]
        assert plan.items * int(numbers["schedule"]["grain"]) * of_tile * width >= numbers_in_all


@settings(max_examples=150, deadline=None)
@given(ISAS, convolutions())
def test_where_no_pooled_plan_is_the_two_operations_have_theirs(isa: str, g: ConvGeometry) -> None:
    with choosing_for(isa):
        pooled = pooled_plan(g, 4)
        assert pooled is None or pooled.items >= 1
        assert direct.forward_plan(g, 4)[1].items >= 1
        if min(g.oh, g.ow) >= 2:
            windows = pool_geometry(g.output_shape, 2, stride=2)
            assert pooling.forward_kernel("max", windows, 4)[1] >= 1


@settings(max_examples=100, deadline=None)
@given(ISAS, SIZES, st.integers(1, 300), st.integers(1, 300))
def test_tiles_are_no_larger_than_the_problem_asks_for(
    isa: str, itemsize: int, rows: int, columns: int
) -> None:
    with choosing_for(isa):
        tile, host = chooser.tile_for(rows, columns, itemsize), registers()
    widest = host.vector_bytes // itemsize
    assert tile.rows in (1, chooser.FEW_ROWS, host.tile_rows)
    assert tile.lanes == widest or columns <= tile.columns
    assert tile.vectors == 1 or columns > widest
    assert isinstance(tile, Tile)


# What explain says about kernels.


def explained(op: str, *args: Any, **kwargs: Any) -> list[str]:
    with choosing_for("avx2"):
        return str(fastcnn.explain(op, *args, **kwargs)).splitlines()


def test_explain_names_the_kernel_its_tile_and_its_tasks_and_why_not_the_others() -> None:
    lines = explained("conv2d", (2, 28, 28, 1), (3, 3, 1, 8), algorithm="direct")
    assert "  kernel: rows of taps, because registers are few" in lines[2]
    assert lines[3] == "    compiled as lines 1×8: 1 line of 8 or 6, 3 taps; 7 items"
    names = [line.split(":")[0] for line in lines[4:7]]
    assert names == ["    not pooled lines", "    not packed filters", "    not all rows"]
    lines = explained("conv2d", (1, 14, 14, 512), (3, 3, 512, 512), algorithm="direct")
    assert "packed filters" in lines[2]
    lines = explained("dense_backward", (1, 10), (1, 1352), (1352, 10))
    assert [line.split(",")[0] for line in lines if "kernel of" in line] == [
        "  kernel of dx: few samples", "  kernel of dw: few steps",
    ]  # fmt: skip
    lines = explained("dense_backward", (32, 128), (32, 9216), (9216, 128))
    assert lines[1] == "  kernels: of 39 blocks of inputs, in one compiled call"
    assert any(line.startswith("  kernel of dw of a block: ") for line in lines)
    assert "large weights" in explained("dense", (1, 9216), (9216, 128))[1]
    lines = explained("conv2d_filter_gradient", (1, 7, 7, 9), (1, 9, 9, 9), 3, groups=9)
    assert any("elementwise" in line for line in lines)
    assert "depthwise" in explained("conv2d", (1, 9, 9, 9), (3, 3, 1, 9), groups=9)[2]
    assert "the batch is empty" in explained("conv2d", (0, 9, 9, 9), (1, 1, 9, 9))[2]


@pytest.mark.parametrize(
    ("op", "shape", "size", "kernel", "refusals"),
    [
        ("max_pool2d", (2, 9, 11, 8), 2, "unrolled window", 0),
        ("min_pool2d", (2, 9, 11, 8), 2, "any window", 1),
        ("avg_pool2d", (2, 9, 11, 8), 2, "average", 3),
        ("avg_pool2d", (1, 70, 70, 8), 70, "long average", 2),
    ],
)
def test_explain_says_which_kernel_pools_and_why_not_those_before_it(
    op: str, shape: tuple[int, ...], size: int, kernel: str, refusals: int
) -> None:
    lines = str(fastcnn.explain(op, shape, size)).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"  kernel: {kernel}, "))
    assert lines[first + 1].startswith("    compiled as ")
    assert len([line for line in lines[first:] if line.startswith("    not ")]) == refusals


@pytest.mark.parametrize(
    ("channels", "order", "not_in_slabs"),
    [
        (8, "by squares", "9 squares make fewer than 4 slabs"),
        (112, "by columns", "the sums of 1764 KiB are large"),
    ],
)
def test_explain_says_in_which_order_winograd_computes(
    channels: int, order: str, not_in_slabs: str
) -> None:
    x, w = (1, 12, 12, channels), (3, 3, channels, channels)
    parameters: dict[str, Any] = {"algorithm": "winograd", "padding": "same"}
    explained = str(fastcnn.explain("conv2d", x, w, **parameters))
    assert f"kernel: {order}, because" in explained
    assert ("    not by squares: 9 squares are too few" in explained) == (order == "by columns")
    explained = str(fastcnn.explain("conv2d_filter_gradient", x, x, 3, **parameters))
    assert f"    not in slabs: {not_in_slabs}" in explained


# The one place where the instruction set is set.


def test_choices_are_forgotten_when_the_instruction_set_changes() -> None:
    row = ROWS["article: 3×3 to 8 on 28×28×1, one image"]
    first = {isa: choices.choices(row.problem, isa) for isa in choices.INSTRUCTION_SETS}
    again = {isa: choices.choices(row.problem, isa) for isa in reversed(choices.INSTRUCTION_SETS)}
    assert first == again
    here = row.problem(4)
    with choosing_for("avx512"):
        wide = row.problem(4)
        with choosing_for("sse2"):
            assert row.problem(4) is not wide
            assert registers() is INSTRUCTION_SETS["sse2"]
        assert row.problem(4) is wide
    assert row.problem(4) is here
    assert registers() is host_registers()


def test_the_host_is_chosen_for_again_after_an_error() -> None:
    def fail() -> None:
        with choosing_for("neon"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert registers() is host_registers()
    with pytest.raises(KeyError, match="mmx"), choosing_for("mmx"):
        pass
    assert registers() is host_registers()


def functions_with(decorator: str, path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            names = {ast.unparse(each).partition("(")[0] for each in node.decorator_list}
            if decorator in names:
                yield node


ROOT = Path(fastcnn.__file__).parent
SOURCES = sorted(
    [*(ROOT / "engine" / "numba").rglob("*.py"), *(ROOT / "models" / "execution").glob("*.py")]
)
# What these cache is the same for all instruction sets.
OTHER_CACHES = {
    "arrays._dtype_of",
    "arrays._floats_in",
    "arrays.record",
    "instruction_sets.host_registers",
    "kernel_cache.cache_folders",
    "code_key.source_stamp",
    "code_key._module_stamp",
    "winograd_kernel.square_transform",
    "broadcasting.joined_axes",
    "merging._row_plan",
    "merging._sum_plan",
    "resizing.sums_are_long",
}


def test_no_cache_keeps_what_was_chosen_for_another_instruction_set() -> None:
    caches, factories = set(), 0
    for path in SOURCES:
        for decorator in ("cache", "lru_cache"):
            for function in functions_with(decorator, path):
                caches.add(f"{path.stem}.{function.name}")
        for function in functions_with("kernel_factory", path):
            factories += 1
            names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
            assert not names & {"registers", "host_registers"}, f"{path.stem}.{function.name}"
    assert factories >= 20
    assert {name for name in caches if name not in OTHER_CACHES} == set()


def test_compiled_code_is_for_the_host_alone() -> None:
    """What writes LLVM asks for the host: code for another would be kept under its name."""
    names = set()
    for path in (ROOT / "engine" / "numba" / "tiles").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "host_registers" in names
    assert "registers" not in names
