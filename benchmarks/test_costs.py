"""What comes before the first result, each in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastcnn.bench.costs import OURS, installed_size, process

ROUNDS = 3


def test_import(benchmark: Any, tmp_path: Path) -> None:
    benchmark.group = "process"
    figures = benchmark.pedantic(lambda: process(OURS, str(tmp_path), call=False), rounds=ROUNDS)
    assert 0 < figures["import"] <= figures["first"]
    benchmark.extra_info |= figures


def test_first_call_with_a_full_cache(benchmark: Any, tmp_path: Path) -> None:
    """An empty cache the first time: what that took is in ``extra_info``."""
    benchmark.group = "process"
    cold = process(OURS, str(tmp_path))
    warm = benchmark.pedantic(lambda: process(OURS, str(tmp_path)), rounds=ROUNDS)
    assert 0 < warm["first"] < cold["first"]
    benchmark.extra_info |= warm | {"first_with_an_empty_cache": cold["first"]}
    benchmark.extra_info["installed_megabytes"] = installed_size()
