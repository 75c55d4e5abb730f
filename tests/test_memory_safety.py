"""No kernel touches memory beyond its arrays, whatever the shape and the instruction set.

The matrix and how memory is guarded: ``guarded.py``, which also runs all of it by hand.
"""

from __future__ import annotations

import ast
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import guarded
import guarded_nets
import pytest
from processes import instruction_sets, python

import fastcnn
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.engine.numba.runtime.instruction_sets import INSTRUCTION_SETS

HOST, *NARROWER = instruction_sets()


def net_count(share: int, tiled: bool) -> int:
    return len(list(guarded_nets.nets(guarded.NETS_SHARE * min(share, 3), tiled)))


SCOPES: dict[str, tuple[Sequence[str], int, bool]] = {
    **dict.fromkeys(NARROWER, (("float32",), 8, True)),
    HOST: (guarded.DTYPES, 1, False),
}
"""For each instruction set the dtypes, which share of the matrix runs, and whether only tiles do.

The narrower ones first: meanwhile other tests compile for the host, once for all. Plain loops have
the same source for each instruction set, and compiling them takes longer than all of their cases.
"""


@pytest.mark.lasts_long
@pytest.mark.parametrize("isa", SCOPES)
def test_no_kernel_touches_memory_beyond_its_arrays(
    isa: str, record_property: Callable[[str, object], None]
) -> None:
    dtypes, share, tiled = SCOPES[isa]
    cases, nets = len(list(guarded.matrix(dtypes, share, tiled))), net_count(share, tiled)
    report = f"{isa}: {cases} cases and {len(dtypes) * nets} nets without a fault"
    assert guarded.run_apart(isa, dtypes, share, tiled) == report
    record_property("instruction_set", isa)


def test_matrix_holds_what_kernels_get_wrong() -> None:
    layers = [case.problem.geometry for case in guarded.matrix(["float32"])]
    convolutions = [g for g in layers if isinstance(g, ConvGeometry)]
    poolings = [g for g in layers if isinstance(g, PoolGeometry)]
    assert {g.ic for g in convolutions} >= set(guarded.CHANNELS) <= {g.oc for g in convolutions}
    assert {g.ic for g in convolutions if g.depthwise} >= set(guarded.CHANNELS) - {1}
    assert {g.w for g in convolutions} >= set(guarded.WIDTHS) <= {g.w for g in poolings}
    assert {g.c for g in poolings} >= set(guarded.CHANNELS)
    for some in (convolutions, poolings):
        assert {g.n for g in some} >= {1, 2}
        assert len({(g.stride_h, g.stride_w) for g in some}) >= 4
        assert len({(g.pad_top, g.pad_bottom, g.pad_left, g.pad_right) for g in some}) >= 6
    assert len({(g.dilation_h, g.dilation_w) for g in convolutions}) >= 3
    assert any(1 < g.groups < g.ic for g in convolutions)
    for tile in {each.tile_rows for each in INSTRUCTION_SETS.values()}:
        rows = {g.n * g.oh * g.ow % tile for g in convolutions}
        assert rows == set(range(tile)), "each number of rows that a last tile may have"


TRESPASSES = """
import os, sys
from guarded import guarded
from fastcnn.engine.numba.runtime.jit import compiled
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store
from fastcnn.engine.numba.tiles.rows import rows_line

@compiled
def copy(x, at_x, y, at_y, columns):
    tile = tile_from_row(1, 1, 4, x, at_x, columns)
    tile_store(tile, y, rows_line(1, 0, 0), at_y, columns)

def outcome(border, at_x, at_y, columns=4):
    x, y = guarded((6,), "f4", border), guarded((6,), "f4", border)
    child = os.fork()
    if not child:
        copy(x, at_x, y, at_y, columns)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

copy(guarded((6,), "f4", "last"), 0, guarded((6,), "f4", "last"), 0, 4)
print(outcome("first", 0, 0), outcome("last", 2, 2), outcome("last", 3, 3, columns=3))
print(outcome("first", -1, 0), outcome("last", 3, 0), outcome("last", 3, 0, columns=4))
print(outcome("first", 0, -1), outcome("last", 0, 3), outcome("last", 0, 5, columns=2))
"""


def test_an_access_beyond_an_array_ends_the_process(tmp_path: Path) -> None:
    script = tmp_path / "trespasses.py"
    script.write_text(TRESPASSES, "utf-8")
    here = str(Path(__file__).parent)
    start = f"import sys, runpy; sys.path.insert(0, {here!r}); runpy.run_path({str(script)!r})"
    # No other process can import the script, whose kernel therefore has a cache of its own.
    inside, reads, writes = python("-c", start, NUMBA_CACHE_DIR=str(tmp_path)).stdout.splitlines()
    assert inside == "0 0 0"
    assert {int(code) for code in f"{reads} {writes}".split()} <= {-signal.SIGSEGV, -signal.SIGBUS}


FAULTY_NET = """
import os, sys
import guarded
from fastcnn.models.execution import prepared, slices, step_list, turn_list
from guarded_nets import run_nets

def outcome(of, name, short):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        whole = getattr(of, name)
        setattr(of, name, lambda *given, **more: short(whole, *given, **more))
        run_nets(("float32",), 18)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def shifted(whole, slice_, *given):
    place = whole(slice_, *given)
    return place._replace(at=place.at + 4)

def longer(whole, slice_, kernel, samples, stop, *operands, **more):
    whole(slice_, kernel, samples, stop + 1, *operands, **more)

def fewer(whole, entries, key, count, *given, **more):
    return whole(entries, key, count - 1, *given, **more)

sys.stdout.flush()
print("outcomes", outcome(slices.Slice, "_go_forward", lambda whole, *given: whole(*given)),
      outcome(step_list.StepList, "gradient", shifted), outcome(step_list.StepList, "step", longer),
      outcome(turn_list.TurnList, "step", longer), outcome(prepared.Prepared, "entry", fewer))
"""


def test_a_step_beyond_its_place_in_a_program_is_seen(tmp_path: Path) -> None:
    """By a fault, or by a number that it leaves between parameters (exit code 1)."""
    script = tmp_path / "faulty_net.py"
    script.write_text(FAULTY_NET, "utf-8")
    here = str(Path(__file__).parent)
    start = f"import sys, runpy; sys.path.insert(0, {here!r}); runpy.run_path({str(script)!r})"
    *_, last = python("-c", start).stdout.splitlines()
    assert last.startswith("outcomes 0 ")
    assert all(int(code) for code in last.split()[2:])


def test_all_arrays_of_the_kernels_come_from_the_place_that_is_guarded() -> None:
    """Memory from NumPy directly would not be seen."""
    makers = {"empty", "zeros", "ones", "full", "empty_like", "zeros_like", "copy", "pad", "array"}
    makers |= {"ascontiguousarray", "ones_like", "full_like", "astype", "stack", "concatenate"}
    result = set()
    package = Path(fastcnn.__file__).parent
    for path in (*package.glob("engine/numba/**/*.py"), *package.glob("models/execution/*.py")):
        for function in ast.parse(path.read_text("utf-8")).body:
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in makers:
                    result.add(f"{path.stem}.{getattr(function, 'name', '')}")
    stands_in_for_compiled_code = {
        "loads_and_stores._plain_columns",
        "loads_and_stores._plain_row",
        "pooling._plain_squares",
        "products._plain_rank1_masked",
        "packed_products._plain_rank1_packed_masked",
        "packed_products._plain_unpacked",
        "transposes._plain_rank1_square",
        "winograd._plain_square",
        "totals._plain_room",
        "totals._plain_added",
        "totals._plain_total",
    }
    guarded_on_its_own = {"threads._Pool"}
    # Where the memory comes from when nothing stands in its place, and records that are only read.
    guarded_on_its_own |= {
        "memory.",
        "memory.empty",
        "memory._new_block",
        "memory._untouched_zeros",
    }
    guarded_on_its_own |= {"arrays.record"}
    guarded_on_its_own |= {"weights._aligned"}  # guarded_nets puts guarded memory in its place
    # Lists of steps and of pieces, which are only read, and arrays that only stand for their type.
    makers_of_programs = "", "step", "split_step", "make_program", "make_training"
    tables = {f"program.{name}" for name in makers_of_programs}
    tables |= {
        "programs.",
        "programs._programs_of",
        "programs._sums_of_slabs",
        "programs._transposes",
        "step_list.StepList",
        "slices.Slice",
        "backward._by_blocks",
        "compiled.",
        "kept_results._copy_of",
        "kept_results._digest",
        "executor.Executor",
        "calls.",
        "calls.step_address",
        "broadcasting.table_of",
        "turns.make_turns",
        "prepared.Prepared",
        "prepared._entries_with_places",
        "prediction_steps._launch",
        "norm_steps.group_norm",
        "norm_steps.response_norm",
    }
    # A scale of ones and a shift of zeros, where a layer has none; kernels only read them.
    tables |= {"prediction_steps._bias"}
    # Copies of other layers' results, where kernels would not take these, and of results for users.
    copies = {"lone.checked_result", "compiled.CompiledSegment"}
    copies |= {"prediction.Prediction"}
    copies |= {"preparation.rehearse"}  # samples of a rehearsal, in which no kernel runs
    # Statistics of a batch in parts, which NumPy joins and no kernel reads.
    copies |= {"normalization.moments", "normalization.normalise_by", "shard_passes.UnitPasses"}
    copies |= {"lone.LoneNormalisation", "training_units.LoneNode"}
    # Results of several shards are joined in memory from there.
    copies |= {"shard_passes._joined"}
    # Whether a queue is empty, and copies of a list.
    no_arrays = {"threads._Worker", "memory._all_blocks"}
    parameters = {"weights._aligned"}  # a model's own arrays, which outlive every call
    known = (
        parameters | stands_in_for_compiled_code | guarded_on_its_own | tables | copies | no_arrays
    )
    assert result <= known, result - known
