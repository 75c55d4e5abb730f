"""The benchmark suite: how fast, how near to the machine's limit, and against whom.

:mod:`~fastcnn.benchmark.problems` is the one table of what is timed; each problem becomes a
:mod:`~fastcnn.benchmark.contest` of fastcnn's engines and of
:mod:`~fastcnn.benchmark.peers`, in which every result is verified before it is timed.
"""

from __future__ import annotations

from fastcnn.benchmark.history import Comparison, compare
from fastcnn.benchmark.report import Report
from fastcnn.benchmark.suite import bench

__all__ = ["Comparison", "Report", "bench", "compare"]
