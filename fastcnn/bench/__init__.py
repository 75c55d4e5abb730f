"""The benchmark suite: times of fastcnn, compared with other libraries and the machine's limits.

:mod:`~fastcnn.bench.problems` is the table of timed problems. Each problem becomes a
:mod:`~fastcnn.bench.contest` of fastcnn's engines and of :mod:`~fastcnn.bench.peers`. Every result
is verified before it is timed.
"""

from __future__ import annotations

from fastcnn.bench.history import Comparison, compare
from fastcnn.bench.report import Report
from fastcnn.bench.suite import bench

__all__ = ["Comparison", "Report", "bench", "compare"]
