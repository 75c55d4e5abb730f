"""The benchmark suite: how fast, how near to the machine's limit, and against whom.

:mod:`~fastcnn.bench.problems` is the one table of what is timed; each problem becomes a
:mod:`~fastcnn.bench.contest` of fastcnn's engines and of
:mod:`~fastcnn.bench.peers`, in which every result is verified before it is timed.
"""

from __future__ import annotations

from fastcnn.bench.history import Comparison, compare
from fastcnn.bench.report import Report
from fastcnn.bench.suite import bench

__all__ = ["Comparison", "Report", "bench", "compare"]
