"""What this machine can do at most: multiply-adds and memory copies, on one and on all threads.

python benchmarks/peak.py
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from fastcnn.bench.peak import Peak, measure


def table(peak: Peak) -> Table:
    """The peak as a table, one row for each number of threads."""
    result = Table(title="Measured peak")
    for heading in ("threads", "float32 GFLOP/s", "float64 GFLOP/s", "copy GB/s"):
        result.add_column(heading, justify="right")
    for n in peak.copy:
        result.add_row(
            str(n),
            f"{peak.flops['float32'][n]:.1f}",
            f"{peak.flops['float64'][n]:.1f}",
            f"{peak.copy[n]:.1f}",
        )
    return result


if __name__ == "__main__":
    Console().print(table(measure()))
