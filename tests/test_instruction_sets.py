"""What runs for each instruction set: kernels of its tiles, as far as this processor has it.

Tests that are marked ``each_instruction_set`` run here in processes that compile for a narrower
instruction set than the host's. ``test_memory_safety.py`` does so with the whole matrix of
``guarded.py``. Of an instruction set that the processor does not have, the choices run: the
kernels with its tiles, compiled for the host. The closing summary says what ran.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import instruction_sets, python

from fastcnn.engine.numba.runtime.instruction_sets import INSTRUCTION_SETS, host_registers

HERE = Path(__file__).parent
HOST, *NARROWER = instruction_sets()
# Other processors have the registers of SSE2.
ELSEWHERE = [isa for isa in INSTRUCTION_SETS if isa not in (HOST, *NARROWER, "baseline")]
# In float32, as most kernels differ in the number of lanes alone.
TILES = "(not float64 or remainders or squares) and not (im2col or gradients_over_pixels)"
"""Which of the tests of tiles run for the next narrower instruction set."""
SOME = "not float64 and (pooling or 3x3 or wide-16)"
"""And for others, or with the choices for one that the processor does not have."""
FORMULAS = "not float64 and activations and not im2col"
"""And of the tests of formulas where numbers are computed in another way: without multiply-adds."""


def run_apart(tests: str, *options: str, **environment: str) -> str:
    """Run the marked tests among these in a process, all of which must pass: what it says."""
    command = ["-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    files = [
        str(HERE / f"test_{name}.py")
        for name in ("kernels", "large_dense", "long_sums", "activations")
    ]
    command += ["-m", "each_instruction_set", "-k", tests, *options, *files]
    text = python(*command, **environment).stdout
    closing = re.search(r"^(\d+) passed, \d+ deselected in", text, re.MULTILINE)
    assert closing, text[-2000:]
    assert int(closing[1]) > 50, text[-2000:]
    return text


@pytest.mark.lasts_long
@pytest.mark.parametrize("isa", NARROWER)
def test_kernels_of_a_narrower_instruction_set(
    isa: str, record_property: Callable[[str, object], None]
) -> None:
    tests = f"({TILES if isa == NARROWER[0] else SOME}) and not activations"
    if isa == "sse2":
        tests = f"{tests} or {FORMULAS}"
    text = run_apart(tests, **instruction_sets()[isa])
    assert f"{isa}: this process" in text
    record_property("instruction_set", isa)


@pytest.mark.lasts_long
@pytest.mark.parametrize("isa", ELSEWHERE)
def test_choices_for_an_instruction_set_that_the_processor_does_not_have(
    isa: str, record_property: Callable[[str, object], None]
) -> None:
    text = run_apart(SOME, f"--choose-for={isa}")
    assert f"{isa}: not on this processor, but its choices ran here" in text
    record_property("choices_for", isa)


def test_every_instruction_set_runs_or_its_choices_do() -> None:
    assert {HOST, *NARROWER, *ELSEWHERE} >= set(INSTRUCTION_SETS) - {"baseline"}
    assert host_registers().isa == HOST


RECORDS = """
def test_of_another(record_property):
    record_property("instruction_set", "{ran}")

def test_that_fails(record_property):
    record_property("choices_for", "{failed}")
    assert False
"""


@pytest.mark.parametrize("options", [("-p", "no:xdist"), ("-n", "1")], ids=["alone", "xdist"])
def test_the_summary_says_which_instruction_sets_ran(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    ran, failed = [*NARROWER, *ELSEWHERE][0], ELSEWHERE[-1]
    test = tmp_path / "test_records.py"
    test.write_text(RECORDS.format(ran=ran, failed=failed), "utf-8")
    start = f"import sys, pytest; sys.path.insert(0, {str(HERE)!r}); sys.exit(pytest.main())"
    command = [*options, "-p", "conftest", f"--rootdir={tmp_path}", str(test)]
    text = python("-c", start, *command, check=False).stdout
    assert "1 failed, 1 passed" in text
    (line,) = re.findall(r"^instruction sets: (.*)$", text, re.MULTILINE)
    words = dict(part.split(": ") for part in line.split("; "))
    assert list(words) == [isa for isa in INSTRUCTION_SETS if isa in (HOST, *NARROWER, *ELSEWHERE)]
    assert words[HOST] == "this process"
    assert words[ran] == "a process of its own"
    assert words[failed] == "not on this processor"
